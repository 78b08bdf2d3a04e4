//! A load made from the command line: every session's and subscriber's plan.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use embarcadero::{PoolOptions, PublisherOptions, SlowReaderPolicy, Start};
use serde_json::{Value, json};
use tools_common::schedule::Rate;
use verification::payload::{Payloads, mix};
use verification::promise::{Level, TooSlow};
use verification::verifier::{NUMBERS_MAX, SESSIONS_MAX, Source, Verifier};

use crate::args::{AttachArgs, LoadArgs, RateArgs, TopicArgs};
use crate::error::LoadError;
use crate::fleet::Fleet;
use crate::latency::SendTimes;
use crate::open_loop::OpenPlan;
use crate::pause::PausePlan;
use crate::publish::{Goal, SessionPlan};
use crate::subscribe::{ReaderPlan, Until};

// What the verifier takes for the most sessions is what a pool has.
const _: () = assert!(SESSIONS_MAX == embarcadero::limits::SESSIONS_MAX as usize);

/// What is wanted beside publishing.
#[derive(Clone, Copy, Default)]
pub struct Wishes<'a> {
    /// Subscribers.
    pub subscribers: u32,
    /// They verify.
    pub verify: bool,
    /// Open loop at this rate.
    pub rate: Option<(&'a RateArgs, Rate)>,
    /// Subscriber 0 is stopped.
    pub pause: Option<PausePlan>,
    /// Clients attach to a pool.
    pub attach: Option<&'a AttachArgs>,
    /// What becomes of subscribers that are too slow.
    pub slow_reader: SlowReaderPolicy,
}

/// Nothing is published: what others published is read.
#[derive(Clone, Copy, Debug)]
pub struct Reads {
    /// So many messages; none: all that is committed.
    pub count: Option<u64>,
}

/// One message in flight, each timed.
#[derive(Clone, Copy, Debug)]
pub struct LatencyPlan {
    /// Messages at the start that do not count.
    pub warm_up: u64,
}

/// A load.
pub struct Load<'a> {
    /// Where to.
    pub topic: &'a TopicArgs,
    /// Name of the topic, or what its topics' names begin with.
    pub name: String,
    /// Topics, sessions and subscribers.
    pub fleet: Fleet,
    /// Earlier runs have filled the topics: this one begins behind them.
    pub reused: bool,
    /// Nothing is published.
    pub reads: Option<Reads>,
    /// One message in flight.
    pub latency: Option<LatencyPlan>,
    /// Open loop.
    pub open: Option<OpenPlan>,
    /// Subscriber 0 is stopped.
    pub pause: Option<PausePlan>,
    /// What messages contain.
    pub payloads: Payloads,
    /// Clients attach to this pool.
    pub pool: Option<PoolOptions>,
    /// What becomes of subscribers that are too slow.
    pub slow_reader: SlowReaderPolicy,
    /// Threads that drive sessions, and as many for subscribers.
    pub threads: usize,
    run: u32,
    options: PublisherOptions,
    goals: Vec<Goal>,
    /// Most messages of each session, for each topic.
    bounds: Vec<Arc<[u64]>>,
    /// Subscribers verify.
    pub checking: bool,
    /// Longest time without an ack; of a load that only reads, without a message.
    ack_timeout: Duration,
}

