//! Values that are well formed and cannot work together. Bounds come from [`crate::limits`].
//!
//! What needs the pool's layout (does all of this fit into `pool.bytes`?) is checked where the layout is known, with
//! the `GeometryRequest`.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::config::coherence::CoherenceMode;
use crate::config::schema::{BrokerConfig, Config, TopicConfig};
use crate::config::units::{format_bytes, format_duration};
use crate::limits::{
    BROKERS_MAX, CANDIDATES_MAX, CONNECTIONS_MAX, CURSORS_MAX, EXTENT_BYTES_MAX, EXTENT_BYTES_MIN, HOSTS_MAX,
    LANES_MAX, RECEIVE_BYTES_LEAST, RECEIVE_BYTES_MOST, RING_SLOTS_MAX, RING_SLOTS_MIN, SEGMENT_ENTRIES_MAX,
    SEGMENT_ENTRIES_MIN, SEGMENTS_PER_CANDIDATE_MAX, SEGMENTS_PER_CANDIDATE_MIN, SESSIONS_MAX, TOPIC_NAME_BYTES_MAX,
    TOPICS_MAX,
};
use crate::wire::frame::{check_topic_name, is_address};
use crate::wire::{AckLevel, OrderLevel};

/// Smallest pool anybody can want, bytes.
pub const POOL_BYTES_MIN: u64 = 16 << 20;
/// Largest pool that can be mapped beside everything else, bytes.
pub const POOL_BYTES_MAX: u64 = 64 << 40;
/// Most batches of one submission to the kernel: each takes a submission entry.
pub const BATCHES_PER_SEND_MAX: u32 = 1024;
/// Most cores of one machine that a thread can be pinned to: the width of `cpu_set_t`.
pub const CORES_MAX: usize = 1024;

/// A value that cannot work: which, what it is, and what it may be.
pub(super) struct Impossible {
    pub(super) key: String,
    pub(super) found: String,
    pub(super) expected: String,
}

fn impossible(key: impl Into<String>, found: impl ToString, expected: impl Into<String>) -> Result<(), Impossible> {
    Err(Impossible { key: key.into(), found: found.to_string(), expected: expected.into() })
}

fn within<T: PartialOrd + ToString>(key: &str, found: T, least: T, most: T) -> Result<(), Impossible> {
    if found < least || found > most {
        return impossible(key, found.to_string(), format!("{} to {}", least.to_string(), most.to_string()));
    }
    Ok(())
}

fn power_of_two(key: &str, found: u32, least: u32, most: u32) -> Result<(), Impossible> {
    if !found.is_power_of_two() || found < least || found > most {
        return impossible(key, found, format!("a power of two, {least} to {most}"));
    }
    Ok(())
}

fn duration(key: &str, found: Duration, least: Duration, most: Duration) -> Result<(), Impossible> {
    if found < least || found > most {
        let (least, most) = (format_duration(least), format_duration(most));
        return impossible(key, format_duration(found), format!("{least} to {most}"));
    }
    Ok(())
}

const MICROSECOND: Duration = Duration::from_micros(1);
const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
/// Longest retention that can be asked for.
const AGE_MAX: Duration = Duration::from_secs(3650 * 86_400);

/// The first value that cannot work.
pub(super) fn check(config: &Config) -> Result<(), Impossible> {
    pool(config)?;
    geometry(config)?;
    brokers(config)?;
    sequencer(config)?;
    connections(config)?;
    threads(config)?;
    liveness(config)?;
    topics(config)
}

fn pool(config: &Config) -> Result<(), Impossible> {
    if !config.pool.path.is_absolute() {
        let path = config.pool.path.display();
        return impossible(
            "pool.path",
            format!("`{path}`"),
            "an absolute path: all processes of the pool must mean the same file",
        );
    }
    if let Some(bytes) = config.pool.bytes
        && !(POOL_BYTES_MIN..=POOL_BYTES_MAX).contains(&bytes)
    {
        let (least, most) = (format_bytes(POOL_BYTES_MIN), format_bytes(POOL_BYTES_MAX));
        let expected = format!("auto, or at least {least} and at most {most}");
        return impossible("pool.bytes", format_bytes(bytes), expected);
    }
    let hosts = config.geometry.hosts;
    if config.pool.coherence == CoherenceMode::Hardware && hosts > 1 && !config.pool.hosts_are_coherent {
        let expected = "software; or, if the pool's hardware keeps the caches of all hosts in agreement (CXL 3 with back-invalidation), `hosts_are_coherent: true` beside it";
        return impossible("pool.coherence", format!("hardware with {hosts} hosts"), expected);
    }
    Ok(())
}

