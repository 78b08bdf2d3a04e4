//! The attached publisher: drives a [`Writer`] with clocks and waits.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::client::attached::options::AttachOptions;
use crate::client::attached::place::{self, Life, Place, Taken};
use crate::client::attached::writer::{Bounds, Times, Writer};
use crate::client::attached::{Patience, find_topic};
use crate::client::error::{Attempts, ClientError};
use crate::client::options::TopicProperties;
use crate::client::progress::{OnAcked, PublisherStats};
use crate::config::CoherenceMode;
use crate::limits::LINE_BYTES;
use crate::log::session::Standing;
use crate::log::topics::Topic;
use crate::observe::counters::CounterBlock;
use crate::pool::coherence::Coherence;
use crate::pool::{Hardware, Keep, Mapped, Memory, PlaceKind, Software};
use crate::wire::{AckLevel, OrderLevel, Refusal};

/// How often a publisher that waits for room shows that it lives.
const BEAT: Duration = Duration::from_millis(10);
const REPORT: Duration = Duration::from_secs(1);

/// A publisher in a process that maps the pool: messages are copied once, into the payload area, and ordered from there; no
/// socket, no broker process in between. Made by [`Publisher::attach`](crate::client::Publisher::attach).
///
/// It works as [`Publisher`](crate::client::Publisher) does, with the same calls: a batch is sealed when it is full, when
/// [`poll`](Self::poll) finds that its oldest message has lingered, or by [`seal`](Self::seal) and [`flush`](Self::flush). Nothing
/// happens between two calls. When the ring is full or no memory is free it waits, counted and with a deadline; nothing is
/// ever dropped. If its process dies, what was sealed is ordered, what was not never existed, and its place is free.
///
/// Memory: none but the pool's.
pub struct AttachedPublisher {
    core: Core,
}

enum Core {
    Software(Box<Driven<Software>>),
    Hardware(Box<Driven<Hardware>>),
}

macro_rules! on_core {
    ($self:expr, $driven:ident => $what:expr) => {
        match &mut $self.core {
            Core::Software($driven) => $what,
            Core::Hardware($driven) => $what,
        }
    };
    (ref $self:expr, $driven:ident => $what:expr) => {
        match &$self.core {
            Core::Software($driven) => $what,
            Core::Hardware($driven) => $what,
        }
    };
}

impl AttachedPublisher {
    /// Takes a place of the pool and opens a session on the topic.
    ///
    /// # Errors
    /// [`ClientError::Option`]; [`ClientError::Pool`] if there is no pool of this version; [`ClientError::NoPlace`];
    /// [`ClientError::PoolRefused`] for what a broker would refuse; [`ClientError::PoolTimeout`] if no sequencer answers.
    pub fn attach(options: AttachOptions) -> Result<AttachedPublisher, ClientError> {
        options.check()?;
        let core = match options.coherence {
            CoherenceMode::Software => Core::Software(Box::new(Driven::attach(options)?)),
            CoherenceMode::Hardware => Core::Hardware(Box::new(Driven::attach(options)?)),
        };
        Ok(AttachedPublisher { core })
    }

    /// Takes a message, waiting while there is no room.
    ///
    /// # Errors
    /// [`ClientError::PoolTimeout`] when nothing moved for `wait`; the message was not taken, and the call may be repeated.
    pub fn send(&mut self, payload: &[u8]) -> Result<(), ClientError> {
        on_core!(self, driven => driven.send(payload))
    }

    /// Takes a message if there is room now; false if there is none, with no effect.
    #[inline]
    pub fn try_send(&mut self, payload: &[u8]) -> Result<bool, ClientError> {
        on_core!(self, driven => driven.try_send(payload))
    }

    /// Publishes the open batch now.
    pub fn seal(&mut self) {
        on_core!(self, driven => driven.writer.seal(&times))
    }

    /// Progress: seals a batch that has lingered, hears acks, publishes again what has to be. Waits up to `timeout` if there is
    /// nothing to do. Returns how many things moved, 0 if none.
    pub fn poll(&mut self, timeout: Duration) -> Result<usize, ClientError> {
        on_core!(self, driven => driven.poll(timeout))
    }

    /// Seals the open batch and waits until everything is acked.
    ///
    /// # Errors
    /// [`ClientError::AckTimeout`] at `deadline`; nothing is lost, and the call may be repeated.
    pub fn flush(&mut self, deadline: Instant) -> Result<(), ClientError> {
        on_core!(self, driven => driven.flush(deadline))
    }

