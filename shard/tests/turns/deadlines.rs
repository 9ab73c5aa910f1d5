//! Every ask ends, at the latest at its deadline; what is asked on its behalf inherits it; and what
//! is late is not done.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use coreside_shard::{AskError, AsyncCx, Cx, Reason, ShardConfig};

use crate::agent::{Agent, Ask, Plain, ask, echo, noting, tell};
use crate::mesh::{MS, Mesh, config};
use crate::notes::{note, outcome, take_notes};

/// Answers with the milliseconds that are left to its asker, as seen by the shard's clock.
fn left() -> Ask<Plain> {
    ask(|_, cx| cx.deadline_ns().map_or(u64::MAX, |deadline_ns| left_ms(deadline_ns, cx)))
}

fn left_ms(deadline_ns: u64, cx: &Cx<'_, Agent<Plain>>) -> u64 {
    // Polls take a microsecond each.
    (deadline_ns.saturating_sub(cx.monotonic_ns()) + MS / 2) / MS
}

/// Asks `to` for what is left, in a sync turn with a continuation.
fn relay(to: u64, within: Option<u64>) -> Ask<Plain> {
    ask(move |_, cx| {
        let (later, reply) = cx.later::<u64>();
        let mut call = cx.entity::<Agent<Plain>>(to).message(left());
        if let Some(ms) = within {
            call = call.within(Duration::from_millis(ms));
        }
        let asked = call.ask(move |_, answer, cx: &mut Cx<'_, Agent<Plain>>| {
            cx.reply(reply, answer.unwrap_or(999));
        });
        assert!(asked.is_ok());
        later
    })
}

/// The same in an async turn.
fn relay_async(to: u64, within: Option<u64>) -> Ask<Plain> {
    ask(move |_, cx| {
        cx.run(async move |_: &mut Agent<Plain>, cx: &mut AsyncCx<_>| {
            let mut call = cx.entity::<Agent<Plain>>(to).message(left());
            if let Some(ms) = within {
                call = call.within(Duration::from_millis(ms));
            }
            call.await.unwrap_or(999)
        })
    })
}

#[test]
fn nested_ask_inherits_the_deadline_and_within_tightens_it() {
    for seed in 1..=5 {
        let mut mesh = Mesh::new(2, seed);
        let (a, b, c) = (mesh.on(0, 0), mesh.on(1, 0), mesh.on(0, 1));
        for (within, expected) in [(None, 300), (Some(100), 100), (Some(500), 300)] {
            for other in [b, c] {
                for message in [relay(other, within), relay_async(other, within)] {
                    let ask = mesh.ask_within::<Plain, _>(a, message, 300);
                    mesh.settle();
                    assert_eq!(outcome(ask), Some(Ok(expected)), "within {within:?}");
                }
            }
        }
    }
}

#[test]
fn ask_on_nobodys_behalf_has_the_default_deadline() {
    let mut mesh = Mesh::with(1, 64, &ShardConfig { ask_timeout_ns: 70 * MS, ..config() }, 1);
    mesh.tell_plain(
        1,
        tell(|_, cx| {
            assert_eq!(cx.deadline_ns(), None);
            let asked = cx.entity::<Agent<Plain>>(2).message(left()).ask(|_, answer, cx| {
                assert_eq!(cx.deadline_ns(), None, "nobody waits for what follows");
                note(format!("{answer:?}"));
            });
            assert!(asked.is_ok());
        }),
    );
    mesh.settle();
    assert_eq!(take_notes(), ["Ok(70)"]);
}

#[test]
fn deadline_goes_on_through_continuations() {
    let mut mesh = Mesh::new(2, 1);
    let (a, b) = (mesh.on(0, 0), mesh.on(1, 0));
    let first = mesh.ask_within::<Plain, _>(
        a,
        ask(move |_, cx| {
            let (later, reply) = cx.later::<u64>();
            let asked = cx.entity::<Agent<Plain>>(b).message(echo(0)).ask(move |_, _, cx| {
                let asked =
                    cx.entity::<Agent<Plain>>(b).message(left()).ask(move |_, answer, cx| {
                        let own =
                            cx.deadline_ns().map_or(0, |deadline_ns| left_ms(deadline_ns, cx));
                        assert_eq!(Ok(own), answer);
                        cx.reply(reply, own);
                    });
                assert!(asked.is_ok());
            });
            assert!(asked.is_ok());
            later
        }),
        200,
    );
    mesh.settle();
    assert_eq!(outcome(first), Some(Ok(200)));
}

