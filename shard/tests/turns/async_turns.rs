//! An async turn holds its entity: nothing else has its turn before it ends, and what arrives
//! meanwhile waits in order.

use std::cell::RefCell;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use coreside_shard::{AskError, AsyncCx, Reason, ShardConfig};

use crate::agent::{Agent, Plain, Slow, Tick, Tight, ask, echo, look, noting, tell};
use crate::gate::{Gate, join, yield_now};
use crate::mesh::{Mesh, config};
use crate::notes::{note, outcome, take_notes};

/// A turn that notes its begin and end, and waits for the gate between.
fn through(gate: &Gate, number: u64) -> crate::agent::Ask<Plain> {
    let gate = gate.clone();
    ask(move |_, cx| {
        cx.run(async move |_, _| {
            note(format!("begin {number}"));
            gate.passed().await;
            note(format!("end {number}"));
            number
        })
    })
}

#[test]
fn async_turn_is_not_reentrant_and_what_waits_keeps_its_order() {
    let mut mesh = Mesh::new(1, 1);
    let gates = [Gate::new(), Gate::new()];
    let first = mesh.ask::<Plain, _>(1, through(&gates[0], 1));
    mesh.tell_plain(1, noting::<Plain>("a"));
    let second = mesh.ask::<Plain, _>(1, through(&gates[1], 2));
    mesh.tell_plain(1, noting::<Plain>("b"));
    mesh.settle();
    assert_eq!(take_notes(), ["begin 1"]);
    mesh.tell_plain(1, noting::<Plain>("c"));
    gates[0].open();
    mesh.settle();
    assert_eq!(take_notes(), ["end 1", "1 a", "begin 2"]);
    assert_eq!((outcome(first), outcome(second)), (Some(Ok(1)), None));
    mesh.tell_plain(1, noting::<Plain>("d"));
    gates[1].open();
    mesh.settle();
    assert_eq!(take_notes(), ["end 2", "1 b", "1 c", "1 d"]);
    assert_eq!(outcome(second), Some(Ok(2)));
    assert_eq!(mesh.async_turns(), 0);
}

#[test]
fn other_entities_go_on_while_one_waits() {
    let mut mesh = Mesh::new(1, 1);
    let gate = Gate::new();
    mesh.ask::<Plain, _>(1, through(&gate, 1));
    mesh.settle();
    assert_eq!(mesh.answer(2, echo(5)), Some(Ok(5)));
}

#[test]
fn messages_keep_their_order_through_the_stash_under_random_polling() {
    for seed in 1..=20 {
        let mut mesh = Mesh::new(3, seed);
        let (to, from) = (mesh.on(0, 0), mesh.on(1, 0));
        let mut expected = Vec::new();
        for round in 0..30 {
            // Every third message is an async turn that yields some times.
            let (yields, is_async) = (mesh.below(4), round % 3 == 0);
            let message = tell(move |agent, cx| {
                if !is_async {
                    return agent.list.push(round);
                }
                let _later = cx.run(async move |agent: &mut Agent<Plain>, _| {
                    for _ in 0..yields {
                        yield_now().await;
                    }
                    agent.list.push(round);
                });
            });
            mesh.tell_plain(
                from,
                tell(move |_, cx| {
                    assert!(cx.entity::<Agent<Plain>>(to).message(message).try_tell().is_ok());
                }),
            );
            expected.push(round);
            if mesh.below(2) == 0 {
                let shard = mesh.below(3) as usize;
                mesh.poll(shard);
            }
        }
        mesh.settle();
        mesh.tell_plain(to, tell(move |agent, _| note(format!("{:?}", agent.list))));
        mesh.settle();
        assert_eq!(take_notes(), [format!("{expected:?}")], "seed {seed}");
    }
}

