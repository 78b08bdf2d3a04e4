//! A pool's counters as text in the exposition format of Prometheus 0.0.4.
//!
//! Names are `embarcadero_`, who counts, what is counted, its unit in the base of its kind (`_seconds`, `_bytes`), and `_total` of what only grows. They
//! follow from the catalogue of counters, so that there is one place where they are written.

use std::fmt::Write;

use crate::monitor::diagnosis::silent_brokers;
use crate::monitor::snapshot::{BrokerFacts, SequencerFacts, Snapshot};
use crate::observe::counters::{Counter, Counters, Kind};
use crate::observe::histogram::Distribution;

/// Bounds of histograms: powers of two, ns, from a quarter of a microsecond to 17 s.
const BOUNDS: std::ops::RangeInclusive<u32> = 8..=34;

/// Whose counters are meant.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    /// These brokers of this process with the attached publishers in their places, and the sequencer if it is of this process; none: everybody of
    /// the pool.
    pub brokers: Option<Vec<u32>>,
}

impl Scope {
    fn has(&self, broker: u32) -> bool {
        self.brokers.as_ref().is_none_or(|brokers| brokers.contains(&broker))
    }
}

/// Families of metrics as they are collected: each is written once, with all its samples behind it.
#[derive(Default)]
struct Families {
    families: Vec<Family>,
}

struct Family {
    name: String,
    help: String,
    kind: &'static str,
    samples: String,
}

impl Families {
    fn family(&mut self, name: String, kind: &'static str, help: &str) -> &mut Family {
        let place = self.families.iter().position(|family| family.name == name).unwrap_or_else(|| {
            let (help, samples) = (help.trim().to_owned(), String::new());
            self.families.push(Family { name, help, kind, samples });
            self.families.len() - 1
        });
        &mut self.families[place]
    }

    fn gauge(&mut self, name: &str, help: &str, labels: &str, value: f64) {
        let family = self.family(format!("embarcadero_{name}"), "gauge", help);
        family.sample("", labels, value);
    }

    fn counter(&mut self, name: &str, help: &str, labels: &str, value: f64) {
        let family = self.family(format!("embarcadero_{name}_total"), "counter", help);
        family.sample("", labels, value);
    }

    fn block<C: Counters>(&mut self, who: &str, labels: &str, counters: &C) {
        for (counter, value) in C::CATALOGUE.iter().zip(counters.words()) {
            let (name, scale) = base_unit(counter.name);
            let (name, help) = (format!("{who}_{name}"), help(counter));
            match counter.kind {
                Kind::Counter => self.counter(&name, &help, labels, value as f64 * scale),
                Kind::Gauge => self.gauge(&name, &help, labels, value as f64 * scale),
                Kind::Name => {}
            }
        }
    }

    fn histogram(&mut self, name: &str, help: &str, labels: &str, times: &Distribution) {
        let family = self.family(format!("embarcadero_{name}_seconds"), "histogram", help);
        let between = if labels.is_empty() { "" } else { "," };
        for bound in BOUNDS.map(|bit| 1u64 << bit) {
            let labels = format!("{labels}{between}le=\"{}\"", bound as f64 / 1e9);
            family.sample("_bucket", &labels, times.count_below(bound) as f64);
        }
        family.sample("_bucket", &format!("{labels}{between}le=\"+Inf\""), times.count() as f64);
        family.sample("_sum", labels, times.sum() as f64 / 1e9);
        family.sample("_count", labels, times.count() as f64);
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for Family { name, help, kind, samples } in &self.families {
            let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{samples}");
        }
        text
    }
}

impl Family {
    fn sample(&mut self, suffix: &str, labels: &str, value: f64) {
        let _ = match labels {
            "" => writeln!(self.samples, "{}{suffix} {value}", self.name),
            _ => writeln!(self.samples, "{}{suffix}{{{labels}}} {value}", self.name),
        };
    }
}

