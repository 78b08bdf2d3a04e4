//! A simulated network: connections as two ordered streams of bytes.
//!
//! Bytes of one direction arrive in order, in chunks of any size, each after a delay of its own; so connections overtake
//! each other. A stream has room for so many bytes under way: a full one pushes back. A broken connection delivers some
//! prefix of what was under way, then ends.

use std::collections::VecDeque;

use crate::sim::part::{LinkId, Part};
use crate::testing::random::Random;

/// Bytes under way in one direction at most.
const ROOM_BYTES: usize = 48 << 10;
/// Bytes of those that an end's kernel takes in before anybody reads them.
const WINDOW_BYTES: usize = 16 << 10;

/// Which end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum End {
    /// Who connected.
    Client,
    /// Who was connected to.
    Broker,
}

fn other(end: End) -> End {
    match end {
        End::Client => End::Broker,
        End::Broker => End::Client,
    }
}

/// What there is to read.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard {
    /// These bytes.
    Bytes(Vec<u8>),
    /// Nothing yet.
    Nothing,
    /// The stream has ended.
    End,
}

#[derive(Default)]
struct ByteStream {
    bytes: VecDeque<u8>,
    /// (when they arrive, how many), oldest first.
    chunks: VecDeque<(u64, usize)>,
    ended: bool,
    /// Bytes since the connection began.
    written: u64,
}

impl ByteStream {
    fn write(&mut self, bytes: &[u8], arrives_ns: u64) {
        let after = self.chunks.back().map_or(0, |(at, _)| *at);
        self.chunks.push_back((arrives_ns.max(after), bytes.len()));
        self.bytes.extend(bytes);
        self.written += bytes.len() as u64;
    }

    fn arrived(&self, now_ns: u64) -> usize {
        self.chunks.iter().take_while(|(at, _)| *at <= now_ns).map(|(_, bytes)| bytes).sum()
    }

    fn read(&mut self, count: usize) -> Vec<u8> {
        let mut left = count;
        while left > 0 {
            let (_, bytes) = self.chunks.front_mut().expect("as many bytes as the chunks say");
            let now = left.min(*bytes);
            (*bytes, left) = (*bytes - now, left - now);
            if *bytes == 0 {
                self.chunks.pop_front();
            }
        }
        let bytes = self.front(count);
        self.bytes.drain(..count);
        bytes
    }

    /// A copy of the first bytes.
    fn front(&self, count: usize) -> Vec<u8> {
        let (first, second) = self.bytes.as_slices();
        let cut = count.min(first.len());
        let mut bytes = Vec::with_capacity(count);
        bytes.extend_from_slice(&first[..cut]);
        bytes.extend_from_slice(&second[..count - cut]);
        bytes
    }

    /// Nothing more is written; of what is under way only `keep` bytes arrive.
    fn cut(&mut self, keep: usize) {
        self.ended = true;
        let mut left = keep;
        self.chunks.retain_mut(|(_, bytes)| {
            *bytes = (*bytes).min(left);
            left -= *bytes;
            *bytes > 0
        });
        self.bytes.truncate(keep);
    }
}

struct Link {
    client: Part,
    broker: u32,
    to_broker: ByteStream,
    to_client: ByteStream,
    /// Closed by its client, its broker.
    closed: [bool; 2],
    accepted: bool,
    stalled_until_ns: u64,
    /// Nothing comes through any more.
    is_silent: bool,
    /// Ends that read nothing more.
    deaf: [bool; 2],
}

impl Link {
    fn toward(&mut self, end: End) -> &mut ByteStream {
        match end {
            End::Client => &mut self.to_client,
            End::Broker => &mut self.to_broker,
        }
    }

    /// Whether nothing gets through now.
    fn is_stalled(&self, now_ns: u64) -> bool {
        self.is_silent || self.stalled_until_ns > now_ns
    }

    /// Whether an end hears nothing of what the other one does, nor of its end.
    fn is_in_the_dark(&self, at: End) -> bool {
        self.is_silent && !self.deaf[at as usize]
    }
}

