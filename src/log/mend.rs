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
//! * cursor line: its order alone moves; a place that gets another name passes through free;
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
    let cursors = (0..g.cursors_max).map(|place| layout.cursor_line(candidate, place));
    let lines = [layout.epoch_line(candidate), layout.floor_line(candidate)].into_iter();
    let mended =
        lines.chain(lanes).chain(sessions).chain(topics).chain(cursors).filter(|at| mend_line(memory, *at)).count();
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::topics::{TopicWriter, read_topic};
    use crate::pool::Access;
    use crate::pool::line;
    use crate::pool::record::SessionLine;
    use crate::sim::memory::{HostMemory, Whim, host_views};

    /// Killed in a rewrite, and the line was evicted there and then: so it lies in memory, and in no cache.
    fn tear(view: &View<HostMemory>, at: u64) {
        view.memory.store(at, INVALID);
        view.memory.flush_line(at, Keep::Dropped);
        view.memory.full_fence();
    }

    /// What was mended is there for other hosts at once, and is taken for neither of the versions it was made from.
    #[test]
    fn what_is_mended_can_be_read_on_every_host() {
        let (_, views) = host_views([0, 1], &[0], Whim::LAZY, 1);
        let (here, there) = (&views[0], &views[1]);
        let at = here.layout.session_line(0, 3);
        line::publish(&here.memory, at, 1, &SessionLine { session: 9, ..SessionLine::default() });
        tear(here, at);
        assert!(mend_line(&here.memory, at) && !mend_line(&here.memory, at));
        let (guard, found) = line::observe::<_, SessionLine>(&there.memory, at, Access::Remote).expect("mended");
        assert!(guard > 1 && found.session == 9);
    }

    #[test]
    fn a_topic_cut_short_is_read_on_every_host_once_mended() {
        let (_, views) = host_views([0, 1], &[0], Whim::LAZY, 1);
        let (here, there) = (&views[0], &views[1]);
        let topic = crate::log::topics::tests::topic(0, "t");
        TopicWriter::new(here, 0).write(&topic, &Default::default());
        tear(here, here.layout.topic_line(0, 0, 1));
        assert_eq!(mend_candidate(here, 0), 1);
        assert_eq!(read_topic(there, 0, Access::Remote, 0), Some(topic));
    }
}
