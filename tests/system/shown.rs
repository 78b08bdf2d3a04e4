//! What a running broker shows of itself to scrapers: that it is written as they read it, and that it is true.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;

use embarcadero::config::MonitorAddress;
use embarcadero::monitor::diagnosis::Cause;
use embarcadero::wire::{OrderLevel, Receipts};
use embarcadero::{Start, Subscriber};
use serde_json::Value;

use crate::exposition::{Family, read};
use crate::harness::{LIMIT, Setup, Site, wait_for};
use crate::load::{Load, ROOMY, TOPIC, read_all};

type Families = BTreeMap<String, Family>;

/// A site that shows itself at a port of its own.
fn site(name: &str) -> Site {
    let mut site = Site::new(name, &Setup { pool: "bytes: 64MiB", ..ROOMY });
    site.config.monitor.address = MonitorAddress::At("127.0.0.1:0".parse().unwrap());
    site
}

fn get(address: SocketAddr, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect_timeout(&address, LIMIT).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head has an end");
    (head.to_owned(), body.to_owned())
}

fn scrape(address: SocketAddr) -> Families {
    let (head, body) = get(address, "/metrics");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.contains("\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"), "{head}");
    read(&body).unwrap_or_else(|fault| panic!("{fault}\n{body}"))
}

/// Over all labels, of a part of a family.
fn sum(families: &Families, family: &str, suffix: &str) -> f64 {
    let name = format!("{family}{suffix}");
    families[family].samples.iter().filter(|sample| sample.name == name).map(|sample| sample.value).sum()
}

/// Everything that only grows, by its name and labels.
fn growing(families: &Families) -> BTreeMap<String, f64> {
    let families = families.values().filter(|family| family.kind != "gauge");
    let samples = families.flat_map(|family| &family.samples);
    samples.map(|sample| (format!("{}{:?}", sample.name, sample.labels), sample.value)).collect()
}

#[test]
fn metrics_are_written_as_scrapers_read_them_and_are_true() {
    let site = site("shown");
    let brokers = site.start();
    let address = brokers.shown_at().expect("it was asked for in so many words");
    site.create_topic(TOPIC, OrderLevel::Session, Receipts::Batch);
    let early = scrape(address);
    let load = Load::start_at(site.publisher(TOPIC), 1, std::time::Duration::from_millis(2));
    load.wait_for_more(500, "at first");
    let between = wait_for("acks in the metrics", || {
        let now = scrape(address);
        (sum(&now, "embarcadero_ack_acked_messages_total", "") > 0.0).then_some(now)
    });
    let (messages, publisher) = load.finish();
    drop(publisher);
    read_all(&site, 1, messages);
    let last = wait_for("all of it in the metrics", || {
        let now = scrape(address);
        let is_all = sum(&now, "embarcadero_ack_acked_messages_total", "") == messages as f64
            && sum(&now, "embarcadero_export_delivered_messages_total", "") == messages as f64
            && sum(&now, "embarcadero_topic_ordered_messages_total", "") == messages as f64;
        is_all.then_some(now)
    });
    let batches = sum(&last, "embarcadero_receive_published_batches_total", "");
    assert!(batches > 0.0 && sum(&last, "embarcadero_sequencer_appended_batches_total", "") == batches);
    assert_eq!(sum(&last, "embarcadero_topic_delivered_messages_total", ""), messages as f64);
    for stage in ["publishing", "ordering", "committing", "acking", "to_ack", "delivering", "to_delivery"] {
        let times = format!("embarcadero_batch_{stage}_seconds");
        assert_eq!(sum(&last, &times, "_count"), batches, "{times}");
        let seconds = sum(&last, &times, "_sum");
        assert!(seconds > 0.0 && seconds < batches * LIMIT.as_secs_f64(), "{times}: {seconds} s");
    }
    let up: Vec<_> =
        last["embarcadero_broker_up"].samples.iter().map(|one| (one.labels["broker"].as_str(), one.value)).collect();
    assert_eq!(up, [("0", 1.0), ("1", 1.0), ("2", 1.0), ("3", 1.0)]);
    for (earlier, later) in [(&early, &between), (&between, &last)] {
        let later = growing(later);
        for (name, value) in growing(earlier) {
            assert!(later[&name] >= value, "{name} was {value} and is {}", later[&name]);
        }
    }
    brokers.stop();
}

/// Two of one process number, as in two containers, or on two hosts; here they even are one process. Whose the sequencer is, is told by who has its
/// place, not by the number.
#[test]
fn each_series_is_shown_by_one_of_two() {
    let sequencer = "candidates: 2, takeover_after: 5s, session_lease: 20s";
    let mut site = Site::new("shown-once", &Setup { brokers: 2, pool: "bytes: 64MiB", sequencer, ..ROOMY });
    site.config.monitor.address = MonitorAddress::At("127.0.0.1:0".parse().unwrap());
    let (first, second) = (site.start_some(vec![0]), site.start_some(vec![1]));
    let addresses = [&first, &second].map(|one| one.shown_at().unwrap());
    site.create_topic(TOPIC, OrderLevel::Session, Receipts::Batch);
    let has = |families: &Families, family: &str| families.contains_key(family);
    let [ours, theirs] = wait_for("both brokers, the sequencer and the topic in the metrics", || {
        let shown = addresses.map(scrape);
        let are_up = shown.iter().all(|families| has(families, "embarcadero_broker_up"));
        let is_topic_there = shown.iter().any(|families| has(families, "embarcadero_topic_orders_total"));
        (are_up && is_topic_there).then_some(shown)
    });
    let [ours_named, theirs_named] =
        [&ours, &theirs].map(|families| growing(families).into_keys().collect::<BTreeSet<_>>());
    assert_eq!(ours_named.intersection(&theirs_named).collect::<Vec<_>>(), Vec::<&String>::new());
    assert!(has(&ours, "embarcadero_sequencer_up") && !has(&theirs, "embarcadero_sequencer_up"));
    first.stop();
    wait_for("the sequencer in the other's metrics", || {
        has(&scrape(addresses[1]), "embarcadero_sequencer_up").then_some(())
    });
    second.stop();
}

