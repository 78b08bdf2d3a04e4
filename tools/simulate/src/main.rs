//! Runs simulated worlds, one a seed; shrinks and tells what fails.

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use clap::Parser;
use embarcadero::sim::scenario::Scenario;
use embarcadero::sim::shrink::shrink;
use embarcadero::sim::world::{Outcome, keep_panics_quiet, run};

/// Runs simulated worlds. Exit code 1 if a promise is broken.
#[derive(Parser)]
struct Arguments {
    /// How many seeds to run.
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// Runs this one seed only, and tells what happened.
    #[arg(long)]
    seed: Option<u64>,
    /// Threads, each with worlds of its own.
    #[arg(long, default_value_t = 1)]
    threads: u64,
    /// Runs spent on shrinking a failure.
    #[arg(long, default_value_t = 200)]
    shrink_runs: usize,
    /// Goes on after a failing seed and lists all of them, unshrunk.
    #[arg(long)]
    keep_going: bool,
    /// Sentences printed of a single seed.
    #[arg(long, default_value_t = 40)]
    sentences: usize,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    keep_panics_quiet();
    match arguments.seed {
        Some(seed) => one(&arguments, seed),
        None => many(&arguments),
    }
}

fn one(arguments: &Arguments, seed: u64) -> ExitCode {
    let scenario = Scenario::new(seed);
    println!("{scenario:#?}");
    let outcome = run(&scenario, arguments.sentences);
    outcome.tail.iter().for_each(|sentence| println!("{sentence}"));
    println!("{}", summary(seed, &outcome));
    if outcome.failure.is_none() {
        return ExitCode::SUCCESS;
    }
    report(&scenario, arguments.shrink_runs);
    ExitCode::FAILURE
}

fn summary(seed: u64, outcome: &Outcome) -> String {
    let failure = outcome.failure.as_ref().map_or("clean".to_string(), |violation| violation.to_string());
    format!(
        "seed {seed}: {} steps, {} faults, {} positions, {} epochs, {} fences, floor {}, receipts seen {}, trace {:016x}: {failure}",
        outcome.steps,
        outcome.faults,
        outcome.committed,
        outcome.epochs,
        outcome.fences,
        outcome.floor,
        outcome.receipts_seen,
        outcome.hash
    )
}

fn report(scenario: &Scenario, runs: usize) {
    println!("\nshrinking ({runs} runs at most) ...");
    let (small, outcome) = shrink(scenario, runs);
    println!("smallest failing run found: {small:#?}\n");
    outcome.tail.iter().for_each(|sentence| println!("{sentence}"));
    println!("{}", summary(small.seed, &outcome));
    println!("\nreplay: make simulate SEED={}", scenario.seed);
}

/// Totals over all seeds.
#[derive(Default)]
struct Totals {
    next: AtomicU64,
    clean: AtomicU64,
    failed: AtomicU64,
    steps: AtomicU64,
    faults: AtomicU64,
    committed: AtomicU64,
    epochs: AtomicU64,
    fences: AtomicU64,
    trims: AtomicU64,
}

fn many(arguments: &Arguments) -> ExitCode {
    let totals = Totals { next: AtomicU64::new(arguments.first), ..Totals::default() };
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..arguments.threads {
            scope.spawn(|| work(arguments, &totals));
        }
    });
    let minutes = begun.elapsed().as_secs_f64() / 60.0;
    let get = |total: &AtomicU64| total.load(Ordering::Relaxed);
    let (clean, failed) = (get(&totals.clean), get(&totals.failed));
    println!(
        "{clean} seeds clean, {failed} failed, {:.0} seeds a minute; {} steps, {} faults, {} positions committed, \
         {} epochs, {} fences, {} runs gave memory back",
        (clean + failed) as f64 / minutes,
        get(&totals.steps),
        get(&totals.faults),
        get(&totals.committed),
        get(&totals.epochs),
        get(&totals.fences),
        get(&totals.trims),
    );
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn work(arguments: &Arguments, totals: &Totals) {
    loop {
        let seed = totals.next.fetch_add(1, Ordering::Relaxed);
        let is_over = totals.failed.load(Ordering::Relaxed) > 0 && !arguments.keep_going;
        if seed >= arguments.first + arguments.seeds || is_over {
            return;
        }
        let scenario = Scenario::new(seed);
        let outcome = run(&scenario, 0);
        let add = |total: &AtomicU64, more: u64| total.fetch_add(more, Ordering::Relaxed);
        add(&totals.steps, outcome.steps);
        add(&totals.faults, outcome.faults);
        add(&totals.committed, outcome.committed);
        add(&totals.epochs, outcome.epochs);
        add(&totals.fences, outcome.fences);
        add(&totals.trims, u64::from(outcome.floor > 0));
        if outcome.failure.is_none() {
            add(&totals.clean, 1);
            continue;
        }
        add(&totals.failed, 1);
        println!("{}", summary(seed, &outcome));
        if !arguments.keep_going {
            report(&scenario, arguments.shrink_runs);
        }
    }
}
