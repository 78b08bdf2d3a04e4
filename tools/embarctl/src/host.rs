//! `embarctl host`: what an operator knows of a host and no process can find out: that it is off.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use embarcadero::log::estate::{Forgotten, LostHost};
use embarcadero::log::{Homes, View};
use embarcadero::pool::region::LockName;
use embarcadero::pool::{Mapped, Pool, Software};

use crate::Ended;
use crate::common::print;
use crate::error::CommandError;

/// What is to be done.
#[derive(Debug, Subcommand)]
pub enum HostCommand {
    /// Give back the memory that a host had which was powered off and does not come back soon.
    ///
    /// Its processes ended without a word, so their memory is kept for them: they may only stand still. If the host comes back it is a host like
    /// any other. Do not switch it on before this is done; if this is interrupted, run it again from the same machine first.
    Forget(ForgetArgs),
}

/// Which host.
#[derive(Debug, Args)]
pub struct ForgetArgs {
    /// The host's number.
    host: u32,
    /// It is off: a process of it that only stood still would write over what others keep.
    #[arg(long)]
    powered_off: bool,
    /// The pool: a file or a devdax device.
    #[arg(long, default_value = "/dev/shm/embarcadero", value_name = "PATH")]
    pool: PathBuf,
}

/// Does it.
pub fn run(command: &HostCommand) -> Result<Ended, CommandError> {
    let HostCommand::Forget(args) = command;
    if !args.powered_off {
        return Err(CommandError::Usage(
            "say --powered-off if the host is: what a process of it wrote later would lie in memory of others",
        ));
    }
    let pool = Pool::inspect(&args.pool)?;
    print(&told(args.host, forget(&pool, args.host, WATCHED)?))?;
    Ok(Ended::Done)
}

/// How long the host is watched. A broker whose threads rest beats each `threads.rest_max` at least, which is up to a second.
const WATCHED: Duration = Duration::from_secs(3);
const LOOK_EVERY: Duration = Duration::from_millis(50);

fn forget(pool: &Pool, host: u32, watched: Duration) -> Result<Forgotten, CommandError> {
    let hosts = pool.layout().geometry.hosts;
    if host >= hosts {
        return Err(CommandError::NoHost { found: host, last: hosts - 1 });
    }
    let homes = Homes::new(Homes::NOWHERE, pool.superblock().homes());
    let view = View::new(Mapped::<Software>::new(Arc::clone(pool.mapping())), Arc::clone(pool.layout()), homes);
    if let Some(who) = who_runs_here(pool, &view, host)? {
        return Err(CommandError::HostLives { host, who: format!("{who} runs on this machine") });
    }
    let (lost, begun) = (LostHost::watch(&view, host), Instant::now());
    while begun.elapsed() < watched {
        std::thread::sleep(LOOK_EVERY);
        if let Some(who) = lost.who_lives() {
            return Err(CommandError::HostLives { host, who: format!("{who} shows life") });
        }
    }
    lost.forget().map_err(|source| CommandError::Damaged { host, source })
}

/// Who of the host has a lock on this machine, which two hosts of a pool in a file share.
fn who_runs_here(pool: &Pool, view: &View<Mapped<Software>>, host: u32) -> Result<Option<String>, CommandError> {
    let members = view.members_of(host).map(|member| pool.member_lock(member));
    for lock in members.chain(view.candidates_of(host).map(LockName::Candidate)) {
        if pool.is_locked(lock)? {
            return Ok(Some(lock.to_string().replacen("its ", "", 1)));
        }
    }
    Ok(None)
}

fn told(host: u32, forgotten: Forgotten) -> String {
    let Forgotten { members, extents, left } = forgotten;
    let more = match left {
        0 => String::new(),
        _ => format!("; {left} more wait until a sequencer has made room in their rings: run this again then"),
    };
    format!(
        "host {host} is forgotten; members that had not said that they stopped: {members}; extents that go back to the stock: {extents}{more}\n"
    )
}

#[cfg(test)]
mod tests {
    use embarcadero::log::appender::Appender;
    use embarcadero::log::estate::held_extents;
    use embarcadero::log::member::{BEAT_NS, Member};
    use embarcadero::pool::region::Create;
    use embarcadero::pool::superblock::HomeHosts;
    use embarcadero::pool::{Geometry, Process};
    use embarcadero::testing::memory::small_geometry;

    use super::*;

    #[test]
    fn a_host_that_is_off_is_forgotten_and_one_that_lives_is_not() {
        let path = std::env::temp_dir().join(format!("embarctl-host-{}", std::process::id()));
        let geometry = Geometry { hosts: 2, ..small_geometry(1) };
        let homes = HomeHosts { brokers: vec![0, 1], candidates: vec![0] };
        let pool = Pool::open(&path, geometry, &homes, false, Create::IfMissing).unwrap();
        let homes = Homes::new(1, homes);
        let there = View::new(Mapped::<Software>::new(Arc::clone(pool.mapping())), Arc::clone(pool.layout()), homes);
        let mut member = Member::announce(&there, 1, Process { id: 70, started_at_utc_ns: 1, boot_id: 9 });
        let appender = Appender::take(&there, 1);
        let short = Duration::from_millis(200);
        let refused = |host| forget(&pool, host, short).unwrap_err().to_string();
        assert_eq!(refused(2), "there is no host 2: the pool has hosts 0 to 1");
        let lock = pool.lock(LockName::Broker(1)).unwrap();
        let told = refused(1);
        assert!(told.contains("broker 1 runs on this machine"), "{told}");
        drop(lock);
        std::thread::scope(|scope| {
            let told = scope.spawn(|| refused(1));
            let mut beats = 0;
            while !told.is_finished() {
                beats += 1;
                member.beat(beats * BEAT_NS);
                std::thread::sleep(Duration::from_millis(5));
            }
            let told = told.join().unwrap();
            assert!(told.contains("broker 1 shows life"), "{told}");
        });
        let held = held_extents(&there)[1];
        drop(appender);
        let forgotten = forget(&pool, 1, short).unwrap();
        assert_eq!(forgotten, Forgotten { members: 1, extents: held, left: 0 });
        assert!(held > 0 && held_extents(&there)[1] == 0);
        assert_eq!(forget(&pool, 1, short).unwrap(), Forgotten::default(), "nothing is left to be done");
        std::fs::remove_file(&path).unwrap();
    }
}
