//! A pool whose records name what cannot be: recovery, ack tracker and exporter say which and go no further.

use crate::log::View;
use crate::log::blog::Blog;
use crate::log::checkpoint::recover;
use crate::log::commit::CommitReader;
use crate::log::cursors::{CursorReader, write_request};
use crate::log::inherit::check_broker;
use crate::log::lane::LaneWriter;
use crate::log::order_index::IndexFault;
use crate::log::reader::{ReadFault, Reader, Sought, TopicStart};
use crate::log::recover::RecoverError;
use crate::log::retention::FloorReader;
use crate::log::session::SessionFollower;
use crate::log::topics::{Topic, TopicReader, write_spec};
use crate::log::views::plain_view;
use crate::pool::record::{
    BatchSlot, BrokerLine, CursorLine, EpochLine, FloorLine, IndexEntry, LaneProgress, LaneStatus, Record, SegmentLine,
    SessionLine, TopicLine, TopicProgress, slot_kind,
};
use crate::pool::{Memory, line};
use crate::roles::ack::tracker::Tracker;
use crate::roles::locks::Locks;
use crate::roles::sequence::TakeoverSettings;
use crate::roles::sequence::active::ActiveSequencer;
use crate::roles::sequence::candidate::Candidate;
use crate::roles::sequence::tests::{SETTINGS, start};
use crate::testing::memory::HostMemory;
use crate::wire::StartAt;
use crate::wire::frame::{self, BatchHeader};
use crate::wire::message::push;
use crate::wire::{AckLevel, OrderLevel};

/// Entries of the sound pool: topic, session, batches.
const TOPIC_AT: u64 = 0;
const OPEN_AT: u64 = 1;
const SESSION: u64 = OPEN_AT + 1;
const BATCH_AT: u64 = 3;
const BATCHES: u64 = 4;
const NO_LOCKS: NoLocks = NoLocks;

struct NoLocks;

impl Locks for NoLocks {
    fn while_member_free(&self, _member: u32, _act: &mut dyn FnMut()) {}
    fn is_candidate_held(&self, _: u32) -> bool {
        false
    }
    fn while_free(&self, _: u32, act: &mut dyn FnMut()) {
        act();
    }
    fn is_member_gone(&self, _: u32) -> bool {
        false
    }
}

struct Sound {
    view: View<HostMemory>,
    lane: LaneWriter<HostMemory>,
    blog: Blog<HostMemory>,
    sequencer: ActiveSequencer<HostMemory>,
}

impl Sound {
    /// One topic, one session, four batches, all committed; replays begin at the start.
    fn new() -> Sound {
        let view = plain_view(2);
        let sequencer = start(&view, 0);
        let lane = LaneWriter::take(&view, 0);
        let blog = Blog::take(&view, 0, lane.produced());
        let mut sound = Sound { view, lane, blog, sequencer };
        let at = sound.view.layout.extent(3);
        let topic = Topic::new("t", OrderLevel::Session, AckLevel::Committed);
        write_spec(&sound.view, at, &topic);
        sound.present(BatchSlot { kind: slot_kind::TOPIC_CREATE, blog_at: at, ..BatchSlot::default() });
        sound.present(BatchSlot { kind: slot_kind::SESSION_OPEN, session_epoch: 1, ..BatchSlot::default() });
        (0..BATCHES).for_each(|number| sound.publish(number));
        sound.replay_from_the_start();
        sound
    }

    fn present(&mut self, slot: BatchSlot) {
        self.lane.publish(&slot);
        self.sequencer.pass(self.lane.produced());
    }

