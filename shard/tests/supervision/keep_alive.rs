//! An entity that is to stay stays.

use coreside_shard::AskError;

use crate::book::outcome;
use crate::diary::{Id, Make, Plan, made, plan, terminations};
use crate::subject::{Act, IDLE_MS, KEPT, RESTART};
use crate::world::World;

#[test]
fn a_kept_entity_is_never_put_away() {
    let mut world = World::new(1, 1);
    for key in 0..10 {
        world.told(Id(KEPT, key), Act::Nothing);
    }
    world.wait_ms(5 * IDLE_MS);
    assert_eq!((world.entities(KEPT), world.stat(|stats| stats.passivations)), (10, 0));
    world.close();
}

#[test]
fn a_kept_entity_is_restarted_for_ever() {
    let mut world = World::new(2, 2);
    let (watcher, id) = (world.on(RESTART, 0, 0), world.on(KEPT, 1, 0));
    world.told(id, Act::Nothing);
    world.told(watcher, Act::Watch(id));
    for nth in 0..20 {
        assert_eq!(world.asked(id, Act::Panic), Some(Err(AskError::Failed)));
        world.wait_ms(103);
        assert_eq!(made(id), nth + 2);
    }
    assert_eq!(terminations(watcher), []);
    assert_eq!(world.stat(|stats| stats.restarts), 20);
    world.close();
}

#[test]
fn a_kept_entity_whose_activation_fails_comes_back_with_what_waited() {
    let mut world = World::new(1, 3);
    let id = Id(KEPT, 1);
    plan(id, Plan { make: Make::SlowPanic(1), makes: 8, ..Plan::default() });
    let number = world.ask(id, Act::Nothing);
    world.wait_ms(1_000);
    assert_eq!(outcome(number), Some(Ok(1)));
    assert_eq!(made(id), 1);
    world.close();
}
