//! An entity ends in good order, and nothing that waits is lost.

use coreside_shard::AskError;

use crate::book::{live, outcome};
use crate::diary::{Event, Goodbye, Id, Plan, count, handled, made, plan};
use crate::subject::{Act, KEPT, RESTART, Then};
use crate::world::World;

fn said_stop(id: Id) -> usize {
    count(|event| *event == Event::SaidStop(id))
}

#[test]
fn on_stop_is_the_last_turn() {
    for shards in 1..=3 {
        let mut world = World::new(shards, 1);
        let id = world.on(RESTART, 1, 0);
        assert_eq!(world.asked(id, Act::Stop), Some(Ok(1)), "the asker gets its answer");
        assert_eq!((said_stop(id), live("state"), world.attached()), (1, 0, 0));
        world.close();
    }
}

#[test]
fn there_is_no_goodbye_behind_a_fault() {
    let mut world = World::new(1, 2);
    let id = Id(crate::subject::STOP, 1);
    world.told(id, Act::Panic);
    world.told(id, Act::FailAndStop);
    assert_eq!(said_stop(id), 0);
    world.close();
}

#[test]
fn stop_entity_ends_another_one_behind_its_turn() {
    for shards in 1..=3 {
        let mut world = World::new(shards, 3);
        let (id, other) = (world.on(RESTART, 0, 0), world.on(RESTART, 1, 1));
        let slow = world.ask(other, Act::Run(5, Then::Answer));
        world.settle();
        world.told(id, Act::StopOther(other));
        world.told(id, Act::StopOther(other));
        assert_eq!(said_stop(other), 0, "it is having its turn");
        world.wait_ms(7);
        assert_eq!(outcome(slow), Some(Ok(1)));
        assert_eq!((said_stop(other), world.entities_in_all()), (1, 1));
        world.close();
    }
}

#[test]
fn stopping_what_is_not_there_does_nothing() {
    let mut world = World::new(2, 4);
    let (id, other) = (world.on(RESTART, 0, 0), world.on(RESTART, 1, 1));
    world.told(id, Act::StopOther(other));
    assert_eq!((made(other), world.entities_in_all()), (0, 1));
    world.close();
}

#[test]
fn a_goodbye_that_takes_time_is_waited_for() {
    for shards in 1..=3 {
        let mut world = World::new(shards, 5);
        let id = world.on(RESTART, 1, 0);
        plan(id, Plan { goodbye: Goodbye::Slow(5), ..Plan::default() });
        world.told(id, Act::Stop);
        let asks: Vec<_> = (0..10).map(|_| world.ask_from(0, id, Act::Nothing)).collect();
        world.wait_ms(4);
        assert_eq!((live("state"), made(id)), (1, 1));
        world.wait_ms(3);
        assert_eq!(count(|event| *event == Event::SaidAll(id)), 1);
        for (nth, number) in (1..).zip(asks) {
            assert_eq!(outcome(number), Some(Ok(nth)), "of the next life, in order");
        }
        assert_eq!(made(id), 2);
        world.close();
    }
}

#[test]
fn a_goodbye_that_fails_fails_the_turn_that_stopped_the_entity() {
    for (shards, goodbye) in [(1, Goodbye::Panic), (1, Goodbye::Fail), (2, Goodbye::Fail)] {
        let mut world = World::new(shards, 5);
        let id = world.on(RESTART, 1, 0);
        plan(id, Plan { goodbye, ..Plan::default() });
        let number = world.ask_from(0, id, Act::Stop);
        world.settle();
        assert_eq!(outcome(number), Some(Err(AskError::Failed)), "{goodbye:?}");
        assert_eq!(world.stat(|stats| stats.answers_late), 0, "{goodbye:?}: answered once");
        world.close();
    }
}

#[test]
fn what_waits_goes_to_the_next_life_in_order() {
    for seed in 1..=30 {
        let mut world = World::new(2, seed);
        let id = world.on(RESTART, 1, 0);
        plan(id, Plan { goodbye: Goodbye::Slow(3), ..Plan::default() });
        let mut expected = Vec::new();
        for _ in 0..10 {
            for nth in 0..10 {
                let stops = world.random.one_in(8);
                let slow = world.random.one_in(8);
                let act = match (stops, slow) {
                    (true, _) => Act::Stop,
                    (_, true) => Act::Run(2, Then::Answer),
                    _ => Act::Nothing,
                };
                expected.push(world.tell_from(0, id, act));
                if nth % 3 == 0 {
                    let shard = world.random.below(2) as usize;
                    world.poll(shard);
                }
            }
            world.wait_ms(1);
        }
        world.wait_ms(200);
        assert_eq!(handled(id), expected, "seed {seed}");
        world.close();
    }
}

