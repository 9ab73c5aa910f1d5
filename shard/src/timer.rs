//! Timers: values that come back when their time has come, from a hierarchical timing wheel.
//!
//! The scheme is the seventh of Varghese and Lauck, "Hashed and Hierarchical Timing Wheels" (SOSP
//! 1987). Time is counted in *ticks* of 2^20 ns. Each level has 256 buckets, and a bucket of one
//! level covers as much time as all buckets of the level below. A timer stands on the lowest level
//! whose buckets tell its tick from the present one; when the present reaches its bucket, it moves
//! down, at most once per level. So setting, cancelling and firing a timer each cost a few list
//! operations, however many timers there are.
//!
//! Two things are added. A bucket may hold millions, so moving them down is cut in pieces: whoever
//! asks for due timers says how many may be touched. And a bucket keeps its order, so that timers
//! of one tick fire in the order in which they were set, on every run.
//!
//! # Invariants
//! * No timer is earlier than `cursor`. A deadline before it counts as `cursor`.
//! * A timer that is set is in the bucket that [`BucketNumber::of`] names for its tick, seen from
//!   `cursor`, or in the bucket that is being moved down. So on level 0 no bucket before `cursor`
//!   has timers, and above it none up to `cursor`; and all of a level come before all of the next.
//! * While a bucket is being moved down, what is set for its time goes to its end. So a timer never
//!   overtakes one that was set before it for the same tick.

use std::mem;
use std::num::NonZeroU16;

/// Names a timer that was set. Once the timer was taken out, it finds nobody.
///
/// Generations come round after 2^32 uses of one place; an id that is kept for longer can meet
/// another timer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TimerId {
    index: u32,
    generation: u32,
}

/// All timers of one shard, each with a value.
///
/// One that has fired stands *aside*, under its name and with its value, until it is taken out or
/// set again.
///
/// # Cost
/// A timer takes 24 bytes beside its value, and no allocation once there were as many before.
pub(crate) struct Wheel<T> {
    /// Grows up to `timers_max`, and never shrinks.
    entries: Vec<Entry<T>>,
    timers_max: u32,
    /// First of the free entries, linked through `next`.
    free: u32,
    /// Timers that are set: without those aside.
    len: u32,
    /// The present tick: every timer of an earlier one has fired.
    cursor: u64,
    /// The bucket that is being moved down.
    moving: Option<BucketNumber>,
    /// A timer of it, towards which it is walked from its end: only to have it in the cache when
    /// it moves. Two walks wait for memory at the same time, where one would wait twice.
    walked: u32,
    /// One bit for each bucket that has timers.
    occupied: [[u64; WORDS]; LEVELS],
    buckets: Box<[Bucket]>,
}

const TICK_BITS: u32 = 20;
const LEVEL_BITS: u32 = 8;
const BUCKETS_PER_LEVEL: usize = 1 << LEVEL_BITS;
const WORDS: usize = BUCKETS_PER_LEVEL / u64::BITS as usize;
const LEVELS: usize = 6;

/// The first tick that begins after all time that nanoseconds can count: u64::MAX falls on it.
const TICK_MAX: u64 = 1 << (u64::BITS - TICK_BITS);

const _: () = assert!(TICK_MAX < 1 << (LEVEL_BITS as usize * LEVELS), "the levels hold all time");

/// No entry.
const NONE: u32 = u32::MAX;

/// Timers in the order in which they came, linked through their entries.
#[derive(Clone, Copy)]
struct Bucket {
    first: u32,
    last: u32,
}

/// A level and a place on it, as one number that is never 0; or [`ASIDE`](BucketNumber::ASIDE).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct BucketNumber(NonZeroU16);

enum Entry<T> {
    Free { generation: u32, next: u32 },
    Timer(Timer<T>),
}

/// Links first: following a list then reads one line per timer, also where an entry lies on two.
#[repr(C)]
struct Timer<T> {
    bucket: BucketNumber,
    generation: u32,
    previous: u32,
    next: u32,
    deadline_ns: u64,
    value: T,
}

