//! A publisher with its own I/O thread.
//!
//! The application's thread fills and seals batches; sealed ones cross a bounded queue to the I/O thread, buffers come
//! back through another. The open batch is behind a mutex, because the I/O thread must be able to seal it when the
//! application has gone quiet; it only ever tries the lock, when a batch has lingered, so a sender hardly meets it.
//!
//! Invariants:
//! 1. There are `window + QUEUED_MAX + 1` buffers: in the window, on the way to it, and one being filled. So whoever
//!    holds a spare buffer finds room in `sealed`, and a buffer that comes back finds room in `spare`.
//! 2. The I/O thread announces sleep (`asleep`), looks at the queue and the open batch once more, and only then sleeps; who
//!    seals or opens a batch looks at `asleep` afterwards. Both are sequentially consistent, so one of the two sees the other.

use std::fmt;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_queue::ArrayQueue;

use crate::client::batch::{Buffer, Filler, SealedBatch};
use crate::client::deadline;
use crate::client::engine::Engine;
use crate::client::error::{Attempts, ClientError};
use crate::client::numbers::SessionId;
use crate::client::options::PublisherOptions;
use crate::client::progress::{self, BrokerProgress, PublisherStats};
use crate::client::publisher::Publisher;
use crate::wire::OrderLevel;

/// Most sealed batches on the way to the I/O thread.
const QUEUED_MAX: usize = 8;
/// Longest sleep of either side; each is woken earlier when there is something to do.
const SLEEP_MAX: Duration = Duration::from_millis(50);
/// Why a thread is not there any more that did not end by itself.
const PANICKED: &str = "it panicked, see its message; was it in the on_acked callback?";

/// What the I/O thread tells, replaced after every pass that moved something.
#[derive(Default)]
struct Report {
    session: u64,
    messages_acked: u64,
    bytes_acked: u64,
    in_flight: usize,
    brokers: Vec<BrokerProgress>,
    stats: PublisherStats,
    /// No connection is live for the connect timeout.
    cut_off: Option<ClientError>,
    unreachable: Option<Attempts>,
    /// The thread has ended with this.
    failed: Option<ClientError>,
}

struct Shared {
    filler: Mutex<Filler>,
    sealed: ArrayQueue<SealedBatch>,
    spare: ArrayQueue<Buffer>,
    report: Mutex<Report>,
    /// Signalled with every new report.
    reported: Condvar,
    asleep: AtomicBool,
    stop: AtomicBool,
    doorbell: UnixStream,
}

/// A panic of the other side is no reason to lose what can still be sent: the data behind these locks is whole between
/// any two statements.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// Wakes the I/O thread if it sleeps (invariant 2).
    fn ring(&self) {
        if self.asleep.swap(false, Ordering::SeqCst) {
            // A full pipe means that it is being woken already.
            let _ = (&self.doorbell).write(&[1]);
        }
    }

    /// Seals the open batch if it has a message and a buffer is spare. Returns whether it is empty now.
    fn seal_open(&self, filler: &mut Filler) -> bool {
        if filler.is_empty() {
            return true;
        }
        let Some(fresh) = self.spare.pop() else { return false };
        let Ok(batch) = filler.seal(fresh) else { unreachable!("not empty") };
        assert!(self.sealed.push(batch).is_ok(), "invariant 1");
        true
    }
}

/// Publishes messages to one topic over its own I/O thread. Use it from one thread, or share it by reference.
///
/// As [`Publisher`] over TCP, but [`send`](BackgroundPublisher::send) only copies, and acks, resends, linger and reconnects go
/// on while the application does other things. Dropping it without [`close`](BackgroundPublisher::close) stops the
/// thread and abandons what is not acked.
///
/// Order of calls: [`connect`](Self::connect), or [`start`](Self::start) with a publisher; then [`send`](Self::send); `flush` as often as
/// everything is to be acked; `close`. `send` waits while every buffer is in flight, `flush` and `close` up to their timeout, nothing else
/// waits.
pub struct BackgroundPublisher {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Engine>>,
    order_level: OrderLevel,
    payload_bytes_max: u64,
}

