//! Where figures were taken: the machine's facts, its clock, and who used its processors meanwhile.

use std::fs::read_to_string;
use std::path::Path;
use std::time::Duration;

use embarcadero::runtime::cpu::usable_cores;
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

/// The machine's monotonic clock, the same in every process, ns.
pub fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Processor time this thread has used, ns.
pub fn thread_ns() -> u64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

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

/// Processors this process may use.
pub fn cores() -> usize {
    usable_cores().map_or(1, |cores| cores.count())
}

/// Bytes that a file of the pool's kind may take: a share of what is free, so that several fit.
pub fn automatic_pool_bytes(folder: &Path) -> u64 {
    let available = read_to_string("/proc/meminfo").ok().and_then(|text| kibibytes(&text, "MemAvailable:"));
    let free = embarcadero::pool::region::free_bytes(folder).ok();
    let least = available.into_iter().chain(free).min().unwrap_or(0);
    (least / 8).clamp(256 << 20, 2 << 30) >> 21 << 21
}

fn kibibytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().trim_end_matches(" kB").parse::<u64>().ok().map(|kib| kib << 10)
}

/// What may change between two machines with the same figures.
pub fn facts() -> Value {
    let line = |path: &str| read_to_string(path).ok().map(|text| text.trim().to_owned());
    let info = read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = info.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let virtual_machine = field("flags").is_some_and(|flags| flags.split(' ').any(|flag| flag == "hypervisor"));
    json!({
        "processor": field("model name"),
        "usable_cores": cores(),
        "virtual_machine": virtual_machine,
        "kernel": line("/proc/sys/kernel/osrelease"),
        "memory_bytes": read_to_string("/proc/meminfo").ok().and_then(|text| kibibytes(&text, "MemTotal:")),
        "shmem_huge_pages": line("/sys/kernel/mm/transparent_hugepage/shmem_enabled"),
        "load_average": line("/proc/loadavg"),
        "git": option_env!("EMBARCADERO_GIT_ID"),
        "optimized": !cfg!(debug_assertions),
    })
}

/// A pause between two looks at something that another process does.
pub const LOOK_AGAIN: Duration = Duration::from_millis(10);

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
    fn the_clock_goes_on() {
        let before = monotonic_ns();
        assert!(before > 0 && monotonic_ns() >= before);
        assert!(Processors::now(std::process::id()).all > 0);
    }
}
