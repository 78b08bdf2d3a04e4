//! A publisher: the real window and batches, over several connections; reconnecting and reopening as the engine does.

use std::io::IoSlice;
use std::time::Duration;

use crate::client::batch::{Filler, Identity, Shape};
use crate::client::window::{AckEffect, Contradiction, Numbering, Window, WindowConfig};
use crate::limits::FRAME_HEADER_BYTES;
use crate::sim::checker::Checker;
use crate::sim::kernel::{Actor, Kernel};
use crate::sim::network::{End, Heard};
use crate::sim::part::LinkId;
use crate::sim::parts::terms::{REDIAL_NS, hello_bytes};
use crate::sim::trace::Event;
use crate::sim::workload;
use crate::wire::frame::{self, ACK_FENCED, Ack, Hello, NEW_SESSION, Refused, Role, Welcome};
use crate::wire::{AckLevel, FrameKind, OrderLevel, Refusal};

const READ_BYTES: usize = 4096;
/// A connection attempt is given up after this time, ns.
const DIAL_TIMEOUT_NS: u64 = 300_000_000;
const RESEND_AFTER: Duration = Duration::from_millis(150);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Port {
    Down { retry_ns: u64 },
    Dialing { link: LinkId, since_ns: u64 },
    Up { link: LinkId },
}

/// See the head of the file.
pub(super) struct Publisher {
    /// Which client this is: no two of a run are the same.
    client: u64,
    filler: Filler,
    window: Window,
    ports: Vec<Port>,
    inboxes: Vec<Vec<u8>>,
    brokers: usize,
    is_open: bool,
    target_epoch: u32,
    next_message: u64,
    payload_bytes_max: u64,
}

impl Publisher {
    pub fn new(kernel: &Kernel, number: u32) -> Publisher {
        let (scenario, batch_bytes_max) =
            kernel.with(|state| (state.scenario.clone(), state.layout.geometry.batch_bytes_max()));
        let ports = scenario.brokers.len() * scenario.connections_per_broker;
        let config = WindowConfig {
            numbering: Numbering::Session,
            unacknowledged: false,
            batches_max: scenario.window,
            resend_after: RESEND_AFTER,
        };
        let target_bytes = (2 * scenario.payload_bytes_max).clamp(1024, batch_bytes_max) / 64 * 64;
        let shape = Shape { target_bytes, frame_bytes_max: batch_bytes_max, messages_max: 12 };
        Publisher {
            client: u64::from(number) << 32 | kernel.life(),
            filler: Filler::new(shape, Vec::new()),
            window: Window::new(config, &vec![Duration::ZERO; ports]),
            ports: vec![Port::Down { retry_ns: 0 }; ports],
            inboxes: vec![Vec::new(); ports],
            brokers: scenario.brokers.len(),
            is_open: false,
            target_epoch: 1,
            next_message: 0,
            payload_bytes_max: scenario.payload_bytes_max,
        }
    }

    fn is_reopening(&self) -> bool {
        self.is_open && self.target_epoch != self.window.identity(0).epoch
    }

    /// Dials every port whose time has come; one at a time while the session is not open.
    fn redial(&mut self, kernel: &Kernel) {
        for index in 0..self.ports.len() {
            let one_at_a_time = !self.is_open || self.is_reopening();
            if one_at_a_time && self.ports.iter().any(|port| matches!(port, Port::Dialing { .. })) {
                return;
            }
            let now_ns = kernel.now_ns();
            if !matches!(self.ports[index], Port::Down { retry_ns } if retry_ns <= now_ns) {
                continue;
            }
            self.ports[index] = Port::Down { retry_ns: now_ns + REDIAL_NS };
            let Some(link) = kernel.dial((index % self.brokers) as u32) else { continue };
            kernel.write(link, End::Client, &hello_bytes(&self.hello(index)));
            self.inboxes[index].clear();
            self.ports[index] = Port::Dialing { link, since_ns: now_ns };
        }
    }

    fn hello(&self, index: usize) -> Hello {
        let mut hello = Hello {
            role: Role::Publisher as u8,
            ack_level: AckLevel::Committed as u8,
            order_level: OrderLevel::Session as u8,
            ..Hello::default()
        };
        if self.is_open {
            let identity = self.window.identity(index);
            (hello.session, hello.token, hello.session_epoch) = (identity.session, identity.token, self.target_epoch);
        } else {
            hello.session = NEW_SESSION;
        }
        hello
    }

