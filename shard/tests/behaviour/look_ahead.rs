//! Looking ahead makes turns faster and changes nothing else.

use coreside_shard::{LookAhead, Name, ShardConfig};

use crate::actor::{Act, ActorKey, CURSED};
use crate::book::{Outcome, book, close, outcome, under_way};
use crate::mesh::{Mesh, config};
use crate::random::Random;

/// What a run of the same messages comes to.
#[derive(PartialEq, Eq)]
struct Run {
    outcomes: Vec<Outcome>,
    activations: u64,
    faults: u64,
    entities: usize,
}

/// Tells and asks with many stops and faults in long queues, so that most hints are stale.
fn run<K: ActorKey>(look_ahead: LookAhead, seed: u64) -> Run {
    let config = ShardConfig { look_ahead, entities_max: 3_000, turns_per_poll: 400, ..config() };
    let mut mesh = Mesh::of_actors(1, &config, seed);
    let mut random = Random::new(seed);
    let mut asks = vec![];
    let bounds = [2, 30, 2_000];
    let keys = bounds[(seed % 3) as usize];
    CURSED.set(Some(1));
    for _ in 0..20 {
        for _ in 0..300 {
            let act = match random.below(10) {
                0..=2 => Act::Stop,
                3 => Act::Panic,
                4 => Act::StopAndPanicInDrop,
                _ => Act::Nothing,
            };
            let id = random.below(keys);
            match random.below(3) {
                0 => drop(mesh.tell::<K>(0, id, act).expect("room")),
                1 => asks.push(mesh.ask::<K>(0, id, act).expect("room")),
                _ => asks.push(mesh.ask_large::<K>(0, id, act).expect("room")),
            }
        }
        mesh.settle();
    }
    assert_eq!(under_way(), 0);
    CURSED.set(None);
    let run = Run {
        outcomes: asks.iter().map(|number| outcome(*number).expect("ended")).collect(),
        activations: book(|book| book.activations),
        faults: mesh.faults(),
        entities: mesh.entities::<K>(),
    };
    drop(mesh);
    close(&format!("{look_ahead:?}, seed {seed}"));
    run
}

#[test]
fn looking_ahead_changes_no_result() {
    for seed in 1..=6 {
        let off = run::<u64>(LookAhead::Off, seed);
        assert!(off.faults > 300 && off.activations > 1_000, "seed {seed}");
        assert!(off == run::<u64>(LookAhead::On, seed), "seed {seed}: always on");
        let above = LookAhead::Above { bytes: 4096 };
        assert!(off == run::<u64>(above, seed), "seed {seed}: on above a line");
    }
}

#[test]
fn looking_ahead_changes_no_result_with_wide_keys() {
    for seed in 1..=3 {
        let off = run::<u128>(LookAhead::Off, seed);
        assert!(off == run::<u128>(LookAhead::On, seed), "seed {seed}: 128 bits");
        let off = run::<Name>(LookAhead::Off, seed);
        assert!(off == run::<Name>(LookAhead::On, seed), "seed {seed}: names");
    }
}

#[test]
fn stale_hints_are_harmless() {
    let config = ShardConfig { look_ahead: LookAhead::On, ..config() };
    let mut mesh = Mesh::of_actors(1, &config, 1);
    mesh.tell::<u64>(0, 1, Act::Nothing).expect("room");
    mesh.settle();
    // All of them are looked at while entity 1 is in its slot. The first one frees it, the second
    // takes it, the third must not find itself there.
    let numbers = [
        mesh.ask::<u64>(0, 1, Act::Stop),
        mesh.ask::<u64>(0, 2, Act::Nothing),
        mesh.ask::<u64>(0, 1, Act::Nothing),
        mesh.ask::<u64>(0, 2, Act::Stop),
        mesh.ask::<u64>(0, 1, Act::Stop),
        mesh.ask::<u64>(0, 2, Act::Nothing),
    ];
    mesh.settle();
    for number in numbers {
        let number = number.expect("room");
        assert_eq!(outcome(number), Some(Ok(number)));
    }
    assert_eq!(book(|book| book.activations), 4);
    assert_eq!(mesh.entities::<u64>(), 1);
    drop(mesh);
    close("stale hints");
}
