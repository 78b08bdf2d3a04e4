//! The window, step by step.

use std::collections::BTreeSet;
use std::io::IoSlice;
use std::time::{Duration, Instant};

use super::*;
use crate::client::batch::tests::{SHAPE, sealed};
use crate::client::batch::{Buffer, Filler, Identity};
use crate::wire::frame::BatchHeader;

const RESEND_AFTER: Duration = Duration::from_secs(3);
const IDENTITY: Identity = Identity { session: 7, token: 1, epoch: 1, topic: 2 };

/// A window, a filler and a clock that moves when told.
struct Bench {
    window: Window,
    filler: Filler,
    now: Instant,
    links: usize,
}

impl Bench {
    fn new(numbering: Numbering, links: usize, batches_max: usize) -> Bench {
        Bench::with(numbering, &vec![Duration::ZERO; links], batches_max, false)
    }

    fn with(numbering: Numbering, delays: &[Duration], batches_max: usize, unacknowledged: bool) -> Bench {
        let config = WindowConfig { numbering, unacknowledged, batches_max, resend_after: RESEND_AFTER };
        let mut window = Window::new(config, delays);
        if numbering == Numbering::Session {
            window.open(IDENTITY);
        }
        let filler = Filler::new(SHAPE, Buffer::new());
        let mut bench = Bench { window, filler, now: Instant::now(), links: delays.len() };
        (0..delays.len()).for_each(|link| bench.up(link));
        bench
    }

    fn up(&mut self, link: usize) {
        let (identity, next) = match self.window.config.numbering {
            Numbering::Session => (self.window.identity(link), self.window.streams[0].acked_next),
            Numbering::Connection => (Identity { session: 100 + link as u64, ..IDENTITY }, 0),
        };
        self.window.link_up(link, identity, next, self.now).unwrap();
    }

    fn push(&mut self, batches: usize) {
        for _ in 0..batches {
            let batch = sealed(&mut self.filler, b"payload");
            self.window.push(batch);
        }
        self.window.assign(self.now);
    }

    /// Writes everything a link may write now, in pieces of `piece` bytes, and gives the batch numbers that went whole.
    fn write(&mut self, link: usize) -> Vec<u64> {
        let mut numbers = Vec::new();
        loop {
            let mut slices = [IoSlice::new(&[]); 1];
            if self.window.to_write(link, self.now, &mut slices) == 0 {
                return numbers;
            }
            let header: BatchHeader = bytemuck::pod_read_unaligned(&slices[0][..64]);
            let bytes = slices[0].len();
            numbers.push(header.batch_seq);
            self.window.wrote(link, bytes, self.now);
        }
    }

    fn write_all(&mut self) -> Vec<u64> {
        let mut numbers: Vec<u64> = (0..self.links).flat_map(|link| self.write(link)).collect();
        numbers.sort();
        numbers
    }

    fn ack(&mut self, link: usize, change: impl FnOnce(&mut Ack)) -> Result<AckEffect, Contradiction> {
        let identity = self.window.identity(link);
        let mut ack = Ack {
            session: identity.session,
            session_epoch: identity.epoch,
            let_go_from: NOTHING_LET_GO,
            ..Ack::default()
        };
        change(&mut ack);
        self.window.on_ack(link, &ack, self.now)
    }

    fn acked(&mut self) -> Vec<u64> {
        std::iter::from_fn(|| self.window.pop_acked()).map(|acked| acked.batch_seq.0).collect()
    }

    fn after(&mut self, time: Duration) -> usize {
        self.now += time;
        let taken = self.window.on_time(self.now);
        self.window.assign(self.now);
        taken
    }
}

#[test]
fn batches_are_striped_and_acked_cumulatively() {
    let mut bench = Bench::new(Numbering::Session, 4, 8);
    bench.push(8);
    assert!(bench.window.is_full());
    for link in 0..4 {
        assert_eq!(bench.write(link), [link as u64, link as u64 + 4]);
    }
    let effect = bench.ack(2, |ack| (ack.committed_next, ack.order_end, ack.broker_messages) = (5, 50, 2));
    assert_eq!(effect, Ok(AckEffect::None));
    assert_eq!(bench.acked(), [0, 1, 2, 3, 4]);
    assert_eq!((bench.window.unacked(), bench.window.acked_messages(2), bench.window.sent_messages(2)), (3, 2, 2));
    // An older and a repeated ack change nothing.
    bench.ack(1, |ack| ack.committed_next = 3).unwrap();
    bench.ack(1, |ack| ack.committed_next = 5).unwrap();
    assert!(bench.acked().is_empty() && !bench.window.is_full());
    assert_eq!(std::iter::from_fn(|| bench.window.pop_buffer()).count(), 5);
}

