//! Frames, batches, topics, superblocks and configurations as bytes.

use std::sync::Arc;

use embarcadero::config::CoherenceMode;
use embarcadero::config::Config;
use embarcadero::log::View;
use embarcadero::log::commit::CommitWriter;
use embarcadero::log::cursors::CursorReader;
use embarcadero::log::topics::{SPEC_BYTES, Topic, TopicReader, TopicWriter};
use embarcadero::pool::record::TopicProgress;
use embarcadero::pool::superblock::{HomeHosts, Superblock};
use embarcadero::pool::{Keep, Layout};
use embarcadero::roles::addresses::{Address, AddressBounds, Addresses};
use embarcadero::roles::receive::desk::{self, Asked, Desk, Maker};
use embarcadero::roles::receive::hello::{check_publisher, check_topic};
use embarcadero::roles::receive::ingest::Ingest;
use embarcadero::roles::receive::requests;
use embarcadero::roles::tokens::Tokens;
use embarcadero::testing::memory::{SharedMemory, Whim, small_geometry};
use embarcadero::wire::frame::{self, BatchHeader, Hello};
use embarcadero::wire::message::Messages;
use embarcadero::wire::subscribe::{push_start, read_starts};
use embarcadero::wire::{AckLevel, BatchDecoder, FrameKind, OrderLevel, Progress, crc32c};

use crate::Cursor;

const BATCH_BYTES_MAX: u64 = 1 << 16;

/// What a decoder says of `bytes` when it sees them grow by `step`.
fn decode(bytes: &[u8], step: usize) -> Result<Progress, String> {
    let mut decoder = BatchDecoder::new(BATCH_BYTES_MAX);
    let mut landed = 0;
    loop {
        landed = (landed + step).min(bytes.len());
        match decoder.advance(&bytes[..landed]) {
            Ok(Progress::NeedBytes(needed)) => {
                assert!((landed as u64) < needed && needed <= BATCH_BYTES_MAX, "it has that, or it is too much");
                if landed == bytes.len() {
                    return Ok(Progress::NeedBytes(needed));
                }
            }
            Ok(Progress::NeedHeader) if landed < bytes.len() => assert!(landed < 64),
            Ok(other) => return Ok(other),
            Err(error) => return Err(error.to_string()),
        }
    }
}

/// Whole and in pieces it comes to the same; what is complete can be walked to its end.
fn is_total(bytes: &[u8], step: usize) {
    let whole = decode(bytes, bytes.len().max(1));
    let pieces = decode(bytes, step.max(1));
    match (&whole, &pieces) {
        (Ok(a), Ok(b)) => assert_eq!(a, b),
        (Err(_), Err(_)) => {}
        _ => panic!("whole {whole:?}, in pieces of {step} {pieces:?}"),
    }
    if let Ok(Progress::Complete(header)) = whole {
        let messages = Messages::new(&bytes[64..][..header.body_bytes as usize]).count();
        assert_eq!(messages as u32, header.message_count);
    }
}

/// First byte: length of the pieces.
#[test]
fn batch_decoder_takes_any_bytes() {
    bolero::check!(name = "batch_bytes").for_each(|input: &[u8]| {
        let mut cursor = Cursor(input);
        let step = cursor.byte();
        is_total(cursor.0, step.into());
    });
}

/// Past the checksums: a sealed header over any body. First byte: length of the pieces; then the message count.
#[test]
fn batch_decoder_takes_any_framing() {
    bolero::check!(name = "batch_framing").for_each(|input: &[u8]| {
        let mut cursor = Cursor(input);
        let (step, message_count) = (cursor.byte(), cursor.number() as u32);
        let body = cursor.0;
        let (body_bytes, body_crc) = (body.len() as u32, crc32c(body));
        let header = BatchHeader { message_count, body_bytes, body_crc, ..BatchHeader::default() };
        let mut bytes = frame::seal(&header).to_vec();
        bytes.extend(body);
        bytes.resize(header.frame_bytes() as usize, 0);
        is_total(&bytes, step.into());
    });
}

/// Headers and the bodies behind them; with an odd first byte both checksums are made right.
#[test]
fn control_frames_are_any_bytes() {
    bolero::check!(name = "control_frames").for_each(|input: &[u8]| {
        let mut cursor = Cursor(input);
        let is_sealed = cursor.byte() % 2 == 1;
        let mut head = [0; 64];
        let bytes = cursor.bytes(64);
        head[..bytes.len()].copy_from_slice(bytes);
        if is_sealed {
            let body_bytes = u32::from_le_bytes(head[8..12].try_into().expect("4 bytes")) as usize;
            let body = &cursor.0[..body_bytes.min(cursor.0.len())];
            head[56..60].copy_from_slice(&if body.is_empty() { 0 } else { crc32c(body) }.to_le_bytes());
            let crc = frame::header_crc(&head);
            head[60..].copy_from_slice(&crc.to_le_bytes());
        }
        let Ok(kind) = frame::check(&head, BATCH_BYTES_MAX) else { return };
        let Some(padded) = cursor.0.get(..frame::frame_bytes(&head) as usize - 64) else { return };
        let Ok(body) = frame::check_body(&head, padded) else { return };
        match kind {
            FrameKind::Hello => greet(&frame::read(&head), body),
            FrameKind::Request => ask(&head, body),
            _ => {}
        }
    });
}

