//! Reading a long topic to a given order, and the process that does so until it is killed.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use embarcadero::{ClientError, Order, Start, Subscriber, SubscriberOptions};
use tools_common::clients::place;
use verification::ledger::Ledger;
use verification::payload::Payloads;
use verification::verdict::Outcome;

use super::position::{CURSOR_TIMEOUT, load_ledger, open_cursor, store_ledger};
use crate::args::ResumeReaderArgs;
use crate::error::LoadError;

/// Longest time in the client before looking at the flags again.
const POLL: Duration = Duration::from_millis(50);

/// What a reader is to read.
pub struct Reading<'a> {
    /// What messages contain.
    pub payloads: &'a Payloads,
    /// Order just past the last message.
    pub end: u64,
    /// Longest time without a message.
    pub idle_timeout: Duration,
    /// SIGINT or SIGTERM came.
    pub interrupted: &'a AtomicBool,
}

impl Reading<'_> {
    /// Reads until the end, and calls `polled` after every poll, and `handed` inside of it, after every batch.
    pub fn run(
        &self,
        subscriber: &mut Subscriber,
        ledger: &mut Ledger,
        handed: &mut dyn FnMut(&Ledger),
        polled: &mut dyn FnMut(&Ledger) -> Result<(), String>,
    ) -> Result<(), String> {
        let (resumed, mut moved) = (ledger.next, Instant::now());
        while ledger.next < self.end && !self.interrupted.load(Ordering::Relaxed) {
            let batches = subscriber.poll(POLL, |delivered| {
                let messages = delivered.messages().map(|(order, message)| (order.0, message.payload));
                ledger.batch(&place(delivered), resumed, self.payloads, messages);
                handed(ledger);
            });
            if batches.map_err(|error| error.to_string())? > 0 {
                moved = Instant::now();
                polled(ledger)?;
            } else if moved.elapsed() > self.idle_timeout {
                let (seconds, next) = (self.idle_timeout.as_secs(), ledger.next);
                return Err(format!("nothing delivered for {seconds} s; waiting for order {next}"));
            }
        }
        Ok(())
    }
}

/// What the process that will be killed says when it is where it was told to wait for that.
pub const HOLDING: &str = "holding";

/// `loadgen resume-reader`: goes on where its last life was killed. Told to hold, it waits to be killed: in the middle of a poll,
/// when nothing of that poll is written down; or, with `--hold-before-commit`, when it is and the cursor does not say so yet.
pub fn read(args: &ResumeReaderArgs, interrupted: &Arc<AtomicBool>) -> Result<Outcome, LoadError> {
    let output = |source| LoadError::Output { path: args.folder.clone(), source };
    let describe = |error: ClientError| LoadError::Connect(format!("the resuming reader: {error}"));
    let mut cursor = open_cursor(&args.brokers, &args.topic).map_err(describe)?;
    let options = SubscriberOptions {
        brokers: args.brokers.clone(),
        topic: args.topic.clone(),
        start: cursor.start(Start::Earliest),
        ..SubscriberOptions::default()
    };
    let known = load_ledger(&args.folder).map_err(output)?;
    let mut subscriber = Subscriber::connect(options).map_err(describe)?;
    // A topic that was trimmed begins later: the parent says so.
    let mut ledger = known.unwrap_or_else(|| Ledger::new(subscriber.next_order().0, args.hash_from));
    let payloads = Payloads::new(args.message_size as usize);
    let reading = Reading { payloads: &payloads, end: args.end, idle_timeout: args.idle_timeout, interrupted };
    let held = |ledger: &Ledger| args.hold_at.is_some_and(|order| ledger.next >= order);
    let mut handed = |ledger: &Ledger| {
        if held(ledger) && !args.hold_before_commit {
            hold();
        }
    };
    let mut polled = |ledger: &Ledger| {
        let failed = |error: std::io::Error| format!("writing to {}: {error}", args.folder.display());
        store_ledger(&args.folder, ledger).map_err(failed)?;
        if held(ledger) {
            hold();
        }
        cursor.commit(Order(ledger.next), CURSOR_TIMEOUT).map_err(|error| format!("committing the cursor: {error}"))
    };
    reading
        .run(&mut subscriber, &mut ledger, &mut handed, &mut polled)
        .map_err(|reason| LoadError::Connect(format!("the resuming reader: {reason}")))?;
    Ok(if interrupted.load(Ordering::Relaxed) { Outcome::Interrupted } else { Outcome::Pass })
}

/// Says so, and waits until it is killed, or its parent is gone.
fn hold() {
    println!("{HOLDING}");
    let _ = std::io::stdin().lock().read_to_end(&mut Vec::new());
    std::process::exit(1);
}
