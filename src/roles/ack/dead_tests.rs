//! Connections that end: one that is dead while its session goes on over others is told of once, and the last word is the last.
use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use super::{AckRole, AckSettings};
use crate::config::SendMode;
use crate::log::View;
use crate::net::Ring;
use crate::pool::coherence::Mapping;
use crate::pool::record::BatchSlot;
use crate::pool::{Hardware, Layout, Mapped};
use crate::roles::handoff::{AckLink, Attachment, ConnectionId, FromAck, ToAck};
use crate::roles::sequence::active::ActiveSequencer;
use crate::roles::sequence::tests::{FIRST, Feeder, batch, open, start, topic_spec};
use crate::roles::tokens::Tokens;
use crate::runtime::{Io, Now, Role};
use crate::testing::memory::small_geometry;
use crate::wire::frame::{self, Ack, NEW_SESSION, NOTHING_LET_GO, Refused};
use crate::wire::{AckLevel, FrameKind, OrderLevel, Refusal};

const PLACES: u32 = 4;
const ID: ConnectionId = ConnectionId { seat: 0, generation: 1 };

/// An ack core with one connection, of session 7, which is not asked for yet.
struct Bench {
    sequencer: ActiveSequencer<Mapped<Hardware>>,
    feeder: Feeder<Mapped<Hardware>>,
    link: Arc<AckLink<RawFd>>,
    ack: AckRole<Mapped<Hardware>, Ring>,
    ring: Ring,
    now: Now,
    peer: Option<TcpStream>,
    stream: TcpStream,
}

impl Bench {
    fn new(order: OrderLevel) -> Bench {
        let layout = Arc::new(Layout::new(small_geometry(1)).unwrap());
        let map = memmap2::MmapOptions::new().len(layout.geometry.pool_bytes as usize).map_anon().unwrap();
        let mapping = Mapping::new(map.into());
        let view = View::single_host(Mapped::<Hardware>::new(mapping.clone()), layout);
        let mut sequencer = start(&view, 0);
        let mut feeder = Feeder::new(&view, 0);
        feeder.lane.publish(&topic_spec(&view, order));
        sequencer.pass(1);
        let link = AckLink::new(PLACES);
        let settings = AckSettings {
            send: SendMode::Copy,
            zero_copy_from_bytes: 0,
            open_timeout_ns: 1 << 50,
            broker: 0,
            log: bytemuck::Zeroable::zeroed(),
        };
        let mut ack =
            AckRole::<Mapped<Hardware>, Ring>::new(&view, 0, settings, Tokens::new([1, 2]), vec![link.clone()], PLACES);
        let mut ring = Ring::new(16, PLACES, mapping).unwrap();
        let now = Now { monotonic_ns: 1, utc_ns: 1 };
        ack.start(&mut ring, 0, now).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).ok();
        let (stream, _) = listener.accept().unwrap();
        let attachment = Attachment {
            socket: stream.as_raw_fd(),
            session: NEW_SESSION,
            asked: Some(feeder.lane.next_origin()),
            session_epoch: 1,
            topic: 0,
            order,
            ack: AckLevel::Committed,
            is_loopback: true,
            version: frame::VERSION,
            in_heartbeats: 1,
        };
        link.tell_ack(ToAck::Attach(ID, attachment));
        Bench { sequencer, feeder, link, ack, ring, now, peer, stream }
    }

    fn open(&mut self) {
        self.feeder.lane.publish(&open());
        self.sequencer.pass(2);
    }

    fn run(&mut self, passes: u32) {
        for _ in 0..passes {
            self.now.monotonic_ns += 1000;
            self.ack.poll(&mut self.ring, self.now);
            self.ring.submit(Some(Duration::from_millis(1))).unwrap();
            while let Some(completion) = self.ring.next_completion() {
                self.ack.complete(&mut self.ring, completion, self.now);
            }
        }
    }

    /// The headers of all that its peer is sent until now.
    fn heard(mut self) -> Vec<[u8; 64]> {
        drop(self.stream);
        let (mut all, mut headers) = (Vec::new(), Vec::new());
        self.peer.take().unwrap().read_to_end(&mut all).unwrap();
        let mut at = 0;
        while at < all.len() {
            let header: [u8; 64] = all[at..at + 64].try_into().unwrap();
            frame::check(&header, 1 << 20).unwrap();
            headers.push(header);
            at += 64 + u32::from_le_bytes(header[8..12].try_into().unwrap()).next_multiple_of(64) as usize;
        }
        headers
    }
}

