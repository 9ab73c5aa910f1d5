//! A panic in a future is a fault of its entity, whenever it comes; the asker is told, what waits
//! is not lost, and the shard goes on.

use coreside_shard::{AskError, AsyncCx};

use crate::agent::{self, Agent, Ask, Plain, Sort, Tight, Tough, ask, ask_of, echo, look, tell};
use crate::gate::{Gate, yield_now};
use crate::mesh::Mesh;
use crate::notes::{Witness, alive, outcome};

/// When a future panics.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Panics {
    FirstPoll,
    LaterPoll,
    DropWhenReady,
    DropWhenReadyLater,
    Err,
    ErrLater,
}

const ALL: [Panics; 6] = [
    Panics::FirstPoll,
    Panics::LaterPoll,
    Panics::DropWhenReady,
    Panics::DropWhenReadyLater,
    Panics::Err,
    Panics::ErrLater,
];

struct BadDrop(bool);

impl Drop for BadDrop {
    fn drop(&mut self) {
        assert!(!self.0, "told to, in a drop");
    }
}

fn failing<S: Sort>(when: Panics) -> Ask<S> {
    ask_of(move |_: &mut Agent<S>, cx| {
        let witness = Witness::new("future");
        let bad = BadDrop(matches!(when, Panics::DropWhenReady | Panics::DropWhenReadyLater));
        cx.run_fallible(async move |agent: &mut Agent<S>, _: &mut AsyncCx<_>| {
            let (_witness, _bad) = (witness, bad);
            agent.value += 1;
            if matches!(when, Panics::LaterPoll | Panics::DropWhenReadyLater | Panics::ErrLater) {
                yield_now().await;
                yield_now().await;
            }
            match when {
                Panics::FirstPoll | Panics::LaterPoll => panic!("told to"),
                Panics::Err | Panics::ErrLater => Err("told to"),
                _ => Ok(1),
            }
        })
    })
}

#[test]
fn fault_in_a_future_ends_its_turn_and_not_the_entitys_address() {
    for when in ALL {
        let mut mesh = Mesh::new(1, 1);
        let failed = mesh.ask::<Plain, _>(1, failing(when));
        let waits: Vec<_> = (0..3).map(|reply| mesh.ask::<Plain, _>(1, echo(reply))).collect();
        mesh.settle();
        assert_eq!(outcome(failed), Some(Err(AskError::Failed)), "{when:?}");
        assert_eq!((alive("future"), mesh.async_turns()), (0, 0), "{when:?}");
        mesh.wait_ms(20);
        for (reply, ask) in waits.into_iter().enumerate() {
            assert_eq!(outcome(ask), Some(Ok(reply as u64)), "{when:?}");
        }
        assert_eq!(mesh.answer(1, ask(|agent, _| agent.value)), Some(Ok(0)), "a new state");
        assert_eq!(mesh.shards[0].take_faults().count(), 1, "{when:?}");
    }
}

#[test]
fn entity_that_resumes_keeps_its_state_and_is_free() {
    for when in ALL {
        let mut mesh = Mesh::new(1, 1);
        let failed = mesh.ask::<Tough, _>(1, failing(when));
        let waits: Vec<_> = (0..3).map(|reply| mesh.ask::<Tough, _>(1, echo(reply))).collect();
        mesh.settle();
        assert_eq!(outcome(failed), Some(Err(AskError::Failed)), "{when:?}");
        for (reply, ask) in waits.into_iter().enumerate() {
            assert_eq!(outcome(ask), Some(Ok(reply as u64)), "{when:?}");
        }
        assert_eq!((alive("future"), mesh.async_turns()), (0, 0), "{when:?}");
        let value = mesh.ask::<Tough, _>(1, ask_of(|agent: &mut Agent<Tough>, _| agent.value));
        mesh.settle();
        assert_eq!(outcome(value), Some(Ok(1)), "{when:?}");
    }
}

#[test]
fn captured_value_whose_drop_panics_behind_the_answer_does_not_hold_the_entity() {
    // What the closure captured, not a local of the future: it goes when the future is dropped.
    for later in [false, true] {
        let mut mesh = Mesh::new(1, 1);
        let answered = mesh.ask::<Tough, _>(
            1,
            ask_of(move |_: &mut Agent<Tough>, cx| {
                let bad = BadDrop(true);
                cx.interleave(async move |_: AsyncCx<Agent<Tough>>| {
                    let _keep = &bad;
                    if later {
                        yield_now().await;
                    }
                    1
                })
            }),
        );
        mesh.settle();
        assert!(outcome(answered).is_some());
        assert_eq!(mesh.async_turns(), 0, "later {later}");
        let next = mesh.ask::<Tough, _>(1, echo(2));
        mesh.settle();
        assert_eq!(outcome(next), Some(Ok(2)));
    }
}

#[test]
fn read_that_panics_ends_those_beside_it_with_the_life() {
    let mut mesh = Mesh::new(1, 1);
    let gate = Gate::new();
    let held = gate.clone();
    let beside = mesh.ask::<Plain, _>(
        1,
        look(move |_, cx| {
            let witness = Witness::new("future");
            cx.run_read(async move |_: &Agent<Plain>, _: &mut AsyncCx<_>| {
                let _witness = witness;
                held.passed().await;
                1
            })
        }),
    );
    let failed = mesh.ask::<Plain, _>(
        1,
        look(|_, cx| {
            cx.run_read(async move |_: &Agent<Plain>, _: &mut AsyncCx<_>| {
                yield_now().await;
                panic!("told to")
            })
        }),
    );
    mesh.settle();
    assert_eq!(outcome(failed), Some(Err(AskError::Failed)));
    assert_eq!((alive("future"), mesh.async_turns()), (0, 0));
    mesh.settle();
    assert_eq!(outcome(beside), Some(Err(AskError::Failed)), "told at once");
    mesh.wait_ms(20);
    assert_eq!(mesh.answer(1, echo(1)), Some(Ok(1)));
}

#[test]
fn context_used_outside_of_its_turn_is_a_fault_and_nothing_else() {
    thread_local! {
        static CX: std::cell::RefCell<Option<AsyncCx<Agent<Plain>>>> = const {
            std::cell::RefCell::new(None)
        };
    }
    let mut mesh = Mesh::new(1, 1);
    mesh.tell_plain(
        1,
        tell(|_, cx| {
            let _later = cx.interleave(async move |cx: AsyncCx<Agent<Plain>>| CX.set(Some(cx)));
        }),
    );
    mesh.settle();
    let answer = mesh.answer(
        2,
        ask(|_, _| {
            CX.with_borrow(|cx| {
                let used = std::panic::catch_unwind(|| cx.as_ref().map(AsyncCx::monotonic_ns));
                u64::from(used.is_err())
            })
        }),
    );
    assert_eq!(answer, Some(Ok(1)));
    CX.take();
}

#[test]
fn messages_whose_drops_panic_are_dropped_with_their_shard_wherever_they_wait() {
    let mut mesh = Mesh::new(1, 1);
    let _closed = mesh.hold::<Tight>(1);
    // Four wait in the stash, the others are dead letters.
    for _ in 0..8 {
        mesh.tell::<Tight, _>(1, agent::BadDrop);
    }
    mesh.settle();
    assert_eq!(mesh.shards[0].dead_letters().count(), 4);
    mesh.tell::<Tight, _>(1, agent::BadDrop);
    drop(mesh);
    assert_eq!(alive("state"), 0);
}
