//! The book that a run keeps of everything that is sent, asked and made: what is under way, what
//! arrived, what was dropped. One per thread, and each run has a thread to itself.
//!
//! A handler must not assert, because the shard would contain the panic. It notes what is wrong
//! here under the name of an oracle, which finds it after the step.

mod coins;

use std::cell::RefCell;
use std::collections::BTreeMap;

use coreside::AskError;
use coreside::sim::Random;

pub(crate) use coins::Coins;

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
    /// Open asks whose answer was given, or that have failed: they end without waiting.
    pub(crate) owed: u64,
    next_life: u64,
    /// The deadline of the turn, which its asks inherit.
    turn_deadline_ns: u64,
    /// Continuations that were dropped and did not run.
    pub(crate) unclaimed: u64,
    /// Async turns ask, which may be cancelled: no continuation stands for their answers.
    pub(crate) has_async_asks: bool,
    /// Messages that were dropped before their turn.
    pub(crate) dropped: u64,
    /// Activations that panicked.
    pub(crate) cursed: u64,
    /// Entities that live, by their number.
    lives: BTreeMap<u64, u64>,
    /// Entities of the runtime's own that there may be: those behind topics keep no book.
    pub(crate) unbooked_max: u64,
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
    /// The open ask that it belongs to.
    ask: Option<usize>,
    /// The answer to its ask is on the way.
    owed: bool,
    /// When its ask ends at the latest.
    deadline_ns: u64,
    /// Its asker was told that it never will have its turn.
    condemned: bool,
}

