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
//! A session stops parsing while too many answers are outstanding, while too much output is unsent
//! or to be expected (the answers outstanding, each taken to be as large as the largest of late),
//! or while the shard is congested. Bytes that arrive meanwhile wait in `rest`, and the peer's in
//! its socket. Whatever ends the pause (an answer, a send that is done) reports the session as
//! ready.

mod rest;

use std::net::SocketAddr;

use coreside_shard::rkyv::util::AlignedVec;
use coreside_shard::{
    AskError, Body, Encode, HashKey, Outside, Ticket, ToValue, WireCall, WireError, WireRow,
};

use super::frame::{ALIGN, Code, HEADER_BYTES, Header, KEY_BYTES, Kind, VERSION};
use super::hello::{Hello, Welcome};
use super::intake::Intake;
use super::limits::Limits;
use crate::sessions::{Line, Session as _, SessionId, Sessions, Talk};

type Shared = crate::sessions::Shared<Session>;

/// What a welcome says of the node.
#[derive(Clone, Copy, Debug, Default)]
pub struct Facts {
    /// This shard.
    pub shard: u16,
    /// How many there are.
    pub shards: u16,
    /// The cluster; 0 for none.
    pub cluster: u128,
    /// What keys are hashed with, where clients may know it.
    pub hash_key: Option<HashKey>,
}

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
    /// How large the next reply may be: as large as the largest of late.
    reply_bytes: usize,
    /// Bytes that are not parsed, from the first byte of a frame.
    rest: AlignedVec<ALIGN>,
    /// Where that frame begins: a multiple of 16.
    rest_at: usize,
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
        let bytes = input.bytes();
        debug_assert!(bytes.as_ptr().addr().is_multiple_of(ALIGN));
        let mut at = 0;
        self.line.flags.stalled = false;
        while at < bytes.len() {
            if self.must_pause(&shared.limits) {
                self.line.flags.stalled = true;
                break;
            }
            if intake.is_congested() {
                shared.make_ready(&mut self.line);
                break;
            }
            let header = match Header::read(&bytes[at..], shared.limits.frame_bytes_max) {
                Ok(Some(header)) => header,
                Ok(None) => break,
                Err(_) => {
                    self.leave(Code::Protocol, shared);
                    return bytes.len();
                }
            };
            let Some(frame) = bytes.get(at..at + header.padded()) else { break };
            let content = &frame[HEADER_BYTES..header.length as usize];
            match self.frame(header, (content, input), intake, shared) {
                Handled::Done => at += frame.len(),
                Handled::Hold => {
                    shared.make_ready(&mut self.line);
                    break;
                }
                Handled::Move => {
                    self.line.flags.stalled = true;
                    shared.make_dirty(&mut self.line);
                    break;
                }
                Handled::End(code) => {
                    self.leave(code, shared);
                    return bytes.len();
                }
            }
            shared.stats.requests += 1;
            if self.line.flags.ending || self.line.flags.killed {
                return bytes.len();
            }
        }
        at
    }

    #[inline]
    fn frame<I: Intake>(
        &mut self,
        header: Header,
        (content, input): (&[u8], Body<'_>),
        intake: &mut I,
        shared: &mut Shared,
    ) -> Handled {
        match header.kind {
            Kind::Tell | Kind::Ask if self.greeted => {
                self.message(header, (content, input), intake, shared)
            }
            Kind::Ping if self.greeted => {
                self.write(shared, |out| {
                    Header { call: header.call, ..Header::new(Kind::Pong) }.write(out);
                });
                Handled::Done
            }
            Kind::Pong if self.greeted => Handled::Done,
            Kind::Hello if !self.greeted => self.hello(content, intake, shared),
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
            hash_key,
            messages: hello.standings(intake.messages(), |row| self.may_call(row)),
        };
        self.greeted = true;
        self.write(shared, |out| welcome.write(out));
        Handled::Done
    }

    #[inline]
    fn message<I: Intake>(
        &mut self,
        header: Header,
        (content, input): (&[u8], Body<'_>),
        intake: &mut I,
        shared: &mut Shared,
    ) -> Handled {
        let Some((key, body)) = content.split_first_chunk::<KEY_BYTES>() else {
            return Handled::End(Code::Protocol);
        };
        let asks = header.kind == Kind::Ask;
        let row = intake.messages().get(usize::from(header.message));
        if !row.is_some_and(|row| self.may_call(row)) {
            return self.refuse(header, Code::Unknown, shared);
        }
        let key = u128::from_le_bytes(*key);
        let key = [key as u64, (key >> 64) as u64];
        let call = if asks {
            let ticket = Ticket([self.line.id.to_word(), u64::from(header.call)]);
            WireCall::Ask { deadline_ns: intake.deadline_ns(header.time_us), ticket }
        } else {
            WireCall::Tell
        };
        match intake.send(header.message, key, input.narrow(body), call) {
            Ok(()) => {
                self.owed += u32::from(asks);
                shared.owed += u64::from(asks);
                Handled::Done
            }
            // A tell has no answer that could say so: it waits, and the peer with it.
            Err(WireError::Full) if !asks => Handled::Hold,
            Err(WireError::Full) => self.refuse(header, Code::Full, shared),
            Err(_) => self.refuse(header, Code::Invalid, shared),
        }
    }

    /// Whether the peer may send messages of this type.
    #[inline]
    fn may_call(&self, row: &WireRow) -> bool {
        let (entity, method) = row.name;
        self.line.may_call(entity.bytes().chain([b'.']).chain(method.bytes()))
    }

    /// Nothing is done with a message. Who tells it has broken the protocol, as it was told what
    /// the messages are.
    #[cold]
    fn refuse(&mut self, header: Header, code: Code, shared: &mut Shared) -> Handled {
        if header.kind == Kind::Tell {
            return Handled::End(code);
        }
        self.write(shared, |out| write_error(out, header.call, code));
        Handled::Done
    }

    /// Says goodbye. What is owed is still sent.
    fn leave(&mut self, code: Code, shared: &mut Shared) {
        shared.stats.protocol_errors += 1;
        self.go_away(code, shared);
        self.end();
    }

    fn go_away(&mut self, code: Code, shared: &mut Shared) {
        if self.line.flags.ending {
            return;
        }
        self.write(shared, |out| {
            Header { code: code as u8, ..Header::new(Kind::GoAway) }.write(out);
        });
    }

    /// Appends frames to the output.
    #[inline]
    fn write(&mut self, shared: &mut Shared, write: impl FnOnce(&mut Vec<u8>)) {
        shared.equip(&mut self.line.output);
        write(&mut self.line.output);
        shared.make_dirty(&mut self.line);
        if self.line.unsent_bytes() > shared.limits.output_bytes_max {
            shared.stats.limit_closes += 1;
            self.kill();
        }
    }

    /// Takes the answer to an ask of this session.
    #[inline]
    fn answer(&mut self, call: u32, answer: Result<&dyn Encode, AskError>, shared: &mut Shared) {
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
                let start = out.len();
                let written = header.write_with(out, |out| {
                    reply.encode(out)?;
                    let fits = out.len() - start <= frame_bytes_max;
                    if fits { Ok(()) } else { Err(WireError::Unwritable) }
                });
                if written.is_err() {
                    write_error(out, call, Code::TooLong);
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

    /// Ends the pause if its reason is gone.
    fn recover(&mut self, shared: &mut Shared) {
        if !self.must_pause(&shared.limits) {
            self.line.flags.stalled = false;
            shared.make_ready(&mut self.line);
        }
    }

    #[inline]
    fn must_pause(&self, limits: &Limits) -> bool {
        self.moves_to.is_some()
            || self.owed >= limits.calls_max
            || self.line.unsent_bytes() + self.owed as usize * self.reply_bytes
                >= limits.output_bytes_pause
    }
}

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

impl crate::sessions::Session for Session {
    type Limits = Limits;
    type Facts = Facts;

    fn new(id: SessionId, _peer: Option<SocketAddr>, _shared: &Shared) -> Self {
        Self {
            line: Line::new(id),
            greeted: false,
            moves_to: None,
            owed: 0,
            reply_bytes: FIRST_REPLY_BYTES,
            rest: AlignedVec::new(),
            rest_at: 0,
        }
    }

    fn line(&mut self) -> &mut Line {
        &mut self.line
    }

    fn owed(&self) -> u32 {
        self.owed
    }

    fn unparsed_bytes(&self) -> usize {
        self.rest.len()
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
        self.drop_input();
    }

    fn kill(&mut self) {
        self.line.flags.killed = true;
        self.line.flags.stalled = false;
        self.drop_input();
        self.line.output = Vec::new();
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
        if let Some(missing) = self.missing_bytes(&shared.limits)
            && let Some((first, others)) = input.bytes().split_at_checked(missing)
        {
            // What follows the frame that was cut may be read where it lies again.
            self.rest.extend_from_slice(first);
            self.frames_of_rest(intake, shared);
            input = input.narrow(others);
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
        let Ticket([_, call]) = ticket;
        self.answered(SessionId::of(ticket), |session, shared| {
            session.answer(call as u32, answer, shared);
        });
    }
}
