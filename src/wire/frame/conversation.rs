//! Frames that begin and end a conversation, whatever it is for.

use crate::described;
use crate::limits::CONTROL_BODY_BYTES_MAX;
use crate::wire::error::WireError;

described! {
    /// First frame of a connection. Body: the topic's name, UTF-8; of a subscriber one Start record for each topic.
    pub struct Hello: 64 {
        /// "EMBR"
        magic: u32,
        /// lowest protocol version that its sender speaks, 2
        version: u8,
        /// 1
        kind: u8,
        /// 0
        flags: u16,
        /// length of the body in bytes: of a topic name, 1 to 112; of a subscriber's records
        body_bytes: u32,
        /// 1 publisher, 2 subscriber
        role: u8,
        /// ack level wanted by a publisher: 0, 1 (2 is refused in this version)
        ack_level: u8,
        /// order level the client relies on; 255: whatever the topic has
        order_level: u8,
        /// 0
        reserved: u8,
        /// publisher: 0 opens a session, else the session to join or reopen
        session: u64,
        /// publisher: token of that session, from its Welcome; with `session` 0 an earlier session that it had in this topic, or 0; else 0
        token: u64,
        /// subscriber that is waited for: up to this lag, bytes of payload in the pool; 0 as the broker is configured. Else 0
        lag_bytes: u64,
        /// publisher joining: the current epoch; reopening after a fence: that epoch + 1
        session_epoch: u32,
        /// joining, reopening, resuming: tag of the log meant, see Log record; else 0
        log: u32,
        /// subscriber that is too slow: 0 as the broker is configured, 1 wait, 2 skip, 3 disconnect. Else 0
        slow_reader: u8,
        /// lowest protocol version that its sender speaks; 0 means that of `version`
        version_lowest: u8,
        /// highest protocol version that its sender speaks; 0 means 2
        version_highest: u8,
        /// 0
        reserved_too: u8,
        /// version 3: the sender promises to be heard at least this often, ms; 0 promises nothing
        heartbeat_ms: u32,
        /// CRC32C of the body
        body_crc: u32,
        /// CRC32C of bytes 0 to 59
        header_crc: u32,
    }
}

described! {
    /// A hello was accepted. Body: under version 3 a Log record, then one line `id address:port` for every broker of the pool.
    /// A subscriber gets one for each topic, in the hello's order; all but the first without a body.
    pub struct Welcome: 64 {
        /// "EMBR"
        magic: u32,
        /// protocol version in use, 2 or 3
        version: u8,
        /// 2
        kind: u8,
        /// 0
        flags: u16,
        /// length of the body in bytes
        body_bytes: u32,
        /// session epoch (publisher), else 0
        session_epoch: u32,
        /// session id (publisher); generation of the topic (subscriber), to name when it resumes
        session: u64,
        /// token that lets another connection join the session; keep it secret
        token: u64,
        /// publisher: number of the first batch not yet committed. Subscriber: order of the first message to come
        next: u64,
        /// topic id, for the batch headers
        topic: u32,
        /// largest batch taken, header and padding included, bytes
        batch_bytes_max: u32,
        /// order level of the topic
        order_level: u8,
        /// ack level granted
        ack_level: u8,
        /// id of the broker that answers
        broker: u16,
        /// most batches the session may have unacked
        window_batches_max: u32,
        /// CRC32C of the body
        body_crc: u32,
        /// CRC32C of bytes 0 to 59
        header_crc: u32,
    }
}

described! {
    /// The conversation is over. Body: the reason in words, UTF-8. The broker closes after it.
    pub struct Refused: 64 {
        /// "EMBR"
        magic: u32,
        /// protocol version in use, 2 or 3
        version: u8,
        /// 3
        kind: u8,
        /// 0
        flags: u16,
        /// length of the text in bytes
        body_bytes: u32,
        /// reason, see the table of codes
        code: u16,
        /// Trimmed, TooSlow: place of the topic in the subscriber's hello, from 0; else 0
        place: u16,
        /// the number the code's meaning names (Trimmed, TooSlow: earliest order; SessionEpoch: current epoch), else 0
        detail: u64,
        /// 0
        reserved_too: [u64; 4],
        /// CRC32C of the body
        body_crc: u32,
        /// CRC32C of bytes 0 to 59
        header_crc: u32,
    }
}