/// A counter's name with its unit in the base of its kind, and what its value is to be multiplied by.
fn base_unit(name: &str) -> (String, f64) {
    for (suffix, base, scale) in [("_ns", "_seconds", 1e-9), ("_us", "_seconds", 1e-6), ("_ms", "_seconds", 1e-3)] {
        if let Some(stem) = name.strip_suffix(suffix) {
            return (format!("{stem}{base}"), scale);
        }
    }
    match name.strip_suffix("_at") {
        Some(stem) => (format!("{stem}_timestamp_seconds"), 1e-9),
        None => (name.to_owned(), 1.0),
    }
}

fn help(counter: &Counter) -> String {
    let meaning = counter.meaning.trim();
    let stem = [", ns", ", us", ", ms", ", UTC ns"].iter().find_map(|unit| meaning.strip_suffix(unit));
    escape(stem.unwrap_or(meaning), false)
}

/// Text of a label's value, or of a help line.
fn escape(text: &str, is_label: bool) -> String {
    let text = text.replace('\\', "\\\\").replace('\n', "\\n");
    if is_label { text.replace('"', "\\\"") } else { text }
}

/// What those in `scope` have counted. Histograms are of times in seconds. Of those on other hosts only an earlier look, `before`, tells whether they
/// live; without one they are taken at their word.
pub fn render(now: &Snapshot, before: Option<&Snapshot>, scope: &Scope) -> String {
    let mut families = Families::default();
    families.gauge("pool_bytes", "length of the pool", "", now.pool.bytes as f64);
    families.gauge("pool_blog_bytes", "bytes of the pool for batches", "", now.pool.blog_bytes as f64);
    families.gauge("pool_failed_places", "places of the pool where memory failed", "", now.pool.failed_at.len() as f64);
    let silent = before.map(|before| silent_brokers(before, now)).unwrap_or_default();
    for broker in now.brokers.iter().filter(|broker| scope.has(broker.broker())) {
        of_broker(&mut families, now, broker, silent.contains(&broker.broker()));
    }
    for lane in now.lanes.iter().filter(|lane| scope.has(lane.broker)) {
        let labels = format!("broker=\"{}\",lane=\"{}\"", lane.broker, lane.lane);
        families.block("receive", &labels, &lane.receive);
        families.counter("lane_consumed_slots", "slots the sequencer has looked at", &labels, lane.consumed as f64);
        families.counter(
            "lane_settled_slots",
            "slots that are appended or refused for good",
            &labels,
            lane.settled as f64,
        );
        families.gauge("lane_waiting_slots", "slots that wait for the sequencer now", &labels, lane.waiting as f64);
        families.gauge(
            "lane_paused",
            "1 while the lane's writer is held back for want of room",
            &labels,
            f64::from(lane.is_paused),
        );
        families.gauge("lane_extents", "extents the lane has", &labels, lane.extents.into());
        families.histogram(
            "batch_publishing",
            "from when a batch's header had landed to its slot",
            &labels,
            &lane.publishing,
        );
    }
    for topic in &now.topics {
        for delivery in topic.deliveries.iter().filter(|delivery| scope.has(delivery.broker)) {
            let labels = format!("broker=\"{}\",topic=\"{}\"", delivery.broker, escape(&topic.name, true));
            families.block("topic", &labels, &delivery.counters);
        }
    }
    let is_meant = |sequencer: &&SequencerFacts| scope.brokers.is_none() || sequencer.is_ours;
    if let Some(sequencer) = now.sequencer.as_ref().filter(is_meant) {
        let then = before.and_then(|before| before.sequencer.as_ref());
        let is_silent = then.is_some_and(|then| !sequencer.has_beaten_since(then));
        of_sequencer(&mut families, now, sequencer, is_silent);
    }
    families.text()
}

