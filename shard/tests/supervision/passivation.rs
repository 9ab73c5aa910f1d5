//! Idle entities are put away, and so are some where there are too many; no message is lost.

use coreside_shard::{End, ShardConfig};

use crate::book::{live, outcome};
use crate::diary::{
    Event, Goodbye, Id, Plan, count, faults, handled, made, plan, terminations, timed,
};
use crate::subject::{Act, FEW, FEW_MAX, IDLE, IDLE_MS, KEPT, RESTART, Subject, Then};
use crate::world::{MS, World, config};

fn said_passivate(id: Id) -> usize {
    count(|event| *event == Event::SaidPassivate(id))
}

/// Lets time pass in steps of random length, as a shard with other work does.
fn wait_raggedly(world: &mut World, ms: u64) {
    let end_ns = world.now.monotonic_ns + ms * MS;
    while world.now.monotonic_ns < end_ns {
        let step = if world.random.one_in(3) { 130 } else { 3 };
        let next_ns = world.now.monotonic_ns + 1 + world.random.below(step * MS);
        // Its driver is never late.
        let due = world.shards.iter().filter_map(|shard| shard.next_deadline_ns()).min();
        let due_ns = due.unwrap_or(u64::MAX).max(world.now.monotonic_ns + 1);
        world.now.monotonic_ns = next_ns.min(end_ns).min(due_ns);
        world.settle();
    }
}

#[test]
fn an_idle_entity_is_put_away_not_before_its_time_and_at_most_a_quarter_later() {
    for seed in 1..=60 {
        let mut world = World::new(1, seed);
        let keys = 1 + world.random.below(20);
        let mut last_ns = vec![0; keys as usize];
        for _ in 0..10 {
            wait_raggedly(&mut world, 200);
            for key in 0..keys {
                if last_ns[key as usize] == 0 || world.random.one_in(2) {
                    world.told(Id(IDLE, key), Act::Nothing);
                    last_ns[key as usize] = world.now.monotonic_ns;
                }
            }
        }
        // As its driver does: it polls when the shard says so, and now and then beside.
        while world.entities(IDLE) > 0 {
            let next_ns = world.shards[0].next_deadline_ns().expect("a hand moves");
            let step_ns = if world.random.one_in(2) { MS } else { u64::MAX };
            let now_ns = world.now.monotonic_ns;
            world.now.monotonic_ns = next_ns.max(now_ns + 1).min(now_ns.saturating_add(step_ns));
            world.settle();
        }
        for (key, last_ns) in (0..).zip(last_ns) {
            let away = |(_, event): &(u64, Event)| *event == Event::SaidPassivate(Id(IDLE, key));
            let gone_ns = timed().into_iter().rfind(away).expect("put away").0;
            let idle_ms = (gone_ns - last_ns) / MS;
            assert!(
                (IDLE_MS..=IDLE_MS + IDLE_MS / 4).contains(&idle_ms),
                "seed {seed}: put away after {idle_ms} ms"
            );
        }
        assert_eq!(live("state"), 0);
        world.close();
    }
}

#[test]
fn an_entity_in_use_is_not_put_away() {
    let mut world = World::new(2, 1);
    let id = world.on(IDLE, 1, 0);
    for _ in 0..40 {
        world.told(id, Act::Nothing);
        wait_raggedly(&mut world, IDLE_MS - 140);
    }
    assert_eq!((made(id), said_passivate(id)), (1, 0));
    world.close();
}

#[test]
fn entities_with_something_under_way_are_not_put_away() {
    let mut world = World::new(2, 2);
    let (ringing, busy, waiting) = (world.on(IDLE, 0, 0), world.on(IDLE, 1, 1), Id(IDLE, 77));
    let (boss, plain) = (Id(IDLE, 78), Id(IDLE, 79));
    world.told(ringing, Act::Ring(5 * IDLE_MS));
    world.told(busy, Act::Run(5 * IDLE_MS, Then::Answer));
    world.told(waiting, Act::Interleave(5 * IDLE_MS, Then::Answer));
    world.told(boss, Act::Start(Id(RESTART, 1)));
    world.told(plain, Act::Nothing);
    wait_raggedly(&mut world, 4 * IDLE_MS);
    assert_eq!(said_passivate(plain), 1);
    for id in [ringing, busy, waiting, boss] {
        assert_eq!((made(id), said_passivate(id)), (1, 0), "{id:?}");
    }
    wait_raggedly(&mut world, 3 * IDLE_MS);
    for id in [ringing, busy, waiting] {
        assert_eq!(said_passivate(id), 1, "{id:?}");
    }
    assert_eq!(said_passivate(boss), 0);
    world.close();
}

