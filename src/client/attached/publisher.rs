//! The attached publisher: the pool mapped, a place of it locked, and waits around [`Publishing`].

use std::time::{Duration, Instant};

use crate::client::attached::options::AttachOptions;
use crate::client::attached::place::{self, Place, Taken};
use crate::client::attached::publishing::{Opening, Publishing, check_properties};
use crate::client::attached::{MachineClock, Patience};
use crate::client::error::{Attempts, ClientError};
use crate::client::progress::{OnAcked, PublisherStats};
use crate::config::CoherenceMode;
use crate::pool::coherence::Coherence;
use crate::pool::{Hardware, Mapped, PlaceKind, Software};
use crate::wire::OrderLevel;

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
        on_core!(self, driven => driven.core.try_send(payload))
    }

    /// Publishes the open batch now.
    pub fn seal(&mut self) {
        on_core!(self, driven => driven.core.seal())
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
        on_core!(self, driven => driven.core.on_acked(callback))
    }

    /// Session id.
    pub fn session(&self) -> u64 {
        on_core!(ref self, driven => driven.core.writer.session())
    }

    /// Its lane in the pool.
    pub fn lane(&self) -> u32 {
        on_core!(ref self, driven => driven.place.lane.expect("a publisher's place has one"))
    }

    /// Order level of the topic.
    pub fn order_level(&self) -> OrderLevel {
        on_core!(ref self, driven => driven.core.topic().expect("found when it attached").order)
    }

    /// Messages taken.
    pub fn messages_sent(&self) -> u64 {
        on_core!(ref self, driven => driven.core.writer.totals().0)
    }

    /// Messages acked.
    pub fn messages_acked(&self) -> u64 {
        on_core!(ref self, driven => driven.core.writer.totals().1)
    }

    /// Payload bytes acked, without headers and padding.
    pub fn bytes_acked(&self) -> u64 {
        on_core!(ref self, driven => driven.core.writer.totals().2)
    }

    /// Batches sealed and not acked.
    pub fn in_flight(&self) -> usize {
        on_core!(ref self, driven => driven.core.writer.in_flight())
    }

    /// Largest payload that a batch of this topic can hold, bytes.
    pub fn batch_message_bytes_max(&self) -> u64 {
        on_core!(ref self, driven => driven.core.writer.payload_bytes_max())
    }

    /// `Waiting for ACKs: [L4=986828] total=986828/10485760`
    pub fn progress_line(&self, total: u64) -> String {
        let acked = self.messages_acked();
        format!("Waiting for ACKs: [L{}={acked}] total={acked}/{total}", self.lane())
    }

    /// Rare events since the publisher was opened.
    pub fn stats(&self) -> PublisherStats {
        let (resent_batches, let_go, fences) = on_core!(ref self, driven => driven.core.writer.rarities());
        PublisherStats { resent_batches, let_go, fences, ..PublisherStats::default() }
    }

    /// Times a batch found the ring full, and times it found no memory free.
    pub fn waits(&self) -> (u64, u64) {
        let counters = on_core!(ref self, driven => *driven.core.writer.counters());
        (counters.ring_full, counters.extent_wait)
    }
}

struct Driven<C: Coherence> {
    core: Publishing<Mapped<C>, MachineClock>,
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
        if options.populate {
            let g = view.layout.geometry;
            let bytes = u64::from(g.extents_of_lane(lane)) * g.extent_bytes;
            let touched = pool.mapping().populate(0, view.layout.fixed_bytes());
            let touched = touched.and_then(|()| pool.mapping().populate(view.layout.extent(lane, 0), bytes));
            if let Err(error) = touched {
                log::warn!("cannot touch the pool in advance ({error}): first writes will be slower");
            }
        }
        let mut driven = Driven { core: Publishing::begin(&view, lane, life, options, MachineClock), place };
        let mut patience = driven.patience();
        loop {
            patience.wait(match driven.core.open()? {
                Opening::Open => return Ok(driven),
                Opening::Topic => "its topic",
                Opening::Room => "room in the ring of its lane",
                Opening::Session => "its session to open",
            })?;
        }
    }

    /// A wait as long as the caller allows.
    fn patience(&self) -> Patience {
        let options = self.core.options();
        Patience::new(&options.pool, options.wait, options.spin)
    }

    /// A wait whose end is looked after elsewhere.
    fn boundless(&self) -> Patience {
        let options = self.core.options();
        Patience::new(&options.pool, Duration::MAX, options.spin)
    }

    fn send(&mut self, payload: &[u8]) -> Result<(), ClientError> {
        if self.core.try_send(payload)? {
            return Ok(());
        }
        let mut patience = self.patience();
        while !self.core.try_send(payload)? {
            if self.core.await_room()? > 0 {
                patience = self.patience();
            }
            patience.wait("room in the ring, in memory or in the window of unacked batches")?;
        }
        self.core.writer.report(false);
        Ok(())
    }

    fn poll(&mut self, timeout: Duration) -> Result<usize, ClientError> {
        let begun = Instant::now();
        let mut patience = self.boundless();
        loop {
            let moved = self.core.poll()?;
            if moved > 0 || timeout.is_zero() || begun.elapsed() >= timeout {
                return Ok(moved);
            }
            self.core.await_room()?;
            let left = timeout.saturating_sub(begun.elapsed());
            patience.rest(self.core.linger_left(Instant::now()).map_or(left, |due| due.min(left)));
        }
    }

    fn flush(&mut self, deadline: Instant) -> Result<(), ClientError> {
        self.core.seal();
        let mut patience = self.boundless();
        loop {
            self.core.drive()?;
            let in_flight = self.core.writer.in_flight();
            if in_flight == 0 {
                return Ok(());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let (sent, acked, _) = self.core.writer.totals();
                let progress = format!("Waiting for ACKs: total={acked}/{sent}");
                return Err(ClientError::AckTimeout { in_flight, progress, unreachable: Attempts(Vec::new()) });
            }
            self.core.await_room()?;
            patience.rest(left);
        }
    }

    fn close(&mut self, deadline: Instant) -> Result<(), ClientError> {
        self.flush(deadline)?;
        let mut patience = self.boundless();
        while !self.core.writer.ask_to_close() && Instant::now() < deadline {
            self.core.await_room()?;
            patience.rest(Duration::from_millis(1));
        }
        self.core.write_counters();
        Ok(())
    }
}

impl<C: Coherence> Drop for Driven<C> {
    fn drop(&mut self) {
        self.core.retire();
    }
}
