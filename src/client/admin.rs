//! Looking after topics: requests to any broker of the pool, one at a time.

use std::io::Write;
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use bytemuck::{Zeroable, bytes_of, pod_read_unaligned};

use crate::client::backoff::Backoff;
use crate::client::deadline;
use crate::client::dial::{connect, read_frame, remaining};
use crate::client::error::{Attempt, Attempts, ClientError};
use crate::client::handshake::refused;
use crate::client::numbers::Order;
use crate::client::options::{TopicProperties, check_brokers, check_cursor, check_topic};
use crate::net::socket_options::{SILENCE, prepare};
use crate::wire::frame::{self, CursorRecord, Frame, REPLY_MORE, Refused, Reply, Request, TopicRecord};
use crate::wire::{AckLevel, Operation, OrderLevel, Receipts, Refusal, WireError};

/// A topic as the brokers describe it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicInfo {
    /// Its name.
    pub name: String,
    /// What it promises.
    pub properties: TopicProperties,
    /// Its number; a deleted topic's is given to another.
    pub id: u32,
    /// A number that no other topic of the pool ever has, of this name or another.
    pub generation: u64,
    /// Creation, UTC ns.
    pub created_at: u64,
    /// Order of its next message, as of the sequencer's last checkpoint.
    pub next_order: Order,
    /// No message below this order is kept.
    pub earliest_order: Order,
    /// Bytes of its batches kept from about that order on.
    pub kept_bytes: u64,
}

/// A connection to one broker after another. Each call is retried until its timeout, over every broker, as long as trying again may
/// help; asking twice is harmless.
#[derive(Debug)]
pub struct Admin {
    brokers: Vec<String>,
    /// Index of the broker that is asked next, or is connected.
    turn: usize,
    stream: Option<TcpStream>,
}

impl Admin {
    /// Asks these brokers, `host:port` each. Connects when it has something to ask.
    ///
    /// # Errors
    /// [`ClientError::Option`] for an empty list.
    pub fn new(brokers: &[String]) -> Result<Admin, ClientError> {
        check_brokers(brokers)?;
        Ok(Admin { brokers: brokers.to_vec(), turn: 0, stream: None })
    }

    /// Creates a topic, or makes sure that it exists with these properties. When it returns, the topic is there for all brokers.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with `TopicExists` if it exists with others, or with another reason of the broker;
    /// [`ClientError::Unreachable`] after `timeout`; [`ClientError::Option`] for a bad name.
    pub fn create_topic(
        &mut self,
        name: &str,
        properties: &TopicProperties,
        timeout: Duration,
    ) -> Result<(), ClientError> {
        check_topic(name)?;
        let record = TopicRecord {
            order_level: properties.order as u8,
            ack_level: properties.ack as u8,
            receipts: properties.receipts as u8,
            replicas: properties.replicas,
            retention_bytes: properties.retention_bytes,
            retention_ns: properties.retention_age.as_nanos().min(u64::MAX.into()) as u64,
            ..TopicRecord::zeroed()
        };
        let request = Request { operation: Operation::TopicCreate as u8, ..Request::default() };
        self.ask(request, name, bytes_of(&record), timeout).map(|_| ())
    }

    /// All topics of the pool, by their ids.
    ///
    /// # Errors
    /// As for every call: what the broker refuses with, or [`ClientError::Unreachable`] after `timeout`.
    pub fn topics(&mut self, timeout: Duration) -> Result<Vec<TopicInfo>, ClientError> {
        let deadline = deadline::within(timeout);
        let (mut all, mut from) = (Vec::new(), 0);
        loop {
            let request = Request { operation: Operation::TopicList as u8, from, ..Request::default() };
            let (reply, body) = self.ask(request, "", &[], remaining(deadline))?;
            let listed = parse_list(&body).map_err(|error| ClientError::wire(&self.brokers[self.turn], error))?;
            let last = listed.last().map(|topic| u64::from(topic.id));
            all.extend(listed);
            if reply.flags & REPLY_MORE == 0 {
                return Ok(all);
            }
            self.check_progress(reply.next, last.unwrap_or(from) + 1)?;
            from = reply.next;
        }
    }

