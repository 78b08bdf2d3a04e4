//! A broker: the production roles, each a part of its own that is stepped as a thread steps it.

use std::sync::Arc;

use crate::log::member::Member;
use crate::log::topics::Topic;
use crate::pool::{Keep, Process};
use crate::roles::ack::{AckRole, AckSettings};
use crate::roles::addresses::{AddressBounds, Addresses};
use crate::roles::export::{Export, ExportSettings};
use crate::roles::handoff::{AckLink, Subscriptions};
use crate::roles::receive::{Receive, ReceiveSettings, SPARE_CONNECTIONS};
use crate::roles::tokens::Tokens;
use crate::runtime::{Io, Now, Role};
use crate::sim::kernel::{Actor, Kernel};
use crate::sim::part::LinkId;
use crate::sim::parts::terms::{HELLO_TIMEOUT_NS, PLACES, TOKEN_KEY, TOPIC, UTC_NS, log_record};
use crate::sim::process::ProcessMemory;
use crate::sim::socket::{Listener, SimSocket, Sockets};
use crate::wire::{AckLevel, OrderLevel};

/// Subscribers of one broker at once.
const SUBSCRIBERS_MAX: u32 = 8;
/// Silence after which a client that promised to be heard is gone, ns.
const CLIENT_SILENCE_NS: u64 = 150_000_000;
/// Passes of one step at most.
const PASSES_MAX: u64 = 4;
/// Operations of a role at once: a receive and a send of each connection, and the accept.
const OPERATIONS_MAX: u32 = 2 * PLACES + 1;

/// What the roles of one process hand each other. It dies with the process.
struct Wiring {
    links: Vec<Arc<AckLink<LinkId>>>,
    subscriptions: Arc<Subscriptions<SimSocket>>,
    incarnation: u64,
}

impl Wiring {
    /// Of a broker. Nothing before its receive core has announced it.
    fn of(kernel: &Kernel, broker: u32) -> Option<Arc<Wiring>> {
        let common = kernel.with(|state| state.common[broker as usize].clone())?;
        Some(common.downcast().expect("what brokers have in common is their wiring"))
    }
}

/// One role and its network.
struct Thread<R> {
    role: R,
    sockets: Sockets,
    is_started: bool,
}

impl<R: Role<Sockets> + Send + 'static> Thread<R> {
    fn boot(kernel: &Kernel, role: R) -> Option<Box<dyn Actor>> {
        Some(Box::new(Thread { role, sockets: Sockets::new(kernel, OPERATIONS_MAX), is_started: false }))
    }
}

impl<R: Role<Sockets> + Send + 'static> Actor for Thread<R> {
    /// Some passes, as the runner makes them.
    fn step(&mut self, kernel: &Kernel) {
        let now_ns = kernel.now_ns();
        let now = Now { monotonic_ns: now_ns, utc_ns: UTC_NS + now_ns };
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
                return kernel.with(|state| state.drained(kernel.part, is_drained));
            }
            let moved = self.role.poll(&mut self.sockets, now);
            self.role.check(now);
            if moved == 0
                && let Some(fault) = self.role.fault()
            {
                panic!("{}: {fault}", self.role.name());
            }
        }
    }
}

/// The receive core of a broker. It is the first of its process, and announces the broker.
pub(super) fn receive(kernel: &Kernel, broker: u32) -> Option<Box<dyn Actor>> {
    let (view, scenario) = (kernel.view(), kernel.with(|state| state.scenario.clone()));
    let member = Member::announce(&view, broker, Process { started_at_utc_ns: UTC_NS, ..Process::default() });
    let incarnation = member.incarnation();
    let link = AckLink::new(PLACES);
    let subscriptions = Arc::new(Subscriptions::new(SUBSCRIBERS_MAX as usize));
    let topic = Topic { receipts: scenario.receipts, ..Topic::new(TOPIC, OrderLevel::Session, AckLevel::Committed) };
    let settings = ReceiveSettings {
        connections_max: PLACES - SPARE_CONNECTIONS,
        receive_bytes_max: 24 << 10,
        hello_timeout_ns: HELLO_TIMEOUT_NS,
        idle_release_ns: 20_000_000,
        client_silence_ns: CLIENT_SILENCE_NS,
        session_expiry_ns: 5_000_000_000,
        broker: broker as u16,
        heartbeat_ms: scenario.heartbeat_ms,
        log_tag: log_record(&scenario).tag(),
        keep: Keep::Cached,
        topics: vec![topic],
    };
    let bounds = AddressBounds { connections: scenario.connections_per_address, ..AddressBounds::NONE };
    let (listener, tokens) = (Arc::new(Listener(broker)), Tokens::new(TOKEN_KEY));
    let role = Receive::<ProcessMemory, Sockets>::new(
        &view,
        broker,
        settings,
        listener,
        tokens,
        link.clone(),
        subscriptions.clone(),
    );
    let role = role.that_shares(Addresses::new(bounds)).that_beats(member);
    let wiring = Wiring { links: vec![link], subscriptions, incarnation };
    kernel.with(|state| state.common[broker as usize] = Some(Arc::new(wiring)));
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
        broker_list: String::new(),
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
        connections_max: SUBSCRIBERS_MAX,
        batches_per_send: 8,
        send: scenario.send,
        slow_reader: scenario.slow_reader,
        reader_stall_ns: 80_000_000,
        reader_lag_max: scenario.reader_lag_max,
        reader_grace_ns: 20_000_000,
        reader_wait_max_ns: scenario.reader_wait_max_ns,
        return_grace_ns: scenario.return_grace_ns,
        broker: broker as u16,
        broker_list: String::new(),
        log: log_record(&scenario),
        client_silence_ns: CLIENT_SILENCE_NS,
    };
    let role = Export::<ProcessMemory, Sockets>::new(&kernel.view(), broker, incarnation, settings, subscriptions);
    Thread::boot(kernel, role)
}
