//! A table whose rows can be sorted by any of its columns.

/// What stands in a place of a table.
#[derive(Clone, Debug, PartialEq)]
pub struct Cell {
    /// As it is shown.
    pub text: String,
    /// As it is sorted; none: by its text.
    pub value: Option<f64>,
    /// Somebody should look at it.
    pub is_bad: bool,
}

/// A table.
#[derive(Clone, Debug, Default)]
pub struct Grid {
    /// Names of the columns.
    pub head: Vec<&'static str>,
    /// Rows, as many cells each.
    pub rows: Vec<Vec<Cell>>,
}

impl Grid {
    /// The same, sorted: the largest value first, or last if `is_reversed`.
    pub fn sorted(mut self, by: Option<usize>, is_reversed: bool) -> Grid {
        if let Some(column) = by {
            self.rows.sort_by(|one, other| {
                let (one, other) = (&one[column], &other[column]);
                match (one.value, other.value) {
                    (Some(one), Some(other)) => other.total_cmp(&one),
                    (None, None) => one.text.cmp(&other.text),
                    // What is not known is behind all that is.
                    (one, other) => other.is_some().cmp(&one.is_some()),
                }
            });
            if is_reversed {
                self.rows.reverse();
            }
        }
        self
    }

    /// Width of each column: that of its longest text.
    pub fn widths(&self, column: usize) -> usize {
        let texts = self.rows.iter().map(|row| row[column].text.chars().count());
        texts.chain([self.head[column].chars().count()]).max().unwrap_or(0)
    }
}

/// A text.
pub fn text(text: impl Into<String>) -> Cell {
    Cell { text: text.into(), value: None, is_bad: false }
}

/// A number as it is, such as that of a broker.
pub fn plain(value: u64) -> Cell {
    Cell { text: value.to_string(), value: Some(value as f64), is_bad: false }
}

/// An amount, to three or four digits.
pub fn amount(value: f64) -> Cell {
    Cell { text: short(value), value: Some(value), is_bad: false }
}

/// A part of a whole, as a percentage.
pub fn part(value: f64) -> Cell {
    Cell { text: format!("{:.0} %", 100.0 * value), value: Some(value), is_bad: false }
}

/// A time, ns.
pub fn time(ns: u64) -> Cell {
    Cell { text: lasting(ns), value: Some(ns as f64), is_bad: false }
}

impl Cell {
    /// Marked if somebody should look at it.
    pub fn bad_if(mut self, is_bad: bool) -> Cell {
        self.is_bad = is_bad;
        self
    }
}

/// A number for people.
pub fn short(value: f64) -> String {
    match value {
        1e9.. => format!("{:.2} G", value / 1e9),
        1e6.. => format!("{:.2} M", value / 1e6),
        1e4.. => format!("{:.1} k", value / 1e3),
        100.0.. => format!("{value:.0}"),
        _ if value.fract() == 0.0 => format!("{value:.0}"),
        _ => format!("{value:.1}"),
    }
}

/// A time for people.
pub fn lasting(ns: u64) -> String {
    match ns {
        0 => String::new(),
        1_000_000_000.. => format!("{:.2} s", ns as f64 / 1e9),
        1_000_000.. => format!("{:.1} ms", ns as f64 / 1e6),
        1_000.. => format!("{:.1} us", ns as f64 / 1e3),
        _ => format!("{ns} ns"),
    }
}
