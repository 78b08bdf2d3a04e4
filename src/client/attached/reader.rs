//! An attached subscriber's cursor under a pin of its own: finds its start, copies batches and hands the copies on. No I/O and no
//! clock of its own, so that tests and the simulator drive it on simulated memory.
//!
//! What lies in the pool may change at any moment: others write there, and a pin that is not waited for protects nothing. So what is
//! handed on is a copy, checked after it was made, and the caller makes sure that the pin was still waited for then ([`PinnedReader::take`]).

use crate::client::delivered::{Delivered, Found};
use crate::limits::LINE_BYTES;
use crate::log::View;
use crate::log::commit::CommitReader;
use crate::log::order_index::IndexFault;
use crate::log::reader::{self as cursor, Delivery, ReadFault, Sought, TopicStart};
use crate::log::recover::RecoverError;
use crate::log::retention::{Dropped, Hold, NO_PIN};
use crate::log::topics::{Topic, TopicReader};
use crate::pool::Memory;
use crate::wire::frame::BatchHeader;
use crate::wire::message::is_framed;
use crate::wire::{BatchDecoder, Progress, StartAt, WireError};

/// Entries after which the pin follows the cursor.
const PIN_EVERY: u64 = 64;
/// Times an entry may be found unreadable before it is a fault: a takeover may be under way.
const FAULTS_MAX: u32 = 1000;

/// Where a reader stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Nothing is pinned.
    Unpinned,
    /// Looking for its start.
    Seeking,
    /// Its next batch is the one at the cursor.
    Streaming,
}

/// Why a reader cannot go on as asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ReadError {
    /// The order asked for is gone; this is the earliest there is.
    Trimmed(u64),
    /// It was not waited for.
    Dropped,
    /// The topic was deleted. It stays so.
    Deleted,
    /// The index is damaged, or a batch is not where it says.
    Log(ReadFault),
    /// Something else that every reader goes by is.
    Pool(RecoverError),
    /// The batch that this index position names is not sound.
    Unsound(u64, WireError),
}

impl From<ReadFault> for ReadError {
    fn from(fault: ReadFault) -> ReadError {
        ReadError::Log(fault)
    }
}

/// See the head of the file.
pub(crate) struct PinnedReader<M> {
    view: View<M>,
    commit: CommitReader<M>,
    topics: TopicReader<M>,
    hold: Hold<M>,
    /// `None` as long as nothing is pinned.
    cursor: Option<cursor::Reader<M>>,
    phase: Phase,
    /// The topic, and where it is to start.
    start: TopicStart,
    name: Box<str>,
    is_deleted: bool,
    /// Messages below this order were not asked for; once the start is found.
    start_order: u64,
    /// Order of the next message to hand on.
    next_order: u64,
    /// Everything committed was looked at, when it was looked last.
    has_all: bool,
    decoder: BatchDecoder,
    verify: bool,
    faults: u32,
    /// The batch in `frame`, taken and not handed on yet.
    taken: Option<(Delivery, BatchHeader)>,
    /// A batch's bytes, of this process alone: what lies in the pool may be overwritten at any moment by others. Reused.
    frame: Vec<u8>,
}

impl<M: Memory> PinnedReader<M> {
    /// A reader of `topic` from `start` on. The caller holds the place of `member`.
    pub fn new(view: &View<M>, member: u32, incarnation: u64, topic: &Topic, start: StartAt, verify: bool) -> Self {
        PinnedReader {
            view: view.clone(),
            commit: CommitReader::new(view),
            topics: TopicReader::new(view),
            hold: Hold::take(view, member, incarnation),
            cursor: None,
            phase: Phase::Unpinned,
            start: TopicStart { topic: topic.id, created_position: topic.created_position, start },
            name: topic.name.as_str().into(),
            is_deleted: false,
            start_order: 0,
            next_order: 0,
            has_all: false,
            decoder: BatchDecoder::new(view.layout.geometry.batch_bytes_max()),
            verify,
            faults: 0,
            taken: None,
            frame: Vec::new(),
        }
    }

    /// Where it stands.
    pub fn phase(&self) -> Phase {
        self.phase
    }
    /// Order of the next message to hand on; of a reader that found its start.
    pub fn next_order(&self) -> u64 {
        self.next_order
    }
    /// Whether everything that was committed, when it was looked last, was handed on.
    pub fn has_all(&self) -> bool {
        self.has_all && self.taken.is_none()
    }