impl BackgroundPublisher {
    /// Connects as [`Publisher::connect`] and starts the thread.
    ///
    /// # Errors
    /// As there; [`ClientError::Stopped`] if there can be no thread.
    pub fn connect(options: PublisherOptions) -> Result<BackgroundPublisher, ClientError> {
        BackgroundPublisher::start(Publisher::connect(options)?)
    }

    /// Gives a publisher over TCP (with its callback, if one was set: it is called on the I/O thread) a thread.
    ///
    /// # Errors
    /// [`ClientError::Option`] if the publisher is attached; [`ClientError::Stopped`] if there can be no thread.
    pub fn start(publisher: Publisher) -> Result<BackgroundPublisher, ClientError> {
        let order_level = publisher.order_level();
        let payload_bytes_max = publisher.batch_message_bytes_max();
        let (engine, filler, buffers, linger) = publisher.into_tcp()?.into_parts();
        let stopped = |error: std::io::Error| ClientError::Stopped { text: error.to_string() };
        let (doorbell, bell) = UnixStream::pair().map_err(stopped)?;
        doorbell.set_nonblocking(true).map_err(stopped)?;
        bell.set_nonblocking(true).map_err(stopped)?;
        let spare = ArrayQueue::new(engine.window_batches() + QUEUED_MAX + 1);
        for buffer in buffers.into_iter().chain((0..QUEUED_MAX).map(|_| Buffer::new())) {
            assert!(spare.push(buffer).is_ok(), "invariant 1");
        }
        let shared = Arc::new(Shared {
            filler: Mutex::new(filler),
            // The engine may hold nothing while all spare buffers are sealed and queued.
            sealed: ArrayQueue::new(engine.window_batches() + QUEUED_MAX + 1),
            spare,
            report: Mutex::new(report(&engine)),
            reported: Condvar::new(),
            asleep: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            doorbell,
        });
        let io = IoThread { engine, shared: shared.clone(), bell, linger };
        let builder = thread::Builder::new().name("embarcadero-pub".to_owned());
        let thread = Some(builder.spawn(move || io.run()).map_err(stopped)?);
        Ok(BackgroundPublisher { shared, thread, order_level, payload_bytes_max })
    }

    /// Copies a message into the open batch, waiting for a buffer while all are in flight.
    ///
    /// # Errors
    /// [`ClientError::PayloadTooLarge`]; [`ClientError::Unreachable`] if it would have to wait and no broker
    /// was reached for the connect timeout; what ended the I/O thread. After an error the message was not taken.
    pub fn send(&self, payload: &[u8]) -> Result<(), ClientError> {
        while !self.try_send(payload)? {
            let report = lock(&self.shared.report);
            if let Some(error) = report.failed.as_ref().or(report.cut_off.as_ref()) {
                return Err(error.clone());
            }
            if self.shared.spare.is_empty() {
                let _ = self.shared.reported.wait_timeout(report, SLEEP_MAX);
            }
        }
        Ok(())
    }

    /// Copies a message if there is room now; false if every buffer is in flight, with no effect.
    ///
    /// # Errors
    /// [`ClientError::PayloadTooLarge`].
    pub fn try_send(&self, payload: &[u8]) -> Result<bool, ClientError> {
        let (payload_bytes, max) = (payload.len() as u64, self.payload_bytes_max);
        if payload_bytes > max {
            return Err(ClientError::PayloadTooLarge { payload_bytes, max });
        }
        let mut filler = lock(&self.shared.filler);
        if !filler.fits(payload.len()) && !self.shared.seal_open(&mut filler) {
            return Ok(false);
        }
        let first = filler.is_empty();
        filler.push(payload);
        let full = !filler.fits(payload.len()) && self.shared.seal_open(&mut filler);
        drop(filler);
        // The first message of a batch sets the time by which it must be sealed.
        if first || full {
            self.shared.ring();
        }
        Ok(true)
    }

