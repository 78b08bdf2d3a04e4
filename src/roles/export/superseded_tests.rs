//! Deliveries under a sequencer that was superseded and does not know it.

use std::io::{ErrorKind, Read};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use super::{Export, ExportSettings};
use crate::config::SendMode;
use crate::log::View;
use crate::log::commit::{CommitReader, CommitWriter};
use crate::log::order_index::IndexWriter;
use crate::log::topics::TopicWriter;
use crate::net::Ring;
use crate::pool::coherence::Mapping;
use crate::pool::record::{IndexEntry, TopicProgress, entry_kind};
use crate::pool::{Hardware, Layout, Mapped, Memory};
use crate::roles::handoff::{SubscribedTopic, Subscription, Subscriptions};
use crate::runtime::{Io, Now, Role};
use crate::testing::memory::small_geometry;
use crate::wire::frame::{self, BatchHeader};
use crate::wire::{OrderLevel, SlowReader, StartAt};

/// An exporter with one subscriber of topic 0, and a sequencer whose entries are written by hand.
struct Bench {
    view: View<Mapped<Hardware>>,
    ring: Ring,
    export: Export<Mapped<Hardware>, Ring>,
    zombie: CommitWriter<Mapped<Hardware>>,
    index: IndexWriter<Mapped<Hardware>>,
    peer: TcpStream,
    now_ns: u64,
}

impl Bench {
    fn new() -> Bench {
        let layout = Arc::new(Layout::new(small_geometry(2)).unwrap());
        let map = memmap2::MmapOptions::new().len(layout.geometry.pool_bytes as usize).map_anon().unwrap();
        let mapping = Mapping::new(map.into());
        let view = View::single_host(Mapped::<Hardware>::new(mapping.clone()), layout);
        drop(crate::roles::sequence::tests::start(&view, 0));
        let zombie = CommitWriter::take(&view, 0);
        let index = IndexWriter::new(&view, 0, zombie.epoch(), 0);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        peer.set_nonblocking(true).unwrap();
        let subscriptions = Arc::new(Subscriptions::new(1));
        let (stream, _) = listener.accept().unwrap();
        let (order, start) = (OrderLevel::Total, StartAt::Earliest);
        let topic = SubscribedTopic { topic: 0, created_position: 0, order, start };
        let slow_reader = SlowReader::AsConfigured;
        let subscription = Subscription {
            socket: stream,
            topics: [topic].into(),
            slow_reader,
            lag_bytes: 0,
            version: 2,
            heartbeat_ms: 0,
            in_heartbeats: 1,
            admission: None,
        };
        assert!(subscriptions.push(subscription).is_ok());
        let settings = ExportSettings {
            connections_max: 1,
            batches_per_send: 8,
            send: SendMode::Copy,
            slow_reader: SlowReader::Wait,
            client_silence_ns: 0,
            reader_stall_ns: u64::MAX,
            reader_lag_max: 0,
            reader_grace_ns: u64::MAX,
            reader_wait_max_ns: 0,
            return_grace_ns: 0,
            broker: 0,
            log: bytemuck::Zeroable::zeroed(),
        };
        let export = Export::new(&view, 0, 1, settings, subscriptions);
        Bench { ring: Ring::new(8, 0, mapping).unwrap(), view, export, zombie, index, peer, now_ns: 1 }
    }

    /// Passes of the exporter, with all that the kernel does for it.
    fn run(&mut self) {
        for _ in 0..10 {
            self.now_ns += 1;
            let now = Now { monotonic_ns: self.now_ns, utc_ns: self.now_ns };
            self.export.poll(&mut self.ring, now);
            self.ring.submit(Some(std::time::Duration::from_millis(5))).unwrap();
            while let Some(completion) = self.ring.next_completion() {
                self.export.complete(&mut self.ring, completion, now);
            }
        }
    }

    /// What the subscriber has got since the last look, bytes.
    fn heard(&mut self) -> usize {
        let mut bytes = [0; 4096];
        match self.peer.read(&mut bytes) {
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(error) => panic!("{error}"),
        }
    }

    fn append(&mut self) {
        let at = self.view.layout.extent(0);
        let header = BatchHeader { message_count: 1, body_bytes: 64, ..BatchHeader::default() };
        self.view.memory.copy_in(at, &frame::seal(&header));
        self.index.append(IndexEntry {
            kind: entry_kind::BATCH,
            message_count: 1,
            batch_bytes: 128,
            place: IndexEntry::pack_place(at, 0),
            ..IndexEntry::default()
        });
        self.zombie.advance(self.index.next(), self.index.segments());
    }

    fn supersede(&mut self) {
        CommitWriter::take(&self.view, 1).claim(self.zombie.epoch(), 2);
        assert!(!CommitReader::new(&self.view).confirm(self.zombie.epoch()));
    }
}

#[test]
fn what_a_superseded_sequencer_appends_is_not_delivered() {
    for is_superseded in [false, true] {
        let mut bench = Bench::new();
        TopicWriter::new(&bench.view, 0).write(&crate::log::topics::tests::topic(0, "t"), &Default::default());
        bench.run();
        assert!(bench.heard() > 0, "a welcome, for the topic is empty");
        if is_superseded {
            bench.supersede();
        }
        bench.append();
        bench.run();
        assert_eq!(bench.heard() == 0, is_superseded);
    }
}

#[test]
fn a_start_that_a_superseded_sequencer_appends_is_not_found() {
    for is_superseded in [false, true] {
        let mut bench = Bench::new();
        // Its progress is of a position further on.
        let progress = TopicProgress { position: 9, ..TopicProgress::default() };
        TopicWriter::new(&bench.view, 0).write(&crate::log::topics::tests::topic(0, "t"), &progress);
        bench.run();
        assert_eq!(bench.heard(), 0, "nobody knows where the topic begins");
        if is_superseded {
            bench.supersede();
        }
        bench.append();
        bench.run();
        assert_eq!(bench.heard() == 0, is_superseded);
    }
}
