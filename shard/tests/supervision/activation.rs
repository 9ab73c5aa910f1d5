//! The first message activates an entity, now or in the course of time.

use coreside_shard::{AskError, End, Reason};

use crate::book::{live, outcome};
use crate::diary::{Event, Id, Make, Plan, count, faults, handled, made, plan, terminations};
use crate::subject::{Act, QUICK, RESTART, STASH_MAX, STOP};
use crate::world::World;

fn planned(id: Id, make: Make, makes: u32) {
    plan(id, Plan { make, makes, ..Plan::default() });
}

#[test]
fn the_first_message_activates_and_is_handled() {
    for shards in 1..=3 {
        for make in [Make::Plain, Make::AtOnce, Make::Slow(3), Make::Run, Make::Quiet] {
            let mut world = World::new(shards, 1);
            let id = world.on(RESTART, 1, 0);
            planned(id, make, 1);
            let asks: Vec<_> = (0..10).map(|_| world.ask_from(0, id, Act::Nothing)).collect();
            world.wait_ms(5);
            for (nth, number) in (1..).zip(asks) {
                assert_eq!(outcome(number), Some(Ok(nth)), "{make:?}");
            }
            assert_eq!(made(id), 1, "{make:?}");
            world.close();
        }
    }
}

#[test]
fn messages_that_arrive_during_an_activation_wait_in_order() {
    for seed in 1..=30 {
        let mut world = World::new(2, seed);
        let id = world.on(RESTART, 1, 0);
        planned(id, Make::Slow(5), 1);
        let mut expected = Vec::new();
        for _ in 0..8 {
            for _ in 0..5 {
                expected.push(world.tell_from(0, id, Act::Nothing));
                let shard = world.random.below(2) as usize;
                world.poll(shard);
            }
            world.now.monotonic_ns += 1_000_000;
        }
        world.wait_ms(5);
        assert_eq!(handled(id), expected, "seed {seed}");
        world.close();
    }
}

#[test]
fn what_arrives_beyond_the_stash_during_an_activation_is_a_dead_letter() {
    let mut world = World::new(1, 2);
    let id = Id(QUICK, 1);
    planned(id, Make::Slow(5), 1);
    let asks: Vec<_> = (0..12).map(|_| world.ask_from(0, id, Act::Nothing)).collect();
    world.wait_ms(7);
    let told = asks.iter().filter(|ask| outcome(**ask) == Some(Err(AskError::NotSent))).count();
    assert_eq!((told, handled(id).len()), (4, STASH_MAX as usize));
    assert_eq!(world.dead(Reason::StashFull), 4);
    world.close();
}

#[test]
fn a_failed_activation_is_tried_again_with_backoff() {
    for shards in 1..=3 {
        for make in [Make::Panic, Make::Fail, Make::PanicAtOnce, Make::SlowPanic(1), Make::RunPanic]
        {
            let mut world = World::new(shards, 3);
            let id = world.on(QUICK, 1, 0);
            planned(id, make, 2);
            let first = world.ask_from(0, id, Act::Nothing);
            world.settle();
            let second = world.ask_from(0, id, Act::Nothing);
            world.wait_ms(50);
            assert!(
                matches!(outcome(first), Some(Ok(_) | Err(AskError::Failed))),
                "{make:?}: {:?}",
                outcome(first)
            );
            assert!(matches!(outcome(second), Some(Ok(_))), "{make:?}: it waited");
            assert_eq!(world.stat(|stats| stats.faults), 2, "{make:?}");
            let handled = handled(id).len() as u64;
            let dead = world.dead(Reason::ActivationFailed);
            assert_eq!(handled + dead, 2, "{make:?}: each handled, or counted");
            world.close();
        }
    }
}

#[test]
fn an_activation_that_fails_too_often_ends_and_tells_those_who_wait() {
    for make in [Make::Panic, Make::Fail, Make::PanicAtOnce, Make::SlowPanic(1), Make::RunPanic] {
        let mut world = World::new(2, 4);
        let id = world.on(QUICK, 1, 0);
        planned(id, make, 100);
        let asks: Vec<_> = (0..5).map(|_| world.ask_from(0, id, Act::Nothing)).collect();
        world.wait_ms(200);
        for number in asks {
            assert_eq!(outcome(number), Some(Err(AskError::Failed)), "{make:?}");
        }
        assert_eq!((world.entities_in_all(), world.attached()), (0, 0), "{make:?}");
        assert_eq!(world.stat(|stats| stats.faults), 4, "{make:?}");
        let dead = world.dead(Reason::EntityFailed) + world.dead(Reason::ActivationFailed);
        assert_eq!(dead, 5, "{make:?}: all are counted");
        world.close();
    }
}

