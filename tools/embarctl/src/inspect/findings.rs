//! What a walk finds: by promise, how much was looked at and where it is broken.

use std::collections::BTreeSet;

use embarcadero::fields::Described;
use embarcadero::log::damage::FieldFault;

/// Places of one promise that are remembered; more are counted.
const BROKEN_MAX: usize = 10_000;
/// Remarks that are remembered of one promise; more are counted.
const NOTES_MAX: usize = 100;

/// What a pool promises, as far as its bytes tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Promise {
    /// Of the superblock.
    Superblock,
    /// No line is half written.
    Lines,
    /// Of epoch lines.
    Epochs,
    /// Of floor lines.
    Floors,
    /// Of the segment directory.
    Directory,
    /// Of each entry by itself.
    Entries,
    /// Of entries together.
    Order,
    /// Of headers in the blog.
    Headers,
    /// Of bodies in the blog.
    Bodies,
    /// Of who has which memory.
    Extents,
    /// Of lanes.
    Lanes,
    /// Of the topic table.
    Topics,
    /// Of checkpoints of sessions.
    Sessions,
    /// Of named cursors.
    Cursors,
    /// Of pins.
    Pins,
    /// Of member lines.
    Members,
    /// Of memory that failed.
    Memory,
}

impl Promise {
    /// All of them, in the order in which they are told.
    pub const EVERY: [Promise; 17] = [
        Promise::Superblock,
        Promise::Lines,
        Promise::Epochs,
        Promise::Floors,
        Promise::Directory,
        Promise::Entries,
        Promise::Order,
        Promise::Headers,
        Promise::Bodies,
        Promise::Extents,
        Promise::Lanes,
        Promise::Topics,
        Promise::Sessions,
        Promise::Cursors,
        Promise::Pins,
        Promise::Members,
        Promise::Memory,
    ];

    /// Its name, the promise in a sentence, and what is counted where it is looked at.
    pub fn told(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Promise::Superblock => {
                ("superblock", "magic, version and CRC are right, and the geometry fits the memory", "bytes")
            }
            Promise::Lines => ("lines", "no line is half written for long", "lines"),
            Promise::Epochs => (
                "epochs",
                "claimed is not below active, each candidate has epochs of its own, the watermark lies within the segments",
                "lines",
            ),
            Promise::Floors => {
                ("floors", "floor <= closing <= wanted <= checkpoint <= watermark, and the check is right", "lines")
            }
            Promise::Directory => {
                ("directory", "every position from the floor to the watermark lies in one segment", "lines")
            }
            Promise::Entries => ("entries", "guard, epoch and every field are what a committed entry has", "entries"),
            Promise::Order => (
                "order",
                "each entry can follow those before it: topics and sessions have no gap, nothing twice",
                "entries",
            ),
            Promise::Headers => {
                ("headers", "where an entry says, its batch begins, with a header CRC that is right", "batches")
            }
            Promise::Bodies => ("bodies", "body CRC and message framing are right", "bytes"),
            Promise::Extents => (
                "extents",
                "what is named lies in memory that its lane has; index, holdings, grants and extent table agree",
                "extents",
            ),
            Promise::Lanes => {
                ("lanes", "reusable <= settled <= consumed <= published, and what is not consumed is there", "slots")
            }
            Promise::Topics => {
                ("topics", "names are valid and unique, properties and progress are what the index says", "topics")
            }
            Promise::Sessions => ("sessions", "each checkpoint is what the index says of its position", "sessions"),
            Promise::Cursors => (
                "cursors",
                "checks are right, topics exist, names are unique, orders are those of the index",
                "cursors",
            ),
            Promise::Pins => {
                ("pins", "no pin that is waited for lies below the floor, and none above the watermark", "pins")
            }
            Promise::Members => ("members", "member lines say what a process of their host says", "members"),
            Promise::Memory => ("failed memory", "what was noted lies in the pool", "lines"),
        }
    }
}

/// A place in the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Region, or what the line is.
    pub region: &'static str,
    /// Its number there: of a candidate, lane, topic, position, …
    pub number: u64,
    /// Its first byte, from the start of the pool.
    pub at: u64,
}

impl Place {
    /// A field of the record that lies here in a line.
    pub fn fault<R: Described>(self, fault: &FieldFault) -> Broken {
        let at = self.at + offset_in_line::<R>(fault.field);
        Broken {
            at,
            field: fault.field,
            found: fault.found.to_string(),
            expected: fault.expected.to_string(),
            region: self.region,
            number: self.number,
        }
    }

