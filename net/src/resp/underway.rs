//! A message under way, as its ticket names it: which reply it is for, and how large it is.
//!
//! A ticket has no room for a length, so it has one that is rounded up to seven digits in base 2.

use coreside_shard::{Span, Ticket};

use crate::sessions::SessionId;

/// A message that was sent and not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Underway {
    /// The number of its reply.
    pub(super) sequence: u32,
    /// 0 for the only answer of a reply, the number of the key plus 1 within a gather.
    pub(super) part: u32,
    size: Size,
}

/// A length as a power of 2 above [`DIGITS`] digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Size(u32);

/// Bits of the number of a part.
pub(super) const PART_BITS: u32 = 21;
/// Bits of a length that are kept behind the first.
const DIGITS: u32 = 6;

impl Underway {
    /// Of these arguments.
    #[inline]
    pub(super) fn new(sequence: u32, part: u32, arguments: &[Span]) -> Self {
        debug_assert!(part < 1 << PART_BITS);
        let bytes = match (arguments.first(), arguments.last()) {
            (Some(first), Some(last)) => (last.start + last.len).saturating_sub(first.start),
            _ => 0,
        };
        Self { sequence, part, size: Size::of(bytes) }
    }

    #[inline]
    pub(super) fn of(Ticket([_, word]): Ticket) -> Self {
        let rest = (word >> 32) as u32;
        let part = rest & ((1 << PART_BITS) - 1);
        Self { sequence: word as u32, part, size: Size(rest >> PART_BITS) }
    }

    #[inline]
    pub(super) fn ticket(self, session: SessionId) -> Ticket {
        let rest = self.part | self.size.0 << PART_BITS;
        Ticket([session.to_word(), u64::from(self.sequence) | u64::from(rest) << 32])
    }

    /// Its length, rounded up by less than a 64th.
    #[inline]
    pub(super) fn bytes(self) -> usize {
        self.size.bytes()
    }
}

impl Size {
    #[inline]
    fn of(bytes: u32) -> Self {
        if bytes < 1 << DIGITS {
            return Self(bytes);
        }
        // Rounding up may need one more digit, which carries into the power as it should.
        let power = bytes.ilog2() - DIGITS;
        let digits = (u64::from(bytes)).div_ceil(1 << power) as u32;
        Self((power << DIGITS) + digits)
    }

    #[inline]
    fn bytes(self) -> usize {
        let power = (self.0 >> DIGITS).saturating_sub(1);
        let digits = self.0 - (power << DIGITS);
        (digits as usize) << power
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: SessionId = SessionId { slot: 3, generation: 9 };

    fn span(start: u32, len: u32) -> Span {
        Span { start, len }
    }

    #[test]
    fn ticket_names_reply_part_and_length() {
        for part in [0, 1, (1 << PART_BITS) - 1] {
            for last in [span(20, 0), span(20, 7), span(1 << 30, (1 << 30) - 1)] {
                let message = Underway::new(u32::MAX, part, &[span(4, 3), last]);
                let ticket = message.ticket(ID);
                assert_eq!((Underway::of(ticket), SessionId::of(ticket)), (message, ID));
                assert!(message.bytes() as u32 >= last.start + last.len - 4);
            }
        }
        assert_eq!(Underway::new(7, 0, &[]).bytes(), 0);
    }

    #[test]
    fn length_is_rounded_up_by_less_than_a_64th() {
        let around = |power: u32| [(1 << power) - 1, 1 << power, (1 << power) + 1];
        let lengths = (0..300).chain((8..31).flat_map(around)).chain([u32::MAX / 2, u32::MAX]);
        for len in lengths {
            let (rounded, exact) = (Size::of(len).bytes(), len as usize);
            assert!(rounded >= exact, "{len}");
            assert!(rounded == exact || (rounded - exact) * 64 < exact, "{len}: {rounded}");
            assert!(Size::of(len).0 < 1 << (32 - PART_BITS), "{len}");
        }
    }
}
