//! A vectored send: headers in its own memory, batches in the pool. The ring lends it to the kernel.
//!
//! Invariants, cited by the SAFETY comments: those of [`ring`](crate::net::ring).

#![allow(unsafe_code)]

use crate::net::ring::FRAME_BYTES;
use crate::pool::Mapping;

/// Batches one vectored send can carry.
pub const SEND_LIST_MAX: usize = 64;

/// A vectored send under construction: headers in its own memory, payload in the pool.
pub struct SendList {
    headers: Box<[[u8; FRAME_BYTES]; SEND_LIST_MAX]>,
    pub(super) vectors: Vec<libc::iovec>,
    pub(super) message: Box<libc::msghdr>,
    count: usize,
    pub(super) bytes: u64,
    /// Where each item ends, bytes from the start of the list.
    ends: Vec<u64>,
    /// Bytes that were sent.
    consumed: u64,
    pub(super) lent: bool,
    pub(super) used: bool,
}

impl SendList {
    pub(super) fn new() -> Self {
        // SAFETY: a msghdr is a plain C struct for which all zero is valid.
        let message = Box::new(unsafe { std::mem::zeroed() });
        let vectors = Vec::with_capacity(2 * SEND_LIST_MAX);
        let headers = Box::new([[0; FRAME_BYTES]; SEND_LIST_MAX]);
        let ends = Vec::with_capacity(SEND_LIST_MAX);
        SendList { headers, vectors, message, count: 0, bytes: 0, ends, consumed: 0, lent: false, used: false }
    }

    /// Empties it.
    pub fn clear(&mut self) {
        assert!(!self.lent, "a list in the kernel's hands is not touched");
        self.vectors.clear();
        self.ends.clear();
        (self.count, self.bytes, self.consumed) = (0, 0, 0);
    }

    /// Whether it takes no more.
    pub fn is_full(&self) -> bool {
        self.count == SEND_LIST_MAX
    }

    /// Items in it.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes in it.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Adds a header and, behind it, `bytes` of the pool at `at`.
    pub fn push(&mut self, header: &[u8; FRAME_BYTES], pool: &Mapping, at: u64, bytes: u64) {
        assert!(!self.lent && !self.is_full());
        self.headers[self.count] = *header;
        let base = self.headers[self.count].as_mut_ptr().cast();
        self.vectors.push(libc::iovec { iov_base: base, iov_len: FRAME_BYTES });
        if bytes > 0 {
            self.vectors.push(libc::iovec { iov_base: pool.address(at, bytes).cast(), iov_len: bytes as usize });
        }
        self.count += 1;
        self.bytes += FRAME_BYTES as u64 + bytes;
        self.ends.push(self.consumed + self.bytes);
    }

    /// Drops the first `bytes`, which were sent.
    pub fn consume(&mut self, mut bytes: u64) {
        assert!(!self.lent && bytes <= self.bytes);
        self.bytes -= bytes;
        self.consumed += bytes;
        let mut done = 0;
        for vector in &mut self.vectors {
            let step = bytes.min(vector.iov_len as u64);
            // Stays inside the same buffer: step is at most its length.
            vector.iov_base = vector.iov_base.cast::<u8>().wrapping_add(step as usize).cast();
            vector.iov_len -= step as usize;
            bytes -= step;
            if vector.iov_len > 0 {
                break;
            }
            done += 1;
        }
        self.vectors.drain(..done);
    }

    /// Items that were sent, the one that was sent in part included.
    pub fn items_begun(&self) -> usize {
        let begun = self.ends.partition_point(|end| *end < self.consumed);
        if self.consumed == 0 { 0 } else { begun + 1 }
    }

    /// A copy of what is left of the item that was sent in part; empty if the last one was sent whole.
    pub fn rest_of_item(&self) -> Vec<u8> {
        assert!(!self.lent);
        let begun = self.items_begun();
        let mut left = if begun == 0 { 0 } else { (self.ends[begun - 1] - self.consumed) as usize };
        let mut rest = vec![0; left];
        for vector in &self.vectors {
            let bytes = left.min(vector.iov_len);
            let to = rest.len() - left;
            // SAFETY: invariant 6; `rest` has `left` bytes from `to` on.
            unsafe { std::ptr::copy_nonoverlapping(vector.iov_base.cast(), rest[to..].as_mut_ptr(), bytes) };
            left -= bytes;
        }
        rest
    }
}
