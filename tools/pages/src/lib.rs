//! Manual pages and completions, made from the command lines themselves: what a program takes and what its page says cannot differ.
//!
//! * [`answer`]: a program with a `clap` command line that is asked for its own. [`write()`]: all of them for one program, where `share` has them.
//! * [`help`]: the command line of a program that parses by itself, read from what it prints.
//! * [`held`]: pages held against their programs. [`options`], [`commands`]: what a text of help lists; [`plain`]: a page without its marks. For tests.
#![forbid(unsafe_code)]

pub mod held;
pub mod help;

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Command;
use clap_complete::{Shell, generate_to};

/// Where pages and completions are below `share`; completions by the shell that looks there.
const PAGES: &str = "man/man1";
const COMPLETIONS: [(Shell, &str); 3] = [
    (Shell::Bash, "bash-completion/completions"),
    (Shell::Zsh, "zsh/site-functions"),
    (Shell::Fish, "fish/vendor_completions.d"),
];

/// Why there are no pages.
#[derive(Debug, thiserror::Error)]
pub enum PagesError {
    /// A file or a folder.
    #[error("writing to {}: {source}", folder.display())]
    Write {
        /// Below which.
        folder: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A program that is to say what it takes.
    #[error("{} --help: {source}; build it first", program.display())]
    Run {
        /// Its path.
        program: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// What it printed.
    #[error(
        "the help of {name} {why}; expected a head `{name}: what it is`, and options as `  --name VALUE  what for`"
    )]
    Help {
        /// The program.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
}

/// The word by which a program is asked for its pages, with the folder behind it. It is no command: pages and completions do not have it.
pub const ASKED: &str = "__pages";

/// If this process was asked for its pages, writes them, and gives what it exits with.
pub fn answer(command: &Command) -> Option<ExitCode> {
    let share = share_asked_for(env::args_os().skip(1))?;
    Some(match write(command, &share) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}: {error}", command.get_name());
            ExitCode::FAILURE
        }
    })
}

fn share_asked_for(mut arguments: impl Iterator<Item = OsString>) -> Option<PathBuf> {
    let is_asked = arguments.next()? == ASKED;
    arguments.next().filter(|_| is_asked && arguments.next().is_none()).map(PathBuf::from)
}

/// Writes the manual pages (one for each of its commands that is not hidden) and completions of a program below `share`.
///
/// # Errors
/// [`PagesError::Write`].
pub fn write(command: &Command, share: &Path) -> Result<(), PagesError> {
    let failed = |folder: &Path| {
        let folder = folder.to_path_buf();
        move |source| PagesError::Write { folder, source }
    };
    let folder = share.join(PAGES);
    fs::create_dir_all(&folder).map_err(failed(&folder))?;
    clap_mangen::generate_to(without_help_commands(command.clone()), &folder).map_err(failed(&folder))?;
    for (shell, place) in COMPLETIONS {
        let (folder, mut command) = (share.join(place), command.clone());
        fs::create_dir_all(&folder).map_err(failed(&folder))?;
        let name = command.get_name().to_owned();
        let written = generate_to(shell, &mut command, &name, &folder).map_err(failed(&folder))?;
        if shell == Shell::Bash {
            // It is looked for by the program's name alone.
            fs::rename(&written, folder.join(&name)).map_err(failed(&folder))?;
        }
    }
    Ok(())
}

/// Pages of `help` commands would say nothing that is not on the others.
fn without_help_commands(command: Command) -> Command {
    let names: Vec<String> = command.get_subcommands().map(|one| one.get_name().to_owned()).collect();
    let command = command.disable_help_subcommand(true);
    names.into_iter().fold(command, |command, name| command.mut_subcommand(name, without_help_commands))
}

/// The long options that a text of help lists: on lines that begin with one, or with a letter's and that.
pub fn options(help: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in help.lines().map(str::trim_start).filter(|line| line.starts_with('-')) {
        // Up to what it says of them.
        let names = line.split("  ").next().unwrap_or_default();
        let words = names.split([' ', ',', '=', '<', '[']).filter(|word| word.starts_with("--") && word.len() > 2);
        found.extend(words.map(str::to_owned));
    }
    found
}

/// The commands that a text of help lists.
pub fn commands(help: &str) -> Vec<String> {
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let name = |line: &str| line.strip_prefix("  ").and_then(|line| line.split(' ').next()).map(str::to_owned);
    listed.filter_map(name).filter(|name| !name.is_empty() && name != "help").collect()
}

/// A manual page as it is read: without the marks that are for the formatter.
pub fn plain(page: &str) -> String {
    page.replace("\\-", "-").replace("\\fB", "").replace("\\fI", "").replace("\\fR", "")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Arg;

    #[test]
    fn options_are_those_that_are_listed() {
        let help = "usage: x [--not-listed]\n  -c, --config <FILE>  like --other\n      --deep\n          with --words\n  --version, --help";
        assert_eq!(options(help), ["--config", "--deep", "--version", "--help"]);
    }

    #[test]
    fn commands_are_those_that_are_listed() {
        let help = "What it is.\n\nUsage: x\n\nCommands:\n  one   does this\n          and that\n  two   x\n  help  Print\n\nOptions:\n  -h, --help";
        assert_eq!(commands(help), ["one", "two"]);
    }

    #[test]
    fn pages_are_asked_for_by_a_word_and_a_folder() {
        let asked = |words: &str| share_asked_for(words.split_whitespace().map(OsString::from));
        assert_eq!(asked("__pages share"), Some("share".into()));
        assert_eq!([asked(""), asked("__pages"), asked("topic share"), asked("__pages a b")], [None, None, None, None]);
    }

    #[test]
    fn each_command_has_a_page_and_each_shell_its_completion() {
        let hidden = Command::new("secret").hide(true);
        let one = Command::new("one").arg(Arg::new("deep").long("deep-one")).subcommand(Command::new("two"));
        let command = Command::new("prog").subcommand(one).subcommand(hidden);
        let share = std::env::temp_dir().join(format!("pages-{}", std::process::id()));
        write(&command, &share).unwrap();
        let names = |place: &str| {
            let entries = fs::read_dir(share.join(place)).unwrap();
            let mut names: Vec<String> =
                entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
            names.sort();
            names
        };
        assert_eq!(names(PAGES), ["prog-one-two.1", "prog-one.1", "prog.1"]);
        assert_eq!(COMPLETIONS.map(|(_, place)| names(place).join(" ")), ["prog", "_prog", "prog.fish"]);
        let page = plain(&fs::read_to_string(share.join(PAGES).join("prog-one.1")).unwrap());
        fs::remove_dir_all(&share).unwrap();
        assert!(page.contains("--deep-one"), "{page}");
    }
}
