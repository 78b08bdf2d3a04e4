//! Sealing of headers and bodies with their checksums, and the checks of what came in: total on hostile bytes.

use bytemuck::{bytes_of, pod_read_unaligned};

use super::{Frame, FrameKind, MAGIC, Prefix, VERSION, VERSION_LOWEST};
use crate::limits::{
    ADDRESS_BYTES_MAX, BATCH_BYTES_MAX, CONTROL_BODY_BYTES_MAX, CURSOR_NAME_BYTES_MAX, FRAME_HEADER_BYTES, LINE_BYTES,
    REQUEST_BODY_BYTES_MAX, TOPIC_NAME_BYTES_MAX,
};
use crate::wire::error::WireError;
use crate::wire::{crc32c, padded};

/// Bytes that `received_at` of a batch header occupies.
pub const RECEIVED_AT: std::ops::Range<usize> = 48..56;
const HEADER_CRC_AT: usize = 60;

/// CRC32C of a header: its first 60 bytes, in a batch with `received_at` taken as 0.
pub fn header_crc(header: &[u8; FRAME_HEADER_BYTES]) -> u32 {
    let mut copy = *header;
    if copy[5] == FrameKind::Batch as u8 {
        copy[RECEIVED_AT].fill(0);
    }
    crc32c(&copy[..HEADER_CRC_AT])
}

/// The bytes of a header with its header CRC filled in.
pub fn seal<F: Frame>(frame: &F) -> [u8; FRAME_HEADER_BYTES] {
    let mut bytes: [u8; FRAME_HEADER_BYTES] = bytes_of(frame).try_into().expect("every frame header is 64 bytes");
    let crc = header_crc(&bytes);
    bytes[HEADER_CRC_AT..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// A whole control frame: header with both CRCs, body, padding.
///
/// # Panics
/// If the body is longer than `CONTROL_BODY_BYTES_MAX`: the caller builds it.
pub fn with_body<F: Frame>(frame: &F, body: &[u8]) -> Vec<u8> {
    assert!(body.len() <= CONTROL_BODY_BYTES_MAX, "control bodies are bounded");
    let mut prefix: Prefix = pod_read_unaligned(bytes_of(frame));
    prefix.body_bytes = body.len() as u32;
    prefix.body_crc = if body.is_empty() { 0 } else { crc32c(body) };
    let mut bytes: [u8; FRAME_HEADER_BYTES] = bytes_of(&prefix).try_into().expect("every frame header is 64 bytes");
    let crc = header_crc(&bytes);
    bytes[HEADER_CRC_AT..].copy_from_slice(&crc.to_le_bytes());
    let mut whole = bytes.to_vec();
    whole.extend_from_slice(body);
    whole.resize(FRAME_HEADER_BYTES + padded(body.len() as u64) as usize, 0);
    whole
}

/// Checks what all headers share: magic, version, kind, header CRC, flags and the body's length for the kind.
///
/// `batch_bytes_max` is the receiver's limit for a whole batch frame, bytes.
pub fn check(header: &[u8; FRAME_HEADER_BYTES], batch_bytes_max: u64) -> Result<FrameKind, WireError> {
    let prefix: Prefix = pod_read_unaligned(header);
    if prefix.magic != MAGIC {
        return Err(WireError::Magic { found: prefix.magic });
    }
    if !(VERSION_LOWEST..=VERSION).contains(&prefix.version) {
        return Err(WireError::Version { found: prefix.version });
    }
    let kind = FrameKind::from_byte(prefix.kind).ok_or(WireError::UnknownKind { found: prefix.kind })?;
    let computed = header_crc(header);
    if prefix.header_crc != computed {
        return Err(WireError::HeaderCrc { found: prefix.header_crc, computed });
    }
    if !(kind.version_lowest()..=kind.version_highest()).contains(&prefix.version) {
        let (lowest, highest) = (kind.version_lowest(), kind.version_highest());
        return Err(WireError::KindVersion { found: prefix.version, kind, lowest, highest });
    }
    if prefix.flags & !kind.flags() != 0 {
        return Err(WireError::Flags { found: prefix.flags, kind, defined: kind.flags() });
    }
    let max = match kind {
        FrameKind::Request => REQUEST_BODY_BYTES_MAX as u64,
        // The topic name of those who name one only is checked as such.
        FrameKind::Hello | FrameKind::Welcome | FrameKind::Refused | FrameKind::Reply | FrameKind::Brokers => {
            CONTROL_BODY_BYTES_MAX as u64
        }
        FrameKind::Batch => batch_bytes_max.min(BATCH_BYTES_MAX) - LINE_BYTES,
        FrameKind::Deliver => batch_bytes_max.min(BATCH_BYTES_MAX),
        FrameKind::Ack | FrameKind::CaughtUp | FrameKind::Goodbye | FrameKind::Skipped | FrameKind::Heartbeat => 0,
    };
    // Padding counts: a batch occupies whole lines.
    if padded(prefix.body_bytes.into()) > max.next_multiple_of(LINE_BYTES) || u64::from(prefix.body_bytes) > max {
        return Err(WireError::BodyTooLong { found: prefix.body_bytes.into(), max });
    }
    Ok(kind)
}

/// Reads a checked header as the frame it says it is.
///
/// # Panics
/// If the header's kind is another: call [`check`] first and match on its answer.
pub fn read<F: Frame>(header: &[u8; FRAME_HEADER_BYTES]) -> F {
    assert_eq!(header[5], F::KIND as u8, "read as another kind than the header says");
    pod_read_unaligned(header)
}

/// Length of the whole frame this checked header begins, padding included, bytes.
pub fn frame_bytes(header: &[u8; FRAME_HEADER_BYTES]) -> u64 {
    let prefix: Prefix = pod_read_unaligned(header);
    LINE_BYTES + padded(prefix.body_bytes.into())
}

/// Checks a control frame's body against its header, and gives the body without padding.
pub fn check_body<'a>(header: &[u8; FRAME_HEADER_BYTES], padded_body: &'a [u8]) -> Result<&'a [u8], WireError> {
    let prefix: Prefix = pod_read_unaligned(header);
    let body = &padded_body[..prefix.body_bytes as usize];
    let computed = if body.is_empty() { 0 } else { crc32c(body) };
    if prefix.body_crc != computed {
        return Err(WireError::BodyCrc { found: prefix.body_crc, computed });
    }
    Ok(body)
}

/// Whether clients can be told to connect there: `host:port` in one word.
pub fn is_address(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let port_is_good = port.parse::<u16>().is_ok_and(|port| port > 0);
    // The list of brokers has a line for each, so a blank or line end in a name would break it.
    port_is_good && !host.is_empty() && text.len() <= ADDRESS_BYTES_MAX && text.chars().all(|c| c.is_ascii_graphic())
}

/// Checks a topic name: 1 to 112 bytes of UTF-8 without control characters.
pub fn check_topic_name(name: &[u8]) -> Result<&str, WireError> {
    check_name(name, TOPIC_NAME_BYTES_MAX).ok_or(WireError::TopicName { found: name.len() })
}

/// A cursor's name: 1 to 40 bytes of UTF-8 without control characters.
pub fn check_cursor_name(name: &[u8]) -> Result<&str, WireError> {
    check_name(name, CURSOR_NAME_BYTES_MAX).ok_or(WireError::CursorName { found: name.len() })
}

fn check_name(name: &[u8], bytes_max: usize) -> Option<&str> {
    let text = std::str::from_utf8(name).ok()?;
    let is_name = (1..=bytes_max).contains(&name.len()) && !text.chars().any(char::is_control);
    is_name.then_some(text)
}
