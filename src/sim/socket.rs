//! The simulator's network, as roles know it: [`Sockets`] is to a simulated part what a ring is to a thread.
//!
//! What is under way stands with the world ([`ring`](crate::sim::ring)); frames, lists and what comes back stand here. The part may be held
//! up at any call.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr};
use std::time::Duration;

use crate::net::network::{FRAME_BYTES, Lists, Piece, SendList};
use crate::net::{Asker, Completion, FrameSlot, ListId, Network, Operation, Socket};
use crate::runtime::{Io, Now};
use crate::sim::checker::Violation;
use crate::sim::kernel::Kernel;
use crate::sim::network::End;
use crate::sim::part::{LinkId, Part};
use crate::sim::ring::{Back, Lent, Read, Ring, Send, Work};

/// A broker's end of a connection.
pub(crate) struct SimSocket {
    kernel: Kernel,
    link: LinkId,
}

impl SimSocket {
    /// Of a connection that was accepted.
    pub fn new(kernel: &Kernel, link: LinkId) -> SimSocket {
        SimSocket { kernel: kernel.clone(), link }
    }
}

impl Drop for SimSocket {
    /// A number that an operation goes by must not be given to another connection.
    fn drop(&mut self) {
        let (process, life) = (self.kernel.process, self.kernel.life());
        self.kernel.with(|state| {
            let is_used = |ring: &Ring| ring.process == process && ring.uses(self.link);
            if !std::thread::panicking()
                && state.processes[process].life == life
                && state.rings.iter().flatten().any(is_used)
            {
                let text = format!("connection {} is closed, and something is under way on it", self.link);
                state.fail(Violation { promise: 0, text });
            }
        });
        self.kernel.close(self.link, End::Broker);
    }
}

impl Socket for SimSocket {
    type Handle = LinkId;

    fn handle(&self) -> LinkId {
        self.link
    }

    /// Every client has an address of its own, or all have one: written in one way or the other.
    fn peer(&self) -> Option<SocketAddr> {
        let (client, is_one) =
            self.kernel.with(|state| (state.network.ends(self.link).0, state.scenario.is_one_address));
        let four = |last: u32| Ipv4Addr::new(10, 0, 0, last as u8);
        let address = match client {
            _ if is_one && self.link.is_multiple_of(2) => four(1).into(),
            _ if is_one => four(1).to_ipv6_mapped().into(),
            Part::Publisher(number) => four(number).into(),
            Part::Subscriber(number) => four(100 + number).to_ipv6_mapped().into(),
            Part::Admin(number) => Ipv6Addr::new(0x2001, 0xdb8, 0, number as u16, 1, 2, 3, self.link as u16).into(),
            Part::Stranger(number) => Ipv6Addr::new(0x2001, 0xdb8, 1, number as u16, 1, 2, 3, self.link as u16).into(),
            _ => IpAddr::from(four(255)),
        };
        Some((address, self.link as u16).into())
    }

    fn prepare(&self, _silence: Duration) {}

    fn let_rest(&self) {}

    fn shut(&self, how: Shutdown) {
        self.kernel.with(|state| state.network.shut(self.link, End::Broker, how == Shutdown::Both));
    }

    fn abort(&self) {
        self.kernel.with(|state| state.network.abort(self.link, End::Broker, &mut state.chance));
    }

    fn receive_now(&self, into: &mut [u8]) -> io::Result<usize> {
        self.kernel.may_be_held_up();
        let received = self.kernel.with(|state| state.step_receive(self.link, into.len() as u64, false));
        match received {
            None => Err(io::ErrorKind::WouldBlock.into()),
            Some(Err(errno)) => Err(io::Error::from_raw_os_error(errno)),
            Some(Ok(bytes)) => {
                into[..bytes.len()].copy_from_slice(&bytes);
                Ok(bytes.len())
            }
        }
    }

    fn send_now(&self, bytes: &[u8]) -> io::Result<usize> {
        self.kernel.write(self.link, End::Broker, bytes).ok_or_else(|| io::ErrorKind::BrokenPipe.into())
    }

    fn acked_bytes(&self) -> Option<u64> {
        self.kernel.with(|state| Some(state.network.acked(self.link, End::Broker, state.now_ns)))
    }

    fn round_trip_us(&self) -> Option<u32> {
        None
    }

    fn unacked_bytes(&self) -> Option<u64> {
        self.kernel.with(|state| {
            let written = state.network.written(self.link, End::Broker);
            Some(written - state.network.acked(self.link, End::Broker, state.now_ns))
        })
    }
}

/// Where the connections to a broker come from.
pub(crate) struct Listener(pub u32);

/// See the head of the file.
pub(crate) struct Sockets {
    kernel: Kernel,
    ring: usize,
    frames: Vec<([u8; FRAME_BYTES], bool)>,
    lists: Lists,
    returned: Option<Box<[u8]>>,
    accepted: Option<SimSocket>,
    /// Pins that were not waited for any more when the part's step began: what it lends it knows from then.
    dropped_pins: u64,
}

impl Sockets {
    /// Of a part, with room for so many operations.
    pub fn new(kernel: &Kernel, operations_max: u32) -> Sockets {
        let ring = kernel.with(|state| state.add_ring(kernel.process, operations_max));
        let (frames, lists) = Default::default();
        let (returned, accepted, dropped_pins) = (None, None, 0);
        Sockets { kernel: kernel.clone(), ring, frames, lists, returned, accepted, dropped_pins }
    }

