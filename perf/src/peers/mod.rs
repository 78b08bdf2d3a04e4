//! `compare peers`: other systems' servers on the same machine, driven by small clients of our own in the same interleaved run.
//!
//! * [`peer`]: what every server's clients can do.
//! * [`ours`], [`redis`], [`nats`]: the servers. Redis acknowledges what is appended to a stream in its memory, NATS what a JetStream
//!   stream in its memory has; ours what is ordered and readable in the pool. NATS delivers to plain subscribers, which is its fastest way.
//! * [`conversation`]: a connection of the clients that are not ours.
//! * [`load`]: what is measured. [`table`]: by round and peer, and as ratios.
//!
//! Every producer is a thread that blocks. Servers that are not installed are left out, and named.

mod conversation;
mod load;
mod nats;
mod ours;
mod peer;
mod redis;
mod table;

use std::sync::atomic::Ordering;
use std::time::Duration;

use launch::place::Folder;
use tools_common::interrupt::{self, Second};

use crate::args::PeersArgs;
use crate::error::CompareError;
use crate::subject;
use load::LOADS;
use peer::Peer;
use table::Table;

/// Runs it and prints what it found.
pub fn run(args: &PeersArgs) -> Result<(), CompareError> {
    let interrupted = interrupt::flag(Second::IsIgnored).map_err(CompareError::io("catching signals"))?;
    let folder = subject::folder()?;
    let (peers, left_out) = start(&folder)?;
    let mut table = Table::new(peers.iter().map(|peer| peer.name()).collect(), left_out);
    let time = Duration::from_millis(args.measure_ms);
    for round in 0..=args.runs as usize {
        for load in &LOADS {
            for turn in 0..peers.len() {
                if interrupted.load(Ordering::Relaxed) {
                    return Err(CompareError::Interrupted);
                }
                let place = (turn + round) % peers.len();
                let peer = &peers[place];
                peer.subject().go_on()?;
                let figures = load.run(peer.as_ref(), time)?;
                peer.subject().stop()?;
                table.note(round, place, load, figures);
            }
        }
    }
    drop(peers);
    table.print(args.runs);
    args.output.write(&table.json())
}

type Peers = Vec<Box<dyn Peer>>;

/// All that are installed, each stopped until its turn; and the others, with what to do about them.
fn start(folder: &Folder) -> Result<(Peers, Vec<String>), CompareError> {
    let mut peers: Peers = vec![
        Box::new(ours::Ours::start("embarcadero", ours::BROKERS, folder)?),
        Box::new(ours::Ours::start("embarcadero_1", 1, folder)?),
    ];
    let mut left_out = Vec::new();
    match peer::installed(redis::PROGRAM) {
        Some(program) => peers.push(Box::new(redis::Redis::start(&program, folder)?)),
        None => left_out.push(peer::missing(redis::PROGRAM)),
    }
    match peer::installed(nats::PROGRAM) {
        Some(program) => peers.push(Box::new(nats::Nats::start(&program, folder)?)),
        None => left_out.push(peer::missing(nats::PROGRAM)),
    }
    for left_out in &left_out {
        eprintln!("compare: {left_out}");
    }
    peers.iter().try_for_each(|peer| peer.subject().stop())?;
    Ok((peers, left_out))
}