// The number of the bucket also tells a timer from a free entry.
const _: () = assert!(size_of::<Entry<[u64; 3]>>() == 48);

impl<T> Wheel<T> {
    /// No timers yet, up to `timers_max` of them, and the time is `now_ns`.
    pub(crate) fn new(timers_max: u32, now_ns: u64) -> Self {
        Self {
            entries: Vec::new(),
            timers_max,
            free: NONE,
            len: 0,
            cursor: now_ns >> TICK_BITS,
            moving: None,
            walked: NONE,
            occupied: [[0; WORDS]; LEVELS],
            buckets: vec![Bucket { first: NONE, last: NONE }; LEVELS * BUCKETS_PER_LEVEL].into(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Sets a timer: it comes out of [`pop_due`](Self::pop_due) at the first tick that does not
    /// begin before `deadline_ns`. So it is never early, and up to a tick (1.05 ms) late.
    ///
    /// A deadline in the past counts as the present tick. One within the last tick before
    /// `u64::MAX` never comes.
    ///
    /// # Errors
    /// The value, when there are `timers_max` timers, those aside included.
    #[inline]
    pub(crate) fn insert(&mut self, deadline_ns: u64, value: T) -> Result<TimerId, T> {
        let (index, generation) = match self.entries.get(self.free as usize) {
            Some(Entry::Free { generation, next }) => {
                let place = (self.free, *generation);
                self.free = *next;
                place
            }
            Some(Entry::Timer(_)) => unreachable!("a free entry has no timer"),
            None if self.entries.len() == self.timers_max as usize => return Err(value),
            None => {
                self.entries.push(Entry::Free { generation: 0, next: NONE });
                (self.entries.len() as u32 - 1, 0)
            }
        };
        let bucket = self.bucket_for(deadline_ns);
        let timer = Timer { bucket, generation, previous: NONE, next: NONE, deadline_ns, value };
        self.entries[index as usize] = Entry::Timer(timer);
        self.append(bucket, index);
        self.len += 1;
        Ok(TimerId { index, generation })
    }

    /// Takes a timer out: before its time, or one that stands aside.
    #[inline]
    pub(crate) fn cancel(&mut self, id: TimerId) -> Option<T> {
        self.find(id)?;
        Some(self.take(id.index))
    }

    /// Sets a timer that stands aside for another time. Its name stays.
    pub(crate) fn set_again(&mut self, id: TimerId, deadline_ns: u64) {
        debug_assert!(self.find(id).is_some_and(|timer| timer.bucket == BucketNumber::ASIDE));
        let bucket = self.bucket_for(deadline_ns);
        self.timer_mut(id.index).deadline_ns = deadline_ns;
        self.append(bucket, id.index);
        self.len += 1;
    }

    /// The value of a timer.
    pub(crate) fn get_mut(&mut self, id: TimerId) -> Option<&mut T> {
        self.find(id)?;
        Some(&mut self.timer_mut(id.index).value)
    }

    /// The name of the timer at a [place](TimerId::place) that is in use.
    pub(crate) fn id_at(&mut self, place: u32) -> TimerId {
        TimerId { index: place, generation: self.timer_mut(place).generation }
    }

    /// The deadline of a timer, as it was set.
    pub(crate) fn deadline_ns(&self, id: TimerId) -> Option<u64> {
        self.find(id).map(|timer| timer.deadline_ns)
    }

    /// Puts the next timer that is due at `now_ns` aside: in the order of ticks, and within one in
    /// the order in which they were set. A poll calls it until it returns `None`.
    ///
    /// `budget` counts down by one for each timer that is put aside or moved to a lower level. When
    /// it is used up there is `None`, whatever else is due, and the next call goes on from there.
    /// So a budget should be larger than the number of timers that are set between two polls.
    ///
    /// # Cost
    /// Beside what `budget` counts, at most one look at each level; none while nothing is due and
    /// the tick is the same.
    #[inline]
    pub(crate) fn pop_due(&mut self, now_ns: u64, budget: &mut u32) -> Option<TimerId> {
        let now = now_ns >> TICK_BITS;
        loop {
            if let Some(from) = self.moving {
                self.move_down(from, budget)?;
            }
            let present = self.buckets[BucketNumber::of(self.cursor, self.cursor).place()];
            if self.cursor > now || *budget == 0 {
                return None;
            } else if present.first != NONE {
                *budget -= 1;
                return Some(self.put_aside(present.first));
            } else if self.cursor == now {
                return None;
            }
            match self.next_bucket() {
                // Not before all timers of an earlier bucket are out, so none is left behind.
                Some((bucket, start)) if start <= now => {
                    self.cursor = start;
                    self.moving = (bucket.level() > 0).then_some(bucket);
                    self.walked = self.buckets[bucket.place()].last;
                }
                _ => self.cursor = now,
            }
        }
    }

    /// When to call [`pop_due`](Self::pop_due) again; `None` without timers.
    ///
    /// If the earliest timer stands on the lowest level (as most do that have less than 256 ticks
    /// to go), this is the instant at which it fires. Otherwise it may be earlier, never later:
    /// `pop_due` will then move timers down, and the next answer is closer. Whoever sleeps until
    /// then wakes up at most five times in vain for one timer.
    ///
    /// It is after the `now_ns` of the last `pop_due` if nothing is left to do at that time. It is
    /// not after it if the budget left something, or a timer was set since then for the past.
    pub(crate) fn next_deadline_ns(&self) -> Option<u64> {
        if self.is_empty() {
            return None;
        }
        let tick = match self.moving {
            Some(_) => self.cursor,
            None => self.next_bucket()?.1,
        };
        Some(if tick < TICK_MAX { tick << TICK_BITS } else { u64::MAX })
    }

    /// Takes out all timers, in no order that means anything, but the same on every run.
    pub(crate) fn clear_with(&mut self, mut each: impl FnMut(T)) {
        for index in 0..self.entries.len() {
            if let Entry::Timer(_) = self.entries[index] {
                each(self.take(index as u32));
            }
        }
        debug_assert!(self.is_empty());
    }

    #[inline]
    fn find(&self, id: TimerId) -> Option<&Timer<T>> {
        match self.entries.get(id.index as usize) {
            Some(Entry::Timer(timer)) if timer.generation == id.generation => Some(timer),
            _ => None,
        }
    }

    #[inline(always)]
    fn timer_mut(&mut self, index: u32) -> &mut Timer<T> {
        match &mut self.entries[index as usize] {
            Entry::Timer(timer) => timer,
            Entry::Free { .. } => unreachable!("links and buckets lead to timers"),
        }
    }

    /// Takes the timer at `index` out of its bucket.
    #[inline]
    fn put_aside(&mut self, index: u32) -> TimerId {
        self.unlink(index);
        self.len -= 1;
        let timer = self.timer_mut(index);
        timer.bucket = BucketNumber::ASIDE;
        TimerId { index, generation: timer.generation }
    }

    /// Frees the entry of the timer at `index`.
    #[inline]
    fn take(&mut self, index: u32) -> T {
        if self.timer_mut(index).bucket != BucketNumber::ASIDE {
            self.put_aside(index);
        }
        let generation = self.timer_mut(index).generation;
        let free = Entry::Free { generation: generation.wrapping_add(1), next: self.free };
        let Entry::Timer(timer) = mem::replace(&mut self.entries[index as usize], free) else {
            unreachable!("it was a timer a moment ago");
        };
        self.free = index;
        timer.value
    }

    /// Where a timer belongs that is set now, or that moves down now.
    #[inline]
    fn bucket_for(&self, deadline_ns: u64) -> BucketNumber {
        let tick = deadline_ns.div_ceil(1 << TICK_BITS).max(self.cursor);
        match self.moving {
            Some(from) if from.covers(tick, self.cursor) => from,
            _ => BucketNumber::of(tick, self.cursor),
        }
    }

    #[inline]
    fn append(&mut self, bucket: BucketNumber, index: u32) {
        let list = &mut self.buckets[bucket.place()];
        let previous = mem::replace(&mut list.last, index);
        if previous == NONE {
            list.first = index;
            self.occupied[bucket.level()][bucket.word()] |= bucket.bit();
        } else {
            self.timer_mut(previous).next = index;
        }
        let timer = self.timer_mut(index);
        timer.bucket = bucket;
        timer.previous = previous;
        timer.next = NONE;
    }

    #[inline]
    fn unlink(&mut self, index: u32) {
        let Timer { bucket, previous, next, .. } = *self.timer_mut(index);
        if previous == NONE {
            self.buckets[bucket.place()].first = next;
        } else {
            self.timer_mut(previous).next = next;
        }
        if next == NONE {
            self.buckets[bucket.place()].last = previous;
        } else {
            self.timer_mut(next).previous = previous;
        }
        if previous == NONE && next == NONE {
            self.occupied[bucket.level()][bucket.word()] &= !bucket.bit();
        }
    }

    /// Moves the timers of `from` to lower levels; `None` if the budget ends before they do.
    fn move_down(&mut self, from: BucketNumber, budget: &mut u32) -> Option<()> {
        debug_assert!(from.level() > 0 && from.covers(self.cursor, self.cursor));
        loop {
            let index = self.buckets[from.place()].first;
            if index == NONE {
                self.moving = None;
                return Some(());
            }
            *budget = budget.checked_sub(1)?;
            if let Some(Entry::Timer(timer)) = self.entries.get(self.walked as usize)
                && timer.bucket == from
            {
                self.walked = timer.previous;
            }
            self.unlink(index);
            let tick = self.timer_mut(index).deadline_ns.div_ceil(1 << TICK_BITS);
            let to = BucketNumber::of(tick.max(self.cursor), self.cursor);
            debug_assert!(to.level() < from.level());
            self.append(to, index);
        }
    }

    /// The earliest bucket with timers, and the tick at which it begins.
    #[inline]
    fn next_bucket(&self) -> Option<(BucketNumber, u64)> {
        for (level, words) in self.occupied.iter().enumerate() {
            if let Some(word) = words.iter().position(|word| *word != 0) {
                let place = word * u64::BITS as usize + words[word].trailing_zeros() as usize;
                let bucket = BucketNumber::new(level, place);
                let start = bucket.start(self.cursor);
                debug_assert!(start >= self.cursor + u64::from(level > 0));
                return Some((bucket, start));
            }
        }
        None
    }
}

impl TimerId {
    /// Where the timer stands: a number that is its own while it is not taken out.
    pub(crate) fn place(self) -> u32 {
        self.index
    }
}

impl BucketNumber {
    /// No bucket: the timer has fired.
    const ASIDE: Self = Self(NonZeroU16::MAX);

    #[inline(always)]
    fn new(level: usize, place: usize) -> Self {
        debug_assert!(level < LEVELS && place < BUCKETS_PER_LEVEL);
        Self(NonZeroU16::MIN.saturating_add((level * BUCKETS_PER_LEVEL + place) as u16))
    }

    /// The bucket of `tick` as seen from `cursor`: on the level of the highest digit in which they
    /// differ.
    #[inline(always)]
    fn of(tick: u64, cursor: u64) -> Self {
        debug_assert!(cursor <= tick && tick <= TICK_MAX);
        let digit = (tick ^ cursor | 1).ilog2() / LEVEL_BITS;
        let place = (tick >> (digit * LEVEL_BITS)) as usize % BUCKETS_PER_LEVEL;
        Self::new(digit as usize, place)
    }

    /// Its place among the buckets of all levels.
    #[inline(always)]
    fn place(self) -> usize {
        usize::from(self.0.get()) - 1
    }

    #[inline(always)]
    fn level(self) -> usize {
        self.place() / BUCKETS_PER_LEVEL
    }

    #[inline(always)]
    fn word(self) -> usize {
        self.place() % BUCKETS_PER_LEVEL / u64::BITS as usize
    }

    #[inline(always)]
    fn bit(self) -> u64 {
        1 << (self.place() % u64::BITS as usize)
    }

    /// How many bits of a tick the buckets of this level do not look at.
    #[inline(always)]
    fn shift(self) -> u32 {
        self.level() as u32 * LEVEL_BITS
    }

    /// Whether `tick` falls into this bucket, in which `cursor` is.
    #[inline(always)]
    fn covers(self, tick: u64, cursor: u64) -> bool {
        tick >> self.shift() == cursor >> self.shift()
    }

    /// The first tick of this bucket, in the turn of its level in which `cursor` is.
    #[inline(always)]
    fn start(self, cursor: u64) -> u64 {
        let above = self.shift() + LEVEL_BITS;
        let place = (self.place() % BUCKETS_PER_LEVEL) as u64;
        cursor >> above << above | place << self.shift()
    }
}

#[cfg(test)]
mod model;

#[cfg(test)]
mod tests {
    use super::*;
    use std::rc::Rc;

    pub(super) const TICK_NS: u64 = 1 << TICK_BITS;
    pub(super) const HOUR_NS: u64 = 3_600_000_000_000;

    /// A timer that has fired and was taken out.
    #[derive(Debug, PartialEq, Eq)]
    struct Due<T> {
        id: TimerId,
        deadline_ns: u64,
        value: T,
    }

    fn take_due<T>(wheel: &mut Wheel<T>, now_ns: u64, budget: &mut u32) -> Option<Due<T>> {
        let id = wheel.pop_due(now_ns, budget)?;
        let deadline_ns = wheel.deadline_ns(id).expect("it stands aside");
        let value = wheel.cancel(id).expect("it stands aside");
        Some(Due { id, deadline_ns, value })
    }

    fn pop<T>(wheel: &mut Wheel<T>, now_ns: u64) -> Option<T> {
        take_due(wheel, now_ns, &mut { u32::MAX }).map(|due| due.value)
    }

    fn pop_all<T>(wheel: &mut Wheel<T>, now_ns: u64) -> Vec<T> {
        std::iter::from_fn(|| pop(wheel, now_ns)).collect()
    }

    fn set<T: std::fmt::Debug>(wheel: &mut Wheel<T>, deadline_ns: u64, value: T) -> TimerId {
        wheel.insert(deadline_ns, value).expect("room")
    }

    /// All invariants, at the cost of a walk over everything.
    pub(super) fn check<T>(wheel: &Wheel<T>) {
        let mut linked = 0;
        for (place, bucket) in wheel.buckets.iter().enumerate() {
            let number = BucketNumber::new(place / BUCKETS_PER_LEVEL, place % BUCKETS_PER_LEVEL);
            let occupied = wheel.occupied[number.level()][number.word()] & number.bit() != 0;
            assert_eq!(occupied, bucket.first != NONE);
            let (mut previous, mut index) = (NONE, bucket.first);
            while index != NONE {
                let Entry::Timer(timer) = &wheel.entries[index as usize] else {
                    panic!("a free entry is linked")
                };
                let tick = timer.deadline_ns.div_ceil(TICK_NS).max(wheel.cursor);
                assert_eq!((timer.bucket, timer.previous), (number, previous));
                let is_moving = wheel.moving == Some(number) && number.covers(tick, wheel.cursor);
                assert!(is_moving || number == BucketNumber::of(tick, wheel.cursor));
                (previous, index) = (index, timer.next);
                linked += 1;
            }
            assert_eq!(bucket.last, previous);
        }
        assert_eq!(linked, wheel.len as usize);
        let mut free = 0;
        let mut index = wheel.free;
        while let Some(Entry::Free { next, .. }) = wheel.entries.get(index as usize) {
            index = *next;
            free += 1;
        }
        assert_eq!(index, NONE);
        let is_aside = |entry: &&Entry<T>| match entry {
            Entry::Timer(timer) => timer.bucket == BucketNumber::ASIDE,
            Entry::Free { .. } => false,
        };
        let aside = wheel.entries.iter().filter(is_aside).count();
        assert_eq!(linked + aside + free, wheel.entries.len());
    }

    #[test]
    fn timer_fires_at_its_tick_and_not_before() {
        let mut wheel = Wheel::new(10, 5 * TICK_NS + 7);
        for deadline_ns in [6 * TICK_NS + 1, 7 * TICK_NS] {
            let id = set(&mut wheel, deadline_ns, ());
            assert_eq!(wheel.next_deadline_ns(), Some(7 * TICK_NS));
            let mut budget = 10;
            assert_eq!(wheel.pop_due(7 * TICK_NS - 1, &mut budget), None);
            let due = take_due(&mut wheel, 7 * TICK_NS, &mut budget);
            assert_eq!(due, Some(Due { id, deadline_ns, value: () }));
            assert_eq!(wheel.next_deadline_ns(), None);
        }
    }

    #[test]
    fn deadline_in_the_past_fires_at_once() {
        let mut wheel = Wheel::new(10, HOUR_NS);
        set(&mut wheel, 0, 'a');
        set(&mut wheel, HOUR_NS / 2, 'b');
        assert!(wheel.next_deadline_ns() <= Some(HOUR_NS));
        assert_eq!(pop_all(&mut wheel, HOUR_NS), ['a', 'b']);
        assert!(pop_all(&mut wheel, 2 * HOUR_NS).is_empty());
        set(&mut wheel, HOUR_NS, 'c');
        assert!(pop_all(&mut wheel, HOUR_NS).is_empty(), "time does not run backwards");
        assert_eq!(pop_all(&mut wheel, 2 * HOUR_NS), ['c']);
    }

    #[test]
    fn timers_of_one_tick_fire_in_the_order_in_which_they_were_set() {
        let tick = 3 << 40 | 3 << 32 | 3 << 24 | 3 << 16 | 3 << 8 | 3_u64;
        let deadline_ns = tick << TICK_BITS;
        let mut wheel = Wheel::new(1000, 0);
        let mut count = 0;
        for level in (0..LEVELS).rev() {
            // From here, the tick stands on this level.
            let shift = (level as u32 + 1) * LEVEL_BITS;
            assert_eq!(pop(&mut wheel, tick >> shift << shift << TICK_BITS), None);
            for sooner_ns in [0, 1, TICK_NS - 1] {
                let id = set(&mut wheel, deadline_ns - sooner_ns, count);
                assert_eq!(wheel.timer_mut(id.index).bucket.level(), level);
                count += 1;
            }
            check(&wheel);
        }
        assert_eq!(pop_all(&mut wheel, deadline_ns), (0..count).collect::<Vec<_>>());
    }

    #[test]
    fn timer_set_while_its_bucket_moves_down_comes_after_those_before_it() {
        let start_ns = 256 * TICK_NS;
        let mut wheel = Wheel::new(100, 0);
        for value in 0..10 {
            set(&mut wheel, start_ns + 5 * TICK_NS, value);
        }
        let now_ns = start_ns + 5 * TICK_NS;
        assert_eq!(wheel.pop_due(now_ns, &mut 3), None);
        assert!(wheel.next_deadline_ns() <= Some(now_ns), "there is work to go on with");
        set(&mut wheel, now_ns, 10);
        set(&mut wheel, 0, -1);
        check(&wheel);
        assert_eq!(pop_all(&mut wheel, now_ns), [-1, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    }

    #[test]
    fn cancelled_timer_never_fires_and_its_id_finds_nobody() {
        let mut wheel = Wheel::new(10, 0);
        let id = set(&mut wheel, HOUR_NS, 1);
        *wheel.get_mut(id).expect("it is set") += 1;
        assert_eq!(wheel.deadline_ns(id), Some(HOUR_NS));
        assert_eq!(wheel.cancel(id), Some(2));
        let other = set(&mut wheel, HOUR_NS, 3);
        assert_eq!(other.index, id.index, "the entry is used again");
        assert_eq!(wheel.cancel(id), None);
        assert_eq!(wheel.get_mut(id), None);
        assert_eq!(wheel.deadline_ns(id), None);
        assert!(pop_all(&mut wheel, HOUR_NS).is_empty());
        assert_eq!(pop_all(&mut wheel, HOUR_NS + TICK_NS), [3]);
        assert_eq!(wheel.cancel(other), None);
    }

    #[test]
    fn timer_that_has_fired_stands_aside_until_it_is_set_again_or_taken_out() {
        let mut wheel = Wheel::new(1, 0);
        let id = set(&mut wheel, TICK_NS, 'a');
        for tick in [1, 3, 700] {
            assert_eq!(wheel.pop_due(tick * TICK_NS, &mut 10), Some(id));
            assert_eq!((wheel.next_deadline_ns(), wheel.is_empty()), (None, true));
            assert_eq!((wheel.get_mut(id).copied(), wheel.id_at(id.place())), (Some('a'), id));
            assert_eq!(wheel.insert(0, 'b'), Err('b'), "it takes its room");
            check(&wheel);
            wheel.set_again(id, (tick + 2) * TICK_NS);
            assert_eq!(wheel.pop_due((tick + 1) * TICK_NS, &mut 10), None);
            check(&wheel);
        }
        assert_eq!(wheel.cancel(id), Some('a'));
        check(&wheel);
        set(&mut wheel, 0, 'c');
        let id = wheel.pop_due(HOUR_NS, &mut 10).expect("it is due");
        assert_eq!((wheel.cancel(id), wheel.cancel(id)), (Some('c'), None));
        check(&wheel);
    }

    #[test]
    fn generation_wraps() {
        let mut wheel = Wheel::new(1, 0);
        let id = set(&mut wheel, 0, ());
        wheel.timer_mut(id.index).generation = u32::MAX;
        let last = TimerId { generation: u32::MAX, ..id };
        assert_eq!(wheel.cancel(last), Some(()));
        assert_eq!(set(&mut wheel, 0, ()).generation, 0);
        assert_eq!(wheel.cancel(last), None);
    }

    #[test]
    fn full_wheel_returns_the_value() {
        let mut wheel = Wheel::new(2, 0);
        let first = set(&mut wheel, 1, 'a');
        set(&mut wheel, 1, 'b');
        assert_eq!(wheel.insert(1, 'c'), Err('c'));
        wheel.cancel(first);
        assert!(wheel.insert(1, 'd').is_ok());
        assert_eq!(Wheel::new(0, 0).insert(1, 'e'), Err('e'));
    }

    #[test]
    fn deadline_at_the_end_of_time_never_comes() {
        let mut wheel = Wheel::new(10, 0);
        set(&mut wheel, u64::MAX, "never");
        assert_eq!(wheel.next_deadline_ns(), Some(u64::MAX));
        set(&mut wheel, (TICK_MAX - 1) << TICK_BITS, "in 584 years");
        assert_eq!(pop_all(&mut wheel, u64::MAX), ["in 584 years"]);
        assert_eq!(wheel.next_deadline_ns(), Some(u64::MAX));
        assert_eq!(wheel.len, 1);
    }

    #[test]
    fn clear_gives_every_value_once() {
        let witness = Rc::new(());
        let mut wheel = Wheel::new(1000, 0);
        let ids: Vec<_> =
            (0..1000).map(|i| set(&mut wheel, i * i * TICK_NS, Rc::clone(&witness))).collect();
        wheel.cancel(ids[500]);
        assert_eq!(pop_all(&mut wheel, 0).len(), 1);
        assert!(wheel.pop_due(HOUR_NS, &mut 400).is_some(), "some wait, some are half way");
        let left = wheel.len as usize + 1;
        let mut values = 0;
        wheel.clear_with(|_| values += 1);
        assert_eq!(values, left);
        assert!(wheel.is_empty());
        assert_eq!(Rc::strong_count(&witness), 1);
        assert!(ids.iter().all(|id| wheel.get_mut(*id).is_none()));
        check(&wheel);
    }

    #[test]
    fn sleeper_wakes_at_most_five_times_in_vain() {
        for seed in 1..=2000 {
            let mut random = Random(seed);
            let mut now_ns = random.spread();
            let mut wheel = Wheel::new(1, now_ns);
            let deadline_ns =
                now_ns.saturating_add(random.spread()).min((TICK_MAX - 1) << TICK_BITS);
            set(&mut wheel, deadline_ns, ());
            let mut vain = 0;
            loop {
                now_ns = now_ns.max(wheel.next_deadline_ns().expect("it is set"));
                if wheel.pop_due(now_ns, &mut 10).is_some() {
                    break;
                }
                vain += 1;
                assert!(wheel.next_deadline_ns() > Some(now_ns), "seed {seed}");
            }
            assert!(vain <= 5, "seed {seed}: {vain} times");
            assert!(
                now_ns - deadline_ns < TICK_NS,
                "seed {seed}: {} ns late",
                now_ns - deadline_ns
            );
        }
    }

    #[test]
    fn bucket_of_a_million_moves_down_within_the_budget() {
        const COUNT: usize = 1_000_000;
        const BUDGET: u32 = 40_000;
        let mut wheel = Wheel::new(COUNT as u32, 0);
        let (start, span) = (5 << 16, 1 << 16);
        for value in 0..COUNT as u64 {
            set(&mut wheel, (start + value * 7919 % span) << TICK_BITS, value);
        }
        let bucket = |entry: &Entry<u64>| match entry {
            Entry::Timer(timer) => Some(timer.bucket),
            Entry::Free { .. } => None,
        };
        let buckets = |wheel: &Wheel<u64>| wheel.entries.iter().map(bucket).collect::<Vec<_>>();
        let mut before = buckets(&wheel);
        assert_eq!(before, vec![before[0]; COUNT], "all are in one bucket");
        let now_ns = (start + span) << TICK_BITS;
        let (mut polls, mut fired) = (0, Vec::new());
        while !wheel.is_empty() {
            assert!(wheel.next_deadline_ns() <= Some(now_ns), "there is work to go on with");
            let mut budget = BUDGET;
            while let Some(due) = take_due(&mut wheel, now_ns, &mut budget) {
                fired.push(due.deadline_ns);
            }
            let after = buckets(&wheel);
            let touched = before.iter().zip(&after).filter(|(before, after)| before != after);
            assert!(touched.count() <= BUDGET as usize);
            before = after;
            polls += 1;
        }
        assert_eq!(fired.len(), COUNT);
        assert!(fired.is_sorted());
        // Each moves down twice at most, and fires.
        assert!(polls <= COUNT * 3 / BUDGET as usize + 1, "{polls} polls");
    }

    /// Xorshift (Marsaglia 2003).
    pub(super) struct Random(pub(super) u64);

    impl Random {
        fn next(&mut self) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0.wrapping_mul(0x9e37_79b9_7f4a_7c15)
        }

        pub(super) fn below(&mut self, end: u64) -> u64 {
            (self.next() >> 32) % end
        }

        /// A number of any magnitude.
        pub(super) fn spread(&mut self) -> u64 {
            let bits = self.below(64);
            self.next() >> bits
        }
    }
}
