//! Keys as paths: on which line one is written, and which known one an unknown one was meant to be.

use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_yaml::Value;

/// One step from the document's root to a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Into the value of this key.
    Key(String),
    /// Into this item of a list.
    Item(usize),
}

/// Reads `brokers[0].address` as steps.
///
/// # Panics
/// If it is not a path: paths are written in this crate.
pub fn steps(path: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    for part in path.split('.') {
        let mut pieces = part.split('[');
        steps.push(Step::Key(pieces.next().unwrap_or_default().into()));
        for piece in pieces {
            let number = piece.strip_suffix(']').and_then(|number| number.parse().ok());
            steps.push(Step::Item(number.expect("an index in a path is a number in brackets")));
        }
    }
    steps
}

/// Writes steps as `brokers[0].address`.
pub fn path(steps: &[Step]) -> String {
    let mut path = String::new();
    for step in steps {
        match step {
            Step::Key(key) if path.is_empty() => path.push_str(key),
            Step::Key(key) => path.extend([".", key]),
            Step::Item(index) => path.extend(["[", &index.to_string(), "]"]),
        }
    }
    path
}

/// Line, from 1, on which the key at the end of `steps` is written; of the nearest section around it if it is not.
pub fn line_of(text: &str, steps: &[Step]) -> Option<usize> {
    (1..=steps.len()).rev().find_map(|length| exact_line_of(text, &steps[..length]))
}

/// The parser tells positions in errors only. So a reader goes down the steps, and refuses what it finds at the end.
fn exact_line_of(text: &str, steps: &[Step]) -> Option<usize> {
    let found = Find(steps).deserialize(serde_yaml::Deserializer::from_str(text));
    let refused = found.err()?;
    refused.location().map(|location| location.line())
}

struct Find<'a>(&'a [Step]);

impl<'de> DeserializeSeed<'de> for Find<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<(), D::Error> {
        match self.0 {
            [] => input.deserialize_any(Refuse),
            _ => input.deserialize_any(self),
        }
    }
}

impl<'de> Visitor<'de> for Find<'_> {
    type Value = ();

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a section or list on the way to a key")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Some((Step::Key(wanted), rest)) = self.0.split_first() else {
            return drain_map(map);
        };
        // The last key is refused itself: its value may begin on a later line.
        while let Some(here) = map.next_key_seed(KeyIs { wanted, refuse: rest.is_empty() })? {
            match here {
                true => map.next_value_seed(Find(rest))?,
                false => map.next_value::<IgnoredAny>().map(drop)?,
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        if let Some((Step::Item(wanted), rest)) = self.0.split_first() {
            for _ in 0..*wanted {
                if items.next_element::<IgnoredAny>()?.is_none() {
                    return Ok(());
                }
            }
            items.next_element_seed(Find(rest))?;
        }
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }

    // The path goes on but the value has nothing inside: not written here.
    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        Ok(())
    }
    fn visit_bool<E: de::Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }
    fn visit_i64<E: de::Error>(self, _: i64) -> Result<(), E> {
        Ok(())
    }
    fn visit_u64<E: de::Error>(self, _: u64) -> Result<(), E> {
        Ok(())
    }
    fn visit_f64<E: de::Error>(self, _: f64) -> Result<(), E> {
        Ok(())
    }
    fn visit_str<E: de::Error>(self, _: &str) -> Result<(), E> {
        Ok(())
    }
}

fn drain_map<'de, A: MapAccess<'de>>(mut map: A) -> Result<(), A::Error> {
    while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
    Ok(())
}

struct KeyIs<'a> {
    wanted: &'a str,
    refuse: bool,
}

impl<'de> DeserializeSeed<'de> for KeyIs<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<bool, D::Error> {
        input.deserialize_str(self)
    }
}

impl Visitor<'_> for KeyIs<'_> {
    type Value = bool;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a key")
    }

    fn visit_str<E: de::Error>(self, key: &str) -> Result<bool, E> {
        if self.refuse && key == self.wanted { Err(E::custom("here")) } else { Ok(key == self.wanted) }
    }
}

/// Refuses any value: serde's visitors do, unless told otherwise.
struct Refuse;

impl Visitor<'_> for Refuse {
    type Value = ();

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("nothing: this is the place")
    }
}

/// The first key of `found` that `schema`, a value with every key in it, does not have. Lists follow the schema's
/// first item.
pub fn unknown_key(found: &Value, schema: &Value) -> Option<Unknown> {
    let mut at = Vec::new();
    let known = walk(found, schema, &mut at)?;
    Some(Unknown { nearest: nearest(&at, &known, schema), steps: at, known })
}

