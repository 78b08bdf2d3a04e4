//! Weaves all mutants of a file into one source: each place becomes a choice made when the test process starts.
//!
//! So the tree is compiled once for all mutants, and once is what takes long. The choice is made only in the scratch
//! copy; the repository's own sources have no switches.

use std::ops::Range;

use crate::list::ListError;

/// A mutant with its place in the source. `number` is from 1; 0 means that no mutant is on.
#[derive(Clone, Debug)]
pub struct Placed<'a> {
    /// Its number.
    pub number: usize,
    /// Its name.
    pub name: &'a str,
    /// What it replaces.
    pub range: Range<usize>,
    /// By what.
    pub replace: &'a str,
}

/// What every woven source is compiled against.
const RUNTIME: &str = r#"
/// Which mutant is on in this process; 0: none.
#[doc(hidden)]
pub fn mutant() -> usize {
    static NUMBER: std::sync::LazyLock<usize> =
        std::sync::LazyLock::new(|| std::env::var("MUTANT").ok().and_then(|text| text.parse().ok()).unwrap_or(0));
    *NUMBER
}
"#;

/// The library's root with the choice in it. What a mutant leaves unused is no reason to warn.
pub fn library(source: &str) -> String {
    format!("#![allow(warnings)]\n{source}{RUNTIME}")
}

/// Weaves `placed` into `source`.
pub fn weave(source: &str, mut placed: Vec<Placed<'_>>) -> Result<String, ListError> {
    // Outer places first: what they keep of the original is woven in turn.
    placed.sort_by_key(|mutant| (mutant.range.start, std::cmp::Reverse(mutant.range.end), mutant.number));
    weave_range(source, 0..source.len(), &placed)
}

fn weave_range(source: &str, within: Range<usize>, mut placed: &[Placed<'_>]) -> Result<String, ListError> {
    let mut out = String::new();
    let mut at = within.start;
    while let Some(first) = placed.first() {
        let range = first.range.clone();
        let same = placed.iter().take_while(|mutant| mutant.range == range).count();
        let inside = placed[same..].iter().take_while(|mutant| mutant.range.start < range.end).count();
        if let Some(crossing) = placed[same..same + inside].iter().find(|mutant| mutant.range.end > range.end) {
            return Err(ListError::Overlap(first.name.to_string(), crossing.name.to_string()));
        }
        let original = weave_range(source, range.clone(), &placed[same..same + inside])?;
        out += &source[at..range.start];
        out += &choice(&original, &placed[..same]);
        at = range.end;
        placed = &placed[same + inside..];
    }
    out += &source[at..within.end];
    Ok(out)
}

fn choice(original: &str, mutants: &[Placed<'_>]) -> String {
    // Statements end in `;` or `}` and stay statements; an expression needs parentheses around the choice.
    let is_statement = original.trim_end().ends_with([';', '}']);
    let mut text = String::from("match crate::mutant() {");
    for mutant in mutants {
        text += &format!(" {} => {{ /* mutant {} */ {} }}", mutant.number, mutant.name, mutant.replace.trim());
    }
    text += &format!(" _ => {{ {original} }} }}");
    if is_statement { text } else { format!("({text})") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placed<'a>(number: usize, range: Range<usize>, replace: &'a str) -> Placed<'a> {
        Placed { number, name: "m", range, replace }
    }

    #[test]
    fn places_may_be_shared_and_nested() {
        let woven = weave("f(a + b); g();", vec![placed(1, 2..7, "0"), placed(2, 2..3, "c"), placed(3, 10..14, "")]);
        assert_eq!(
            woven.unwrap(),
            "f((match crate::mutant() { 1 => { /* mutant m */ 0 } _ => { (match crate::mutant() { 2 => { /* mutant m */ c } \
             _ => { a } }) + b } })); match crate::mutant() { 3 => { /* mutant m */  } _ => { g(); } }"
        );
    }

    #[test]
    fn crossing_places_are_refused() {
        assert!(weave("0123456789", vec![placed(1, 2..6, ""), placed(2, 4..8, "")]).is_err());
    }
}
