//! What a broker's thread asks of the network, and nothing of how it is done.
//!
//! [`Network`] is the one wall between the roles and the kernel: [`Ring`](crate::net::Ring) is one implementation, the simulator has
//! another, and a conformance suite holds both to the contract below. Roles name buffers, sockets and pool offsets; what makes addresses
//! of them stands behind the wall.
//!
//! **The contract of an operation.**
//! * It completes exactly once with [`Stage::Done`], or with [`Stage::Accepted`] and later [`Stage::Released`]; one that was cancelled
//!   does too, with whatever it had come to.
//! * What it was given (a buffer, a frame, a list, a range of the pool) is lent until its last completion, and untouched meanwhile.
//! * Operations complete in any order, also those of one socket. A send may end short; a receive ends with what there is.
//! * `None`: too many are under way. Nothing was begun; try again when one has completed.

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

use crate::runtime::Io;

/// Bytes of a frame slot.
pub const FRAME_BYTES: usize = 64;

/// Items one vectored send can carry.
pub const SEND_LIST_MAX: usize = 64;

/// Which part of an operation a completion tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// All of it: its buffer is back.
    Done,
    /// A zero-copy send was accepted; its buffer is still lent.
    Accepted,
    /// A zero-copy send's buffer is back. `copied`: the kernel made a copy after all.
    Released {
        /// Whether the kernel copied.
        copied: bool,
    },
}

/// An operation that finished, or took a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    /// The role that asked for it.
    pub role: u8,
    /// The role's own word for it.
    pub tag: u64,
    /// Bytes, a descriptor, or minus an errno.
    pub result: i32,
    /// Which part.
    pub stage: Stage,
}

/// Who asks for an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asker {
    /// Index of the role on this thread.
    pub role: u8,
    /// Comes back with the completion.
    pub tag: u64,
}

/// Names an operation in flight, to cancel it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation(pub(crate) u64);

/// Names a 64-byte frame slot of a thread's network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameSlot(pub(crate) u32);

/// Names a send list of a thread's network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListId(pub(crate) u32);

/// A connection: owned by one, who may hand it on; closed when it is dropped. No call waits.
pub trait Socket: Send + 'static {
    /// Names the connection while it is open, for operations of whoever does not own it.
    type Handle: Copy + PartialEq + std::fmt::Debug + Send + 'static;

    /// Its name.
    fn handle(&self) -> Self::Handle;
    /// Where the other end is; nothing if there is none any more.
    fn peer(&self) -> Option<SocketAddr>;
    /// For a new connection: small writes leave at once, and it is over if the other end's host is silent for so long. Best effort.
    fn prepare(&self, silence: Duration);
    /// The other end may take nothing for as long as it likes. Best effort.
    fn let_rest(&self);
    /// Nothing more is sent, read, or both.
    fn shut(&self, how: Shutdown);
    /// Resets it: what was not sent is dropped, pages lent to it come back.
    fn abort(&self);
    /// Takes what was received already. 0: the other end says nothing more. `WouldBlock`: nothing now.
    ///
    /// # Errors
    /// The connection's.
    fn receive_now(&self, into: &mut [u8]) -> io::Result<usize>;
    /// Gives the connection what it takes at once; gives how much that was.
    ///
    /// # Errors
    /// The connection's.
    fn send_now(&self, bytes: &[u8]) -> io::Result<usize>;
    /// Bytes that the other end has acknowledged since the connection began. `None`: nobody says.
    fn acked_bytes(&self) -> Option<u64>;
    /// The shortest time in which the other end has answered lately, us: how far away it is. `None`: nobody says.
    fn round_trip_us(&self) -> Option<u32>;
    /// Bytes given to the connection that the other end has not acknowledged. `None`: nobody says.
    fn unacked_bytes(&self) -> Option<u64>;

    /// Throws away what was received and not read, a bounded amount: to close a connection with some unread resets it, and the last words
    /// to the other end may be lost with it. True: the other end says nothing more.
    fn discard_received(&self) -> bool {
        let mut buffer = [0; 4096];
        for _ in 0..16 {
            match self.receive_now(&mut buffer) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return error.kind() != io::ErrorKind::WouldBlock,
            }
        }
        false
    }
}

/// Handle of a network's sockets.
pub type Handle<N> = <<N as Network>::Socket as Socket>::Handle;

/// A thread's network; see the head of the file for what every operation keeps to.
pub trait Network: Io<Completion = Completion> {
    /// A connection.
    type Socket: Socket;
    /// Where connections come from; shared by the threads that accept from it.
    type Listener: Send + Sync + 'static;

