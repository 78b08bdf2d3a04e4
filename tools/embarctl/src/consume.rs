//! `embarctl consume`: prints topics' messages in order.

use std::io::{self, BufWriter, StdoutLock, Write};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::Args;
use embarcadero::config::units::parse_duration;
use embarcadero::log::View;
use embarcadero::log::topics::TopicReader;
use embarcadero::pool::{Mapped, Pool, Software};
use embarcadero::wire::Refusal;
use embarcadero::{
    ClientError, Cursor, Delivered, Event, Order, SlowReaderPolicy, Start, Subscriber, SubscriberOptions,
};
use tools_common::arguments::slow_reader;
use tools_common::clients;

use crate::common::{AttachArgs, ConnectArgs, admin};
use crate::error::CommandError;
use crate::format::{Fields, Format};
use crate::{Ended, Interrupt};

/// Longest time in the client before looking at the flag and the clock.
const POLL: Duration = Duration::from_millis(50);
/// How often a cursor is committed while messages keep coming.
const COMMIT_EVERY: Duration = Duration::from_secs(1);
/// Output buffered while messages keep coming.
const BUFFER_BYTES: usize = 256 << 10;

/// Times without a unit that are earlier are meant as something else, ns since 1970.
const NS_MIN: u64 = 100_000_000_000_000_000;

/// `embarctl consume`.
#[derive(Debug, Args)]
pub struct ConsumeArgs {
    /// Topic to read; repeat it to read several in their one total order.
    #[arg(long = "topic", required = true, value_name = "TOPIC")]
    topics: Vec<String>,
    /// Where to begin: earliest, latest, a message's order, or what brokers received from a time on: -10m (so long ago),
    /// @1700000000s (since 1970, UTC), @1700000000123456789 (ns, as %t prints).
    #[arg(long, default_value = "earliest", value_parser = start, allow_hyphen_values = true, value_name = "earliest|latest|ORDER|-TIME|@TIME")]
    from: Start,
    /// Resume where this named cursor of the topic was committed, and commit it as output is written, at least each second; at
    /// --from if there is none yet. What was printed just before a crash may be printed again.
    #[arg(long, value_name = "NAME", conflicts_with = "attach")]
    cursor: Option<String>,
    /// What becomes of this reader if it keeps memory that publishers need: wait (for it, up to SIZE behind), skip (it goes on
    /// further on, and says so on standard error) or disconnect (it ends) [default: as the brokers are configured].
    #[arg(long, value_parser = slow_reader, conflicts_with = "attach", value_name = "wait|wait:SIZE|skip|disconnect")]
    slow_reader: Option<SlowReaderPolicy>,
    /// Go on when everything there is has been printed.
    #[arg(long)]
    follow: bool,
    /// Stop after this many messages.
    #[arg(long)]
    count: Option<u64>,
    /// How to print a message: %T topic, %o order, %S session, %b batch, %t time of receipt (UTC ns), %s payload, %l its
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
        time if time.starts_with('@') => since_1970(&time[1..]).map(Start::Timestamp),
        count if count.starts_with('-') && count[1..].parse::<u64>().is_ok() => Err(format!(
            "{count:?} has no unit: for what was received in a time up to now write it with one, such as {count}m; there is no \
             start by a number of messages from the end (`topic describe` tells the next order)"
        )),
        time if time.starts_with('-') => {
            let ago = parse_duration(&time[1..]).map_err(|error| format!("{text:?}: {error}"))?;
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            Ok(Start::Timestamp(now.saturating_sub(ago).as_nanos() as u64))
        }
        order => {
            let wrong = |_| format!("{text:?} is none of earliest, latest, an order, -TIME like -10m, @TIME");
            order.parse().map(|order| Start::Order(Order(order))).map_err(wrong)
        }
    }
}

/// UTC ns, of ns, or of a time with its unit.
fn since_1970(text: &str) -> Result<u64, String> {
    let Ok(ns) = text.parse::<u64>() else {
        let time = parse_duration(text).map_err(|error| format!("@{text}: {error}"))?;
        return u64::try_from(time.as_nanos()).map_err(|_| format!("@{text} is after 2554"));
    };
    if (1..NS_MIN).contains(&ns) {
        return Err(format!("@{text} is in ns, and before 1973; for seconds write @{text}s"));
    }
    Ok(ns)
}

/// Does it. A reader of our output that goes away ends it quietly.
pub fn run(args: &ConsumeArgs, interrupt: &Interrupt) -> Result<Ended, CommandError> {
    if args.topics.len() > 1 && args.cursor.is_some() {
        return Err(CommandError::Usage("--cursor is of one topic; read each --topic with a cursor by itself"));
    }
    if args.topics.len() > 1 && args.attach.attach.is_some() {
        return Err(CommandError::Usage("--attach reads one --topic; leave --attach out to read several"));
    }
    let failed = CommandError::client(format!("read {}", args.names()));
    let open = |name: &String| Cursor::open(&args.connect.brokers, &args.topics[0], name, args.connect.timeout());
    let opened = args.cursor.as_ref().map(open).transpose();
    let (cursor, mut subscriber) = opened.and_then(|cursor| subscriber(args, cursor)).map_err(failed)?;
    say_what_is_missing(args, cursor.as_ref(), &subscriber)?;
    let out = BufWriter::with_capacity(BUFFER_BYTES, io::stdout().lock());
    let left = args.count.unwrap_or(u64::MAX);
    let mut printer = Printer { format: &args.format, left, next_order: None, cursor, committed: Instant::now(), out };
    match read(args, interrupt, &mut subscriber, &mut printer) {
        Err(CommandError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            // What is still buffered has no reader; dropping the writer must not try again.
            let _ = printer.out.into_parts();
            Ok(Ended::Done)
        }
        ended => ended,
    }
}

