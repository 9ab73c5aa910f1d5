//! Groups: topics, pools, and instances that always run. Who has subscribed hears each message
//! once, and all hear them in one order; a call of a pool is one turn, on the caller's shard;
//! nobody who is always to run stays away. In one half of the seeds subscribers stay.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use coreside::sim::{Sim, SimBuilder, SimError};
use coreside::{AskError, Cx, Full, Message, Single, entity, handlers};

use crate::suite::book::{Asked, Life, Stamp, book, count, draw, note};
use crate::suite::oracles::Noted;
use crate::suite::workload::{Kind, Load, OUTSIDE, Workload, begin, may_fail, settle};

pub(crate) const KIND: Kind = Kind {
    name: "groups",
    about: "topics, pools, workers",
    shape: |scenario| {
        scenario.keys = scenario.keys.min(16);
        scenario.steps = scenario.steps.min(800);
        scenario.batch = scenario.batch.min(8);
        scenario.entities_max = 1024;
    },
    make: || {
        LOG.take();
        Box::new(Groups { keys: 0 })
    },
};

const WORD: &str = "groups";

const TOPICS: [&str; 2] = ["news", "gossip"];

/// Where the numbers of each type begin; guards begin at 0.
const CHAIR: u64 = 100;
const READER: u64 = 1000;
const PRESS: u64 = 2000;
const CLERK: u64 = 3000;

/// Calls of the pool have no order: each is by somebody else.
const CALLS: u64 = 1 << 40;

const GUARDS: u64 = 5;

#[derive(Default)]
struct Log {
    is_steady: bool,
    /// Nobody fails any more.
    is_over: bool,
    /// Of news and calls of the pool, together.
    last_number: u64,
    /// Who has subscribed where, in this life.
    listening: BTreeSet<(u64, usize)>,
    /// What each of them heard there.
    heard: BTreeMap<(u64, usize), Vec<News>>,
    /// Who called which member of the pool.
    calls: BTreeSet<(u64, u64)>,
    /// Who is always to run, and does.
    present: BTreeSet<u64>,
}

thread_local! {
    static LOG: RefCell<Log> = RefCell::default();
}

fn log<R>(look: impl FnOnce(&mut Log) -> R) -> R {
    LOG.with_borrow_mut(look)
}

fn next_number() -> u64 {
    log(|log| {
        log.last_number += 1;
        log.last_number
    })
}

/// What is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct News {
    number: u64,
    press: u64,
    topic: usize,
}

impl Message for News {
    type Reply = ();
}

impl News {
    fn new(press: u64, topic: usize) -> Self {
        Self { number: next_number(), press, topic }
    }
}

struct Groups {
    keys: u64,
}

impl Workload for Groups {
    fn register(&self, builder: SimBuilder) -> SimBuilder {
        book(|book| book.unbooked_max = TOPICS.len() as u64 * (1 + book.shards()));
        let builder = builder.topic::<News>().entity::<Reader>().entity::<Press>();
        let builder = builder.pool::<Clerk>(2).workers::<Guard>(GUARDS as u32);
        builder.singleton::<Chair>().oracle(Noted(WORD))
    }

    fn load(&mut self, load: &mut Load<'_>) {
        if self.keys == 0 {
            self.keys = load.scenario.keys;
            log(|log| log.is_steady = load.scenario.seed.is_multiple_of(2));
            if load.sim.stats().steps == 0 && book(|book| book.cursed) == 0 {
                all_are_present("at the start");
            }
        }
        for _ in 0..load.batch() {
            let (key, act) = (load.key(), load.random.below(16));
            match load.random.below(8) {
                0..2 => {
                    let make = move |stamp| ReaderListen { stamp, act };
                    load.tell::<Reader, _>(READER + key, make, |message| message.stamp);
                }
                2..5 => {
                    let make = move |stamp| PressPrint { stamp, act };
                    load.tell::<Press, _>(PRESS + key, make, |message| message.stamp);
                }
                5 => from_outside(load),
                _ => {
                    let make = move |stamp| GuardKeep { stamp };
                    load.ask::<Guard, _>(key % GUARDS, make, |message| message.stamp);
                }
            }
        }
    }

    fn end(&mut self, sim: &mut Sim) -> Result<(), SimError> {
        settle(sim)?;
        log(|log| log.is_over = true);
        all_are_present("at the end");
        let handle = sim.handle();
        for (press, clerk) in log(|log| log.calls.clone()) {
            if handle.home::<Press>(press) != handle.home::<Clerk>(clerk) {
                note(WORD, format!("{press} was sent to {clerk} of the pool of another shard"));
            }
        }
        let is_exact = sim.count(|stats| stats.copies_refused) == 0;
        count("runs in which everybody hears all", is_exact.into());
        (0..TOPICS.len()).for_each(|topic| all_hear_one_order(topic, is_exact));
        self.everybody_hears(sim)?;
        sim.run_until_idle(1).map(|_| ())
    }
}

