//! The thread's io_uring, and the memory that is lent to the kernel through it.
//!
//! Everything an operation points at is owned by the ring, or is pool memory that the ring keeps mapped, until *that
//! operation's* final completion. Roles name buffers; they never hold a pointer. One ring per thread, created on it.
//!
//! Invariants, cited by the SAFETY comments:
//! 1. An operation's buffer is a slot of `frames`, a `SendList` of `lists` and its `Vectors`, a box in `operations`, or pool memory. The first
//!    three have stable addresses and are not touched while `lent`; the pool stays mapped while `pool` lives.
//! 2. `Ring::drop` waits for every operation; if the kernel does not give them all back, the memory is leaked, not freed.
//! 3. A receive into the pool covers only bytes of a run its lane owns, past everything that has landed: no slice of
//!    it exists (invariant 4 of `pool::coherence`).
//! 4. The ring is used on one thread only: it is not `Send`.
//! 5. The result of an accept that did not fail is a new descriptor that nobody else owns; it is taken once.
//! 6. A list's vectors are made when it is lent, and point into its headers, which stay where they are and are not written while it is
//!    lent, and into mapped pool memory that holds batches: written before they were named anywhere, and pinned while they are in a list.

#![allow(unsafe_code)]

use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use io_uring::types::{CancelBuilder, Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, Probe, cqueue, opcode, squeue};
use memmap2::MmapOptions;

use crate::net::network::{
    Asker, Completion, FRAME_BYTES, FrameSlot, ListId, Lists, Network, Operation, Piece, SEND_LIST_MAX, SendList, Stage,
};
use crate::pool::Mapping;
use crate::runtime::{Clock, Io, Now, SystemClock, fault};

/// `zc_flags`: ask the notification to say whether the kernel copied (linux/io_uring.h; not in the crate).
const SEND_ZC_REPORT_USAGE: u16 = 8;
/// Result bit of that notification.
const NOTIFY_COPIED: u32 = 1 << 31;

/// What a ring could be set up with; printed once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RingMode {
    /// `DEFER_TASKRUN` and `SINGLE_ISSUER`.
    pub deferred: bool,
    /// Frames are a registered buffer.
    pub registered: bool,
    /// `SEND_ZC` exists.
    pub zero_copy: bool,
    /// `SENDMSG_ZC` exists.
    pub zero_copy_lists: bool,
}

impl std::fmt::Display for RingMode {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let word = |yes, word: &'static str| if yes { word } else { "" };
        write!(
            out,
            "io_uring{}{}{}",
            word(self.deferred, ", deferred task work"),
            word(self.registered, ", registered ack frames"),
            word(self.zero_copy, ", zero-copy sends")
        )
    }
}

/// Why a ring cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    /// The kernel refuses io_uring.
    #[error(
        "io_uring cannot be set up: {0}; if it is disabled, set `sysctl kernel.io_uring_disabled=0` or allow it in the container's seccomp profile; kernel 5.19 or later is needed"
    )]
    Setup(io::Error),
    /// The limit of locked memory.
    #[error(
        "io_uring cannot be set up: out of locked memory: this ring needs about {needed} bytes, and all processes of this user together may lock {limit} (memlock): raise it (`ulimit -l`, LimitMEMLOCK=infinity, `docker run --ulimit memlock=-1`), or lower receive.connections_max and export.connections_max"
    )]
    LockedMemory {
        /// Of one ring, bytes.
        needed: u64,
        /// Of the user, bytes.
        limit: u64,
    },
    /// The kernel lacks an operation.
    #[error("this kernel's io_uring lacks {0}; kernel 5.19 or later is needed")]
    Missing(&'static str),
}

enum Lent {
    Nothing,
    /// Nothing lent; the result is a descriptor to own.
    Accept,
    /// A range of the pool: where, and how many bytes.
    Pool(u64, u64),
    Frame(u32),
    List(u32),
    Box(Box<[u8]>),
}

