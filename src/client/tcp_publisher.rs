//! A publisher over TCP, driven by its caller: no thread of its own does its I/O.

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

/// An engine and the open batch; see [`Publisher`](crate::client::Publisher).
pub(super) struct TcpPublisher {
    engine: Engine,
    filler: Filler,
    /// Buffers of no batch; those not used yet have no memory.
    spare: Vec<Buffer>,
    linger: Duration,
}

impl TcpPublisher {
    /// See [`Publisher::connect`](crate::client::Publisher::connect); the other methods likewise.
    pub fn connect(options: PublisherOptions) -> Result<TcpPublisher, ClientError> {
        let engine = Engine::connect(&options)?;
        let filler = Filler::new(engine.shape(), Buffer::new());
        let spare = (0..engine.window_batches()).map(|_| Buffer::new()).collect();
        Ok(TcpPublisher { engine, filler, spare, linger: options.linger })
    }

    pub fn send(&mut self, payload: &[u8]) -> Result<(), ClientError> {
        while !self.try_send(payload)? {
            if let Some(error) = self.engine.cut_off() {
                return Err(error);
            }
            self.poll(WAIT_STEP)?;
        }
        Ok(())
    }

    pub fn try_send(&mut self, payload: &[u8]) -> Result<bool, ClientError> {
        if !self.filler.fits(payload.len()) && !self.make_room(payload.len())? {
            return Ok(false);
        }
        self.filler.push(payload);
        // Batches of equal messages go out when they are full, not when the next message finds no room.
        if !self.filler.fits(payload.len()) && self.seal_open() {
            self.pass(Engine::send)?;
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
        self.pass(Engine::send)?;
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
        self.pass(Engine::drive)
    }

    fn pass(&mut self, kind: fn(&mut Engine) -> Result<usize, ClientError>) -> Result<usize, ClientError> {
        let moved = kind(&mut self.engine);
        while let Some(buffer) = self.engine.pop_buffer() {
            self.spare.push(buffer);
        }
        moved
    }

    pub fn seal(&mut self) {
        self.seal_open();
    }

    pub fn poll(&mut self, timeout: Duration) -> Result<usize, ClientError> {
        let lingered = self.seal_lingered();
        let moved =
            self.pass(if timeout.is_zero() { Engine::drive } else { Engine::write_only })? + usize::from(lingered);
        if moved > 0 || timeout.is_zero() {
            return Ok(moved);
        }
        let now = Instant::now();
        let wait = self.lingers_until().map_or(timeout, |due| timeout.min(due.saturating_duration_since(now)));
        self.engine.wait(wait, None)?;
        let lingered = self.seal_lingered();
        Ok(self.drive()? + usize::from(lingered))
    }

    pub fn watch(&self, readiness: &mut Readiness) -> Option<Instant> {
        self.engine.watch(readiness).into_iter().chain(self.lingers_until()).min()
    }

    /// When the open batch is to be sealed as it is; none: it is empty, or waits for room in the window.
    fn lingers_until(&self) -> Option<Instant> {
        let window = self.engine.window();
        self.filler.due(self.linger, window.is_idle()).filter(|_| !window.is_full())
    }

    fn seal_lingered(&mut self) -> bool {
        let due = self.lingers_until().is_some_and(|due| due <= Instant::now());
        due && self.seal_open()
    }

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

    pub fn close(&mut self, deadline: Instant) -> Result<(), ClientError> {
        self.flush(deadline)?;
        self.engine.goodbye(deadline);
        Ok(())
    }

    pub fn on_acked(&mut self, callback: OnAcked) {
        self.engine.on_acked(callback);
    }

    pub fn session(&self) -> u64 {
        self.engine.window().identity(0).session
    }

    pub fn order_level(&self) -> OrderLevel {
        self.engine.order_level()
    }

    pub fn messages_sent(&self) -> u64 {
        self.filler.messages_sent()
    }

    pub fn messages_acked(&self) -> u64 {
        self.engine.acked().0
    }

    pub fn bytes_acked(&self) -> u64 {
        self.engine.acked().1
    }

    pub fn in_flight(&self) -> usize {
        self.engine.window().unacked()
    }

    pub fn batch_message_bytes_max(&self) -> u64 {
        self.filler.shape().payload_bytes_max()
    }

    pub fn broker_progress(&self) -> &[BrokerProgress] {
        self.engine.brokers()
    }

    pub fn progress_line(&self, total: u64) -> String {
        self.engine.progress_line(total)
    }

    pub fn stats(&self) -> PublisherStats {
        self.engine.stats()
    }

    pub fn into_parts(self) -> (Engine, Filler, Vec<Buffer>, Duration) {
        (self.engine, self.filler, self.spare, self.linger)
    }
}