    /// Something else that is not as it should be, so many bytes behind where the place begins.
    pub fn broken(self, behind: u64, field: &'static str, found: impl ToString, expected: impl ToString) -> Broken {
        let (found, expected) = (found.to_string(), expected.to_string());
        Broken { region: self.region, number: self.number, at: self.at + behind, field, found, expected }
    }
}

/// What checks of the library call fields that have another name in their record.
const ALIASES: [(&str, &str); 12] = [
    ("topic", "place"),
    ("blog_at", "place"),
    ("state of its session", "session_slot"),
    ("cursor", "session_slot"),
    ("extent", "first_order"),
    ("first position", "first"),
    ("end position", "end"),
    ("epoch that filled it", "filled_by"),
    ("cursor name", "name_bytes"),
    ("topic id", "id"),
    ("number", "lane_slot"),
    ("session id", "first_order"),
];

/// Where a field of a record lies in its line; the guard is at its start, and so is what no field is called.
fn offset_in_line<R: Described>(field: &str) -> u64 {
    let known = |name: &str| R::FIELDS.iter().find(|known| known.name == name).map(|known| known.offset as u64 + 8);
    let alias = || ALIASES.iter().find(|(name, _)| *name == field).and_then(|(_, name)| known(name));
    known(field).or_else(alias).unwrap_or(0)
}

/// A promise that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Region, or what the line is.
    pub region: &'static str,
    /// Its number there.
    pub number: u64,
    /// Where in the pool, bytes.
    pub at: u64,
    /// Which field.
    pub field: &'static str,
    /// What is there.
    pub found: String,
    /// What may be there.
    pub expected: String,
}

/// What was found of one promise.
#[derive(Clone, Debug, Default)]
pub struct Finding {
    /// How much was looked at.
    pub looked: u64,
    /// Where it is broken: the first that were found.
    pub broken: Vec<Broken>,
    /// And how many more.
    pub more: u64,
    /// What is to be known, and is no damage.
    pub notes: Vec<String>,
}

impl Finding {
    /// Where it is broken, in all.
    pub fn count(&self) -> u64 {
        self.broken.len() as u64 + self.more
    }
}

/// What was found of all.
#[derive(Clone, Debug)]
pub struct Findings([Finding; Promise::EVERY.len()]);

impl Findings {
    /// Nothing was looked at.
    pub fn new() -> Findings {
        Findings(std::array::from_fn(|_| Finding::default()))
    }

    /// Of one promise.
    pub fn of(&self, promise: Promise) -> &Finding {
        &self.0[promise as usize]
    }

    /// So much more was looked at.
    pub fn looked(&mut self, promise: Promise, count: u64) {
        self.0[promise as usize].looked += count;
    }

    /// A place where it is broken.
    pub fn broken(&mut self, promise: Promise, broken: Broken) {
        let finding = &mut self.0[promise as usize];
        if finding.broken.len() < BROKEN_MAX { finding.broken.push(broken) } else { finding.more += 1 }
    }

    /// A field that holds what nobody writes there.
    pub fn hold<R: Described>(&mut self, promise: Promise, place: Place, checked: Result<(), FieldFault>) -> bool {
        if let Err(fault) = &checked {
            self.broken(promise, place.fault::<R>(fault));
        }
        checked.is_ok()
    }

    /// Something to know.
    pub fn note(&mut self, promise: Promise, note: String) {
        let notes = &mut self.0[promise as usize].notes;
        match notes.len() {
            NOTES_MAX => notes.push("and more of these".into()),
            length if length < NOTES_MAX => notes.push(note),
            _ => {}
        }
    }

    /// Places where a promise is broken, of all.
    pub fn count(&self) -> u64 {
        self.0.iter().map(Finding::count).sum()
    }

    /// Leaves out what another look did not find again: it was seen while it changed.
    pub fn keep_what_is_in(&mut self, again: &Findings) {
        for (finding, again) in self.0.iter_mut().zip(&again.0) {
            let there: BTreeSet<(u64, &str)> = again.broken.iter().map(|broken| (broken.at, broken.field)).collect();
            finding.broken.retain(|broken| there.contains(&(broken.at, broken.field)));
            finding.more = finding.more.min(again.more);
        }
    }
}
