//! `compare between`: what two builds, or two configurations, were measured to do, beside each other. Reads reports that others wrote: `compare`, and
//! `loadgen`; `perf/between.sh` has them written in turn.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use serde_json::{Map, Value, json};
use tools_common::figures::Spread;

use crate::args::{BetweenArgs, OutputArgs};
use crate::error::CompareError;

/// Figures of a run of a throughput or a latency case of `compare`: where they are, their unit, and whether more is better.
const OF_COMPARE: [(&str, &str, bool); 3] =
    [("gb_per_s", "GB/s", true), ("p50_us", "p50 µs", false), ("p99_us", "p99 µs", false)];
/// Figures of `loadgen`, by its command and where they are in its results.
const OF_LOADGEN: [(&str, &str, &str, bool); 6] = [
    ("e2e", "/publish/megabytes_per_second", "publish MB/s", true),
    ("e2e", "/deliver/megabytes_per_second", "deliver MB/s", true),
    ("latency", "/latency/publish_to_ack_us/p50", "to ack p50 µs", false),
    ("latency", "/latency/publish_to_ack_us/p99", "to ack p99 µs", false),
    ("latency", "/latency/publish_to_deliver_us/p50", "to deliver p50 µs", false),
    ("latency", "/latency/publish_to_deliver_us/p99", "to deliver p99 µs", false),
];
/// With fewer rounds than this on each side it is no rare chance that one side's all lie above the other's: of 4 and 4 it is 1 in 35.
const ROUNDS_TO_JUDGE: usize = 4;

/// What was found of one figure, on one side.
#[derive(Clone, Debug, Default, PartialEq)]
struct Figure {
    more_is_better: bool,
    values: Vec<f64>,
}

/// Figures by their names, in the order of the report's cases.
#[derive(Clone, Debug, Default, PartialEq)]
struct Figures {
    order: Vec<String>,
    by_name: BTreeMap<String, Figure>,
}

/// Reads both sides' reports, prints and writes.
pub fn run(args: &BetweenArgs) -> Result<(), CompareError> {
    let (a, b) = (read(&args.a)?, read(&args.b)?);
    let both: Vec<&String> = a.order.iter().filter(|name| b.by_name.contains_key(*name)).collect();
    if both.is_empty() {
        return Err(CompareError::Usage("the reports of the two sides have no figure in common".to_owned()));
    }
    println!("A: {}\nB: {}\nmedian [lowest..highest] (rounds)\n", args.a_name, args.b_name);
    println!("{:<28} {:<26} {:<26} B / A", "", "A", "B");
    let mut figures = Map::new();
    for name in both {
        let (of_a, of_b) = (&a.by_name[name], &b.by_name[name]);
        let (spread_a, spread_b) = (of_a.spread(), of_b.spread());
        let ratio = spread_b.median / spread_a.median;
        let word = judged(of_a, of_b);
        println!("{name:<28} {:<26} {:<26} {ratio:.3}  {word}", words(of_a), words(of_b));
        figures.insert(
            name.clone(),
            json!({ "a": spread_a.json(), "b": spread_b.json(), "ratio": ratio, "judged": word }),
        );
    }
    let output = OutputArgs { json: args.json.clone(), tiny: false };
    output.write(&json!({ "a": args.a_name, "b": args.b_name, "figures": figures }))
}

fn read(reports: &[PathBuf]) -> Result<Figures, CompareError> {
    let mut figures = Figures::default();
    for path in reports {
        let text = fs::read_to_string(path).map_err(CompareError::io(format!("reading {}", path.display())))?;
        let wrong = |why: String| {
            CompareError::Usage(format!("{}: {why}; expected a report of compare or loadgen", path.display()))
        };
        let report: Value = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        let before = figures.values();
        figures.add(&report);
        if figures.values() == before {
            return Err(wrong("there is no figure in it".to_owned()));
        }
    }
    Ok(figures)
}

