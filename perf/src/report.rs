//! What was found, in words and as JSON.

use serde_json::{Value, json};
use tools_common::figures::Spread;
use tools_common::report::{cores, machine};

use crate::args::RunArgs;
use crate::cases::{COMPARISONS, Case, Comparison, Run};

/// Others' part of the processors above which a run is called noisy.
const NOISY: f64 = 0.05;
/// Runs shorter than this, seconds, are not for quoting.
const QUOTABLE_S: f64 = 10.0;

/// Everything a comparison found.
pub struct Report {
    args: RunArgs,
    pool_bytes: u64,
    machine: Value,
    cases: Vec<Case>,
    /// By case, by round; the first round is the cold one.
    runs: Vec<Vec<Run>>,
}

impl Report {
    /// Of nothing yet.
    pub fn new(args: &RunArgs, pool_bytes: u64, cases: &[Case]) -> Report {
        let runs = vec![Vec::new(); cases.len()];
        Report { args: args.clone(), pool_bytes, machine: machine(), cases: cases.to_vec(), runs }
    }

    /// Takes a run, and says so, since a comparison takes a while.
    pub fn note(&mut self, round: usize, case: &Case, run: Run) {
        let index = self.cases.iter().position(|known| known.key == case.key).expect("a case of this report");
        let (figure, usage) = match &run {
            Run::Publish(run) => (format!("{:.2} GB/s in {:.2} s", run.gb_per_s(), run.seconds), run.usage),
            Run::Latency(run) => (format!("p50 {:.1} µs, p99 {:.1} µs", run.p50_us(), run.p99_us()), run.usage),
        };
        let cold = if round == 0 { ", cold: dropped" } else { "" };
        let noisy =
            if usage.others > NOISY { format!(", NOISY: others {:.0} %", usage.others * 100.0) } else { String::new() };
        eprintln!("round {round}: {:<15} {figure}{cold}{noisy}", case.key);
        self.runs[index].push(run);
    }

    /// What is about to be done.
    pub fn print_head(&self) {
        let (args, machine) = (&self.args, &self.machine);
        let word = |key: &str| machine[key].as_str().unwrap_or("unknown").to_owned();
        println!("compare: {}, {} usable cores, kernel {}", word("processor"), cores(), word("kernel"));
        println!(
            "{} sessions, messages of {} bytes in batches of {}, window {}; {} bytes a run; receivers of {} bytes; \
             brokers on one thread, coherence {:?}",
            args.sessions,
            args.message_bytes,
            args.batch_bytes,
            args.window,
            args.total,
            self.pool_bytes,
            args.coherence
        );
        if cores() < 2 {
            println!("one usable core: the spinning cases are left out");
        }
        if cfg!(debug_assertions) {
            println!("NOT OPTIMIZED: this is a debug build, its figures mean nothing");
        }
    }

    /// What was found, in words.
    pub fn print(&self) {
        println!("\nmedian [lowest..highest] of {} rounds; a cold round before them was dropped", self.args.runs);
        for index in 0..self.cases.len() {
            self.print_case(index);
        }
        println!("\nratios: median [lowest..highest] of the rounds' own ratios");
        for comparison in &COMPARISONS {
            for (name, ratio) in self.ratios(comparison) {
                let aim = comparison.aim.map_or(String::new(), |aim| format!("   (aim: {aim})"));
                println!("  {name:<34} {}{aim}", ratio.words(2));
            }
        }
        self.print_caveats();
    }

    fn print_case(&self, index: usize) {
        let case = &self.cases[index];
        let brokers = if case.single { 1 } else { self.args.brokers };
        if case.is_latency() {
            let (p50, p99) = (self.spread(index, Self::p50), self.spread(index, Self::p99));
            println!("  {:<15} {:<28} p50 {} µs, p99 {} µs", case.key, case.what, p50.words(1), p99.words(1));
        } else {
            let (client, receiver) = (self.spread(index, Self::client_cpu), self.spread(index, Self::receiver_cpu));
            println!(
                "  {:<15} {:<28} {} GB/s, {} k messages/s; {} connections; processor s per GB: clients {:.2}, receiver {:.2}",
                case.key,
                case.what,
                self.spread(index, Self::speed).words(2),
                format_args!("{:.0}", self.spread(index, Self::speed).median * 1e6 / self.args.message_bytes as f64),
                brokers * self.args.sessions,
                client.median,
                receiver.median
            );
        }
    }