/// All connections there ever were.
pub struct Network {
    links: Vec<Link>,
    /// Those not closed by both ends.
    open: Vec<LinkId>,
    /// Those that nothing comes through, and when their ends give them up.
    silent: Vec<(u64, LinkId)>,
    latency_ns: u64,
}

impl Network {
    /// No connections; bytes take up to `latency_ns`, now and then ten times that.
    pub fn new(latency_ns: u64) -> Network {
        Network { links: Vec::new(), open: Vec::new(), silent: Vec::new(), latency_ns }
    }

    /// A client asks for a connection.
    pub fn connect(&mut self, client: Part, broker: u32) -> LinkId {
        let (to_broker, to_client) = Default::default();
        let (closed, accepted, stalled_until_ns) = ([false; 2], false, 0);
        let (is_silent, deaf) = (false, [false; 2]);
        let link = Link { client, broker, to_broker, to_client, closed, accepted, stalled_until_ns, is_silent, deaf };
        self.links.push(link);
        self.open.push(self.links.len() - 1);
        self.links.len() - 1
    }

    /// The oldest connection that waits for this broker.
    pub fn accept(&mut self, broker: u32) -> Option<LinkId> {
        let waits = |link: &LinkId| {
            let Link { broker: to, accepted, closed, .. } = &self.links[*link];
            *to == broker && !accepted && !closed[End::Broker as usize]
        };
        let link = self.open.iter().copied().find(waits)?;
        self.links[link].accepted = true;
        Some(link)
    }

    /// Writes what there is room for. `None`: the connection is broken.
    pub fn write(&mut self, link: LinkId, from: End, bytes: &[u8], now_ns: u64, random: &mut Random) -> Option<usize> {
        let late = if random.chance(1, 30) { 10 * self.latency_ns } else { self.latency_ns };
        let arrives_ns = now_ns + random.below(late + 1);
        let is_in_the_dark = self.links[link].is_in_the_dark(from);
        let stream = self.links[link].toward(other(from));
        if stream.ended {
            // Who hears nothing of the end finds no room: what arrives is a prefix of what was written.
            return is_in_the_dark.then_some(0);
        }
        let count = bytes.len().min(ROOM_BYTES - stream.bytes.len().min(ROOM_BYTES));
        if count > 0 {
            stream.write(&bytes[..count], arrives_ns);
        }
        Some(count)
    }

    /// Reads some of what has arrived.
    pub fn read(&mut self, link: LinkId, at: End, most: usize, now_ns: u64, random: &mut Random) -> Heard {
        let there = match self.there(link, at, most, now_ns) {
            Ok(there) => there,
            Err(nothing) => return nothing,
        };
        // Whole chunks mostly: cuts anywhere, but not so many that nothing else happens.
        let count = if random.chance(1, 4) { 1 + random.below(there as u64) as usize } else { there };
        Heard::Bytes(self.links[link].toward(at).read(count))
    }

    /// How much has arrived, or that nothing has.
    fn there(&mut self, link: LinkId, at: End, most: usize, now_ns: u64) -> Result<usize, Heard> {
        if self.links[link].is_in_the_dark(at) {
            return Err(Heard::Nothing);
        }
        let stalled = self.links[link].is_stalled(now_ns);
        let stream = self.links[link].toward(at);
        if stream.ended && stream.bytes.is_empty() {
            return Err(Heard::End);
        }
        match if stalled { 0 } else { stream.arrived(now_ns).min(most) } {
            0 => Err(Heard::Nothing),
            there => Ok(there),
        }
    }

    /// Bytes that an end has written since the connection began.
    pub fn written(&mut self, link: LinkId, from: End) -> u64 {
        self.links[link].toward(other(from)).written
    }