/// Batches of a publisher's largest window.
const WINDOW_ENTRIES: u32 = 256;

fn geometry(config: &Config) -> Result<(), Impossible> {
    let geometry = &config.geometry;
    within("geometry.hosts", geometry.hosts, 1, HOSTS_MAX)?;
    within("geometry.lanes_per_broker", geometry.lanes_per_broker, 1, LANES_MAX)?;
    power_of_two("geometry.ring_slots", geometry.ring_slots, RING_SLOTS_MIN, RING_SLOTS_MAX)?;
    let extent = geometry.extent_bytes;
    if !extent.is_power_of_two() || !(EXTENT_BYTES_MIN..=EXTENT_BYTES_MAX).contains(&extent) {
        let (least, most) = (format_bytes(EXTENT_BYTES_MIN), format_bytes(EXTENT_BYTES_MAX));
        return impossible("geometry.extent_bytes", format_bytes(extent), format!("a power of two, {least} to {most}"));
    }
    // A window that came in back to front is appended at once, and four segments are kept apart: less would hold it for ever.
    let entries_min = SEGMENT_ENTRIES_MIN.max(WINDOW_ENTRIES);
    power_of_two("geometry.segment_entries", geometry.segment_entries, entries_min, SEGMENT_ENTRIES_MAX)?;
    within("geometry.segments", geometry.segments, SEGMENTS_PER_CANDIDATE_MIN, SEGMENTS_PER_CANDIDATE_MAX)?;
    within("geometry.sessions_max", geometry.sessions_max, 1, SESSIONS_MAX)?;
    within("geometry.topics_max", geometry.topics_max, 1, TOPICS_MAX)?;
    within("geometry.cursors_max", geometry.cursors_max, 1, CURSORS_MAX)?;
    let topics = config.topics.len();
    if topics > geometry.topics_max as usize {
        return impossible(
            "geometry.topics_max",
            geometry.topics_max,
            format!("at least the {topics} topics listed under `topics`"),
        );
    }
    Ok(())
}

fn brokers(config: &Config) -> Result<(), Impossible> {
    let (count, hosts) = (config.brokers.len(), config.geometry.hosts);
    if count == 0 || count > BROKERS_MAX as usize {
        let expected = format!("1 to {BROKERS_MAX}: list each as {{ address: \"127.0.0.1:7300\" }}");
        return impossible("brokers", format!("a list of {count}"), expected);
    }
    let mut taken = BTreeSet::new();
    for (index, broker) in config.brokers.iter().enumerate() {
        let key = |name: &str| format!("brokers[{index}].{name}");
        if broker.host >= hosts {
            return impossible(key("host"), broker.host, format!("less than geometry.hosts, which is {hosts}"));
        }
        // Two hosts may both listen on 0.0.0.0:7300; what clients connect to must differ.
        if !taken.insert((broker.host, broker.address.to_string())) || !taken.insert((u32::MAX, broker.advertised())) {
            return impossible(key("address"), broker.advertised(), "an address and port no other broker has");
        }
        address(broker, key)?;
    }
    places(config)
}

/// Lanes of all places for brokers, and of those for attached publishers.
fn places(config: &Config) -> Result<(), Impossible> {
    let (geometry, hosts) = (&config.geometry, config.geometry.hosts);
    let of_host = config.brokers_per_host();
    if of_host * hosts > BROKERS_MAX || of_host == 0 {
        let expected = format!("1 to {}: a pool has places for {BROKERS_MAX} brokers in all", BROKERS_MAX / hosts);
        return impossible("geometry.brokers_per_host", of_host, expected);
    }
    let listed = config.listed_per_host();
    if of_host < listed {
        let expected = format!("at least {listed}: that many are listed of one host under `brokers`");
        return impossible("geometry.brokers_per_host", of_host, expected);
    }
    let count = of_host * hosts;
    let lanes = u64::from(geometry.lanes_per_broker) * u64::from(count);
    if lanes > LANES_MAX.into() {
        let found = format!("{}, which makes {lanes} lanes of {count} brokers", geometry.lanes_per_broker);
        return impossible("geometry.lanes_per_broker", found, format!("at most {LANES_MAX} lanes in all"));
    }
    let attached = u64::from(geometry.attached_per_broker) * u64::from(count);
    if lanes + attached > LANES_MAX.into() {
        let found = format!("{}, which makes {attached} places", geometry.attached_per_broker);
        let expected = format!("at most {LANES_MAX} lanes in all, of which {lanes} are receive cores'");
        return impossible("geometry.attached_per_broker", found, expected);
    }
    Ok(())
}

