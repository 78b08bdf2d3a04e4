//! stub
use crate::args::{ResumeArgs, ResumeReaderArgs};
use crate::error::LoadError;
use crate::report::Ended;
use crate::verdict::Outcome;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
pub fn run(_: &ResumeArgs, _: &Arc<AtomicBool>) -> Result<Ended, LoadError> {
    todo!()
}
pub fn read(_: &ResumeReaderArgs, _: &Arc<AtomicBool>) -> Result<Outcome, LoadError> {
    todo!()
}
