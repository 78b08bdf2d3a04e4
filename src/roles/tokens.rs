//! What shows that a client was given a session: told by ack cores, looked at by receive cores of any broker of the pool.

use std::hash::Hasher;

use siphasher::sip::SipHasher24;

/// Makes and checks session tokens: a keyed MAC, so that any broker of the pool can check a session's token.
#[derive(Clone, Copy)]
pub struct Tokens {
    key: [u64; 2],
}

impl Tokens {
    /// With the pool's key.
    pub fn new(key: [u64; 2]) -> Tokens {
        Tokens { key }
    }

    /// The token of a session on a topic. SipHash-2-4 (Aumasson, Bernstein, 2012).
    pub fn token(&self, session: u64, topic: u32) -> u64 {
        let mut hasher = SipHasher24::new_with_keys(self.key[0], self.key[1]);
        hasher.write_u64(session);
        hasher.write_u32(topic);
        hasher.finish()
    }
}
