//! Beyond their bounds queues say so. Shards whose rings are full both ways go on, and nothing is
//! lost, doubled, or kept without bound.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use coreside_shard::{AskError, AsyncCx, Reason, ReplyTo, ShardConfig};

use crate::agent::{Agent, Plain, Tell, ask, echo, tell};
use crate::gate::{Gate, join};
use crate::mesh::{MS, Mesh, config};
use crate::notes::{alive, outcome};
use crate::shards::RING_WORDS_MIN;

/// The smallest bounds there are.
fn tiny() -> ShardConfig {
    ShardConfig {
        queue_words_max: 4096,
        outbox_words_max: 4096,
        asks_max: 512,
        turns_per_poll: 8,
        // It takes long, and is no matter of time.
        ask_timeout_ns: 1 << 50,
        ..config()
    }
}

thread_local! {
    static DONE: Cell<u64> = const { Cell::new(0) };
}

/// Tells `to`, and waits for the room that it takes.
fn flood(targets: Vec<u64>, messages: u64) -> Tell<Plain> {
    tell(move |_, cx| {
        let _later = cx.interleave(async move |cx: AsyncCx<Agent<Plain>>| {
            for number in 0..messages {
                let to = targets[(number % targets.len() as u64) as usize];
                let counted = tell(move |agent, _| {
                    agent.value += 1;
                    DONE.set(DONE.get() + 1);
                });
                cx.entity::<Agent<Plain>>(to).message(counted).tell().await;
            }
        });
    })
}

#[test]
fn tells_from_all_to_all_through_the_smallest_rings_all_arrive() {
    for seed in 1..=5 {
        DONE.set(0);
        let mut mesh = Mesh::with(3, RING_WORDS_MIN, &tiny(), seed);
        let keys: Vec<u64> = (0..12).map(|nth| mesh.on(nth % 3, nth / 3)).collect();
        for key in &keys {
            mesh.tell_plain(*key, flood(keys.clone(), 1008));
        }
        mesh.settle();
        assert_eq!((DONE.get(), mesh.async_turns()), (12 * 1008, 0), "seed {seed}");
        for key in keys {
            assert_eq!(mesh.answer(key, ask(|agent, _| agent.value)), Some(Ok(1008)));
        }
    }
}

#[test]
fn asks_from_all_to_all_through_the_smallest_rings_all_end() {
    for seed in 1..=5 {
        let mut mesh = Mesh::with(2, RING_WORDS_MIN, &tiny(), seed);
        let keys: Vec<u64> = (0..8).map(|nth| mesh.on(nth % 2, nth / 2)).collect();
        let mut asks = Vec::new();
        for round in 0..5 {
            for key in keys.clone() {
                let targets = keys.clone();
                // Interleaved, so that entities answer while they ask.
                asks.push(mesh.ask_within::<Plain, _>(
                    key,
                    ask(move |_, cx| {
                        cx.interleave(async move |cx: AsyncCx<Agent<Plain>>| {
                            let cx = std::rc::Rc::new(cx);
                            let asks = (0..40).map(|number| {
                                let to = targets[(number + round) % targets.len()];
                                let cx = std::rc::Rc::clone(&cx);
                                Box::pin(async move {
                                    loop {
                                        let call = cx.entity::<Agent<Plain>>(to).message(echo(1));
                                        match call.await {
                                            Ok(answer) => return answer,
                                            // Nothing was done: there was no room.
                                            Err(AskError::NotSent) => {
                                                crate::gate::yield_now().await
                                            }
                                            Err(error) => panic!("{error}"),
                                        }
                                    }
                                }) as _
                            });
                            join(asks.collect()).await.into_iter().sum()
                        })
                    }),
                    1 << 30,
                ));
            }
        }
        mesh.settle();
        assert!(asks.into_iter().all(|ask| outcome(ask) == Some(Ok(40))), "seed {seed}");
        assert_eq!(mesh.shards.iter().map(|shard| shard.asks_waiting()).sum::<usize>(), 0);
    }
}

#[test]
fn full_ways_refuse_senders_and_keep_to_their_bounds() {
    let mut mesh = Mesh::with(2, RING_WORDS_MIN, &tiny(), 1);
    let far = mesh.on(1, 0);
    let mut told = 0u64;
    // The other shard is never polled.
    while mesh.shards[0].tell::<Agent<Plain>, _>(far, flood(vec![far], 0)).is_ok() {
        told += 1;
        assert!(told < 10_000, "there is a bound");
    }
    assert!(told >= 1000);
    mesh.poll(0);
    assert!(mesh.shards[0].is_congested());
    mesh.settle();
    assert_eq!(mesh.count(|stats| stats.received), told, "what was taken is delivered");
}

#[test]
fn asks_beyond_their_bound_are_refused_and_the_rest_answered() {
    let mut mesh = Mesh::with(1, 64, &ShardConfig { asks_max: 10, ..config() }, 1);
    let gate = mesh.hold::<Plain>(1);
    let asks: Vec<_> = (0..20).map(|_| mesh.try_ask::<Plain, _>(0, 1, echo(1), 1000)).collect();
    assert_eq!(asks.iter().filter(|ask| ask.is_ok()).count(), 10);
    mesh.settle();
    gate.open();
    mesh.settle();
    assert!(asks.into_iter().flatten().all(|ask| outcome(ask) == Some(Ok(1))));
}

