//! Which process this is, and which run of which machine it is on: what a member of the pool says of itself.

use crate::utc::utc_ns;

/// What a process says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// Its id on its machine.
    pub id: u32,
    /// When it began to serve, UTC ns.
    pub started_at_utc_ns: u64,
    /// What tells this run of its machine from all others; 0: not known.
    pub boot_id: u64,
}

impl Process {
    /// This one, which begins to serve now.
    pub fn this() -> Process {
        let started_at_utc_ns = utc_ns();
        Process { id: std::process::id(), started_at_utc_ns, boot_id: boot_id() }
    }
}

/// What tells this run of this machine from all others, and from those of other machines. 0: the system does not say.
pub fn boot_id() -> u64 {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map_or(0, |text| folded(text.trim()))
}

/// A random number of 128 bits, written as a UUID, in 64.
fn folded(uuid: &str) -> u64 {
    let digits: String = uuid.chars().filter(|c| *c != '-').collect();
    u128::from_str_radix(&digits, 16).map_or(0, |number| (number >> 64) as u64 ^ number as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boot_is_told_from_others() {
        assert_eq!(folded("00000000-0000-0001-0000-000000000003"), 2);
        assert_eq!(folded("unknown"), 0);
        assert_eq!(boot_id(), boot_id());
    }
}
