//! Cores: those the plan asks for, and who else is on those that threads spin on.

use std::collections::BTreeSet;

use embarcadero::runtime::cpu::numa_node_below;

use super::Seen;
use super::needs::counted;
use super::report::{Check, State};
use super::tree::{Tree, list};

const CPUS: &str = "sys/devices/system/cpu";
const NODES: &str = "sys/devices/system/node";
/// How many interrupts are named.
const NAMED_MAX: usize = 4;

/// All of this group.
pub fn checks(seen: &Seen<'_>) -> Vec<Check> {
    vec![plan(seen), isolated(seen), tickless(seen), interrupts(seen), siblings(seen), nodes(seen)]
}

fn plan(seen: &Seen<'_>) -> Check {
    const NAME: &str = "cores for the plan";
    let usable = match &seen.needs.usable {
        Ok(usable) => usable,
        Err(error) => return Check::new(NAME, State::Fail, error.to_string()).needed("sched_getaffinity, allowed"),
    };
    let (count, cores) = (usable.count(), list(&usable.ids));
    let quota = if count < usable.ids.len() { format!(", {count} at once by a quota") } else { String::new() };
    let found = format!("{} usable: {cores}{quota}", usable.ids.len());
    match &seen.needs.plan {
        Err(error) if closed_cores(seen).is_some() => Check::new(NAME, State::Fail, found)
            .needed(format!(
                "{error}; {} are isolated: whoever is to use them is put there",
                closed_cores(seen).unwrap_or_default()
            ))
            .remedy(affinity(&isolated_cores(seen.tree).unwrap_or_default())),
        Err(error) => Check::new(NAME, State::Fail, found)
            .needed(error.clone())
            .remedy("threads: { mode: auto, idle: park, cores: auto }        # in the configuration")
            .remedy("systemd-run -p AllowedCPUs=2-31 ...        # or taskset -c 2-31 ...: more cores"),
        Ok(plan) => {
            let check = Check::new(NAME, State::Ok, format!("{found}; {}", seen.needs.in_words()));
            match plan.notes.is_empty() {
                true => check,
                false => Check { state: State::Note, ..check }.needed(plan.notes.join("; ")),
            }
        }
    }
}

/// The cores that threads spin on; or what is said where there are none: nobody minds then who else is on a core.
fn spun_on(name: &'static str, seen: &Seen<'_>) -> Result<Vec<usize>, Check> {
    match (seen.needs.spins(), seen.needs.spinning()) {
        (_, cores) if !cores.is_empty() => Ok(cores),
        (false, _) => Err(Check::new(name, State::Ok, "not looked at: no thread of this configuration spins")),
        (true, _) if seen.needs.plan.is_ok() => {
            let found = "not known here: a thread spins, and is pinned to no core (threads.cores)";
            Err(Check::new(name, State::Note, found))
        }
        (true, _) => Err(Check::new(name, State::Note, "not known here: which cores threads would spin on")),
    }
}

/// Cores that are kept from the scheduler, by the command line or by a partition of a cpuset.
fn isolated_cores(tree: &Tree) -> Option<Vec<usize>> {
    let mut cores = tree.cores(&format!("{CPUS}/isolated"))?;
    cores.extend(tree.cores("sys/fs/cgroup/cpuset.cpus.isolated").unwrap_or_default());
    Some(cores)
}

/// Those of the first that the second lacks.
fn without(cores: &[usize], others: &[usize]) -> Vec<usize> {
    cores.iter().copied().filter(|core| !others.contains(core)).collect()
}

/// The cores that nobody spins on.
fn other_cores(seen: &Seen<'_>) -> String {
    let online = seen.tree.cores(&format!("{CPUS}/online")).unwrap_or_default();
    let others = without(&online, &seen.needs.spinning());
    if others.is_empty() { "0".into() } else { list(&others) }
}

fn isolated(seen: &Seen<'_>) -> Check {
    const NAME: &str = "isolated cores";
    let spinning = match spun_on(NAME, seen) {
        Ok(spinning) => spinning,
        Err(check) => return check,
    };
    let Some(isolated) = isolated_cores(seen.tree) else { return Check::unknown(NAME, &format!("/{CPUS}/isolated")) };
    let missing = without(&spinning, &isolated);
    if missing.is_empty() {
        return Check::new(NAME, State::Ok, format!("{}; threads spin on {}", list(&isolated), list(&spinning)));
    }
    if let Some(closed) = closed_cores(seen) {
        return Check::new(NAME, State::Warn, format!("{closed} are isolated, and this process may not use them"))
            .needed("that the broker is started on them: the kernel keeps off isolated cores whoever is not put there")
            .remedy(affinity(&isolated));
    }
    let found = if isolated.is_empty() { "none".to_owned() } else { list(&isolated) };
    Check::new(NAME, State::Warn, format!("{found}; threads spin on {}", list(&spinning)))
        .needed(format!(
            "{}: what the scheduler puts there takes the time of a thread that never sleeps",
            list(&missing)
        ))
        .remedy(format!("isolcpus=managed_irq,domain,{}        # kernel command line", list(&spinning)))
        .remedy(format!("systemd-run -p AllowedCPUs={} ...        # or so, without a reboot", list(&spinning)))
}

