//! The pool's memory: what lanes lack is granted, what nobody wants or others need more is given up, what failed is taken out of use.

use super::append::append_to;
use super::{ActiveSequencer, EVENTS_EXTRA, GRANTS_PER_PASS, settled};
use crate::log::entry::grant_number;
use crate::log::faults;
use crate::log::grants::Grant;
use crate::order::{Emit, Event};
use crate::pool::Memory;
use crate::roles::sequence::stock::Presence;

/// How long others have to give back what they do not use, before all that can be is given up, ns.
const PATIENCE_NS: u64 = 10_000_000;

impl<M: Memory> ActiveSequencer<M> {
    /// Gives up what nobody wants, or what others need more, and grants what is in stock. True if a floor moved, or an extent changed hands.
    pub(super) fn supply(&mut self, now_ns: u64, watermark: u64) -> bool {
        for lane in 0..self.lanes.len() as u32 {
            let presence = match self.attendance.is_away(self.view.layout.geometry.member_of_lane(lane)) {
                true => Presence::Away,
                false if self.is_waited_for(lane) => Presence::There,
                false => Presence::Silent,
            };
            self.stock.hear(lane, self.lanes[lane as usize].status(), presence);
        }
        self.stock.look(now_ns);
        let floor = self.trimmer.floor();
        let mut moved = self.take_back();
        if self.stock.has_been_dry(now_ns, PATIENCE_NS) {
            self.give_all_up(watermark);
        }
        if let Some(target) = self.wants_given_up(watermark) {
            moved |= self.give_up(target) | self.take_back();
        }
        // Also what a predecessor gave up, and had not used again.
        moved |= self.reuse_segments(floor);
        if self.giving_up.is_some_and(|position| position <= self.trimmer.floor()) {
            self.giving_up = None;
            self.given_up.iter_mut().zip(&self.settled).for_each(|(told, settled)| *told = (*told).max(*settled));
        }
        moved | self.grant()
    }

    fn take_back(&mut self) -> bool {
        let (core, lanes) = (&self.core, &self.lanes);
        self.stock.take_back(self.trimmer.floor(), |lane| settled(core, &lanes[lane as usize], lane))
    }

    /// Up to where something is to be given up: for those who write, for the index, for what retention says; the furthest of these.
    fn wants_given_up(&mut self, watermark: u64) -> Option<u64> {
        let (g, floor) = (self.view.layout.geometry, self.trimmer.floor());
        let for_memory = self.stock.wants_given_up();
        let is_short = self.index.room() < u64::from(g.segment_entries) * 2;
        let for_index = is_short.then(|| (floor + u64::from(g.segment_entries / 4)).min(watermark));
        let is_over = self.settings.retention_bytes > 0 && self.stock.kept_bytes() > self.settings.retention_bytes;
        let over = if is_over { self.stock.oldest_end() } else { None };
        let allowed = self.trimmer.targets.allowed();
        let unwanted = self.kept.filter(|(first, _)| *first < allowed).map(|_| allowed);
        [for_memory, for_index, over, unwanted, self.giving_up, self.stock.failed_end()]
            .into_iter()
            .flatten()
            .max()
            .filter(|target| *target > floor)
    }

    fn give_up(&mut self, target: u64) -> bool {
        let before = self.trimmer.floor();
        let moved = self.trimmer.advance(target);
        let floor = self.trimmer.floor();
        if floor > before {
            self.kept = self.kept.filter(|(_, last)| *last >= floor).map(|(first, last)| (first.max(floor), last));
            self.tell_shortened();
        }
        moved
    }

    /// Says of which topics less is kept than they are meant to keep.
    fn tell_shortened(&mut self) {
        while let Some((topic, bytes)) = self.trimmer.targets.take_shortened() {
            let name = self.topics.known[topic as usize].as_ref().map_or("", |topic| &topic.name);
            log::warn!(
                "memory was short: {bytes} bytes of topic {name:?} went before its retention was over; a larger pool keeps more"
            );
        }
    }

    /// Segments are used again only if a successor is sure to see the floor: it was published, and nobody has claimed since.
    fn reuse_segments(&mut self, before: u64) -> bool {
        let floor = self.trimmer.floor();
        let is_spent = floor > before || self.index.has_spent(floor);
        let is_seen = is_spent && self.current.confirm(self.commit.epoch());
        if is_seen {
            self.index.give_up(floor);
            self.counters.trims += u64::from(floor > before);
            self.counters.floor = floor;
        }
        is_seen
    }

    /// Somebody stands still, and no extent is left that could be given up: parked batches keep those that are closed from going, so they are let go,
    /// unacked; and what lies in those that are being filled is given up, so that their lanes may begin them again.
    fn give_all_up(&mut self, watermark: u64) {
        if self.giving_up.is_some() {
            return;
        }
        let is_parked = |lane: &u32| {
            let reader = &self.lanes[*lane as usize];
            settled(&self.core, reader, *lane) < reader.consumed()
        };
        let parked = || (0..self.lanes.len() as u32).filter(is_parked);
        let lane = parked().find(|lane| self.stock.is_in_need(*lane)).or_else(|| parked().next());
        let mut watermark = watermark;
        if let Some(lane) = lane.filter(|_| self.index.room() > 0)
            && self.core.let_go_lane(lane as u16, &mut append_to!(self))
        {
            self.commit_appended();
            watermark = self.commit.watermark();
        }
        for ((lane, reader), count) in (0..).zip(&self.lanes).zip(&mut self.settled) {
            *count = settled(&self.core, reader, lane);
        }
        if self.settled.iter().zip(&self.given_up).any(|(settled, told)| settled > told) {
            self.giving_up = Some(watermark);
        }
    }

    /// Grants what lanes lack, as far as there is stock: committed first, then told.
    fn grant(&mut self) -> bool {
        while self.granted.len() < GRANTS_PER_PASS
            && self.index.room() > EVENTS_EXTRA
            && let Some((lane, extent)) = self.stock.next_grant(self.first_lane)
        {
            let (number, grant) = (self.stock.extents().granted(lane), grant_number(self.index.next()));
            append_to!(self).take(Event::Granted { extent, lane: lane as u16, number });
            self.granted.push((lane, number, Grant { extent, grant }));
        }
        if self.granted.is_empty() {
            return false;
        }
        self.commit_appended();
        for (lane, number, grant) in self.granted.drain(..) {
            self.grants.write(lane, number, grant);
        }
        self.view.memory.store_fence();
        true
    }

    /// Takes extents out of use whose memory failed, as somebody has noted.
    pub(in crate::roles::sequence) fn look_at_failed_memory(&mut self) {
        for broker in 0..self.view.layout.geometry.brokers {
            for offset in faults::noted(&self.view, broker) {
                match self.view.layout.extent_of(offset) {
                    Some(extent) if self.stock.retire(extent) => log::error!(
                        "the pool's memory failed at offset {offset}, under broker {broker}: extent {extent} is taken out of use, and what lies in it and before it is given up"
                    ),
                    _ => {}
                }
            }
        }
    }
}
