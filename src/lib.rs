//! Embarcadero: a totally ordered publish/subscribe log over CXL memory.
//!
//! `ARCHITECTURE.md` tells the life of a batch; this is the map. A room imports only rooms of lower floors (`tests/tidy.rs` holds that):
//!
//! ```text
//! 8 │ sim                         │ the whole cluster from one seed
//! 7 │ testing                     │ simulated memory and chance
//! 6 │ embarlet                    │ assembles a broker process
//! 5 │ roles · client              │ duty cycles: receive, sequence, ack, export │ publishers and subscribers, over TCP or attached
//! 4 │ log · net · observe         │ structures of the pool │ io_uring, readiness │ the catalogue of counters
//! 3 │ pool · runtime              │ shared memory │ the one loop
//! 2 │ order · config              │ decisions │ the configuration file
//! 1 │ wire                        │ frames
//! 0 │ limits · fields · crc · utc │ bounds, byte layouts, checksum, the time of day
//! ```
//!
//! Only tests and tools import the two at the top.
//!
//! # Glossary
//!
//! * **pool**: the shared memory, a devdax device or a file in `/dev/shm`. **line**: 64 bytes of it, with one writer.
//! * **broker**, **embarlet**: a member of the pool that clients connect to; the process that runs one or several.
//! * **blog**: the payload area. **extent**: a piece of it that one lane owns. **run**: a piece of an extent that one
//!   connection receives into.
//! * **lane**: one receive core's ring of batch headers and its extents. **slot**: one place of the ring.
//! * **attached**: of a client that maps the pool instead of connecting. **place**: what it takes there: a lane, or a pin.
//!   **member**: whoever may own lines besides the sequencer: a broker, or the process in a place.
//! * **batch**: a 64-byte header and messages, on the wire and in the blog alike.
//! * **order index**: the total order, one 64-byte entry for each batch or control event. **position**: a place in it.
//! * **total order**: the number of a message in its topic. **watermark**: positions below it are committed.
//! * **session**: a publisher's exactly-once stream over any number of connections. **session epoch**: grows when a
//!   session is fenced and reopened. **sequencer epoch**: grows with every takeover.
//! * **fence**: the end of a session epoch. **let go**: parked batches given up, to be sent again.
//! * **floor**, **closing**: positions below are given up, or may be at any moment. **pin**: a reader's claim.
//!
//! # Unsafe code
//!
//! Denied here, allowed by name in `pool/coherence.rs` (mapping and flushes), `pool/os.rs` (locks, reservation),
//! `net/ring.rs` (memory lent to the kernel), `net/readiness.rs` (poll), `net/peer.rs` (one connection),
//! `net/socket_options.rs` (what a socket is told) and `runtime/os.rs` (limits, bus errors). Each numbers its invariants.
#![deny(unsafe_code)]

pub mod client;
pub mod config;
pub mod crc;
pub mod embarlet;
pub mod fields;
pub mod limits;
pub mod log;
pub mod net;
pub mod observe;
pub mod order;
pub mod pool;
pub mod roles;
pub mod runtime;
pub mod sim;
pub mod testing;
pub mod utc;
pub mod wire;