    /// Accepts one connection; [`take_accepted`](Network::take_accepted) gives it.
    fn accept(&mut self, asker: Asker, listener: &Self::Listener) -> Option<Operation>;
    /// The connection of the accept whose completion was just given out.
    fn take_accepted(&mut self) -> Option<Self::Socket>;
    /// Receives into `buffer[from..]`; the buffer comes back with [`take_returned`](Network::take_returned).
    fn receive_owned(
        &mut self,
        asker: Asker,
        socket: Handle<Self>,
        buffer: Box<[u8]>,
        from: usize,
    ) -> Option<Operation>;
    /// Sends a whole buffer; it comes back with [`take_returned`](Network::take_returned).
    fn send_owned(&mut self, asker: Asker, socket: Handle<Self>, buffer: Box<[u8]>) -> Option<Operation>;
    /// Sends a frame; with `zero_copy` perhaps in two stages.
    fn send_frame(&mut self, asker: Asker, socket: Handle<Self>, slot: FrameSlot, zero_copy: bool)
    -> Option<Operation>;
    /// Sends a list; with `zero_copy` perhaps in two stages. The result of the first says how much was sent.
    fn send_list(&mut self, asker: Asker, socket: Handle<Self>, list: ListId, zero_copy: bool) -> Option<Operation>;
    /// Completes when there is something to read, or the other end closed.
    fn poll_readable(&mut self, asker: Asker, socket: Handle<Self>) -> Option<Operation>;
    /// Asks for an operation to end soon. Its own completion still comes.
    fn cancel(&mut self, operation: Operation);
    /// The buffer of the operation whose completion was just given out.
    fn take_returned(&mut self) -> Option<Box<[u8]>>;

    /// Hands out `count` frame slots for good.
    fn lease_frames(&mut self, count: u32) -> Vec<FrameSlot>;
    /// The bytes of a frame slot that is not lent.
    fn frame_mut(&mut self, slot: FrameSlot) -> &mut [u8; FRAME_BYTES];
    /// Hands out a send list; give it back with [`give_back_list`](Network::give_back_list).
    fn take_list(&mut self) -> ListId;
    /// A send list.
    fn list(&mut self, list: ListId) -> &mut SendList;
    /// Takes a send list back that is not lent.
    fn give_back_list(&mut self, list: ListId);
}

/// A piece of a send list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Bytes of the list's own memory.
    Words(&'a [u8]),
    /// A range of the pool: where, and how many bytes.
    Pool(u64, u64),
}

#[derive(Clone, Copy)]
struct Item {
    /// What follows its header: where in the pool, bytes.
    at: u64,
    bytes: u64,
    /// Where it ends, bytes from the start of the list.
    end: u64,
}

/// A vectored send under construction: headers in its own memory, behind each a range of the pool.
pub struct SendList {
    /// At one address for as long as the list lives.
    headers: Box<[[u8; FRAME_BYTES]; SEND_LIST_MAX]>,
    items: Vec<Item>,
    /// Bytes that were sent.
    consumed: u64,
    is_lent: bool,
}

impl Default for SendList {
    fn default() -> Self {
        let headers = Box::new([[0; FRAME_BYTES]; SEND_LIST_MAX]);
        SendList { headers, items: Vec::with_capacity(SEND_LIST_MAX), consumed: 0, is_lent: false }
    }
}

impl SendList {
    /// Empties it.
    pub fn clear(&mut self) {
        assert!(!self.is_lent, "a list in the kernel's hands is not touched");
        self.items.clear();
        self.consumed = 0;
    }

    /// Whether it takes no more.
    pub fn is_full(&self) -> bool {
        self.items.len() == SEND_LIST_MAX
    }

    /// Items in it.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Bytes in it that are to be sent.
    pub fn bytes(&self) -> u64 {
        self.items.last().map_or(0, |last| last.end) - self.consumed
    }

    /// Adds a header and, behind it, `bytes` of the pool at `at`.
    pub fn push(&mut self, header: &[u8; FRAME_BYTES], at: u64, bytes: u64) {
        assert!(!self.is_lent && !self.is_full());
        self.headers[self.items.len()] = *header;
        let end = self.items.last().map_or(0, |last| last.end) + FRAME_BYTES as u64 + bytes;
        self.items.push(Item { at, bytes, end });
    }

