//! Lines whose owner was killed in the middle of a publication, made readable again by its successor.
//!
//! A record that is rewritten in place passes through `invalid`, and a kill can leave it there: nobody could read it any more,
//! and for an epoch line that would mean that a whole log looks as if it had never been. Words are stored in order, so
//! the line's body then holds the first words of the last version and the rest of the one before. Whoever rewrites a line
//! sees to it that every such mixture is as good as one of the two versions:
//!
//! * epoch line: an activation moves the watermark first, `active` after; else one word matters at a time, and a watermark that
//!   was stored had its entries written back before;
//! * floor line: one word changes at a time, but for its check;
//! * lane progress: each count stands for itself, and is reached before it is written;
//! * cursor line: its order alone moves, but for its check; a place that gets another name passes through free;
//! * session and progress lines: what moved since the checkpoint is replayed over them;
//! * topic lines: a place is only written when it changes hands, so one that was cut short changed hands behind the checkpoint. It
//!   is freed, lest somebody reads a topic made of two; the replay says what is there.
//!
//! A check over the whole line is of one version or the other, and right for neither mixture: it is made anew with the guard.
//!
//! Invariant: the caller holds the host lock of the slot, so the lines have no living writer.

use crate::log::View;
use crate::log::topics::TopicWriter;
use crate::pool::line::{self, INVALID};
use crate::pool::record::{Checked, CursorLine, FloorLine, TopicLine};
use crate::pool::{Access, Keep, Memory};

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

/// Mends one line whose record carries a check. True if it was torn.
pub fn mend_checked<M: Memory, R: Checked>(memory: &M, at: u64) -> bool {
    let is_torn = is_torn(memory, at);
    if is_torn {
        // Every word is stored again as it is, but for the check. Killed in that, it is torn as before.
        let record: R = line::observe_words(memory, at, Access::Local);
        line::publish(memory, at, MENDED, &record);
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
    let epoch = [layout.epoch_line(candidate)].into_iter();
    let mended = epoch.chain(lanes).chain(sessions).chain(topics).filter(|at| mend_line(memory, *at)).count();
    let floors = usize::from(mend_checked::<_, FloorLine>(memory, layout.floor_line(candidate)));
    let cursors = cursors.filter(|at| mend_checked::<_, CursorLine>(memory, *at)).count();
    mended + floors + cursors + (0..g.topics_max).filter(|topic| mend_topic(view, candidate, *topic)).count()
}

/// The three lines of a topic have one guard.
fn mend_topic<M: Memory>(view: &View<M>, candidate: u32, topic: u32) -> bool {
    let memory = &view.memory;
    let lines = [0, 1, 2].map(|line| view.layout.topic_line(candidate, topic, line));
    let guards = lines.map(|at| memory.load(at));
    let agree = guards.iter().all(|guard| *guard == guards[0]);
    let is_free = line::read::<M, TopicLine>(memory, lines[0]).is_some_and(|(_, line)| line.name_bytes == 0);
    if agree && guards[0] != INVALID || is_free || guards == [INVALID; 3] {
        return false;
    }
    TopicWriter::new(view, candidate).clear(topic);
    memory.store_fence();
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::damage::sound;
    use crate::log::topics::{read_topic, read_topic_words};
    use crate::log::views::{host_views, plain_view};
    use crate::pool::record::SessionLine;
    use crate::testing::memory::{HostMemory, Whim};
    use crate::testing::watched::Watched;

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

    /// Killed after any of the stores of a publication, and again after any of those of the mending: the check is right for the words
    /// that were found, and each of them is of one version or the other.
    #[test]
    fn a_line_with_a_check_is_sound_once_mended() {
        let (before, after) = (FloorLine { floor: 3, ..floors(9) }, FloorLine { floor: 7, ..floors(9) });
        let mut mended = 0;
        for (moment, again) in (0..20).flat_map(|moment| [0, 1, 3, 8, 9, 20].map(|again| (moment, again))) {
            let view = plain_view(1);
            let at = view.layout.floor_line(0);
            let watched = Watched::new(view.memory.clone());
            line::publish(&view.memory, at, 1, &before);
            watched.killed_at(moment, || line::publish(&watched, at, 2, &after));
            let watched = Watched::new(view.memory.clone());
            watched.killed_at(again, || mend_checked::<_, FloorLine>(&watched, at));
            mended += usize::from(mend_checked::<_, FloorLine>(&view.memory, at));
            let (_, found) = line::read::<_, FloorLine>(&view.memory, at).expect("mended");
            let found = sound(found).unwrap_or_else(|fault| panic!("killed at {moment}, then at {again}: {fault}"));
            assert!(found == before || found == after, "killed at {moment}, then at {again}: {found:?}");
        }
        assert!(mended > 20, "only {mended} were torn");
    }

    fn floors(checkpoint: u64) -> FloorLine {
        FloorLine { checkpoint, ..FloorLine::default() }
    }

    #[test]
    fn a_topic_cut_short_is_nobodys_once_mended() {
        for line in 0..3 {
            let (_, views) = host_views([0, 1], &[0], Whim::LAZY, 1);
            let (here, there) = (&views[0], &views[1]);
            let topic = crate::log::topics::tests::topic(3, "t");
            TopicWriter::new(here, 0).write(&topic, &Default::default());
            tear(here, here.layout.topic_line(0, 3, line));
            assert_eq!((mend_candidate(here, 0), mend_candidate(here, 0)), (1, 0));
            assert_eq!(read_topic(there, 0, Access::Remote, 3), None);
            assert_eq!(read_topic_words(there, 0, Access::Remote, 3), Ok(None));
            TopicWriter::new(here, 0).write(&topic, &Default::default());
            here.memory.store_fence();
            assert_eq!(read_topic(there, 0, Access::Remote, 3), Some(topic));
        }
    }
}
