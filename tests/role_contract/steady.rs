//! Established connections cost no allocation: whatever flows, memory was taken when the process started or when the
//! connection came. Connections come and go at people's pace and may allocate.

use crate::MODES;
use crate::client::Client;
use crate::stage::{ALL, Setup, Stage, TOPICS};

const BATCHES: u64 = 1_500;
const WARM_UP: u64 = 300;

#[test]
fn batches_flow_without_an_allocation() {
    for mode in MODES {
        let mut stage = Stage::new(Setup { ring_slots: 64, ..Setup::new(mode) });
        let address = stage.site.address;
        let mut clients: Vec<Client> = TOPICS.iter().map(|(topic, _)| Client::publisher(address, topic)).collect();
        let mut readers: Vec<Client> = TOPICS.iter().map(|(topic, _)| Client::subscriber(address, topic)).collect();
        let mut flow = |stage: &mut Stage, until: u64| {
            stage.run_until("the batches to be acked and delivered", &ALL, |stage| {
                for (client, reader) in clients.iter_mut().zip(&mut readers) {
                    client.pump();
                    reader.pump();
                    if client.welcome.is_some() && client.acked == client.published() && client.published() < until {
                        client.publish(1 + client.published() % 7, 700);
                    }
                }
                // Reports, beats and roll calls come due as well.
                stage.now.monotonic_ns += 3_000_000;
                clients.iter().zip(&readers).all(|(client, reader)| {
                    client.published() >= until
                        && client.acked == client.published()
                        && reader.delivered == client.acked
                })
            });
        };
        flow(&mut stage, WARM_UP);
        assert!(stage.actors.iter().all(|actor| actor.allocations > 0), "the counter counts: connections allocate");
        stage.actors.iter_mut().for_each(|actor| actor.forget_allocations());
        flow(&mut stage, BATCHES);
        for actor in &stage.actors {
            assert_eq!(actor.allocations, 0, "{mode:?}: {:?} allocated while batches flowed", actor.kind);
            assert!(actor.moved > 0, "{:?} took part", actor.kind);
        }
    }
}
