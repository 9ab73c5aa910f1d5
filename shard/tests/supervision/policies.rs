//! What follows a fault is what the type declares.

use coreside_shard::{AskError, End, Reason};

use crate::book::{live, outcome};
use crate::diary::{Id, Make, Plan, faults, handled, made, plan, terminations};
use crate::subject::{Act, RESTART, RESUME, STOP, Then};
use crate::world::World;

#[test]
fn resume_keeps_the_state_and_the_next_message_has_its_turn() {
    for shards in 1..=3 {
        let mut world = World::new(shards, 1);
        let id = world.on(RESUME, 1, 0);
        assert_eq!(world.asked(id, Act::Nothing), Some(Ok(1)));
        for act in [Act::Panic, Act::Fail, Act::Run(2, Then::Panic), Act::Run(2, Then::Fail)] {
            let failed = world.ask_from(0, id, act);
            let next = world.ask_from(0, id, Act::Nothing);
            world.wait_ms(5);
            assert_eq!(outcome(failed), Some(Err(AskError::Failed)), "{act:?}");
            assert!(matches!(outcome(next), Some(Ok(_))), "{act:?}");
        }
        assert_eq!(world.asked(id, Act::Nothing), Some(Ok(10)), "all were counted by one state");
        assert_eq!(made(id), 1);
        assert_eq!(world.stat(|stats| stats.restarts), 0);
        world.close();
    }
}

#[test]
fn resume_keeps_the_order_of_what_waits_through_many_faults() {
    for seed in 1..=20 {
        let mut world = World::new(2, seed);
        let id = world.on(RESUME, 1, 0);
        let mut expected = vec![world.tell_from(0, id, Act::Run(3, Then::Answer))];
        world.settle();
        for nth in 0..60 {
            let act = if nth % 3 == 0 { Act::Panic } else { Act::Nothing };
            expected.push(world.tell_from(0, id, act));
        }
        world.settle();
        world.now.monotonic_ns += 5_000_000;
        for nth in 0..60 {
            let act = if nth % 3 == 0 { Act::Fail } else { Act::Nothing };
            expected.push(world.tell_from(0, id, act));
            let shard = world.random.below(2) as usize;
            world.poll(shard);
        }
        world.settle();
        assert_eq!(handled(id), expected, "seed {seed}");
        assert_eq!(made(id), 1);
        world.close();
    }
}

#[test]
fn a_resumed_entity_whose_activation_failed_is_restarted() {
    for make in [Make::Panic, Make::Fail, Make::PanicAtOnce, Make::SlowPanic(2)] {
        let mut world = World::new(1, 2);
        let id = Id(RESUME, 1);
        plan(id, Plan { make, makes: 1, ..Plan::default() });
        world.told(id, Act::Nothing);
        world.wait_ms(20);
        assert!(matches!(world.asked(id, Act::Nothing), Some(Ok(_))), "{make:?}");
        world.close();
    }
}

#[test]
fn stop_ends_the_entity_and_the_next_message_activates_it_anew() {
    for (shards, act) in (1..=3).zip([Act::Panic, Act::Fail, Act::PanicTwice]) {
        let mut world = World::new(shards, 3);
        let id = world.on(STOP, 1, 0);
        assert_eq!(world.asked(id, act), Some(Err(AskError::Failed)));
        assert_eq!((world.entities(STOP), world.attached(), live("state")), (0, 0, 0));
        assert_eq!(world.asked(id, Act::Nothing), Some(Ok(1)));
        assert_eq!(made(id), 2);
        world.close();
    }
}

#[test]
fn what_waited_for_an_entity_that_a_fault_ended_is_a_dead_letter() {
    let mut world = World::new(2, 4);
    let id = world.on(STOP, 1, 0);
    world.told(id, Act::Run(3, Then::Panic));
    let asks: Vec<_> = (0..5).map(|_| world.ask_from(0, id, Act::Nothing)).collect();
    world.settle();
    world.tell(id, Act::Nothing);
    world.wait_ms(5);
    for number in asks {
        assert_eq!(outcome(number), Some(Err(AskError::Failed)));
    }
    assert_eq!(world.dead(Reason::EntityFailed), 6);
    world.close();
}

