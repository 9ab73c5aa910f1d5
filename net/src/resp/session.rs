//! One connection: bytes become requests, answers become bytes, in the order of the commands.
//!
//! # Pausing
//! A session stops parsing while too many answers are outstanding, while too much output is unsent
//! or to be expected (the answers outstanding, each taken to be as large as the largest of late),
//! while it waits at a *barrier* (a sweep, or `HELLO` behind unanswered commands), or while the
//! shard is congested. Bytes that arrive meanwhile wait in `unparsed`. Whatever ends the pause (an
//! answer, a send that is done) reports the session as ready again, so nobody has to look for it.

use std::collections::VecDeque;
use std::net::SocketAddr;

use coreside_shard::{Args, ArgumentError, AskError, CallError, Each, Span, Ticket, ToValue};

use super::builtin::{self, Builtin};
use super::gather::Gather;
use super::intake::{Entry, Intake};
use super::limits::Limits;
use super::order::Order;
use super::parse::{Parsed, Parser};
use super::sessions::{SessionId, Shared};
use super::write::{Protocol, Writer};

/// The state of one connection.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) id: SessionId,
    pub(crate) protocol: Protocol,
    order: Order,
    /// Output that is being filled.
    output: Vec<u8>,
    /// Output that is being sent; not touched until the send is done.
    sending: Vec<u8>,
    sent: usize,
    /// How large the next reply may be: as large as the largest of late.
    reply_bytes: usize,
    parser: Parser,
    /// Bytes of commands that are not parsed or not whole, from the command that the parser is in.
    unparsed: Vec<u8>,
    /// Where that command begins.
    unparsed_at: usize,
    gathers: VecDeque<Gather>,
    /// Memory held by `gathers`.
    gathered_bytes: usize,
    pub(crate) flags: Flags,
    /// What `CLIENT ID` says.
    pub(crate) number: u64,
    pub(crate) name: Vec<u8>,
    pub(crate) peer: Option<SocketAddr>,
}

/// The switches of a session.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Flags {
    /// Parsing waits until nothing is owed.
    pub(crate) barrier: bool,
    /// Parsing stopped at a pause; there may be whole commands in `unparsed`.
    pub(crate) stalled: bool,
    /// The session is in the list of those that are ready to be parsed.
    pub(crate) ready: bool,
    /// The session is in the list of those with something to send or to close.
    pub(crate) dirty: bool,
    /// No further command is parsed: the connection closes when what is owed has been sent.
    pub(crate) ending: bool,
    /// The peer will send no more bytes.
    pub(crate) input_ended: bool,
    /// The connection closes at once; nothing is sent any more.
    pub(crate) killed: bool,
}

/// What became of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Handled {
    Done,
    /// It is to be parsed again when nothing is owed.
    Hold,
}

impl Session {
    pub(crate) fn new(id: SessionId, number: u64, peer: Option<SocketAddr>) -> Self {
        Self {
            id,
            protocol: Protocol::Resp2,
            order: Order::default(),
            output: Vec::new(),
            sending: Vec::new(),
            sent: 0,
            reply_bytes: FIRST_REPLY_BYTES,
            parser: Parser::new(),
            unparsed: Vec::new(),
            unparsed_at: 0,
            gathers: VecDeque::new(),
            gathered_bytes: 0,
            flags: Flags::default(),
            number,
            name: Vec::new(),
            peer,
        }
    }

    /// How many replies are owed.
    pub(crate) fn owed(&self) -> u32 {
        self.order.owed()
    }

    /// Memory held for bytes whose command is not whole.
    pub(crate) fn unparsed_bytes(&self) -> usize {
        self.unparsed.len() + self.parser.held_bytes()
    }

    /// Memory held for replies.
    pub(crate) fn output_bytes(&self) -> usize {
        let unsent = self.output.len() + self.sending.len() - self.sent;
        unsent + self.order.aside_bytes() + self.gathered_bytes
    }