#[test]
fn full_stash_refuses_and_says_so() {
    let mut mesh = Mesh::new(1, 1);
    let gate = mesh.hold::<Tight>(1);
    for line in 0..4 {
        mesh.tell::<Tight, _>(1, noting::<Tight>(line));
    }
    mesh.settle();
    let ask = mesh.ask::<Tight, _>(1, echo(1));
    mesh.tell::<Tight, _>(1, noting::<Tight>("lost"));
    mesh.settle();
    assert_eq!(outcome(ask), Some(Err(AskError::NotSent)));
    assert_eq!(mesh.shards[0].dead_letter_count(Reason::StashFull), 2);
    let asks: Vec<_> = mesh.shards[0].dead_letters().map(|letter| letter.is_ask()).collect();
    assert_eq!(asks, [true, false]);
    gate.open();
    mesh.settle();
    assert_eq!(take_notes(), ["1 0", "1 1", "1 2", "1 3"]);
    // The second letter can be sent again.
    let letter = mesh.shards[0].take_dead_letter(1).expect("two letters");
    mesh.shards[0].replay(letter, &mut ());
    assert_eq!(take_notes(), ["1 lost"]);
}

#[test]
fn answer_to_a_sync_ask_waits_for_the_async_turn_under_way() {
    let mut mesh = Mesh::new(2, 1);
    let (a, b) = (mesh.on(0, 0), mesh.on(1, 0));
    let gate = Gate::new();
    let held = gate.clone();
    mesh.tell_plain(
        a,
        tell(move |_, cx| {
            let asked = cx.entity::<Agent<Plain>>(b).message(echo(9)).ask(|_, answer, _| {
                note(format!("answer {answer:?}"));
            });
            assert!(asked.is_ok());
            let _later = cx.run(async move |_, _| {
                held.passed().await;
                note("turn over");
            });
        }),
    );
    mesh.tell_plain(a, noting::<Plain>("before"));
    mesh.settle();
    mesh.tell_plain(a, noting::<Plain>("after"));
    mesh.settle();
    assert!(take_notes().is_empty());
    gate.open();
    mesh.settle();
    let expected = [
        "turn over".to_owned(),
        format!("{a} before"),
        "answer Ok(9)".to_owned(),
        format!("{a} after"),
    ];
    assert_eq!(take_notes(), expected);
}

#[test]
fn several_asks_are_joined_inside_one_turn() {
    for seed in 1..=10 {
        let mut mesh = Mesh::new(3, seed);
        let a = mesh.on(0, 0);
        let others: Vec<u64> = (0..12).map(|i| mesh.on(i % 3, 1 + i / 3)).collect();
        let answer = mesh.answer(
            a,
            ask(move |_, cx| {
                cx.run(async move |_: &mut Agent<Plain>, cx: &mut AsyncCx<_>| {
                    let asks = others.iter().map(|other| {
                        let call = cx.entity::<Agent<Plain>>(*other).message(echo(*other));
                        Box::pin(async move { call.await.unwrap_or(0) }) as _
                    });
                    let asks = asks.collect();
                    let answers: Vec<u64> = join(asks).await;
                    assert_eq!(answers, others);
                    answers.len() as u64
                })
            }),
        );
        assert_eq!(answer, Some(Ok(12)), "seed {seed}");
        assert_eq!(mesh.async_turns(), 0);
    }
}

#[test]
fn sleep_is_never_early_and_at_most_two_ticks_late() {
    let mut mesh = Mesh::new(1, 1);
    for ms in [1u64, 7, 300, 700] {
        let began = mesh.at_ms();
        let ask = mesh.ask::<Plain, _>(
            1,
            ask(move |_, cx| {
                cx.run(async move |_: &mut Agent<Plain>, cx: &mut AsyncCx<_>| {
                    cx.sleep(Duration::from_millis(ms)).await;
                    cx.monotonic_ns() / 1_000_000
                })
            }),
        );
        mesh.wait_ms(ms + 4);
        let Some(Ok(ended)) = outcome(ask) else { panic!("{ms} ms: {:?}", outcome(ask)) };
        assert!((ms..=ms + 3).contains(&(ended - began)), "{} for {ms}", ended - began);
    }
}

