//! What a SIGHUP does: the configuration is read again. The level of the log changes at once; of everything else that changed it is said that it waits for
//! the next start, since roles, threads and the pool were made by it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;
use signal_hook::consts::SIGHUP;
use signal_hook::flag;

use crate::config::{Config, word};

/// See the head of the file.
pub(super) struct Reload {
    asked: Arc<AtomicBool>,
    file: Option<PathBuf>,
    /// As it is in effect.
    config: Config,
}

impl Reload {
    /// Listens for the signal. None: it cannot be caught, and ends the process.
    pub(super) fn on_signal(config: &Config, file: Option<PathBuf>) -> Option<Reload> {
        let asked = Arc::new(AtomicBool::new(false));
        match flag::register(SIGHUP, asked.clone()) {
            Ok(_) => Some(Reload { asked, file, config: config.clone() }),
            Err(error) => {
                log::warn!("SIGHUP cannot be caught ({error}): do not send it");
                None
            }
        }
    }

    /// Does what was asked for, if it was.
    pub(super) fn look(&mut self) {
        if !self.asked.swap(false, Ordering::AcqRel) {
            return;
        }
        let Some(file) = &self.file else {
            return log::info!("SIGHUP: this process was started without a configuration file: nothing is read again");
        };
        // A pipe would be waited for, and with it all that this thread looks after.
        if std::fs::metadata(file).is_ok_and(|meta| !meta.is_file()) {
            let file = file.display();
            return log::error!(
                "SIGHUP: {file} is no regular file: nothing is read again; this process goes on as it was"
            );
        }
        match Config::load(file) {
            Ok(read) => self.apply(read),
            Err(error) => log::error!("SIGHUP: {error}; this process goes on as it was"),
        }
    }

    fn apply(&mut self, read: Config) {
        let level = read.log;
        if level != self.config.log {
            log::set_max_level(level.into());
            // Behind the change, so that it is read wherever one of the two shows it.
            log::info!("SIGHUP: the log's level is {} from here on, {} before", word(&level), word(&self.config.log));
            self.config.log = level;
        }
        match waiting(&self.config, &read) {
            Ok(waiting) if waiting.is_empty() => {
                log::info!("SIGHUP: the configuration was read again; nothing waits for a start")
            }
            Ok(waiting) => log::warn!("SIGHUP: changed, and in effect from the next start on: {}", waiting.join(", ")),
            Err(error) => log::error!("SIGHUP: what changed cannot be told: {error}"),
        }
    }
}

/// Keys whose values differ.
fn waiting(now: &Config, read: &Config) -> serde_json::Result<Vec<String>> {
    let mut found = Vec::new();
    differing("", &serde_json::to_value(now)?, &serde_json::to_value(read)?, &mut found);
    Ok(found)
}

fn differing(at: &str, now: &Value, read: &Value, found: &mut Vec<String>) {
    match (now, read) {
        (Value::Object(now), Value::Object(read)) => {
            for (key, value) in now {
                let path = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
                differing(&path, value, read.get(key).unwrap_or(&Value::Null), found);
            }
        }
        _ if now != read => found.push(at.to_owned()),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_differ_are_named() {
        let (now, mut read) = (Config::default(), Config::default());
        assert_eq!(waiting(&now, &read).unwrap(), Vec::<String>::new());
        read.geometry.ring_slots = 64;
        read.brokers.push(read.brokers[0].clone());
        read.pool.bytes = Some(1 << 30);
        assert_eq!(waiting(&now, &read).unwrap(), ["brokers", "geometry.ring_slots", "pool.bytes"]);
    }

    /// Who opens a pipe waits until somebody writes to it.
    #[test]
    fn a_file_that_became_a_pipe_is_not_waited_for() {
        let path = std::env::temp_dir().join(format!("embarcadero-reload-{}", std::process::id()));
        let made = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
        assert!(made.success());
        let asked = Arc::new(AtomicBool::new(true));
        let mut reload = Reload { asked: asked.clone(), file: Some(path.clone()), config: Config::default() };
        let (done, is_done) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            reload.look();
            done.send(()).unwrap();
        });
        let result = is_done.recv_timeout(std::time::Duration::from_secs(20));
        std::fs::remove_file(&path).unwrap();
        assert!(result.is_ok() && !asked.load(Ordering::Relaxed));
    }
}
