//! Memory of the pool as one host sees it: the [`Memory`] trait, and its real implementation [`Mapped`].
//!
//! All protocol code is generic over [`Memory`]; the simulator has another implementation with a private
//! cache per simulated host. This is the only file with inline assembly.
//!
//! Invariants, cited by the SAFETY comments:
//! 1. A `Mapping` stays mapped, readable and writable, at one address for its `length`, until it is dropped. One that was mapped
//!    to look only is never written: its holder has no writer of a line (a store would end the process, see `region::Pool::look`).
//! 2. Every access is checked to lie inside the mapping, and words and lines are checked to be aligned.
//! 3. Words that another host, process or thread may write are read and written only as `AtomicU64`.
//! 4. `with_bytes` is called only for ranges that nobody writes for as long as the closure runs: bytes of
//!    a blog run that this lane owns, or a committed batch under a pin; that of an attached
//!    subscriber holds as long as it is renewed in time, which its handler is told to see to (`client::attached`).
//!    The slice does not leave the closure.
//! 5. The flush instructions name an address inside the mapping; they change no value a program can see.

#![allow(unsafe_code)]

use std::arch::asm;
use std::arch::x86_64::{__cpuid, __cpuid_count, _mm_mfence, _mm_sfence};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use memmap2::MmapRaw;

use crate::config::CoherenceMode;
use crate::limits::LINE_BYTES;
use crate::pool::record::BODY_WORDS;
use crate::pool::{os, stream};
use crate::processor;

/// Words of a line.
const WORDS: usize = 1 + BODY_WORDS;

/// Whether written-back lines are worth keeping in this host's cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Keep {
    /// A reader or replica of this host will want them: write back, keep (`clwb`).
    Cached,
    /// Nobody here will read them: write back and drop (`clflushopt`).
    Dropped,
}

/// One host's view of the pool. Offsets are bytes from the start of the pool.
///
/// # Panics
/// Every method panics on an offset outside the pool or a misaligned one: offsets are computed by `layout`
/// or checked against it, so such a call is a broken invariant, not bad input.
pub trait Memory: Clone + Send + 'static {
    /// Whether lines must be written back and dropped by hand (`coherence: software`).
    const SOFTWARE: bool;
    /// See [`Memory::line`]. For who has nothing to look at: [`WordByWord`].
    type Line<'a>: Line;

    /// Length of the pool, bytes.
    fn bytes(&self) -> u64;
    /// Stores an aligned word with Release order.
    fn store(&self, at: u64, word: u64);
    /// Loads an aligned word with Acquire order.
    fn load(&self, at: u64) -> u64;
    /// The words of the line at `at`: whatever is to be looked at before they are stored and loaded is looked at once.
    fn line(&self, at: u64) -> Self::Line<'_>;
    /// Writes the line back if it is dirty and, unless told to keep it, drops it. Takes effect by the next fence.
    fn flush_line(&self, at: u64, keep: Keep);
    /// Orders earlier stores and flushes before later stores (`sfence`).
    fn store_fence(&self);
    /// Orders earlier stores and flushes before later loads as well (`mfence`).
    fn full_fence(&self);
    /// Begins to fetch a line of our own that will be written soon. Changes nothing that anybody can see.
    #[inline]
    fn prefetch(&self, _at: u64) {}
    /// Lets `read` look at bytes that nobody writes meanwhile (invariant 4).
    fn with_bytes<R>(&self, at: u64, bytes: u64, read: impl FnOnce(&[u8]) -> R) -> R;
    /// Copies bytes that others may write meanwhile: what comes out is to be checked, and may be of several batches.
    fn copy_out(&self, at: u64, into: &mut [u8]) {
        self.with_bytes(at, into.len() as u64, |bytes| into.copy_from_slice(bytes));
    }
    /// Writes bytes that nobody else reads or writes yet.
    fn copy_in(&self, at: u64, bytes: &[u8]);
    /// Writes whole lines that nobody else reads or writes yet, and has them written back by the next [`Memory::store_fence`]. No cache
    /// of this host has them afterwards.
    fn stream_in(&self, at: u64, lines: &[u8]) {
        self.copy_in(at, lines);
        self.write_back(at, lines.len() as u64, Keep::Dropped);
    }
    /// Writes whole lines that nobody else reads or writes yet, and has them written back by the next [`Memory::store_fence`]: by way of the
    /// caches, where they are kept as is said, or past them.
    fn write_lines(&self, at: u64, lines: &[u8], cached: Option<Keep>) {
        match cached {
            None => self.stream_in(at, lines),
            Some(keep) => {
                self.copy_in(at, lines);
                self.write_back(at, lines.len() as u64, keep);
            }
        }
    }
    /// Copies between two ranges, which may overlap, that nobody else reads or writes yet.
    fn copy_within(&self, from: u64, to: u64, bytes: u64);

    /// Makes a range visible to other hosts by the next [`Memory::store_fence`].
    fn write_back(&self, at: u64, bytes: u64, keep: Keep) {
        if Self::SOFTWARE {
            each_line(at, bytes, |line| self.flush_line(line, keep));
        }
    }

    /// Drops a range that another host wrote, so that it is read afresh. Never call it on lines this host may hold dirty.
    fn discard(&self, at: u64, bytes: u64) {
        if Self::SOFTWARE {
            each_line(at, bytes, |line| self.flush_line(line, Keep::Dropped));
            self.full_fence();
        }
    }
}

