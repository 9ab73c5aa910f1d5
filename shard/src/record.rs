//! Records: a message with its routing words, as it stands in a queue or a ring.
//!
//! ```text
//! word 0   length in words: 8 | kind: 8 | message number: 16 | slot hint or status: 32
//! word 1   the entity's key; a second word follows for 128-bit keys       (tell, ask)
//! word ..  the reply token                                                (ask, reply, sweep)
//! word ..  the deadline, in nanoseconds of the node's clock               (ask)
//! then     the value, moved in when it is small, or one pointer to its heap block
//! ```
//!
//! # Ownership
//! Whoever holds a record owns the value in it. Moving a record is a copy of its words; running it
//! moves the value out; a record that is thrown away has its value dropped through the message
//! table, because the words alone do not know their type.
#![expect(unsafe_code, reason = "values are moved in and out of raw words")]

use std::marker::PhantomData;
use std::mem::{MaybeUninit, align_of, size_of};

/// One word of a record. Padding inside a value leaves parts of it uninitialised.
pub type Word = MaybeUninit<u64>;

/// The largest value that is moved into the record itself; larger ones get a heap block.
pub const INLINE_BYTES_MAX: usize = 128;

/// The longest record: head, two key words, token, deadline, value.
pub(crate) const RECORD_WORDS_MAX: usize = 5 + INLINE_BYTES_MAX / 8;

/// What an ask has between its key and its value: token and deadline.
pub(crate) const ASK_WORDS: usize = 2;

const _: () = assert!(RECORD_WORDS_MAX < 256, "the length must fit eight bits");

/// What a record asks of the shard that takes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Kind {
    /// A message without an answer.
    Tell = 0,
    /// A message with a reply token.
    Ask = 1,
    /// The answer to an ask, or the reason why there is none (status).
    Reply = 2,
    /// A pass over all entities of a type.
    Sweep = 3,
    /// What shards tell each other about entities: a boxed [`System`](crate::system::System).
    System = 4,
    /// The next record in the stash of an entity, which stands on this shard.
    Drain = 5,
}

/// Word 0 of a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Head(u64);

impl Head {
    /// No record: every record has a first word, and so a length.
    pub(crate) const NONE: Self = Self(0);

    #[inline(always)]
    pub(crate) const fn new(kind: Kind, words: usize, message: u16) -> Self {
        debug_assert!(words <= RECORD_WORDS_MAX);
        Self(words as u64 | (kind as u64) << 8 | (message as u64) << 16)
    }

    /// The head with a status in its upper half (replies).
    pub(crate) const fn with_status(self, status: u32) -> Self {
        Self(self.0 & 0xffff_ffff | (status as u64) << 32)
    }

    #[inline(always)]
    pub(crate) const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    #[inline(always)]
    pub(crate) const fn bits(self) -> u64 {
        self.0
    }

    /// Length of the record in words, this one included.
    #[inline(always)]
    pub(crate) const fn words(self) -> usize {
        (self.0 & 0xff) as usize
    }

    #[inline(always)]
    pub(crate) const fn kind(self) -> Kind {
        match (self.0 >> 8) as u8 {
            0 => Kind::Tell,
            1 => Kind::Ask,
            2 => Kind::Reply,
            3 => Kind::Sweep,
            4 => Kind::System,
            _ => Kind::Drain,
        }
    }

    /// Whether the record is addressed to one entity: a tell or an ask.
    #[inline(always)]
    pub(crate) const fn is_for_entity(self) -> bool {
        self.0 & 0xfe00 == 0
    }

    /// The dense number of the message type in the table.
    #[inline(always)]
    pub(crate) const fn message(self) -> u16 {
        (self.0 >> 16) as u16
    }

