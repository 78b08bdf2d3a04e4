//! Whole configurations: good ones read back, bad ones are refused with file, line and remedy.

use std::path::Path;

use super::*;
use crate::config::file::every_key;
use crate::wire::{AckLevel, OrderLevel, Receipts};
use locate::{collect_paths, line_of, path, steps};

const MANUAL: &str = include_str!("../../config/embarcadero.yaml");
const CXL: &str = include_str!("../../config/cxl-64-core.yaml");
const TWO_HOSTS: &str = include_str!("../../config/cxl-two-hosts.yaml");
const SMALL: &str = "brokers: [{ address: \"127.0.0.1:7300\" }]\n";

fn good(text: &str) -> Config {
    Config::parse(text, "test.yaml").unwrap_or_else(|error| panic!("{error}"))
}

/// What `SMALL` plus `text` is refused with; `text` begins on line 2.
fn refusal(text: &str) -> String {
    match Config::parse(&format!("{SMALL}{text}"), "test.yaml") {
        Ok(_) => panic!("accepted: {text}"),
        Err(error) => error.to_string(),
    }
}

/// What benches write is what they mean.
#[test]
fn instructions_are_called_what_they_print() {
    for each in crate::processor::Instructions::EVERY {
        assert_eq!(good(&format!("instructions: {each}")).instructions, each);
        assert_eq!(each.to_string().parse(), Ok(each));
    }
}

#[test]
fn rests_are_no_longer_than_others_have_patience() {
    let rest_ms = |text: &str| good(text).rested_threads().rest_max.as_millis();
    assert_eq!(rest_ms(SMALL), 10);
    assert_eq!(rest_ms("sequencer: { takeover_after: 40ms }"), 5);
    assert_eq!(rest_ms("sequencer: { takeover_after: 10ms }\nthreads: { park_max: 2ms }"), 2);
    assert_eq!(rest_ms("liveness: { heartbeat: 20ms }"), 5);
}

#[test]
fn the_files_in_config_are_good() {
    let two_core = Config::embedded();
    assert_eq!(two_core.brokers.len(), 4);
    assert_eq!(two_core.brokers[3].address.to_string(), "127.0.0.1:7303");
    assert_eq!(two_core.threads.mode, ThreadMode::Shared);
    let cxl = good(CXL);
    assert_eq!((cxl.pool.create, cxl.threads.mode), (Create::Never, ThreadMode::Dedicated));
    let two_hosts = good(TWO_HOSTS);
    assert_eq!((two_hosts.geometry.hosts, two_hosts.candidates(), two_hosts.brokers_per_host()), (2, 4, 4));
    assert!(two_hosts.brokers.iter().all(|broker| broker.host == 0));
    // The other host's is the same but for the number and the addresses.
    let other = good(&TWO_HOSTS.replace("host: 0", "host: 1").replace("host-0:", "host-1:"));
    assert_eq!((other.geometry, other.sequencer), (two_hosts.geometry, two_hosts.sequencer));
    assert_eq!(other.brokers[1].advertise.as_deref(), Some("host-1:7301"));
    good(MANUAL);
}

#[test]
fn the_manual_shows_every_key_with_its_default_and_a_comment() {
    let mut paths = Vec::new();
    collect_paths(&every_key(), &mut Vec::new(), &mut paths);
    let lines: Vec<&str> = MANUAL.lines().collect();
    for steps in &paths {
        let path = path(steps);
        let line = line_of(MANUAL, steps).unwrap_or_else(|| panic!("the manual lacks {path}"));
        let text = lines[line - 1];
        let Some(locate::Step::Key(name)) = steps.last() else { panic!("{path} ends in an item") };
        assert!(
            text.trim_start_matches([' ', '-']).starts_with(&format!("{name}:")),
            "the manual lacks {path}, line {line} is {text}"
        );
        let above = lines[..line - 1].last().is_some_and(|above| above.trim_start().starts_with('#'));
        assert!(above, "the manual has no comment above {path}, line {line}");
    }
    // Written out or left out, every value but the examples is the same.
    let manual = good(MANUAL);
    let left_out = Config { topics: manual.topics.clone(), ..Config::default() };
    assert_eq!(manual, left_out);
}