    /// Flushes, closes the session and frees the place. After an error some messages may not be acked.
    pub fn close(mut self, deadline: Instant) -> Result<(), ClientError> {
        on_core!(self, driven => driven.close(deadline))
    }

    /// Has `callback` called, from inside other calls, for every batch that is done, in the order of acking.
    pub fn on_acked(&mut self, callback: OnAcked) {
        on_core!(self, driven => driven.on_acked = Some(callback))
    }

    /// Session id.
    pub fn session(&self) -> u64 {
        on_core!(ref self, driven => driven.writer.session())
    }

    /// Its lane in the pool.
    pub fn lane(&self) -> u32 {
        on_core!(ref self, driven => driven.place.lane.expect("a publisher's place has one"))
    }

    /// Order level of the topic.
    pub fn order_level(&self) -> OrderLevel {
        on_core!(ref self, driven => driven.topic.order)
    }

    /// Messages taken.
    pub fn messages_sent(&self) -> u64 {
        on_core!(ref self, driven => driven.writer.totals().0)
    }

    /// Messages acked.
    pub fn messages_acked(&self) -> u64 {
        on_core!(ref self, driven => driven.writer.totals().1)
    }

    /// Payload bytes acked, without headers and padding.
    pub fn bytes_acked(&self) -> u64 {
        on_core!(ref self, driven => driven.writer.totals().2)
    }

    /// Batches sealed and not acked.
    pub fn in_flight(&self) -> usize {
        on_core!(ref self, driven => driven.writer.in_flight())
    }

    /// Largest payload that a batch of this topic can hold, bytes.
    pub fn batch_message_bytes_max(&self) -> u64 {
        on_core!(ref self, driven => driven.writer.payload_bytes_max())
    }

    /// `Waiting for ACKs: [L4=986828] total=986828/10485760`
    pub fn progress_line(&self, total: u64) -> String {
        let acked = self.messages_acked();
        format!("Waiting for ACKs: [L{}={acked}] total={acked}/{total}", self.lane())
    }

    /// Rare events since the publisher was opened.
    pub fn stats(&self) -> PublisherStats {
        let (resent_batches, let_go, fences) = on_core!(ref self, driven => driven.writer.rarities());
        PublisherStats { resent_batches, let_go, fences, ..PublisherStats::default() }
    }

    /// Times a batch found the ring full, and times it found no memory free.
    pub fn waits(&self) -> (u64, u64) {
        let counters = on_core!(ref self, driven => *driven.writer.counters());
        (counters.ring_full, counters.extent_wait)
    }
}

fn times() -> Times {
    let utc_ns = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
    Times { now: Instant::now(), utc_ns }
}

struct Driven<C: Coherence> {
    writer: Writer<Mapped<C>>,
    block: CounterBlock<Mapped<C>>,
    payload_bytes_max: u64,
    topic: Topic,
    options: AttachOptions,
    on_acked: Option<OnAcked>,
    beat: Instant,
    reported: Instant,
    life: Life<C>,
    /// Dropped after everything that writes its lines.
    place: Place,
}

impl<C: Coherence> Driven<C> {
    fn attach(options: AttachOptions) -> Result<Self, ClientError> {
        if let Some(properties) = &options.create {
            check_properties(&options, properties)?;
        }
        let pool = place::open(&options.pool, options.host)?;
        let Taken { place, view, life } = Place::take::<C>(&pool, options.host, PlaceKind::Publisher)?;
        let lane = place.lane.expect("a publisher's place has one");
        let g = view.layout.geometry;
        if options.populate {
            let bytes = u64::from(g.extents_of_lane(lane)) * g.extent_bytes;
            let touched = pool.mapping().populate(0, view.layout.fixed_bytes());
            let touched = touched.and_then(|()| pool.mapping().populate(view.layout.extent(lane, 0), bytes));
            if let Err(error) = touched {
                log::warn!("cannot touch the pool in advance ({error}): first writes will be slower");
            }
        }
        let batch_bytes_max = g.batch_bytes_max();
        let bounds = Bounds {
            batch_bytes: options.batch_bytes.next_multiple_of(LINE_BYTES).min(batch_bytes_max),
            batch_bytes_max,
            batch_messages: options.batch_messages,
            window_batches: options.window_batches as usize,
            keep: Keep::Cached,
        };
        let mut writer = Writer::take(&view, lane, bounds);
        let topic = topic_of(&view, &mut writer, &options)?;
        check_levels(&options, &topic)?;
        let mut patience = Patience::new(&options.pool, options.wait, options.spin);
        while !writer.ask_for_session(&topic, options.ack) {
            patience.wait("room in the ring of its lane")?;
        }
        let now = Instant::now();
        let block = CounterBlock::new(view.memory.clone(), view.layout.receive_counters(lane));
        let payload_bytes_max = writer.payload_bytes_max();
        let mut driven = Driven {
            writer,
            block,
            payload_bytes_max,
            topic,
            options,
            on_acked: None,
            beat: now,
            reported: now,
            life,
            place,
        };
        while driven.writer.standing() == Standing::Asked {
            driven.drive()?;
            patience.wait("its session to open")?;
        }
        driven.drive()?;
        Ok(driven)
    }