    /// The upper half: a slot hint (tell, ask) or a status (reply). 0 means none.
    #[inline(always)]
    pub(crate) const fn upper(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// The value of a record.
pub(crate) type Payload<T> = Moved<T, INLINE_BYTES_MAX>;

/// A value among raw words: how it is moved in and out, itself up to `INLINE_BYTES` bytes, as one
/// pointer to a heap block above.
pub(crate) struct Moved<T, const INLINE_BYTES: usize>(PhantomData<T>);

impl<T, const INLINE_BYTES: usize> Moved<T, INLINE_BYTES> {
    /// Whether the value itself stands among the words, or a pointer to its heap block.
    pub(crate) const INLINE: bool =
        size_of::<T>() <= INLINE_BYTES && align_of::<T>() <= align_of::<Word>();

    /// Words that the value takes.
    pub(crate) const WORDS: usize =
        if Self::INLINE { size_of::<T>().div_ceil(size_of::<Word>()) } else { 1 };

    /// Moves `value` in.
    ///
    /// # Safety
    /// `at` is valid for writes of [`WORDS`](Self::WORDS) words.
    ///
    /// # Cost
    /// One heap allocation where the value is larger than `INLINE_BYTES`, none otherwise.
    #[inline(always)]
    pub(crate) unsafe fn write(at: *mut Word, value: T) {
        if Self::INLINE {
            // SAFETY: the value fits WORDS words and wants no more than their alignment.
            unsafe { at.cast::<T>().write(value) };
        } else {
            let block = Box::into_raw(Box::new(value));
            // SAFETY: one word, which a pointer fits.
            unsafe { at.cast::<*mut T>().write(block) };
        }
    }

    /// Moves the value out.
    ///
    /// # Safety
    /// `at` holds a value that [`write`](Self::write) put there and that has not been moved out;
    /// it counts as moved out afterwards.
    #[inline(always)]
    pub(crate) unsafe fn read(at: *const Word) -> T {
        if Self::INLINE {
            // SAFETY: by contract a T stands here; the caller does not use it again.
            unsafe { at.cast::<T>().read() }
        } else {
            // SAFETY: by contract the pointer of a live heap block stands here.
            let block = unsafe { at.cast::<*mut T>().read() };
            // SAFETY: `write` made it with Box::into_raw, and it is taken back once.
            *unsafe { Box::from_raw(block) }
        }
    }

    /// The value where it stands.
    ///
    /// # Safety
    /// As for [`read`](Self::read), but the value stays, and outlives what is returned.
    pub(crate) unsafe fn peek<'a>(at: *const Word) -> &'a T {
        // SAFETY: by contract a T stands here, or the pointer of a live heap block of one.
        unsafe { if Self::INLINE { &*at.cast::<T>() } else { &**at.cast::<*const T>() } }
    }

    /// Drops the value in place.
    ///
    /// # Safety
    /// As for [`read`](Self::read).
    pub(crate) unsafe fn drop(at: *mut Word) {
        // SAFETY: the caller's contract is that of `read`.
        drop(unsafe { Self::read(at) });
    }
}

/// Copies `words` words of a record.
///
/// # Safety
/// `from` is valid for reads and `to` for writes of that many words, and they do not overlap.
#[inline(always)]
pub(crate) unsafe fn copy_words(from: *const Word, to: *mut Word, words: usize) {
    // A loop: records are a few words, and a call of memcpy costs more than the copy.
    for i in 0..words {
        // SAFETY: i is below `words`, for which the caller vouches.
        let source = unsafe { from.add(i) };
        // SAFETY: as above.
        let target = unsafe { to.add(i) };
        // SAFETY: both are valid for one word; Word is Copy.
        unsafe { target.write(source.read()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::rc::Rc;

    #[test]
    fn head_keeps_its_four_parts() {
        let head = Head::new(Kind::Ask, 5, 40_000).with_status(77);
        assert_eq!(
            (head.words(), head.kind(), head.message(), head.upper()),
            (5, Kind::Ask, 40_000, 77)
        );
        assert!(head.is_for_entity());
        assert!(!Head::new(Kind::Reply, 3, 1).is_for_entity());
        assert_eq!(Head::from_bits(head.bits()), head);
    }

    #[test]
    fn value_above_the_inline_limit_travels_as_one_pointer() {
        const { assert!(Payload::<[u64; 16]>::INLINE) };
        assert_eq!(Payload::<[u64; 16]>::WORDS, 16);
        const { assert!(!Payload::<[u64; 17]>::INLINE) };
        assert_eq!(Payload::<[u64; 17]>::WORDS, 1);
        const { assert!(!Payload::<u128>::INLINE || align_of::<u128>() <= 8) };
        assert_eq!(Payload::<()>::WORDS, 0);
    }

    #[test]
    fn value_is_dropped_once_whether_read_or_thrown_away() {
        fn check<T>(make: impl Fn(Rc<()>) -> T) {
            let witness = Rc::new(());
            let mut words = [Word::uninit(); RECORD_WORDS_MAX];
            // SAFETY: the array is longer than any payload; each write is followed by one read.
            unsafe {
                Payload::<T>::write(words.as_mut_ptr(), make(witness.clone()));
                assert_eq!(Rc::strong_count(&witness), 2);
                drop(Payload::<T>::read(words.as_ptr()));
                assert_eq!(Rc::strong_count(&witness), 1);
                Payload::<T>::write(words.as_mut_ptr(), make(witness.clone()));
                Payload::<T>::drop(words.as_mut_ptr());
            }
            assert_eq!(Rc::strong_count(&witness), 1);
        }
        check(|rc| rc);
        check(|rc| (rc, [7u8; 3]));
        check(|rc| (rc, [7u64; 40]));
    }
}
