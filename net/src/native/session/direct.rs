//! The rest of a long frame is received straight into `rest`.

use super::{Intake, Limits, Session, Shared};
use crate::sessions::{Direct, Memory};

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
        let direct = Direct::new(Memory::Aligned(rest), missing);
        self.lent_bytes = direct.bytes();
        Some(direct)
    }

    /// Takes `rest` back with what has come of the frame.
    pub(super) fn fill_rest<I: Intake>(
        &mut self,
        memory: Memory,
        intake: &mut I,
        shared: &mut Shared,
    ) {
        self.lent_bytes = 0;
        let Memory::Aligned(bytes) = memory else {
            debug_assert!(false, "it comes back as it was lent");
            return;
        };
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
