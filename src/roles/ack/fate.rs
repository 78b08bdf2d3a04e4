//! What becomes of a publisher's connection that waits for its session.

use std::cmp::Ordering;

use super::tracker::Tracker;
use crate::order::Origin;
use crate::pool::Memory;
use crate::wire::Refusal;
use crate::wire::frame::NEW_SESSION;

/// Welcomed to the session at this place of the table, or refused: code, detail and text.
pub type Fate = Result<u32, (Refusal, u64, String)>;

/// What is waited for.
pub struct Wait {
    /// The session; 0: the one that was asked for.
    pub session: u64,
    /// Where it, or the next epoch of it, was asked for.
    pub asked: Option<Origin>,
    /// The session epoch it goes by.
    pub session_epoch: u32,
    /// Position from which on it is known what there is; `None`: that is not known yet.
    pub committed: Option<u64>,
    /// It has waited long enough.
    pub is_late: bool,
}

impl Wait {
    /// What becomes of it, as far as is followed; `None`: that is not known yet.
    pub fn fate<M: Memory>(&self, tracker: &Tracker<M>) -> Option<Fate> {
        let refuse = |refusal, detail, text: String| Some(Err((refusal, detail, text)));
        let table = tracker.table();
        let known = match self.session {
            NEW_SESSION => table.opened_by(self.asked?),
            session => table.slot_of(session),
        };
        if let Some(slot) = known {
            let epoch = table.session(slot).epoch;
            return match self.session_epoch.cmp(&epoch) {
                Ordering::Equal => Some(Ok(slot)),
                Ordering::Less => {
                    let text = format!("session epoch {} is over, the current one is {epoch}", self.session_epoch);
                    refuse(Refusal::SessionEpoch, epoch.into(), text)
                }
                Ordering::Greater if self.is_late => {
                    let text = format!("session epoch {} did not open, the current one is {epoch}", self.session_epoch);
                    refuse(Refusal::SessionEpoch, epoch.into(), text)
                }
                Ordering::Greater => None,
            };
        }
        let knows_all = tracker.is_started() && self.committed.is_some_and(|committed| tracker.position() >= committed);
        if self.session != NEW_SESSION && knows_all && self.session_epoch <= 1 {
            let text = format!("session {:#x} is not open: it was closed, or expired", self.session);
            return refuse(Refusal::UnknownSession, 0, text);
        }
        if self.is_late {
            let text = "the session was not opened in time: no sequencer is active";
            return refuse(Refusal::NoSequencer, 0, text.into());
        }
        None
    }
}
