//! One connection: frames become messages, answers become frames, in the order in which they come.
//!
//! # Alignment
//! Archives are read where they lie, so they have to lie at multiples of 16. Frames do so in their
//! stream, and receive buffers in memory; the two agree unless the network cut the stream in the
//! middle of a frame. Then bytes are copied, once, to where they are aligned: into `rest`. What
//! follows the frame that was cut is read in place again.
//!
//! # Leases
//! A message that is handled in its archive stays where it was received: whoever lends the buffer
//! is handed on with the body. `rest` is lent too, to a message that takes up most of it.
//!
//! # Pausing
//! A session stops parsing while too many answers are outstanding, while messages of too many
//! bytes are not handled, while too much output is unsent or to be expected (the answers
//! outstanding, each taken to be as large as the largest of late), or while the shard is
//! congested. Bytes that arrive meanwhile wait in `rest`, and the peer's in its socket. Whatever
//! ends the pause (an answer, a send that is done) reports the session as ready.
//!
//! | module | holds |
//! |---|---|
//! | `rest` | bytes that wait for what follows them, or for the end of a pause |
//! | `direct` | the rest of a long frame, received straight into its place |
//! | `output` | what is said: answers, errors, credit, goodbyes |

mod direct;
mod output;
mod rest;

use std::net::SocketAddr;

use coreside_shard::rkyv::util::AlignedVec;
use coreside_shard::{
    AskError, Body, Encode, Outside, Ticket, ToValue, WireCall, WireError, WireRow,
};

use super::credit::{self, Credit, TELL_TIME_US};
use super::frame::{ALIGN, Code, HEADER_BYTES, Header, KEY_BYTES, Kind, Message, VERSION};
use super::hello::{Facts, Hello, Welcome};
use super::intake::Intake;
use super::limits::Limits;
use crate::sessions::{Direct, Line, Memory, Session as _, SessionId, Sessions, Talk};

type Shared = crate::sessions::Shared<Session>;

/// The state of one connection.
#[derive(Debug)]
pub struct Session {
    line: Line,
    /// The handshake is done.
    greeted: bool,
    /// The shard that the peer wants to talk to, if it is not this one.
    moves_to: Option<u16>,
    /// Asks that wait for their answers.
    owed: u32,
    /// Messages that are not handled.
    credit: Credit,
    /// How large the next reply may be: as large as the largest of late.
    reply_bytes: usize,
    /// Bytes that are not parsed, from the first byte of a frame.
    rest: AlignedVec<ALIGN>,
    /// Where that frame begins: a multiple of 16.
    rest_at: usize,
    /// Bytes of `rest`, with its room, while it is lent.
    lent_bytes: usize,
}

/// What a reply is taken to need before there was one.
const FIRST_REPLY_BYTES: usize = 4096;

/// What becomes of a frame.
enum Handled {
    Done,
    /// It is to be parsed again later: there is no room for what it asks.
    Hold,
    /// It is to be parsed by another shard, with everything behind it.
    Move,
    /// The connection ends for this reason.
    End(Code),
}

impl Session {
    /// Handles the whole frames at the front of `input`, which lies at a multiple of 16; returns
    /// how many bytes they took.
    fn frames<I: Intake>(&mut self, input: Body<'_>, intake: &mut I, shared: &mut Shared) -> usize {
        debug_assert!(input.bytes().as_ptr().addr().is_multiple_of(ALIGN));
        self.line.flags.stalled = false;
        let mut rest = input;
        while !rest.bytes().is_empty() {
            rest = self.messages(rest, intake, shared);
            match self.next_frame(rest, intake, shared) {
                Some(behind) => rest = behind,
                None => break,
            }
        }
        let leaves = self.line.flags.ending || self.line.flags.killed;
        input.bytes().len() - if leaves { 0 } else { rest.bytes().len() }
    }

