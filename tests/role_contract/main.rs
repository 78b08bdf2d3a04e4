//! The role contract (`runtime::role`), held for every role in every coherence mode: a role is driven through its own ring
//! against real sockets, one pass at a time, and what each pass says is compared with what it did.
//!
//! * [`idle`]: nothing to do is 0, for good.
//! * [`bounds`]: one pass is bounded, whatever waits.
//! * [`full`]: nothing is lost when downstream is full, and others go on.
//! * [`drains`]: a drain ends.
//! * [`steady`]: established connections cost no allocation.
//! * [`threads`]: the same roles under the runner, spinning and parked.

mod bounds;
mod client;
mod drains;
mod full;
mod idle;
mod stage;
mod steady;
mod threads;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use embarcadero::config::CoherenceMode;

/// Both coherence modes.
pub const MODES: [CoherenceMode; 2] = [CoherenceMode::Software, CoherenceMode::Hardware];

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

/// Allocations of this thread so far.
pub fn allocations() -> u64 {
    ALLOCATIONS.with(Cell::get)
}

// SAFETY: every call goes to the system allocator unchanged; counting touches a cell of this thread only, which needs neither
// memory nor a destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promise, passed on.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise, passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;
