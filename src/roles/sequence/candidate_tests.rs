//! A candidate whose claim, or whose epoch, is superseded.

use super::candidate::{Candidate, Locks, TakeoverSettings};
use super::tests::SETTINGS;
use crate::log::View;
use crate::log::commit::{CommitReader, CommitWriter};
use crate::pool::line::INVALID;
use crate::pool::record::EpochLine;
use crate::pool::{Access, Memory, line};
use crate::sim::memory::{HostMemory, plain_view};

/// All other processes are gone.
struct Alone;

impl Locks for Alone {
    fn is_candidate_held(&self, _candidate: u32) -> bool {
        false
    }
    fn while_free(&self, _candidate: u32, act: &mut dyn FnMut()) {
        act();
    }
    fn is_member_gone(&self, _broker: u32) -> bool {
        false
    }
}

const SECOND: u64 = 1_000_000_000;

fn candidate(view: &View<HostMemory>) -> Candidate<HostMemory> {
    Candidate::new(view, 0, SETTINGS, TakeoverSettings { after_ns: SECOND, settle_ns: SECOND })
}

#[test]
fn a_claim_is_above_every_claim_and_is_given_up_for_a_higher_one() {
    let view = plain_view(2);
    let reader = CommitReader::new(&view);
    let mut other = CommitWriter::take(&view, 1);
    other.claim(10, 1);
    let mut candidate = candidate(&view);
    assert_eq!(candidate.step(SECOND, &Alone), 1);
    let claimed = reader.line(0).claimed;
    assert!(claimed > reader.line(1).claimed, "{claimed} is claimed");
    other.claim(claimed, 1);
    assert_eq!(candidate.step(3 * SECOND, &Alone), 1);
    assert!(candidate.active().is_none());
    assert_eq!(reader.line(0).active, 0, "it never was");
}

#[test]
fn an_active_one_steps_back_when_a_higher_epoch_is_claimed() {
    let view = plain_view(2);
    let mut candidate = candidate(&view);
    (1..4).for_each(|second| {
        candidate.step(second * SECOND, &Alone);
    });
    let epoch = candidate.active().expect("nobody else claims").epoch();
    CommitWriter::take(&view, 1).claim(epoch, 1);
    candidate.step(5 * SECOND, &Alone);
    assert!(candidate.active().is_none());
}

#[test]
fn lines_its_former_life_left_torn_are_mended() {
    let view = plain_view(2);
    let mut former = CommitWriter::take(&view, 0);
    former.claim(0, 1);
    former.activate(0);
    let at = view.layout.epoch_line(0);
    view.memory.store(at, INVALID);
    let _candidate = candidate(&view);
    let (_, mended) = line::observe::<_, EpochLine>(&view.memory, at, Access::Local).expect("it can be read");
    assert_eq!(mended.active, 1);
}
