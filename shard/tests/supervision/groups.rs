//! Supervisors and their children.

use crate::diary::{Id, Make, Plan, faults, made, plan};
use crate::subject::{Act, ONE_FOR_ALL, QUICK, REST_FOR_ONE, RESTART, RESUME, STOP, Then};
use crate::world::World;

/// A supervisor of this type with five children on all shards.
fn family(shards: u16, seed: u64, boss: usize, kind: usize) -> (World, Id, Vec<Id>) {
    let mut world = World::new(shards, seed);
    let boss = world.on(boss, 0, 0);
    let children: Vec<_> = (0..5).map(|nth| world.on(kind, nth, nth + 1)).collect();
    for child in &children {
        world.told(boss, Act::Start(*child));
    }
    (world, boss, children)
}

fn lives(children: &[Id]) -> Vec<usize> {
    children.iter().map(|child| made(*child)).collect()
}

#[test]
fn one_for_one_restarts_the_child_that_failed() {
    for shards in 1..=3 {
        let (mut world, boss, children) = family(shards, 1, RESTART, RESTART);
        world.told(children[2], Act::Panic);
        world.wait_ms(20);
        assert_eq!(lives(&children), [1, 1, 2, 1, 1]);
        assert_eq!(faults(boss).len(), 1);
        world.close();
    }
}

#[test]
fn one_for_all_restarts_all_children() {
    for shards in 1..=3 {
        let (mut world, boss, children) = family(shards, 2, ONE_FOR_ALL, RESTART);
        world.told(children[2], Act::Panic);
        world.wait_ms(20);
        assert_eq!(lives(&children), [2, 2, 2, 2, 2]);
        assert_eq!(faults(boss).len(), 1, "the others did not fail");
        world.told(children[0], Act::Fail);
        world.wait_ms(40);
        assert_eq!(lives(&children), [3, 3, 3, 3, 3]);
        world.close();
    }
}

#[test]
fn rest_for_one_restarts_those_that_were_started_later() {
    for shards in 1..=3 {
        let (mut world, boss, children) = family(shards, 3, REST_FOR_ONE, RESTART);
        world.told(children[2], Act::Panic);
        world.wait_ms(20);
        assert_eq!(lives(&children), [1, 1, 2, 2, 2]);
        world.told(children[4], Act::Panic);
        world.wait_ms(40);
        assert_eq!(lives(&children), [1, 1, 2, 2, 3]);
        assert_eq!(faults(boss).len(), 2);
        world.close();
    }
}

#[test]
fn a_fault_that_is_resumed_from_restarts_nobody() {
    for boss in [ONE_FOR_ALL, REST_FOR_ONE] {
        let (mut world, boss, children) = family(2, 4, boss, RESUME);
        world.told(children[0], Act::Panic);
        world.wait_ms(20);
        assert_eq!(lives(&children), [1, 1, 1, 1, 1]);
        assert_eq!(faults(boss).len(), 1);
        world.close();
    }
}

#[test]
fn a_child_that_a_fault_ended_takes_its_group_along() {
    let (mut world, boss, children) = family(2, 5, ONE_FOR_ALL, STOP);
    world.told(children[1], Act::Panic);
    world.wait_ms(20);
    assert_eq!(lives(&children), [2, 1, 2, 2, 2]);
    assert_eq!(world.entities(STOP), 4);
    // It is no longer a member.
    world.told(children[0], Act::Panic);
    world.told(children[1], Act::Nothing);
    world.wait_ms(20);
    assert_eq!(lives(&children), [2, 2, 3, 3, 3]);
    assert_eq!(faults(boss).len(), 2);
    world.close();
}

#[test]
fn a_group_does_not_cut_the_wait_of_a_member_short() {
    let (mut world, _, children) = family(2, 6, ONE_FOR_ALL, QUICK);
    // Two that fail in turns would otherwise restart each other without a pause.
    world.told(children[0], Act::Panic);
    world.wait_ms(1);
    world.told(children[1], Act::Panic);
    world.wait_ms(7);
    assert_eq!(made(children[0]), 1, "it waits as long as it would alone");
    world.wait_ms(20);
    assert_eq!(lives(&children[..2]), [2, 3], "the other was restarted for the first, then failed");
    world.close();
}

#[test]
fn a_busy_member_is_restarted_and_its_asker_told() {
    use crate::book::outcome;
    use coreside_shard::AskError;
    for shards in 1..=3 {
        let (mut world, _, children) = family(shards, 7, ONE_FOR_ALL, RESTART);
        let slow = world.ask(children[3], Act::Run(500, Then::Answer));
        world.settle();
        let waiting = world.ask(children[3], Act::Nothing);
        world.settle();
        world.told(children[0], Act::Panic);
        world.wait_ms(1);
        assert_eq!(outcome(slow), Some(Err(AskError::Failed)));
        assert_eq!(outcome(waiting), Some(Ok(1)), "what waited has its turn in the new life");
        world.close();
    }
}

