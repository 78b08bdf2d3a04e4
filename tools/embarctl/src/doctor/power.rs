//! Power saving: clocks that sink, and idle states that are slow to leave.

use std::collections::BTreeMap;

use super::Seen;
use super::report::{Check, State};
use super::tree::list;

const CPUS: &str = "sys/devices/system/cpu";
/// An idle state that takes longer to leave is felt in latencies, µs. One of halting alone takes 1 or 2.
const EXIT_US_MAX: u64 = 10;

/// All of this group.
pub fn checks(seen: &Seen<'_>) -> Vec<Check> {
    vec![governor(seen), idle_states(seen)]
}

/// The cores whose power matters: those that threads are pinned to; or all that may be used.
fn cores(seen: &Seen<'_>) -> Vec<usize> {
    let pinned = seen.needs.pinned();
    match (&seen.needs.usable, pinned.is_empty()) {
        (Ok(usable), true) => usable.ids.clone(),
        _ => pinned,
    }
}

/// Who spins is slowed down at every moment; who sleeps now and then has other delays too.
fn severity(seen: &Seen<'_>) -> State {
    if seen.needs.spins() { State::Warn } else { State::Note }
}

fn governor(seen: &Seen<'_>) -> Check {
    const NAME: &str = "clock governor";
    let mut governors: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for core in cores(seen) {
        if let Some(governor) = seen.tree.text(&format!("{CPUS}/cpu{core}/cpufreq/scaling_governor")) {
            governors.entry(governor).or_default().push(core);
        }
    }
    if governors.is_empty() {
        return Check::unknown(NAME, &format!("/{CPUS}/cpu*/cpufreq (a guest, or clocks are the firmware's)"));
    }
    let words = governors.iter().map(|(governor, cores)| format!("{governor} on {}", list(cores)));
    let is_all = governors.keys().all(|governor| governor == "performance");
    Check::new(NAME, severity(seen), words.collect::<Vec<_>>().join(", "))
        .needed("performance: others lower the clock of a core that waits, and take milliseconds to raise it")
        .remedy("cpupower frequency-set -g performance")
        .ok_if(is_all)
}

fn idle_states(seen: &Seen<'_>) -> Check {
    const NAME: &str = "idle states";
    let tree = seen.tree;
    let driver = tree.text(&format!("{CPUS}/cpuidle/current_driver"));
    let mut deepest: Option<(u64, String, usize)> = None;
    for core in cores(seen) {
        let folder = format!("{CPUS}/cpu{core}/cpuidle");
        for state in tree.numbers(&folder, "state") {
            let file = |name: &str| format!("{folder}/state{state}/{name}");
            let is_off = tree.number(&file("disable")).unwrap_or(0) != 0;
            let Some(latency_us) = tree.number(&file("latency")).filter(|_| !is_off) else { continue };
            if deepest.as_ref().is_none_or(|(deepest_us, ..)| latency_us > *deepest_us) {
                deepest = Some((latency_us, tree.text(&file("name")).unwrap_or_default(), core));
            }
        }
    }
    let driver = driver.map_or(String::new(), |driver| format!(" (driver {driver}{})", bound(seen)));
    let Some((latency_us, name, core)) = deepest else {
        return Check::unknown(NAME, &format!("/{CPUS}/cpu*/cpuidle/state*{driver}"));
    };
    Check::new(NAME, severity(seen), format!("the deepest is {name}, {latency_us} µs to leave, on core {core}{driver}"))
        .needed(format!("none above {EXIT_US_MAX} µs: a core that slept, for bytes to arrive or an interrupt, comes back so much later"))
        .remedy(format!("cpupower idle-set -D {EXIT_US_MAX}        # until the next boot"))
        .remedy("intel_idle.max_cstate=1 processor.max_cstate=1        # kernel command line, for good")
        .ok_if(latency_us <= EXIT_US_MAX)
}

/// What the kernel's command line says of it, else the driver.
fn bound(seen: &Seen<'_>) -> String {
    let line = seen.tree.text("proc/cmdline").unwrap_or_default();
    let said = line.split_whitespace().find(|word| {
        ["intel_idle.max_cstate=", "processor.max_cstate=", "idle=", "cpuidle.off="]
            .iter()
            .any(|key| word.starts_with(key))
    });
    said.map_or(String::new(), |said| format!(", {said}"))
}
