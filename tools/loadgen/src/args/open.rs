//! Open loop, sweep, many topics against one, and a subscriber that is stopped.

use std::time::Duration;

use clap::Args;
use embarcadero::wire::AckLevel;
use tools_common::arguments;
use tools_common::schedule::{Arrival, Rate};
use verification::payload::TIMED_BYTES_MIN;

use super::{LoadArgs, TopicArgs, quantities};
use crate::error::LoadError;
use crate::open_loop::OpenPlan;
use crate::pause::PausePlan;

/// Measured time of an open loop, if nothing else is said.
const MEASURED_DEFAULT: Duration = Duration::from_secs(10);

/// Open loop.
#[derive(Clone, Debug, Args)]
pub struct RateArgs {
    /// Open loop at this rate over all publishers: messages a second (200000) or payload a second (50MB). What is planned closer together than
    /// 100 µs is sent together; the latencies from the planned time include it.
    #[arg(long, value_parser = quantities::rate, conflicts_with_all = ["total_bytes", "messages"], value_name = "RATE")]
    pub rate: Option<Rate>,
    /// How messages lie in time.
    #[arg(long, value_enum, default_value = "constant")]
    pub arrival: Arrival,
    /// Of Poisson arrivals; the same seed gives the same times.
    #[arg(long, default_value = "1", value_name = "NUMBER")]
    pub seed: u64,
    /// Time at the start of an open loop that is not measured.
    #[arg(long, default_value = "1s", value_parser = arguments::duration, value_name = "TIME")]
    pub warm_up: Duration,
    /// A session that is this far behind its plan gives up, and the run fails.
    #[arg(long, default_value = "5s", value_parser = arguments::duration, value_name = "TIME")]
    pub lag_max: Duration,
}

impl RateArgs {
    /// The plan of a run at this rate; refuses what cannot be measured.
    pub fn plan(&self, rate: Rate, topic: &TopicArgs, load: &LoadArgs, sessions: usize) -> Result<OpenPlan, LoadError> {
        let usage = |text: String| Err(LoadError::Usage(text));
        if topic.message_size < TIMED_BYTES_MIN as u64 {
            let found = topic.message_size;
            return usage(format!("--message-size {found}: a message with its times needs at least {TIMED_BYTES_MIN}"));
        }
        if topic.ack == AckLevel::None {
            return usage("--ack 0: an open loop measures latency to the ack; use --ack 1".to_owned());
        }
        let measured = load.duration.unwrap_or(MEASURED_DEFAULT);
        let messages_per_s = rate.messages_per_s(topic.message_size);
        let planned = messages_per_s * measured.as_secs_f64();
        if planned < 1.0 {
            return usage(format!("{messages_per_s} messages/s for {measured:?} is not even one; ask for more"));
        }
        Ok(OpenPlan {
            arrival: self.arrival,
            messages_per_s,
            seed: self.seed,
            sessions: sessions as u32,
            warm_up: self.warm_up,
            measured,
            lag_max: self.lag_max,
        })
    }
}

/// Many topics against one.
#[derive(Clone, Debug, Args)]
pub struct CompareArgs {
    /// Run with --topics, and with one topic of the same publishers and as many deliveries, in turn; print the ratio.
    #[arg(long, requires = "topics", conflicts_with_all = ["rate", "rate_percent", "stop_reader_for", "slow_reader"])]
    pub compare_one_topic: bool,
    /// Rounds that count of --compare-one-topic; one more, the cold one, is run first and dropped.
    #[arg(long, default_value = "5", requires = "compare_one_topic", value_parser = clap::value_parser!(u32).range(1..=100), value_name = "COUNT")]
    pub rounds: u32,
}

/// A subscriber that is stopped.
#[derive(Clone, Debug, Args)]
pub struct StopArgs {
    /// Subscriber 0 reads nothing for this long, e.g. 10s, as under SIGSTOP.
    #[arg(long, value_parser = arguments::duration, conflicts_with_all = ["rate_percent", "attach"], value_name = "TIME")]
    pub stop_reader_for: Option<Duration>,
    /// From this time of the run on.
    #[arg(long, default_value = "2s", requires = "stop_reader_for", value_parser = arguments::duration, value_name = "TIME")]
    pub stop_reader_after: Duration,
}

impl StopArgs {
    /// The pause that is asked for.
    pub fn plan(&self) -> Option<PausePlan> {
        self.stop_reader_for.map(|time| PausePlan { after: self.stop_reader_after, time })
    }
}