#[test]
fn a_slow_link_takes_less() {
    let mut bench = Bench::new(Numbering::Session, 2, 64);
    bench.push(4);
    assert_eq!(bench.write(1), [1, 3]);
    // Link 0 still has two batches in its queue, so the next two go to link 1.
    bench.push(2);
    assert_eq!(bench.write(1), [4, 5]);
    assert_eq!(bench.write(0), [0, 2]);
}

#[test]
fn acks_that_cannot_be_are_named() {
    let mut bench = Bench::new(Numbering::Session, 1, 4);
    bench.push(1);
    bench.write_all();
    let field = |result: Result<AckEffect, Contradiction>| result.unwrap_err().field;
    assert_eq!(field(bench.ack(0, |ack| ack.committed_next = 2)), "committed_next");
    assert_eq!(field(bench.ack(0, |ack| ack.session = 8)), "session");
    assert_eq!(field(bench.ack(0, |ack| ack.session_epoch = 2)), "session_epoch");
    assert_eq!(bench.window.unacked(), 1);
}

#[test]
fn a_broken_link_gives_its_batches_to_the_others() {
    let mut bench = Bench::new(Numbering::Session, 2, 8);
    bench.push(6);
    assert_eq!(bench.write(0), [0, 2, 4]);
    // Link 1 breaks in the middle of its second batch: 1 is sent, 3 is begun, 5 is queued.
    let frame_bytes = 128;
    bench.window.wrote(1, frame_bytes + 10, bench.now);
    bench.ack(0, |ack| ack.committed_next = 1).unwrap();
    bench.window.link_down(1);
    bench.window.assign(bench.now);
    assert_eq!(bench.write(0), [1, 3, 5]);
    assert_eq!(bench.write(1), [0; 0]);
    assert_eq!(bench.window.resend_counts().0, 3);
    bench.up(1);
    bench.ack(0, |ack| ack.committed_next = 6).unwrap();
    assert_eq!(bench.acked(), [0, 1, 2, 3, 4, 5]);
}

#[test]
fn an_acked_batch_that_is_half_written_stays_until_it_is_whole() {
    let mut bench = Bench::new(Numbering::Session, 2, 4);
    bench.push(2);
    bench.write_all();
    bench.after(RESEND_AFTER);
    // Batch 0 is half written again, on the link that did not have it before, when the ack for it arrives.
    bench.window.wrote(1, 10, bench.now);
    bench.ack(0, |ack| ack.committed_next = 2).unwrap();
    assert_eq!((bench.acked(), bench.window.unacked()), (vec![0, 1], 0));
    let mut slices = [IoSlice::new(&[]); 4];
    assert_eq!(bench.window.to_write(1, bench.now, &mut slices), 1);
    assert_eq!(slices[0].len(), 118);
    assert_eq!(bench.window.to_write(0, bench.now, &mut [IoSlice::new(&[])]), 0);
    bench.window.wrote(1, 118, bench.now);
    assert_eq!(bench.window.free.len(), 4);
}

#[test]
fn the_last_resort_resends_over_another_link_and_backs_off() {
    let mut bench = Bench::new(Numbering::Session, 2, 8);
    bench.push(2);
    assert_eq!((bench.write(0), bench.write(1)), (vec![0], vec![1]));
    assert_eq!(bench.after(RESEND_AFTER - Duration::from_millis(1)), 0);
    assert_eq!(bench.window.next_due(bench.now), Some(bench.now + Duration::from_millis(1)));
    assert_eq!(bench.after(Duration::from_millis(1)), 2);
    assert_eq!((bench.write(0), bench.write(1)), (vec![1], vec![0]));
    assert_eq!((bench.after(RESEND_AFTER), bench.after(RESEND_AFTER)), (0, 2));
    // While the oldest is not written, waiting is backpressure.
    assert_eq!(bench.after(RESEND_AFTER * 10), 0);
    bench.write_all();
    bench.ack(0, |ack| ack.committed_next = 1).unwrap();
    assert_eq!(bench.after(RESEND_AFTER), 1, "an ack resets the back-off");
}

