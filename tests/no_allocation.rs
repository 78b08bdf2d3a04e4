//! After start the data path neither allocates nor locks: a counting allocator watches 10,000 batches go through lane,
//! sequencer and ack tracker.
//!
//! Locks: there is none to take on this path (the std and crossbeam locks allocate or park, and the memory trait's real
//! implementation has only loads, stores, flushes and fences); the allocation count would show a lazily made one.

use std::alloc::{GlobalAlloc, Layout as AllocLayout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use embarcadero::log::View;
use embarcadero::log::checkpoint::recover;
use embarcadero::log::commit::{CommitReader, CommitWriter};
use embarcadero::pool::coherence::Coherence;
use embarcadero::pool::record::{BatchSlot, slot_kind};
use embarcadero::pool::{Hardware, Keep, Layout, Mapped, Mapping, Memory, Software};
use embarcadero::roles::ack::tracker::Tracker;
use embarcadero::roles::receive::connection::Stream;
use embarcadero::roles::receive::ingest::{Ingest, NEEDED_AT_LEAST, Next};
use embarcadero::roles::sequence::active::{ActiveSequencer, SequencerSettings};
use embarcadero::sim::memory::small_geometry;
use embarcadero::wire::frame::{self, BatchHeader};
use embarcadero::wire::message::push;
use embarcadero::wire::{AckLevel, BatchDecoder, OrderLevel, Receipts};

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call goes to the system allocator unchanged; counting touches an atomic only.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: AllocLayout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
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

const BATCHES: u64 = 10_000;

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
        reader_stall_ns: 1 << 40,
    };
    ActiveSequencer::take_over(view, 0, commit, epoch, recover(view, &reader).expect("a new pool"), settings)
}

fn topic() -> embarcadero::log::topics::Topic {
    let topic = embarcadero::log::topics::Topic::new("t", OrderLevel::Session, AckLevel::Committed);
    embarcadero::log::topics::Topic { receipts: Receipts::Message, ..topic }
}

fn stream(batch_bytes_max: u64) -> Stream {
    Stream {
        session: 5,
        session_epoch: 1,
        topic: 0,
        receipts: Receipts::Message,
        next_seq: None,
        counts_landed: false,
        published: 0,
        run: None,
        landed: 0,
        parsed: 0,
        end_slot: 0,
        decoder: BatchDecoder::new(batch_bytes_max),
        needed: NEEDED_AT_LEAST,
        run_bytes: 64 << 10,
    }
}

/// The bytes of batch `seq`, built in place: the client's work, not the broker's.
fn fill(bytes: &mut [u8], body: &[u8], seq: u64) {
    let header = BatchHeader {
        message_count: 4,
        session: 5,
        session_epoch: 1,
        batch_seq: seq,
        body_bytes: body.len() as u32,
        body_crc: embarcadero::wire::crc32c(body),
        ..BatchHeader::default()
    };
    bytes[..64].copy_from_slice(&frame::seal(&header));
    bytes[64..64 + body.len()].copy_from_slice(body);
}

fn drive<C: Coherence>() -> u64 {
    let view = view::<C>();
    let mut sequencer = start(&view);
    let mut ingest = Ingest::take(&view, 0, Keep::Cached);
    let mut tracker = Tracker::new(&view, 0, 4);
    assert!(ingest.create_topic(&topic()));
    sequencer.pass(1);
    let (kind, session, session_epoch) = (slot_kind::SESSION_OPEN, 5, 1);
    assert!(ingest.control(BatchSlot { kind, session, session_epoch, ..BatchSlot::default() }));
    sequencer.pass(2);
    while tracker.table().slot_of(5).is_none() {
        tracker.follow(&mut |_| ()).expect("a sound index");
    }
    tracker.attach(0, tracker.table().slot_of(5).expect("just seen"));
    let mut stream = stream(ingest.batch_bytes_max());
    let mut body = Vec::new();
    (0..4).for_each(|_| push(&mut body, &[7; 200]));
    let mut bytes = vec![0; 64 + body.len().next_multiple_of(64)];
    let mut acked = 0;

    let before = ALLOCATIONS.load(Ordering::Relaxed);
    for seq in 0..BATCHES {
        fill(&mut bytes, &body, seq);
        ingest.refresh();
        assert!(ingest.make_room(&mut stream, 256 << 10), "extents come back");
        let at = stream.run.as_ref().expect("room was made").start + stream.landed;
        view.memory.copy_in(at, &bytes);
        stream.landed += bytes.len() as u64;
        assert_eq!(ingest.publish_landed(&mut stream, 77), Ok(Next::Receive));
        ingest.report(false);
        sequencer.pass(3 + seq * 1000);
        tracker.follow(&mut |_| ()).expect("a sound index");
        while let Some(slot) = tracker.take_dirty() {
            let connection = tracker.first_of(slot).expect("attached above");
            acked = tracker.ack(connection).expect("attached above").committed_next;
        }
    }
    let allocations = ALLOCATIONS.load(Ordering::Relaxed) - before;
    assert_eq!(acked, BATCHES, "everything was ordered and acked");
    assert!(ingest.lane.produced() > 100 * 64 && sequencer.counters().trims > 0, "rings and extents were reused");
    allocations
}

/// One test, so that nothing else allocates meanwhile.
#[test]
fn ten_thousand_batches_without_an_allocation() {
    assert_eq!(drive::<Software>(), 0, "allocations with software coherence");
    assert_eq!(drive::<Hardware>(), 0, "allocations with hardware coherence");
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    drop(std::hint::black_box(vec![1u8]));
    assert!(ALLOCATIONS.load(Ordering::Relaxed) > before, "the counter counts");
}
