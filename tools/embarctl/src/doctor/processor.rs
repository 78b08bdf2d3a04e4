//! The processor's instructions: how lines are written back, how checksums are computed and batches written.

use embarcadero::config::CoherenceMode;
use embarcadero::processor::Instructions;

use super::Seen;
use super::report::{Check, State};

/// All of this group.
pub fn checks(seen: &Seen<'_>) -> Vec<Check> {
    vec![write_back(seen), copies(seen), checksums(seen)]
}

/// Instructions of one name each, as the kernel lists them.
fn flags(seen: &Seen<'_>) -> Option<Vec<String>> {
    let flags = seen.tree.line("proc/cpuinfo", "flags")?;
    Some(flags.split_whitespace().map(str::to_owned).collect())
}

fn write_back(seen: &Seen<'_>) -> Check {
    const NAME: &str = "write-back of lines";
    let has = |name: &str| flags(seen).is_some_and(|flags| flags.iter().any(|flag| flag == name));
    let listed: Vec<&str> = ["clwb", "clflushopt", "movdir64b"].into_iter().filter(|name| has(name)).collect();
    let listed = if listed.is_empty() { "none of clwb, clflushopt, movdir64b".to_owned() } else { listed.join(", ") };
    let check = Check::new(NAME, State::Ok, format!("by {}; the processor has: {listed}", seen.asked.write_back));
    if seen.needs.config.pool.coherence == CoherenceMode::Hardware {
        return Check { found: format!("not needed, with coherence: hardware; it would be {}", check.found), ..check };
    }
    let hosts = seen.needs.config.geometry.hosts;
    let needed =
        "clflushopt, better clwb: clflush waits for each line, and a reader finds its line gone from the caches";
    match seen.asked.write_back {
        "clflush" => Check { state: State::Warn, ..check }.needed(needed).remedy(match hosts {
            1 => "pool: { coherence: hardware }        # one host: its caches agree without",
            _ => "qemu -cpu host ...        # a guest: show it the processor's instructions",
        }),
        "clflushopt" => Check { state: State::Note, ..check }
            .needed("clwb, which leaves a line in the caches for the next who reads it"),
        _ => check,
    }
}

fn copies(seen: &Seen<'_>) -> Check {
    Check::new("writes of batches", State::Ok, format!("{}, measured here{}", seen.asked.writes, limited(seen)))
}

fn checksums(seen: &Seen<'_>) -> Check {
    let check = Check::new("checksums", State::Ok, format!("{}{}", seen.asked.checksums, limited(seen)));
    match flags(seen) {
        Some(flags) if !flags.iter().any(|flag| flag == "sse4_2") || !flags.iter().any(|flag| flag == "pclmulqdq") => {
            Check { state: State::Fail, ..check }
                .needed("sse4_2 and pclmulqdq, which this processor does not list")
                .remedy("qemu -cpu host ...        # a guest: show it the processor's instructions")
        }
        _ if seen.needs.config.instructions != Instructions::All => Check { state: State::Note, ..check }
            .needed("`instructions: all`, unless another processor is to be shown")
            .remedy("instructions: all        # in the configuration"),
        _ => check,
    }
}

fn limited(seen: &Seen<'_>) -> String {
    match seen.needs.config.instructions {
        Instructions::All => String::new(),
        limit => format!(" (limited to {limit})"),
    }
}
