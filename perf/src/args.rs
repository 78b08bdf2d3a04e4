//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use embarcadero::config::CoherenceMode;
use embarcadero::processor::Instructions;
use serde_json::Value;
use tools_common::arguments::{bytes, coherence, size};
use tools_common::report::write_json;
use verification::payload::{Payloads, STAMP_BYTES};

use crate::error::CompareError;

/// Measures Embarcadero beside the limits of this machine: publishing against a receiver that only receives, publish-to-ack
/// latency against a TCP ping-pong of the same size. Interleaved, repeated; prints medians, spreads and ratios.
#[derive(Parser, Debug)]
#[command(name = "compare", version, args_conflicts_with_subcommands = true)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub run: RunArgs,
    /// Most of the processor's instruction set that both sides use, glibc's copies included: sse4.2, avx2 or all. So that one machine
    /// shows what others will see
    #[arg(long, global = true, default_value_t)]
    pub cpu_features: Instructions,
}

/// Other measurements, and what this program starts of itself.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Kills broker processes under load: how long until acks move again, and whether anything was lost or came twice
    Kill(KillArgs),
    /// Stops broker processes (SIGSTOP) under load: how long until acks and deliveries move again, and at what rate
    Stop(StopArgs),
    /// Kills and stops broker processes at random under load, for long: whether anything was lost, came twice or out of order
    Chaos(ChaosArgs),
    /// Kills the active one of several candidates: how long until another is the sequencer, and how many claims that took
    Takeover(TakeoverArgs),
    /// Ack latency and throughput of a client beside another one that does what it should not, of each kind
    Hostile(HostileArgs),
    /// Ack latency of a session while another one has a gap, against the same without
    Gap(GapArgs),
    /// Many attached publishers at once with hardly any memory to grant: the longest wait, against the same with memory for all
    Need(NeedArgs),
    /// Clients that map the pool: append throughput against memcpy and clflushopt, latency against a cache-line ping-pong
    Attach(AttachArgs),
    /// The sequencer alone, without brokers and network: ns a batch, and what it gets done at twice the load it can take
    Sequencer(SequencerArgs),
    /// The pieces of the data path one by one (sums, decoding, write-backs, lines, decisions), each beside the least it could cost
    Pieces(PiecesArgs),
    /// Delivery to one subscriber, against a sender that only sends
    Deliver(DeliverArgs),
    /// Delivery to 1, 4 and 16 subscribers, against a sender that only sends
    Fanout(DeliverArgs),
    /// Publishing and subscribing at once, against a relay that only receives and sends
    Relay(DeliverArgs),
    /// Every comparison that gives ratios, and all of them in one report
    All(AllArgs),
    /// (run by perf/between.sh) What two builds or two configurations were measured to do, beside each other
    #[command(hide = true)]
    Between(BetweenArgs),
    /// Redis and NATS, if they are installed (perf/peers.sh does that), driven alike: single messages, throughput, a trickle, idleness
    Peers(PeersArgs),
    /// (started by compare) A sender that only sends, and a relay: one thread, one io_uring
    #[command(hide = true)]
    Source(SourceArgs),
    /// (started by compare) A receiver that only receives: one thread, one io_uring
    #[command(hide = true)]
    Sink(SinkArgs),
    /// (started by compare) The far end of the TCP ping-pong
    #[command(hide = true)]
    Echo(EchoArgs),
}

/// What is written, and whether it is meant.
#[derive(Args, Clone, Debug)]
pub struct OutputArgs {
    /// Write everything, each run included, to this file as JSON
    #[arg(long)]
    pub json: Option<PathBuf>,
    /// A smoke test of a few seconds: tiny sizes, whatever else is asked for; its figures mean nothing, and aims are not held against them
    #[arg(long)]
    pub tiny: bool,
}

impl OutputArgs {
    /// Writes the report, if that is asked for.
    pub fn write(&self, report: &Value) -> Result<(), CompareError> {
        let Some(path) = &self.json else { return Ok(()) };
        write_json(report, path).map_err(CompareError::io(format!("writing {}", path.display())))
    }
}

