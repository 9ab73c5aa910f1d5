//! What one connection may have under way: tells that are not handled, and bytes of all messages.
//!
//! A tell has no answer, so its sender is told how many have been handled, in frames of kind
//! `credit`. Handled is one whose turn is over, also an async one; or that has been given up; or
//! whose answer was put off, once somebody answers it.
//!
//! # Invariants
//! - `taken` counts the tells that the peer was not told of; it never exceeds the limit, as one
//!   beyond it ends the connection.
//! - `handled` and `handled_count` say the same, and less than a batch waits there after a write.

use coreside_shard::Ticket;

use super::frame::{ALIGN, HEADER_BYTES, Header, Kind};
use super::limits::Limits;

/// The credit of one connection.
#[derive(Debug, Default)]
pub(super) struct Credit {
    /// Tells that the peer was not told to be handled.
    taken: u32,
    /// Those of them that are: call numbers, each with how many tells in a row.
    handled: Vec<(u32, u32)>,
    handled_count: u32,
    /// Bytes of messages, asks and tells, that are not handled.
    bytes: usize,
}

/// A tell is handled after this time at the latest, as far as its sender's credit goes.
pub(super) const TELL_TIME_US: u32 = 10_000_000;

/// What a ticket says beside its session and call number.
const TELL: u64 = 1 << 63;
const UNITS_AT: u32 = 32;

/// Names a message of a session: its call number, the bytes of its frame, and whether it is a tell.
#[inline(always)]
pub(super) fn ticket(session: u64, is_tell: bool, padded: usize, call: u32) -> Ticket {
    // A length has 32 bits, so this is less than `TELL`.
    let units = (padded / ALIGN) as u64;
    let tell = if is_tell { TELL } else { 0 };
    Ticket([session, tell | units << UNITS_AT | u64::from(call)])
}

/// A message under way, as its ticket names it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Underway {
    pub(super) call: u32,
    pub(super) bytes: usize,
    pub(super) is_tell: bool,
}

impl Underway {
    #[inline]
    pub(super) fn of(Ticket([_, word]): Ticket) -> Self {
        let units = (word & !TELL) >> UNITS_AT;
        Self { call: word as u32, bytes: units as usize * ALIGN, is_tell: word & TELL != 0 }
    }
}

impl Credit {
    /// Whether the peer may tell at all just now.
    #[inline]
    pub(super) fn allows_tell(&self, limits: &Limits) -> bool {
        self.tells_left(limits) > 0
    }

    /// How many tells may be taken.
    #[inline]
    pub(super) fn tells_left(&self, limits: &Limits) -> u32 {
        limits.tells_max.saturating_sub(self.taken)
    }

    /// How many bytes of messages may be taken before the session pauses, which it does at so many
    /// under way; the last message may go beyond them.
    #[inline]
    pub(super) fn bytes_left(&self, message_bytes_pause: usize) -> usize {
        message_bytes_pause.saturating_sub(self.bytes)
    }

    /// Messages of so many bytes, of which so many are tells, are under way.
    #[inline]
    pub(super) fn take(&mut self, tells: u32, bytes: usize) {
        self.taken += tells;
        self.bytes += bytes;
    }

    /// A message has been handled. Returns whether the peer is to be told of tells.
    #[inline]
    pub(super) fn give_back(&mut self, message: Underway, limits: &Limits) -> bool {
        debug_assert!(self.bytes >= message.bytes);
        self.bytes -= message.bytes;
        if !message.is_tell {
            return false;
        }
        match self.handled.last_mut() {
            Some((call, count)) if *call == message.call => *count += 1,
            _ => self.handled.push((message.call, 1)),
        }
        self.handled_count += 1;
        debug_assert!(self.handled_count <= self.taken);
        self.handled_count >= u32::from(limits.entity_messages_max).div_ceil(2)
    }

    /// Tells the peer of all that were handled.
    #[cold]
    pub(super) fn write(&mut self, out: &mut Vec<u8>, limits: &Limits) {
        let per_frame = (limits.frame_bytes_max as usize - HEADER_BYTES) / 8;
        for calls in self.handled.chunks(per_frame) {
            let content = |out: &mut Vec<u8>| {
                for (call, count) in calls {
                    out.extend_from_slice(&call.to_le_bytes());
                    out.extend_from_slice(&count.to_le_bytes());
                }
                Ok::<(), std::convert::Infallible>(())
            };
            Header::new(Kind::Credit).write_with(out, content).unwrap_or_default();
        }
        self.taken -= self.handled_count;
        self.handled_count = 0;
        self.handled.clear();
    }
}

