//! The committed corpus: valid inputs of each target and the nasty ones, as code, so that a change of format changes them too.

use std::path::PathBuf;

use bytemuck::{Zeroable, bytes_of};
use embarcadero::log::topics::Topic;
use embarcadero::wire::frame::{self, BatchHeader, Hello, Request, Role, TopicRecord};
use embarcadero::wire::message::push;
use embarcadero::wire::subscribe::push_start;
use embarcadero::wire::{AckLevel, OrderLevel, Receipts, StartAt};

type Seed = (&'static str, &'static str, Vec<u8>);

/// Target, name of the file, bytes.
fn seeds() -> Vec<Seed> {
    [wire(), pool(), client()].concat()
}

fn body() -> Vec<u8> {
    let mut body = Vec::new();
    [&b""[..], b"1", &[7; 16], &[9; 40]].iter().for_each(|payload| push(&mut body, payload));
    body
}

fn wire() -> Vec<Seed> {
    let header = BatchHeader { message_count: 4, session: 3, ..BatchHeader::default() };
    let batch = [&[17], &frame::with_body(&header, &body())[..]].concat();
    let framing = |count: u64, body: &[u8]| [&[5], &count.to_le_bytes()[..], body].concat();
    let overrun = [&u32::MAX.to_le_bytes()[..], &[0; 12]].concat();
    let hello = Hello { role: Role::Publisher as u8, order_level: 5, heartbeat_ms: 150, ..Hello::default() }.speaking();
    let hello = [&[1], &frame::with_body(&hello, b"orders")[..]].concat();
    let request = |operation: u8, body: &[u8]| {
        let header = Request { operation, topic_bytes: body.len().min(6) as u16, ..Request::default() };
        [&[1], &frame::with_body(&header, body)[..]].concat()
    };
    let record = TopicRecord { order_level: 5, ack_level: 1, retention_bytes: 1 << 30, ..TopicRecord::zeroed() };
    let subscriber = Hello { role: Role::Subscriber as u8, slow_reader: 2, ..Hello::default() };
    let mut starts = Vec::new();
    push_start(&mut starts, "orders", StartAt::Timestamp(7), 0);
    push_start(&mut starts, "o", StartAt::Order(7), 9);
    let topic = Topic {
        id: 3,
        receipts: Receipts::Message,
        retention_bytes: 1 << 40,
        created_at: 9,
        created_position: 7,
        ..Topic::new(&"n".repeat(112), OrderLevel::Session, AckLevel::Committed)
    };
    // The geometry begins at byte 64: pool_bytes, extent_bytes, hosts, brokers, lanes, candidates, ring, segment, segments, ...
    let superblock = |bytes: &[u8]| [&[1], bytes].concat();
    vec![
        ("batch_bytes", "whole", batch.clone()),
        ("batch_bytes", "cut", batch[..100].to_vec()),
        ("batch_bytes", "goodbye", [&[1], &frame::seal(&frame::Goodbye::default())[..]].concat()),
        ("batch_bytes", "heartbeat", [&[1], &frame::seal(&frame::Heartbeat::default())[..]].concat()),
        ("batch_framing", "sound", framing(4, &body())),
        ("batch_framing", "one_message_too_many", framing(5, &body())),
        ("batch_framing", "one_message_too_few", framing(3, &body())),
        ("batch_framing", "payload_past_the_body", framing(1, &overrun)),
        ("control_frames", "hello", hello.clone()),
        ("control_frames", "create_topic", request(1, &[b"orders", bytes_of(&record)].concat())),
        ("control_frames", "short_record", request(1, b"orders")),
        ("control_frames", "list_topics", request(2, b"")),
        ("control_frames", "delete_topic", request(4, b"orders")),
        ("control_frames", "commit_cursor", request(5, b"ordersbilling")),
        ("control_frames", "read_cursor_without_a_name", request(6, b"orders")),
        ("control_frames", "list_cursors", request(7, b"orders")),
        ("control_frames", "delete_cursor", request(8, b"ordersbilling")),
        ("control_frames", "subscriber_of_two", [&[1], &frame::with_body(&subscriber, &starts)[..]].concat()),
        ("control_frames", "unsealed", [&[0], &hello[1..]].concat()),
        ("control_frames", "longest_body", [&[1], b"EMBR\x02\x01\x01\x00\xff\xff\xff\xff".as_slice()].concat()),
        ("topic_specification", "longest_name", topic.to_spec().to_vec()),
        ("topic_specification", "name_too_long", vec![0, 0, 0, 0, 255, 255, 5, 1]),
        ("superblock", "sound", superblock(&[])),
        ("superblock", "no_brokers", superblock(&[84, 0])),
        ("superblock", "many_brokers_and_lanes", superblock(&[84, 64, 88, 255])),
        ("superblock", "no_lanes", superblock(&[88, 0])),
        ("superblock", "many_segments", superblock(&[104, 0, 105, 16])),
        ("superblock", "longer_than_the_file", superblock(&[71, 255])),
        ("configuration", "sound", [&[0, 0], include_str!("../../config/two-core.yaml").as_bytes()].concat()),
        ("configuration", "nested", [&[0, 0], "[".repeat(300).as_bytes()].concat()),
        ("configuration", "overflow", b"\0\0pool: { bytes: 99999999999999999999TiB }\n".to_vec()),
        ("configuration", "alias", b"\0\0a: &a [*a, *a]\nb: *a\n".to_vec()),
    ]
}

