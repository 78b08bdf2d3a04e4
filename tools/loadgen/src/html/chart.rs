//! Charts as inline SVG: a frame with axes, and lines in it. Legends are HTML beside them, so that long names wrap.

use maud::{Markup, html};

use super::scale::Axis;

/// Width of a letter of an axis, about.
const LETTER: f64 = 6.8;
/// Room between an axis and its words.
const GAP: f64 = 6.0;
/// Height of a line of words.
const ROW: f64 = 16.0;
/// Names of events nearer to each other than this are not both written.
const NAMES_APART: f64 = 7.0;

/// Class of a line or a bar. One document: a colour for each kind. Two: a colour for each document. Dashes differ always.
pub fn line_class(documents: usize, document: usize, kind: usize) -> &'static str {
    match (documents > 1, document, kind) {
        (false, _, 0) => "one0",
        (false, ..) => "one1",
        (true, 0, 0) => "a0",
        (true, 0, _) => "a1",
        (true, _, 0) => "b0",
        (true, ..) => "b1",
    }
}

/// A line of a chart.
pub struct Line {
    /// In the legend.
    pub name: String,
    /// As [`line_class`] has it.
    pub class: &'static str,
    /// Values on both axes.
    pub points: Vec<(f64, f64)>,
    /// The last point is shown as a ring.
    pub is_ended: bool,
}

/// A moment that is marked.
pub struct Mark {
    /// On the horizontal axis.
    pub at: f64,
    /// Its number in the list.
    pub name: String,
    /// 0 or 1: whose it is.
    pub document: usize,
}

/// Lines in a frame.
pub struct Chart {
    /// For those who do not see it.
    pub title: String,
    /// Of the picture; it is scaled as a whole.
    pub size: (f64, f64),
    /// Horizontal.
    pub x: Axis,
    /// Vertical, on the left.
    pub y: Axis,
    /// The same values in another unit, on the right.
    pub right: Option<Axis>,
    /// What is drawn.
    pub lines: Vec<Line>,
    /// What happened.
    pub marks: Vec<Mark>,
}

/// Where the axes of a picture are.
pub struct Frame {
    /// Left end of the horizontal axis.
    pub left: f64,
    /// Its right end.
    pub right: f64,
    /// Upper end of the vertical axis.
    pub top: f64,
    /// Its lower end.
    pub bottom: f64,
}

impl Frame {
    /// Where a place on the horizontal axis is.
    pub fn x(&self, place: f64) -> f64 {
        self.left + place * (self.right - self.left)
    }

    fn y(&self, place: f64) -> f64 {
        self.bottom - place * (self.bottom - self.top)
    }

    /// The horizontal axis, its grid and its words.
    pub fn horizontal(&self, axis: &Axis) -> Markup {
        html! {
            @for (value, words) in &axis.ticks {
                @let x = self.x(axis.place(*value));
                line class="grid" x1=(px(x)) x2=(px(x)) y1=(px(self.top)) y2=(px(self.bottom)) {}
                text x=(px(x)) y=(px(self.bottom + ROW)) text-anchor="middle" { (words) }
            }
            line class="axis" x1=(px(self.left)) x2=(px(self.right)) y1=(px(self.bottom)) y2=(px(self.bottom)) {}
            text.label x=(px(self.x(0.5))) y=(px(self.bottom + 2.2 * ROW)) text-anchor="middle" { (axis.label) }
        }
    }

    fn vertical(&self, axis: &Axis) -> Markup {
        html! {
            @for (value, words) in &axis.ticks {
                @let y = self.y(axis.place(*value));
                line class="grid" x1=(px(self.left)) x2=(px(self.right)) y1=(px(y)) y2=(px(y)) {}
                text x=(px(self.left - GAP)) y=(px(y + 4.0)) text-anchor="end" { (words) }
            }
            line class="axis" x1=(px(self.left)) x2=(px(self.left)) y1=(px(self.top)) y2=(px(self.bottom)) {}
            (sideways(&axis.label, 12.0, self.y(0.5)))
        }
    }

    /// The right axis has words only: its grid is the left one's.
    fn vertical_right(&self, axis: &Axis, end: f64) -> Markup {
        html! {
            @for (value, words) in &axis.ticks {
                @let y = self.y(axis.place(*value));
                line class="axis" x1=(px(self.right)) x2=(px(self.right + 4.0)) y1=(px(y)) y2=(px(y)) {}
                text x=(px(self.right + GAP + 2.0)) y=(px(y + 4.0)) { (words) }
            }
            line class="axis" x1=(px(self.right)) x2=(px(self.right)) y1=(px(self.top)) y2=(px(self.bottom)) {}
            (sideways(&axis.label, end - 4.0, self.y(0.5)))
        }
    }
}

fn sideways(label: &str, x: f64, y: f64) -> Markup {
    let turn = format!("rotate(-90 {} {})", px(x), px(y));
    html! { text.label x=(px(x)) y=(px(y)) text-anchor="middle" transform=(turn) { (label) } }
}

/// Room that an axis needs beside it: its words, and its label if that is written sideways.
fn room(axis: &Axis) -> f64 {
    let longest = axis.ticks.iter().map(|(_, words)| words.chars().count()).max().unwrap_or(0);
    longest as f64 * LETTER + GAP + 20.0
}

/// A coordinate.
pub fn px(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
}

impl Chart {
    /// With its legend.
    pub fn figure(&self) -> Markup {
        html! {
            (legend(self.lines.iter().map(|line| (line.class, line.name.as_str()))))
            (self.svg())
        }
    }