#[test]
fn the_effective_configuration_reads_back() {
    for text in [EMBEDDED, CXL, MANUAL, SMALL] {
        let config = good(text);
        let effective = config.effective();
        assert_eq!(good(&effective), config, "{effective}");
        assert_eq!(good(&effective).effective(), effective);
    }
    let odd = good(&format!(
        "{SMALL}pool: {{ bytes: 1000000000 }}\nsequencer: {{ session_lease: 1500ms }}\nthreads: {{ cores: [0, 3], spin_for: 0s }}\n\
         topics: [{{ name: \"5\", order: 0, ack: 0, receipts: message }}]\nreceive: {{ receive_bytes_max: 4MB }}"
    ));
    assert_eq!(odd.topics[0].receipts, Receipts::Message);
    assert_eq!(good(&odd.effective()), odd, "{}", odd.effective());
}

#[test]
fn what_is_left_out_has_its_default() {
    let config = good(&format!("{SMALL}topics: [{{ name: a }}]"));
    assert_eq!((config.topics[0].order, config.topics[0].ack), (OrderLevel::Session, AckLevel::Committed));
    assert_eq!(config.pool, PoolConfig::default());
    assert_eq!(config.brokers[0].advertised(), "127.0.0.1:7300");
    assert_eq!(good("log: info"), good(SMALL), "the list of brokers too");
    // As some editors save it.
    assert_eq!(good(&format!("\u{feff}{SMALL}")), good(SMALL));
}

#[test]
fn unknown_keys_are_refused_with_the_nearest() {
    for (text, expected) in [
        ("pol: {}", "test.yaml:2: unknown key `pol`; did you mean `pool`?"),
        (
            "geometry:\n  ring_slots: 64\n  ring_slot: 64",
            "test.yaml:4: unknown key `geometry.ring_slot`; did you mean `ring_slots`?",
        ),
        ("ring_slots: 64", "test.yaml:2: unknown key `ring_slots`; did you mean `geometry.ring_slots`?"),
        (
            "topics:\n  - name: a\n  - name: b\n    acks: 1",
            "test.yaml:5: unknown key `topics[1].acks`; did you mean `ack`?",
        ),
        ("retention: { hours: 3 }", "test.yaml:2: unknown key `retention.hours`; known here: bytes, age"),
        (
            "topics: [{ name: a, retention: { hours: 3 } }]",
            "test.yaml:2: unknown key `topics[0].retention.hours`; known here: bytes, age",
        ),
        ("1: 2", "test.yaml:2: unknown key `1`;"),
    ] {
        let refusal = refusal(text);
        assert!(refusal.starts_with(expected), "{refusal}");
    }
}