    fn publish(&mut self, batch_seq: u64) {
        let mut body = Vec::new();
        push(&mut body, b"a");
        push(&mut body, b"b");
        let header =
            BatchHeader { message_count: 2, session: SESSION, session_epoch: 1, batch_seq, ..BatchHeader::default() };
        let bytes = frame::with_body(&header, &body);
        let run = self.blog.acquire(128, 128, self.lane.produced()).expect("an extent is free");
        let (blog_at, batch_bytes) = (run.start, bytes.len() as u32);
        self.view.memory.copy_in(blog_at, &bytes);
        self.blog.release(run, batch_bytes.into(), batch_bytes.into(), self.lane.produced() + 1);
        let (kind, session, session_epoch, message_count) = (slot_kind::BATCH, SESSION, 1, 2);
        let slot = BatchSlot {
            kind,
            session,
            session_epoch,
            message_count,
            batch_seq,
            blog_at,
            batch_bytes,
            ..BatchSlot::default()
        };
        self.present(slot);
    }

    fn replay_from_the_start(&self) {
        self.damage(self.view.layout.floor_line(0), |floors: &mut FloorLine| floors.checkpoint = 0);
    }

    /// Rewrites a line in place, guard and all.
    fn damage<R: Record>(&self, at: u64, change: impl Fn(&mut R)) {
        let (guard, mut record) = line::read::<_, R>(&self.view.memory, at).expect("it was written");
        change(&mut record);
        line::publish(&self.view.memory, at, guard, &record);
    }

    fn damage_entry(&self, position: u64, change: fn(&mut IndexEntry)) {
        self.damage(self.view.layout.index_entry(0, 0, position), change);
    }

    fn recovered(&self) -> Result<u64, RecoverError> {
        recover(&self.view, &CommitReader::new(&self.view)).map(|found| found.expect("it was active").commit.watermark)
    }

    /// What a subscriber that starts at the earliest is given, or told.
    fn exported(&self) -> Result<usize, ReadFault> {
        let commit = CommitReader::new(&self.view).current().expect("it is active");
        let first = TopicStart { topic: 0, created_position: 0, start: StartAt::Earliest };
        let mut reader = Reader::new(&self.view, [first], 0, false);
        let sought = reader.seek(&commit, &TopicReader::new(&self.view))?;
        assert_eq!(sought, Sought::Found);
        let mut batches = 0;
        while reader.fetch(&commit).map_err(ReadFault::Index)? > 0 {
            while reader.next_delivery()?.is_some() {
                batches += 1;
            }
        }
        Ok(batches)
    }
}

fn field_of(fault: IndexFault, expected_position: u64) -> &'static str {
    let IndexFault::Damaged { position, fault } = fault else { panic!("{fault}") };
    assert_eq!(position, expected_position);
    fault.field
}

fn record_of(error: RecoverError) -> (&'static str, &'static str) {
    let RecoverError::Record { record, fault, .. } = error else { panic!("{error}") };
    (record, fault.field)
}

