//! `embarctl inspect`: every promise of a pool that can be verified from its bytes, whoever owns it, its brokers alive or dead.
//!
//! It looks and changes nothing. A pool that lives moves on: what is found broken is looked at again, and counts if it is found each
//! time and was kept all the while.
//!
//! * [`walk`]: the order in which everything is looked at.
//! * [`looking`]: one line; [`findings`]: what was found.
//! * [`epochs`], [`lanes`], [`members`], [`tables`], [`extents`]: each a part of the pool.
//! * [`index`]: the walk along the order index; [`fold`]: what it comes to; [`blog`]: the bytes it names.

mod blog;
#[cfg(test)]
mod damage_tests;
mod epochs;
mod extents;
mod findings;
mod fold;
mod index;
mod lanes;
mod looking;
mod members;
mod report;
mod tables;
#[cfg(test)]
mod tests;
mod walk;

use std::path::PathBuf;

use clap::Args;
use embarcadero::fields::Described;
use embarcadero::pool::superblock::{Superblock, SuperblockError};
use embarcadero::pool::{Pool, PoolError};

use crate::Ended;
use crate::common::print;
use crate::error::CommandError;
use findings::{Findings, Place, Promise};
use report::Report;
use walk::Seen;

/// Which pool.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// The pool: a file or a devdax device.
    #[arg(value_name = "POOL")]
    pool: PathBuf,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// Most places told of each promise; the others are counted.
    #[arg(long, default_value = "20", value_name = "COUNT")]
    limit: usize,
}

/// Prints what was found.
///
/// # Errors
/// [`CommandError::Broken`] if a promise does not hold.
pub fn run(args: &InspectArgs) -> Result<Ended, CommandError> {
    let seen = look(&args.pool)?;
    let report = Report { pool: &args.pool, seen: &seen, limit: args.limit };
    print(&if args.json { report.json() } else { report.text() })?;
    match report.broken() {
        0 => Ok(Ended::Done),
        places => Err(CommandError::Broken { places }),
    }
}

fn look(path: &std::path::Path) -> Result<Seen, CommandError> {
    match Pool::look(path) {
        Ok(pool) => Ok(walk::look(&pool)),
        // Where nothing else can be found.
        Err(PoolError::Superblock { path, source }) => match superblock_place(&source) {
            Some((field, found, expected)) => {
                let mut findings = Findings::new();
                findings.looked(Promise::Superblock, size_of::<Superblock>() as u64);
                let behind =
                    Superblock::FIELDS.iter().find(|known| known.name == field).map_or(0, |known| known.offset);
                let place = Place { region: "superblock", number: 0, at: 0 };
                findings.broken(Promise::Superblock, place.broken(behind as u64, field, found, expected));
                findings
                    .note(Promise::Superblock, "nothing else can be looked at: it says where everything lies".into());
                if matches!(source, SuperblockError::Version { .. } | SuperblockError::Features { .. }) {
                    let words = "if another release made it, it is not broken: use the embarctl of that one";
                    findings.note(Promise::Superblock, words.into());
                }
                Ok(Seen { findings, part: None })
            }
            None => Err(PoolError::Superblock { path, source }.into()),
        },
        Err(error) => Err(error.into()),
    }
}

/// The field of a superblock that is damaged, what it says and what it should. `None`: there is no superblock; what is
/// of something else is not a broken pool, and to format it would be wrong.
fn superblock_place(error: &SuperblockError) -> Option<(&'static str, String, String)> {
    use embarcadero::pool::superblock::LAYOUT_VERSION;
    Some(match error {
        SuperblockError::Version { found } => {
            ("layout_version", found.to_string(), format!("{LAYOUT_VERSION}, which this program knows"))
        }
        SuperblockError::Damaged { found, computed } => {
            ("crc", format!("{found:#010x}"), format!("{computed:#010x}, computed"))
        }
        SuperblockError::Features { unknown } => {
            ("features_to_read", format!("with {unknown:#x}"), "features that this program knows".into())
        }
        SuperblockError::Geometry(what) => ("geometry", what.clone(), "one that fits".into()),
        _ => return None,
    })
}
