//! A report for people, of one or two JSON documents that loadgen wrote: one HTML file that needs nothing else.
//!
//! It is a pure function of the documents. All text goes through [`maud`], which escapes it.
//!
//! * [`document`]: the documents. [`side`]: a run as one of the sides of a comparison.
//! * `throughput`, `timeline`, `curve`, `stages`, `brokers`, `figures`, `facts`: the parts of the page.
//! * `chart`, `scale`, `table`, `number`: what they are made of.

pub mod document;

mod brokers;
mod chart;
mod curve;
mod facts;
mod figures;
mod number;
mod scale;
mod side;
mod stages;
mod table;
mod throughput;
mod timeline;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use document::{Document, Judgement, Run};
use side::{Side, letter};

const STYLE: &str = include_str!("style.css");

/// The page. With a second document, the first is what it is compared with.
pub fn page(first: &Document, second: Option<&Document>) -> String {
    let documents: Vec<&Document> = [Some(first), second].into_iter().flatten().collect();
    let title = documents.iter().map(|one| format!("{}: {}", word(&one.head.verdict), called(one)));
    let title = title.collect::<Vec<_>>().join(" – ");
    let markup = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                (stripes())
                header.heads { @for (index, document) in documents.iter().enumerate() { (head(document, index, documents.len())) } }
                @for (label, sides) in pairs(&documents) { (run(&label, &sides)) }
                (whole(&documents))
            }
        }
    };
    markup.into_string()
}

/// What bars of the second document are filled with.
fn stripes() -> Markup {
    html! {
        svg width="0" height="0" style="position:absolute" aria-hidden="true" {
            defs {
                pattern id="stripes" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)" {
                    rect width="3" height="6" style="fill:var(--two)" {}
                }
            }
        }
    }
}

fn word(verdict: &Judgement) -> String {
    verdict.outcome.to_uppercase()
}

fn called(document: &Document) -> String {
    format!("loadgen {}", document.head.command)
}

fn head(document: &Document, index: usize, of: usize) -> Markup {
    let head = &document.head;
    let sentence = match &document.runs[..] {
        [(label, run)] if label.is_empty() => figures::sentence(run),
        _ => head.headline.split_once(": ").map_or(head.headline.clone(), |(_, did)| did.to_owned()),
    };
    let git = head.git.as_ref().map_or(String::new(), |git| format!(" ({git})"));
    html! {
        div {
            h1 {
                span class={ "badge " (head.verdict.outcome) } { (word(&head.verdict)) }
                @if of > 1 { (letter(index)) ": " }
                (called(document))
            }
            p.sentence { (sentence) }
            (reasons(&head.verdict))
            p.faint { (document.name) ", written " (head.written) " by loadgen " (head.version) (git) }
        }
    }
}

fn reasons(verdict: &Judgement) -> Markup {
    html! {
        @for reason in &verdict.reasons { p.wrong { "Wrong: " (reason) } }
        @for note in &verdict.notes { p { "Note: " (note) } }
    }
}

/// Runs of the same name stand together, in the order of the first document.
fn pairs<'a>(documents: &[&'a Document]) -> Vec<(String, Vec<Side<'a>>)> {
    let mut pairs: Vec<(String, Vec<Side<'a>>)> = Vec::new();
    for (document, whole) in documents.iter().enumerate() {
        for (label, run) in &whole.runs {
            let side = Side { run, document, of: documents.len() };
            match pairs
                .iter_mut()
                .find(|(name, sides)| name == label && sides.iter().all(|one| one.document < document))
            {
                Some((_, sides)) => sides.push(side),
                None => pairs.push((label.clone(), vec![side])),
            }
        }
    }
    pairs
}

fn run(label: &str, sides: &[Side<'_>]) -> Markup {
    let stages: Vec<_> = sides.iter().map(|side| (*side, &side.run.results.stages[..])).collect();
    let settings: Vec<_> = sides.iter().map(|side| &side.run.configuration).collect();
    html! {
        section {
            @if !label.is_empty() {
                h2 { (label) }
                @for side in sides { (run_head(side)) }
            }
            h3 { "Throughput over time" }
            (throughput::section(sides))
            h3 { "Events" }
            (timeline::section(sides))
            h3 { "Latency" }
            (curve::section(sides))
            h3 { "Stages" }
            (stages::section(&stages))
            h3 { "Brokers" }
            (brokers::section(sides))
            h3 { "Figures" }
            (figures::section(sides))
            h3 { "Configuration" }
            (table::facts(&sides.iter().map(|side| side.document).collect::<Vec<_>>(), &facts::rows(&settings)))
        }
    }
}

/// Of one of several runs.
fn run_head(side: &Side<'_>) -> Markup {
    let Side { run, document, of } = *side;
    let Run { verdict, .. } = run;
    html! {
        p {
            span class={ "badge " (verdict.outcome) } { (word(verdict)) }
            @if of > 1 { (letter(document)) ": " }
            (figures::sentence(run))
        }
        (reasons(verdict))
    }
}

/// What is not of one run.
fn whole(documents: &[&Document]) -> Markup {
    let machines: Vec<_> = documents.iter().map(|document| &document.head.machine).collect();
    html! {
        section {
            @for document in documents {
                @if !document.head.events.list.is_empty() {
                    h3 { "Events beside the runs" }
                    (timeline::list(&document.head.events, |number| number.to_string()))
                }
            }
            h2 { "Machine" }
            (table::facts(&(0..documents.len()).collect::<Vec<_>>(), &facts::rows(&machines)))
            h2 { "As it was printed" }
            @for document in documents { pre { (document.head.words) } }
        }
    }
}

#[cfg(test)]
mod tests;
