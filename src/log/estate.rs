//! What members that are gone have of the pool's memory, and how others give it back for them.
//!
//! Silence frees no memory: a process that stands still may go on, and the kernel may write for it before it does. So an extent is closed by who has
//! it, or by somebody who knows that no process can write there any more: one of the same host, which holds the member's lock, or an operator who
//! says that the whole host was powered off ([`LostHost`]).

use crate::log::View;
use crate::log::appender::Appender;
use crate::log::blog::last_said;
use crate::log::inherit::check_lanes;
use crate::log::member::stop_for;
use crate::log::recover::RecoverError;
use crate::pool::line::{self, Peer, observe_words};
use crate::pool::record::{BrokerLine, EpochLine, LaneStatus, member_state};
use crate::pool::{Access, Memory};

/// How many extents each lane has that were not given back, as their lines and its ring say: begun, or in hand. Lanes that nobody ever had have none.
pub fn held_extents<M: Memory>(view: &View<M>) -> Vec<u32> {
    let g = view.layout.geometry;
    let (lines, statuses) = (|extent| view.layout.extent_line(extent), |lane| view.layout.lane_status(lane));
    // Any of them may have been written on another host.
    line::fetch_all(&view.memory, (0..g.extents).map(lines).chain((0..g.lanes()).map(statuses)), Access::Remote);
    let is_used = |lane: &u32| line::fetched_words::<_, LaneStatus>(&view.memory, statuses(*lane)).incarnation > 0;
    let used: Vec<bool> = (0..g.lanes()).map(|lane| is_used(&lane)).collect();
    let mut held = vec![0; used.len()];
    for extent in 0..g.extents {
        let said = last_said(view, extent);
        let owner = match said.grant {
            0 => (0..g.lanes()).find(|lane| g.founding_extents(*lane).contains(&extent)),
            _ => said.lane.checked_sub(1).and_then(|lane| u32::try_from(lane).ok()),
        };
        let Some(lane) = owner.filter(|lane| used.get(*lane as usize) == Some(&true)) else { continue };
        let is_closed = said.closed.checked_sub(1) == Some(said.grant) && is_published(view, lane, said.end_slot);
        held[lane as usize] += u32::from(!is_closed);
    }
    held
}

/// Whether a lane's ring has a slot of this number, or had it.
fn is_published<M: Memory>(view: &View<M>, lane: u32, slot: u64) -> bool {
    let at = view.layout.ring_slot(lane, slot);
    line::fetch_all(&view.memory, [at].into_iter(), view.access_to_lane(lane));
    view.memory.load(at) > slot
}

/// Takes a lane over to give back what it has, as far as its ring takes that. Nobody else may write its lines: the caller holds its member's lock, or
/// knows that the host is off.
///
/// # Errors
/// What it finds is damaged: nothing was done.
pub fn give_back<M: Memory>(view: &View<M>, lane: u32) -> Result<(), RecoverError> {
    check_lanes(view, lane..lane + 1)?;
    Appender::take(view, lane).leave();
    Ok(())
}

/// What somebody who may live shows.
type Signs = (u64, u64, u64);

/// A host that is said to be powered off. It is watched for a while before that is believed.
#[derive(Debug)]
pub struct LostHost<'a, M> {
    view: &'a View<M>,
    host: u32,
    seen: Vec<(String, Signs)>,
}

/// What was given back for a host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forgotten {
    /// Members that had not said that they stopped.
    pub members: u32,
    /// Extents given back.
    pub extents: u32,
    /// Extents that rings had no room to close. The sequencer makes some: it can be done again.
    pub left: u32,
}

impl<'a, M: Memory> LostHost<'a, M> {
    /// Looks at all that its members and candidates show.
    ///
    /// # Panics
    /// If it is the host of the view: whoever lives there need not be told.
    pub fn watch(view: &'a View<M>, host: u32) -> Self {
        assert_ne!(host, view.host(), "a host that is off is another one");
        let mut lost = LostHost { view, host, seen: Vec::new() };
        lost.seen = lost.signs();
        lost
    }

