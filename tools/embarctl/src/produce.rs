//! `embarctl produce`: each line of standard input or of a file is a message.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use clap::Args;
use embarcadero::wire::AckLevel;
use embarcadero::{ClientError, Publisher, PublisherOptions};
use tools_common::clients;

use crate::common::{AttachArgs, ConnectArgs, PropertyArgs};
use crate::error::CommandError;
use crate::lines::{Block, Input, InputError, read_ahead};
use crate::{Ended, Interrupt};

/// Longest wait for input, so that lingering batches go out and acks come in.
const INPUT_WAIT: Duration = Duration::from_millis(5);
/// Longest wait for room in the window before looking at the flag and the clock.
const POLL: Duration = Duration::from_millis(20);

/// `embarctl produce`.
#[derive(Debug, Args)]
pub struct ProduceArgs {
    /// Topic to publish to.
    #[arg(long)]
    topic: String,
    /// File to read instead of standard input.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Create the topic if there is none, with --order, --ack and --receipts.
    #[arg(long)]
    create: bool,
    #[command(flatten)]
    properties: PropertyArgs,
    #[command(flatten)]
    connect: ConnectArgs,
    #[command(flatten)]
    attach: AttachArgs,
}

/// Does it; says on standard error how many messages were acked, however it ends.
pub fn run(args: &ProduceArgs, interrupt: &Interrupt) -> Result<Ended, CommandError> {
    let (input, name) = open(args)?;
    let publisher = publisher(args).map_err(CommandError::client(format!("publish to {:?}", args.topic)))?;
    let (asked, has) = (args.properties.asked_order(), publisher.order_level());
    if let Some(asked) = asked.filter(|asked| *asked != has) {
        return Err(CommandError::OtherOrder { topic: args.topic.clone(), has, asked });
    }
    interrupt.is_looked_at();
    let line_bytes_max = publisher.batch_message_bytes_max();
    let lines = read_ahead(input, line_bytes_max);
    let mut producer = Producer { args, publisher, interrupt, name, line_bytes_max };
    let ended = producer.send_all(&lines).and_then(|()| producer.flush());
    producer.say_what_was_reached();
    ended?;
    if interrupt.raised() {
        return Ok(Ended::Interrupted);
    }
    producer.publisher.close(args.connect.timeout()).map_err(CommandError::client("close the session"))?;
    Ok(Ended::Done)
}

/// Over TCP, or attached.
fn publisher(args: &ProduceArgs) -> Result<Publisher, ClientError> {
    let options = PublisherOptions {
        brokers: args.connect.brokers.clone(),
        topic: args.topic.clone(),
        create: args.create.then(|| args.properties.properties()),
        ack: args.properties.ack,
        connect_timeout: args.connect.timeout(),
        ..PublisherOptions::default()
    };
    clients::publisher(options, args.attach.pool().as_ref())
}

fn open(args: &ProduceArgs) -> Result<(Box<dyn Read + Send>, String), CommandError> {
    let Some(path) = &args.file else {
        return Ok((Box::new(std::io::stdin()), "standard input".to_owned()));
    };
    let name = path.display().to_string();
    match File::open(path) {
        Ok(file) => Ok((Box::new(file), name)),
        Err(source) => Err(CommandError::Input { name, source }),
    }
}

struct Producer<'a> {
    args: &'a ProduceArgs,
    publisher: Publisher,
    interrupt: &'a Interrupt,
    name: String,
    line_bytes_max: u64,
}

impl Producer<'_> {
    /// Publishes until the input ends or the user interrupts.
    fn send_all(&mut self, lines: &Receiver<Input>) -> Result<(), CommandError> {
        while !self.interrupt.raised() {
            match lines.recv_timeout(INPUT_WAIT) {
                Ok(Input::Lines(block)) => self.send_block(&block)?,
                Ok(Input::End) => return Ok(()),
                Ok(Input::Failed(InputError::Io(source))) => {
                    return Err(CommandError::Input { name: self.name.clone(), source });
                }
                Ok(Input::Failed(InputError::LineTooLong(number))) => {
                    self.flush()?; // What came before that line is published, as it would be without it.
                    return Err(CommandError::LineTooLong { number, max: self.line_bytes_max });
                }
                Err(RecvTimeoutError::Timeout) => self.poll(Duration::ZERO)?,
                Err(RecvTimeoutError::Disconnected) => return Err(CommandError::Panicked(self.name.clone())),
            }
        }
        Ok(())
    }

    fn send_block(&mut self, block: &Block) -> Result<(), CommandError> {
        for line in block.lines() {
            let mut deadline = Deadline::new(self);
            while !self.publisher.try_send(line).map_err(self.failed())? {
                self.poll(POLL)?;
                if self.interrupt.raised() {
                    return Ok(());
                }
                deadline.check(self)?;
            }
        }
        self.poll(Duration::ZERO)
    }

    /// Waits until everything sent is acked.
    fn flush(&mut self) -> Result<(), CommandError> {
        let mut deadline = Deadline::new(self);
        while self.publisher.messages_acked() < self.publisher.messages_sent() && !self.interrupt.raised() {
            self.publisher.seal(); // It has no effect while the window is full.
            self.poll(POLL)?;
            deadline.check(self)?;
        }
        Ok(())
    }

    fn poll(&mut self, time: Duration) -> Result<(), CommandError> {
        self.publisher.poll(time).map_err(self.failed()).map(|_| ())
    }

    fn failed(&self) -> impl FnOnce(embarcadero::ClientError) -> CommandError + use<> {
        CommandError::client(format!("publish to {:?}", self.args.topic))
    }

    fn say_what_was_reached(&self) {
        let (sent, acked) = (self.publisher.messages_sent(), self.publisher.messages_acked());
        match self.args.properties.ack {
            AckLevel::None => eprintln!("{sent} messages sent to {:?}, no acks asked for", self.args.topic),
            _ => eprintln!("{acked} of {sent} messages acked by {:?}", self.args.topic),
        }
    }
}

/// Ends a wait in which no ack comes.
struct Deadline {
    acked: u64,
    moved: Instant,
}

impl Deadline {
    fn new(producer: &Producer<'_>) -> Deadline {
        Deadline { acked: producer.publisher.messages_acked(), moved: Instant::now() }
    }

    fn check(&mut self, producer: &mut Producer<'_>) -> Result<(), CommandError> {
        let acked = producer.publisher.messages_acked();
        if acked > self.acked {
            *self = Deadline::new(producer);
        } else if self.moved.elapsed() > producer.args.connect.timeout() {
            // The client says which broker owes what.
            producer.publisher.flush(Duration::ZERO).map_err(producer.failed())?;
        }
        Ok(())
    }
}