    /// Whether bytes of the peer are welcome. A session that cannot parse takes only a few, and
    /// none if the sessions of the shard hold many already.
    pub(crate) fn wants_input(&self, limits: &Limits, is_crowded: bool) -> bool {
        let is_paused = self.flags.stalled || self.flags.ready;
        let is_full = is_crowded || self.unparsed.len() >= limits.query_bytes_pause;
        !(self.flags.ending || self.flags.killed || (is_paused && is_full))
    }

    /// Whether the connection has served its purpose and everything owed has been handed out.
    pub(crate) fn is_finished(&self) -> bool {
        let no_more = self.flags.ending
            || (self.flags.input_ended && !self.flags.stalled && !self.flags.ready);
        self.flags.killed
            || (no_more
                && self.owed() == 0
                && self.output.is_empty()
                && self.sent == self.sending.len())
    }

    /// Takes bytes of the peer and sends on the commands that are whole.
    pub(crate) fn receive<I: Intake>(&mut self, bytes: &[u8], intake: &mut I, shared: &mut Shared) {
        if self.flags.ending || self.flags.killed {
            return;
        }
        if self.unparsed.is_empty() {
            let taken = self.parse(bytes, intake, shared);
            if taken < bytes.len() {
                shared.equip(&mut self.unparsed);
                self.unparsed.extend_from_slice(&bytes[taken..]);
            }
        } else {
            self.unparsed.extend_from_slice(bytes);
            if !self.flags.stalled && !self.flags.ready {
                self.parse_unparsed(intake, shared);
            }
        }
        if self.unparsed.len() - self.unparsed_at > shared.limits.query_bytes_max {
            shared.stats.limit_closes += 1;
            self.kill();
        }
    }

    /// Goes on with the bytes that waited.
    pub(crate) fn resume<I: Intake>(&mut self, intake: &mut I, shared: &mut Shared) {
        self.parse_unparsed(intake, shared);
    }

    fn parse_unparsed<I: Intake>(&mut self, intake: &mut I, shared: &mut Shared) {
        let mut unparsed = std::mem::take(&mut self.unparsed);
        self.unparsed_at += self.parse(&unparsed[self.unparsed_at..], intake, shared);
        if self.flags.ending || self.flags.killed || self.unparsed_at == unparsed.len() {
            shared.strip(&mut unparsed);
            self.unparsed_at = 0;
        } else if self.unparsed_at > unparsed.len() / 2 {
            // Amortized: fewer bytes move than have been parsed.
            unparsed.drain(..self.unparsed_at);
            self.unparsed_at = 0;
        }
        self.unparsed = unparsed;
    }

    /// Handles the whole commands at the front of `bytes`; returns how many bytes they took.
    fn parse<I: Intake>(&mut self, bytes: &[u8], intake: &mut I, shared: &mut Shared) -> usize {
        let mut at = 0;
        self.flags.stalled = false;
        while at < bytes.len() {
            if self.must_pause(&shared.limits) {
                self.flags.stalled = true;
                break;
            }
            if intake.is_congested() {
                shared.make_ready(&mut self.flags, self.id);
                break;
            }
            let rest = &bytes[at..];
            let (len, inline) = match self.parser.parse(rest, &shared.limits) {
                Parsed::Incomplete => break,
                Parsed::Empty { len } => {
                    self.parser.restart();
                    at += len;
                    continue;
                }
                Parsed::Command { len } => (len, false),
                Parsed::Inline { len } => (len, true),
                Parsed::Error(error) => {
                    shared.stats.protocol_errors += 1;
                    let mut line = Vec::new();
                    error.write_to(&mut line);
                    self.reply(shared, |writer| writer.error_bytes(&line));
                    self.end();
                    return bytes.len();
                }
            };
            match self.command(rest, inline, intake, shared) {
                Handled::Done => at += len,
                Handled::Hold => self.flags.barrier = true,
            }
            self.parser.restart();
            if self.flags.ending || self.flags.killed {
                return bytes.len();
            }
        }
        at
    }