/// A comparison.
#[derive(Args, Clone, Debug)]
pub struct RunArgs {
    /// Rounds that count; one more, the cold one, is run first and dropped
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub runs: u32,
    /// Payload bytes of each throughput run; for figures to quote choose it so that a run takes 10 s
    #[arg(long, default_value = "2GiB", value_parser = size)]
    pub total: u64,
    /// Payload bytes of a message
    #[arg(long, default_value = "1KiB", value_parser = size)]
    pub message_bytes: u64,
    /// Size at which a batch is sealed, bytes
    #[arg(long, default_value = "256KiB", value_parser = size)]
    pub batch_bytes: u64,
    /// Batches sealed and not acked, of each session
    #[arg(long, default_value_t = 64)]
    pub window: u32,
    /// Publisher sessions, each on its own thread with a connection to every broker
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub sessions: u32,
    /// Brokers, all in one process; everything is also measured with one
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=32))]
    pub brokers: u32,
    /// Memory each receiver receives into: `auto` (up to 2 GiB, an eighth of what is free) or a size
    #[arg(long, default_value = "auto", value_parser = pool_size)]
    pub pool_bytes: PoolBytes,
    /// Most bytes taken from a connection in one turn: `receive.receive_bytes_max` of the brokers; the sink asks for as much at once
    #[arg(long, default_value = "512KiB", value_parser = size)]
    pub receive_bytes: u64,
    /// `pool.coherence` of the brokers
    #[arg(long, default_value = "software", value_parser = coherence)]
    pub coherence: CoherenceMode,
    /// Messages of each latency run, one at a time
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(10..=100_000_000))]
    pub latency_messages: u64,
    /// Run these cases only, by the names the figures have, or `throughput` or `latency`
    #[arg(long, value_delimiter = ',')]
    pub cases: Vec<String>,
    #[command(flatten)]
    pub output: OutputArgs,
}

impl RunArgs {
    /// As when nothing is said.
    pub fn standard() -> RunArgs {
        Arguments::parse_from(["compare"]).run
    }

    /// With the sizes that `--tiny` stands for.
    pub fn settled(mut self) -> RunArgs {
        if self.output.tiny {
            (self.runs, self.total, self.latency_messages) = (1, 8 << 20, 100);
            self.pool_bytes = PoolBytes(Some(160 << 20));
        }
        self
    }

    /// Messages of one session in one throughput run; at least one.
    pub fn messages_per_session(&self) -> u64 {
        (self.total / self.message_bytes.max(1) / u64::from(self.sessions)).max(1)
    }
}

/// `--pool-bytes`; none: automatic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolBytes(pub Option<u64>);

/// Broker processes and the load on them.
#[derive(Args, Clone, Debug)]
pub struct LoadArgs {
    /// Brokers, each in a process of its own, each a candidate for the sequencer
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(2..=32))]
    pub brokers: u32,
    /// Publisher sessions at order 5 and ack 1, over all brokers
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub sessions: u32,
    /// Payload bytes a second of each session; 0: as fast as it goes
    #[arg(long, default_value = "20MiB", value_parser = bytes)]
    pub rate: u64,
    /// Payload bytes of a message; at least 16
    #[arg(long, default_value = "1KiB", value_parser = size)]
    pub message_bytes: u64,
    /// Size at which a batch is sealed, bytes
    #[arg(long, default_value = "16KiB", value_parser = size)]
    pub batch_bytes: u64,
    /// Length of the pool
    #[arg(long, default_value = "1GiB", value_parser = size)]
    pub pool_bytes: u64,
}

impl LoadArgs {
    /// What messages contain.
    pub fn payloads(&self) -> Payloads {
        Payloads::new((self.message_bytes as usize).max(STAMP_BYTES))
    }

    /// One session at this rate; everything else as when nothing is said.
    pub fn steady(rate: u64, message_bytes: u64) -> LoadArgs {
        let standard = ["compare", "stop"];
        match Arguments::parse_from(standard).command {
            Some(Command::Stop(stop)) => LoadArgs { sessions: 1, rate, message_bytes, ..stop.load },
            _ => unreachable!("it says stop"),
        }
    }

    /// The sizes that `--tiny` stands for.
    fn make_tiny(&mut self) {
        (self.brokers, self.rate, self.pool_bytes) = (2, 2 << 20, 160 << 20);
    }
}

/// Broker processes killed under load.
#[derive(Args, Clone, Debug)]
pub struct KillArgs {
    /// Kills of the process that has the sequencer, and as many of one that has not
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub repeats: u32,
    /// The load.
    #[command(flatten)]
    pub load: LoadArgs,
    /// Brokers take each other to be on other hosts: silence of `takeover_after` (500 ms) tells of a death, not the kernel
    #[arg(long)]
    pub hosts: bool,
    #[command(flatten)]
    pub output: OutputArgs,
}

