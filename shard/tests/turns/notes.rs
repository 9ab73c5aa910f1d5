//! What happened, as the agents wrote it down, and what became of asks. One book per thread, which
//! is one per test.

use std::cell::RefCell;
use std::collections::BTreeMap;

use coreside_shard::AskError;

pub(crate) type Outcome = Result<u64, AskError>;

#[derive(Default)]
struct Book {
    lines: Vec<String>,
    outcomes: BTreeMap<u64, Outcome>,
    alive: BTreeMap<&'static str, i64>,
    asked: u64,
}

thread_local! {
    static BOOK: RefCell<Book> = RefCell::default();
}

/// Writes a line.
pub(crate) fn note(line: impl ToString) {
    BOOK.with_borrow_mut(|book| book.lines.push(line.to_string()));
}

/// The lines since the last call.
pub(crate) fn take_notes() -> Vec<String> {
    BOOK.with_borrow_mut(|book| std::mem::take(&mut book.lines))
}

/// A number for an ask.
pub(crate) fn next_ask() -> u64 {
    BOOK.with_borrow_mut(|book| {
        book.asked += 1;
        book.asked
    })
}

/// An ask ended: at most once.
pub(crate) fn finish(ask: u64, outcome: Outcome) {
    let earlier = BOOK.with_borrow_mut(|book| book.outcomes.insert(ask, outcome));
    assert_eq!(earlier, None, "an ask ends once");
}

/// How an ask ended, if it did.
pub(crate) fn outcome(ask: u64) -> Option<Outcome> {
    BOOK.with_borrow(|book| book.outcomes.get(&ask).cloned())
}

/// Counts values that are alive, by name.
pub(crate) struct Witness(&'static str);

impl Witness {
    pub(crate) fn new(name: &'static str) -> Self {
        BOOK.with_borrow_mut(|book| *book.alive.entry(name).or_default() += 1);
        Self(name)
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        BOOK.with_borrow_mut(|book| *book.alive.entry(self.0).or_default() -= 1);
    }
}

/// Values of this name that are alive.
pub(crate) fn alive(name: &'static str) -> i64 {
    BOOK.with_borrow(|book| book.alive.get(name).copied().unwrap_or(0))
}