    /// Seals the open batch now, or, if every buffer is in flight, when it has lingered.
    pub fn seal(&self) {
        self.shared.seal_open(&mut lock(&self.shared.filler));
        self.shared.ring();
    }

    /// Waits until every message sent before the call is acked.
    ///
    /// # Errors
    /// [`ClientError::AckTimeout`] after `timeout`, or what ended the I/O thread.
    pub fn flush(&self, timeout: Duration) -> Result<(), ClientError> {
        self.flush_until(deadline::within(timeout))
    }

    fn flush_until(&self, deadline: Instant) -> Result<(), ClientError> {
        let sent = self.messages_sent();
        loop {
            self.seal();
            let report = lock(&self.shared.report);
            if report.messages_acked >= sent {
                return Ok(());
            }
            if let Some(error) = &report.failed {
                return Err(error.clone());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ClientError::AckTimeout {
                    in_flight: report.in_flight + self.shared.sealed.len(),
                    progress: progress::line(&report.brokers, report.messages_acked, sent),
                    unreachable: report.unreachable.clone().unwrap_or(Attempts(Vec::new())),
                });
            }
            let _ = self.shared.reported.wait_timeout(report, left.min(SLEEP_MAX));
        }
    }

    /// Flushes, says goodbye and ends the thread, all within `timeout`.
    ///
    /// # Errors
    /// As [`flush`](Self::flush).
    pub fn close(mut self, timeout: Duration) -> Result<(), ClientError> {
        let deadline = deadline::within(timeout);
        self.flush_until(deadline)?;
        match self.stop() {
            Some(mut engine) => {
                engine.goodbye(deadline);
                Ok(())
            }
            None => Err(ClientError::Stopped { text: PANICKED.to_owned() }),
        }
    }

    fn stop(&mut self) -> Option<Engine> {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.shared.ring();
        self.thread.take()?.join().ok()
    }

    /// Session id; below level 5 that of the first connection's own.
    #[must_use]
    pub fn session(&self) -> SessionId {
        SessionId(lock(&self.shared.report).session)
    }

    /// Order level of the topic.
    #[must_use]
    pub fn order_level(&self) -> OrderLevel {
        self.order_level
    }

    /// Largest payload that a batch of this topic can hold, bytes.
    #[must_use]
    pub fn batch_message_bytes_max(&self) -> u64 {
        self.payload_bytes_max
    }

    /// Messages taken.
    #[must_use]
    pub fn messages_sent(&self) -> u64 {
        lock(&self.shared.filler).messages_sent()
    }

    /// Messages acked (at ack level 0: written).
    #[must_use]
    pub fn messages_acked(&self) -> u64 {
        lock(&self.shared.report).messages_acked
    }

    /// Payload bytes acked, without headers and padding.
    #[must_use]
    pub fn bytes_acked(&self) -> u64 {
        lock(&self.shared.report).bytes_acked
    }

    /// Batches sealed and not acked.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        lock(&self.shared.report).in_flight + self.shared.sealed.len()
    }

    /// What went to each broker and came back, ordered by broker id.
    #[must_use]
    pub fn broker_progress(&self) -> Vec<BrokerProgress> {
        lock(&self.shared.report).brokers.clone()
    }

    /// As [`Publisher::progress_line`].
    #[must_use]
    pub fn progress_line(&self, total: u64) -> String {
        let report = lock(&self.shared.report);
        progress::line(&report.brokers, report.messages_acked, total)
    }

    /// Rare events since the publisher was opened.
    #[must_use]
    pub fn stats(&self) -> PublisherStats {
        lock(&self.shared.report).stats
    }
}

impl fmt::Debug for BackgroundPublisher {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("BackgroundPublisher")
            .field("session", &self.session())
            .field("messages_acked", &self.messages_acked())
            .field("in_flight", &self.in_flight())
            .finish_non_exhaustive()
    }
}

impl Drop for BackgroundPublisher {
    fn drop(&mut self) {
        self.stop();
    }
}

