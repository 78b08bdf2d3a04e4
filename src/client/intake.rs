//! A subscriber's bytes, made into events. No I/O and no clock.
//!
//! What comes in is checked before it is handed on: header and body CRC and the message framing of every batch, the
//! Deliver frame against the batch it announces, and that every batch begins where its topic's last one ended.
//!
//! Invariants, of each topic:
//! 1. What is handed on begins at or below `next_order` and ends above it, so that no message is handed on twice, and none is left out
//!    that was not skipped.
//! 2. Within one connection every batch, skip and word of having caught up stands exactly at `expected`, once that is known.

use crate::client::delivered::{Delivered, Event, Found};
use crate::client::error::ClientError;
use crate::client::fault::{Fault, check_identity};
use crate::client::handshake::{Greeting, parse_brokers};
use crate::client::heard::whole_body;
use crate::client::inbox::Inbox;
use crate::client::numbers::Order;
use crate::client::options::SubscriberOptions;
use crate::limits::{BATCH_BYTES_MAX, FRAME_HEADER_BYTES};
use crate::wire::frame::{self, CaughtUp, Deliver, Skipped, Welcome};
use crate::wire::subscribe::push_start;
use crate::wire::{BatchDecoder, FrameKind, OrderLevel, Progress, StartAt, WireError};

/// One topic of a subscription.
pub(crate) struct FollowedTopic {
    pub name: String,
    /// Topic id, from the Welcome.
    id: u32,
    /// Which of the topics that may have had the name, from the Welcome.
    generation: u64,
    pub order_level: OrderLevel,
    /// First order of the next batch; none before the first of a connection, which may begin below `next_order`.
    expected: Option<u64>,
    pub next_order: u64,
    pub caught_up: bool,
    pub skipped: u64,
    /// Messages that were gone when it began at the earliest.
    pub trimmed: u64,
}

/// What one [`step`](Intake::step) took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing: the next frame is not whole.
    NotWhole,
    /// A frame that changes nothing for the subscriber.
    Quiet,
    /// Everything committed of a topic was sent.
    CaughtUp,
    /// What was handed to the handler.
    Handed,
}

/// See the head of the file.
///
/// Call order: [`new`](Intake::new) and [`welcomed`](Intake::welcomed) with the first greeting, and `welcomed` again with that of every
/// later connection, which was asked for [`starts`](Intake::starts). Between them [`room`](Intake::room), [`landed`](Intake::landed)
/// with how many bytes came into it, and [`step`](Intake::step) until it gives [`Step::NotWhole`]. After a fault, or when the connection
/// is over, [`lost`](Intake::lost) comes next.
pub(crate) struct Intake {
    topics: Box<[FollowedTopic]>,
    inbox: Inbox,
    check_crc: bool,
    decoder: BatchDecoder,
    batch_bytes_max: u64,
    /// The Deliver frame whose batch is landing, and the place of its topic.
    announced: Option<(Deliver, usize)>,
    /// Index positions below it were handed on, or will not be: there is one order over all topics.
    handed_below: u64,
    /// Index positions below it were announced on this connection.
    announced_below: u64,
    /// The brokers there are, if that was told since somebody asked.
    brokers: Option<Vec<(u16, String)>>,
}

impl Intake {
    /// Of what was asked for and, by the first greeting, is had.
    pub fn new(options: &SubscriberOptions, first: &Greeting) -> Result<Intake, ClientError> {
        let topic = |((name, start), welcome): ((&str, StartAt), &Welcome)| {
            let order_level =
                OrderLevel::from_byte(welcome.order_level).map_err(|error| ClientError::wire(&first.address, error))?;
            let next_order = match start {
                StartAt::Order(order) => order,
                StartAt::Earliest | StartAt::Latest | StartAt::Timestamp(_) => welcome.next,
            };
            let (name, id) = (name.to_owned(), welcome.topic);
            let generation = welcome.session;
            let trimmed = if start == StartAt::Earliest { welcome.next } else { 0 };
            let (caught_up, skipped) = (false, 0);
            Ok(FollowedTopic {
                name,
                id,
                generation,
                order_level,
                expected: None,
                next_order,
                caught_up,
                skipped,
                trimmed,
            })
        };
        let topics = options.topics().zip(welcomes(first)).map(topic).collect::<Result<Box<[_]>, ClientError>>()?;
        assert_eq!(topics.len(), options.topics().count(), "a welcome for each topic");
        Ok(Intake {
            topics,
            inbox: Inbox::new(options.buffer_bytes),
            check_crc: options.check_crc,
            decoder: BatchDecoder::new(BATCH_BYTES_MAX),
            batch_bytes_max: BATCH_BYTES_MAX,
            announced: None,
            handed_below: 0,
            announced_below: 0,
            brokers: None,
        })
    }

