//! The book that a run keeps of everything that is sent, asked and made: what is under way, what
//! arrived, what was dropped. One per thread, and each run has a thread to itself.
//!
//! A handler must not assert, because the shard would contain the panic. It notes what is wrong
//! here under the name of an oracle, which finds it after the step.

use std::cell::RefCell;
use std::collections::BTreeMap;

use coreside::AskError;
use coreside::sim::Random;

use crate::suite::scenario::Scenario;

thread_local! {
    static BOOK: RefCell<Book> = RefCell::new(Book::new(&Scenario::default()));
}

/// Who sent to whom: numbers that differ between senders and between entities.
pub(crate) type Way = (u64, u64);

/// How an ask ended.
pub(crate) type Outcome = Result<u64, AskError>;

/// The names of the oracles, under which findings are noted.
pub(crate) const ORDER: &str = "order";
pub(crate) const DELIVERY: &str = "delivery";
pub(crate) const ASKS: &str = "asks";
pub(crate) const LIVES: &str = "lives";
pub(crate) const MONEY: &str = "money";

pub(crate) struct Book {
    /// Virtual time of the step.
    pub(crate) now_ns: u64,
    ask_timeout_ns: u64,
    messages: Vec<Sent>,
    under_way: u64,
    last: BTreeMap<Way, usize>,
    asks: Vec<Ask>,
    asks_open: u64,
    /// Continuations that were dropped and did not run.
    pub(crate) unclaimed: u64,
    /// Messages that were dropped before their turn.
    pub(crate) dropped: u64,
    /// Activations that panicked.
    pub(crate) cursed: u64,
    /// Entities that live, by their number.
    lives: BTreeMap<u64, u64>,
    /// Money that was ever made, and that went with somebody who failed or was put away.
    pub(crate) minted: u64,
    pub(crate) destroyed: u64,
    findings: Vec<(&'static str, String)>,
    tally: BTreeMap<&'static str, u64>,
    entities: Random,
    faults: Random,
    scenario: Scenario,
}

struct Sent {
    way: Way,
    fate: Fate,
    /// Its turn panicked.
    panicked: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    UnderWay,
    Arrived,
    Returned,
    Dropped,
}

struct Ask {
    message: usize,
    asked_ns: u64,
    outcome: Option<Outcome>,
}

impl Book {
    fn new(scenario: &Scenario) -> Self {
        Self {
            now_ns: 0,
            ask_timeout_ns: scenario.ask_timeout_ns,
            messages: Vec::new(),
            under_way: 0,
            last: BTreeMap::new(),
            asks: Vec::new(),
            asks_open: 0,
            unclaimed: 0,
            dropped: 0,
            cursed: 0,
            lives: BTreeMap::new(),
            minted: 0,
            destroyed: 0,
            findings: Vec::new(),
            tally: BTreeMap::new(),
            entities: Random::stream(scenario.seed, "entities"),
            faults: Random::stream(scenario.seed, "faults of entities"),
            scenario: scenario.clone(),
        }
    }

    fn note(&mut self, oracle: &'static str, what: String) {
        // One finding is enough to fail; a run that has gone wrong may make millions.
        if self.findings.len() < 16 {
            self.findings.push((oracle, what));
        }
    }