/// A label's value is a topic's name, and that is its owner's choice.
#[test]
fn a_topic_of_any_name_is_a_label() {
    let site = site("shown-names");
    let brokers = site.start();
    let address = brokers.shown_at().unwrap();
    let names = ["a\"b", "c\\d", "é", "{x=\"1\"} 5"];
    let taken: BTreeSet<&str> = names
        .into_iter()
        .filter(|name| site.try_create_topic(name, embarcadero::TopicProperties::default()).is_ok())
        .collect();
    site.create_topic(TOPIC, OrderLevel::Session, Receipts::Batch);
    wait_for("topics in the metrics", || {
        let families = scrape(address);
        let shown = families.get("embarcadero_topic_orders_total")?;
        let shown: BTreeSet<&str> = shown.samples.iter().map(|sample| sample.labels["topic"].as_str()).collect();
        (shown.contains(TOPIC) && taken.is_subset(&shown)).then_some(())
    });
    brokers.stop();
}

#[test]
fn each_metric_that_a_finding_names_is_there() {
    let site = site("shown-causes");
    let brokers = site.start();
    let address = brokers.shown_at().unwrap();
    wait_for("the sequencer and a thread in the metrics", || {
        let families = scrape(address);
        let is_there = |name: &&str| families.contains_key(*name);
        ["embarcadero_sequencer_epoch", "embarcadero_thread_passes_total"].iter().all(is_there).then_some(())
    });
    // A lane is there from its first writer on.
    site.create_topic(TOPIC, OrderLevel::Session, Receipts::Batch);
    let families = scrape(address);
    for cause in Cause::ALL {
        assert!(families.contains_key(cause.metric()), "{cause:?}: {} is no metric", cause.metric());
    }
    let names: BTreeSet<&str> = Cause::ALL.iter().map(|cause| cause.name()).collect();
    assert_eq!(names.len(), Cause::ALL.len() - 1, "each has its own words, but for clients far away on either side");
    brokers.stop();
}

#[test]
fn a_process_says_whether_it_lives_and_serves() {
    let site = site("shown-health");
    let brokers = site.start();
    let address = brokers.shown_at().unwrap();
    wait_for("it to be ready", || get(address, "/readyz").0.starts_with("HTTP/1.1 200 OK").then_some(()));
    let (head, body) = get(address, "/healthz");
    assert!(head.starts_with("HTTP/1.1 200 OK") && body == "ok\n", "{head}: {body}");
    let (head, body) = get(address, "/nowhere");
    assert!(head.starts_with("HTTP/1.1 404 ") && body.contains("/metrics"), "{head}: {body}");
    brokers.stop();
}

/// Words that begin as our metrics do.
fn metrics_in(text: &str) -> BTreeSet<&str> {
    let words = text.split(|character: char| !character.is_ascii_alphanumeric() && character != '_');
    words.filter(|word| word.starts_with("embarcadero_")).collect()
}

/// All expressions of a dashboard or of rules, wherever they stand.
fn expressions(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => fields.iter().for_each(|(name, value)| match value {
            Value::String(text) if ["expr", "query"].contains(&name.as_str()) => found.push(text.clone()),
            value => expressions(value, found),
        }),
        Value::Array(values) => values.iter().for_each(|value| expressions(value, found)),
        _ => {}
    }
}

#[test]
fn dashboard_and_alerts_ask_for_metrics_that_are_there() {
    let site = site("shown-config");
    let brokers = site.start();
    let address = brokers.shown_at().unwrap();
    site.create_topic(TOPIC, OrderLevel::Session, Receipts::Batch);
    let subscriber = Subscriber::connect(site.subscriber(TOPIC, 1, Start::Earliest)).unwrap();
    let families = wait_for("a topic and its subscriber in the metrics", || {
        let families = scrape(address);
        let is_there = |family| families.contains_key(family);
        (is_there("embarcadero_topic_orders_total") && is_there("embarcadero_topic_behind_messages"))
            .then_some(families)
    });
    drop(subscriber);
    brokers.stop();
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let text = |name: &str| std::fs::read_to_string(config.join(name)).unwrap();
    let dashboard: Value = serde_json::from_str(&text("grafana/embarcadero.json")).unwrap();
    let alerts: Value = serde_yaml::from_str(&text("prometheus/alerts.yaml")).unwrap();
    for (what, least, value) in [("the dashboard", 40, dashboard), ("the alerts", 8, alerts)] {
        let mut found = Vec::new();
        expressions(&value, &mut found);
        let named: BTreeSet<&str> = found.iter().flat_map(|expression| metrics_in(expression)).collect();
        assert!(named.len() >= least, "{what}: {named:?}");
        for name in named {
            let of_histogram = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
            let is_there = families.get(name).is_some_and(|family| family.kind != "histogram")
                || of_histogram.and_then(|name| families.get(name)).is_some_and(|family| family.kind == "histogram");
            assert!(is_there, "{what} asks for {name}");
        }
        // Whatever else is typed there is no metric that an expression would have missed.
        let elsewhere = value.to_string();
        assert!(
            metrics_in(&elsewhere).iter().all(|name| found.iter().any(|expression| expression.contains(name))),
            "{what}"
        );
    }
}
