//! The text of a broker's configuration.

use std::fmt::{Display, Write as _};
use std::path::Path;

/// A configuration: a pool, brokers, and sections as the inside of YAML flow mappings. What is not said is the broker's default,
/// but for its threads: everything on one, which sleeps when there is nothing to do, as on any small machine.
#[derive(Clone, Debug)]
pub struct Configuration {
    text: String,
    threads: String,
}

impl Configuration {
    /// On this pool, with more of its section.
    pub fn new(pool: &Path, more: &str) -> Configuration {
        let text = format!("pool: {{ path: {}, {more} }}\n", pool.display());
        Configuration { text, threads: "mode: shared, idle: park".to_owned() }
    }

    /// With brokers at these addresses, all on host 0.
    pub fn brokers(self, addresses: &[impl Display]) -> Configuration {
        self.brokers_on(addresses, |_| 0)
    }

    /// With brokers at these addresses, each on the host that is told for it.
    pub fn brokers_on(mut self, addresses: &[impl Display], host: impl Fn(u32) -> u32) -> Configuration {
        self.text.push_str("brokers:\n");
        for (id, address) in (0..).zip(addresses) {
            let _ = writeln!(self.text, "  - {{ host: {}, address: \"{address}\" }}", host(id));
        }
        self
    }

    /// With a value that stands in no section.
    pub fn value(mut self, key: &str, value: impl Display) -> Configuration {
        let _ = writeln!(self.text, "{key}: {value}");
        self
    }

    /// With a section.
    pub fn section(mut self, name: &str, inside: &str) -> Configuration {
        if name == "threads" {
            self.threads = inside.to_owned();
        } else {
            let _ = writeln!(self.text, "{name}: {{ {inside} }}");
        }
        self
    }

    /// As a file has it.
    pub fn text(&self) -> String {
        format!("{}threads: {{ {} }}\n", self.text, self.threads)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_stand_once() {
        let configuration = Configuration::new(Path::new("/p"), "bytes: 1MiB")
            .section("threads", "mode: shared, idle: spin")
            .value("log", "warn")
            .brokers_on(&["a:1", "b:2"], |id| id % 2);
        let expected = "pool: { path: /p, bytes: 1MiB }\nlog: warn\nbrokers:\n  - { host: 0, address: \"a:1\" }\n  \
                        - { host: 1, address: \"b:2\" }\nthreads: { mode: shared, idle: spin }\n";
        assert_eq!(configuration.text(), expected);
    }
}
