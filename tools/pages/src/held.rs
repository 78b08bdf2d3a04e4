//! Manual pages against what each command says of itself: for the tests of programs that write their own.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::{ASKED, commands, options, plain};

/// Has a program write its pages, and holds that every option of every `--help` is in its page. Gives how many options there were.
///
/// # Panics
/// If one is not, or the program or its pages cannot be had: this is for tests.
pub fn options_in_pages(program: &str, name: &str) -> usize {
    let share = std::env::temp_dir().join(format!("pages-{name}-{}", std::process::id()));
    let status = Command::new(program).arg(ASKED).arg(&share).status().expect("the program was built");
    assert!(status.success());
    let found = look(program, name, &share.join("man/man1"), &mut Vec::new());
    fs::remove_dir_all(&share).expect("it is ours");
    found
}

fn help(program: &str, words: &[String]) -> String {
    let output = Command::new(program).args(words).arg("--help").output().expect("the program was built");
    assert!(output.status.success(), "{words:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Looks at the page of one command and at those of its own; gives how many options were found.
fn look(program: &str, name: &str, pages: &Path, words: &mut Vec<String>) -> usize {
    let full = std::iter::once(name).chain(words.iter().map(String::as_str)).collect::<Vec<_>>().join("-");
    let page =
        plain(&fs::read_to_string(pages.join(format!("{full}.1"))).unwrap_or_else(|error| panic!("{full}.1: {error}")));
    let help = help(program, words);
    let listed = options(&help);
    for option in &listed {
        assert!(page.contains(option.as_str()), "{option} of {full} is not in its page:\n{page}");
    }
    let mut found = listed.len();
    for command in commands(&help) {
        words.push(command);
        found += look(program, name, pages, words);
        words.pop();
    }
    found
}