#[test]
fn a_second_stop_during_the_goodbye_changes_nothing() {
    let mut world = World::new(1, 6);
    let (id, other) = (Id(RESTART, 1), Id(RESTART, 2));
    plan(id, Plan { goodbye: Goodbye::Slow(5), ..Plan::default() });
    world.told(id, Act::Stop);
    world.told(other, Act::StopOther(id));
    world.wait_ms(10);
    assert_eq!((said_stop(id), made(id), world.entities_in_all()), (1, 1, 1));
    world.close();
}

#[test]
fn a_restart_of_the_group_during_the_goodbye_changes_nothing() {
    let mut world = World::new(2, 7);
    let boss = world.on(crate::subject::ONE_FOR_ALL, 0, 0);
    let (one, other) = (world.on(RESTART, 1, 1), world.on(RESTART, 0, 1));
    world.told(boss, Act::Start(one));
    world.told(boss, Act::Start(other));
    plan(one, Plan { goodbye: Goodbye::Slow(5), ..Plan::default() });
    world.told(one, Act::Stop);
    world.told(other, Act::Panic);
    world.wait_ms(30);
    assert_eq!((made(one), made(other)), (1, 2), "who was leaving has left");
    assert_eq!(count(|event| *event == Event::SaidAll(one)), 1);
    world.close();
}

#[test]
fn an_entity_that_said_goodbye_once_says_it_again_in_its_next_life() {
    let mut world = World::new(1, 8);
    let (id, other) = (Id(RESTART, 1), Id(RESTART, 2));
    plan(id, Plan { goodbye: Goodbye::SlowPanic(2), ..Plan::default() });
    world.told(id, Act::Stop);
    world.wait_ms(5);
    plan(id, Plan::default());
    world.told(id, Act::Run(3, Then::Answer));
    world.told(other, Act::StopOther(id));
    world.wait_ms(5);
    assert_eq!(said_stop(id), 2);
    world.close();
}

#[test]
fn a_stop_ends_interleaved_turns_and_their_askers_are_told() {
    let mut world = World::new(2, 9);
    let id = world.on(RESTART, 1, 0);
    let slow = world.ask(id, Act::Interleave(500, Then::Answer));
    world.settle();
    world.told(id, Act::Stop);
    world.wait_ms(1);
    assert_eq!(outcome(slow), Some(Err(AskError::MaybeExecuted)));
    assert_eq!((live("future"), world.entities_in_all()), (0, 0));
    world.close();
}

#[test]
fn a_stop_while_the_entity_waits_for_its_restart_ends_it() {
    let mut world = World::new(2, 10);
    let (id, other) = (world.on(RESTART, 1, 0), world.on(RESTART, 0, 1));
    world.told(id, Act::Panic);
    world.told(other, Act::StopOther(id));
    world.wait_ms(30);
    assert_eq!((made(id), world.entities_in_all()), (1, 1));
    // With something that waits, the next life begins.
    world.told(id, Act::Panic);
    let waiting = world.ask(id, Act::Nothing);
    world.settle();
    world.told(other, Act::StopOther(id));
    world.wait_ms(1);
    assert_eq!(outcome(waiting), Some(Ok(1)));
    world.close();
}

#[test]
fn a_kept_entity_stops_when_told() {
    let mut world = World::new(1, 11);
    world.told(Id(KEPT, 1), Act::Stop);
    assert_eq!(world.entities(KEPT), 0);
    world.close();
}

#[test]
fn a_shard_that_ends_in_the_middle_of_everything_drops_all_of_it() {
    for seed in 1..=30 {
        let mut world = World::new(2, seed);
        for key in 0..20 {
            let id = Id(RESTART, key);
            plan(id, Plan { goodbye: Goodbye::Slow(5), ..Plan::default() });
            let acts = [
                Act::Run(5, Then::Answer),
                Act::Interleave(5, Then::Answer),
                Act::Ring(5),
                Act::Panic,
                Act::Stop,
                Act::Start(Id(RESTART, key + 50)),
                Act::Watch(Id(RESTART, key + 1)),
                Act::Ask(Id(RESTART, key + 2)),
            ];
            for _ in 0..5 {
                let act = acts[world.random.below(acts.len() as u64) as usize];
                world.ask(id, act);
            }
        }
        for _ in 0..world.random.below(30) {
            let shard = world.random.below(2) as usize;
            world.poll(shard);
        }
        world.poll(0);
        world.poll(1);
        drop(world);
        crate::diary::clear();
        crate::book::close(&format!("seed {seed}"));
    }
}
