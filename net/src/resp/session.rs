//! One connection: bytes become requests, answers become bytes, in the order of the commands.
//!
//! # Pausing
//! A session stops parsing while too many answers are outstanding, while too much output is unsent
//! or to be expected (the answers outstanding, each taken to be as large as the largest of late),
//! while it waits at a *barrier* (a sweep, or `HELLO` behind unanswered commands), or while the
//! shard is congested. Bytes that arrive meanwhile wait in `unparsed`. Whatever ends the pause (an
//! answer, a send that is done) reports the session as ready again, so nobody has to look for it.

mod answer;
mod request;

use std::collections::VecDeque;
use std::net::SocketAddr;

use super::gather::Gather;
use super::intake::Intake;
use super::limits::Limits;
use super::order::Order;
use super::parse::{Parsed, Parser};
use super::sessions::{SessionId, Shared};
use super::write::Protocol;

pub(crate) use self::answer::parts_of;

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
