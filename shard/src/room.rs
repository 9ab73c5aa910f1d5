//! Room in a bounded queue that many threads fill, and the line of those who wait for it.
//!
//! A *place* is the right to push one item. Whoever finds none may leave its item in the line; each
//! place that becomes free moves the first item of the line into the queue, at once and by whoever
//! freed the place. So a waiter holds no place that it might sit on, the order of the line is the
//! order of the queue, and one that gives up has nothing to pass on but its spot.
//!
//! # Invariants
//! One word holds everything that the way without waiting looks at: the number of places taken, and
//! above it two flags, which make it larger than any capacity. So nobody passes those who wait,
//! and the way with room is a single addition. `WAITING` is set exactly while the line holds an
//! item (it changes under the line's lock).
//!
//! # No item is left in the line beside a free place
//! All changes of the word have one order. An item enters the line as follows: the flag is set,
//! then the word is read; the item stays only if that read (or a later one under the lock) shows no
//! free place. So whatever place is free afterwards was given back afterwards. Who gives a place
//! back subtracts from the word: behind the flag in that order, so it sees the flag, and looks into
//! the line. This holds for a place that was taken in vain too: an addition that found the word
//! full may be what the read above saw, and is undone by such a subtraction.

use std::collections::VecDeque;
use std::sync::PoisonError;

use crate::sync::{AtomicUsize, Mutex, MutexGuard, Ordering};

/// The places of one bounded queue, which itself is the caller's.
#[derive(Debug)]
pub struct Room<T> {
    /// Places taken, and flags.
    word: AtomicUsize,
    capacity: usize,
    line: Mutex<Line<T>>,
}

#[derive(Debug)]
struct Line<T> {
    /// By number, ascending.
    items: VecDeque<(u64, T)>,
    next_number: u64,
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// All are taken, or others wait for the next.
    Full,
    /// There will be none any more.
    Closed,
}

const CLOSED: usize = 1 << (usize::BITS - 1);
const WAITING: usize = CLOSED >> 1;
const COUNT: usize = WAITING - 1;

impl<T> Room<T> {
    /// Room for `capacity` items, at least one.
    pub fn new(capacity: usize) -> Self {
        let line = Line { items: VecDeque::new(), next_number: 0 };
        Self {
            word: AtomicUsize::new(0),
            capacity: capacity.clamp(1, COUNT / 2),
            line: Mutex::new(line),
        }
    }

    /// Takes a place, if one is free and nobody waits for it. `push` is for the items of others, as
    /// in [`give_back`](Self::give_back).
    ///
    /// # Errors
    /// Why there is none.
    ///
    /// # Cost
    /// One atomic addition where there is room.
    pub fn take<N>(&self, push: impl FnMut(T) -> N, notify: impl FnMut(N)) -> Result<(), Refused> {
        let word = self.word.load(Ordering::Relaxed);
        if word >= self.capacity {
            return Err(refusal(word));
        }
        let word = self.word.fetch_add(1, Ordering::SeqCst);
        if word < self.capacity {
            return Ok(());
        }
        self.give_back(push, notify);
        Err(refusal(word))
    }

    /// Gives a place back, after its item was taken off the queue. It goes to whoever waits first:
    /// `push` puts that item into the queue, under the line's lock; `notify` hears what `push` made
    /// of it, without.
    ///
    /// # Cost
    /// One atomic subtraction while nobody waits.
    pub fn give_back<N>(&self, push: impl FnMut(T) -> N, notify: impl FnMut(N)) {
        let word = self.word.fetch_sub(1, Ordering::SeqCst);
        debug_assert!(word & COUNT > 0, "a place was taken");
        if word & WAITING != 0 {
            self.admit(push, notify);
        }
    }

