//! A broker's ack core: the real tracker, and frames to publishers.

use std::collections::BTreeMap;

use crate::log::recover::RecoverError;
use crate::roles::ack::fate::{Fate, Wait};
use crate::roles::ack::tracker::{News, Tracker};
use crate::roles::tokens::Tokens;
use crate::sim::kernel::{Actor, Kernel};
use crate::sim::mail::{Attachment, FromAck, ToAck};
use crate::sim::network::End;
use crate::sim::parts::terms::{HELLO_TIMEOUT_NS, PLACES, TOKEN_KEY};
use crate::sim::process::ProcessMemory;
use crate::wire::frame::{self, NEW_SESSION, Refused, Welcome};
use crate::wire::{AckLevel, OrderLevel, Refusal};

struct Attached {
    attachment: Attachment,
    /// Waits for its session since, and for everything committed by then.
    waiting: Option<(u64, Option<u64>)>,
    has_news: bool,
    /// Bytes on their way into the socket.
    sending: Vec<u8>,
    /// It ends once these are written.
    is_last: bool,
}

/// See the head of the file.
pub(super) struct Acks {
    broker: u32,
    batch_bytes_max: u32,
    tracker: Tracker<ProcessMemory>,
    connections: BTreeMap<u32, Attached>,
    hearsay_ns: u64,
}

/// Time other brokers have to tell a session of their own batches, ns; as the real one gives them.
const HEARSAY_NS: u64 = 20_000_000;

impl Acks {
    pub fn new(kernel: &Kernel, broker: u32) -> Acks {
        let view = kernel.view();
        let batch_bytes_max = view.layout.geometry.batch_bytes_max() as u32;
        let (tracker, connections) = (Tracker::new(&view, broker, PLACES), BTreeMap::new());
        Acks { broker, batch_bytes_max, tracker, connections, hearsay_ns: 0 }
    }

    fn hear(&mut self, kernel: &Kernel) {
        while let Some(message) = kernel.with(|state| state.mail[self.broker as usize].to_ack.pop_front()) {
            match message {
                ToAck::Attach(attachment) => {
                    let waiting = Some((kernel.now_ns(), self.tracker.watermark()));
                    let (has_news, sending, is_last) = (false, Vec::new(), false);
                    let attached = Attached { attachment, waiting, has_news, sending, is_last };
                    self.connections.insert(attachment.place, attached);
                }
                ToAck::Close(place, generation) => {
                    if self.connections.get(&place).is_some_and(|at| at.attachment.generation == generation) {
                        self.tracker.detach(place);
                        self.connections.remove(&place);
                    }
                }
            }
        }
    }

    fn follow(&mut self, now_ns: u64) {
        let mut news = Vec::new();
        match self.tracker.follow(&mut |item| news.push(item)) {
            Ok(_) | Err(RecoverError::Unsettled) => {}
            // As the real one does.
            Err(error) => panic!("{error}"),
        }
        for item in news {
            match item {
                News::Refused { origin, code } => {
                    let is_it = |at: &&Attached| at.attachment.asked == Some(origin) && at.waiting.is_some();
                    let place = self.connections.values().find(is_it).map(|at| at.attachment.place);
                    let refusal = Refusal::from_code(code.into()).unwrap_or(Refusal::Busy);
                    place.into_iter().for_each(|place| self.refuse(place, refusal, 0));
                }
                News::Closed { first } => self.refuse_all(first, Refusal::UnknownSession),
                News::TopicDeleted { first } => self.refuse_all(first, Refusal::TopicDeleted),
            }
        }
        while let Some(slot) = self.tracker.take_dirty() {
            self.tell_session(slot);
        }
        if now_ns - self.hearsay_ns >= HEARSAY_NS {
            self.hearsay_ns = now_ns;
            while let Some(slot) = self.tracker.take_hearsay() {
                self.tell_session(slot);
            }
        }
    }

    /// Refuses a connection and those linked behind it.
    fn refuse_all(&mut self, first: u32, refusal: Refusal) {
        let mut next = Some(first);
        while let Some(place) = next {
            next = self.tracker.next_of(place);
            self.refuse(place, refusal, 0);
        }
    }