impl KillArgs {
    /// With the sizes that `--tiny` stands for.
    pub fn settled(mut self) -> KillArgs {
        if self.output.tiny {
            self.repeats = 1;
            self.load.make_tiny();
        }
        self
    }
}

/// Broker processes stopped under load.
#[derive(Args, Clone, Debug)]
pub struct StopArgs {
    /// Stops, of the process that has the sequencer and of another one in turn
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub repeats: u32,
    /// How long a process stays stopped, ms
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(2000..=60_000))]
    pub stop_ms: u64,
    /// The load.
    #[command(flatten)]
    pub load: LoadArgs,
    #[command(flatten)]
    pub output: OutputArgs,
}

impl StopArgs {
    /// With the sizes that `--tiny` stands for.
    pub fn settled(mut self) -> StopArgs {
        if self.output.tiny {
            (self.repeats, self.stop_ms) = (1, 2000);
            self.load.make_tiny();
        }
        self
    }
}

/// Random faults.
#[derive(Args, Clone, Debug)]
pub struct ChaosArgs {
    /// Seeds, each on a new pool
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub seeds: u64,
    /// The first of them
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Hosts that the brokers take themselves to be on, in turn
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=32))]
    pub hosts: u32,
    /// Time under faults, each seed, s
    #[arg(long, default_value_t = 225, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub seconds: u64,
    /// The load.
    #[command(flatten)]
    pub load: LoadArgs,
    #[command(flatten)]
    pub output: OutputArgs,
}

impl ChaosArgs {
    /// With the sizes that `--tiny` stands for.
    pub fn settled(mut self) -> ChaosArgs {
        if self.output.tiny {
            (self.seeds, self.seconds) = (1, 4);
            self.load.make_tiny();
        }
        self
    }
}

/// Candidates for the sequencer.
#[derive(Args, Clone, Debug)]
pub struct TakeoverArgs {
    /// Kills of each kind
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub repeats: u32,
    /// `sequencer.takeover_settle`, ms
    #[arg(long, value_delimiter = ',', default_values_t = [0, 20, 600, 2000], value_parser = clap::value_parser!(u64).range(0..=10_000))]
    pub settle_ms: Vec<u64>,
    /// Numbers of candidates
    #[arg(long, value_delimiter = ',', default_values_t = [2, 3, 4], value_parser = clap::value_parser!(u32).range(2..=4))]
    pub candidates: Vec<u32>,
    #[command(flatten)]
    pub output: OutputArgs,
}

impl TakeoverArgs {
    /// With the sizes that `--tiny` stands for.
    pub fn settled(mut self) -> TakeoverArgs {
        if self.output.tiny {
            (self.repeats, self.settle_ms, self.candidates) = (1, vec![20], vec![2]);
        }
        self
    }
}

/// As whom the broker runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum User {
    /// As whoever runs this.
    Own,
    /// As nobody, with 8 MiB of locked memory and 1024 open files.
    Ordinary,
}

/// One client that does what it should not, beside another.
#[derive(Args, Clone, Debug)]
pub struct HostileArgs {
    /// Rounds of each kind, with it and without
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub runs: u32,
    /// Time measured, each time, ms
    #[arg(long, default_value_t = 3000, value_parser = clap::value_parser!(u64).range(100..=60_000))]
    pub measure_ms: u64,
    /// Kinds, by the names the figures have; all
    #[arg(long, value_delimiter = ',')]
    pub kinds: Vec<String>,
    /// As whom the broker runs; all that this user may
    #[arg(long, value_delimiter = ',', value_enum)]
    pub users: Vec<User>,
    /// Payload bytes a second of the good publisher; 0: as fast as it goes
    #[arg(long, default_value = "40MiB", value_parser = bytes)]
    pub rate: u64,
    /// Length of the pool
    #[arg(long, default_value = "160MiB", value_parser = size)]
    pub pool_bytes: u64,
    /// What is made up at random
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    #[command(flatten)]
    pub output: OutputArgs,
}

impl HostileArgs {
    /// With the sizes that `--tiny` stands for.
    pub fn settled(mut self) -> HostileArgs {
        if self.output.tiny {
            (self.runs, self.measure_ms, self.rate, self.pool_bytes) = (1, 200, 4 << 20, 64 << 20);
        }
        self
    }
}