    /// Leaves `item` in the line; returns the number to [`withdraw`](Self::withdraw) it by. Where
    /// there is room after all, it goes the way of [`give_back`](Self::give_back) at once.
    ///
    /// # Errors
    /// The item, when the room is closed.
    pub fn wait<N>(
        &self,
        item: T,
        push: impl FnMut(T) -> N,
        notify: impl FnMut(N),
    ) -> Result<u64, T> {
        let mut line = self.line();
        // Closed later than this, the closer finds the item: it passes the lock after us.
        if self.word.load(Ordering::SeqCst) & CLOSED != 0 {
            return Err(item);
        }
        let number = line.next_number;
        line.next_number += 1;
        line.items.push_back((number, item));
        self.word.fetch_or(WAITING, Ordering::SeqCst);
        drop(line);
        self.admit(push, notify);
        Ok(number)
    }

    /// Takes an item out of the line again, if it is still there.
    pub fn withdraw(&self, number: u64) -> Option<T> {
        let mut line = self.line();
        let at = line.items.binary_search_by_key(&number, |(number, _)| *number).ok()?;
        let item = line.items.remove(at);
        self.lower_flag(&line);
        item.map(|(_, item)| item)
    }

    /// Takes all items out of the line that `keep` does not want there, in their order.
    pub fn withdraw_unless(&self, mut keep: impl FnMut(&T) -> bool) -> Vec<T> {
        let mut line = self.line();
        let mut gone = Vec::new();
        for _ in 0..line.items.len() {
            let Some((number, item)) = line.items.pop_front() else { break };
            if keep(&item) {
                line.items.push_back((number, item));
            } else {
                gone.push(item);
            }
        }
        self.lower_flag(&line);
        gone
    }

    /// Gives no places any more; returns what waited, in order. Places that are taken stay so.
    pub fn close(&self) -> Vec<T> {
        self.word.fetch_or(CLOSED, Ordering::SeqCst);
        self.withdraw_unless(|_| false)
    }

    /// Whether no place is taken and nobody waits.
    pub fn is_empty(&self) -> bool {
        self.word.load(Ordering::SeqCst) & !CLOSED == 0
    }

    /// Whether somebody waits.
    #[inline]
    pub fn has_waiters(&self) -> bool {
        self.word.load(Ordering::Relaxed) & WAITING != 0
    }

    /// Moves items from the line into the queue while there is room.
    #[cold]
    fn admit<N>(&self, mut push: impl FnMut(T) -> N, mut notify: impl FnMut(N)) {
        while let Some(note) = self.admit_first(&mut push) {
            notify(note);
        }
    }

    fn admit_first<N>(&self, push: &mut impl FnMut(T) -> N) -> Option<N> {
        let mut line = self.line();
        if line.items.is_empty() || !self.take_for_waiter() {
            return None;
        }
        let (_, item) = line.items.pop_front()?;
        self.lower_flag(&line);
        Some(push(item))
    }

    fn take_for_waiter(&self) -> bool {
        let free = |word: usize| (word & COUNT < self.capacity).then_some(word + 1);
        self.word.fetch_update(Ordering::SeqCst, Ordering::SeqCst, free).is_ok()
    }

    fn lower_flag(&self, line: &Line<T>) {
        if line.items.is_empty() {
            self.word.fetch_and(!WAITING, Ordering::SeqCst);
        }
    }

    /// A panic under the lock can only come from `push` or `keep`, with the line whole.
    fn line(&self) -> MutexGuard<'_, Line<T>> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn refusal(word: usize) -> Refused {
    if word & CLOSED != 0 { Refused::Closed } else { Refused::Full }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::cell::RefCell;

    fn no_push(item: u32) {
        panic!("{item} was not to be pushed");
    }