    /// Why `outcome` cannot be that of this ask; `None` when it can.
    fn objection(&self, ask: &Ask, number: usize, outcome: &Outcome) -> Option<String> {
        let message = &self.messages[ask.message];
        let waited_ns = self.now_ns.saturating_sub(ask.asked_ns);
        match outcome {
            Ok(reply) if *reply == reply_to(ask.message) => None,
            Ok(reply) => Some(format!("ask {number} got the wrong reply {reply}")),
            Err(AskError::Failed) if message.panicked => None,
            Err(AskError::Failed) if message.fate == Fate::Dropped && self.cursed > 0 => None,
            Err(AskError::NotSent) if matches!(message.fate, Fate::Returned | Fate::Dropped) => {
                None
            }
            Err(AskError::MaybeExecuted) if waited_ns >= self.ask_timeout_ns => None,
            Err(error) => Some(format!(
                "ask {number} ended with {error:?} after {waited_ns} ns, but its message {:?}",
                message.fate
            )),
        }
    }
}

/// Looks into the book, or changes it.
pub(crate) fn book<R>(look: impl FnOnce(&mut Book) -> R) -> R {
    BOOK.with(|book| look(&mut book.borrow_mut()))
}

/// Begins a new book.
pub(crate) fn open(scenario: &Scenario) {
    book(|book| *book = Book::new(scenario));
}

/// Says that something is wrong.
pub(crate) fn note(oracle: &'static str, what: String) {
    book(|book| book.note(oracle, what));
}

/// The first finding of an oracle.
pub(crate) fn finding(oracle: &str) -> Option<String> {
    let find = |book: &mut Book| {
        book.findings.iter().find(|(of, _)| *of == oracle).map(|(_, what)| what.clone())
    };
    book(find)
}

/// Counts something that is shown in the table.
pub(crate) fn count(what: &'static str, times: u64) {
    book(|book| *book.tally.entry(what).or_default() += times);
}

pub(crate) fn tally() -> BTreeMap<&'static str, u64> {
    book(|book| book.tally.clone())
}

/// A random choice of an entity, during its turn.
pub(crate) fn draw<R>(choose: impl FnOnce(&mut Random, &Scenario) -> R) -> R {
    book(|book| choose(&mut book.entities, &book.scenario))
}

/// Whether a fault that happens `per_mille` times in a thousand happens now.
pub(crate) fn fault(per_mille: impl FnOnce(&Scenario) -> u64) -> bool {
    book(|book| {
        let per_mille = per_mille(&book.scenario) as u32;
        per_mille > 0 && book.faults.per_mille(per_mille)
    })
}

/// Messages that neither arrived nor came back nor were dropped.
pub(crate) fn under_way() -> u64 {
    book(|book| book.under_way)
}

/// Asks that have not ended.
pub(crate) fn asks_open() -> u64 {
    book(|book| book.asks_open)
}

pub(crate) fn entities_alive() -> u64 {
    book(|book| book.lives.values().sum())
}

