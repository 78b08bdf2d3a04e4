//! What the index names in the blog: batches, specifications of topics, requests about cursors.

use embarcadero::limits::LINE_BYTES;
use embarcadero::log::cursors::read_request;
use embarcadero::log::damage::{FieldFault, exactly};
use embarcadero::log::topics::{Topic, read_spec};
use embarcadero::order::Arrival;
use embarcadero::pool::record::CursorLine;
use embarcadero::pool::{Access, Memory};
use embarcadero::wire::frame::BatchHeader;
use embarcadero::wire::{BatchDecoder, Progress, WireError};

use super::findings::{Broken, Place, Promise};
use super::looking::Looked;

/// Reads batches out of the blog, each into memory of its own.
pub struct Batches<'a> {
    view: &'a Looked,
    bytes: Vec<u8>,
}

impl<'a> Batches<'a> {
    /// Those of a pool.
    pub fn new(view: &'a Looked) -> Batches<'a> {
        Batches { view, bytes: Vec::new() }
    }

    /// Holds the bytes of a batch against its entry. Gives the id of its session if they are right, and what is not.
    pub fn check(&mut self, position: u64, batch: &Arrival) -> (Option<u64>, Option<(Promise, Broken)>) {
        let length = u64::from(batch.batch_bytes);
        if self.view.access_to_lane(batch.lane.into()) == Access::Remote {
            self.view.memory.discard(batch.blog_at, length);
        }
        self.bytes.resize(length as usize, 0);
        self.view.memory.copy_out(batch.blog_at, &mut self.bytes);
        let place = Place { region: "batch of position", number: position, at: batch.blog_at };
        let mut decoder = BatchDecoder::new(self.view.layout.geometry.batch_bytes_max());
        let header = match decoder.advance(&self.bytes) {
            Ok(Progress::Complete(header)) => header,
            Ok(_) => return (None, Some((Promise::Headers, self.too_long(place, decoder.header())))),
            Err(error) => return (None, Some(told(place, &error))),
        };
        match same(&header, batch) {
            Ok(()) => (Some(header.session), None),
            Err(fault) => (None, Some((Promise::Headers, in_header(place, &fault)))),
        }
    }

    fn too_long(&self, place: Place, header: Option<&BatchHeader>) -> Broken {
        let said = header.map_or(0, BatchHeader::frame_bytes);
        place.broken(8, "body_bytes", format!("a batch of {said} bytes"), format!("of {} bytes", self.bytes.len()))
    }
}

fn same(header: &BatchHeader, batch: &Arrival) -> Result<(), FieldFault> {
    exactly("body_bytes", header.frame_bytes(), batch.batch_bytes.into())?;
    exactly("message_count", header.message_count.into(), batch.message_count.into())?;
    exactly("batch_seq", header.batch_seq, batch.batch_seq)?;
    exactly("session_epoch", header.session_epoch.into(), batch.session_epoch.into())?;
    exactly("topic", header.topic.into(), batch.topic.into())
}

/// A field of a batch header: it has no guard in front.
pub fn in_header(place: Place, fault: &FieldFault) -> Broken {
    let fields = <BatchHeader as embarcadero::fields::Described>::FIELDS;
    let offset = fields.iter().find(|field| field.name == fault.field).map_or(0, |field| field.offset as u64);
    place.broken(offset, fault.field, fault.found, fault.expected)
}

/// Where in a batch the decoder stopped.
fn told(place: Place, error: &WireError) -> (Promise, Broken) {
    let hex = |found: &u32| format!("{found:#010x}");
    let in_body = |offset: u64| LINE_BYTES + offset;
    match error {
        WireError::Magic { found } => (Promise::Headers, place.broken(0, "magic", hex(found), "a batch's")),
        WireError::Version { found } => (Promise::Headers, place.broken(4, "version", found, "a version of batches")),
        WireError::HeaderCrc { found, computed } => {
            (Promise::Headers, place.broken(60, "header_crc", hex(found), hex(computed)))
        }
        WireError::BodyCrc { found, computed } => {
            let expected = format!("{} as its header says; computed {}", hex(found), hex(computed));
            (Promise::Bodies, place.broken(LINE_BYTES, "body", "other bytes", expected))
        }
        WireError::MessageOverrun { offset, .. } => {
            (Promise::Bodies, place.broken(in_body(*offset), "message", error, "a message that ends in the body"))
        }
        WireError::TrailingBytes { end, .. } => {
            (Promise::Bodies, place.broken(in_body(*end), "message", error, "messages and nothing else"))
        }
        WireError::MessageHeader { .. } => {
            (Promise::Bodies, place.broken(LINE_BYTES, "message header", error, "one that is defined"))
        }
        _ => (Promise::Headers, place.broken(0, "header", error, "a batch's header")),
    }
}

/// The specification from which a topic was created, at a place in the blog.
pub fn topic_spec(view: &Looked, lane: u16, blog_at: u64, level: u8, position: u64) -> Result<Topic, Broken> {
    let place = Place { region: "specification of position", number: position, at: blog_at };
    let read = read_spec(view, view.access_to_lane(lane.into()), blog_at);
    let topic = read.map_err(|error| place.broken(0, "specification", error, "that of a topic"))?;
    match topic.order as u8 == level {
        true => Ok(topic),
        false => Err(place.broken(6, "order_level", topic.order as u8, level)),
    }
}

/// The request by which a cursor was set.
pub fn cursor_request(
    view: &Looked,
    lane: u16,
    blog_at: u64,
    (topic, order): (u32, u64),
    position: u64,
) -> Result<CursorLine, Broken> {
    let place = Place { region: "cursor request of position", number: position, at: blog_at };
    // It has no guard in front.
    let in_request = |fault: FieldFault| {
        let broken = place.fault::<CursorLine>(&fault);
        Broken { at: broken.at.saturating_sub(8).max(blog_at), ..broken }
    };
    let request = read_request(view, view.access_to_lane(lane.into()), blog_at).map_err(in_request)?;
    exactly("topic", request.topic.into(), topic.into())
        .and_then(|()| exactly("order", request.order, order))
        .map(|()| request)
        .map_err(in_request)
}