    fn svg(&self) -> Markup {
        let (width, height) = self.size;
        let lanes = if self.marks.is_empty() { 0.0 } else { 1.0 + f64::from(self.has_marks_of(1)) };
        let last = self.x.ticks.last().map_or(0, |(_, words)| words.chars().count()) as f64 * LETTER / 2.0;
        let frame = Frame {
            left: room(&self.y),
            right: width - self.right.as_ref().map_or(last.max(8.0), room),
            top: 10.0 + lanes * ROW,
            bottom: height - 2.6 * ROW,
        };
        html! {
            svg.chart viewBox={ "0 0 " (px(width)) " " (px(height)) } role="img" aria-label=(self.title) {
                (frame.horizontal(&self.x))
                (frame.vertical(&self.y))
                @if let Some(axis) = &self.right { (frame.vertical_right(axis, width)) }
                @for document in 0..2 { (self.marks_of(document, &frame)) }
                @for line in &self.lines { (self.line(line, &frame)) }
            }
        }
    }

    fn has_marks_of(&self, document: usize) -> bool {
        self.marks.iter().any(|mark| mark.document == document)
    }

    fn marks_of(&self, document: usize, frame: &Frame) -> Markup {
        let lane = if document == 1 && self.has_marks_of(0) { 2.0 } else { 1.0 };
        let class = if document == 0 { "ink-a" } else { "ink-b" };
        let mut free = f64::NEG_INFINITY;
        let marks = self.marks.iter().filter(|mark| mark.document == document).map(|mark| {
            let x = frame.x(self.x.place(mark.at));
            let half = mark.name.chars().count() as f64 * LETTER / 2.0;
            let is_named = x - half > free;
            if is_named {
                free = x + half + NAMES_APART;
            }
            (x, is_named.then_some(mark.name.as_str()))
        });
        let marks: Vec<_> = marks.collect();
        let y = frame.top - 4.0 - (lane - 1.0) * ROW;
        html! {
            @for (x, name) in &marks {
                line class={ "mark " (class) } x1=(px(*x)) x2=(px(*x)) y1=(px(y + 3.0)) y2=(px(frame.bottom)) {}
                @if let Some(name) = name {
                    text.mark-name x=(px(*x)) y=(px(y)) text-anchor="middle" { (name) }
                }
            }
        }
    }

    fn line(&self, line: &Line, frame: &Frame) -> Markup {
        let at = |point: &(f64, f64)| (frame.x(self.x.place(point.0)), frame.y(self.y.place(point.1)));
        let points: Vec<(f64, f64)> = line.points.iter().map(at).collect();
        let path: Vec<String> = points.iter().map(|(x, y)| format!("{},{}", px(*x), px(*y))).collect();
        html! {
            polyline class={ "line " (line.class) } points=(path.join(" ")) {}
            @if let Some((x, y)) = points.last().filter(|_| line.is_ended) {
                circle class={ "end " (line.class) } cx=(px(*x)) cy=(px(*y)) r="3.5" {}
            }
        }
    }
}

/// What the lines are.
pub fn legend<'a>(lines: impl Iterator<Item = (&'a str, &'a str)>) -> Markup {
    html! {
        ul.legend {
            @for (class, name) in lines {
                li {
                    svg width="34" height="10" aria-hidden="true" { line class={ "line " (class) } x1="0" x2="34" y1="5" y2="5" {} }
                    (name)
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(lines: Vec<Line>, marks: Vec<Mark>) -> String {
        let axis = |label: &str| Axis::linear(label, 10.0, 5);
        let chart = Chart {
            title: "a <title>".to_owned(),
            size: (400.0, 200.0),
            x: axis("time, s"),
            y: axis("messages/s"),
            right: None,
            lines,
            marks,
        };
        chart.figure().into_string()
    }

    fn line(name: &str, points: Vec<(f64, f64)>) -> Line {
        Line { name: name.to_owned(), class: "one0", points, is_ended: true }
    }

    #[test]
    fn words_are_escaped_and_axes_have_their_labels() {
        let text = chart(vec![line("<b>&\"", vec![(0.0, 1.0), (10.0, 10.0)])], Vec::new());
        assert!(text.contains("&lt;b&gt;&amp;") && !text.contains("<b>"), "{text}");
        assert!(text.contains("aria-label=\"a &lt;title&gt;\""), "{text}");
        assert!(text.contains(">time, s<") && text.contains(">messages/s<"), "{text}");
    }

    #[test]
    fn a_chart_of_nothing_has_axes_and_no_ends() {
        for lines in [Vec::new(), vec![line("nothing", Vec::new())]] {
            let text = chart(lines, Vec::new());
            assert!(text.contains("class=\"axis\"") && !text.contains("<circle"), "{text}");
            assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
        }
    }

    #[test]
    fn names_of_events_do_not_cover_each_other() {
        let mark = |at: f64, name: &str, document| Mark { at, name: name.to_owned(), document };
        let text =
            chart(Vec::new(), vec![mark(5.0, "21", 0), mark(5.01, "22", 0), mark(8.0, "23", 0), mark(5.0, "B1", 1)]);
        assert_eq!(text.matches("class=\"mark ").count(), 4);
        let names =
            ["21", "22", "23", "B1"].map(|name| text.contains(&format!("text-anchor=\"middle\">{name}</text>")));
        assert_eq!(names, [true, false, true, true], "{text}");
    }

    #[test]
    fn every_line_of_two_documents_has_a_class_of_its_own() {
        let mut classes: Vec<_> =
            [(0, 0), (0, 1), (1, 0), (1, 1)].map(|(document, kind)| line_class(2, document, kind)).into();
        classes.dedup();
        assert_eq!((classes.len(), line_class(1, 0, 1)), (4, "one1"));
    }
}
