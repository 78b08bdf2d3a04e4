//! The committed log as it tells itself: topics, sessions and batches, entry by entry. Each topic is held to what its order level promises,
//! and to no more.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::log::topics::{SPEC_BYTES, Topic as Spec};
use crate::pool::Layout;
use crate::pool::record::{IndexEntry, entry_kind};
use crate::sim::checker::batches::{Due, Stamps, check_bytes};
use crate::sim::scenario::Scenario;
use crate::sim::trace::Event;
use crate::testing::memory::SharedMemory;
use crate::wire::OrderLevel;

/// A promise that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Its number at the head of the checker; 0: the run did not come to rest, or protocol code stopped itself.
    pub promise: u8,
    /// What was found.
    pub text: String,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "promise {}: {}", self.promise, self.text)
    }
}

pub(super) fn broken<T>(promise: u8, text: String) -> Result<T, Violation> {
    Err(Violation { promise, text })
}

/// One of all topics that ever were. Two of one name are two topics.
#[derive(Clone, Debug)]
pub(super) struct Topic {
    pub id: u32,
    pub name: String,
    pub order: OrderLevel,
    pub created: u64,
    pub deleted: Option<u64>,
    pub next_order: u64,
}

/// A session as the committed log tells it.
#[derive(Clone, Debug, Default)]
struct Session {
    id: u64,
    /// Its topic, among all that ever were.
    topic: usize,
    epoch: u32,
    next_batch: u64,
    next_message: u64,
    /// Whose messages it holds, once there are any.
    client: Option<u64>,
    is_fenced: bool,
}

/// What is known of whoever publishes.
#[derive(Default)]
struct Client {
    /// The topic it publishes to.
    topic: Option<usize>,
    /// Which of its messages are committed.
    messages: Vec<bool>,
}

/// See the head of the file.
pub(super) struct History {
    layout: Arc<Layout>,
    scenario: Scenario,
    pub log: Vec<IndexEntry>,
    topics: Vec<Topic>,
    /// By place in the session table.
    sessions: HashMap<u32, Session>,
    /// Frontiers of sessions, open or closed, by id; and the topic of each.
    frontiers: HashMap<u64, (u64, usize)>,
    clients: HashMap<u64, Client>,
    /// Sessions that were closed.
    closed: HashSet<u64>,
    extents: Vec<Extent>,
    pub fences: u64,
}

/// Who has an extent, and where the last of what lies in it stands.
#[derive(Clone, Debug, Default)]
struct Extent {
    lane: Option<u32>,
    /// The slot that closed it: what earlier ones named may come into the order after that.
    closed_by: Option<u64>,
    last: Option<u64>,
}

impl History {
    pub fn new(layout: Arc<Layout>, scenario: &Scenario) -> History {
        let geometry = layout.geometry;
        let mut extents = vec![Extent::default(); geometry.extents as usize];
        for lane in 0..geometry.broker_lanes() {
            geometry.founding_extents(lane).for_each(|extent| extents[extent as usize].lane = Some(lane));
        }
        History {
            layout,
            scenario: scenario.clone(),
            log: Vec::new(),
            topics: Vec::new(),
            sessions: HashMap::new(),
            frontiers: HashMap::new(),
            clients: HashMap::new(),
            closed: HashSet::new(),
            extents,
            fences: 0,
        }
    }

    /// Positions committed.
    pub fn committed(&self) -> u64 {
        self.log.len() as u64
    }

    /// The topic of this name that there is now.
    pub fn topic(&self, name: &str) -> Option<&Topic> {
        self.topics.iter().rev().find(|topic| topic.name == name && topic.deleted.is_none())
    }

    /// Topics of this name that were deleted.
    pub fn deletions(&self, name: &str) -> usize {
        self.topics.iter().filter(|topic| topic.name == name && topic.deleted.is_some()).count()
    }

    /// Whether one of a name was deleted since so many had been.
    pub fn is_deleted_since(&self, (name, before): &(String, usize)) -> bool {
        self.deletions(name) > *before
    }

    /// The one of them that was deleted last.
    pub fn last_deleted(&self, name: &str) -> Option<&Topic> {
        self.topics.iter().rev().find(|topic| topic.name == name && topic.deleted.is_some())
    }

    /// Whether the topic of this name and generation was deleted.
    pub fn is_deleted(&self, name: &str, generation: u64) -> bool {
        let mut topics = self.topics.iter();
        topics.any(|topic| topic.name == name && topic.created + 1 == generation && topic.deleted.is_some())
    }

    /// The topic that an entry at a position speaks of.
    pub fn topic_at(&self, position: u64, id: u32) -> Option<&Topic> {
        self.topics.iter().rev().find(|topic| topic.id == id && topic.created <= position)
    }

    /// The frontier of a session; 0 if it was never opened.
    pub fn frontier(&self, session: u64) -> u64 {
        self.frontiers.get(&session).map_or(0, |(next, _)| *next)
    }

