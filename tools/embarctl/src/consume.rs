//! `embarctl consume`: prints a topic's messages in order.

use std::io::{self, BufWriter, StdoutLock, Write};
use std::time::{Duration, Instant};

use clap::Args;
use embarcadero::client::{
    AttachedSubscriberOptions, ClientError, Cursor, Delivered, Start, Subscribe, Subscriber, SubscriberOptions,
};

use crate::common::{AttachArgs, ConnectArgs};
use crate::error::CommandError;
use crate::format::{Fields, Format};
use crate::{Ended, Interrupt};

/// Longest time in the client before looking at the flag and the clock.
const POLL: Duration = Duration::from_millis(50);
/// How often a cursor is committed while messages keep coming.
const COMMIT_EVERY: Duration = Duration::from_secs(1);
/// Output buffered while messages keep coming.
const BUFFER_BYTES: usize = 256 << 10;

/// `embarctl consume`.
#[derive(Debug, Args)]
pub struct ConsumeArgs {
    /// Topic to read.
    #[arg(long)]
    topic: String,
    /// Where to begin: earliest, latest, or a message's order.
    #[arg(long, default_value = "earliest", value_parser = start, value_name = "earliest|latest|ORDER")]
    from: Start,
    /// Resume where this named cursor of the topic was committed, and commit it as output is written, at least each second; at
    /// --from if there is none yet. What was printed just before a crash may be printed again.
    #[arg(long, value_name = "NAME", conflicts_with = "attach")]
    cursor: Option<String>,
    /// Go on when everything there is has been printed.
    #[arg(long)]
    follow: bool,
    /// Stop after this many messages.
    #[arg(long)]
    count: Option<u64>,
    /// How to print a message: %o order, %S session, %b batch, %t time of receipt (UTC ns), %s payload, %l its
    /// length, %% percent; \n \t \r \0 \\.
    #[arg(long, default_value = Format::DEFAULT, value_parser = Format::parse)]
    format: Format,
    #[command(flatten)]
    connect: ConnectArgs,
    #[command(flatten)]
    attach: AttachArgs,
}

fn start(text: &str) -> Result<Start, String> {
    match text {
        "earliest" => Ok(Start::Earliest),
        "latest" => Ok(Start::Latest),
        order => {
            order.parse().map(Start::Order).map_err(|_| format!("{text:?} is neither earliest, latest nor an order"))
        }
    }
}

/// Does it. A reader of our output that goes away ends it quietly.
pub fn run(args: &ConsumeArgs, interrupt: &Interrupt) -> Result<Ended, CommandError> {
    let failed = CommandError::client(format!("read {:?}", args.topic));
    let open = |name: &String| Cursor::open(&args.connect.brokers, &args.topic, name, args.connect.timeout());
    let opened = args.cursor.as_ref().map(open).transpose();
    let (cursor, mut subscriber) = opened.and_then(|cursor| subscriber(args, cursor)).map_err(failed)?;
    let out = BufWriter::with_capacity(BUFFER_BYTES, io::stdout().lock());
    let left = args.count.unwrap_or(u64::MAX);
    let mut printer = Printer { format: &args.format, left, next_order: None, cursor, committed: Instant::now(), out };
    match read(args, interrupt, &mut *subscriber, &mut printer) {
        Err(CommandError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            // What is still buffered has no reader; dropping the writer must not try again.
            let _ = printer.out.into_parts();
            Ok(Ended::Done)
        }
        ended => ended,
    }
}

/// Over TCP, or attached. From where the cursor stands, if there is one; it comes back.
fn subscriber(args: &ConsumeArgs, cursor: Option<Cursor>) -> Result<(Option<Cursor>, Box<dyn Subscribe>), ClientError> {
    let (topic, start) = (args.topic.clone(), cursor.as_ref().map_or(args.from, |cursor| cursor.start(args.from)));
    let Some(pool) = args.attach.attach.clone() else {
        let (brokers, connect_timeout) = (args.connect.brokers.clone(), args.connect.timeout());
        let options = SubscriberOptions { brokers, topic, start, connect_timeout, ..SubscriberOptions::default() };
        return Ok((cursor, Box::new(Subscriber::connect(options)?)));
    };
    let (host, coherence, wait) = (args.attach.host, args.attach.coherence, args.connect.timeout());
    let defaults = AttachedSubscriberOptions::default();
    let options = AttachedSubscriberOptions { pool, host, coherence, topic, start, wait, ..defaults };
    Ok((cursor, Box::new(Subscriber::attach(options)?)))
}

fn read(
    args: &ConsumeArgs,
    interrupt: &Interrupt,
    subscriber: &mut dyn Subscribe,
    printer: &mut Printer<'_>,
) -> Result<Ended, CommandError> {
    let mut moved = Instant::now();
    while printer.left > 0 {
        let mut printed = Ok(());
        let mut take = |delivered: &Delivered<'_>| {
            if printed.is_ok() {
                printed = printer.batch(delivered);
            }
        };
        let failed = CommandError::client(format!("read {:?}", args.topic));
        let batches = subscriber.poll(POLL, &mut take).map_err(failed)?;
        printed.map_err(CommandError::Output)?;
        // Nothing waits in the buffer while nothing comes.
        if batches == 0 || subscriber.caught_up() || printer.is_commit_due() {
            printer.settle(args)?;
        }
        if interrupt.raised() {
            return printer.settle(args).map(|()| Ended::Interrupted);
        }
        if subscriber.caught_up() && !args.follow {
            break;
        }
        if batches > 0 {
            moved = Instant::now();
        } else if !args.follow && moved.elapsed() > args.connect.timeout() {
            let waiting_for = format!("waiting for order {} of {:?}", subscriber.next_order(), args.topic);
            return Err(CommandError::Deadline { waiting_for, seconds: args.connect.timeout_seconds() });
        }
    }
    printer.settle(args)?;
    Ok(Ended::Done)
}

struct Printer<'a> {
    format: &'a Format,
    /// Messages still to print.
    left: u64,
    /// Order of the message after the last one printed.
    next_order: Option<u64>,
    cursor: Option<Cursor>,
    /// When the cursor was committed.
    committed: Instant,
    out: BufWriter<StdoutLock<'static>>,
}

impl Printer<'_> {
    fn is_commit_due(&self) -> bool {
        self.cursor.is_some() && self.committed.elapsed() > COMMIT_EVERY
    }

    /// Hands on all that was printed, then commits it.
    fn settle(&mut self, args: &ConsumeArgs) -> Result<(), CommandError> {
        self.out.flush().map_err(CommandError::Output)?;
        if let (Some(cursor), Some(order)) = (&mut self.cursor, self.next_order) {
            let failed = CommandError::client(format!("commit the cursor of {:?}", args.topic));
            cursor.commit(order, args.connect.timeout()).map_err(failed)?;
        }
        self.committed = Instant::now();
        Ok(())
    }

    fn batch(&mut self, delivered: &Delivered<'_>) -> io::Result<()> {
        for (order, message) in delivered.messages() {
            if self.left == 0 {
                return Ok(());
            }
            self.left -= 1;
            let fields = Fields {
                order,
                session: delivered.session,
                batch_seq: delivered.batch_seq,
                received_at: delivered.received_at,
                payload: message.payload,
            };
            self.format.write(&mut self.out, &fields)?;
            self.next_order = Some(order + 1);
        }
        Ok(())
    }
}
