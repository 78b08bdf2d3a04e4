//! Tables: one column for each side, and with two of them their ratio.

use maud::{Markup, html};

use super::number::rounded;
use super::side::{Side, letter};

/// What is in a cell.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    /// A figure, and how it is written.
    Number(f64, String),
    /// Words.
    Words(String),
    /// Nothing is known.
    None,
}

impl Cell {
    /// A figure, and how it is written.
    pub fn number(value: f64, words: impl Into<String>) -> Cell {
        Cell::Number(value, words.into())
    }

    fn words(&self) -> &str {
        match self {
            Cell::Number(_, words) | Cell::Words(words) => words,
            Cell::None => "–",
        }
    }
}

/// A row.
pub struct Row {
    label: String,
    /// None: a heading of the rows behind it.
    cells: Option<Vec<Cell>>,
}

impl Row {
    /// With a cell for each side.
    pub fn of(label: impl Into<String>, cells: Vec<Cell>) -> Row {
        Row { label: label.into(), cells: Some(cells) }
    }

    /// A heading of the rows behind it.
    pub fn group(label: impl Into<String>) -> Row {
        Row { label: label.into(), cells: None }
    }
}

/// The second as a part of the first, where both are figures and differ.
fn ratio(cells: &[Cell]) -> Option<String> {
    match cells {
        [Cell::Number(first, _), Cell::Number(second, _)] if *first != 0.0 && first != second && second.is_finite() => {
            Some(format!("× {}", rounded(second / first)))
        }
        _ => None,
    }
}

/// All rows, with a column for each of these sides.
pub fn table(sides: &[Side<'_>], rows: &[Row]) -> Markup {
    let names: Vec<_> = sides.iter().map(|side| letter(side.document)).collect();
    with_columns(if sides.len() > 1 { "figures" } else { "facts" }, &names, rows)
}

/// Facts: mostly words, which begin on the left as figures among them do.
pub fn facts(documents: &[usize], rows: &[Row]) -> Markup {
    with_columns("facts", &documents.iter().map(|document| letter(*document)).collect::<Vec<_>>(), rows)
}

/// A row of facts in which two columns differ stands out.
fn with_columns(kind: &str, names: &[&str], rows: &[Row]) -> Markup {
    let is_pair = names.len() > 1;
    let columns = 1 + names.len() + usize::from(is_pair);
    html! {
        table class=(kind) {
            @if is_pair {
                thead {
                    tr {
                        th {}
                        @for name in names { th.number { (name) } }
                        th.number { "B / A" }
                    }
                }
            }
            tbody { @for row in rows { (row_markup(row, is_pair, columns)) } }
        }
    }
}

fn row_markup(row: &Row, is_pair: bool, columns: usize) -> Markup {
    let Some(cells) = &row.cells else {
        return html! { tr.group { th scope="colgroup" colspan=(columns) { (row.label) } } };
    };
    let is_words = cells.iter().any(|cell| matches!(cell, Cell::Words(_)));
    let is_different = cells.windows(2).any(|pair| pair[0].words() != pair[1].words());
    html! {
        tr.differs[is_different] {
            th scope="row" { (row.label) }
            @for cell in cells { td.number[!is_words] { (cell.words()) } }
            @if is_pair { td.number { (ratio(cells).unwrap_or_default()) } }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_of_figures_only() {
        let number = |value: f64| Cell::number(value, value.to_string());
        assert_eq!(ratio(&[number(200.0), number(150.0)]).as_deref(), Some("× 0.75"));
        assert_eq!(ratio(&[number(0.0), number(150.0)]), None);
        assert_eq!(ratio(&[number(2.0), number(2.0)]), None);
        assert_eq!(ratio(&[number(1.0), Cell::None]), None);
        assert_eq!(ratio(&[number(1.0)]), None);
    }

    #[test]
    fn cells_are_escaped() {
        let rows = [Row::group("<group>"), Row::of("<label>", vec![Cell::Words("<i>".to_owned())])];
        let text = table(&[], &rows).into_string();
        assert!(["&lt;group&gt;", "&lt;label&gt;", "&lt;i&gt;"].iter().all(|words| text.contains(words)), "{text}");
    }
}
