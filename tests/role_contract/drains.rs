//! A drain ends, in a bounded number of passes and well within the time a process gives it, whoever is connected and whatever
//! they do or fail to do.

use embarcadero::wire::frame::{self, Request};
use embarcadero::wire::{Operation, Refusal};

use crate::MODES;
use crate::client::Client;
use crate::full::deaf_connection;
use crate::stage::{ALL, Kind, Setup, Stage};

/// Time between two drains, ns.
const STEP_NS: u64 = 10_000_000;
/// Drains after which nothing may be left: 3 s, of the 5 s that a process gives them.
const DRAINS_MAX: usize = 300;

/// Drains these roles until each says that nothing is left, and stays with it.
fn drain(stage: &mut Stage, kinds: &[Kind], situation: &str) {
    let drained = (0..DRAINS_MAX).any(|_| stage.drain_round(kinds, STEP_NS));
    let left: Vec<Kind> = kinds.iter().copied().filter(|kind| !stage.drain_round(&[*kind], 0)).collect();
    assert!(drained, "{situation}: not drained after {DRAINS_MAX} passes: {left:?}");
    for _ in 0..10 {
        assert!(stage.drain_round(kinds, STEP_NS), "{situation}: drained, and then not");
    }
}

#[test]
fn alone_without_clients() {
    for mode in MODES {
        for kind in ALL {
            drain(&mut Stage::new(Setup::new(mode)), &[kind], &format!("{kind:?} without clients"));
        }
    }
}

/// Clients of each sort, none of which does anything to end it.
#[test]
fn with_clients_that_stay() {
    for mode in MODES {
        let mut stage = Stage::new(Setup::new(mode));
        let address = stage.site.address;
        let mut clients: Vec<Client> =
            ["session", "session", "none"].iter().map(|topic| Client::publisher(address, topic)).collect();
        clients.push(Client::subscriber(address, "session"));
        let mut silent = Client::silent(address);
        stage.run_until("the welcomes", &ALL, |_| {
            clients.iter_mut().for_each(Client::pump);
            clients.iter().all(|client| client.welcome.is_some())
        });
        clients[0].publish(20, 500);
        let batch = clients[1].next_batch(5000);
        clients[1].say(&batch[..700]);
        silent.say(&batch[..10]);
        for _ in 0..20 {
            stage.round(&ALL);
        }
        drain(&mut stage, &ALL, "clients that stay");
        clients.iter_mut().for_each(Client::pump);
        assert!(clients.iter().all(|client| client.is_over), "everybody was let go");
        assert_eq!((clients[0].acked, clients[3].delivered), (20, 20), "what was taken in is finished");
    }
}

/// Peers that read nothing, with words and batches on their way that their sockets do not take.
#[test]
fn with_peers_that_read_nothing() {
    for mode in MODES {
        let mut stage = Stage::new(Setup { send_buffer_bytes: Some(1), ..Setup::new(mode) });
        let address = stage.site.address;
        let mut client = Client::publisher(address, "session");
        let mut reader = Client::subscriber(address, "session");
        stage.run_until("the welcomes", &ALL, |_| {
            [&mut client, &mut reader].into_iter().for_each(Client::pump);
            client.welcome.is_some() && reader.is_caught_up
        });
        let _deaf = deaf_connection(&mut stage, &mut client);
        reader.is_reading = false;
        let before = client.published();
        client.publish(60, 20_000);
        stage.run_until("more than the reader's socket takes", &ALL, |_| {
            client.pump();
            client.acked == before + 60
        });
        drain(&mut stage, &ALL, "peers that read nothing");
    }
}

/// A connection that comes when the drain begins: the kernel had accepted it before it was told not to.
#[test]
fn with_a_connection_accepted_too_late() {
    for mode in MODES {
        let mut stage = Stage::new(Setup::new(mode));
        let mut late = Client::silent(stage.site.address);
        stage.let_the_kernel_work();
        drain(&mut stage, &ALL, "a connection accepted too late");
        late.pump();
        assert_eq!(late.refused, Some(Refusal::Draining), "it was told");
    }
}

/// The answer to a request has just been sent, and the receive core has not heard so: it has one more thing to say, once, and says it
/// while the descriptor is still this connection's.
#[test]
fn with_a_request_that_was_just_answered() {
    for mode in MODES {
        let mut stage = Stage::new(Setup::new(mode));
        let mut asking = Client::silent(stage.site.address);
        let request = Request { operation: Operation::TopicList as u8, ..Request::default() };
        asking.say(&frame::seal(&request));
        // Read, and answered to the ack core.
        for _ in 0..200 {
            stage.round(&[Kind::Receive]);
        }
        stage.run_until("the answer is sent", &[Kind::Ack], |_| {
            asking.pump();
            asking.replies == 1
        });
        drain(&mut stage, &ALL, "a request that was just answered");
        asking.pump();
        assert_eq!((asking.refused, asking.is_over), (Some(Refusal::Draining), true), "it was told");
    }
}
