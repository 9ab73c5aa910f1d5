//! When an asker's deadline passes, or a life ends, an async turn ends where it waits: its future
//! is dropped once, and its entity is free.

use std::time::Duration;

use coreside_shard::{AskError, AsyncCx};

use crate::agent::{Agent, Ask, Plain, Tough, ask, ask_of, echo, look, noting, tell};
use crate::gate::Gate;
use crate::mesh::Mesh;
use crate::notes::{Witness, alive, note, outcome, take_notes};

/// A turn that holds the state until the gate opens.
fn hold(gate: &Gate) -> Ask<Plain> {
    let gate = gate.clone();
    ask(move |_, cx| {
        let captured = Witness::new("future");
        cx.run(async move |agent: &mut Agent<Plain>, _| {
            let _captured = captured;
            let _local = Witness::new("future");
            agent.value += 1;
            gate.passed().await;
            note("reached");
            agent.value
        })
    })
}

#[test]
fn deadline_of_the_asker_ends_the_turn_and_frees_the_entity() {
    let mut mesh = Mesh::new(2, 1);
    let far = mesh.on(1, 0);
    let gate = Gate::new();
    let late = mesh.try_ask::<Plain, _>(0, far, hold(&gate), 20).ok().expect("room");
    mesh.settle();
    mesh.tell_plain(far, noting::<Plain>("next"));
    mesh.wait_ms(15);
    assert_eq!((alive("future"), take_notes().len()), (2, 0));
    mesh.wait_ms(10);
    assert_eq!(outcome(late), Some(Err(AskError::MaybeExecuted)));
    assert_eq!((alive("future"), mesh.async_turns()), (0, 0));
    assert_eq!(mesh.count(|stats| stats.turns_cancelled), 1);
    assert_eq!(take_notes(), [format!("{far} next")]);
    gate.open();
    mesh.settle();
    assert_eq!(mesh.answer(far, ask(|agent, _| agent.value)), Some(Ok(1)), "its state is kept");
    assert!(take_notes().is_empty());
}

#[test]
fn turn_that_nobody_asked_for_has_no_deadline() {
    let mut mesh = Mesh::new(1, 1);
    let gate = Gate::new();
    let held = gate.clone();
    mesh.tell_plain(
        1,
        tell(move |_, cx| {
            let _later = cx.run(async move |_: &mut Agent<Plain>, cx: &mut AsyncCx<_>| {
                assert_eq!(cx.deadline_ns(), None);
                held.passed().await;
                note("reached");
            });
        }),
    );
    mesh.settle();
    mesh.jump_ms(3_600_000);
    gate.open();
    mesh.settle();
    assert_eq!(take_notes(), ["reached"]);
}

#[test]
fn read_and_interleaved_turn_are_cancelled_too() {
    let mut mesh = Mesh::new(1, 1);
    let gate = Gate::new();
    let (held, held_too) = (gate.clone(), gate.clone());
    mesh.ask_within::<Plain, _>(
        1,
        look(move |_, cx| {
            let witness = Witness::new("future");
            cx.run_read(async move |_: &Agent<Plain>, _: &mut AsyncCx<_>| {
                let _witness = witness;
                held.passed().await;
                1
            })
        }),
        10,
    );
    mesh.ask_within::<Plain, _>(
        2,
        ask(move |_, cx| {
            let witness = Witness::new("future");
            cx.interleave(async move |_: AsyncCx<Agent<Plain>>| {
                let _witness = witness;
                held_too.passed().await;
                1
            })
        }),
        10,
    );
    let write = mesh.ask::<Plain, _>(1, echo(1));
    mesh.settle();
    assert_eq!((alive("future"), outcome(write)), (2, None));
    mesh.wait_ms(15);
    assert_eq!((alive("future"), outcome(write)), (0, Some(Ok(1))));
    assert_eq!(mesh.count(|stats| stats.turns_cancelled), 2);
}

#[test]
fn one_read_of_several_is_cancelled_and_the_others_stay() {
    let mut mesh = Mesh::new(1, 1);
    let gate = Gate::new();
    let read = |gate: &Gate| {
        let gate = gate.clone();
        look(move |_, cx| {
            cx.run_read(async move |_: &Agent<Plain>, _: &mut AsyncCx<_>| {
                gate.passed().await;
                1
            })
        })
    };
    mesh.ask_within::<Plain, _>(1, read(&gate), 10);
    let stays = mesh.ask::<Plain, _>(1, read(&gate));
    let write = mesh.ask::<Plain, _>(1, echo(2));
    mesh.wait_ms(15);
    assert_eq!((mesh.async_turns(), outcome(write)), (1, None), "it is still read");
    gate.open();
    mesh.settle();
    assert_eq!((outcome(stays), outcome(write)), (Some(Ok(1)), Some(Ok(2))));
}

#[test]
fn deadline_ends_the_turns_of_a_whole_chain() {
    for seed in 1..=5 {
        let mut mesh = Mesh::new(3, seed);
        let (a, b, c) = (mesh.on(0, 0), mesh.on(1, 0), mesh.on(2, 0));
        let gate = Gate::new();
        let last = hold(&gate);
        let ask = mesh.ask_within::<Plain, _>(
            a,
            ask(move |_, cx| {
                cx.run(async move |_: &mut Agent<Plain>, cx: &mut AsyncCx<_>| {
                    let middle = ask(move |_, cx| {
                        cx.run(async move |_: &mut Agent<Plain>, cx: &mut AsyncCx<_>| {
                            cx.entity::<Agent<Plain>>(c).message(last).await.unwrap_or(0)
                        })
                    });
                    cx.entity::<Agent<Plain>>(b).message(middle).await.unwrap_or(0)
                })
            }),
            30,
        );
        mesh.wait_ms(10);
        assert_eq!(mesh.async_turns(), 3);
        mesh.wait_ms(30);
        assert_eq!((mesh.async_turns(), alive("future")), (0, 0), "seed {seed}");
        assert!(matches!(outcome(ask), Some(Err(_) | Ok(0))));
        for key in [a, b, c] {
            assert_eq!(mesh.answer(key, echo(1)), Some(Ok(1)));
        }
    }
}

