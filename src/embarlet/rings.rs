//! What each role needs of the ring of its thread.

use crate::config::Config;
use crate::net::Ring;
use crate::pool::{Mapped, Software};
use crate::roles::ack::AckRole;
use crate::roles::receive::SPARE_CONNECTIONS;
use crate::runtime::RoleKind;

/// Operations of a ring that no role asked for: cancels, and what a role has two of for a moment.
const OPERATIONS_BESIDE: u32 = 16;

/// A part of a ring, or a whole one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingShare {
    /// Most operations in flight.
    pub operations: u32,
    /// Frames of 64 bytes, registered with the kernel.
    pub frames: u32,
}

impl RingShare {
    /// What a role of this kind needs.
    pub fn of_role(config: &Config, kind: RoleKind) -> RingShare {
        let seats = config.receive.connections_max + SPARE_CONNECTIONS;
        match kind {
            RoleKind::Receive => RingShare { operations: 2 * seats + 1, frames: 0 },
            RoleKind::Sequence => RingShare::default(),
            RoleKind::Ack => {
                // The same on memory of either kind.
                let frames = AckRole::<Mapped<Software>, Ring>::frames_needed(config.geometry.lanes_per_broker, seats);
                RingShare { operations: frames, frames }
            }
            RoleKind::Export => RingShare { operations: 2 * config.export.connections_max, frames: 0 },
        }
    }

    /// The ring of a thread with these roles.
    pub fn of_thread(shares: impl IntoIterator<Item = RingShare>) -> RingShare {
        let begin = RingShare { operations: OPERATIONS_BESIDE, frames: 0 };
        shares.into_iter().fold(begin, |sum, share| RingShare {
            operations: sum.operations + share.operations,
            frames: sum.frames + share.frames,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_has_what_its_roles_need() {
        let mut config = Config::embedded();
        (config.receive.connections_max, config.export.connections_max) = (84, 7);
        let of = |kind| RingShare::of_role(&config, kind);
        assert_eq!(of(RoleKind::Receive), RingShare { operations: 201, frames: 0 });
        assert_eq!(of(RoleKind::Export), RingShare { operations: 14, frames: 0 });
        let ack = of(RoleKind::Ack);
        assert!(ack.frames >= 100 && ack.operations == ack.frames, "{ack:?}");
        let thread = RingShare::of_thread([of(RoleKind::Receive), ack, of(RoleKind::Sequence)]);
        assert_eq!(thread, RingShare { operations: 201 + 16 + ack.frames, frames: ack.frames });
    }
}
