use std::fmt;
use std::sync::Arc;

use coreside_net::native::frame::{Code, FrameError, HEADER_BYTES, Header, Kind};

use super::calls::{Call, Calls};
use super::shape::Refusal;
use crate::errors::ErrorLog;

/// What ends a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub(crate) enum FrameFault {
    /// No frame.
    Frame(FrameError),
    /// A frame that a node does not send to a client that only asks.
    Kind(Kind),
    /// A reply that is shorter than its type.
    Short,
    /// An answer to nothing that was asked.
    Surplus(u32),
    /// The node says goodbye.
    GoAway(Option<Code>),
}

impl fmt::Display for FrameFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Frame(error) => write!(f, "no frame of the native protocol: {error}"),
            Self::Kind(kind) => write!(f, "an unexpected frame: {kind:?}"),
            Self::Short => write!(f, "a reply is shorter than its type"),
            Self::Surplus(call) => write!(f, "an answer to call {call}, which is not outstanding"),
            Self::GoAway(Some(code)) => write!(f, "the node says goodbye: {code}"),
            Self::GoAway(None) => write!(f, "the node says goodbye"),
        }
    }
}

/// The position of one connection inside its stream of answers.
#[derive(Debug)]
pub(crate) struct Frames {
    /// The beginning of a frame that the network has cut. No longer than a frame.
    rest: Vec<u8>,
    frame_bytes_max: u32,
    /// How the reply to each of the workload's messages says no, if it can.
    refusals: Arc<[Option<Refusal>]>,
    /// The calls of pings that are not answered. A node sends one and waits.
    pings: Vec<u32>,
    /// Tells that may be sent before the node gives credit back.
    tells_left: u32,
}

/// Pings that a node may send without an answer.
const PINGS_MAX: usize = 8;

impl Frames {
    pub(crate) fn new(
        frame_bytes_max: u32,
        tells_max: u32,
        refusals: Arc<[Option<Refusal>]>,
    ) -> Self {
        const FIRST_BYTES: usize = 4096;
        let (rest, pings) = (Vec::with_capacity(FIRST_BYTES), Vec::with_capacity(PINGS_MAX));
        Self { rest, frame_bytes_max, refusals, pings, tells_left: tells_max }
    }

    /// Tells that may be sent before the node gives credit back.
    #[inline]
    pub(crate) fn tells_left(&self) -> u32 {
        self.tells_left
    }

    /// Notes a tell that is sent.
    ///
    /// # Panics
    /// When none may be sent.
    #[inline]
    pub(crate) fn tell(&mut self) {
        assert!(self.tells_left > 0, "a tell beyond the credit");
        self.tells_left -= 1;
    }

    /// Takes credit back: pairs of a call number, of which the load uses one, and a count.
    fn take_credit(&mut self, content: &[u8]) {
        for pair in content.as_chunks::<8>().0 {
            let count = (u64::from_le_bytes(*pair) >> 32) as u32;
            self.tells_left = self.tells_left.saturating_add(count);
        }
    }

    /// Whether a ping waits for its answer.
    #[inline]
    pub(crate) fn owes_pong(&self) -> bool {
        !self.pings.is_empty()
    }

    /// Writes the answer to a ping at `at`, if one waits, and returns the place behind it.
    ///
    /// # Panics
    /// When `out` has no header's room there.
    pub(crate) fn pong(&mut self, out: &mut [u8], at: usize) -> usize {
        let Some(call) = self.pings.pop() else { return at };
        let pong = Header { call, ..Header::new(Kind::Pong) };
        out[at..at + HEADER_BYTES].copy_from_slice(&pong.to_bytes());
        at + HEADER_BYTES
    }

