//! A run as one of the sides of a comparison, or the only one.

use super::document::Run;

/// One run that is shown.
#[derive(Clone, Copy)]
pub struct Side<'a> {
    /// The run.
    pub run: &'a Run,
    /// 0 for the first document, 1 for the second.
    pub document: usize,
    /// Documents in the report.
    pub of: usize,
}

impl Side<'_> {
    /// Number of an event in the list: `3`, or `A3` where there are two lists.
    pub fn numbered(&self, number: usize) -> String {
        if self.of > 1 { format!("{}{number}", letter(self.document)) } else { number.to_string() }
    }
}

/// What a document is called where there are two.
pub fn letter(document: usize) -> &'static str {
    if document == 0 { "A" } else { "B" }
}

/// Of a side, in a legend.
pub fn name_of(side: &Side<'_>, words: &str) -> String {
    if side.of > 1 { format!("{}: {words}", letter(side.document)) } else { words.to_owned() }
}
