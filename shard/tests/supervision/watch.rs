//! Who watches is told, once.

use coreside_shard::End;

use crate::diary::{Goodbye, Id, Plan, plan, terminations};
use crate::subject::{Act, FEW, FEW_MAX, IDLE, IDLE_MS, QUICK, RESTART, STOP, Then};
use crate::world::World;

/// A watcher and one that it watches.
fn pair(shards: u16, seed: u64, kind: usize) -> (World, Id, Id) {
    let mut world = World::new(shards, seed);
    let (watcher, watched) = (world.on(RESTART, 0, 0), world.on(kind, 1, 1));
    world.told(watched, Act::Nothing);
    world.told(watcher, Act::Watch(watched));
    (world, watcher, watched)
}

#[test]
fn a_watcher_is_told_once_of_every_end() {
    for shards in 1..=3 {
        for (kind, act, end) in [
            (RESTART, Act::Stop, End::Stopped),
            (RESTART, Act::Run(2, Then::Stop), End::Stopped),
            (RESTART, Act::Interleave(2, Then::Stop), End::Stopped),
            (STOP, Act::Panic, End::Failed),
            (STOP, Act::Fail, End::Failed),
            (STOP, Act::PanicTwice, End::Failed),
            (STOP, Act::Run(2, Then::Panic), End::Failed),
            (STOP, Act::Run(2, Then::Fail), End::Failed),
        ] {
            let (mut world, watcher, watched) = pair(shards, 1, kind);
            world.told(watched, act);
            world.wait_ms(4);
            assert_eq!(terminations(watcher), [(watched, end)], "{act:?}");
            // The next life is not watched.
            world.told(watched, Act::Nothing);
            world.told(watched, Act::Stop);
            world.wait_ms(4);
            assert_eq!(terminations(watcher).len(), 1, "{act:?}");
            world.close();
        }
    }
}

#[test]
fn a_watcher_is_told_when_the_watched_is_put_away() {
    for shards in 1..=3 {
        let (mut world, watcher, watched) = pair(shards, 2, IDLE);
        world.wait_ms(2 * IDLE_MS);
        assert_eq!(terminations(watcher), [(watched, End::Passivated)]);
        world.close();
    }
    let (mut world, watcher, watched) = pair(1, 2, FEW);
    for nth in 0..2 * FEW_MAX {
        world.told(Id(FEW, 100 + nth as u64), Act::Nothing);
    }
    assert_eq!(terminations(watcher), [(watched, End::Passivated)]);
    world.close();
}

#[test]
fn a_watcher_of_what_is_not_there_is_told_so() {
    for shards in 1..=3 {
        let mut world = World::new(shards, 3);
        let (watcher, watched) = (world.on(RESTART, 0, 0), world.on(RESTART, 1, 1));
        world.told(watcher, Act::Watch(watched));
        assert_eq!(terminations(watcher), [(watched, End::NotThere)]);
        assert_eq!(world.entities_in_all(), 1, "a watch brings nobody into memory");
        assert_eq!(world.attached(), 0);
        world.close();
    }
}

#[test]
fn a_restart_is_not_an_end() {
    let (mut world, watcher, watched) = pair(2, 4, QUICK);
    for _ in 0..3 {
        world.told(watched, Act::Panic);
        world.wait_ms(60);
        assert_eq!(terminations(watcher), []);
    }
    world.told(watched, Act::Panic);
    assert_eq!(terminations(watcher), [(watched, End::Failed)], "one fault too many is");
    world.close();
}

#[test]
fn a_watch_of_what_is_watched_already_is_the_same_watch() {
    let (mut world, watcher, watched) = pair(2, 5, RESTART);
    world.told(watcher, Act::Watch(watched));
    world.told(watched, Act::Stop);
    assert_eq!(terminations(watcher), [(watched, End::Stopped)]);
    world.close();
}

#[test]
fn nobody_is_told_after_unwatch() {
    for shards in 1..=3 {
        let (mut world, watcher, watched) = pair(shards, 6, RESTART);
        world.told(watcher, Act::Unwatch(watched));
        world.told(watched, Act::Stop);
        assert_eq!(terminations(watcher), []);
        assert_eq!(world.attached(), 0);
        world.close();
    }
}

#[test]
fn unwatch_holds_for_what_is_under_way() {
    use crate::diary::{Event, events};
    let mut told = 0;
    for seed in 1..=200 {
        let (mut world, watcher, watched) = pair(1 + (seed % 3) as u16, seed, RESTART);
        let (home, busy) = (world.home(watcher), seed % 4 == 0);
        if busy {
            world.told(watcher, Act::Run(1, Then::Answer));
        }
        let far = world.home(watched);
        world.tell_from(far, watched, Act::Stop);
        (0..world.random.below(4)).for_each(|_| {
            let shard = world.random.below(world.shards.len() as u64) as usize;
            world.poll(shard);
        });
        let unwatch = world.tell_from(home, watcher, Act::Unwatch(watched));
        world.settle();
        world.wait_ms(3);
        let events = events();
        let at = |event: &Event| *event == Event::Handled(watcher, unwatch);
        let unwatched_at = events.iter().position(at).expect("handled");
        let is_told = |event: &Event| matches!(event, Event::Terminated(..));
        assert!(!events[unwatched_at..].iter().any(is_told), "seed {seed}");
        told += events.iter().filter(|event| is_told(event)).count();
        assert_eq!(terminations(watcher).len(), events.iter().filter(|e| is_told(e)).count());
        world.close();
    }
    assert!(told > 0, "sometimes it comes first");
}

