//! Looks after what dead members of a host have of the pool's memory: a process of the same host sees that theirs has ended, and gives it back.
//!
//! A member that comes back soon goes on with what it had; so it is done at the second look that finds it gone. Once somebody is gone it touches every
//! extent's line, which takes a while: housekeeping does it, not a role.

use crate::log::View;
use crate::log::estate::{give_back, held_extents};
use crate::pool::line::observe_words;
use crate::pool::record::BrokerLine;
use crate::pool::{Access, Memory, PlaceKind};
use crate::roles::locks::Locks;

/// What was found of a member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Found {
    /// It was gone at the last look, and had something.
    was_gone: bool,
    /// This process of it is gone, and has nothing that can be given back.
    settled: u64,
}

/// See the head of the file.
#[derive(Debug)]
pub struct Caretaker<M> {
    view: View<M>,
    /// By member.
    found: Vec<Found>,
}

impl<M: Memory> Caretaker<M> {
    /// Of the host of this view.
    pub fn new(view: &View<M>) -> Self {
        Caretaker { view: view.clone(), found: vec![Found::default(); view.layout.geometry.members() as usize] }
    }

    /// Looks once. Gives how many extents were given back, or are at the next look because a ring had no room.
    pub fn look(&mut self, locks: &impl Locks) -> u32 {
        let g = self.view.layout.geometry;
        let with_lanes = 0..g.members_of(PlaceKind::Publisher).end;
        let gone: Vec<_> = with_lanes.filter_map(|member| Some((member, self.gone(member, locks)?))).collect();
        if gone.is_empty() {
            return 0;
        }
        let held = held_extents(&self.view);
        let mut given = 0;
        for (member, incarnation) in gone {
            let lanes = (0..g.lanes()).filter(|lane| g.member_of_lane(*lane) == member && held[*lane as usize] > 0);
            let lanes: Vec<u32> = lanes.collect();
            let found = &mut self.found[member as usize];
            if lanes.is_empty() {
                *found = Found { settled: incarnation, ..Found::default() };
            } else if std::mem::replace(&mut found.was_gone, true) {
                let mut outcome = None;
                locks.while_member_free(member, &mut || {
                    outcome = Some(lanes.iter().try_for_each(|lane| give_back(&self.view, *lane)));
                });
                match outcome {
                    Some(Ok(())) => given += lanes.iter().map(|lane| held[*lane as usize]).sum::<u32>(),
                    Some(Err(error)) => {
                        log::error!("member {member} of this host is gone, and what it had is not given back: {error}");
                        found.settled = incarnation;
                    }
                    // It is back.
                    None => {}
                }
            }
        }
        given
    }

    /// Which process of a member of this host is gone and may have something, if the last one is.
    fn gone(&mut self, member: u32, locks: &impl Locks) -> Option<u64> {
        if self.view.access_to_member(member) == Access::Remote {
            return None;
        }
        let line: BrokerLine = observe_words(&self.view.memory, self.view.layout.broker_line(member), Access::Local);
        let found = &mut self.found[member as usize];
        if line.incarnation == found.settled {
            // Nobody ever had the place, or its last process is known to have nothing.
            return None;
        }
        let is_gone = locks.is_member_gone(member);
        found.was_gone &= is_gone;
        is_gone.then_some(line.incarnation)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::log::appender::Appender;
    use crate::log::member::Member;
    use crate::log::views::{host_views, plain_view};
    use crate::pool::{Process, line};
    use crate::testing::memory::Whim;

    /// Who is gone; whose locks were taken.
    struct Host(Vec<u32>, RefCell<Vec<u32>>);

    impl Locks for Host {
        fn is_candidate_held(&self, _candidate: u32) -> bool {
            true
        }
        fn while_free(&self, _candidate: u32, _act: &mut dyn FnMut()) {}
        fn is_member_gone(&self, member: u32) -> bool {
            self.0.contains(&member)
        }
        fn while_member_free(&self, member: u32, act: &mut dyn FnMut()) {
            self.1.borrow_mut().push(member);
            act();
        }
    }

    #[test]
    fn what_a_member_has_that_stays_away_is_given_back_once() {
        let view = plain_view(1);
        let g = view.layout.geometry;
        let _members = [0, 1].map(|member| Member::announce(&view, member, Process::default()));
        let _appenders = [0, 1].map(|lane| Appender::take(&view, lane));
        let has = |lane: usize| held_extents(&view)[lane];
        let founding = g.founding_extents(0).len() as u32;
        assert_eq!((has(0), has(1)), (founding, founding));
        assert_eq!(held_extents(&view).iter().sum::<u32>(), 2 * founding, "nobody else was ever there");
        let (mut caretaker, locks) = (Caretaker::new(&view), Host(vec![1], RefCell::default()));
        assert_eq!((caretaker.look(&locks), has(1)), (0, founding), "it may be back at once");
        assert_eq!((caretaker.look(&Host(vec![], RefCell::default())), has(1)), (0, founding), "it was");
        assert_eq!((caretaker.look(&locks), has(1)), (0, founding));
        assert_eq!((caretaker.look(&locks), has(1)), (founding, 0));
        assert_eq!((caretaker.look(&locks), caretaker.look(&locks)), (0, 0), "it has nothing any more");
        assert_eq!((locks.1.take(), has(0)), (vec![1], founding));
        // Another process, which is killed too; and the caretaker was, before the last slot was published.
        Member::announce(&view, 1, Process::default());
        view.memory.store(view.layout.ring_slot(1, u64::from(founding) - 1), line::INVALID);
        assert_eq!((has(1), caretaker.look(&locks), caretaker.look(&locks), has(1)), (1, 0, 1, 0));
    }

    #[test]
    fn a_host_looks_after_its_own() {
        let (_memory, views) = host_views([0, 1], &[0], Whim::NONE, 1);
        Member::announce(&views[1], 1, Process::default());
        drop(Appender::take(&views[1], 1));
        let locks = Host(vec![0, 1], RefCell::default());
        let mut caretaker = Caretaker::new(&views[0]);
        assert_eq!((caretaker.look(&locks), caretaker.look(&locks)), (0, 0), "another host's locks are not seen here");
        let mut caretaker = Caretaker::new(&views[1]);
        assert!(caretaker.look(&locks) == 0 && caretaker.look(&locks) > 0);
    }
}
