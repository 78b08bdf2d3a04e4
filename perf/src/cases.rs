//! Who is compared with whom: what is measured, and beside what.

use embarcadero::wire::OrderLevel;

use crate::latency::LatencyRun;
use crate::publish::PublishRun;
use crate::sink::{ACK_TOPIC, FLUSH_TOPIC, RECEIVE_TOPIC, STREAM_TOPIC};
use crate::subject::Idle;

/// What a case measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Publish to this topic of a sink.
    Sink(&'static str),
    /// Publish to brokers at this order level and ack level 1.
    Publish(OrderLevel),
    /// Publish to ack, one message in flight.
    Ack(Idle),
    /// Publish to deliver, one message in flight.
    Deliver(Idle),
    /// The ping-pong.
    PingPong(Idle),
}

/// One thing that is measured in every round.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// Its name in the JSON report and in ratios.
    pub key: &'static str,
    /// What each side does, printed with its figures.
    pub what: &'static str,
    /// What it measures.
    pub kind: Kind,
    /// With one broker, or as many as `--brokers` says.
    pub single: bool,
}

/// Everything that is measured.
pub const CASES: [Case; 18] = [
    Case { key: "sink", what: "receiver only receives", kind: Kind::Sink(RECEIVE_TOPIC), single: false },
    Case { key: "sink_flush", what: "receives, clwb over all", kind: Kind::Sink(FLUSH_TOPIC), single: false },
    Case { key: "sink_stream", what: "receives hot, streams on", kind: Kind::Sink(STREAM_TOPIC), single: false },
    Case { key: "sink_ack", what: "receives, acks by headers", kind: Kind::Sink(ACK_TOPIC), single: false },
    Case { key: "order5", what: "brokers, order 5, ack 1", kind: Kind::Publish(OrderLevel::Session), single: false },
    Case { key: "order0", what: "brokers, order 0, ack 1", kind: Kind::Publish(OrderLevel::None), single: false },
    Case { key: "sink_1", what: "receiver only receives", kind: Kind::Sink(RECEIVE_TOPIC), single: true },
    Case { key: "sink_flush_1", what: "receives, clwb over all", kind: Kind::Sink(FLUSH_TOPIC), single: true },
    Case { key: "sink_stream_1", what: "receives hot, streams on", kind: Kind::Sink(STREAM_TOPIC), single: true },
    Case { key: "sink_ack_1", what: "receives, acks by headers", kind: Kind::Sink(ACK_TOPIC), single: true },
    Case {
        key: "order5_1",
        what: "one broker, order 5, ack 1",
        kind: Kind::Publish(OrderLevel::Session),
        single: true,
    },
    Case { key: "order0_1", what: "one broker, order 0, ack 1", kind: Kind::Publish(OrderLevel::None), single: true },
    Case { key: "pingpong_block", what: "TCP, both ends block", kind: Kind::PingPong(Idle::Park), single: true },
    Case { key: "ack_park", what: "brokers park, client blocks", kind: Kind::Ack(Idle::Park), single: false },
    Case { key: "pingpong_spin", what: "TCP, both ends spin", kind: Kind::PingPong(Idle::Spin), single: true },
    Case { key: "ack_spin", what: "brokers and client spin", kind: Kind::Ack(Idle::Spin), single: false },
    Case { key: "deliver_park", what: "brokers park, client blocks", kind: Kind::Deliver(Idle::Park), single: false },
    Case { key: "deliver_spin", what: "brokers and client spin", kind: Kind::Deliver(Idle::Spin), single: false },
];

/// A ratio that is reported.
#[derive(Clone, Copy, Debug)]
pub struct Comparison {
    /// The case above the line.
    pub above: &'static str,
    /// Its limit.
    pub below: &'static str,
    /// What is aimed at.
    pub aim: Option<&'static str>,
}

const fn against(above: &'static str, below: &'static str, aim: Option<&'static str>) -> Comparison {
    Comparison { above, below, aim }
}

/// Every ratio that is reported: of throughputs more is better, of latencies less.
pub const COMPARISONS: [Comparison; 18] = [
    against("order5", "sink", Some("at least 0.95")),
    against("order5", "order0", Some("at least 0.97")),
    against("order0", "sink", None),
    against("order5", "sink_flush", None),
    against("sink_stream", "sink_flush", None),
    against("order5", "sink_ack", None),
    against("order0", "sink_ack", None),
    against("order5_1", "sink_1", Some("at least 0.95")),
    against("order5_1", "order0_1", Some("at least 0.97")),
    against("order0_1", "sink_1", None),
    against("order5_1", "sink_flush_1", None),
    against("sink_stream_1", "sink_flush_1", None),
    against("order5_1", "sink_ack_1", None),
    against("order0_1", "sink_ack_1", None),
    against("ack_park", "pingpong_block", Some("at most 1.3")),
    against("ack_spin", "pingpong_spin", Some("at most 1.3")),
    against("deliver_park", "pingpong_block", Some("at most 2.2")),
    against("deliver_spin", "pingpong_spin", Some("at most 2.2")),
];

/// One run of one case.
#[derive(Clone, Debug)]
pub enum Run {
    /// Of a throughput case.
    Publish(PublishRun),
    /// Of a latency case.
    Latency(LatencyRun),
}

impl Case {
    /// Whether it is about latency.
    pub fn is_latency(&self) -> bool {
        matches!(self.kind, Kind::Ack(_) | Kind::Deliver(_) | Kind::PingPong(_))
    }

    /// Whether both ends keep a core busy while they wait.
    pub fn spins(&self) -> bool {
        matches!(self.kind, Kind::Ack(Idle::Spin) | Kind::Deliver(Idle::Spin) | Kind::PingPong(Idle::Spin))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_comparison_is_of_two_cases_of_one_kind() {
        let case = |key| CASES.iter().find(|case| case.key == key).unwrap();
        for comparison in COMPARISONS {
            let (above, below) = (case(comparison.above), case(comparison.below));
            assert_eq!((above.is_latency(), above.spins()), (below.is_latency(), below.spins()));
        }
    }
}