    /// The short way of what nearly all frames are: tells and asks that are whole and sent without
    /// ado. Returns what is behind them: whatever is anything else, which
    /// [`next_frame`](Self::next_frame) knows what to do about.
    fn messages<'a, I: Intake>(
        &mut self,
        input: Body<'a>,
        intake: &mut I,
        shared: &mut Shared,
    ) -> Body<'a> {
        /// Messages between two looks at whether the shard is congested.
        const BETWEEN_LOOKS: u32 = 16;
        if !self.greeted || !self.line.may_call_all() {
            return input;
        }
        let session = self.line.id.to_word();
        let asks_max = self.asks_before_pause(shared);
        let tells_max = self.credit.tells_left(&shared.limits);
        let bytes_max = self.credit.bytes_left(shared.message_bytes_pause());
        let frame_bytes_max = shared.limits.frame_bytes_max;
        let latest_ns = intake.deadline_ns(0);
        let (mut rest, mut asks, mut tells) = (input, 0, 0);
        let bytes_to = |rest: Body<'_>| input.bytes().len() - rest.bytes().len();
        while asks < asks_max && bytes_to(rest) < bytes_max {
            if (asks + tells).is_multiple_of(BETWEEN_LOOKS) && intake.is_congested() {
                break;
            }
            let Some((message, behind)) = Message::split(rest, frame_bytes_max) else { break };
            let padded = rest.bytes().len() - behind.bytes().len();
            let ticket = credit::ticket(session, !message.asks, padded, message.call);
            let call = if message.asks {
                let deadline_ns = match message.time_us {
                    0 => latest_ns,
                    us => intake.deadline_ns(us),
                };
                WireCall::Ask { deadline_ns, ticket }
            } else if tells < tells_max {
                WireCall::TellNoted { deadline_ns: intake.deadline_ns(TELL_TIME_US), ticket }
            } else {
                break;
            };
            if intake.send(message.number, message.key, message.body, call).is_err() {
                break;
            }
            asks += u32::from(message.asks);
            tells += u32::from(!message.asks);
            rest = behind;
        }
        let bytes = bytes_to(rest);
        self.credit.take(tells, bytes);
        shared.message_bytes += bytes;
        self.owed += asks;
        shared.owed += u64::from(asks);
        shared.stats.requests += u64::from(asks + tells);
        rest
    }

    /// Handles one frame, whatever it is; returns what is behind it, or `None` when it has to wait,
    /// is not whole, or nothing more is to be parsed.
    #[inline(never)]
    fn next_frame<'a, I: Intake>(
        &mut self,
        input: Body<'a>,
        intake: &mut I,
        shared: &mut Shared,
    ) -> Option<Body<'a>> {
        if input.bytes().is_empty() {
            return None;
        }
        if self.must_pause(shared) {
            self.line.flags.stalled = true;
            return None;
        }
        if intake.is_congested() {
            shared.make_ready(&mut self.line);
            return None;
        }
        let Ok(header) = Header::read(input.bytes(), shared.limits.frame_bytes_max) else {
            self.leave(Code::Protocol, shared);
            return None;
        };
        let header = header?;
        let behind = input.get(header.padded()..)?;
        let content = input.get(HEADER_BYTES..header.length as usize)?;
        match self.frame(header, content, intake, shared) {
            Handled::Done => {}
            Handled::Hold => {
                shared.make_ready(&mut self.line);
                return None;
            }
            Handled::Move => {
                self.line.flags.stalled = true;
                shared.make_dirty(&mut self.line);
                return None;
            }
            Handled::End(code) => {
                self.leave(code, shared);
                return None;
            }
        }
        shared.stats.requests += 1;
        let goes_on = !self.line.flags.ending && !self.line.flags.killed;
        goes_on.then_some(behind)
    }

    fn frame<I: Intake>(
        &mut self,
        header: Header,
        content: Body<'_>,
        intake: &mut I,
        shared: &mut Shared,
    ) -> Handled {
        match header.kind {
            Kind::Tell | Kind::Ask if self.greeted => self.message(header, content, intake, shared),
            Kind::Ping if self.greeted => {
                self.write(shared, |out| {
                    Header { call: header.call, ..Header::new(Kind::Pong) }.write(out);
                });
                Handled::Done
            }
            Kind::Pong if self.greeted => Handled::Done,
            Kind::Hello if !self.greeted => self.hello(content.bytes(), intake, shared),
            Kind::GoAway => {
                // The peer wants no more than it is owed.
                self.end();
                Handled::Done
            }
            _ => Handled::End(Code::Protocol),
        }
    }

    fn hello<I: Intake>(&mut self, content: &[u8], intake: &mut I, shared: &mut Shared) -> Handled {
        let hello = match Hello::read(content, shared.limits.messages_max) {
            Ok(hello) => hello,
            Err(error) => return Handled::End(error.code()),
        };
        let Facts { shard, shards, cluster, hash_key } = shared.facts;
        if hello.cluster != 0 && hello.cluster != cluster {
            return Handled::End(Code::Cluster);
        }
        if let Some(wanted) = hello.shard.filter(|wanted| *wanted != shard && *wanted < shards) {
            self.moves_to = Some(wanted);
            return Handled::Move;
        }
        let welcome = Welcome {
            version: VERSION,
            shard,
            shards,
            cluster,
            frame_bytes_max: shared.limits.frame_bytes_max,
            calls_max: shared.limits.calls_max,
            tells_max: shared.limits.tells_max,
            entity_messages_max: shared.limits.entity_messages_max,
            hash_key,
            messages: hello.standings(intake.messages(), |row| self.may_call(row)),
        };
        self.greeted = true;
        self.write(shared, |out| welcome.write(out));
        Handled::Done
    }

    fn message<I: Intake>(
        &mut self,
        header: Header,
        content: Body<'_>,
        intake: &mut I,
        shared: &mut Shared,
    ) -> Handled {
        let Some((key, body)) =
            content.bytes().first_chunk::<KEY_BYTES>().zip(content.get(KEY_BYTES..))
        else {
            return Handled::End(Code::Protocol);
        };
        let asks = header.kind == Kind::Ask;
        let row = intake.messages().get(usize::from(header.message));
        if !row.is_some_and(|row| self.may_call(row)) {
            return self.refuse(header, Code::Unknown, shared);
        }
        let key = u128::from_le_bytes(*key);
        let key = [key as u64, (key >> 64) as u64];
        let ticket = {
            let session = self.line.id.to_word();
            credit::ticket(session, !asks, header.padded(), header.call)
        };
        let call = if asks {
            WireCall::Ask { deadline_ns: intake.deadline_ns(header.time_us), ticket }
        } else {
            if !self.credit.allows_tell(&shared.limits) {
                return Handled::End(Code::Limit);
            }
            WireCall::TellNoted { deadline_ns: intake.deadline_ns(TELL_TIME_US), ticket }
        };
        match intake.send(header.message, key, body, call) {
            Ok(()) => {
                self.credit.take(u32::from(!asks), header.padded());
                shared.message_bytes += header.padded();
                self.owed += u32::from(asks);
                shared.owed += u64::from(asks);
                Handled::Done
            }
            // A tell has no answer that could say so: it waits, and the peer with it.
            Err(WireError::Full) if !asks => Handled::Hold,
            Err(WireError::Full) => self.refuse(header, Code::Full, shared),
            Err(WireError::Unknown) => self.refuse(header, Code::Unknown, shared),
            Err(WireError::Unconvertible) => self.refuse(header, Code::Unconvertible, shared),
            Err(_) => self.refuse(header, Code::Invalid, shared),
        }
    }

    /// How many more asks may be taken before the session pauses.
    fn asks_before_pause(&self, shared: &Shared) -> u32 {
        if self.must_pause(shared) {
            return 0;
        }
        let answers_max = (shared.output_bytes_pause() - self.line.output_bytes())
            .div_ceil(self.reply_bytes.max(1));
        let room = answers_max.saturating_sub(self.owed as usize);
        (shared.limits.calls_max - self.owed).min(u32::try_from(room).unwrap_or(u32::MAX))
    }

    /// Whether the peer may send messages of this type.
    fn may_call(&self, row: &WireRow) -> bool {
        let (entity, method) = row.name;
        self.line.may_call(entity.bytes().chain([b'.']).chain(method.bytes()))
    }

    /// Ends the pause if its reason is gone.
    fn recover(&mut self, shared: &mut Shared) {
        if !self.must_pause(shared) {
            self.line.flags.stalled = false;
            shared.make_ready(&mut self.line);
        }
    }

    #[inline]
    fn must_pause(&self, shared: &Shared) -> bool {
        self.moves_to.is_some()
            || self.owed >= shared.limits.calls_max
            || self.credit.bytes_left(shared.message_bytes_pause()) == 0
            || self.line.output_bytes() + self.owed as usize * self.reply_bytes
                >= shared.output_bytes_pause()
    }
}