/// The words of a line, by their number in it.
pub trait Line {
    /// Stores a word with Release order.
    fn store(&self, word: usize, value: u64);
    /// Loads a word with Acquire order.
    fn load(&self, word: usize) -> u64;
}

/// A line of a memory that looks at each access by itself.
#[derive(Debug)]
pub struct WordByWord<'a, M>(pub &'a M, pub u64);

impl<M: Memory> Line for WordByWord<'_, M> {
    fn store(&self, word: usize, value: u64) {
        self.0.store(self.1 + 8 * word as u64, value);
    }

    fn load(&self, word: usize) -> u64 {
        self.0.load(self.1 + 8 * word as u64)
    }
}

impl Line for &[AtomicU64; WORDS] {
    #[inline(always)]
    fn store(&self, word: usize, value: u64) {
        // Release: pairs with the Acquire of `load` by an observer of the same line.
        self[word].store(value, Ordering::Release);
    }

    #[inline(always)]
    fn load(&self, word: usize) -> u64 {
        // Acquire: pairs with the Release of `store` by the line's writer.
        self[word].load(Ordering::Acquire)
    }
}

/// Calls `visit` for each line a range touches.
fn each_line(at: u64, bytes: u64, mut visit: impl FnMut(u64)) {
    let mut line = at - at % LINE_BYTES;
    while line < at + bytes {
        visit(line);
        line += LINE_BYTES;
    }
}

/// Marker: the pool is not coherent between hosts; lines are flushed by hand.
#[derive(Clone, Copy, Debug)]
pub struct Software;
/// Marker: the hardware keeps the pool coherent; nothing is flushed.
#[derive(Clone, Copy, Debug)]
pub struct Hardware;

/// How lines are kept coherent: a type, so that neither mode pays for the other.
pub trait Coherence: Clone + Send + Sync + 'static {
    /// Whether to flush.
    const SOFTWARE: bool;
    /// The configuration's word for it.
    const NAME: &'static str;
    /// What a pool that is used so says of itself.
    const MODE: CoherenceMode;
}

impl Coherence for Software {
    const SOFTWARE: bool = true;
    const NAME: &'static str = "software";
    const MODE: CoherenceMode = CoherenceMode::Software;
}

impl Coherence for Hardware {
    const SOFTWARE: bool = false;
    const NAME: &'static str = "hardware";
    const MODE: CoherenceMode = CoherenceMode::Hardware;
}