    /// One topic.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with `UnknownTopic` if there is none, or as [`Admin::topics`].
    pub fn topic(&mut self, name: &str, timeout: Duration) -> Result<TopicInfo, ClientError> {
        check_topic(name)?;
        let request = Request { operation: Operation::TopicDescribe as u8, ..Request::default() };
        let (_, body) = self.ask(request, name, &[], timeout)?;
        let wire = |error| ClientError::wire(&self.brokers[self.turn], error);
        parse_record(&body, name).map_err(wire)
    }

    /// Deletes a topic: its sessions and subscriptions end, its memory is given back. When it returns, its name is free.
    ///
    /// What is deleted is the topic that has the name when this is called: however often it has to be asked, never one created since.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with `UnknownTopic` if there is none, or as [`Admin::topics`].
    pub fn delete_topic(&mut self, name: &str, timeout: Duration) -> Result<(), ClientError> {
        let deadline = deadline::within(timeout);
        let number = self.topic(name, timeout)?.generation;
        let request = Request { operation: Operation::TopicDelete as u8, number, ..Request::default() };
        match self.ask(request, name, &[], remaining(deadline)) {
            // It was there a moment ago: an answer was lost, or somebody else deleted it.
            Err(error) if error.refusal() == Some(Refusal::UnknownTopic) => Ok(()),
            answered => answered.map(|_| ()),
        }
    }

    /// Where a named cursor of a topic stands: the order of the next message its consumer wants. `None`: there is no such cursor.
    ///
    /// # Errors
    /// [`ClientError::Option`] for a bad name, or as [`Admin::topics`].
    pub fn cursor(&mut self, topic: &str, name: &str, timeout: Duration) -> Result<Option<Order>, ClientError> {
        match self.ask_cursor(Operation::CursorRead, topic, name, 0, timeout) {
            Err(error) if error.refusal() == Some(Refusal::UnknownCursor) => Ok(None),
            answered => answered.map(|order| Some(Order(order))),
        }
    }

    /// Sets a named cursor of a topic. When it returns, every broker resumes there.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with `CursorTableFull` if there is no place for it, or as [`Admin::cursor`].
    pub fn commit_cursor(
        &mut self,
        topic: &str,
        name: &str,
        order: Order,
        timeout: Duration,
    ) -> Result<(), ClientError> {
        self.ask_cursor(Operation::CursorCommit, topic, name, order.0, timeout).map(|_| ())
    }

    /// Deletes a named cursor.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with `UnknownCursor` if there is none, or as [`Admin::cursor`].
    pub fn delete_cursor(&mut self, topic: &str, name: &str, timeout: Duration) -> Result<(), ClientError> {
        self.ask_cursor(Operation::CursorDelete, topic, name, 0, timeout).map(|_| ())
    }

    fn ask_cursor(
        &mut self,
        operation: Operation,
        topic: &str,
        name: &str,
        number: u64,
        timeout: Duration,
    ) -> Result<u64, ClientError> {
        check_topic(topic)?;
        check_cursor(name)?;
        let request = Request { operation: operation as u8, number, ..Request::default() };
        self.ask(request, topic, name.as_bytes(), timeout).map(|(reply, _)| reply.number)
    }

    /// The named cursors of a topic, with where they stand.
    ///
    /// # Errors
    /// As [`Admin::topics`].
    pub fn cursors(&mut self, topic: &str, timeout: Duration) -> Result<Vec<(String, Order)>, ClientError> {
        check_topic(topic)?;
        let deadline = deadline::within(timeout);
        let (mut all, mut from) = (Vec::new(), 0);
        loop {
            let request = Request { operation: Operation::CursorList as u8, from, ..Request::default() };
            let (reply, body) = self.ask(request, topic, &[], remaining(deadline))?;
            all.extend(parse_cursors(&body).map_err(|error| ClientError::wire(&self.brokers[self.turn], error))?);
            if reply.flags & REPLY_MORE == 0 {
                return Ok(all);
            }
            self.check_progress(reply.next, from + 1)?;
            from = reply.next;
        }
    }

