//! Who of the pool's members is waited for. A member of whatever host that shows no life is not, from some time on.
//!
//! A member's line beats while its process looks after itself. Silence is counted on this observer's own clock; a local lock that
//! is free only makes it faster, and one that is held proves nothing. Silence moves clocks and lets others go on. It never frees
//! memory that somebody may still write: that takes the end of a process, which only its own host can see.

use crate::log::View;
use crate::log::lane::LaneReader;
use crate::log::member::Silence;
use crate::pool::Memory;
use crate::pool::line::Peer;
use crate::pool::record::{BrokerLine, member_state};

/// How often members are looked at, ns: with many of them, and remote lines, a look takes its time.
pub const ROLL_CALL_NS: u64 = 50_000_000;
/// How often lanes and pins that others wait for are looked at, ns.
pub const LOOK_NS: u64 = 10_000_000;

/// See the head of the file.
pub(super) struct Attendance<M> {
    /// Members below it are brokers.
    brokers: usize,
    /// By member.
    lines: Vec<Peer<BrokerLine, M>>,
    beats: Vec<Silence<(u64, u64)>>,
    is_absent: Vec<bool>,
    /// It said that it stopped, or its process had ended, when it was last looked at.
    is_away: Vec<bool>,
    /// Its process had ended when it was last looked at.
    is_gone: Vec<bool>,
    /// By lane: what those that stand still for want of room last showed.
    lanes: Vec<Silence<(u64, u64)>>,
    is_stalled: Vec<bool>,
}

impl<M: Memory> Attendance<M> {
    /// Nobody was looked at.
    pub fn new(view: &View<M>) -> Self {
        let g = view.layout.geometry;
        let line =
            |member| Peer::new(view.memory.clone(), view.layout.broker_line(member), view.access_to_member(member));
        Attendance {
            brokers: g.brokers as usize,
            lines: (0..g.members()).map(line).collect(),
            beats: vec![Silence::default(); g.members() as usize],
            is_absent: vec![false; g.members() as usize],
            is_away: vec![false; g.members() as usize],
            is_gone: vec![false; g.members() as usize],
            lanes: vec![Silence::default(); g.lanes() as usize],
            is_stalled: vec![false; g.lanes() as usize],
        }
    }

    /// Looks at all members, every [`ROLL_CALL_NS`]. `is_gone` may ask the operating system whether a member's process is no more;
    /// `bury` hears of those, and of the last incarnation that died. Of a broker only once it was silent for as long as others are
    /// waited for: its readers live on, and find what they need elsewhere, or with it when it comes back.
    pub fn call(
        &mut self,
        now_ns: u64,
        silence_ns: u64,
        is_gone: impl Fn(u32) -> bool,
        mut bury: impl FnMut(u32, u64),
    ) {
        for member in 0..self.lines.len() {
            // Its words: it may have been killed while it wrote them. And before its lock: if the process is gone after that, it was
            // this incarnation's or the last one's, and not its successor's.
            let line = self.lines[member].observe_words();
            if line.incarnation == 0 {
                // A place that nobody ever took is not asked about.
                continue;
            }
            let silent_ns = self.beats[member].look((line.incarnation, line.heartbeat), now_ns, ROLL_CALL_NS);
            let is_gone = is_gone(member as u32);
            self.is_gone[member] = is_gone;
            if is_gone && (member >= self.brokers || silent_ns > silence_ns) {
                bury(member as u32, line.incarnation);
            }
            self.is_away[member] = is_gone || line.state == member_state::STOPPED;
            let is_absent = self.is_away[member] || silent_ns > silence_ns;
            if std::mem::replace(&mut self.is_absent[member], is_absent) != is_absent {
                let how = match (is_absent, is_gone) {
                    (false, _) => "is back",
                    (true, true) => "is gone; it is not waited for",
                    (true, false) => "shows no life; it is not waited for",
                };
                log::info!("member {member} of the pool, process {} of host {}, {how}", line.process, line.host);
            }
        }
    }

    /// Looks at a lane that others may have to wait for, every [`LOOK_NS`]: one that is paused and shows no life holds nobody's clock.
    pub fn look_at_lane(&mut self, number: u32, lane: &LaneReader<M>, now_ns: u64, silence_ns: u64) {
        let Some(status) = lane.status() else {
            // Being rewritten, or cut short: what it last showed goes on being all there is.
            return self.is_stalled[number as usize] |=
                self.lanes[number as usize].look_again(now_ns, LOOK_NS) > silence_ns;
        };
        let lane = &mut self.lanes[number as usize];
        if status.paused == 0 {
            lane.broken();
        }
        self.is_stalled[number as usize] = lane.look((status.incarnation, status.beat), now_ns, LOOK_NS) > silence_ns;
    }

    /// Whether a member's process had ended when it was last looked at: told by its own host alone.
    pub fn is_gone(&self, member: u32) -> bool {
        self.is_gone[member as usize]
    }

    /// Whether a member's process had ended, or had said that it ends, when it was last looked at.
    pub fn is_away(&self, member: u32) -> bool {
        self.is_away[member as usize]
    }

    /// Whether a member's process was not found gone, nor silent for too long.
    pub fn is_present(&self, member: u32) -> bool {
        !self.is_absent[member as usize]
    }

    /// Whether a lane's writer is there, and looks after it.
    pub fn is_waited_for(&self, member: u32, lane: u32) -> bool {
        self.is_present(member) && !self.is_stalled[lane as usize]
    }
}