    /// Why the floors cannot be read, if waiting does not help.
    fn not_now(&self) -> Result<bool, ReadError> {
        self.hold.floors().fault().map_or(Ok(false), |fault| Err(ReadError::Pool(fault)))
    }

    /// Pins what is kept now, to look for its start there. False: the floors cannot be read now.
    ///
    /// # Errors
    /// The floors are damaged.
    pub fn pin(&mut self) -> Result<bool, ReadError> {
        let Some(floor) = self.hold.lower_to_floor() else { return self.not_now() };
        self.cursor = Some(cursor::Reader::new(&self.view, [self.start], floor, false));
        self.phase = Phase::Seeking;
        Ok(true)
    }

    /// Pins nothing any more; begins anew at the next message.
    pub fn unpin(&mut self) {
        if self.phase == Phase::Streaming {
            self.start.start = StartAt::Order(self.next_order);
        }
        (self.phase, self.taken, self.cursor) = (Phase::Unpinned, None, None);
        self.hold.raise(NO_PIN);
    }

    /// Gives up what lies before `order`, and begins anew there.
    pub fn go_on_at(&mut self, order: u64) {
        self.unpin();
        (self.start.start, self.next_order, self.has_all) = (StartAt::Order(order), order, false);
    }

    /// The lowest position that must not be given up: of a batch that was copied and not handed on its own, since nobody has made
    /// sure yet that it lay there until it was copied.
    fn needs(&self) -> u64 {
        let cursor = self.cursor.as_ref().map_or(NO_PIN, cursor::Reader::needs);
        self.taken.map_or(cursor, |(delivery, _)| delivery.position.min(cursor))
    }

    /// Shows that somebody reads here. False: nothing is known now, so nothing may be handed on.
    ///
    /// # Errors
    /// [`ReadError::Dropped`]; the floors are damaged.
    pub fn renew(&mut self) -> Result<bool, ReadError> {
        match self.hold.look(self.needs()) {
            Ok(true) => Ok(true),
            Ok(false) => self.not_now(),
            Err(Dropped { .. }) => {
                self.unpin();
                Err(ReadError::Dropped)
            }
        }
    }

    /// Looks for the start among committed entries; a bounded step. Gives how many things it looked at; 0: it has to wait.
    ///
    /// # Errors
    /// All but [`ReadError::Unsound`].
    pub fn seek(&mut self) -> Result<usize, ReadError> {
        if self.is_deleted {
            return Err(ReadError::Deleted);
        }
        let (Some(commit), Some(cursor)) = (self.commit.current(), &mut self.cursor) else { return Ok(0) };
        let before = cursor.position();
        let sought = cursor.seek(&commit, &self.topics);
        if !self.commit.confirm(commit.epoch) {
            cursor.restart();
            return Ok(0);
        }
        match sought {
            Ok(Sought::NotYet) => Ok((cursor.position() - before) as usize),
            Ok(Sought::Found) => {
                let order = cursor.next_order(0);
                (self.start_order, self.next_order, self.phase) = (order, order, Phase::Streaming);
                Ok(1)
            }
            Ok(Sought::Trimmed { earliest, .. }) => {
                self.unpin();
                Err(ReadError::Trimmed(earliest))
            }
            Ok(Sought::Deleted { .. }) => {
                self.is_deleted = true;
                Err(ReadError::Deleted)
            }
            Err(fault) => {
                cursor.restart();
                self.doubtful(fault.into()).map(|()| 0)
            }
        }
    }

    /// Copies the next batch of the topic and checks the copy. False: there is none yet.
    ///
    /// The copy is sound if the pin is still waited for afterwards: the caller makes sure of that by [`Self::renew`] unless hardly any
    /// time has passed, and only then hands it on.
    ///
    /// # Errors
    /// All but [`ReadError::Trimmed`].
    pub fn take(&mut self) -> Result<bool, ReadError> {
        if self.is_deleted {
            return Err(ReadError::Deleted);
        }
        if self.taken.is_some() {
            return Ok(true);
        }
        let delivery = match self.next_delivery()? {
            Some(delivery) => Some(delivery),
            None if self.fetch()? => self.next_delivery()?,
            None => None,
        };
        let Some(delivery) = delivery else { return Ok(false) };
        match self.copy(&delivery) {
            Ok(header) => {
                (self.taken, self.faults) = (Some((delivery, header)), 0);
                Ok(true)
            }
            Err(error) => {
                self.cursor.as_mut().expect("it gave the batch").take_back(&delivery);
                self.doubtful(error).map(|()| false)
            }
        }
    }

