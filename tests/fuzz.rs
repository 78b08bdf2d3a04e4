//! Everything that parses what others wrote, fed with anything: no panic, no endless loop, an answer or a typed error.
//!
//! Under `cargo test` each target runs its corpus (`tests/corpus`) and some seconds of random input; `make fuzz` runs longer.

use std::sync::Arc;

use embarcadero::config::Config;
use embarcadero::log::View;
use embarcadero::log::checkpoint::recover;
use embarcadero::log::commit::{CommitReader, CommitWriter};
use embarcadero::log::order_index::{IndexReader, IndexWriter};
use embarcadero::log::retention::Trimmer;
use embarcadero::log::topics::{SPEC_BYTES, Topic, TopicReader};
use embarcadero::pool::record::IndexEntry;
use embarcadero::pool::superblock::Superblock;
use embarcadero::pool::{Layout, Memory};
use embarcadero::sim::memory::{SharedMemory, Whim, small_geometry};
use embarcadero::wire::frame;
use embarcadero::wire::message::push;
use embarcadero::wire::{BatchDecoder, Progress, crc32c};

const BATCH_BYTES_MAX: u64 = 1 << 16;

/// What a decoder says of `bytes` when it sees them grow by `steps`.
fn decode(bytes: &[u8], steps: usize) -> Result<Progress, String> {
    let mut decoder = BatchDecoder::new(BATCH_BYTES_MAX);
    let mut landed = 0;
    loop {
        landed = (landed + steps).min(bytes.len());
        match decoder.advance(&bytes[..landed]) {
            Ok(Progress::NeedBytes(needed)) => {
                assert!(
                    (landed as u64) < needed && needed <= BATCH_BYTES_MAX,
                    "it asks for what it has, or for too much"
                );
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

/// Whole and in pieces it must come to the same.
fn is_total(bytes: &[u8], split: usize) {
    let whole = decode(bytes, bytes.len().max(1));
    let pieces = decode(bytes, split.max(1));
    match (&whole, &pieces) {
        (Ok(a), Ok(b)) => assert_eq!(a, b),
        (Err(_), Err(_)) => {}
        _ => panic!("whole {whole:?}, in pieces of {split} {pieces:?}"),
    }
}

#[test]
fn batch_decoder_takes_any_bytes() {
    bolero::check!().with_type::<(Vec<u8>, u8)>().for_each(|(bytes, split)| is_total(bytes, usize::from(*split)));
}

/// Past the checksums: a sound header over any body, sealed again.
#[test]
fn batch_decoder_takes_any_framing() {
    bolero::check!().with_type::<(Vec<u8>, u32, u8)>().for_each(|(body, message_count, split)| {
        let mut body = body.clone();
        if split % 2 == 0 {
            push(&mut body, b"a sound message behind it");
        }
        let (body_bytes, body_crc) = (body.len() as u32, crc32c(&body));
        let message_count = if split % 3 == 0 { *message_count } else { message_count % 4 };
        let header = frame::BatchHeader { message_count, body_bytes, body_crc, ..Default::default() };
        let mut bytes = frame::seal(&header).to_vec();
        bytes.extend(&body);
        bytes.resize(header.frame_bytes() as usize, 0);
        is_total(&bytes, usize::from(*split));
    });
}

#[test]
fn frame_headers_are_any_bytes() {
    bolero::check!().with_type::<[[u8; 32]; 2]>().for_each(|halves| {
        let head: [u8; 64] = std::array::from_fn(|index| halves[index / 32][index % 32]);
        let _ = frame::check(&head, BATCH_BYTES_MAX);
    });
}

#[test]
fn topic_specifications_are_any_bytes() {
    bolero::check!().with_type::<Vec<u8>>().for_each(|bytes| {
        let mut spec = bytes.clone();
        spec.resize(SPEC_BYTES as usize, 0);
        if let Ok(topic) = Topic::from_spec(&spec) {
            assert_eq!(Topic::from_spec(&topic.to_spec()), Ok(topic));
        }
    });
}

/// A sound pool with any words of its records overwritten: a recovery, a look at the topics and a walk along the index end.
#[test]
fn a_damaged_pool_is_recovered_or_refused() {
    let layout = Arc::new(Layout::new(small_geometry(2)).expect("the small geometry fits"));
    bolero::check!().with_type::<Vec<(u8, u16, u64)>>().for_each(|damage| {
        let memory = SharedMemory::new(layout.geometry.pool_bytes, 1, Whim::NONE, 1).host(0);
        let view = View::single_host(memory, layout.clone());
        let mut commit = CommitWriter::take(&view, 0);
        let epoch = commit.claim(0, 1);
        Trimmer::new(&view, 0, epoch, 0, 0, vec![0; layout.geometry.lanes() as usize]);
        let mut index = IndexWriter::new(&view, 0, epoch, 0, 0);
        for kind in 0..100 {
            index.append(IndexEntry { kind: [6, 2, 3, 4, 5][kind % 5], ..IndexEntry::default() });
        }
        commit.activate(100);
        for (region, word, value) in damage {
            let word = u64::from(*word);
            // Lines of each kind in turn; small values are likelier to pass for something.
            let at = match region % 7 {
                0 => layout.epoch_line((word / 8 % 2) as u32),
                1 => layout.floor_line((word / 8 % 2) as u32),
                2 => layout.lane_progress((word / 8 % 2) as u32, 0),
                3 => layout.topic_line(0, (word / 8 % 4) as u32, word / 32 % 4),
                4 => layout.session_line(0, (word / 8 % 64) as u32),
                5 => layout.directory_line(0, word / 8 % 8),
                _ => layout.index_entry(0, 0, word / 8 % 100),
            };
            view.memory.store(at + word % 8 * 8, if region % 2 == 0 { *value } else { value % 300 });
        }
        let reader = CommitReader::new(&view);
        let _ = recover(&view, &reader);
        TopicReader::new(&view).refresh();
        if let Some(commit) = reader.current() {
            let mut follower = IndexReader::new(&view, 0);
            let mut out = [IndexEntry::default(); 64];
            // It ends: every step goes on, or is the last.
            while let Ok(count @ 1..) = follower.read(&commit, &mut out) {
                follower.advance(count);
            }
        }
    });
}

#[test]
fn a_superblock_is_any_bytes() {
    let layout = Layout::new(small_geometry(2)).expect("the small geometry fits");
    let sound = Superblock::new(layout.geometry, [1; 2], [2; 2], 3);
    let bytes = bytemuck::bytes_of(&sound).to_vec();
    bolero::check!().with_type::<Vec<(u8, u8)>>().for_each(|damage| {
        let mut bytes = bytes.clone();
        bytes.resize(4096, 0);
        for (at, value) in damage {
            bytes[usize::from(*at)] = *value;
        }
        let _ = Superblock::read(&bytes, layout.geometry.pool_bytes);
    });
}

#[test]
fn a_configuration_is_any_text() {
    bolero::check!().with_type::<(Vec<u8>, u16)>().for_each(|(noise, at)| {
        let sound = include_str!("../config/embarcadero.yaml");
        let cut = sound.floor_char_boundary(usize::from(*at) % sound.len());
        let text = format!("{}{}{}", &sound[..cut], String::from_utf8_lossy(noise), &sound[cut..]);
        let _ = Config::parse(&text, "fuzz.yaml");
        let _ = Config::parse(&String::from_utf8_lossy(noise), "fuzz.yaml");
    });
}
