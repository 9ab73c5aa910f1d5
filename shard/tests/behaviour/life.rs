//! The end of a shard drops everything once, wherever it is.

use coreside_shard::{AskError, ShardConfig};

use crate::actor::{Act, Actor, Relay, Release};
use crate::book::{close, live, live_in_all};
use crate::mesh::{Mesh, config};
use crate::random::Random;
use crate::shards::RING_WORDS_MIN;

/// Two shards with work of every kind at every place: turns done and not done, full queues, rings
/// and outboxes, asks that wait.
fn busy(seed: u64) -> Mesh {
    let config = ShardConfig { turns_per_poll: 4, ..config() };
    let mut mesh = Mesh::new(2, RING_WORDS_MIN, &config, &crate::actor::table(), seed);
    let mut random = Random::new(seed);
    for _ in 0..400 {
        let (from, id) = (random.below(2) as usize, random.below(20));
        match random.below(6) {
            0 => mesh.tell::<u64>(from, id, Act::Nothing),
            1 => mesh.tell_large::<u128>(from, id, Act::Nothing),
            2 => mesh.ask::<u128>(from, id, Act::Nothing),
            3 => mesh.ask_large::<u64>(from, id, Act::Nothing),
            4 => mesh.ask_keep::<u64>(from, id),
            _ => mesh.ask_relay::<u64>(from, id, |stamp| Relay {
                tells: 1,
                ..Relay::new(stamp, (id + 1) % 20)
            }),
        };
        if random.one_in(3) {
            mesh.poll(random.below(2) as usize);
        }
    }
    mesh
}

/// Nothing is left in a ring that only its sender knows of.
fn publish(mesh: &mut Mesh) {
    mesh.poll(0);
    mesh.poll(1);
}

#[test]
fn shard_drop_drops_everything_once() {
    for seed in 1..=30 {
        let mut mesh = busy(seed);
        // What the second shard's poll published for the first is in its ring or outbox.
        publish(&mut mesh);
        assert!(live("message") > 0 && live("continuation") > 0 && live("state") > 0);
        drop(mesh);
        close(&format!("seed {seed}"));
    }
}

#[test]
fn shard_drop_after_the_end_of_asks_drops_everything_once() {
    for seed in 1..=10 {
        let mut mesh = busy(seed);
        publish(&mut mesh);
        for shard in &mut mesh.shards {
            shard.end_asks(AskError::MaybeExecuted, &mut ());
        }
        assert_eq!(live("continuation"), 0, "seed {seed}");
        publish(&mut mesh);
        drop(mesh);
        close(&format!("seed {seed}"));
    }
}

#[test]
fn shard_drop_drops_what_was_not_published() {
    for last in 0..2 {
        let mut mesh = Mesh::of_actors(2, &config(), 1);
        let far = mesh.on::<u64>(1, 0);
        mesh.tell::<u64>(0, far, Act::Nothing).expect("room");
        mesh.ask_large::<u64>(0, far, Act::Nothing).expect("room");
        drop(mesh.shards.remove(1 - last));
        drop(mesh);
        close("not published");
    }
}

#[test]
fn a_shard_whose_peer_is_gone_drops_what_it_sent() {
    let mut mesh = Mesh::of_actors(2, &config(), 1);
    let (near, far) = (mesh.on::<u64>(0, 0), mesh.on::<u64>(1, 0));
    drop(mesh.shards.remove(1));
    mesh.tell_large::<u64>(0, far, Act::Nothing).expect("room");
    mesh.ask_relay::<u64>(0, near, |stamp| Relay { tells: 9, ..Relay::new(stamp, far) });
    mesh.settle();
    drop(mesh);
    close("peer gone");
}

#[test]
fn a_shard_goes_on_when_its_peer_is_gone() {
    let mut mesh = Mesh::of_actors(2, &config(), 1);
    let near = mesh.on::<u64>(0, 0);
    let kept = mesh.ask_keep::<u64>(1, near).expect("room");
    mesh.settle();
    drop(mesh.shards.remove(1));
    assert_eq!(crate::book::outcome(kept), None, "dropped with its shard, it did not run");
    let number = mesh.ask::<u64>(0, near, Act::Nothing).expect("room");
    assert!(mesh.shards[0].tell::<Actor<u64>, _>(near, Release).is_ok());
    mesh.settle();
    assert_eq!(crate::book::outcome(number), Some(Ok(number)));
    drop(mesh);
    close("peer gone");
}

#[test]
fn a_shard_that_never_ran_drops_what_it_was_given() {
    let mut mesh = Mesh::of_actors(1, &config(), 1);
    mesh.tell::<u64>(0, 1, Act::Nothing).expect("room");
    mesh.ask_large::<u128>(0, 1, Act::Nothing).expect("room");
    assert!(live_in_all() > 0);
    drop(mesh);
    close("never ran");
}
