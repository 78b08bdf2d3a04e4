//! The command line of a program that parses by itself, read from its help: a head, options in a column, and words behind them.

use std::iter::Peekable;
use std::path::Path;
use std::process::Command as Program;

use clap::{Arg, ArgAction, Command, ValueHint};

use crate::PagesError;

/// Options that every command line has by itself.
const BUILT_IN: [&str; 2] = ["--version", "--help"];

/// What a program prints when it is asked for help.
///
/// # Errors
/// [`PagesError::Run`].
pub fn help_of(program: &Path) -> Result<String, PagesError> {
    let failed = |source| PagesError::Run { program: program.to_path_buf(), source };
    let output = Program::new(program).arg("--help").output().map_err(failed)?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The command line that a help tells of.
///
/// # Errors
/// [`PagesError::Help`].
pub fn command(name: &str, version: &str, help: &str) -> Result<Command, PagesError> {
    let wrong = |why| PagesError::Help { name: name.to_owned(), why };
    let about = help.lines().next().and_then(|head| head.strip_prefix(&format!("{name}: ")));
    let about = about.ok_or_else(|| wrong("has no head"))?.to_owned();
    let mut command = Command::new(name.to_owned()).version(version.to_owned()).about(about);
    let (mut lines, mut rest, mut options) = (help.lines().skip(1).peekable(), String::new(), 0);
    while let Some(line) = lines.next() {
        if line.starts_with("  --") {
            let words = with_continuation(line, &mut lines);
            options += 1;
            if let Some(option) = option(&words) {
                command = command.arg(option);
            }
        } else if options > 0 {
            rest.push_str(line);
            rest.push('\n');
        }
    }
    if options == 0 {
        return Err(wrong("lists no options"));
    }
    Ok(command.after_help(rest.trim().to_owned()))
}

/// An option's line, and those below it that are further in.
fn with_continuation<'a>(line: &'a str, lines: &mut Peekable<impl Iterator<Item = &'a str>>) -> String {
    let mut words = line.trim().to_owned();
    while let Some(more) = lines.next_if(|next| next.starts_with("    ")) {
        // Behind a name that had the line for itself there are two blanks, as on other lines.
        words.push_str(if words.contains("  ") { " " } else { "  " });
        words.push_str(more.trim());
    }
    words
}

/// `--name VALUE  what it is for`; none if it is one that every command line has.
fn option(words: &str) -> Option<Arg> {
    let (left, what_for) = words.split_once("  ").unwrap_or((words, ""));
    let mut left = left.split([' ', ',']);
    let long = left.next().filter(|long| !BUILT_IN.contains(long))?.trim_start_matches("--").to_owned();
    let arg = Arg::new(long.clone()).long(long).help(what_for.trim().to_owned());
    Some(match left.next() {
        Some(value) => {
            let hint = if value == "FILE" { ValueHint::FilePath } else { ValueHint::Other };
            arg.value_name(value.to_owned()).value_hint(hint)
        }
        None => arg.action(ArgAction::SetTrue),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELP: &str = "\
prog: does this and that

usage: prog [--config FILE] [--fast]

  --config FILE  where it says how,
                 in two lines
  --very-long-name
                 one that has its line for itself
  --fast         at once
  --version, --help

Exit status:
  0    done
";

    #[test]
    fn a_help_is_read() {
        let command = command("prog", "1.2", HELP).unwrap();
        let args: Vec<(String, String, bool)> = command
            .get_arguments()
            .map(|arg| (arg.get_id().to_string(), arg.get_help().unwrap().to_string(), arg.get_action().takes_values()))
            .collect();
        let expected = [
            ("config", "where it says how, in two lines", true),
            ("very-long-name", "one that has its line for itself", false),
            ("fast", "at once", false),
        ];
        assert_eq!(args, expected.map(|(id, help, takes)| (id.to_owned(), help.to_owned(), takes)));
        assert_eq!(command.get_about().unwrap().to_string(), "does this and that");
        assert_eq!(command.get_after_help().unwrap().to_string(), "Exit status:\n  0    done");
    }

    #[test]
    fn what_is_no_help_is_refused() {
        for (help, why) in [("", "head"), ("other: x\n  --a  b", "head"), ("prog: x\nno more", "options")] {
            let error = command("prog", "1", help).unwrap_err().to_string();
            assert!(error.contains(why) && error.contains("prog"), "{error}");
        }
    }
}