/// The instructions this processor has for writing a line back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flush {
    /// `clwb` and `clflushopt`.
    WriteBackAndOpt,
    /// `clflushopt` only.
    Opt,
    /// Neither: `clflush`, which every x86-64 has.
    Plain,
}

impl Flush {
    fn name(self) -> &'static str {
        match self {
            Flush::WriteBackAndOpt => "clwb + clflushopt",
            Flush::Opt => "clflushopt",
            Flush::Plain => "clflush",
        }
    }
}

/// What writes a line back on this processor, in words.
pub fn flush_described() -> &'static str {
    detect_flush().name()
}

fn detect_flush() -> Flush {
    // CPUID leaf 7: EBX bit 23 clflushopt, bit 24 clwb (Intel SDM volume 2A, AMD APM volume 3).
    let leaf7 = if __cpuid(0).eax >= 7 { __cpuid_count(7, 0).ebx } else { 0 };
    match (leaf7 >> 23 & 1, leaf7 >> 24 & 1) {
        (1, 1) => Flush::WriteBackAndOpt,
        (1, 0) => Flush::Opt,
        _ => Flush::Plain,
    }
}

/// A mapped pool.
#[derive(Debug)]
pub struct Mapping {
    map: MmapRaw,
    /// Where the pool begins in it: before that lies address space that aligns it.
    start: usize,
    length: usize,
    /// Where its last whole line ends: whatever is aligned and begins before lies in it, word or line.
    lines_end: u64,
    flush: Flush,
}

impl Mapping {
    /// Takes over a mapping.
    pub fn new(map: MmapRaw) -> Arc<Mapping> {
        let length = map.len();
        Self::of_part(map, 0, length)
    }

    /// Takes over a mapping of which so many bytes from `start` on are the pool.
    pub(super) fn of_part(map: MmapRaw, start: usize, length: usize) -> Arc<Mapping> {
        assert!(start <= map.len() && length <= map.len() - start, "the pool lies in the mapping");
        stream::prepare();
        let lines_end = length as u64 - length as u64 % LINE_BYTES;
        Arc::new(Mapping { map, start, length, lines_end, flush: detect_flush() })
    }

    /// Length, bytes.
    pub fn bytes(&self) -> u64 {
        self.length as u64
    }

    /// What writes a line back here, in words, for the start-up log.
    pub fn flush_name(&self) -> &'static str {
        self.flush.name()
    }

    /// Address of a range, for the kernel to receive into or send from.
    #[inline]
    pub fn address(&self, at: u64, bytes: u64) -> *mut u8 {
        assert!(
            at <= self.bytes() && bytes <= self.bytes() - at,
            "range {at}+{bytes} outside a pool of {}",
            self.bytes()
        );
        self.start_of(at)
    }

    #[inline]
    fn start_of(&self, at: u64) -> *mut u8 {
        self.map.as_mut_ptr().wrapping_add(self.start + at as usize)
    }

    /// Asks the kernel to map every page of a range now, so that none faults on the data path.
    pub fn populate(&self, at: u64, bytes: u64) -> std::io::Result<()> {
        self.map.advise_range(memmap2::Advice::PopulateWrite, self.start + at as usize, bytes as usize)
    }

    /// Asks the kernel for a huge page under a range that nobody uses yet.
    ///
    /// # Errors
    /// EAGAIN: not now. Others: it has none, or gives none to files like this.
    pub(super) fn collapse(&self, at: u64, bytes: u64) -> std::io::Result<()> {
        os::collapse(&self.map, self.start + at as usize, bytes as usize)
    }

    #[inline]
    fn word(&self, at: u64) -> &AtomicU64 {
        assert!(
            at.is_multiple_of(8) && at < self.lines_end,
            "word at {at} is not aligned, or outside a pool of {}",
            self.lines_end
        );
        let pointer = self.start_of(at).cast::<u64>();
        // SAFETY: invariants 1 and 2: inside the mapping, aligned (the mapping is page-aligned), alive for
        // the borrow of self; invariant 3: only ever accessed as an atomic.
        unsafe { AtomicU64::from_ptr(pointer) }
    }

    /// The words of a line: looked at once, not word by word.
    #[inline]
    fn line(&self, at: u64) -> &[AtomicU64; WORDS] {
        assert!(
            at.is_multiple_of(LINE_BYTES) && at < self.lines_end,
            "line at {at} is not aligned, or outside a pool of {}",
            self.lines_end
        );
        let pointer = self.start_of(at).cast::<[AtomicU64; WORDS]>();
        // SAFETY: as for `word`, of each of them; atomics have the layout of what they hold.
        unsafe { &*pointer }
    }
}

