//! Acked messages of each broker, as bars.

use std::collections::BTreeSet;

use maud::{Markup, html};

use super::chart::{Frame, px};
use super::number::grouped;
use super::scale::Axis;
use super::side::{Side, letter};

const WIDTH: f64 = 960.0;
/// Height of one bar.
const BAR: f64 = 16.0;
/// Room for the number behind the longest bar.
const NUMBER: f64 = 90.0;

/// A bar for each broker and each run.
pub fn section(sides: &[Side<'_>]) -> Markup {
    let all: Vec<Vec<(u16, u64)>> = sides.iter().map(|side| side.run.acked_by_broker()).collect();
    let brokers: BTreeSet<u16> = all.iter().flatten().map(|(broker, _)| *broker).collect();
    if brokers.is_empty() {
        return html! { p.faint { "No messages went through brokers: the run only read, or its publishers were attached to the pool." } };
    }
    let most = all.iter().flatten().map(|(_, acked)| *acked).max().unwrap_or(0);
    let axis = Axis::linear("acked messages", most as f64, 8);
    let row = BAR * sides.len() as f64 + 10.0;
    let height = row * brokers.len() as f64 + 56.0;
    let frame = Frame { left: 74.0, right: WIDTH - NUMBER, top: 6.0, bottom: height - 44.0 };
    html! {
        figure {
            svg.chart viewBox={ "0 0 " (px(WIDTH)) " " (px(height)) } role="img" aria-label="Acked messages of each broker" {
                (frame.horizontal(&axis))
                @for (index, broker) in brokers.iter().enumerate() {
                    @let top = frame.top + 5.0 + row * index as f64;
                    text x=(px(frame.left - 8.0)) y=(px(top + row / 2.0 - 1.0)) text-anchor="end" { "broker " (broker) }
                    @for (place, (side, acked)) in sides.iter().zip(&all).enumerate() {
                        (bar(side, acked, *broker, top + BAR * place as f64, &frame, &axis))
                    }
                }
            }
            @if sides.len() > 1 { figcaption { "A is filled, B is striped." } }
        }
    }
}

fn bar(side: &Side<'_>, acked: &[(u16, u64)], broker: u16, top: f64, frame: &Frame, axis: &Axis) -> Markup {
    let found = acked.iter().find(|(other, _)| *other == broker).map(|(_, messages)| *messages);
    let end = frame.x(axis.place(found.unwrap_or(0) as f64));
    let class = if side.document == 0 { "fill-a" } else { "fill-b" };
    let name = if side.of > 1 { format!("{}: ", letter(side.document)) } else { String::new() };
    html! {
        rect class=(class) x=(px(frame.left)) y=(px(top + 1.0)) width=(px(end - frame.left)) height=(px(BAR - 3.0)) {}
        text x=(px(end + 6.0)) y=(px(top + BAR - 4.0)) { (name) (found.map_or("none".to_owned(), grouped)) }
    }
}
