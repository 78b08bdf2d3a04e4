//! The comparison, made tiny, from end to end: processes start, every case runs, every ratio is printed and is a number. What the
//! numbers are is for quiet machines.

use std::path::{Path, PathBuf};
use std::process::Command;

use launch::place::build_broker;
use serde_json::Value;

const RATIOS: [&str; 16] = [
    "order5 / order0",
    "order5_1 / order0_1",
    "order5 / sink",
    "order0 / sink",
    "order5 / sink_flush",
    "order5 / sink_ack",
    "order0 / sink_ack",
    "order5_1 / sink_ack_1",
    "order0_1 / sink_ack_1",
    "order5_1 / sink_1",
    "order0_1 / sink_1",
    "order5_1 / sink_flush_1",
    "ack_park / pingpong_block p50",
    "ack_park / pingpong_block p99",
    "ack_spin / pingpong_spin p50",
    "ack_spin / pingpong_spin p99",
];

/// The comparison, with the broker beside it.
fn compare() -> Command {
    let program = PathBuf::from(env!("CARGO_BIN_EXE_compare"));
    build_broker(&program, Path::new(env!("CARGO_MANIFEST_DIR")));
    Command::new(program)
}

#[test]
fn every_ratio_is_printed_and_is_a_number() {
    let json = std::env::temp_dir().join(format!("compare-tiny-{}.json", std::process::id()));
    let output = compare().arg("--tiny").arg("--json").arg(&json).output().expect("compare runs");
    let (printed, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{printed}\n{errors}");
    let report: Value = serde_json::from_str(&std::fs::read_to_string(&json).expect("written")).expect("JSON");
    std::fs::remove_file(&json).expect("removed");
    let cores = report["machine"]["usable_cores"].as_u64().expect("a number");
    for name in RATIOS.iter().filter(|name| cores >= 2 || !name.contains("spin")) {
        let line = printed.lines().find(|line| line.trim_start().starts_with(name));
        let line = line.unwrap_or_else(|| panic!("{name} is not printed:\n{printed}"));
        assert!(!line.contains("NaN") && !line.contains("inf"), "{line}");
        for part in ["median", "min", "max"] {
            let figure = report["ratios"][name][part].as_f64();
            assert!(figure.is_some_and(|figure| figure.is_finite() && figure > 0.0), "{name} {part}: {figure:?}");
        }
    }
    for case in report["cases"].as_array().expect("a list") {
        assert!(!case["cold"].is_null() && case["runs"].as_array().is_some_and(|runs| runs.len() == 1), "{case}");
    }
    let folder = format!("embarcadero-compare-{}", output_process(&errors));
    assert!(!Path::new("/dev/shm").join(&folder).exists(), "{folder} is left behind");
}

/// The folder's number, as `compare` says it.
fn output_process(errors: &str) -> &str {
    let line = errors.lines().find_map(|line| line.strip_prefix("compare: files in /dev/shm/embarcadero-compare-"));
    line.expect("it says where its files are")
}

#[test]
fn what_it_does_not_know_it_refuses() {
    let output =
        Command::new(env!("CARGO_BIN_EXE_compare")).args(["--cases", "order7"]).output().expect("compare runs");
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("order5_1"));
}

