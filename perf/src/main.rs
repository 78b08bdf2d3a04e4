//! `compare`: Embarcadero against the limits of the machine it runs on.
//!
//! A speed alone says little about a log and much about a machine. Everything here is measured beside its own limit, in the
//! same run, in turn, several times; what is reported is the median of the rounds' own ratios, with their spread.
//!
//! * [`args`]: what to run; [`tiny`](args::RunArgs::tiny) makes it a smoke test.
//! * [`sink`] with [`walk`], [`source`], [`echo`]: the limits. A receiver that only receives, a sender that only sends, and a TCP
//!   ping-pong.
//! * [`subject`]: the processes measured, limits and brokers alike; all but the one under test are stopped.
//! * [`publish`], [`latency`]: one run of each kind.
//! * [`cases`], [`rounds`]: who is compared with whom, in which order.
//! * [`kill`], [`gap`]: what a killed broker, and a gap of another session, do to those who go on.
//! * [`stop`], [`chaos`]: broker processes stopped, and stopped and killed at random; with [`cluster`], [`session`], [`witness`],
//!   [`verified`].
//! * [`takeover`]: how long a pool is without a sequencer.
//! * [`hostile`], [`enemies`], [`raw`]: a client beside one that does what it should not.
//! * [`need`]: many lanes in need of memory at once.
//! * [`attach`]: clients that map the pool, beside memcpy and a cache line.
//! * [`sequencer`]: the sequencer without anybody else, on the [`scene`] that it has in common with [`attach`].
//! * [`pieces`]: the pieces of the data path one by one.
//! * [`deliver`]: delivery to one subscriber, to several, and while publishing.
//! * [`all`]: every one that gives ratios.
//! * [`between`]: two builds, or two configurations, with each other.
//! * [`peers`]: other systems on the same machine.
//! * [`limit`]: as on a lesser processor.
//! * [`figures`], [`machine`], [`report`]: medians and ratios, where they were taken, in words and as JSON.
//!
//! What each side does is said in [`cases::CASES`] and printed with the figures.
#![forbid(unsafe_code)]

mod all;
mod args;
mod attach;
mod between;
mod cases;
mod chaos;
mod cluster;
mod deliver;
mod echo;
mod enemies;
mod error;
mod gap;
mod hostile;
mod kill;
mod latency;
mod limit;
mod machine;
mod need;
mod peers;
mod pieces;
mod publish;
mod raw;
mod report;
mod rounds;
mod scene;
mod sequencer;
mod session;
mod sink;
mod source;
mod stop;
mod subject;
mod takeover;
mod verified;
mod walk;
mod witness;

use std::process::ExitCode;

use clap::Parser;

use args::{Arguments, Command};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Err(error) = limit::processor(arguments.cpu_features) {
        eprintln!("compare: {error}");
        return ExitCode::from(error.exit_code());
    }
    let ended = match arguments.command {
        Some(Command::Sink(sink)) => sink::run(&sink),
        Some(Command::Echo(echo)) => echo::run(&echo),
        Some(Command::Source(source)) => source::run(&source),
        Some(Command::Deliver(args)) => deliver::run(deliver::Kind::Deliver, &args.settled()),
        Some(Command::Fanout(args)) => deliver::run(deliver::Kind::Fanout, &args.settled()),
        Some(Command::Relay(args)) => deliver::run(deliver::Kind::Relay, &args.settled()),
        Some(Command::Kill(kill)) => kill::run(&kill.settled()),
        Some(Command::Chaos(chaos)) => chaos::run(&chaos.settled()),
        Some(Command::Stop(stop)) => stop::run(&stop.settled()),
        Some(Command::Takeover(takeover)) => takeover::run(&takeover.settled()),
        Some(Command::Hostile(hostile)) => hostile::run(&hostile.settled()),
        Some(Command::Gap(gap)) => gap::run(&gap.settled()),
        Some(Command::Need(need)) => need::run(&need.settled()),
        Some(Command::Attach(attach)) => attach::run(&attach.settled()),
        Some(Command::Sequencer(args)) => sequencer::run(&args.settled()),
        Some(Command::Pieces(pieces)) => pieces::run(&pieces.settled()),
        Some(Command::All(all)) => all::run(&all),
        Some(Command::Between(args)) => between::run(&args),
        Some(Command::Peers(peers)) => peers::run(&peers.settled()),
        None => rounds::run(&arguments.run.settled()),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("compare: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}