#[test]
fn answer_to_a_cancelled_turn_finds_nobody() {
    let mut mesh = Mesh::new(1, 1);
    let gate = Gate::new();
    let slow = hold(&gate);
    mesh.ask_within::<Plain, _>(
        1,
        ask(move |_, cx| {
            cx.run(async move |_: &mut Agent<Plain>, cx: &mut AsyncCx<_>| {
                // The one who is asked has no deadline of its own.
                let call = cx.entity::<Agent<Plain>>(2).message(slow);
                call.await.unwrap_or(0)
            })
        }),
        10,
    );
    mesh.wait_ms(5);
    mesh.tell_plain(1, tell(|_, _| panic!("told to")));
    mesh.wait_ms(15);
    gate.open();
    mesh.wait_ms(20);
    assert_eq!(mesh.async_turns(), 0);
    assert_eq!(mesh.answer(1, echo(1)), Some(Ok(1)));
}

#[test]
fn sleep_that_is_dropped_takes_its_timer_along() {
    let mut mesh = Mesh::new(1, 1);
    let ask = mesh.ask::<Plain, _>(
        1,
        ask(|_, cx| {
            cx.run(async move |_: &mut Agent<Plain>, cx: &mut AsyncCx<_>| {
                let mut long = Box::pin(cx.sleep(Duration::from_secs(100)));
                std::future::poll_fn(|task| {
                    let _ = long.as_mut().poll(task);
                    std::task::Poll::Ready(())
                })
                .await;
                drop(long);
                1
            })
        }),
    );
    mesh.settle();
    assert_eq!(outcome(ask), Some(Ok(1)));
    assert_eq!(mesh.shards[0].next_deadline_ns(), None, "nothing is left to wait for");
}

#[test]
fn futures_are_dropped_once_with_their_shard() {
    let mut mesh = Mesh::new(2, 1);
    let gate = Gate::new();
    for key in 0..20 {
        mesh.ask::<Plain, _>(key, hold(&gate));
        // One waits for the answer of another one.
        let inner = hold(&gate);
        mesh.tell_plain(
            100 + key,
            tell(move |_, cx| {
                let witness = Witness::new("future");
                let _later = cx.interleave(async move |cx: AsyncCx<Agent<Plain>>| {
                    let _witness = witness;
                    cx.sleep(Duration::from_millis(1)).await;
                    let _ = cx.entity::<Agent<Plain>>(200 + key).message(inner).await;
                });
            }),
        );
    }
    mesh.wait_ms(5);
    assert_eq!(alive("future"), 20 * 2 + 20 + 20 * 2);
    drop(mesh);
    assert_eq!((alive("future"), alive("state")), (0, 0));
    gate.open();
}

struct BadDrop;

impl Drop for BadDrop {
    fn drop(&mut self) {
        panic!("told to, in a drop");
    }
}

#[test]
fn panic_in_the_drop_of_a_cancelled_future_is_contained() {
    let mut mesh = Mesh::new(1, 1);
    let gate = Gate::new();
    let held = gate.clone();
    mesh.ask_within::<Tough, _>(
        1,
        ask_of(move |_: &mut Agent<Tough>, cx| {
            cx.run(async move |_: &mut Agent<Tough>, _| {
                let _bad = BadDrop;
                held.passed().await;
                1
            })
        }),
        10,
    );
    mesh.wait_ms(15);
    let next = mesh.ask::<Tough, _>(1, echo(2));
    mesh.settle();
    assert_eq!(outcome(next), Some(Ok(2)), "its entity is free");
    assert_eq!(mesh.count(|stats| stats.faults), 1);
}

#[test]
fn sleep_of_a_turn_that_ended_leaves_no_timer() {
    let day = Duration::from_secs(86_400);
    let sleeps = move || {
        ask(move |_, cx| {
            cx.interleave(async move |cx: AsyncCx<Agent<Plain>>| {
                cx.sleep(day).await;
                0
            })
        })
    };
    // Its asker waits no longer.
    let mut mesh = Mesh::new(1, 1);
    mesh.ask_within::<Plain, _>(1, sleeps(), 5);
    mesh.wait_ms(10);
    assert_eq!(mesh.shards[0].next_deadline_ns(), None, "cancelled");
    // Its entity ends.
    mesh.ask_within::<Plain, _>(1, sleeps(), 1 << 40);
    mesh.settle();
    assert!(mesh.shards[0].next_deadline_ns().is_some());
    mesh.tell_plain(1, tell(|_, cx| cx.stop()));
    mesh.settle();
    assert_eq!(mesh.shards[0].next_deadline_ns(), None, "ended");
    // It panics while a part of it sleeps.
    mesh.ask::<Tough, _>(
        1,
        ask_of(move |_: &mut Agent<Tough>, cx| {
            cx.run(async move |_: &mut Agent<Tough>, cx: &mut AsyncCx<_>| {
                let mut sleep = std::pin::pin!(cx.sleep(day));
                std::future::poll_fn(|context| {
                    assert!(sleep.as_mut().poll(context).is_pending());
                    panic!("told to")
                })
                .await
            })
        }),
    );
    mesh.settle();
    assert_eq!(mesh.shards[0].next_deadline_ns(), None, "panicked");
}
