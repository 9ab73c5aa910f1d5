//! Commands on their way to the shard: one request, one per key, or a pass over all entities.

use coreside_shard::{Args, ArgumentError, CallError, Each, Span};

use super::{Handled, Session};
use crate::resp::builtin::{self, Builtin};
use crate::resp::gather::Gather;
use crate::resp::intake::{Entry, Intake};
use crate::resp::parse::Parser;
use crate::resp::session::Shared;
use crate::resp::underway::Underway;
use crate::resp::write::Writer;

impl Session {
    /// Handles the command that the parser stands at.
    #[inline]
    pub(super) fn command<I: Intake>(
        &mut self,
        bytes: &[u8],
        inline: bool,
        intake: &mut I,
        shared: &mut Shared,
    ) -> Handled {
        // The spans leave the parser for the call, so that both can be borrowed.
        let parser = std::mem::replace(&mut self.parser, Parser::new());
        let buffer = if inline { parser.inline() } else { bytes };
        let handled = self.dispatch(buffer, parser.spans(), intake, shared);
        self.parser = parser;
        if handled == Handled::Done {
            shared.stats.requests += 1;
        }
        handled
    }

    #[inline]
    fn dispatch<I: Intake>(
        &mut self,
        buffer: &[u8],
        spans: &[Span],
        intake: &mut I,
        shared: &mut Shared,
    ) -> Handled {
        let mut args = Args::new(buffer, spans);
        let Some(name) = args.next() else {
            return Handled::Done;
        };
        if let Some(builtin) = Builtin::find(name) {
            return builtin::answer(builtin, self, name, args, intake, shared);
        }
        let Some(entry) = intake.find(name) else {
            builtin::unknown_command(self, name, args, shared);
            return Handled::Done;
        };
        if !self.line.may_call(name.iter().map(u8::to_ascii_uppercase)) {
            self.forbid(name, shared);
            return Handled::Done;
        }
        if matches!(entry.each, Each::One) && !entry.sweep {
            let Some(key) = args.next() else {
                self.wrong_count(name, shared);
                return Handled::Done;
            };
            let sequence = self.owe(shared);
            let message = Underway::new(sequence, 0, spans);
            match intake.ask(entry.id, key, &mut args, message.ticket(self.line.id)) {
                Ok(()) => self.take(message, shared),
                Err(error) => self.refuse(sequence, name, error, shared),
            }
            return Handled::Done;
        }
        if entry.sweep {
            let message = Underway::new(self.owe(shared), 0, spans);
            match intake.ask_sweep(entry.id, &mut args, message.ticket(self.line.id)) {
                Ok(()) => {
                    self.take(message, shared);
                    self.barrier = true;
                }
                Err(error) => self.refuse(message.sequence, name, error, shared),
            }
        } else {
            self.ask_each(entry, buffer, (name, &spans[1..]), intake, shared);
        }
        Handled::Done
    }

    /// Asks once per key. What is refused midway leaves the keys before it asked.
    fn ask_each<I: Intake>(
        &mut self,
        entry: Entry<I::Id>,
        buffer: &[u8],
        (name, spans): (&[u8], &[Span]),
        intake: &mut I,
        shared: &mut Shared,
    ) {
        let per_key = if matches!(entry.each, Each::Pairs) { 2 } else { 1 };
        if spans.is_empty() || spans.len() % per_key != 0 {
            self.wrong_count(name, shared);
            return;
        }
        let len = (spans.len() / per_key) as u32;
        let sequence = self.owe(shared);
        let mut gather = Gather::new(sequence, entry.each, len);
        for (part, spans) in spans.chunks_exact(per_key).enumerate() {
            let part = part as u32;
            let mut args = Args::new(buffer, spans);
            let Some(key) = args.next() else {
                break;
            };
            let message = Underway::new(sequence, part + 1, spans);
            if let Err(error) = intake.ask(entry.id, key, &mut args, message.ticket(self.line.id)) {
                let line = refusal(name, error);
                gather.give_up(part, len - part, &line, self.protocol);
                break;
            }
            self.take(message, shared);
        }
        if gather.is_complete() {
            let protocol = self.protocol;
            self.put(sequence, shared, |out| gather.write_to(out, protocol));
        } else {
            self.gathered_bytes += gather.held_bytes();
            self.gathers.push_back(gather);
        }
    }

    /// A message is under way.
    #[inline]
    fn take(&mut self, message: Underway, shared: &mut Shared) {
        self.message_bytes += message.bytes();
        shared.message_bytes += message.bytes();
    }

    pub(crate) fn wrong_count(&mut self, name: &[u8], shared: &mut Shared) {
        let line = refusal(name, CallError::Argument(ArgumentError::Count));
        self.reply(shared, |writer| writer.error_bytes(&line));
    }

    #[cold]
    fn forbid(&mut self, name: &[u8], shared: &mut Shared) {
        let name = String::from_utf8_lossy(&name[..name.len().min(128)]).to_lowercase();
        let line = format!("NOPERM this client may not call '{name}'");
        self.reply(shared, |writer| writer.error_bytes(line.as_bytes()));
    }

    #[cold]
    fn refuse(&mut self, sequence: u32, name: &[u8], error: CallError, shared: &mut Shared) {
        let line = refusal(name, error);
        let protocol = self.protocol;
        self.put(sequence, shared, |out| Writer::new(out, protocol).error_bytes(&line));
    }
}

/// The error line for a request that was not sent.
fn refusal(name: &[u8], error: CallError) -> Vec<u8> {
    match error {
        CallError::Argument(ArgumentError::Count) => {
            let mut line = b"ERR wrong number of arguments for '".to_vec();
            line.extend(name.iter().take(128).map(u8::to_ascii_lowercase));
            line.extend_from_slice(b"' command");
            line
        }
        other => other.to_string().into_bytes(),
    }
}