/// The content of a credit frame: call numbers, each with how many tells were handled.
pub(crate) fn read(content: &[u8]) -> impl Iterator<Item = (u32, u32)> {
    let (pairs, _) = content.as_chunks::<8>();
    pairs.iter().map(|pair| {
        let word = u64::from_le_bytes(*pair);
        (word as u32, (word >> 32) as u32)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sessions::SessionId;

    const ID: SessionId = SessionId { slot: 3, generation: 9 };

    fn ticket_of(header: Header) -> Ticket {
        ticket(ID.to_word(), header.kind == Kind::Tell, header.padded(), header.call)
    }

    fn take(credit: &mut Credit, header: Header) {
        credit.take(u32::from(header.kind == Kind::Tell), header.padded());
    }

    fn tell(call: u32) -> Header {
        Header { length: 50, call, ..Header::new(Kind::Tell) }
    }

    fn handled(credit: &mut Credit, header: Header, limits: &Limits) -> bool {
        credit.give_back(Underway::of(ticket_of(header)), limits)
    }

    #[test]
    fn ticket_names_message_size_and_kind() {
        let ask = Header { length: 1 << 30, call: u32::MAX, ..Header::new(Kind::Ask) };
        let message = Underway::of(ticket_of(ask));
        assert_eq!((message.call, message.bytes, message.is_tell), (u32::MAX, 1 << 30, false));
        let message = Underway::of(ticket_of(tell(7)));
        assert_eq!((message.call, message.bytes, message.is_tell), (7, 64, true));
        assert_eq!(SessionId::of(ticket_of(ask)), ID);
    }

    #[test]
    fn credit_comes_back_in_batches_that_say_which_tells_they_are() {
        let limits = Limits { tells_max: 8, entity_messages_max: 6, ..Limits::default() };
        let (mut credit, mut out) = (Credit::default(), Vec::new());
        for call in [1, 1, 2, 1, 5, 5, 5, 5] {
            assert!(credit.allows_tell(&limits));
            take(&mut credit, tell(call));
        }
        assert!(!credit.allows_tell(&limits), "all of it is under way");
        assert!(!handled(&mut credit, tell(1), &limits));
        assert!(!handled(&mut credit, tell(1), &limits));
        assert!(!credit.allows_tell(&limits), "the peer does not know of those");
        assert!(handled(&mut credit, tell(2), &limits));
        credit.write(&mut out, &limits);
        let header = Header::read(&out, 1024).expect("a frame").expect("whole");
        assert_eq!(header.kind, Kind::Credit);
        let content = &out[HEADER_BYTES..header.length as usize];
        assert_eq!(read(content).collect::<Vec<_>>(), [(1, 2), (2, 1)]);
        assert_eq!((credit.taken, credit.bytes), (5, 5 * 64));
    }

    #[test]
    fn credit_that_is_longer_than_a_frame_takes_several() {
        let limits = Limits { frame_bytes_max: 1024, ..Limits::default() };
        let (mut credit, mut out) = (Credit::default(), Vec::new());
        for call in 0..300 {
            take(&mut credit, tell(call));
            handled(&mut credit, tell(call), &limits);
        }
        credit.write(&mut out, &limits);
        let (mut rest, mut calls) = (&out[..], Vec::new());
        while let Some(header) = Header::read(rest, 1024).expect("frames") {
            let (frame, behind) = rest.split_at(header.padded());
            calls.extend(read(&frame[HEADER_BYTES..header.length as usize]));
            rest = behind;
        }
        assert!(calls.into_iter().eq((0..300).map(|call| (call, 1))));
    }

    #[test]
    fn bytes_of_asks_count_until_they_are_answered() {
        let limits = Limits::default();
        let mut credit = Credit::default();
        let ask = Header { length: 100, ..Header::new(Kind::Ask) };
        take(&mut credit, ask);
        assert_eq!(credit.bytes_left(128), 16);
        take(&mut credit, ask);
        assert_eq!(credit.bytes_left(128), 0);
        assert!(!handled(&mut credit, ask, &limits), "an answer says it all");
        assert_eq!(credit.bytes_left(128), 16);
    }
}