    /// Bytes of them that the other end's kernel has.
    pub fn acked(&mut self, link: LinkId, from: End, now_ns: u64) -> u64 {
        let stalled = self.links[link].is_stalled(now_ns);
        let stream = self.links[link].toward(other(from));
        let arrived = if stalled { 0 } else { stream.arrived(now_ns).min(WINDOW_BYTES) };
        stream.written - (stream.bytes.len() - arrived) as u64
    }

    /// An end says nothing more; `both`: and hears nothing more.
    pub fn shut(&mut self, link: LinkId, end: End, both: bool) {
        self.links[link].toward(other(end)).ended = true;
        if both {
            self.links[link].deaf[end as usize] = true;
            self.links[link].toward(end).cut(0);
        }
    }

    /// An end closes its descriptor: what it wrote still arrives, what is written to it is lost.
    pub fn close(&mut self, link: LinkId, end: End) {
        self.links[link].closed[end as usize] = true;
        self.shut(link, end, true);
        if self.links[link].closed == [true; 2] {
            self.open.retain(|open| *open != link);
        }
    }

    /// An end breaks its connection, and takes back what it has lent to it.
    pub fn abort(&mut self, link: LinkId, end: End, random: &mut Random) {
        self.links[link].deaf[end as usize] = true;
        self.cut(link, random);
    }

    /// Breaks a connection: a random part of what is under way is lost.
    pub fn cut(&mut self, link: LinkId, random: &mut Random) {
        for end in [End::Client, End::Broker] {
            let stream = self.links[link].toward(end);
            let keep = random.below(stream.bytes.len() as u64 + 1) as usize;
            stream.cut(keep);
        }
    }

    /// Nothing comes through any more, in either direction, and nobody hears of it before then.
    pub fn silence(&mut self, link: LinkId, until_ns: u64) {
        // Nobody takes it from a queue any more that died with its broker, and a living broker finds it there as it was.
        self.links[link].is_silent = true;
        self.silent.push((until_ns, link));
    }

    /// Ends that have tried for long enough give up what nothing comes through.
    pub fn give_up(&mut self, now_ns: u64, random: &mut Random) {
        while let Some(due) = self.silent.iter().position(|(until_ns, _)| *until_ns <= now_ns) {
            let (_, link) = self.silent.swap_remove(due);
            self.links[link].is_silent = false;
            self.cut(link, random);
        }
    }

    /// Holds a connection up: nothing arrives until then.
    pub fn stall(&mut self, link: LinkId, until_ns: u64) {
        self.links[link].stalled_until_ns = until_ns;
    }

    /// Connections that may still carry something.
    pub fn open(&self) -> &[LinkId] {
        &self.open
    }

    /// Whether there is something to read, or the stream has ended.
    pub fn is_readable(&mut self, link: LinkId, at: End, now_ns: u64) -> bool {
        if self.links[link].is_in_the_dark(at) {
            return false;
        }
        let stalled = self.links[link].is_stalled(now_ns);
        let stream = self.links[link].toward(at);
        stream.ended && stream.bytes.is_empty() || !stalled && stream.arrived(now_ns) > 0
    }

    /// Whether the broker's side can see that nothing more can be said on it.
    pub fn is_over(&self, link: LinkId) -> bool {
        self.links[link].to_client.ended && !self.links[link].is_in_the_dark(End::Broker)
    }

    /// Client and broker of a connection.
    pub fn ends(&self, link: LinkId) -> (Part, u32) {
        (self.links[link].client, self.links[link].broker)
    }

    /// Connections that their clients have left, and their brokers have not closed.
    pub fn left_open(&self) -> impl Iterator<Item = LinkId> {
        let is_left = |link: &&LinkId| {
            let Link { accepted, to_broker, closed, .. } = &self.links[**link];
            *accepted && to_broker.ended && !closed[End::Broker as usize]
        };
        self.open.iter().filter(is_left).copied()
    }

    /// Every connection carries again.
    pub fn resume(&mut self) {
        self.links.iter_mut().for_each(|link| link.stalled_until_ns = 0);
        self.silent.iter_mut().for_each(|(until_ns, _)| *until_ns = 0);
    }
}