/// Isolated cores that this process may not use.
fn closed_cores(seen: &Seen<'_>) -> Option<String> {
    let usable = seen.needs.usable.as_ref().map_or(&[][..], |usable| &usable.ids);
    let closed = without(&isolated_cores(seen.tree)?, usable);
    (!closed.is_empty()).then(|| list(&closed))
}

fn affinity(cores: &[usize]) -> String {
    format!("CPUAffinity={0}        # in the unit; or: taskset -c {0} embarlet ...", list(cores))
}

fn tickless(seen: &Seen<'_>) -> Check {
    const NAME: &str = "timer ticks";
    let spinning = match spun_on(NAME, seen) {
        Ok(spinning) => spinning,
        Err(check) => return check,
    };
    let Some(tickless) = seen.tree.cores(&format!("{CPUS}/nohz_full")) else {
        return Check::unknown(NAME, &format!("/{CPUS}/nohz_full (a kernel without CONFIG_NO_HZ_FULL)"));
    };
    let missing = without(&spinning, &tickless);
    Check::new(NAME, State::Note, format!("on {} of the {} that spin", missing.len(), counted(spinning.len(), "core")))
        .needed("none: 100 to 1000 interrupts a second on each core that spins")
        .remedy(format!("nohz_full={0} rcu_nocbs={0}        # kernel command line", list(&spinning)))
        .ok_if(missing.is_empty())
}

/// Interrupts somebody handles, with the cores that they may come to.
fn handled(tree: &Tree) -> Vec<(String, Vec<usize>)> {
    let one = |number: usize| {
        let folder = format!("proc/irq/{number}");
        let handler = tree.names(&folder).into_iter().find(|name| tree.path(&format!("{folder}/{name}")).is_dir())?;
        Some((format!("{number} {handler}"), tree.cores(&format!("{folder}/smp_affinity_list"))?))
    };
    tree.numbers("proc/irq", "").into_iter().filter_map(one).collect()
}

fn interrupts(seen: &Seen<'_>) -> Check {
    const NAME: &str = "interrupts";
    let spinning = match spun_on(NAME, seen) {
        Ok(spinning) => spinning,
        Err(check) => return check,
    };
    let handled = handled(seen.tree);
    if handled.is_empty() {
        return Check::unknown(NAME, "/proc/irq/*/smp_affinity_list");
    }
    let comes = |(_, cores): &&(String, Vec<usize>)| cores.iter().any(|core| spinning.contains(core));
    let there: Vec<&str> = handled.iter().filter(comes).map(|(name, _)| &**name).collect();
    let named = there.iter().take(NAMED_MAX).copied().collect::<Vec<_>>().join(", ");
    let more = if there.len() > NAMED_MAX { ", …" } else { "" };
    let mover = seen.tree.runs(&["irqbalance"]);
    let moved = if mover.is_some() { "; irqbalance runs, and moves them" } else { "" };
    let found = match there.len() {
        0 => format!("none of {} may come to cores that spin{moved}", handled.len()),
        count => format!("{count} of {} may come to cores that spin ({named}{more}){moved}", handled.len()),
    };
    let others = other_cores(seen);
    let check = Check::new(NAME, if there.is_empty() { State::Note } else { State::Warn }, found)
        .needed(format!("all of them on cores that nobody spins on, as {others}"));
    let check = if mover.is_some() { check.remedy("systemctl disable --now irqbalance") } else { check };
    check
        .remedy(format!("for irq in /proc/irq/[0-9]*; do echo {others} > $irq/smp_affinity_list; done"))
        .remedy(format!("irqaffinity={others}        # kernel command line, for good"))
        .ok_if(there.is_empty() && mover.is_none())
}

