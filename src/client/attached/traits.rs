//! What publishers and subscribers are for, whichever way they reach the log.

use std::time::{Duration, Instant};

use crate::client::attached::{AttachedPublisher, AttachedSubscriber};
use crate::client::delivered::Delivered;
use crate::client::error::ClientError;
use crate::client::publisher::Publisher;
use crate::client::subscriber::Subscriber;
use crate::wire::OrderLevel;

/// A publisher: over TCP ([`Publisher`]) or attached ([`AttachedPublisher`]). Each method is told of, with its errors, at the
/// method of the same name there.
#[allow(missing_docs)]
pub trait Publish {
    fn send(&mut self, payload: &[u8]) -> Result<(), ClientError>;
    fn try_send(&mut self, payload: &[u8]) -> Result<bool, ClientError>;
    fn seal(&mut self);
    fn poll(&mut self, timeout: Duration) -> Result<usize, ClientError>;
    fn flush(&mut self, deadline: Instant) -> Result<(), ClientError>;
    fn close(self: Box<Self>, deadline: Instant) -> Result<(), ClientError>;
    fn session(&self) -> u64;
    fn order_level(&self) -> OrderLevel;
    fn messages_sent(&self) -> u64;
    fn messages_acked(&self) -> u64;
    fn bytes_acked(&self) -> u64;
    fn in_flight(&self) -> usize;
    fn batch_message_bytes_max(&self) -> u64;
    fn progress_line(&self, total: u64) -> String;
}

macro_rules! publish {
    ($type:ty) => {
        impl Publish for $type {
            fn send(&mut self, payload: &[u8]) -> Result<(), ClientError> {
                self.send(payload)
            }
            fn try_send(&mut self, payload: &[u8]) -> Result<bool, ClientError> {
                self.try_send(payload)
            }
            fn seal(&mut self) {
                self.seal()
            }
            fn poll(&mut self, timeout: Duration) -> Result<usize, ClientError> {
                self.poll(timeout)
            }
            fn flush(&mut self, deadline: Instant) -> Result<(), ClientError> {
                self.flush(deadline)
            }
            fn close(self: Box<Self>, deadline: Instant) -> Result<(), ClientError> {
                (*self).close(deadline)
            }
            fn session(&self) -> u64 {
                self.session()
            }
            fn order_level(&self) -> OrderLevel {
                self.order_level()
            }
            fn messages_sent(&self) -> u64 {
                self.messages_sent()
            }
            fn messages_acked(&self) -> u64 {
                self.messages_acked()
            }
            fn bytes_acked(&self) -> u64 {
                self.bytes_acked()
            }
            fn in_flight(&self) -> usize {
                self.in_flight()
            }
            fn batch_message_bytes_max(&self) -> u64 {
                self.batch_message_bytes_max()
            }
            fn progress_line(&self, total: u64) -> String {
                self.progress_line(total)
            }
        }
    };
}

publish!(Publisher);
publish!(AttachedPublisher);

/// A subscriber: over TCP ([`Subscriber`]) or attached ([`AttachedSubscriber`]). Each method is told of, with its errors, at the
/// method of the same name there.
#[allow(missing_docs)]
pub trait Subscribe {
    fn poll(&mut self, timeout: Duration, handler: &mut dyn FnMut(&Delivered<'_>)) -> Result<usize, ClientError>;
    fn next_order(&self) -> u64;
    fn caught_up(&self) -> bool;
    fn topic(&self) -> &str;
    fn order_level(&self) -> OrderLevel;
}

macro_rules! subscribe {
    ($type:ty) => {
        impl Subscribe for $type {
            fn poll(
                &mut self,
                timeout: Duration,
                handler: &mut dyn FnMut(&Delivered<'_>),
            ) -> Result<usize, ClientError> {
                self.poll(timeout, handler)
            }
            fn next_order(&self) -> u64 {
                self.next_order()
            }
            fn caught_up(&self) -> bool {
                self.caught_up()
            }
            fn topic(&self) -> &str {
                self.topic()
            }
            fn order_level(&self) -> OrderLevel {
                self.order_level()
            }
        }
    };
}

subscribe!(Subscriber);
subscribe!(AttachedSubscriber);