#[test]
fn within_limits_one_ask_and_not_what_follows_its_answer() {
    let mut mesh = Mesh::new(1, 1);
    let gate = mesh.hold::<Plain>(2);
    // The first choice does not answer within 20 ms; there is time left for the second.
    let answer = mesh.ask_within::<Plain, _>(
        1,
        ask(|_, cx| {
            let (later, reply) = cx.later::<u64>();
            let limit = Duration::from_millis(20);
            let call = cx.entity::<Agent<Plain>>(2).message(echo(2)).within(limit);
            let asked = call.ask(move |_, answer, cx| {
                assert!(answer.is_err());
                let asked =
                    cx.entity::<Agent<Plain>>(3).message(left()).ask(move |_, answer, cx| {
                        cx.reply(reply, answer.unwrap_or(999));
                    });
                assert!(asked.is_ok());
            });
            assert!(asked.is_ok());
            later
        }),
        100,
    );
    mesh.wait_ms(30);
    let Some(Ok(left)) = outcome(answer) else { panic!("{:?}", outcome(answer)) };
    assert!((70..=80).contains(&left), "{left} ms left");
    gate.open();
    mesh.settle();
}

#[test]
fn within_takes_the_place_of_the_nodes_timeout_where_nobody_waits() {
    let mut mesh = Mesh::new(1, 1);
    let gate = mesh.hold::<Plain>(2);
    let (answered, ended) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let counts = move |count: &Arc<AtomicU32>| count.load(Ordering::Relaxed);
    let (on_answer, on_end) = (Arc::clone(&answered), Arc::clone(&ended));
    mesh.tell_plain(
        1,
        tell(move |_, cx| {
            let call = cx.entity::<Agent<Plain>>(2).message(echo(2));
            let asked = call.within(Duration::from_secs(10)).ask(move |_, answer, _| {
                assert_eq!(answer, Ok(2));
                on_answer.fetch_add(1, Ordering::Relaxed);
            });
            assert!(asked.is_ok());
            let call = cx.entity::<Agent<Plain>>(2).message(echo(3));
            let asked = call.ask(move |_, answer, _| {
                assert!(answer.is_err(), "the node's own second");
                on_end.fetch_add(1, Ordering::Relaxed);
            });
            assert!(asked.is_ok());
        }),
    );
    mesh.wait_ms(3_000);
    assert_eq!((counts(&answered), counts(&ended)), (0, 1));
    gate.open();
    mesh.settle();
    assert_eq!((counts(&answered), counts(&ended)), (1, 1));
}

#[test]
fn deadline_is_the_same_three_hops_away() {
    let mut mesh = Mesh::new(3, 3);
    let (a, b, c) = (mesh.on(0, 0), mesh.on(1, 0), mesh.on(2, 0));
    let chain = ask(move |_, cx| {
        cx.run(async move |_: &mut Agent<Plain>, cx: &mut AsyncCx<_>| {
            cx.sleep(Duration::from_millis(50)).await;
            cx.entity::<Agent<Plain>>(b).message(relay(c, None)).await.unwrap_or(999)
        })
    });
    let asked = mesh.ask_within::<Plain, _>(a, chain, 400);
    mesh.wait_ms(60);
    let Some(Ok(left)) = outcome(asked) else { panic!("{:?}", outcome(asked)) };
    assert!((347..=350).contains(&left), "{left} ms left");
}

#[test]
fn expired_ask_is_dropped_before_its_turn_and_counted() {
    let mut mesh = Mesh::new(1, 1);
    let late = mesh.ask_within::<Plain, _>(
        1,
        ask(|_, _| {
            note("done");
            1
        }),
        5,
    );
    mesh.now.monotonic_ns += 6 * MS;
    mesh.settle();
    assert!(take_notes().is_empty());
    assert_eq!(mesh.count(|stats| stats.expired), 1);
    assert_eq!(mesh.shards[0].dead_letter_count(Reason::Expired), 1);
    let letter = mesh.shards[0].dead_letters().next().expect("one");
    assert_eq!((letter.reason(), letter.method(), letter.is_ask()), (Reason::Expired, "ask", true));
    mesh.jump_ms(10);
    assert!(matches!(outcome(late), Some(Err(AskError::Expired | AskError::MaybeExecuted))));
    // It can be sent again, as a tell.
    let letter = mesh.shards[0].take_dead_letter(0).expect("one");
    mesh.shards[0].replay(letter, &mut ());
    assert_eq!(take_notes(), ["done"]);
    assert_eq!(mesh.shards[0].dead_letters().count(), 0);
}

#[test]
fn ask_that_expires_in_the_stash_is_not_done() {
    let mut mesh = Mesh::new(1, 1);
    let gate = mesh.hold::<Plain>(1);
    let late = mesh.ask_within::<Plain, _>(
        1,
        ask(|_, _| {
            note("done");
            1
        }),
        20,
    );
    mesh.tell_plain(1, noting::<Plain>("behind"));
    mesh.wait_ms(30);
    assert_eq!(outcome(late), Some(Err(AskError::MaybeExecuted)), "its asker waits no longer");
    gate.open();
    mesh.settle();
    assert_eq!(take_notes(), ["1 behind"]);
    assert_eq!(mesh.shards[0].dead_letter_count(Reason::Expired), 1);
}

