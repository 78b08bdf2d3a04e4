//! Latencies as curves: how long so many percent of the messages took.

use maud::{Markup, html};

use super::chart::{Chart, Line, line_class};
use super::number::{grouped, time};
use super::scale::Axis;
use super::side::{Side, name_of};
use crate::stages::Curve;

/// Size of each picture; two stand beside each other.
const SIZE: (f64, f64) = (470.0, 320.0);

/// Percentages that are written, if the curves reach them.
const PERCENTS: [(&str, f64); 8] = [
    ("0", 0.0),
    ("50", 50.0),
    ("90", 90.0),
    ("99", 99.0),
    ("99.9", 99.9),
    ("99.99", 99.99),
    ("99.999", 99.999),
    ("99.9999", 99.9999),
];

/// Where a percentage is: each factor of ten in what is above it has the same room.
fn place(percent: f64) -> f64 {
    -(1.0 - percent / 100.0).max(f64::MIN_POSITIVE).log10()
}

/// Points of a line. The longest is where one message of all is above.
fn points(curve: &Curve) -> Vec<(f64, f64)> {
    let end = (curve.messages.max(1) as f64).log10();
    curve.points.iter().map(|(percent, us)| (place(*percent).min(end), us * 1e3)).collect()
}

/// A chart for each path that any of the runs measured.
pub fn section(sides: &[Side<'_>]) -> Markup {
    let (paths, kinds) = (names(sides, |curve| &curve.path), names(sides, |curve| &curve.counted));
    if paths.is_empty() {
        return html! {
            p.faint {
                "No latencies: a closed loop that keeps its windows full measures throughput. "
                "loadgen e2e --rate and loadgen latency measure latencies."
            }
        };
    }
    let mut without: Vec<&str> = Vec::new();
    for side in sides.iter().filter(|side| side.run.results.curves.is_empty()) {
        without.push(super::side::letter(side.document));
    }
    html! {
        div.charts {
            @for path in &paths {
                figure {
                    figcaption { strong { (path) } }
                    (chart(path, lines(sides, path, &kinds)).figure())
                }
            }
        }
        p.faint { (grouped_words(sides)) " A ring is the longest of all." }
        @for letter in without { p.faint { (letter) " measured no latencies." } }
    }
}

/// Different names of all curves, in the order in which they come.
fn names<'a>(sides: &[Side<'a>], of: fn(&Curve) -> &str) -> Vec<&'a str> {
    let mut names = Vec::new();
    for name in sides.iter().flat_map(|side| &side.run.results.curves).map(of) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

fn grouped_words(sides: &[Side<'_>]) -> String {
    let of = |side: &Side<'_>| {
        let most = side.run.results.curves.iter().map(|curve| curve.messages).max()?;
        Some(name_of(side, &format!("{} messages at most in a curve.", grouped(most))))
    };
    sides.iter().filter_map(of).collect::<Vec<_>>().join(" ")
}

fn lines(sides: &[Side<'_>], path: &str, kinds: &[&str]) -> Vec<Line> {
    let mut lines = Vec::new();
    for side in sides {
        for curve in side.run.results.curves.iter().filter(|curve| curve.path == path) {
            let kind = kinds.iter().position(|kind| *kind == curve.counted).unwrap_or(0);
            let words = if curve.counted.is_empty() { path } else { &curve.counted };
            let class = line_class(side.of, side.document, kind);
            lines.push(Line { name: name_of(side, words), class, points: points(curve), is_ended: true });
        }
    }
    lines
}

fn chart(path: &str, lines: Vec<Line>) -> Chart {
    let all = || lines.iter().flat_map(|line| &line.points);
    let end = all().map(|point| point.0).fold(1.0, f64::max);
    let (least, most) = all().fold((f64::INFINITY, 0.0_f64), |(least, most), (_, ns)| (least.min(*ns), most.max(*ns)));
    let ticks = PERCENTS.iter().map(|(words, percent)| (place(*percent), (*words).to_owned()));
    let ticks = ticks.filter(|(at, _)| *at <= end).collect();
    Chart {
        title: format!("{path}: latency over percent of messages"),
        size: SIZE,
        x: Axis::with_ticks("% of messages that took no longer (log scale)", end, ticks),
        y: Axis::log("latency (log scale)", least, most, time),
        right: None,
        lines,
        marks: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factors_of_ten_have_the_same_room() {
        let places = [0.0, 90.0, 99.0, 99.9].map(place);
        assert!(places.iter().zip([0.0, 1.0, 2.0, 3.0]).all(|(found, at)| (found - at).abs() < 1e-9), "{places:?}");
        let points = points(&Curve {
            path: String::new(),
            counted: String::new(),
            messages: 1000,
            points: vec![(0.0, 1.0), (99.0, 5.0), (100.0, 7.0)],
        });
        assert_eq!(points.iter().map(|point| point.1).collect::<Vec<_>>(), [1000.0, 5000.0, 7000.0]);
        assert!((points[2].0 - 3.0).abs() < 1e-9, "the longest of a thousand is at 99.9: {points:?}");
    }

    #[test]
    fn no_latencies_are_said_in_words() {
        let text = section(&[]).into_string();
        assert!(text.contains("No latencies") && !text.contains("<svg"), "{text}");
    }
}
