//! The state of one connection: what is under way, what waits here, and what is to be sent.

use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use coreside_shard::{Encode, KeyWords, WireError};

use super::calls::{Call, Calls};
use super::connection::Common;
use super::output::Output;
use super::window::{Held, Notice, Sort, Window};
use crate::native::frame::{HEADER_BYTES, Header, Kind};

/// Why a request was not sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Unsent {
    /// There is no connection.
    Down,
    /// Too much waits already, or the message is longer than a frame may be.
    Full,
    /// The node has no such message, or not for this client.
    Unknown,
}

pub(super) struct State {
    /// `None` while there is no connection.
    pub(super) link: Option<Up>,
    pub(super) calls: Calls,
}

/// A connection that is up.
pub(super) struct Up {
    pub(super) stream: Arc<TcpStream>,
    /// By number of the client's table: the node's number, where it has one.
    pub(super) numbers: Vec<Option<u16>>,
    pub(super) frame_bytes_max: u32,
    pub(super) window: Window,
    pub(super) output: Output,
    /// Somebody is sending.
    pub(super) sending: bool,
    /// Sending is left to the client's thread: the socket takes no more, or more comes soon.
    pub(super) left: bool,
    /// The socket takes no more.
    pub(super) blocked: bool,
    /// The socket takes nothing any more: the client's thread finds out, and mends it.
    pub(super) broken: bool,
    /// When the last tell was written.
    pub(super) told_at: Option<Instant>,
    /// The node takes no more; what is under way is still answered.
    pub(super) leaves: bool,
}

/// A message that is about to be written.
pub(super) struct Letter<'a, M> {
    /// Its number in the client's own table.
    pub(super) number: u16,
    pub(super) key: KeyWords,
    pub(super) message: &'a M,
}

/// How much longer than the node a client waits: the way there and back.
pub(super) const GRACE: Duration = Duration::from_millis(50);

pub(super) fn micros(time: Duration) -> u32 {
    u32::try_from(time.as_micros()).unwrap_or(u32::MAX).max(1)
}

impl State {
    /// Writes a message behind what waits, and returns the account of its entity; or keeps it,
    /// where it may not be under way yet.
    pub(super) fn write<M: Encode>(
        &mut self,
        header: Header,
        letter: Letter<'_, M>,
        notice: Option<Notice>,
        common: &Common,
    ) -> Result<Option<u32>, Unsent> {
        let up = self.link.as_mut().filter(|up| !up.leaves).ok_or(Unsent::Down)?;
        let Up { window, output, frame_bytes_max, .. } = up;
        if output.unsent_bytes() + window.held_bytes() > common.config.output_bytes_max {
            return Err(Unsent::Full);
        }
        let Letter { number, key, message } = letter;
        let theirs = up.numbers[usize::from(number)].ok_or(Unsent::Unknown)?;
        let header = Header { message: theirs, ..header };
        let number = window.account((common.kinds[usize::from(number)], key));
        let (header, sort) = match header.kind {
            // Brought back by the credit for it.
            Kind::Tell => (Header { call: number, ..header }, Sort::Tell),
            _ => (header, Sort::Ask),
        };
        let frame_bytes_max = *frame_bytes_max as usize;
        let content = |out: &mut Vec<u8>| {
            let start = out.len() - HEADER_BYTES;
            out.extend_from_slice(&key[0].to_le_bytes());
            out.extend_from_slice(&key[1].to_le_bytes());
            message.encode(out)?;
            let fits = out.len() - start <= frame_bytes_max;
            if fits { Ok(()) } else { Err(WireError::Unwritable) }
        };
        let is_open = window.is_open(number, sort);
        if !is_open && !window.has_room(number, common.config.output_bytes_max) {
            return Err(Unsent::Full);
        }
        let mut frame = Vec::new();
        let written = match is_open {
            true => output.write(|out| header.write_with(out, content)),
            false => header.write_with(&mut frame, content),
        };
        if written.is_err() {
            window.tidy(number);
            return Err(Unsent::Full);
        }
        if is_open {
            window.begin(number, sort);
            return Ok(Some(number));
        }
        let call = (header.call, self.calls.next_serial());
        window.hold(number, Held { sort, frame, call, notice });
        Ok(None)
    }

    /// An ask that was under way is no more.
    pub(super) fn end(&mut self, call: &Call) {
        if let (Some(up), Some(account)) = (&mut self.link, call.account) {
            let was_under_way = up.window.end(account, Sort::Ask, 1);
            debug_assert!(was_under_way);
        }
    }

    /// Writes what waited and may be under way now. Returns who waited for tells among it, and who
    /// waits for nothing any more: whatever is theirs is dropped behind the lock, as it may be the
    /// last of a task with requests of its own.
    pub(super) fn go_on(&mut self) -> Vec<Notice> {
        let mut notices = Vec::new();
        let Self { link: Some(up), calls } = self else { return notices };
        while let Some((account, Held { sort, mut frame, call, notice })) = up.window.next() {
            if notice.as_ref().is_some_and(|notice| Arc::strong_count(notice) == 1) {
                // Whoever wanted it sent has given up.
                notices.extend(notice);
                up.window.end(account, sort, 1);
                continue;
            }
            notices.extend(notice);
            if sort == Sort::Ask {
                let Some(waiting) = calls.get_mut(call).filter(|call| call.is_wanted()) else {
                    // Its time was up, or nobody waits for it any more.
                    notices.extend(calls.take_this(call).map(|call| call.pending));
                    up.window.end(account, Sort::Ask, 1);
                    continue;
                };
                waiting.account = Some(account);
                let end = Instant::now() + GRACE;
                let left = waiting.deadline.map(|at| at.saturating_duration_since(end));
                let time_us = left.map_or(u32::MAX, micros);
                frame[TIME_AT..HEADER_BYTES].copy_from_slice(&time_us.to_le_bytes());
            }
            let written = up.output.write(|out| {
                out.extend_from_slice(&frame);
                Ok::<(), ()>(())
            });
            debug_assert_eq!(written, Ok(()));
        }
        notices
    }
}

/// Where the time is in the header of an ask.
const TIME_AT: usize = 12;