impl crate::sessions::Session for Session {
    type Limits = Limits;
    type Facts = Facts;

    fn new(id: SessionId, _peer: Option<SocketAddr>, _shared: &Shared) -> Self {
        Self {
            line: Line::new(id),
            greeted: false,
            moves_to: None,
            owed: 0,
            credit: Credit::default(),
            reply_bytes: FIRST_REPLY_BYTES,
            rest: AlignedVec::new(),
            rest_at: 0,
            lent_bytes: 0,
        }
    }

    fn line(&mut self) -> &mut Line {
        &mut self.line
    }

    fn owed(&self) -> u32 {
        self.owed
    }

    fn unparsed_bytes(&self) -> usize {
        self.rest.len() + self.lent_bytes
    }

    fn output_bytes(&self) -> usize {
        self.line.output_bytes()
    }

    fn lacks(&self, limits: &Limits) -> usize {
        self.missing_bytes(limits)
    }

    fn lend(&mut self, limits: &Limits) -> Option<Direct> {
        self.lend_rest(limits)
    }

    fn wants_input(&self, limits: &Limits, is_crowded: bool) -> bool {
        let flags = &self.line.flags;
        let is_paused = flags.stalled || flags.ready;
        let is_full = is_crowded || self.rest.len() >= limits.input_bytes_pause;
        let leaves = flags.ending || flags.killed || self.moves_to.is_some();
        !(leaves || (is_paused && is_full))
    }