struct InFlight {
    asker: Asker,
    lent: Lent,
    generation: u32,
    active: bool,
    /// Cancels of it that were asked for again.
    cancels_again: u8,
}

/// What the kernel is given of a send list.
struct Vectors {
    vectors: Vec<libc::iovec>,
    message: Box<libc::msghdr>,
}

impl Vectors {
    fn new() -> Self {
        // SAFETY: a msghdr is a plain C struct for which all zero is valid.
        let message = Box::new(unsafe { std::mem::zeroed() });
        Vectors { vectors: Vec::with_capacity(2 * SEND_LIST_MAX), message }
    }

    /// Points at what a list has to send; gives where the kernel finds that.
    fn point_at(&mut self, list: &SendList, pool: &Mapping) -> *const libc::msghdr {
        self.vectors.clear();
        self.vectors.extend(list.pieces().map(|piece| match piece {
            Piece::Words(words) => libc::iovec { iov_base: words.as_ptr().cast_mut().cast(), iov_len: words.len() },
            Piece::Pool(at, bytes) => libc::iovec { iov_base: pool.address(at, bytes).cast(), iov_len: bytes as usize },
        }));
        self.message.msg_iov = self.vectors.as_mut_ptr();
        self.message.msg_iovlen = self.vectors.len();
        &*self.message
    }
}

/// The io_uring of one thread.
pub struct Ring {
    ring: IoUring,
    mode: RingMode,
    frames: Box<[[u8; FRAME_BYTES]]>,
    frames_lent: Vec<bool>,
    frames_leased: u32,
    lists: Lists,
    /// Of each list.
    vectors: Vec<Vectors>,
    operations: Vec<InFlight>,
    free: Vec<u32>,
    in_flight: u32,
    returned: Option<Box<[u8]>>,
    accepted: Option<TcpStream>,
    pool: Arc<Mapping>,
    clock: SystemClock,
    /// Invariant 4.
    _not_send: std::marker::PhantomData<*const ()>,
}

/// How long the end of a ring waits for the kernel to cancel what it still has: some of it cannot be cancelled, and is waited for
/// below, or leaked.
const CANCEL_WAIT: Timespec = Timespec::new().sec(1);

/// Marks the completion of a cancel; the rest names the operation that was meant. Generations leave this bit free.
const CANCEL: u64 = 1 << 63;
/// Times a cancel is asked for again that came just as the kernel was at work on the operation. Whoever waits for it asks anew.
const CANCELS_AGAIN_MAX: u8 = 8;

impl Ring {
    /// A ring for this thread with at most `operations_max` operations in flight and `frame_slots` frames.
    pub fn new(operations_max: u32, frame_slots: u32, pool: Arc<Mapping>) -> Result<Ring, RingError> {
        let entries = Self::entries(operations_max);
        let (ring, deferred) = Self::set_up(entries)?;
        let mut probe = Probe::new();
        ring.submitter().register_probe(&mut probe).map_err(RingError::Setup)?;
        for (code, name) in [
            (opcode::Recv::CODE, "RECV"),
            (opcode::Send::CODE, "SEND"),
            (opcode::SendMsg::CODE, "SENDMSG"),
            (opcode::Accept::CODE, "ACCEPT"),
            (opcode::PollAdd::CODE, "POLL_ADD"),
            (opcode::AsyncCancel::CODE, "ASYNC_CANCEL"),
        ] {
            if !probe.is_supported(code) {
                return Err(RingError::Missing(name));
            }
        }
        let frames: Box<[[u8; FRAME_BYTES]]> = vec![[0; FRAME_BYTES]; frame_slots as usize].into();
        let iovec = libc::iovec { iov_base: frames.as_ptr() as *mut _, iov_len: frames.len() * FRAME_BYTES };
        // SAFETY: invariants 1 and 2: the frames outlive the ring. Failing (memlock limit, old kernel) only costs speed.
        let registered = frame_slots > 0 && unsafe { ring.submitter().register_buffers(&[iovec]) }.is_ok();
        let zero_copy = probe.is_supported(opcode::SendZc::CODE);
        let operations = (0..operations_max).map(|_| InFlight {
            asker: Asker { role: 0, tag: 0 },
            lent: Lent::Nothing,
            generation: 0,
            active: false,
            cancels_again: 0,
        });
        Ok(Ring {
            ring,
            mode: RingMode {
                deferred,
                registered,
                zero_copy,
                zero_copy_lists: probe.is_supported(opcode::SendMsgZc::CODE),
            },
            frames_lent: vec![false; frame_slots as usize],
            frames_leased: 0,
            frames,
            lists: Lists::default(),
            vectors: Vec::new(),
            operations: operations.collect(),
            free: (0..operations_max).rev().collect(),
            in_flight: 0,
            returned: None,
            accepted: None,
            pool,
            clock: SystemClock::default(),
            _not_send: std::marker::PhantomData,
        })
    }

