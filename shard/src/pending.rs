//! Asks that wait for their answer, and how the answer finds its asker again.
//!
//! An ask leaves a *continuation* on the asking shard and takes a token along that names it:
//! shard, place, generation. The reply brings the token back; the generation tells a place that
//! was used again, so a late or second answer finds nobody and is dropped. Every ask has a
//! deadline; a sweep over the places, spread over polls, ends those that are past theirs.
#![expect(unsafe_code, reason = "continuations of any type are kept as words")]

use std::mem::{MaybeUninit, size_of};

use crate::record::{Moved, Word};
use crate::reply::{AskError, Token};
use crate::sabotage::{Bug, planted};
use crate::shard::Shard;
use crate::value::ToValue;
use crate::wire::Encode;

/// Answers to the world outside of the shard: its sessions, its threads.
pub trait Outside {
    /// Takes the answer to the request that was given `ticket`. Called once for each request that
    /// the shard accepted.
    fn answer(&mut self, ticket: Ticket, answer: Result<&dyn ToValue, AskError>);

    /// Takes the answer to a message that was [sent as an archive](crate::Shard::send_wire). Called
    /// once for each ask that the shard accepted.
    fn answer_wire(&mut self, ticket: Ticket, answer: Result<&dyn Encode, AskError>) {
        let _ = (ticket, answer);
    }
}

/// Nobody outside.
impl Outside for () {
    fn answer(&mut self, _ticket: Ticket, _answer: Result<&dyn ToValue, AskError>) {}
}

/// What somebody outside puts on a request to know its answer again. The shard does not read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(pub [u64; 2]);

/// What a continuation is given.
// With a tag of its own: telling the variants apart by the errors inside took twice the code.
#[repr(u8)]
pub(crate) enum Outcome {
    /// The reply's value stands here; the continuation takes it.
    Value(*mut Word),
    /// There is no reply, and this is why.
    Error(AskError),
    /// The shard is going: drop what you captured and do nothing.
    Forget,
}

/// The type-erased body of a continuation. It says whose code it runs (`shard.current`).
pub(crate) type Resume =
    unsafe fn(taken: &mut Taken, outcome: Outcome, shard: &mut Shard, outside: &mut dyn Outside);

/// Words that a continuation may capture in place; larger ones get a heap block.
pub(crate) const CAPTURE_WORDS: usize = 4;

/// Who asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct AskedBy(u16);

impl AskedBy {
    /// No entity: the continuation may run at once, also in the middle of the turn that replies.
    pub(crate) const OUTSIDE: Self = Self(u16::MAX);

    /// An entity of this type: the answer is a turn of its own, from the run queue.
    #[inline(always)]
    pub(crate) fn entity(kind: u16) -> Self {
        debug_assert!(kind != u16::MAX);
        Self(kind)
    }

    /// The number of the entity type.
    #[inline(always)]
    pub(crate) fn kind(self) -> u16 {
        self.0
    }
}

/// One waiting ask: a cache line.
#[repr(C, align(64))]
struct Place {
    /// While an ask waits here, its token. Its generation is odd, and even while the place is free,
    /// which then names the next free one; so no token is that of a free place.
    token: Token,
    /// Nanoseconds of the shard's clock.
    deadline_ns: u64,
    resume: MaybeUninit<Resume>,
    captured: [Word; CAPTURE_WORDS],
    by: AskedBy,
    /// What was asked: a reply to anything else is not for this ask.
    message: u16,
    /// The tag of the async turn that asks; 0 for none.
    task: u32,
}

impl Place {
    fn is_taken(&self) -> bool {
        self.token.generation() & 1 == 1
    }

    /// Takes the ask out; the place is the first free one now.
    #[inline(always)]
    fn vacate(&mut self, next_free: u32) -> Taken {
        debug_assert!(self.is_taken());
        self.token = self.token.next_at(next_free);
        // SAFETY: a taken place has its continuation; the generation says that it is gone now.
        let resume = unsafe { self.resume.assume_init() };
        let Self { captured, deadline_ns, by, .. } = *self;
        Taken { resume, captured, deadline_ns, by }
    }
}

const _: () = assert!(size_of::<Place>() == 64);

/// What is kept of an ask beside its continuation.
#[derive(Clone, Copy)]
pub(crate) struct Waiting {
    pub(crate) resume: Resume,
    pub(crate) by: AskedBy,
    /// The number of the message that was asked.
    pub(crate) message: u16,
    /// Nanoseconds of the shard's clock.
    pub(crate) deadline_ns: u64,
    /// The tag of the async turn that asks; 0 for none.
    pub(crate) task: u32,
}

/// All asks of one shard that wait for an answer.
pub(crate) struct Pending {
    shard: u16,
    places: Vec<Place>,
    places_max: u32,
    free: u32,
    len: usize,
    /// Where the sweep for deadlines goes on.
    cursor: usize,
    /// When the next round of the sweep begins.
    next_round_ns: u64,
}