/// One session's gap beside another's latency.
#[derive(Args, Clone, Debug)]
pub struct GapArgs {
    /// Rounds that count, each with a gap and without; one more, the cold one, is run first and dropped
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub runs: u32,
    /// How long the gap lasts, ms; below the session lease of 5 s
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u64).range(100..=4000))]
    pub gap_ms: u64,
    /// Batches of the session with the gap
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(8..=64))]
    pub parked: u32,
    /// Brokers, all in one process
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(2..=32))]
    pub brokers: u32,
    #[command(flatten)]
    pub output: OutputArgs,
}

impl GapArgs {
    /// With the sizes that `--tiny` stands for.
    pub fn settled(mut self) -> GapArgs {
        if self.output.tiny {
            (self.runs, self.gap_ms) = (1, 300);
        }
        self
    }
}

/// Lanes in need of memory, all at once.
#[derive(Args, Clone, Debug)]
pub struct NeedArgs {
    /// Rounds that count, each on both pools; one more, the cold one, is run first and dropped
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub runs: u32,
    /// Attached publishers, each with a lane and a thread of its own
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(16..=64))]
    pub lanes: u32,
    /// Extents of the pool beyond one for each lane
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub stock: u32,
    /// How long is measured, ms
    #[arg(long, default_value_t = 4000, value_parser = clap::value_parser!(u64).range(100..=600_000))]
    pub measure_ms: u64,
    #[command(flatten)]
    pub output: OutputArgs,
}

impl NeedArgs {
    /// With the sizes that `--tiny` stands for.
    pub fn settled(mut self) -> NeedArgs {
        if self.output.tiny {
            (self.runs, self.lanes, self.measure_ms) = (1, 16, 400);
        }
        self
    }
}

/// Attached clients beside the machine's memory.
#[derive(Args, Clone, Debug)]
pub struct AttachArgs {
    /// Rounds that count; one more, the cold one, is run first and dropped
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub runs: u32,
    /// Payload bytes of each throughput run
    #[arg(long, default_value = "4GiB", value_parser = size)]
    pub total: u64,
    /// Size at which a batch is sealed, bytes
    #[arg(long, default_value = "256KiB", value_parser = size)]
    pub batch_bytes: u64,
    /// Length of the pool
    #[arg(long, default_value = "512MiB", value_parser = size)]
    pub pool_bytes: u64,
    /// How caches are kept in agreement
    #[arg(long, default_value = "software", value_parser = coherence)]
    pub coherence: CoherenceMode,
    /// Messages of each latency run, one at a time
    #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(u64).range(10..=100_000_000))]
    pub latency_messages: u64,
    #[command(flatten)]
    pub output: OutputArgs,
}

impl AttachArgs {
    /// With the sizes that `--tiny` stands for.
    pub fn settled(mut self) -> AttachArgs {
        if self.output.tiny {
            (self.runs, self.total, self.latency_messages, self.pool_bytes) = (1, 16 << 20, 200, 160 << 20);
        }
        self
    }
}

/// The sequencer alone.
#[derive(Args, Clone, Debug)]
pub struct SequencerArgs {
    /// Runs of each case that count; one more, the cold one, is run first and dropped
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub runs: u32,
    /// Batches of each run, at least
    #[arg(long, default_value_t = 500_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    pub batches: u64,
    /// How long it is driven at each load, ms
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..=600_000))]
    pub drive_ms: u64,
    /// Only the cases that have this in their names
    #[arg(long)]
    pub only: Option<String>,
    /// How caches are kept in agreement
    #[arg(long, default_value = "software", value_parser = coherence)]
    pub coherence: CoherenceMode,
    #[command(flatten)]
    pub output: OutputArgs,
}

impl SequencerArgs {
    /// With the sizes that `--tiny` stands for.
    pub fn settled(mut self) -> SequencerArgs {
        if self.output.tiny {
            (self.runs, self.batches, self.drive_ms) = (1, 2000, 20);
        }
        self
    }
}

/// Pieces of the data path.
#[derive(Args, Clone, Debug)]
pub struct PiecesArgs {
    /// Rounds
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub runs: u32,
    /// About how long each piece takes in each round, ms
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub ms: u64,
    /// How caches are kept in agreement
    #[arg(long, default_value = "software", value_parser = coherence)]
    pub coherence: CoherenceMode,
    #[command(flatten)]
    pub output: OutputArgs,
}

