//! The status page in a browser, under load: that everything is there, that it moves, and that no script stumbles. Without a browser it is not tried, and that is said.
//!
//! Pictures of it are left in the folder `page` of the build's `tmp`, for people.

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use embarcadero::config::MonitorAddress;
use embarcadero::wire::{OrderLevel, Receipts};
use embarcadero::{Order, Start};
use serde_json::{Value, json};

use crate::devtools::{Browser, found};
use crate::harness::{Cluster, Site, Task, wait_for};
use crate::load::{Load, ROOMY, TOPIC};
use crate::traffic::{Fifo, Watcher};

/// What the page shows, counted there.
const SHOWN: &str = r##"(() => {
    const all = (where, what) => [...document.querySelectorAll(where + " " + what)];
    const rows = id => all("#" + id, "tr").slice(1).map(row => [...row.children].map(cell => cell.textContent));
    const lines = id => all("#" + id, "polyline").map(line => line.points.length);
    return {
        findings: all("#findings", ".finding").map(one => one.textContent),
        charts: Object.fromEntries(["bytes", "times", "messages", "waiting"].map(id => [id, lines(id)])),
        bars: all("#acks", ".bar b").map(bar => bar.getBoundingClientRect().width),
        brokers: rows("brokers"), threads: rows("threads"), lanes: rows("lanes"), topics: rows("topics"),
        slowest: rows("slowest"), stages: rows("stages"),
        seen: document.getElementById("seen").className + document.getElementById("seen").textContent,
        text: document.body.innerText,
        points: all("main", "polyline").map(line => line.getAttribute("points")).join(" "),
        width: document.documentElement.scrollWidth,
        outside: [...document.querySelectorAll("[src], link[href]")].map(one => one.src || one.href).filter(at => !at.startsWith("data:")),
    };
})()"##;

/// Load, and a reader, until it is dropped.
struct Traffic {
    load: Load,
    over: Arc<AtomicBool>,
    reader: Task<()>,
}

impl Traffic {
    fn start(site: &Site) -> Traffic {
        site.create_topic(TOPIC, OrderLevel::Session, Receipts::Batch);
        let mut watcher = Watcher::connect(site.subscriber(TOPIC, 2, Start::Order(Order(0))), Fifo::Publisher);
        let over = Arc::new(AtomicBool::new(false));
        let until = over.clone();
        let reader = Task::spawn("the reader", move || {
            while !until.load(Ordering::Relaxed) {
                watcher.poll();
            }
        });
        let load = Load::start_at(site.publisher(TOPIC), 1, Duration::from_millis(4));
        Traffic { load, over, reader }
    }

    fn end(self) {
        self.load.finish();
        self.over.store(true, Ordering::Relaxed);
        self.reader.join();
    }
}

fn length(value: &Value) -> usize {
    value.as_array().map_or(0, Vec::len)
}

/// All of it is there, and has numbers.
fn check(shown: &Value) {
    assert!(length(&shown["findings"]) > 0, "no finding: {shown}");
    for (id, lines) in [("bytes", 2), ("times", 4), ("messages", 3), ("waiting", 2)] {
        let points = shown["charts"][id].as_array().expect("lines");
        assert!(points.len() == lines && points.iter().all(|points| *points != json!(0)), "{id}: {points:?}");
    }
    let widths: Vec<f64> = shown["bars"].as_array().expect("bars").iter().filter_map(Value::as_f64).collect();
    assert!(widths.len() == 4 && widths.iter().all(|width| *width > 10.0), "each broker acks: {widths:?}");
    for (id, rows) in [("brokers", 4), ("lanes", 4), ("topics", 1), ("stages", 7)] {
        assert_eq!(length(&shown[id]), rows, "{id}: {}", shown[id]);
    }
    assert!(length(&shown["threads"]) > 0 && length(&shown["slowest"]) > 0, "{shown}");
    assert_eq!(shown["topics"][0][0], TOPIC);
    for broker in shown["brokers"].as_array().expect("rows") {
        assert_eq!(broker[1], "serving", "{broker}");
    }
    let text = shown["text"].as_str().expect("text");
    for word in ["NaN", "undefined", "Infinity", "[object"] {
        assert!(!text.contains(word), "{word} in {text}");
    }
    assert!(!shown["points"].as_str().expect("points").contains("NaN"), "{}", shown["points"]);
    assert_eq!(length(&shown["outside"]), 0, "it needs nothing from elsewhere: {}", shown["outside"]);
}

fn start(site: &mut Site) -> Cluster {
    site.config.monitor.address = MonitorAddress::At("127.0.0.1:0".parse().unwrap());
    site.start()
}

#[test]
fn a_browser_shows_everything_and_nothing_stumbles() {
    let Some(program) = found() else {
        // What print macros write is kept back of a test that passes.
        let words = b"\nSKIPPED, not passed: the status page was not opened: no Chromium on this machine (`make test-page` installs one)\n\n";
        return drop(std::io::stderr().write_all(words));
    };
    let mut site = Site::new("page", &ROOMY);
    let brokers = start(&mut site);
    let address = brokers.shown_at().expect("it was asked for");
    let traffic = Traffic::start(&site);
    let mut browser = Browser::start(&program, &site.file("browser"));
    browser.order("Page.navigate", json!({ "url": format!("http://{address}/") }));
    let shown = wait_for("some seconds of load on the page", || {
        std::thread::sleep(Duration::from_millis(200));
        let shown = browser.evaluate(SHOWN);
        assert_eq!(browser.complaints, Vec::<String>::new(), "{shown}");
        let is_full = length(&shown["charts"]["bytes"]) > 0
            && shown["charts"]["bytes"][0].as_u64() > Some(5)
            && length(&shown["slowest"]) > 0;
        is_full.then_some(shown)
    });
    check(&shown);
    let pictures = Path::new(env!("CARGO_TARGET_TMPDIR")).join("page");
    std::fs::create_dir_all(&pictures).unwrap();
    for (width, scheme) in [(1400, "light"), (1400, "dark"), (800, "light")] {
        browser.picture(width, scheme, &pictures.join(format!("page-{width}-{scheme}.png")));
        let now = browser.evaluate(SHOWN);
        check(&now);
        assert!(now["width"].as_u64() <= Some(width.into()), "wider than {width} pixels: {}", now["width"]);
    }
    traffic.end();
    assert_eq!(browser.complaints, Vec::<String>::new());
    // It says so when nobody answers any more.
    brokers.stop();
    wait_for("the page to say that nobody answers", || {
        let seen = browser.evaluate(SHOWN)["seen"].as_str().expect("text").to_owned();
        seen.starts_with("badno answer").then_some(())
    });
}
