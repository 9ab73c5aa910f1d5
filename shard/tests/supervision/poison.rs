//! A message that makes its entity fail again and again is put aside.

use coreside_shard::{AskError, Reason, ShardConfig};

use crate::book::outcome;
use crate::diary::{Event, Id, Plan, count, faults, handled, made, plan};
use crate::subject::{Act, QUICK, RESTART, RESUME, STOP, Subject, Then, Try};
use crate::world::{World, config};

fn tried(id: Id) -> usize {
    count(|event| *event == Event::Tried(id))
}

#[test]
fn a_message_that_fails_once_is_tried_again_and_answered() {
    for shards in 1..=3 {
        for kind in [RESTART, RESUME] {
            let mut world = World::new(shards, 1);
            let id = world.on(kind, 1, 0);
            plan(id, Plan { failing_tries: 2, ..Plan::default() });
            let number = world.ask_try(id, 5_000);
            world.settle();
            let behind = world.ask(id, Act::Nothing);
            world.wait_ms(60);
            assert_eq!(outcome(number), Some(Ok(number)));
            assert_eq!(outcome(behind), Some(Ok(2)), "in its turn");
            assert_eq!((tried(id), world.stat(|stats| stats.faults)), (3, 2));
            assert_eq!(world.dead(Reason::Poison), 0);
            world.close();
        }
    }
}

#[test]
fn a_message_that_fails_three_times_is_put_aside_and_the_next_one_handled() {
    for shards in 1..=3 {
        for kind in [RESTART, RESUME] {
            let mut world = World::new(shards, 2);
            let (boss, id) = (world.on(RESTART, 0, 5), world.on(kind, 1, 0));
            world.told(boss, Act::Start(id));
            plan(id, Plan { failing_tries: 100, ..Plan::default() });
            let number = world.ask_try(id, 5_000);
            world.settle();
            let behind: Vec<_> = (0..3).map(|_| world.tell_from(0, id, Act::Nothing)).collect();
            world.wait_ms(100);
            assert_eq!(outcome(number), Some(Err(AskError::Failed)));
            assert_eq!((tried(id), faults(boss).len()), (3, 3));
            assert_eq!(world.dead(Reason::Poison), 1);
            assert_eq!(handled(id), behind);
            world.close();
        }
    }
}

#[test]
fn a_poisonous_message_is_kept_and_can_be_replayed() {
    let mut world = World::with(1, 3, &ShardConfig { dead_letters_max: 8, ..config() });
    let id = Id(RESTART, 1);
    plan(id, Plan { failing_tries: 3, ..Plan::default() });
    let number = world.ask_try(id, 5_000);
    world.wait_ms(100);
    let letter = world.shards[0].take_dead_letter(0).expect("one");
    assert_eq!((letter.reason(), letter.method(), letter.is_ask()), (Reason::Poison, "try", true));
    assert_eq!(crate::diary::id_of(letter.entity()), id);
    let message = letter.message::<Subject<RESTART>, Try>().expect("of this type");
    assert_eq!(message.0, number);
    world.shards[0].replay(letter, &mut ());
    assert_eq!(tried(id), 4);
    assert_eq!(world.stat(|stats| stats.faults), 3, "it does well now");
    world.close();
}

#[test]
fn a_replay_that_fails_begins_to_count_anew() {
    let mut world = World::with(1, 4, &ShardConfig { dead_letters_max: 8, ..config() });
    let id = Id(RESTART, 1);
    plan(id, Plan { failing_tries: 5, ..Plan::default() });
    world.ask_try(id, 5_000);
    world.wait_ms(100);
    let letter = world.shards[0].take_dead_letter(0).expect("one");
    world.shards[0].replay(letter, &mut ());
    world.wait_ms(400);
    assert_eq!(tried(id), 6);
    assert_eq!(world.shards[0].dead_letters().count(), 0);
    world.close();
}

#[test]
fn a_message_is_not_tried_again_after_its_deadline() {
    let mut world = World::new(1, 5);
    let id = Id(RESTART, 1);
    plan(id, Plan { failing_tries: 100, ..Plan::default() });
    let number = world.ask_try(id, 15);
    world.wait_ms(200);
    assert_eq!(tried(id), 2, "now, and after some ten milliseconds");
    // It had a turn, so it is not true that nothing was done.
    assert!(matches!(outcome(number), Some(Err(AskError::Failed | AskError::MaybeExecuted))));
    world.close();
}

#[test]
fn other_faults_between_do_not_count_against_a_message() {
    let mut world = World::new(1, 6);
    let id = Id(RESTART, 1);
    plan(id, Plan { failing_tries: 2, ..Plan::default() });
    let number = world.ask_try(id, 5_000);
    world.settle();
    (0..4).for_each(|_| {
        world.tell(id, Act::Panic);
    });
    world.wait_ms(2_000);
    assert_eq!(outcome(number), Some(Ok(number)));
    assert_eq!(made(id), 7);
    world.close();
}

#[test]
fn the_tries_of_one_message_do_not_count_against_another() {
    let mut world = World::new(1, 7);
    let (id, other) = (Id(RESUME, 1), Id(RESUME, 2));
    for _ in 0..10 {
        plan(id, Plan { failing_tries: 2, ..Plan::default() });
        let number = world.ask_try(id, 5_000);
        world.settle();
        plan(other, Plan { failing_tries: 2, ..Plan::default() });
        let next = world.ask_try(other, 5_000);
        world.settle();
        assert_eq!((outcome(number), outcome(next)), (Some(Ok(number)), Some(Ok(next))));
    }
    world.close();
}

#[test]
fn an_entity_that_a_fault_ends_is_not_tried_again() {
    for kind in [STOP, QUICK] {
        let mut world = World::new(1, 8);
        let id = Id(kind, 1);
        world.told(id, Act::Nothing);
        if kind == QUICK {
            (0..3).for_each(|_| {
                world.told(id, Act::Panic);
                world.wait_ms(60);
            });
        }
        plan(id, Plan { failing_tries: 1, ..Plan::default() });
        let number = world.ask_try(id, 5_000);
        world.wait_ms(200);
        assert_eq!(outcome(number), Some(Err(AskError::Failed)));
        assert_eq!((tried(id), world.entities(kind)), (1, 0));
        assert_eq!(world.dead(Reason::EntityFailed), 1, "and kept");
        world.close();
    }
}

#[test]
fn a_message_that_is_tried_once_is_not_tried_again() {
    let mut world = World::new(1, 9);
    let id = Id(RESTART, 1);
    let number = world.ask(id, Act::Panic);
    world.wait_ms(100);
    assert_eq!(outcome(number), Some(Err(AskError::Failed)));
    assert_eq!(handled(id), [number]);
    world.close();
}

#[test]
fn a_try_waits_before_all_others() {
    let mut world = World::new(1, 10);
    let id = Id(RESTART, 1);
    world.told(id, Act::Run(3, Then::Answer));
    plan(id, Plan { failing_tries: 2, ..Plan::default() });
    let number = world.ask_try(id, 5_000);
    world.settle();
    let asks: Vec<_> = (0..5).map(|_| world.ask_from(0, id, Act::Nothing)).collect();
    world.wait_ms(100);
    assert_eq!(outcome(number), Some(Ok(number)));
    for (nth, ask) in (2..).zip(asks) {
        assert_eq!(outcome(ask), Some(Ok(nth)), "behind the try, in order, of the same state");
    }
    world.close();
}
