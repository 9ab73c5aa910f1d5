//! The rest of a long frame is received straight into `rest`.

use coreside_shard::rkyv::util::AlignedVec;

use super::{ALIGN, Intake, Limits, Session, Shared};
use crate::sessions::Direct;

impl Session {
    /// Lends `rest`, from the first byte of the frame on.
    pub(super) fn lend_rest(&mut self, limits: &Limits) -> Option<Direct> {
        let missing = self.missing_bytes(limits);
        if missing == 0 {
            return None;
        }
        let mut rest = std::mem::take(&mut self.rest);
        if self.rest_at > 0 {
            let left = rest.len() - self.rest_at;
            rest.copy_within(self.rest_at.., 0);
            rest.resize(left, 0);
            self.rest_at = 0;
        }
        self.lent_bytes = rest.len() + missing;
        Some(Direct::new(rest, missing))
    }

    /// Takes `rest` back with what has come of the frame.
    pub(super) fn fill_rest<I: Intake>(
        &mut self,
        bytes: AlignedVec<ALIGN>,
        intake: &mut I,
        shared: &mut Shared,
    ) {
        self.lent_bytes = 0;
        if self.line.flags.ending || self.line.flags.killed {
            return;
        }
        debug_assert!(self.rest.is_empty(), "nothing else is received meanwhile");
        self.rest = bytes;
        if !self.line.flags.stalled && !self.line.flags.ready {
            self.frames_of_rest(intake, shared);
        }
    }
}
