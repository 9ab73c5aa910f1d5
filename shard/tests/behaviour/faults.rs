//! A panic drops the entity whose turn it was, and nothing else.

use coreside_shard::{AskError, Outside};

use crate::actor::{Act, Actor, CURSED, Echo, Keep, Relay};
use crate::book::{Stamp, book, close, live, outcome};
use crate::mesh::{Mesh, config};

/// Actors on two shards, of which number `id` is about to be told something bad.
fn crowd() -> (Mesh, u64) {
    let mut mesh = Mesh::of_actors(2, &config(), 1);
    for id in 0..50 {
        mesh.tell::<u64>(0, id, Act::Nothing).expect("room");
    }
    mesh.settle();
    assert_eq!(live("state"), 50);
    (mesh, 25)
}

/// All others live, and this one lives again after its next message.
fn only_one_is_gone(mut mesh: Mesh, id: u64) {
    assert_eq!(live("state"), 49, "only one is gone");
    assert_eq!(mesh.entities::<u64>(), 49);
    assert_eq!(live("message"), 0);
    assert_eq!(book(|book| book.activations), 50);
    for id in 0..50 {
        mesh.tell::<u64>(1, id, Act::Nothing).expect("room");
    }
    let number = mesh.ask::<u64>(0, id, Act::Nothing).expect("room");
    mesh.settle();
    assert_eq!(outcome(number), Some(Ok(number)));
    assert_eq!(book(|book| book.activations), 51, "that one was activated anew, no other");
    assert_eq!(live("state"), 50);
    drop(mesh);
    close("fault");
}

#[test]
fn a_panic_in_a_handler_drops_that_entity_and_nothing_else() {
    for large in [false, true] {
        let (mut mesh, id) = crowd();
        let number = match large {
            true => mesh.ask_large::<u64>(0, id, Act::Panic),
            false => mesh.ask::<u64>(0, id, Act::Panic),
        };
        mesh.settle();
        assert_eq!(outcome(number.expect("room")), Some(Err(AskError::Failed)));
        assert_eq!(mesh.faults(), 1);
        only_one_is_gone(mesh, id);
    }
}

#[test]
fn a_panic_in_a_told_handler_drops_that_entity_and_nothing_else() {
    let (mut mesh, id) = crowd();
    mesh.tell::<u64>(0, id, Act::Panic).expect("room");
    mesh.settle();
    assert_eq!(mesh.faults(), 1);
    only_one_is_gone(mesh, id);
}

#[test]
fn messages_behind_a_panic_wait_for_the_next_life() {
    let (mut mesh, id) = crowd();
    let asks: Vec<_> = (0..20)
        .map(|i| {
            let act = if i % 2 == 0 { Act::Panic } else { Act::Nothing };
            mesh.ask::<u64>(0, id, act).expect("room")
        })
        .collect();
    mesh.settle();
    for (i, number) in asks.into_iter().enumerate() {
        let expected = if i % 2 == 0 { Err(AskError::Failed) } else { Ok(number) };
        assert_eq!(outcome(number), Some(expected));
    }
    assert_eq!(mesh.faults(), 10);
    drop(mesh);
    close("faults in a row");
}

#[test]
fn a_panic_in_an_activation_leaves_no_entity() {
    for id in [7, 8] {
        let mut mesh = Mesh::of_actors(2, &config(), 1);
        CURSED.set(Some(id));
        let asked = mesh.ask::<u64>(0, id, Act::Nothing).expect("room");
        let wide = mesh.ask_large::<u128>(1, id, Act::Nothing).expect("room");
        mesh.tell::<u64>(0, id, Act::Nothing).expect("room");
        let other = mesh.ask::<u64>(0, id + 2, Act::Nothing).expect("room");
        mesh.settle();
        assert_eq!(outcome(asked), Some(Err(AskError::Failed)));
        assert_eq!(outcome(wide), Some(Err(AskError::Failed)));
        assert_eq!(outcome(other), Some(Ok(other)));
        assert_eq!(mesh.faults(), 3);
        assert_eq!((mesh.entities::<u64>(), live("state")), (1, 1));
        assert_eq!(book(|book| book.lost.len()), 3, "three messages were dropped, once each");
        CURSED.set(None);
        let again = mesh.ask::<u64>(0, id, Act::Nothing).expect("room");
        mesh.settle();
        assert_eq!(outcome(again), Some(Ok(again)));
        drop(mesh);
        close("activation");
    }
}