    /// A connection was opened: nothing of an older one is gone on with.
    ///
    /// # Errors
    /// It was welcomed to something else than what was asked for: it is not to be used.
    pub fn welcomed(&mut self, greeting: &Greeting) -> Result<(), ClientError> {
        for (topic, welcome) in self.topics.iter_mut().zip(welcomes(greeting)) {
            let (field, found, expected) = if welcome.order_level != topic.order_level as u8 {
                ("order_level", welcome.order_level.into(), topic.order_level as u64)
            } else if welcome.next > topic.next_order {
                ("next", welcome.next, topic.next_order)
            } else {
                // A topic of this name may have been made anew.
                (topic.id, topic.expected, topic.caught_up) = (welcome.topic, None, false);
                continue;
            };
            return Err(ClientError::Contradiction { broker: greeting.address.clone(), field, found, expected });
        }
        self.batch_bytes_max = BATCH_BYTES_MAX.min(greeting.welcome.batch_bytes_max.into());
        self.decoder = BatchDecoder::new(self.batch_bytes_max);
        if !self.check_crc {
            self.decoder = BatchDecoder::without_body_crc(self.batch_bytes_max);
        }
        self.inbox.clear();
        (self.announced, self.announced_below) = (None, 0);
        Ok(())
    }

    /// Where to receive into; never empty.
    pub fn room(&mut self) -> &mut [u8] {
        let wanted = self.announced.map_or(FRAME_HEADER_BYTES, |(deliver, _)| deliver.body_bytes as usize);
        self.inbox.room(wanted)
    }

    /// So many bytes came into the room.
    pub fn landed(&mut self, bytes: usize) {
        assert!(bytes <= self.inbox.bytes.len() - self.inbox.end);
        self.inbox.end += bytes;
    }

