//! How long the parts of a message's way took: a row for each, from the median to the longest.

use maud::{Markup, html};

use super::chart::{Frame, px};
use super::number::time;
use super::scale::Axis;
use super::side::{Side, letter};
use super::table::{Cell, Row, table};
use crate::stages::Stage;

const WIDTH: f64 = 960.0;
/// Height of one row.
const ROW: f64 = 20.0;
/// Width of a letter of a name.
const LETTER: f64 = 6.6;

/// A figure of a stage, ns.
type Figure = fn(&Stage) -> u64;

/// Stages of each side, as picture and as table. Stages of the same name stand together.
pub fn section(sides: &[(Side<'_>, &[Stage])]) -> Markup {
    let names = names(sides);
    if names.is_empty() {
        return html! { p.faint { "No stage of a message's way was measured." } };
    }
    html! {
        figure { (picture(sides, &names)) figcaption { "From left to right: p50 (●), p99 (■), p99.9 (◆), the longest (|)." } }
        (numbers(sides, &names))
    }
}

fn names(sides: &[(Side<'_>, &[Stage])]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for stage in sides.iter().flat_map(|(_, stages)| *stages) {
        if !names.contains(&stage.name) {
            names.push(stage.name.clone());
        }
    }
    names
}

fn find<'a>(stages: &'a [Stage], name: &str) -> Option<&'a Stage> {
    stages.iter().find(|stage| stage.name == name)
}

fn picture(sides: &[(Side<'_>, &[Stage])], names: &[String]) -> Markup {
    let all = || sides.iter().flat_map(|(_, stages)| *stages);
    let least = all().map(|stage| stage.p50_ns).min().unwrap_or(1).max(1) as f64;
    let most = all().map(|stage| stage.max_ns).max().unwrap_or(1).max(1) as f64;
    let axis = Axis::log("latency (log scale)", least, most, time);
    let row = ROW * sides.len() as f64 + 8.0;
    let height = row * names.len() as f64 + 54.0;
    let longest = names.iter().map(|name| name.chars().count()).max().unwrap_or(0) as f64;
    let left = (longest * LETTER + if sides.len() > 1 { 34.0 } else { 12.0 }).min(WIDTH / 2.0);
    let frame = Frame { left, right: WIDTH - 24.0, top: 6.0, bottom: height - 44.0 };
    html! {
        svg.chart viewBox={ "0 0 " (px(WIDTH)) " " (px(height)) } role="img" aria-label="Latency of each stage" {
            (frame.horizontal(&axis))
            @for (index, name) in names.iter().enumerate() {
                @let top = frame.top + 4.0 + row * index as f64;
                text x=(px(if sides.len() > 1 { left - 26.0 } else { left - 8.0 })) y=(px(top + row / 2.0)) text-anchor="end" { (name) }
                @for (place, (side, stages)) in sides.iter().enumerate() {
                    @let y = top + ROW * (place as f64 + 0.5);
                    @if side.of > 1 { text.label x=(px(left - 8.0)) y=(px(y + 4.0)) text-anchor="end" { (letter(side.document)) } }
                    @if let Some(stage) = find(stages, name) { (whisker(side, stage, y, &frame, &axis)) }
                }
            }
        }
    }
}

fn whisker(side: &Side<'_>, stage: &Stage, y: f64, frame: &Frame, axis: &Axis) -> Markup {
    let x = |ns: u64| frame.x(axis.place(ns as f64));
    let (p50, p99, p99_9, max) = (x(stage.p50_ns), x(stage.p99_ns), x(stage.p99_9_ns), x(stage.max_ns));
    let (ink, dot) = if side.document == 0 { ("ink-a", "dot dot-a ink-a") } else { ("ink-b", "dot dot-b ink-b") };
    let line = format!("whisker {ink}");
    let diamond = [(-5.0, 0.0), (0.0, -5.0), (5.0, 0.0), (0.0, 5.0)]
        .map(|(across, down)| format!("{},{}", px(p99_9 + across), px(y + down)))
        .join(" ");
    html! {
        line class=(line) x1=(px(p50)) x2=(px(max)) y1=(px(y)) y2=(px(y)) {}
        line class=(line) x1=(px(max)) x2=(px(max)) y1=(px(y - 5.0)) y2=(px(y + 5.0)) {}
        polygon class=(dot) points=(diamond) {}
        rect class=(dot) x=(px(p99 - 3.5)) y=(px(y - 3.5)) width="7" height="7" {}
        circle class=(dot) cx=(px(p50)) cy=(px(y)) r="4" {}
    }
}

/// Without a second column to compare with, a stage is a row.
fn one_row_each(stages: &[Stage], figures: &[(&str, Figure)]) -> Markup {
    html! {
        table {
            thead { tr { th {} @for (label, _) in figures { th.number { (label) } } } }
            tbody {
                @for stage in stages {
                    tr {
                        th scope="row" { (stage.name) }
                        @for (_, figure) in figures { td.number { (time(figure(stage) as f64)) } }
                    }
                }
            }
        }
    }
}

fn numbers(sides: &[(Side<'_>, &[Stage])], names: &[String]) -> Markup {
    let figures: [(&str, Figure); 4] = [
        ("p50", |stage| stage.p50_ns),
        ("p99", |stage| stage.p99_ns),
        ("p99.9", |stage| stage.p99_9_ns),
        ("longest", |stage| stage.max_ns),
    ];
    if let [(_, stages)] = sides {
        return one_row_each(stages, &figures);
    }
    let mut rows = Vec::new();
    for name in names {
        rows.push(Row::group(name));
        for (label, figure) in figures {
            let cell =
                |stages: &[Stage]| find(stages, name).map(figure).map(|ns| Cell::number(ns as f64, time(ns as f64)));
            rows.push(Row::of(label, sides.iter().map(|(_, stages)| cell(stages).unwrap_or(Cell::None)).collect()));
        }
    }
    let sides: Vec<Side<'_>> = sides.iter().map(|(side, _)| *side).collect();
    table(&sides, &rows)
}
