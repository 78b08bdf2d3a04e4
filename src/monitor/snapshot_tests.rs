//! A pool in which each number is another: what a snapshot calls by a name is what was counted under it.

use std::path::PathBuf;

use super::*;
use crate::log::commit::CommitWriter;
use crate::log::lane::LaneWriter;
use crate::log::member::Member;
use crate::log::retention::Pin;
use crate::log::views::host_views;
use crate::observe::histogram::Histogram;
use crate::observe::slowest::Slowest;
use crate::pool::Process;
use crate::pool::layout::Layout;
use crate::pool::record::BatchSlot;
use crate::pool::region::Create;
use crate::pool::superblock::HomeHosts;
use crate::roles::sequence::active::ActiveSequencer;
use crate::roles::sequence::tests::{FIRST, Feeder, batch, open, start, topic_spec};
use crate::testing::memory::{Whim, small_geometry};
use crate::wire::OrderLevel;

type Seen = Mapped<Software>;

/// A pool of two brokers, a lane each, and two candidates; its file is gone with it.
struct Scene {
    pool: Pool,
    view: View<Seen>,
    path: PathBuf,
}

impl Scene {
    fn new(name: &str) -> Scene {
        let path = std::env::temp_dir().join(format!("embarcadero-snapshot-{name}-{}", std::process::id()));
        let geometry = small_geometry(2);
        let pool = Pool::open(&path, geometry, &HomeHosts::single_host(&geometry), false, Create::IfMissing).unwrap();
        let view = View::single_host(Mapped::new(Arc::clone(pool.mapping())), Arc::clone(pool.layout()));
        Scene { pool, view, path }
    }

    fn look(&self) -> Snapshot {
        Snapshot::take(&self.pool, true)
    }

    fn announce(&self, member: u32, boot_id: u64) -> Member<Seen> {
        Member::announce(&self.view, member, Process { id: 70, started_at_utc_ns: 1, boot_id })
    }

    /// So many times, at each of these places one more.
    fn time(&self, first: u64, places: impl IntoIterator<Item = u64>) {
        for (times, at) in (first..).zip(places) {
            let mut histogram = Histogram::default();
            histogram.record(1000, times);
            histogram.write(&self.view.memory, at);
        }
    }

