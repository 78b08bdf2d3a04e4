//! The rules of shared memory that the protocol rests on, each as a program of two or three threads, with everything that can come of it; and
//! the same with one thing left out or done in another order, which must show what the rule forbids. The second list holds the simulated
//! memory itself against the published models of x86 and CXL: what they allow it must be able to show, and nothing else.
//!
//! `LITMUS.md` is the table of both, with what the models are; a test holds it to what is here.
//!
//! Where the protocol has a function for it (`line::publish`, `line::observe`, `Memory::write_back`, `Memory::discard`) that function is run, not
//! a copy of it.

mod lines;
mod models;
mod records;

use std::collections::BTreeSet;

use crate::pool::{Keep, Memory};
use crate::testing::explore::{End, LeftOut, Probe, Program, Thread, explore};

/// Lines of the pool.
const X: u64 = 0;
const Y: u64 = 64;

/// What a run of one thread gave if the loss of power cut it short.
const CUT_SHORT: u64 = u64::MAX;

/// One program: what is done, and how its end is put into words.
struct Case {
    /// What it does, or what it does differently from the rule's own.
    text: &'static str,
    program: Program,
    tell: fn(&End) -> String,
}

/// A program, everything that may come of it, and programs that break it with what they must show.
struct Rule {
    name: &'static str,
    case: Case,
    allowed: &'static [&'static str],
    /// Where the allowed outcomes are from: numbers of the list of models.
    models: &'static str,
    broken: Vec<(Case, &'static str)>,
}

fn on(host: usize, run: fn(&Probe) -> u64) -> Thread {
    Thread { host, run, left_out: LeftOut::Nothing, after: None }
}

impl Thread {
    fn without(self, left_out: LeftOut) -> Thread {
        Thread { left_out, ..self }
    }

    fn after(self, other: usize) -> Thread {
        Thread { after: Some(other), ..self }
    }
}

fn case<const N: usize>(text: &'static str, threads: [Thread; N], tell: fn(&End) -> String) -> Case {
    Case { text, program: Program { threads: threads.to_vec(), power: None }, tell }
}

impl Case {
    /// This host may lose power at any moment.
    fn with_power_loss(mut self, host: usize) -> Case {
        self.program.power = Some(host);
        self
    }
}

fn results(end: &End) -> Vec<u64> {
    end.results.iter().map(|result| result.unwrap_or(CUT_SHORT)).collect()
}

/// Stores a word and makes it visible to other hosts.
fn publish(memory: &Probe, at: u64) -> u64 {
    memory.store(at, 1);
    memory.write_back(at, 8, Keep::Cached);
    memory.store_fence();
    0
}

/// Loads a word that another host writes.
fn observe(memory: &Probe, at: u64) -> u64 {
    memory.discard(at, 8);
    memory.load(at)
}

/// Two results of one thread, as decimal digits.
fn both(first: u64, second: u64) -> u64 {
    10 * first + second
}

fn quoted(outcomes: &BTreeSet<String>) -> String {
    outcomes.iter().map(|outcome| format!("`{outcome}`")).collect::<Vec<_>>().join(", ")
}

fn strings(words: &[&str]) -> BTreeSet<String> {
    words.iter().map(|word| word.to_string()).collect()
}

/// Explores a rule; gives its rows of the table.
fn rows(rule: &Rule) -> Vec<String> {
    let seen = explore(&rule.case.program, rule.case.tell);
    println!("{}: {} states", rule.name, seen.states);
    let allowed = strings(rule.allowed);
    assert_eq!(seen.outcomes, allowed, "{}: seen on the left, allowed on the right", rule.name);
    let mut rows = vec![format!(
        "| **{}** | {} | {} | {} | {} |",
        rule.name,
        rule.case.text,
        quoted(&allowed),
        if seen.outcomes == allowed { "the same" } else { "others" },
        rule.models
    )];
    for (broken, forbidden) in &rule.broken {
        let seen = explore(&broken.program, broken.tell);
        println!("{}: {}: {} states", rule.name, broken.text, seen.states);
        assert!(
            !allowed.contains(*forbidden) && seen.outcomes.contains(*forbidden),
            "{}: {}: {:?}",
            rule.name,
            broken.text,
            seen.outcomes
        );
        rows.push(format!("| | broken: {} | | also `{forbidden}` | |", broken.text));
    }
    rows
}

/// Every rule, every outcome; and `LITMUS.md` says what was seen.
fn hold_to_the_table(rules: &[Rule]) {
    let document = include_str!("LITMUS.md");
    let rows: Vec<String> = rules.iter().flat_map(rows).collect();
    let missing: Vec<&String> = rows.iter().filter(|row| !document.lines().any(|line| line == row.as_str())).collect();
    let all = rows.join("\n");
    assert!(missing.is_empty(), "LITMUS.md does not say:\n{missing:#?}\nall rows of this part are\n{all}");
}

#[test]
fn a_record_is_seen_whole_and_in_time() {
    hold_to_the_table(&records::records());
}

#[test]
fn what_a_slot_names_is_there() {
    hold_to_the_table(&lines::payload());
}

#[test]
fn what_is_confirmed_is_inherited() {
    hold_to_the_table(&lines::epochs());
}

#[test]
fn what_is_pinned_is_not_given_up() {
    hold_to_the_table(&lines::pins());
}

#[test]
fn a_line_has_one_writer_and_memory_has_a_copy() {
    hold_to_the_table(&lines::owners());
}

#[test]
fn one_host_is_what_x86_tso_allows() {
    hold_to_the_table(&models::one_host());
}

#[test]
fn a_loss_of_power_leaves_what_px86_allows() {
    hold_to_the_table(&models::power_loss());
}

#[test]
fn hosts_see_each_other_as_their_caches_allow() {
    hold_to_the_table(&models::many_hosts());
}

/// Every row of the document is one of these.
#[test]
fn the_table_says_nothing_else() {
    let several = [lines::payload().into(), lines::epochs().into(), lines::pins().into(), lines::owners().into()];
    let rules = [records::records().into()].into_iter().chain(several).collect::<Vec<Vec<Rule>>>();
    let models = [models::one_host(), models::power_loss(), models::many_hosts()];
    let names: Vec<&str> = rules.iter().chain(&models).flatten().map(|rule| rule.name).collect();
    let of_rows = include_str!("LITMUS.md").lines().filter_map(|line| line.strip_prefix("| **")?.split("**").next());
    assert_eq!(of_rows.collect::<Vec<_>>(), names);
}
