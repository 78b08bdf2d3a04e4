//! Each mode of the load generator, tiny, from end to end: a broker process, the program as a user starts it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::time::Duration;

use launch::configuration::Configuration;
use launch::place::{Folder, build_broker, own_address};
use launch::process::{End, LISTENS, Process};
use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_loadgen");
/// Longest wait for a broker to start, and to end.
const BROKER_MAX: Duration = Duration::from_secs(30);

static BROKER: LazyLock<PathBuf> =
    LazyLock::new(|| build_broker(Path::new(PROGRAM), Path::new(env!("CARGO_MANIFEST_DIR"))).join("embarlet"));

/// Two brokers on a pool of their own, gone when dropped.
struct Site {
    _brokers: Process,
    folder: Folder,
    json: PathBuf,
    address: String,
}

impl Site {
    fn new(name: &str) -> Site {
        Site::with_places(name, 0)
    }

    /// With places for so many attached publishers for each broker.
    fn with_places(name: &str, places: u32) -> Site {
        let folder = Folder::create(format!("/dev/shm/loadgen-modes-{name}-{}", std::process::id())).expect("a folder");
        let (file, address) = (|name: &str| folder.path().join(name), own_address());
        let megabytes = 96 + 64 * places; // Attached publishers hold extents, and nothing of a run is to be trimmed for them.
        let geometry = "extent_bytes: 1MiB, ring_slots: 256, segment_entries: 1024, segments: 8, topics_max: 64";
        let configuration = Configuration::new(&file("pool"), &format!("populate: false, bytes: {megabytes}MiB"))
            .section("geometry", &format!("{geometry}, attached_per_broker: {places}"))
            .brokers(&[format!("{address}:7300"), format!("{address}:7301")]);
        std::fs::write(file("embarlet.yaml"), configuration.text()).expect("a file");
        let mut command = Command::new(&*BROKER);
        command.arg("--config").arg(file("embarlet.yaml"));
        let log = file("embarlet.log");
        let mut brokers = Process::start("embarlet", command, &log, End::Asked(BROKER_MAX)).expect("it was built");
        let listens = brokers.wait_for_log(LISTENS, BROKER_MAX);
        listens.unwrap_or_else(|silence| panic!("embarlet {silence}\n{}", brokers.log()));
        Site { _brokers: brokers, json: file("report.json"), folder, address: format!("{address}:7300") }
    }

    /// The pool, for those who attach to it.
    fn pool(&self) -> String {
        self.folder.path().join("pool").display().to_string()
    }

    /// Runs the program; its exit code, what it printed, and its JSON if it wrote one.
    fn run(&self, line: &str) -> (Option<i32>, String, Value) {
        let _ = std::fs::remove_file(&self.json);
        let mut command = Command::new(PROGRAM);
        command.args(line.split(' ')).args(["--no-progress", "--json"]).arg(&self.json);
        if !line.contains("--attach") {
            command.args(["--brokers", &self.address]);
        }
        let output = command.output().expect("the program was built with the tests");
        let words = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let json = std::fs::read_to_string(&self.json).ok();
        (output.status.code(), words, json.map_or(Value::Null, |text| serde_json::from_str(&text).expect("JSON")))
    }

    /// The same of a run that must pass.
    fn pass(&self, line: &str) -> (String, Value) {
        let (code, words, json) = self.run(line);
        assert_eq!(code, Some(0), "{line}\n{words}");
        assert_eq!(json["verdict"]["pass"], true, "{line}\n{json:#}");
        (words, json)
    }
}

fn number(json: &Value) -> f64 {
    json.as_f64().unwrap_or_else(|| panic!("{json} is not a number"))
}

#[test]
fn open_loop_measures_from_the_plan_what_it_asked_for() {
    let site = Site::new("open");
    for arrival in ["constant", "poisson"] {
        let line = format!(
            "e2e --rate 2000 --arrival {arrival} --duration 1s --warm-up 300ms --message-size 64 --sessions 2 --subscribers 2"
        );
        let (words, json) = site.pass(&line);
        let open = &json["results"]["open_loop"];
        // 2000 planned in the measured second, exactly or as the seed has it; each acked once and delivered twice.
        let planned = number(&open["asked_messages_per_s"]);
        assert!((planned - 2000.0).abs() < if arrival == "constant" { 3.0 } else { 200.0 }, "{words}");
        for (path, copies) in [("publish_to_ack", 1.0), ("publish_to_deliver", 2.0)] {
            let [corrected, raw] = ["corrected_us", "raw_us"].map(|kind| &open[path][kind]);
            assert_eq!(number(&corrected["messages"]), copies * planned, "{words}");
            assert_eq!(corrected["messages"], raw["messages"]);
            let percentiles = ["p50", "p90", "p99", "p99.9", "p99.99", "max"].map(|name| number(&corrected[name]));
            assert!(percentiles.is_sorted() && percentiles[0] > 0.0, "{percentiles:?}");
            assert!(number(&corrected["mean"]) >= number(&raw["mean"]), "the plan is never after sending: {words}");
        }
    }
}

