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