/// One damage: region, line, word, way, value.
fn damage(region: u8, line: u16, word: u8, way: u8, value: u64) -> Vec<u8> {
    [&[region], &line.to_be_bytes()[..], &[word, way], &value.to_le_bytes()].concat()
}

fn pool() -> Vec<Seed> {
    let mut all = vec![("pool", "sound", Vec::new())];
    // Words of an epoch line: guard, claimed, active, heartbeat, watermark; of a floor line: guard, epoch, closing, floor, checkpoint.
    let early_checkpoint = damage(2, 0, 4, 0, 0);
    let names = ["kind_and_lane", "session_slot", "batch_seq", "first_order", "place", "bytes_and_count", "lane_slot"];
    for (word, name) in (1..).zip(names) {
        // An entry of the second half of the first segment, replayed from the start.
        let entry = damage(13, 2 * 100, word, 0, u64::MAX);
        all.push(("pool", name, [early_checkpoint.clone(), entry].concat()));
    }
    all.extend([
        ("pool", "watermark_far_off", damage(1, 0, 4, 0, 1 << 61)),
        ("pool", "watermark_highest", damage(1, 0, 4, 0, u64::MAX)),
        ("pool", "claimed_highest", damage(1, 0, 1, 0, u64::MAX)),
        ("pool", "claimed_and_never_active", damage(1, 0, 1, 2, 41)),
        ("pool", "active_and_never_claimed", damage(1, 1, 2, 0, 1 << 59)),
        ("pool", "closing_highest", damage(2, 0, 2, 0, u64::MAX)),
        ("pool", "floor_above_watermark", damage(2, 0, 3, 0, 1 << 40)),
        ("pool", "broker_incarnation", damage(3, 0, 1, 0, u64::MAX)),
        ("pool", "pin_incarnation", damage(4, 0, 1, 0, u64::MAX)),
        ("pool", "lane_incarnation", damage(5, 0, 1, 0, u64::MAX)),
        ("pool", "lane_progress", damage(6, 0, 2, 0, u64::MAX)),
        ("pool", "lane_progress_reusable", damage(6, 0, 4, 0, u64::MAX)),
        ("pool", "topic_id", damage(7, 0, 1, 0, u64::MAX)),
        ("pool", "topic_guard", damage(7, 0, 0, 0, u64::MAX)),
        ("pool", "topic_progress", damage(7, 6, 1, 0, u64::MAX)),
        ("pool", "session_topic", damage(8, 0, 6, 0, 7)),
        ("pool", "session_next_batch", damage(8, 0, 3, 0, u64::MAX)),
        ("pool", "segment_number", damage(9, 0, 0, 0, u64::MAX)),
        ("pool", "segment_first", damage(9, 0, 2, 0, u64::MAX)),
        ("pool", "extent_end_slot", damage(10, 0, 2, 0, u64::MAX)),
        ("pool", "ring_guard", damage(11, 0, 0, 0, u64::MAX)),
        ("pool", "cursor_topic", damage(16, 0, 1, 0, u64::MAX)),
        ("pool", "cursor_order", damage(16, 0, 2, 0, u64::MAX)),
        ("pool", "cursor_name", damage(16, 0, 3, 0, u64::MAX)),
        ("pool", "batch_header", damage(12, 40, 1, 0, u64::MAX)),
        // Word 2 of the superblock's second line: hosts and brokers.
        ("pool", "geometry_of_one_broker", damage(0, 2, 2, 0, 1 << 32 | 1)),
    ]);
    all
}

