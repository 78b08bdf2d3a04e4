//! After start the data path neither allocates nor locks: a counting allocator watches 50,000 batches go through lane,
//! sequencer and ack tracker, long enough for whatever is kept of the past to be full and given up many times: rings, extents,
//! samples and marks of retention, checkpoints, places of sessions.
//!
//! Counted is what the thread that drives it allocates: the harness's own thread still sets up its tables when a test begins.
//!
//! Locks: there is none to take on this path (the std and crossbeam locks allocate or park, and the memory trait's real
//! implementation has only loads, stores, flushes and fences); the allocation count would show a lazily made one.

use std::alloc::{GlobalAlloc, Layout as AllocLayout, System};
use std::cell::Cell;
use std::sync::Arc;

use embarcadero::log::View;
use embarcadero::log::checkpoint::recover;
use embarcadero::log::commit::{CommitReader, CommitWriter};
use embarcadero::order::table::State;
use embarcadero::pool::coherence::Coherence;
use embarcadero::pool::record::{BatchSlot, slot_kind};
use embarcadero::pool::{Hardware, Keep, Layout, Mapped, Mapping, Memory, Software};
use embarcadero::roles::ack::tracker::Tracker;
use embarcadero::roles::receive::ingest::{Ingest, Next};
use embarcadero::roles::receive::stream::{Stream, Terms};
use embarcadero::roles::sequence::active::{ActiveSequencer, SequencerSettings};
use embarcadero::testing::memory::small_geometry;
use embarcadero::wire::frame::{self, BatchHeader};
use embarcadero::wire::message::push;
use embarcadero::wire::{AckLevel, OrderLevel, Receipts};

struct Counting;

