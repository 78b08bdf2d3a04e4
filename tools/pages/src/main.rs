//! `pages`: writes the manual page and the completions of a program that parses by itself. Those that have a `clap` command line write their own
//! (`embarctl __pages`, `loadgen __pages`). `make install` runs all three.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use pages::PagesError;
use pages::help::{command, help_of};

/// Writes the manual page and the completions of a program, from what it says to --help.
#[derive(Debug, Parser)]
#[command(name = "pages", version)]
struct Arguments {
    /// The program
    program: PathBuf,
    /// Where man/, bash-completion/, zsh/ and fish/ are, or will be
    share: PathBuf,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments.program, &arguments.share) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pages: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(program: &Path, share: &Path) -> Result<(), PagesError> {
    let name = program.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let help = help_of(program)?;
    pages::write(&command(&name, env!("CARGO_PKG_VERSION"), &help)?, share)
}