impl PiecesArgs {
    /// With the sizes that `--tiny` stands for.
    pub fn settled(mut self) -> PiecesArgs {
        if self.output.tiny {
            (self.runs, self.ms) = (1, 1);
        }
        self
    }
}

/// Everything.
#[derive(Args, Clone, Debug)]
pub struct AllArgs {
    /// Rounds that count, of each comparison; one more, the cold one, is run first and dropped
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub runs: u32,
    /// These only, by their subcommands; `publish` is the one that has none
    #[arg(long, value_delimiter = ',')]
    pub parts: Vec<String>,
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Other systems.
#[derive(Args, Clone, Debug)]
pub struct PeersArgs {
    /// Rounds that count; one more, the cold one, is run first and dropped
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub runs: u32,
    /// How long each is measured, each time, ms
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u64).range(20..=600_000))]
    pub measure_ms: u64,
    #[command(flatten)]
    pub output: OutputArgs,
}

impl PeersArgs {
    /// With the sizes that `--tiny` stands for.
    pub fn settled(mut self) -> PeersArgs {
        if self.output.tiny {
            (self.runs, self.measure_ms) = (1, 50);
        }
        self
    }
}

/// Delivery.
#[derive(Args, Clone, Debug)]
pub struct DeliverArgs {
    /// Rounds that count; one more, the cold one, is run first and dropped
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub runs: u32,
    /// Bytes of messages in the topic
    #[arg(long, default_value = "1GiB", value_parser = size)]
    pub total: u64,
    /// Payload bytes of a message
    #[arg(long, default_value = "1KiB", value_parser = size)]
    pub message_bytes: u64,
    /// Size at which a batch is sealed, bytes; the bare sender sends pieces of it
    #[arg(long, default_value = "256KiB", value_parser = size)]
    pub batch_bytes: u64,
    #[command(flatten)]
    pub output: OutputArgs,
}

impl DeliverArgs {
    /// With the sizes that `--tiny` stands for.
    pub fn settled(mut self) -> DeliverArgs {
        if self.output.tiny {
            (self.runs, self.total) = (1, 8 << 20);
        }
        self
    }
}

/// A sender that only sends, and a relay.
#[derive(Args, Debug)]
pub struct SourceArgs {
    /// The file it sends out of
    #[arg(long)]
    pub pool: PathBuf,
    /// Length of that file
    #[arg(long)]
    pub pool_bytes: u64,
    /// Bytes behind each header
    #[arg(long)]
    pub batch_bytes: u64,
    /// Where it listens
    #[arg(long)]
    pub listen: SocketAddr,
    /// Most bytes one receive of the relay asks for
    #[arg(long, default_value_t = 512 << 10)]
    pub receive_bytes: u64,
}

/// Reports of two sides.
#[derive(Args, Debug)]
pub struct BetweenArgs {
    /// What the first side is
    #[arg(long, default_value = "A")]
    pub a_name: String,
    /// What the second side is
    #[arg(long, default_value = "B")]
    pub b_name: String,
    /// Reports of the first side, of `compare` or of `loadgen`
    #[arg(long, required = true, num_args = 1..)]
    pub a: Vec<PathBuf>,
    /// Reports of the second side
    #[arg(long, required = true, num_args = 1..)]
    pub b: Vec<PathBuf>,
    /// Write the figures to this file as JSON
    #[arg(long)]
    pub json: Option<PathBuf>,
}

/// A receiver that only receives.
#[derive(Args, Debug)]
pub struct SinkArgs {
    /// The file it receives into
    #[arg(long)]
    pub pool: PathBuf,
    /// Length of that file
    #[arg(long)]
    pub pool_bytes: u64,
    /// Where it listens; its Welcome names each of them as a broker
    #[arg(long, value_delimiter = ',')]
    pub listen: Vec<SocketAddr>,
    /// Most bytes one receive asks for
    #[arg(long)]
    pub receive_bytes: u64,
}

/// The far end of the ping-pong.
#[derive(Args, Debug)]
pub struct EchoArgs {
    /// Where it listens
    #[arg(long)]
    pub listen: SocketAddr,
    /// Bytes of a ping
    #[arg(long)]
    pub ping_bytes: usize,
    /// Look for pings without ever sleeping
    #[arg(long)]
    pub spin: bool,
}

fn pool_size(text: &str) -> Result<PoolBytes, String> {
    if text == "auto" { Ok(PoolBytes(None)) } else { size(text).map(|bytes| PoolBytes(Some(bytes))) }
}