#[test]
fn wrong_types_are_refused_with_what_is_expected() {
    for (text, parts) in [
        (
            "geometry:\n  ring_slots: many",
            &["test.yaml:3", "geometry.ring_slots", "many", "expected a whole number from 0 to 4294967295"][..],
        ),
        ("geometry: { hosts: -1 }", &["test.yaml:2", "geometry.hosts", "-1", "expected a whole number"]),
        (
            "geometry: { attached_per_broker: 70000 }",
            &["test.yaml:2", "geometry.attached_per_broker", "70000", "0 to 65535"],
        ),
        ("sequencer: { candidates: one }", &["test.yaml:2", "sequencer.candidates", "one", "auto or a whole number"]),
        ("sequencer: { candidates: [0] }", &["test.yaml:2", "sequencer.candidates", "auto or a whole number"]),
        ("threads: { cores: [x] }", &["test.yaml:2", "threads.cores", "x", "a whole number"]),
        ("export: { batches_per_send: 1.5 }", &["test.yaml:2", "export.batches_per_send", "1.5", "a whole number"]),
        ("pool:\n  bytes: 8 mib", &["test.yaml:3", "pool.bytes", "8 mib", "expected a size"]),
        ("pool:\n  bytes: [1]", &["test.yaml:3", "pool.bytes", "sequence", "expected auto or a size"]),
        ("pool:\n  populate: 1", &["test.yaml:3", "pool.populate", "1", "expected a boolean"]),
        ("sequencer:\n  session_lease: 5", &["test.yaml:3", "sequencer.session_lease", "write 5s, 5ms or 5us"]),
        ("threads:\n  idle: sleep", &["test.yaml:3", "threads.idle", "sleep", "`park`"]),
        ("threads:\n  cores: all", &["test.yaml:3", "threads.cores", "all", "expected auto or a list"]),
        ("topics:\n  - { name: a, order: 3 }", &["test.yaml:3", "topics[0].order", "3", "one of 0, 1, 2, 4, 5"]),
        ("topics:\n  - { order: 5 }", &["test.yaml:3", "topics[0]", "missing field `name`"]),
        ("pool: none", &["test.yaml:2", "pool", "none", "expected a section"]),
    ] {
        let refusal = refusal(text);
        for part in parts {
            assert!(refusal.contains(part), "{refusal:?} lacks {part:?}");
        }
    }
}

#[test]
fn what_is_not_a_configuration_is_refused() {
    for (text, parts) in [
        ("", &["bad.yaml", "no `key: value`"][..]),
        ("- a\n- b", &["bad.yaml", "no `key: value`"]),
        ("pool: {", &["bad.yaml:", "not a YAML"]),
        ("log: info\nlog: warn", &["bad.yaml", "duplicate"]),
        ("log: info\n---\nlog: warn", &["bad.yaml", "more than one document"]),
        ("brokers: []", &["bad.yaml", "`brokers` is a list of 0", "list each as"]),
    ] {
        let refusal = Config::parse(text, "bad.yaml").unwrap_err().to_string();
        for part in parts {
            assert!(refusal.contains(part), "{refusal:?} lacks {part:?}");
        }
    }
    let endless = Config::load(Path::new("/dev/zero")).unwrap_err().to_string();
    assert!(endless.contains("more than the 1048576 bytes"), "{endless}");
    let absent = Config::load(Path::new("/nowhere/embarcadero.yaml")).unwrap_err();
    assert!(matches!(&absent, ConfigError::Read { file, .. } if file == "/nowhere/embarcadero.yaml"), "{absent}");
}