    /// A list that did not end goes on behind what was listed.
    fn check_progress(&self, found: u64, expected: u64) -> Result<(), ClientError> {
        if found >= expected {
            return Ok(());
        }
        let broker = self.brokers[self.turn].clone();
        Err(ClientError::Contradiction { broker, field: "next of a list", found, expected })
    }

    /// Asks until a broker answers for good. Gives the reply and its body.
    pub(crate) fn ask(
        &mut self,
        request: Request,
        topic: &str,
        rest: &[u8],
        timeout: Duration,
    ) -> Result<(Reply, Vec<u8>), ClientError> {
        let deadline = deadline::within(timeout);
        let body = [topic.as_bytes(), rest].concat();
        let bytes = frame::with_body(&Request { topic_bytes: topic.len() as u16, ..request }.speaking(), &body);
        let mut backoff = Backoff::default();
        let mut tried: Vec<Attempt> = Vec::new();
        let mut refusal = None;
        loop {
            let share = remaining(deadline) / (self.brokers.len() - tried.len().min(self.brokers.len() - 1)) as u32;
            let broker = self.brokers[self.turn].clone();
            match self.ask_once(&broker, request.operation, &bytes, deadline::within(share)) {
                Ok(answer) => return Ok(answer),
                Err(error) if !error.is_transient() => return Err(error),
                Err(error) => {
                    self.stream = None;
                    self.turn = (self.turn + 1) % self.brokers.len();
                    tried.retain(|attempt| attempt.broker != broker);
                    tried.push(Attempt { broker, failure: error.to_string() });
                    refusal = matches!(error, ClientError::Refused { .. }).then_some(error).or(refusal);
                }
            }
            if Instant::now() + backoff.pause() >= deadline {
                let unreachable = ClientError::Unreachable { waited: timeout, tried: Attempts(tried) };
                return Err(refusal.unwrap_or(unreachable));
            }
            if tried.len() == self.brokers.len() {
                thread::sleep(backoff.fail());
            }
        }
    }

    fn ask_once(
        &mut self,
        broker: &str,
        operation: u8,
        request: &[u8],
        deadline: Instant,
    ) -> Result<(Reply, Vec<u8>), ClientError> {
        let io = |doing| move |error: std::io::Error| ClientError::io(broker, doing, &error);
        let wire = |error| ClientError::wire(broker, error);
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => {
                let stream = connect(broker, deadline).map_err(io("connecting to"))?;
                prepare(&stream, SILENCE).map_err(io("setting socket options towards"))?;
                stream
            }
        };
        stream.set_write_timeout(Some(remaining(deadline))).map_err(io("setting a timeout towards"))?;
        stream.write_all(request).map_err(io("sending a request to"))?;
        let (header, body) = read_frame(&mut stream, broker, "waiting for the reply of", deadline)?;
        match header[5] {
            kind if kind == Reply::KIND as u8 => {}
            kind if kind == Refused::KIND as u8 => return Err(refused(broker, &frame::read(&header), &body)),
            _ => {
                let found = frame::check(&header, u64::MAX).map_err(wire)?;
                return Err(wire(WireError::UnexpectedKind { found, expected: "Reply or Refused" }));
            }
        }
        let reply: Reply = frame::read(&header);
        if reply.operation != operation {
            let (found, expected) = (reply.operation.into(), operation.into());
            let broker = broker.to_owned();
            return Err(ClientError::Contradiction { broker, field: "operation of a reply", found, expected });
        }
        // A request that was answered, whatever the answer, leaves the connection as it was.
        self.stream = Some(stream);
        if reply.code != 0 {
            let refusal = Refused { code: reply.code, detail: reply.detail, ..Refused::default() };
            return Err(refused(broker, &refusal, &body));
        }
        Ok((reply, body))
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        if let Some(stream) = &mut self.stream {
            // Best effort: closing says as much.
            let _ = stream.write_all(&frame::seal(&frame::Goodbye::default()));
        }
    }
}