fn client() -> Vec<Seed> {
    let ack = |flags: u8, epoch: u8, numbers: [u64; 4]| {
        [&[4, flags, epoch], &numbers.map(u64::to_le_bytes).concat()[..]].concat()
    };
    let own = |field: u8, value: u64| [&[1, field], &value.to_le_bytes()[..]].concat();
    vec![
        ("subscriber", "three_batches", vec![0, 0, 0, 2, 0]),
        ("subscriber", "caught_up_elsewhere", vec![0, 2, 9]),
        ("subscriber", "gap", [vec![0], own(1, 5)].concat()),
        ("subscriber", "order_overflows", own(1, u64::MAX)),
        ("subscriber", "count_highest", own(2, u32::MAX.into())),
        ("subscriber", "announced_longer", own(4, 64)),
        ("subscriber", "announced_shorter", own(4, u64::from(u32::MAX) - 63)),
        ("subscriber", "skipped", [&[0, 5, 0][..], &7u64.to_le_bytes(), &[0, 2, 0]].concat()),
        ("subscriber", "skipped_from_elsewhere", [&[0, 5, 1][..], &7u64.to_le_bytes()].concat()),
        ("subscriber", "skipped_to_the_end", [&[5, 0][..], &u64::MAX.to_le_bytes(), &[0]].concat()),
        ("subscriber", "refused", [&[3][..], &[1; 16], &[2], b"no"].concat()),
        ("subscriber", "an_ack", ack(0, 1, [0, 0, 0, u64::MAX])),
        ("subscriber", "half_a_header", vec![40; 41]),
        ("publisher", "acked", ack(0, 1, [0, 0, 0, u64::MAX])),
        ("publisher", "acked_past_the_end", ack(0, 1, [u64::MAX, 1, 1, u64::MAX])),
        ("publisher", "let_go", ack(0, 1, [0, 0, 0, 0])),
        ("publisher", "let_go_past_the_end", ack(0, 1, [0, 0, 0, u64::MAX - 1])),
        ("publisher", "fenced", ack(1, 1, [0, 0, 0, u64::MAX])),
        ("publisher", "another_epoch", ack(0, 9, [1, 2, 2, u64::MAX])),
        ("publisher", "falling", [ack(0, 1, [0, 9, 9, u64::MAX]), ack(0, 1, [0, 1, 1, u64::MAX])].concat()),
        ("publisher", "refused", [&[3][..], &[5; 16], &[2], b"no"].concat()),
        ("publisher", "a_delivery", vec![0]),
    ]
}

fn place_of((target, name, _): &Seed) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/__fuzz__").join(target).join("corpus").join(name)
}

#[test]
fn the_committed_corpus_is_this_one() {
    for seed in seeds() {
        let place = place_of(&seed);
        let found = std::fs::read(&place).unwrap_or_else(|error| panic!("{}: {error}", place.display()));
        assert_eq!(found, seed.2, "{}: `cargo test --test fuzz -- --ignored` writes it anew", place.display());
    }
}

#[test]
#[ignore = "writes the corpus"]
fn write_the_corpus() {
    for seed in seeds() {
        let place = place_of(&seed);
        std::fs::create_dir_all(place.parent().expect("it lies in a directory")).expect("the directory is made");
        std::fs::write(place, seed.2).expect("the file is written");
    }
}
