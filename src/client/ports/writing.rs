//! What a publisher's connections are given to write, and what is reported of it.

use std::io::IoSlice;
use std::time::Instant;

use super::{PortState, Ports};
use crate::client::batch::{Buffer, SealedBatch};
use crate::client::error::ClientError;
use crate::client::progress::AckedBatch;
use crate::limits::FRAME_HEADER_BYTES;

impl Ports {
    /// Takes a sealed batch; the window must not be full.
    pub fn push(&mut self, batch: SealedBatch) {
        self.window.push(batch);
    }

    /// Sends again what is due for that, and gives waiting batches to connections with room. Returns how many batches moved.
    pub fn assign(&mut self, now: Instant) -> usize {
        self.window.on_time(now) + self.window.assign(now)
    }

    /// Fills `slices` with what a port's connection may write now, in order. Returns how many are filled.
    pub fn to_write<'a>(&'a self, index: usize, now: Instant, slices: &mut [IoSlice<'a>]) -> usize {
        if !self.is_up(index) {
            return 0;
        }
        match self.unsaid(index, now) {
            0 => self.window.to_write(index, now, slices),
            unsaid => {
                slices[0] = IoSlice::new(&self.heartbeat[FRAME_HEADER_BYTES - unsaid..]);
                1
            }
        }
    }

    /// Bytes of a heartbeat that go before anything else: we say that we are here where nothing was written for a while.
    fn unsaid(&self, index: usize, now: Instant) -> usize {
        self.ports[index].pulse.unsaid(self.window.is_between_frames(index), now)
    }

    /// The connection took so many bytes of what was [`to_write`](Ports::to_write) at this moment. True: some of them were a batch's.
    pub fn wrote(&mut self, index: usize, bytes: usize, now: Instant) -> bool {
        let unsaid = self.unsaid(index, now);
        if unsaid > 0 {
            self.ports[index].pulse.said(unsaid, bytes, now);
            return false;
        }
        if bytes > 0 {
            self.window.wrote(index, bytes, now);
            self.ports[index].pulse.wrote(now);
        }
        bytes > 0
    }

    /// What a port must still write, if it is up, before another frame can begin: the rest of one that is half written, acked or not.
    pub fn rest_of_frame(&self, index: usize) -> &[u8] {
        match self.ports[index].pulse.half_said() {
            0 => self.window.rest_of_frame(index),
            unsaid => &self.heartbeat[FRAME_HEADER_BYTES - unsaid..],
        }
    }

    /// A batch that was acked since the last call.
    pub fn pop_acked(&mut self) -> Option<AckedBatch> {
        self.window.pop_acked()
    }

    /// A buffer that came free.
    pub fn pop_buffer(&mut self) -> Option<Buffer> {
        self.window.pop_buffer()
    }

    /// Why no call can succeed any more: a refusal that trying again cannot change.
    pub fn failed(&self) -> Option<&ClientError> {
        self.failed.as_ref()
    }

    /// Brings the numbers of every broker up to date.
    pub fn count(&mut self) {
        for broker in &mut self.brokers {
            (broker.sent, broker.acked, broker.connected) = (0, 0, false);
        }
        // At level 5 every connection to a broker repeats the broker's one number for the session.
        let is_shared = self.session.is_shared();
        for (link, port) in self.ports.iter().enumerate() {
            let broker = &mut self.brokers[port.broker];
            let acked = self.window.acked_messages(link);
            broker.acked = if is_shared { broker.acked.max(acked) } else { broker.acked + acked };
            broker.sent += self.window.sent_messages(link);
            broker.connected |= port.state == PortState::Up;
        }
    }
}
