//! Two machines that take themselves for the same host of the pool.
//!
//! Locks hold on one machine only, and a line has one writer because its home host's locks say so. A machine whose configuration
//! names another one's host number would write that one's lines. Members say which run of which machine they are on: whoever
//! takes a member's place looks whether somebody with its host number beats on another machine.

use std::ops::Range;
use std::time::{Duration, Instant};

use crate::log::View;
use crate::pool::line;
use crate::pool::record::{BrokerLine, member_state};
use crate::pool::{Access, Memory};

/// How long a member is watched for a beat. A broker's come at least every 100 ms; an attached process beats only while it is used.
const WATCH: Duration = Duration::from_millis(500);
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// A member that lives on another machine under this one's host number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "member {member} of it lives on another machine that takes itself for host {host} too (process {process} there): give each machine a host number of its own (`brokers[].host`), and start on each the brokers of its host"
)]
pub struct Namesake {
    /// The member.
    pub member: u32,
    /// The number both machines have.
    pub host: u32,
    /// Its process, as numbered there.
    pub process: u64,
}

/// Looks for one of these members on another machine that beats under our host number. At once if no line was left there by another one.
///
/// # Errors
/// The first such member.
pub fn look_for_namesake<M: Memory>(view: &View<M>, members: Range<u32>, boot_id: u64) -> Result<(), Namesake> {
    let host = view.host();
    let look = |member: u32| {
        // From the pool: what this machine has in its cache says nothing of another's.
        let seen = line::observe::<_, BrokerLine>(&view.memory, view.layout.broker_line(member), Access::Remote);
        let record = seen?.1;
        let is_other = record.host == u64::from(host) && record.boot_id != boot_id && record.boot_id != 0;
        (is_other && record.state != member_state::STOPPED).then_some(record)
    };
    let mut left: Vec<(u32, BrokerLine)> = members.filter_map(|member| Some((member, look(member)?))).collect();
    let deadline = Instant::now() + WATCH;
    while boot_id != 0 && !left.is_empty() && Instant::now() < deadline {
        std::thread::sleep(LOOK_EVERY);
        for (member, before) in &mut left {
            match look(*member) {
                Some(now) if now.heartbeat != before.heartbeat || now.incarnation != before.incarnation => {
                    return Err(Namesake { member: *member, host, process: now.process });
                }
                _ => {}
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::member::{BEAT_NS, Member};
    use crate::log::views::plain_view;
    use crate::pool::Process;

    #[test]
    fn a_machine_with_our_host_number_is_noticed_while_it_beats() {
        let view = plain_view(1);
        let process = |boot_id| Process { id: 70, started_at_utc_ns: 1, boot_id };
        let mut member = Member::announce(&view, 1, process(5));
        assert_eq!(look_for_namesake(&view, 0..2, 5), Ok(()), "it is on this machine");
        assert_eq!(look_for_namesake(&view, 0..2, 6), Ok(()), "it was, before a reboot: it does not beat");
        let watched = view.clone();
        let other = std::thread::spawn(move || look_for_namesake(&watched, 0..2, 6));
        let mut now_ns = 0;
        while !other.is_finished() {
            now_ns += BEAT_NS;
            member.beat(now_ns);
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(other.join().unwrap(), Err(Namesake { member: 1, host: 0, process: 70 }));
        member.stop();
        assert_eq!(look_for_namesake(&view, 0..2, 6), Ok(()));
    }
}
