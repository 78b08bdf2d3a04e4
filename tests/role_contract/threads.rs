//! The same roles under the runner, on one thread with one ring, spinning and parked. A parked thread sleeps for an hour at a time
//! here, so that nothing but what wakes it lets a test end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use embarcadero::net::Ring;
use embarcadero::runtime::{
    IdlePolicy, Now, Role, RoleError, RoleKind, Runner, RunnerError, Shutdown, TickCounts, Ticks,
};

use crate::MODES;
use crate::client::Client;
use crate::stage::{LIMIT, Setup, Site};

const HOUR: Duration = Duration::from_secs(3600);

/// A role that does nothing but keep its thread awake, as long as it is told to.
struct Wakeful(Arc<AtomicBool>);

impl Role<Ring> for Wakeful {
    fn kind(&self) -> RoleKind {
        RoleKind::Receive
    }

    fn name(&self) -> &str {
        "wakeful"
    }
    fn start(&mut self, _io: &mut Ring, _index: u8, _now: Now) -> Result<(), RoleError> {
        Ok(())
    }
    fn complete(&mut self, _io: &mut Ring, _completion: embarcadero::net::Completion, _now: Now) {}
    fn poll(&mut self, _io: &mut Ring, _now: Now) -> usize {
        0
    }
    fn may_sleep(&self) -> bool {
        !self.0.load(Ordering::Acquire)
    }
    fn drain(&mut self, _io: &mut Ring, _now: Now) -> bool {
        true
    }
}

/// A broker on a thread of its own.
struct Running {
    site: Arc<Site>,
    is_wakeful: Arc<AtomicBool>,
    ticks: Arc<Ticks>,
    shutdown: Arc<Shutdown>,
    thread: JoinHandle<Result<(), RunnerError>>,
}

impl Running {
    fn new(setup: Setup, idle: IdlePolicy) -> Running {
        let site = Arc::new(Site::new(setup));
        let (is_wakeful, ticks) = (Arc::new(AtomicBool::new(true)), Arc::new(Ticks::default()));
        let shutdown = Shutdown::new(LIMIT);
        let member = shutdown.member();
        let (cast, wakeful, accounts) = (site.clone(), is_wakeful.clone(), ticks.clone());
        let thread = std::thread::spawn(move || {
            let parts = cast.cast();
            let operations = parts.iter().map(|part| part.operations).sum::<u32>() + 16;
            let frames = parts.iter().map(|part| part.frames).sum();
            let ring = Ring::new(operations, frames, cast.pool.mapping().clone()).expect("an io_uring");
            let mut roles: Vec<Box<dyn Role<Ring>>> = parts.into_iter().map(|part| part.role).collect();
            roles.push(Box::new(Wakeful(wakeful)));
            Runner::new("contract", ring, roles, idle, accounts, member).run()
        });
        Running { site, is_wakeful, ticks, shutdown, thread }
    }

    /// Waits, without a word to the broker, until its accounts say something.
    fn wait(&self, what: &str, is_so: impl Fn(TickCounts) -> bool) {
        wait_for(what, || is_so(self.ticks.read()));
    }

    fn end(self) {
        self.shutdown.request();
        wait_for("the thread to end", || self.thread.is_finished());
        self.thread.join().expect("no panic").expect("drained");
    }
}

fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !is_so() {
        assert!(Instant::now() < deadline, "waited {LIMIT:?} for {what}");
        std::thread::sleep(Duration::from_micros(100));
    }
}

/// A publisher and a subscriber, welcomed.
fn clients(running: &Running) -> (Client, Client) {
    let address = running.site.address;
    wait_for("the topic", || {
        let mut probe = Client::subscriber(address, "session");
        wait_for("an answer", || {
            probe.pump();
            probe.welcome.is_some() || probe.refused.is_some()
        });
        probe.welcome.is_some()
    });
    let (mut client, mut reader) = (Client::publisher(address, "session"), Client::subscriber(address, "session"));
    wait_for("the welcomes", || {
        client.pump();
        reader.pump();
        client.welcome.is_some() && reader.is_caught_up
    });
    (client, reader)
}

/// Publishes a batch, and waits until it is acked and delivered.
fn there_and_back(client: &mut Client, reader: &mut Client) {
    client.publish(1, 100);
    wait_for("a batch to be acked and delivered", || {
        client.pump();
        reader.pump();
        client.acked == client.published() && reader.delivered == client.published()
    });
}

#[test]
fn arriving_bytes_wake_a_parked_thread() {
    for mode in MODES {
        let spin_for = Duration::from_micros(50);
        let running = Running::new(
            Setup::new(mode),
            IdlePolicy::Park { spin_for, park_min: HOUR, park_max: HOUR, rest_max: HOUR },
        );
        let (mut client, mut reader) = clients(&running);
        assert_eq!(running.ticks.read().sleeps, 0, "no thread sleeps while one of its roles may not");
        running.is_wakeful.store(false, Ordering::Release);
        for _ in 0..20 {
            // Its last completion is long past when the batch is sent: it is asleep, or just about to be.
            let passes = running.ticks.read().passes;
            there_and_back(&mut client, &mut reader);
            assert!(running.ticks.read().passes > passes);
        }
        running.wait("sleeps", |ticks| ticks.sleeps >= 1);
        // What keeps it awake for its end is noticed when something wakes it.
        running.is_wakeful.store(true, Ordering::Release);
        there_and_back(&mut client, &mut reader);
        running.end();
    }
}

#[test]
fn a_spinning_thread_never_sleeps_and_is_idle_when_nothing_moves() {
    for mode in MODES {
        let running = Running::new(Setup::new(mode), IdlePolicy::Spin);
        running.is_wakeful.store(false, Ordering::Release);
        let (mut client, mut reader) = clients(&running);
        (0..20).for_each(|_| there_and_back(&mut client, &mut reader));
        // All that there was to do was done; from here on passes are idle ones.
        let mut before = running.ticks.read();
        wait_for("a hundred passes in which nothing moves", || {
            let now = running.ticks.read();
            let is_quiet = now.moved == before.moved && now.passes >= before.passes + 100;
            if now.moved != before.moved {
                before = now;
            }
            is_quiet
        });
        assert_eq!(running.ticks.read().sleeps, 0);
        running.end();
    }
}
