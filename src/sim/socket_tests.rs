//! The simulated network keeps to the contract that the real one is held to.

use std::sync::{Arc, Mutex};

use crate::net::conformance::{Bed, conformance};
use crate::net::{Asker, Completion, Network, Operation};
use crate::pool::Memory;
use crate::runtime::Io;
use crate::sim::kernel::{Kernel, Shared, State, lock};
use crate::sim::network::{End, Heard};
use crate::sim::part::Part;
use crate::sim::process::Interrupts;
use crate::sim::scenario::Scenario;
use crate::sim::socket::{Listener, SimSocket, Sockets};
use crate::testing::memory::Whim;

/// A world in which nothing goes wrong, seen by the first process of it.
struct World {
    world: Shared,
    kernel: Kernel,
    sockets: Sockets,
}

impl Bed for World {
    type N = Sockets;

    fn new(operations_max: u32) -> World {
        let scenario = Scenario { whim: Whim::NONE, ..Scenario::new(1) };
        let world = Arc::new(Mutex::new(State::new(scenario)));
        lock(&world).is_calm = true;
        let (part, interrupts) = (Part::Receive(0, 0), Interrupts::new(Box::new(|_| ())));
        let kernel = Kernel { world: world.clone(), part, process: 0, life: 1, interrupts };
        let sockets = Sockets::new(&kernel, operations_max);
        World { world, kernel, sockets }
    }

    fn net(&mut self) -> &mut Sockets {
        &mut self.sockets
    }

    fn accept(&mut self, asker: Asker) -> Operation {
        self.sockets.accept(asker, &Listener(0)).unwrap()
    }

    fn pass(&mut self) {
        lock(&self.world).now_ns += 100_000;
    }

    fn next(&mut self) -> Option<Completion> {
        self.pass();
        self.sockets.submit(None).unwrap();
        self.sockets.next_completion()
    }

    fn connect(&mut self) -> (SimSocket, usize) {
        let peer = self.dial();
        assert_eq!(lock(&self.world).network.accept(0), Some(peer));
        (SimSocket::new(&self.kernel, peer), peer)
    }

    fn dial(&mut self) -> usize {
        lock(&self.world).network.connect(Part::Publisher(0), 0)
    }

    fn write(&mut self, peer: usize, bytes: &[u8]) {
        assert_eq!(self.kernel.write(peer, End::Client, bytes), Some(bytes.len()));
    }

    fn read(&mut self, peer: usize) -> Option<Vec<u8>> {
        match self.kernel.read(peer, End::Client, 1 << 16) {
            Heard::Bytes(bytes) => Some(bytes),
            Heard::Nothing => Some(Vec::new()),
            Heard::End => None,
        }
    }

    fn close(&mut self, peer: usize) {
        self.kernel.close(peer, End::Client);
    }

    fn fill_pool(&mut self, at: u64, bytes: &[u8]) {
        self.kernel.view().memory.copy_in(at, bytes);
    }
}

conformance!(World);