fn address(broker: &BrokerConfig, key: impl Fn(&str) -> String) -> Result<(), Impossible> {
    if broker.address.port() == 0 {
        return impossible(key("address"), broker.address, "a port from 1 to 65535: clients are told it");
    }
    match &broker.advertise {
        None if broker.address.ip().is_unspecified() => impossible(
            key("address"),
            broker.address,
            "an `advertise: \"host:port\"` beside it, since nobody can connect to the unspecified address",
        ),
        Some(advertise) if !is_address(advertise) => impossible(
            key("advertise"),
            format!("`{advertise}`"),
            "host:port, with a port from 1 to 65535 and at most 255 bytes",
        ),
        _ => Ok(()),
    }
}

fn sequencer(config: &Config) -> Result<(), Impossible> {
    let sequencer = &config.sequencer;
    within("sequencer.candidates", config.candidates(), 1, CANDIDATES_MAX)?;
    duration("sequencer.session_lease", sequencer.session_lease, 10 * MILLISECOND, HOUR)?;
    duration("sequencer.session_expiry", sequencer.session_expiry, SECOND, 30 * DAY)?;
    if sequencer.session_expiry < sequencer.session_lease {
        let expected =
            format!("at least sequencer.session_lease, which is {}", format_duration(sequencer.session_lease));
        return impossible("sequencer.session_expiry", format_duration(sequencer.session_expiry), expected);
    }
    duration("sequencer.takeover_after", sequencer.takeover_after, 10 * MILLISECOND, HOUR)?;
    duration("sequencer.takeover_settle", sequencer.takeover_settle, Duration::ZERO, 60 * SECOND)
}

fn connections(config: &Config) -> Result<(), Impossible> {
    let receive = &config.receive;
    within("receive.connections_max", receive.connections_max, 1, CONNECTIONS_MAX)?;
    let (least, most) = (RECEIVE_BYTES_LEAST, RECEIVE_BYTES_MOST);
    if !(least..=most).contains(&receive.receive_bytes_max) {
        let expected = format!("{} to {}", format_bytes(least), format_bytes(most));
        return impossible("receive.receive_bytes_max", format_bytes(receive.receive_bytes_max), expected);
    }
    duration("receive.hello_timeout", receive.hello_timeout, MILLISECOND, HOUR)?;
    duration("receive.idle_release", receive.idle_release, MILLISECOND, HOUR)?;
    within("export.connections_max", config.export.connections_max, 1, CONNECTIONS_MAX)?;
    per_address(config)?;
    within("export.batches_per_send", config.export.batches_per_send, 1, BATCHES_PER_SEND_MAX)?;
    duration("export.reader_stall", config.export.reader_stall, 10 * MILLISECOND, DAY)?;
    duration("export.reader_wait_max", config.export.reader_wait_max, Duration::ZERO, DAY)?;
    duration("export.return_grace", config.export.return_grace, Duration::ZERO, 60 * SECOND)?;
    duration("export.reader_grace", config.export.reader_grace, MILLISECOND, HOUR)
}

/// Most openings of one address, a second and at once, and heartbeats a second, that can be told apart.
const OPENINGS_MAX: u32 = 1_000_000;

fn per_address(config: &Config) -> Result<(), Impossible> {
    let per_address = &config.per_address;
    for (key, found) in [
        ("per_address.connections", per_address.connections),
        ("per_address.sessions", per_address.sessions),
        ("per_address.topics", per_address.topics),
        ("per_address.cursors", per_address.cursors),
    ] {
        if found == Some(0) {
            return impossible(key, 0, "auto, or at least 1");
        }
    }
    within("per_address.openings", per_address.openings, 0, OPENINGS_MAX)?;
    within("per_address.heartbeats", per_address.heartbeats, 0, OPENINGS_MAX)?;
    within("per_address.openings_at_once", per_address.openings_at_once.unwrap_or(1), 1, OPENINGS_MAX)
}