described! {
    /// The client sends nothing more. No body.
    pub struct Goodbye: 64 {
        /// "EMBR"
        magic: u32,
        /// protocol version in use, 2 or 3
        version: u8,
        /// 8
        kind: u8,
        /// 0
        flags: u16,
        /// 0
        body_bytes: u32,
        /// 0
        reserved: [u32; 11],
        /// 0
        body_crc: u32,
        /// CRC32C of bytes 0 to 59
        header_crc: u32,
    }
}

described! {
    /// The client, or the broker, is there, and had nothing else to say. Only under version 3. No body.
    pub struct Heartbeat: 64 {
        /// "EMBR"
        magic: u32,
        /// protocol version in use, 3
        version: u8,
        /// 12
        kind: u8,
        /// 0
        flags: u16,
        /// 0
        body_bytes: u32,
        /// 0
        reserved: [u32; 11],
        /// 0
        body_crc: u32,
        /// CRC32C of bytes 0 to 59
        header_crc: u32,
    }
}

described! {
    /// Begins the body of a Welcome of version 3 that has one: which log this is, and how often its broker is heard.
    pub struct LogRecord: 64 {
        /// random identity of the log
        uuid: [u64; 2],
        /// fork of the log; 0 until logs are forked
        fork: u32,
        /// the broker is heard at least this often, ms; 0: no promise
        heartbeat_ms: u32,
        /// index position at which the log was forked; 0 until logs are forked
        forked_at: u64,
        /// 0
        reserved: [u64; 4],
    }
}

described! {
    /// Which brokers there are from now on: the body lists them as that of a Welcome does. A client that may choose its brokers opens connections to
    /// those that are new, and does not come back to those that are gone. Only under version 3.
    pub struct Brokers: 64 {
        /// "EMBR"
        magic: u32,
        /// protocol version in use, 3
        version: u8,
        /// 13
        kind: u8,
        /// 0
        flags: u16,
        /// length of the list, bytes
        body_bytes: u32,
        /// 0
        reserved: [u32; 11],
        /// CRC32C of the body without its padding
        body_crc: u32,
        /// CRC32C of bytes 0 to 59
        header_crc: u32,
    }
}

/// Longest list of brokers: a Welcome has room for it behind its record of the log, bytes.
pub const BROKER_LIST_BYTES_MAX: usize = CONTROL_BODY_BYTES_MAX - size_of::<LogRecord>();

impl LogRecord {
    /// What a hello names the log by.
    pub fn tag(&self) -> u32 {
        // 0 would mean that none is named.
        crate::crc::crc32c(bytemuck::bytes_of(&self.uuid)).max(1)
    }
}

/// The body of a Welcome: under version 3 the record of the log, then the list of brokers.
pub fn welcome_body(version: u8, log: &LogRecord, broker_list: &str) -> Vec<u8> {
    let mut body = if version >= super::VERSION_3 { bytemuck::bytes_of(log).to_vec() } else { Vec::new() };
    body.extend_from_slice(broker_list.as_bytes());
    body
}

/// Takes the body of a Welcome apart.
///
/// # Errors
/// A body of version 3 that is shorter than its record.
pub fn split_welcome_body(version: u8, body: &[u8]) -> Result<(Option<LogRecord>, &[u8]), WireError> {
    if version < super::VERSION_3 || body.is_empty() {
        return Ok((None, body));
    }
    match body.split_first_chunk::<{ size_of::<LogRecord>() }>() {
        Some((record, list)) => Ok((Some(bytemuck::pod_read_unaligned(record)), list)),
        None => {
            let found = body.len() as u64;
            Err(WireError::Field { field: "body_bytes", found, expected: "a Log record of 64 bytes, then the brokers" })
        }
    }
}

impl Hello {
    /// Names the versions its sender speaks: all that this room knows.
    pub fn speaking(self) -> Hello {
        Hello { version_lowest: super::VERSION_LOWEST, version_highest: super::VERSION, ..self }
    }

    /// The version of the conversation that this begins.
    ///
    /// # Errors
    /// Its sender speaks none that this room knows.
    pub fn version_in_use(&self) -> Result<u8, WireError> {
        super::version_in_use(self.version, self.version_lowest, self.version_highest)
    }
}
