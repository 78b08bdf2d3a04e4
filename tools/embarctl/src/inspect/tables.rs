//! The topic table and the named cursors, held against what the index says since the checkpoint.

use embarcadero::log::commit::Commit;
use embarcadero::log::damage::{FieldFault, count, exactly, sound, within};
use embarcadero::log::topics::Topic;
use embarcadero::pool::record::{Checked, CursorLine, NameLine, Record, TopicLine, TopicProgress};
use embarcadero::wire::frame::check_cursor_name;

use super::findings::{Place, Promise};
use super::fold::Who;
use super::looking::{Owner, Pass};

/// Bytes of a name in a line.
const NAME_PIECE_BYTES: usize = 56;

/// A place of the topic table.
#[derive(Clone, Debug, Default)]
pub struct TopicPlace {
    /// Its topic; none: it is free, or nothing can be said.
    pub topic: Option<Topic>,
    /// Its lines are whole and sound, so `topic` is what they say.
    pub is_known: bool,
    /// How far it has come, if its line is whole.
    pub progress: Option<TopicProgress>,
    /// Who had the number since the checkpoint, as the index says.
    pub since: Vec<Who>,
    /// From what its topic was created, if that was read.
    pub spec: Option<Topic>,
}

/// A place of the cursor table.
#[derive(Clone, Debug, Default)]
pub struct CursorPlace {
    /// What lies there, if its line is whole and sound.
    pub line: Option<CursorLine>,
    /// What the index says of it now; none: nothing yet.
    pub now: Option<CursorLine>,
    /// What it was since the checkpoint; an element that is none: it is not known what.
    pub since: Vec<Option<CursorLine>>,
}

fn topic_place(pass: &Pass<'_>, commit: &Commit, topic: u32, line: u64) -> Place {
    let region = ["topic", "topic name", "topic name", "topic progress"][line as usize];
    Place { region, number: topic.into(), at: pass.view.layout.topic_line(commit.candidate, topic, line) }
}

fn cursor_place(pass: &Pass<'_>, commit: &Commit, cursor: u32) -> Place {
    let at = pass.view.layout.cursor_line(commit.candidate, cursor);
    Place { region: "cursor", number: cursor.into(), at }
}

/// Reads the topic table of a commit's candidate.
pub fn read_topics(pass: &mut Pass<'_>, commit: &Commit) -> Vec<TopicPlace> {
    (0..pass.view.layout.geometry.topics_max).map(|topic| read_topic(pass, commit, topic)).collect()
}

fn read_topic(pass: &mut Pass<'_>, commit: &Commit, id: u32) -> TopicPlace {
    let owner = Owner::Candidate(commit.candidate);
    let mut found = TopicPlace::default();
    let place = topic_place(pass, commit, id, 3);
    if let Some((_, progress)) = pass.look::<TopicProgress>(place, owner) {
        let checked = check_progress(&progress);
        found.progress = pass.findings.hold::<TopicProgress>(Promise::Topics, place, checked).then_some(progress);
    }
    let places = [0, 1, 2].map(|line| topic_place(pass, commit, id, line));
    let Some((guard, properties)) = pass.look::<TopicLine>(places[0], owner) else {
        // Never written, or cut short.
        found.is_known =
            (0..8).all(|word| embarcadero::pool::Memory::load(&pass.view.memory, places[0].at + 8 * word) == 0);
        return found;
    };
    if !pass.findings.hold::<TopicLine>(Promise::Topics, places[0], exactly("id", properties.id.into(), id.into())) {
        return found;
    }
    if properties.name_bytes == 0 {
        return TopicPlace { is_known: true, ..found };
    }
    pass.findings.looked(Promise::Topics, 1);
    let (first, second) = (pass.look::<NameLine>(places[1], owner), pass.look::<NameLine>(places[2], owner));
    let (Some((first_guard, first)), Some((second_guard, second))) = (first, second) else { return found };
    if (first_guard, second_guard) != (guard, guard) {
        let note =
            format!("topic {id} at {} was cut short by a kill; the next start looks it up in the index", places[0].at);
        pass.findings.note(Promise::Lines, note);
        return found;
    }
    match Topic::from_lines(&properties, &[first, second]) {
        Ok(topic) => TopicPlace { topic: Some(topic), is_known: true, ..found },
        Err(error) => {
            let expected = "a topic with a name of 1 to 112 bytes of UTF-8, known levels and receipts";
            pass.broken(Promise::Topics, places[0].broken(0, "topic", error, expected));
            found
        }
    }
}

fn check_progress(progress: &TopicProgress) -> Result<(), FieldFault> {
    count("next_order", progress.next_order)
        .and_then(|()| count("bytes", progress.bytes))
        .and_then(|()| within("earliest_order", progress.earliest_order, 0, progress.next_order))
        .and_then(|()| within("earliest_bytes", progress.earliest_bytes, 0, progress.bytes))
        .and_then(|()| within("taken_bytes", progress.taken_bytes, 0, progress.bytes))
}

/// Where the progress of a topic lies.
pub fn progress_place(pass: &Pass<'_>, commit: &Commit, topic: u32) -> Place {
    topic_place(pass, commit, topic, 3)
}

