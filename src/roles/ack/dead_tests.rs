//! A connection that is dead while its session goes on over others: the receive core is told once.
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Arc;

use super::{AckRole, AckSettings};
use crate::config::SendMode;
use crate::log::View;
use crate::net::Ring;
use crate::pool::coherence::Mapping;
use crate::pool::{Hardware, Layout, Mapped};
use crate::roles::handoff::{AckLink, Attachment, ConnectionId, ToAck};
use crate::roles::sequence::tests::{Feeder, batch, open, start, topic_spec};
use crate::runtime::{Io, Now, Role};
use crate::sim::memory::small_geometry;
use crate::wire::{AckLevel, OrderLevel};

#[test]
fn a_dead_connection_of_a_busy_session_is_told_of_once() {
    let layout = Arc::new(Layout::new(small_geometry(1)).unwrap());
    let map = memmap2::MmapOptions::new().len(layout.geometry.pool_bytes as usize).map_anon().unwrap();
    let mapping = Mapping::new(map.into());
    let view = View::single_host(Mapped::<Hardware>::new(mapping.clone()), layout);
    let mut sequencer = start(&view, 0);
    let mut feeder = Feeder::new(&view, 0);
    feeder.lane.publish(&topic_spec(&view, OrderLevel::Session));
    sequencer.pass(1);
    feeder.lane.publish(&open(7));
    sequencer.pass(2);
    let places = 4;
    let link = AckLink::new(places);
    let settings = AckSettings {
        send: SendMode::Copy,
        zero_copy_from_bytes: 0,
        open_timeout_ns: 1 << 50,
        broker: 0,
        broker_list: String::new(),
        log: bytemuck::Zeroable::zeroed(),
    };
    let mut ack = AckRole::<Hardware>::new(&view, 0, settings, vec![link.clone()], places);
    let mut ring = Ring::new(16, places, mapping).unwrap();
    let mut now = Now { monotonic_ns: 1, utc_ns: 1 };
    ack.start(&mut ring, 0, now).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (stream, _) = listener.accept().unwrap();
    let attachment = Attachment {
        socket: stream.as_raw_fd(),
        session: 7,
        is_new: true,
        session_epoch: 1,
        token: 0,
        topic: 0,
        order: OrderLevel::Session,
        ack: AckLevel::Committed,
        is_loopback: true,
        version: crate::wire::frame::VERSION,
    };
    link.tell_ack(ToAck::Attach(ConnectionId { slot: 0, generation: 1 }, attachment));
    let mut run = |ack: &mut AckRole<Hardware>, now: &mut Now| {
        for _ in 0..5 {
            now.monotonic_ns += 1000;
            ack.poll(&mut ring, *now);
            ring.submit(Some(std::time::Duration::from_millis(1))).unwrap();
            while let Some(completion) = ring.next_completion() {
                ack.complete(&mut ring, completion, *now);
            }
        }
    };
    (0..5).for_each(|_| run(&mut ack, &mut now));
    // The welcome lies unread in the peer's socket: closing resets the connection.
    drop(peer);
    std::thread::sleep(std::time::Duration::from_millis(50));
    // The receive core is busy (a long pass, another core): it does not look at its queue. The session goes on over other
    // connections of its publisher.
    for seq in 0..200 {
        assert!(feeder.put(batch(7, seq), 64));
        sequencer.pass(10 + seq);
        run(&mut ack, &mut now);
        if seq % 4 == 0 {
            println!("batch {seq}: {} messages wait for the receive core", link.from_ack.len());
        }
    }
}