#[test]
fn beyond_the_bound_those_go_that_had_no_turn_for_longest() {
    let mut world = World::new(1, 3);
    for key in 0..FEW_MAX as u64 {
        world.told(Id(FEW, key), Act::Nothing);
    }
    assert_eq!(world.entities(FEW), FEW_MAX);
    assert_eq!(world.stat(|stats| stats.passivations), 0);
    // Two of them are in use while others come and go.
    for round in 0..60 {
        for key in [0, 5] {
            world.told(Id(FEW, key), Act::Nothing);
        }
        world.told(Id(FEW, 100 + round), Act::Nothing);
        assert!(world.entities(FEW) <= FEW_MAX);
    }
    let hot = [0, 5].map(|key| made(Id(FEW, key)));
    assert!(hot.iter().all(|made| *made < 15), "they stay for most of the time: {hot:?}");
    world.close();
}

#[test]
fn the_bound_on_entities_holds_under_a_flood() {
    for shards in 1..=3 {
        let mut world = World::new(shards, 4);
        let asks: Vec<_> = (0..300).map(|key| world.ask(Id(FEW, key), Act::Nothing)).collect();
        world.settle();
        assert!(world.entities(FEW) <= FEW_MAX * usize::from(shards));
        assert!(asks.iter().all(|number| outcome(*number) == Some(Ok(1))));
        assert_eq!(live("state"), world.entities(FEW));
        world.close();
    }
}

#[test]
fn a_shard_rests_when_nobody_beyond_the_bound_may_go() {
    let mut world = World::new(1, 5);
    for key in 0..2 * FEW_MAX as u64 {
        world.told(Id(FEW, key), Act::Ring(500));
    }
    // `settle` has found an end; and all stay.
    assert_eq!(world.entities(FEW), 2 * FEW_MAX);
    world.wait_ms(510);
    assert_eq!(world.entities(FEW), FEW_MAX, "their timers have rung");
    world.close();
}

#[test]
fn the_budget_of_bytes_holds_over_all_types() {
    let config = ShardConfig { resident_bytes_max: 4_000, ..config() };
    let mut world = World::with(1, 6, &config);
    for key in 0..200 {
        world.told(Id(RESTART, key), Act::Nothing);
        world.told(Id(IDLE, key), Act::Nothing);
        world.told(Id(KEPT, key), Act::Nothing);
    }
    // Key, life, condition and state.
    let bytes = |entities: usize| entities * (16 + size_of::<Subject<RESTART>>());
    let resident = world.entities(RESTART) + world.entities(IDLE);
    assert!(resident > 0 && bytes(resident) <= 4_000, "{resident}");
    assert_eq!(world.entities(KEPT), 200, "they stay, and do not count");
    world.close();
}

#[test]
fn the_budget_of_bytes_spares_what_is_in_use_whatever_its_type() {
    let config = ShardConfig { resident_bytes_max: 4_000, ..config() };
    let mut world = World::with(1, 7, &config);
    for round in 0..100 {
        for key in 0..10 {
            world.tell(Id(RESTART, key), Act::Nothing);
        }
        world.tell(Id(IDLE, round), Act::Nothing);
        world.tell(Id(IDLE, 1_000 + round), Act::Nothing);
        world.settle();
    }
    let most = (0..10).map(|key| made(Id(RESTART, key))).max();
    assert!(most <= Some(3), "those that had turns all the time stayed: {most:?}");
    world.close();
}

