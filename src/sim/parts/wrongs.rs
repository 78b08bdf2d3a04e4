//! What clients must not say: frames that no client library builds. Each is refused, or ends its connection, and nobody else notices.

use bytemuck::bytes_of;

use crate::client::TopicProperties;
use crate::client::handshake::ANY_ORDER_LEVEL;
use crate::client::requests::{record_of, request_bytes};
use crate::limits::{FRAME_HEADER_BYTES, SUBSCRIPTION_TOPICS_MAX};
use crate::sim::kernel::Kernel;
use crate::sim::workload;
use crate::wire::frame::{self, BatchHeader, Heartbeat, Hello, Request, Role, TopicRecord, Welcome};
use crate::wire::subscribe::push_start;
use crate::wire::{AckLevel, Operation, OrderLevel, StartAt, message};

/// Topics of different names that each asks for: with all of them there is room for everybody's.
const TOPICS_OF_A_STRANGER: u64 = 5;
/// Whose messages they would be.
const CLIENT: u64 = 1 << 20;

/// A hello that is sound.
pub(super) fn hello(role: Role, topic: &str) -> (Hello, Vec<u8>) {
    let hello = Hello { role: role as u8, ack_level: 1, order_level: ANY_ORDER_LEVEL, ..Hello::default() };
    match role {
        Role::Publisher => (hello, topic.as_bytes().to_vec()),
        Role::Subscriber => (Hello { ack_level: 0, ..hello }, start(topic, 1, 0)),
    }
}

/// A subscriber's body: a topic so many times.
fn start(topic: &str, times: usize, generation: u64) -> Vec<u8> {
    let mut body = Vec::new();
    (0..times).for_each(|_| push_start(&mut body, topic, StartAt::Earliest, generation));
    body
}

pub(super) fn bytes_of_hello((hello, body): (Hello, Vec<u8>)) -> Vec<u8> {
    frame::with_body(&hello.speaking(), &body)
}

/// The first words of a connection: what they are, and the bytes. No broker may do what they ask for.
pub(super) fn opening(kernel: &Kernel, topic: &str) -> (&'static str, Vec<u8>) {
    match kernel.below(3) {
        0 => noise(kernel, topic),
        1 => wrong_hello(kernel, topic),
        _ => wrong_request(kernel, topic),
    }
}

fn noise(kernel: &Kernel, topic: &str) -> (&'static str, Vec<u8>) {
    let mut bytes = bytes_of_hello(hello(Role::Publisher, topic));
    match kernel.below(3) {
        0 => ("noise", (0..FRAME_HEADER_BYTES).map(|_| kernel.below(256) as u8).collect()),
        1 => {
            // Not in the padding, which nobody reads.
            let at = kernel.below((FRAME_HEADER_BYTES + topic.len()) as u64) as usize;
            bytes[at] ^= 1 << kernel.below(8);
            ("a damaged hello", bytes)
        }
        _ => ("a batch before a hello", batch(&Welcome::default(), |_| {})),
    }
}

fn wrong_hello(kernel: &Kernel, topic: &str) -> (&'static str, Vec<u8>) {
    let (publisher, body) = hello(Role::Publisher, topic);
    let (subscriber, _) = hello(Role::Subscriber, topic);
    let (what, hello, body) = match kernel.below(9) {
        0 => ("a session of another's", Hello { session: 1 + kernel.below(100), token: 1, ..publisher }, body),
        1 => ("another log", Hello { log: 1, ..publisher }, body),
        2 => ("ack level 2", Hello { ack_level: 2, ..publisher }, body),
        3 => ("an ack level that there is not", Hello { ack_level: 9, ..publisher }, body),
        4 => ("more than a topic grants", publisher, b"of-admin-0".to_vec()),
        5 => ("an order level that there is not", Hello { order_level: 77, ..publisher }, body),
        6 => ("too many topics", subscriber, start(topic, SUBSCRIPTION_TOPICS_MAX + 1, 0)),
        7 => ("a topic twice", subscriber, start(topic, 2, 0)),
        _ => ("a topic that never was", subscriber, start(topic, 1, u64::MAX)),
    };
    (what, bytes_of_hello((hello, body)))
}

fn request(operation: Operation) -> Request {
    Request { operation: operation as u8, ..Request::default() }
}