/// The pool as mapped by this process, with coherence `C`.
#[derive(Debug)]
pub struct Mapped<C> {
    mapping: Arc<Mapping>,
    coherence: std::marker::PhantomData<C>,
}

impl<C> Clone for Mapped<C> {
    fn clone(&self) -> Self {
        Mapped { mapping: self.mapping.clone(), coherence: std::marker::PhantomData }
    }
}

impl<C: Coherence> Mapped<C> {
    /// Views a mapping.
    pub fn new(mapping: Arc<Mapping>) -> Self {
        Mapped { mapping, coherence: std::marker::PhantomData }
    }

    /// The mapping itself.
    pub fn mapping(&self) -> &Arc<Mapping> {
        &self.mapping
    }
}

impl<C: Coherence> Memory for Mapped<C> {
    const SOFTWARE: bool = C::SOFTWARE;
    type Line<'a> = &'a [AtomicU64; WORDS];

    fn bytes(&self) -> u64 {
        self.mapping.bytes()
    }

    #[inline]
    fn store(&self, at: u64, word: u64) {
        // Release: pairs with the Acquire of `load` by an observer of the same line.
        self.mapping.word(at).store(word, Ordering::Release);
    }

    #[inline]
    fn load(&self, at: u64) -> u64 {
        // Acquire: pairs with the Release of `store` by the line's writer.
        self.mapping.word(at).load(Ordering::Acquire)
    }