fn last_words() -> Box<[u8]> {
    let header = Refused { code: Refusal::Draining as u16, ..Refused::default() };
    frame::with_body(&header, b"the broker ends").into()
}

#[test]
fn a_dead_connection_of_a_busy_session_is_told_of_once() {
    let mut bench = Bench::new(OrderLevel::Session);
    bench.open();
    bench.run(25);
    // The welcome lies unread in the peer's socket: closing resets the connection.
    drop(bench.peer.take());
    std::thread::sleep(Duration::from_millis(50));
    // The receive core is busy (a long pass, another core): it does not look at its queue. The session goes on over other
    // connections of its publisher.
    for seq in 0..200 {
        assert!(bench.feeder.put(batch(FIRST, seq), 64));
        bench.sequencer.pass(10 + seq);
        bench.run(5);
    }
    assert_eq!(bench.link.from_ack.pop(), Some(FromAck::Opened(ID, FIRST)));
    assert_eq!(bench.link.from_ack.pop(), Some(FromAck::Failed(ID)));
    assert_eq!(bench.link.from_ack.pop(), None);
}

/// It was committed before the ack core heard who had asked: the connection is refused all the same, and not only when it has waited too long.
#[test]
fn a_refusal_that_is_followed_before_its_connection_is_heard_of_is_told() {
    let mut bench = Bench::new(OrderLevel::Session);
    bench.ack.follow(&mut bench.ring, bench.now);
    let of_another_topic = BatchSlot { batch_seq: 77, ..open() };
    bench.feeder.lane.publish(&of_another_topic);
    bench.sequencer.pass(2);
    // What a pass does behind the hearing, which ended when the connection came.
    assert!(bench.ack.follow(&mut bench.ring, bench.now) > 0);
    bench.run(25);
    let kinds: Vec<u8> = bench.heard().iter().map(|frame| frame[5]).collect();
    assert_eq!(kinds, [FrameKind::Refused as u8]);
}

/// A broker that ends refuses a connection whose session opens in that moment: it is not welcomed behind the refusal, and its
/// descriptor is given back.
#[test]
fn nothing_is_said_behind_the_last_word() {
    for order in [OrderLevel::Session, OrderLevel::Connection, OrderLevel::None] {
        let mut bench = Bench::new(order);
        bench.run(5);
        bench.link.tell_ack(ToAck::Say(ID, last_words()));
        bench.open();
        bench.run(25);
        assert_eq!(bench.link.from_ack.pop(), Some(FromAck::Released(ID)), "{order:?}");
        assert_eq!(bench.link.from_ack.pop(), None);
        let kinds: Vec<u8> = bench.heard().iter().map(|frame| frame[5]).collect();
        assert_eq!(kinds, [FrameKind::Refused as u8], "{order:?}");
    }
}

/// A new sequencer has nothing that was parked: at level 5 everybody is asked to send again. Below it nothing is parked, and who sends
/// again there has its messages twice.
#[test]
fn only_at_level_5_is_anything_let_go() {
    for (order, is_let_go) in [(OrderLevel::Session, true), (OrderLevel::Connection, false), (OrderLevel::Total, false)]
    {
        let mut bench = Bench::new(order);
        bench.open();
        bench.run(25);
        let sequencer = start(bench.feeder.view(), 0);
        bench.sequencer = sequencer;
        bench.run(25);
        assert!(bench.feeder.put(batch(FIRST, 0), 64));
        bench.sequencer.pass(10);
        bench.run(25);
        let acks: Vec<Ack> =
            bench.heard().iter().filter(|frame| frame[5] == FrameKind::Ack as u8).map(frame::read).collect();
        assert_eq!(acks.last().map(|ack| ack.committed_next), Some(1), "{order:?}");
        assert_eq!(acks.iter().any(|ack| ack.let_go_from != NOTHING_LET_GO), is_let_go, "{order:?}");
    }
}
