//! The log of a process: formatted where something happens, written by a thread of its own.
//!
//! Whoever logs puts a line into a bounded queue and goes on: a stderr that nobody reads stops no role. What finds no room is
//! dropped and counted, and the count is written as soon as there is room again. At the end what is queued is written,
//! unless that takes too long.

use std::io::{self, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::Thread;
use std::time::{Duration, Instant};

use crossbeam_queue::ArrayQueue;
use log::LevelFilter;

use crate::config::LogFormat;

/// Most lines that wait to be written.
const LINES_MAX: usize = 4096;
/// Longest line, bytes; a longer one is cut.
const LINE_BYTES_MAX: usize = 8192;
/// How long the writer sleeps unless it is woken: a wake-up that was missed costs no more.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Lines on their way to a sink.
struct Lines {
    queue: ArrayQueue<Box<[u8]>>,
    /// Lines that found no room since it was last said.
    dropped: AtomicU64,
    /// Lines pushed, and lines that were written or given up.
    pushed: AtomicU64,
    written: AtomicU64,
    /// Nobody can be told any more.
    broken: AtomicBool,
    writer: OnceLock<Thread>,
}

impl Lines {
    fn new(lines_max: usize) -> Lines {
        Lines {
            queue: ArrayQueue::new(lines_max),
            dropped: AtomicU64::new(0),
            pushed: AtomicU64::new(0),
            written: AtomicU64::new(0),
            broken: AtomicBool::new(false),
            writer: OnceLock::new(),
        }
    }

    /// Never waits.
    fn push(&self, line: &[u8]) {
        let line = match line.len() {
            0..=LINE_BYTES_MAX => line.into(),
            _ => [&line[..LINE_BYTES_MAX - 5], b" ...\n"].concat().into_boxed_slice(),
        };
        self.pushed.fetch_add(1, Ordering::AcqRel);
        if self.queue.push(line).is_err() {
            self.written.fetch_add(1, Ordering::AcqRel);
            self.dropped.fetch_add(1, Ordering::AcqRel);
        }
        if let Some(writer) = self.writer.get() {
            writer.unpark();
        }
    }

    /// Writes what there is. The first failure ends it for good: a closed stderr takes nothing any more.
    fn write(&self, sink: &mut impl Write) {
        while let Some(line) = self.queue.pop() {
            // Said before what came after.
            let dropped = self.dropped.swap(0, Ordering::AcqRel);
            let result = match dropped {
                0 => Ok(()),
                _ => writeln!(sink, "({dropped} log lines were dropped: nobody read this log fast enough)"),
            };
            if result.and_then(|()| sink.write_all(&line)).is_err() {
                self.broken.store(true, Ordering::Release);
            }
            self.written.fetch_add(1, Ordering::AcqRel);
        }
    }

    fn is_written(&self) -> bool {
        self.broken.load(Ordering::Acquire)
            || self.written.load(Ordering::Acquire) >= self.pushed.load(Ordering::Acquire)
    }
}

static LINES: OnceLock<Lines> = OnceLock::new();

/// Where env_logger puts what it has formatted: one call for each line.
struct Queue(&'static Lines);

impl Write for Queue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Who takes a note of what is logged. It must not wait.
pub type Note = fn(&log::Record<'_>);

/// Lets somebody take a note of what is logged, for those who look at the process from outside.
struct Noted(env_logger::Logger, Note);

impl log::Log for Noted {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        self.0.enabled(metadata)
    }

    fn log(&self, record: &log::Record<'_>) {
        (self.1)(record);
        self.0.log(record);
    }

    fn flush(&self) {
        self.0.flush();
    }
}

/// A line for programs.
fn as_json(out: &mut env_logger::fmt::Formatter, record: &log::Record<'_>) -> io::Result<()> {
    let line = serde_json::json!({
        "time": out.timestamp_micros().to_string(),
        "level": record.level().as_str(),
        "target": record.target(),
        "message": record.args().to_string(),
    });
    writeln!(out, "{line}")
}

/// Starts the log of this process, on stderr. Panics are logged too: a role that breaks an invariant does not wait to say so.
///
/// # Errors
/// The thread cannot be had. The log is then written where it arises.
pub fn start(level: LevelFilter, format: LogFormat, note: Note) -> io::Result<()> {
    let lines = LINES.get_or_init(|| Lines::new(LINES_MAX));
    let mut builder = env_logger::Builder::new();
    // The level may change while the process runs: what is less severe is stopped before it comes here.
    builder.filter_level(LevelFilter::Trace).format_timestamp_micros();
    if format == LogFormat::Json {
        builder.format(as_json);
    }
    let started = std::thread::Builder::new().name("log".into()).spawn(move || {
        loop {
            lines.write(&mut io::stderr());
            std::thread::park_timeout(LOOK_EVERY);
        }
    });
    let result = started.map(|handle| drop(lines.writer.set(handle.thread().clone())));
    if result.is_ok() {
        builder.target(env_logger::Target::Pipe(Box::new(Queue(lines))));
        std::panic::set_hook(Box::new(|panic| {
            let thread = std::thread::current();
            log::error!("thread {}: {panic}", thread.name().unwrap_or("without a name"));
        }));
    }
    let logger = Noted(builder.build(), note);
    // Whoever has begun a log of its own in this process keeps it.
    if log::set_boxed_logger(Box::new(logger)).is_ok() {
        log::set_max_level(level);
    }
    result
}

/// A line for people on stderr, behind what was logged before; without the log's thread, at once.
pub fn say(text: &str) {
    let line = format!("{text}\n");
    match LINES.get().filter(|lines| lines.writer.get().is_some()) {
        Some(lines) => lines.push(line.as_bytes()),
        None => drop(io::stderr().write_all(line.as_bytes())),
    }
}

/// Waits until everything logged so far is written, but not longer than `longest`.
pub fn flush(longest: Duration) {
    let Some(lines) = LINES.get().filter(|lines| lines.writer.get().is_some()) else { return };
    let deadline = Instant::now() + longest;
    while !lines.is_written() && Instant::now() < deadline {
        if let Some(writer) = lines.writer.get() {
            writer.unpark();
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sink_that_takes_nothing_stops_nobody_and_what_was_lost_is_said() {
        let lines = Lines::new(4);
        for number in 0..10 {
            lines.push(format!("line {number}\n").as_bytes());
        }
        assert!(!lines.is_written());
        let mut sink = Vec::new();
        lines.write(&mut sink);
        let text = String::from_utf8(sink).unwrap();
        assert!(text.starts_with("(6 log lines were dropped"), "{text}");
        assert!(text.ends_with("line 0\nline 1\nline 2\nline 3\n") && lines.is_written(), "{text}");
        let mut sink = Vec::new();
        lines.push(b"later\n");
        lines.write(&mut sink);
        assert_eq!(sink, b"later\n", "it is said once");
    }

    #[test]
    fn a_line_is_bounded_and_a_closed_sink_is_not_waited_for() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let lines = Lines::new(4);
        lines.push(&[b'x'; 3 * LINE_BYTES_MAX]);
        let mut sink = Vec::new();
        lines.write(&mut sink);
        assert!(sink.len() == LINE_BYTES_MAX && sink.ends_with(b" ...\n"));
        lines.push(b"into nothing\n");
        lines.write(&mut Closed);
        lines.push(b"more\n");
        assert!(lines.is_written());
    }
}
