//! An interleaved turn holds nothing while it waits, and reaches the state when nobody else has it.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use coreside_shard::{AskError, AsyncCx};

use crate::agent::{Agent, Plain, Tough, ask, ask_of, echo, noting, tell, tell_of};
use crate::gate::{Gate, yield_now};
use crate::mesh::Mesh;
use crate::notes::{Witness, alive, note, outcome, take_notes};

#[test]
fn entity_goes_on_with_its_messages_during_an_interleaved_turn() {
    let mut mesh = Mesh::new(1, 1);
    let gate = Gate::new();
    let held = gate.clone();
    let answer = mesh.ask::<Plain, _>(
        1,
        ask(move |_, cx| {
            cx.interleave(async move |cx: AsyncCx<Agent<Plain>>| {
                cx.with(|agent| agent.value = 1).await;
                held.passed().await;
                cx.with(|agent| agent.value).await
            })
        }),
    );
    mesh.tell_plain(1, tell(|agent, _| agent.value += 41));
    mesh.settle();
    assert_eq!(mesh.answer(1, ask(|agent, _| agent.value)), Some(Ok(42)));
    gate.open();
    mesh.settle();
    assert_eq!(outcome(answer), Some(Ok(42)));
}

#[test]
fn with_waits_for_the_exclusive_turn_and_comes_before_what_waits() {
    let mut mesh = Mesh::new(1, 1);
    let (gate, second) = (Gate::new(), Gate::new());
    let (held, held_too) = (gate.clone(), second.clone());
    mesh.tell_plain(
        1,
        tell(|_, cx| {
            let _later = cx.interleave(async move |cx: AsyncCx<Agent<Plain>>| {
                cx.sleep(Duration::from_millis(5)).await;
                cx.with(|agent| note(format!("with {}", agent.value))).await;
            });
        }),
    );
    mesh.tell_plain(
        1,
        tell(move |_, cx| {
            let _later = cx.run(async move |agent: &mut Agent<Plain>, _| {
                agent.value = 1;
                held.passed().await;
                agent.value = 2;
            });
        }),
    );
    mesh.tell_plain(
        1,
        tell(move |_, cx| {
            let _later = cx.run(async move |agent: &mut Agent<Plain>, _| {
                note("second");
                held_too.passed().await;
                agent.value = 3;
            });
        }),
    );
    mesh.wait_ms(10);
    assert!(take_notes().is_empty(), "the state is held");
    gate.open();
    mesh.settle();
    // However many turns wait in the stash, the interleaved one is not starved by them.
    assert_eq!(take_notes(), ["with 2", "second"]);
    second.open();
    mesh.settle();
    assert_eq!(mesh.async_turns(), 0);
}

thread_local! {
    static SMUGGLED: RefCell<Option<Pin<Box<dyn Future<Output = ()>>>>> = RefCell::default();
}

fn poll_smuggled() -> Option<Poll<()>> {
    let mut future = SMUGGLED.take()?;
    let poll = future.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    SMUGGLED.set(Some(future));
    Some(poll)
}

#[test]
fn with_inside_of_with_gets_nothing_to_alias() {
    let mut mesh = Mesh::new(1, 1);
    let answer = mesh.answer(
        1,
        ask(|_, cx| {
            cx.interleave(async move |cx: AsyncCx<Agent<Plain>>| {
                let cx = std::rc::Rc::new(cx);
                let inner = std::rc::Rc::clone(&cx);
                SMUGGLED.set(Some(Box::pin(async move {
                    inner.with(|agent| agent.value = 13).await;
                })));
                cx.with(|agent| {
                    assert_eq!(poll_smuggled(), Some(Poll::Pending), "the state is lent already");
                    agent.value
                })
                .await
            })
        }),
    );
    assert_eq!(answer, Some(Ok(0)));
    SMUGGLED.take();
    mesh.settle();
}

#[test]
fn with_of_another_turn_panics_inside_of_an_exclusive_one() {
    let mut mesh = Mesh::new(1, 1);
    mesh.tell::<Tough, _>(
        1,
        tell_of(|_: &mut Agent<Tough>, cx| {
            let _later = cx.interleave(async move |cx: AsyncCx<Agent<Tough>>| {
                SMUGGLED.set(Some(Box::pin(async move {
                    cx.with(|agent| agent.value = 13).await;
                })));
            });
        }),
    );
    mesh.settle();
    let answer = mesh.ask::<Tough, _>(
        1,
        ask_of(|_: &mut Agent<Tough>, cx| {
            cx.run(async move |agent: &mut Agent<Tough>, _| {
                let poll = std::panic::catch_unwind(poll_smuggled);
                assert!(poll.is_err(), "told to: no second way to the state");
                agent.value
            })
        }),
    );
    mesh.settle();
    assert_eq!(outcome(answer), Some(Ok(0)));
    SMUGGLED.take();
}

