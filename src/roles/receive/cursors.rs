//! Requests about named cursors. No I/O.

use bytemuck::{Zeroable, bytes_of};

use crate::limits::CONTROL_BODY_BYTES_MAX;
use crate::log::recover::RecoverError;
use crate::log::topics::Topic;
use crate::pool::Memory;
use crate::pool::record::{CursorLine, slot_kind};
use crate::roles::addresses::{Cost, Made};
use crate::roles::receive::desk::{Answer, Asked, Desk, Looked, Maker, is_consumed, one_too_many};
use crate::roles::receive::hello::Refuse;
use crate::wire::Refusal;
use crate::wire::frame::{self, CursorRecord};

const RECORD_BYTES: usize = size_of::<CursorRecord>();

fn unknown(asked: &Asked, name: &str) -> Refuse {
    Refuse::new(Refusal::UnknownCursor, 0, format!("topic {:?} has no cursor {name:?}", asked.topic))
}

/// What is damaged is told, and said in the broker's log too: it is no answer that the client's own mistake could have caused.
fn damaged(error: RecoverError) -> Refuse {
    log::error!("{error}");
    Refuse::new(Refusal::Damaged, 0, error.to_string())
}

fn name(asked: &Asked) -> Result<String, Refuse> {
    Ok(frame::check_cursor_name(&asked.rest)?.to_string())
}

/// Sets a cursor to the request's `number`.
pub fn commit<M: Memory>(desk: &mut Desk<M>, asked: &mut Asked, topic: &Topic) -> Looked {
    let (name, order) = (name(asked)?, asked.request.number);
    if order > crate::log::damage::COUNT_MAX {
        return Err(Refuse::new(Refusal::Protocol, 0, format!("order {order} is above every order there can be")));
    }
    if asked.passed_on.is_none() {
        match desk.cursors.find(topic.id, &name).map_err(damaged)? {
            Some((None, false)) => {
                let text = "no place for another cursor (geometry.cursors_max); delete one";
                return Err(Refuse::new(Refusal::CursorTableFull, 0, text));
            }
            Some((None, true)) if !asked.is_counted => {
                count(desk, topic, &name)?;
                asked.is_counted = true;
            }
            Some((None, true)) => {}
            Some((Some(_), _)) => {}
            None => return Ok(None),
        }
        asked.passed_on =
            desk.ingest.lane.ask_for_cursor(slot_kind::CURSOR_SET, topic, &CursorLine::new(topic.id, &name, order));
        return Ok(None);
    }
    if !is_consumed(desk, asked) {
        return Ok(None);
    }
    // It had a place when it was passed on; others may have taken it since.
    match desk.cursors.find(topic.id, &name).map_err(damaged)? {
        Some((Some(_), _)) => Ok(Some(Answer { number: order, ..Answer::default() })),
        Some((None, _)) => {
            let text = "the cursor was not set: there was no place for another (geometry.cursors_max), or it was deleted at once";
            Err(Refuse::new(Refusal::CursorTableFull, 0, text))
        }
        None => Ok(None),
    }
}

/// Counts a cursor that does not exist yet among those of who asks for it.
fn count<M: Memory>(desk: &mut Desk<M>, topic: &Topic, name: &str) -> Result<(), Refuse> {
    let Maker { addresses, address, now_ns } = desk.maker;
    addresses.owe(address, Cost::Making, now_ns);
    let number_of = |topic: u32, name: &str| addresses.number_of((topic, name));
    // Nothing can be read now: all of them may exist.
    let existing = || {
        let mut numbers = Vec::new();
        // The caller has just read the table: what it says of damage was told.
        let _ = desk.cursors.visit(|_, cursor| numbers.push(number_of(cursor.topic.into(), cursor.name())));
        numbers
    };
    let counted = desk.maker.count(Made::Cursor, number_of(topic.id, name), existing);
    counted.map_err(|found| one_too_many(desk, Made::Cursor, found))
}

/// Reads a cursor.
pub fn read<M: Memory>(desk: &mut Desk<M>, asked: &mut Asked, topic: &Topic) -> Looked {
    let name = name(asked)?;
    match desk.cursors.find(topic.id, &name).map_err(damaged)? {
        Some((Some(cursor), _)) => Ok(Some(Answer { number: cursor.order, ..Answer::default() })),
        Some((None, _)) => Err(unknown(asked, &name)),
        None => Ok(None),
    }
}

/// Lists a topic's cursors from place `from` of the table on.
pub fn list<M: Memory>(desk: &mut Desk<M>, asked: &mut Asked, topic: &Topic) -> Looked {
    let most = CONTROL_BODY_BYTES_MAX / RECORD_BYTES;
    let (mut body, mut more) = (Vec::new(), None);
    let read = desk.cursors.visit(|place, cursor| {
        if u32::from(cursor.topic) != topic.id || u64::from(place) < asked.request.from {
            return;
        }
        if body.len() == most * RECORD_BYTES {
            more = more.or(Some(u64::from(place)));
            return;
        }
        let record = CursorRecord {
            order: cursor.order,
            name_bytes: cursor.name_bytes.into(),
            name: cursor.text,
            ..CursorRecord::zeroed()
        };
        body.extend(bytes_of(&record));
    });
    Ok(read.map_err(damaged)?.map(|_| Answer { more, body, ..Answer::default() }))
}

/// Deletes a cursor.
pub fn delete<M: Memory>(desk: &mut Desk<M>, asked: &mut Asked, topic: &Topic) -> Looked {
    let name = name(asked)?;
    if asked.passed_on.is_some() {
        return Ok(is_consumed(desk, asked).then(Answer::default));
    }
    match desk.cursors.find(topic.id, &name).map_err(damaged)? {
        Some((Some(cursor), _)) => {
            asked.passed_on = desk.ingest.lane.ask_for_cursor(slot_kind::CURSOR_DELETE, topic, &cursor);
            Ok(None)
        }
        Some((None, _)) => Err(unknown(asked, &name)),
        None => Ok(None),
    }
}
