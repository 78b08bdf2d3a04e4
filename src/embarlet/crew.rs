//! The roles of a process: each made of its part of the configuration, to be built on the thread that will run it.

use std::net::TcpListener;
use std::sync::Arc;

use bytemuck::Zeroable;

use crate::config::{Config, SlowReaderMode};
use crate::embarlet::error::StartError;
use crate::embarlet::rings::RingShare;
use crate::log::View;
use crate::log::brokers::announce_address;
use crate::log::inherit::check_broker;
use crate::log::member::Member;
use crate::log::namesake::look_for_namesake;
use crate::log::topics::Topic;
use crate::net::Ring;
use crate::net::ring::RingError;
use crate::pool::coherence::Coherence;
use crate::pool::region::HostLock;
use crate::pool::{Keep, Mapped, Pool, Process};
use crate::roles::ack::{AckRole, AckSettings};
use crate::roles::addresses::{AddressBounds, Addresses};
use crate::roles::export::{Export, ExportSettings};
use crate::roles::handoff::{AckLink, Subscriptions};
use crate::roles::receive::{Receive, ReceiveSettings, SPARE_CONNECTIONS};
use crate::roles::sequence::active::SequencerSettings;
use crate::roles::sequence::when_free::WhenFree;
use crate::roles::sequence::{Sequence, TakeoverSettings};
use crate::roles::tokens::Tokens;
use crate::runtime::{Role, RoleError, RoleKind, RoleSpec};
use crate::wire::SlowReader;
use crate::wire::frame::LogRecord;

/// Builds one role on the thread that will run it.
type Builder = Box<dyn FnOnce() -> Box<dyn Role<Ring>> + Send>;

/// A role to be built, and what it needs of its thread's ring.
pub(super) struct RoleBuilder {
    share: RingShare,
    build: Builder,
}

/// Builds a thread's ring and roles, on that thread.
pub(super) fn build_crew(
    crew: Vec<RoleBuilder>,
    mapping: Arc<crate::pool::Mapping>,
) -> Result<crate::runtime::runner::Crew<Ring>, RoleError> {
    let RingShare { operations, frames } = RingShare::of_thread(crew.iter().map(|role| role.share));
    let ring = Ring::new(operations, frames, mapping).map_err(|error: RingError| RoleError::new(error))?;
    log::info!("{}", ring.mode());
    Ok((ring, crew.into_iter().map(|role| (role.build)()).collect()))
}

/// What a process has taken of a pool, and where it listens.
pub(super) struct Seats<'a> {
    /// Its brokers, by where the configuration lists them.
    pub(super) entries: &'a [u32],
    /// The place of each.
    pub(super) places: &'a [u32],
    /// The listener of each.
    pub(super) listeners: &'a [Arc<TcpListener>],
    pub(super) candidate: Option<(u32, HostLock)>,
}

/// The roles of a process before they are placed.
pub(super) struct Parts<C: Coherence> {
    pool: Pool,
    pub(super) specs: Vec<RoleSpec>,
    pub(super) builders: Vec<RoleBuilder>,
    coherence: std::marker::PhantomData<C>,
}

impl<C: Coherence> Parts<C> {
    /// Of a process that has taken its seats.
    pub(super) fn new(
        config: &Config,
        seats: Seats<'_>,
        pool: Pool,
        view: &View<Mapped<C>>,
    ) -> Result<Self, StartError> {
        let Seats { entries, places, listeners, candidate } = seats;
        look_for_namesake(view, 0..view.layout.geometry.members(), Process::this().boot_id)
            .map_err(|source| StartError::Namesake { path: pool.path().into(), source })?;
        let mut parts = Parts { pool, specs: Vec::new(), builders: Vec::new(), coherence: std::marker::PhantomData };
        for (index, (entry, place)) in entries.iter().zip(places).enumerate() {
            check_broker(view, *place)
                .map_err(|source| StartError::Damaged { path: parts.pool.path().into(), source })?;
            let address = config.brokers[*entry as usize].advertised();
            parts.add_broker(config, view, (*place, &address), &listeners[index], index == 0);
        }
        parts.add_sequencer(config, view, candidate, places[0]);
        Ok(parts)
    }

