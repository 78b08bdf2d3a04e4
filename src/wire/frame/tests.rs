//! Sealing, checking and names; the written tables are the code.

use super::*;
use crate::fields::{Described, table};
use crate::limits::CONTROL_BODY_BYTES_MAX;
use crate::wire::error::WireError;

const MAX: u64 = 1 << 20;

#[test]
fn sealed_headers_check() {
    let ack = Ack { session: 7, committed_next: 9, ..Ack::default() };
    let bytes = seal(&ack);
    assert_eq!(check(&bytes, MAX), Ok(FrameKind::Ack));
    assert_eq!(read::<Ack>(&bytes).committed_next, 9);
}

#[test]
fn receipt_is_outside_the_header_crc() {
    let mut bytes = seal(&BatchHeader { message_count: 1, ..BatchHeader::default() });
    bytes[RECEIVED_AT].copy_from_slice(&77u64.to_le_bytes());
    assert_eq!(check(&bytes, MAX), Ok(FrameKind::Batch));
    assert_eq!(RECEIVED_AT.start, std::mem::offset_of!(BatchHeader, received_at));
}

#[test]
fn every_flipped_bit_is_found() {
    let good = seal(&Hello { role: 1, body_bytes: 5, ..Hello::default() });
    for bit in 0..512 {
        let mut bad = good;
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(check(&bad, MAX).is_err(), "bit {bit} went unnoticed");
    }
}

#[test]
fn lengths_past_the_limit_are_refused() {
    let hello = seal(&Hello { body_bytes: CONTROL_BODY_BYTES_MAX as u32 + 1, ..Hello::default() });
    assert!(matches!(check(&hello, MAX), Err(WireError::BodyTooLong { .. })));
    for (body, fits) in [(MAX - 64, true), (MAX - 63, false), (u32::MAX as u64, false)] {
        let batch = seal(&BatchHeader { body_bytes: body as u32, message_count: 1, ..BatchHeader::default() });
        assert_eq!(check(&batch, MAX).is_ok(), fits, "body of {body}");
    }
}

#[test]
fn the_written_tables_are_the_code() {
    let text = include_str!("../PROTOCOL.md");
    fn has<T: Described>(text: &str) {
        let wanted = table::<T>(0);
        assert!(text.contains(&wanted), "PROTOCOL.md lacks or differs from the table of {}:\n{wanted}", T::NAME);
    }
    has::<Prefix>(text);
    has::<Hello>(text);
    has::<Welcome>(text);
    has::<Refused>(text);
    has::<BatchHeader>(text);
    has::<Ack>(text);
    has::<Deliver>(text);
    has::<CaughtUp>(text);
    has::<Goodbye>(text);
    has::<Request>(text);
    has::<Reply>(text);
    has::<TopicRecord>(text);
    has::<CursorRecord>(text);
    has::<Skipped>(text);
    has::<Heartbeat>(text);
    has::<LogRecord>(text);
    has::<crate::wire::subscribe::StartRecord>(text);
    has::<crate::wire::message::MessageHeader>(text);
    for refusal in crate::wire::Refusal::ALL {
        assert!(text.contains(&format!("| {} | {refusal:?} |", refusal as u16)), "PROTOCOL.md lacks {refusal:?}");
    }
    for operation in Operation::ALL {
        let row = format!("| {operation} | {operation:?} |");
        assert!(text.contains(&row), "PROTOCOL.md lacks {operation:?}");
    }
}

#[test]
fn topic_names() {
    assert!(check_topic_name(b"orders.eu").is_ok());
    for bad in [&b""[..], &[b'x'; 113], &[0xff], b"a\nb"] {
        assert!(check_topic_name(bad).is_err());
    }
}

#[test]
fn the_version_in_use_is_the_highest_of_both_ends() {
    let in_use = |version, version_lowest, version_highest| {
        let hello = Hello { version, version_lowest, version_highest, ..Hello::default() };
        let request = Request { version, version_lowest, version_highest, ..Request::default() };
        assert_eq!(hello.version_in_use(), request.version_in_use());
        hello.version_in_use()
    };
    assert_eq!(in_use(2, 0, 0), Ok(2), "who names no version speaks 2");
    assert_eq!(in_use(2, 2, 2), Ok(2));
    assert_eq!(in_use(2, 2, 3), Ok(3));
    assert_eq!(in_use(2, 2, 9), Ok(3), "whatever newer ones there are");
    assert_eq!(in_use(3, 3, 3), Ok(3));
    for (version, lowest, highest) in [(2, 4, 9), (2, 3, 2), (2, 1, 1), (2, 9, 0)] {
        assert!(matches!(in_use(version, lowest, highest), Err(WireError::Version { .. })), "{lowest} to {highest}");
    }
    assert_eq!(Hello::default().speaking().version, 2, "whoever speaks 2 can read it");
    assert_eq!(Hello::default().speaking().version_in_use(), Ok(3));
}

#[test]
fn each_kind_has_its_versions() {
    for version in 0..=9 {
        let is_known = matches!(version, 2 | 3);
        assert_eq!(check(&seal(&Ack { version, ..Ack::default() }), MAX).is_ok(), is_known, "{version}");
        let heartbeat = check(&seal(&Heartbeat { version, ..Heartbeat::default() }), MAX);
        assert_eq!(heartbeat.is_ok(), version == 3, "{heartbeat:?}");
        let batch = check(&seal(&BatchHeader { version, message_count: 1, ..BatchHeader::default() }), MAX);
        assert_eq!(batch.is_ok(), version == 2, "the format of batches is that of version 2: {batch:?}");
    }
}

#[test]
fn flags_that_are_not_defined_are_refused() {
    for bit in 0..16 {
        let flags = 1 << bit;
        assert!(matches!(check(&seal(&Hello { flags, ..Hello::default() }), MAX), Err(WireError::Flags { .. })));
        let batch = BatchHeader { flags, message_count: 1, ..BatchHeader::default() };
        assert!(matches!(check(&seal(&batch), MAX), Err(WireError::Flags { .. })));
        assert_eq!(check(&seal(&Ack { flags, ..Ack::default() }), MAX).is_ok(), flags == ACK_FENCED);
        assert_eq!(check(&seal(&Reply { flags, ..Reply::default() }), MAX).is_ok(), flags == REPLY_MORE);
    }
}

#[test]
fn a_welcome_tells_of_the_log() {
    let log = LogRecord { uuid: [7, 9], heartbeat_ms: 150, ..bytemuck::Zeroable::zeroed() };
    let list = "0 a:1\n";
    assert_eq!(split_welcome_body(3, &welcome_body(3, &log, list)), Ok((Some(log), list.as_bytes())));
    assert_eq!(split_welcome_body(2, &welcome_body(2, &log, list)), Ok((None, list.as_bytes())));
    assert_eq!(split_welcome_body(3, b""), Ok((None, &b""[..])), "a subscriber's further topics");
    assert!(matches!(split_welcome_body(3, &[0; 63]), Err(WireError::Field { .. })));
    assert_ne!(log.tag(), LogRecord { uuid: [9, 7], ..log }.tag());
    assert_ne!(log.tag(), 0);
}