    fn is_finished(&self) -> bool {
        let done = self.owed == 0 && self.line.unsent_bytes() == 0;
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
    }

    fn say_goodbye(&mut self, shared: &mut Shared) {
        self.go_away(Code::Stopping, shared);
    }

    fn refuse_input(&mut self, shared: &mut Shared) {
        self.go_away(Code::Limit, shared);
    }

    fn moves_to(&self) -> Option<u16> {
        self.moves_to
    }

    fn take_input(&mut self) -> Vec<u8> {
        let input = self.rest[self.rest_at..].to_vec();
        self.drop_input();
        input
    }

    fn is_greeted(&self) -> bool {
        self.greeted
    }

    fn ping(&mut self, shared: &mut Shared) {
        self.write(shared, |out| Header::new(Kind::Ping).write(out));
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

    fn receive(&mut self, mut input: Body<'_>, intake: &mut I, shared: &mut Shared) {
        let missing = self.missing_bytes(&shared.limits);
        if missing > 0
            && let Some((first, others)) = input.get(..missing).zip(input.get(missing..))
        {
            // What follows the frame that was cut may be read where it lies again.
            self.rest.extend_from_slice(first.bytes());
            self.frames_of_rest(intake, shared);
            input = others;
        }
        let bytes = input.bytes();
        if self.line.flags.ending || self.line.flags.killed || bytes.is_empty() {
            return;
        }
        let in_place = self.rest.is_empty() && bytes.as_ptr().addr().is_multiple_of(ALIGN);
        if in_place {
            let taken = self.frames(input, intake, shared);
            self.rest.extend_from_slice(&bytes[taken..]);
            return;
        }
        self.rest.extend_from_slice(bytes);
        if !self.line.flags.stalled && !self.line.flags.ready {
            self.frames_of_rest(intake, shared);
        }
    }

    fn fill(&mut self, memory: Memory, intake: &mut I, shared: &mut Shared) {
        self.fill_rest(memory, intake, shared);
    }

    fn resume(&mut self, intake: &mut I, shared: &mut Shared) {
        self.frames_of_rest(intake, shared);
    }
}

impl Outside for Sessions<Session> {
    fn answer(&mut self, _ticket: Ticket, _answer: Result<&dyn ToValue, AskError>) {
        debug_assert!(false, "a native session asks in archives");
    }

    #[inline]
    fn answer_wire(&mut self, ticket: Ticket, answer: Result<&dyn Encode, AskError>) {
        let (id, message) = (SessionId::of(ticket), credit::Underway::of(ticket));
        if message.is_tell {
            // A client that told and went away wants no word.
            self.handled(id, message.bytes, |session, shared| session.handled(message, shared));
        } else {
            self.answered(id, message.bytes, |session, shared| {
                session.answer(message, answer, shared)
            });
        }
    }
}
