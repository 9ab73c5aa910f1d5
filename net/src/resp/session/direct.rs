//! The rest of a long argument is received straight into `unparsed`.

use super::{Intake, Limits, Session, Shared};
use crate::sessions::{Direct, Memory};

impl Session {
    /// What the argument being read lacks, if nothing else keeps it from being parsed.
    pub(super) fn lacking_bytes(&self, limits: &Limits) -> usize {
        let flags = &self.line.flags;
        if self.unparsed.is_empty() || flags.stalled || flags.ready || flags.killed {
            return 0;
        }
        let have = self.unparsed.len() - self.unparsed_at;
        let lacking = self.parser.lacking_bytes(have);
        // What goes beyond the limit ends the connection when it comes.
        if have + lacking > limits.query_bytes_max { 0 } else { lacking }
    }

    /// Lends `unparsed`, from the first byte of the command on.
    pub(super) fn lend_unparsed(&mut self, limits: &Limits) -> Option<Direct> {
        let lacking = self.lacking_bytes(limits);
        if lacking == 0 {
            return None;
        }
        let mut unparsed = std::mem::take(&mut self.unparsed);
        unparsed.drain(..std::mem::take(&mut self.unparsed_at));
        let direct = Direct::new(Memory::Plain(unparsed), lacking);
        self.lent_bytes = direct.bytes();
        Some(direct)
    }

    /// Takes `unparsed` back with what has come of the argument.
    pub(super) fn fill_unparsed<I: Intake>(
        &mut self,
        memory: Memory,
        intake: &mut I,
        shared: &mut Shared,
    ) {
        self.lent_bytes = 0;
        let Memory::Plain(bytes) = memory else {
            debug_assert!(false, "it comes back as it was lent");
            return;
        };
        if self.line.flags.ending || self.line.flags.killed {
            return;
        }
        debug_assert!(self.unparsed.is_empty(), "nothing else is received meanwhile");
        self.unparsed = bytes;
        if !self.line.flags.stalled && !self.line.flags.ready {
            self.parse_unparsed(intake, shared);
        }
    }
}
