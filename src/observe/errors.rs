//! The distinct errors of a process: each warning and error that was logged, once, with how often, when first and when last.
//!
//! Whoever logs leaves a note in a bounded queue and goes on. The process's housekeeping takes the notes up and copies the list to the pool,
//! where it is read however the process ends. What is the same is told by the place in the program that logs it: the text kept is the first.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_queue::ArrayQueue;
use log::Level;

use crate::limits::{ERROR_BYTES, ERRORS_PER_PROCESS};
use crate::pool::{Keep, Layout, Memory};
use crate::utc::utc_ns;

/// Notes that wait to be taken up.
const NOTES_MAX: usize = 256;
/// Words in front of a text: how often, first, last, level and length of the text.
const HEAD_WORDS: u64 = 4;
const TEXT_BYTES: usize = (ERROR_BYTES - 8 * HEAD_WORDS) as usize;

/// Something that was logged as a warning or an error.
struct Note {
    site: (&'static str, u32),
    level: Level,
    at: u64,
    text: String,
}

struct Notes {
    queue: ArrayQueue<Note>,
    /// Notes that found no room.
    lost: AtomicU64,
}

fn notes() -> &'static Notes {
    static NOTES: OnceLock<Notes> = OnceLock::new();
    NOTES.get_or_init(|| Notes { queue: ArrayQueue::new(NOTES_MAX), lost: AtomicU64::new(0) })
}

/// Takes a note of what is being logged, if it is a warning or an error. Never waits.
pub fn note(record: &log::Record<'_>) {
    if record.level() > Level::Warn {
        return;
    }
    let site = (record.file_static().unwrap_or("elsewhere"), record.line().unwrap_or(0));
    let note = Note { site, level: record.level(), at: utc_ns(), text: record.args().to_string() };
    if notes().queue.push(note).is_err() {
        notes().lost.fetch_add(1, Ordering::Relaxed);
    }
}

/// An error of a process that lives or is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "broker", derive(serde::Serialize))]
pub struct DistinctError {
    /// Error or warning.
    #[cfg_attr(feature = "broker", serde(serialize_with = "in_words"))]
    pub level: Level,
    /// How often.
    pub count: u64,
    /// When first, UTC ns.
    pub first_at: u64,
    /// When last, UTC ns.
    pub last_at: u64,
    /// What was said first.
    pub text: String,
}

#[cfg(feature = "broker")]
fn in_words<S: serde::Serializer>(level: &Level, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(level)
}

