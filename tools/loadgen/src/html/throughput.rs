//! Throughput over time, with what happened meanwhile.

use maud::{Markup, html};

use super::chart::{Chart, Line, Mark, line_class};
use super::scale::{Axis, ticks};
use super::side::{Side, name_of};
use crate::series::{Point, Series};

/// The picture's size.
const SIZE: (f64, f64) = (960.0, 330.0);

/// So short a run is shown with its last interval.
const POINTS_MIN: usize = 6;

/// What one line is of.
#[derive(Clone, Copy)]
enum What {
    Acked,
    Delivered,
}

/// Messages a second over time: each interval's own, in its middle.
fn rates(points: &[Point], what: What) -> Vec<(f64, f64)> {
    let total = |point: &Point| if matches!(what, What::Acked) { point.acked } else { point.delivered };
    let rate = |pair: &[Point]| {
        let [from, to] = pair else { return None };
        let seconds = to.seconds - from.seconds;
        let messages = total(to).saturating_sub(total(from)) as f64;
        (seconds > 0.0).then(|| ((from.seconds + to.seconds) / 2.0, messages / seconds))
    };
    let mut rates: Vec<(f64, f64)> = points.windows(2).filter_map(rate).collect();
    // The line begins and ends with the run, not in the middle of its first and last interval.
    if let (Some(first), Some(last)) = (rates.first().copied(), rates.last().copied()) {
        rates.insert(0, (points[0].seconds, first.1));
        rates.push((points[points.len() - 1].seconds, last.1));
    }
    rates
}

/// A good run is shown to the last whole interval before its last message: of the one in which it came only a part was used, and its rate
/// would look like a fall. Of any other run the end may be what went wrong.
fn shown<'a>(series: &'a Series, outcome: &str) -> &'a [Point] {
    if outcome != "pass" {
        return &series.points;
    }
    let points = series.without_rest();
    if points.len() < POINTS_MIN { points } else { &points[..points.len() - 1] }
}

fn lines(sides: &[Side<'_>]) -> Vec<Line> {
    let mut lines = Vec::new();
    for side in sides {
        let run = side.run;
        let readers = run.results.subscribers.len();
        let kinds = [
            (What::Acked, "acked".to_owned(), !run.results.sessions.is_empty()),
            (What::Delivered, delivered_words(readers), readers > 0),
        ];
        for (kind, (what, words, _)) in kinds.into_iter().enumerate().filter(|(_, (.., is_there))| *is_there) {
            let class = line_class(side.of, side.document, kind);
            let points = rates(shown(&run.results.series, &run.verdict.outcome), what);
            lines.push(Line { name: name_of(side, &words), class, points, is_ended: false });
        }
    }
    lines.retain(|line| !line.points.is_empty());
    lines
}

fn delivered_words(readers: usize) -> String {
    if readers == 1 { "delivered".to_owned() } else { format!("delivered, all {readers} subscribers together") }
}

fn marks(sides: &[Side<'_>]) -> Vec<Mark> {
    let of = |side: &Side<'_>| {
        let document = side.document;
        let marks = (1..).zip(&side.run.results.events.list);
        marks
            .map(|(number, event)| Mark { at: event.seconds, name: side.numbered(number), document })
            .collect::<Vec<_>>()
    };
    sides.iter().flat_map(of).collect()
}

/// One chart, with bytes on the right where all have the same message size; else a second one.
pub fn section(sides: &[Side<'_>]) -> Markup {
    let lines_of = || lines(sides);
    if lines_of().is_empty() {
        return html! { p.faint { "Nothing was acked or delivered: there is no throughput to show." } };
    }
    let sizes: Vec<u64> = sides.iter().map(|side| side.run.message_bytes()).collect();
    let is_one_size = sizes.windows(2).all(|pair| pair[0] == pair[1]);
    let interval = sides.iter().map(|side| side.run.results.series.interval_ms).max().unwrap_or(0);
    let bytes = if is_one_size { sizes[0] as f64 } else { 0.0 };
    html! {
        figure {
            (chart("messages/s", lines_of(), marks(sides), bytes).figure())
            @if !is_one_size {
                (chart("MB/s", lines_in_megabytes(sides, &sizes), marks(sides), 0.0).figure())
            }
            figcaption {
                "One point for each " (interval) " ms. 1 MB is 10⁶ bytes of payload. Of a run that passed, the interval in which it ended is left out."
                @if sides.iter().any(|side| !side.run.results.events.list.is_empty()) { " Dotted verticals: the events below, by number." }
            }
        }
    }
}

fn lines_in_megabytes(sides: &[Side<'_>], sizes: &[u64]) -> Vec<Line> {
    let one = |(side, size): (&Side<'_>, &u64)| {
        let mut lines = lines(std::slice::from_ref(side));
        lines.iter_mut().flat_map(|line| &mut line.points).for_each(|point| point.1 *= *size as f64 / 1e6);
        lines
    };
    sides.iter().zip(sizes).flat_map(one).collect()
}

fn chart(unit: &str, lines: Vec<Line>, marks: Vec<Mark>, message_bytes: f64) -> Chart {
    let most = |of: fn(&(f64, f64)) -> f64| lines.iter().flat_map(|line| &line.points).map(of).fold(0.0, f64::max);
    let (end, top) = (most(|point| point.0), most(|point| point.1));
    let y = Axis::linear(unit, top, 6);
    let right = (message_bytes > 0.0).then(|| {
        let per_megabyte = 1e6 / message_bytes;
        let values = ticks(y.to() / per_megabyte, 6);
        let words = values.into_iter().map(|value| (value * per_megabyte, super::number::short(value)));
        Axis::with_ticks("MB/s", y.to(), words.collect())
    });
    let end = marks.iter().map(|mark| mark.at).fold(end, f64::max);
    let x = Axis::exact("time since the start, s", end, 12);
    Chart { title: format!("Throughput over time, {unit}"), size: SIZE, x, y, right, lines, marks }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_run_is_shown_if_it_may_be_what_went_wrong() {
        let point = |at: u64| Point { seconds: at as f64, acked: at.min(7), delivered: 0 };
        let series = Series { interval_ms: 1000, points: (0..=10).map(point).collect() };
        assert_eq!((shown(&series, "pass").len(), shown(&series, "fail").len()), (7, 11));
        let short = Series { interval_ms: 1000, points: series.points[..3].to_vec() };
        assert_eq!(shown(&short, "pass").len(), 3);
    }

    #[test]
    fn rates_are_those_of_the_intervals() {
        let point = |seconds, acked| Point { seconds, acked, delivered: 2 * acked };
        let points = [point(0.0, 0), point(1.0, 10), point(1.5, 10), point(2.0, 20)];
        assert_eq!(rates(&points, What::Acked), [(0.0, 10.0), (0.5, 10.0), (1.25, 0.0), (1.75, 20.0), (2.0, 20.0)]);
        assert_eq!(rates(&points, What::Delivered)[1], (0.5, 20.0));
        assert_eq!(rates(&points[..1], What::Acked), []);
        assert_eq!(rates(&[], What::Acked), []);
        assert_eq!(rates(&[point(1.0, 1), point(1.0, 5)], What::Acked), [], "no time, no rate");
    }
}
