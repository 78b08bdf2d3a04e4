//! What the tools have in common.
//!
//! * [`arguments`]: quantities and words of a command line. [`clients`]: publishers and subscribers, over TCP or attached.
//! * [`figures`]: the middle of several rounds, and latencies. [`report`]: JSON files, the machine, the commit.
//! * [`schedule`], [`pace`]: when messages are planned, and which is due.
//! * [`clock`], [`interrupt`]: the machine's clock, and the user who wants a program to end.
#![forbid(unsafe_code)]

pub mod arguments;
pub mod clients;
pub mod clock;
pub mod figures;
pub mod interrupt;
pub mod pace;
pub mod report;
pub mod schedule;
