//! Why what a sequencer left in the pool cannot be taken up: not now, or not at all since it is damaged.

use crate::log::damage::FieldFault;
use crate::log::order_index::IndexFault;

/// Why a recovery has to be tried again, or cannot succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecoverError {
    /// A line was being rewritten, or the sequencer changed under the reader. Try again.
    #[error("the sequencer's lines changed while they were read")]
    Unsettled,
    /// The index below the watermark is damaged.
    #[error(
        "the order index is damaged below its watermark: {0}; restore the pool, or re-format it with \
         `embarlet --config FILE --format` (its data is lost)"
    )]
    Damaged(IndexFault),
    /// A record of a sequencer candidate is damaged.
    #[error(
        "{record} {number} is damaged: {fault}; restore the pool, or re-format it with `embarlet --config FILE --format` \
         (its data is lost)"
    )]
    Record {
        /// What it is.
        record: &'static str,
        /// Which of them.
        number: u32,
        /// Which of its fields.
        fault: FieldFault,
    },
}

/// The name of a candidate's floors in a [`RecoverError`].
pub(crate) const FLOOR_LINE: &str = "floor line of sequencer candidate";

/// Names the record that a field belongs to.
pub(crate) fn in_record(record: &'static str, number: u32) -> impl Fn(FieldFault) -> RecoverError {
    move |fault| RecoverError::Record { record, number, fault }
}
