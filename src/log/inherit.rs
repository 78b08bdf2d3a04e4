//! What a broker takes over from its last process, held against the geometry before it is taken.

use std::ops::Range;

use crate::limits::LINE_BYTES;
use crate::log::View;
use crate::log::damage::{COUNT_MAX, FieldFault, count, within_steps};
use crate::log::recover::{RecoverError, in_record};
use crate::pool::line;
use crate::pool::record::{BrokerLine, ExtentLine, LaneStatus};
use crate::pool::{Access, Memory};

/// Checks a broker's line, and the ring, status and extents of each of its lanes. The caller holds the broker's host lock.
///
/// # Errors
/// [`RecoverError::Record`] with the first that no broker left behind.
pub fn check_broker<M: Memory>(view: &View<M>, broker: u32) -> Result<(), RecoverError> {
    let access = view.access_to_broker(broker);
    let line: BrokerLine = line::observe_words(&view.memory, view.layout.broker_line(broker), access);
    count("incarnation", line.incarnation).map_err(in_record("line of broker", broker))?;
    let lanes = view.layout.geometry.lanes_per_broker;
    check_lanes(view, broker * lanes..(broker + 1) * lanes)
}

/// Checks an attached place's line, and the ring, status and extents of its lane if it has one. The caller holds its host lock.
///
/// # Errors
/// As [`check_broker`].
pub fn check_attached<M: Memory>(view: &View<M>, member: u32, lane: Option<u32>) -> Result<(), RecoverError> {
    let access = view.access_to_member(member);
    let line: BrokerLine = line::observe_words(&view.memory, view.layout.broker_line(member), access);
    count("incarnation", line.incarnation).map_err(in_record("line of attached member", member))?;
    lane.map_or(Ok(()), |lane| check_lanes(view, lane..lane + 1))
}

/// Checks the ring, status and extents of some lanes.
///
/// # Errors
/// As [`check_broker`].
pub fn check_lanes<M: Memory>(view: &View<M>, lanes: Range<u32>) -> Result<(), RecoverError> {
    lanes.clone().try_for_each(|lane| check_lane(view, lane))?;
    check_extents(view, &lanes)
}

fn check_lane<M: Memory>(view: &View<M>, lane: u32) -> Result<(), RecoverError> {
    let access = view.access_to_lane(lane);
    let status: LaneStatus = line::observe_words(&view.memory, view.layout.lane_status(lane), access);
    count("incarnation", status.incarnation).map_err(in_record("status of lane", lane))?;
    check_ring(view, lane).map_err(in_record("ring of lane", lane))
}

/// Every slot that was published lies in the place of its number.
fn check_ring<M: Memory>(view: &View<M>, lane: u32) -> Result<(), FieldFault> {
    let slots = u64::from(view.layout.geometry.ring_slots);
    if view.access_to_lane(lane) == Access::Remote {
        // What this host has of it in its cache is what it read there once.
        view.memory.discard(view.layout.ring_slot(lane, 0), slots * LINE_BYTES);
    }
    for slot in 0..slots {
        match view.memory.load(view.layout.ring_slot(lane, slot)) {
            line::INVALID => {}
            guard => within_steps("guard", guard, slot + 1, COUNT_MAX + slot + 1, slots)?,
        }
    }
    Ok(())
}

/// The lines of extents that the lanes have, or had last.
fn check_extents<M: Memory>(view: &View<M>, lanes: &Range<u32>) -> Result<(), RecoverError> {
    let lines = (0..view.layout.geometry.extents).map(|extent| view.layout.extent_line(extent));
    line::fetch_all(&view.memory, lines.clone(), Access::Remote);
    for at in lines {
        let Some((_, record)) = line::read::<M, ExtentLine>(&view.memory, at) else { continue };
        if let Some(lane) = lanes.clone().find(|lane| record.lane == u64::from(*lane) + 1) {
            count("grant", record.grant)
                .and_then(|()| count("end_slot", record.end_slot))
                .map_err(in_record("extent table of lane", lane))?;
        }
    }
    Ok(())
}
