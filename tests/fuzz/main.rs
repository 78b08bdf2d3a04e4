//! Everything that parses what others wrote, fed with anything: an answer or a typed error; no panic, no endless loop, no read
//! outside.
//!
//! Under `cargo test` each target runs its corpus and a second of random input; `make fuzz SECONDS_EACH=60` runs each longer. The
//! corpus of a target lies in `__fuzz__/<target>/corpus`, where bolero looks for it: `cargo test --test fuzz -- --ignored` writes
//! it anew from `corpus.rs`. An input that fails goes there by hand, with a name that says what it showed.
//!
//! * [`wire`]: frames, batches, the framing of messages in a batch, topics, the configuration.
//! * [`client`]: what brokers send to publishers and subscribers, through the real client over TCP.
//! * [`pool`]: a pool file with damaged superblock and regions, attached, recovered, followed, exported, written to.
//!
//! Replicas have no frames yet, so there is no target for them.

mod client;
mod corpus;
mod pool;
mod wire;

/// Takes an input apart; past its end everything is 0.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (now, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        now
    }

    fn byte(&mut self) -> u8 {
        self.bytes(1).first().copied().unwrap_or(0)
    }

    fn number(&mut self) -> u64 {
        let mut word = [0; 8];
        let bytes = self.bytes(8);
        word[..bytes.len()].copy_from_slice(bytes);
        u64::from_le_bytes(word)
    }
}