#[test]
fn children_stop_with_their_supervisor() {
    for shards in 1..=3 {
        for end in [Act::Stop, Act::Panic, Act::Fail] {
            let (mut world, boss, children) = family(shards, 8, STOP, RESTART);
            world.told(boss, end);
            assert_eq!(world.entities_in_all(), 0, "{end:?}");
            assert_eq!(world.attached(), 0, "{end:?}");
            assert_eq!(lives(&children), [1, 1, 1, 1, 1]);
            world.close();
        }
    }
}

#[test]
fn children_stop_when_their_supervisor_is_restarted() {
    let (mut world, boss, children) = family(2, 9, RESTART, RESTART);
    plan(boss, Plan { restarts: Some(children[0]), ..Plan::default() });
    world.told(boss, Act::Panic);
    assert_eq!(world.entities(RESTART), 1, "the supervisor waits");
    world.wait_ms(20);
    assert_eq!(lives(&children), [2, 1, 1, 1, 1], "the new life starts whom it wants");
    world.told(children[0], Act::Panic);
    assert_eq!(faults(boss).len(), 1);
    world.close();
}

#[test]
fn a_busy_child_stops_behind_its_turn_even_if_that_fails() {
    use crate::book::outcome;
    for then in [Then::Answer, Then::Panic, Then::Fail] {
        for kind in [RESTART, RESUME] {
            let (mut world, boss, children) = family(2, 10, STOP, kind);
            let slow = world.ask(children[1], Act::Run(10, then));
            world.settle();
            world.told(boss, Act::Stop);
            assert_eq!(world.entities_in_all(), 1, "it is having its turn");
            world.wait_ms(12);
            assert!(outcome(slow).is_some());
            world.wait_ms(100);
            assert_eq!(world.entities_in_all(), 0, "{then:?} {kind}");
            assert_eq!(world.attached(), 0);
            world.close();
        }
    }
}

#[test]
fn a_child_that_waits_for_its_restart_stops_with_its_supervisor() {
    let (mut world, boss, children) = family(2, 11, STOP, RESTART);
    world.told(children[1], Act::Panic);
    world.told(boss, Act::Stop);
    world.wait_ms(50);
    assert_eq!(world.entities_in_all(), 0);
    assert_eq!(lives(&children), [1, 1, 1, 1, 1]);
    world.close();
}

#[test]
fn grandchildren_stop_too() {
    for shards in 1..=3 {
        let (mut world, boss, children) = family(shards, 12, RESTART, RESTART);
        let grandchild = world.on(RESTART, 2, 20);
        world.told(children[4], Act::Start(grandchild));
        world.told(boss, Act::Stop);
        assert_eq!(world.entities_in_all(), 0);
        world.close();
    }
}

#[test]
fn a_child_that_found_another_supervisor_stays_when_the_first_stops() {
    for seed in 1..=30 {
        let mut world = World::new(3, seed);
        let (first, second) = (world.on(RESTART, 0, 0), world.on(RESTART, 1, 0));
        let child = world.on(RESTART, 2, 0);
        world.told(first, Act::Start(child));
        // The two race.
        world.tell_from(1, second, Act::Start(child));
        for _ in 0..world.random.below(4) {
            let shard = world.random.below(3) as usize;
            world.poll(shard);
        }
        world.tell_from(0, first, Act::Nothing);
        world.settle();
        world.tell_from(0, first, Act::Stop);
        world.settle();
        assert_eq!(made(child), 1, "seed {seed}");
        assert_eq!(world.entities_in_all(), 2, "seed {seed}");
        world.told(child, Act::Panic);
        assert_eq!((faults(first).len(), faults(second).len()), (0, 1), "seed {seed}");
        world.wait_ms(15);
        world.told(second, Act::Stop);
        assert_eq!(world.entities_in_all(), 0, "seed {seed}");
        world.close();
    }
}

#[test]
fn a_child_that_is_started_again_while_its_end_is_reported_has_a_supervisor() {
    for seed in 1..=60 {
        let mut world = World::new(2, seed);
        let (boss, child) = (world.on(RESTART, 0, 0), world.on(STOP, 1, 0));
        world.told(boss, Act::Start(child));
        world.tell_from(1, child, Act::Stop);
        for _ in 0..world.random.below(4) {
            let shard = world.random.below(2) as usize;
            world.poll(shard);
        }
        world.tell_from(0, boss, Act::Start(child));
        world.settle();
        if world.entities(STOP) == 1 {
            world.told(boss, Act::Stop);
            assert_eq!(world.entities_in_all(), 0, "seed {seed}: it stops with its supervisor");
        }
        world.close();
    }
}

#[test]
fn a_child_whose_activation_fails_reports_to_its_supervisor() {
    for shards in 1..=3 {
        for make in [Make::Panic, Make::Fail, Make::PanicAtOnce, Make::SlowPanic(3)] {
            let mut world = World::new(shards, 13);
            let (boss, child) = (world.on(RESTART, 0, 0), world.on(RESTART, 1, 1));
            plan(child, Plan { make, makes: 2, ..Plan::default() });
            world.told(boss, Act::Start(child));
            world.wait_ms(60);
            let faults = faults(boss);
            assert_eq!(faults.len(), 2, "{make:?}");
            assert!(faults.iter().all(|fault| fault.message.is_empty()), "{make:?}");
            assert!(matches!(world.asked(child, Act::Nothing), Some(Ok(1))));
            world.close();
        }
    }
}
