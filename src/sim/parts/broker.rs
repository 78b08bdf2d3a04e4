//! A broker: the production roles, each a part of its own that is stepped as a thread steps it.

use std::sync::Arc;

use crate::log::brokers::announce_address;
use crate::log::member::Member;
use crate::log::topics::Topic;
use crate::pool::{Keep, Process};
use crate::roles::ack::{AckRole, AckSettings};
use crate::roles::addresses::{AddressBounds, Addresses};
use crate::roles::export::{Export, ExportSettings};
use crate::roles::handoff::{AckLink, Subscriptions};
use crate::roles::receive::{Receive, ReceiveSettings, SPARE_CONNECTIONS};
use crate::roles::tokens::Tokens;
use crate::runtime::{Io, Role};
use crate::sim::kernel::{Actor, Kernel};
use crate::sim::part::LinkId;
use crate::sim::parts::attempt::address;
use crate::sim::parts::terms::{HELLO_TIMEOUT_NS, PLACES, TOKEN_KEY, UTC_NS, log_record, topic_name};
use crate::sim::process::ProcessMemory;
use crate::sim::scenario::Scenario;
use crate::sim::socket::{Listener, SimSocket, Sockets};
use crate::wire::AckLevel;

/// Silence after which a client that promised to be heard is gone, ns.
const CLIENT_SILENCE_NS: u64 = 150_000_000;
/// Passes of one step at most.
const PASSES_MAX: u64 = 4;
/// Operations of a role at once: a receive and a send of each connection of each of two cores, and the accept.
const OPERATIONS_MAX: u32 = 4 * PLACES + 1;

/// What the roles of one process hand each other. It dies with the process.
struct Wiring {
    links: Vec<Arc<AckLink<LinkId>>>,
    subscriptions: Arc<Subscriptions<SimSocket>>,
    addresses: Arc<Addresses>,
    incarnation: u64,
}

impl Wiring {
    /// Of a broker that begins.
    fn begin(kernel: &Kernel, broker: u32, scenario: &Scenario, incarnation: u64) -> Arc<Wiring> {
        let bounds = AddressBounds {
            connections: scenario.connections_per_address,
            sessions: scenario.sessions_per_address,
            openings: scenario.openings,
            openings_at_once: 4,
            heartbeats: if scenario.is_one_address { 100 } else { 0 },
            topics: if scenario.is_one_address { u32::MAX } else { 4 },
            cursors: if scenario.is_one_address { u32::MAX } else { 2 },
        };
        let wiring = Arc::new(Wiring {
            links: (0..scenario.lanes_per_broker).map(|_| AckLink::new(PLACES)).collect(),
            subscriptions: Arc::new(Subscriptions::new(scenario.subscribers_per_broker as usize)),
            addresses: Addresses::new(bounds),
            incarnation,
        });
        kernel.with(|state| state.common[broker as usize] = Some(wiring.clone()));
        wiring
    }

    /// Of a broker. Nothing before its receive core has announced it.
    fn of(kernel: &Kernel, broker: u32) -> Option<Arc<Wiring>> {
        let common = kernel.with(|state| state.common[broker as usize].clone())?;
        Some(common.downcast().expect("what brokers have in common is their wiring"))
    }
}

/// One role and its network.
pub(super) struct Thread<R> {
    pub role: R,
    sockets: Sockets,
    is_started: bool,
    reported_ns: u64,
}

/// How often a role reports what it has counted, ns.
const REPORT_NS: u64 = 1_000_000_000;

impl<R: Role<Sockets> + Send + 'static> Thread<R> {
    pub fn new(kernel: &Kernel, role: R) -> Thread<R> {
        Thread { role, sockets: Sockets::new(kernel, OPERATIONS_MAX), is_started: false, reported_ns: 0 }
    }

    fn boot(kernel: &Kernel, role: R) -> Option<Box<dyn Actor>> {
        Some(Box::new(Thread::new(kernel, role)))
    }
}

impl<R: Role<Sockets> + Send + 'static> Actor for Thread<R> {
    /// Some passes, as the runner makes them.
    fn step(&mut self, kernel: &Kernel) {
        let now = kernel.clock();
        self.sockets.begin_step();
        if !std::mem::replace(&mut self.is_started, true) {
            self.role.start(&mut self.sockets, 0, now).expect("a simulated network has room");
        }
        for _ in 0..1 + kernel.below(PASSES_MAX) {
            self.sockets.submit(None).expect("simulated networks do not fail");
            while let Some(completion) = self.sockets.next_completion() {
                self.role.complete(&mut self.sockets, completion, now);
            }
            if kernel.is_stopping() {
                let is_drained = self.role.drain(&mut self.sockets, now);
                assert!(is_drained || self.role.waits_for().is_some(), "what it waits for is told");
                if is_drained {
                    // Before others of its process, perhaps: a sequencer that has resigned is one too many for a while.
                    self.role.report(now);
                    self.role.end();
                }
                return kernel.with(|state| state.drained(kernel.part, is_drained));
            }
            let moved = self.role.poll(&mut self.sockets, now);
            self.role.check(now);
            if now.monotonic_ns.saturating_sub(self.reported_ns) >= REPORT_NS {
                self.reported_ns = now.monotonic_ns;
                self.role.report(now);
            }
            if moved == 0
                && let Some(fault) = self.role.fault()
            {
                panic!("{}: {fault}", self.role.name());
            }
        }
    }
}

