//! The numbers with a name in fields of frames: levels, roles, operations.

use crate::wire::error::WireError;

macro_rules! level {
    ($(#[$meta:meta])* $name:ident, $field:literal, $expected:literal { $( $(#[$vmeta:meta])* $variant:ident = $value:literal ),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum $name { $( $(#[$vmeta])* $variant = $value ),* }
        impl $name {
            /// All levels.
            pub const ALL: &'static [$name] = &[ $( $name::$variant ),* ];
            /// The level of this number.
            pub fn from_byte(byte: u8) -> Result<$name, WireError> {
                match byte {
                    $( $value => Ok($name::$variant), )*
                    found => Err(WireError::Field { field: $field, found: found.into(), expected: $expected }),
                }
            }
        }
        impl std::fmt::Display for $name {
            fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(out, "{}", *self as u8)
            }
        }
    };
}

level! {
    /// What a topic promises about order.
    OrderLevel, "order_level", "0, 1, 2, 4 or 5" {
        /// No order; acked when the batch is in the blog.
        None = 0,
        /// Order within a broker.
        Broker = 1,
        /// One total order, no promise per client.
        Total = 2,
        /// One total order, first in first out per connection.
        Connection = 4,
        /// One total order, first in first out per session over all brokers, exactly once.
        Session = 5,
    }
}

level! {
    /// What an acknowledgement means.
    AckLevel, "ack_level", "0, 1 or 2" {
        /// Nothing is acked.
        None = 0,
        /// The batch's order is visible in the pool.
        Committed = 1,
        /// RF - 1 replicas have synced it.
        Durable = 2,
    }
}

level! {
    /// Where the broker stamps the time of receipt.
    Receipts, "receipts", "0 (batch) or 1 (message)" {
        /// In the batch header only.
        Batch = 0,
        /// In the batch header and in every message header.
        Message = 1,
    }
}

level! {
    /// What becomes of a subscriber that keeps memory from being used again.
    SlowReader, "slow_reader", "0 (as configured), 1 (wait), 2 (skip) or 3 (disconnect)" {
        /// What the broker's configuration says.
        AsConfigured = 0,
        /// Publishers wait for it, up to a lag.
        Wait = 1,
        /// It is told what it missed, and goes on with the earliest that is kept.
        Skip = 2,
        /// It is disconnected.
        Disconnect = 3,
    }
}

level! {
    /// What a connection is for.
    Role, "role", "1 (publisher) or 2 (subscriber)" {
        /// Sends batches, receives acks.
        Publisher = 1,
        /// Receives batches in order.
        Subscriber = 2,
    }
}

level! {
    /// What a request asks for.
    Operation, "operation", "1 to 8" {
        /// Create a topic.
        TopicCreate = 1,
        /// List topics.
        TopicList = 2,
        /// Describe a topic.
        TopicDescribe = 3,
        /// Delete a topic.
        TopicDelete = 4,
        /// Set a named cursor of a topic.
        CursorCommit = 5,
        /// Read a named cursor.
        CursorRead = 6,
        /// List a topic's named cursors.
        CursorList = 7,
        /// Delete a named cursor.
        CursorDelete = 8,
    }
}