fn siblings(seen: &Seen<'_>) -> Check {
    const NAME: &str = "hyperthread siblings";
    let spinning = match spun_on(NAME, seen) {
        Ok(spinning) => spinning,
        Err(check) => return check,
    };
    let of = |core: usize| seen.tree.cores(&format!("{CPUS}/cpu{core}/topology/thread_siblings_list"));
    let known: Vec<(usize, Vec<usize>)> = spinning.iter().filter_map(|core| Some((*core, of(*core)?))).collect();
    if known.is_empty() {
        return Check::unknown(NAME, &format!("/{CPUS}/cpu*/topology/thread_siblings_list"));
    }
    let others = |core: usize, siblings: &[usize]| without(siblings, &[core]);
    let doubled: BTreeSet<Vec<usize>> = known
        .iter()
        .filter(|(core, all)| others(*core, all).iter().any(|other| spinning.contains(other)))
        .map(|(_, all)| all.clone())
        .collect();
    if !doubled.is_empty() {
        let pairs = doubled.iter().map(|pair| list(pair)).collect::<Vec<_>>().join(" and ");
        let firsts: BTreeSet<usize> = known.iter().filter_map(|(_, all)| all.iter().min().copied()).collect();
        let firsts = firsts.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
        return Check::new(NAME, State::Warn, format!("threads spin on both of: {pairs}"))
            .needed("a physical core for each thread that spins: two on one take each other's time")
            .remedy(format!("threads: {{ cores: [{firsts}] }}        # and further cores, one of each pair"));
    }
    let idle = known.iter().flat_map(|(core, all)| others(*core, all)).collect::<Vec<_>>();
    Check::new(NAME, State::Note, format!("{} share a physical core with cores that spin", list(&idle)))
        .needed("that nobody uses them: whatever runs there takes time of the thread that spins beside it")
        .remedy(format!("for core in {}; do", idle.iter().map(usize::to_string).collect::<Vec<_>>().join(" ")))
        .remedy("  echo 0 > /sys/devices/system/cpu/cpu$core/online; done")
        .ok_if_so(idle.is_empty(), "none: each core that spins is a physical one")
}

/// Nodes with cores that are nearest to one, which may have none of its own: memory behind CXL is a node without cores.
fn nearest(tree: &Tree, node: usize) -> Vec<usize> {
    let has_cores =
        |node: &usize| tree.cores(&format!("{NODES}/node{node}/cpulist")).is_some_and(|cores| !cores.is_empty());
    let all = tree.numbers(NODES, "node");
    let distances = tree.text(&format!("{NODES}/node{node}/distance")).unwrap_or_default();
    // In the order of the nodes that are online.
    let distances: Vec<(u64, usize)> = distances
        .split_whitespace()
        .zip(&all)
        .filter_map(|(word, node)| Some((word.parse().ok()?, *node)))
        .filter(|(_, node)| has_cores(node))
        .collect();
    let Some(least) = distances.iter().map(|(distance, _)| *distance).min() else { return vec![node] };
    distances.iter().filter(|(distance, _)| *distance == least).map(|(_, node)| *node).collect()
}

fn nodes(seen: &Seen<'_>) -> Check {
    const NAME: &str = "NUMA nodes";
    let (tree, pinned) = (seen.tree, seen.needs.pinned());
    let all = tree.numbers(NODES, "node");
    match all.len() {
        0 => return Check::unknown(NAME, &format!("/{NODES}")),
        1 => return Check::new(NAME, State::Ok, "one node: all memory is as near"),
        _ => {}
    }
    let node_of = |core: &usize| numa_node_below(tree.root(), *core);
    let device = super::device::folder(seen);
    let number =
        |name: &str| device.as_ref().and_then(|folder| tree.text(&format!("{folder}/{name}"))?.parse::<usize>().ok());
    if pinned.is_empty() {
        return Check::new(
            NAME,
            State::Note,
            format!("{} nodes, and no thread is pinned: each runs wherever there is room", all.len()),
        )
        .needed("cores of one node, near the pool, if latencies matter")
        .remedy("threads: { cores: [2, 3, 4, 5] }        # of one node, as `lscpu -e` lists them");
    }
    let on: BTreeSet<usize> = pinned.iter().filter_map(node_of).collect();
    // numa_node is the nearest node that was online at boot; target_node the one that the memory would be.
    let Some(home) = number("numa_node").or_else(|| number("target_node")) else {
        let words = on.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
        return Check::new(
            NAME,
            State::Note,
            format!("pinned cores are on nodes {words}; the pool's memory is wherever it was touched first"),
        )
        .needed("all on one node")
        .remedy("threads: { cores: [2, 3, 4, 5] }        # of one node, as `lscpu -e` lists them")
        .ok_if(on.len() < 2);
    };
    let near = nearest(tree, home);
    let far: Vec<usize> =
        pinned.iter().copied().filter(|core| node_of(core).is_some_and(|node| !near.contains(&node))).collect();
    let target = number("target_node").map_or(String::new(), |node| format!(" (its memory is node {node})"));
    let better: Vec<usize> =
        near.iter().flat_map(|node| tree.cores(&format!("{NODES}/node{node}/cpulist")).unwrap_or_default()).collect();
    let better = better.iter().take(16).map(usize::to_string).collect::<Vec<_>>().join(", ");
    Check::new(
        NAME,
        State::Warn,
        format!("the device is near node {}{target}; pinned cores that are far: {}", list(&near), list(&far)),
    )
    .needed(
        "cores of the near node, the sequencer's first: each line from the device passes between the processors else",
    )
    .remedy(format!("threads: {{ cores: [{better}] }}"))
    .ok_if_so(far.is_empty(), format!("the device is near node {}{target}, and so are all pinned cores", list(&near)))
}