fn liveness(config: &Config) -> Result<(), Impossible> {
    let silence = config.liveness.member_silence;
    duration("liveness.member_silence", silence, 100 * MILLISECOND, HOUR)?;
    duration("liveness.heartbeat", config.liveness.heartbeat, 10 * MILLISECOND, 60 * SECOND)?;
    if config.liveness.client_silence > Duration::ZERO {
        duration("liveness.client_silence", config.liveness.client_silence, SECOND, DAY)?;
    }
    if silence < RESTS_OF_SILENCE * config.rested_threads().rest_max {
        let rest_max = format_duration(config.rested_threads().rest_max);
        let expected = format!("at least {RESTS_OF_SILENCE} times threads.rest_max, which is {rest_max}");
        return impossible("liveness.member_silence", format_duration(silence), expected);
    }
    Ok(())
}

/// Longest rests of a thread that fit the silence after which it is taken for dead.
const RESTS_OF_SILENCE: u32 = 8;

fn threads(config: &Config) -> Result<(), Impossible> {
    let threads = &config.threads;
    duration("threads.spin_for", threads.spin_for, Duration::ZERO, SECOND)?;
    duration("threads.park_min", threads.park_min, MICROSECOND, SECOND)?;
    duration("threads.park_max", threads.park_max, MICROSECOND, SECOND)?;
    duration("threads.rest_max", threads.rest_max, MICROSECOND, SECOND)?;
    if threads.park_max < threads.park_min {
        let expected = format!("at least threads.park_min, which is {}", format_duration(threads.park_min));
        return impossible("threads.park_max", format_duration(threads.park_max), expected);
    }
    let Some(cores) = &threads.cores else {
        return Ok(());
    };
    if cores.is_empty() {
        return impossible("threads.cores", "an empty list", "auto, or at least one core");
    }
    let mut seen = BTreeSet::new();
    for (index, core) in cores.iter().enumerate() {
        if !seen.insert(core) || *core >= CORES_MAX {
            return impossible(
                format!("threads.cores[{index}]"),
                core,
                format!("a core below {CORES_MAX}, each at most once"),
            );
        }
    }
    Ok(())
}

fn topics(config: &Config) -> Result<(), Impossible> {
    duration("retention.age", config.retention.age, Duration::ZERO, AGE_MAX)?;
    let mut names = BTreeSet::new();
    for (index, topic) in config.topics.iter().enumerate() {
        let key = |name: &str| format!("topics[{index}].{name}");
        if check_topic_name(topic.name.as_bytes()).is_err() {
            let found = format!("{:?}, {} bytes", topic.name, topic.name.len());
            let expected = format!("1 to {TOPIC_NAME_BYTES_MAX} bytes of UTF-8 without control characters");
            return impossible(key("name"), found, expected);
        }
        if !names.insert(&topic.name) {
            return impossible(key("name"), format!("`{}`", topic.name), "a name no other topic has");
        }
        duration(&key("retention.age"), topic.retention.age, Duration::ZERO, AGE_MAX)?;
        levels(topic, key)?;
    }
    Ok(())
}

fn levels(topic: &TopicConfig, key: impl Fn(&str) -> String) -> Result<(), Impossible> {
    if topic.ack == AckLevel::Durable {
        let expected = match topic.replicas {
            0 | 1 => {
                "0 or 1: level 2 means that replicas have synced the batch, and with fewer than 2 replicas there are none"
            }
            _ => "0 or 1: level 2, durable acks, is not in this release",
        };
        return impossible(key("ack"), topic.ack, expected);
    }
    if topic.order == OrderLevel::Session && topic.ack == AckLevel::None {
        return impossible(key("ack"), topic.ack, "1: order level 5 resends what is not acked, so it needs acks");
    }
    if topic.replicas != 1 {
        return impossible(
            key("replicas"),
            topic.replicas,
            "1, the copy in the pool: replicas are not in this release",
        );
    }
    Ok(())
}