#[test]
fn a_turn_that_stops_and_fails_has_failed() {
    let mut world = World::new(1, 5);
    let (id, watcher) = (Id(RESTART, 1), Id(RESTART, 2));
    world.told(id, Act::Nothing);
    world.told(watcher, Act::Watch(id));
    assert_eq!(world.asked(id, Act::FailAndStop), Some(Err(AskError::Failed)));
    world.wait_ms(20);
    assert_eq!((made(id), terminations(watcher)), (2, vec![]), "restarted, not stopped");
    world.close();
}

#[test]
fn a_supervisor_gets_one_fault_per_fault_with_all_that_is_known() {
    for shards in 1..=3 {
        for kind in [RESTART, RESUME, STOP] {
            let mut world = World::new(shards, 6);
            let (boss, child) = (world.on(RESTART, 0, 0), world.on(kind, 1, 1));
            world.told(boss, Act::Start(child));
            assert_eq!(made(child), 1, "start brings it into memory");
            for act in [Act::Panic, Act::Fail, Act::Run(1, Then::Fail)] {
                world.told(child, act);
                world.wait_ms(60);
                if kind == STOP {
                    world.told(boss, Act::Start(child));
                }
            }
            let faults = faults(boss);
            assert_eq!(faults.len(), 3, "{kind}");
            for (nth, fault) in (1..).zip(&faults) {
                assert_eq!(crate::diary::id_of(fault.entity), child);
                assert_eq!(fault.message, "do");
                assert!(fault.reason.starts_with("told to, in a"), "{fault:?}");
                // An entity that ended begins to count anew.
                assert_eq!(fault.count, if kind == STOP { 1 } else { nth });
            }
            assert_eq!(world.unsupervised_faults(), 0);
            world.close();
        }
    }
}

#[test]
fn a_fault_reaches_its_supervisor_before_what_the_next_life_sends() {
    use crate::diary::{Event, events};
    for seed in 1..=30 {
        let mut world = World::new(2, seed);
        let (boss, child) = (world.on(RESTART, 0, 0), world.on(RESUME, 1, 0));
        world.told(boss, Act::Start(child));
        for _ in 0..5 {
            world.tell_from(1, child, Act::Panic);
            world.tell_from(1, child, Act::Tell(boss));
        }
        world.settle();
        let at_boss: Vec<_> = events()
            .into_iter()
            .filter_map(|event| match event {
                Event::Fault(id, _) if id == boss => Some(true),
                Event::Handled(id, _) if id == boss => Some(false),
                _ => None,
            })
            .skip(1)
            .collect();
        let mut faults = 0;
        for (nth, is_fault) in at_boss.iter().enumerate() {
            faults += usize::from(*is_fault);
            assert!(faults >= (nth + 1).div_ceil(2), "seed {seed}: {at_boss:?}");
        }
        world.close();
    }
}

#[test]
fn a_busy_supervisor_with_a_full_stash_gets_its_faults_all_the_same() {
    use crate::subject::{QUICK, STASH_MAX};
    for shards in 1..=2 {
        let mut world = World::new(shards, 7);
        let (boss, child) = (world.on(QUICK, 0, 0), world.on(RESUME, 1, 0));
        world.told(boss, Act::Start(child));
        world.told(boss, Act::Watch(child));
        world.told(boss, Act::Run(5, Then::Answer));
        (0..STASH_MAX + 3).for_each(|_| {
            world.told(boss, Act::Nothing);
        });
        assert_eq!(world.dead(Reason::StashFull), 3);
        (0..6).for_each(|_| {
            world.told(child, Act::Panic);
        });
        world.told(child, Act::Stop);
        world.wait_ms(10);
        assert_eq!(faults(boss).len(), 6);
        assert_eq!(terminations(boss), [(child, End::Stopped)]);
        assert_eq!(world.dead(Reason::StashFull), 3);
        world.close();
    }
}

#[test]
fn a_fault_for_a_supervisor_that_is_gone_is_kept_for_the_node() {
    let mut world = World::new(1, 8);
    let (boss, child) = (Id(RESTART, 0), Id(RESUME, 1));
    world.told(boss, Act::Start(child));
    world.tell(child, Act::Panic);
    world.tell(boss, Act::Stop);
    world.settle();
    world.tell(child, Act::Panic);
    world.settle();
    assert_eq!(faults(boss).len() + world.unsupervised_faults(), 2);
    assert_eq!(made(boss), 1, "a fault does not bring its supervisor back");
    world.close();
}
