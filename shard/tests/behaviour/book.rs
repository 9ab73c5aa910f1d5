//! The book that a test keeps of everything it sends: what is under way, what arrived, what was
//! dropped. One per thread, and libtest runs each test on a thread of its own.
//!
//! A handler must not assert, because the shard would contain the panic; it notes what is wrong in
//! the book, and the test asks for that in the end.

use std::cell::RefCell;
use std::collections::BTreeMap;

use coreside_shard::AskError;

thread_local! {
    static BOOK: RefCell<Book> = const { RefCell::new(Book::new()) };
}

/// Who sent to whom: any numbers that differ between senders and between entities.
pub(crate) type Way = (u64, u64);

/// How an ask ended.
pub(crate) type Outcome = Result<u64, AskError>;

pub(crate) struct Book {
    next: u64,
    under_way: BTreeMap<u64, Way>,
    last: BTreeMap<Way, u64>,
    pub(crate) delivered: u64,
    /// Messages that were dropped before their turn.
    pub(crate) lost: Vec<u64>,
    pub(crate) outcomes: BTreeMap<u64, Outcome>,
    pub(crate) activations: u64,
    /// Values that were made and not dropped, by what they are.
    live: BTreeMap<u64, &'static str>,
    errors: Vec<String>,
}

impl Book {
    const fn new() -> Self {
        Self {
            next: 1,
            under_way: BTreeMap::new(),
            last: BTreeMap::new(),
            delivered: 0,
            lost: Vec::new(),
            outcomes: BTreeMap::new(),
            activations: 0,
            live: BTreeMap::new(),
            errors: Vec::new(),
        }
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }
}

/// Looks into the book, or changes it.
pub(crate) fn book<R>(look: impl FnOnce(&mut Book) -> R) -> R {
    BOOK.with(|book| look(&mut book.borrow_mut()))
}

pub(crate) fn note(error: String) {
    book(|book| book.errors.push(error));
}

/// Messages that neither arrived nor were dropped.
pub(crate) fn under_way() -> usize {
    book(|book| book.under_way.len())
}

/// Values of a kind that were made and not dropped.
pub(crate) fn live(kind: &str) -> usize {
    book(|book| book.live.values().filter(|other| **other == kind).count())
}

pub(crate) fn live_in_all() -> usize {
    book(|book| book.live.len())
}

/// The outcome of ask `number`, if there is one yet.
pub(crate) fn outcome(number: u64) -> Option<Outcome> {
    book(|book| book.outcomes.get(&number).cloned())
}

pub(crate) fn finish(number: u64, outcome: Outcome) {
    let before = book(|book| book.outcomes.insert(number, outcome.clone()));
    if let Some(before) = before {
        note(format!("ask {number} ended twice: {before:?}, then {outcome:?}"));
    }
}

/// Fails when a handler has noted an error.
pub(crate) fn check(context: &str) {
    let errors = book(|book| std::mem::take(&mut book.errors));
    assert!(errors.is_empty(), "{context}: {errors:#?}");
}

/// Begins a new book, once nothing of the old one is left.
pub(crate) fn close(context: &str) {
    check(context);
    let live = book(|book| std::mem::take(&mut book.live));
    assert!(live.is_empty(), "{context}: never dropped: {live:?}");
    book(|book| *book = Book::new());
}

/// A value that must be dropped exactly once.
#[derive(Debug)]
pub(crate) struct Witness(u64);

impl Witness {
    pub(crate) fn new(kind: &'static str) -> Self {
        book(|book| {
            let number = book.number();
            book.live.insert(number, kind);
            Self(number)
        })
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        if book(|book| book.live.remove(&self.0)).is_none() {
            note(format!("value {} was dropped twice", self.0));
        }
    }
}

/// What every message carries: its number in the book, and a witness of its drop.
#[derive(Debug)]
pub(crate) struct Stamp {
    pub(crate) number: u64,
    settled: bool,
    _witness: Witness,
}

impl Stamp {
    /// For a message that is about to be sent.
    pub(crate) fn new(way: Way) -> Self {
        let number = book(|book| {
            let number = book.number();
            book.under_way.insert(number, way);
            number
        });
        Self { number, settled: false, _witness: Witness::new("message") }
    }

    /// The message was refused and came back.
    pub(crate) fn take_back(mut self) {
        self.settled = true;
        if book(|book| book.under_way.remove(&self.number)).is_none() {
            note(format!("message {} was refused and delivered", self.number));
        }
    }

    /// The message has its turn.
    pub(crate) fn arrive(&mut self, entity: u64) {
        self.settled = true;
        let number = self.number;
        let error = book(|book| {
            let Some(way) = book.under_way.remove(&number) else {
                return Some(format!("message {number} was delivered twice"));
            };
            book.delivered += 1;
            if way.1 != entity {
                return Some(format!("message {number} for {} came to {entity}", way.1));
            }
            match book.last.insert(way, number) {
                Some(last) if last > number => {
                    Some(format!("message {number} from {} to {entity} came after {last}", way.0))
                }
                _ => None,
            }
        });
        error.into_iter().for_each(note);
    }
}

impl Drop for Stamp {
    fn drop(&mut self) {
        if !self.settled {
            book(|book| {
                if book.under_way.remove(&self.number).is_some() {
                    book.lost.push(self.number);
                }
            });
        }
    }
}