impl<'a> Load<'a> {
    /// Refuses what cannot be done, before anything is started.
    pub fn prepare(
        topic: &'a TopicArgs,
        load: &LoadArgs,
        name: String,
        wishes: &Wishes<'_>,
    ) -> Result<Load<'a>, LoadError> {
        topic.check()?;
        wishes.attach.map_or(Ok(()), |attach| attach.check(load))?;
        let fleet = Fleet::new(load.topics, load.sessions, wishes.subscribers);
        let mut options = topic.publisher_options(&name);
        load.apply(&mut options, fleet.sessions);
        let open = wishes.rate.map(|(args, rate)| args.plan(rate, topic, load, fleet.sessions)).transpose()?;
        if open.is_some() && !fleet.readers.is_multiple_of(fleet.topics) {
            let (readers, topics) = (fleet.readers, fleet.topics);
            let text = format!("--subscribers {readers} --topics {topics}: at a rate, each topic needs equally many");
            return Err(LoadError::Usage(text));
        }
        let goals = match open {
            Some(plan) => vec![Goal::Planned(plan); fleet.sessions],
            None => load.goals(topic.message_size, fleet.sessions)?,
        };
        let prepared = Load::closed(topic, name, fleet, options, goals, load.ack_timeout);
        let payloads = match open {
            Some(_) => Payloads::timed(topic.message_size as usize),
            None => prepared.payloads,
        };
        let (pause, checking, threads) = (wishes.pause, wishes.verify, load.threads());
        let (pool, slow_reader) = (wishes.attach.and_then(AttachArgs::pool), wishes.slow_reader);
        Ok(Load { open, pause, payloads, pool, slow_reader, checking, threads, ..prepared })
    }

    /// A verified load as fast as windows allow, a thread for each client.
    pub fn closed(
        topic: &'a TopicArgs,
        name: String,
        fleet: Fleet,
        options: PublisherOptions,
        goals: Vec<Goal>,
        ack_timeout: Duration,
    ) -> Load<'a> {
        let payloads = Payloads::new(topic.message_size as usize);
        let bounds = (0..fleet.topics).map(|topic| bounds(&fleet, topic, &goals)).collect();
        let (run, threads) = (run_number(), fleet.sessions.max(fleet.readers).max(1));
        Load {
            topic,
            name,
            fleet,
            reused: false,
            reads: None,
            latency: None,
            open: None,
            pause: None,
            payloads,
            pool: None,
            slow_reader: SlowReaderPolicy::AsConfigured,
            threads,
            run,
            options,
            goals,
            bounds,
            checking: true,
            ack_timeout,
        }
    }

    /// Messages in all; 0 if that is not known.
    pub fn total(&self) -> u64 {
        if let Some(reads) = self.reads {
            return reads.count.unwrap_or(0);
        }
        let one = |goal: &Goal| if let Goal::Messages(messages) = goal { *messages } else { 0 };
        self.goals.iter().map(one).sum()
    }

    /// What session `index` is to do.
    pub fn session(&self, index: usize) -> SessionPlan {
        let topic = self.fleet.topic_of(index);
        let mut options = self.options.clone();
        options.topic = self.fleet.topic_name(&self.name, topic);
        SessionPlan {
            index: index as u32,
            topic,
            run: self.run,
            options,
            pool: self.pool.clone(),
            order: self.topic.order,
            goal: self.goals[index].clone(),
            payloads: self.payloads.clone(),
            ack_timeout: self.ack_timeout,
        }
    }

    /// What subscriber `index` is to do.
    pub fn reader(&self, index: usize, payloads: &Arc<Payloads>, times: &Option<Arc<SendTimes>>) -> ReaderPlan {
        let topic = self.fleet.topic_of(index);
        let (source, until) = match self.reads {
            Some(Reads { count }) => (Source::Any, count.map_or(Until::CaughtUp, Until::Count)),
            None => (Source::Run { run: self.run, messages: Arc::clone(&self.bounds[topic]) }, Until::Published),
        };
        let name = self.fleet.topic_name(&self.name, topic);
        let mut options = self.topic.subscriber_options(&name, index, self.fleet.readers);
        options.slow_reader = self.slow_reader;
        if self.reused {
            options.start = Start::Latest;
        }
        ReaderPlan {
            index,
            topic,
            options,
            pool: self.pool.clone(),
            verifier: Verifier::new(Level::of(self.topic.order as u8), Arc::clone(payloads), source, self.checking),
            until,
            idle_timeout: self.ack_timeout,
            open: self.open,
            pause: self.pause.filter(|_| index == 0),
            times: times.clone(),
        }
    }

    /// Every setting in effect.
    pub fn configuration(&self) -> Value {
        let options = &self.options;
        let mut all = topic_configuration(self.topic, &self.name);
        all["subscribers"] = json!(self.fleet.readers);
        all["verify"] = json!(self.checking && self.fleet.readers > 0);
        all["attach"] = json!(self.pool.as_ref().map(|pool| pool.path.display().to_string()));
        all["slow_reader"] = json!(slow_reader_words(self.slow_reader));
        if let Some(Reads { count }) = self.reads {
            all["count"] = json!(count);
            all["idle_timeout_s"] = json!(self.ack_timeout.as_secs());
            return all;
        }
        let times = self.goals.iter().filter_map(|goal| if let Goal::For(time) = goal { Some(*time) } else { None });
        all["messages"] = json!(Some(self.total()).filter(|total| *total > 0));
        all["duration_ms"] = json!(times.max().map(|time| time.as_millis() as u64));
        all["open_loop"] = json!(self.open.map(|plan| plan.json()));
        all["topics"] = json!(self.fleet.topics);
        all["sessions"] = json!(self.fleet.sessions);
        all["threads"] = json!(self.threads);
        all["batch_bytes"] = json!(options.batch_bytes);
        all["batch_messages"] = json!(options.batch_messages);
        all["linger_us"] = json!(options.linger.as_micros() as u64);
        all["window_batches"] = json!(options.window_batches);
        all["connections_per_broker"] = json!(options.connections_per_broker);
        all["resend_after_ms"] = json!(options.resend_after.as_millis() as u64);
        all["ack_timeout_s"] = json!(self.ack_timeout.as_secs());
        let skew = options.skew.as_ref();
        all["skew"] = json!(skew.map(|skew| json!({ "broker": skew.broker, "ms": skew.delay.as_millis() as u64 })));
        all["run"] = json!(format!("{:08x}", self.run));
        all
    }
}