    fn lanes(&self) -> impl Iterator<Item = u32> + use<'_, M> {
        let g = self.view.layout.geometry;
        (0..g.lanes()).filter(move |lane| self.view.home_of_member(g.member_of_lane(*lane)) == self.host)
    }

    fn signs(&self) -> Vec<(String, Signs)> {
        let (memory, layout) = (&self.view.memory, &self.view.layout);
        let of_member = |member| {
            let at = layout.broker_line(member);
            let line: BrokerLine = Peer::new(memory.clone(), at, Access::Remote).observe_words();
            let name = if member < layout.geometry.brokers { "broker" } else { "attached place" };
            (format!("{name} {member}"), (line.incarnation, line.heartbeat, line.state))
        };
        let of_lane = |lane| {
            let line: LaneStatus = observe_words(memory, layout.lane_status(lane), Access::Remote);
            (format!("lane {lane}"), (line.incarnation, line.beat, line.free_extents))
        };
        let of_candidate = |candidate| {
            let line: EpochLine = observe_words(memory, layout.epoch_line(candidate), Access::Remote);
            (format!("sequencer candidate {candidate}"), (line.claimed, line.heartbeat, line.watermark))
        };
        let members = self.view.members_of(self.host).map(of_member).chain(self.lanes().map(of_lane));
        members.chain(self.view.candidates_of(self.host).map(of_candidate)).collect()
    }

    /// Who of the host shows that it lives, if anybody does.
    pub fn who_lives(&self) -> Option<String> {
        let now = self.signs();
        self.seen.iter().zip(&now).find(|(before, now)| before != now).map(|((name, _), _)| name.clone())
    }

    /// Says of its brokers that they stopped, and gives back what its lanes had. The host is off until this is done: what one of its processes wrote
    /// from then on would lie in memory of others.
    ///
    /// # Errors
    /// What a lane left behind is damaged; others may have been given back.
    pub fn forget(self) -> Result<Forgotten, RecoverError> {
        let mut forgotten = Forgotten::default();
        let had = held_extents(self.view);
        for member in self.view.members_of(self.host) {
            let at = self.view.layout.broker_line(member);
            let line: BrokerLine = observe_words(&self.view.memory, at, Access::Remote);
            if line.incarnation > 0 && line.state != member_state::STOPPED {
                stop_for(self.view, member);
                forgotten.members += 1;
            }
        }
        // Of one that has nothing too: this may have been begun before, and what was written then lie in this host's cache.
        let is_used = |lane: &u32| {
            let at = self.view.layout.lane_status(*lane);
            observe_words::<_, LaneStatus>(&self.view.memory, at, Access::Remote).incarnation > 0
        };
        let lanes: Vec<u32> = self.lanes().filter(is_used).collect();
        lanes.iter().try_for_each(|lane| give_back(self.view, *lane))?;
        let of = |held: Vec<u32>| self.lanes().map(|lane| held[lane as usize]).sum::<u32>();
        forgotten.left = of(held_extents(self.view));
        forgotten.extents = of(had).saturating_sub(forgotten.left);
        Ok(forgotten)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::commit::CommitWriter;
    use crate::log::lane::LaneReader;
    use crate::log::member::{BEAT_NS, Member};
    use crate::log::views::{host_views, plain_view};
    use crate::pool::Process;
    use crate::pool::record::{BatchSlot, slot_kind};
    use crate::testing::memory::Whim;

    #[test]
    fn an_extent_is_given_back_when_a_slot_says_that_it_is_closed() {
        let view = plain_view(1);
        let mut appender = Appender::take(&view, 0);
        let had = held_extents(&view)[0];
        assert!(had > 0 && held_extents(&view)[1] == 0, "nobody ever had lane 1");
        appender.leave();
        assert_eq!(held_extents(&view)[0], 0);
        // Its owner was killed between the last line and the slot that tells of it.
        view.memory.store(view.layout.ring_slot(0, appender.produced() - 1), line::INVALID);
        assert_eq!(held_extents(&view)[0], 1);
        give_back(&view, 0).unwrap();
        assert_eq!(held_extents(&view)[0], 0);
    }

    /// It reads the ring as it lies in memory: what it has of it in its cache was read while the host lived.
    #[test]
    fn a_host_that_is_off_is_forgotten_from_another() {
        let (memory, views) = host_views([0, 1], &[0], Whim::NONE, 1);
        let (here, there) = (&views[0], &views[1]);
        let slots = 0..u64::from(here.layout.geometry.ring_slots);
        assert_eq!(
            slots.map(|slot| here.memory.load(here.layout.ring_slot(1, slot))).max(),
            Some(0),
            "it was empty then"
        );
        let member = Member::announce(there, 1, Process::default());
        let mut appender = Appender::take(there, 1);
        let had = held_extents(here)[1];
        (0..3).for_each(|_| {
            appender.publish(&BatchSlot::default());
        });
        let produced = appender.produced();
        drop((appender, member));
        memory.lose_power(1);
        let lost = LostHost::watch(here, 1);
        assert_eq!(lost.who_lives(), None);
        assert_eq!(lost.forget(), Ok(Forgotten { members: 1, extents: had, left: 0 }));
        let line: BrokerLine = observe_words(&there.memory, there.layout.broker_line(1), Access::Local);
        assert_eq!((line.incarnation, line.state), (1, member_state::STOPPED));
        let reader = LaneReader::new(here, 1, produced);
        reader.prefetch();
        here.memory.full_fence();
        assert_eq!(reader.peek().map(|slot| slot.kind), Some(slot_kind::EXTENT_CLOSE), "behind what it had published");
        assert_eq!(LostHost::watch(here, 1).forget(), Ok(Forgotten::default()));
        // It is switched on again, and goes on behind that.
        assert_eq!(Appender::take(there, 1).produced(), produced + u64::from(had));
    }

    #[test]
    fn whoever_moves_is_not_off() {
        let (_memory, views) = host_views([0, 1], &[0, 1], Whim::NONE, 1);
        let (here, there) = (&views[0], &views[1]);
        let (mut other, mut member) =
            (Member::announce(here, 0, Process::default()), Member::announce(there, 1, Process::default()));
        let (mut lane, mut candidate) = (Appender::take(there, 1), CommitWriter::take(there, 1));
        candidate.claim(0, 1);
        let who = |act: &mut dyn FnMut()| {
            let lost = LostHost::watch(here, 1);
            act();
            lost.who_lives()
        };
        assert_eq!(who(&mut || assert!(other.beat(BEAT_NS))), None, "another host's");
        assert_eq!(who(&mut || assert!(member.beat(BEAT_NS))).as_deref(), Some("broker 1"));
        assert_eq!(who(&mut || lane.beat()).as_deref(), Some("lane 1"));
        assert_eq!(who(&mut || candidate.beat()).as_deref(), Some("sequencer candidate 1"));
    }
}
