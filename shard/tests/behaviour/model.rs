//! Everything at once, from a seed, against a model of what may come of it.

use std::collections::BTreeMap;

use coreside_shard::{AskError, LookAhead, Name, ShardConfig};

use crate::actor::{Act, Actor, ActorKey, CURSED, Relay, Release};
use crate::book::{Outcome, book, check, close, live, outcome, under_way};
use crate::mesh::{Mesh, config};
use crate::random::Random;
use crate::shards::RING_WORDS_MIN;

/// What may come of an ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    /// Its number, or `Failed` where it is cursed.
    Echo,
    Failed,
    /// Its number if it was released in time, else the deadline; nothing at all of a fault.
    Kept,
    /// The number of the nested ask, or that one's error, or the deadline.
    Relayed,
}

struct Run {
    mesh: Mesh,
    random: Random,
    seed: u64,
    keys: u64,
    asks: BTreeMap<u64, Expected>,
    refused: u64,
    sent: u64,
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let shards = 1 + random.below(5) as u16;
        let look_ahead =
            [LookAhead::Off, LookAhead::On, LookAhead::Above { bytes: 8192 }][seed as usize % 3];
        let config = ShardConfig {
            queue_words_max: 4096 << random.below(2),
            outbox_words_max: 4096,
            turns_per_poll: 1 + random.below(60) as u32,
            asks_max: 1 + random.below(3_000) as u32,
            entities_max: 1 + random.below(60) as usize,
            look_ahead,
            ..config()
        };
        let ring_words = RING_WORDS_MIN << random.below(4);
        let mesh = Mesh::new(shards, ring_words, &config, &crate::actor::table(), seed);
        let keys = 1 + random.below(80);
        Self { mesh, random, seed, keys, asks: BTreeMap::new(), refused: 0, sent: 0 }
    }

    fn act(&mut self) -> Act {
        match self.random.below(40) {
            0 => Act::Panic,
            1 => Act::PanicTwice,
            2..=4 => Act::Stop,
            5 => Act::StopAndPanicInDrop,
            _ => Act::Nothing,
        }
    }

    fn send<K: ActorKey>(&mut self) {
        let (from, id) = (self.shard(), self.random.below(self.keys));
        let act = self.act();
        let panics = matches!(act, Act::Panic | Act::PanicTwice);
        let expected = if panics { Expected::Failed } else { Expected::Echo };
        let (sent, expected) = match self.random.below(8) {
            0 | 1 => (self.mesh.tell::<K>(from, id, act), None),
            2 => (self.mesh.tell_large::<K>(from, id, act), None),
            3 => (self.mesh.ask::<K>(from, id, act), Some(expected)),
            4 => (self.mesh.ask_large::<K>(from, id, act), Some(expected)),
            5 => (self.mesh.ask_keep::<K>(from, id), Some(Expected::Kept)),
            6 => {
                let told = self.mesh.shards[from].tell::<Actor<K>, _>(K::of(id), Release);
                (told.is_ok().then_some(0), None)
            }
            _ => {
                let (then, tells) = (self.act(), self.random.below(4) as u8);
                let (to, stop) = (self.random.below(self.keys), self.random.one_in(10));
                let relay = move |stamp| Relay { act, then, tells, stop, ..Relay::new(stamp, to) };
                (self.mesh.ask_relay::<K>(from, id, relay), Some(Expected::Relayed))
            }
        };
        match (sent, expected) {
            (None, _) => self.refused += 1,
            (Some(number), Some(expected)) => {
                self.asks.insert(number, expected);
            }
            (Some(_), None) => {}
        }
        self.sent += u64::from(sent.is_some());
    }

    fn shard(&mut self) -> usize {
        self.random.below(self.mesh.shards.len() as u64) as usize
    }

    fn step(&mut self) {
        match self.random.below(30) {
            0..=9 => self.send::<u64>(),
            10..=14 => self.send::<u128>(),
            15..=17 => self.send::<Name>(),
            18 => (0..100).for_each(|_| self.send::<u64>()),
            19 if self.random.one_in(100) => {
                let cursed = self.random.below(2 * self.keys);
                CURSED.set(Some(cursed));
            }
            19 if self.random.one_in(20) => self.mesh.now.monotonic_ns += 400_000_000,
            _ => {
                let shard = self.shard();
                self.mesh.poll(shard);
            }
        }
    }

    fn finish(mut self) {
        let context = format!("seed {}", self.seed);
        self.mesh.settle();
        self.mesh.wait(2_000_000_000);
        assert_eq!(under_way(), 0, "{context}: messages are lost");
        assert_eq!(self.mesh.asks_waiting(), 0, "{context}: asks wait for ever");
        assert_eq!(live("message"), 0, "{context}");
        assert_eq!(live("continuation"), 0, "{context}");
        for (number, expected) in &self.asks {
            let outcome = outcome(*number);
            assert!(
                is_allowed(*number, *expected, outcome.clone()),
                "{context}: ask {number}, {expected:?}, ended with {outcome:?}"
            );
        }
        let states = self.mesh.shards.iter().map(|shard| shard.entities_in_all()).sum::<usize>();
        assert_eq!(live("state"), states, "{context}");
        check(&context);
        CURSED.set(None);
        drop(self.mesh);
        close(&context);
    }
}

fn is_allowed(number: u64, expected: Expected, outcome: Option<Outcome>) -> bool {
    use AskError::{Failed, MaybeExecuted, NotSent};
    match (expected, outcome) {
        (_, None) => false,
        // A full store, a cursed activation, and a deadline come to everybody.
        (_, Some(Err(Failed | MaybeExecuted | NotSent))) => true,
        (Expected::Echo | Expected::Kept, Some(Ok(reply))) => reply == number,
        (Expected::Failed, Some(Ok(_))) => false,
        (Expected::Relayed, Some(Ok(reply))) => reply > number,
        (_, Some(Err(_))) => false,
    }
}

#[test]
fn nothing_is_lost_or_doubled() {
    for seed in 1..=60 {
        let mut run = Run::new(seed);
        for _ in 0..1_500 {
            run.step();
        }
        run.finish();
    }
}

#[test]
fn nothing_is_lost_at_the_end_of_a_run_that_is_cut() {
    for seed in 100..=130 {
        let mut run = Run::new(seed);
        for _ in 0..500 {
            run.step();
        }
        // Published, so that whoever goes first finds it.
        (0..run.mesh.shards.len()).for_each(|shard| run.mesh.poll(shard));
        CURSED.set(None);
        assert!(run.sent > 0 && book(|book| book.delivered) > 0, "seed {seed}: {}", run.refused);
        drop(run.mesh);
        close(&format!("seed {seed}"));
    }
}