impl Groups {
    /// Now that nothing is in the way, all subscribe and each hears each message once.
    fn everybody_hears(&self, sim: &mut Sim) -> Result<(), SimError> {
        for key in READER..READER + self.keys {
            let _ = sim.entity::<Reader>(key).listen_to_all().try_tell();
            settle(sim)?;
        }
        for (topic, name) in TOPICS.iter().enumerate() {
            let before: Vec<_> = self.heard(topic).collect();
            let news = News::new(0, topic);
            let told = sim.handle().topic::<News>(name).publish(news).ask();
            settle(sim)?;
            let told = told.take();
            if told != Some(Ok(self.keys)) {
                note(WORD, format!("{} subscribed to {name}, told were {told:?}", self.keys));
            }
            for (before, (key, times)) in before.into_iter().zip(self.heard(topic)) {
                if times != before.1 + 1 {
                    note(WORD, format!("{key} heard {} times of one message", times - before.1));
                }
            }
        }
        Ok(())
    }

    /// How much each subscriber heard.
    fn heard(&self, topic: usize) -> impl Iterator<Item = (u64, usize)> {
        let heard = move |key| (key, log(|log| log.heard.get(&(key, topic)).map_or(0, Vec::len)));
        (READER..READER + self.keys).map(heard)
    }
}

/// Calls of a pool and of the only instance of a type, which need no key.
fn from_outside(load: &mut Load<'_>) {
    let handle = load.sim.handle();
    if load.random.one_in(2) {
        let (stamp, press) = (new_call(), None);
        let sent = handle.pool::<Clerk>().copy(stamp, press).try_tell();
        sent.err().into_iter().for_each(|Full(copy)| copy.stamp.take_back());
    } else {
        let sent = handle.singleton::<Chair>().keep(Stamp::new((OUTSIDE, CHAIR))).try_tell();
        sent.err().into_iter().for_each(|Full(keep)| keep.stamp.take_back());
    }
}

fn new_call() -> Stamp {
    Stamp::new((CALLS + next_number(), CLERK))
}

fn all_are_present(when: &str) {
    let expected: BTreeSet<u64> = (0..GUARDS).chain([CHAIR]).collect();
    let present = log(|log| log.present.clone());
    if present != expected {
        note(WORD, format!("{when} there are {present:?} of those that always run"));
    }
}

/// What two subscribers heard, both heard in the same order. Where nobody missed a copy, who
/// subscribed later and stayed heard the end of what the first one heard.
fn all_hear_one_order(topic: usize, is_exact: bool) {
    let (is_steady, heard) = log(|log| (log.is_steady, log.heard.clone()));
    let all: Vec<_> = heard.iter().filter(|((_, of), _)| *of == topic).collect();
    let Some((first, longest)) = all.iter().max_by_key(|(_, heard)| heard.len()) else { return };
    for (other, heard) in &all {
        if is_steady && is_exact && !longest.ends_with(heard) {
            note(WORD, format!("{other:?} does not hear what {first:?} hears"));
        }
        for (own, heard_too) in &all {
            let places = heard
                .iter()
                .filter_map(|news| heard_too.iter().position(|other| other.number == news.number));
            if !places.is_sorted() {
                note(WORD, format!("{other:?} and {own:?} hear in two orders"));
            }
        }
    }
}

/// Fails, but in a steady run, or when all is over.
fn may_go(stamp: &Stamp, cx: &mut Cx<'_, Reader>) {
    if log(|log| !log.is_steady && !log.is_over) {
        may_fail(stamp, cx);
    }
}

/// Subscribes.
#[entity(activate = Reader::begin, backoff = "1ms..4ms", faults = "1000000 in 1m", stash = 100000)]
struct Reader {
    number: u64,
    _life: Life,
}

impl Drop for Reader {
    fn drop(&mut self) {
        log(|log| {
            (0..TOPICS.len()).for_each(|topic| _ = log.listening.remove(&(self.number, topic)))
        });
    }
}

#[handlers]
impl Reader {
    fn begin(key: u64, _cx: &mut Cx<Self>) -> Self {
        Self { number: key, _life: Life::begin(key) }
    }

    #[local]
    fn listen(&mut self, mut stamp: Stamp, act: u64, cx: &mut Cx<Self>) {
        stamp.arrive(self.number);
        let topic = (act % 2) as usize;
        let is_steady = log(|log| log.is_steady);
        if act < 12 || is_steady {
            self.subscribe(topic, cx);
        } else {
            let _ = cx.topic::<News>(TOPICS[topic]).unsubscribe().try_tell();
        }
        may_go(&stamp, cx);
    }