    fn add(&mut self, config: &Config, name: String, kind: RoleKind, broker: u32, build: Builder) {
        self.specs.push(RoleSpec { name, kind, broker });
        self.builders.push(RoleBuilder { share: RingShare::of_role(config, kind), build });
    }

    fn add_broker(
        &mut self,
        config: &Config,
        view: &View<Mapped<C>>,
        (broker, address): (u32, &str),
        listener: &Arc<TcpListener>,
        creates_topics: bool,
    ) {
        let member = Member::announce(view, broker, Process::this());
        let incarnation = member.incarnation();
        announce_address(view, broker, incarnation, address);
        let mut member = Some(member);
        let lanes = config.geometry.lanes_per_broker;
        let seats = config.receive.connections_max + SPARE_CONNECTIONS;
        let links: Vec<_> = (0..lanes).map(|_| AckLink::new(seats)).collect();
        let subscriptions = Arc::new(Subscriptions::new(config.export.connections_max as usize));
        let addresses = Addresses::new(address_bounds(config));
        for lane in 0..lanes {
            let log_tag = self.log_record(config).tag();
            let settings = ReceiveSettings { log_tag, ..receive_settings(config, broker, creates_topics && lane == 0) };
            let tokens = Tokens::new(self.pool.superblock().token_key);
            let (view, listener) = (view.clone(), listener.clone());
            let (link, subscriptions) = (links[lane as usize].clone(), subscriptions.clone());
            let addresses = addresses.clone();
            let (number, member) = (broker * lanes + lane, member.take());
            let build: Builder = Box::new(move || {
                let receive =
                    Receive::new(&view, number, settings, listener, tokens, link, subscriptions).that_shares(addresses);
                Box::new(match member {
                    Some(member) => receive.that_beats(member),
                    None => receive,
                })
            });
            self.add(config, format!("receive {broker}/{number}"), RoleKind::Receive, broker, build);
        }
        let log = self.log_record(config);
        let tokens = Tokens::new(self.pool.superblock().token_key);
        let settings = AckSettings { log, ..ack_settings(config, broker) };
        let ack_view = view.clone();
        let build: Builder =
            Box::new(move || Box::new(AckRole::new(&ack_view, broker, settings, tokens, links, seats)));
        self.add(config, format!("ack {broker}"), RoleKind::Ack, broker, build);
        let settings = ExportSettings { log, ..export_settings(config, broker) };
        let export_view = view.clone();
        let build: Builder =
            Box::new(move || Box::new(Export::new(&export_view, broker, incarnation, settings, subscriptions)));
        self.add(config, format!("export {broker}"), RoleKind::Export, broker, build);
    }

    /// What clients are told of the log.
    fn log_record(&self, config: &Config) -> LogRecord {
        let superblock = self.pool.superblock();
        LogRecord {
            uuid: superblock.uuid,
            fork: superblock.fork,
            forked_at: superblock.forked_at,
            heartbeat_ms: config.liveness.heartbeat.as_millis() as u32,
            ..LogRecord::zeroed()
        }
    }

    fn add_sequencer(
        &mut self,
        config: &Config,
        view: &View<Mapped<C>>,
        candidate: Option<(u32, HostLock)>,
        broker: u32,
    ) {
        let settings = SequencerSettings {
            session_lease_ns: config.sequencer.session_lease.as_nanos() as u64,
            session_expiry_ns: config.sequencer.session_expiry.as_nanos() as u64,
            retention_bytes: config.retention.bytes,
            retention_ns: config.retention.age.as_nanos() as u64,
            reader_stall_ns: config.export.reader_stall.as_nanos() as u64,
            member_silence_ns: config.liveness.member_silence.as_nanos() as u64,
        };
        let takeover = TakeoverSettings {
            after_ns: config.sequencer.takeover_after.as_nanos() as u64,
            settle_ns: config.sequencer.takeover_settle.as_nanos() as u64,
        };
        let (view, pool) = (view.clone(), self.pool.clone());
        let name = candidate.as_ref().map_or("sequence".into(), |(slot, _)| format!("sequence {slot}"));
        let build: Builder = Box::new(move || match candidate {
            Some((slot, lock)) => Box::new(Sequence::new(&view, pool, slot, lock, settings, takeover)),
            None => Box::new(WhenFree::new(&view, pool, settings, takeover)),
        });
        self.add(config, name, RoleKind::Sequence, broker, build);
    }
}

