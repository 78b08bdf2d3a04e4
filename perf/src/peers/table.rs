//! What was found, by load, peer and round.

use serde_json::{Map, Value, json};
use tools_common::figures::Spread;
use tools_common::report::machine;

use crate::peers::load::{Aim, Better, Figure, LOADS, Load};

/// The peer that aims are held against.
const REDIS: &str = "redis";

/// Everything a comparison found.
pub struct Table {
    peers: Vec<&'static str>,
    left_out: Vec<String>,
    machine: Value,
    /// By figure, by peer, by round; the first round is the cold one.
    runs: Vec<Vec<Vec<f64>>>,
}

fn all_figures() -> impl Iterator<Item = &'static Figure> {
    LOADS.iter().flat_map(|load| load.figures)
}

impl Table {
    /// Of nothing yet.
    pub fn new(peers: Vec<&'static str>, left_out: Vec<String>) -> Table {
        let runs = all_figures().map(|_| vec![Vec::new(); peers.len()]).collect();
        Table { peers, left_out, machine: machine(), runs }
    }

    /// Takes what one peer gave in one round.
    pub fn note(&mut self, round: usize, peer: usize, load: &Load, figures: Vec<f64>) {
        for (figure, value) in load.figures.iter().zip(figures) {
            let cold = if round == 0 { ", cold: dropped" } else { "" };
            eprintln!("round {round}: {:<42} {:<14} {value:.1}{cold}", figure.name, self.peers[peer]);
            let at = all_figures().position(|known| known.name == figure.name).expect("a figure of a load");
            self.runs[at][peer].push(value);
        }
    }

    fn spread(&self, figure: usize, peer: usize) -> Spread {
        Spread::of(self.runs[figure][peer][1..].iter().copied())
    }

    /// Of our default to another's, or of ours with one broker.
    fn ratio(&self, figure: usize, above: usize, below: usize) -> Spread {
        Spread::of_ratios(&self.runs[figure][above][1..], &self.runs[figure][below][1..])
    }

    /// In words.
    pub fn print(&self, runs: u32) {
        let word = |key: &str| self.machine[key].as_str().unwrap_or("unknown").to_owned();
        println!(
            "compare peers: {}, kernel {}; median [lowest..highest] of {runs} rounds",
            word("processor"),
            word("kernel")
        );
        self.left_out.iter().for_each(|line| println!("{line}"));
        for (at, figure) in all_figures().enumerate() {
            let better = if figure.better == Better::More { "more is better" } else { "less is better" };
            let aim = if let Aim::Value(aim) = figure.aim { format!("; aim: {aim}") } else { String::new() };
            println!("\n{} ({better}{aim})", figure.name);
            for (peer, name) in self.peers.iter().enumerate() {
                println!("  {name:<14} {}", self.spread(at, peer).words(1));
            }
            if let Some(redis) = self.peers.iter().position(|name| *name == REDIS) {
                let aim = if let Aim::OfRedis(aim) = figure.aim { format!("   (aim: {aim})") } else { String::new() };
                for ours in 0..2 {
                    println!("  {} / {REDIS} {}{aim}", self.peers[ours], self.ratio(at, ours, redis).words(2));
                }
            }
        }
    }

    /// Everything.
    pub fn json(&self) -> Value {
        let mut figures = Map::new();
        let mut ratios = Map::new();
        for (at, figure) in all_figures().enumerate() {
            let of = |peer: usize| (self.peers[peer].to_owned(), json!(self.runs[at][peer][1..]));
            figures.insert(figure.name.into(), (0..self.peers.len()).map(of).collect::<Map<_, _>>().into());
            for (below, peer) in self.peers.iter().enumerate().skip(2) {
                for above in 0..2 {
                    let name = format!("{}: {} / {peer}", figure.name, self.peers[above]);
                    ratios.insert(name, self.ratio(at, above, below).json());
                }
            }
        }
        json!({ "machine": self.machine, "left_out": self.left_out, "figures": figures, "ratios": ratios })
    }
}