/// How often a broker that starts has moved to another address: now and then once more. The first one stays where all find it who know nobody else.
fn move_on(kernel: &Kernel, broker: u32) -> u32 {
    let may_move =
        kernel.with(|state| state.scenario.brokers_move) && broker > 0 && kernel.life() > 1 && !kernel.is_calm();
    let moves = may_move && kernel.chance(1, 4);
    kernel.with(|state| {
        state.moves[broker as usize] += u32::from(moves);
        state.moves[broker as usize]
    })
}

/// A receive core of a broker. The first one announces the broker.
pub(super) fn receive(kernel: &Kernel, broker: u32, core: u32) -> Option<Box<dyn Actor>> {
    let (view, scenario) = (kernel.view(), kernel.with(|state| state.scenario.clone()));
    let lanes = scenario.lanes_per_broker;
    let (wiring, member) = match core {
        0 => {
            let member = Member::announce(&view, broker, Process { started_at_utc_ns: UTC_NS, ..Process::default() });
            announce_address(&view, broker, member.incarnation(), &address(broker, move_on(kernel, broker)));
            (Wiring::begin(kernel, broker, &scenario, member.incarnation()), Some(member))
        }
        _ => (Wiring::of(kernel, broker)?, None),
    };
    let topic = |number| Topic {
        receipts: scenario.receipts,
        ..Topic::new(&topic_name(number), scenario.topics[number], AckLevel::Committed)
    };
    let topics = if core == 0 { (0..scenario.topics.len()).map(topic).collect() } else { Vec::new() };
    assert!(scenario.connections_max + SPARE_CONNECTIONS <= PLACES);
    let settings = ReceiveSettings {
        connections_max: scenario.connections_max,
        receive_bytes_max: 24 << 10,
        landing_bytes: 2 << 10,
        landing_buffers: 2,
        hello_timeout_ns: HELLO_TIMEOUT_NS,
        idle_release_ns: 20_000_000,
        client_silence_ns: CLIENT_SILENCE_NS,
        session_expiry_ns: scenario.session_expiry_ns,
        broker: broker as u16,
        heartbeat_ms: scenario.heartbeat_ms,
        log_tag: log_record(&scenario).tag(),
        keep: Keep::Cached,
        topics,
    };
    let (listener, tokens) = (Arc::new(Listener(broker)), Tokens::new(TOKEN_KEY));
    let role = Receive::<ProcessMemory, Sockets>::new(
        &view,
        broker * lanes + core,
        settings,
        listener,
        tokens,
        wiring.links[core as usize].clone(),
        wiring.subscriptions.clone(),
    );
    let role = role.that_shares(wiring.addresses.clone());
    let role = match member {
        Some(member) => role.that_beats(member),
        None => role,
    };
    Thread::boot(kernel, role)
}

/// The ack core of a broker, once it is announced.
pub(super) fn ack(kernel: &Kernel, broker: u32) -> Option<Box<dyn Actor>> {
    let links = Wiring::of(kernel, broker)?.links.clone();
    let scenario = kernel.with(|state| state.scenario.clone());
    let settings = AckSettings {
        send: scenario.send,
        zero_copy_from_bytes: 0,
        open_timeout_ns: HELLO_TIMEOUT_NS,
        broker: broker as u16,
        log: log_record(&scenario),
    };
    let role =
        AckRole::<ProcessMemory, Sockets>::new(&kernel.view(), broker, settings, Tokens::new(TOKEN_KEY), links, PLACES);
    Thread::boot(kernel, role)
}

/// The exporter of a broker, once it is announced.
pub(super) fn export(kernel: &Kernel, broker: u32) -> Option<Box<dyn Actor>> {
    let wiring = Wiring::of(kernel, broker)?;
    let (subscriptions, incarnation) = (wiring.subscriptions.clone(), wiring.incarnation);
    let scenario = kernel.with(|state| state.scenario.clone());
    let settings = ExportSettings {
        connections_max: scenario.subscribers_per_broker,
        batches_per_send: 8,
        send: scenario.send,
        slow_reader: scenario.slow_reader,
        reader_stall_ns: 80_000_000,
        reader_lag_max: scenario.reader_lag_max,
        reader_grace_ns: 20_000_000,
        reader_wait_max_ns: scenario.reader_wait_max_ns,
        return_grace_ns: scenario.return_grace_ns,
        broker: broker as u16,
        log: log_record(&scenario),
        client_silence_ns: CLIENT_SILENCE_NS,
    };
    let role = Export::<ProcessMemory, Sockets>::new(&kernel.view(), broker, incarnation, settings, subscriptions);
    Thread::boot(kernel, role)
}
