//! Threads: what runs on them, when they rest, how they end.
//!
//! * [`role`]: the contract between a role and the loop that drives it.
//! * [`runner`]: the only loop.
//! * [`mod@plan`]: roles on threads, threads on cores; a pure function.
//! * [`idle`]: what a thread does when nothing moves.
//! * [`clock`]: one reading of the time per pass.
//! * [`ticks`]: where the time of a thread went.
//! * [`shutdown`]: signals, drain, stop.
//! * [`cpu`]: usable cores, pinning, NUMA. [`machine`]: limits of this process, and what they leave.
//! * [`logging`]: the log's queue and thread. [`fault`]: memory of the pool that is not there any more.
//!
//! Nothing here knows what a role does or what io it uses; [`mod@plan`] takes its settings from `config`.

pub mod clock;
pub mod cpu;
pub mod fault;
pub mod idle;
pub mod logging;
pub mod machine;
mod os;
pub mod plan;
pub mod role;
pub mod runner;
pub mod shutdown;
pub mod ticks;

pub use clock::{Clock, Now, SystemClock};
pub use idle::IdlePolicy;
pub use plan::{Plan, PlanError, RoleSpec, ThreadPlan, plan};
pub use role::{Blocked, Io, Role, RoleError, RoleKind};
pub use runner::{Runner, RunnerError, spawn};
pub use shutdown::Shutdown;
pub use ticks::{TickCounts, Ticks};
