//! What the threads of a process do, as they say in the pool: each in a block of its own, in the place of one of the process's brokers.

use crate::limits::{THREAD_BYTES, THREADS_PER_BROKER};
use crate::observe::counters::{CounterBlock, Counters, ThreadCounters};
use crate::pool::{Keep, Layout, Memory};

/// Bytes of a name; a longer one is cut.
const NAME_BYTES: u64 = 32;
const _: () = assert!(NAME_BYTES + 8 * ThreadCounters::CATALOGUE.len() as u64 <= THREAD_BYTES);

/// A thread, of a process that lives or is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thread {
    /// Its name: that of its role, or of its group.
    pub name: String,
    /// What it did.
    pub counters: ThreadCounters,
}

/// Where the threads of a process go, in their order: as many as there is room for in the places of its brokers.
pub fn blocks<'a>(layout: &'a Layout, places: &'a [u32]) -> impl Iterator<Item = u64> + 'a {
    places.iter().flat_map(|broker| (0..THREADS_PER_BROKER).map(|thread| layout.thread_block(*broker, thread)))
}

/// Clears what the last process in the place of `broker` left.
pub fn begin<M: Memory>(memory: &M, layout: &Layout, broker: u32) {
    for at in blocks(layout, &[broker]) {
        memory.store(at, 0);
        memory.write_back(at, 8, Keep::Cached);
    }
    memory.store_fence();
}

/// Copies out what a thread did.
pub fn write<M: Memory>(memory: &M, at: u64, name: &str, counters: &ThreadCounters) {
    CounterBlock::new(memory.clone(), at + NAME_BYTES).write(counters);
    let mut text = [0; NAME_BYTES as usize];
    // The last byte stays 0.
    text.iter_mut().zip(name.bytes().take(NAME_BYTES as usize - 1)).for_each(|(to, from)| *to = from);
    for (at, word) in (at..).step_by(8).zip(text.chunks_exact(8)) {
        memory.store(at, word.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)));
    }
    memory.write_back(at, NAME_BYTES, Keep::Cached);
    memory.store_fence();
}

/// The threads of whoever has, or had, the place of `broker`; if a process has several, those that stand in this one.
pub fn read<M: Memory>(memory: &M, layout: &Layout, broker: u32) -> Vec<Thread> {
    blocks(layout, &[broker]).map_while(|at| read_one(memory, at)).collect()
}

fn read_one<M: Memory>(memory: &M, at: u64) -> Option<Thread> {
    memory.discard(at, THREAD_BYTES);
    let text: Vec<u8> = (0..NAME_BYTES / 8).flat_map(|word| memory.load(at + 8 * word).to_le_bytes()).collect();
    let name: Vec<u8> = text.into_iter().take_while(|byte| *byte != 0).collect();
    let words = CounterBlock::new(memory.clone(), at + NAME_BYTES).read(ThreadCounters::CATALOGUE);
    let counters = ThreadCounters::from_words(&words);
    (!name.is_empty()).then(|| Thread { name: String::from_utf8_lossy(&name).into_owned(), counters })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::views::{host_views, plain_view};
    use crate::testing::memory::Whim;

    #[test]
    fn threads_are_read_with_their_names() {
        let view = plain_view(1);
        let (memory, layout) = (&view.memory, &*view.layout);
        let counters = |passes| ThreadCounters { passes, working_ns: 7, ..ThreadCounters::default() };
        let places: Vec<u64> = blocks(layout, &[1, 0]).collect();
        assert_eq!(places.len() as u32, 2 * THREADS_PER_BROKER);
        write(memory, places[0], "receive 1/1", &counters(1));
        write(memory, places[1], &"x".repeat(50), &counters(2));
        let found = read(memory, layout, 1);
        assert_eq!((found[0].name.as_str(), found[0].counters), ("receive 1/1", counters(1)));
        assert_eq!((found[1].name.len(), found[1].counters.passes, found.len()), (31, 2, 2));
        assert_eq!(read(memory, layout, 0), []);
        begin(memory, layout, 1);
        assert_eq!(read(memory, layout, 1), []);
    }

    #[test]
    fn what_threads_say_reaches_another_host() {
        let (_, views) = host_views([0, 1], &[0], Whim::LAZY, 1);
        let [ours, theirs] = [0, 1].map(|host: usize| &views[host].memory);
        let layout = &*views[0].layout;
        let at = blocks(layout, &[0]).next().unwrap();
        for passes in 1..4 {
            let counters = ThreadCounters { passes, ..ThreadCounters::default() };
            let name = format!("ack {passes}");
            write(ours, at, &name, &counters);
            assert_eq!(read(theirs, layout, 0), [Thread { name, counters }]);
            begin(ours, layout, 0);
            assert_eq!(read(theirs, layout, 0), []);
        }
    }
}