#[test]
fn tell_waits_for_room() {
    let small = ShardConfig { queue_words_max: 4096, ..config() };
    let mut mesh = Mesh::with(1, 64, &small, 1);
    mesh.tell_plain(
        1,
        tell(move |_, cx| {
            // The run queue is full when the turn begins to tell.
            while cx.entity::<Agent<Plain>>(3).message(Tick(0)).try_tell().is_ok() {}
            let _later = cx.run(async move |agent: &mut Agent<Plain>, cx: &mut AsyncCx<_>| {
                assert!(
                    cx.entity::<Agent<Plain>>(2).message(Tick(0)).try_tell().is_err(),
                    "it is full"
                );
                for number in 0..5000 {
                    cx.entity::<Agent<Plain>>(2).message(Tick(number)).tell().await;
                }
                agent.value = 1;
            });
        }),
    );
    mesh.settle();
    let ticks: Vec<_> = take_notes().into_iter().filter(|line| line.starts_with("2 ")).collect();
    assert_eq!(ticks.len(), 5000, "none is lost");
    let number = |line: &String| line.split(' ').nth(2).and_then(|number| number.parse().ok());
    assert!(ticks.iter().map(number).eq((0..5000u64).map(Some)), "and all in order");
}

#[test]
fn many_tells_that_wait_for_room_do_not_multiply_the_polls() {
    let small = ShardConfig { queue_words_max: 4096, ..config() };
    let mut mesh = Mesh::with(1, 64, &small, 1);
    mesh.tell_plain(
        1,
        tell(move |_, cx| {
            while cx.entity::<Agent<Plain>>(3).message(Tick(0)).try_tell().is_ok() {}
            let _later = cx.run(async move |_: &mut Agent<Plain>, cx: &mut AsyncCx<_>| {
                let tells = (0..20).map(|number| {
                    let call = cx.entity::<Agent<Plain>>(2).message(Tick(number));
                    Box::pin(call.tell()) as _
                });
                join(tells.collect()).await;
            });
        }),
    );
    // Each poll makes room for a tell or two, or for none.
    for _ in 0..20 {
        let woken = mesh.count(|stats| stats.tasks_woken);
        mesh.poll(0);
        assert!(
            mesh.count(|stats| stats.tasks_woken) - woken <= 1,
            "one poll of the turn per poll"
        );
    }
    mesh.settle();
}

#[test]
fn two_turns_that_hold_the_state_cannot_be_begun_at_once() {
    let mut mesh = Mesh::new(1, 1);
    let answer = mesh.answer(
        1,
        ask(|_, cx| {
            let _first = cx.run(async move |_: &mut Agent<Plain>, _| {
                yield_now().await;
                1
            });
            cx.run(async move |_: &mut Agent<Plain>, _| 2)
        }),
    );
    assert_eq!(answer, Some(Err(AskError::Failed)), "the turn fails; the state is not shared");
    assert_eq!(mesh.async_turns(), 0);
}

#[test]
fn activation_may_take_its_time_while_messages_wait() {
    let mut mesh = Mesh::new(1, 1);
    let asks: Vec<_> = (0..5).map(|reply| mesh.ask::<Slow, _>(1, echo(reply))).collect();
    mesh.settle();
    assert!(asks.iter().all(|ask| outcome(*ask).is_none()));
    mesh.wait_ms(12);
    for (reply, ask) in asks.into_iter().enumerate() {
        assert_eq!(outcome(ask), Some(Ok(reply as u64)));
    }
}