    fn count(&self, at: u64, counters: &impl Counters) {
        CounterBlock::new(self.view.memory.clone(), at).write(counters);
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

#[test]
fn each_is_shown_what_was_counted_of_it() {
    let scene = Scene::new("each");
    let (view, layout) = (&scene.view, &*scene.view.layout);
    let mut commit = CommitWriter::take(view, 1);
    let epoch = commit.claim(0, 71);
    commit.activate(0);
    drop((scene.announce(0, boot_id()), scene.announce(1, boot_id())));
    drop(Feeder::new(view, 1));
    for candidate in 0..2 {
        let counters = SequencerCounters { commits: 50 + u64::from(candidate), ..SequencerCounters::default() };
        scene.count(layout.sequencer_counters(candidate), &counters);
        scene.time(10 * (1 + u64::from(candidate)), layout.sequencer_histograms(candidate));
    }
    for broker in 0..2 {
        let first = 100 * (1 + u64::from(broker));
        scene.time(first, layout.ack_histograms(broker).into_iter().chain(layout.deliver_histograms(broker)));
        let acked_batches = first;
        scene.count(layout.ack_counters(broker), &AckCounters { acked_batches, ..AckCounters::default() });
        let delivered_batches = first + 1;
        scene.count(layout.export_counters(broker), &ExportCounters { delivered_batches, ..ExportCounters::default() });
        scene.time(first + 9, [layout.publish_histogram(broker)]);
        for (session, at) in [(first, layout.slowest_acked(broker)), (first + 1, layout.slowest_delivered(broker))] {
            let mut slowest = Slowest::default();
            slowest.offer(&SlowBatch { session, published_at: 1, ending_ns: 1, ..SlowBatch::default() });
            slowest.write(&view.memory, at, 1);
        }
    }
    let now = scene.look();
    let sequencer = now.sequencer.as_ref().unwrap();
    assert_eq!((sequencer.candidate, sequencer.epoch, sequencer.process), (1, epoch, 71));
    assert_eq!((sequencer.counters.commits, sequencer.is_locked), (51, false));
    assert_eq!((sequencer.ordering.count(), sequencer.committing.count()), (20, 21));
    for (broker, first) in [(0, 100), (1, 200)] {
        let found = now.broker(broker).unwrap();
        assert_eq!((found.ack.acked_batches, found.export.delivered_batches), (first, first + 1));
        let counts = [&found.acking, &found.to_ack, &found.delivering, &found.to_delivery].map(Distribution::count);
        assert_eq!(counts, [first, first + 1, first + 2, first + 3]);
        assert_eq!((found.slowest_acked[0].session, found.slowest_delivered[0].session), (first, first + 1));
    }
    let lanes: Vec<_> = now.lanes.iter().map(|lane| (lane.lane, lane.member, lane.publishing.count())).collect();
    assert_eq!(lanes, [(1, 1, 209)], "the other was never written");
}

/// Of another machine, or of this one before it was switched off, a lock says nothing.
#[test]
fn a_lock_is_of_who_is_here_and_a_pin_is_where_it_pins() {
    let scene = Scene::new("lock");
    let members = [scene.announce(0, boot_id()), scene.announce(1, boot_id() ^ 1)];
    let locks = [0, 1].map(|member| scene.pool.lock(scene.pool.member_lock(member)).unwrap());
    let pins = [0, 1].map(|member| Pin::take(&scene.view, member, members[member as usize].incarnation()));
    let now = scene.look();
    let found = |broker: u32| {
        let member = &now.broker(broker).unwrap().member;
        (member.is_here, member.is_locked, member.state, member.pin)
    };
    assert_eq!((found(0), found(1)), ((true, true, "serving", None), (false, false, "serving", None)));
    drop((locks, pins));
    assert!(!scene.look().broker(0).unwrap().member.is_locked);
}

#[test]
fn what_waits_in_a_lane_is_all_that_was_published_and_not_taken() {
    let scene = Scene::new("waits");
    let (mut sequencer, mut feeder) = (start(&scene.view, 0), Feeder::new(&scene.view, 0));
    let mut waiting = Vec::new();
    for _ in 0..=scene.view.layout.geometry.ring_slots {
        waiting.push(scene.look().lanes[0].waiting);
        feeder.lane.publish(&BatchSlot { kind: crate::pool::record::slot_kind::SESSION_ALIVE, ..BatchSlot::default() });
        if waiting.len() == scene.view.layout.geometry.ring_slots as usize {
            waiting.push(scene.look().lanes[0].waiting);
            break;
        }
    }
    assert_eq!(waiting, (0..=64).collect::<Vec<u64>>());
    for now in 1..8 {
        sequencer.pass(now);
    }
    let lane = &scene.look().lanes[0];
    assert_eq!((lane.consumed, lane.waiting, lane.is_paused), (64, 0, false));
    feeder.lane.report(true);
    assert!(scene.look().lanes[0].is_paused);
}

fn pass_and_report(sequencer: &mut ActiveSequencer<Seen>) {
    for now in 1..8 {
        sequencer.pass(now);
    }
    sequencer.report(1, 8);
}

#[test]
fn a_session_and_a_topic_are_shown_what_was_counted_of_them_and_nothing_of_who_was_there_before() {
    let scene = Scene::new("sessions");
    let (view, layout) = (&scene.view, &*scene.view.layout);
    let (mut sequencer, mut feeder) = (start(view, 1), Feeder::new(view, 0));
    feeder.lane.publish(&topic_spec(view, OrderLevel::Session));
    sequencer.pass(1);
    feeder.lane.publish(&open());
    [0, 1, 1, 3].into_iter().for_each(|seq| assert!(feeder.put(batch(FIRST, seq), 192)));
    assert!(feeder.put(BatchSlot { session_epoch: 2, ..batch(FIRST, 2) }, 192));
    pass_and_report(&mut sequencer);
    let now = scene.look();
    let topic = now.topics[0].counters;
    assert_eq!((topic.received_batches, topic.ordered_batches, topic.parked_batches), (5, 2, 1));
    let batches = SessionBatches { received: 5, ordered: 2, duplicate: 1, refused: 1, parked: 1 };
    assert_eq!((now.sessions[0].session, now.sessions[0].batches), (FIRST, Some(batches)));
    assert!(!now.sessions[0].is_fenced);
    // What stands there is of others.
    let at = (layout.topic_counts(1, 0), layout.session_counts(1, 0));
    scene.count(at.0, &TopicCounters { created: topic.created + 1, ..topic });
    scene.count(at.1, &SessionCounters { session: FIRST + 1, ..SessionCounters::default() });
    let now = scene.look();
    assert_eq!((now.topics[0].counters, now.sessions[0].batches), (TopicCounters::default(), None));
    // The session's lease ends.
    for step in 1..10 {
        sequencer.pass(step * 10_000_000);
    }
    assert!(scene.look().sessions[0].is_fenced);
}

/// Who looks has lines of both hosts in its cache, and they stay there: what was written since is seen all the same.
#[test]
fn what_another_host_has_written_since_is_seen() {
    let (memory, views) = host_views([0, 1], &[0, 1], Whim::LAZY, 1);
    let geometry = crate::pool::Geometry { hosts: 2, ..views[0].layout.geometry };
    let homes = HomeHosts { brokers: vec![0, 1], candidates: vec![0, 1] };
    let layout = Arc::new(Layout::new(geometry).unwrap());
    let mut sequencer = crate::log::commit::CommitWriter::take(&views[1], 1);
    sequencer.claim(0, 70);
    sequencer.activate(0);
    let mut lane = LaneWriter::take(&views[1], 1);
    for seen in 0..3 {
        let view = View::of_onlooker(memory.host(0), Arc::clone(&layout), homes.clone());
        let commit = CommitReader::new(&view).current().unwrap();
        assert_eq!((commit.candidate, commit.watermark, waiting(&view, 1, 0)), (1, seen, seen));
        lane.publish(&BatchSlot::default());
        sequencer.advance(seen + 1, 1);
    }
}