fn parse_list(mut body: &[u8]) -> Result<Vec<TopicInfo>, WireError> {
    let mut topics = Vec::new();
    while !body.is_empty() {
        let wrong = WireError::Field {
            field: "length of a topic list",
            found: body.len() as u64,
            expected: "whole records with their names",
        };
        let name_bytes = match body.get(..size_of::<TopicRecord>()) {
            Some(record) => pod_read_unaligned::<TopicRecord>(record).name_bytes,
            None => return Err(wrong),
        };
        let whole = size_of::<TopicRecord>() + usize::from(name_bytes);
        let (one, rest) = body.split_at_checked(whole).ok_or(wrong)?;
        let (record, name) = one.split_at(size_of::<TopicRecord>());
        topics.push(parse_record(record, frame::check_topic_name(name)?)?);
        body = rest;
    }
    Ok(topics)
}

fn parse_cursors(body: &[u8]) -> Result<Vec<(String, Order)>, WireError> {
    let records = body.chunks_exact(size_of::<CursorRecord>());
    if !records.remainder().is_empty() {
        let (field, found) = ("length of a cursor list", body.len() as u64);
        return Err(WireError::Field { field, found, expected: "whole records" });
    }
    let parse = |record| {
        let CursorRecord { order, name_bytes, name, .. } = pod_read_unaligned(record);
        let text = name.get(..name_bytes as usize).unwrap_or(&[]);
        Ok((frame::check_cursor_name(text)?.to_owned(), Order(order)))
    };
    records.map(parse).collect()
}

fn parse_record(bytes: &[u8], name: &str) -> Result<TopicInfo, WireError> {
    if bytes.len() != size_of::<TopicRecord>() {
        let found = bytes.len() as u64;
        return Err(WireError::Field { field: "length of a topic record", found, expected: "80" });
    }
    let record: TopicRecord = pod_read_unaligned(bytes);
    Ok(TopicInfo {
        name: name.to_owned(),
        properties: TopicProperties {
            order: OrderLevel::from_byte(record.order_level)?,
            ack: AckLevel::from_byte(record.ack_level)?,
            receipts: Receipts::from_byte(record.receipts)?,
            replicas: record.replicas,
            retention_bytes: record.retention_bytes,
            retention_age: Duration::from_nanos(record.retention_ns),
        },
        id: record.id,
        generation: record.generation,
        created_at: record.created_at,
        next_order: Order(record.next_order),
        earliest_order: Order(record.earliest_order),
        kept_bytes: record.kept_bytes,
    })
}

/// Creates a topic, or makes sure that it exists with these properties: [`Admin::create_topic`] over a connection of its own.
///
/// # Errors
/// As [`Admin::new`] and [`Admin::create_topic`].
pub fn create_topic(
    brokers: &[String],
    name: &str,
    properties: &TopicProperties,
    timeout: Duration,
) -> Result<(), ClientError> {
    Admin::new(brokers)?.create_topic(name, properties, timeout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_port_is_named_and_bounded() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        let found =
            create_topic(std::slice::from_ref(&address), "t", &TopicProperties::default(), Duration::from_millis(120));
        let Err(ClientError::Unreachable { tried, .. }) = found else { panic!("{found:?}") };
        assert_eq!(tried.0[0].broker, address);
    }

    #[test]
    fn lists_that_do_not_add_up_are_refused() {
        let record = |name_bytes| TopicRecord { name_bytes, order_level: 5, ack_level: 1, ..TopicRecord::zeroed() };
        let two = [bytes_of(&record(1)), b"a", bytes_of(&record(3)), b"bcd"].concat();
        let names: Vec<_> = parse_list(&two).unwrap().into_iter().map(|topic| topic.name).collect();
        assert_eq!(names, ["a", "bcd"]);
        assert!(parse_list(&[]).unwrap().is_empty());
        for cut in [1, 79, 80, two.len() - 1] {
            assert!(parse_list(&two[..cut]).is_err(), "cut at {cut}");
        }
        let levels = [bytes_of(&TopicRecord { order_level: 3, ..record(1) }), b"a"].concat();
        assert!(parse_list(&levels).is_err());
    }
}
