//! `embarctl push`, against a collector of the test's own: that what arrives is OTLP as its JSON encoding has it, is true, and that what goes wrong is said.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use embarcadero::config::Config;
use embarcadero::embarlet::{Embarlet, StartOptions};
use embarcadero::{Publisher, PublisherOptions, TopicProperties};
use launch::configuration::Configuration;
use launch::place::own_address;
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(30);
const MESSAGES: u64 = 300;

/// A broker in this process with messages in its pool.
struct Place {
    embarlet: Option<Embarlet>,
    pool: PathBuf,
    page: SocketAddr,
}

impl Place {
    fn start(name: &str) -> Place {
        let pool = PathBuf::from("/dev/shm").join(format!("embarctl-push-{name}-{}", std::process::id()));
        let address = format!("{}:7300", own_address());
        let text = Configuration::new(&pool, "populate: false, bytes: 64MiB, create: if_missing")
            .section("geometry", "extent_bytes: 1MiB, ring_slots: 64, segment_entries: 256, segments: 8, sessions_max: 64, topics_max: 16")
            .brokers(&[&address])
            .section("monitor", "address: \"127.0.0.1:0\"")
            .text();
        let config = Config::parse(&text, "push.yaml").unwrap_or_else(|error| panic!("{error}\n{text}"));
        let options = StartOptions { brokers: vec![0], ..StartOptions::default() };
        let embarlet = Embarlet::start(&config, &options).unwrap_or_else(|error| panic!("{error}"));
        let page = embarlet.shown_at().expect("it was asked for");
        let options = PublisherOptions {
            brokers: vec![address],
            topic: "t \"quoted\"".to_owned(),
            create: Some(TopicProperties::default()),
            connect_timeout: LIMIT,
            ..PublisherOptions::default()
        };
        let mut publisher = Publisher::connect(options).unwrap();
        (0..MESSAGES).for_each(|number| publisher.send(&number.to_le_bytes()).unwrap());
        publisher.flush(LIMIT).unwrap();
        publisher.close(LIMIT).unwrap();
        let place = Place { embarlet: Some(embarlet), pool, page };
        let acked = format!("embarcadero_ack_acked_messages_total{{broker=\"0\"}} {MESSAGES}\n");
        launch::wait_for(LIMIT, || place.shown("/metrics").contains(&acked).then_some(()))
            .expect("all acks are counted");
        place
    }

    /// What its status page answers.
    fn shown(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.page).unwrap();
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(embarlet) = self.embarlet.take() {
            embarlet.stop();
            let _ = embarlet.join();
        }
        let _ = std::fs::remove_file(&self.pool);
    }
}

/// Hears one request, and answers.
struct Collector {
    listener: TcpListener,
}

impl Collector {
    fn start() -> Collector {
        Collector { listener: TcpListener::bind("127.0.0.1:0").unwrap() }
    }

    fn url(&self) -> String {
        format!("http://{}", self.listener.local_addr().unwrap())
    }

    /// The head of the next request, and its body.
    fn hear(&self, answer: &str) -> (String, Value) {
        let (mut stream, _) = self.listener.accept().unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let (mut head, mut byte) = (Vec::new(), [0]);
        while !head.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap();
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).expect("a length");
        let mut body = vec![0; length.parse().unwrap()];
        stream.read_exact(&mut body).unwrap();
        stream.write_all(answer.as_bytes()).unwrap();
        (head, serde_json::from_slice(&body).expect("JSON"))
    }
}

