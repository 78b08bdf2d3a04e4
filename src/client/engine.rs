//! The publisher's I/O: what dials, reads and writes for the [ports](crate::client::ports), and sleeps.
//!
//! One call of [`drive`](Engine::drive) does what can be done without waiting; [`wait`](Engine::wait) sleeps until a socket or a
//! moment makes the next call worth while.

use std::io::IoSlice;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::client::admin::create_topic;
use crate::client::batch::{Buffer, SealedBatch, Shape};
use crate::client::deadline;
use crate::client::dial::{Dialed, Dialer, Welcomed, dial_any};
use crate::client::error::{Attempts, ClientError};
use crate::client::options::PublisherOptions;
use crate::client::ports::{Order, Patience, Ports};
use crate::client::progress::{self, BrokerProgress, OnAcked, PublisherStats};
use crate::client::session::first_hello;
use crate::client::socket::{Received, Socket};
use crate::client::window::Window;
use crate::net::readiness::Readiness;
use crate::wire::OrderLevel;

/// Most batches in one write.
const SLICES_MAX: usize = 16;
/// Most writes and reads of one port in one call of `drive`, so that no port starves the others.
const CALLS_PER_PORT: usize = 4;
/// While an attempt is in the air, look for its result this often: nothing else announces it.
const DIAL_CHECK: Duration = Duration::from_millis(2);
/// Sockets that were asked no longer ago have hardly anything new to say.
const ASKED_JUST_NOW: Duration = Duration::from_micros(100);
/// At the start, wait this long at most for brokers beside the first; later ones join when they answer.
const JOIN_WAIT: Duration = Duration::from_secs(1);

/// See the head of the file.
pub(crate) struct Engine {
    ports: Ports,
    /// By port: the connection of each that is up.
    sockets: Vec<Option<Socket>>,
    dialer: Dialer,
    readiness: Readiness,
    /// `readiness` has the answers of a wait, and nobody has acted on them yet.
    is_looked: bool,
    /// When the sockets were last asked.
    looked_at: Instant,
    /// Nobody owed an ack when the last batch was pushed.
    was_idle: bool,
    on_acked: Option<OnAcked>,
    messages_acked: u64,
    bytes_acked: u64,
}

impl Engine {
    /// Connects to a first broker, then to the others it names.
    pub fn connect(options: &PublisherOptions) -> Result<Engine, ClientError> {
        options.check()?;
        if let Some(properties) = &options.create {
            create_topic(&options.brokers, &options.topic, properties, options.connect_timeout)?;
        }
        let hello = first_hello(options);
        let (stream, greeting) =
            dial_any(&options.brokers, &hello, options.topic.as_bytes(), 1, options.connect_timeout)?;
        let ports = Ports::new(options, Patience::default(), &greeting, Instant::now())?;
        let mut engine = Engine {
            sockets: (0..ports.len()).map(|_| None).collect(),
            ports,
            dialer: Dialer::new(),
            readiness: Readiness::default(),
            is_looked: false,
            looked_at: Instant::now(),
            was_idle: false,
            on_acked: None,
            messages_acked: 0,
            bytes_acked: 0,
        };
        engine.join_all(options, (stream, greeting));
        match engine.ports.failed() {
            Some(error) => Err(error.clone()),
            None => Ok(engine),
        }
    }

    /// Puts the first connection in its port and gives the others a moment to come up.
    fn join_all(&mut self, options: &PublisherOptions, first: Welcomed) {
        let now = Instant::now();
        let port = self.ports.port_of(&first.1.address);
        self.on_dialed(Dialed { port, generation: 0, result: Ok(first) }, now);
        self.ports.begin_pass(now);
        self.obey();
        let deadline = deadline::after(now, JOIN_WAIT.min(options.connect_timeout));
        while self.ports.is_dialing() {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.dialer.wait(left) {
                Some(dialed) => self.on_dialed(dialed, Instant::now()),
                None => break,
            }
        }
        self.ports.count();
    }

    fn on_dialed(&mut self, dialed: Dialed, now: Instant) {
        let Dialed { port, generation, result } = dialed;
        let (stream, result) = match result {
            Ok((stream, greeting)) => (Some(stream), Ok(greeting)),
            Err(error) => (None, Err(error)),
        };
        if self.ports.on_dialed(port, generation, &result, now) {
            self.sockets[port] = stream.map(Socket::new);
        }
        self.obey();
    }

    /// Does what the ports have ordered.
    fn obey(&mut self) {
        // Brokers may have come.
        self.sockets.resize_with(self.ports.len(), || None);
        while let Some(order) = self.ports.pop_order() {
            match order {
                Order::Dial { port, generation, call } => self.dialer.begin(port, generation, *call),
                // An attempt in the air ends by itself; its result will be void.
                Order::Close { port } => self.sockets[port] = None,
            }
        }
    }

