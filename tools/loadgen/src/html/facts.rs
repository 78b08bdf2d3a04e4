//! Settings and machines as rows: nested JSON, flat and in words.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::number::{bytes, grouped, rounded};
use super::table::{Cell, Row};

/// Said under another name too.
const SAID_TWICE: [&str; 2] = ["cpu", "cores"];
/// Ends of names that are units, and how they are written.
const UNITS: [(&str, &str); 6] =
    [("_ns", "ns"), ("_us", "µs"), ("_ms", "ms"), ("_s", "s"), ("_messages", "messages"), ("_batches", "batches")];

/// A row for each name that any of them has.
pub fn rows(all: &[&Map<String, Value>]) -> Vec<Row> {
    let flat: Vec<BTreeMap<String, Cell>> = all.iter().map(|map| flattened(map)).collect();
    let mut names: Vec<&String> = flat.iter().flat_map(BTreeMap::keys).collect();
    names.sort();
    names.dedup();
    let cells = |name: &String| flat.iter().map(|map| map.get(name).cloned().unwrap_or(Cell::None)).collect();
    names.into_iter().map(|name| Row::of(name.clone(), cells(name))).collect()
}

fn flattened(map: &Map<String, Value>) -> BTreeMap<String, Cell> {
    let mut cells = BTreeMap::new();
    for (key, value) in map.iter().filter(|(key, _)| !SAID_TWICE.contains(&key.as_str())) {
        match value {
            Value::Object(inner) => {
                let inner = flattened(inner).into_iter();
                cells.extend(inner.map(|(name, cell)| (format!("{}: {name}", key.replace('_', " ")), cell)));
            }
            _ => _ = cells.insert(label(key), cell(key, value)),
        }
    }
    cells
}

/// `linger_us` is `linger, µs`. Bytes say their unit themselves.
fn label(key: &str) -> String {
    if let Some(name) = key.strip_suffix("_bytes") {
        return format!("{} size", name.replace('_', " "));
    }
    let words = |name: &str| name.replace('_', " ");
    if let Some(name) = key.strip_suffix("_per_s") {
        return format!("{}/s", words(name));
    }
    match UNITS.iter().find_map(|(end, unit)| Some((key.strip_suffix(end)?, unit))) {
        Some((name, unit)) => format!("{}, {unit}", words(name)),
        None => words(key),
    }
}

fn cell(key: &str, value: &Value) -> Cell {
    match value {
        Value::Null => Cell::None,
        Value::Bool(yes) => Cell::Words(if *yes { "yes" } else { "no" }.to_owned()),
        Value::String(text) => Cell::Words(text.clone()),
        Value::Array(all) => {
            let words = |one: &Value| one.as_str().map_or_else(|| one.to_string(), str::to_owned);
            Cell::Words(all.iter().map(words).collect::<Vec<_>>().join(", "))
        }
        Value::Number(number) => {
            let figure = number.as_f64().unwrap_or(0.0);
            let words = match number.as_u64() {
                Some(size) if key.ends_with("_bytes") => bytes(size),
                Some(whole) => grouped(whole),
                None => rounded(figure),
            };
            Cell::number(figure, words)
        }
        Value::Object(_) => Cell::None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn settings_are_flat_and_say_their_units() {
        let json = json!({
            "linger_us": 1500, "batch_bytes": 65536, "discover": true, "cpu": "x", "skew": null, "brokers": ["a", "b"],
            "open_loop": { "messages_per_s": 2000.5, "warm_up_ms": 100 },
        });
        let flat = flattened(json.as_object().unwrap());
        let found: Vec<(&str, &Cell)> = flat.iter().map(|(name, cell)| (name.as_str(), cell)).collect();
        let words = |text: &str| Cell::Words(text.to_owned());
        let expected = [
            ("batch size", Cell::number(65536.0, "64 KiB")),
            ("brokers", words("a, b")),
            ("discover", words("yes")),
            ("linger, µs", Cell::number(1500.0, "1,500")),
            ("open loop: messages/s", Cell::number(2000.5, "2,001")),
            ("open loop: warm up, ms", Cell::number(100.0, "100")),
            ("skew", Cell::None),
        ];
        assert_eq!(found, expected.iter().map(|(name, cell)| (*name, cell)).collect::<Vec<_>>());
    }
}