/// What an address may have of one broker.
fn address_bounds(config: &Config) -> AddressBounds {
    let (bounds, geometry) = (&config.per_address, &config.geometry);
    let served = (config.receive.connections_max * geometry.lanes_per_broker).min(config.export.connections_max);
    let half = |of: u32| (of / 2).max(1);
    let connections = bounds.connections.unwrap_or(half(served));
    AddressBounds {
        connections,
        sessions: bounds.sessions.unwrap_or(half(geometry.sessions_max)),
        topics: bounds.topics.unwrap_or(half(geometry.topics_max)),
        cursors: bounds.cursors.unwrap_or(half(geometry.cursors_max)),
        openings: bounds.openings,
        heartbeats: bounds.heartbeats,
        // Everything an address may hold comes back at once when a broker was away: a connection, and a session on it.
        openings_at_once: bounds.openings_at_once.unwrap_or(connections.saturating_mul(2)),
    }
}

fn receive_settings(config: &Config, broker: u32, creates_topics: bool) -> ReceiveSettings {
    let topic = |topic: &crate::config::TopicConfig| Topic {
        receipts: topic.receipts,
        replicas: topic.replicas,
        retention_bytes: topic.retention.bytes,
        retention_ns: topic.retention.age.as_nanos() as u64,
        ..Topic::new(&topic.name, topic.order, topic.ack)
    };
    ReceiveSettings {
        session_expiry_ns: config.sequencer.session_expiry.as_nanos() as u64,
        connections_max: config.receive.connections_max,
        receive_bytes_max: config.receive.receive_bytes_max,
        landing_bytes: crate::limits::LANDING_BYTES,
        landing_buffers: crate::limits::LANDING_BUFFERS,
        hello_timeout_ns: config.receive.hello_timeout.as_nanos() as u64,
        idle_release_ns: config.receive.idle_release.as_nanos() as u64,
        client_silence_ns: config.liveness.client_silence.as_nanos() as u64,
        heartbeat_ms: config.liveness.heartbeat.as_millis() as u32,
        broker: broker as u16,
        log_tag: 0,
        // Every broker exports: its readers want the lines.
        keep: Keep::Cached,
        topics: if creates_topics { config.topics.iter().map(topic).collect() } else { Vec::new() },
    }
}

fn ack_settings(config: &Config, broker: u32) -> AckSettings {
    AckSettings {
        send: config.ack.send,
        zero_copy_from_bytes: config.ack.zero_copy_from_bytes,
        open_timeout_ns: config.receive.hello_timeout.as_nanos() as u64,
        broker: broker as u16,
        log: LogRecord::zeroed(),
    }
}

fn export_settings(config: &Config, broker: u32) -> ExportSettings {
    ExportSettings {
        connections_max: config.export.connections_max,
        batches_per_send: config.export.batches_per_send,
        send: config.export.send,
        slow_reader: match config.export.slow_reader {
            SlowReaderMode::Wait => SlowReader::Wait,
            SlowReaderMode::Skip => SlowReader::Skip,
            SlowReaderMode::Disconnect => SlowReader::Disconnect,
        },
        reader_stall_ns: config.export.reader_stall.as_nanos() as u64,
        reader_lag_max: config.export.reader_lag_max,
        reader_wait_max_ns: config.export.reader_wait_max.as_nanos() as u64,
        return_grace_ns: config.export.return_grace.as_nanos() as u64,
        reader_grace_ns: config.export.reader_grace.as_nanos() as u64,
        broker: broker as u16,
        log: LogRecord::zeroed(),
        client_silence_ns: config.liveness.client_silence.as_nanos() as u64,
    }
}