#[test]
fn a_watch_that_is_taken_back_and_renewed_is_a_watch_of_its_own() {
    use crate::diary::{Event, events};
    for seed in 1..=60 {
        let (mut world, watcher, watched) = pair(2, seed, RESTART);
        world.tell_from(1, watched, Act::Stop);
        world.tell_from(1, watched, Act::Nothing);
        (0..world.random.below(4)).for_each(|_| {
            let shard = world.random.below(2) as usize;
            world.poll(shard);
        });
        world.tell_from(0, watcher, Act::Unwatch(watched));
        let renewed = world.tell_from(0, watcher, Act::Watch(watched));
        world.settle();
        world.told(watched, Act::Nothing);
        world.told(watched, Act::Stop);
        let events = events();
        let at = |event: &Event| *event == Event::Handled(watcher, renewed);
        let at = events.iter().position(at).expect("handled");
        let told = |events: &[Event]| {
            events.iter().filter(|event| matches!(event, Event::Terminated(..))).count()
        };
        assert!(told(&events[..at]) <= 1, "seed {seed}: of the first");
        assert_eq!(told(&events[at..]), 1, "seed {seed}: of the second");
        world.close();
    }
}

#[test]
fn watches_end_with_their_watcher() {
    for shards in 1..=3 {
        for (kind, end) in [(RESTART, Act::Stop), (STOP, Act::Panic), (RESTART, Act::Panic)] {
            let mut world = World::new(shards, 7);
            let watcher = world.on(kind, 0, 0);
            let watched: Vec<_> = (0..4).map(|nth| world.on(RESTART, nth, nth + 1)).collect();
            for id in &watched {
                world.told(*id, Act::Nothing);
                world.told(watcher, Act::Watch(*id));
            }
            world.told(watcher, end);
            world.wait_ms(20);
            for id in &watched {
                world.told(*id, Act::Stop);
            }
            world.wait_ms(1);
            assert_eq!(terminations(watcher), [], "{end:?}");
            world.close();
        }
    }
}

#[test]
fn what_was_watched_is_plain_again_when_nobody_watches() {
    let mut world = World::new(2, 8);
    let (watcher, watched) = (world.on(RESTART, 0, 0), world.on(RESTART, 1, 1));
    world.told(watched, Act::Nothing);
    world.told(watcher, Act::Watch(watched));
    assert_eq!(world.attached(), 2);
    world.told(watcher, Act::Unwatch(watched));
    assert_eq!(world.attached(), 0, "nothing beyond their states");
    world.close();
}

#[test]
fn many_watchers_on_many_shards_are_told_once_each() {
    for seed in 1..=10 {
        let mut world = World::new(3, seed);
        let watched = world.on(STOP, 0, 0);
        world.told(watched, Act::Nothing);
        let watchers: Vec<_> = (1..40).map(|key| Id(RESTART, 100 + key)).collect();
        for watcher in &watchers {
            world.tell(*watcher, Act::Watch(watched));
        }
        world.settle();
        world.told(watched, Act::Panic);
        for watcher in &watchers {
            assert_eq!(terminations(*watcher), [(watched, End::Failed)], "seed {seed}");
        }
        world.close();
    }
}

#[test]
fn the_end_comes_behind_what_the_watched_sent_before() {
    use crate::diary::{Event, events};
    for seed in 1..=40 {
        let (mut world, watcher, watched) = pair(1 + (seed % 2) as u16, seed, RESTART);
        plan(watched, Plan { goodbye: Goodbye::Tell(watcher), ..Plan::default() });
        let home = world.home(watched);
        (0..5).for_each(|_| {
            world.tell_from(home, watched, Act::Tell(watcher));
        });
        world.tell_from(home, watched, Act::Stop);
        world.settle();
        let at_watcher: Vec<_> = events()
            .into_iter()
            .filter(|event| {
                matches!(event, Event::Terminated(id, ..) | Event::Handled(id, _) if *id == watcher)
            })
            .collect();
        assert_eq!(at_watcher.len(), 1 + 5 + 1 + 1, "seed {seed}");
        assert!(matches!(at_watcher.last(), Some(Event::Terminated(..))), "seed {seed}");
        world.close();
    }
}

#[test]
fn a_goodbye_that_fails_is_an_end_by_a_fault() {
    for goodbye in [Goodbye::Panic, Goodbye::Fail, Goodbye::SlowPanic(2)] {
        for kind in [RESTART, STOP, crate::subject::RESUME] {
            let (mut world, watcher, watched) = pair(2, 9, kind);
            plan(watched, Plan { goodbye, ..Plan::default() });
            world.told(watched, Act::Stop);
            world.wait_ms(30);
            assert_eq!(terminations(watcher), [(watched, End::Failed)], "{goodbye:?} {kind}");
            assert_eq!(world.entities_in_all(), 1, "only the watcher is left");
            world.close();
        }
    }
}