/// A publisher whose sockets were full slept until a moment of the past: not at all, with one of two cores.
#[test]
fn what_waits_for_room_in_a_socket_waits_for_no_moment() {
    for numbering in [Numbering::Session, Numbering::Connection] {
        let mut bench = Bench::new(numbering, 2, 8);
        assert!(bench.window.is_idle());
        bench.push(4);
        assert_eq!(bench.window.next_due(bench.now), None, "queued, and nothing written");
        bench.after(Duration::from_millis(1));
        bench.write(0);
        assert!(bench.window.next_due(bench.now).is_none_or(|due| due > bench.now), "half is written");
        assert!(!bench.window.is_idle());
    }
}

#[test]
fn let_go_is_answered_at_once_then_at_a_bounded_rate() {
    let mut bench = Bench::new(Numbering::Session, 2, 8);
    bench.push(5);
    bench.write_all();
    bench.ack(0, |ack| (ack.committed_next, ack.let_go_from) = (1, 3)).unwrap();
    assert_eq!(bench.after(Duration::ZERO), 2);
    assert_eq!(bench.write_all(), [3, 4]);
    // The broker repeats itself: nothing more until the pause is over.
    for _ in 0..10 {
        bench.ack(1, |ack| (ack.committed_next, ack.let_go_from) = (1, 3)).unwrap();
        assert_eq!(bench.after(Duration::ZERO), 0);
    }
    assert!(bench.window.next_due(bench.now).unwrap() > bench.now);
    assert_eq!(bench.after(LET_GO_PAUSE * 2), 2);
    assert_eq!((bench.write_all(), bench.window.resend_counts()), (vec![3, 4], (4, 11)));
}

#[test]
fn a_fenced_session_resends_from_the_frontier_under_the_next_epoch() {
    let mut bench = Bench::new(Numbering::Session, 2, 8);
    bench.push(5);
    bench.write_all();
    let fenced = bench.ack(1, |ack| (ack.committed_next, ack.flags) = (2, ACK_FENCED));
    assert_eq!(fenced, Ok(AckEffect::Fenced));
    (0..2).for_each(|link| bench.window.link_down(link));
    bench.push(1);
    assert_eq!(bench.window.reopen(2, 1, bench.now).unwrap_err().field, "frontier");
    bench.window.reopen(2, 3, bench.now).unwrap();
    bench.up(0);
    bench.window.assign(bench.now);
    let mut slices = [IoSlice::new(&[]); 4];
    assert_eq!(bench.window.to_write(0, bench.now, &mut slices), 3);
    let header: BatchHeader = bytemuck::pod_read_unaligned(&slices[0][..64]);
    assert_eq!((header.session_epoch, header.batch_seq), (2, 3));
    assert!(crate::wire::frame::check(slices[0][..64].try_into().unwrap(), 1 << 20).is_ok());
    assert_eq!(bench.write(0), [3, 4, 5]);
    // What the old epoch still says of its fence is history.
    let late = bench.ack(0, |ack| (ack.session_epoch, ack.flags, ack.committed_next) = (1, ACK_FENCED, 2));
    assert_eq!(late, Ok(AckEffect::None));
    assert_eq!(bench.acked(), [0, 1, 2]);
}

#[test]
fn below_level_5_every_link_counts_for_itself() {
    let mut bench = Bench::new(Numbering::Connection, 2, 8);
    bench.push(5);
    assert_eq!((bench.write(0), bench.write(1)), (vec![0, 1, 2], vec![0, 1]));
    bench.ack(1, |ack| (ack.committed_next, ack.broker_messages) = (2, 2)).unwrap();
    assert_eq!(bench.acked(), [1, 3]);
    bench.ack(0, |ack| ack.committed_next = 1).unwrap();
    // Link 0 breaks: what it had goes on in the numbers of link 1.
    bench.window.link_down(0);
    bench.window.assign(bench.now);
    assert_eq!(bench.write(1), [2, 3]);
    bench.up(0);
    bench.push(1);
    assert_eq!(bench.write(0), [0]);
    bench.ack(1, |ack| (ack.committed_next, ack.broker_messages) = (4, 4)).unwrap();
    bench.ack(0, |ack| (ack.committed_next, ack.broker_messages) = (1, 1)).unwrap();
    assert_eq!(bench.acked(), [0, 2, 4, 5]);
    assert_eq!((bench.window.acked_messages(0), bench.window.acked_messages(1), bench.window.unacked()), (1, 4, 0));
}

