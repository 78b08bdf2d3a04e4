//! Manual pages against what each command says of itself: every option of every `--help` is in its page.

use std::fs;
use std::path::Path;
use std::process::Command;

use pages::{ASKED, commands, options, plain};

const PROGRAM: &str = env!("CARGO_BIN_EXE_loadgen");

fn help(words: &[String]) -> String {
    let output = Command::new(PROGRAM).args(words).arg("--help").output().unwrap();
    assert!(output.status.success(), "{words:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Looks at the page of one command and at those of its own; gives how many options were found.
fn look(pages: &Path, words: &mut Vec<String>) -> usize {
    let name = std::iter::once("loadgen").chain(words.iter().map(String::as_str)).collect::<Vec<_>>().join("-");
    let page =
        plain(&fs::read_to_string(pages.join(format!("{name}.1"))).unwrap_or_else(|error| panic!("{name}.1: {error}")));
    let help = help(words);
    let listed = options(&help);
    for option in &listed {
        assert!(page.contains(option.as_str()), "{option} of {name} is not in its page:\n{page}");
    }
    let mut found = listed.len();
    for command in commands(&help) {
        words.push(command);
        found += look(pages, words);
        words.pop();
    }
    found
}

#[test]
fn every_option_of_every_command_is_in_its_page() {
    let share = std::env::temp_dir().join(format!("pages-loadgen-{}", std::process::id()));
    let status = Command::new(PROGRAM).arg(ASKED).arg(&share).status().unwrap();
    assert!(status.success());
    let found = look(&share.join("man/man1"), &mut Vec::new());
    fs::remove_dir_all(&share).unwrap();
    assert!(found > 60, "{found} options");
}
