//! A fault costs an entity its state and nothing else.

use coreside_shard::{AskError, Backoff, Reason};

use crate::book::{live, outcome};
use crate::diary::{Event, Id, Make, Plan, handled, made, plan, timed};
use crate::subject::{Act, JITTERY, KEPT, QUICK, RESTART, STASH_MAX, Then};
use crate::world::{MS, World};

const SHARDS: std::ops::RangeInclusive<u16> = 1..=3;

/// When the states of an entity were made, in milliseconds since the clock began.
fn made_at_ms(id: Id) -> Vec<f64> {
    let made = timed().into_iter().filter(|(_, event)| *event == Event::Made(id));
    made.map(|(at_ns, _)| at_ns as f64 / MS as f64).collect()
}

#[test]
fn waiting_messages_stay_in_order_across_a_restart() {
    for shards in SHARDS {
        let mut world = World::new(shards, 1);
        let id = world.on(RESTART, 1, 0);
        world.told(id, Act::Nothing);
        let mut expected = handled(id);
        expected.push(world.tell_from(0, id, Act::Panic));
        expected.extend((0..20).map(|_| world.tell_from(0, id, Act::Nothing)));
        world.settle();
        expected.extend((0..20).map(|_| world.tell_from(0, id, Act::Nothing)));
        world.settle();
        assert_eq!(handled(id).len(), 2, "nothing has its turn before the restart");
        // Some while it drains.
        world.now.monotonic_ns += 20 * MS;
        for _ in 0..30 {
            expected.push(world.tell_from(0, id, Act::Nothing));
            (0..world.shards.len()).for_each(|shard| {
                world.poll(shard);
            });
        }
        world.settle();
        assert_eq!(handled(id), expected);
        assert_eq!(made(id), 2);
        world.close();
    }
}

#[test]
fn the_asker_is_told_failed_and_those_who_wait_get_their_replies() {
    for (shards, act) in SHARDS.zip([Act::Panic, Act::Fail, Act::PanicTwice]) {
        let mut world = World::new(shards, 2);
        let id = world.on(RESTART, 1, 0);
        let failed = world.ask_from(0, id, act);
        let waiting: Vec<_> = (0..5).map(|_| world.ask_from(0, id, Act::Nothing)).collect();
        world.settle();
        assert_eq!(outcome(failed), Some(Err(AskError::Failed)));
        world.wait_ms(15);
        for (nth, number) in (1..).zip(waiting) {
            assert_eq!(outcome(number), Some(Ok(nth)), "of a new state");
        }
        world.close();
    }
}

#[test]
fn a_turn_that_fails_by_an_error_is_a_fault_as_a_panic_is() {
    let mut world = World::new(2, 3);
    let id = world.on(RESTART, 1, 0);
    world.told(id, Act::Fail);
    world.wait_ms(15);
    world.told(id, Act::Panic);
    assert_eq!(world.stat(|stats| stats.faults), 2);
    assert_eq!(world.stat(|stats| stats.restarts), 2);
    let faults: Vec<_> = world.shards.iter_mut().flat_map(|shard| shard.take_faults()).collect();
    assert_eq!(faults.len(), 2);
    assert!(faults.iter().all(|fault| fault.reason == "told to, in a turn"));
    assert!(faults.iter().all(|fault| fault.message == "do"));
    assert_eq!((faults[0].count, faults[1].count), (1, 2));
    world.close();
}

#[test]
fn the_state_of_others_is_untouched() {
    for shards in SHARDS {
        let mut world = World::new(shards, 4);
        let others: Vec<_> = (0..30).map(|key| Id(RESTART, key)).collect();
        others.iter().for_each(|id| {
            world.tell(*id, Act::Nothing);
        });
        world.settle();
        for act in [Act::Panic, Act::PanicTwice, Act::Fail, Act::Run(1, Then::Panic)] {
            world.told(others[7], act);
            world.wait_ms(100);
        }
        for id in others.iter().filter(|id| **id != others[7]) {
            assert_eq!(world.asked(*id, Act::Nothing), Some(Ok(2)), "the second message");
            assert_eq!(made(*id), 1);
        }
        assert_eq!(made(others[7]), 5);
        assert_eq!(live("state"), 30);
        world.close();
    }
}

#[test]
fn each_wait_is_twice_the_last_up_to_its_bound() {
    let mut world = World::new(1, 5);
    let id = Id(QUICK, 1);
    world.told(id, Act::Nothing);
    for expected in [10.0, 20.0, 40.0] {
        let failed_at = world.now.monotonic_ns as f64 / MS as f64;
        world.told(id, Act::Panic);
        world.wait_ms(60);
        let waited = made_at_ms(id).last().expect("made") - failed_at;
        assert!((expected..=expected + 1.0).contains(&waited), "{waited} ms for {expected}");
    }
    world.close();
}