    fn port_down(&mut self, kernel: &Kernel, index: usize) {
        let now_ns = kernel.now_ns();
        match std::mem::replace(&mut self.ports[index], Port::Down { retry_ns: now_ns + REDIAL_NS }) {
            Port::Up { link } => {
                self.window.link_down(index);
                kernel.close(link, End::Client);
            }
            Port::Dialing { link, .. } => kernel.close(link, End::Client),
            Port::Down { .. } => {}
        }
    }

    /// The session epoch is over: every connection is closed, then one reopens it.
    fn fence(&mut self, kernel: &Kernel) {
        self.target_epoch = self.window.identity(0).epoch + 1;
        for index in 0..self.ports.len() {
            self.port_down(kernel, index);
            self.ports[index] = Port::Down { retry_ns: 0 };
        }
    }

    fn read(&mut self, kernel: &Kernel, index: usize) {
        let link = match self.ports[index] {
            Port::Down { .. } => return,
            Port::Dialing { since_ns, .. } if kernel.now_ns() - since_ns > DIAL_TIMEOUT_NS => {
                return self.port_down(kernel, index);
            }
            Port::Dialing { link, .. } | Port::Up { link } => link,
        };
        match kernel.read(link, End::Client, READ_BYTES) {
            Heard::Nothing => return,
            Heard::End => return self.port_down(kernel, index),
            Heard::Bytes(bytes) => self.inboxes[index].extend(bytes),
        }
        let is_same =
            |port: &Port| matches!(port, Port::Dialing { link: at, .. } | Port::Up { link: at } if *at == link);
        while is_same(&self.ports[index]) && self.take(kernel, index) {}
    }

    /// Takes one frame. False: the next is not whole.
    fn take(&mut self, kernel: &Kernel, index: usize) -> bool {
        let inbox = &self.inboxes[index];
        let Some(header) = inbox.first_chunk::<FRAME_HEADER_BYTES>().copied() else { return false };
        let kind = match frame::check(&header, u64::MAX) {
            Ok(kind) => kind,
            Err(error) => {
                kernel.fail(5, format!("a frame came damaged: {error}"));
                return false;
            }
        };
        let bytes = frame::frame_bytes(&header) as usize;
        if inbox.len() < bytes {
            return false;
        }
        self.inboxes[index].drain(..bytes);
        match (kind, self.ports[index]) {
            (FrameKind::Welcome, Port::Dialing { link, .. }) => {
                self.welcomed(kernel, index, link, &frame::read(&header))
            }
            (FrameKind::Ack, Port::Up { .. }) => self.acked(kernel, index, &frame::read(&header)),
            (FrameKind::Refused, _) => self.refused(kernel, index, &frame::read(&header)),
            (kind, _) => kernel.fail(5, format!("a publisher was sent {kind:?} out of turn")),
        }
        true
    }

    fn welcomed(&mut self, kernel: &Kernel, index: usize, link: LinkId, welcome: &Welcome) {
        let Welcome { session, session_epoch, next, .. } = *welcome;
        kernel.note(Event::Welcomed(kernel.part, session, session_epoch, next));
        let now = kernel.instant();
        let mut outcome = Ok(());
        if !self.is_open {
            self.is_open = true;
            let client = self.client;
            kernel.check(|checker| checker.opened(session, client));
            let (token, epoch, topic) = (welcome.token, session_epoch, welcome.topic);
            self.window.open(Identity { session, token, epoch, topic });
            self.target_epoch = session_epoch;
        }
        kernel.check(|checker| checker.acked(session, next));
        let ours = self.window.identity(0).session;
        if (session, session_epoch) != (ours, self.target_epoch) {
            let text = format!(
                "welcomed to {session:#x} epoch {session_epoch}, asked for {ours:#x} epoch {}",
                self.target_epoch
            );
            return kernel.fail(3, text);
        }
        if self.is_reopening() {
            outcome = self.window.reopen(session_epoch, next, now);
        }
        let identity = self.window.identity(index);
        outcome = outcome.and_then(|()| self.window.link_up(index, identity, next, now));
        self.ports[index] = Port::Up { link };
        self.no_contradiction(kernel, outcome);
    }