#[test]
fn activation_that_finds_no_room_for_its_turn_does_not_lose_the_entity() {
    let one = ShardConfig { tasks_max: 1, ..config() };
    let mut mesh = Mesh::with(1, 64, &one, 1);
    let gate = Gate::new();
    mesh.ask::<Plain, _>(1, through(&gate, 1));
    mesh.settle();
    mesh.ask::<Slow, _>(1, echo(3));
    mesh.settle();
    gate.open();
    mesh.wait_ms(100);
    let ask = mesh.ask::<Slow, _>(1, echo(4));
    mesh.wait_ms(100);
    assert_eq!(outcome(ask), Some(Ok(4)), "the entity can be activated later");
}

#[test]
fn ask_for_an_async_turn_beyond_the_bound_was_not_sent() {
    let one = ShardConfig { tasks_max: 1, ..config() };
    let mut mesh = Mesh::with(1, 64, &one, 1);
    let gate = Gate::new();
    let first = mesh.ask::<Plain, _>(1, through(&gate, 1));
    mesh.settle();
    assert_eq!(mesh.answer(2, through(&gate, 2)), Some(Err(AskError::NotSent)));
    assert_eq!(mesh.answer(2, echo(1)), Some(Ok(1)), "its entity is free");
    gate.open();
    mesh.settle();
    assert_eq!(outcome(first), Some(Ok(1)));
}

#[test]
fn stop_inside_an_async_turn_ends_the_entity_behind_it() {
    let mut mesh = Mesh::new(1, 1);
    let gate = Gate::new();
    let held = gate.clone();
    let answer = mesh.ask::<Plain, _>(
        1,
        ask(move |agent, cx| {
            agent.value = 7;
            cx.run(async move |agent: &mut Agent<Plain>, cx: &mut AsyncCx<_>| {
                cx.stop();
                held.passed().await;
                agent.value
            })
        }),
    );
    let next = mesh.ask::<Plain, _>(1, ask(|agent, _| agent.value));
    mesh.settle();
    assert_eq!(mesh.shards[0].entities::<Agent<Plain>>(), 1);
    gate.open();
    mesh.wait_ms(2);
    assert_eq!(outcome(answer), Some(Ok(7)));
    assert_eq!(outcome(next), Some(Ok(0)), "what waited goes to a new life");
}

#[test]
fn read_turn_cannot_take_the_state_alone() {
    let mut mesh = Mesh::new(1, 1);
    let answer = mesh.answer(1, look(|_, cx| cx.run(async move |_, _| 1)));
    assert_eq!(answer, Some(Err(AskError::Failed)));
}

thread_local! {
    static HANDED_ON: RefCell<Option<Asked>> = RefCell::default();
}

type Asked = Pin<Box<dyn Future<Output = Result<u64, AskError>>>>;

#[test]
fn answer_finds_the_turn_that_waits_for_it_last() {
    let mut mesh = Mesh::new(1, 1);
    let gate = Gate::new();
    let held = gate.clone();
    mesh.tell_plain(
        1,
        tell(move |_, cx| {
            let _later = cx.interleave(async move |cx: AsyncCx<Agent<Plain>>| {
                let slow = ask(move |_, cx| {
                    cx.run(async move |_, _| {
                        held.passed().await;
                        7
                    })
                });
                let mut asked: Asked =
                    Box::pin(cx.entity::<Agent<Plain>>(2).message(slow).into_future());
                std::future::poll_fn(|context| {
                    assert!(asked.as_mut().poll(context).is_pending());
                    Poll::Ready(())
                })
                .await;
                HANDED_ON.set(Some(asked));
            });
        }),
    );
    mesh.settle();
    let other = mesh.ask::<Plain, _>(
        3,
        ask(|_, cx| {
            cx.run(async move |_: &mut Agent<Plain>, _: &mut AsyncCx<_>| {
                HANDED_ON.take().expect("it was handed on").await.unwrap_or(0)
            })
        }),
    );
    mesh.settle();
    gate.open();
    mesh.settle();
    assert_eq!(outcome(other), Some(Ok(7)));
}
