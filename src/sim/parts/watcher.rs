//! Somebody on a host who looks at any lane's slots at any moment: who sees a slot sees every byte of its batch, and its receipt.

use crate::log::View;
use crate::pool::line;
use crate::pool::record::{BatchSlot, slot_kind};
use crate::pool::{Access, Memory};
use crate::sim::checker::Stamps;
use crate::sim::kernel::{Actor, Kernel};
use crate::sim::process::ProcessMemory;
use crate::sim::scenario::Scenario;
use crate::wire::frame::BatchHeader;
use crate::wire::message::Messages;
use crate::wire::{BatchDecoder, Progress};

/// Slots looked at in one step.
const SLOTS_PER_STEP: u64 = 3;

/// See the head of the file.
pub(super) struct Watcher {
    view: View<ProcessMemory>,
    scenario: Scenario,
    /// Per lane: the slot to look at next.
    next: Vec<u64>,
}

impl Watcher {
    pub fn new(kernel: &Kernel) -> Watcher {
        let view = kernel.view();
        let scenario = kernel.with(|state| state.scenario.clone());
        let next = vec![0; view.layout.geometry.lanes() as usize];
        Watcher { view, scenario, next }
    }

    fn look(&mut self, kernel: &Kernel, lane: u32) {
        let place = self.next[lane as usize];
        let access = self.view.access_to_lane(lane);
        let at = self.view.layout.ring_slot(lane, place);
        let Some((guard, slot)) = line::observe::<_, BatchSlot>(&self.view.memory, at, access) else { return };
        let number = guard - 1;
        if number < place {
            return;
        }
        self.next[lane as usize] = number + 1;
        if slot.kind != slot_kind::BATCH {
            return;
        }
        if access == Access::Remote {
            self.view.memory.discard(slot.blog_at, slot.batch_bytes.into());
        }
        let seen = self.view.memory.with_bytes(slot.blog_at, slot.batch_bytes.into(), |bytes| self.check(&slot, bytes));
        match seen {
            Ok(()) => kernel.with(|state| state.receipts_seen += 1),
            // Given up while it was read: a reader without a pin may see that.
            Err(_) if kernel.with(|state| state.may_be_gone(lane, number)) => {}
            Err(text) => kernel.fail(7, format!("slot {number} of lane {lane}: {text}")),
        }
    }

    fn check(&self, slot: &BatchSlot, bytes: &[u8]) -> Result<(), String> {
        let header: BatchHeader = match BatchDecoder::new(u64::MAX).advance(bytes) {
            Ok(Progress::Complete(header)) => header,
            found => return Err(format!("its bytes are not a batch: {found:?}")),
        };
        if (header.session, header.batch_seq) != (slot.session, slot.batch_seq) {
            return Err(format!("its header is another batch's: {header:?}"));
        }
        if header.received_at != slot.received_at {
            return Err(format!("a stale receipt: {} for {}", header.received_at, slot.received_at));
        }
        let mut messages = Messages::new(&bytes[64..64 + header.body_bytes as usize]);
        let stamps = Stamps::of(&self.scenario);
        match messages.find(|message| !stamps.are_sound(message.header.ts, slot.received_at)) {
            Some(message) => Err(format!("a stale receipt: {:?} for {}", message.header, slot.received_at)),
            None => Ok(()),
        }
    }
}

impl Actor for Watcher {
    fn step(&mut self, kernel: &Kernel) {
        for _ in 0..SLOTS_PER_STEP {
            let lane = kernel.below(self.next.len() as u64) as u32;
            self.look(kernel, lane);
        }
    }
}