/// The last ack of each broker may be behind the one that ends the run.
#[test]
fn what_each_broker_had_adds_up_beside_a_pass() {
    let site = Site::new("counts");
    for _ in 0..5 {
        let (words, _) = site.pass("publish --order 5 --messages 20000 --message-size 64 --sessions 2");
        let line =
            words.lines().find_map(|line| line.trim().strip_prefix("acked/sent per broker: ")).expect("the line");
        let acked = line.split(", ").map(|broker| broker.split([' ', '/']).nth(1).unwrap().parse::<u64>().unwrap());
        assert_eq!(acked.sum::<u64>(), 20_000, "{words}");
    }
}

#[test]
fn a_rate_beyond_reach_fails_and_says_so() {
    let site = Site::new("beyond");
    let (code, words, json) =
        site.run("e2e --rate 500000000 --duration 1s --message-size 64 --lag-max 200ms --warm-up 0ms");
    assert_eq!(code, Some(1), "{words}");
    assert!(words.contains("gave up") && words.contains("the asked rate was not reached"), "{words}");
    let open = &json["results"]["open_loop"];
    assert_eq!(open["kept_up"], false);
    assert!(number(&open["backlog_at_end"]["unsent"]) > 1e8, "{words}");
}

#[test]
fn a_sweep_measures_the_maximum_and_parts_of_it() {
    let site = Site::new("sweep");
    let (words, json) = site.pass("e2e --rate-percent 5,20 --duration 500ms --warm-up 100ms");
    let most = number(&json["maximum_messages_per_s"]);
    let steps = json["steps"].as_array().expect("a list");
    assert_eq!(steps.len(), 2, "{words}");
    for (step, part) in steps.iter().zip([0.05, 0.2]) {
        let asked = number(&step["results"]["open_loop"]["asked_messages_per_s"]);
        assert!((asked / most - part).abs() < 0.01, "{asked} of {most}");
        for path in ["publish_to_ack", "publish_to_deliver"] {
            assert!(number(&step["results"]["open_loop"][path]["corrected_us"]["p99.9"]) > 0.0);
        }
    }
    assert!(words.contains("publish to ack") && words.lines().any(|line| line.starts_with("  20 %")), "{words}");
}

#[test]
fn many_topics_are_verified_each_for_itself() {
    let site = Site::new("topics");
    let line = "e2e --topics 12 --sessions 5 --subscribers 30 --threads 2 --messages 6000 --message-size 100 --batch-bytes 4096";
    let (words, json) = site.pass(line);
    let subscribers = json["results"]["subscribers"].as_array().expect("a list");
    assert_eq!((subscribers.len(), json["results"]["sessions"].as_array().map(Vec::len)), (30, Some(12)), "{words}");
    let mut hashes = vec![Vec::new(); 12];
    for subscriber in subscribers {
        assert_eq!((&subscriber["messages"], &subscriber["faults"]), (&500.into(), &0.into()), "{subscriber}");
        hashes[subscriber["topic"].as_u64().unwrap() as usize].push(subscriber["hash"].as_str().unwrap().to_owned());
    }
    for of_topic in &mut hashes {
        assert!(of_topic.len() >= 2);
        of_topic.dedup();
        assert_eq!(of_topic.len(), 1, "subscribers of one topic agree");
    }
    hashes.sort();
    hashes.dedup();
    assert_eq!(hashes.len(), 12, "topics differ");
}

#[test]
fn many_topics_are_compared_with_one() {
    let site = Site::new("versus");
    let line = "e2e --topics 6 --sessions 3 --subscribers 3 --total-bytes 2MiB --batch-bytes 16KiB --compare-one-topic --rounds 2";
    let (words, json) = site.pass(line);
    for figure in json["figures"].as_array().expect("a list") {
        let [min, median, max] = ["min", "median", "max"].map(|part| number(&figure["ratio"][part]));
        assert!(0.0 < min && min <= median && median <= max && max.is_finite(), "{figure}");
    }
    assert_eq!(json["rounds"].as_array().map(Vec::len), Some(3), "one more is the cold one");
    assert!(words.contains("published: 6 topics") && words.contains("delivered: 6 topics"), "{words}");
}

