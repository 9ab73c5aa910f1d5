//! Nobody delays others by receiving much: a record at position k runs within k turns, system
//! records before the next user record, and what waits for one entity is nobody else's matter.

use std::time::Duration;

use coreside_shard::{AsyncCx, ShardConfig};

use crate::agent::{Agent, Plain, Tick, ask, echo, noting, tell};
use crate::gate::{Gate, yield_now};
use crate::mesh::{Mesh, config};
use crate::notes::{note, outcome, take_notes};
use crate::shards::RING_WORDS_MIN;

#[test]
fn record_at_position_k_runs_within_k_turns() {
    for seed in 1..=10 {
        let mut mesh = Mesh::new(1, seed);
        let mut positions = Vec::new();
        for position in 1..=500u64 {
            // Most go to one entity, which sends itself more of them.
            let key = if mesh.below(10) == 0 { 2 + mesh.below(5) } else { 1 };
            mesh.tell_plain(
                key,
                tell(move |agent, cx| {
                    note(position);
                    let own = cx.entity::<Agent<Plain>>(agent.key).message(Tick(0));
                    assert!(own.try_tell().is_ok());
                }),
            );
            positions.push(position);
        }
        while !positions.is_empty() {
            let before = mesh.count(|stats| stats.turns);
            mesh.poll(0);
            let turns = (mesh.count(|stats| stats.turns) - before) as usize;
            let ran: Vec<u64> = take_notes().iter().filter_map(|line| line.parse().ok()).collect();
            assert_eq!(ran.len(), turns.min(positions.len()), "none is overtaken");
            assert!(ran.into_iter().eq(positions.drain(..turns.min(positions.len()))));
        }
        mesh.settle();
        take_notes();
    }
}

#[test]
fn stash_of_one_entity_is_drained_with_others_between() {
    let mut mesh = Mesh::new(1, 1);
    let gate = mesh.hold::<Plain>(1);
    for line in 0..100 {
        mesh.tell_plain(1, noting::<Plain>(line));
    }
    mesh.settle();
    gate.open();
    // The turn ends in this poll, and others arrive.
    mesh.poll(0);
    let drained = take_notes().len();
    for line in 0..10 {
        mesh.tell_plain(2, noting::<Plain>(line));
    }
    while take_notes().iter().filter(|line| line.starts_with("2 ")).count() < 10 {
        let before = mesh.count(|stats| stats.turns);
        mesh.poll(0);
        assert!(mesh.count(|stats| stats.turns) > before);
        assert!(drained < 60, "the other's ten are done long before the hundred");
    }
    mesh.settle();
}

#[test]
fn system_records_run_before_the_next_user_record() {
    let mut mesh = Mesh::with(1, 64, &ShardConfig { turns_per_poll: 1024, ..config() }, 1);
    mesh.tell_plain(2, noting::<Plain>("here"));
    mesh.settle();
    for number in 0..2000 {
        mesh.tell_plain(
            1,
            tell(move |_, cx| {
                if number % 5 == 0 {
                    // Ended before the next record, which finds a new life.
                    assert!(cx.stop_entity::<Agent<Plain>>(2).is_ok());
                }
            }),
        );
        mesh.tell_plain(
            2,
            tell(move |agent, _| {
                agent.value += 1;
                if number % 5 == 0 {
                    assert_eq!(agent.value, 1, "record {number}");
                }
            }),
        );
    }
    mesh.settle();
    assert_eq!(mesh.count(|stats| stats.faults), 0);
    assert_eq!(mesh.count(|stats| stats.system), 400);
    take_notes();
}

#[test]
fn system_records_overtake_a_full_ring() {
    let slow = ShardConfig { turns_per_poll: 4, outbox_words_max: 4096, ..config() };
    let mut mesh = Mesh::with(2, RING_WORDS_MIN, &slow, 1);
    let (near, far) = (mesh.on(0, 0), mesh.on(1, 0));
    mesh.tell_plain(far, noting::<Plain>("first"));
    mesh.settle();
    // Ring and outbox to the other shard are full, then comes the system record.
    mesh.tell_plain(
        near,
        tell(move |_, cx| {
            while cx.entity::<Agent<Plain>>(far).message(Tick(0)).try_tell().is_ok() {}
            assert!(cx.stop_entity::<Agent<Plain>>(far).is_ok());
        }),
    );
    mesh.poll(0);
    take_notes();
    let mut polls = 0;
    while mesh.shards[1].stats().system == 0 {
        mesh.poll(0);
        mesh.poll(1);
        polls += 1;
    }
    let before = take_notes().len();
    assert!(before < 60, "{before} ticks of more than a thousand came before it");
    assert!(polls < 20);
    mesh.settle();
    assert!(take_notes().len() > 1000);
}

