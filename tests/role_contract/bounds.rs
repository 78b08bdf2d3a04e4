//! One pass is bounded, whatever waits. The stage holds every poll of every test to its role's bound; here so much waits for one
//! role after the other that an unbounded one would take it all at once.

use embarcadero::limits::SCAN_WINDOW_MAX;
use embarcadero::log::reader;
use embarcadero::roles::ack::tracker;

use crate::MODES;
use crate::client::Client;
use crate::stage::{ALL, Kind, Setup, Stage};

const BATCHES: u64 = 1_500;

/// Lets one role alone take what piled up, and tells how much it took at most in a poll.
fn most_of(stage: &mut Stage, kind: Kind, is_done: impl FnMut(&mut Stage) -> bool) -> usize {
    let actor = stage.actors.iter_mut().find(|actor| actor.kind == kind).expect("on stage");
    actor.moved_most = 0;
    stage.run_until(&format!("{kind:?} to take what piled up"), &[kind], is_done);
    stage.actor(kind).moved_most
}

#[test]
fn what_piles_up_is_taken_in_bounded_pieces() {
    for mode in MODES {
        let mut stage = Stage::new(Setup { ring_slots: 2048, segments: 32, ..Setup::new(mode) });
        let address = stage.site.address;
        let mut client = Client::publisher(address, "session");
        let mut readers: Vec<Client> = (0..2).map(|_| Client::subscriber(address, "session")).collect();
        stage.run_until("the welcomes", &ALL, |_| {
            client.pump();
            readers.iter_mut().for_each(Client::pump);
            client.welcome.is_some() && readers.iter().all(|reader| reader.is_caught_up)
        });
        let start = stage.committed();
        client.publish(BATCHES, 16);
        let produced = stage.produced();
        stage.run_until("the batches to land", &[Kind::Receive], |stage| {
            client.pump();
            stage.produced() == produced + BATCHES
        });
        let most = most_of(&mut stage, Kind::Sequence, |stage| stage.committed() == start + BATCHES);
        assert!(most - (SCAN_WINDOW_MAX as usize) <= 1, "a window of slots, and the tables: {most}");
        let most = most_of(&mut stage, Kind::Ack, |_| {
            client.pump();
            client.acked == BATCHES
        });
        assert!((tracker::ENTRIES_PER_PASS..2 * tracker::ENTRIES_PER_PASS).contains(&most), "{most}");
        let most = most_of(&mut stage, Kind::Export, |_| {
            readers.iter_mut().for_each(Client::pump);
            readers.iter().all(|reader| reader.delivered == BATCHES)
        });
        assert!(most <= readers.len() * reader::ENTRIES_PER_PASS && most < BATCHES as usize, "{most}");
    }
}

/// As many connections as there is room for come, are welcomed, publish and go, each all at once.
#[test]
fn a_crowd_is_served_in_bounded_passes() {
    for mode in MODES {
        let crowd = 100;
        let mut stage = Stage::new(Setup { connections_max: crowd, segments: 32, ..Setup::new(mode) });
        let address = stage.site.address;
        let mut clients: Vec<Client> = (0..crowd).map(|_| Client::publisher(address, "none")).collect();
        stage.run_until("the welcomes", &ALL, |_| {
            clients.iter_mut().for_each(Client::pump);
            clients.iter().all(|client| client.welcome.is_some())
        });
        clients.iter_mut().for_each(|client| client.publish(10, 100));
        stage.run_until("the acks", &ALL, |_| {
            clients.iter_mut().for_each(Client::pump);
            clients.iter().all(|client| client.acked == 10)
        });
        clients.iter_mut().for_each(Client::goodbye);
        stage.run_until("the ends", &ALL, |_| {
            clients.iter_mut().for_each(Client::pump);
            clients.iter().all(|client| client.is_over)
        });
        stage.settle();
    }
}

/// Two lanes' windows make more sessions dirty in one pass than it checkpoints: the others' turn is the next pass's, which says so.
#[test]
fn checkpoints_left_for_the_next_pass_are_work() {
    let each = 60;
    for mode in MODES {
        let setup = Setup { lanes: 2, ring_slots: 1024, segments: 16, connections_max: 2 * each, ..Setup::new(mode) };
        let mut stage = Stage::new(setup);
        let address = stage.site.address;
        let mut clients: Vec<Client> = (0..2 * each).map(|_| Client::publisher(address, "session")).collect();
        stage.run_until("the welcomes", &ALL, |_| {
            clients.iter_mut().for_each(Client::pump);
            clients.iter().all(|client| client.welcome.is_some())
        });
        stage.settle();
        // Once with the sequencer, which grants each of them the memory to receive into.
        let mut produced = stage.produced() + clients.len() as u64;
        clients.iter_mut().for_each(|client| client.publish(1, 50));
        stage.run_until("the first batch of each to land", &ALL, |stage| {
            clients.iter_mut().for_each(Client::pump);
            stage.produced() >= produced
        });
        stage.settle();
        let before = stage.committed();
        produced = stage.produced();
        for _ in 0..3 {
            clients.iter_mut().for_each(|client| client.publish(1, 50));
            produced += clients.len() as u64;
            stage.run_until("a batch of each to land", &[Kind::Receive], |stage| stage.produced() == produced);
        }
        assert!((0..2).all(|lane| stage.produced_in(lane) > 80), "either lane has its share");
        // What is granted, and closed, comes on top.
        stage.run_until("the order", &[Kind::Sequence], |stage| stage.committed() >= before + 3 * clients.len() as u64);
        stage.settle();
    }
}