fn of_broker(families: &mut Families, now: &Snapshot, broker: &BrokerFacts, is_silent: bool) {
    let labels = format!("broker=\"{}\"", broker.broker());
    // A process of this machine is asked for by its lock.
    let is_there = if broker.member.is_here { broker.member.is_locked } else { !is_silent };
    let is_up = broker.member.state == "serving" && is_there;
    families.gauge("broker_up", "1 while the broker serves, as its process says", &labels, f64::from(is_up));
    families.counter(
        "broker_heartbeats",
        "grows while the broker looks after itself",
        &labels,
        broker.member.heartbeat as f64,
    );
    families.gauge(
        "broker_start_timestamp_seconds",
        "when its process began",
        &labels,
        broker.member.started_at as f64 / 1e9,
    );
    let lag = now
        .sequencer
        .as_ref()
        .zip(broker.member.pin)
        .map_or(0, |(sequencer, pin)| sequencer.watermark.saturating_sub(pin));
    families.gauge(
        "broker_reader_lag_batches",
        "index entries that its slowest subscriber has still to pass",
        &labels,
        lag as f64,
    );
    families.block("ack", &labels, &broker.ack);
    families.block("export", &labels, &broker.export);
    families.histogram("batch_acking", "from when a batch was committed to its ack", &labels, &broker.acking);
    families.histogram("batch_to_ack", "from when a batch's header had landed to its ack", &labels, &broker.to_ack);
    families.histogram(
        "batch_delivering",
        "from when a batch was committed to a subscriber's send",
        &labels,
        &broker.delivering,
    );
    families.histogram(
        "batch_to_delivery",
        "from when a batch's header had landed to a subscriber's send",
        &labels,
        &broker.to_delivery,
    );
    for thread in &broker.threads {
        let labels = format!("{labels},thread=\"{}\"", escape(&thread.name, true));
        families.block("thread", &labels, &thread.counters);
    }
    let errors: u64 = broker.errors.iter().map(|error| error.count).sum();
    families.counter("process_errors", "warnings and errors its process has logged", &labels, errors as f64);
}