/// The right reply to a message.
fn reply_to(message: usize) -> u64 {
    (message as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5bd1_e995
}

/// What every message carries: its number in the book, and a witness of its drop.
#[derive(Debug)]
pub(crate) struct Stamp {
    number: usize,
    settled: bool,
}

impl Stamp {
    /// For a message that is about to be sent.
    pub(crate) fn new(way: Way) -> Self {
        let number = book(|book| {
            book.messages.push(Sent { way, fate: Fate::UnderWay, panicked: false });
            book.under_way += 1;
            book.messages.len() - 1
        });
        Self { number, settled: false }
    }

    /// The reply that its asker expects.
    pub(crate) fn reply(&self) -> u64 {
        reply_to(self.number)
    }

    /// The message was refused and came back.
    pub(crate) fn take_back(mut self) {
        self.settle(Fate::Returned);
        count("messages refused at a bound", 1);
    }

    /// The message has its turn.
    pub(crate) fn arrive(&mut self, entity: u64) {
        self.settle(Fate::Arrived);
        let number = self.number;
        book(|book| {
            let way = book.messages[number].way;
            if way.1 != entity {
                let what = format!("message {number} for {} came to {entity}", way.1);
                return book.note(DELIVERY, what);
            }
            if let Some(last) = book.last.insert(way, number)
                && last > number
            {
                let (from, _) = way;
                let what = format!("message {number} from {from} to {entity} came after {last}");
                book.note(ORDER, what);
            }
        });
    }

    /// Its turn is about to panic.
    pub(crate) fn will_panic(&self) {
        book(|book| book.messages[self.number].panicked = true);
    }

    fn settle(&mut self, fate: Fate) {
        self.settled = true;
        let number = self.number;
        book(|book| {
            let was = std::mem::replace(&mut book.messages[number].fate, fate);
            if was == Fate::UnderWay {
                book.under_way -= 1;
                book.dropped += u64::from(fate == Fate::Dropped);
            } else {
                book.note(DELIVERY, format!("message {number} was {was:?}, then {fate:?}"));
            }
        });
    }
}

impl Drop for Stamp {
    fn drop(&mut self) {
        if !self.settled {
            self.settle(Fate::Dropped);
        }
    }
}

/// What whoever asks keeps until the answer comes.
#[derive(Debug)]
pub(crate) struct Asked {
    number: usize,
    ended: bool,
}

impl Asked {
    /// The ask of the message with this stamp.
    pub(crate) fn new(stamp: &Stamp) -> Self {
        let message = stamp.number;
        let number = book(|book| {
            book.asks.push(Ask { message, asked_ns: book.now_ns, outcome: None });
            book.asks_open += 1;
            book.asks.len() - 1
        });
        Self { number, ended: false }
    }

    /// The answer is there.
    pub(crate) fn end(mut self, outcome: Outcome) {
        self.ended = true;
        end(self.number, outcome);
    }

    /// The ask was refused.
    pub(crate) fn take_back(self) {
        self.end(Err(AskError::NotSent));
    }
}

fn end(number: usize, outcome: Outcome) {
    book(|book| {
        let ask = &book.asks[number];
        if let Some(before) = &ask.outcome {
            let what = format!("ask {number} ended with {before:?}, then with {outcome:?}");
            return book.note(ASKS, what);
        }
        if let Some(what) = book.objection(ask, number, &outcome) {
            book.note(ASKS, what);
        }
        book.asks[number].outcome = Some(outcome.clone());
        book.asks_open -= 1;
    });
    count(
        match outcome {
            Ok(_) => "asks answered",
            Err(AskError::NotSent) => "asks not sent",
            Err(AskError::Failed) => "asks failed",
            Err(_) => "asks expired",
        },
        1,
    );
}

impl Drop for Asked {
    fn drop(&mut self) {
        if !self.ended {
            let number = self.number;
            book(|book| {
                if book.asks[number].outcome.is_none() {
                    book.asks_open -= 1;
                    book.unclaimed += 1;
                }
            });
        }
    }
}

/// One life of an entity: there is at most one at a time.
#[derive(Debug)]
pub(crate) struct Life(u64);

impl Life {
    pub(crate) fn begin(entity: u64) -> Self {
        book(|book| {
            let lives = book.lives.entry(entity).or_default();
            *lives += 1;
            if *lives > 1 {
                book.note(LIVES, format!("entity {entity} lives twice at a time"));
            }
        });
        Self(entity)
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        let entity = self.0;
        book(|book| match book.lives.get_mut(&entity) {
            Some(lives) if *lives > 0 => *lives -= 1,
            _ => book.note(LIVES, format!("the state of entity {entity} was dropped twice")),
        });
    }
}

/// Money on its way, or in an account: it is somewhere, once, or was destroyed with its holder.
#[derive(Debug, Default)]
pub(crate) struct Coins(u64);

impl Coins {
    pub(crate) fn mint(amount: u64) -> Self {
        book(|book| book.minted += amount);
        Self(amount)
    }

    pub(crate) fn amount(&self) -> u64 {
        self.0
    }

    /// Takes up to `amount` out.
    pub(crate) fn take(&mut self, amount: u64) -> Self {
        let amount = amount.min(self.0);
        self.0 -= amount;
        Self(amount)
    }

    pub(crate) fn put(&mut self, mut other: Self) {
        self.0 += std::mem::take(&mut other.0);
    }
}

impl Drop for Coins {
    fn drop(&mut self) {
        let amount = self.0;
        if amount > 0 {
            book(|book| book.destroyed += amount);
        }
    }
}
