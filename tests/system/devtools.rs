//! A browser without a window, told what to do through a pipe: one JSON text after the other, each with a zero byte behind it (the DevTools protocol,
//! <https://chromedevtools.github.io/devtools-protocol/>).

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::harness::LIMIT;

/// Names that a browser of this kind has.
const NAMES: [&str; 5] = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "headless_shell"];

/// A browser of this machine, by name or as Playwright installs it.
pub fn found() -> Option<PathBuf> {
    let places = std::env::var_os("PATH").unwrap_or_default();
    let by_name = std::env::split_paths(&places).flat_map(|place| NAMES.map(|name| place.join(name)));
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let kept = std::fs::read_dir(home.join(".cache/ms-playwright")).into_iter().flatten().flatten();
    let kept = kept.flat_map(|one| {
        ["chrome-linux/chrome", "chrome-linux64/chrome", "chrome-linux/headless_shell"]
            .map(|name| one.path().join(name))
    });
    by_name.chain(kept).find(|path| path.is_file())
}

/// A running browser with one page. It is gone when it is dropped.
pub struct Browser {
    process: Child,
    orders: ChildStdin,
    told: Receiver<Value>,
    profile: PathBuf,
    session: Option<String>,
    last: u64,
    /// What scripts and the browser complained of.
    pub complaints: Vec<String>,
}

impl Browser {
    /// With an empty page.
    pub fn start(program: &Path, profile: &Path) -> Browser {
        let mut command = Command::new("sh");
        // It hears on descriptor 3 and speaks on 4.
        command.args(["-c", r#"exec "$0" "$@" 3<&0 4>&1 </dev/null >/dev/null"#]).arg(program);
        command.args(["--headless", "--remote-debugging-pipe", "--disable-gpu", "--no-first-run", "--hide-scrollbars"]);
        command.args(["--disable-dev-shm-usage", "--disable-background-networking", "--force-color-profile=srgb"]);
        if rustix::process::geteuid().is_root() {
            command.arg("--no-sandbox");
        }
        command.arg(format!("--user-data-dir={}", profile.display())).arg("about:blank");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = command.spawn().unwrap_or_else(|error| panic!("starting {}: {error}", program.display()));
        let (orders, spoken) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
        let (sender, told) = channel();
        std::thread::spawn(move || {
            for text in BufReader::new(spoken).split(0).map_while(Result::ok) {
                let value = serde_json::from_slice(&text).expect("the protocol is JSON");
                if sender.send(value).is_err() {
                    return;
                }
            }
        });
        let profile = profile.to_owned();
        let mut browser = Browser { process, orders, told, profile, session: None, last: 0, complaints: Vec::new() };
        browser.attach();
        browser
    }

    fn attach(&mut self) {
        let target = self.order("Target.createTarget", json!({ "url": "about:blank" }));
        let attached = self.order("Target.attachToTarget", json!({ "targetId": target["targetId"], "flatten": true }));
        self.session = Some(attached["sessionId"].as_str().expect("a session").to_owned());
        for domain in ["Runtime", "Log", "Page"] {
            self.order(&format!("{domain}.enable"), json!({}));
        }
    }

    /// Has something done, and waits until it is.
    pub fn order(&mut self, method: &str, parameters: Value) -> Value {
        self.last += 1;
        let mut order = json!({ "id": self.last, "method": method, "params": parameters });
        if let Some(session) = &self.session {
            order["sessionId"] = json!(session);
        }
        self.orders.write_all(order.to_string().as_bytes()).expect("the browser listens");
        self.orders.write_all(&[0]).expect("the browser listens");
        let deadline = Instant::now() + LIMIT;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let told = self.told.recv_timeout(left).unwrap_or_else(|error| panic!("{method}: {error}"));
            if told["id"] == json!(self.last) {
                assert!(told["error"].is_null(), "{method}: {told}");
                return told["result"].clone();
            }
            self.take_note(&told);
        }
    }

    fn take_note(&mut self, told: &Value) {
        let parameters = &told["params"];
        let is_complaint = match told["method"].as_str() {
            Some("Runtime.exceptionThrown") => true,
            Some("Runtime.consoleAPICalled") => {
                ["error", "warning", "assert"].contains(&parameters["type"].as_str().unwrap_or(""))
            }
            Some("Log.entryAdded") => {
                ["error", "warning"].contains(&parameters["entry"]["level"].as_str().unwrap_or(""))
            }
            _ => false,
        };
        if is_complaint {
            self.complaints.push(parameters.to_string());
        }
    }

    /// What an expression is, there.
    pub fn evaluate(&mut self, expression: &str) -> Value {
        let parameters = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let result = self.order("Runtime.evaluate", parameters);
        assert!(result["exceptionDetails"].is_null(), "{expression}: {result}");
        result["result"]["value"].clone()
    }

    /// Everything of the page, `width` pixels wide, in light or in dark, to a PNG file.
    pub fn picture(&mut self, width: u32, scheme: &str, path: &Path) {
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.order("Emulation.setEmulatedMedia", json!({ "features": features }));
        self.resize(width);
        let parameters = json!({ "format": "png", "captureBeyondViewport": true });
        let picture = self.order("Page.captureScreenshot", parameters);
        let bytes = STANDARD.decode(picture["data"].as_str().expect("a picture")).expect("base64");
        std::fs::write(path, bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }

    /// So wide, and as high as what is shown.
    pub fn resize(&mut self, width: u32) {
        let mut size = json!({ "width": width, "height": 600, "deviceScaleFactor": 1, "mobile": false });
        self.order("Emulation.setDeviceMetricsOverride", size.clone());
        size["height"] = self.evaluate("document.documentElement.scrollHeight");
        self.order("Emulation.setDeviceMetricsOverride", size);
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.profile);
    }
}
