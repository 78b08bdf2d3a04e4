//! `poll` gives 0 if and only if nothing moved.
//!
//! Beats, roll calls and reports are due for as long as a process lives. They move nothing that anybody waits for, so they count
//! as nothing: an idle thread stays asleep. That an idle connection gives its memory back is work, done once.

use crate::MODES;
use crate::client::Client;
use crate::stage::{ALL, Pass, Setup, Stage, TOPICS};

/// Time between two polls, ns: beats, housekeeping, reports and roll calls all come due within the polls of a test.
const STEP_NS: u64 = 7_000_000;
const POLLS: usize = 500;

/// Every role, for seconds of its own time: nothing moves, nothing completes, nothing is asked of the kernel.
fn hold_still(stage: &mut Stage, situation: &str) {
    hold_still_but(stage, situation, 0);
}

/// The same, but that the pool may be told, and hear, this often that sessions which have sent nothing yet are connected: a slot that
/// is published and looked at is work.
fn hold_still_but(stage: &mut Stage, situation: &str, told_max: usize) {
    // An idle connection's run goes back once, whenever that is due.
    for _ in 0..100 {
        stage.now.monotonic_ns += STEP_NS;
        stage.round(&ALL);
    }
    stage.settle();
    let rooms: Vec<usize> = stage.actors.iter().map(|actor| actor.room()).collect();
    let mut told = vec![0; stage.actors.len()];
    for poll in 0..POLLS {
        stage.now.monotonic_ns += STEP_NS;
        for (index, told) in told.iter_mut().enumerate() {
            let pass = stage.pass(index);
            let kind = stage.actors[index].kind;
            *told += usize::from(pass.moved > 0);
            if pass.completions == 0 && pass.moved > 0 && *told <= told_max {
                continue;
            }
            assert_eq!(pass, Pass::default(), "{situation}: {kind:?} moves in idle poll {poll}");
            assert!(stage.actors[index].may_sleep(), "{situation}: {kind:?} keeps its thread awake");
        }
    }
    let after: Vec<usize> = stage.actors.iter().map(|actor| actor.room()).collect();
    assert_eq!(rooms, after, "{situation}: operations were begun");
}

#[test]
fn idle_roles_say_0_for_good() {
    for mode in MODES {
        let mut stage = Stage::new(Setup::new(mode));
        let address = stage.site.address;
        hold_still(&mut stage, "no clients");

        let mut clients: Vec<Client> = TOPICS.iter().map(|(topic, _)| Client::publisher(address, topic)).collect();
        stage.run_until("the welcomes of publishers", &ALL, |_| {
            clients.iter_mut().for_each(Client::pump);
            clients.iter().all(|client| client.welcome.is_some())
        });
        // Once a second each, and 500 polls are 3.5 s.
        hold_still_but(&mut stage, "publishers that send nothing", 4 * clients.len());

        clients.iter_mut().for_each(|client| client.publish(100, 1000));
        stage.run_until("the acks", &ALL, |_| {
            clients.iter_mut().for_each(Client::pump);
            clients.iter().all(|client| client.acked == client.published())
        });
        hold_still(&mut stage, "publishers that have sent");

        let batch = clients[0].next_batch(5000);
        clients[0].say(&batch[..1000]);
        hold_still(&mut stage, "a publisher in the middle of a batch");

        let mut readers: Vec<Client> = TOPICS.iter().map(|(topic, _)| Client::subscriber(address, topic)).collect();
        stage.run_until("the subscribers", &ALL, |_| {
            readers.iter_mut().for_each(Client::pump);
            readers.iter().all(|reader| reader.is_caught_up && reader.delivered == 100)
        });
        hold_still(&mut stage, "subscribers that have caught up");

        clients[0].say(&batch[1000..]);
        stage.run_until("the batch that stood half sent", &ALL, |_| {
            clients[0].pump();
            readers[0].pump();
            clients[0].acked == 101 && readers[0].delivered == 101
        });
        drop((clients, readers));
        hold_still(&mut stage, "clients that are gone");
    }
}