#[test]
fn every_message_is_handled_or_counted_under_overload() {
    // Busy entities, full stashes, full queues: told = handled + dead letters, per entity in order.
    for seed in 1..=10 {
        DONE.set(0);
        let mut mesh = Mesh::with(2, RING_WORDS_MIN, &tiny(), seed);
        let keys: Vec<u64> = (0..6).map(|nth| mesh.on(nth % 2, nth / 2)).collect();
        let (mut told, mut last) = (0, BTreeMap::new());
        for number in 1..4000u64 {
            let key = keys[mesh.below(6) as usize];
            let holds = mesh.below(4) == 0;
            let message = tell(move |agent: &mut Agent<Plain>, cx| {
                assert!(agent.value < number, "in order");
                agent.value = number;
                DONE.set(DONE.get() + 1);
                if holds {
                    let _later = cx.run(async move |_: &mut Agent<Plain>, _: &mut AsyncCx<_>| {
                        crate::gate::yield_now().await;
                    });
                }
            });
            // Each entity has one sender.
            let home = mesh.home(key);
            if mesh.shards[1 - home].tell::<Agent<Plain>, _>(key, message).is_ok() {
                told += 1;
                last.insert(key, number);
            }
            if mesh.below(40) == 0 {
                let shard = mesh.below(2) as usize;
                mesh.poll(shard);
            }
        }
        mesh.settle();
        let dead = |shard: &coreside_shard::Shard| {
            Reason::ALL.iter().map(|reason| shard.dead_letter_count(*reason)).sum::<u64>()
        };
        let dead: u64 = mesh.shards.iter().map(dead).sum();
        assert_eq!(told, DONE.get() + dead, "seed {seed}");
        assert_eq!(mesh.count(|stats| stats.faults), 0);
        drop(mesh);
        assert_eq!(alive("state"), 0);
    }
}

thread_local! {
    static PUT_OFF: RefCell<Vec<ReplyTo<u64>>> = RefCell::default();
}

#[test]
fn replies_put_off_beyond_their_deadlines_do_not_go_beyond_the_bounds() {
    let mut mesh = Mesh::with(2, RING_WORDS_MIN, &tiny(), 1);
    let far = mesh.on(1, 0);
    let (rounds, asks) = (20u64, 500u64);
    for _ in 0..rounds {
        for _ in 0..asks {
            let put_off = ask(|_, cx| {
                let (later, to) = cx.later::<u64>();
                PUT_OFF.with_borrow_mut(|kept| kept.push(to));
                later
            });
            assert!(mesh.try_ask::<Plain, _>(0, far, put_off, 5).is_ok());
        }
        mesh.wait_ms(10);
        (0..4).for_each(|_| mesh.settle());
    }
    assert_eq!(mesh.shards[0].asks_waiting(), 0);
    let waits = mesh.try_ask::<Plain, _>(0, far, echo(1), 5).ok().expect("room");
    mesh.tell_plain(far, tell(|_, cx| PUT_OFF.take().into_iter().for_each(|to| cx.reply(to, 1))));
    mesh.poll(0);
    // The other shard is not polled meanwhile.
    (0..50).for_each(|_| {
        mesh.poll(1);
    });
    mesh.settle();
    let (near, far) = (mesh.shards[0].stats().answers_late, mesh.shards[1].stats().answers_late);
    assert_eq!(near + far, rounds * asks, "each is counted");
    assert!((1..=4200 / 3).contains(&near), "{near} went beyond the bound");
    assert_eq!(outcome(waits), Some(Ok(1)), "and who waits has room");
}

#[test]
fn word_to_asks_that_have_ended_does_not_go_beyond_the_bounds() {
    let mut mesh = Mesh::with(2, RING_WORDS_MIN, &ShardConfig { asks_max: 6000, ..tiny() }, 1);
    let busy: Vec<u64> = (0..60).map(|nth| mesh.on(1, nth)).collect();
    let gates: Vec<_> = busy.iter().map(|key| mesh.hold::<Plain>(*key)).collect();
    mesh.settle();
    for keys in busy.chunks(4) {
        for nth in 0..400 {
            assert!(mesh.try_ask::<Plain, _>(0, keys[nth % 4], echo(1), 1000).is_ok());
        }
        mesh.settle();
    }
    // They end where they were asked, and only then, at once, where they wait.
    mesh.now.monotonic_ns += 2000 * MS;
    (0..10).for_each(|_| {
        mesh.poll(0);
    });
    assert_eq!(mesh.shards[0].asks_waiting(), 0);
    (0..2000).for_each(|_| {
        mesh.poll(1);
    });
    mesh.settle();
    gates.iter().for_each(Gate::open);
    mesh.settle();
    assert_eq!(mesh.shards[1].dead_letter_count(Reason::Expired), 6000);
    let (near, far) = (mesh.shards[0].stats().answers_late, mesh.shards[1].stats().answers_late);
    assert_eq!(near + far, 6000, "each is counted");
    assert!((1..=4200 / 2).contains(&near), "{near} went beyond the bound");
}
