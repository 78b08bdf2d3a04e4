//! Looking after topics: requests to any broker of the pool, one at a time.

use std::io::Write;
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use bytemuck::bytes_of;

use crate::client::backoff::Backoff;
use crate::client::deadline;
use crate::client::dial::{connect, read_frame, remaining};
use crate::client::error::{Attempt, Attempts, ClientError};
use crate::client::numbers::Order;
use crate::client::options::{TopicProperties, check_brokers, check_cursor, check_topic};
use crate::client::requests::{
    TopicInfo, answered, check_progress, parse_cursors, parse_list, parse_record, record_of, request_bytes,
};
use crate::net::socket_options::{SILENCE, prepare};
use crate::wire::frame::{self, REPLY_MORE, Reply, Request};
use crate::wire::{Operation, Refusal};

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
        let record = record_of(properties);
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
            check_progress(&self.brokers[self.turn], reply.next, last.unwrap_or(from) + 1)?;
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
            check_progress(&self.brokers[self.turn], reply.next, from + 1)?;
            from = reply.next;
        }
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
        let bytes = request_bytes(request, topic, rest);
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
        let (reply, answer) = answered(broker, operation, &header, &body)?;
        // A request that was answered, whatever the answer, leaves the connection as it was.
        self.stream = Some(stream);
        answer.map(|()| (reply, body))
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
}
