//! The attached publisher: the pool mapped, a place of it locked, and waits around [`Publishing`].

use std::time::{Duration, Instant};

use crate::client::attached::place::{self, Place, Taken};
use crate::client::attached::publishing::{Opening, Publishing, check_properties};
use crate::client::attached::{Core, LOOK_EVERY, MachineClock, Patience, on_core};
use crate::client::error::{Attempts, ClientError};
use crate::client::options::PublisherOptions;
use crate::client::progress::{OnAcked, PublisherStats};
use crate::config::CoherenceMode;
use crate::net::readiness::Readiness;
use crate::pool::coherence::Coherence;
use crate::pool::{Hardware, Mapped, PlaceKind, Software};
use crate::wire::OrderLevel;

/// One that runs in this process, for either coherence; see [`Publisher`](crate::client::Publisher).
pub(in crate::client) struct AttachedPublisher {
    core: Core<Driven<Software>, Driven<Hardware>>,
}

impl AttachedPublisher {
    /// See [`Publisher::attach`](crate::client::Publisher::attach); the other methods likewise.
    pub fn attach(options: PublisherOptions) -> Result<AttachedPublisher, ClientError> {
        options.check_attached()?;
        let core = match options.pool.coherence {
            CoherenceMode::Software => Core::Software(Box::new(Driven::attach(options)?)),
            CoherenceMode::Hardware => Core::Hardware(Box::new(Driven::attach(options)?)),
        };
        Ok(AttachedPublisher { core })
    }

    #[inline]
    pub fn send(&mut self, payload: &[u8]) -> Result<(), ClientError> {
        on_core!(&mut self.core, driven => driven.send(payload))
    }

    #[inline]
    pub fn try_send(&mut self, payload: &[u8]) -> Result<bool, ClientError> {
        on_core!(&mut self.core, driven => driven.core.try_send(payload))
    }

    pub fn seal(&mut self) {
        on_core!(&mut self.core, driven => driven.core.seal())
    }

    pub fn poll(&mut self, timeout: Duration) -> Result<usize, ClientError> {
        on_core!(&mut self.core, driven => driven.poll(timeout))
    }

    pub fn flush(&mut self, deadline: Instant) -> Result<(), ClientError> {
        on_core!(&mut self.core, driven => driven.flush(deadline))
    }

    pub fn close(&mut self, deadline: Instant) -> Result<(), ClientError> {
        on_core!(&mut self.core, driven => driven.close(deadline))
    }

    pub fn on_acked(&mut self, callback: OnAcked) {
        on_core!(&mut self.core, driven => driven.core.on_acked(callback))
    }

    pub fn session(&self) -> u64 {
        on_core!(&self.core, driven => driven.core.writer.session())
    }

    pub fn lane(&self) -> u32 {
        on_core!(&self.core, driven => driven.place.lane.expect("a publisher's place has one"))
    }

    pub fn order_level(&self) -> OrderLevel {
        on_core!(&self.core, driven => driven.core.topic().expect("found when it attached").order)
    }

    pub fn messages_sent(&self) -> u64 {
        on_core!(&self.core, driven => driven.core.writer.totals().0)
    }

    pub fn messages_acked(&self) -> u64 {
        on_core!(&self.core, driven => driven.core.writer.totals().1)
    }

    pub fn bytes_acked(&self) -> u64 {
        on_core!(&self.core, driven => driven.core.writer.totals().2)
    }

    pub fn in_flight(&self) -> usize {
        on_core!(&self.core, driven => driven.core.writer.in_flight())
    }

    pub fn batch_message_bytes_max(&self) -> u64 {
        on_core!(&self.core, driven => driven.core.writer.payload_bytes_max())
    }

    pub fn progress_line(&self, total: u64) -> String {
        let acked = self.messages_acked();
        format!("Waiting for ACKs: [L{}={acked}] total={acked}/{total}", self.lane())
    }

    pub fn stats(&self) -> PublisherStats {
        on_core!(&self.core, driven => {
            let (resent_batches, let_go, fences) = driven.core.writer.rarities();
            let counters = driven.core.writer.counters();
            let (ring_full, memory_full) = (counters.ring_full, counters.extent_wait);
            PublisherStats { resent_batches, let_go, fences, ring_full, memory_full, ..PublisherStats::default() }
        })
    }

    pub fn watch(&self, _: &mut Readiness) -> Option<Instant> {
        Some(Instant::now() + LOOK_EVERY)
    }
}

struct Driven<C: Coherence> {
    core: Publishing<Mapped<C>, MachineClock>,
    /// Dropped after everything that writes its lines.
    place: Place,
}

impl<C: Coherence> Driven<C> {
    fn attach(options: PublisherOptions) -> Result<Self, ClientError> {
        if let Some(properties) = &options.create {
            check_properties(&options, properties)?;
        }
        let pool = place::open(&options.pool.path, options.pool.host)?;
        let Taken { place, view, life } = Place::take::<C>(&pool, options.pool.host, PlaceKind::Publisher)?;
        let lane = place.lane.expect("a publisher's place has one");
        if options.pool.populate {
            pool.populate(|_| ());
        }
        let mut driven = Driven { core: Publishing::begin(&view, lane, life, options, MachineClock::new()), place };
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
        let pool = &self.core.options().pool;
        Patience::new(&pool.path, pool.wait, pool.spin)
    }

    /// A wait whose end is looked after elsewhere.
    fn boundless(&self) -> Patience {
        let pool = &self.core.options().pool;
        Patience::new(&pool.path, Duration::MAX, pool.spin)
    }

    #[inline]
    fn send(&mut self, payload: &[u8]) -> Result<(), ClientError> {
        if self.core.try_send(payload)? { Ok(()) } else { self.send_in_time(payload) }
    }

    /// Sends what there was no room for. Out of the way of the rest.
    #[cold]
    #[inline(never)]
    fn send_in_time(&mut self, payload: &[u8]) -> Result<(), ClientError> {
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
        let moved = self.core.poll()?;
        if moved > 0 || timeout.is_zero() { Ok(moved) } else { self.poll_in_time(timeout) }
    }

    /// Waits for what was not there.
    #[cold]
    #[inline(never)]
    fn poll_in_time(&mut self, timeout: Duration) -> Result<usize, ClientError> {
        let begun = Instant::now();
        let mut patience = self.boundless();
        loop {
            self.core.await_room()?;
            let left = timeout.saturating_sub(begun.elapsed());
            patience.rest(self.core.linger_left(Instant::now()).map_or(left, |due| due.min(left)));
            let moved = self.core.poll()?;
            if moved > 0 || begun.elapsed() >= timeout {
                return Ok(moved);
            }
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