#[test]
fn a_reader_that_stops_is_reported() {
    let site = Site::new("stop");
    let line = "e2e --duration 1500ms --subscribers 2 --stop-reader-for 500ms --stop-reader-after 200ms";
    let (words, json) = site.pass(line);
    let stopped = &json["results"]["stopped_reader"];
    assert_eq!(stopped["reader"], "went_on", "{words}");
    assert!(number(&stopped["acked_messages_per_s"]["before"]) > 0.0, "{words}");
    let (code, words, _) = site.run("e2e --messages 100 --stop-reader-for 1s --stop-reader-after 1h");
    assert_eq!((code, words.contains("was not stopped")), (Some(1), true), "{words}");
}

#[test]
fn a_reader_that_stops_is_dealt_with_as_it_asked() {
    let site = Site::new("slow");
    let run = |policy: &str| {
        let line = format!(
            "e2e --rate 60MB --lag-max 1m --warm-up 0s --duration 4s --message-size 4KiB --stop-reader-for 3s --stop-reader-after 200ms --slow-reader {policy}"
        );
        site.pass(&line)
    };
    let (words, json) = run("wait");
    assert_eq!(json["results"]["stopped_reader"]["reader"], "went_on", "{words}");
    let (words, json) = run("wait:1MiB");
    assert_eq!(json["results"]["stopped_reader"]["reader"], "told", "{words}");
    let (words, json) = run("skip");
    let stopped = &json["results"]["stopped_reader"];
    assert_eq!(stopped["reader"], "skipped", "{words}");
    let subscriber = &json["results"]["subscribers"][0];
    assert_eq!(stopped["skipped_messages"], subscriber["missing"], "{words}");
    assert!(number(&subscriber["missing"]) > 0.0 && words.contains("skipped"), "{words}");
    let (words, json) = run("disconnect");
    assert_eq!(json["results"]["stopped_reader"]["reader"], "told", "{words}");
    let subscriber = &json["results"]["subscribers"][0];
    assert_eq!(subscriber["skipped"], subscriber["missing"], "{words}");
    assert!(number(&subscriber["missing"]) > 0.0 && words.contains("was told"), "{words}");
}

#[test]
fn attached_clients_publish_and_verify_without_brokers_addresses() {
    let site = Site::with_places("attached", 2);
    let pool = site.pool();
    let (words, json) = site.pass(&format!(
        "e2e --attach {pool} --messages 20000 --message-size 100 --sessions 2 --subscribers 2 --threads 1"
    ));
    for subscriber in json["results"]["subscribers"].as_array().expect("a list") {
        assert_eq!((&subscriber["messages"], &subscriber["faults"]), (&20000.into(), &0.into()), "{words}");
    }
    site.pass(&format!("publish --attach {pool} --messages 5000 --topic mixed"));
    site.pass("subscribe --until-caught-up --topic mixed");
    site.pass("publish --messages 5000 --topic mixed");
    site.pass(&format!("subscribe --attach {pool} --until-caught-up --topic mixed"));
    site.pass(&format!("e2e --attach {pool} --rate 2000 --duration 500ms --warm-up 100ms --message-size 64"));
    let (code, words, _) = site.run(&format!("publish --attach {pool} --messages 1000 --sessions 300"));
    assert_eq!((code, words.contains("place")), (Some(2), true), "more publishers than places: {words}");
}

#[test]
fn a_long_topic_is_read_from_the_end_the_middle_and_across_kills() {
    let site = Site::new("resume");
    let (words, json) = site.pass(
        "resume --messages 300000 --message-size 16 --sessions 2 --kills 3 --tail-messages 5000 --batch-bytes 4096",
    );
    let readers = json["readers"].as_array().expect("a list");
    let figures = |at: usize| {
        let reader = &readers[at];
        ["first_order", "messages", "gaps", "repeats", "wrong"].map(|name| reader[name].as_u64().expect("a number"))
    };
    assert_eq!(figures(0), [300_000, 5000, 0, 0, 0], "{words}");
    assert_eq!(figures(1), [150_000, 155_000, 0, 0, 0], "{words}");
    assert_eq!(figures(2), [0, 305_000, 0, 0, 0], "{words}");
    assert_eq!(readers[1]["hash"], readers[2]["hash"]);
    let kills = json["kills"].as_array().expect("a list");
    assert_eq!(kills.len(), 3);
    let place = |kill: usize, name: &str| kills[kill][name].as_u64().expect("a number");
    // The first and third time it was killed before a poll was written down, the second time between that and its commit.
    for kill in [0, 2] {
        assert!(place(kill, "written") < place(kill, "held_at"), "{words}");
        assert_eq!(place(kill, "written"), place(kill, "cursor"), "{words}");
    }
    assert!(place(1, "cursor") < place(1, "held_at") && place(1, "held_at") <= place(1, "written"), "{words}");
    let again = place(1, "written") - place(1, "cursor");
    assert_eq!(readers[2]["delivered_again_and_left_out"].as_u64(), Some(again), "{words}");
}