#[test]
fn each_wait_lies_within_its_jitter_and_not_all_are_the_same() {
    let mut waits = Vec::new();
    for seed in 1..=40 {
        let mut world = World::new(1, seed);
        let id = Id(JITTERY, 1);
        world.told(id, Act::Nothing);
        for doubled in 0..6 {
            let failed_at = world.now.monotonic_ns as f64 / MS as f64;
            world.told(id, Act::Panic);
            world.wait_ms(400);
            let waited = made_at_ms(id).last().expect("made") - failed_at;
            let expected = f64::from(10 << doubled);
            // The wheel's resolution is a millisecond.
            assert!(waited >= expected * 0.8 && waited <= expected * 1.2 + 1.0, "seed {seed}");
            waits.push((waited / expected * 100.0) as u64);
        }
        world.close();
    }
    waits.sort_unstable();
    waits.dedup();
    assert!(waits.len() > 20, "{waits:?}");
}

#[test]
fn the_longest_wait_is_that_of_the_backoff() {
    let mut world = World::new(1, 6);
    let id = Id(JITTERY, 1);
    world.told(id, Act::Nothing);
    for _ in 0..12 {
        world.told(id, Act::Panic);
        world.now.monotonic_ns += 12_000 * MS;
        world.settle();
    }
    let failed_at = world.now.monotonic_ns as f64 / MS as f64;
    world.told(id, Act::Panic);
    assert_eq!(Backoff::DEFAULT.most.as_secs(), 10);
    world.now.monotonic_ns += 7_999 * MS;
    world.settle();
    assert_eq!(made(id), 13, "not yet");
    world.wait_ms(4_002);
    let waited = made_at_ms(id).last().expect("made") - failed_at;
    assert!((8_000.0..=12_001.0).contains(&waited), "{waited}");
    world.close();
}

#[test]
fn the_wait_begins_anew_after_a_time_without_faults() {
    let mut world = World::new(1, 7);
    let id = Id(QUICK, 1);
    world.told(id, Act::Panic);
    world.wait_ms(100);
    world.told(id, Act::Panic);
    world.wait_ms(1_000);
    let failed_at = world.now.monotonic_ns as f64 / MS as f64;
    world.told(id, Act::Panic);
    world.wait_ms(30);
    let waited = made_at_ms(id).last().expect("made") - failed_at;
    assert!((10.0..=11.0).contains(&waited), "{waited}");
    world.close();
}

#[test]
fn one_fault_too_many_in_the_window_ends_the_entity() {
    for shards in SHARDS {
        let mut world = World::new(shards, 8);
        let id = world.on(QUICK, 1, 0);
        for _ in 0..3 {
            world.told(id, Act::Panic);
            world.wait_ms(60);
        }
        assert_eq!(world.entities(QUICK), 1);
        // This one fails, and those behind it wait for a life that does not come.
        let (first, at) = (world.ask_from(0, id, Act::Run(5, Then::Panic)), made(id));
        let waiting: Vec<_> = (0..4).map(|_| world.ask_from(0, id, Act::Nothing)).collect();
        world.wait_ms(20);
        assert_eq!(outcome(first), Some(Err(AskError::Failed)));
        for number in waiting {
            assert_eq!(outcome(number), Some(Err(AskError::Failed)));
        }
        assert_eq!((world.entities(QUICK), made(id)), (0, at));
        assert_eq!(world.dead(Reason::EntityFailed), 4);
        assert_eq!(world.attached(), 0);
        // The address stays valid.
        assert_eq!(world.asked(id, Act::Nothing), Some(Ok(1)));
        world.close();
    }
}

#[test]
fn faults_are_counted_within_the_window_only() {
    let mut world = World::new(1, 9);
    let id = Id(QUICK, 1);
    for _ in 0..4 {
        for _ in 0..3 {
            world.told(id, Act::Panic);
            world.wait_ms(110);
        }
        world.now.monotonic_ns += 10_000 * MS;
    }
    assert_eq!(made(id), 13, "never ended: each fault was followed by a restart");
    assert_eq!(world.stat(|stats| stats.restarts), 12);
    world.close();
}

#[test]
fn a_restart_ends_what_belonged_to_the_life() {
    let mut world = World::new(2, 10);
    let id = world.on(RESTART, 1, 0);
    world.told(id, Act::Ring(50));
    let slow = world.ask(id, Act::Interleave(50, Then::Answer));
    world.settle();
    assert_eq!(live("future"), 1);
    world.told(id, Act::Panic);
    assert_eq!(live("future"), 0);
    assert_eq!(live("bell"), 0);
    assert_eq!(outcome(slow), Some(Err(AskError::Failed)), "its turn went with the state");
    world.wait_ms(100);
    assert_eq!(crate::diary::count(|event| matches!(event, Event::Rang(_))), 0);
    world.close();
}