#[test]
fn ask_whose_time_is_over_leaves_the_stash_of_a_busy_entity() {
    let few = ShardConfig { dead_letters_max: 1, ..config() };
    let mut mesh = Mesh::with(1, 1 << 12, &few, 1);
    let gate = mesh.hold::<Plain>(1);
    let memory = Arc::new(());
    let holding = || {
        let memory = Arc::clone(&memory);
        ask(move |agent, _| {
            drop(memory);
            agent.value += 1;
            agent.value
        })
    };
    // As many as may wait, half of them longer than the others, the longest first.
    let asks: Vec<u64> = (0..128)
        .map(|nth| mesh.ask_within::<Plain, _>(1, holding(), if nth < 64 { 900 } else { 20 }))
        .collect();
    mesh.wait_ms(15);
    mesh.tell_plain(1, noting::<Plain>("too many"));
    mesh.settle();
    assert_eq!(mesh.shards[0].dead_letter_count(Reason::StashFull), 1);
    mesh.wait_ms(15);
    assert_eq!(mesh.count(|stats| stats.expired), 64);
    assert_eq!(Arc::strong_count(&memory), 1 + 64 + 1, "those that wait, and one dead letter");
    // There is room for others, behind those that wait.
    mesh.tell_plain(1, noting::<Plain>("behind"));
    let soon = mesh.ask_within::<Plain, _>(1, holding(), 5);
    mesh.wait_ms(20);
    assert_eq!(mesh.count(|stats| stats.expired), 65);
    gate.open();
    mesh.settle();
    let late = Some(Err(AskError::MaybeExecuted));
    let late = |ask| matches!(outcome(ask), Some(Err(AskError::Expired))) || outcome(ask) == late;
    assert!((0..64).all(|nth| outcome(asks[nth]) == Some(Ok(nth as u64 + 1))), "in order");
    assert!((64..128).all(|nth| late(asks[nth])) && late(soon));
    assert_eq!(take_notes(), ["1 behind"]);
}

#[test]
fn ask_whose_reply_is_forgotten_ends_at_its_deadline() {
    let mut mesh = Mesh::new(2, 1);
    let far = mesh.on(1, 0);
    let forgets = ask(|_, cx| {
        let (later, reply) = cx.later::<u64>();
        drop(reply);
        later
    });
    let asked = mesh.try_ask::<Plain, _>(0, far, forgets, 50).ok().expect("room");
    mesh.wait_ms(45);
    assert_eq!(outcome(asked), None);
    mesh.wait_ms(10);
    assert_eq!(outcome(asked), Some(Err(AskError::MaybeExecuted)));
}

#[test]
fn message_for_a_full_store_was_not_sent_and_is_kept() {
    let mut mesh = Mesh::with(1, 64, &ShardConfig { entities_max: 2, ..config() }, 1);
    for key in 1..=2 {
        assert_eq!(mesh.answer(key, echo(key)), Some(Ok(key)));
    }
    assert_eq!(mesh.answer(3, echo(3)), Some(Err(AskError::NotSent)));
    assert_eq!(mesh.shards[0].dead_letter_count(Reason::StoreFull), 1);
}

#[test]
fn only_the_last_dead_letters_are_kept_and_all_are_counted() {
    let few = ShardConfig { dead_letters_max: 3, entities_max: 1, ..config() };
    let mut mesh = Mesh::with(1, 64, &few, 1);
    mesh.tell_plain(1, noting::<Plain>("here"));
    for key in 2..=10 {
        mesh.tell_plain(key, noting::<Plain>("lost"));
    }
    mesh.settle();
    assert_eq!(mesh.shards[0].dead_letter_count(Reason::StoreFull), 9);
    let kept = mesh.shards[0].dead_letters().map(|letter| letter.entity().key::<Agent<Plain>>());
    assert!(kept.eq([Some(8), Some(9), Some(10)]));
}

#[test]
fn end_of_all_asks_ends_where_each_answer_asks_again() {
    fn again(agent: &mut Agent<Plain>, _: Result<u64, AskError>, cx: &mut Cx<'_, Agent<Plain>>) {
        agent.value += 1;
        let _refused = cx.entity::<Agent<Plain>>(2).message(forever()).ask(again);
        let _refused = cx.entity::<Agent<Plain>>(2).message(forever()).ask(again);
    }
    let mut mesh = Mesh::new(1, 1);
    for _ in 0..10 {
        mesh.tell_plain(
            1,
            tell(|_, cx| {
                let asked = cx.entity::<Agent<Plain>>(2).message(forever()).ask(again);
                assert!(asked.is_ok());
            }),
        );
    }
    mesh.settle();
    mesh.shards[0].end_asks(AskError::MaybeExecuted, &mut ());
    assert_eq!(mesh.shards[0].asks_waiting(), 20, "those that were made because of it");
}

/// An ask whose answer is kept from its asker.
fn forever() -> Ask<Plain> {
    ask(|_, cx| {
        let (later, _to) = cx.later::<u64>();
        later
    })
}