/// Where a topic's beginning is not kept any more, that is said; an order that lies beyond the end is an error, unless it is to be waited
/// for.
fn say_what_is_missing(args: &ConsumeArgs, cursor: Option<&Cursor>, reader: &Subscriber) -> Result<(), CommandError> {
    for (place, name) in args.topics.iter().enumerate() {
        let trimmed = reader.trimmed_before_start(place);
        if trimmed > 0 {
            eprintln!("{name}: begins at order {trimmed}; the {trimmed} messages before it are not kept any more");
        }
        let Start::Order(from) = cursor.map_or(args.from, |cursor| cursor.start(args.from)) else { continue };
        let next_order = next_order(args, name)?;
        if from > next_order && !args.follow {
            return Err(CommandError::BeyondTheEnd { topic: name.clone(), from: from.0, next_order });
        }
    }
    Ok(())
}

/// Order of a topic's next message, as the brokers or the pool say.
fn next_order(args: &ConsumeArgs, name: &str) -> Result<u64, CommandError> {
    let Some(path) = &args.attach.attach else {
        let failed = CommandError::client(format!("read {}", args.names()));
        let topic = admin(&args.connect).and_then(|mut all| all.topic(name, args.connect.timeout())).map_err(failed)?;
        return Ok(topic.next_order.0);
    };
    let pool = Pool::look(path)?;
    let memory = Mapped::<Software>::new(Arc::clone(pool.mapping()));
    let view = View::of_onlooker(memory, Arc::clone(pool.layout()), pool.superblock().homes());
    let mut topics = TopicReader::new(&view);
    topics.refresh();
    let id = topics.known().iter().find(|topic| topic.name == name).map(|topic| topic.id);
    // One that is not there is told of by the reader itself.
    Ok(id.and_then(|id| topics.progress(id)).map_or(u64::MAX, |progress| progress.next_order))
}

/// Over TCP, or attached. From where the cursor stands, if there is one; it comes back.
fn subscriber(args: &ConsumeArgs, cursor: Option<Cursor>) -> Result<(Option<Cursor>, Subscriber), ClientError> {
    let options = SubscriberOptions {
        brokers: args.connect.brokers.clone(),
        topic: args.topics[0].clone(),
        start: cursor.as_ref().map_or(args.from, |cursor| cursor.start(args.from)),
        more_topics: args.topics[1..].iter().map(|name| (name.clone(), args.from)).collect(),
        slow_reader: args.slow_reader.unwrap_or_default(),
        connect_timeout: args.connect.timeout(),
        ..SubscriberOptions::default()
    };
    Ok((cursor, clients::subscriber(options, args.attach.pool().as_ref())?))
}

impl ConsumeArgs {
    /// The topics, for messages.
    fn names(&self) -> String {
        let names: Vec<String> = self.topics.iter().map(|name| format!("{name:?}")).collect();
        names.join(", ")
    }
}

/// Why reading ended.
fn ended(args: &ConsumeArgs, source: ClientError) -> CommandError {
    match source.refusal() {
        Some(Refusal::TopicDeleted) => CommandError::Deleted { topics: args.names(), source },
        _ => CommandError::client(format!("read {}", args.names()))(source),
    }
}

fn read(
    args: &ConsumeArgs,
    interrupt: &Interrupt,
    subscriber: &mut Subscriber,
    printer: &mut Printer<'_>,
) -> Result<Ended, CommandError> {
    let mut moved = Instant::now();
    while printer.left > 0 {
        let mut printed = Ok(());
        let mut take = |event: Event<'_>| match event {
            Event::Batch(delivered) if printed.is_ok() => printed = printer.batch(&delivered),
            Event::Batch(_) => {}
            Event::Skipped { topic, from, next_order, .. } => {
                let count = next_order.0.saturating_sub(from.0);
                eprintln!("{topic}: {count} messages from order {from} on were skipped: this reader was too slow");
            }
        };
        let batches = match subscriber.poll_events(POLL, &mut take) {
            Ok(batches) => batches,
            Err(error) => {
                printed.map_err(CommandError::Output)?;
                printer.settle(args)?;
                return Err(ended(args, error));
            }
        };
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
            let waiting_for = format!("waiting for order {} of {:?}", subscriber.next_order(), args.topics[0]);
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
            let failed = CommandError::client(format!("commit the cursor of {:?}", args.topics[0]));
            cursor.commit(Order(order), args.connect.timeout()).map_err(failed)?;
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
                topic: delivered.topic,
                order: order.0,
                session: delivered.session.0,
                batch_seq: delivered.batch_seq.0,
                received_at: delivered.received_at,
                payload: message.payload,
            };
            self.format.write(&mut self.out, &fields)?;
            self.next_order = Some(order.0 + 1);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_are_orders_words_and_times() {
        assert_eq!(start("latest"), Ok(Start::Latest));
        assert_eq!(start("17"), Ok(Start::Order(Order(17))));
        assert_eq!(start("@1700000000s"), Ok(Start::Timestamp(1_700_000_000_000_000_000)));
        assert_eq!(start("@1700000000123456789"), Ok(Start::Timestamp(1_700_000_000_123_456_789)));
        let Ok(Start::Timestamp(ago)) = start("-10m") else { panic!("a time") };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
        let minutes = (now - ago) as f64 / 60e9;
        assert!((10.0..10.5).contains(&minutes), "{minutes}");
        for bad in ["", "-", "-10", "@", "@1700000000", "@yesterday", "first"] {
            assert!(start(bad).is_err(), "{bad:?}");
        }
    }
}
