//! Every bound of the system, in one place, and the assertions that relate them.
//!
//! A bound that a user may choose lives in the configuration and is checked against these; a bound
//! that both ends of a connection must agree on is used by both from here. Nothing imports less than
//! this file: it has no imports.

/// Bytes of one cache line: the unit of publication, of write-back and of batch alignment.
pub const LINE_BYTES: u64 = 64;

/// Alignment of every large region of the pool, so that huge pages and devdax mappings fit it.
pub const REGION_ALIGNMENT_BYTES: u64 = 2 << 20;

/// Smallest and largest blog extent, bytes. An extent is a power of two.
pub const EXTENT_BYTES_MIN: u64 = 256 << 10;
/// Largest blog extent, bytes.
pub const EXTENT_BYTES_MAX: u64 = 1 << 30;
/// Extents that each broker's lane has when a pool is formatted, so that it can begin before anybody grants it any; and fewest of the
/// pool for each of them: one filling, one next in hand, two that hold what is kept.
pub const EXTENTS_FOUNDING: u32 = 4;
/// Most extents of a pool.
pub const EXTENTS_MAX: u32 = 1 << 20;
/// Most extents that a lane is granted ahead of what it has begun.
pub const GRANTS_AHEAD_MAX: u32 = 16;
/// A batch takes at most one n-th of an extent, so that a batch that straddles an extent's end can move.
pub const BATCHES_PER_EXTENT_MIN: u64 = 4;
/// Largest batch of all, header and padding included, bytes: a batch is at most a quarter of an extent *and* this.
pub const BATCH_BYTES_MAX: u64 = 64 << 20;
/// Most messages in one batch.
pub const BATCH_MESSAGES_MAX: u32 = 1 << 20;
/// Bytes in front of each message of a batch.
pub const MESSAGE_HEADER_BYTES: u64 = 16;
/// Messages start on multiples of this many bytes, so that a header word never straddles a line.
pub const MESSAGE_ALIGNMENT_BYTES: u64 = 16;

/// First size of a connection's run (its private piece of a blog extent), bytes.
pub const RUN_BYTES_MIN: u64 = 64 << 10;

/// Most bytes of one receive: what lands is checked while it is in the caches nearest to a core, and a sender on this machine goes on meanwhile.
pub const LANDING_BYTES: u64 = 64 << 10;
/// Least and most that may be taken from a connection in one turn, bytes.
pub const RECEIVE_BYTES_LEAST: u64 = LANDING_BYTES;
/// See [`RECEIVE_BYTES_LEAST`].
pub const RECEIVE_BYTES_MOST: u64 = 4 << 20;

/// Landing buffers of a receive core: so many connections less one keep what they received while they wait for room.
pub const LANDING_BUFFERS: u32 = 8;

/// Longest topic name, bytes of UTF-8.
pub const TOPIC_NAME_BYTES_MAX: usize = 112;
/// Longest name of a cursor, bytes of UTF-8.
pub const CURSOR_NAME_BYTES_MAX: usize = 40;
/// Most named cursors of one pool.
pub const CURSORS_MAX: u32 = 4096;
/// Most topics of one pool.
pub const TOPICS_MAX: u32 = 4096;
/// Most sessions open at once in one pool.
pub const SESSIONS_MAX: u32 = 1 << 17;
/// A session that was opened and never used makes room for another after this silence, ns. Brokers say every second that such a one is
/// connected (`slot_kind::SESSION_ALIVE`).
pub const UNUSED_SESSION_NS: u64 = 4_000_000_000;
/// Most batches a session may have in flight (sent, not acked).
pub const WINDOW_BATCHES_MAX: u32 = 256;
/// Most batches of one session that the sequencer parks behind a gap.
pub const HELD_PER_SESSION_MAX: u32 = 256;
/// Most batches parked in all.
pub const HELD_BATCHES_MAX: u32 = 1 << 16;

/// Most sequencer candidates of one pool.
pub const CANDIDATES_MAX: u32 = 4;
/// Most brokers of one pool.
pub const BROKERS_MAX: u32 = 64;
/// Most lanes of one pool.
pub const LANES_MAX: u32 = 256;
/// Most hosts that share one pool.
pub const HOSTS_MAX: u32 = 64;
/// Places for attached subscribers that go with each broker of a pool that has attached places at all: two lines each.
pub const ATTACHED_READERS_PER_BROKER: u32 = 8;