#[test]
fn an_activation_that_fails_ends_an_entity_that_is_not_restarted() {
    for make in [Make::Panic, Make::Fail, Make::PanicAtOnce, Make::SlowPanic(1), Make::RunPanic] {
        let mut world = World::new(1, 5);
        let id = Id(STOP, 1);
        planned(id, make, 1);
        let number = world.ask(id, Act::Nothing);
        world.wait_ms(3);
        assert_eq!(outcome(number), Some(Err(AskError::Failed)), "{make:?}");
        assert_eq!((world.entities_in_all(), world.attached()), (0, 0), "{make:?}");
        assert_eq!(world.asked(id, Act::Nothing), Some(Ok(1)), "{make:?}");
        world.close();
    }
}

#[test]
fn an_activation_may_stop_the_entity_behind_its_first_message() {
    let mut world = World::new(2, 6);
    let id = world.on(RESTART, 1, 0);
    planned(id, Make::Stop, 100);
    let asks: Vec<_> = (0..3).map(|_| world.ask_from(0, id, Act::Nothing)).collect();
    world.settle();
    assert!(asks.iter().all(|number| outcome(*number) == Some(Ok(1))));
    assert_eq!((made(id), world.entities_in_all()), (3, 0));
    assert_eq!(count(|event| *event == Event::SaidStop(id)), 3);
    world.close();
}

#[test]
fn a_watch_during_an_activation_is_of_that_life() {
    for (make, end) in [(Make::Slow(5), None), (Make::SlowPanic(5), Some(End::Failed))] {
        let mut world = World::new(2, 7);
        let (watcher, id) = (world.on(RESTART, 0, 0), world.on(STOP, 1, 0));
        planned(id, make, 1);
        world.told(id, Act::Nothing);
        world.told(watcher, Act::Watch(id));
        assert_eq!(terminations(watcher), [], "it is on its way");
        world.wait_ms(10);
        assert_eq!(terminations(watcher).first().map(|told| told.1), end);
        world.close();
    }
}

#[test]
fn a_stop_during_an_activation_gives_what_waits_to_the_next_one() {
    let mut world = World::new(2, 8);
    let (other, id) = (world.on(RESTART, 0, 0), world.on(RESTART, 1, 0));
    planned(id, Make::Slow(50), 1);
    let number = world.ask(id, Act::Nothing);
    world.settle();
    world.told(other, Act::StopOther(id));
    assert_eq!(live("future"), 0);
    world.wait_ms(2);
    assert_eq!(outcome(number), Some(Ok(1)));
    assert_eq!(made(id), 1);
    world.close();
}

#[test]
fn a_started_entity_is_activated_without_a_message() {
    for make in [Make::Plain, Make::AtOnce, Make::Slow(3), Make::Quiet, Make::Run] {
        let mut world = World::new(2, 9);
        let (boss, id) = (world.on(RESTART, 0, 0), world.on(RESTART, 1, 0));
        planned(id, make, 1);
        world.told(boss, Act::Start(id));
        world.wait_ms(5);
        assert_eq!(made(id), 1, "{make:?}");
        assert_eq!(world.asked(id, Act::Nothing), Some(Ok(1)), "{make:?}");
        world.close();
    }
}

#[test]
fn a_fault_of_an_activation_names_no_message() {
    for make in [Make::Panic, Make::Fail, Make::PanicAtOnce, Make::SlowPanic(1), Make::RunPanic] {
        let mut world = World::new(2, 10);
        let (boss, id) = (world.on(RESTART, 0, 0), world.on(RESTART, 1, 0));
        planned(id, make, 1);
        world.told(boss, Act::Start(id));
        world.wait_ms(20);
        let messages: Vec<_> = faults(boss).into_iter().map(|fault| fault.message).collect();
        assert_eq!(messages, [""], "{make:?}");
        world.close();
    }
}