#[test]
fn impossible_values_are_refused_with_line_and_remedy() {
    for (text, expected) in [
        ("pool: { path: shm }", "test.yaml:2: `pool.path` is `shm`, expected an absolute path"),
        (
            "pool:\n  bytes: 15MiB",
            "test.yaml:3: `pool.bytes` is 15MiB, expected auto, or at least 16MiB and at most 64TiB",
        ),
        ("pool: { bytes: 99999TiB }", "test.yaml:2: `pool.bytes` is 99999TiB, expected auto, or at least 16MiB and at"),
        (
            "pool:\n  coherence: hardware\ngeometry: { hosts: 2 }",
            "test.yaml:3: `pool.coherence` is hardware with 2 hosts, expected software; or, if the pool's hardware",
        ),
        ("geometry:\n  ring_slots: 100", "test.yaml:3: `geometry.ring_slots` is 100, expected a power of two, 64 to"),
        ("geometry: { ring_slots: 32 }", "test.yaml:2: `geometry.ring_slots` is 32,"),
        ("geometry: { extent_bytes: 3MiB }", "test.yaml:2: `geometry.extent_bytes` is 3MiB, expected a power of two"),
        ("geometry: { segments: 3 }", "test.yaml:2: `geometry.segments` is 3, expected 4 to 4096"),
        (
            "geometry: { segment_entries: 128 }",
            "test.yaml:2: `geometry.segment_entries` is 128, expected a power of two, 256",
        ),
        ("geometry: { hosts: 0 }", "test.yaml:2: `geometry.hosts` is 0, expected 1 to 64"),
        ("geometry: { topics_max: 1 }\ntopics: [{ name: a }, { name: b }]", "test.yaml:2: `geometry.topics_max` is 1,"),
        ("sequencer: { candidates: 0 }", "test.yaml:2: `sequencer.candidates` is 0, expected 1 to 4"),
        ("geometry: { brokers_per_host: 65 }", "test.yaml:2: `geometry.brokers_per_host` is 65, expected 1 to 64"),
        (
            "geometry: { hosts: 2, brokers_per_host: 33 }",
            "test.yaml:2: `geometry.brokers_per_host` is 33, expected 1 to 32",
        ),
        (
            "sequencer: { session_lease: 1m, session_expiry: 30s }",
            "test.yaml:2: `sequencer.session_expiry` is 30s, expected at least",
        ),
        ("sequencer: { takeover_after: 0s }", "test.yaml:2: `sequencer.takeover_after` is 0s, expected 10ms to 1h"),
        (
            "receive: { receive_bytes_max: 16MiB }",
            "test.yaml:2: `receive.receive_bytes_max` is 16MiB, expected 64KiB to 4MiB",
        ),
        ("receive: { connections_max: 0 }", "test.yaml:2: `receive.connections_max` is 0, expected 1 to 16384"),
        ("threads: { park_min: 2ms }", "test.yaml:2: `threads.park_max` is 1ms, expected at least threads.park_min"),
        ("threads: { cores: [1, 1] }", "test.yaml:2: `threads.cores[1]` is 1,"),
        ("threads: { cores: [] }", "test.yaml:2: `threads.cores` is an empty list"),
        (
            "topics: [{ name: a, ack: 2 }]",
            "test.yaml:2: `topics[0].ack` is 2, expected 0 or 1: level 2 means that replicas",
        ),
        (
            "topics: [{ name: a, ack: 2, replicas: 2 }]",
            "test.yaml:2: `topics[0].ack` is 2, expected 0 or 1: level 2, durable acks, is not in",
        ),
        ("topics: [{ name: a, replicas: 2 }]", "test.yaml:2: `topics[0].replicas` is 2, expected 1"),
        ("topics: [{ name: a, order: 5, ack: 0 }]", "test.yaml:2: `topics[0].ack` is 0, expected 1: order level 5"),
        ("topics: [{ name: a }, { name: a }]", "test.yaml:2: `topics[1].name` is `a`, expected a name no other"),
        ("topics: [{ name: \"\" }]", "test.yaml:2: `topics[0].name` is \"\", 0 bytes, expected 1 to 112 bytes"),
    ] {
        let refusal = refusal(text);
        assert!(refusal.starts_with(expected), "\n   found {refusal}\nexpected {expected}");
    }
}

#[test]
fn impossible_brokers_are_refused() {
    for (brokers, expected) in [
        (
            "[{ address: \"1.2.3.4:1\" }, { address: \"1.2.3.4:1\" }]",
            "`brokers[1].address` is 1.2.3.4:1, expected an address",
        ),
        ("[{ address: \"0.0.0.0:1\" }]", "`brokers[0].address` is 0.0.0.0:1, expected an `advertise"),
        ("[{ address: \"1.2.3.4:0\" }]", "`brokers[0].address` is 1.2.3.4:0, expected a port"),
        ("[{ address: \"0.0.0.0:1\", advertise: \"a b:1\" }]", "`brokers[0].advertise` is `a b:1`, expected host:port"),
        ("[{ address: \"0.0.0.0:1\", advertise: \"host\" }]", "`brokers[0].advertise` is `host`, expected host:port"),
        ("[{ host: 1, address: \"1.2.3.4:1\" }]", "`brokers[0].host` is 1, expected less than geometry.hosts"),
    ] {
        let refusal = Config::parse(&format!("brokers: {brokers}"), "b.yaml").unwrap_err().to_string();
        assert!(refusal.starts_with(&format!("b.yaml:1: {expected}")), "{refusal}");
    }
    let unresolved = Config::parse("brokers: [{ address: \"localhost:1\" }]", "b.yaml").unwrap_err().to_string();
    assert!(unresolved.starts_with("b.yaml:1: brokers[0].address: invalid socket address syntax"), "{unresolved}");
}

