//! The loops that ours is measured against: the same memory work, and nothing else.
//!
//! Per message: read a record, call the function that its first word names, find the key in an
//! index (one line), change a 64-byte state (one line), write a record. The call goes through a
//! table of two, because a queue that holds more than one kind of message cannot do without. Left
//! away is all else: no bounds to keep, no panic to guard against, no life cycle, no routing, no
//! replies.
#![expect(unsafe_code, reason = "what a bound costs is part of what is measured")]

use crate::measure::Random;

/// A cache line of state.
#[repr(C, align(64))]
#[derive(Clone, Copy, Default)]
pub(crate) struct State {
    pub(crate) key: u64,
    pub(crate) balance: i64,
    pub(crate) turns: u64,
    pub(crate) rest: [u64; 5],
}

/// Key to slot: open addressing, 16-byte entries, at most half full.
pub(crate) struct FlatIndex {
    entries: Vec<(u64, u32)>,
    shift: u32,
    mask: usize,
}

const FREE: u32 = u32::MAX;

impl FlatIndex {
    pub(crate) fn new(entries: u64) -> Self {
        let capacity = (entries * 2).next_power_of_two().max(16) as usize;
        let mut table = Vec::with_capacity(capacity);
        large_pages(&table);
        table.resize(capacity, (0, FREE));
        Self { entries: table, shift: 64 - capacity.trailing_zeros(), mask: capacity - 1 }
    }

    #[inline(always)]
    fn place(&self, key: u64) -> usize {
        (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> self.shift) as usize
    }

    #[inline(always)]
    pub(crate) fn find(&self, key: u64) -> Option<u32> {
        let mut place = self.place(key);
        loop {
            // SAFETY: shifted or masked to below the length.
            let (known, slot) = unsafe { *self.entries.get_unchecked(place) };
            if known == key && slot != FREE {
                return Some(slot);
            }
            if slot == FREE {
                return None;
            }
            place = (place + 1) & self.mask;
        }
    }

    pub(crate) fn insert(&mut self, key: u64, slot: u32) {
        let mut place = self.place(key);
        while self.entries[place].1 != FREE {
            place = (place + 1) & self.mask;
        }
        self.entries[place] = (key, slot);
    }

    #[inline(always)]
    pub(crate) fn fetch(&self, key: u64) {
        prefetch(self.entries.as_ptr().wrapping_add(self.place(key)));
    }
}

/// States with their index.
pub(crate) struct Flat {
    pub(crate) index: FlatIndex,
    pub(crate) states: Vec<State>,
}

impl Flat {
    pub(crate) fn new(entities: u64) -> Self {
        let mut flat = Self::with_room(entities);
        for key in 0..entities {
            flat.activate(key);
        }
        flat
    }

    pub(crate) fn with_room(entities: u64) -> Self {
        let states = Vec::with_capacity(entities as usize);
        large_pages(&states);
        Self { index: FlatIndex::new(entities), states }
    }

    #[inline]
    pub(crate) fn activate(&mut self, key: u64) {
        self.index.insert(key, self.states.len() as u32);
        self.states.push(State { key, ..State::default() });
    }
}

/// A queue of packed records: a ring of words, a power of two long.
pub(crate) struct WordQueue {
    words: Vec<u64>,
    head: usize,
    tail: usize,
}

const QUEUE_WORDS: usize = 4096;
const RECORD_WORDS: usize = 4;

/// Records under way in the benchmarks of tells and asks.
pub(crate) const UNDER_WAY: u64 = 768;

impl WordQueue {
    fn new() -> Self {
        Self { words: vec![0; QUEUE_WORDS], head: 0, tail: 0 }
    }

    /// Records take four words here, so that none wraps around; three of them carry something.
    #[inline(always)]
    fn push(&mut self, kind: u64, key: u64, value: u64) {
        let at = self.tail & (QUEUE_WORDS - 1);
        // SAFETY: masked, and a multiple of the record length, which divides the ring's.
        unsafe {
            *self.words.get_unchecked_mut(at) = kind;
            *self.words.get_unchecked_mut(at + 1) = key;
            *self.words.get_unchecked_mut(at + 2) = value;
        }
        self.tail += RECORD_WORDS;
    }

    #[inline(always)]
    fn kind_at(&self, position: usize) -> u64 {
        // SAFETY: as in `push`.
        unsafe { *self.words.get_unchecked(position & (QUEUE_WORDS - 1)) }
    }

    #[inline(always)]
    fn key_at(&self, position: usize) -> u64 {
        // SAFETY: as in `push`.
        unsafe { *self.words.get_unchecked((position & (QUEUE_WORDS - 1)) + 1) }
    }

    #[inline(always)]
    fn value_at(&self, position: usize) -> u64 {
        // SAFETY: as in `push`.
        unsafe { *self.words.get_unchecked((position & (QUEUE_WORDS - 1)) + 2) }
    }
}

/// A handler of the limit: key and value of its message.
type Call = fn(&mut TellLimit, u64, u64);

/// Messages that each change one random state and send the next one.
pub(crate) struct TellLimit {
    flat: Flat,
    queue: WordQueue,
    random: Random,
    entities: u64,
    /// By kind of message.
    table: [Call; 2],
    /// Whether to fetch ahead: worth it when the states do not fit the caches.
    ahead: bool,
}

