//! Where a process shows itself to browsers and scrapers. What was asked for in so many words must be had; what was not does without.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use crate::config::MonitorAddress;
use crate::embarlet::error::StartError;
use crate::monitor::server::{Bounds, Monitor};
use crate::pool::Pool;

/// First port that is taken unless one is configured.
const PORT_FIRST: u16 = 7380;
/// Ports that are tried.
const PORTS_TRIED: u16 = 16;

/// Listens where the configuration says; `entry` is the first broker of this process, by where the configuration lists it.
pub(super) fn listen(address: MonitorAddress, entry: u32) -> Result<Option<TcpListener>, StartError> {
    match address {
        MonitorAddress::Off => Ok(None),
        MonitorAddress::At(address) => {
            let failed = |source| StartError::Show { address, source };
            TcpListener::bind(address).map(Some).map_err(failed)
        }
        MonitorAddress::Auto => {
            let first = PORT_FIRST + (entry % 1024) as u16;
            let mut ports = first..first + PORTS_TRIED;
            let listener = ports.find_map(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok());
            if listener.is_none() {
                log::info!(
                    "no status page: ports {first} to {} of this machine are taken; `monitor.address` names another",
                    first + PORTS_TRIED - 1
                );
            }
            Ok(listener)
        }
    }
}

/// Begins to show the pool. A process that cannot serves all the same.
pub(super) fn begin(listener: TcpListener, pool: &Pool, brokers: &[u32]) -> Option<Monitor> {
    match Monitor::start(listener, pool.clone(), brokers.to_vec(), Bounds::default()) {
        Ok(monitor) => {
            let address: SocketAddr = monitor.address();
            log::info!("status page: http://{address}/ (also /metrics, /healthz, /readyz)");
            Some(monitor)
        }
        Err(error) => {
            log::warn!("no status page: its thread cannot begin: {error}");
            None
        }
    }
}