fn properties(order: OrderLevel) -> TopicProperties {
    TopicProperties { order, ..TopicProperties::default() }
}

fn wrong_request(kernel: &Kernel, topic: &str) -> (&'static str, Vec<u8>) {
    let create = request(Operation::TopicCreate);
    let record = |order, ack| bytes_of(&record_of(&TopicProperties { ack, ..properties(order) })).to_vec();
    let too_far = Request { number: u64::MAX, ..request(Operation::CursorCommit) };
    let (what, request, rest) = match kernel.below(7) {
        0 => ("an unknown operation", Request { operation: 100, ..Request::default() }, Vec::new()),
        1 => ("a topic without properties", create, vec![0; 3]),
        2 => {
            let two_copies = TopicRecord { replicas: 2, ..record_of(&properties(OrderLevel::Total)) };
            ("two copies", create, bytes_of(&two_copies).to_vec())
        }
        3 => ("a topic of ack level 2", create, record(OrderLevel::Total, AckLevel::Durable)),
        4 => ("a session's order without acks", create, record(OrderLevel::Session, AckLevel::None)),
        5 => ("an order that there cannot be", too_far, b"of-a-stranger".to_vec()),
        _ => {
            let request = Request { topic_bytes: 200, ..create };
            return ("a name longer than all there is", frame::with_body(&request.speaking(), topic.as_bytes()));
        }
    };
    (what, request_bytes(request, topic, &rest))
}

/// A request that is sound: for a topic or a cursor more than it has.
pub(super) fn one_more(kernel: &Kernel, topic: &str) -> Vec<u8> {
    let name = format!("of-{}-{}", kernel.part, kernel.below(TOPICS_OF_A_STRANGER)).replace(' ', "-");
    match kernel.chance(1, 2) {
        true => {
            let record = record_of(&properties(OrderLevel::Total));
            request_bytes(request(Operation::TopicCreate), &name, bytes_of(&record))
        }
        false => request_bytes(request(Operation::CursorCommit), topic, name.as_bytes()),
    }
}

/// What somebody says who was answered.
pub(super) fn behind_an_answer(kernel: &Kernel) -> Vec<u8> {
    match kernel.below(3) {
        0 => frame::seal(&Heartbeat::default()).to_vec(),
        1 => frame::seal(&Hello::default()).to_vec(),
        _ => batch(&Welcome::default(), |_| {}),
    }
}

/// What a publisher says that was welcomed.
pub(super) fn of_a_publisher(kernel: &Kernel, welcome: &Welcome) -> Vec<u8> {
    match kernel.below(7) {
        0 => batch(welcome, |header| header.session += 1),
        1 => batch(welcome, |header| header.topic += 1),
        2 => batch(welcome, |header| header.session_epoch += 1),
        // A hole: nothing behind it comes, and it is never closed.
        3 => batch(welcome, |header| header.batch_seq += 1),
        4 => batch(welcome, |header| header.message_count = 0),
        5 => bytes_of_hello(hello(Role::Publisher, "t")),
        // The rest of it never comes.
        _ => {
            let mut bytes = batch(welcome, |_| {});
            bytes.truncate(FRAME_HEADER_BYTES + kernel.below(bytes.len() as u64 - FRAME_HEADER_BYTES as u64) as usize);
            bytes
        }
    }
}

/// What a subscriber says that was welcomed.
pub(super) fn of_a_subscriber(kernel: &Kernel) -> Vec<u8> {
    let mut beat = frame::seal(&Heartbeat::default()).to_vec();
    match kernel.below(3) {
        0 => vec![0; 1 + kernel.below(9) as usize],
        1 => frame::seal(&Hello::default()).to_vec(),
        _ => {
            beat[20] ^= 1;
            beat
        }
    }
}

/// A batch of one message, all but sound.
fn batch(welcome: &Welcome, wrong: impl FnOnce(&mut BatchHeader)) -> Vec<u8> {
    let mut body = Vec::new();
    message::push(&mut body, &workload::payload(CLIENT, 0, 200));
    let Welcome { session, session_epoch, topic, next, .. } = *welcome;
    let mut header =
        BatchHeader { message_count: 1, session, session_epoch, topic, batch_seq: next, ..BatchHeader::default() };
    wrong(&mut header);
    frame::with_body(&header, &body)
}
