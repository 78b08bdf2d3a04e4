//! Nothing is lost when downstream is full: the role keeps its item and goes on with others, and everything arrives once there is
//! room. Downstream is full because a role is not driven, or because a client does not read.

use embarcadero::wire::Refusal;

use crate::MODES;
use crate::client::Client;
use crate::stage::{ALL, Kind, Setup, Stage, all_but};

/// A stage with publishers and subscribers of the topic of order level 5, all welcomed.
fn staged(setup: Setup, publishers: usize, subscribers: usize) -> (Stage, Vec<Client>, Vec<Client>) {
    let mut stage = Stage::new(setup);
    let address = stage.site.address;
    let mut clients: Vec<Client> = (0..publishers).map(|_| Client::publisher(address, "session")).collect();
    let mut readers: Vec<Client> = (0..subscribers).map(|_| Client::subscriber(address, "session")).collect();
    stage.run_until("the welcomes", &ALL, |_| {
        pump(&mut clients, &mut readers);
        clients.iter().all(|client| client.welcome.is_some()) && readers.iter().all(|reader| reader.is_caught_up)
    });
    stage.settle();
    (stage, clients, readers)
}

fn pump(clients: &mut [Client], readers: &mut [Client]) {
    clients.iter_mut().chain(readers).for_each(Client::pump);
}

/// Everything that was published is acked, and delivered to every reader.
fn all_arrives(stage: &mut Stage, clients: &mut [Client], readers: &mut [Client]) {
    let published: u64 = clients.iter().map(Client::published).sum();
    stage.run_until("everything to arrive", &ALL, |_| {
        pump(clients, readers);
        clients.iter().all(|client| client.acked == client.published())
            && readers.iter().all(|reader| reader.delivered == published)
    });
}

/// Rounds in which whatever can get on does.
fn go_on(stage: &mut Stage, kinds: &[Kind], clients: &mut [Client], readers: &mut [Client]) {
    for _ in 0..300 {
        stage.round(kinds);
        pump(clients, readers);
    }
}

#[test]
fn a_full_lane_ring_holds_publishers_back_and_nobody_else() {
    for mode in MODES {
        let (mut stage, mut clients, mut readers) = staged(Setup::new(mode), 3, 1);
        clients.iter_mut().for_each(|client| client.publish(400, 100));
        let without = all_but(Kind::Sequence);
        stage.run_until("the ring to be full", &without, |stage| stage.is_paused());
        go_on(&mut stage, &without, &mut clients, &mut readers);
        assert!(stage.is_paused() && clients.iter().all(|client| client.acked < 400));
        // Readers need no slot; a session does, and is told to come again.
        readers.push(Client::subscriber(stage.site.address, "session"));
        let mut late = Client::publisher(stage.site.address, "session");
        stage.run_until("others to be served", &without, |_| {
            late.pump();
            pump(&mut clients, &mut readers);
            readers[1].welcome.is_some() && late.refused.is_some()
        });
        assert_eq!(late.refused, Some(Refusal::Busy));
        all_arrives(&mut stage, &mut clients, &mut readers);
    }
}

#[test]
fn without_extents_nothing_is_lost() {
    for mode in MODES {
        // Six extents in a ring that is long enough.
        let setup = Setup { ring_slots: 512, pool_bytes: 4 << 20, ..Setup::new(mode) };
        let (mut stage, mut clients, mut readers) = staged(setup, 2, 1);
        clients.iter_mut().for_each(|client| client.publish(150, 30_000));
        let without = all_but(Kind::Sequence);
        stage.run_until("the extents to be gone", &without, |stage| {
            pump(&mut clients, &mut readers);
            stage.is_paused()
        });
        go_on(&mut stage, &without, &mut clients, &mut readers);
        assert!(stage.produced() < 300, "not all of it finds room");
        all_arrives(&mut stage, &mut clients, &mut readers);
    }
}

