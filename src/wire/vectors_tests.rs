//! `VECTORS.md` is what the code says: each of its blocks, made here from fields, byte for byte; and every block checks.

use bytemuck::{Zeroable, bytes_of};

use crate::wire::frame::{
    self, Ack, BatchHeader, Brokers, CaughtUp, Deliver, Goodbye, Heartbeat, Hello, LogRecord, Refused, Reply, Request,
    Role, Skipped, TopicRecord, Welcome, with_body,
};
use crate::wire::message::push;
use crate::wire::subscribe::push_start;
use crate::wire::{FrameKind, Operation, Refusal, StartAt};

const TEXT: &str = include_str!("VECTORS.md");
const CREATED_AT: u64 = 1_700_000_000_000_000_000;

/// The blocks of the page: heading and bytes.
fn blocks() -> Vec<(&'static str, Vec<u8>)> {
    let block = |part: &'static str| {
        let (title, rest) = part.split_once("\n\n```\n").expect("a heading, then a block");
        let digits: Vec<u8> = rest.split("\n```").next().expect("the block").bytes().filter(|c| *c != b'\n').collect();
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).expect("hexadecimal");
        (title, digits.chunks(2).map(byte).collect())
    };
    TEXT.split("\n### ").skip(1).map(block).collect()
}

fn log() -> LogRecord {
    LogRecord { uuid: [0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210], heartbeat_ms: 150, ..LogRecord::zeroed() }
}

fn publisher() -> Hello {
    Hello { role: Role::Publisher as u8, ack_level: 1, order_level: 255, ..Hello::default() }
}

fn batch(received_at: u64) -> Vec<u8> {
    let mut body = Vec::new();
    [&b"hello"[..], b""].iter().for_each(|payload| push(&mut body, payload));
    let ids = BatchHeader { session: 0x1007, session_epoch: 1, topic: 3, ..BatchHeader::default() };
    with_body(&BatchHeader { message_count: 2, created_at: CREATED_AT, received_at, ..ids }, &body)
}

/// Every frame of the page that is said under this version, in its order.
fn frames(version: u8) -> Vec<Vec<u8>> {
    let speaks = |hello: Hello| match version {
        2 => hello,
        _ => Hello { heartbeat_ms: 150, ..hello.speaking() },
    };
    let welcome = Welcome {
        version,
        session_epoch: 1,
        session: 0x1007,
        token: 0x55aa_55aa,
        topic: 3,
        batch_bytes_max: 1 << 20,
        order_level: 5,
        ack_level: 1,
        window_batches_max: 64,
        ..Welcome::default()
    };
    let ack = Ack { version, session_epoch: 1, session: 0x1007, committed_next: 1, order_end: 2, ..Ack::default() };
    let refused = Refused { version, code: Refusal::Draining as u16, ..Refused::default() };
    let mut all = vec![
        with_body(&speaks(publisher()), b"orders"),
        with_body(&welcome, &frame::welcome_body(version, &log(), "0 10.0.0.1:9092\n")),
        batch(0),
        frame::seal(&Ack { broker_messages: 2, let_go_from: frame::NOTHING_LET_GO, ..ack }).into(),
        frame::seal(&Goodbye { version, ..Goodbye::default() }).into(),
        with_body(&refused, b"this broker is shutting down; use another"),
    ];
    let mut starts = Vec::new();
    push_start(&mut starts, "orders", StartAt::Order(2), 8);
    let resumes = Hello { role: Role::Subscriber as u8, order_level: 255, ..Hello::default() };
    let tag = if version == 2 { 0 } else { log().tag() };
    all.push(with_body(&speaks(Hello { log: tag, ..resumes }), &starts));
    if version > 2 {
        let joins = Hello { session: 0x1007, token: 0x55aa_55aa, session_epoch: 1, log: tag, ..publisher() };
        all.push(with_body(&speaks(joins), b"orders"));
        all.push(frame::seal(&Heartbeat::default()).into());
        all.push(with_body(&Brokers::default(), b"0 a:7300\n2 b:7300\n"));
    }
    let stored = batch(CREATED_AT + 1000);
    let deliver =
        Deliver { version, body_bytes: stored.len() as u32, message_count: 2, position: 9, ..Deliver::default() };
    let deliver = Deliver { session: 0x1007, session_epoch: 1, topic: 3, ..deliver };
    all.push([&frame::seal(&deliver)[..], &stored].concat());
    all.push(frame::seal(&CaughtUp { version, topic: 3, next_order: 2, ..CaughtUp::default() }).into());
    all.push(frame::seal(&Skipped { version, topic: 3, from: 0, next_order: 2, ..Skipped::default() }).into());
    let operation = Operation::TopicDescribe as u8;
    let request = Request { operation, topic_bytes: 6, ..Request::default() };
    all.push(with_body(&if version == 2 { request } else { request.speaking() }, b"orders"));
    let properties =
        TopicRecord { id: 3, name_bytes: 6, order_level: 5, ack_level: 1, replicas: 1, ..TopicRecord::zeroed() };
    let record = TopicRecord { created_at: CREATED_AT, generation: 8, next_order: 2, kept_bytes: 192, ..properties };
    all.push(with_body(&Reply { version, operation, number: 8, ..Reply::default() }, bytes_of(&record)));
    all
}

#[test]
fn the_written_frames_are_those_of_the_code() {
    let mut blocks = blocks();
    for version in [2, 3] {
        for frame in frames(version) {
            let kind = FrameKind::ALL.into_iter().find(|kind| *kind as u8 == frame[5]).unwrap();
            let found =
                blocks.iter().position(|(title, bytes)| *bytes == frame && title.starts_with(&format!("{kind:?}:")));
            match found {
                // The same under both versions.
                Some(_) if kind == FrameKind::Batch => {}
                Some(index) => drop(blocks.remove(index)),
                None => panic!("VECTORS.md lacks this {kind:?} of version {version}: {frame:02x?}"),
            }
        }
    }
    blocks.retain(|(title, _)| !title.starts_with("Batch:"));
    assert!(blocks.is_empty(), "the code does not say {blocks:02x?}");
}

#[test]
fn every_written_frame_checks() {
    for (title, bytes) in blocks() {
        let head = bytes[..64].try_into().unwrap();
        let kind = frame::check(&head, 1 << 20).unwrap_or_else(|error| panic!("{title}: {error}"));
        assert!(title.starts_with(&format!("{kind:?}:")), "{title} is a {kind:?}");
        assert_eq!(frame::frame_bytes(&head), bytes.len() as u64, "{title}");
    }
}