/// Most messages of each session that may be in this topic.
fn bounds(fleet: &Fleet, topic: usize, goals: &[Goal]) -> Arc<[u64]> {
    let bound = |(index, goal): (usize, &Goal)| match goal {
        _ if fleet.topic_of(index) != topic => 0,
        Goal::Messages(messages) => *messages,
        Goal::For(_) | Goal::Planned(_) => NUMBERS_MAX,
    };
    goals.iter().enumerate().map(bound).collect()
}

/// What may become of subscribers, for the verdict.
pub fn too_slow(policy: SlowReaderPolicy) -> TooSlow {
    match policy {
        SlowReaderPolicy::Skip => TooSlow::Skips,
        SlowReaderPolicy::Wait { .. } => TooSlow::IsWaitedFor,
        SlowReaderPolicy::AsConfigured | SlowReaderPolicy::Disconnect => TooSlow::IsLetGo,
    }
}

/// As the command line says it.
fn slow_reader_words(policy: SlowReaderPolicy) -> String {
    match policy {
        SlowReaderPolicy::AsConfigured => "as configured".to_owned(),
        SlowReaderPolicy::Wait { lag_bytes: 0 } => "wait".to_owned(),
        SlowReaderPolicy::Wait { lag_bytes } => format!("wait:{lag_bytes}"),
        SlowReaderPolicy::Skip => "skip".to_owned(),
        SlowReaderPolicy::Disconnect => "disconnect".to_owned(),
    }
}

/// Every setting about the topic.
fn topic_configuration(topic: &TopicArgs, name: &str) -> Value {
    json!({
        "brokers": topic.brokers,
        "discover": !topic.no_discover,
        "topic": name,
        "order": topic.order as u8,
        "ack": topic.ack as u8,
        "receipts": format!("{:?}", topic.receipts).to_lowercase(),
        "message_bytes": topic.message_size,
        "connect_timeout_s": topic.connect_timeout.as_secs(),
    })
}

/// Differs from run to run on one machine: time and process.
fn run_number() -> u32 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos() as u64);
    mix(now ^ u64::from(std::process::id()) << 32) as u32
}

/// Of a topic that no other run has.
pub fn unique_suffix() -> String {
    format!("-{:08x}", run_number())
}