/// An ask taken out: its continuation, to be run once.
pub(crate) struct Taken {
    pub(crate) resume: Resume,
    pub(crate) captured: [Word; CAPTURE_WORDS],
    pub(crate) deadline_ns: u64,
    pub(crate) by: AskedBy,
}

impl Taken {
    /// The deadline that what follows the answer inherits; `u64::MAX` where there is none.
    #[inline(always)]
    pub(crate) fn deadline_to_inherit_ns(&self) -> u64 {
        if self.deadline_ns & 1 == 1 { self.deadline_ns } else { u64::MAX }
    }
}

/// In place of the next free place: there is none.
const NO_PLACE: u32 = Token::PLACES_MAX;

/// How often the deadlines are looked at: an ask ends at most this long after its deadline, and
/// a little more when millions wait.
const ROUND_NS: u64 = 2_000_000;

/// How many places are looked at per poll.
const PLACES_PER_POLL: usize = 2048;

impl Pending {
    pub(crate) fn new(shard: u16, places_max: u32) -> Self {
        Self {
            shard,
            places: Vec::new(),
            places_max: places_max.min(Token::PLACES_MAX),
            free: NO_PLACE,
            len: 0,
            cursor: 0,
            next_round_ns: 0,
        }
    }

    /// Asks that wait.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Whether another ask may wait.
    #[inline(always)]
    pub(crate) fn has_room(&self) -> bool {
        self.free != NO_PLACE || self.places.len() < self.places_max as usize
    }

    /// Whether `count` more asks may wait.
    pub(crate) fn has_room_for(&self, count: usize) -> bool {
        self.len + count <= self.places_max as usize
    }

    /// Keeps a continuation and returns the token that names it.
    ///
    /// # Panics
    /// Without [room](Self::has_room).
    #[inline]
    pub(crate) fn insert<F>(&mut self, continuation: F, waiting: Waiting) -> Token {
        if self.free == NO_PLACE {
            self.add_place();
        }
        let number = self.free;
        let place = &mut self.places[number as usize];
        self.free = place.token.place();
        place.token = place.token.next_at(number);
        let token = place.token;
        place.deadline_ns = waiting.deadline_ns;
        place.resume.write(waiting.resume);
        place.by = waiting.by;
        place.message = waiting.message;
        place.task = waiting.task;
        // SAFETY: the place has CAPTURE_WORDS words, which is what `Captured` needs.
        unsafe { Captured::<F>::write(place.captured.as_mut_ptr(), continuation) };
        self.len += 1;
        token
    }

    #[cold]
    fn add_place(&mut self) {
        assert!(self.has_room(), "whoever asks has looked for room");
        self.free = self.places.len() as u32;
        self.places.push(Place {
            token: Token::new(self.shard, NO_PLACE, 0),
            deadline_ns: 0,
            resume: MaybeUninit::uninit(),
            captured: [Word::uninit(); CAPTURE_WORDS],
            by: AskedBy::OUTSIDE,
            message: 0,
            task: 0,
        });
    }

    /// The tag of the async turn that waits for `token`.
    pub(crate) fn task_of(&self, token: Token) -> Option<u32> {
        self.waits(token).map(|place| place.task)
    }

    #[inline]
    fn waits(&self, token: Token) -> Option<&Place> {
        self.places.get(token.place() as usize).filter(|place| place.token == token)
    }

    /// Takes out the ask that `token` names, to be given a reply to `message`.
    ///
    /// Generations come round after eight million uses of a place. So a reply that is later than
    /// that can meet another ask; as it is compared, that ask is at least of the same message.
    #[inline]
    pub(crate) fn take(&mut self, token: Token, message: u16) -> Option<Taken> {
        self.take_if(token, |place| place.message == message)
    }

    /// The same, if it was asked from [outside](AskedBy::OUTSIDE).
    #[inline(always)]
    pub(crate) fn take_outside(&mut self, token: Token, message: u16) -> Option<Taken> {
        self.take_if(token, |place| place.message == message && place.by == AskedBy::OUTSIDE)
    }

    #[inline(always)]
    fn take_if(&mut self, token: Token, is_wanted: impl FnOnce(&Place) -> bool) -> Option<Taken> {
        let place = self.places.get_mut(token.place() as usize)?;
        if place.token != token || !is_wanted(place) {
            return None;
        }
        let taken = place.vacate(self.free);
        self.free = token.place();
        self.len -= 1;
        Some(taken)
    }

    /// Takes out the ask that `token` names, to be told that there is no reply.
    pub(crate) fn take_failed(&mut self, token: Token) -> Option<Taken> {
        self.waits(token)?;
        Some(self.take_place(token.place()))
    }

    fn take_place(&mut self, number: u32) -> Taken {
        let taken = self.places[number as usize].vacate(self.free);
        self.free = number;
        self.len -= 1;
        taken
    }