#[test]
fn turn_that_wakes_itself_for_ever_starves_nobody() {
    let mut mesh = Mesh::new(2, 1);
    let (a, b) = (mesh.on(0, 0), mesh.on(0, 1));
    let gate = Gate::new();
    for key in [a, b] {
        let end = gate.clone();
        mesh.tell_plain(
            key,
            tell(move |_, cx| {
                let _later = cx.interleave(async move |_: AsyncCx<Agent<Plain>>| {
                    let mut end = std::pin::pin!(end.passed());
                    std::future::poll_fn(|cx| {
                        cx.waker().wake_by_ref();
                        end.as_mut().poll(cx)
                    })
                    .await;
                });
            }),
        );
    }
    let polls = 100;
    for _ in 0..polls {
        mesh.poll(0);
        mesh.poll(1);
    }
    let woken = mesh.count(|stats| stats.tasks_woken);
    assert!(woken <= 2 * polls, "{woken}: once per poll each");
    let ask = mesh.try_ask::<Plain, _>(1, a, echo(3), 1000).ok().expect("room");
    for _ in 0..4 {
        mesh.poll(1);
        mesh.poll(0);
    }
    assert_eq!(outcome(ask), Some(Ok(3)));
    gate.open();
    mesh.settle();
    assert_eq!(mesh.async_turns(), 0);
}

#[test]
fn timers_that_are_due_at_once_do_not_hold_messages_up() {
    let mut mesh = Mesh::with(1, 64, &ShardConfig { turns_per_poll: 1024, ..config() }, 1);
    for key in 0..100 {
        mesh.tell_plain(
            key,
            tell(|_, cx| {
                for number in 0..300 {
                    assert!(cx.after(Duration::from_millis(5), Tick(number)).is_ok());
                }
            }),
        );
    }
    mesh.settle();
    let ask = mesh.ask::<Plain, _>(1000, echo(1));
    mesh.now.monotonic_ns += 10_000_000;
    mesh.poll(0);
    mesh.poll(0);
    assert_eq!(outcome(ask), Some(Ok(1)));
    assert!(mesh.timers() > 20_000, "a bounded number fires per poll");
    assert!(mesh.shards[0].next_deadline_ns().is_some_and(|due| due <= mesh.now.monotonic_ns));
    mesh.settle();
    assert_eq!((mesh.timers(), take_notes().len()), (0, 30_000));
}

#[test]
fn turns_of_many_entities_that_are_woken_together_all_go_on() {
    let mut mesh = Mesh::new(1, 1);
    let asks: Vec<_> = (0..1000)
        .map(|key| {
            mesh.ask::<Plain, _>(
                key,
                ask(move |_, cx| {
                    cx.run(async move |_: &mut Agent<Plain>, _: &mut AsyncCx<_>| {
                        for _ in 0..20 {
                            yield_now().await;
                        }
                        key
                    })
                }),
            )
        })
        .collect();
    mesh.settle();
    for (key, ask) in asks.into_iter().enumerate() {
        assert_eq!(outcome(ask), Some(Ok(key as u64)));
    }
}

#[test]
fn drain_of_async_turns_that_do_not_wait_lets_others_between() {
    let mut mesh = Mesh::with(1, 64, &ShardConfig { turns_per_poll: 1, ..config() }, 1);
    let gate = Gate::new();
    let held = gate.clone();
    mesh.tell_plain(
        1,
        tell(move |_, cx| {
            let _later = cx.run(async move |_, _| held.passed().await);
        }),
    );
    mesh.settle();
    for _ in 0..60 {
        mesh.tell_plain(
            1,
            tell(|_, cx| {
                let _later = cx.run(async move |_, _| note("own"));
            }),
        );
    }
    mesh.settle();
    gate.open();
    mesh.poll(0);
    let mut owns = 0;
    // As much of others as of its own, however long it takes.
    for _ in 0..55 {
        mesh.tell_plain(2, noting::<Plain>("other"));
        (0..2).for_each(|_| {
            mesh.poll(0);
        });
        owns += take_notes().iter().filter(|line| *line == "own").count();
    }
    assert!((50..=56).contains(&owns), "{owns} turns beside 55 of others");
    mesh.settle();
    assert_eq!(mesh.async_turns(), 0);
}
