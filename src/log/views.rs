//! The pool as simulated hosts see it: for tests.

use std::sync::Arc;

use crate::log::{Homes, View};
use crate::pool::{Geometry, Layout};
use crate::testing::memory::{HostMemory, SharedMemory, Whim, small_geometry};

/// One host, no surprises, the small geometry.
pub fn plain_view(candidates: u32) -> View<HostMemory> {
    view_of(small_geometry(candidates))
}

/// One host, no surprises, another geometry.
pub fn view_of(geometry: Geometry) -> View<HostMemory> {
    let layout = Layout::new(geometry).expect("the geometry fits");
    let memory = SharedMemory::new(layout.geometry.pool_bytes, 1, Whim::NONE, 1).host(0);
    View::single_host(memory, Arc::new(layout))
}

/// The small geometry as each host sees it. `brokers` and `candidates` name their home hosts.
pub fn host_views(
    brokers: [u32; 2],
    candidates: &[u32],
    whim: Whim,
    seed: u64,
) -> (SharedMemory, Vec<View<HostMemory>>) {
    let layout = Arc::new(Layout::new(small_geometry(candidates.len() as u32)).expect("the small geometry fits"));
    let hosts = brokers.iter().chain(candidates).max().expect("there are brokers") + 1;
    let memory = SharedMemory::new(layout.geometry.pool_bytes, hosts as usize, whim, seed);
    let homes = |here| Homes { here, brokers: brokers.to_vec(), candidates: candidates.to_vec() };
    let view = |host: u32| View::new(memory.host(host as usize), layout.clone(), homes(host));
    let views = (0..hosts).map(view).collect();
    (memory, views)
}