    #[inline]
    fn line(&self, at: u64) -> Self::Line<'_> {
        self.mapping.line(at)
    }

    #[inline]
    fn flush_line(&self, at: u64, keep: Keep) {
        if !C::SOFTWARE {
            return;
        }
        let line = self.mapping.line(at).as_ptr();
        // The asm is not `nomem`: the compiler must not move stores past it.
        // SAFETY: invariants 2 and 5 for all three; `flush` names instructions this processor has.
        unsafe {
            match (self.mapping.flush, keep) {
                (Flush::WriteBackAndOpt, Keep::Cached) => {
                    asm!("clwb [{}]", in(reg) line, options(nostack, preserves_flags))
                }
                (Flush::WriteBackAndOpt | Flush::Opt, _) => {
                    asm!("clflushopt [{}]", in(reg) line, options(nostack, preserves_flags))
                }
                (Flush::Plain, _) => asm!("clflush [{}]", in(reg) line, options(nostack, preserves_flags)),
            }
        }
    }

    fn write_back(&self, at: u64, bytes: u64, keep: Keep) {
        if !C::SOFTWARE || bytes == 0 {
            return;
        }
        let first = at - at % LINE_BYTES;
        let end = (at + bytes).next_multiple_of(LINE_BYTES);
        // Bounds and instruction are settled once for the range: a batch has thousands of lines.
        let start = self.mapping.address(first, end - first);
        let lines = ((end - first) / LINE_BYTES) as usize;
        let line = |index: usize| start.wrapping_add(index * LINE_BYTES as usize);
        // SAFETY: invariants 2 and 5 for all three; `flush` names instructions this processor has.
        unsafe {
            match (self.mapping.flush, keep) {
                (Flush::WriteBackAndOpt, Keep::Cached) => (0..lines)
                    .for_each(|index| asm!("clwb [{}]", in(reg) line(index), options(nostack, preserves_flags))),
                (Flush::WriteBackAndOpt | Flush::Opt, _) => (0..lines)
                    .for_each(|index| asm!("clflushopt [{}]", in(reg) line(index), options(nostack, preserves_flags))),
                (Flush::Plain, _) => (0..lines)
                    .for_each(|index| asm!("clflush [{}]", in(reg) line(index), options(nostack, preserves_flags))),
            }
        }
    }

    #[inline]
    fn store_fence(&self) {
        if C::SOFTWARE {
            // SAFETY: a fence has no operands; every x86-64 has it.
            unsafe { _mm_sfence() }
        }
    }

    #[inline]
    fn full_fence(&self) {
        // `lfence` does not order `clflushopt`: only `mfence` will do.
        // SAFETY: a fence has no operands; every x86-64 has it.
        unsafe { _mm_mfence() }
    }

    #[inline]
    fn prefetch(&self, at: u64) {
        processor::prefetch(self.mapping.word(at));
    }

    #[inline]
    fn with_bytes<R>(&self, at: u64, bytes: u64, read: impl FnOnce(&[u8]) -> R) -> R {
        let pointer = self.mapping.address(at, bytes);
        // SAFETY: invariants 1, 2 and 4: inside the mapping, and nobody writes it while the closure runs.
        read(unsafe { std::slice::from_raw_parts(pointer, bytes as usize) })
    }

    fn copy_out(&self, at: u64, into: &mut [u8]) {
        let pointer = self.mapping.address(at, into.len() as u64);
        // SAFETY: inside the mapping, and `into` is this caller's own. No reference to the pool's bytes is made, which may change
        // while they are copied: any bytes are valid ones, and the caller trusts none of them before it has checked the copy.
        unsafe { std::ptr::copy_nonoverlapping(pointer.cast_const(), into.as_mut_ptr(), into.len()) }
    }

    fn copy_in(&self, at: u64, bytes: &[u8]) {
        let pointer = self.mapping.address(at, bytes.len() as u64);
        // SAFETY: invariants 1 and 2; the caller owns the range and nobody else looks at it yet (trait contract);
        // `bytes` is a Rust slice, which never overlaps pool memory outside `with_bytes`.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), pointer, bytes.len()) }
    }

    fn stream_in(&self, at: u64, lines: &[u8]) {
        let pointer = self.mapping.address(at, lines.len() as u64);
        // SAFETY: invariants 1 and 2; the caller owns the range and nobody else looks at it yet (trait contract). That they are whole
        // lines is looked at there.
        unsafe { stream::copy(pointer, lines) }
        if !C::SOFTWARE {
            // Such stores are not in order, and where nothing is written back nobody else fences.
            // SAFETY: as for `store_fence`.
            unsafe { _mm_sfence() }
        }
    }

    fn copy_within(&self, from: u64, to: u64, bytes: u64) {
        let (source, target) = (self.mapping.address(from, bytes), self.mapping.address(to, bytes));
        // SAFETY: invariants 1 and 2; both owned by the caller (trait contract); they may overlap.
        unsafe { std::ptr::copy(source, target, bytes as usize) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_written_whole_and_nothing_beside_them() {
        fn check<C: Coherence>() {
            let map = memmap2::MmapOptions::new().len(1 << 16).map_anon().expect("memory").into();
            let memory: Mapped<C> = Mapped::new(Mapping::new(map));
            memory.copy_in(0, &[0xee; 1024]);
            memory.stream_in(128, &[7; 256]);
            memory.stream_in(512, &[]);
            memory.store_fence();
            memory.with_bytes(0, 1024, |bytes| {
                assert_eq!(bytes[128..384], [7; 256]);
                assert!(bytes[..128].iter().chain(&bytes[384..]).all(|byte| *byte == 0xee), "{}", C::NAME);
            });
        }
        check::<Software>();
        check::<Hardware>();
    }
}
