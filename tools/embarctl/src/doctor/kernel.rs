//! The kernel: its version, io_uring, its clocks; and whether it is a guest's.

use std::io;

use embarcadero::net::ring::RingError;

use super::Seen;
use super::report::{Check, State};
use super::tree::Tree;

/// Oldest kernel that a broker runs on; and from which on it has what makes it faster.
const KERNEL_LOWEST: (u32, u32) = (5, 19);
const KERNEL_FULL: (u32, u32) = (6, 1);
/// Clocks that are read without asking the kernel or a host.
const FAST_CLOCKS: [&str; 4] = ["tsc", "kvm-clock", "hyperv_clocksource_tsc_page", "hyperv_clocksource"];
const CLOCKS: &str = "sys/devices/system/clocksource/clocksource0";
/// What keeps the time of day.
const TIME_KEEPERS: [&str; 6] = ["chronyd", "ntpd", "ntpsec", "ptp4l", "phc2sys", "systemd-timesyn"];

/// All of this group.
pub fn checks(seen: &Seen<'_>) -> Vec<Check> {
    let mut checks = vec![version(seen), setting(seen), rings(seen), clock(seen), guest(seen)];
    checks.extend(time_of_day(seen));
    checks
}

/// Major and minor number.
fn numbers(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|letter: char| !letter.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Major and minor number of the kernel that runs.
pub fn release(tree: &Tree) -> Option<(u32, u32)> {
    numbers(&tree.text("proc/sys/kernel/osrelease")?)
}

fn version(seen: &Seen<'_>) -> Check {
    const NAME: &str = "kernel version";
    let Some(release) = seen.tree.text("proc/sys/kernel/osrelease") else {
        return Check::unknown(NAME, "/proc/sys/kernel/osrelease");
    };
    match numbers(&release) {
        None => Check::new(NAME, State::Note, format!("{release}, which is not a version as known here")),
        Some(found) if found < KERNEL_LOWEST => Check::new(NAME, State::Fail, release)
            .needed("5.19 or later: older ones lack operations of io_uring that a broker cannot do without")
            .remedy("apt install linux-image-amd64        # or linux-generic, on Ubuntu; then reboot"),
        Some(found) if found < KERNEL_FULL => Check::new(NAME, State::Note, release)
            .needed("6.1 or later: zero-copy sends, deferred task work, huge pages made under a pool's file"),
        Some(_) => Check::new(NAME, State::Ok, format!("{release} (5.19 is the lowest, 6.1 has all that is used)")),
    }
}

fn setting(seen: &Seen<'_>) -> Check {
    const NAME: &str = "io_uring setting";
    const KEY: &str = "kernel.io_uring_disabled";
    let works = seen.asked.rings.is_ok();
    let check = match seen.tree.number("proc/sys/kernel/io_uring_disabled") {
        None => return Check::unknown(NAME, &format!("{KEY}; kernels before 6.6 have none, and allow it")),
        Some(0) => return Check::new(NAME, State::Ok, format!("{KEY} = 0: allowed to everybody")),
        Some(1) if works => {
            return Check::new(NAME, State::Ok, format!("{KEY} = 1: allowed to some, and to this user"));
        }
        Some(1) => Check::new(NAME, State::Fail, format!("{KEY} = 1: allowed to some, and not to this user"))
            .needed("0, or the brokers' user in kernel.io_uring_group: a broker does all its input and output by it")
            .remedy("sysctl -w kernel.io_uring_group=$(id -g embarcadero)"),
        Some(other) => Check::new(NAME, State::Fail, format!("{KEY} = {other}: allowed to nobody"))
            .needed("0: a broker does all its input and output by it"),
    };
    check.remedy("sysctl -w kernel.io_uring_disabled=0        # for good: in /etc/sysctl.d/")
}

/// Not what is said of it, but whether it works.
fn rings(seen: &Seen<'_>) -> Check {
    const NAME: &str = "io_uring";
    let rings = seen.needs.rings();
    let count = super::needs::counted(rings.len(), "ring");
    let needed =
        format!("{count} at once, of {} operations in all", rings.iter().map(|ring| ring.operations).sum::<u32>());
    match &seen.asked.rings {
        Ok(None) => Check::new(NAME, State::Note, "nothing runs here that would need a ring"),
        Ok(Some(mode)) => {
            let check = Check::new(NAME, State::Ok, format!("{count} set up: {mode}"));
            if seen.needs.zero_copy() && !mode.zero_copy {
                Check { state: State::Warn, ..check }
                    .needed("zero-copy sends, which this configuration uses: kernel 6.0")
            } else if !mode.registered {
                Check { state: State::Note, ..check }
                    .needed("registered ack frames: a higher limit of locked memory, below")
            } else {
                check
            }
        }
        Err(RingError::Setup(source)) => {
            let found = format!("cannot be set up: {source}{}", filtered(seen));
            let check = Check::new(NAME, State::Fail, found).needed(needed);
            match source.kind() {
                io::ErrorKind::PermissionDenied => check
                    .remedy("sysctl -w kernel.io_uring_disabled=0        # if the setting is 1 or 2")
                    .remedy("docker run --security-opt seccomp=unconfined ...        # if there is a filter"),
                _ => check.remedy("uname -r        # 5.19 or later; CONFIG_IO_URING=y in /boot/config-*"),
            }
        }
        Err(RingError::LockedMemory { needed, limit }) => Check::new(
            NAME,
            State::Fail,
            format!("cannot be set up: out of locked memory, of which there may be {limit} bytes"),
        )
        .needed(format!("about {needed} bytes for a ring"))
        .remedy("LimitMEMLOCK=infinity        # in the unit; or: ulimit -l unlimited"),
        Err(RingError::Missing(operation)) => {
            Check::new(NAME, State::Fail, format!("this kernel's lacks {operation}")).needed("kernel 5.19 or later")
        }
    }
}

/// Of the filter of system calls that this process is under.
fn filtered(seen: &Seen<'_>) -> &'static str {
    match seen.tree.line("proc/self/status", "Seccomp").as_deref() {
        Some("0") => " (no filter of system calls is in effect)",
        Some(_) => " (a seccomp filter is in effect)",
        None => "",
    }
}

fn clock(seen: &Seen<'_>) -> Check {
    const NAME: &str = "clock source";
    let Some(current) = seen.tree.text(&format!("{CLOCKS}/current_clocksource")) else {
        return Check::unknown(NAME, "/sys/devices/system/clocksource");
    };
    if FAST_CLOCKS.contains(&&*current) {
        return Check::new(NAME, State::Ok, format!("{current}: read without a system call"));
    }
    let available = seen.tree.text(&format!("{CLOCKS}/available_clocksource")).unwrap_or_default();
    let check = Check::new(NAME, State::Warn, format!("{current} (of: {available})"))
        .needed("tsc, or a guest's kvm-clock or Hyper-V page: each pass of a thread reads the time, others make that a system call");
    match available.split_whitespace().find(|name| FAST_CLOCKS.contains(name)) {
        Some(fast) => check.remedy(format!("echo {fast} > /{CLOCKS}/current_clocksource")),
        None => {
            check.remedy("tsc=reliable        # kernel command line, if dmesg says that the TSC was found unstable")
        }
    }
}

/// A hint, and only for several hosts: the log's order needs no clock, its receipts and ages do.
fn time_of_day(seen: &Seen<'_>) -> Option<Check> {
    const NAME: &str = "time of day";
    let hosts = seen.needs.config.geometry.hosts;
    if hosts < 2 {
        return None;
    }
    if seen.tree.has("run/systemd/timesync/synchronized") {
        return Some(Check::new(NAME, State::Ok, "systemd-timesyncd says that it is synchronised"));
    }
    Some(match seen.tree.runs(&TIME_KEEPERS) {
        Some(program) => Check::new(NAME, State::Ok, format!("{program} runs; whether it is synchronised, it knows")),
        None => Check::new(NAME, State::Note, "no program that keeps it was seen (chronyd, ntpd, ptp4l, timesyncd)")
            .needed(format!(
                "one on each of the {hosts} hosts: receipts and ages of messages are told by the host's own clock"
            ))
            .remedy("apt install chrony"),
    })
}

fn guest(seen: &Seen<'_>) -> Check {
    const NAME: &str = "virtualization";
    let tree = seen.tree;
    let Some(flags) = tree.text("proc/cpuinfo") else { return Check::unknown(NAME, "/proc/cpuinfo") };
    let is_guest =
        flags.lines().any(|line| line.starts_with("flags") && line.split(' ').any(|flag| flag == "hypervisor"));
    let container = ["run/.containerenv", ".dockerenv"].into_iter().find(|name| tree.has(name));
    let inside = container.map_or(String::new(), |name| format!("; in a container, as /{name} says"));
    if !is_guest {
        return Check::new(NAME, State::Ok, format!("none seen{inside}"));
    }
    let said = |name: &str| {
        tree.text(&format!("sys/class/dmi/id/{name}"))
            .or_else(|| tree.text(&format!("sys/devices/virtual/dmi/id/{name}")))
    };
    let maker: Vec<String> = ["sys_vendor", "product_name"].iter().filter_map(|name| said(name)).collect();
    let maker = if maker.is_empty() { String::new() } else { format!(" ({})", maker.join(" ")) };
    Check::new(NAME, State::Note, format!("a virtual machine{maker}{inside}"))
        .needed("nothing; but its host gives and takes cores, and latencies are what the host makes of them")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_read() {
        assert_eq!(numbers("6.18.44-fc-v669"), Some((6, 18)));
        assert_eq!(numbers("5.4.0-150-generic"), Some((5, 4)));
        assert_eq!(numbers("6.12-rc1"), Some((6, 12)));
        assert_eq!((numbers(""), numbers("linux")), (None, None));
    }
}
