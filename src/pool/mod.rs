//! The pool: shared memory that outlives every process, and the one rule that governs it.
//!
//! **Every 64-byte line has exactly one writer at a time.** Write-back is per line, so two writers on one line
//! would lose updates on memory that is not coherent between hosts. No compare-and-swap, no fetch-add and
//! no lock ever crosses a host.
//!
//! * [`coherence`]: the [`Memory`] trait, and the real implementation; the only inline assembly.
//! * `stream`: copies past the caches.
//! * [`mod@line`]: the line protocol over any memory: publish and observe one line; `Owned` and `Peer` handles.
//! * [`record`]: the records that lie in one line.
//! * [`layout`]: geometry and the offset of everything: pure arithmetic, printable.
//! * [`process`]: what this process says of itself.
//! * [`superblock`]: the first 4 KiB: what a pool says of itself, and who may use it.
//! * [`region`]: create, format, attach or refuse. Its parts: `format` (over what, in which order it is written), `device` (lengths,
//!   alignments), `locks` (of this host), `huge` (what a fresh file lies on), `touch` (memory ahead of its use), `error`.

pub mod coherence;
mod device;
mod error;
mod format;
mod huge;
pub mod layout;
pub mod line;
mod locks;
mod os;
pub mod process;
pub mod record;
pub mod region;
mod stream;
pub mod superblock;
mod touch;

pub use coherence::{Hardware, Keep, Line, Mapped, Mapping, Memory, Software, WordByWord};
pub use layout::{Geometry, Layout, PlaceKind};
pub use line::{Access, Owned, Peer};
pub use process::Process;
pub use region::{Pool, PoolError};
pub use stream::described as writes_described;
pub use touch::{Told, Touched};