    #[inline]
    fn try_send(&mut self, payload: &[u8]) -> Result<bool, ClientError> {
        if payload.len() as u64 > self.payload_bytes_max {
            let (payload_bytes, max) = (payload.len() as u64, self.payload_bytes_max);
            return Err(ClientError::PayloadTooLarge { payload_bytes, max });
        }
        let published = self.writer.counters().published_batches;
        if self.writer.push(payload, times) {
            if self.writer.counters().published_batches != published {
                self.drive()?;
            }
            return Ok(true);
        }
        self.drive()?;
        Ok(self.writer.push(payload, times))
    }

    fn send(&mut self, payload: &[u8]) -> Result<(), ClientError> {
        if self.try_send(payload)? {
            return Ok(());
        }
        let mut patience = Patience::new(&self.options.pool, self.options.wait, self.options.spin);
        while !self.try_send(payload)? {
            if self.await_room()? > 0 {
                patience = Patience::new(&self.options.pool, self.options.wait, self.options.spin);
            }
            patience.wait("room in the ring, in memory or in the window of unacked batches")?;
        }
        self.writer.report(false);
        Ok(())
    }

    /// Says that a message waits, and that somebody is there who waits with it. Gives how many things moved.
    fn await_room(&mut self) -> Result<usize, ClientError> {
        let moved = self.drive()?;
        self.writer.report(true);
        if self.beat.elapsed() >= BEAT {
            self.beat = Instant::now();
            self.writer.beat();
        }
        Ok(moved)
    }

    #[inline(never)]
    fn drive(&mut self) -> Result<usize, ClientError> {
        self.life.show();
        let moved = self.writer.follow().map_err(place::damaged(&self.options.pool))?;
        while let Some(batch) = self.writer.pop_acked() {
            if let Some(callback) = &mut self.on_acked {
                callback(batch);
            }
        }
        match self.writer.standing() {
            Standing::Asked | Standing::Open | Standing::Fenced => Ok(moved),
            Standing::Refused(code) => {
                let refusal = Refusal::from_code(code.into()).unwrap_or(Refusal::Busy);
                Err(self.refused(refusal, "the sequencer did not open the session"))
            }
            Standing::Closed => {
                let text = "the session was closed: it was silent for sequencer.session_expiry when others wanted its place, \
                            or its topic is gone";
                Err(self.refused(Refusal::UnknownSession, text))
            }
        }
    }

    fn refused(&self, refusal: Refusal, text: &str) -> ClientError {
        ClientError::PoolRefused { pool: self.options.pool.clone(), refusal, detail: 0, text: text.into() }
    }

    fn seal_lingered(&mut self) -> bool {
        let is_due = self.writer.open_since().is_some_and(|since| since.elapsed() >= self.options.linger);
        if is_due {
            self.writer.seal(&times);
        }
        is_due
    }

    fn poll(&mut self, timeout: Duration) -> Result<usize, ClientError> {
        let begun = Instant::now();
        self.report(begun);
        let mut patience = Patience::new(&self.options.pool, Duration::MAX, self.options.spin);
        loop {
            let moved = usize::from(self.seal_lingered()) + self.drive()?;
            if moved > 0 || timeout.is_zero() || begun.elapsed() >= timeout {
                return Ok(moved);
            }
            self.await_room()?;
            let left = timeout.saturating_sub(begun.elapsed());
            let due = self.writer.open_since().map(|since| self.options.linger.saturating_sub(since.elapsed()));
            patience.rest(due.map_or(left, |due| due.min(left)));
        }
    }