    /// Sets up as many rings as there are pairs of most operations and frames, all at once, and takes them down again: whether this
    /// process may have them, and with what. The mode is the last one's; none is asked for: none is given.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn try_out(sizes: &[(u32, u32)]) -> Result<Option<RingMode>, RingError> {
        let memory = MmapOptions::new().len(FRAME_BYTES).map_anon().map_err(RingError::Setup)?;
        let pool = Mapping::new(memory.into());
        let one = |(operations, frames): &(u32, u32)| Ring::new(*operations, *frames, pool.clone());
        let rings = sizes.iter().map(one).collect::<Result<Vec<_>, _>>()?;
        Ok(rings.last().map(|ring| ring.mode.clone()))
    }

    fn set_up(entries: u32) -> Result<(IoUring, bool), RingError> {
        let deferred = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_cqsize(entries * 4)
            .build(entries);
        match deferred {
            Ok(ring) => Ok((ring, true)),
            // Kernels before 6.1 know neither flag.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                let ring = IoUring::builder().setup_cqsize(entries * 4).build(entries);
                let ring = ring.map_err(|error| Self::cannot_set_up(entries, error))?;
                Ok((ring, false))
            }
            Err(error) => Err(Self::cannot_set_up(entries, error)),
        }
    }

    /// Kernels count the memory of a ring as locked, unless the process may lock what it likes.
    fn cannot_set_up(entries: u32, error: io::Error) -> RingError {
        let limit = crate::runtime::machine::locked_bytes_limit();
        if error.raw_os_error() != Some(libc::ENOMEM) || limit == u64::MAX {
            return RingError::Setup(error);
        }
        RingError::LockedMemory { needed: Self::locked_bytes_of(entries), limit }
    }

    /// About how many bytes kernels count as locked of a ring for so many operations, beside its frames.
    pub fn locked_bytes(operations_max: u32) -> u64 {
        Self::locked_bytes_of(Self::entries(operations_max))
    }

    fn locked_bytes_of(entries: u32) -> u64 {
        // Submissions of 64 bytes and an index of 4 each; four times as many completions of 16.
        (u64::from(entries) * (64 + 4 + 4 * 16)).next_multiple_of(4096) + 4096
    }

    fn entries(operations_max: u32) -> u32 {
        operations_max.next_power_of_two().clamp(64, 4096)
    }

    /// The mode in effect.
    pub fn mode(&self) -> &RingMode {
        &self.mode
    }

    /// The pool its sends and receives use.
    pub fn pool(&self) -> &Arc<Mapping> {
        &self.pool
    }

    /// Operations that can be begun before one must finish.
    pub fn room(&self) -> usize {
        self.free.len()
    }

    /// Receives straight into the pool, at most `bytes` at offset `at`: for benches, whose receivers check nothing.
    pub fn receive_pool(&mut self, asker: Asker, socket: RawFd, at: u64, bytes: u64) -> Option<Operation> {
        let address = self.pool.address(at, bytes);
        let data = self.begin(asker, Lent::Pool(at, bytes))?;
        self.push(opcode::Recv::new(Fd(socket), address, bytes.min(1 << 30) as u32).build(), data);
        Some(Operation(data))
    }

    fn begin(&mut self, asker: Asker, lent: Lent) -> Option<u64> {
        let index = self.free.pop()?;
        let operation = &mut self.operations[index as usize];
        operation.generation = operation.generation.wrapping_add(1) & 0x7fff_ffff;
        (operation.asker, operation.lent, operation.active) = (asker, lent, true);
        operation.cancels_again = 0;
        self.in_flight += 1;
        Some(u64::from(operation.generation) << 32 | u64::from(index))
    }

    fn push(&mut self, entry: squeue::Entry, data: u64) {
        let entry = entry.user_data(data);
        // SAFETY: invariants 1 and 2: whatever the entry points at stays put until its final completion.
        while unsafe { self.ring.submission().push(&entry) }.is_err() {
            // The queue is full: hand it over. An error here shows again at the next submit.
            if self.ring.submit().is_err() {
                std::hint::spin_loop();
            }
        }
    }

    /// What became of a cancel. One that met the operation at work has ended nothing: it is asked for again, a bounded number of times.
    fn cancelled(&mut self, data: u64, result: i32) {
        let operation = &mut self.operations[data as u32 as usize];
        let is_the_one = operation.active && operation.generation == (data >> 32) as u32;
        if result == -libc::EALREADY && is_the_one && operation.cancels_again < CANCELS_AGAIN_MAX {
            operation.cancels_again += 1;
            self.cancel(Operation(data));
        }
    }

    fn finish(&mut self, entry: &cqueue::Entry) -> Option<Completion> {
        let data = entry.user_data();
        if data & CANCEL != 0 {
            self.cancelled(data & !CANCEL, entry.result());
            return None;
        }
        let (index, generation) = (data as u32, (data >> 32) as u32);
        let operation = &mut self.operations[index as usize];
        assert!(operation.active && operation.generation == generation, "a completion without its operation");
        let asker = operation.asker;
        let stage = if cqueue::notif(entry.flags()) {
            Stage::Released { copied: entry.result() as u32 & NOTIFY_COPIED != 0 }
        } else if cqueue::more(entry.flags()) {
            Stage::Accepted
        } else {
            Stage::Done
        };
        if !matches!(stage, Stage::Released { .. }) {
            self.check_memory(index, entry.result());
        }
        if stage != Stage::Accepted {
            self.take_back(index, entry.result());
        }
        let result = if matches!(stage, Stage::Released { .. }) { 0 } else { entry.result() };
        Some(Completion { role: asker.role, tag: asker.tag, result, stage })
    }

    /// Our own memory is there; if the pool's is not any more, there is no way on without it.
    fn check_memory(&mut self, index: u32, result: i32) {
        if !fault::is_memory_fault(result.saturating_neg()) {
            return;
        }
        match self.operations[index as usize].lent {
            Lent::Pool(at, bytes) => fault::end("a receive into it", &[(at, bytes)], -result),
            Lent::List(list) => {
                let in_pool = |piece| if let Piece::Pool(at, bytes) = piece { Some((at, bytes)) } else { None };
                let ranges: Vec<_> = self.lists.get(ListId(list)).pieces().filter_map(in_pool).collect();
                fault::end("a send of batches out of it", &ranges, -result)
            }
            _ => {}
        }
    }

    fn take_back(&mut self, index: u32, result: i32) {
        let operation = &mut self.operations[index as usize];
        operation.active = false;
        match std::mem::replace(&mut operation.lent, Lent::Nothing) {
            Lent::Nothing | Lent::Pool(..) => {}
            // SAFETY: invariant 5. An accepted connection nobody takes is closed when the next one arrives.
            Lent::Accept if result >= 0 => self.accepted = Some(unsafe { TcpStream::from_raw_fd(result) }),
            Lent::Accept => {}
            Lent::Frame(slot) => self.frames_lent[slot as usize] = false,
            Lent::List(list) => self.lists.get(ListId(list)).take_back(),
            Lent::Box(buffer) => self.returned = Some(buffer),
        }
        self.free.push(index);
        self.in_flight -= 1;
    }

    fn wait(&mut self, timeout: Duration) -> io::Result<()> {
        let timespec = Timespec::new().sec(timeout.as_secs()).nsec(timeout.subsec_nanos());
        let arguments = SubmitArgs::new().timespec(&timespec);
        match self.ring.submitter().submit_with_args(1, &arguments) {
            Ok(_) => Ok(()),
            // The time passed, or the completion queue wants to be drained first: both are an early return.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ETIME | libc::EBUSY | libc::EAGAIN)) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

impl Io for Ring {
    type Completion = Completion;

    fn now(&mut self) -> Now {
        self.clock.now()
    }

    fn role_of(completion: &Completion) -> u8 {
        completion.role
    }

    fn submit(&mut self, wait: Option<Duration>) -> io::Result<()> {
        if let Some(timeout) = wait {
            if !self.ring.completion().is_empty() {
                return Ok(());
            }
            return self.wait(timeout);
        }
        let queue = self.ring.submission();
        // With deferred task work completions appear only in an enter; the flag says when one is worth it.
        let due = !queue.is_empty() || queue.taskrun() || queue.cq_overflow();
        drop(queue);
        if due {
            match self.ring.submit() {
                Ok(_) => {}
                Err(error) if matches!(error.raw_os_error(), Some(libc::EBUSY | libc::EAGAIN)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn next_completion(&mut self) -> Option<Completion> {
        loop {
            let entry = self.ring.completion().next()?;
            if let Some(completion) = self.finish(&entry) {
                return Some(completion);
            }
        }
    }
}

impl Network for Ring {
    type Socket = TcpStream;
    type Listener = TcpListener;

    fn accept(&mut self, asker: Asker, listener: &TcpListener) -> Option<Operation> {
        let data = self.begin(asker, Lent::Accept)?;
        let entry = opcode::Accept::new(Fd(listener.as_raw_fd()), std::ptr::null_mut(), std::ptr::null_mut());
        self.push(entry.flags(libc::SOCK_CLOEXEC).build(), data);
        Some(Operation(data))
    }

    fn take_accepted(&mut self) -> Option<TcpStream> {
        self.accepted.take()
    }

    fn receive_owned(&mut self, asker: Asker, socket: RawFd, mut buffer: Box<[u8]>, from: usize) -> Option<Operation> {
        let target = &mut buffer[from..];
        let entry = opcode::Recv::new(Fd(socket), target.as_mut_ptr(), target.len() as u32).build();
        let data = self.begin(asker, Lent::Box(buffer))?;
        self.push(entry, data);
        Some(Operation(data))
    }

    fn send_owned(&mut self, asker: Asker, socket: RawFd, buffer: Box<[u8]>) -> Option<Operation> {
        let flags = libc::MSG_NOSIGNAL | libc::MSG_WAITALL;
        let entry = opcode::Send::new(Fd(socket), buffer.as_ptr(), buffer.len() as u32).flags(flags).build();
        let data = self.begin(asker, Lent::Box(buffer))?;
        self.push(entry, data);
        Some(Operation(data))
    }

    /// Zero copy goes straight from registered memory.
    fn send_frame(&mut self, asker: Asker, socket: RawFd, slot: FrameSlot, zero_copy: bool) -> Option<Operation> {
        assert!(!self.frames_lent[slot.0 as usize], "a frame is lent once at a time");
        let address = self.frames[slot.0 as usize].as_ptr();
        let flags = libc::MSG_NOSIGNAL | libc::MSG_WAITALL;
        let entry = if zero_copy && self.mode.zero_copy {
            let buffer = self.mode.registered.then_some(0);
            opcode::SendZc::new(Fd(socket), address, FRAME_BYTES as u32)
                .buf_index(buffer)
                .flags(flags)
                .zc_flags(SEND_ZC_REPORT_USAGE)
                .build()
        } else {
            opcode::Send::new(Fd(socket), address, FRAME_BYTES as u32).flags(flags).build()
        };
        let data = self.begin(asker, Lent::Frame(slot.0))?;
        self.frames_lent[slot.0 as usize] = true;
        self.push(entry, data);
        Some(Operation(data))
    }

    fn send_list(&mut self, asker: Asker, socket: RawFd, id: ListId, zero_copy: bool) -> Option<Operation> {
        let data = self.begin(asker, Lent::List(id.0))?;
        let list = self.lists.get(id);
        list.lend();
        let message = self.vectors[id.0 as usize].point_at(list, &self.pool);
        let flags = (libc::MSG_NOSIGNAL | libc::MSG_WAITALL) as u32;
        let entry = if zero_copy && self.mode.zero_copy_lists {
            opcode::SendMsgZc::new(Fd(socket), message).flags(flags).ioprio(SEND_ZC_REPORT_USAGE).build()
        } else {
            opcode::SendMsg::new(Fd(socket), message).flags(flags).build()
        };
        self.push(entry, data);
        Some(Operation(data))
    }

    fn poll_readable(&mut self, asker: Asker, socket: RawFd) -> Option<Operation> {
        let data = self.begin(asker, Lent::Nothing)?;
        let events = (libc::POLLIN | libc::POLLRDHUP) as u32;
        self.push(opcode::PollAdd::new(Fd(socket), events).build(), data);
        Some(Operation(data))
    }

    fn cancel(&mut self, operation: Operation) {
        self.push(opcode::AsyncCancel::new(operation.0).build(), CANCEL | operation.0);
    }

    fn take_returned(&mut self) -> Option<Box<[u8]>> {
        self.returned.take()
    }

    fn lease_frames(&mut self, count: u32) -> Vec<FrameSlot> {
        let first = self.frames_leased;
        assert!(first + count <= self.frames.len() as u32, "the ring was made with too few frame slots");
        self.frames_leased += count;
        (first..first + count).map(FrameSlot).collect()
    }

    fn frame_mut(&mut self, slot: FrameSlot) -> &mut [u8; FRAME_BYTES] {
        assert!(!self.frames_lent[slot.0 as usize], "a frame in the kernel's hands is not touched");
        &mut self.frames[slot.0 as usize]
    }

    fn take_list(&mut self) -> ListId {
        let id = self.lists.take();
        while self.vectors.len() <= id.0 as usize {
            self.vectors.push(Vectors::new());
        }
        id
    }

    fn list(&mut self, id: ListId) -> &mut SendList {
        self.lists.get(id)
    }

    fn give_back_list(&mut self, id: ListId) {
        self.lists.give_back(id);
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        let _ = self.ring.submitter().register_sync_cancel(Some(CANCEL_WAIT), CancelBuilder::any());
        for _ in 0..100 {
            if self.in_flight == 0 {
                return;
            }
            let _ = self.wait(Duration::from_millis(10));
            while self.next_completion().is_some() {}
        }
        // Invariant 2: the kernel may still write there.
        log::error!("{} io_uring operations never completed; their memory is leaked", self.in_flight);
        std::mem::forget(std::mem::take(&mut self.frames));
        std::mem::forget(std::mem::take(&mut self.lists));
        std::mem::forget(std::mem::take(&mut self.vectors));
        std::mem::forget(std::mem::take(&mut self.operations));
        std::mem::forget(self.pool.clone());
    }
}

#[cfg(test)]
mod tests;
