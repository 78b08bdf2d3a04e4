//! The dearest functions of each role: in which of them samples were taken, not in what they called.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::roles::Stack;

/// Longest name that is shown, letters.
const NAME_LETTERS_MAX: usize = 120;

/// A table for each role, the dearest role first. `samples` are those of all that was recorded.
pub fn tables(stacks: &[Stack], samples: u64, rows: usize) -> String {
    let mut roles: BTreeMap<&str, Vec<&Stack>> = BTreeMap::new();
    stacks.iter().for_each(|stack| roles.entry(stack.role).or_default().push(stack));
    let mut tables: Vec<(u64, String)> =
        roles.iter().map(|(role, stacks)| table(role, stacks, samples, rows)).collect();
    tables.sort_by_key(|(of_role, _)| std::cmp::Reverse(*of_role));
    tables.into_iter().map(|(_, text)| text).collect()
}

fn table(role: &str, stacks: &[&Stack], samples: u64, rows: usize) -> (u64, String) {
    let of_role: u64 = stacks.iter().map(|stack| stack.samples).sum();
    let percent = |part: u64, whole: u64| part as f64 * 100.0 / whole.max(1) as f64;
    let mut text = format!("\n{role}: {of_role} samples, {:.1} % of all\n", percent(of_role, samples));
    let mut functions: BTreeMap<&str, u64> = BTreeMap::new();
    for stack in stacks {
        let function = stack.frames.last().map_or("(unknown)", String::as_str);
        *functions.entry(function).or_default() += stack.samples;
    }
    let mut functions: Vec<(&str, u64)> = functions.into_iter().collect();
    functions.sort_by_key(|(_, found)| std::cmp::Reverse(*found));
    for (function, found) in functions.into_iter().take(rows) {
        let name: String = function.chars().take(NAME_LETTERS_MAX).collect();
        let _ = writeln!(text, "  {:5.1} %  {name}", percent(found, of_role));
    }
    (of_role, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percents_are_of_the_role() {
        let lines = ["sequence;a;b 3", "sequence;c 1", "ack;d 12"];
        let stacks: Vec<Stack> = lines.iter().filter_map(|line| Stack::read(line)).collect();
        let text = tables(&stacks, 32, 10);
        let expected = "\nack: 12 samples, 37.5 % of all\n  100.0 %  d\n\nsequence: 4 samples, 12.5 % of all\n   75.0 %  b\n   25.0 %  c\n";
        assert_eq!(text, expected);
        assert!(!tables(&stacks, 32, 1).contains("  c\n"));
    }
}
