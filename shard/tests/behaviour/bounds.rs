//! Bounds: what is full says so, gives the message back, and goes on when there is room again.

use coreside_shard::{AskError, ShardConfig};

use crate::actor::{Act, Relay, error_of};
use crate::book::{book, close, live, outcome, under_way};
use crate::mesh::{Mesh, config};
use crate::shards::RING_WORDS_MIN;

#[test]
fn full_queue_returns_the_message() {
    let config = ShardConfig { queue_words_max: 4096, ..config() };
    let mut mesh = Mesh::of_actors(1, &config, 1);
    let mut sent = 0;
    while mesh.tell::<u64>(0, 1, Act::Nothing).is_some() {
        sent += 1;
    }
    assert!(sent > 500, "{sent}");
    assert_eq!(live("message"), sent, "the refused one came back and is gone");
    assert!(mesh.tell_large::<u64>(0, 1, Act::Nothing).is_some(), "a pointer still fits");
    while mesh.tell_large::<u64>(0, 1, Act::Nothing).is_some() {}
    assert!(mesh.ask::<u64>(0, 1, Act::Nothing).is_none());
    assert!(mesh.ask_large::<u64>(0, 1, Act::Nothing).is_none());
    assert_eq!(live("continuation"), 0, "what was to get the answer is dropped");
    assert_eq!(mesh.asks_waiting(), 0);
    mesh.settle();
    assert_eq!(under_way(), 0);
    assert!(mesh.tell::<u64>(0, 1, Act::Nothing).is_some(), "there is room again");
    drop(mesh);
    close("full queue");
}

#[test]
fn full_outbox_returns_the_message() {
    let config = ShardConfig { outbox_words_max: 4096, ..config() };
    let mut mesh = Mesh::new(2, RING_WORDS_MIN, &config, &crate::actor::table(), 1);
    let far = mesh.on::<u64>(1, 0);
    let mut sent = 0;
    while mesh.tell::<u64>(0, far, Act::Nothing).is_some() {
        sent += 1;
    }
    assert_eq!(live("message"), sent);
    assert!(mesh.shards[0].is_congested());
    mesh.settle();
    assert_eq!(book(|book| book.delivered), sent as u64);
    assert!(!mesh.shards[0].is_congested());
    drop(mesh);
    close("full outbox");
}

#[test]
fn too_many_asks_are_refused() {
    let config = ShardConfig { asks_max: 3, ..config() };
    let mut mesh = Mesh::of_actors(2, &config, 1);
    for id in 0..3 {
        assert!(mesh.ask_keep::<u64>(0, id).is_some());
    }
    assert!(mesh.ask::<u64>(0, 9, Act::Nothing).is_none());
    mesh.settle();
    assert_eq!(mesh.asks_waiting(), 3);
    mesh.wait(2_000_000_000);
    assert_eq!(mesh.asks_waiting(), 0);
    let number = mesh.ask::<u64>(0, 9, Act::Nothing).expect("room again");
    mesh.settle();
    assert_eq!(outcome(number), Some(Ok(number)));
    drop(mesh);
    close("too many asks");
}

#[test]
fn a_handlers_ask_that_is_refused_comes_back_with_its_continuation() {
    let config = ShardConfig { asks_max: 1, ..config() };
    let mut mesh = Mesh::of_actors(1, &config, 1);
    // The one place is taken by the ask from outside, so the entity finds none.
    let number = mesh.ask_relay::<u64>(0, 1, |stamp| Relay::new(stamp, 2)).expect("room");
    mesh.settle();
    assert_eq!(outcome(number), Some(Ok(error_of(AskError::NotSent))));
    assert_eq!(mesh.entities::<u64>(), 1);
    drop(mesh);
    close("refused ask of a handler");
}

#[test]
fn full_store_refuses_the_message_and_says_so() {
    let config = ShardConfig { entities_max: 10, ..config() };
    let mut mesh = Mesh::of_actors(1, &config, 1);
    for id in 0..10 {
        mesh.tell::<u128>(0, id, Act::Nothing).expect("room");
    }
    mesh.settle();
    let asked = mesh.ask::<u128>(0, 10, Act::Nothing).expect("room in the queue");
    let asked_large = mesh.ask_large::<u128>(0, 11, Act::Nothing).expect("room in the queue");
    mesh.tell::<u128>(0, 12, Act::Nothing).expect("room in the queue");
    mesh.settle();
    assert_eq!(outcome(asked), Some(Err(AskError::NotSent)));
    assert_eq!(outcome(asked_large), Some(Err(AskError::NotSent)));
    assert_eq!(mesh.count(|stats| stats.refused), 3);
    assert_eq!(book(|book| book.lost.len()), 3, "counted, and dropped once each");
    // One goes, and there is room for one.
    mesh.tell::<u128>(0, 3, Act::Stop).expect("room in the queue");
    let asked = mesh.ask::<u128>(0, 10, Act::Nothing).expect("room in the queue");
    mesh.settle();
    assert_eq!(outcome(asked), Some(Ok(asked)));
    drop(mesh);
    close("full store");
}

#[test]
fn two_full_shards_do_not_deadlock() {
    for seed in 1..=5 {
        let config = ShardConfig {
            queue_words_max: 4096,
            outbox_words_max: 4096,
            turns_per_poll: 3,
            ..config()
        };
        let mut mesh = Mesh::new(2, RING_WORDS_MIN, &config, &crate::actor::table(), seed);
        let homes = [mesh.on::<u64>(0, 0), mesh.on::<u64>(1, 0)];
        // Both queues, both rings and both outboxes full, of messages that each send eleven more
        // to the other side.
        for _ in 0..3 {
            for from in 0..2 {
                let relay = |stamp| Relay { tells: 5, ..Relay::new(stamp, homes[1 - from]) };
                while mesh.ask_relay::<u64>(from, homes[from], relay).is_some() {}
                while mesh.tell::<u64>(from, homes[1 - from], Act::Nothing).is_some() {}
                mesh.poll(from);
            }
        }
        mesh.settle();
        assert_eq!(under_way(), 0, "seed {seed}");
        assert_eq!(mesh.asks_waiting(), 0, "seed {seed}");
        drop(mesh);
        close(&format!("seed {seed}"));
    }
}

#[test]
fn bounds_below_one_record_still_let_records_through() {
    let config = ShardConfig { queue_words_max: 1, outbox_words_max: 1, ..config() };
    let mut mesh = Mesh::new(2, RING_WORDS_MIN, &config, &crate::actor::table(), 1);
    let far = mesh.on::<u64>(1, 0);
    let number = mesh.ask::<u64>(0, far, Act::Nothing).expect("room");
    mesh.settle();
    assert_eq!(outcome(number), Some(Ok(number)));
    drop(mesh);
    close("least bounds");
}