impl Figures {
    /// All figures of one report.
    fn add(&mut self, report: &Value) {
        for case in report["cases"].as_array().into_iter().flatten() {
            let key = case["key"].as_str().unwrap_or("?");
            for run in case["runs"].as_array().into_iter().flatten() {
                for (place, unit, more_is_better) in OF_COMPARE {
                    self.note(format!("{key} {unit}"), &run[place], more_is_better);
                }
            }
        }
        for (command, place, name, more_is_better) in OF_LOADGEN {
            let value = report["results"].pointer(place).filter(|_| report["command"] == command);
            self.note(name.to_owned(), value.unwrap_or(&Value::Null), more_is_better);
        }
    }

    fn note(&mut self, name: String, value: &Value, more_is_better: bool) {
        let Some(value) = value.as_f64() else { return };
        if !self.by_name.contains_key(&name) {
            self.order.push(name.clone());
        }
        let figure = self.by_name.entry(name).or_default();
        figure.more_is_better = more_is_better;
        figure.values.push(value);
    }

    fn values(&self) -> usize {
        self.by_name.values().map(|figure| figure.values.len()).sum()
    }
}

impl Figure {
    fn spread(&self) -> Spread {
        Spread::of(self.values.iter().copied())
    }
}

/// With as many decimals as such a figure needs.
fn words(figure: &Figure) -> String {
    let spread = figure.spread();
    format!("{} ({})", spread.words(if spread.median < 10.0 { 3 } else { 1 }), figure.values.len())
}

/// What may be said of B: nothing if the two sides' rounds lie in each other, or are few.
fn judged(a: &Figure, b: &Figure) -> &'static str {
    if a.values.len().min(b.values.len()) < ROUNDS_TO_JUDGE {
        return "too few rounds to judge";
    }
    let (of_a, of_b) = (a.spread(), b.spread());
    let (is_above, is_below) = (of_b.min > of_a.max, of_b.max < of_a.min);
    match (is_above, is_below, a.more_is_better) {
        (false, false, _) => "within the spread",
        (true, _, true) | (_, true, false) => "better",
        _ => "worse",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_compare_are_found_by_case() {
        let report = json!({ "cases": [
            { "key": "order5", "cold": { "gb_per_s": 9.0 }, "runs": [{ "gb_per_s": 1.0 }, { "gb_per_s": 2.0 }] },
            { "key": "ack_park", "runs": [{ "p50_us": 30.0, "p99_us": 70 }] },
        ] });
        let mut figures = Figures::default();
        figures.add(&report);
        figures.add(&report);
        assert_eq!(figures.order, ["order5 GB/s", "ack_park p50 µs", "ack_park p99 µs"]);
        assert_eq!(figures.by_name["order5 GB/s"], Figure { more_is_better: true, values: vec![1.0, 2.0, 1.0, 2.0] });
        assert!(!figures.by_name["ack_park p99 µs"].more_is_better);
    }

    #[test]
    fn figures_of_loadgen_are_found() {
        let mut figures = Figures::default();
        figures.add(
            &json!({ "command": "e2e", "results": { "publish": { "megabytes_per_second": 5.5 }, "latency": null } }),
        );
        let latency = json!({ "publish_to_ack_us": { "p50": 40.0, "p99": 90.0 } });
        // One message in flight says nothing about throughput.
        figures.add(&json!({ "command": "latency", "results": { "publish": { "megabytes_per_second": 0.1 }, "latency": latency } }));
        assert_eq!(figures.order, ["publish MB/s", "to ack p50 µs", "to ack p99 µs"]);
        assert_eq!(figures.by_name["publish MB/s"].values, [5.5]);
    }

    #[test]
    fn what_lies_in_each_other_is_not_judged() {
        let of = |values: [f64; 4], more_is_better| Figure { more_is_better, values: values.to_vec() };
        for (more_is_better, above, below) in [(true, "better", "worse"), (false, "worse", "better")] {
            let low = of([1.0, 2.0, 1.5, 1.2], more_is_better);
            let high = of([3.0, 4.0, 3.5, 3.2], more_is_better);
            let wide = of([1.5, 5.0, 3.0, 3.0], more_is_better);
            assert_eq!((judged(&low, &high), judged(&high, &low)), (above, below));
            assert_eq!((judged(&low, &wide), judged(&high, &wide)), ("within the spread", "within the spread"));
            let few = Figure { more_is_better, values: vec![9.0; 3] };
            assert_eq!(judged(&low, &few), "too few rounds to judge");
        }
    }
}