/// A key that is not in the schema.
#[derive(Debug)]
pub struct Unknown {
    /// Where it is.
    pub steps: Vec<Step>,
    /// The known key most like it: its name if it is in the same section, else its path.
    pub nearest: Option<String>,
    /// The keys its section has.
    pub known: Vec<String>,
}

/// Leaves the path of the first unknown key in `at` and returns the keys known there.
fn walk(found: &Value, schema: &Value, at: &mut Vec<Step>) -> Option<Vec<String>> {
    match (found, schema) {
        (Value::Mapping(found), Value::Mapping(schema)) => found.iter().find_map(|(key, value)| {
            at.push(Step::Key(name_of(key)));
            let unknown = match schema.get(key) {
                None => Some(schema.keys().map(name_of).collect()),
                Some(known) => walk(value, known, at),
            };
            if unknown.is_none() {
                at.pop();
            }
            unknown
        }),
        (Value::Sequence(found), Value::Sequence(schema)) => found.iter().enumerate().find_map(|(index, value)| {
            at.push(Step::Item(index));
            let unknown = walk(value, schema.first()?, at);
            if unknown.is_none() {
                at.pop();
            }
            unknown
        }),
        // A section where a value is known, or the other way round, is a wrong type: not told here.
        _ => None,
    }
}

/// A key's name; keys that are not text (`1:`, `true:`) as YAML.
fn name_of(key: &Value) -> String {
    match key {
        Value::String(name) => name.clone(),
        other => serde_yaml::to_string(other).unwrap_or_default().trim().into(),
    }
}

/// A key of the same section that is spelled like it; else the same name, in another section.
fn nearest(at: &[Step], known: &[String], schema: &Value) -> Option<String> {
    let Some(Step::Key(typed)) = at.last() else {
        return None;
    };
    let spelled_like = known
        .iter()
        .map(|name| (edit_distance(typed, name), name))
        .filter(|(distance, name)| *distance <= 2.max(name.len() / 3))
        .min_by_key(|(distance, _)| *distance);
    spelled_like.map(|(_, name)| name.clone()).or_else(|| {
        let mut paths = Vec::new();
        collect_paths(schema, &mut Vec::new(), &mut paths);
        let same_name = paths.iter().find(|steps| steps.last() == at.last());
        same_name.map(|steps| path(steps))
    })
}

/// Every key of a schema, parents first.
pub fn collect_paths(schema: &Value, at: &mut Vec<Step>, paths: &mut Vec<Vec<Step>>) {
    match schema {
        Value::Mapping(map) => {
            for (key, value) in map {
                at.push(Step::Key(name_of(key)));
                paths.push(at.clone());
                collect_paths(value, at, paths);
                at.pop();
            }
        }
        Value::Sequence(items) => {
            if let Some(first) = items.first() {
                at.push(Step::Item(0));
                collect_paths(first, at, paths);
                at.pop();
            }
        }
        _ => {}
    }
}

/// Levenshtein's distance: fewest characters to insert, delete or replace that turn `one` into `other`.
fn edit_distance(one: &str, other: &str) -> usize {
    let mut row: Vec<usize> = (0..=other.chars().count()).collect();
    for (taken, mine) in one.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = taken + 1;
        for (at, theirs) in other.chars().enumerate() {
            let replaced = diagonal + usize::from(mine != theirs);
            diagonal = row[at + 1];
            row[at + 1] = replaced.min(diagonal + 1).min(row[at] + 1);
        }
    }
    row[other.chars().count()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_read_back() {
        for text in ["log", "pool.bytes", "brokers[12].address", "threads.cores[3]"] {
            assert_eq!(path(&steps(text)), text);
        }
    }

    #[test]
    fn lines_in_block_and_flow_style() {
        let text = "pool:\n  bytes:\n    8MiB\n\nbrokers:\n  - id: 0\n    address: a\n  - { id: 1,\n      address: b }\nlog: info\n";
        for (path, line) in [
            ("pool", 1),
            ("pool.bytes", 2),
            ("pool.path", 1),
            ("brokers", 5),
            ("brokers[0].id", 6),
            ("brokers[0].address", 7),
            ("brokers[1].id", 8),
            ("brokers[1].address", 9),
            ("brokers[1].advertise", 8),
            ("brokers[2].id", 5),
            ("log", 10),
            ("log.level", 10),
        ] {
            assert_eq!(line_of(text, &steps(path)), Some(line), "{path}");
        }
        assert_eq!(line_of(text, &steps("nowhere")), None);
    }

    #[test]
    fn distances() {
        for (one, other, distance) in
            [("", "", 0), ("abc", "", 3), ("kitten", "sitting", 3), ("byte", "bytes", 1), ("ß", "s", 1)]
        {
            assert_eq!(edit_distance(one, other), distance);
            assert_eq!(edit_distance(other, one), distance);
        }
    }
}
