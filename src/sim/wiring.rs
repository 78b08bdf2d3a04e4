//! What the roles of one simulated broker process hand each other.

use std::sync::Arc;

use crate::roles::handoff::{AckLink, Subscriptions};
use crate::sim::part::LinkId;
use crate::sim::socket::SimSocket;

/// It dies with the process.
pub(crate) struct Wiring {
    pub links: Vec<Arc<AckLink<LinkId>>>,
    pub subscriptions: Arc<Subscriptions<SimSocket>>,
    pub incarnation: u64,
}