#[test]
fn the_last_broker_id_and_lane_count_are_bounded() {
    let list: Vec<String> = (0..64).map(|id| format!("{{ address: \"127.0.0.1:{}\" }}", 7300 + id)).collect();
    let text = format!("brokers: [{}]\ngeometry: {{ lanes_per_broker: 4 }}", list.join(", "));
    assert_eq!(good(&text).brokers.len(), 64);
    let refusal = Config::parse(&text.replace("broker: 4", "broker: 5"), "b.yaml").unwrap_err().to_string();
    assert!(refusal.contains("320 lanes of 64 brokers, expected at most 256"), "{refusal}");
}

/// Places are for those that may come; those that are listed have one each.
#[test]
fn there_is_a_place_for_every_broker_that_is_listed() {
    let two =
        "brokers: [{ address: \"1.2.3.4:1\" }, { address: \"1.2.3.4:2\" }, { host: 1, address: \"1.2.3.4:3\" }]\n";
    let with = |geometry: &str| Config::parse(&format!("{two}geometry: {{ hosts: 2{geometry} }}"), "b.yaml");
    assert_eq!(with("").unwrap().brokers_per_host(), 2);
    assert_eq!(with(", brokers_per_host: 7").unwrap().brokers_per_host(), 7);
    let refusal = with(", brokers_per_host: 1").unwrap_err().to_string();
    assert!(refusal.contains("`geometry.brokers_per_host` is 1, expected at least 2"), "{refusal}");
}

#[test]
fn automatic_pool_sizes() {
    let gib = 1u64 << 30;
    assert_eq!(auto_pool_bytes(8 * gib, 6 * gib), Ok(gib + gib / 2));
    assert_eq!(auto_pool_bytes(gib / 2, 6 * gib), Ok(320 << 20));
    assert_eq!(auto_pool_bytes(320 << 20, 384 << 20), Ok(320 << 20));
    assert_eq!(auto_pool_bytes(u64::MAX, u64::MAX), Ok(2 * gib));
    assert_eq!(auto_pool_bytes(3 * gib + 1, 64 * gib), Ok(768 << 20));
    assert!(auto_pool_bytes(64 * gib, 383 << 20).is_err(), "there is more than the pool in memory");
    let refused = auto_pool_bytes((320 << 20) - 1, 64 * gib).unwrap_err();
    assert!(refused.to_string().contains("335544319 bytes free"), "{refused}");
}

proptest::proptest! {
    #[test]
    fn no_text_panics(text in "([a-z]{1,5}: [0-9a-z\\[\\]{}&*,:\\n -]{0,12}\\n?){0,5}") {
        let _ = Config::parse(&text, "any.yaml");
    }

    #[test]
    fn no_damaged_manual_panics(at in 0..MANUAL.len(), with in "[ -~\\n]{0,3}") {
        if MANUAL.is_char_boundary(at) {
            let _ = Config::parse(&format!("{}{with}{}", &MANUAL[..at], &MANUAL[at..]), "damaged.yaml");
        }
    }
}

#[test]
fn steps_and_paths_of_the_schema_agree() {
    let mut paths = Vec::new();
    collect_paths(&every_key(), &mut Vec::new(), &mut paths);
    assert!(paths.len() > 50);
    for known in paths {
        assert_eq!(steps(&path(&known)), known);
    }
}