/// A report is a function of what is written as JSON: made at once or later, it is the same.
#[test]
fn a_report_is_a_page_of_what_was_written() {
    let site = Site::new("report");
    let file = |name: &str| site.folder.path().join(name).display().to_string();
    let (page, earlier) = (file("page.html"), file("earlier.json"));
    let (words, json) = site.pass(&format!("e2e --messages 20000 --message-size 100 --sessions 2 --report {page}"));
    let last = json["results"]["series"]["points"].as_array().and_then(|points| points.last()).expect("the end");
    assert_eq!((&last["acked"], &last["delivered"]), (&20000.into(), &20000.into()), "{words}");
    let text = std::fs::read_to_string(&page).expect("the report");
    let kernel = json["machine"]["kernel"].as_str().expect("there is a kernel");
    let said = [
        "PASS",
        "publish 20000 messages of 100 bytes in 2 sessions",
        "A: ",
        "broker 0",
        "broker 1",
        "No latencies",
        kernel,
    ];
    let found = said.map(|words| text.contains(words));
    assert_eq!(found, [true, true, false, true, true, true, true], "{said:?}\n{text}");
    assert!(
        text.contains("class=\"line one0\"") && text.contains("class=\"line one1\""),
        "acked and delivered: {text}"
    );
    std::fs::rename(&site.json, &earlier).expect("it was written");
    let open = "e2e --rate 2000 --duration 500ms --warm-up 100ms --message-size 64";
    site.pass(&format!("{open} --report {page} --compare-with {earlier}"));
    let text = std::fs::read_to_string(&page).expect("the report");
    for words in
        ["A: acked", "B: delivered", "B / A", "publish to deliver, from the planned time", "A measured no latencies"]
    {
        assert!(text.contains(words), "{words}\n{text}");
    }
    let report = |result: &str, out: &str| {
        let line = ["report", result, &site.json.display().to_string(), "--out", out].map(str::to_owned);
        Command::new(PROGRAM).args(line).output().expect("the program was built with the tests")
    };
    assert!(report(&earlier, &file("again.html")).status.success());
    assert_eq!(std::fs::read_to_string(file("again.html")).expect("the report"), text);
    let refused = report(&file("embarlet.yaml"), &file("none.html"));
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("embarlet.yaml is not JSON"), "{refused:?}");
    let (code, words, json) = site.run(&format!("{open} --report {page} --compare-with {}", file("embarlet.yaml")));
    assert_eq!((code, json, words.contains("is not JSON")), (Some(2), Value::Null, true), "before the run: {words}");
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    let site = Site::new("refused");
    for (line, says) in [
        ("e2e --rate 10 --message-size 16", "at least 32"),
        ("e2e --rate 10 --order 4 --ack 0", "--ack 0"),
        ("e2e --rate fast", "messages a second"),
        ("e2e --rate 10 --messages 5", "cannot be used with"),
        ("e2e --rate 10 --rate-percent 10", "cannot be used with"),
        ("e2e --rate-percent 0", "not in 1..=100"),
        ("e2e --compare-one-topic", "--topics"),
        ("e2e --rate 10 --topics 2 --subscribers 3", "equally many"),
        ("e2e --stop-reader-after 1s", "--stop-reader-for"),
        ("e2e --slow-reader wait:0", "wait for nobody"),
        ("e2e --rate-percent 10 --slow-reader skip", "cannot be used with"),
        ("e2e --attach /none --stop-reader-for 1s", "cannot be used with"),
        ("e2e --attach /none --brokers 127.0.0.1:7300", "cannot be used with"),
        ("e2e --attach /none --slow-reader skip", "cannot be used with"),
        ("e2e --attach /none --topics 2", "--topics cannot be used with --attach"),
        ("publish --attach /none --connections-per-broker 2", "--connections-per-broker cannot be used with --attach"),
        ("e2e --compare-with /none", "--report"),
        ("resume --messages 1000 --order 4", "--order 5"),
        ("resume --messages 1000 --message-size 8", "at least 16"),
        ("resume --messages 1000 --topics 3", "no --topics"),
    ] {
        let (code, words, json) = site.run(line);
        assert_eq!((code, &json), (Some(2), &Value::Null), "{line}\n{words}");
        assert!(words.contains(says), "{line}\n{words}");
    }
}

#[test]
fn a_report_that_cannot_be_written_is_told_before_the_run() {
    let site = Site::new("unwritten");
    let folder = site.folder.path().join("none");
    let (code, words, json) = site.run(&format!("e2e --messages 10 --report {}/page.html", folder.display()));
    assert_eq!((code, json), (Some(2), Value::Null), "{words}");
    assert!(words.contains("cannot write") && !words.contains("PASS"), "{words}");
}
