//! A consumer's named cursor: where it resumes, at any broker, after any crash.

use std::time::Duration;

use crate::client::admin::Admin;
use crate::client::error::ClientError;
use crate::client::numbers::Order;
use crate::client::options::Start;

/// A named cursor of one topic.
///
/// What was handled before the last commit is not seen again, what came after it is: commit after the work is done for "at least
/// once", before it for "at most once". The cursor of a topic goes with it. It keeps nothing from being trimmed.
#[derive(Debug)]
pub struct Cursor {
    admin: Admin,
    topic: String,
    name: String,
    committed: Option<Order>,
}

impl Cursor {
    /// Reads where the cursor stands. It need not exist: the first commit makes it.
    ///
    /// # Errors
    /// As [`Admin::cursor`].
    pub fn open(brokers: &[String], topic: &str, name: &str, timeout: Duration) -> Result<Cursor, ClientError> {
        let mut admin = Admin::new(brokers)?;
        let committed = admin.cursor(topic, name, timeout)?;
        Ok(Cursor { admin, topic: topic.to_owned(), name: name.to_owned(), committed })
    }

    /// Order of the next message as last committed; none if nothing ever was.
    #[must_use]
    pub fn committed(&self) -> Option<Order> {
        self.committed
    }

    /// Where a subscriber resumes; at `otherwise` if nothing was committed.
    #[must_use]
    pub fn start(&self, otherwise: Start) -> Start {
        self.committed.map_or(otherwise, Start::Order)
    }

    /// Commits the order of the next message wanted, [`Subscriber::next_order`](crate::client::Subscriber::next_order) as a
    /// rule. Asks nobody if it stands there already.
    ///
    /// # Errors
    /// As [`Admin::commit_cursor`].
    pub fn commit(&mut self, order: Order, timeout: Duration) -> Result<(), ClientError> {
        if self.committed != Some(order) {
            self.admin.commit_cursor(&self.topic, &self.name, order, timeout)?;
            self.committed = Some(order);
        }
        Ok(())
    }
}