    fn print_caveats(&self) {
        let counted = || self.runs.iter().flat_map(|runs| &runs[1..]);
        let noisy = counted().filter(|run| usage(run).others > NOISY).count();
        println!();
        if noisy > 0 {
            println!(
                "NOISY: in {noisy} of {} runs others used more than {:.0} % of the processors; repeat on a quiet machine",
                counted().count(),
                NOISY * 100.0
            );
        }
        let shortest = counted().filter_map(seconds).fold(f64::INFINITY, f64::min);
        if shortest < QUOTABLE_S {
            println!(
                "the shortest throughput run took {shortest:.2} s; to quote figures choose --total for {QUOTABLE_S} s and more"
            );
        }
        println!(
            "GB = 10^9 bytes of payload. Sinks: until the last byte has landed. Brokers: until the last ack is back."
        );
    }

    /// One ratio of throughputs, or those of both percentiles. None if a case was not run.
    fn ratios(&self, comparison: &Comparison) -> Vec<(String, Spread)> {
        let index = |key| self.cases.iter().position(|case| case.key == key);
        let (Some(above), Some(below)) = (index(comparison.above), index(comparison.below)) else { return Vec::new() };
        let name = format!("{} / {}", comparison.above, comparison.below);
        let ratio = |of: fn(&Run) -> f64| Spread::of_ratios(&self.values(above, of), &self.values(below, of));
        if self.cases[above].is_latency() {
            vec![(format!("{name} p50"), ratio(Self::p50)), (format!("{name} p99"), ratio(Self::p99))]
        } else {
            vec![(name, ratio(Self::speed))]
        }
    }

    /// One figure of every round that counts.
    fn values(&self, case: usize, of: fn(&Run) -> f64) -> Vec<f64> {
        self.runs[case][1..].iter().map(of).collect()
    }

    fn spread(&self, case: usize, of: fn(&Run) -> f64) -> Spread {
        Spread::of(self.values(case, of))
    }

    fn speed(run: &Run) -> f64 {
        if let Run::Publish(run) = run { run.gb_per_s() } else { f64::NAN }
    }

    fn client_cpu(run: &Run) -> f64 {
        if let Run::Publish(run) = run { run.usage.client_s * 1e9 / run.bytes as f64 } else { f64::NAN }
    }

    fn receiver_cpu(run: &Run) -> f64 {
        if let Run::Publish(run) = run { run.usage.receiver_s * 1e9 / run.bytes as f64 } else { f64::NAN }
    }

    fn p50(run: &Run) -> f64 {
        if let Run::Latency(run) = run { run.p50_us() } else { f64::NAN }
    }

    fn p99(run: &Run) -> f64 {
        if let Run::Latency(run) = run { run.p99_us() } else { f64::NAN }
    }

    /// Everything.
    pub fn json(&self) -> Value {
        let args = &self.args;
        let case = |index: usize| {
            let runs: Vec<Value> = self.runs[index].iter().map(run_json).collect();
            let case = &self.cases[index];
            let connections = if case.single { 1 } else { args.brokers } * args.sessions;
            json!({ "key": case.key, "what": case.what, "connections": connections, "cold": runs[0], "runs": runs[1..] })
        };
        let ratios = COMPARISONS.iter().flat_map(|comparison| self.ratios(comparison));
        json!({
            "machine": self.machine,
            "configuration": {
                "runs": args.runs,
                "total_bytes": args.total,
                "message_bytes": args.message_bytes,
                "batch_bytes": args.batch_bytes,
                "window_batches": args.window,
                "sessions": args.sessions,
                "brokers": args.brokers,
                "pool_bytes": self.pool_bytes,
                "receive_bytes_max": args.receive_bytes,
                "coherence": format!("{:?}", args.coherence).to_lowercase(),
                "latency_messages": args.latency_messages,
                "tiny": args.output.tiny,
            },
            "cases": (0..self.cases.len()).map(case).collect::<Vec<_>>(),
            "ratios": ratios.map(|(name, ratio)| (name, ratio.json())).collect::<serde_json::Map<_, _>>(),
        })
    }
}

fn run_json(run: &Run) -> Value {
    match run {
        Run::Publish(run) => run.json(),
        Run::Latency(run) => run.json(),
    }
}

fn usage(run: &Run) -> crate::machine::Usage {
    match run {
        Run::Publish(run) => run.usage,
        Run::Latency(run) => run.usage,
    }
}

fn seconds(run: &Run) -> Option<f64> {
    if let Run::Publish(run) = run { Some(run.seconds) } else { None }
}