/// A subscriber that does not read holds the floor, and the index fills. The other one gets all there is.
#[test]
fn a_full_index_and_a_reader_that_takes_nothing() {
    for mode in MODES {
        let setup = Setup { segments: 4, send_buffer_bytes: Some(16 << 10), ..Setup::new(mode) };
        let (mut stage, mut clients, mut readers) = staged(setup, 2, 2);
        readers[0].is_reading = false;
        clients.iter_mut().for_each(|client| client.publish(250, 4_000));
        let mut before = (0, 0);
        stage.run_until("the index to be full, and the other reader to have what is in it", &ALL, |stage| {
            pump(&mut clients, &mut readers);
            before = if stage.committed() == before.0 { (before.0, before.1 + 1) } else { (stage.committed(), 0) };
            before.1 > 1000 && readers[1].delivered == clients.iter().map(|client| client.acked).sum::<u64>()
        });
        assert!(readers[1].delivered < 300, "the reader that takes nothing holds the index");
        readers[0].is_reading = true;
        all_arrives(&mut stage, &mut clients, &mut readers);
    }
}

/// Acks are cumulative: what a publisher's connection does not read is merged, and it has the newest when it reads.
#[test]
fn a_full_ack_socket_delays_its_own_acks_only() {
    for mode in MODES {
        let setup = Setup { send_buffer_bytes: Some(1), ..Setup::new(mode) };
        let (mut stage, mut clients, mut readers) = staged(setup, 2, 0);
        let mut deaf = deaf_connection(&mut stage, &mut clients[0]);
        clients[0].publish(100, 50);
        clients[1].publish(100, 50);
        all_arrives(&mut stage, &mut clients, &mut readers);
        let heard = clients[0].published();
        assert!(deaf.acked < heard);
        deaf.is_reading = true;
        stage.run_until("the newest ack", &ALL, |_| {
            deaf.pump();
            deaf.acked == heard
        });
    }
}

/// Another connection of a publisher's session, that reads nothing after its welcome; with an ack on its way that its socket does
/// not take.
pub fn deaf_connection(stage: &mut Stage, client: &mut Client) -> Client {
    let mut deaf = Client::joining(stage.site.address, "session", client);
    stage.run_until("the welcome of another connection", &ALL, |_| {
        deaf.pump();
        deaf.welcome.is_some()
    });
    deaf.is_reading = false;
    stage.settle();
    let free = stage.actor(Kind::Ack).room();
    let mut stuck = 0;
    stage.run_until("an ack that the socket does not take", &ALL, |stage| {
        client.pump();
        stuck = if stage.actor(Kind::Ack).room() < free { stuck + 1 } else { 0 };
        if stuck == 0 && client.acked == client.published() {
            client.publish(1, 50);
        }
        stuck == 100
    });
    deaf
}

/// The ack core and the exporter stand still while more come than can be served: whoever is not refused is welcomed later.
#[test]
fn full_hand_off_queues_refuse_or_keep() {
    for mode in MODES {
        let mut stage = Stage::new(Setup { connections_max: 20, subscribers_max: 4, segments: 32, ..Setup::new(mode) });
        let address = stage.site.address;
        let only = [Kind::Receive, Kind::Sequence];
        let mut clients: Vec<Client> = (0..30).map(|_| Client::publisher(address, "session")).collect();
        for _ in 0..500 {
            stage.round(&only);
            clients.iter_mut().for_each(Client::pump);
        }
        assert!(clients.iter().all(|client| client.welcome.is_none()), "nobody welcomes");
        // That the broker is full is said by the receive core itself, to those beyond what it serves.
        assert_eq!(clients.iter().filter(|client| client.refused == Some(Refusal::Busy)).count(), 10);
        stage.run_until("an answer for everybody", &all_but(Kind::Export), |_| {
            clients.iter_mut().for_each(Client::pump);
            clients.iter().all(|client| client.welcome.is_some() || client.refused.is_some())
        });
        assert_eq!(clients.iter().filter(|client| client.welcome.is_some()).count(), 20);
        assert!(clients.iter().all(|client| client.welcome.is_some() || client.refused == Some(Refusal::Busy)));
        drop(clients);
        stage.settle();
        let mut readers: Vec<Client> = (0..7).map(|_| Client::subscriber(address, "session")).collect();
        stage.run_until("the refusals", &all_but(Kind::Export), |_| {
            readers.iter_mut().for_each(Client::pump);
            readers.iter().filter(|reader| reader.refused == Some(Refusal::Busy)).count() == 3
        });
        stage.run_until("the welcomes", &ALL, |_| {
            readers.iter_mut().for_each(Client::pump);
            readers.iter().filter(|reader| reader.is_caught_up).count() == 4
        });
    }
}
