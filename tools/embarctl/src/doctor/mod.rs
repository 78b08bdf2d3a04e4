//! `embarctl doctor`: whether this machine is set up for a broker of a configuration, check by check, and what to do where it is not.
//!
//! It looks and changes nothing. Whatever `/proc` and `/sys` say is read through [`tree::Tree`]; whatever only asking the kernel tells (a
//! ring, ports, the pool) is asked once, by [`asked::Asked`]. The checks are functions of both and of what the configuration needs, in
//! a file for each group: so tests run them on machines that are made up.
//!
//! A new check is a function in the file of its group, and a line in that file's `checks`.

mod asked;
mod brokers;
mod cores;
mod device;
mod kernel;
mod limits;
mod memory;
mod needs;
mod power;
mod processor;
mod report;
#[cfg(test)]
mod tests;
mod tree;

use std::path::{Path, PathBuf};

use clap::Args;
use embarcadero::config::Config;

use crate::Ended;
use crate::common::print;
use crate::error::CommandError;
use asked::Asked;
use needs::Needs;
use report::{Check, Report};
use tree::Tree;

/// For which brokers.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// The brokers' configuration; without it, the embedded one: four brokers on 127.0.0.1, pool in /dev/shm.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The pool, a file or a devdax device, instead of the configuration's.
    #[arg(long, value_name = "PATH")]
    pool: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// What the checks look at.
struct Seen<'a> {
    tree: &'a Tree,
    needs: &'a Needs,
    asked: &'a Asked,
}

/// Prints what was found.
///
/// # Errors
/// [`CommandError::NotSetUp`] if a check failed.
pub fn run(args: &DoctorArgs) -> Result<Ended, CommandError> {
    let mut config = args.config.as_deref().map_or_else(|| Ok(Config::embedded()), Config::load)?;
    if let Some(pool) = &args.pool {
        config.pool.path = std::path::absolute(pool)
            .map_err(|source| CommandError::Input { name: pool.display().to_string(), source })?;
    }
    // What is measured is what a broker would choose from.
    embarcadero::processor::limit(config.instructions);
    let name = args.config.as_deref().map_or("the embedded default".into(), |path| path.display().to_string());
    let needs = Needs::new(config, name);
    let (tree, asked) = (Tree::new(Path::new("/")), Asked::of(&needs));
    let report = examine(&Seen { tree: &tree, needs: &needs, asked: &asked });
    print(&if args.json { report.json() } else { report.text() })?;
    match report.failed() {
        0 => Ok(Ended::Done),
        failed => Err(CommandError::NotSetUp { failed }),
    }
}

/// The checks of a group.
type Checks = fn(&Seen<'_>) -> Vec<Check>;

/// Every check there is, group by group.
fn examine(seen: &Seen<'_>) -> Report {
    let groups: [(&'static str, Checks); 8] = [
        ("kernel", kernel::checks),
        ("limits", limits::checks),
        ("memory", memory::checks),
        ("cores", cores::checks),
        ("power", power::checks),
        ("device", device::checks),
        ("processor", processor::checks),
        ("brokers", brokers::checks),
    ];
    let needs = seen.needs;
    Report {
        configuration: needs.source.clone(),
        pool: needs.config.pool.path.clone(),
        what_runs: needs.in_words(),
        groups: groups.map(|(name, checks)| (name, checks(seen))).into(),
    }
}
