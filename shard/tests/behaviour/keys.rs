//! Keys of every kind, and states of odd sizes and alignments.

use coreside_shard::{
    Address, Cx, Entity, Handler, Message, Name, Registration, Registry, ShardConfig, Via,
};

use crate::actor::{Act, ActorKey};
use crate::book::{book, close, finish, outcome};
use crate::mesh::{Mesh, config};
use crate::shards::HASH;

fn every_key_has_an_entity_of_its_own<K: ActorKey>() {
    for shards in [1, 3] {
        let mut mesh = Mesh::of_actors(shards, &config(), 1);
        for round in 0..3 {
            for id in 0..500 {
                let number = mesh.ask::<K>(round % usize::from(shards), id, Act::Nothing);
                number.expect("room");
            }
            mesh.settle();
            assert_eq!(mesh.entities::<K>(), 500);
        }
        assert_eq!(book(|book| book.activations), 500);
        drop(mesh);
        close(K::NAME);
    }
}

#[test]
fn every_number_has_an_entity_of_its_own() {
    every_key_has_an_entity_of_its_own::<u64>();
}

#[test]
fn every_wide_key_has_an_entity_of_its_own() {
    every_key_has_an_entity_of_its_own::<u128>();
}

#[test]
fn every_name_has_an_entity_of_its_own() {
    every_key_has_an_entity_of_its_own::<Name>();
}

/// A state that wants a cache line of its own.
#[repr(align(64))]
struct Aligned(u64);

/// A state of an odd size.
struct Odd([u8; 7]);

/// A state without a byte.
struct Empty;

/// A state of more than a page.
struct Huge([u64; 1000]);

/// Adds a number to the state, and answers with the state's number and address.
struct Add(u64);

impl Message for Add {
    type Reply = (u64, usize);
}

trait State: 'static {
    const NAME: &'static str;
    fn new() -> Self;
    fn add(&mut self, number: u64) -> u64;
}

impl State for Aligned {
    const NAME: &'static str = "aligned";
    fn new() -> Self {
        Self(0)
    }
    fn add(&mut self, number: u64) -> u64 {
        self.0 += number;
        self.0
    }
}

impl State for Odd {
    const NAME: &'static str = "odd";
    fn new() -> Self {
        Self([0; 7])
    }
    fn add(&mut self, number: u64) -> u64 {
        self.0.iter_mut().for_each(|byte| *byte = byte.wrapping_add(number as u8));
        u64::from(self.0[6])
    }
}

impl State for Empty {
    const NAME: &'static str = "empty";
    fn new() -> Self {
        Self
    }
    fn add(&mut self, number: u64) -> u64 {
        number
    }
}

impl State for Huge {
    const NAME: &'static str = "huge";
    fn new() -> Self {
        Self([0; 1000])
    }
    fn add(&mut self, number: u64) -> u64 {
        self.0.iter_mut().for_each(|word| *word += number);
        self.0[999]
    }
}

struct Holder<S>(S);

impl<S: State> Entity for Holder<S> {
    type Key = u128;
    type Ref<V: Via> = Address<Self, V>;
    const NAME: &'static str = S::NAME;

    fn activate(_key: u128, _cx: &mut Cx<'_, Self>) -> Self {
        Self(S::new())
    }

    fn register(table: &mut Registration<'_, Self>) {
        table.message::<Add>("add");
    }
}

impl<S: State> Handler<Add> for Holder<S> {
    type Answer = (u64, usize);

    fn handle(&mut self, Add(number): Add, _cx: &mut Cx<'_, Self>) -> (u64, usize) {
        (self.0.add(number), (&raw const *self).addr())
    }
}

fn state_is_kept_and_aligned<S: State>(total: fn(key: u64, rounds: u64) -> u64) {
    let mut registry = Registry::new();
    registry.entity::<Holder<S>>();
    let table = registry.build().expect("one type");
    let config = ShardConfig { entities_max: 2_000, ..ShardConfig::new(HASH) };
    let mut mesh = Mesh::new(1, 1 << 12, &config, &table, 1);
    for round in 1..=3 {
        for key in 0..1_000u64 {
            let then = move |answer: Result<(u64, usize), _>,
                             _: &mut dyn coreside_shard::Outside| {
                let aligned = |(number, at): (u64, usize)| {
                    if at.is_multiple_of(align_of::<S>()) { number } else { u64::MAX }
                };
                finish(round * 1_000 + key, answer.map(aligned));
            };
            let wide = u128::from(key) << 60;
            let sent = mesh.shards[0].ask::<Holder<S>, _, _>(wide, Add(key), u64::MAX, then);
            assert!(sent.is_ok());
        }
        mesh.settle();
        for key in 0..1_000 {
            let expected = total(key, round);
            assert_eq!(outcome(round * 1_000 + key), Some(Ok(expected)), "{} {key}", S::NAME);
        }
    }
    drop(mesh);
    close(S::NAME);
}

#[test]
fn states_of_any_size_and_alignment_are_kept() {
    state_is_kept_and_aligned::<Aligned>(|key, rounds| key * rounds);
    state_is_kept_and_aligned::<Odd>(|key, rounds| (key * rounds) & 0xff);
    state_is_kept_and_aligned::<Empty>(|key, _| key);
    state_is_kept_and_aligned::<Huge>(|key, rounds| key * rounds);
}