#[test]
fn a_message_beyond_the_stash_is_a_dead_letter_and_its_asker_told_not_sent() {
    for shards in SHARDS {
        let mut world = World::new(shards, 11);
        let id = world.on(QUICK, 1, 0);
        world.told(id, Act::Panic);
        let asks: Vec<_> = (0..12).map(|_| world.ask_from(0, id, Act::Nothing)).collect();
        world.settle();
        let max = STASH_MAX as usize;
        for number in &asks[max..] {
            assert_eq!(outcome(*number), Some(Err(AskError::NotSent)));
        }
        assert_eq!(world.dead(Reason::StashFull), 12 - u64::from(STASH_MAX));
        assert_eq!(world.stat(|stats| stats.stashed), u64::from(STASH_MAX));
        world.wait_ms(15);
        assert!(asks[..max].iter().all(|number| matches!(outcome(*number), Some(Ok(_)))));
        world.close();
    }
}

#[test]
fn a_second_panic_in_a_drop_changes_nothing() {
    let mut world = World::new(2, 12);
    let id = world.on(RESTART, 1, 0);
    assert_eq!(world.asked(id, Act::PanicTwice), Some(Err(AskError::Failed)));
    world.wait_ms(15);
    assert_eq!(world.asked(id, Act::Nothing), Some(Ok(1)));
    assert_eq!(live("state"), 1);
    let grenade = world.ask_grenade(id);
    world.settle();
    assert_eq!(outcome(grenade), Some(Err(AskError::Failed)));
    world.wait_ms(30);
    assert_eq!(world.asked(id, Act::Nothing), Some(Ok(1)));
    world.close();
}

#[test]
fn a_message_that_panics_in_its_drop_behind_a_failed_activation_is_contained() {
    let mut world = World::new(1, 13);
    for (key, make) in [(1, Make::Panic), (2, Make::Fail), (3, Make::PanicAtOnce)] {
        let id = Id(RESTART, key);
        plan(id, Plan { make, makes: 1, ..Plan::default() });
        let number = world.ask_grenade(id);
        world.wait_ms(15);
        assert_eq!(outcome(number), Some(Err(AskError::Failed)));
        world.wait_ms(30);
        assert_eq!(world.asked(id, Act::Nothing), Some(Ok(1)));
    }
    world.close();
}

#[test]
fn no_restart_waits_while_the_node_is_stopping() {
    for shards in 1..=2 {
        let mut world = World::new(shards, 14);
        let (early, late) = (world.on(JITTERY, 1, 0), world.on(KEPT, 1, 1));
        for _ in 0..6 {
            world.told(early, Act::Panic);
            world.wait_ms(400);
        }
        world.told(early, Act::Panic);
        let waiting = world.ask(early, Act::Nothing);
        world.wait_ms(2);
        assert_eq!(outcome(waiting), None, "more than 300 ms are to go");
        world.shards.iter_mut().for_each(|shard| shard.release_kept());
        world.wait_ms(2);
        assert_eq!(outcome(waiting), Some(Ok(1)));
        world.told(late, Act::Panic);
        let waiting = world.ask(late, Act::Nothing);
        world.wait_ms(2);
        assert_eq!(outcome(waiting), Some(Ok(1)), "nor one that begins now");
        world.wait_ms(500);
        assert_eq!((made(early), made(late)), (8, 2), "once for each fault");
        world.close();
    }
}

#[test]
fn what_waits_for_an_activation_that_fails_while_the_node_is_stopping_is_a_dead_letter() {
    for make in [Make::Panic, Make::Fail, Make::PanicAtOnce, Make::SlowPanic(1), Make::RunPanic] {
        for kind in [KEPT, JITTERY] {
            let mut world = World::new(2, 15);
            let id = world.on(kind, 1, 0);
            world.told(id, Act::Panic);
            plan(id, Plan { make, makes: u32::MAX, ..Plan::default() });
            let waiting: Vec<_> = (0..3).map(|_| world.ask(id, Act::Nothing)).collect();
            world.settle();
            world.shards.iter_mut().for_each(|shard| shard.release_kept());
            world.wait_ms(4);
            for number in waiting {
                assert_eq!(outcome(number), Some(Err(AskError::Failed)), "{make:?}");
            }
            assert!(!world.shards.iter().any(|shard| shard.has_unfinished_turns()), "{make:?}");
            assert_eq!(world.dead(Reason::EntityFailed), 3, "{make:?}");
            world.close();
        }
    }
}