    /// The next ask that is past its deadline, among those that this poll looks at. `looked` counts
    /// them; start it at 0 for each poll.
    pub(crate) fn take_expired(&mut self, now_ns: u64, looked: &mut usize) -> Option<Taken> {
        if planted(Bug::AskWaitsForEver) {
            return None;
        }
        if self.len == 0 || (self.cursor == 0 && now_ns < self.next_round_ns) {
            return None;
        }
        while *looked < PLACES_PER_POLL {
            let Some(place) = self.places.get(self.cursor) else {
                self.cursor = 0;
                self.next_round_ns = now_ns + ROUND_NS;
                return None;
            };
            let expired = place.is_taken() && place.deadline_ns <= now_ns;
            self.cursor += 1;
            *looked += 1;
            if expired {
                return Some(self.take_place(self.cursor as u32 - 1));
            }
        }
        None
    }

    /// The earliest deadline of an ask that waits. It looks at every place: for test kits.
    pub(crate) fn next_deadline_ns(&self) -> Option<u64> {
        let taken = self.places.iter().filter(|place| place.is_taken());
        taken.map(|place| place.deadline_ns).min()
    }

    /// Has the next poll look at the deadlines, however short ago the last look was.
    pub(crate) fn look_again(&mut self) {
        self.next_round_ns = 0;
    }

    /// How many places there are, in which asks wait or waited.
    pub(crate) fn places(&self) -> u32 {
        self.places.len() as u32
    }

    /// Takes out the ask that waits in a place, to end it because the shard stops.
    pub(crate) fn take_at(&mut self, number: u32) -> Option<Taken> {
        let waits = self.places.get(number as usize)?.is_taken();
        waits.then(|| self.take_place(number))
    }
}

/// A continuation's captured values.
pub(crate) type Captured<F> = Moved<F, { CAPTURE_WORDS * size_of::<Word>() }>;

#[cfg(test)]
mod tests {
    use super::*;
    use std::rc::Rc;

    unsafe fn ignore(_: &mut Taken, _: Outcome, _: &mut Shard, _: &mut dyn Outside) {}

    fn insert(pending: &mut Pending, deadline_ns: u64) -> Token {
        let by = AskedBy::OUTSIDE;
        let waiting = Waiting { resume: ignore, by, message: 7, deadline_ns, task: 0 };
        pending.insert((), waiting)
    }

    #[test]
    fn token_finds_its_ask_once() {
        let mut pending = Pending::new(3, 100);
        let token = insert(&mut pending, 10);
        assert_eq!(token.shard(), 3);
        assert!(pending.take(token, 7).is_some());
        assert!(pending.take(token, 7).is_none(), "a second answer finds nobody");
        let next = insert(&mut pending, 10);
        assert_eq!(next.place(), token.place());
        assert!(pending.take(token, 7).is_none(), "an old token does not find the new ask");
        assert!(pending.take(next, 8).is_none(), "a reply to another message is not for it");
        assert!(pending.take(next, 7).is_some());
        assert_eq!(pending.len(), 0);
    }

    #[test]
    fn generation_wraps_without_losing_its_parity() {
        let mut pending = Pending::new(0, 1);
        let first = insert(&mut pending, 0);
        pending.places[0].token = Token::new(0, first.place(), (1 << 24) - 1);
        let last = Token::new(0, first.place(), (1 << 24) - 1);
        assert!(pending.take(last, 7).is_some());
        let again = insert(&mut pending, 0);
        assert_eq!(again.generation(), 1);
        assert!(pending.take(again, 7).is_some());
    }

    #[test]
    fn full_table_refuses_another_ask() {
        let mut pending = Pending::new(0, 2);
        insert(&mut pending, 0);
        insert(&mut pending, 0);
        assert!(!pending.has_room());
    }

    #[test]
    fn expired_asks_are_found_and_others_left() {
        let mut pending = Pending::new(0, 100_000);
        let tokens: Vec<_> = (0..10_000).map(|i| insert(&mut pending, i % 2 * 1_000)).collect();
        let mut ended = 0;
        let mut polls = 0;
        while polls < 10 {
            let mut looked = 0;
            while pending.take_expired(500, &mut looked).is_some() {
                ended += 1;
            }
            polls += 1;
        }
        assert_eq!(ended, 5_000);
        assert!(pending.take_outside(tokens[0], 7).is_none());
        assert!(pending.take_outside(tokens[1], 7).is_some());
    }

    #[test]
    fn large_capture_travels_on_the_heap_and_is_dropped_once() {
        let witness = Rc::new(());
        let mut words = [Word::uninit(); CAPTURE_WORDS];
        let large = (Rc::clone(&witness), [0u64; 9]);
        // SAFETY: written once, read once.
        unsafe {
            Captured::write(words.as_mut_ptr(), large);
            drop(Captured::<(Rc<()>, [u64; 9])>::read(words.as_ptr()));
        }
        assert_eq!(Rc::strong_count(&witness), 1);
    }
}