thread_local! {
    // A constant without a destructor: reaching it neither allocates nor fails, whenever a thread allocates.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

/// Allocations of this thread so far.
fn allocations() -> u64 {
    ALLOCATIONS.get()
}

// SAFETY: every call goes to the system allocator unchanged; counting touches a cell of the thread only.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: AllocLayout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promise, passed on.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: AllocLayout) {
        // SAFETY: the caller's promise, passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const BATCHES: u64 = 50_000;
/// Opened behind the topic.
const SESSION: u64 = 2;

fn view<C: Coherence>() -> View<Mapped<C>> {
    let layout = Layout::new(small_geometry(1)).expect("the small geometry fits");
    let map = memmap2::MmapOptions::new().len(layout.geometry.pool_bytes as usize).map_anon().expect("memory");
    View::single_host(Mapped::new(Mapping::new(map.into())), Arc::new(layout))
}

fn start<M: Memory>(view: &View<M>) -> ActiveSequencer<M> {
    let reader = CommitReader::new(view);
    let mut commit = CommitWriter::take(view, 0);
    let epoch = commit.claim(0, 1);
    let settings = SequencerSettings {
        session_lease_ns: 1 << 40,
        session_expiry_ns: u64::MAX,
        retention_bytes: 0,
        retention_ns: 0,
        reader_stall_ns: 1 << 40,
        member_silence_ns: 1 << 40,
    };
    ActiveSequencer::take_over(view, 0, commit, epoch, recover(view, &reader).expect("a new pool"), settings)
}

fn topic() -> embarcadero::log::topics::Topic {
    let topic = embarcadero::log::topics::Topic::new("t", OrderLevel::Session, AckLevel::Committed);
    // A target far below what fits: marks are made, looked at and given up all the time.
    embarcadero::log::topics::Topic { receipts: Receipts::Message, retention_bytes: 64 << 10, ..topic }
}

fn stream(batch_bytes_max: u64) -> Stream {
    let terms = Terms {
        session: SESSION,
        asked_slot: 0,
        session_epoch: 1,
        topic: 0,
        receipts: Receipts::Message,
        next_seq: None,
        counts_landed: false,
    };
    Stream::new(terms, batch_bytes_max)
}

/// The bytes of batch `seq`, built in place: the client's work, not the broker's.
fn fill(bytes: &mut [u8], body: &[u8], seq: u64) {
    let header = BatchHeader {
        message_count: 4,
        session: SESSION,
        session_epoch: 1,
        batch_seq: seq,
        body_bytes: body.len() as u32,
        body_crc: embarcadero::wire::crc32c(body),
        ..BatchHeader::default()
    };
    bytes[..64].copy_from_slice(&frame::seal(&header));
    bytes[64..64 + body.len()].copy_from_slice(body);
}

/// A pass of the sequencer and of the ack core; what the session's ack says, if there is one.
fn order_and_ack<M: Memory>(sequencer: &mut ActiveSequencer<M>, tracker: &mut Tracker<M>, now_ns: u64) -> Option<u64> {
    let mut acked = None;
    sequencer.pass(now_ns);
    tracker.follow(&mut |_| ()).expect("a sound index");
    while let Some(slot) = tracker.take_dirty() {
        let connection = tracker.first_of(slot).expect("attached above");
        acked = Some(tracker.ack(connection).expect("attached above").committed_next);
    }
    acked
}

fn drive<C: Coherence>() -> u64 {
    let view = view::<C>();
    let mut sequencer = start(&view);
    let mut ingest = Ingest::take(&view, 0, Keep::Cached);
    let mut tracker = Tracker::new(&view, 0, 4);
    assert!(ingest.lane.ask_for_topic(&topic()).is_some());
    sequencer.pass(1);
    let (kind, session_epoch) = (slot_kind::SESSION_OPEN, 1);
    assert!(ingest.control(BatchSlot { kind, session_epoch, ..BatchSlot::default() }));
    sequencer.pass(2);
    while tracker.table().slot_of(SESSION).is_none() {
        tracker.follow(&mut |_| ()).expect("a sound index");
    }
    tracker.attach(0, tracker.table().slot_of(SESSION).expect("just seen"));
    let mut stream = stream(ingest.batch_bytes_max());
    let mut body = Vec::new();
    (0..4).for_each(|_| push(&mut body, &[7; 200]));
    let mut bytes = vec![0; 64 + body.len().next_multiple_of(64)];
    let (mut acked, mut asked) = (0, 0);

    let before = allocations();
    for seq in 0..BATCHES {
        fill(&mut bytes, &body, seq);
        ingest.refresh();
        // A session comes and goes: its place, and its number's in the tables, serve others. It is named by the slot that asked for it.
        let kind = if seq % 2 == 0 { slot_kind::SESSION_OPEN } else { slot_kind::SESSION_CLOSE };
        let batch_seq = if seq % 2 == 0 { 0 } else { asked };
        asked = ingest.lane.produced();
        assert!(ingest.control(BatchSlot { kind, session_epoch: 1, batch_seq, ..BatchSlot::default() }));
        assert_eq!(
            ingest.take_in(&mut stream, &mut bytes, 256 << 10, 77, &mut || 77),
            Ok((bytes.len(), Next::Receive))
        );
        ingest.report(false);
        acked = order_and_ack(&mut sequencer, &mut tracker, 3 + seq * 1000).unwrap_or(acked);
    }
    // A pass may end before the last batch: where memory for entries had to be given back first.
    for more in 0..100 {
        ingest.report(false);
        acked = order_and_ack(&mut sequencer, &mut tracker, 3 + (BATCHES + more) * 1000).unwrap_or(acked);
    }
    let allocated = allocations() - before;
    assert_eq!(acked, BATCHES, "everything was ordered and acked");
    let sessions = tracker.table().sessions().iter().filter(|session| session.state != State::Free);
    assert_eq!(sessions.count(), 1, "the others have come and gone");
    assert!(ingest.lane.produced() > 100 * 64 && sequencer.counters().trims > 0, "rings and extents were reused");
    allocated
}

#[test]
fn fifty_thousand_batches_without_an_allocation() {
    assert_eq!(drive::<Software>(), 0, "allocations with software coherence");
    assert_eq!(drive::<Hardware>(), 0, "allocations with hardware coherence");
    let before = allocations();
    drop(std::hint::black_box(vec![1u8]));
    let own = allocations();
    assert!(own > before, "the counter counts");
    let others = || (0..10_000).for_each(|_| drop(std::hint::black_box(vec![1u8])));
    std::thread::spawn(others).join().expect("it only allocates");
    assert!(allocations() - own < 10_000, "what another thread allocates does not count");
}