impl Sent {
    fn new(way: Way) -> Self {
        let fate = Fate::UnderWay;
        let deadline_ns = u64::MAX;
        Self { way, fate, panicked: false, ask: None, owed: false, deadline_ns, condemned: false }
    }
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
    deadline_ns: u64,
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
            owed: 0,
            next_life: 0,
            turn_deadline_ns: u64::MAX,
            unclaimed: 0,
            has_async_asks: false,
            dropped: 0,
            cursed: 0,
            lives: BTreeMap::new(),
            unbooked_max: 0,
            minted: 0,
            destroyed: 0,
            findings: Vec::new(),
            tally: BTreeMap::new(),
            entities: Random::stream(scenario.seed, "entities"),
            faults: Random::stream(scenario.seed, "faults of entities"),
            scenario: scenario.clone(),
        }
    }

    pub(crate) fn shards(&self) -> u64 {
        self.scenario.shards
    }

    fn note(&mut self, oracle: &'static str, what: String) {
        // One finding is enough to fail; a run that has gone wrong may make millions.
        if self.findings.len() < 16 {
            self.findings.push((oracle, what));
        }
    }

    /// The answer to a message is on its way: its ask needs nothing more to end.
    fn owe(&mut self, message: usize) {
        let message = &mut self.messages[message];
        if message.ask.is_some() && !message.owed {
            message.owed = true;
            self.owed += 1;
        }
    }

    /// An ask is over.
    fn close_ask(&mut self, number: usize) {
        self.asks_open -= 1;
        let message = &mut self.messages[self.asks[number].message];
        message.ask = None;
        self.owed -= u64::from(std::mem::take(&mut message.owed));
    }

    /// Why `outcome` cannot be that of this ask; `None` when it can.
    fn objection(&self, ask: &Ask, number: usize, outcome: &Outcome) -> Option<String> {
        let message = &self.messages[ask.message];
        let is_late = self.now_ns >= ask.deadline_ns;
        // It lies among the dead letters, or is gone.
        let is_dead = message.fate != Fate::Arrived;
        let is_right = match outcome {
            Ok(reply) => *reply == reply_to(ask.message),
            Err(AskError::Failed) => {
                // Its entity was ended by faults of others.
                message.panicked || (is_dead && (self.cursed > 0 || self.scenario.panics > 0))
            }
            Err(AskError::NotSent) => is_dead,
            Err(AskError::Expired) => is_dead && is_late,
            Err(AskError::MaybeExecuted) => is_late,
            Err(_) => false,
        };
        let (now_ns, fate) = (self.now_ns, message.fate);
        (!is_right).then(|| {
            let deadline_ns = ask.deadline_ns;
            format!(
                "ask {number} ended with {outcome:?} at {now_ns} ns, its deadline {deadline_ns} \
                 ns, its message {fate:?}"
            )
        })
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
    let of = |(of, _): &&(&str, String)| *of == oracle;
    book(|book| book.findings.iter().find(of).map(|(_, what)| what.clone()))
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
        book(|book| {
            book.messages.push(Sent::new(way));
            book.under_way += 1;
            Self { number: book.messages.len() - 1, settled: false }
        })
    }

    /// The reply that its asker expects, given now.
    pub(crate) fn reply(&self) -> u64 {
        self.promise().reply()
    }

    /// The reply that its asker expects, given later.
    pub(crate) fn promise(&self) -> Promise {
        Promise(self.number)
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
            book.turn_deadline_ns = book.messages[number].deadline_ns;
            if book.messages[number].condemned {
                let what = format!("message {number} came after its asker was told the opposite");
                book.note(DELIVERY, what);
            }
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
        self.may_fail();
        book(|book| book.owe(self.number));
    }

    /// Its turn ends where it is.
    pub(crate) fn may_fail(&self) {
        book(|book| book.messages[self.number].panicked = true);
    }

    fn settle(&mut self, fate: Fate) {
        self.settled = true;
        let number = self.number;
        book(|book| {
            let was = std::mem::replace(&mut book.messages[number].fate, fate);
            if was == Fate::UnderWay {
                book.under_way -= 1;
                if fate == Fate::Dropped {
                    book.dropped += 1;
                    book.owe(number);
                }
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

/// A reply that is to be given.
#[derive(Debug)]
pub(crate) struct Promise(usize);

impl Promise {
    /// The reply, given now.
    pub(crate) fn reply(self) -> u64 {
        book(|book| book.owe(self.0));
        reply_to(self.0)
    }
}

/// What whoever asks keeps until the answer comes.
#[derive(Debug)]
pub(crate) struct Asked {
    number: usize,
    ended: bool,
    /// The life of the entity that asks.
    life: Option<u64>,
}

impl Asked {
    /// The ask of the message with this stamp, from outside of entities.
    pub(crate) fn new(stamp: &Stamp) -> Self {
        let deadline_ns = book(|book| book.now_ns + book.ask_timeout_ns);
        Self::until(deadline_ns, stamp, None)
    }

    /// The ask of an entity, in a turn during this life of it.
    pub(crate) fn by(life: &Life, stamp: &Stamp) -> Self {
        let deadline_ns = book(|book| match book.turn_deadline_ns {
            u64::MAX => book.now_ns + book.ask_timeout_ns,
            inherited_ns => inherited_ns,
        });
        // The lowest bit of an inherited deadline is used otherwise.
        Self::until(deadline_ns - 1, stamp, Some(life.number))
    }

    fn until(deadline_ns: u64, stamp: &Stamp, life: Option<u64>) -> Self {
        let message = stamp.number;
        let number = book(|book| {
            book.asks.push(Ask { message, deadline_ns, outcome: None });
            book.asks_open += 1;
            let number = book.asks.len() - 1;
            book.messages[message].ask = Some(number);
            book.messages[message].deadline_ns = deadline_ns;
            number
        });
        Self { number, ended: false, life }
    }

    /// The answer is there, for an entity in this life of it.
    pub(crate) fn end_in(self, life: &Life, outcome: Outcome) {
        if self.life != Some(life.number) {
            note(ASKS, format!("ask {} of life {:?} ended in {life:?}", self.number, self.life));
        }
        self.end(outcome);
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
        let is_refusal = matches!(outcome, Err(AskError::NotSent | AskError::Expired));
        let message = book.asks[number].message;
        book.messages[message].condemned = is_refusal;
        book.asks[number].outcome = Some(outcome.clone());
        book.close_ask(number);
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
                    book.close_ask(number);
                    book.unclaimed += 1;
                }
            });
        }
    }
}

/// One life of an entity: there is at most one at a time.
#[derive(Debug)]
pub(crate) struct Life {
    entity: u64,
    number: u64,
}

impl Life {
    pub(crate) fn begin(entity: u64) -> Self {
        let number = book(|book| {
            let lives = book.lives.entry(entity).or_default();
            *lives += 1;
            if *lives > 1 {
                book.note(LIVES, format!("entity {entity} lives twice at a time"));
            }
            book.next_life += 1;
            book.next_life
        });
        Self { entity, number }
    }
}

impl Life {
    /// Tells it from all others.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        let entity = self.entity;
        book(|book| match book.lives.get_mut(&entity) {
            Some(lives) if *lives > 0 => *lives -= 1,
            _ => book.note(LIVES, format!("the state of entity {entity} was dropped twice")),
        });
    }
}
