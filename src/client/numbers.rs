//! Numbers that users meet, each of a type of its own: an order given where a position is meant does not compile.

use std::cmp::Ordering;
use std::fmt;
use std::ops::{Add, AddAssign, Sub};

macro_rules! numbers {
    ($($(#[$meta:meta])* $name:ident;)*) => {$(
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(
            /// As it is on the wire.
            pub u64,
        );

        impl fmt::Display for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(out)
            }
        }

        impl fmt::LowerHex for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(out)
            }
        }

        impl PartialEq<u64> for $name {
            fn eq(&self, number: &u64) -> bool {
                self.0 == *number
            }
        }

        impl PartialOrd<u64> for $name {
            fn partial_cmp(&self, number: &u64) -> Option<Ordering> {
                self.0.partial_cmp(number)
            }
        }

        impl From<u64> for $name {
            fn from(number: u64) -> $name {
                $name(number)
            }
        }

        impl From<$name> for u64 {
            fn from(number: $name) -> u64 {
                number.0
            }
        }
    )*};
}

macro_rules! counted {
    ($($name:ident)*) => {$(
        /// So many further.
        impl Add<u64> for $name {
            type Output = $name;
            fn add(self, count: u64) -> $name {
                $name(self.0 + count)
            }
        }

        impl AddAssign<u64> for $name {
            fn add_assign(&mut self, count: u64) {
                self.0 += count;
            }
        }

        /// How many lie between.
        impl Sub for $name {
            type Output = u64;
            fn sub(self, before: $name) -> u64 {
                self.0 - before.0
            }
        }
    )*};
}

numbers! {
    /// The number of a message in its topic's total order, from 0, without gaps.
    Order;
    /// A place in the pool's order index, where batches of all topics stand one behind the other: ascends, with gaps for other
    /// topics and control events.
    Position;
    /// Who published: a publisher's session, over all its connections.
    SessionId;
    /// The number of a batch in its session, from 0.
    BatchSeq;
}

counted!(Order Position BatchSeq);