    fn flush(&mut self, deadline: Instant) -> Result<(), ClientError> {
        self.writer.seal(&times);
        let mut patience = Patience::new(&self.options.pool, Duration::MAX, self.options.spin);
        loop {
            self.drive()?;
            if self.writer.in_flight() == 0 {
                return Ok(());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let (sent, acked, _) = self.writer.totals();
                let progress = format!("Waiting for ACKs: total={acked}/{sent}");
                let unreachable = Attempts(Vec::new());
                return Err(ClientError::AckTimeout { in_flight: self.writer.in_flight(), progress, unreachable });
            }
            self.await_room()?;
            patience.rest(left);
        }
    }

    fn close(&mut self, deadline: Instant) -> Result<(), ClientError> {
        self.flush(deadline)?;
        let mut patience = Patience::new(&self.options.pool, Duration::MAX, self.options.spin);
        while !self.writer.ask_to_close() && Instant::now() < deadline {
            self.await_room()?;
            patience.rest(Duration::from_millis(1));
        }
        self.block.write(self.writer.counters());
        Ok(())
    }

    /// Copies the counters out, at most once a second.
    fn report(&mut self, now: Instant) {
        if now.duration_since(self.reported) >= REPORT {
            self.reported = now;
            self.block.write(self.writer.counters());
        }
    }
}

impl<C: Coherence> Drop for Driven<C> {
    fn drop(&mut self) {
        // The place is given back with nothing open in it, and no memory waited for.
        self.writer.retire();
    }
}

/// Finds or creates the topic.
fn topic_of<M: Memory>(
    view: &crate::log::View<M>,
    writer: &mut Writer<M>,
    options: &AttachOptions,
) -> Result<Topic, ClientError> {
    let mut asked = false;
    let mut ask = || {
        if let Some(wanted) = options.create.as_ref().filter(|_| !asked) {
            let topic = Topic {
                receipts: wanted.receipts,
                replicas: wanted.replicas.max(1),
                retention_bytes: wanted.retention_bytes,
                retention_ns: wanted.retention_age.as_nanos().min(u64::MAX.into()) as u64,
                created_at: times().utc_ns,
                ..Topic::new(&options.topic, wanted.order, wanted.ack)
            };
            asked = writer.ask_for_topic(&topic);
        }
    };
    let patience = Patience::new(&options.pool, options.wait, options.spin);
    find_topic(view, &options.topic, options.create.is_some(), patience, &mut ask)
}

/// A topic to create promises what can be had.
fn check_properties(options: &AttachOptions, wanted: &TopicProperties) -> Result<(), ClientError> {
    let refused = |text: &str| {
        let (pool, text) = (options.pool.clone(), text.to_owned());
        Err(ClientError::PoolRefused { pool, refusal: Refusal::AckLevel, detail: 1, text })
    };
    if wanted.ack == AckLevel::Durable || wanted.replicas > 1 {
        return refused("replicas, and ack level 2 which needs them, are not in this release");
    }
    if wanted.order == OrderLevel::Session && wanted.ack == AckLevel::None {
        return refused("order level 5 needs ack level 1 or more: without acks nothing could be sent again");
    }
    Ok(())
}

/// The topic is what the publisher relies on.
fn check_levels(options: &AttachOptions, topic: &Topic) -> Result<(), ClientError> {
    let refused =
        |refusal, detail, text| Err(ClientError::PoolRefused { pool: options.pool.clone(), refusal, detail, text });
    if let Some(wanted) = options.create.filter(|wanted| wanted.order != topic.order) {
        let text = format!("topic {:?} has order level {}, not {}", topic.name, topic.order, wanted.order);
        return refused(Refusal::TopicExists, topic.order as u64, text);
    }
    if options.ack > topic.ack {
        let text = format!("ack level {} asked for, topic {:?} grants up to {}", options.ack, topic.name, topic.ack);
        return refused(Refusal::AckLevel, topic.ack as u64, text);
    }
    if topic.order == OrderLevel::Session && options.ack == AckLevel::None {
        let text = "order level 5 needs ack level 1 or more: without acks nothing could be sent again".to_owned();
        return refused(Refusal::AckLevel, 1, text);
    }
    Ok(())
}