fn report(engine: &Engine) -> Report {
    let mut report = Report { brokers: engine.brokers().to_vec(), ..Report::default() };
    update(&mut report, engine);
    report
}

fn update(report: &mut Report, engine: &Engine) {
    (report.messages_acked, report.bytes_acked) = engine.acked();
    report.in_flight = engine.window().unacked();
    report.session = engine.window().identity(0).session;
    report.stats = engine.stats();
    for (told, now) in report.brokers.iter_mut().zip(engine.brokers()) {
        (told.broker, told.sent, told.acked, told.connected) = (now.broker, now.sent, now.acked, now.connected);
    }
    // Those that have come.
    report.brokers.extend_from_slice(&engine.brokers()[report.brokers.len()..]);
    report.cut_off = engine.cut_off();
    let unreachable = engine.unreachable();
    report.unreachable = (!unreachable.0.is_empty()).then_some(unreachable);
}

struct IoThread {
    engine: Engine,
    shared: Arc<Shared>,
    bell: UnixStream,
    linger: Duration,
}

/// Tells whoever waits for this thread that it has ended, if it ended by a panic (of the caller's callback, say): nobody else would.
struct LastWords(Arc<Shared>);

impl Drop for LastWords {
    fn drop(&mut self) {
        if thread::panicking() {
            lock(&self.0.report).failed = Some(ClientError::Stopped { text: PANICKED.to_owned() });
            self.0.reported.notify_all();
        }
    }
}

impl IoThread {
    fn run(mut self) -> Engine {
        let _last_words = LastWords(self.shared.clone());
        while !self.shared.stop.load(Ordering::SeqCst) {
            if let Err(error) = self.pass() {
                lock(&self.shared.report).failed = Some(error);
                break;
            }
        }
        self.shared.reported.notify_all();
        self.engine
    }

    /// One round: take sealed batches, drive, give buffers back, report; sleep if nothing moved.
    fn pass(&mut self) -> Result<(), ClientError> {
        self.seal_lingered();
        let taken = self.take_sealed();
        let moved = self.engine.drive()?;
        while let Some(buffer) = self.engine.pop_buffer() {
            assert!(self.shared.spare.push(buffer).is_ok(), "invariant 1");
        }
        if moved + taken > 0 {
            self.tell();
            return Ok(());
        }
        self.shared.asleep.store(true, Ordering::SeqCst);
        let due = self.seal_lingered();
        let work = !self.shared.sealed.is_empty() && !self.engine.window().is_full();
        if !work && !self.shared.stop.load(Ordering::SeqCst) {
            self.engine.wait(due.unwrap_or(SLEEP_MAX).min(SLEEP_MAX), Some(&self.bell))?;
        }
        if !self.shared.asleep.swap(false, Ordering::SeqCst) {
            let _ = self.bell.read(&mut [0; 64]);
        }
        if self.engine.cut_off().is_some() {
            self.tell();
        }
        Ok(())
    }

    fn tell(&self) {
        update(&mut lock(&self.shared.report), &self.engine);
        self.shared.reported.notify_all();
    }

    fn take_sealed(&mut self) -> usize {
        let mut taken = 0;
        while !self.engine.window().is_full() {
            let Some(batch) = self.shared.sealed.pop() else { break };
            self.engine.push(batch);
            taken += 1;
        }
        taken
    }

    /// Seals the open batch if it has lingered, or waits for nobody. Returns how long until it will have.
    fn seal_lingered(&mut self) -> Option<Duration> {
        // A sender that holds the lock rings when it matters.
        let Ok(mut filler) = self.shared.filler.try_lock() else { return Some(Duration::from_micros(50)) };
        let is_idle = self.engine.window().is_idle() && self.shared.sealed.is_empty();
        let left = filler.due(self.linger, is_idle)?.saturating_duration_since(Instant::now());
        if left.is_zero() {
            self.shared.seal_open(&mut filler);
            // Without a spare buffer the next returning one wakes us; do not spin until then.
            return None;
        }
        Some(left)
    }
}