    /// Takes one frame, and hands on what it brought.
    ///
    /// # Errors
    /// What is wrong with it: the connection is to be ended.
    pub fn step(&mut self, handler: &mut dyn FnMut(Event<'_>)) -> Result<Step, Fault> {
        match self.announced {
            Some((deliver, place)) => self.take_batch(&deliver, place, handler),
            None => self.take_header(handler),
        }
    }

    /// The brokers there are from now on, if that was told.
    pub fn take_brokers(&mut self) -> Option<Vec<(u16, String)>> {
        self.brokers.take()
    }

    /// Whether a batch was announced and has not come whole.
    pub fn is_in_batch(&self) -> bool {
        self.announced.is_some()
    }

    /// The connection is over: what it said of the end holds no longer.
    pub fn lost(&mut self) {
        self.topics.iter_mut().for_each(|topic| topic.caught_up = false);
    }

    /// Gives up what lies between the next message of a topic and `order`. A new connection comes next.
    pub fn go_on_at(&mut self, place: usize, order: u64) {
        if order < self.topics[place].next_order {
            // It wants to be handed again what it was handed.
            self.handed_below = 0;
        }
        self.topics[place].next_order = order;
        self.lost();
    }

    pub fn topics(&self) -> &[FollowedTopic] {
        &self.topics
    }

    /// What to ask a broker for, to go on: the body of a hello.
    pub fn starts(&self) -> Vec<u8> {
        starts(self.topics.iter().map(|topic| (&*topic.name, StartAt::Order(topic.next_order), topic.generation)))
    }

    /// Place of the topic that a frame speaks of.
    fn place_of(&self, id: u32) -> Result<usize, Fault> {
        let place = self.topics.iter().position(|topic| topic.id == id);
        place.ok_or(Fault::Differs { field: "topic", found: id.into(), expected: self.topics[0].id.into() })
    }

    fn take_header(&mut self, handler: &mut dyn FnMut(Event<'_>)) -> Result<Step, Fault> {
        let Some((header, rest)) = self.inbox.landed().split_first_chunk::<FRAME_HEADER_BYTES>() else {
            return Ok(Step::NotWhole);
        };
        let step = match frame::check(header, self.batch_bytes_max)? {
            FrameKind::Deliver => {
                let deliver: Deliver = frame::read(header);
                let place = self.place_of(deliver.topic)?;
                let topic = &mut self.topics[place];
                topic.check_place(deliver.first_order, deliver.message_count)?;
                topic.caught_up = false;
                if deliver.position < self.announced_below {
                    let (found, expected) = (deliver.position, self.announced_below);
                    return Err(Fault::Differs { field: "position", found, expected });
                }
                self.announced_below = deliver.position.saturating_add(1);
                self.announced = Some((deliver, place));
                Step::Quiet
            }
            FrameKind::CaughtUp => {
                let caught_up: CaughtUp = frame::read(header);
                let place = self.place_of(caught_up.topic)?;
                let topic = &mut self.topics[place];
                topic.check_place(caught_up.next_order, 0)?;
                topic.caught_up = true;
                Step::CaughtUp
            }
            FrameKind::Skipped => {
                let skipped: Skipped = frame::read(header);
                let place = self.place_of(skipped.topic)?;
                let topic = &mut self.topics[place];
                topic.skip(&skipped)?;
                let (from, next_order) = (skipped.from, skipped.next_order);
                let (from, next_order) = (Order(from), Order(next_order));
                handler(Event::Skipped { topic: &topic.name, place, from, next_order });
                Step::Handed
            }
            FrameKind::Heartbeat => Step::Quiet,
            FrameKind::Brokers => {
                let Some((whole, list)) = whole_body(header, rest)? else { return Ok(Step::NotWhole) };
                self.brokers = Some(parse_brokers(list)?);
                self.inbox.start += whole;
                return Ok(Step::Quiet);
            }
            FrameKind::Refused => {
                let Some((_, text)) = whole_body(header, rest)? else { return Ok(Step::NotWhole) };
                return Err(Fault::Refused(frame::read(header), text.to_vec()));
            }
            found => {
                let expected = "Deliver, CaughtUp, Skipped, Heartbeat, Brokers or Refused";
                return Err(WireError::UnexpectedKind { found, expected }.into());
            }
        };
        self.inbox.start += FRAME_HEADER_BYTES;
        Ok(step)
    }

    fn take_batch(
        &mut self,
        deliver: &Deliver,
        place: usize,
        handler: &mut dyn FnMut(Event<'_>),
    ) -> Result<Step, Fault> {
        let landed = self.inbox.landed();
        let header = match self.decoder.advance(landed)? {
            Progress::NeedHeader | Progress::NeedBytes(_) => return Ok(Step::NotWhole),
            Progress::Complete(header) => header,
            Progress::Goodbye | Progress::Heartbeat => {
                return Err(WireError::UnexpectedKind { found: FrameKind::Goodbye, expected: "Batch" }.into());
            }
        };
        check_identity(deliver, &header)?;
        let end = deliver.first_order + u64::from(header.message_count);
        let topic = &mut self.topics[place];
        let is_new = end > topic.next_order;
        if is_new {
            if deliver.position < self.handed_below {
                // Another topic's messages behind it were handed on: its broker skipped it, and the connection broke before that was told.
                let (from, next_order) = (Order(topic.next_order), Order(end));
                topic.skipped += end - topic.next_order;
                handler(Event::Skipped { topic: &topic.name, place, from, next_order });
            } else {
                let found = Found {
                    place,
                    position: deliver.position,
                    first_order: deliver.first_order,
                    start_order: topic.next_order,
                };
                let delivered = Delivered::new(&topic.name, found, &header, landed);
                handler(Event::Batch(delivered));
                self.handed_below = deliver.position.saturating_add(1);
            }
            topic.next_order = end;
        }
        topic.expected = Some(end);
        self.announced = None;
        self.decoder.reset();
        self.inbox.start += header.frame_bytes() as usize;
        Ok(if is_new { Step::Handed } else { Step::Quiet })
    }
}

impl FollowedTopic {
    /// A batch begins where the last one ended, and so does what is said of the end; the first of a connection may begin below what was
    /// asked for.
    fn check_place(&self, first_order: u64, message_count: u32) -> Result<(), Fault> {
        let gap = match self.expected {
            Some(expected) => first_order != expected,
            None => first_order > self.next_order,
        };
        if gap {
            return Err(Fault::Gap { found: first_order, expected: self.expected.unwrap_or(self.next_order) });
        }
        match first_order.checked_add(message_count.into()) {
            Some(_) => Ok(()),
            None => Err(Fault::Differs { field: "first_order", found: first_order, expected: self.next_order }),
        }
    }

    /// What is skipped begins at what is due, and is not nothing.
    fn skip(&mut self, skipped: &Skipped) -> Result<(), Fault> {
        let due = self.expected.unwrap_or(self.next_order);
        if skipped.from != due {
            return Err(Fault::Gap { found: skipped.from, expected: due });
        }
        if skipped.next_order <= due {
            return Err(Fault::Differs { field: "next_order", found: skipped.next_order, expected: due + 1 });
        }
        // A start that lies ahead of what was skipped stays.
        self.skipped += skipped.next_order.saturating_sub(self.next_order);
        self.expected = Some(skipped.next_order);
        self.next_order = self.next_order.max(skipped.next_order);
        Ok(())
    }
}

fn welcomes(greeting: &Greeting) -> impl Iterator<Item = &Welcome> {
    std::iter::once(&greeting.welcome).chain(&greeting.more)
}

/// Names, starts, and which of the topics of that name is meant: 0 whichever has it now.
pub(crate) fn starts<'a>(topics: impl Iterator<Item = (&'a str, StartAt, u64)>) -> Vec<u8> {
    let mut body = Vec::new();
    topics.for_each(|(name, start, generation)| push_start(&mut body, name, start, generation));
    body
}

#[cfg(test)]
#[path = "intake_tests.rs"]
mod tests;