type Damage = (&'static str, fn(&mut IndexEntry));

/// One damage to a batch's entry for each bound of each field.
const BATCH_DAMAGES: [Damage; 17] = [
    ("kind", |entry| entry.kind = 0),
    ("kind", |entry| entry.kind = 13),
    ("session_slot", |entry| entry.session_slot = 64),
    ("session_slot", |entry| entry.session_slot = u32::MAX),
    ("topic", |entry| entry.place |= 8),
    ("lane", |entry| entry.lane = 2),
    ("lane", |entry| entry.lane = u16::MAX),
    ("lane_slot", |entry| entry.lane_slot = u64::MAX),
    ("blog_at", |entry| entry.place = 0),
    ("blog_at", |entry| entry.place = u64::MAX << 16),
    ("blog_at", |entry| (entry.place, entry.batch_bytes) = (entry.place + (((224 << 10) / 64) << 16), 64 << 10)),
    ("batch_bytes", |entry| entry.batch_bytes = 0),
    ("batch_bytes", |entry| entry.batch_bytes += 1),
    ("batch_bytes", |entry| entry.batch_bytes = (64 << 10) + 64),
    ("message_count", |entry| entry.message_count = 0),
    ("message_count", |entry| entry.message_count = (1 << 20) + 1),
    ("batch_seq", |entry| entry.batch_seq = u64::MAX),
];

#[test]
fn a_sound_pool_is_taken_over_followed_and_delivered() {
    let sound = Sound::new();
    assert_eq!(sound.recovered(), Ok(OPEN_AT + 1 + BATCHES));
    assert_eq!(sound.exported(), Ok(BATCHES as usize));
    assert_eq!((check_broker(&sound.view, 0), check_broker(&sound.view, 1)), (Ok(()), Ok(())));
}

#[test]
fn recovery_names_position_and_field() {
    let more: [Damage; 2] =
        [("first_order", |entry| entry.first_order += 1), ("first_order", |entry| entry.first_order = u64::MAX)];
    for (field, change) in BATCH_DAMAGES.into_iter().chain(more) {
        let sound = Sound::new();
        sound.damage_entry(BATCH_AT, change);
        let Err(RecoverError::Damaged(fault)) = sound.recovered() else { panic!("{field} went unnoticed") };
        assert_eq!(field_of(fault, BATCH_AT), field, "{fault}");
    }
}

#[test]
fn recovery_names_damaged_control_entries() {
    let damages: [(u64, Damage); 9] = [
        (TOPIC_AT, ("topic", |entry| entry.place |= 8)),
        (TOPIC_AT, ("topic", |entry| entry.place += 1)),
        (TOPIC_AT, ("flags", |entry| entry.flags = 3)),
        (TOPIC_AT, ("blog_at", |entry| entry.place += 1 << 16)),
        (OPEN_AT, ("session_slot", |entry| entry.session_slot = 64)),
        (OPEN_AT, ("flags", |entry| entry.flags = 6)),
        (OPEN_AT, ("first_order", |entry| entry.first_order += 1)),
        (OPEN_AT, ("first_order", |entry| entry.session_epoch = 2)),
        (OPEN_AT, ("batch_seq", |entry| entry.batch_seq = u64::MAX)),
    ];
    for (position, (field, change)) in damages {
        let sound = Sound::new();
        sound.damage_entry(position, change);
        let Err(RecoverError::Damaged(fault)) = sound.recovered() else { panic!("{field} went unnoticed") };
        assert_eq!(field_of(fault, position), field, "{fault}");
    }
}

/// It says what to do, too.
#[test]
fn the_error_tells_position_field_found_expected_and_remedy() {
    let sound = Sound::new();
    sound.damage_entry(BATCH_AT, |entry| entry.lane = 9);
    let text = sound.recovered().unwrap_err().to_string();
    for part in ["index position 3", "lane is 9", "expected 0 to 1", "restore the pool", "--format"] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn the_ack_tracker_stops_before_a_damaged_entry() {
    let more: [Damage; 5] = [
        ("first_order", |entry| entry.first_order += 1),
        ("batch_seq", |entry| entry.batch_seq += 1),
        ("session_epoch", |entry| entry.session_epoch = 2),
        ("state of its session", |entry| entry.session_slot = 3),
        ("topic", |entry| entry.place += 1),
    ];
    for (field, change) in BATCH_DAMAGES.into_iter().chain(more) {
        let mut sound = Sound::new();
        let mut tracker = Tracker::new(&sound.view, 0, 2);
        assert_eq!(tracker.follow(&mut |_| ()), Ok(1));
        let sound_until = tracker.position() + 1;
        (BATCHES..BATCHES + 3).for_each(|number| sound.publish(number));
        sound.damage_entry(sound_until, change);
        let Err(RecoverError::Damaged(fault)) = tracker.follow(&mut |_| ()) else { panic!("{field} went unnoticed") };
        assert_eq!(field_of(fault, sound_until), field, "{fault}");
        // What came before it was followed, and nothing of it or after it.
        assert_eq!((tracker.position(), tracker.acked_messages()), (sound_until, 2));
    }
}

#[test]
fn a_subscriber_is_given_nothing_a_damaged_entry_names() {
    let more: [Damage; 2] =
        [("first_order", |entry| entry.first_order += 1), ("first_order", |entry| entry.first_order = u64::MAX)];
    for (field, change) in BATCH_DAMAGES.into_iter().chain(more) {
        let sound = Sound::new();
        sound.damage_entry(BATCH_AT, change);
        let Err(ReadFault::Index(fault)) = sound.exported() else { panic!("{field} went unnoticed") };
        assert_eq!(field_of(fault, BATCH_AT), field, "{fault}");
    }
}

/// A place that is sound but another's: the batch there says so.
#[test]
fn a_subscriber_is_not_given_another_batch() {
    let sound = Sound::new();
    sound.damage_entry(BATCH_AT, |entry| entry.place += 2 << 16);
    assert_eq!(sound.exported(), Err(ReadFault::OtherBatch { position: BATCH_AT }));
}

#[test]
fn recovery_names_the_damaged_record() {
    let layout = plain_view(2).layout;
    let check = |expected: (&str, &str), damage: &dyn Fn(&Sound)| {
        let sound = Sound::new();
        damage(&sound);
        let found = record_of(sound.recovered().expect_err(expected.0));
        assert!(found.0.starts_with(expected.0) && found.1 == expected.1, "{found:?} for {expected:?}");
    };
    let high = u64::MAX;
    check(("epoch line", "claimed"), &|s| s.damage(layout.epoch_line(0), |line: &mut EpochLine| line.claimed = high));
    check(("epoch line", "active"), &|s| s.damage(layout.epoch_line(0), |line: &mut EpochLine| line.active += 1));
    check(("epoch line", "watermark"), &|s| {
        s.damage(layout.epoch_line(0), |line: &mut EpochLine| line.watermark = high)
    });
    check(("floor line", "floor"), &|s| s.damage(layout.floor_line(0), |line: &mut FloorLine| line.floor = 1));
    check(("floor line", "checkpoint"), &|s| {
        s.damage(layout.floor_line(0), |line: &mut FloorLine| line.checkpoint = high)
    });
    check(("progress of lane", "consumed"), &|s| {
        s.damage(layout.lane_progress(0, 1), |line: &mut LaneProgress| line.consumed = high)
    });
    check(("checkpoint of session", "state"), &|s| {
        s.damage(layout.session_line(0, 0), |line: &mut SessionLine| line.state = 3)
    });
    check(("checkpoint of session", "topic"), &|s| {
        s.damage(layout.session_line(0, 5), |line: &mut SessionLine| (line.session, line.state, line.topic) = (1, 1, 4))
    });
    for session in [0, high] {
        check(("checkpoint of session", "session"), &|s| {
            s.damage(layout.session_line(0, 5), |line: &mut SessionLine| (line.session, line.state) = (session, 1))
        });
    }
    check(("segment directory", "guard"), &|s| s.view.memory.store(layout.directory_line(0, 0, 0, 0), high));
    check(("segment directory", "first position"), &|s| {
        s.damage(layout.directory_line(0, 0, 0, 0), |line: &mut SegmentLine| line.first = high)
    });
    check(("topic", "topic id"), &|s| s.damage(layout.topic_line(0, 0, 0), |line: &mut TopicLine| line.id = 7));
    check(("topic", "topic line"), &|s| s.damage(layout.topic_line(0, 0, 0), |line: &mut TopicLine| line.receipts = 2));
    check(("progress of topic", "next_order"), &|s| {
        s.damage(layout.topic_line(0, 0, 3), |line: &mut TopicProgress| line.next_order = high)
    });
}

#[test]
fn a_broker_does_not_take_damaged_lines_over() {
    let check = |expected: (&str, &str), damage: &dyn Fn(&Sound)| {
        let sound = Sound::new();
        crate::log::member::Member::announce(&sound.view, 0, crate::pool::Process::default());
        damage(&sound);
        let found = record_of(check_broker(&sound.view, 0).expect_err(expected.0));
        assert!(found.0.starts_with(expected.0) && found.1 == expected.1, "{found:?} for {expected:?}");
    };
    check(("line of broker", "incarnation"), &|s| {
        s.damage(s.view.layout.broker_line(0), |line: &mut BrokerLine| line.incarnation = u64::MAX)
    });
    check(("status of lane", "incarnation"), &|s| {
        s.damage(s.view.layout.lane_status(0), |line: &mut LaneStatus| line.incarnation = u64::MAX)
    });
    check(("ring of lane", "guard"), &|s| s.view.memory.store(s.view.layout.ring_slot(0, 1), 1));
    check(("ring of lane", "guard"), &|s| s.view.memory.store(s.view.layout.ring_slot(0, 63), u64::MAX));
}

/// A candidate that cannot take over stands still and says why; it claims nothing on top of a damaged claim.
#[test]
fn a_candidate_stops_at_a_damaged_pool() {
    let takeover = TakeoverSettings { after_ns: 1, settle_ns: 1 };
    let faults = |sound: &Sound| {
        let mut candidate = Candidate::new(&sound.view, 1, SETTINGS, takeover);
        for step in 1..10 {
            candidate.step(step * 20_000_000, &NO_LOCKS);
        }
        assert!(candidate.active().is_none());
        assert_eq!(candidate.step(1_000_000_000, &NO_LOCKS), 0);
        candidate.fault().expect("it says why")
    };
    let sound = Sound::new();
    sound.damage_entry(BATCH_AT, |entry| entry.session_slot = 64);
    let RecoverError::Damaged(fault) = faults(&sound) else { panic!("not the index") };
    assert_eq!(field_of(fault, BATCH_AT), "session_slot");

    let sound = Sound::new();
    sound.damage(sound.view.layout.epoch_line(0), |line: &mut EpochLine| line.claimed = u64::MAX);
    assert!(matches!(faults(&sound), RecoverError::Record { .. }));
    assert_eq!(CommitReader::new(&sound.view).line(1).claimed, 0);
}

/// No replay brings a topic back that was created before the checkpoint: if it is gone, its session is nobody's.
#[test]
fn a_topic_that_is_gone_is_missed() {
    let mut sound = Sound::new();
    (BATCHES..BATCHES + 4).for_each(|number| sound.publish(number));
    // Nothing comes, so that there is time for checkpoints.
    (0..4).for_each(|_| {
        sound.sequencer.pass(sound.lane.produced());
    });
    for line in 0..3 {
        let at = sound.view.layout.topic_line(0, 0, line);
        let guard = sound.view.memory.load(at);
        sound.view.memory.store(at, line::INVALID);
        assert_eq!(record_of(sound.recovered().unwrap_err()), ("checkpoint of session", "topic"), "line {line}");
        sound.view.memory.store(at, guard);
    }
    assert!(sound.recovered().is_ok());
}

/// What an attached publisher names is checked against its lane's extents by the sequencer, which appends nothing
/// that a follower would refuse.
#[test]
fn the_sequencer_appends_nothing_a_lane_may_not_name() {
    let mut sound = Sound::new();
    let layout = sound.view.layout.clone();
    let at = layout.extent(2);
    let sound_slot = BatchSlot {
        kind: slot_kind::BATCH,
        session: SESSION,
        session_epoch: 1,
        message_count: 2,
        batch_seq: BATCHES,
        blog_at: at,
        batch_bytes: 128,
        ..BatchSlot::default()
    };
    let extent_end = at + layout.geometry.extent_bytes;
    let hostile = [
        BatchSlot { blog_at: 0, ..sound_slot },
        BatchSlot { blog_at: at + 8, ..sound_slot },
        BatchSlot { blog_at: layout.extent(4), ..sound_slot },
        BatchSlot { blog_at: extent_end - 64, ..sound_slot },
        BatchSlot { blog_at: layout.geometry.pool_bytes, ..sound_slot },
        BatchSlot { blog_at: u64::MAX - 63, ..sound_slot },
        BatchSlot { batch_bytes: 0, ..sound_slot },
        BatchSlot { batch_bytes: 100, ..sound_slot },
        BatchSlot { batch_bytes: u32::MAX, ..sound_slot },
        BatchSlot { message_count: 0, ..sound_slot },
        BatchSlot { message_count: u32::MAX, ..sound_slot },
        BatchSlot { batch_seq: u64::MAX, ..sound_slot },
        BatchSlot { kind: slot_kind::TOPIC_CREATE, blog_at: extent_end - 128, ..sound_slot },
        BatchSlot { kind: slot_kind::TOPIC_CREATE, blog_at: u64::MAX - 63, ..sound_slot },
        BatchSlot { kind: 77, ..sound_slot },
    ];
    for (number, slot) in hostile.into_iter().enumerate() {
        sound.present(slot);
        assert_eq!(sound.sequencer.counters().invalid_slots, number as u64 + 1, "{slot:?}");
        assert_eq!(sound.sequencer.counters().appended_batches, BATCHES, "{slot:?}");
    }
    sound.present(sound_slot);
    assert_eq!(sound.sequencer.counters().appended_batches, BATCHES + 1);
}

/// Any bit of a floor line or of a cursor's: each value of their words is one that a writer could have put there, so only the check
/// tells. What is damaged is told by all who read it, and believed by none.
#[test]
fn a_turned_bit_of_a_floor_or_of_a_cursor_is_found() {
    let mut sound = Sound::new();
    let (view, at) = (sound.view.clone(), sound.view.layout.extent(3) + 192);
    write_request(&view, at, &CursorLine::new(0, "billing", 3));
    sound.present(BatchSlot { kind: slot_kind::CURSOR_SET, blog_at: at, ..BatchSlot::default() });
    let (floors, cursors) = (FloorReader::new(&view), CursorReader::new(&view));
    let is_well = || {
        let found = cursors.find(0, "billing").expect("sound").expect("readable").0.map(|cursor| cursor.order);
        assert_eq!((found, floors.read().is_some(), floors.fault()), (Some(3), true, None));
        assert!(sound.recovered().is_ok());
    };
    is_well();
    for (record, line) in [("floor line", view.layout.floor_line(0)), ("named cursor", view.layout.cursor_line(0, 0))] {
        for bit in 64..512 {
            let (at, mask) = (line + bit / 64 * 8, 1 << (bit % 64));
            let word = view.memory.load(at);
            view.memory.store(at, word ^ mask);
            let found = match record {
                "floor line" => {
                    assert_eq!(floors.read(), None, "bit {bit}");
                    floors.fault().expect("it is damaged")
                }
                _ => cursors.find(0, "billing").expect_err("it is damaged"),
            };
            let (name, field) = record_of(found);
            assert!(name.starts_with(record) && field == "check", "bit {bit} of {record}: {name} {field}");
            if bit % 9 == 0 {
                assert_eq!(sound.recovered().map_err(record_of), Err((name, field)), "bit {bit}");
            }
            view.memory.store(at, word);
        }
        is_well();
    }
}

/// Who follows the index learns from the floors whether what was read was still there: damaged ones tell nothing.
#[test]
fn followers_stop_at_a_damaged_floor_line() {
    let mut sound = Sound::new();
    let mut tracker = Tracker::new(&sound.view, 0, 2);
    assert_eq!(tracker.follow(&mut |_| ()), Ok(1));
    let mut session = SessionFollower::new(&sound.view, sound.lane.next_origin());
    session.follow().expect("sound");
    sound.publish(BATCHES);
    let at = sound.view.layout.floor_line(0) + 3 * 8;
    sound.view.memory.store(at, sound.view.memory.load(at) ^ 1);
    let expected = (crate::log::recover::FLOOR_LINE, "check");
    assert_eq!(record_of(tracker.follow(&mut |_| ()).unwrap_err()), expected);
    assert_eq!(record_of(session.follow().unwrap_err()), expected);
}
