//! One connection: bytes become requests, answers become bytes, in the order of the commands.
//!
//! # Pausing
//! A session stops parsing while too many answers are outstanding, while too much output is unsent
//! or to be expected (the answers outstanding, each taken to be as large as the largest of late),
//! while the commands outstanding have too many bytes, while it waits at a *barrier* (a sweep, or `HELLO` behind unanswered commands), or while the
//! shard is congested. Bytes that arrive meanwhile wait in `unparsed`. Whatever ends the pause (an
//! answer, a send that is done) reports the session as ready again, so nobody has to look for it.

mod answer;
mod direct;
mod request;

use std::collections::VecDeque;
use std::net::SocketAddr;

use coreside_shard::Body;

use super::builtin::Facts;
use super::gather::Gather;
use super::intake::Intake;
use super::limits::Limits;
use super::order::Order;
use super::parse::{Parsed, Parser};
use super::write::Protocol;
use crate::sessions::Session as _;
use crate::sessions::{Direct, Line, Memory, SessionId, Talk};

/// What all RESP sessions of a shard share.
pub(crate) type Shared = crate::sessions::Shared<Session>;

/// The state of one connection.
#[derive(Debug)]
pub struct Session {
    pub(crate) line: Line,
    pub(crate) protocol: Protocol,
    order: Order,
    /// How large the next reply may be: as large as the largest of late.
    reply_bytes: usize,
    parser: Parser,
    /// Bytes of commands that are not parsed or not whole, from the command that the parser is in.
    unparsed: Vec<u8>,
    /// Where that command begins.
    unparsed_at: usize,
    /// Bytes of `unparsed`, with its room, while it is lent.
    lent_bytes: usize,
    gathers: VecDeque<Gather>,
    /// Memory held by `gathers`.
    gathered_bytes: usize,
    /// Bytes of commands that are not answered.
    message_bytes: usize,
    /// Parsing waits until nothing is owed.
    barrier: bool,
    /// What `CLIENT ID` says.
    pub(crate) number: u64,
    pub(crate) name: Vec<u8>,
    pub(crate) peer: Option<SocketAddr>,
}

/// What became of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Handled {
    Done,
    /// It is to be parsed again when nothing is owed.
    Hold,
}

impl Session {
    fn with_number(id: SessionId, number: u64, peer: Option<SocketAddr>) -> Self {
        Self {
            line: Line::new(id),
            protocol: Protocol::Resp2,
            order: Order::default(),
            reply_bytes: FIRST_REPLY_BYTES,
            parser: Parser::new(),
            unparsed: Vec::new(),
            unparsed_at: 0,
            lent_bytes: 0,
            gathers: VecDeque::new(),
            gathered_bytes: 0,
            message_bytes: 0,
            barrier: false,
            number,
            name: Vec::new(),
            peer,
        }
    }

    fn parse_unparsed<I: Intake>(&mut self, intake: &mut I, shared: &mut Shared) {
        let mut unparsed = std::mem::take(&mut self.unparsed);
        self.unparsed_at += self.parse(&unparsed[self.unparsed_at..], intake, shared);
        if self.line.flags.ending || self.line.flags.killed || self.unparsed_at == unparsed.len() {
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
        self.line.flags.stalled = false;
        while at < bytes.len() {
            if self.must_pause(shared) {
                self.line.flags.stalled = true;
                break;
            }
            if intake.is_congested() {
                shared.make_ready(&mut self.line);
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
                Handled::Hold => self.barrier = true,
            }
            self.parser.restart();
            if self.line.flags.ending || self.line.flags.killed {
                return bytes.len();
            }
        }
        at
    }

    #[inline]
    fn must_pause(&mut self, shared: &Shared) -> bool {
        if self.barrier && self.order.owed() == 0 {
            self.barrier = false;
        }
        self.barrier
            || self.order.owed() >= shared.limits.pipeline_max
            || self.message_bytes >= shared.message_bytes_pause()
            || self.output_bytes() + self.order.owed() as usize * self.reply_bytes
                >= shared.output_bytes_pause()
    }

    fn drop_input(&mut self) {
        self.unparsed = Vec::new();
        self.unparsed_at = 0;
        self.parser = Parser::new();
    }
}

impl crate::sessions::Session for Session {
    type Limits = Limits;
    type Facts = Facts;

    fn new(id: SessionId, peer: Option<SocketAddr>, shared: &Shared) -> Self {
        let (opened, facts) = (shared.stats.opened, &shared.facts);
        let number = opened * u64::from(facts.shards.max(1)) + u64::from(facts.shard) + 1;
        Self::with_number(id, number, peer)
    }

    fn line(&mut self) -> &mut Line {
        &mut self.line
    }

    fn owed(&self) -> u32 {
        self.order.owed()
    }

    fn unparsed_bytes(&self) -> usize {
        self.unparsed.len() + self.lent_bytes + self.parser.held_bytes()
    }

    fn output_bytes(&self) -> usize {
        self.line.output_bytes() + self.order.aside_bytes() + self.gathered_bytes
    }

    fn lacks(&self, limits: &Limits) -> usize {
        self.lacking_bytes(limits)
    }

    fn lend(&mut self, limits: &Limits) -> Option<Direct> {
        self.lend_unparsed(limits)
    }

    /// A session that cannot parse takes only a few, and none if the sessions of the shard hold
    /// many already.
    fn wants_input(&self, limits: &Limits, is_crowded: bool) -> bool {
        let flags = &self.line.flags;
        let is_paused = flags.stalled || flags.ready;
        let is_full = is_crowded || self.unparsed.len() >= limits.query_bytes_pause;
        !(flags.ending || flags.killed || (is_paused && is_full))
    }

    fn is_finished(&self) -> bool {
        let done = self.order.owed() == 0 && self.line.unsent_bytes() == 0;
        self.line.flags.killed || self.line.takes_no_more() && done
    }

    fn end(&mut self) {
        self.line.flags.ending = true;
        self.line.flags.stalled = false;
        self.lent_bytes = 0;
        self.drop_input();
    }

    fn kill(&mut self) {
        self.line.kill();
        self.lent_bytes = 0;
        self.drop_input();
        self.gathers = VecDeque::new();
        self.gathered_bytes = 0;
    }

    fn refuse_input(&mut self, shared: &mut Shared) {
        self.reply(shared, |writer| {
            writer.error_bytes(b"ERR too many bytes of unfinished commands in this shard");
        });
    }

    fn sent(&mut self, shared: &mut Shared) {
        if self.line.flags.stalled {
            self.recover(shared);
        }
    }
}

impl<I: Intake> Talk<I> for Session {
    fn is_congested(intake: &I) -> bool {
        intake.is_congested()
    }

    fn receive(&mut self, input: Body<'_>, intake: &mut I, shared: &mut Shared) {
        let bytes = input.bytes();
        if self.line.flags.ending || self.line.flags.killed {
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
            if !self.line.flags.stalled && !self.line.flags.ready {
                self.parse_unparsed(intake, shared);
            }
        }
        if self.unparsed.len() - self.unparsed_at > shared.limits.query_bytes_max {
            shared.stats.limit_closes += 1;
            self.kill();
        }
    }

    fn fill(&mut self, memory: Memory, intake: &mut I, shared: &mut Shared) {
        self.fill_unparsed(memory, intake, shared);
    }

    fn resume(&mut self, intake: &mut I, shared: &mut Shared) {
        self.parse_unparsed(intake, shared);
    }
}

/// What a reply is taken to need before there was one: a new connection may have 256 outstanding at
/// the default limit, and thousands once its replies are known to be small.
const FIRST_REPLY_BYTES: usize = 4096;