    /// Whether a session was ever opened.
    pub fn is_known(&self, session: u64) -> bool {
        self.frontiers.contains_key(&session)
    }

    /// Whether the topic of a session was deleted.
    pub fn is_over(&self, session: u64) -> bool {
        self.frontiers.get(&session).is_some_and(|(_, topic)| self.topics[*topic].deleted.is_some())
    }

    /// Whether a session was closed, or expired.
    pub fn is_closed(&self, session: u64) -> bool {
        self.closed.contains(&session)
    }

    /// Whether messages of a client are committed.
    pub fn has_messages(&self, client: u64, mut numbers: std::ops::Range<u64>) -> bool {
        let Some(client) = self.clients.get(&client) else { return false };
        numbers.all(|number| client.messages.get(number as usize).is_some_and(|known| *known))
    }

    /// The topic that is there now with this id.
    fn live(&self, position: u64, id: u32) -> Result<usize, Violation> {
        let live = self.topics.iter().rposition(|topic| topic.id == id && topic.deleted.is_none());
        live.map_or_else(|| broken(2, format!("position {position} speaks of topic {id}, which is not there")), Ok)
    }

    /// The next entry.
    pub fn take(
        &mut self,
        memory: &SharedMemory,
        entry: IndexEntry,
        floor: u64,
        note: &mut impl FnMut(Event),
    ) -> Result<(), Violation> {
        let position = self.committed();
        self.take_extent(position, &entry, floor)?;
        if entry.kind == entry_kind::BATCH {
            self.take_batch(memory, position, &entry, note)?;
        } else if let entry_kind::GRANT | entry_kind::EXTENT_CLOSE = entry.kind {
            note(Event::Extent(position, entry.first_order, entry.lane, entry.kind == entry_kind::GRANT));
        } else {
            note(Event::Control(position, entry.kind, entry.session_epoch, entry.batch_seq));
            match entry.kind {
                entry_kind::TOPIC_CREATE | entry_kind::TOPIC_DELETE => self.take_topic(memory, position, &entry)?,
                _ => self.take_session(position, &entry)?,
            }
        }
        self.log.push(entry);
        Ok(())
    }

    /// Memory has one lane at a time, and is somebody else's only when its lane has closed it and nothing in it is kept.
    fn take_extent(&mut self, position: u64, entry: &IndexEntry, floor: u64) -> Result<(), Violation> {
        let number = match entry.kind {
            entry_kind::GRANT | entry_kind::EXTENT_CLOSE => entry.first_order as usize,
            entry_kind::BATCH | entry_kind::TOPIC_CREATE | entry_kind::CURSOR_SET => {
                self.layout.extent_of(entry.blog_at()).map_or(usize::MAX, |extent| extent as usize)
            }
            _ => return Ok(()),
        };
        let lane = Some(u32::from(entry.lane));
        let Some(extent) = self.extents.get_mut(number) else {
            return broken(7, format!("position {position}: {entry:?} lies nowhere"));
        };
        match entry.kind {
            entry_kind::GRANT
                if extent.lane.is_some() && extent.closed_by.is_none()
                    || extent.last.is_some_and(|last| last >= floor) =>
            {
                broken(7, format!("position {position}, floor {floor}: {entry:?} grants {extent:?}"))
            }
            entry_kind::GRANT => {
                *extent = Extent { lane, ..Extent::default() };
                Ok(())
            }
            _ if extent.lane != lane || extent.closed_by.is_some_and(|slot| slot <= entry.lane_slot) => {
                broken(7, format!("position {position}: {entry:?} names what is of {extent:?}"))
            }
            entry_kind::EXTENT_CLOSE => {
                extent.closed_by = Some(entry.lane_slot);
                Ok(())
            }
            _ => {
                extent.last = Some(position);
                Ok(())
            }
        }
    }

    fn take_topic(&mut self, memory: &SharedMemory, position: u64, entry: &IndexEntry) -> Result<(), Violation> {
        let id = entry.topic();
        if entry.kind == entry_kind::TOPIC_DELETE {
            let topic = self.live(position, id)?;
            self.topics[topic].deleted = Some(position);
            // Its sessions are over.
            self.sessions.retain(|_, session| session.id == 0 || session.topic != topic);
            return Ok(());
        }
        if self.live(position, id).is_ok() {
            return broken(2, format!("position {position} creates topic {id} over another"));
        }
        let spec = memory.behind_caches(entry.blog_at(), SPEC_BYTES, Spec::from_spec);
        let spec = match spec {
            Ok(spec) if self.topic(&spec.name).is_none() => spec,
            found => return broken(7, format!("position {position} creates {found:?}")),
        };
        let (name, order) = (spec.name, spec.order);
        self.topics.push(Topic { id, name, order, created: position, deleted: None, next_order: 0 });
        Ok(())
    }