    /// Drops the first `bytes`, which were sent.
    pub fn consume(&mut self, bytes: u64) {
        assert!(!self.is_lent && bytes <= self.bytes());
        self.consumed += bytes;
    }

    /// Items that were sent, the one that was sent in part included.
    pub fn items_begun(&self) -> usize {
        let whole = self.items.partition_point(|item| item.end < self.consumed);
        if self.consumed == 0 { 0 } else { whole + 1 }
    }

    /// What is left of the item that was sent in part, as one piece of each kind, the pool's last; nothing if it was sent whole.
    pub fn rest_of_item(&self) -> impl Iterator<Item = Piece<'_>> {
        let begun = self.items_begun();
        self.pieces_of(begun.saturating_sub(1)..begun)
    }

    /// What is to be sent, in order.
    pub(crate) fn pieces(&self) -> impl Iterator<Item = Piece<'_>> {
        let first = self.items.partition_point(|item| item.end <= self.consumed);
        self.pieces_of(first..self.items.len())
    }

    fn pieces_of(&self, range: std::ops::Range<usize>) -> impl Iterator<Item = Piece<'_>> {
        range.flat_map(move |index| {
            let Item { at, bytes, end } = self.items[index];
            // What was sent of this item: at most all of it.
            let sent = (self.consumed + FRAME_BYTES as u64 + bytes).saturating_sub(end);
            let of_header = sent.min(FRAME_BYTES as u64);
            let of_body = sent - of_header;
            let words = Piece::Words(&self.headers[index][of_header as usize..]);
            [words, Piece::Pool(at + of_body, bytes - of_body)].into_iter().filter(|piece| piece.bytes() > 0)
        })
    }

    /// It is in the kernel's hands from here on.
    pub(crate) fn lend(&mut self) {
        assert!(!self.is_lent && self.bytes() > 0);
        self.is_lent = true;
    }

    /// It is back.
    pub(crate) fn take_back(&mut self) {
        self.is_lent = false;
    }
}

impl Piece<'_> {
    /// How long it is.
    pub fn bytes(&self) -> u64 {
        match self {
            Piece::Words(words) => words.len() as u64,
            Piece::Pool(_, bytes) => *bytes,
        }
    }
}

/// Send lists that are handed out and come back.
#[derive(Default)]
pub(crate) struct Lists {
    lists: Vec<SendList>,
    unused: Vec<u32>,
}

impl Lists {
    pub fn take(&mut self) -> ListId {
        let index = self.unused.pop().unwrap_or_else(|| {
            self.lists.push(SendList::default());
            self.lists.len() as u32 - 1
        });
        ListId(index)
    }

    pub fn get(&mut self, id: ListId) -> &mut SendList {
        &mut self.lists[id.0 as usize]
    }

    pub fn give_back(&mut self, id: ListId) {
        self.get(id).clear();
        assert!(!self.unused.contains(&id.0), "a list is given back once");
        self.unused.push(id.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is left of the item that was sent in part, the pool's bytes as 7.
    fn left(consumed: u64) -> (usize, Vec<u8>) {
        let mut list = SendList::default();
        list.push(&[1; 64], 4096, 128);
        list.push(&[2; 64], 0, 0);
        list.consume(consumed / 2);
        list.consume(consumed - consumed / 2);
        let mut rest = Vec::new();
        for piece in list.rest_of_item() {
            match piece {
                Piece::Words(words) => rest.extend(words),
                Piece::Pool(at, bytes) => {
                    assert_eq!(at + bytes, 4096 + 128);
                    rest.extend(vec![7; bytes as usize]);
                }
            }
        }
        assert_eq!(list.pieces().map(|piece| piece.bytes()).sum::<u64>(), list.bytes());
        (list.items_begun(), rest)
    }

    #[test]
    fn what_is_left_of_a_half_sent_item_is_told() {
        assert_eq!(left(0), (0, vec![]));
        assert_eq!(left(1).1.len(), 191);
        assert_eq!(left(62), (1, [&[1; 2][..], &[7; 128]].concat()));
        assert_eq!(left(191), (1, vec![7]));
        assert_eq!(left(192), (1, vec![]));
        assert_eq!(left(193), (2, vec![2; 63]));
        assert_eq!(left(256), (2, vec![]));
    }

    #[test]
    #[should_panic(expected = "given back once")]
    fn a_list_that_is_given_back_twice_is_noticed() {
        let mut lists = Lists::default();
        let id = lists.take();
        lists.give_back(id);
        lists.give_back(id);
    }
}