#[test]
fn interleaved_turn_ends_with_the_life_it_belongs_to() {
    let mut mesh = Mesh::new(1, 1);
    let gate = Gate::new();
    let held = gate.clone();
    let left = mesh.ask::<Plain, _>(
        1,
        ask(move |_, cx| {
            let witness = Witness::new("future");
            cx.interleave(async move |cx: AsyncCx<Agent<Plain>>| {
                let _witness = witness;
                held.passed().await;
                cx.with(|_| note("reached")).await;
                1
            })
        }),
    );
    mesh.settle();
    assert_eq!(alive("future"), 1);
    mesh.tell_plain(1, tell(|_, _| panic!("told to")));
    mesh.settle();
    assert_eq!(alive("future"), 0, "dropped with the life");
    gate.open();
    mesh.wait_ms(50);
    assert_eq!(mesh.answer(1, echo(1)), Some(Ok(1)));
    assert!(take_notes().is_empty(), "no turn of an earlier life reaches the state");
    mesh.jump_ms(2000);
    assert!(matches!(outcome(left), Some(Err(_))), "its asker is not left alone");
}

#[test]
fn turns_begun_beside_one_that_fails_end_with_it() {
    let mut mesh = Mesh::new(1, 1);
    let answer = mesh.ask::<Plain, _>(
        1,
        ask(|_, cx| {
            let witness = Witness::new("future");
            let _beside = cx.interleave(async move |cx: AsyncCx<Agent<Plain>>| {
                let _witness = witness;
                cx.with(|_| note("reached")).await;
            });
            cx.run_fallible(async move |_: &mut Agent<Plain>, _: &mut AsyncCx<_>| {
                Err::<u64, _>("told to")
            })
        }),
    );
    mesh.settle();
    assert_eq!(outcome(answer), Some(Err(AskError::Failed)));
    mesh.wait_ms(100);
    assert_eq!((alive("future"), mesh.async_turns()), (0, 0));
    assert!(take_notes().is_empty(), "its life was over");
}

#[test]
fn panic_inside_of_with_is_a_fault_of_the_entity() {
    let mut mesh = Mesh::new(1, 1);
    let answer = mesh.ask::<Tough, _>(
        1,
        ask_of(|_: &mut Agent<Tough>, cx| {
            cx.interleave(async move |cx: AsyncCx<Agent<Tough>>| {
                yield_now().await;
                cx.with(|agent| {
                    agent.value = 5;
                    panic!("told to")
                })
                .await
            })
        }),
    );
    mesh.settle();
    assert_eq!(outcome(answer), Some(Err(AskError::Failed)));
    let value = mesh.ask::<Tough, _>(1, ask_of(|agent: &mut Agent<Tough>, _| agent.value));
    mesh.settle();
    assert_eq!(outcome(value), Some(Ok(5)), "it resumes, and is not held any more");
}

#[test]
fn many_interleaved_turns_of_one_entity_each_get_the_state() {
    for seed in 1..=10 {
        let mut mesh = Mesh::new(2, seed);
        let (a, b) = (mesh.on(0, 0), mesh.on(1, 0));
        for number in 0..50 {
            mesh.tell_plain(
                a,
                tell(move |_, cx| {
                    let _later = cx.interleave(async move |cx: AsyncCx<Agent<Plain>>| {
                        let reply = cx.entity::<Agent<Plain>>(b).message(echo(number)).await;
                        cx.with(|agent| agent.list.push(reply.unwrap_or(999))).await;
                    });
                }),
            );
            if number % 5 == 0 {
                mesh.tell_plain(
                    a,
                    tell(move |_, cx| {
                        let _later = cx.run(async move |_, _| yield_now().await);
                    }),
                );
            }
        }
        mesh.settle();
        mesh.tell_plain(
            a,
            tell(|agent, _| {
                agent.list.sort_unstable();
                assert!(agent.list.iter().copied().eq(0..50));
                note("all");
            }),
        );
        mesh.tell_plain(a, noting::<Plain>("done"));
        mesh.settle();
        assert_eq!(take_notes(), ["all".to_owned(), format!("{a} done")], "seed {seed}");
    }
}