    /// In a steady run once: a subscription on its way again is counted until it arrives.
    #[skip]
    fn subscribe(&mut self, topic: usize, cx: &mut Cx<Self>) {
        let own = (self.number, topic);
        let is_new = log(|log| log.listening.insert(own) || !log.is_steady);
        if is_new && cx.topic::<News>(TOPICS[topic]).subscribe().try_tell().is_err() {
            log(|log| log.listening.remove(&own));
        }
    }

    fn listen_to_all(&mut self, cx: &mut Cx<Self>) {
        (0..TOPICS.len()).for_each(|topic| self.subscribe(topic, cx));
    }

    #[on]
    fn news(&mut self, news: News, cx: &mut Cx<Self>) {
        count("news heard", 1);
        let own = self.number;
        log(|log| {
            let heard = log.heard.entry((own, news.topic)).or_default();
            let before = heard.iter().rev().find(|before| before.press == news.press);
            if let Some(before) = before.filter(|before| before.number >= news.number) {
                note(WORD, format!("{own} heard {news:?} behind {before:?}"));
            }
            heard.push(news);
        });
        if log(|log| !log.is_steady && !log.is_over) && draw(|random, _| random.one_in(32)) {
            cx.fail("told to");
        }
    }
}

/// Publishes, and has copies made.
#[entity(activate = Press::begin)]
struct Press {
    number: u64,
    life: Life,
}

#[handlers]
impl Press {
    fn begin(key: u64, _cx: &mut Cx<Self>) -> Self {
        Self { number: key, life: Life::begin(key) }
    }

    #[local]
    fn print(&mut self, mut stamp: Stamp, act: u64, cx: &mut Cx<Self>) {
        stamp.arrive(self.number);
        for _ in 0..act % 4 {
            let topic = (self.number % 2) as usize;
            let news = News::new(self.number, topic);
            let told = cx.topic::<News>(TOPICS[topic]).publish(news).try_tell();
            count("news published", told.is_ok().into());
        }
        if act < 8 {
            let (call, press) = (new_call(), Some(self.number));
            let asked = Asked::by(&self.life, &call);
            let then = move |press: &mut Self, answer: Result<u64, AskError>, _: &mut Cx<_>| {
                asked.end_in(&press.life, answer);
            };
            if let Err(refused) = cx.pool::<Clerk>().copy(call, press).ask(then) {
                refused.message.stamp.take_back();
                (refused.then)(self, Err(AskError::NotSent), cx);
            }
        }
        may_fail(&stamp, cx);
    }
}

/// One of a pool.
#[entity(activate = Clerk::begin)]
struct Clerk {
    number: u64,
    _life: Life,
}

#[handlers]
impl Clerk {
    fn begin(key: u64, _cx: &mut Cx<Self>) -> Self {
        Self { number: key, _life: Life::begin(CLERK + key) }
    }

    #[local]
    fn copy(&mut self, mut stamp: Stamp, press: Option<u64>, cx: &mut Cx<Self>) -> u64 {
        stamp.arrive(CLERK);
        let own = self.number;
        log(|log| log.calls.extend(press.map(|press| (press, own))));
        may_fail(&stamp, cx);
        stamp.reply()
    }
}

/// Somebody who is always to run, runs.
struct Present {
    number: u64,
    _life: Life,
}

impl Present {
    fn begin(number: u64) -> Self {
        let life = begin(number);
        log(|log| log.present.insert(number));
        Self { number, _life: life }
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        log(|log| log.present.remove(&self.number));
    }
}

/// One of those that always run.
#[entity(activate = Guard::begin)]
struct Guard {
    present: Present,
}

#[handlers]
impl Guard {
    fn begin(key: u64, _cx: &mut Cx<Self>) -> Self {
        Self { present: Present::begin(key) }
    }

    #[local]
    fn keep(&mut self, mut stamp: Stamp, cx: &mut Cx<Self>) -> u64 {
        stamp.arrive(self.present.number);
        may_fail(&stamp, cx);
        stamp.reply()
    }
}

/// The only one.
#[entity(key = Single, activate = Chair::begin)]
struct Chair {
    present: Present,
}

#[handlers]
impl Chair {
    fn begin(_key: Single, _cx: &mut Cx<Self>) -> Self {
        Self { present: Present::begin(CHAIR) }
    }

    #[local]
    fn keep(&mut self, mut stamp: Stamp, cx: &mut Cx<Self>) {
        stamp.arrive(self.present.number);
        may_fail(&stamp, cx);
    }
}
