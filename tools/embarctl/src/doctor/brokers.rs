//! What brokers take at their start: their ports, and the pool.

use std::io;
use std::net::SocketAddr;

use embarcadero::config::Create;
use embarcadero::pool::PoolError;
use embarcadero::pool::superblock::{LAYOUT_VERSION, SuperblockError};

use super::Seen;
use super::asked::{Place, PoolSaid};
use super::report::{Check, State};
use super::tree::size;

/// All of this group.
pub fn checks(seen: &Seen<'_>) -> Vec<Check> {
    vec![ports(seen), chance_ports(seen), pool(seen)]
}

/// Brokers that run in the pool by now.
fn running(seen: &Seen<'_>) -> usize {
    seen.asked.pool.as_ref().map_or(0, |pool| pool.brokers)
}

fn ports(seen: &Seen<'_>) -> Check {
    const NAME: &str = "ports";
    let all = seen.asked.ports.iter().map(|(address, _)| address.to_string()).collect::<Vec<_>>().join(", ");
    let mut refused: Vec<(&SocketAddr, &io::Error)> =
        seen.asked.ports.iter().filter_map(|(address, result)| Some((address, result.as_ref().err()?))).collect();
    // One that something can be done about first.
    refused.sort_by_key(|(_, error)| error.kind() == io::ErrorKind::AddrInUse);
    let Some((address, error)) = refused.first() else {
        return Check::new(NAME, State::Ok, format!("free: {all}"));
    };
    let words = refused.iter().map(|(address, error)| format!("{address} ({error})")).collect::<Vec<_>>().join(", ");
    let check = Check::new(NAME, State::Fail, format!("cannot be listened at: {words}"));
    match error.kind() {
        io::ErrorKind::AddrInUse if running(seen) > 0 => Check {
            state: State::Note,
            found: format!("in use, and {} of this pool on this machine", counted_running(seen)),
            ..check
        }
        .needed("nothing, if they are these brokers")
        .remedy(format!("ss -ltnp 'sport = :{}'        # who has it", address.port())),
        io::ErrorKind::AddrInUse => check
            .needed("ports that nobody has")
            .remedy(format!("ss -ltnp 'sport = :{}'        # who has it", address.port())),
        io::ErrorKind::PermissionDenied => check
            .needed("ports from 1024 on, or the right to lower ones")
            .remedy("AmbientCapabilities=CAP_NET_BIND_SERVICE        # in the unit"),
        io::ErrorKind::AddrNotAvailable => check
            .needed("addresses of this machine")
            .remedy(format!("brokers: [{{ address: \"0.0.0.0:{}\", advertise: \"NAME:{0}\" }}]", address.port()))
            .remedy("ip -brief address        # those there are"),
        _ => check.needed("addresses of this machine, and ports that nobody has"),
    }
}

fn counted_running(seen: &Seen<'_>) -> String {
    match running(seen) {
        1 => "1 broker runs".into(),
        count => format!("{count} brokers run"),
    }
}

/// A port that the kernel gives to whoever connects somewhere may be taken when a broker wants it.
fn chance_ports(seen: &Seen<'_>) -> Check {
    const NAME: &str = "ports given by chance";
    let range = seen.tree.text("proc/sys/net/ipv4/ip_local_port_range").and_then(|text| {
        let mut words = text.split_whitespace().map(str::parse::<u16>);
        Some((words.next()?.ok()?, words.next()?.ok()?))
    });
    let Some((from, to)) = range else { return Check::unknown(NAME, "net.ipv4.ip_local_port_range") };
    let mut reserved = String::from(",");
    reserved += &seen.tree.text("proc/sys/net/ipv4/ip_local_reserved_ports").unwrap_or_default();
    let is_reserved = |port: u16| {
        embarcadero::runtime::cpu::parse_cores(&reserved[1..]).is_some_and(|ports| ports.contains(&port.into()))
    };
    let ports: Vec<u16> = seen.asked.ports.iter().map(|(address, _)| address.port()).collect();
    let within: Vec<String> =
        ports.iter().filter(|port| (from..=to).contains(*port) && !is_reserved(**port)).map(u16::to_string).collect();
    Check::new(
        NAME,
        State::Note,
        format!("{from} to {to}; of these brokers: {}", if within.is_empty() { "none" } else { "some" }),
    )
    .needed(format!(
        "{} kept for them: a connection to somewhere else may have one just when a broker starts",
        within.join(", ")
    ))
    .remedy(format!("sysctl -w net.ipv4.ip_local_reserved_ports={}", within.join(",")))
    .ok_if(within.is_empty())
}

fn pool(seen: &Seen<'_>) -> Check {
    const NAME: &str = "pool";
    match &seen.asked.pool {
        Ok(said) => readable(seen, said),
        Err(
            PoolError::Missing { .. }
            | PoolError::Superblock {
                source: SuperblockError::Short { found: 0 } | SuperblockError::Unformatted, ..
            },
        ) if seen.needs.config.pool.create == Create::IfMissing && !seen.asked.place.is_device() => {
            Check::new(NAME, State::Ok, "there is none yet; a broker makes it (pool.create: if_missing)")
        }
        Err(error) => {
            let check = Check::new(NAME, State::Fail, without_path(seen, error))
                .needed(format!("a pool of layout version {LAYOUT_VERSION} that this user may read and write"));
            match (error, seen.asked.place) {
                // The device itself is looked at in its own group.
                (_, Place::NoDevice) => check,
                (PoolError::Permission { .. }, _) => {
                    check.remedy(format!("chown embarcadero: {}", seen.needs.pool().display()))
                }
                // What may be somebody else's is better left alone.
                (
                    PoolError::Superblock {
                        source: SuperblockError::Foreign { .. } | SuperblockError::Short { .. } | SuperblockError::Zeros,
                        ..
                    }
                    | PoolError::Kind { .. }
                    | PoolError::Directory { .. },
                    _,
                ) => check.remedy("pool: { path: /dev/shm/embarcadero }        # another path, in the configuration"),
                (PoolError::Missing { .. } | PoolError::Superblock { .. }, _) => {
                    check.remedy("embarlet --config FILE --format-only        # what is there is lost")
                }
                _ => check,
            }
        }
    }
}

/// The path is said at the head already.
fn without_path(seen: &Seen<'_>, error: &PoolError) -> String {
    error.to_string().replacen(&format!("pool {}: ", seen.needs.pool().display()), "", 1)
}

fn readable(seen: &Seen<'_>, said: &PoolSaid) -> Check {
    const NAME: &str = "pool";
    let runs =
        if said.brokers > 0 { format!("; {} in it on this machine", counted_running(seen)) } else { String::new() };
    let found = format!("{} of layout version {LAYOUT_VERSION}{runs}", size(said.bytes));
    if let Err(error) = &said.agrees {
        return Check::new(NAME, State::Fail, format!("{found}; {}", without_path(seen, error)))
            .needed("a pool that was formatted as the configuration says")
            .remedy("embarctl doctor --config FILE        # if it was formatted by another one")
            .remedy("embarlet --config FILE --format-only        # else: what is in it is lost");
    }
    match &said.writable {
        Ok(()) => Check::new(NAME, State::Ok, format!("{found}; formatted as the configuration says")),
        Err(error) => Check::new(NAME, State::Fail, format!("{found}; it can be read, and not written: {error}"))
            .needed("the right to write it, for the user that runs brokers")
            .remedy(format!("chown embarcadero: {}", seen.needs.pool().display()))
            .remedy(format!("runuser -u embarcadero -- embarctl doctor --pool {}", seen.needs.pool().display())),
    }
}