    fn tell_session(&mut self, slot: u32) {
        let mut next = self.tracker.first_of(slot);
        while let Some(place) = next {
            next = self.tracker.next_of(place);
            self.connections.get_mut(&place).into_iter().for_each(|at| at.has_news = true);
        }
    }

    fn fate(&self, at: &Attached, now_ns: u64) -> Option<Fate> {
        let (since_ns, committed) = at.waiting?;
        let Attachment { session, asked, session_epoch, .. } = at.attachment;
        let is_late = now_ns - since_ns > HELLO_TIMEOUT_NS;
        Wait { session, asked, session_epoch, committed, is_late }.fate(&self.tracker)
    }

    fn settle_waiting(&mut self, kernel: &Kernel) {
        let now_ns = kernel.now_ns();
        let settled: Vec<(u32, Fate)> =
            self.connections.iter().filter_map(|(place, at)| Some((*place, self.fate(at, now_ns)?))).collect();
        for (place, fate) in settled {
            match fate {
                Ok(slot) => self.welcome(kernel, place, slot),
                Err((refusal, detail, _)) => self.refuse(place, refusal, detail),
            }
        }
    }

    fn welcome(&mut self, kernel: &Kernel, place: u32, slot: u32) {
        self.tracker.attach(place, slot);
        let session = *self.tracker.table().session(slot);
        let Some(at) = self.connections.get_mut(&place) else { return };
        at.waiting = None;
        if at.attachment.session == NEW_SESSION {
            at.attachment.session = session.id;
            let message = FromAck::Opened(place, at.attachment.generation, session.id);
            kernel.with(|state| state.mail[self.broker as usize].from_ack.push_back(message));
        }
        let welcome = Welcome {
            session_epoch: session.epoch,
            session: session.id,
            token: Tokens::new(TOKEN_KEY).token(session.id, at.attachment.topic),
            next: session.next_batch,
            topic: at.attachment.topic,
            batch_bytes_max: self.batch_bytes_max,
            order_level: OrderLevel::Session as u8,
            ack_level: AckLevel::Committed as u8,
            broker: self.broker as u16,
            window_batches_max: crate::limits::WINDOW_BATCHES_MAX,
            ..Welcome::default()
        };
        at.sending = frame::with_body(&welcome, b"");
        // Whatever happened while the welcome was under way.
        at.has_news = true;
    }

    fn refuse(&mut self, place: u32, refusal: Refusal, detail: u64) {
        self.tracker.detach(place);
        let Some(at) = self.connections.get_mut(&place) else { return };
        at.waiting = None;
        at.is_last = true;
        let refused = Refused { code: refusal as u16, detail, ..Refused::default() };
        at.sending.extend(frame::with_body(&refused, b"words"));
    }

    fn send(&mut self, kernel: &Kernel) {
        let mut failed = Vec::new();
        for (place, at) in &mut self.connections {
            if at.sending.is_empty() && at.has_news && at.waiting.is_none() && !at.is_last {
                at.has_news = false;
                let ack = self.tracker.ack(*place);
                at.sending.extend(ack.iter().flat_map(frame::seal));
            }
            if at.sending.is_empty() {
                continue;
            }
            match kernel.write(at.attachment.link, End::Broker, &at.sending) {
                Some(bytes) => drop(at.sending.drain(..bytes)),
                None => at.is_last = true,
            }
            if at.is_last && (at.sending.is_empty() || kernel.with(|state| state.network.is_over(at.attachment.link))) {
                failed.push(*place);
            }
        }
        for place in failed {
            self.tracker.detach(place);
            let Some(at) = self.connections.remove(&place) else { continue };
            let message = FromAck::Failed(place, at.attachment.generation);
            kernel.with(|state| state.mail[self.broker as usize].from_ack.push_back(message));
        }
    }
}

impl Actor for Acks {
    fn step(&mut self, kernel: &Kernel) {
        self.hear(kernel);
        self.follow(kernel.now_ns());
        self.settle_waiting(kernel);
        self.send(kernel);
    }
}
