//! A publisher driven by its caller: no thread of its own does its I/O.

use std::time::{Duration, Instant};

use crate::client::batch::{Buffer, Filler};
use crate::client::engine::Engine;
use crate::client::error::ClientError;
use crate::client::options::PublisherOptions;
use crate::client::progress::{BrokerProgress, OnAcked, PublisherStats};
use crate::net::readiness::Readiness;
use crate::wire::OrderLevel;

/// Longest single wait inside a call that waits; between two of them the exit conditions are looked at.
const WAIT_STEP: Duration = Duration::from_millis(50);

/// Publishes messages to one topic.
///
/// Messages are copied once, into the open batch. A batch is sealed when it is full, when [`poll`](Publisher::poll)
/// finds that its oldest message has lingered, or by [`seal`](Publisher::seal) and [`flush`](Publisher::flush); sealed
/// batches are striped over the brokers, at most a window of them unacked. Nothing happens between two calls: a caller
/// with nothing to send calls `poll`. (Only reconnecting to a lost broker uses a short-lived thread, so that a silent
/// host stalls nobody.)
///
/// At order level 5 everything is committed exactly once and in order, whatever connections break. Below, what was
/// unacked on a broken connection is sent again on another and may be there twice.
///
/// Memory: a window of batches and one.
pub struct Publisher {
    engine: Engine,
    filler: Filler,
    /// Buffers of no batch; those not used yet have no memory.
    spare: Vec<Buffer>,
    linger: Duration,
}

impl Publisher {
    /// Opens a session with the first broker that answers, and connects to the others.
    ///
    /// Brokers that do not answer at once join later. Errors: [`ClientError::Option`], [`ClientError::Unreachable`]
    /// after `connect_timeout`, or what the broker refused with.
    pub fn connect(options: PublisherOptions) -> Result<Publisher, ClientError> {
        let engine = Engine::connect(&options)?;
        let filler = Filler::new(engine.shape(), Buffer::new());
        let spare = (0..engine.window_batches()).map(|_| Buffer::new()).collect();
        Ok(Publisher { engine, filler, spare, linger: options.linger })
    }

    /// Takes a message, waiting for acks while the window is full.
    ///
    /// The wait ends with [`ClientError::Unreachable`] when no broker can be reached for `connect_timeout`; while one
    /// is connected but takes nothing, it goes on (use [`try_send`](Publisher::try_send) to choose otherwise). After an
    /// error the message was not taken.
    pub fn send(&mut self, payload: &[u8]) -> Result<(), ClientError> {
        while !self.try_send(payload)? {
            if let Some(error) = self.engine.cut_off() {
                return Err(error);
            }
            self.poll(WAIT_STEP)?;
        }
        Ok(())
    }

    /// Takes a message if there is room now; false if the window is full, with no effect.
    pub fn try_send(&mut self, payload: &[u8]) -> Result<bool, ClientError> {
        if !self.filler.fits(payload.len()) && !self.make_room(payload.len())? {
            return Ok(false);
        }
        self.filler.push(payload);
        // Batches of equal messages go out when they are full, not when the next message finds no room.
        if !self.filler.fits(payload.len()) && self.seal_open() {
            self.drive()?;
        }
        Ok(true)
    }

    /// Seals the open batch to make room. False if the window is full.
    fn make_room(&mut self, payload_bytes: usize) -> Result<bool, ClientError> {
        let max = self.batch_message_bytes_max();
        if payload_bytes as u64 > max {
            return Err(ClientError::PayloadTooLarge { payload_bytes: payload_bytes as u64, max });
        }
        if !self.seal_open() {
            self.drive()?;
            if !self.seal_open() {
                return Ok(false);
            }
        }
        self.drive()?;
        assert!(self.filler.fits(payload_bytes), "an empty batch takes every payload up to the limit");
        Ok(true)
    }

    /// Seals the open batch if it has a message and the window has room. Returns whether it is empty now.
    fn seal_open(&mut self) -> bool {
        if self.filler.is_empty() {
            return true;
        }
        if self.engine.window().is_full() {
            return false;
        }
        // The window holds less than its maximum, so of its maximum and one buffers one is here.
        let fresh = self.spare.pop().expect("a buffer for every place of the window and the open batch");
        match self.filler.seal(fresh) {
            Ok(batch) => self.engine.push(batch),
            Err(_) => unreachable!("not empty"),
        }
        true
    }

    fn drive(&mut self) -> Result<usize, ClientError> {
        let moved = self.engine.drive();
        while let Some(buffer) = self.engine.pop_buffer() {
            self.spare.push(buffer);
        }
        moved
    }