    fn take_session(&mut self, position: u64, entry: &IndexEntry) -> Result<(), Violation> {
        let is_open = entry.kind == entry_kind::SESSION_OPEN;
        let topic = if is_open { self.live(position, entry.topic())? } else { 0 };
        let session = self.sessions.entry(entry.session_slot).or_default();
        match entry.kind {
            entry_kind::SESSION_OPEN if session.id == entry.first_order => {
                let is_next = entry.batch_seq == session.next_batch && entry.session_epoch == session.epoch + 1;
                if !is_next || topic != session.topic {
                    return broken(3, format!("position {position}: {entry:?} reopens {session:?}"));
                }
                (session.epoch, session.is_fenced) = (entry.session_epoch, false);
            }
            entry_kind::SESSION_OPEN => {
                if session.id != 0 || self.frontiers.contains_key(&entry.first_order) {
                    return broken(3, format!("position {position}: {entry:?} opens over {session:?}, or again"));
                }
                let is_first = entry.first_order == position + 1 && entry.session_epoch == 1;
                if !is_first || entry.flags != self.topics[topic].order as u8 {
                    let text = format!("position {position}: {entry:?} opens a session of another id, epoch or level");
                    return broken(3, text);
                }
                *session = Session { id: entry.first_order, topic, epoch: entry.session_epoch, ..Session::default() };
                self.frontiers.insert(session.id, (0, topic));
            }
            entry_kind::SESSION_CLOSE => {
                self.closed.insert(session.id);
                *session = Session::default();
            }
            entry_kind::SESSION_FENCE => {
                if entry.batch_seq != session.next_batch || entry.session_epoch != session.epoch {
                    return broken(4, format!("position {position}: {entry:?} fences {session:?}"));
                }
                if self.topics[session.topic].order != OrderLevel::Session {
                    return broken(4, format!("position {position}: {entry:?} fences a connection: {session:?}"));
                }
                session.is_fenced = true;
                self.fences += 1;
            }
            _ => {}
        }
        Ok(())
    }

    fn take_batch(
        &mut self,
        memory: &SharedMemory,
        position: u64,
        entry: &IndexEntry,
        note: &mut impl FnMut(Event),
    ) -> Result<(), Violation> {
        let place = self.live(position, entry.topic())?;
        let topic = &mut self.topics[place];
        if entry.first_order != topic.next_order {
            let text = format!("position {position} begins at order {}, not {}", entry.first_order, topic.next_order);
            return broken(2, text);
        }
        topic.next_order += u64::from(entry.message_count);
        let order = topic.order;
        let session = self.sessions.entry(entry.session_slot).or_default();
        let (id, epoch, seq) = (session.id, entry.session_epoch, entry.batch_seq);
        note(Event::Committed(position, id, epoch, seq, entry.first_order, entry.message_count));
        if epoch != session.epoch || session.is_fenced || id == 0 || session.topic != place {
            return broken(4, format!("position {position}: batch {seq} of epoch {epoch} in {session:?}"));
        }
        // Level 0 promises nothing of the order in a connection.
        if seq != session.next_batch && order != OrderLevel::None {
            let text = format!("position {position}: batch {seq} where {} is next in {session:?}", session.next_batch);
            return broken(3, text);
        }
        session.next_batch += 1;
        self.frontiers.insert(id, (session.next_batch, place));
        let due = Due {
            session: id,
            entry,
            stamps: Stamps::of(&self.scenario),
            payload_bytes_max: self.scenario.payload_bytes_max,
            client: session.client,
            // Below level 5 what a connection had is sent again on another one.
            first: (order == OrderLevel::Session && session.client.is_some()).then_some(session.next_message),
        };
        let bytes = entry.batch_bytes.into();
        let checked = memory.behind_caches(entry.blog_at(), bytes, |bytes| check_bytes(bytes, &due));
        let (client, first) = match checked {
            Ok(begin) => begin,
            Err((promise, text)) => {
                let (lane, at) = (entry.lane, entry.place >> 16 << 6);
                return broken(promise, format!("position {position}, batch {seq} of lane {lane} at {at:#x}: {text}"));
            }
        };
        let end = first + u64::from(entry.message_count);
        let goes_on_from = self.clients.get(&client).map_or(0, |client| client.messages.len() as u64);
        if order == OrderLevel::Session && session.client.is_none() && first != goes_on_from {
            let text = format!(
                "position {position}: session {id:#x} of client {client:#x} begins at message {first}, {goes_on_from} is next"
            );
            return broken(3, text);
        }
        (session.client, session.next_message) = (Some(client), end);
        let known = self.clients.entry(client).or_default();
        if *known.topic.get_or_insert(place) != place {
            return broken(3, format!("position {position}: client {client:#x} published to another topic before"));
        }
        known.messages.resize(known.messages.len().max(end as usize), false);
        known.messages[first as usize..end as usize].fill(true);
        Ok(())
    }
}