    #[inline]
    fn must_pause(&mut self, limits: &Limits) -> bool {
        if self.flags.barrier && self.order.owed() == 0 {
            self.flags.barrier = false;
        }
        self.flags.barrier
            || self.order.owed() >= limits.pipeline_max
            || self.output_bytes() + self.order.owed() as usize * self.reply_bytes
                >= limits.output_bytes_pause
    }

    /// Handles the command that the parser stands at.
    #[inline]
    fn command<I: Intake>(
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
            shared.stats.commands += 1;
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
        if matches!(entry.each, Each::One) && !entry.sweep {
            let Some(key) = args.next() else {
                self.wrong_count(name, shared);
                return Handled::Done;
            };
            let sequence = self.owe(shared);
            let ticket = ticket_of(self.id, sequence, 0);
            if let Err(error) = intake.ask(entry.id, key, &mut args, ticket) {
                self.refuse(sequence, name, error, shared);
            }
            return Handled::Done;
        }
        if entry.sweep {
            self.sweep(entry, name, args, intake, shared);
        } else {
            self.ask_each(entry, buffer, (name, &spans[1..]), intake, shared);
        }
        Handled::Done
    }

    fn sweep<I: Intake>(
        &mut self,
        entry: Entry<I::Id>,
        name: &[u8],
        args: Args<'_>,
        intake: &mut I,
        shared: &mut Shared,
    ) {
        if !args.is_empty() {
            self.wrong_count(name, shared);
            return;
        }
        let sequence = self.owe(shared);
        match intake.ask_sweep(entry.id, ticket_of(self.id, sequence, 0)) {
            Ok(()) => self.flags.barrier = true,
            Err(error) => self.refuse(sequence, name, error, shared),
        }
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
            let ticket = ticket_of(self.id, sequence, part + 1);
            if let Err(error) = intake.ask(entry.id, key, &mut args, ticket) {
                let line = refusal(name, error);
                gather.give_up(part, len - part, &line, self.protocol);
                break;
            }
        }
        if gather.is_complete() {
            let protocol = self.protocol;
            self.put(sequence, shared, |out| gather.write_to(out, protocol));
        } else {
            self.gathered_bytes += gather.held_bytes();
            self.gathers.push_back(gather);
        }
    }

    /// Takes the answer to a request of this session.
    #[inline]
    pub(crate) fn answer(
        &mut self,
        sequence: u32,
        part: u32,
        answer: Result<&dyn ToValue, AskError>,
        shared: &mut Shared,
    ) {
        if self.flags.killed {
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
                    Ok(value) => value.write_to(&mut writer),
                    Err(error) => writer.ask_error(error),
                }
            });
        } else {
            self.answer_part(sequence, part - 1, answer, shared);
        }
        if self.flags.stalled {
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
    fn recover(&mut self, shared: &mut Shared) {
        if !self.must_pause(&shared.limits) {
            self.flags.stalled = false;
            shared.make_ready(&mut self.flags, self.id);
        }
    }

    /// The number of a reply that is owed from now on.
    #[inline]
    fn owe(&mut self, shared: &mut Shared) -> u32 {
        shared.owed += 1;
        self.order.take()
    }

    /// Writes a reply that is owed, now or when its turn comes.
    #[inline]
    fn put(&mut self, sequence: u32, shared: &mut Shared, write: impl FnOnce(&mut Vec<u8>)) {
        shared.owed -= 1;
        shared.equip(&mut self.output);
        let len = self.order.put(sequence, &mut self.output, write);
        // Rises at once, falls by a 64th of the difference.
        let falls = self.reply_bytes.saturating_sub(len) / 64;
        self.reply_bytes = len.max(self.reply_bytes - falls);
        if !self.output.is_empty() {
            shared.make_dirty(&mut self.flags, self.id);
        }
        self.check_output(shared);
    }

    /// Closes the connection if it holds too much output.
    #[inline]
    fn check_output(&mut self, shared: &mut Shared) {
        if self.output_bytes() > shared.limits.output_bytes_max {
            shared.stats.limit_closes += 1;
            self.kill();
            shared.make_dirty(&mut self.flags, self.id);
        }
    }

    /// Replies to the command at hand without asking the shard.
    pub(crate) fn reply(&mut self, shared: &mut Shared, write: impl FnOnce(&mut Writer<'_>)) {
        let sequence = self.owe(shared);
        let protocol = self.protocol;
        self.put(sequence, shared, |out| write(&mut Writer::new(out, protocol)));
    }

    pub(crate) fn wrong_count(&mut self, name: &[u8], shared: &mut Shared) {
        let line = refusal(name, CallError::Argument(ArgumentError::Count));
        self.reply(shared, |writer| writer.error_bytes(&line));
    }

    #[cold]
    fn refuse(&mut self, sequence: u32, name: &[u8], error: CallError, shared: &mut Shared) {
        let line = refusal(name, error);
        let protocol = self.protocol;
        self.put(sequence, shared, |out| Writer::new(out, protocol).error_bytes(&line));
    }

    /// The peer will send no more; it still gets the replies it is owed.
    pub(crate) fn end_input(&mut self) {
        self.flags.input_ended = true;
    }

    /// Parses no more; the connection closes when what is owed has been sent.
    pub(crate) fn end(&mut self) {
        self.flags.ending = true;
        self.flags.stalled = false;
        self.drop_input();
    }

    /// Closes the connection without sending what is left.
    pub(crate) fn kill(&mut self) {
        self.flags.killed = true;
        self.flags.stalled = false;
        self.drop_input();
        self.output = Vec::new();
        self.gathers = VecDeque::new();
        self.gathered_bytes = 0;
    }

    fn drop_input(&mut self) {
        self.unparsed = Vec::new();
        self.unparsed_at = 0;
        self.parser = Parser::new();
    }

    /// The bytes to send next, unless a send is under way. They stay where they are until
    /// [`end_send`](Self::end_send).
    pub(crate) fn begin_send(&mut self) -> Option<&[u8]> {
        if self.flags.killed || !self.sending.is_empty() || self.output.is_empty() {
            return None;
        }
        debug_assert_eq!(self.sent, 0);
        std::mem::swap(&mut self.output, &mut self.sending);
        Some(&self.sending)
    }

    /// `len` bytes more have been sent; returns whether the send is done.
    pub(crate) fn end_send(&mut self, len: usize, shared: &mut Shared) -> bool {
        self.sent += len;
        debug_assert!(self.sent <= self.sending.len());
        if self.sent < self.sending.len() && !self.flags.killed {
            return false;
        }
        shared.strip(&mut self.sending);
        self.sent = 0;
        if self.flags.stalled {
            self.recover(shared);
        }
        true
    }

    /// What is left of the send under way.
    pub(crate) fn rest_of_send(&self) -> Option<&[u8]> {
        Some(&self.sending[self.sent..]).filter(|rest| !rest.is_empty())
    }

    /// Whether output waits for the send under way to end.
    pub(crate) fn has_output(&self) -> bool {
        !self.output.is_empty()
    }
}

/// What a reply is taken to need before there was one: a new connection may have 256 outstanding at
/// the default limit, and thousands once its replies are known to be small.
const FIRST_REPLY_BYTES: usize = 4096;

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

/// `part` is 0 for the only answer of a reply, the number of the key plus 1 within a gather.
#[inline]
fn ticket_of(id: SessionId, sequence: u32, part: u32) -> Ticket {
    Ticket([
        u64::from(id.slot) | u64::from(id.generation) << 32,
        u64::from(sequence) | u64::from(part) << 32,
    ])
}

/// Session, sequence number and part of a ticket.
#[inline]
pub(crate) fn parts_of(ticket: Ticket) -> (SessionId, u32, u32) {
    let Ticket([session, reply]) = ticket;
    let id = SessionId { slot: session as u32, generation: (session >> 32) as u32 };
    (id, reply as u32, (reply >> 32) as u32)
}