/// Fewest slots of a lane ring; a ring is a power of two.
pub const RING_SLOTS_MIN: u32 = 64;
/// Most slots of a lane ring.
pub const RING_SLOTS_MAX: u32 = 1 << 20;
/// Fewest entries of an order-index segment; a segment is a power of two.
pub const SEGMENT_ENTRIES_MIN: u32 = 64;
/// Most entries of an order-index segment.
pub const SEGMENT_ENTRIES_MAX: u32 = 1 << 20;
/// Fewest segments of one candidate: one filling, one next, two for readers.
pub const SEGMENTS_PER_CANDIDATE_MIN: u32 = 4;
/// Most segments of one candidate.
pub const SEGMENTS_PER_CANDIDATE_MAX: u32 = 1 << 12;

/// Slots the sequencer looks at in all lanes in one pass, as far as the bounds of a lane's own allow.
pub const SCAN_SLOTS: u32 = 512;
/// Most slots it looks at in one lane in one pass, of many lanes and of few.
pub const SCAN_WINDOW_MIN: u32 = 64;
/// See [`SCAN_WINDOW_MIN`].
pub const SCAN_WINDOW_MAX: u32 = 256;

/// Bytes of a frame header on the wire.
pub const FRAME_HEADER_BYTES: usize = 64;
/// Largest body of a control frame (hello, refused, welcome, topic), bytes, padding included.
pub const CONTROL_BODY_BYTES_MAX: usize = 4096;
/// Longest address at which clients find a broker, `host:port`, bytes.
pub const ADDRESS_BYTES_MAX: usize = 255;
/// Largest body of a request, bytes, padding included: a topic's name and what the operation defines.
pub const REQUEST_BODY_BYTES_MAX: usize = 256;
/// Most topics of one subscription.
pub const SUBSCRIPTION_TOPICS_MAX: usize = 64;
/// Most connections one receive core or exporter serves.
pub const CONNECTIONS_MAX: u32 = 1 << 14;

/// Most blocks of counters and counters in a block.
pub const COUNTERS_PER_BLOCK: u32 = 64;
/// Bytes of a histogram of times in the pool, whole lines.
pub const HISTOGRAM_BYTES: u64 = 64 + 8 * 528;
/// Bytes of a list of slow batches in the pool.
pub const SLOWEST_BYTES: u64 = 64 * 16;
/// Bytes of a batch's place in a timeline: half a line.
pub const TIMELINE_PLACE_BYTES: u64 = 32;
/// Most batches whose times a sequencer keeps.
pub const TIMELINE_PLACES_MAX: u32 = 8192;
/// Threads of a process that each of its brokers has room for in the pool, and bytes of one.
pub const THREADS_PER_BROKER: u32 = 32;
/// See [`THREADS_PER_BROKER`].
pub const THREAD_BYTES: u64 = 256;
/// Distinct errors of a process that are kept in the pool, and bytes of one.
pub const ERRORS_PER_PROCESS: u32 = 32;
/// See [`ERRORS_PER_PROCESS`].
pub const ERROR_BYTES: u64 = 512;

// A client's whole window fits behind a gap, so a well-behaved client is never told to resend for want of room.
const _: () = assert!(HELD_PER_SESSION_MAX >= WINDOW_BATCHES_MAX);
const _: () = assert!(HELD_BATCHES_MAX >= HELD_PER_SESSION_MAX);
// One arrival appends at most itself and everything parked behind it; that must fit the smallest index.
const _: () = assert!(SEGMENT_ENTRIES_MIN * SEGMENTS_PER_CANDIDATE_MIN >= HELD_PER_SESSION_MAX);
const _: () = assert!(EXTENT_BYTES_MIN / BATCHES_PER_EXTENT_MIN >= RUN_BYTES_MIN);
// Lock bytes and lines of members lie behind one another: see `region::LockName` and `layout::MEMBER_LINES`.
const _: () = assert!(BROKERS_MAX + LANES_MAX + BROKERS_MAX * ATTACHED_READERS_PER_BROKER <= 1 << 12);
const _: () = assert!(EXTENT_BYTES_MIN.is_power_of_two() && EXTENT_BYTES_MAX.is_power_of_two());
const _: () = assert!(BATCH_BYTES_MAX / LINE_BYTES <= u32::MAX as u64);
const _: () = assert!(MESSAGE_HEADER_BYTES.is_multiple_of(MESSAGE_ALIGNMENT_BYTES));
const _: () = assert!(TOPIC_NAME_BYTES_MAX + 64 <= CONTROL_BODY_BYTES_MAX);
// How far a hello or request has landed travels in eight bits of a tag.
const _: () = assert!(REQUEST_BODY_BYTES_MAX <= 256 && TOPIC_NAME_BYTES_MAX <= 256);
const _: () = assert!(CONTROL_BODY_BYTES_MAX.is_multiple_of(LINE_BYTES as usize));
