//! Lines whose owner was killed in the middle of a publication, made readable again by its successor.
//!
//! A record that is rewritten in place passes through `invalid`, and a kill can leave it there: nobody could read it any more,
//! and for an epoch line that would mean that a whole log looks as if it had never been. Words are stored in order, so
//! the line's body then holds the first words of the last version and the rest of the one before. Whoever rewrites a line
//! sees to it that every such mixture is as good as one of the two versions:
//!
//! * epoch line: an activation moves the watermark first, `active` after; else one word matters at a time, and a watermark that
//!   was stored had its entries written back before;
//! * floor line: one word changes at a time;
//! * lane progress: each count stands for itself, and is reached before it is written;
//! * session, topic and progress lines: what moved since the checkpoint is replayed over them.
//!
//! Invariant: the caller holds the host lock of the slot, so the lines have no living writer.

use crate::log::View;
use crate::pool::line::INVALID;
use crate::pool::{Keep, Memory};

/// Guard of a mended line: above every version, so that no reader takes it for one it has begun to read.
const MENDED: u64 = 1 << 62;

fn is_torn<M: Memory>(memory: &M, at: u64) -> bool {
    memory.load(at) == INVALID && (1..8).any(|word| memory.load(at + 8 * word) != 0)
}

fn set_guard<M: Memory>(memory: &M, at: u64, guard: u64) {
    memory.store(at, guard);
    memory.flush_line(at, Keep::Cached);
}

/// Mends one line. True if it was torn.
pub fn mend_line<M: Memory>(memory: &M, at: u64) -> bool {
    let is_torn = is_torn(memory, at);
    if is_torn {
        set_guard(memory, at, MENDED);
        memory.store_fence();
    }
    is_torn
}

/// Mends everything a candidate writes in place. Gives how many lines were torn.
pub fn mend_candidate<M: Memory>(view: &View<M>, candidate: u32) -> usize {
    let (memory, layout) = (&view.memory, &view.layout);
    let g = &layout.geometry;
    let lanes = (0..g.lanes()).map(|lane| layout.lane_progress(candidate, lane));
    let sessions = (0..g.sessions_max).map(|slot| layout.session_line(candidate, slot));
    let topics = (0..g.topics_max).map(|topic| layout.topic_line(candidate, topic, 3));
    let lines = [layout.epoch_line(candidate), layout.floor_line(candidate)].into_iter();
    let mended = lines.chain(lanes).chain(sessions).chain(topics).filter(|at| mend_line(memory, *at)).count();
    mended + (0..g.topics_max).filter(|topic| mend_topic(view, candidate, *topic)).count()
}

/// The three lines of a topic have one guard, and say the same for ever; the last to be written for the first time is the first.
fn mend_topic<M: Memory>(view: &View<M>, candidate: u32, topic: u32) -> bool {
    let memory = &view.memory;
    let lines = [0, 1, 2].map(|line| view.layout.topic_line(candidate, topic, line));
    let guards = lines.map(|at| memory.load(at));
    let was_written = (1..8).any(|word| memory.load(lines[0] + 8 * word) != 0);
    let agree = guards[0] != INVALID && guards.iter().all(|guard| *guard == guards[0]);
    if !was_written || agree {
        return false;
    }
    lines.iter().for_each(|at| set_guard(memory, *at, MENDED));
    memory.store_fence();
    true
}