impl TellLimit {
    pub(crate) fn new(entities: u64) -> Self {
        let mut limit = Self {
            flat: Flat::new(entities),
            queue: WordQueue::new(),
            random: Random::new(),
            entities,
            // Hidden from the compiler, which would see that only one is used here.
            table: std::hint::black_box([Self::pay_in, Self::pay_out]),
            ahead: entities > 4096,
        };
        for _ in 0..UNDER_WAY {
            let key = limit.random.below(entities);
            limit.queue.push(0, key, 1);
        }
        limit
    }

    /// Runs `count` messages.
    pub(crate) fn run(&mut self, count: u64) -> u64 {
        if self.ahead {
            self.run_as::<true>(count)
        } else {
            self.run_as::<false>(count)
        }
        count
    }

    fn run_as<const AHEAD: bool>(&mut self, count: u64) {
        const FAR: usize = 32 * RECORD_WORDS;
        const NEAR: usize = 16 * RECORD_WORDS;
        for _ in 0..count {
            let head = self.queue.head;
            if AHEAD {
                self.flat.index.fetch(self.queue.key_at(head + FAR));
                if let Some(slot) = self.flat.index.find(self.queue.key_at(head + NEAR)) {
                    prefetch(self.flat.states.as_ptr().wrapping_add(slot as usize));
                }
            }
            let (kind, key) = (self.queue.kind_at(head), self.queue.key_at(head));
            let value = self.queue.value_at(head);
            self.queue.head += RECORD_WORDS;
            self.table[kind as usize & 1](self, key, value);
        }
    }

    fn pay_in(&mut self, key: u64, value: u64) {
        self.change(key, value as i64);
        let next = self.random.below(self.entities);
        self.queue.push(0, next, value);
    }

    fn pay_out(&mut self, key: u64, value: u64) {
        self.change(key, -(value as i64));
        let next = self.random.below(self.entities);
        self.queue.push(1, next, value);
    }

    #[inline(always)]
    fn change(&mut self, key: u64, amount: i64) {
        if let Some(slot) = self.flat.index.find(key) {
            // SAFETY: slots in the index are below the number of states.
            let state = unsafe { self.flat.states.get_unchecked_mut(slot as usize) };
            state.balance += amount;
            state.turns += 1;
        }
    }
}

/// A handler of the limit: key and place of its ask.
type AskCall = fn(&mut AskLimit, u64, u64);

/// Asks: a request and a reply, each through the queue, with a table of who waits.
pub(crate) struct AskLimit {
    flat: Flat,
    queue: WordQueue,
    /// By place: the key of who asked.
    waiting: Vec<u64>,
    random: Random,
    entities: u64,
    /// By kind of message.
    table: [AskCall; 4],
}

impl AskLimit {
    pub(crate) fn new(entities: u64) -> Self {
        let mut limit = Self {
            flat: Flat::new(entities),
            queue: WordQueue::new(),
            waiting: vec![0; UNDER_WAY as usize],
            random: Random::new(),
            entities,
            table: [Self::ask, Self::reply, Self::take, Self::take],
        };
        for place in 0..UNDER_WAY {
            let key = limit.random.below(entities);
            limit.queue.push(0, key, place);
        }
        limit
    }

    /// Runs `count` asks: a turn that asks, a turn that answers, a turn that gets the answer.
    pub(crate) fn run(&mut self, count: u64) -> u64 {
        for _ in 0..count * 3 {
            let head = self.queue.head;
            let (kind, key) = (self.queue.kind_at(head), self.queue.key_at(head));
            let place = self.queue.value_at(head);
            self.queue.head += RECORD_WORDS;
            self.table[kind as usize & 3](self, key, place);
        }
        count
    }

    fn ask(&mut self, key: u64, place: u64) {
        self.turn(key);
        self.waiting[place as usize] = key;
        let next = self.random.below(self.entities);
        self.queue.push(1, next, place);
    }

    fn reply(&mut self, key: u64, place: u64) {
        self.turn(key);
        self.queue.push(2, self.waiting[place as usize], place);
    }

    fn take(&mut self, key: u64, place: u64) {
        self.turn(key);
        let next = self.random.below(self.entities);
        self.queue.push(0, next, place);
    }

    #[inline(always)]
    fn turn(&mut self, key: u64) {
        if let Some(slot) = self.flat.index.find(key) {
            // SAFETY: slots in the index are below the number of states.
            let state = unsafe { self.flat.states.get_unchecked_mut(slot as usize) };
            state.balance += 1;
            state.turns += 1;
        }
    }
}

/// Asks for large pages behind a vector that has its room but is not filled yet.
fn large_pages<T>(items: &Vec<T>) {
    const PAGE: usize = 2 << 20;
    let start = items.as_ptr().addr();
    let (from, to) = (start.next_multiple_of(PAGE), start + items.capacity() * size_of::<T>());
    if to > from + PAGE {
        let length = (to - from) / PAGE * PAGE;
        // SAFETY: advice on our own memory; it does not change contents.
        unsafe { libc::madvise(from as *mut _, length, libc::MADV_HUGEPAGE) };
    }
}

#[inline(always)]
fn prefetch<T>(at: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint; it never faults.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}