    /// Seals the open batch now, so that the next call sends it; if the window is full, as soon as it is not.
    pub fn seal(&mut self) {
        self.seal_open();
    }

    /// Progress: writes, reads acks, seals a batch that has lingered, resends, reconnects. Waits up to `timeout` if
    /// there is nothing to do. Returns how many things moved, 0 if none.
    ///
    /// A lost connection is not an error here: it is made good, or shows in [`broker_progress`](Self::broker_progress).
    pub fn poll(&mut self, timeout: Duration) -> Result<usize, ClientError> {
        let lingered = self.seal_lingered();
        let moved = self.drive()? + usize::from(lingered);
        if moved > 0 || timeout.is_zero() {
            return Ok(moved);
        }
        let now = Instant::now();
        let due = self.filler.due(self.linger).filter(|_| !self.engine.window().is_full());
        let wait = due.map_or(timeout, |due| timeout.min(due.saturating_duration_since(now)));
        self.engine.wait(wait, None)?;
        let lingered = self.seal_lingered();
        Ok(self.drive()? + usize::from(lingered))
    }

    /// For a caller that drives many publishers on one thread: adds the sockets to `readiness`, and gives when to call
    /// [`poll`](Self::poll) even if none of them becomes ready; none: not before that.
    pub fn watch(&self, readiness: &mut Readiness) -> Option<Instant> {
        let lingers = self.filler.due(self.linger).filter(|_| !self.engine.window().is_full());
        self.engine.watch(readiness).into_iter().chain(lingers).min()
    }

    fn seal_lingered(&mut self) -> bool {
        let due = self.filler.due(self.linger).is_some_and(|due| due <= Instant::now());
        due && self.seal_open()
    }

    /// Seals the open batch and waits until everything is acked (at ack level 0: written to the sockets).
    ///
    /// Errors: [`ClientError::AckTimeout`] at `deadline`, with the numbers of every broker; nothing is lost, and the
    /// call may be repeated.
    pub fn flush(&mut self, deadline: Instant) -> Result<(), ClientError> {
        loop {
            let sealed = self.seal_open();
            self.drive()?;
            if sealed && self.engine.window().unacked() == 0 {
                return Ok(());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(self.ack_timeout());
            }
            self.engine.wait(left.min(WAIT_STEP), None)?;
        }
    }

    fn ack_timeout(&self) -> ClientError {
        ClientError::AckTimeout {
            in_flight: self.in_flight(),
            progress: self.engine.progress_line(self.messages_sent()),
            unreachable: self.engine.unreachable(),
        }
    }

    /// Flushes, says goodbye and closes, all before `deadline`. After an error some messages may not be acked.
    pub fn close(mut self, deadline: Instant) -> Result<(), ClientError> {
        self.flush(deadline)?;
        self.engine.goodbye(deadline);
        Ok(())
    }

    /// Has `callback` called, from inside other calls, for every batch that is done, in the order of acking.
    pub fn on_acked(&mut self, callback: OnAcked) {
        self.engine.on_acked(callback);
    }

    /// Session id; below level 5 that of the first connection's own.
    pub fn session(&self) -> u64 {
        self.engine.window().identity(0).session
    }

    /// Order level of the topic.
    pub fn order_level(&self) -> OrderLevel {
        self.engine.order_level()
    }

    /// Messages taken.
    pub fn messages_sent(&self) -> u64 {
        self.filler.messages_sent()
    }

    /// Messages acked (at ack level 0: written).
    pub fn messages_acked(&self) -> u64 {
        self.engine.acked().0
    }

    /// Payload bytes acked, without headers and padding.
    pub fn bytes_acked(&self) -> u64 {
        self.engine.acked().1
    }

    /// Batches sealed and not acked.
    pub fn in_flight(&self) -> usize {
        self.engine.window().unacked()
    }

    /// Largest payload that a batch of this topic can hold, bytes.
    pub fn batch_message_bytes_max(&self) -> u64 {
        self.filler.shape().payload_bytes_max()
    }

    /// What went to each broker and came back, ordered by broker id.
    pub fn broker_progress(&self) -> &[BrokerProgress] {
        self.engine.brokers()
    }

    /// `Waiting for ACKs: [B0=986828, B1=986828, B2=986828, B3=0] total=2960484/10485760`
    pub fn progress_line(&self, total: u64) -> String {
        self.engine.progress_line(total)
    }

    /// Rare events since the publisher was opened.
    pub fn stats(&self) -> PublisherStats {
        self.engine.stats()
    }

    pub(crate) fn into_parts(self) -> (Engine, Filler, Vec<Buffer>, Duration) {
        (self.engine, self.filler, self.spare, self.linger)
    }
}
