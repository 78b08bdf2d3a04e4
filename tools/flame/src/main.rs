//! `flame`: makes of what `perf script` prints a table for each role, and a flame graph. `perf/record.sh` runs it.
//!
//! * [`roles`]: which role a stack belongs to.
//! * [`table`]: the dearest functions of a role.
#![forbid(unsafe_code)]

mod roles;
mod table;

use std::fs::File;
use std::io::{self, BufWriter, Cursor, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use inferno::collapse::Collapse;
use inferno::collapse::perf::{Folder, Options as FoldOptions};
use inferno::flamegraph::{self, Options as GraphOptions};

use crate::roles::{Stack, Wanted, in_words};
use crate::table::tables;

/// Makes of what `perf script` prints (on standard input) a table for each role, and a flame graph.
#[derive(Debug, Parser)]
#[command(name = "flame", version)]
struct Arguments {
    /// receive, sequence, ack, export, all, or a thread's name
    #[arg(long, default_value = "all")]
    role: String,
    /// The flame graph, SVG
    #[arg(long)]
    out: PathBuf,
    /// Functions in a table
    #[arg(long, default_value_t = 10)]
    rows: usize,
}

/// Why there is no flame graph.
#[derive(Debug, thiserror::Error)]
enum FlameError {
    /// Standard input is not what `perf script` prints.
    #[error("standard input: {0}; expected what `perf script` prints")]
    Samples(io::Error),
    /// Nothing to show.
    #[error(
        "no sample of {wanted} among {samples}: put a load on the broker, or record for longer (SECONDS_TO_RECORD)"
    )]
    Nothing {
        /// What was asked for.
        wanted: String,
        /// Samples of all roles.
        samples: u64,
    },
    /// The file.
    #[error("writing {}: {source}", path.display())]
    Output {
        /// Its path.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("flame: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), FlameError> {
    let stacks = folded(io::stdin().lock())?;
    let wanted = Wanted::of(&arguments.role);
    let samples: u64 = stacks.iter().map(|stack| stack.samples).sum();
    let kept: Vec<Stack> = stacks.into_iter().filter(|stack| wanted.has(stack)).collect();
    if kept.is_empty() {
        return Err(FlameError::Nothing { wanted: arguments.role.clone(), samples });
    }
    // Who closes standard output has seen enough.
    let _ = io::stdout().lock().write_all(tables(&kept, samples, arguments.rows).as_bytes());
    let of_role: u64 = kept.iter().map(|stack| stack.samples).sum();
    let title = format!("{}: {of_role} of {samples} samples", arguments.role);
    draw(&title, &kept, &arguments.out).map_err(|source| FlameError::Output { path: arguments.out.clone(), source })
}

/// Reads samples; equal stacks become one.
fn folded(samples: impl io::BufRead) -> Result<Vec<Stack>, FlameError> {
    let mut lines = Vec::new();
    Folder::from(FoldOptions::default()).collapse(samples, &mut lines).map_err(FlameError::Samples)?;
    Ok(String::from_utf8_lossy(&lines).lines().filter_map(Stack::read).collect())
}

/// Draws a flame graph: the role below, what it calls above.
fn draw(title: &str, stacks: &[Stack], out: &Path) -> io::Result<()> {
    let lines: Vec<String> = stacks.iter().map(in_words).collect();
    let mut options = GraphOptions::default();
    options.title = title.to_owned();
    options.deterministic = true;
    let mut drawn = Cursor::new(Vec::new());
    flamegraph::from_lines(&mut options, lines.iter().map(String::as_str), &mut drawn).map_err(io::Error::other)?;
    let mut file = BufWriter::new(File::create(out)?);
    file.write_all(drawn.get_ref())?;
    file.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `perf script` prints it: the leaf first.
    const SAMPLES: &str = "\
shared 101/102 5.000000:    1001001 cpu-clock:ppp: 
\t    55d0 memcpy (/usr/lib/libc.so.6)
\t    55d1 <embarcadero::roles::receive::Receive<M> as embarcadero::runtime::role::Role<I>>::poll+0x10 (/bin/embarlet)
\t    55d2 embarcadero::runtime::runner::Runner<I,C>::pass+0x20 (/bin/embarlet)

shared 101/102 5.001000:    1001001 cpu-clock:ppp: 
\t    55d3 io_uring_enter (/usr/lib/libc.so.6)
\t    55d2 embarcadero::runtime::runner::Runner<I,C>::pass+0x20 (/bin/embarlet)

";

    #[test]
    fn samples_become_tables_and_a_picture() {
        let stacks = folded(SAMPLES.as_bytes()).unwrap();
        let receive: Vec<Stack> = stacks.iter().filter(|stack| Wanted::of("receive").has(stack)).cloned().collect();
        assert_eq!((stacks.len(), receive.len()), (2, 1));
        assert_eq!(receive[0].frames.last().map(String::as_str), Some("memcpy"));
        let path = std::env::temp_dir().join(format!("flame-{}.svg", std::process::id()));
        draw("receive", &receive, &path).unwrap();
        let svg = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(svg.contains("<svg") && svg.contains("memcpy") && !svg.contains("io_uring_enter"), "{svg}");
    }

    #[test]
    fn what_perf_did_not_print_is_nothing() {
        assert!(folded(&b"perf: no such file\n"[..]).is_ok_and(|stacks| stacks.is_empty()));
    }
}