    fn no_contradiction(&self, kernel: &Kernel, outcome: Result<(), Contradiction>) {
        if let Err(Contradiction { field, found, expected }) = outcome {
            kernel.fail(5, format!("a broker's {field} is {found}, it must be {expected}"));
        }
    }

    fn acked(&mut self, kernel: &Kernel, index: usize, ack: &Ack) {
        let Ack { session, session_epoch: epoch, committed_next: next, let_go_from, .. } = *ack;
        let is_fenced = ack.flags & ACK_FENCED != 0;
        kernel.note(Event::Acked(kernel.part, session, epoch, next, is_fenced, let_go_from));
        kernel.check(|checker| checker.acked(session, next));
        match self.window.on_ack(index, ack, kernel.instant()) {
            Ok(AckEffect::None) => {}
            Ok(AckEffect::Fenced) => self.fence(kernel),
            Err(contradiction) => self.no_contradiction(kernel, Err(contradiction)),
        }
        while self.window.pop_acked().is_some() {}
    }

    fn refused(&mut self, kernel: &Kernel, index: usize, refused: &Refused) {
        kernel.note(Event::Refused(kernel.part, refused.code, refused.detail));
        self.port_down(kernel, index);
        if refused.code == Refusal::Protocol as u16 {
            kernel.fail(7, "a stream came damaged".into());
        }
        if refused.code == Refusal::UnknownSession as u16 {
            kernel.fail(3, "an open session is not known".into());
        }
        if refused.code != Refusal::SessionEpoch as u16 || !self.is_open {
            return;
        }
        let (current, ours) = (refused.detail, u64::from(self.window.identity(0).epoch));
        if current > ours && self.is_reopening() {
            // It was reopened, but the answer was lost on the way.
            self.target_epoch = current as u32;
        } else if current >= ours && !self.is_reopening() {
            self.fence(kernel);
        }
    }

    fn write(&mut self, kernel: &Kernel, index: usize) {
        let Port::Up { link } = self.ports[index] else { return };
        let now = kernel.instant();
        let mut slices = [IoSlice::new(&[]); 4];
        let filled = self.window.to_write(index, now, &mut slices);
        if filled == 0 {
            return;
        }
        let bytes: Vec<u8> = slices[..filled].iter().flat_map(|slice| slice.iter().copied()).collect();
        match kernel.write(link, End::Client, &bytes) {
            None => self.port_down(kernel, index),
            Some(0) => {}
            Some(written) => self.window.wrote(index, written, now),
        }
    }

    /// Seals a batch of a few messages.
    fn produce(&mut self, kernel: &Kernel) {
        let messages = 1 + kernel.below(6);
        for _ in 0..messages {
            let payload = workload::payload(self.client, self.next_message, self.payload_bytes_max);
            if !self.filler.fits(payload.len()) {
                break;
            }
            self.filler.push(&payload);
            self.next_message += 1;
        }
        let buffer = self.window.pop_buffer().unwrap_or_default();
        if let Ok(batch) = self.filler.seal(buffer) {
            kernel.note(Event::Sealed(kernel.part, self.next_message, batch.messages()));
            self.window.push(batch);
        }
    }
}

impl Actor for Publisher {
    fn step(&mut self, kernel: &Kernel) {
        self.redial(kernel);
        let calm = kernel.is_calm();
        while self.is_open && !calm && !self.window.is_full() && kernel.chance(3, 4) {
            self.produce(kernel);
        }
        let now = kernel.instant();
        self.window.on_time(now);
        self.window.assign(now);
        for index in 0..self.ports.len() {
            if kernel.chance(2, 3) {
                self.write(kernel, index);
            }
            if kernel.chance(2, 3) {
                self.read(kernel, index);
            }
        }
    }

    /// Everything was acked.
    fn is_at_rest(&self, _checker: &Checker) -> bool {
        self.is_open && self.window.unacked() == 0
    }

    fn tell(&self) -> String {
        let ports: Vec<&str> = self
            .ports
            .iter()
            .map(|port| match port {
                Port::Down { .. } => "down",
                Port::Dialing { .. } => "dialing",
                Port::Up { .. } => "up",
            })
            .collect();
        let (unacked, identity) = (self.window.unacked(), self.window.identity(0));
        let (target, resends) = (self.target_epoch, self.window.resend_counts());
        format!(
            "session {:#x}, {unacked} unacked, target epoch {target}, ports {ports:?}, resends {resends:?}",
            identity.session
        )
    }
}
