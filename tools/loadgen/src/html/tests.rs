//! Whole pages, and documents that are none.

use serde_json::{Value, json};

use super::document::DocumentError;
use super::*;
use crate::report::{FORMAT, TOOL};

/// What a run writes, as far as a report needs it.
fn run(acked: u64) -> Value {
    json!({
        "tool": TOOL, "format": FORMAT, "version": "0.1.0", "git": null, "written": "2026-01-02T03:04:05Z", "command": "e2e",
        "machine": { "kernel": "6.1 <b>", "usable_cores": 2 },
        "headline": "PASS: publish 5 <messages> & more", "words": "PASS: <words>",
        "configuration": { "message_bytes": 1000, "linger_us": 500 },
        "verdict": { "outcome": "pass", "reasons": [], "notes": ["<note>"] },
        "results": {
            "publish": { "messages": acked, "payload_bytes": 1000 * acked, "seconds": 2.0, "megabytes_per_second": acked as f64 / 2e3 },
            "deliver": null, "open_loop": null,
            "sessions": [{ "brokers": [{ "broker": 0, "acked": acked }, { "broker": 1, "acked": 7 }] }],
            "subscribers": [], "batches_resent": 3, "batches_let_go": 0, "fences": 1, "reconnects": 0,
            "series": { "interval_ms": 1000, "points": [
                { "seconds": 0.0, "acked": 0, "delivered": 0 }, { "seconds": 2.0, "acked": acked, "delivered": 0 },
            ] },
            "events": { "list": [{ "seconds": 1.5, "kind": "fence", "words": "<fenced>", "times": 2 }], "left_out": 4 },
            "stages": [{ "name": "publish to ack", "p50_ns": 1000, "p99_ns": 2000, "p99_9_ns": 3000, "max_ns": acked }],
            "curves": [{ "path": "publish to ack", "counted": "", "messages": 100, "points": [[0.0, 1.0], [90.0, 2.0], [100.0, 9.0]] }],
        },
    })
}

fn document(json: &Value) -> Document {
    Document::new("a<b>.json".to_owned(), json).expect("it is ours")
}

#[test]
fn a_page_has_everything_and_is_escaped() {
    let page = page(&document(&run(5000)), None);
    for words in [
        "<title>PASS: loadgen e2e</title>",
        "publish 5 &lt;messages&gt; &amp; more. Reached: 2,500 messages/s (2.5 MB/s) acked",
        "a&lt;b&gt;.json",
        "Note: &lt;note&gt;",
        "2 × &lt;fenced&gt;",
        "4 more of the same kinds",
        "6.1 &lt;b&gt;",
        "linger, µs",
        "broker 1",
        "p99.9",
        "% of messages that took no longer",
        "time since the start, s",
        "PASS: &lt;words&gt;",
    ] {
        assert!(page.contains(words), "{words}\n{page}");
    }
    for raw in ["<messages>", "<fenced>", "<words>", "<note>", "NaN", "<script", "src=", "href="] {
        assert!(!page.contains(raw), "{raw}\n{page}");
    }
    assert!(!page.contains("B / A"), "there is one document only");
}

#[test]
fn two_documents_stand_side_by_side_with_their_ratio() {
    let mut other = run(2500);
    other["configuration"]["linger_us"] = json!(1000);
    let page = page(&document(&run(5000)), Some(&document(&other)));
    for words in
        ["B / A", "× 0.5", "× 2", "A: acked", "B: acked", "class=\"line a0\"", "class=\"line b0\"", ">A1<", ">B1<"]
    {
        assert!(page.contains(words), "{words}\n{page}");
    }
    assert_eq!(page.matches("aria-label=\"Throughput over time").count(), 1, "one size of messages, one chart");
    other["configuration"]["message_bytes"] = json!(64);
    let page = super::page(&document(&run(5000)), Some(&document(&other)));
    assert_eq!(page.matches("aria-label=\"Throughput over time").count(), 2, "{page}");
}

#[test]
fn a_run_in_which_nothing_happened_is_said_in_words() {
    let mut json = run(0);
    let results = &mut json["results"];
    (results["publish"], results["sessions"]) = (Value::Null, json!([]));
    results["series"]["points"] = json!([]);
    results["events"] = json!({ "list": [], "left_out": 0 });
    (results["stages"], results["curves"]) = (json!([]), json!([]));
    let page = page(&document(&json), None);
    for words in [
        "no throughput to show",
        "Nothing rare happened",
        "No latencies",
        "No stage",
        "No messages went through brokers",
    ] {
        assert!(page.contains(words), "{words}\n{page}");
    }
    assert!(!page.contains("NaN") && !page.contains("svg class=\"chart\""), "{page}");
}

#[test]
fn several_runs_are_paired_by_their_names() {
    let sweep = |percents: &[u64]| {
        let mut json = run(1);
        let step = |percent: &u64| {
            let mut step = run(*percent);
            step["percent"] = json!(percent);
            step
        };
        json["steps"] = percents.iter().map(step).collect();
        json["maximum"] = run(100);
        json.as_object_mut().unwrap().remove("results");
        document(&json)
    };
    let (first, second) = (sweep(&[10, 50]), sweep(&[50, 80]));
    let pairs = pairs(&[&first, &second]);
    let found: Vec<(&str, usize)> = pairs.iter().map(|(label, sides)| (label.as_str(), sides.len())).collect();
    let of = "of the maximum, open loop";
    let labels = [10, 50, 80].map(|percent| format!("{percent} % {of}"));
    assert_eq!(found, [("the maximum, closed loop", 2), (&labels[0], 1), (&labels[1], 2), (&labels[2], 1)]);
    assert!(page(&first, Some(&second)).contains(&format!("<h2>{}</h2>", labels[2])));
}

#[test]
fn what_is_not_ours_is_refused_with_what_was_found() {
    let refused = |change: &dyn Fn(&mut Value)| {
        let mut json = run(1);
        change(&mut json);
        Document::new("x.json".to_owned(), &json).expect_err("it is not ours").to_string()
    };
    let words = refused(&|json| json["tool"] = json!("compare"));
    assert!(words.contains("x.json is not of loadgen") && words.contains("\"compare\""), "{words}");
    let words = refused(&|json| *json = json!([1, 2]));
    assert!(words.contains("\"tool\" is not there"), "{words}");
    let words = refused(&|json| json["format"] = json!(FORMAT + 1));
    assert!(words.contains(&format!("\"format\" {}, not {FORMAT}", FORMAT + 1)), "{words}");
    let words = refused(&|json| _ = json.as_object_mut().unwrap().remove("format"));
    assert!(words.contains("\"format\" not there"), "{words}");
    let words = refused(&|json| json["results"]["series"] = json!("none"));
    assert!(words.contains("not what loadgen writes") && words.contains("\"none\""), "{words}");
}

#[test]
fn files_that_are_no_documents_are_refused() {
    let path = std::env::temp_dir().join(format!("loadgen-html-{}.json", std::process::id()));
    assert!(matches!(Document::read(&path), Err(DocumentError::Read { .. })));
    std::fs::write(&path, "{ cut").unwrap();
    let refused = Document::read(&path);
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(refused, Err(DocumentError::NotJson { .. })), "{refused:?}");
}