/// As the receive core judges a hello.
fn greet(hello: &Hello, name: &[u8]) {
    if let Ok(topics) = read_starts(name) {
        let mut body = Vec::new();
        topics.iter().for_each(|(name, start, generation)| push_start(&mut body, name, *start, *generation));
        assert_eq!(read_starts(&body).as_ref(), Ok(&topics));
    }
    let Ok(name) = frame::check_topic_name(name) else { return };
    let _ = hello.version_in_use().map(|version| assert!((frame::VERSION_LOWEST..=frame::VERSION).contains(&version)));
    let topic = Topic::new(name, OrderLevel::Session, AckLevel::Committed);
    let _ = check_topic(hello, &topic);
    let _ = check_publisher(hello, &topic, &Tokens::new([1, 2]));
}

/// As the receive core takes a request: a first look is answered, refused, or passed on to the sequencer.
fn ask(head: &[u8; 64], body: &[u8]) {
    let layout = Layout::new(small_geometry(1)).expect("the small geometry fits");
    let memory = SharedMemory::new(layout.geometry.pool_bytes, 1, Whim::NONE, 1).host(0);
    let view = View::single_host(memory, Arc::new(layout));
    let mut commit = CommitWriter::take(&view, 0);
    commit.claim(0, 1);
    commit.activate(0);
    TopicWriter::new(&view, 0).write(
        &Topic::new("orders", OrderLevel::Total, AckLevel::None),
        &TopicProgress { position: 1, ..TopicProgress::default() },
    );
    let (mut ingest, mut topics) = (Ingest::take(&view, 0, Keep::Cached), TopicReader::new(&view));
    let cursors = CursorReader::new(&view);
    let Ok(mut asked) = Asked::read(head, body) else { return };
    let addresses = Addresses::new(AddressBounds::NONE);
    let maker = Maker { addresses: &addresses, address: Address::OTHERS, now_ns: 1 };
    let mut desk = Desk { ingest: &mut ingest, topics: &mut topics, cursors: &cursors, now_utc_ns: 1, maker };
    match requests::look(&mut desk, &mut asked) {
        Ok(Some(answer)) => assert!(asked.reply(&answer).len().is_multiple_of(64)),
        Ok(None) => assert_eq!(ingest.lane.produced(), 1, "it waits for what was passed on"),
        Err(refuse) => assert!(!desk::refused(&asked.request, &refuse).is_empty()),
    }
}

#[test]
fn topic_specifications_are_any_bytes() {
    bolero::check!(name = "topic_specification").for_each(|input: &[u8]| {
        let mut spec = input.to_vec();
        spec.resize(SPEC_BYTES as usize, 0);
        if let Ok(topic) = Topic::from_spec(&spec) {
            assert_eq!(Topic::from_spec(&topic.to_spec()), Ok(topic));
        }
    });
}

/// Bytes written over a sound superblock at any place: pairs of place and value. With an odd first byte its checksum is made right
/// again, so that the geometry is looked at.
#[test]
fn a_superblock_is_any_bytes() {
    let layout = Layout::new(small_geometry(2)).expect("the small geometry fits");
    let sound = Superblock::new(
        layout.geometry,
        &HomeHosts::single_host(&layout.geometry),
        CoherenceMode::Software,
        [1; 2],
        [2; 2],
        3,
    );
    bolero::check!(name = "superblock").for_each(|input: &[u8]| {
        let mut cursor = Cursor(input);
        let is_sealed = cursor.byte() % 2 == 1;
        let mut bytes = bytemuck::bytes_of(&sound).to_vec();
        while !cursor.is_empty() {
            let at = usize::from(cursor.byte()) % bytes.len();
            bytes[at] = cursor.byte();
        }
        if is_sealed {
            reseal(&mut bytes);
        }
        if let Ok((_, found)) = Superblock::read(&bytes, layout.geometry.pool_bytes) {
            let g = found.geometry;
            assert!(g.pool_bytes <= layout.geometry.pool_bytes, "it reaches past the file");
            let last = found.extent(g.extents - 1) + g.extent_bytes;
            assert!(last <= g.pool_bytes, "its last extent ends at {last} of {}", g.pool_bytes);
        }
    });
}

/// Makes the checksum of a superblock right.
pub fn reseal(bytes: &mut [u8]) {
    let head = &mut bytes[..size_of::<Superblock>()];
    let mut block: Superblock = bytemuck::pod_read_unaligned(head);
    block.crc = 0;
    block.crc = crc32c(bytemuck::bytes_of(&block));
    head.copy_from_slice(bytemuck::bytes_of(&block));
}

/// Any text, and any text in the middle of a sound file: the first two bytes say where.
#[test]
fn a_configuration_is_any_text() {
    bolero::check!(name = "configuration").for_each(|input: &[u8]| {
        let sound = include_str!("../../config/two-core.yaml");
        let mut cursor = Cursor(input);
        let place = usize::from(cursor.byte()) << 8 | usize::from(cursor.byte());
        let noise = String::from_utf8_lossy(cursor.0);
        let cut = sound.floor_char_boundary(place % sound.len());
        let _ = Config::parse(&format!("{}{noise}{}", &sound[..cut], &sound[cut..]), "fuzz.yaml");
        let _ = Config::parse(&noise, "fuzz.yaml");
    });
}
