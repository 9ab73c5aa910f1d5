//! Order and delivery.

use coreside_shard::{Name, ShardConfig};

use crate::actor::{Act, Relay};
use crate::book::{book, check, close, under_way};
use crate::mesh::{Mesh, config};
use crate::random::Random;
use crate::shards::RING_WORDS_MIN;

/// Queues and outboxes of 4,096 words each, the least there is.
fn tight() -> ShardConfig {
    ShardConfig { queue_words_max: 4096, outbox_words_max: 4096, turns_per_poll: 5, ..config() }
}

#[test]
fn messages_from_one_sender_arrive_in_order_within_a_shard() {
    let mut mesh = Mesh::of_actors(1, &config(), 1);
    for round in 0..2_000 {
        mesh.tell::<u64>(0, round % 3, Act::Nothing).expect("room");
        if round % 100 == 0 {
            mesh.poll(0);
        }
    }
    mesh.settle();
    assert_eq!(book(|book| book.delivered), 2_000);
    drop(mesh);
    close("one shard");
}

#[test]
fn messages_from_one_sender_arrive_in_order_across_shards() {
    for seed in 1..=10 {
        let mut random = Random::new(seed);
        let mut mesh =
            Mesh::new(2 + (seed % 4) as u16, 1 << 12, &config(), &crate::actor::table(), seed);
        for _ in 0..2_000 {
            let from = random.below(mesh.shards.len() as u64) as usize;
            let to = random.below(5);
            match random.below(3) {
                0 => mesh.tell::<u64>(from, to, Act::Nothing),
                1 => mesh.tell_large::<u64>(from, to, Act::Nothing),
                _ => mesh.ask::<u64>(from, to, Act::Nothing),
            };
            if random.one_in(7) {
                let shard = random.below(mesh.shards.len() as u64) as usize;
                mesh.poll(shard);
            }
        }
        mesh.settle();
        assert_eq!(under_way(), 0, "seed {seed}");
        drop(mesh);
        close(&format!("seed {seed}"));
    }
}

#[test]
fn messages_that_wait_in_an_outbox_arrive_in_order() {
    for seed in 1..=5 {
        let mut mesh = Mesh::new(2, RING_WORDS_MIN, &tight(), &crate::actor::table(), seed);
        let (near, far) = (mesh.on::<u64>(0, 0), mesh.on::<u64>(1, 0));
        // A ring of 64 words holds about a dozen of these; the outbox holds the rest.
        let mut sent = 0;
        while mesh.tell::<u64>(0, far, Act::Nothing).is_some() {
            sent += 1;
        }
        assert!(sent > 300, "the outbox is used: {sent} messages found room");
        mesh.poll(0);
        for _ in 0..200 {
            mesh.ask_relay::<u64>(0, near, |stamp| Relay { tells: 3, ..Relay::new(stamp, far) });
            mesh.poll(0);
            mesh.poll(1);
            mesh.tell::<u64>(0, far, Act::Nothing);
        }
        mesh.settle();
        assert_eq!(under_way(), 0, "seed {seed}");
        check(&format!("seed {seed}"));
        assert!(book(|book| book.delivered) > sent);
        drop(mesh);
        close(&format!("seed {seed}"));
    }
}

#[test]
fn an_entitys_messages_arrive_in_order() {
    let mut mesh = Mesh::new(3, RING_WORDS_MIN, &tight(), &crate::actor::table(), 3);
    for round in 0..300 {
        for from in 0..3 {
            let relay = |stamp| Relay { tells: 5, ..Relay::new(stamp, (round + 1) % 4) };
            mesh.ask_relay::<Name>(from, round % 4, relay);
        }
        if round % 5 == 0 {
            mesh.poll(round as usize % 3);
        }
    }
    mesh.settle();
    assert_eq!(under_way(), 0);
    drop(mesh);
    close("entities");
}