#[test]
fn no_message_is_lost_while_an_entity_is_put_away() {
    for seed in 1..=20 {
        let mut world = World::new(2, seed);
        let ids: Vec<_> = (0..30).map(|key| Id(FEW, key)).collect();
        for id in &ids[1..] {
            let goodbye = match world.random.below(3) {
                0 => Goodbye::Slow(2),
                1 => Goodbye::Tell(Id(FEW, 0)),
                _ => Goodbye::Plain,
            };
            plan(*id, Plan { goodbye, ..Plan::default() });
        }
        let mut expected = vec![Vec::new(); ids.len()];
        for _ in 0..600 {
            let at = 1 + world.random.below(29) as usize;
            expected[at].push(world.tell_from(0, ids[at], Act::Nothing));
            match world.random.below(8) {
                0 => world.wait_ms(1),
                1 => world.settle(),
                _ => {
                    let shard = world.random.below(2) as usize;
                    world.poll(shard);
                }
            }
        }
        world.wait_ms(50);
        for at in 1..30 {
            assert_eq!(handled(ids[at]), expected[at], "seed {seed}");
        }
        assert!(world.stat(|stats| stats.passivations) > 50);
        world.close();
    }
}

#[test]
fn a_goodbye_that_takes_time_does_not_put_more_away_than_need_be() {
    let mut world = World::new(1, 8);
    for key in 0..50 {
        plan(Id(FEW, key), Plan { goodbye: Goodbye::Slow(20), ..Plan::default() });
    }
    for key in 0..=FEW_MAX as u64 {
        world.tell(Id(FEW, key), Act::Nothing);
    }
    world.settle();
    world.wait_ms(15);
    assert_eq!(world.stat(|stats| stats.passivations), 1);
    world.wait_ms(10);
    assert_eq!(world.entities(FEW), FEW_MAX);
    world.close();
}

#[test]
fn a_message_during_the_goodbye_waits_for_the_next_life() {
    let mut world = World::new(1, 9);
    let id = Id(IDLE, 1);
    plan(id, Plan { goodbye: Goodbye::Slow(20), ..Plan::default() });
    world.told(id, Act::Nothing);
    while said_passivate(id) == 0 {
        world.wait_ms(1);
    }
    let number = world.ask(id, Act::Nothing);
    world.wait_ms(10);
    assert_eq!(outcome(number), None);
    world.wait_ms(15);
    assert_eq!(outcome(number), Some(Ok(1)));
    assert_eq!(made(id), 2);
    world.close();
}

#[test]
fn a_goodbye_that_fails_ends_the_entity_all_the_same() {
    for goodbye in [Goodbye::Panic, Goodbye::Fail, Goodbye::SlowPanic(3)] {
        let mut world = World::new(1, 10);
        let id = Id(IDLE, 1);
        plan(id, Plan { goodbye, ..Plan::default() });
        world.told(id, Act::Nothing);
        world.wait_ms(2 * IDLE_MS);
        assert_eq!((made(id), world.entities(IDLE), world.attached()), (1, 0, 0), "{goodbye:?}");
        assert_eq!(world.unsupervised_faults(), 1);
        world.close();
    }
}

#[test]
fn a_child_that_was_put_away_comes_back_as_nobodys_child() {
    for shards in 1..=2 {
        let mut world = World::new(shards, 21);
        let (boss, child) = (world.on(RESTART, 0, 0), world.on(IDLE, 1, 0));
        world.told(boss, Act::Start(child));
        world.told(boss, Act::Watch(child));
        world.wait_ms(2 * IDLE_MS);
        assert_eq!(terminations(boss), [(child, End::Passivated)], "its supervisor can know");
        world.told(child, Act::Panic);
        world.wait_ms(20);
        assert_eq!((faults(boss).len(), world.faults_kept(child)), (0, 1), "the node hears of it");
        // Until it is started again.
        world.told(boss, Act::Start(child));
        world.told(child, Act::Panic);
        world.wait_ms(50);
        assert_eq!((faults(boss).len(), world.faults_kept(child)), (1, 0));
        world.told(boss, Act::Stop);
        assert_eq!(world.entities_in_all(), 0, "it ends with its supervisor");
        world.close();
    }
}