/// The list, as its process keeps it.
#[derive(Debug, Default)]
pub struct DistinctErrors {
    known: Vec<((&'static str, u32), DistinctError)>,
    changed: Vec<usize>,
}

impl DistinctErrors {
    /// Takes up what was noted since.
    pub fn take_up(&mut self) {
        while let Some(note) = notes().queue.pop() {
            self.count(note);
        }
        let lost = notes().lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let text = format!("{lost} warnings or errors came too fast to be noted; the log has them");
            self.count(Note { site: ("", 0), level: Level::Warn, at: utc_ns(), text });
        }
    }

    fn count(&mut self, note: Note) {
        let Note { mut site, level, at, mut text } = note;
        let is_known = self.known.iter().any(|(known, _)| *known == site);
        if !is_known && self.known.len() + 1 >= ERRORS_PER_PROCESS as usize {
            // The last place stands for all others.
            (site, text) = (("others", 0), format!("others, of which the first was: {text}"));
        }
        let place = self.known.iter().position(|(known, _)| *known == site).unwrap_or_else(|| {
            self.known.push((site, DistinctError { level, count: 0, first_at: at, last_at: at, text }));
            self.known.len() - 1
        });
        let error = &mut self.known[place].1;
        (error.count, error.last_at) = (error.count + 1, at);
        if !self.changed.contains(&place) {
            self.changed.push(place);
        }
    }

    /// Clears what the last process in the place of `broker` left.
    pub fn begin<M: Memory>(memory: &M, layout: &Layout, broker: u32) {
        for error in 0..ERRORS_PER_PROCESS {
            let at = layout.error_block(broker, error);
            memory.store(at, 0);
            memory.write_back(at, 8, Keep::Cached);
        }
        memory.store_fence();
    }

    /// Copies what changed to the place of `broker`.
    pub fn write<M: Memory>(&mut self, memory: &M, layout: &Layout, broker: u32) {
        for place in self.changed.drain(..) {
            let (at, error) = (layout.error_block(broker, place as u32), &self.known[place].1);
            let mut end = error.text.len().min(TEXT_BYTES);
            while !error.text.is_char_boundary(end) {
                end -= 1;
            }
            let words = [error.first_at, error.last_at, (error.level as u64) << 32 | end as u64];
            (at + 8..).step_by(8).zip(words).for_each(|(at, word)| memory.store(at, word));
            for (at, piece) in (at + 8 * HEAD_WORDS..).step_by(8).zip(error.text.as_bytes()[..end].chunks(8)) {
                let mut word = [0; 8];
                word[..piece.len()].copy_from_slice(piece);
                memory.store(at, u64::from_le_bytes(word));
            }
            memory.store(at, error.count);
            memory.write_back(at, ERROR_BYTES, Keep::Cached);
        }
        memory.store_fence();
    }
}

/// The distinct errors of the process that has, or had, the place of `broker`, in the order in which they came.
pub fn read<M: Memory>(memory: &M, layout: &Layout, broker: u32) -> Vec<DistinctError> {
    (0..ERRORS_PER_PROCESS).filter_map(|error| read_one(memory, layout.error_block(broker, error))).collect()
}

fn read_one<M: Memory>(memory: &M, at: u64) -> Option<DistinctError> {
    memory.discard(at, ERROR_BYTES);
    let word = |index: u64| memory.load(at + 8 * index);
    let (count, told) = (word(0), word(3));
    let level = Level::iter().find(|level| *level as u64 == told >> 32)?;
    let bytes = (told as u32 as usize).min(TEXT_BYTES);
    let text: Vec<u8> =
        (0..(bytes as u64).div_ceil(8)).flat_map(|index| word(HEAD_WORDS + index).to_le_bytes()).collect();
    let text = String::from_utf8_lossy(&text[..bytes]).into_owned();
    (count > 0).then(|| DistinctError { level, count, first_at: word(1), last_at: word(2), text })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::views::{host_views, plain_view};
    use crate::testing::memory::Whim;

    fn noted(line: u32, at: u64, text: &str) -> Note {
        Note { site: ("here.rs", line), level: Level::Error, at, text: text.to_owned() }
    }

    #[test]
    fn each_is_kept_once_and_read_however_its_process_ended() {
        let view = plain_view(1);
        let (memory, layout) = (&view.memory, &*view.layout);
        let mut errors = DistinctErrors::default();
        errors.count(noted(7, 5, "session 1 was fenced — gap"));
        errors.count(noted(7, 9, "session 2 was fenced — gap"));
        errors.count(noted(8, 6, &"é".repeat(600)));
        errors.write(memory, layout, 1);
        let found = read(memory, layout, 1);
        assert_eq!((found.len(), found[0].count, found[0].first_at, found[0].last_at), (2, 2, 5, 9));
        assert_eq!((found[0].level, &*found[0].text), (Level::Error, "session 1 was fenced — gap"));
        assert_eq!(found[1].text, "é".repeat(TEXT_BYTES / 2), "cut at a letter");
        assert_eq!(read(memory, layout, 0), []);
        (0..100).for_each(|line| errors.count(noted(line, 10, "more")));
        errors.write(memory, layout, 1);
        let found = read(memory, layout, 1);
        assert_eq!(found.len() as u32, ERRORS_PER_PROCESS);
        assert!(found.iter().map(|error| error.count).sum::<u64>() == 103, "none is lost");
        assert!(found.last().unwrap().text.starts_with("others"), "{:?}", found.last());
        DistinctErrors::begin(memory, layout, 1);
        assert_eq!(read(memory, layout, 1), []);
    }

    #[test]
    fn errors_reach_another_host() {
        let (_, views) = host_views([0, 1], &[0], Whim::LAZY, 1);
        let [ours, theirs] = [0, 1].map(|host: usize| &views[host].memory);
        let layout = &*views[0].layout;
        let mut errors = DistinctErrors::default();
        for count in 1..4 {
            errors.count(noted(7, count, "a lane is damaged"));
            errors.write(ours, layout, 0);
            let found = read(theirs, layout, 0);
            assert_eq!((found[0].count, found[0].last_at, &*found[0].text), (count, count, "a lane is damaged"));
        }
        DistinctErrors::begin(ours, layout, 0);
        assert_eq!(read(theirs, layout, 0), []);
    }

    /// Of what is logged: warnings and errors, each in its place, and how many there was no room for.
    #[test]
    fn what_came_too_fast_is_said_and_what_is_no_error_is_none() {
        let say = |level: Level, line: u32| {
            let mut record = log::Record::builder();
            note(&record.level(level).file_static(Some("said.rs")).line(Some(line)).args(format_args!("so")).build());
        };
        let of_test = |errors: &DistinctErrors| -> Vec<(u32, Level, u64)> {
            let ours = errors.known.iter().filter(|((file, _), _)| *file == "said.rs");
            ours.map(|((_, line), error)| (*line, error.level, error.count)).collect()
        };
        let mut errors = DistinctErrors::default();
        for (level, line) in [(Level::Info, 1), (Level::Warn, 2), (Level::Error, 3), (Level::Error, 3)] {
            say(level, line);
        }
        errors.take_up();
        assert_eq!(of_test(&errors), [(2, Level::Warn, 1), (3, Level::Error, 2)]);
        // Others may log beside this test: there are as many more as they took room.
        (0..NOTES_MAX + 10).for_each(|_| say(Level::Warn, 4));
        errors.take_up();
        let kept = of_test(&errors).last().unwrap().2;
        let lost = errors.known.iter().find(|(site, _)| *site == ("", 0)).expect("it is said").1.text.clone();
        let lost: u64 = lost.split(' ').next().unwrap().parse().unwrap();
        assert!(kept <= NOTES_MAX as u64 && kept + lost >= NOTES_MAX as u64 + 10, "{kept} kept, {lost} lost");
    }
}
