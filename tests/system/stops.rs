//! Broker processes that are stopped and go on, and sequencers that are killed and succeeded: sessions go on over the others,
//! and a predecessor that comes back does no harm.

use std::time::{Duration, Instant};

use embarcadero::wire::{OrderLevel, Receipts};
use embarcadero::{PublisherOptions, Start};

use crate::harness::{LIMIT, Process, Setup, Signal, Site};
use crate::load::{Load, ROOMY, TOPIC, read_all};
use crate::traffic::{Fifo, Watcher, publish};

/// How long a process is stopped.
const STOPPED: Duration = Duration::from_secs(3);
const HALVES: [&str; 2] = ["0,1", "2,3"];

/// Two processes of two brokers each, and loads over the second half, over all, and over all.
struct Scene {
    site: Site,
    halves: [Option<Process>; 2],
    loads: [Load; 3],
    watchers: [Watcher; 2],
}

impl Scene {
    fn new(name: &str, setup: &Setup) -> Scene {
        let site = Site::new(name, setup);
        let halves = HALVES.map(|brokers| Some(site.process(&["--brokers", brokers])));
        site.create_topic(TOPIC, OrderLevel::Session, Receipts::Batch);
        let watchers =
            [1, 3].map(|broker| Watcher::connect(site.subscriber(TOPIC, broker, Start::Earliest), Fifo::Publisher));
        let loads = [0, 1, 2].map(|id| {
            let all = site.publisher(TOPIC);
            let second = PublisherOptions { brokers: site.addresses()[2..].to_vec(), discover: false, ..all.clone() };
            Load::start_at(if id == 0 { second } else { all }, id, Duration::from_millis(1))
        });
        let scene = Scene { site, halves, loads, watchers };
        scene.all_go_on("at the beginning");
        scene
    }

    fn half(&self, half: usize) -> &Process {
        self.halves[half].as_ref().expect("it runs")
    }

    fn all_go_on(&self, when: &str) {
        self.loads.iter().for_each(|load| load.wait_for_more(500, when));
    }

    /// Everything sent is there once, in the sessions it began with, whoever reads it; and new sessions use all brokers. Gives
    /// how many batches were sent again.
    fn end(self) -> u64 {
        let Scene { site, halves, loads, mut watchers } = self;
        let (mut total, mut sent, mut resent) = (0, Vec::new(), 0);
        for load in loads {
            let (messages, publisher) = load.finish();
            assert_eq!(publisher.stats().fences, 0, "{:?}", publisher.stats());
            resent += publisher.stats().resent_batches;
            total += messages;
            sent.push(messages);
            publisher.close(LIMIT).unwrap();
        }
        for watcher in &mut watchers {
            watcher.read_exactly(total);
            assert_eq!(watcher.seen.sessions(), 3, "the sessions they began with");
            sent.iter().enumerate().for_each(|(id, sent)| assert_eq!(watcher.seen.complete(id as u32), *sent));
        }
        assert_eq!(watchers[0].seen.hash, watchers[1].seen.hash);
        assert_eq!(read_all(&site, 0, total).seen.hash, watchers[0].seen.hash, "who reads later reads the same");
        publish(site.publisher(TOPIC), 9, 500);
        watchers[1].read_exactly(total + 500);
        drop(halves);
        resent
    }
}

/// Waits until `STOPPED` has passed, all the time seeing this load go on.
fn goes_on_meanwhile(load: &Load, what: &str) {
    let since = Instant::now();
    loop {
        load.wait_for_more(100, what);
        if since.elapsed() >= STOPPED {
            return;
        }
    }
}

/// The sequencer's process is killed, again and again, and the other half's candidate goes on: nothing acked is lost, what was
/// not is sent again over the brokers that live.
#[test]
fn the_sequencers_process_is_killed_again_and_again() {
    let sequencer = "candidates: 2, session_lease: 20s";
    let mut scene = Scene::new("kill-sequencer", &Setup { sequencer, ..ROOMY });
    for (round, half) in [0, 1, 0, 1].into_iter().enumerate() {
        // The active one is in the half whose turn it is: the other was killed last.
        scene.half(half).wait_for_line(&format!("active, epoch {}", round + 1));
        let acked: Vec<u64> = scene.loads.iter().map(Load::acked).collect();
        scene.halves[half].take().expect("it runs").kill();
        // A load over the second half alone cannot go on without it.
        let loads = if half == 0 { &scene.loads[..] } else { &scene.loads[1..] };
        loads.iter().for_each(|load| load.wait_for_more(500, &format!("after kill {round}")));
        for watcher in &mut scene.watchers {
            watcher.read_until("what was acked before the kill", |seen| {
                acked.iter().enumerate().all(|(id, acked)| seen.complete(id as u32) >= *acked)
            });
        }
        scene.halves[half] = Some(scene.site.process(&["--brokers", HALVES[half]]));
        scene.all_go_on(&format!("after restart {round}"));
    }
    assert!(scene.end() > 0, "nothing had to be sent again: was there a load?");
}

/// A process without the sequencer is stopped: sessions over other brokers go on all the time, the others when it does.
#[test]
fn a_stopped_broker_process_stops_nobody_else() {
    let mut scene = Scene::new("stop-broker", &Setup { sequencer: "candidates: 2, session_lease: 20s", ..ROOMY });
    // The other one is to have it.
    scene.halves[0].take().expect("it runs").kill();
    scene.half(1).wait_for_line("active, epoch 2");
    scene.halves[0] = Some(scene.site.process(&["--brokers", HALVES[0]]));
    scene.all_go_on("with the sequencer where it is to be");
    scene.half(0).signal(Signal::STOP);
    goes_on_meanwhile(&scene.loads[0], "while brokers that it does not use are stopped");
    scene.half(0).signal(Signal::CONT);
    scene.all_go_on("after the stopped brokers went on");
    scene.end();
}

/// On another host silence is all there is to go by: the candidate there takes over, and the predecessor, when it goes on,
/// finds that out and stands by. Once in each direction.
#[test]
fn a_stopped_sequencer_is_succeeded_and_does_no_harm_later() {
    let sequencer = "candidates: 2, takeover_after: 300ms, session_lease: 20s";
    let scene = Scene::new("stop-sequencer", &Setup { sequencer, hosts: 2, ..ROOMY });
    scene.half(0).signal(Signal::STOP);
    goes_on_meanwhile(&scene.loads[0], "with the other host's candidate as the sequencer");
    scene.half(1).wait_for_line("sequence 1: active, epoch");
    scene.half(0).signal(Signal::CONT);
    scene.half(0).wait_for_line("was taken over; standing by");
    scene.all_go_on("after the predecessor went on");
    scene.half(1).signal(Signal::STOP);
    // It takes over once more; no session is over its brokers alone.
    scene.half(0).wait_for_line("sequence 0: active, epoch 3");
    scene.half(1).signal(Signal::CONT);
    scene.half(1).wait_for_line("was taken over; standing by");
    scene.all_go_on("after each was stopped once");
    scene.end();
}