#[test]
fn a_panic_in_a_continuation_drops_the_asking_entity_and_nothing_else() {
    for home in 0..2 {
        let (mut mesh, id) = crowd();
        let other = (0..50).find(|other| mesh.home(*other) == home && *other != id);
        let relay =
            |stamp| Relay { then: Act::Panic, ..Relay::new(stamp, other.expect("enough keys")) };
        let number = mesh.ask_relay::<u64>(0, id, relay).expect("room");
        mesh.settle();
        assert!(matches!(outcome(number), Some(Ok(_))), "it had answered before its panic");
        assert_eq!(live("continuation"), 0);
        assert_eq!(mesh.faults(), 1);
        only_one_is_gone(mesh, id);
    }
}

#[test]
fn a_panic_outside_of_entities_disturbs_none() {
    let (mut mesh, id) = crowd();
    for home in 0..2 {
        let id = (0..50).find(|id| mesh.home(*id) == home).expect("enough keys");
        let stamp = Stamp::new((0, 1_000_000 + id));
        let then = |_: Result<u64, AskError>, _: &mut dyn Outside| panic!("told to, outside");
        let echo = Echo { stamp, act: Act::Nothing };
        assert!(mesh.shards[0].ask::<Actor<u64>, _, _>(id, echo, u64::MAX, then).is_ok());
        mesh.settle();
    }
    // At its deadline too.
    let keep = Keep(Stamp::new((0, 1_000_000 + id)));
    let then = |_: Result<u64, AskError>, _: &mut dyn Outside| panic!("told to, at the end");
    assert!(mesh.shards[0].ask::<Actor<u64>, _, _>(id, keep, 0, then).is_ok());
    mesh.settle();
    mesh.wait(1_000_000_000);
    assert_eq!(mesh.faults(), 3);
    assert_eq!((live("state"), mesh.asks_waiting()), (50, 0));
    drop(mesh);
    close("outside");
}

#[test]
fn a_panic_outside_of_entities_does_not_undo_a_stop() {
    let mut mesh = Mesh::of_actors(1, &config(), 1);
    let echo = Echo { stamp: Stamp::new((0, 1_000_001)), act: Act::Stop };
    let then = |_: Result<u64, AskError>, _: &mut dyn Outside| panic!("told to, outside");
    assert!(mesh.shards[0].ask::<Actor<u64>, _, _>(1, echo, u64::MAX, then).is_ok());
    mesh.settle();
    assert_eq!((mesh.entities::<u64>(), live("state")), (0, 0));
    drop(mesh);
    close("stop");
}

#[test]
fn a_fault_of_many_leaves_the_others_in_order() {
    let mut mesh = Mesh::of_actors(3, &config(), 5);
    let mut expected = vec![];
    for round in 0..3_000u64 {
        let act = if round % 17 == 0 { Act::Panic } else { Act::Nothing };
        let number = mesh.ask::<u64>(round as usize % 3, round % 100, act).expect("room");
        expected.push((number, act));
        if round % 64 == 0 {
            mesh.settle();
        }
    }
    mesh.settle();
    for (number, act) in expected {
        let expected = if act == Act::Panic { Err(AskError::Failed) } else { Ok(number) };
        assert_eq!(outcome(number), Some(expected));
    }
    assert_eq!(mesh.faults(), 3_000_u64.div_ceil(17));
    drop(mesh);
    close("many faults");
}