    /// Goes through `bytes`, hands each call that is answered in them to `answered`, and returns
    /// how many there were.
    pub(crate) fn scan(
        &mut self,
        bytes: &[u8],
        calls: &mut Calls,
        errors: &mut ErrorLog,
        mut answered: impl FnMut(Call),
    ) -> Result<u64, FrameFault> {
        let mut count = 0;
        let mut bytes = bytes;
        while !self.rest.is_empty() && !bytes.is_empty() {
            let wanted = self.wanted(&self.rest)?;
            let taken = wanted.saturating_sub(self.rest.len()).min(bytes.len());
            self.rest.extend_from_slice(&bytes[..taken]);
            bytes = &bytes[taken..];
            // A whole header says how long the frame is, so the end is reached in two steps.
            if self.rest.len() < HEADER_BYTES || self.rest.len() < self.wanted(&self.rest)? {
                continue;
            }
            let frame = std::mem::take(&mut self.rest);
            if let Some(call) = self.frame(&frame, calls, errors)? {
                answered(call);
                count += 1;
            }
            self.rest = frame;
            self.rest.clear();
        }
        while !bytes.is_empty() {
            let wanted = self.wanted(bytes)?;
            if bytes.len() < HEADER_BYTES || bytes.len() < wanted {
                self.rest.extend_from_slice(bytes);
                break;
            }
            let (frame, behind) = bytes.split_at(wanted);
            if let Some(call) = self.frame(frame, calls, errors)? {
                answered(call);
                count += 1;
            }
            bytes = behind;
        }
        Ok(count)
    }

    /// Bytes that the frame at the front needs, as far as that is known.
    fn wanted(&self, bytes: &[u8]) -> Result<usize, FrameFault> {
        match Header::read(bytes, self.frame_bytes_max) {
            Ok(Some(header)) => Ok(header.padded()),
            Ok(None) => Ok(HEADER_BYTES),
            Err(error) => Err(FrameFault::Frame(error)),
        }
    }

    /// Takes one whole frame; returns the call that it answers.
    fn frame(
        &mut self,
        frame: &[u8],
        calls: &mut Calls,
        errors: &mut ErrorLog,
    ) -> Result<Option<Call>, FrameFault> {
        let header = match Header::read(frame, self.frame_bytes_max) {
            Ok(Some(header)) => header,
            Ok(None) => return Err(FrameFault::Short),
            Err(error) => return Err(FrameFault::Frame(error)),
        };
        match header.kind {
            Kind::Reply | Kind::Error => {}
            Kind::Ping if self.pings.len() < PINGS_MAX => {
                self.pings.push(header.call);
                return Ok(None);
            }
            Kind::Credit => {
                self.take_credit(&frame[HEADER_BYTES..header.length as usize]);
                return Ok(None);
            }
            Kind::GoAway => return Err(FrameFault::GoAway(Code::from_byte(header.code))),
            kind => return Err(FrameFault::Kind(kind)),
        }
        let call = calls.end(header.call).ok_or(FrameFault::Surplus(header.call))?;
        if header.kind == Kind::Error {
            log_error(header.code, errors);
        } else if let Some(refusal) = &self.refusals[usize::from(call.message)] {
            let archive = &frame[HEADER_BYTES..header.length as usize];
            if let Some(name) = refusal.read(archive).map_err(|()| FrameFault::Short)? {
                log_refusal(name, errors);
            }
        }
        Ok(Some(call))
    }
}

#[cold]
fn log_error(code: u8, errors: &mut ErrorLog) {
    match Code::from_byte(code) {
        Some(code) => errors.record(code.to_string().as_bytes()),
        None => errors.record(format!("error {code}").as_bytes()),
    }
}

