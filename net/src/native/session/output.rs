//! What a session says: answers, errors, credit, goodbyes.

use coreside_shard::{AskError, Encode, WireError};

use super::{Handled, Session, Shared};
use crate::native::credit;
use crate::native::frame::{Code, Header, Kind};
use crate::sessions::{Session as _, SessionsStats};

impl Session {
    /// Nothing is done with a message. Who tells it has broken the protocol, as it was told what
    /// the messages are.
    #[cold]
    pub(super) fn refuse(&mut self, header: Header, code: Code, shared: &mut Shared) -> Handled {
        if header.kind == Kind::Tell {
            return Handled::End(code);
        }
        self.write(shared, |out| write_error(out, header.call, code));
        Handled::Done
    }

    /// Says goodbye. What is owed is still sent.
    pub(super) fn leave(&mut self, code: Code, shared: &mut Shared) {
        let SessionsStats { limit_closes, protocol_errors, .. } = &mut shared.stats;
        *(if code == Code::Limit { limit_closes } else { protocol_errors }) += 1;
        self.go_away(code, shared);
        self.end();
    }

    pub(super) fn go_away(&mut self, code: Code, shared: &mut Shared) {
        if self.line.flags.ending {
            return;
        }
        self.write(shared, |out| {
            Header { code: code as u8, ..Header::new(Kind::GoAway) }.write(out);
        });
    }

    /// Appends frames to the output.
    #[inline]
    pub(super) fn write(&mut self, shared: &mut Shared, write: impl FnOnce(&mut Vec<u8>)) {
        self.line.equip(shared);
        write(&mut self.line.output);
        shared.make_dirty(&mut self.line);
        if self.output_bytes() > shared.limits.output_bytes_max {
            self.outgrow(shared);
        }
    }

    /// More is unsent than may be.
    #[cold]
    pub(super) fn outgrow(&mut self, shared: &mut Shared) {
        shared.stats.limit_closes += 1;
        self.line.kill();
    }

    /// A tell of this session has been handled.
    pub(super) fn handled(&mut self, message: credit::Underway, shared: &mut Shared) {
        if self.credit.give_back(message, &shared.limits) && !self.line.flags.killed {
            let mut credit = std::mem::take(&mut self.credit);
            let limits = shared.limits;
            self.write(shared, |out| credit.write(out, &limits));
            self.credit = credit;
        }
        if self.line.flags.stalled {
            self.recover(shared);
        }
    }

    /// Takes the answer to an ask of this session.
    #[inline]
    pub(super) fn answer(
        &mut self,
        message: credit::Underway,
        answer: Result<&dyn Encode, AskError>,
        shared: &mut Shared,
    ) {
        let call = message.call;
        self.credit.give_back(message, &shared.limits);
        self.owed -= 1;
        shared.owed -= 1;
        if self.line.flags.killed {
            return;
        }
        let frame_bytes_max = shared.limits.frame_bytes_max as usize;
        let before = self.line.output.len();
        self.write(shared, |out| match answer {
            Ok(reply) => {
                let header = Header { call, ..Header::new(Kind::Reply) };
                let written = header.write_with(out, |out| {
                    reply.encode(out)?;
                    let fits = out.len() - before <= frame_bytes_max;
                    if fits { Ok(()) } else { Err(WireError::Unwritable) }
                });
                match written {
                    Ok(()) => {}
                    Err(WireError::Unconvertible) => write_error(out, call, Code::Unsayable),
                    Err(_) => write_error(out, call, Code::TooLong),
                }
            }
            Err(error) => write_error(out, call, code_of(&error)),
        });
        // Rises at once, falls by a 64th of the difference.
        let len = self.line.output.len().saturating_sub(before);
        let falls = self.reply_bytes.saturating_sub(len) / 64;
        self.reply_bytes = len.max(self.reply_bytes - falls);
        if self.line.flags.stalled {
            self.recover(shared);
        }
    }
}

#[cold]
fn write_error(out: &mut Vec<u8>, call: u32, code: Code) {
    Header { call, code: code as u8, ..Header::new(Kind::Error) }.write(out);
}

fn code_of(error: &AskError) -> Code {
    match error {
        AskError::NotSent => Code::NotSent,
        AskError::Failed => Code::Failed,
        AskError::Expired => Code::Expired,
        AskError::Cycle(_) => Code::Cycle,
        _ => Code::MaybeExecuted,
    }
}
