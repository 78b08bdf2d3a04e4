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
use crate::sim::parts::terms::{HELLO_TIMEOUT_NS, PLACES, TOKEN_KEY, TOPIC, UTC_NS, log_record};
use crate::sim::process::ProcessMemory;
use crate::sim::socket::{Listener, Sockets};
use crate::sim::wiring::Wiring;
use crate::wire::{AckLevel, OrderLevel, SlowReader};

/// Subscribers of one broker at once.
const SUBSCRIBERS_MAX: u32 = 8;
/// Operations of a role at once: a receive and a send of each connection, and the accept.
const OPERATIONS_MAX: u32 = 2 * PLACES + 1;

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
    /// One pass, as the runner makes it.
    fn step(&mut self, kernel: &Kernel) {
        let now_ns = kernel.now_ns();
        let now = Now { monotonic_ns: now_ns, utc_ns: UTC_NS + now_ns };
        if !std::mem::replace(&mut self.is_started, true) {
            self.role.start(&mut self.sockets, 0, now).expect("a simulated network has room");
        }
        self.sockets.submit(None).expect("simulated networks do not fail");
        while let Some(completion) = self.sockets.next_completion() {
            self.role.complete(&mut self.sockets, completion, now);
        }
        if self.role.poll(&mut self.sockets, now) == 0
            && let Some(fault) = self.role.fault()
        {
            panic!("{}: {fault}", self.role.name());
        }
    }
}

/// The receive core of a broker. It is the first of its process, and announces the broker.
pub(super) fn receive(kernel: &Kernel, broker: u32) -> Option<Box<dyn Actor>> {
    let view = kernel.view();
    let member = Member::announce(&view, broker, Process { started_at_utc_ns: UTC_NS, ..Process::default() });
    let incarnation = member.incarnation();
    let link = AckLink::new(PLACES);
    let subscriptions = Arc::new(Subscriptions::new(SUBSCRIBERS_MAX as usize));
    let topic = Topic {
        receipts: kernel.with(|state| state.scenario.receipts),
        ..Topic::new(TOPIC, OrderLevel::Session, AckLevel::Committed)
    };
    let settings = ReceiveSettings {
        connections_max: PLACES - SPARE_CONNECTIONS,
        receive_bytes_max: 24 << 10,
        hello_timeout_ns: HELLO_TIMEOUT_NS,
        idle_release_ns: 20_000_000,
        client_silence_ns: 0,
        session_expiry_ns: 5_000_000_000,
        broker: broker as u16,
        heartbeat_ms: 0,
        log_tag: log_record().tag(),
        keep: Keep::Cached,
        topics: vec![topic],
    };
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
    let role = role.that_shares(Addresses::new(AddressBounds::NONE)).that_beats(member);
    let wiring = Wiring { links: vec![link], subscriptions, incarnation };
    kernel.with(|state| state.wiring[broker as usize] = Some(wiring));
    Thread::boot(kernel, role)
}

/// The ack core of a broker, once it is announced.
pub(super) fn ack(kernel: &Kernel, broker: u32) -> Option<Box<dyn Actor>> {
    let links = kernel.with(|state| state.wiring[broker as usize].as_ref().map(|wiring| wiring.links.clone()))?;
    let settings = AckSettings {
        send: kernel.with(|state| state.scenario.send),
        zero_copy_from_bytes: 0,
        open_timeout_ns: HELLO_TIMEOUT_NS,
        broker: broker as u16,
        broker_list: String::new(),
        log: log_record(),
    };
    let role =
        AckRole::<ProcessMemory, Sockets>::new(&kernel.view(), broker, settings, Tokens::new(TOKEN_KEY), links, PLACES);
    Thread::boot(kernel, role)
}

/// The exporter of a broker, once it is announced.
pub(super) fn export(kernel: &Kernel, broker: u32) -> Option<Box<dyn Actor>> {
    let common = |wiring: &Wiring| (wiring.subscriptions.clone(), wiring.incarnation);
    let (subscriptions, incarnation) = kernel.with(|state| state.wiring[broker as usize].as_ref().map(common))?;
    let settings = ExportSettings {
        connections_max: SUBSCRIBERS_MAX,
        batches_per_send: 8,
        send: kernel.with(|state| state.scenario.send),
        slow_reader: SlowReader::Wait,
        reader_stall_ns: 80_000_000,
        reader_lag_max: 0,
        reader_grace_ns: 20_000_000,
        reader_wait_max_ns: 0,
        return_grace_ns: 10_000_000,
        broker: broker as u16,
        broker_list: String::new(),
        log: log_record(),
        client_silence_ns: 0,
    };
    let role = Export::<ProcessMemory, Sockets>::new(&kernel.view(), broker, incarnation, settings, subscriptions);
    Thread::boot(kernel, role)
}