#[test]
fn without_acks_a_batch_is_done_once_it_is_written() {
    let mut bench = Bench::with(Numbering::Connection, &[Duration::ZERO; 2], 4, true);
    bench.push(3);
    bench.window.wrote(0, 100, bench.now);
    assert!(bench.acked().is_empty());
    bench.window.wrote(0, 28, bench.now);
    assert_eq!((bench.acked(), bench.window.acked_messages(0)), (vec![0], 1));
    bench.window.link_down(0);
    bench.window.assign(bench.now);
    assert_eq!(bench.write(1), [0, 1]);
    assert_eq!((bench.acked(), bench.window.unacked()), (vec![1, 2], 0));
}

#[test]
fn a_skewed_link_holds_its_batches_back() {
    let delay = Duration::from_millis(5);
    let mut bench = Bench::with(Numbering::Session, &[delay, Duration::ZERO], 8, false);
    bench.push(4);
    assert_eq!((bench.write(0), bench.write(1)), (vec![], vec![1, 3]));
    assert_eq!(bench.window.next_due(bench.now), Some(bench.now + delay));
    bench.after(delay);
    assert_eq!(bench.write(0), [0, 2]);
}

/// Whatever happens to the links, a model sequencer that commits each number once, in order, ends with every batch once.
#[test]
fn random_failures_lose_and_repeat_nothing() {
    for seed in 1..200u64 {
        let mut random = seed;
        let mut next = |bound: u64| {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (random >> 33) % bound
        };
        let mut bench = Bench::new(Numbering::Session, 3, 6);
        let (mut committed, mut held, mut pushed, mut seen) = (0u64, BTreeSet::new(), 0, Vec::new());
        let mut up = [true; 3];
        for _ in 0..400 {
            let link = next(3) as usize;
            match next(8) {
                0 if up[link] => {
                    bench.window.link_down(link);
                    up[link] = false;
                }
                1 | 2 if !up[link] => {
                    bench.window.link_up(link, bench.window.identity(link), committed, bench.now).unwrap();
                    up[link] = true;
                }
                3 | 4 if !bench.window.is_full() && pushed < 60 => {
                    bench.push(1);
                    pushed += 1;
                }
                5 if up[link] => drop(bench.ack(link, |ack| ack.committed_next = committed).unwrap()),
                6 => drop(bench.after(Duration::from_millis(next(4000)))),
                // What a link writes arrives, or is lost with the connection.
                _ if up[link] => {
                    let written = bench.write(link);
                    let arrives = next(4) > 0;
                    held.extend(written.into_iter().filter(|_| arrives));
                    if !arrives {
                        bench.window.link_down(link);
                        up[link] = false;
                    }
                    while held.remove(&committed) {
                        committed += 1;
                    }
                    held.retain(|number| *number > committed);
                }
                _ => (),
            }
            bench.window.assign(bench.now);
            seen.extend(bench.acked());
            let spare = bench.window.free.len();
            let occupied = bench.window.slots.iter().flatten().count();
            assert_eq!(spare + occupied, 6);
        }
        for link in (0..3).filter(|link| !up[*link]) {
            bench.window.link_up(link, bench.window.identity(link), committed, bench.now).unwrap();
        }
        while committed < pushed {
            bench.window.assign(bench.now);
            held.extend(bench.write_all());
            while held.remove(&committed) {
                committed += 1;
            }
            bench.ack(0, |ack| ack.committed_next = committed).unwrap();
            bench.after(RESEND_AFTER * 16);
        }
        seen.extend(bench.acked());
        assert_eq!(seen, (0..pushed).collect::<Vec<_>>(), "seed {seed}");
    }
}

/// What it acked before is not forgotten over what it acks now.
#[test]
fn a_broker_that_began_anew_counts_its_acks_from_0_on() {
    let mut bench = Bench::new(Numbering::Session, 1, 8);
    bench.push(4);
    bench.write_all();
    bench.ack(0, |ack| (ack.committed_next, ack.broker_messages) = (3, 3)).unwrap();
    bench.window.link_down(0);
    bench.up(0);
    bench.push(4);
    bench.write_all();
    bench.ack(0, |ack| (ack.committed_next, ack.broker_messages) = (4, 1)).unwrap();
    bench.ack(0, |ack| (ack.committed_next, ack.broker_messages) = (8, 5)).unwrap();
    assert_eq!((bench.window.acked_messages(0), bench.window.unacked()), (8, 0));
}