    /// Reads what is committed past the cursor, confirmed. False: nothing, or not now.
    fn fetch(&mut self) -> Result<bool, ReadError> {
        let (Some(commit), Some(cursor)) = (self.commit.current(), &mut self.cursor) else { return Ok(false) };
        let fetched = cursor.fetch(&commit);
        // Handing on cannot be undone; and what an epoch lists that was succeeded says nothing.
        if fetched != Ok(0) && !self.commit.confirm(commit.epoch) {
            cursor.unfetch();
            return Ok(false);
        }
        self.has_all = fetched == Ok(0);
        match fetched {
            Ok(count) => Ok(count > 0),
            Err(fault) => self.doubtful(ReadFault::Index(fault).into()).map(|()| false),
        }
    }

    /// The next batch among what was fetched.
    fn next_delivery(&mut self) -> Result<Option<Delivery>, ReadError> {
        let Some(cursor) = &mut self.cursor else { return Ok(None) };
        match cursor.next_delivery() {
            Ok(None) if cursor.deleted().is_some() => {
                self.is_deleted = true;
                Err(ReadError::Deleted)
            }
            Ok(delivery) => Ok(delivery),
            Err(fault) => {
                cursor.unfetch();
                self.doubtful(fault.into()).map(|()| None)
            }
        }
    }

    /// Hands on what [`Self::take`] took, and passes it.
    pub fn hand_on(&mut self, handler: &mut dyn FnMut(&Delivered<'_>)) {
        let Some((delivery, header)) = self.taken.take() else { return };
        self.next_order = delivery.end_order;
        let passed = self.needs();
        if passed.saturating_sub(self.hold.position()) >= PIN_EVERY {
            self.hold.raise(passed);
        }
        let found = Found {
            place: 0,
            position: delivery.position,
            first_order: delivery.first_order,
            start_order: self.start_order,
        };
        handler(&Delivered::new(&self.name, found, &header, &self.frame));
    }

    /// Copies a batch, then checks the copy: what is checked is what is handed on.
    fn copy(&mut self, delivery: &Delivery) -> Result<BatchHeader, ReadError> {
        self.frame.resize(delivery.bytes as usize, 0);
        self.view.memory.copy_out(delivery.at, &mut self.frame);
        let header: BatchHeader = bytemuck::pod_read_unaligned(&self.frame[..LINE_BYTES as usize]);
        let named = delivery.header;
        let is_it = (header.session, header.session_epoch, header.batch_seq)
            == (named.session, named.session_epoch, named.batch_seq)
            && (header.topic, header.message_count) == (named.topic, named.message_count)
            && header.frame_bytes() == delivery.bytes;
        if !is_it {
            return Err(ReadFault::OtherBatch { position: delivery.position }.into());
        }
        let body = &self.frame[LINE_BYTES as usize..][..header.body_bytes as usize];
        let checked = check(&mut self.decoder, self.verify, &self.frame, body, &header);
        checked.map_err(|error| ReadError::Unsound(delivery.position, error))?;
        Ok(header)
    }

    /// What is found wrong is the pool's fault only if what was read was still there; and the index may be read while a takeover is
    /// under way. The cursor stands where it stood before.
    fn doubtful(&mut self, error: ReadError) -> Result<(), ReadError> {
        self.faults += 1;
        if !self.renew()? {
            return Ok(());
        }
        let may_pass = match &error {
            ReadError::Log(ReadFault::Index(fault)) => !matches!(fault, IndexFault::Damaged { .. }),
            _ => false,
        };
        if may_pass && self.faults < FAULTS_MAX { Ok(()) } else { Err(error) }
    }
}

fn check(
    decoder: &mut BatchDecoder,
    verify: bool,
    frame: &[u8],
    body: &[u8],
    header: &BatchHeader,
) -> Result<(), WireError> {
    if !verify {
        let end = header.body_bytes.into();
        let error = WireError::TrailingBytes { messages: header.message_count, end, body_bytes: end };
        return if is_framed(body, header.message_count) { Ok(()) } else { Err(error) };
    }
    decoder.reset();
    match decoder.advance(frame)? {
        Progress::Complete(_) => Ok(()),
        Progress::NeedHeader | Progress::NeedBytes(_) | Progress::Goodbye | Progress::Heartbeat => {
            Err(WireError::MessageCount { found: header.message_count })
        }
    }
}
