//! Who used the machine's processors during a run, and how much of its memory is free.

use std::fs::read_to_string;
use std::path::Path;

use tools_common::clock::monotonic_ns;
use tools_common::report::{cores, memory_bytes};

/// Clock ticks of /proc in a second: part of the kernel's interface, always 100.
const TICKS_PER_SECOND: f64 = 100.0;
/// In a run of fewer ticks nothing can be said about others.
const TICKS_MIN: f64 = 20.0;

/// Processor time used so far, in ticks, of whoever matters to a run.
#[derive(Clone, Copy, Debug)]
pub struct Processors {
    client: u64,
    receiver: u64,
    /// Everybody, and what the hypervisor gave to others.
    all: u64,
    at_ns: u64,
}

/// Who used how much processor time during a run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// This process, processor seconds.
    pub client_s: f64,
    /// The process measured, processor seconds.
    pub receiver_s: f64,
    /// Anybody else, as a part of all usable processors' time: what makes figures noisy.
    pub others: f64,
}

impl Processors {
    /// Up to now. What cannot be read counts as nothing.
    pub fn now(receiver: u32) -> Processors {
        let of = |stat: &str| process_ticks(&read_to_string(stat).unwrap_or_default()).unwrap_or(0);
        Processors {
            client: of("/proc/self/stat"),
            receiver: of(&format!("/proc/{receiver}/stat")),
            all: machine_ticks(&read_to_string("/proc/stat").unwrap_or_default()).unwrap_or(0),
            at_ns: monotonic_ns(),
        }
    }

    /// Since an earlier moment.
    pub fn since(&self, earlier: &Processors) -> Usage {
        let client = self.client.saturating_sub(earlier.client) as f64;
        let receiver = self.receiver.saturating_sub(earlier.receiver) as f64;
        let all = self.all.saturating_sub(earlier.all) as f64;
        let ticks = (self.at_ns - earlier.at_ns) as f64 / 1e9 * TICKS_PER_SECOND * cores() as f64;
        let others = if ticks < TICKS_MIN { 0.0 } else { ((all - client - receiver) / ticks).clamp(0.0, 1.0) };
        Usage { client_s: client / TICKS_PER_SECOND, receiver_s: receiver / TICKS_PER_SECOND, others }
    }
}

/// User and system time: fields 14 and 15 of proc_pid_stat(5). The name before them may contain anything.
fn process_ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut field = || fields.next()?.parse::<u64>().ok();
    Some(field()? + field()?)
}

/// All but idle and iowait of the first line of proc_stat(5); guest time is part of user time.
fn machine_ticks(stat: &str) -> Option<u64> {
    let fields: Vec<u64> = stat.lines().next()?.split_whitespace().skip(1).map_while(|f| f.parse().ok()).collect();
    let [user, nice, system, _idle, _iowait, irq, softirq, steal] = *fields.first_chunk()?;
    Some(user + nice + system + irq + softirq + steal)
}

/// Bytes that a file of the pool's kind may take: a share of what is free, so that several fit.
pub fn automatic_pool_bytes(folder: &Path) -> u64 {
    let available = memory_bytes("MemAvailable:");
    let free = embarcadero::pool::region::free_bytes(folder).ok();
    let least = available.into_iter().chain(free).min().unwrap_or(0);
    (least / 8).clamp(256 << 20, 2 << 30) >> 21 << 21
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_found() {
        let stat = "7 (a (b) c) S 1 7 7 0 -1 4194560 1 2 3 4 30 12 0 0 20 0 1 0";
        assert_eq!(process_ticks(stat), Some(42));
        assert_eq!(machine_ticks("cpu  10 1 5 1000 50 2 3 4 0 0\ncpu0 1"), Some(25));
        assert_eq!((process_ticks(""), machine_ticks("cpu 1")), (None, None));
    }

    #[test]
    fn somebody_uses_the_processors() {
        assert!(Processors::now(std::process::id()).all > 0);
    }
}
