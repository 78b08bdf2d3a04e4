//! What happened during a run, as a list.

use maud::{Markup, html};

use super::number::grouped;
use super::side::{Side, letter};
use crate::events::{Event, Events};

/// Events of each run, with the numbers that the chart has.
pub fn section(sides: &[Side<'_>]) -> Markup {
    if sides.iter().all(|side| side.run.results.events.list.is_empty()) {
        return html! { p.faint { "Nothing rare happened: no lost connection, no fence, no stall, nothing sent again." } };
    }
    html! {
        @for side in sides {
            @if side.of > 1 { p { strong { (letter(side.document)) } @if side.run.results.events.list.is_empty() { ": nothing rare happened." } } }
            (list(&side.run.results.events, |number| side.numbered(number)))
        }
    }
}

/// The events, numbered.
pub fn list(events: &Events, numbered: impl Fn(usize) -> String) -> Markup {
    if events.list.is_empty() {
        return html! {};
    }
    html! {
        table {
            thead { tr { th.number { "no." } th.number { "at, s" } th { "kind" } th { "what happened" } } }
            tbody {
                @for (number, event) in (1..).zip(&events.list) {
                    tr {
                        td.number { (numbered(number)) }
                        td.number { (format!("{:.2}", event.seconds)) }
                        td { (event.kind.words()) }
                        td { (words(event)) }
                    }
                }
            }
        }
        @if events.left_out > 0 { p.faint { (grouped(events.left_out)) " more of the same kinds are not in the list." } }
    }
}

fn words(event: &Event) -> String {
    if event.times > 1 { format!("{} × {}", grouped(event.times), event.words) } else { event.words.clone() }
}