    fn lost(&mut self, index: usize, error: &ClientError, now: Instant) {
        self.ports.on_lost(index, error, now);
        self.obey();
    }

    /// Does what can be done now. Returns how many things moved: batches, writes, frames, connections.
    ///
    /// Errors: only a refusal that trying again cannot change; the same one at every later call.
    pub fn drive(&mut self) -> Result<usize, ClientError> {
        let now = Instant::now();
        let mut moved = 0;
        while let Some(dialed) = self.dialer.next() {
            self.on_dialed(dialed, now);
            moved += 1;
        }
        self.ports.begin_pass(now);
        self.obey();
        // Read first: what is written to a connection that has ended is in doubt, if only for those who did not look.
        self.look(now)?;
        for port in 0..self.ports.len() {
            let (read, is_heard) = if self.has_to_read(port) { self.read(port, now) } else { (0, false) };
            moved += read + usize::from(self.ports.on_look(port, is_heard, now));
            self.obey();
        }
        self.assign_and_write(moved, now)
    }

    /// After a push: as [`drive`](Engine::drive), but where nobody has anything to answer and all were asked just now they are not asked
    /// again.
    pub fn send(&mut self) -> Result<usize, ClientError> {
        let now = Instant::now();
        match self.was_idle && now.saturating_duration_since(self.looked_at) < ASKED_JUST_NOW {
            true => self.assign_and_write(0, now),
            false => self.drive(),
        }
    }

    /// Only writes: before a [`wait`](Engine::wait), which asks all sockets anyway.
    pub fn write_only(&mut self) -> Result<usize, ClientError> {
        self.assign_and_write(0, Instant::now())
    }

    /// The second half of a pass. Of the first so many things moved.
    fn assign_and_write(&mut self, moved: usize, now: Instant) -> Result<usize, ClientError> {
        let mut moved = moved + self.ports.assign(now);
        for port in 0..self.ports.len() {
            moved += self.write(port, now);
        }
        self.report_acked();
        if moved > 0 {
            self.ports.count();
        }
        match self.ports.failed() {
            Some(error) => Err(error.clone()),
            None => Ok(moved),
        }
    }

    /// Finds out which sockets have something to read, unless a wait just did: one question about all costs less than a read of each
    /// that gives nothing. A single one is asked by reading.
    fn look(&mut self, now: Instant) -> Result<(), ClientError> {
        self.looked_at = now;
        if std::mem::take(&mut self.is_looked) {
            return Ok(());
        }
        self.readiness.clear();
        for socket in self.sockets.iter().flatten() {
            self.readiness.watch(socket.stream(), false);
        }
        if self.readiness.watched() <= 1 {
            self.readiness.clear();
            return Ok(());
        }
        self.sleep(Duration::ZERO).map(drop)
    }

    fn has_to_read(&self, port: usize) -> bool {
        let is_asked = self.readiness.watched() > 0;
        self.sockets[port].as_ref().is_some_and(|socket| !is_asked || self.readiness.is_readable(socket.stream()))
    }

    /// Gives how many sockets are ready.
    fn sleep(&mut self, timeout: Duration) -> Result<usize, ClientError> {
        let waiting = |error| ClientError::io(self.ports.topic(), "waiting for the sockets of topic", &error);
        self.readiness.wait(timeout).map_err(waiting)
    }

    /// Sleeps until a socket is ready, a moment has come, `doorbell` rings or `timeout` has passed.
    pub fn wait(&mut self, timeout: Duration, doorbell: Option<&UnixStream>) -> Result<(), ClientError> {
        let now = Instant::now();
        let mut until = deadline::after(now, timeout);
        until = self.next_due(now).map_or(until, |due| until.min(due));
        self.readiness.clear();
        if let Some(doorbell) = doorbell {
            self.readiness.watch(doorbell, false);
        }
        for (index, socket) in self.sockets.iter().enumerate() {
            if let Some(socket) = socket {
                self.readiness.watch(socket.stream(), self.ports.has_to_write(index, now));
            }
        }
        // A signal ends it early and says nothing of the sockets.
        self.is_looked = self.sleep(until.saturating_duration_since(now))? > 0;
        for socket in self.sockets.iter_mut().flatten() {
            if socket.full_until().is_some() && self.readiness.is_writable(socket.stream()) {
                socket.has_room();
            }
        }
        Ok(())
    }

    /// Adds every live socket to `readiness`, for a caller that waits for several publishers at once. Gives when this one
    /// wants to be driven even if none of them becomes ready; none: not before that.
    pub fn watch(&self, readiness: &mut Readiness) -> Option<Instant> {
        let now = Instant::now();
        let mut until = self.next_due(now);
        for (index, socket) in self.sockets.iter().enumerate() {
            let Some(socket) = socket else { continue };
            readiness.watch(socket.stream(), false);
            // A full socket is tried again after its pause: readiness of others must not end that pause early.
            if self.ports.has_to_write(index, now) {
                let at = socket.full_until().unwrap_or(now);
                until = Some(until.map_or(at, |until| until.min(at)));
            }
        }
        until
    }

