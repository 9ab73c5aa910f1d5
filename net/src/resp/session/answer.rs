//! Answers on their way back: in order, gathered, within the limit of output.

use coreside_shard::{AskError, Outside, Ticket, ToValue};

use super::{Session, Shared};
use crate::resp::underway::Underway;
use crate::resp::write::Writer;
use crate::sessions::Session as _;
use crate::sessions::{SessionId, Sessions};

impl Session {
    /// Takes the answer to a request of this session.
    #[inline]
    pub(super) fn answer(
        &mut self,
        message: Underway,
        answer: Result<&dyn ToValue, AskError>,
        shared: &mut Shared,
    ) {
        let Underway { sequence, part, .. } = message;
        debug_assert!(self.message_bytes >= message.bytes());
        self.message_bytes = self.message_bytes.saturating_sub(message.bytes());
        if self.line.flags.killed {
            return;
        }
        if !self.order.is_owed(sequence) {
            debug_assert!(false, "a request is answered once");
            return;
        }
        let protocol = self.protocol;
        if part == 0 {
            self.put(sequence, shared, |out| {
                let mut writer = Writer::new(out, protocol);
                match answer {
                    Ok(value) => writer.value(value),
                    Err(error) => writer.ask_error(error),
                }
            });
        } else {
            self.answer_part(sequence, part - 1, answer, shared);
        }
        if self.line.flags.stalled {
            self.recover(shared);
        }
    }

    fn answer_part(
        &mut self,
        sequence: u32,
        part: u32,
        answer: Result<&dyn ToValue, AskError>,
        shared: &mut Shared,
    ) {
        let protocol = self.protocol;
        // Gathers stand in the order of their numbers, which wrap: compare distances.
        let Some(first) = self.gathers.front() else {
            return;
        };
        let base = first.sequence;
        let Ok(index) = self.gathers.binary_search_by_key(&sequence.wrapping_sub(base), |gather| {
            gather.sequence.wrapping_sub(base)
        }) else {
            return;
        };
        let gather = &mut self.gathers[index];
        self.gathered_bytes -= gather.held_bytes();
        gather.put(part, answer, protocol);
        if !gather.is_complete() {
            self.gathered_bytes += gather.held_bytes();
            self.check_output(shared);
        } else if let Some(gather) = self.gathers.remove(index) {
            self.put(sequence, shared, |out| gather.write_to(out, protocol));
        }
    }

    /// Ends the pause if its reason is gone.
    pub(super) fn recover(&mut self, shared: &mut Shared) {
        if !self.must_pause(shared) {
            self.line.flags.stalled = false;
            shared.make_ready(&mut self.line);
        }
    }

    /// The number of a reply that is owed from now on.
    #[inline]
    pub(super) fn owe(&mut self, shared: &mut Shared) -> u32 {
        shared.owed += 1;
        self.order.take()
    }

    /// Writes a reply that is owed, now or when its turn comes.
    #[inline]
    pub(super) fn put(
        &mut self,
        sequence: u32,
        shared: &mut Shared,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        self.line.equip(shared);
        let before = self.order.owed();
        let len = self.order.put(sequence, &mut self.line.output, write);
        // One that is kept aside is still owed.
        shared.owed -= u64::from(before - self.order.owed());
        // Rises at once, falls by a 64th of the difference.
        let falls = self.reply_bytes.saturating_sub(len) / 64;
        self.reply_bytes = len.max(self.reply_bytes - falls);
        if !self.line.output.is_empty() {
            shared.make_dirty(&mut self.line);
        }
        self.check_output(shared);
    }

    /// Has output looked at that is much more than it was, and closes the connection if it is too
    /// much.
    #[inline]
    pub(super) fn check_output(&mut self, shared: &mut Shared) {
        let bytes = self.output_bytes();
        let is_too_much = bytes > shared.limits.output_bytes_max;
        if is_too_much {
            shared.stats.limit_closes += 1;
            self.line.kill();
        }
        if is_too_much || self.line.is_uncounted(bytes) {
            shared.make_dirty(&mut self.line);
        }
    }

    /// Replies to the command at hand without asking the shard.
    pub(crate) fn reply(&mut self, shared: &mut Shared, write: impl FnOnce(&mut Writer<'_>)) {
        let sequence = self.owe(shared);
        let protocol = self.protocol;
        self.put(sequence, shared, |out| write(&mut Writer::new(out, protocol)));
    }
}

impl Outside for Sessions<Session> {
    #[inline]
    fn answer(&mut self, ticket: Ticket, answer: Result<&dyn ToValue, AskError>) {
        let message = Underway::of(ticket);
        self.answered(SessionId::of(ticket), message.bytes(), |session, shared| {
            session.answer(message, answer, shared);
        });
    }
}