/// Two broker processes, each killed once: the verdict about lost, repeated and misplaced messages is the program's own.
#[test]
fn a_broker_is_killed_and_nothing_is_lost() {
    let output = compare().args(["kill", "--tiny"]).output().expect("compare runs");
    let (printed, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{printed}\n{errors}");
    assert!(printed.contains("lost 0, duplicates 0, reorders 0") && !printed.contains("acked 0,"), "{printed}");
    assert_eq!(printed.lines().filter(|line| line.contains("acks move again after")).count(), 2, "{printed}");
}

/// Two broker processes under random faults for a few seconds.
#[test]
fn random_faults_lose_nothing() {
    let output = compare().args(["chaos", "--tiny"]).output().expect("compare runs");
    let (printed, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{printed}\n{errors}");
    assert!(printed.contains("lost 0, duplicates 0, reorders 0, readers equal: true"), "{printed}");
    assert!(!printed.contains("acked 0,"), "{printed}");
}

/// Two broker processes, the sequencer's stopped for two seconds; then each once more at a lower level.
#[test]
fn a_broker_is_stopped_and_nothing_is_lost() {
    let output = compare().args(["stop", "--tiny"]).output().expect("compare runs");
    let (printed, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{printed}\n{errors}");
    assert!(printed.contains("lost 0, duplicates 0, reorders 0, readers equal: true"), "{printed}");
    assert_eq!(printed.lines().filter(|line| line.contains("acks move again after")).count(), 3, "{printed}");
}

/// Two candidates on one host and on two; the active one is killed once.
#[test]
fn the_sequencer_is_killed_and_another_takes_over() {
    let output = compare().args(["takeover", "--tiny"]).output().expect("compare runs");
    let (printed, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{printed}\n{errors}");
    for place in ["one host, 2 candidates, settle 20 ms", "two hosts, 2 candidates, settle 20 ms"] {
        assert!(printed.lines().any(|line| line.contains(place) && line.contains("after the kill")), "{printed}");
    }
}

/// Some kinds of bad clients, each for a moment: nothing of the good one's is lost, and its figures are numbers.
#[test]
fn bad_clients_hurt_nobody() {
    let kinds = ["one_byte", "sessions", "gap"];
    let command = ["hostile", "--tiny", "--users", "own", "--kinds", &kinds.join(",")];
    let output = compare().args(command).output().expect("compare runs");
    let (printed, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{printed}\n{errors}");
    for kind in kinds {
        let line = printed.lines().find(|line| line.trim_start().starts_with(kind));
        let line = line.unwrap_or_else(|| panic!("{kind} is not printed:\n{printed}"));
        assert!(line.contains("rate ratio") && !line.contains("NaN") && !line.contains(" 0 times"), "{line}");
    }
}

/// As on a processor with SSE4.2 and no more.
#[test]
fn attached_clients_append_and_deliver() {
    let json = std::env::temp_dir().join(format!("compare-attach-{}.json", std::process::id()));
    let command = ["attach", "--tiny", "--cpu-features", "sse4.2", "--json"];
    let output = compare().args(command).arg(&json).output().expect("compare runs");
    let (printed, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{printed}\n{errors}");
    let report: Value = serde_json::from_str(&std::fs::read_to_string(&json).expect("written")).expect("JSON");
    std::fs::remove_file(&json).expect("removed");
    assert_eq!(report["machine"]["instructions"], "sse4.2");
    let cores = report["machine"]["usable_cores"].as_u64().expect("a number");
    for name in [
        "append_1024 / memcpy in messages by clock",
        "append_64 / streamed blocks by processor",
        "append_64 default / best by clock",
        "deliver / cache-line ping-pong p50",
        "deliver / bare relay p99",
    ] {
        let figure = report["ratios"][name]["median"].as_f64();
        let is_measured = cores >= 2 || !name.contains("deliver");
        assert_eq!(figure.is_some_and(|figure| figure.is_finite() && figure > 0.0), is_measured, "{name}: {figure:?}");
    }
    assert!(
        printed.contains("by processor: append 1024 / memcpy in messages") && !printed.contains("NaN"),
        "{printed}"
    );
}

/// Whoever is installed is measured; who is not is named.
#[test]
fn other_systems_are_measured_as_we_are() {
    let output = compare().args(["peers", "--tiny"]).output().expect("compare runs");
    let (printed, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{printed}\n{errors}");
    assert_eq!(printed.lines().filter(|line| line.starts_with("  embarcadero_1  ")).count(), 9, "{printed}");
    for (name, program) in [("redis", "redis-server"), ("nats", "nats-server")] {
        let is_measured = printed.lines().any(|line| line.trim_start().starts_with(&format!("{name} ")));
        assert!(is_measured != printed.contains(&format!("{program} is not installed")), "{printed}");
    }
}

#[test]
fn several_comparisons_make_one_report() {
    let json = std::env::temp_dir().join(format!("compare-all-{}.json", std::process::id()));
    let command = ["all", "--tiny", "--runs", "1", "--parts", "gap,sequencer", "--json"];
    let output = compare().args(command).arg(&json).output().expect("compare runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_str(&std::fs::read_to_string(&json).expect("written")).expect("JSON");
    std::fs::remove_file(&json).expect("removed");
    for name in ["gap: p50", "sequencer: order 5 in order, 8 lanes, 1000 sessions / bare"] {
        assert!(report["ratios"][name]["median"].as_f64().is_some_and(|median| median > 0.0), "{name}: {report:#}");
    }
    let refused = compare().args(["all", "--parts", "latency"]).output().expect("compare runs");
    assert_eq!(refused.status.code(), Some(2));
}

#[test]
fn a_gap_is_opened_and_closed_again() {
    let output = compare().args(["gap", "--tiny"]).output().expect("compare runs");
    let (printed, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{printed}\n{errors}");
    assert!(printed.contains("gap / none p50") && !printed.contains("NaN"), "{printed}");
}

/// 16 lanes on 18 extents: all get on, and what each waited for is told.
#[test]
fn lanes_in_need_are_granted_memory_in_turn() {
    let output = compare().args(["need", "--tiny"]).output().expect("compare runs");
    let (printed, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{printed}\n{errors}");
    assert!(printed.contains("longest wait of any lane") && !printed.contains("NaN"), "{printed}");
}

#[test]
fn delivery_fan_out_and_relay_have_their_ratios() {
    let ratios: [(&str, &[&str]); 3] = [
        ("deliver", &["verified / bare_checked", "read / bare_read", "verified / bare_read"]),
        ("fanout", &["verified_1 / bare_1", "verified_4 / bare_4", "verified_16 / bare_16"]),
        ("relay", &["relay / bare_relay_checked", "relay / bare_relay"]),
    ];
    for (command, names) in ratios {
        let output = compare().args([command, "--tiny"]).output().expect("compare runs");
        let (printed, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{printed}\n{errors}");
        for name in names {
            let line = printed.lines().find(|line| line.trim_start().starts_with(name));
            let line = line.unwrap_or_else(|| panic!("{name} is not printed:\n{printed}"));
            assert!(!line.contains("NaN") && !line.contains("inf"), "{line}");
        }
    }
}

/// Each piece runs, on memory of either kind.
#[test]
fn the_pieces_of_the_data_path() {
    for coherence in ["software", "hardware"] {
        let output = compare().args(["pieces", "--tiny", "--coherence", coherence]).output().expect("compare runs");
        let (printed, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{printed}\n{errors}");
        assert_eq!(
            printed.lines().filter(|line| line.contains(" ratio ") && line.starts_with("  ")).count(),
            17,
            "{printed}"
        );
        assert!(!printed.contains("NaN") && !printed.contains("inf"), "{printed}");
    }
}

/// Every batch is ordered, alone and driven, at every kind of case.
#[test]
fn the_sequencer_alone_orders_everything() {
    let output = compare().args(["sequencer", "--tiny"]).output().expect("compare runs");
    let (printed, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{printed}\n{errors}");
    assert_eq!(
        printed.lines().filter(|line| line.contains("lanes, ") && line.contains("(aim: ")).count(),
        27,
        "{printed}"
    );
    assert!(!printed.contains("NaN"), "{printed}");
}