    fn next_due(&self, now: Instant) -> Option<Instant> {
        let check = self.ports.is_dialing().then(|| now + DIAL_CHECK);
        self.ports.next_due(now).into_iter().chain(check).min()
    }

    fn write(&mut self, index: usize, now: Instant) -> usize {
        let mut moved = 0;
        for _ in 0..CALLS_PER_PORT {
            let Some(socket) = &mut self.sockets[index] else { return moved };
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let filled = self.ports.to_write(index, now, &mut slices);
            if filled == 0 {
                return moved;
            }
            match socket.write(&slices[..filled], now) {
                Ok(taken) => {
                    moved += usize::from(taken.is_some_and(|bytes| self.ports.wrote(index, bytes, now)));
                    if socket.full_until().is_some() {
                        return moved;
                    }
                }
                Err(error) => {
                    let error = ClientError::io(self.ports.address(index), "writing to", &error);
                    self.lost(index, &error, now);
                    return moved + 1;
                }
            }
        }
        moved
    }

    /// Gives how many things moved, and whether any byte was heard.
    fn read(&mut self, index: usize, now: Instant) -> (usize, bool) {
        let (mut moved, mut is_heard) = (0, false);
        for _ in 0..CALLS_PER_PORT {
            let Some(socket) = &mut self.sockets[index] else { break };
            match socket.receive() {
                Ok(Received::Nothing) => break,
                Ok(Received::Bytes { more }) => {
                    is_heard = true;
                    moved += self.decode(index, now);
                    if !more {
                        break;
                    }
                }
                Err(error) => {
                    let error = ClientError::io(self.ports.address(index), "reading from", &error);
                    self.lost(index, &error, now);
                    moved += 1;
                    break;
                }
            }
        }
        (moved, is_heard)
    }

    /// Takes every whole frame that was received. Returns how many.
    fn decode(&mut self, index: usize, now: Instant) -> usize {
        let mut frames = 0;
        while let Some(socket) = &mut self.sockets[index] {
            match socket.next_frame() {
                Ok(None) => break,
                Ok(Some(heard)) => self.ports.on_heard(index, &heard, now),
                Err(error) => self.ports.on_lost(index, &ClientError::wire(self.ports.address(index), error), now),
            }
            self.obey();
            frames += 1;
        }
        frames
    }

    fn report_acked(&mut self) {
        while let Some(acked) = self.ports.pop_acked() {
            self.messages_acked += u64::from(acked.messages);
            self.bytes_acked += acked.bytes;
            if let Some(on_acked) = &mut self.on_acked {
                on_acked(acked);
            }
        }
    }

    /// Says goodbye on every live connection, to all before any answer is waited for, and lets the kernel send what it still has,
    /// until `deadline`. The publisher is not driven any more.
    pub fn goodbye(&mut self, deadline: Instant) {
        let mut leaving = Vec::new();
        for (index, socket) in self.sockets.iter_mut().enumerate() {
            if let Some(leaves) = socket.take().and_then(|it| it.goodbye(self.ports.rest_of_frame(index), deadline)) {
                leaving.push(leaves);
            }
        }
        leaving.into_iter().for_each(|leaves| leaves.wait(deadline));
    }

    /// Takes a sealed batch; the window must not be full.
    pub fn push(&mut self, batch: SealedBatch) {
        self.was_idle = self.ports.window().is_idle();
        self.ports.push(batch);
    }

    /// A buffer that came free.
    pub fn pop_buffer(&mut self) -> Option<Buffer> {
        self.ports.pop_buffer()
    }

    pub fn window(&self) -> &Window {
        self.ports.window()
    }

    pub fn window_batches(&self) -> usize {
        self.ports.window_batches()
    }

    pub fn shape(&self) -> Shape {
        self.ports.shape()
    }

    pub fn order_level(&self) -> OrderLevel {
        self.ports.order_level()
    }

    pub fn on_acked(&mut self, callback: OnAcked) {
        self.on_acked = Some(callback);
    }

    pub fn acked(&self) -> (u64, u64) {
        (self.messages_acked, self.bytes_acked)
    }

    /// The error to give up with if no connection has been live for the connect timeout.
    pub fn cut_off(&self) -> Option<ClientError> {
        self.ports.cut_off(Instant::now())
    }

    /// Every connection that is not up, and why.
    pub fn unreachable(&self) -> Attempts {
        self.ports.unreachable()
    }

    pub fn brokers(&self) -> &[BrokerProgress] {
        self.ports.brokers()
    }

    pub fn progress_line(&self, total: u64) -> String {
        progress::line(self.ports.brokers(), self.messages_acked, total)
    }

    pub fn stats(&self) -> PublisherStats {
        self.ports.stats()
    }
}
