//! Housekeeping: a broker process that looks after what dead members of its host have; and an operator who says that a host is off.

use crate::log::estate::LostHost;
use crate::roles::caretaker::Caretaker;
use crate::sim::kernel::{Actor, Kernel};
use crate::sim::process::ProcessMemory;
use crate::sim::trace::Event;

/// One in so many steps it looks: a look takes all extents' lines.
const LOOK_ONE_IN: u64 = 40;
/// One in so many steps in which a host is off, the operator says so.
const FORGET_ONE_IN: u64 = 6;

/// See the head of the file.
pub(super) struct Housekeeping {
    caretaker: Caretaker<ProcessMemory>,
}

impl Housekeeping {
    pub fn new(kernel: &Kernel) -> Housekeeping {
        Housekeeping { caretaker: Caretaker::new(&kernel.view()) }
    }
}

impl Actor for Housekeeping {
    fn step(&mut self, kernel: &Kernel) {
        if kernel.is_stopping() {
            return kernel.with(|state| state.drained(kernel.part, true));
        }
        if kernel.chance(1, LOOK_ONE_IN) {
            let given = self.caretaker.look(kernel);
            if given > 0 {
                kernel.note(Event::GivenBack(kernel.part, given));
            }
        }
    }
}

/// Forgets hosts that are off, from a host of its own. One that was begun with stays off until it is done, whatever becomes of the process.
pub(super) struct Operator {
    host: usize,
}

impl Operator {
    pub fn new(host: u32) -> Operator {
        Operator { host: host as usize }
    }
}

impl Actor for Operator {
    fn step(&mut self, kernel: &Kernel) {
        let wants = kernel.chance(1, FORGET_ONE_IN);
        let Some(host) = kernel.with(|state| state.begin_to_forget(self.host, wants)) else { return };
        let view = kernel.view();
        let lost = LostHost::watch(&view, host as u32);
        if let Some(who) = lost.who_lives() {
            kernel.fail(0, format!("host {host} is off, and {who} of it is taken to live"));
        }
        match lost.forget() {
            Ok(forgotten) if forgotten.extents > 0 => kernel.note(Event::GivenBack(kernel.part, forgotten.extents)),
            Ok(_) => {}
            Err(fault) => kernel.fail(0, format!("host {host} cannot be forgotten: {fault}")),
        }
        kernel.with(|state| state.has_forgotten(host));
    }
}
