//! A fault that is escalated is its supervisor's.

use crate::diary::{Id, faults, made};
use crate::subject::{Act, ESCALATE, RESTART, RESUME, STOP, Then};
use crate::world::World;

#[test]
fn an_escalated_fault_fails_the_supervisor_in_its_place() {
    for shards in 1..=3 {
        let mut world = World::new(shards, 1);
        let (boss, child) = (world.on(RESTART, 0, 0), world.on(ESCALATE, 1, 0));
        let sibling = world.on(RESTART, 2, 1);
        world.told(boss, Act::Start(child));
        world.told(boss, Act::Start(sibling));
        world.told(child, Act::Panic);
        assert_eq!(world.entities(ESCALATE), 0, "it ended");
        assert_eq!(world.entities(RESTART), 1, "and its sibling with the life of their supervisor");
        world.wait_ms(20);
        assert_eq!((made(boss), made(child), made(sibling)), (2, 1, 1));
        assert_eq!(faults(boss).len(), 1);
        assert!(world.shards.iter().all(|shard| shard.escalation().is_none()));
        world.close();
    }
}

#[test]
fn a_supervisor_that_resumes_keeps_its_state_and_its_other_children() {
    for then in [None, Some(Act::Run(5, Then::Answer))] {
        let mut world = World::new(2, 2);
        let (boss, child) = (world.on(RESUME, 0, 0), world.on(ESCALATE, 1, 0));
        let sibling = world.on(RESTART, 1, 1);
        world.told(boss, Act::Start(child));
        world.told(boss, Act::Start(sibling));
        if let Some(act) = then {
            world.told(boss, act);
        }
        world.told(child, Act::Fail);
        world.wait_ms(10);
        assert_eq!((made(boss), made(sibling)), (1, 1));
        assert_eq!(world.entities(RESTART), 1);
        assert_eq!(faults(boss).len(), 1);
        world.close();
    }
}

#[test]
fn escalation_goes_on_to_the_top_and_stops_the_node_there() {
    for shards in 1..=3 {
        let mut world = World::new(shards, 3);
        let chain: Vec<_> = (0..3).map(|nth| world.on(ESCALATE, nth, nth)).collect();
        world.told(chain[0], Act::Start(chain[1]));
        world.told(chain[1], Act::Start(chain[2]));
        world.told(chain[2], Act::Panic);
        assert_eq!(world.entities_in_all(), 0);
        assert_eq!((faults(chain[0]).len(), faults(chain[1]).len()), (0, 0), "they were gone");
        let top: Vec<_> = world.shards.iter().filter_map(|shard| shard.escalation()).collect();
        assert_eq!(top.len(), 1);
        assert_eq!(crate::diary::id_of(top[0]), chain[0]);
        world.close();
    }
}

#[test]
fn an_entity_without_a_supervisor_that_escalates_stops_the_node() {
    let mut world = World::new(2, 4);
    let id = world.on(ESCALATE, 1, 0);
    world.told(id, Act::Panic);
    assert!(world.shards[1].escalation().is_some());
    assert!(world.shards[0].escalation().is_none());
    assert_eq!(world.unsupervised_faults(), 1);
    world.close();
}

#[test]
fn an_escalation_that_finds_its_supervisor_gone_does_not_stop_the_node() {
    for seed in 1..=40 {
        let mut world = World::new(2, seed);
        let (boss, child) = (world.on(STOP, 0, 0), world.on(ESCALATE, 1, 0));
        world.told(boss, Act::Start(child));
        world.tell_from(1, child, Act::Panic);
        world.tell_from(0, boss, Act::Stop);
        world.settle();
        let stops = world.shards.iter().any(|shard| shard.escalation().is_some());
        let supervised = made(child) == 1;
        assert!(!stops || !supervised, "seed {seed}: its supervisor had stopped it anyway");
        world.close();
    }
}

#[test]
fn an_escalation_of_an_earlier_life_leaves_the_next_one_alone() {
    for seed in 1..=40 {
        let mut world = World::new(2, seed);
        let (boss, child) = (world.on(RESTART, 0, 0), world.on(ESCALATE, 1, 0));
        world.told(boss, Act::Start(child));
        world.tell_from(1, child, Act::Panic);
        world.tell_from(0, boss, Act::Panic);
        // One of the two ends the other's life.
        world.settle();
        world.wait_ms(20);
        // Its own fault, and the escalated one if that came first.
        world.wait_ms(50);
        assert_eq!(world.faults_kept(boss), made(boss) - 1, "seed {seed}");
        assert!(made(boss) <= 3, "seed {seed}");
        let number = Id(RESTART, boss.1);
        assert!(matches!(world.asked(number, Act::Nothing), Some(Ok(_))));
        world.close();
    }
}

#[test]
fn faults_that_wait_for_a_busy_supervisor_are_bounded_and_the_rest_is_the_nodes() {
    let mut world = World::new(1, 9);
    let (boss, child) = (world.on(RESTART, 0, 0), world.on(RESUME, 0, 1));
    world.told(boss, Act::Start(child));
    world.told(boss, Act::Run(50, Then::Answer));
    for _ in 0..1300 {
        world.told(child, Act::Fail);
    }
    let waiting = 128 + 1024;
    assert_eq!(world.faults_kept(child), 1300 - waiting);
    world.wait_ms(60);
    assert_eq!(faults(boss).len(), waiting);
    world.close();
}