/// No part of the way failed: the entity has said no.
#[cold]
fn log_refusal(name: &str, errors: &mut ErrorLog) {
    match name {
        "" => errors.record(b"Err"),
        name => errors.record(format!("Err({name})").as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(calls: &mut Calls, count: u64) -> Vec<u8> {
        let mut out = Vec::new();
        for at in 0..count {
            let call = calls.begin(at, 0);
            let kind = if at % 5 == 4 { Kind::Error } else { Kind::Reply };
            let header = Header { call, code: (kind == Kind::Error) as u8, ..Header::new(kind) };
            let body = vec![7; if kind == Kind::Error { 0 } else { at as usize * 3 }];
            let written = header.write_with(&mut out, |out| {
                out.extend_from_slice(&body);
                Ok::<(), ()>(())
            });
            assert_eq!(written, Ok(()));
        }
        out
    }

    #[test]
    fn streams_cut_anywhere_are_the_same_answers() {
        for piece in [1, 3, 15, 16, 17, 64, 100_000] {
            let mut calls = Calls::new(20);
            let bytes = stream(&mut calls, 20);
            let mut frames = Frames::new(1024, 1, Arc::new([None]));
            let (mut errors, mut answered) = (ErrorLog::default(), Vec::new());
            let mut count = 0;
            for bytes in bytes.chunks(piece) {
                let scanned = frames.scan(bytes, &mut calls, &mut errors, |call| {
                    answered.push(call.since_ns);
                });
                count += scanned.expect("frames");
            }
            assert!(answered.iter().copied().eq(0..20), "{piece}: {answered:?}");
            assert_eq!((count, errors.count(), calls.outstanding()), (20, 4, 0));
        }
    }

    #[test]
    fn pings_answer_nothing_and_are_answered_once() {
        let (mut calls, mut errors) = (Calls::new(2), ErrorLog::default());
        let mut frames = Frames::new(1024, 1, Arc::new([None]));
        let mut bytes = Header { call: 7, ..Header::new(Kind::Ping) }.to_bytes().to_vec();
        bytes.extend(stream(&mut calls, 1));
        let count = frames.scan(&bytes, &mut calls, &mut errors, |_| ());
        assert_eq!((count, frames.owes_pong()), (Ok(1), true));
        let mut out = [0; 32];
        assert_eq!(frames.pong(&mut out, 16), 32);
        let pong = Header { call: 7, ..Header::new(Kind::Pong) };
        assert_eq!(Header::read(&out[16..], 1024), Ok(Some(pong)));
        assert!(!frames.owes_pong());
        let pings = Header::new(Kind::Ping).to_bytes().repeat(PINGS_MAX + 1);
        let flood = frames.scan(&pings, &mut calls, &mut errors, |_| ());
        assert_eq!(flood, Err(FrameFault::Kind(Kind::Ping)));
    }

    #[test]
    fn credit_comes_back_in_sums() {
        let (mut calls, mut errors) = (Calls::new(2), ErrorLog::default());
        let mut frames = Frames::new(1024, 1, Arc::new([None]));
        frames.tell();
        assert_eq!(frames.tells_left(), 0);
        let mut bytes = Vec::new();
        let written = Header::new(Kind::Credit).write_with(&mut bytes, |out| {
            out.extend([0, 3, 0, 4].into_iter().flat_map(u32::to_le_bytes));
            Ok::<(), ()>(())
        });
        assert_eq!(written, Ok(()));
        assert_eq!(frames.scan(&bytes, &mut calls, &mut errors, |_| ()), Ok(0));
        assert_eq!(frames.tells_left(), 7);
    }

    #[test]
    fn nonsense_and_surplus_are_faults() {
        let scan = |bytes: &[u8]| {
            let mut calls = Calls::new(1);
            Frames::new(1024, 1, Arc::new([None])).scan(
                bytes,
                &mut calls,
                &mut ErrorLog::default(),
                |_| (),
            )
        };
        let bytes = |header: Header| header.to_bytes();
        let surplus = scan(&bytes(Header { call: 3, ..Header::new(Kind::Reply) }));
        assert_eq!(surplus, Err(FrameFault::Surplus(3)));
        let goodbye = scan(&bytes(Header { code: 35, ..Header::new(Kind::GoAway) }));
        assert_eq!(goodbye, Err(FrameFault::GoAway(Some(Code::Stopping))));
        assert_eq!(scan(&bytes(Header::new(Kind::Hello))), Err(FrameFault::Kind(Kind::Hello)));
        assert!(matches!(scan(b"+OK\r\n+OK\r\n+OK\r\n+"), Err(FrameFault::Frame(_))));
    }
}