const TAKEN: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 21\r\n\r\n{\"partialSuccess\":{}}";

fn push(arguments: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_embarctl"));
    command.arg("push").args(arguments);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Its end; exit code and what it said.
fn end(mut child: Child) -> (Option<i32>, String) {
    let ended = launch::wait_for(LIMIT, || child.try_wait().unwrap());
    if ended.is_none() {
        let _ = child.kill();
    }
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    assert!(ended.is_some(), "it did not end: {}", String::from_utf8_lossy(&stderr));
    assert!(stdout.is_empty(), "{}", String::from_utf8_lossy(&stdout));
    (status.code(), String::from_utf8(stderr).unwrap())
}

fn attributes(of: &Value) -> BTreeMap<&str, &str> {
    let pairs = of["attributes"].as_array().expect("attributes").iter();
    pairs.map(|pair| (pair["key"].as_str().unwrap(), pair["value"]["stringValue"].as_str().unwrap())).collect()
}

/// A number of 64 bits: a text.
fn long(value: &Value) -> u64 {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text")).parse().unwrap()
}

/// Each metric with its values, of a request that is as the protocol wants it.
fn check(request: &Value, source: &str) -> BTreeMap<String, Vec<Value>> {
    let resources = request["resourceMetrics"].as_array().unwrap();
    assert_eq!(resources.len(), 1);
    let resource = attributes(&resources[0]["resource"]);
    assert_eq!((resource["service.name"], resource["embarcadero.source"]), ("embarcadero", source));
    let mut metrics = BTreeMap::new();
    for metric in resources[0]["scopeMetrics"][0]["metrics"].as_array().unwrap() {
        let name = metric["name"].as_str().unwrap();
        let unit = ["seconds", "bytes"].iter().find(|unit| name.trim_end_matches("_total").ends_with(*unit));
        assert_eq!(metric["unit"], unit.map_or("1", |unit| if *unit == "seconds" { "s" } else { "By" }), "{name}");
        assert!(!metric["description"].as_str().unwrap().is_empty(), "{name}");
        let kinds: Vec<&str> =
            ["sum", "gauge", "histogram"].into_iter().filter(|kind| !metric[kind].is_null()).collect();
        assert_eq!(kinds.len(), 1, "{metric}");
        let data = &metric[kinds[0]];
        assert_eq!(kinds[0] == "sum", name.ends_with("_total"), "{name}");
        assert_eq!(data["isMonotonic"] == true, kinds[0] == "sum", "{name}");
        assert_eq!(data["aggregationTemporality"] == 2, kinds[0] != "gauge", "{name}");
        let points = data["dataPoints"].as_array().unwrap();
        assert!(!points.is_empty(), "{name}");
        for point in points {
            check_point(name, kinds[0], point);
        }
        assert!(metrics.insert(name.to_owned(), points.clone()).is_none(), "{name} is there twice");
    }
    metrics
}

fn check_point(name: &str, kind: &str, point: &Value) {
    let at = long(&point["timeUnixNano"]);
    let labels = attributes(point);
    let is_of_broker = labels.contains_key("broker") && kind != "gauge";
    assert_eq!(is_of_broker, !point["startTimeUnixNano"].is_null(), "{name}: {point}");
    assert!(!is_of_broker || long(&point["startTimeUnixNano"]) < at, "{name}: {point}");
    if kind != "histogram" {
        return assert!(point["asDouble"].is_number(), "{name}: {point}");
    }
    let counts: Vec<u64> = point["bucketCounts"].as_array().unwrap().iter().map(long).collect();
    let bounds: Vec<f64> =
        point["explicitBounds"].as_array().unwrap().iter().map(|bound| bound.as_f64().unwrap()).collect();
    assert!(counts.len() == bounds.len() + 1 && bounds.is_sorted(), "{name}: {point}");
    assert_eq!(counts.iter().sum::<u64>(), long(&point["count"]), "{name}");
    assert!(point["sum"].as_f64().unwrap() >= 0.0, "{name}");
}

#[test]
fn a_collector_gets_what_a_scraper_would() {
    let place = Place::start("once");
    let collector = Collector::start();
    let page = format!("http://{}", place.page);
    let pool = place.pool.display().to_string();
    let to = format!("{}/some/path", collector.url());
    let child = push(&["--pool", &pool, "--to", &to, "--once"]);
    let (head, request) = collector.hear(TAKEN);
    assert_eq!(end(child), (Some(0), String::new()));
    assert!(head.starts_with("POST /some/path HTTP/1.0\r\n"), "{head}");
    assert!(head.contains("\r\nContent-Type: application/json\r\n"), "{head}");
    let of_pool = check(&request, &pool);
    let child = push(&["--from", &page, "--to", &collector.url(), "--once"]);
    let (head, request) = collector.hear(TAKEN);
    assert_eq!(end(child), (Some(0), String::new()));
    assert!(head.starts_with("POST /v1/metrics HTTP/1.0\r\n"), "{head}");
    let of_page = check(&request, &place.page.to_string());
    // Each that a scraper is given is there.
    let shown = place.shown("/metrics");
    let families: Vec<&str> = shown.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    let families: Vec<&str> = families.iter().filter_map(|line| line.split(' ').next()).collect();
    assert!(families.len() > 100 && families.len() == of_pool.len() && families.len() == of_page.len());
    for metrics in [&of_pool, &of_page] {
        assert!(families.iter().all(|name| metrics.contains_key(*name)));
        assert_eq!(metrics["embarcadero_ack_acked_messages_total"][0]["asDouble"].as_f64(), Some(MESSAGES as f64));
        let ordered = &metrics["embarcadero_topic_ordered_messages_total"][0];
        assert_eq!(
            (attributes(ordered)["topic"], ordered["asDouble"].as_f64()),
            ("t \"quoted\"", Some(MESSAGES as f64))
        );
        let times = &metrics["embarcadero_batch_to_ack_seconds"][0];
        let batches = metrics["embarcadero_ack_acked_batches_total"][0]["asDouble"].as_f64();
        assert!(long(&times["count"]) > 0 && Some(long(&times["count"]) as f64) == batches, "{times}");
    }
}

#[test]
fn what_goes_wrong_is_said() {
    let place = Place::start("wrong");
    let collector = Collector::start();
    let pool = place.pool.display().to_string();
    let push = |to: &str, more: &[&str]| push(&[&["--pool", &pool, "--to", to, "--once"], more].concat());
    let (code, said) = end(push("https://localhost:4318", &[]));
    assert!(code == Some(2) && said.starts_with("embarctl: https is not spoken here"), "{code:?} {said}");
    let (code, said) = end(push("localhost:4318", &[]));
    assert!(code == Some(2) && said.contains("does not begin with http://"), "{code:?} {said}");
    let gone = Collector::start().url();
    let (code, said) = end(push(&gone, &[]));
    assert!(code == Some(1) && said.contains("nobody answers at 127.0.0.1:"), "{code:?} {said}");
    for (answer, words) in [
        ("HTTP/1.1 503 Service Unavailable\r\n\r\nfull\n", "answered 503 Service Unavailable, 200 was expected: full"),
        (
            "HTTP/1.1 200 OK\r\n\r\n{\"partialSuccess\":{\"rejectedDataPoints\":\"3\",\"errorMessage\":\"old\"}}",
            "but for 3 values: old",
        ),
        ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}", "not as long as it says"),
        ("nonsense", "no HTTP"),
    ] {
        let child = push(&collector.url(), &[]);
        collector.hear(answer);
        let (code, said) = end(child);
        assert!(code == Some(1) && said.contains(words), "{answer:?}: {code:?} {said}");
    }
    // Nobody accepts: the connection is there, an answer is not.
    let begun = Instant::now();
    let (code, said) = end(push(&collector.url(), &["--timeout", "1"]));
    assert!(code == Some(1) && said.contains("took longer than 1 s (--timeout)"), "{code:?} {said}");
    assert!(begun.elapsed() >= Duration::from_secs(1));
}

#[test]
fn it_goes_on_until_it_is_ended_and_over_a_collector_that_is_gone_for_a_while() {
    let place = Place::start("again");
    let collector = Collector::start();
    let pool = place.pool.display().to_string();
    let child = push(&["--pool", &pool, "--to", &collector.url(), "--every", "1s"]);
    let stamp = |request: &Value| {
        let point = &request["resourceMetrics"][0]["scopeMetrics"][0]["metrics"][0]["gauge"]["dataPoints"][0];
        long(&point["timeUnixNano"])
    };
    let first = stamp(&collector.hear(TAKEN).1);
    let second = stamp(&collector.hear("HTTP/1.1 500 Oh\r\n\r\n").1);
    let third = stamp(&collector.hear(TAKEN).1);
    let fourth = stamp(&collector.hear(TAKEN).1);
    assert!(first < second && second < third && third < fourth);
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    let (code, said) = end(child);
    assert_eq!(code, Some(130), "{said}");
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines.len() == 2 && lines[0].contains("answered 500 Oh"), "{said}");
    assert_eq!(lines[1], "embarctl: metrics are pushed again");
}
