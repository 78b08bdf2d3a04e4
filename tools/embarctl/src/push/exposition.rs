//! What brokers show to scrapers, read back: the text format 0.0.4 of Prometheus, as far as `embarlet` writes it.

use crate::push::error::PushError;

/// Names and values, in the order of the text.
pub type Labels = Vec<(String, String)>;

/// A metric.
#[derive(Clone, Debug, PartialEq)]
pub struct Family {
    /// Its name.
    pub name: String,
    /// What it means.
    pub help: String,
    /// How it moves.
    pub kind: Kind,
    /// Its values.
    pub points: Vec<Point>,
}

/// How a metric moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It grows.
    Counter,
    /// It is what is so now.
    Gauge,
    /// It is how many values were how large.
    Histogram,
}

/// Of one of those that are counted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Point {
    /// Who.
    pub labels: Labels,
    /// How much; of a histogram its sum.
    pub value: f64,
    /// Of a histogram: upper bounds, and how many were not above. Without the one that all are below.
    pub below: Vec<(f64, u64)>,
    /// Of a histogram: how many.
    pub count: u64,
}

/// Reads it; `from` is where it is from.
pub fn read(from: &str, text: &str) -> Result<Vec<Family>, PushError> {
    let mut families: Vec<Family> = Vec::new();
    let mut help = "";
    for (line, words) in (1..).zip(text.lines()) {
        let fault = |reason| PushError::Metrics { from: from.to_owned(), line, reason };
        if let Some(rest) = words.strip_prefix("# HELP ") {
            help = rest.split_once(' ').map_or("", |(_, help)| help);
        } else if let Some(rest) = words.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').ok_or_else(|| fault("no type"))?;
            let kind = match kind {
                "counter" => Kind::Counter,
                "gauge" => Kind::Gauge,
                "histogram" => Kind::Histogram,
                _ => return Err(fault("no type that is known")),
            };
            families.push(Family { name: name.to_owned(), help: unescape(help), kind, points: Vec::new() });
        } else if !words.is_empty() {
            let family = families.last_mut().ok_or_else(|| fault("no TYPE before it"))?;
            family.take(words).map_err(fault)?;
        }
    }
    Ok(families)
}

impl Family {
    fn take(&mut self, line: &str) -> Result<(), &'static str> {
        let end = line.find(['{', ' ']).ok_or("no value")?;
        let suffix = line[..end].strip_prefix(&self.name).ok_or("another metric than that of the TYPE before it")?;
        let (mut labels, value) = labels(&line[end..])?;
        let value: f64 = value.parse().map_err(|_| "no number")?;
        if self.kind != Kind::Histogram {
            self.points.push(Point { labels, value, ..Point::default() });
            return Ok(());
        }
        let bound = labels.iter().position(|(name, _)| name == "le").map(|at| labels.remove(at).1);
        if self.points.last().is_none_or(|last| last.labels != labels) {
            self.points.push(Point { labels, ..Point::default() });
        }
        let point = self.points.last_mut().ok_or("no point")?;
        match (suffix, bound.as_deref()) {
            ("_sum", None) => point.value = value,
            ("_count", None) => point.count = value as u64,
            ("_bucket", Some("+Inf")) => {}
            ("_bucket", Some(bound)) => {
                point.below.push((bound.parse().map_err(|_| "a bound that is no number")?, value as u64));
            }
            _ => return Err("no part of a histogram"),
        }
        Ok(())
    }
}

/// Labels, and what stands behind them.
fn labels(text: &str) -> Result<(Labels, &str), &'static str> {
    let mut labels = Labels::new();
    let Some(mut rest) = text.strip_prefix('{') else { return Ok((labels, text.trim())) };
    while !rest.starts_with('}') {
        let (name, after) = rest.split_once("=\"").ok_or("a label without a value")?;
        let mut is_escaped = false;
        let end = after.bytes().position(|byte| {
            let ends = byte == b'"' && !is_escaped;
            is_escaped = byte == b'\\' && !is_escaped;
            ends
        });
        let end = end.ok_or("a label's value without an end")?;
        labels.push((name.to_owned(), unescape(&after[..end])));
        rest = &after[end + 1..];
        rest = rest.strip_prefix(',').unwrap_or(rest);
    }
    Ok((labels, rest[1..].trim()))
}

fn unescape(text: &str) -> String {
    let (mut plain, mut characters) = (String::new(), text.chars());
    while let Some(character) = characters.next() {
        match character {
            '\\' => match characters.next() {
                Some('n') => plain.push('\n'),
                Some(other) => plain.push(other),
                None => plain.push('\\'),
            },
            other => plain.push(other),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let text = "# HELP a_total What\\n\\\\ it is.\n# TYPE a_total counter\na_total{x=\"1\\\"}\\n\",y=\"\\\\\"} 2.5\na_total 3\n\
                    # HELP t_seconds Times.\n# TYPE t_seconds histogram\nt_seconds_bucket{b=\"0\",le=\"0.5\"} 1\n\
                    t_seconds_bucket{b=\"0\",le=\"+Inf\"} 4\nt_seconds_sum{b=\"0\"} 9\nt_seconds_count{b=\"0\"} 4\n";
        let families = read("x", text).unwrap();
        assert_eq!((families[0].help.as_str(), families[0].kind), ("What\n\\ it is.", Kind::Counter));
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(families[0].points[0].labels, [pair("x", "1\"}\n"), pair("y", "\\")]);
        assert_eq!((families[0].points[0].value, families[0].points[1].value), (2.5, 3.0));
        let times = Point { labels: vec![pair("b", "0")], value: 9.0, below: vec![(0.5, 1)], count: 4 };
        assert_eq!(families[1].points, [times]);
    }

    #[test]
    fn what_is_not_understood_is_named_by_its_line() {
        for (text, words) in [
            ("a 1\n", "line 1 of the metrics of x is not understood: no TYPE before it"),
            ("# TYPE a summary\n", "no type that is known"),
            ("# TYPE a gauge\nb 1\n", "line 2"),
            ("# TYPE a gauge\na one\n", "no number"),
            ("# TYPE a gauge\na{x=\"1} 1\n", "without an end"),
            ("# TYPE a histogram\na_max 1\n", "no part of a histogram"),
            ("<html>\n", "line 1"),
        ] {
            let fault = read("x", text).unwrap_err().to_string();
            assert!(fault.contains(words), "{text:?}: {fault}");
        }
    }
}