fn of_sequencer(families: &mut Families, now: &Snapshot, sequencer: &SequencerFacts, is_silent: bool) {
    let is_there = if sequencer.is_here { sequencer.is_locked } else { !is_silent };
    let labels = format!("candidate=\"{}\"", sequencer.candidate);
    families.gauge(
        "sequencer_up",
        "1 while the process of the active sequencer is there",
        &labels,
        f64::from(is_there),
    );
    families.gauge("sequencer_epoch", "epoch of the active sequencer", &labels, sequencer.epoch as f64);
    families.counter(
        "sequencer_heartbeats",
        "grows while the sequencer looks after itself",
        &labels,
        sequencer.heartbeat as f64,
    );
    families.block("sequencer", &labels, &sequencer.counters);
    families.histogram("batch_ordering", "from a batch's slot to its place in the order", &labels, &sequencer.ordering);
    families.histogram(
        "batch_committing",
        "from a batch's place in the order to its commit",
        &labels,
        &sequencer.committing,
    );
    for topic in &now.topics {
        let labels = format!("topic=\"{}\"", escape(&topic.name, true));
        families.block("topic", &labels, &topic.counters);
        families.counter("topic_orders", "orders given to messages of the topic", &labels, topic.next_order as f64);
        families.gauge(
            "topic_earliest_order",
            "no message below this order is kept",
            &labels,
            topic.earliest_order as f64,
        );
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::log::View;
    use crate::log::lane::LaneWriter;
    use crate::log::member::Member;
    use crate::monitor::diagnosis::tests::{formatted, times};
    use crate::observe::errors::DistinctError;
    use crate::pool::process::boot_id;
    use crate::pool::region::Create;
    use crate::pool::superblock::HomeHosts;
    use crate::pool::{Geometry, Mapped, Pool, Process, Software};
    use crate::testing::memory::small_geometry;

    /// A pool with broker 1, of another machine, and an attached publisher in its place.
    fn looked_at(name: &str) -> Snapshot {
        let path = std::env::temp_dir().join(format!("embarcadero-{name}-{}", std::process::id()));
        let geometry = Geometry { attached_per_broker: 1, ..small_geometry(1) };
        let pool = Pool::open(&path, geometry, &HomeHosts::single_host(&geometry), false, Create::IfMissing).unwrap();
        let view = View::single_host(Mapped::<Software>::new(Arc::clone(pool.mapping())), Arc::clone(pool.layout()));
        let there = Process { id: 70, started_at_utc_ns: 1, boot_id: boot_id() + 1 };
        drop(Member::announce(&view, 1, there));
        let g = view.layout.geometry;
        [1, g.attached_lane(1)].into_iter().for_each(|lane| drop(LaneWriter::take(&view, lane)));
        let now = Snapshot::take(&pool, false);
        std::fs::remove_file(&path).unwrap();
        now
    }

    fn has(text: &str, line: &str) -> bool {
        text.lines().any(|known| known == line)
    }

    #[test]
    fn who_is_of_another_machine_is_up_while_it_shows_life() {
        let before = looked_at("up");
        let mut now = before.clone();
        now.moment += std::time::Duration::from_secs(2);
        let render = |now: &Snapshot, before: Option<&Snapshot>| render(now, before, &Scope::default());
        let [up, down] = [1, 0].map(|is_up| format!("embarcadero_broker_up{{broker=\"1\"}} {is_up}"));
        assert!(has(&render(&now, None), &up), "it is taken at its word");
        assert!(has(&render(&now, Some(&before)), &down));
        now.brokers[0].member.heartbeat += 1;
        assert!(has(&render(&now, Some(&before)), &up));
    }

    #[test]
    fn an_attached_publisher_is_shown_by_the_broker_whose_place_it_has() {
        let now = looked_at("attached");
        let lanes: Vec<u32> = now.lanes.iter().map(|lane| lane.lane).collect();
        assert_eq!((now.lanes[1].broker, lanes.len()), (1, 2), "{lanes:?}");
        let shown = |brokers: Vec<u32>| {
            let text = render(&now, None, &Scope { brokers: Some(brokers) });
            lanes
                .iter()
                .map(|lane| has(&text, &format!("embarcadero_receive_connections{{broker=\"1\",lane=\"{lane}\"}} 0")))
                .collect::<Vec<_>>()
        };
        assert_eq!((shown(vec![1]), shown(vec![0])), (vec![true; 2], vec![false; 2]));
    }

    /// All values of a sample, by its name and what its labels end in, in their order.
    fn values(text: &str, name: &str, labels: &str) -> Vec<f64> {
        let samples = text.lines().filter_map(|line| line.split_once([' ', '{']).filter(|(found, _)| *found == name));
        let samples = samples.map(|(_, rest)| rest.rsplit_once(' ').unwrap_or(("", rest)));
        samples
            .filter(|(found, _)| found.trim_end_matches('}').ends_with(labels))
            .map(|(_, value)| value.parse().unwrap())
            .collect()
    }

    fn value(now: &Snapshot, name: &str) -> f64 {
        let text = render(now, None, &Scope::default());
        let found = values(&text, name, "");
        assert_eq!(found.len(), 1, "{name} in\n{text}");
        found[0]
    }

    /// A process that has the broker, and the sequencer.
    fn ours() -> Scope {
        Scope { brokers: Some(vec![0]) }
    }

    #[test]
    fn times_are_in_seconds_and_all_of_them_are_in_the_last_bucket() {
        let mut now = formatted();
        let to_ack = &mut now.brokers[0].to_ack;
        // A microsecond, one and a half of them, and 40 s, which is more than any bound but the last.
        [(1024, 3), (1536, 2), (40_000_000_000, 1)].into_iter().for_each(|(ns, many)| to_ack.add(&times(ns, many)));
        let text = render(&now, None, &Scope::default());
        let name = |suffix| format!("embarcadero_batch_to_ack_seconds{suffix}");
        let bucket = |bound| values(&text, &name("_bucket"), &format!("le=\"{bound}\""));
        assert_eq!((bucket("0.000001024"), bucket("0.000002048")), (vec![0.0], vec![5.0]));
        assert_eq!((bucket("17.179869184"), bucket("+Inf")), (vec![5.0], vec![6.0]));
        assert_eq!(values(&text, &name("_bucket"), "").len(), 28);
        assert_eq!(values(&text, &name("_count"), ""), [6.0]);
        assert_eq!(values(&text, &name("_sum"), ""), [(3 * 1024 + 2 * 1536 + 40_000_000_000u64) as f64 / 1e9]);
    }

    #[test]
    fn units_are_the_base_of_their_kind() {
        let mut now = formatted();
        let receive = &mut now.lanes[0].receive;
        (receive.received_bytes, receive.farthest_us) = (5000, 40_000);
        now.brokers[0].export.waited_ms = 1500;
        now.brokers[0].member.started_at = 7_500_000_000;
        let thread = &mut now.brokers[0].threads[0].counters;
        (thread.core_wait_ns, thread.reported_at) = (2_500_000_000, 9_000_000_000);
        for (name, expected) in [
            ("receive_received_bytes_total", 5000.0),
            ("receive_farthest_seconds", 0.04),
            ("export_waited_seconds", 1.5),
            ("broker_start_timestamp_seconds", 7.5),
            ("thread_core_wait_seconds_total", 2.5),
            ("thread_reported_timestamp_seconds", 9.0),
        ] {
            let found = value(&now, &format!("embarcadero_{name}"));
            assert!((found - expected).abs() < 1e-9, "{name}: {found}");
        }
        let text = render(&now, None, &Scope::default());
        assert!(text.contains("# TYPE embarcadero_receive_farthest_seconds gauge\n"), "what is so now may fall");
        assert!(text.contains("# TYPE embarcadero_receive_received_bytes_total counter\n"));
        assert!(!text.contains("farthest_address"), "which one is meant is no amount");
    }

    /// Several processes of a pool are scraped: each tells of its own, and the one that has the sequencer of that.
    #[test]
    fn a_process_tells_of_its_own() {
        let mut now = formatted();
        let mut other = (now.brokers[0].clone(), now.lanes[0].clone());
        (other.0.member.member, other.1.member, other.1.lane, other.1.broker) = (1, 1, 1, 1);
        (now.brokers, now.lanes) = (vec![now.brokers[0].clone(), other.0], vec![now.lanes[0].clone(), other.1]);
        now.sequencer.as_mut().unwrap().is_ours = true;
        let all = render(&now, None, &Scope::default());
        let text = render(&now, None, &ours());
        let of = |text: &str, name: &str| values(text, &format!("embarcadero_{name}"), "").len();
        for (name, whole, own) in [
            ("broker_up", 2, 1),
            ("ack_acked_batches_total", 2, 1),
            ("receive_receives_total", 2, 1),
            ("sequencer_epoch", 1, 1),
        ] {
            assert_eq!((of(&all, name), of(&text, name)), (whole, own), "{name}");
        }
        assert_eq!(all.matches("# TYPE embarcadero_broker_up ").count(), 1, "a family stands in one place");
        now.sequencer.as_mut().unwrap().is_ours = false;
        assert_eq!(of(&render(&now, None, &ours()), "sequencer_epoch"), 0);
        assert_eq!(of(&render(&now, None, &Scope::default()), "sequencer_epoch"), 1);
    }

    #[test]
    fn who_is_up_and_who_is_behind() {
        let mut now = formatted();
        let up = |now: &Snapshot| value(now, "embarcadero_broker_up");
        assert_eq!(up(&now), 1.0);
        now.brokers[0].member.is_locked = false;
        assert_eq!(up(&now), 0.0, "its process is gone");
        now.brokers[0].member.is_here = false;
        assert_eq!(up(&now), 1.0, "elsewhere it is not seen");
        now.brokers[0].member.state = "stopped";
        assert_eq!(up(&now), 0.0);
        now.sequencer.as_mut().unwrap().watermark = 50;
        assert_eq!(value(&now, "embarcadero_broker_reader_lag_batches"), 0.0);
        now.brokers[0].member.pin = Some(20);
        assert_eq!(value(&now, "embarcadero_broker_reader_lag_batches"), 30.0);
        let error =
            |count| DistinctError { level: log::Level::Warn, count, first_at: 1, last_at: 2, text: "so".into() };
        now.brokers[0].errors = vec![error(2), error(5)];
        assert_eq!(value(&now, "embarcadero_process_errors_total"), 7.0);
    }

    #[test]
    fn a_label_is_what_its_owner_called_it() {
        let mut now = formatted();
        now.brokers[0].threads[0].name = "a\"b\\c\nd".to_owned();
        let text = render(&now, None, &Scope::default());
        assert!(text.contains("thread=\"a\\\"b\\\\c\\nd\"} "), "{text}");
    }
}