    #[test]
    fn place_given_back_goes_to_whoever_waits_first() {
        let room = Room::new(2);
        let queue = RefCell::new(Vec::new());
        let push = |item| queue.borrow_mut().push(item);
        assert_eq!(room.take(no_push, drop), Ok(()));
        assert_eq!(room.take(no_push, drop), Ok(()));
        assert_eq!(room.take(no_push, drop), Err(Refused::Full));
        let numbers: Vec<_> = (0..4).map(|item| room.wait(item, no_push, drop)).collect();
        assert_eq!(room.withdraw(numbers[1].expect("open")), Some(1));
        room.give_back(push, drop);
        assert_eq!(*queue.borrow(), [0]);
        assert_eq!(room.take(no_push, drop), Err(Refused::Full), "nobody passes those who wait");
        room.give_back(push, drop);
        room.give_back(push, drop);
        assert_eq!(*queue.borrow(), [0, 2, 3]);
        assert_eq!(room.withdraw(numbers[2].expect("open")), None);
        assert!(!room.has_waiters() && !room.is_empty());
        room.give_back(push, drop);
        assert_eq!(room.take(no_push, drop), Ok(()));
        room.give_back(push, drop);
        room.give_back(push, drop);
        assert!(room.is_empty());
    }

    #[test]
    fn closed_room_gives_back_what_waits_and_what_comes() {
        let room = Room::new(1);
        assert_eq!(room.take(no_push, drop), Ok(()));
        assert!(room.wait(7, no_push, drop).is_ok() && room.wait(8, no_push, drop).is_ok());
        assert_eq!(room.close(), [7, 8]);
        assert_eq!(room.wait(9, no_push, drop), Err(9));
        assert_eq!(room.take(no_push, drop), Err(Refused::Closed));
        room.give_back(no_push, drop);
        assert_eq!(room.take(no_push, drop), Err(Refused::Closed));
        assert!(room.is_empty());
    }

    #[test]
    fn items_can_be_picked_out_of_the_line() {
        let room = Room::new(1);
        assert_eq!(room.take(no_push, drop), Ok(()));
        for item in 0..6 {
            assert!(room.wait(item, no_push, drop).is_ok());
        }
        assert_eq!(room.withdraw_unless(|item| item % 2 == 0), [1, 3, 5]);
        assert!(room.withdraw_unless(|_| true).is_empty());
        assert!(room.has_waiters());
        assert_eq!(room.close(), [0, 2, 4]);
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::sync::Arc;

    /// A place that is given back while somebody joins the line and somebody tries in vain: the
    /// item never stays in the line beside the free place, and is pushed once.
    #[test]
    fn loom_nobody_waits_beside_a_free_place() {
        loom::model(|| {
            let room = Arc::new(Room::new(1));
            let pushed = Arc::new(AtomicUsize::new(0));
            assert_eq!(room.take(drop, drop), Ok(()));
            let push = |pushed: Arc<AtomicUsize>| {
                move |_: u32| {
                    pushed.fetch_add(1, Ordering::Relaxed);
                }
            };
            let (other, push_other) = (Arc::clone(&room), push(Arc::clone(&pushed)));
            let waiter = loom::thread::spawn(move || {
                assert!(other.wait(1, push_other, drop).is_ok());
            });
            let (other, push_other) = (Arc::clone(&room), push(Arc::clone(&pushed)));
            let in_vain = loom::thread::spawn(move || {
                let mut push_other = push_other;
                if other.take(&mut push_other, drop).is_ok() {
                    other.give_back(&mut push_other, drop);
                }
            });
            room.give_back(push(Arc::clone(&pushed)), drop);
            assert!(waiter.join().is_ok() && in_vain.join().is_ok());
            assert_eq!(pushed.load(Ordering::Relaxed), 1);
            assert!(!room.has_waiters());
        });
    }

    /// Whether the closer or the waiter comes first: the item comes back from one of them.
    #[test]
    fn loom_close_leaves_nobody_in_the_line() {
        loom::model(|| {
            let room = Arc::new(Room::new(1));
            assert_eq!(room.take(drop, drop), Ok(()));
            let other = Arc::clone(&room);
            let waiter = loom::thread::spawn(move || other.wait(1, drop, drop).is_err());
            let closed = room.close().len();
            let refused = waiter.join().unwrap_or(false);
            assert_eq!(closed + usize::from(refused), 1);
        });
    }
}