    /// A step of the part begins.
    pub fn begin_step(&mut self) {
        self.dropped_pins = self.kernel.with(|state| state.dropped_pins());
    }

    fn begin(&mut self, asker: Asker, work: Work) -> Option<Operation> {
        self.kernel.may_be_held_up();
        let ring = self.ring;
        let number = self.kernel.with(|state| state.rings[ring].as_mut().and_then(|ring| ring.begin(asker, work)));
        number.map(Operation)
    }

    fn send(
        &mut self,
        asker: Asker,
        link: LinkId,
        pieces: Vec<Lent>,
        is_zero_copy: bool,
        back: Back,
    ) -> Option<Operation> {
        let read = Read { dropped_pins: self.dropped_pins, pieces: Vec::new() };
        let send = Send { link, pieces: pieces.into(), is_zero_copy, back, sent: 0, read };
        self.begin(asker, Work::Send(send))
    }
}

impl Io for Sockets {
    type Completion = Completion;

    fn role_of(completion: &Completion) -> u8 {
        completion.role
    }

    fn submit(&mut self, _wait: Option<Duration>) -> io::Result<()> {
        self.kernel.with(|state| state.go_on(self.ring));
        Ok(())
    }

    fn next_completion(&mut self) -> Option<Completion> {
        let ring = self.ring;
        let next = self.kernel.with(|state| state.rings[ring].as_mut().and_then(|ring| ring.done.pop_front()));
        let (completion, back) = next?;
        match back {
            Back::Nothing => {}
            // A connection that nobody takes is closed when the next one comes.
            Back::Connection(link) => self.accepted = Some(SimSocket::new(&self.kernel, link)),
            Back::Buffer(buffer) => self.returned = Some(buffer),
            Back::Frame(slot) => self.frames[slot as usize].1 = false,
            Back::List(list) => self.lists.get(ListId(list)).take_back(),
        }
        Some(completion)
    }

    fn now(&mut self) -> Now {
        self.kernel.clock()
    }
}

impl Network for Sockets {
    type Socket = SimSocket;
    type Listener = Listener;

    fn accept(&mut self, asker: Asker, listener: &Listener) -> Option<Operation> {
        self.begin(asker, Work::Accept { broker: listener.0 })
    }

    fn take_accepted(&mut self) -> Option<SimSocket> {
        self.accepted.take()
    }

    fn receive_owned(&mut self, asker: Asker, link: LinkId, buffer: Box<[u8]>, from: usize) -> Option<Operation> {
        self.begin(asker, Work::Receive { link, buffer, from })
    }

    fn send_owned(&mut self, asker: Asker, link: LinkId, buffer: Box<[u8]>) -> Option<Operation> {
        self.send(asker, link, vec![Lent::Words(buffer.to_vec())], false, Back::Buffer(buffer))
    }

    fn send_frame(&mut self, asker: Asker, link: LinkId, slot: FrameSlot, zero_copy: bool) -> Option<Operation> {
        let (frame, is_lent) = self.frames[slot.0 as usize];
        assert!(!is_lent, "a frame is lent once at a time");
        let begun = self.send(asker, link, vec![Lent::Words(frame.to_vec())], zero_copy, Back::Frame(slot.0));
        self.frames[slot.0 as usize].1 = begun.is_some();
        begun
    }

    fn send_list(&mut self, asker: Asker, link: LinkId, id: ListId, zero_copy: bool) -> Option<Operation> {
        let piece = |piece: Piece| match piece {
            Piece::Words(words) => Lent::Words(words.to_vec()),
            Piece::Pool(at, bytes) => Lent::Pool(at, bytes),
        };
        let pieces = self.lists.get(id).pieces().map(piece).collect();
        let begun = self.send(asker, link, pieces, zero_copy, Back::List(id.0))?;
        self.lists.get(id).lend();
        Some(begun)
    }

    fn poll_readable(&mut self, asker: Asker, link: LinkId) -> Option<Operation> {
        self.begin(asker, Work::Poll { link })
    }

    fn cancel(&mut self, operation: Operation) {
        let ring = self.ring;
        self.kernel.with(|state| state.rings[ring].iter_mut().for_each(|ring| ring.cancel(operation.0)));
    }

    fn take_returned(&mut self) -> Option<Box<[u8]>> {
        self.returned.take()
    }

    fn lease_frames(&mut self, count: u32) -> Vec<FrameSlot> {
        let first = self.frames.len() as u32;
        self.frames.resize((first + count) as usize, ([0; FRAME_BYTES], false));
        (first..first + count).map(FrameSlot).collect()
    }

    fn frame_mut(&mut self, slot: FrameSlot) -> &mut [u8; FRAME_BYTES] {
        let (frame, is_lent) = &mut self.frames[slot.0 as usize];
        assert!(!*is_lent, "a frame in the kernel's hands is not touched");
        frame
    }

    fn take_list(&mut self) -> ListId {
        self.lists.take()
    }

    fn list(&mut self, id: ListId) -> &mut SendList {
        self.lists.get(id)
    }

    fn give_back_list(&mut self, id: ListId) {
        self.lists.give_back(id);
    }
}
