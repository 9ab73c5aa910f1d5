//! When a session parses no further, and when it goes on.

use super::{Session, Shared};

impl Session {
    /// How many more asks may be taken before the session pauses.
    pub(super) fn asks_before_pause(&self, shared: &Shared) -> u32 {
        if self.must_pause(shared) {
            return 0;
        }
        let answers_max = (shared.output_bytes_pause() - self.line.output_bytes())
            .div_ceil(self.reply_bytes.max(1));
        let room = answers_max.saturating_sub(self.owed as usize);
        (shared.limits.calls_max - self.owed).min(u32::try_from(room).unwrap_or(u32::MAX))
    }

    /// Ends the pause if its reason is gone.
    pub(super) fn recover(&mut self, shared: &mut Shared) {
        if !self.must_pause(shared) {
            self.line.flags.stalled = false;
            shared.make_ready(&mut self.line);
        }
    }

    /// Whether nothing more is to be parsed for now.
    #[inline]
    pub(super) fn must_pause(&self, shared: &Shared) -> bool {
        self.moves_to.is_some()
            || self.owed >= shared.limits.calls_max
            || self.credit.bytes_left(shared.message_bytes_pause()) == 0
            || self.line.output_bytes() + self.owed as usize * self.reply_bytes
                >= shared.output_bytes_pause()
    }
}