/// Holds the topic table against the index that was read from `start` on.
pub fn hold_topics(pass: &mut Pass<'_>, commit: &Commit, start: u64, places: &[TopicPlace]) {
    for (id, found) in (0..).zip(places).filter(|(_, found)| found.is_known) {
        let (place, created) =
            (topic_place(pass, commit, id, 0), found.topic.as_ref().map(|topic| topic.created_position));
        let is_it = |who: &Who| match (who, created) {
            (Who::Unknown, None) | (Who::Nobody, None) => true,
            (Who::Unknown | Who::Somebody, Some(created)) => created < start,
            (Who::Since(position), Some(created)) => *position == created,
            (Who::Nobody, Some(_)) | (Who::Somebody | Who::Since(_), None) => false,
        };
        if !found.since.iter().any(is_it) {
            let broken = match (created, found.since.last()) {
                (Some(created), Some(who)) => place.broken(48, "created_position", created, told(*who)),
                (Some(created), None) => place.broken(48, "created_position", created, "that of a topic's creation"),
                (None, who) => place.broken(12, "name_bytes", "no topic", who.map_or(String::new(), |who| told(*who))),
            };
            pass.broken(Promise::Topics, broken);
            continue;
        }
        if let (Some(topic), Some(spec)) = (&found.topic, &found.spec)
            && topic.created_position == spec.created_position
        {
            hold_properties(pass, commit, topic, spec);
        }
        let same = |other: &&TopicPlace| {
            other.topic.as_ref().map(|topic| &topic.name) == found.topic.as_ref().map(|t| &t.name)
        };
        if let Some(topic) = &found.topic
            && places[..id as usize].iter().any(|other| other.topic.is_some() && same(&other))
        {
            let place = topic_place(pass, commit, id, 1);
            pass.broken(Promise::Topics, place.broken(8, "text", format!("{:?}", topic.name), "a name no other has"));
        }
    }
}

fn told(who: Who) -> String {
    match who {
        Who::Unknown => "a topic from before, or none".into(),
        Who::Somebody => "a topic from before".into(),
        Who::Nobody => "no topic".into(),
        Who::Since(position) => format!("the topic created at position {position}"),
    }
}

/// Byte by byte: the table is what the topic was created from.
fn hold_properties(pass: &mut Pass<'_>, commit: &Commit, topic: &Topic, spec: &Topic) {
    let bytes = |topic: &Topic| {
        let (line, names) = topic.lines();
        [line.words(), names[0].words(), names[1].words()].map(|words| as_bytes(&words))
    };
    let (found, expected) = (bytes(topic), bytes(spec));
    for line in 0..3 {
        let Some(at) = (0..NAME_PIECE_BYTES).find(|at| found[line][*at] != expected[line][*at]) else { continue };
        let place = topic_place(pass, commit, topic.id, line as u64);
        let (field, found, expected) = match line {
            0 => ("properties", format!("byte {}", found[0][at]), format!("{}, as it was created", expected[0][at])),
            _ => ("text", format!("{:?}", topic.name), format!("{:?}, as it was created", spec.name)),
        };
        pass.broken(Promise::Topics, place.broken(8 + at as u64, field, found, expected));
        return;
    }
}

fn as_bytes(words: &[u64; 7]) -> [u8; NAME_PIECE_BYTES] {
    let mut bytes = [0; NAME_PIECE_BYTES];
    bytes.chunks_exact_mut(8).zip(words).for_each(|(to, word)| to.copy_from_slice(&word.to_le_bytes()));
    bytes
}

/// Reads the named cursors of a commit's candidate.
pub fn read_cursors(pass: &mut Pass<'_>, commit: &Commit) -> Vec<CursorPlace> {
    let g = pass.view.layout.geometry;
    let mut read = |number| {
        let place = cursor_place(pass, commit, number);
        let found = pass.look::<CursorLine>(place, Owner::Candidate(commit.candidate));
        let Some((_, line)) = found else { return CursorPlace::default() };
        pass.findings.looked(Promise::Cursors, 1);
        let checked = sound(line).and_then(|line| line.examine(g.topics_max).map(|()| line));
        let is_sound = pass.findings.hold::<CursorLine>(Promise::Cursors, place, checked.map(drop));
        CursorPlace { line: is_sound.then(|| line.unsealed()), ..CursorPlace::default() }
    };
    (0..g.cursors_max).map(&mut read).collect()
}

/// Holds the cursors against topics and index.
pub fn hold_cursors(
    pass: &mut Pass<'_>,
    commit: &Commit,
    topics: &[TopicPlace],
    places: &[CursorPlace],
    is_index_whole: bool,
) {
    for (number, found) in (0..).zip(places) {
        let place = cursor_place(pass, commit, number);
        let Some(line) = found.line else { continue };
        let is_free = line.name_bytes == 0;
        // What a free place holds besides is nobody's.
        let meant = |known: &CursorLine| if is_free { known.name_bytes == 0 } else { *known == line };
        if is_index_whole && !found.since.iter().any(|known| known.as_ref().is_none_or(meant)) {
            let known = found.since.last().copied().flatten().unwrap_or_default();
            let (field, behind) = if known.name() == line.name() { ("order", 16) } else { ("name", 24) };
            let words = |line: &CursorLine| format!("{:?} at order {}", line.name(), line.order);
            pass.broken(Promise::Cursors, place.broken(behind, field, words(&line), words(&known)));
            continue;
        }
        if is_free {
            continue;
        }
        let name = check_cursor_name(line.name().as_bytes());
        pass.demand(Promise::Cursors, name.is_ok(), || place.broken(24, "text", "another name", "a cursor's name"));
        let topic = &topics[usize::from(line.topic)];
        pass.demand(Promise::Cursors, topic.topic.is_some() || !topic.is_known, || {
            place.broken(12, "topic", line.topic, "a topic that is there")
        });
        let is_same =
            |other: &CursorLine| other.name_bytes > 0 && (other.topic, other.name()) == (line.topic, line.name());
        let is_second = places[..number as usize].iter().filter_map(|other| other.line.as_ref()).any(is_same);
        pass.demand(Promise::Cursors, !is_second, || {
            place.broken(24, "text", format!("{:?}", line.name()), "a name no other cursor of its topic has")
        });
    }
}
