//! Asks that wait for each other in a circle are refused when the circle closes; others never are.

use std::time::Duration;

use coreside_shard::{AskError, AsyncCx};

use crate::agent::{Agent, Ask, Plain, Slow, ask, echo, look, tell};
use crate::gate::join;
use crate::mesh::Mesh;
use crate::notes::{note, outcome, take_notes};

/// An async turn that asks the first of `path` to do the same with the rest; the last one answers.
fn chain(path: Vec<u64>) -> Ask<Plain> {
    ask(move |agent, cx| {
        let key = agent.key;
        cx.run(async move |_: &mut Agent<Plain>, cx: &mut AsyncCx<_>| {
            let Some((next, rest)) = path.split_first() else { return key };
            let call = cx.entity::<Agent<Plain>>(*next).message(chain(rest.to_vec()));
            report(key, *next, call.await)
        })
    })
}

/// Notes a circle; answers with what came back, or 0.
fn report(key: u64, asked: u64, answer: Result<u64, AskError>) -> u64 {
    if let Err(AskError::Cycle(cycle)) = &answer {
        let keys = cycle.entities().iter().map(|entity| entity.key::<Agent<Plain>>());
        let keys: Vec<_> = keys.map(|key| key.unwrap_or(u64::MAX)).collect();
        note(format!("{key} asked {asked}: {keys:?}"));
    } else if let Err(error) = &answer {
        note(format!("{key} asked {asked}: {error}"));
    }
    answer.unwrap_or(0)
}

/// A mesh of three shards, and keys that live on `shards`.
fn keys_on(shards: &[usize], seed: u64) -> (Mesh, Vec<u64>) {
    let mesh = Mesh::new(3, seed);
    let keys = shards.iter().enumerate().map(|(nth, shard)| mesh.on(*shard, nth)).collect();
    (mesh, keys)
}

#[test]
fn entity_that_asks_itself_is_refused() {
    let mut mesh = Mesh::new(1, 1);
    assert_eq!(mesh.answer(1, chain(vec![1])), Some(Ok(0)));
    assert_eq!(take_notes(), ["1 asked 1: [1]"]);
    assert_eq!(mesh.count(|stats| stats.cycles), 1);
}

#[test]
fn circles_of_two_and_three_are_refused_wherever_their_entities_live() {
    for places in [vec![0, 0], vec![0, 1], vec![0, 0, 0], vec![0, 1, 2], vec![1, 1, 0]] {
        for seed in 1..=5 {
            let (mut mesh, keys) = keys_on(&places, seed);
            let mut path = keys[1..].to_vec();
            path.push(keys[0]);
            let began = mesh.at_ms();
            let answer = mesh.answer(keys[0], chain(path));
            assert_eq!(answer, Some(Ok(0)), "the others were answered");
            let last = keys[keys.len() - 1];
            let backwards: Vec<_> = keys.iter().rev().copied().collect();
            let expected = [format!("{last} asked {}: {backwards:?}", keys[0])];
            assert_eq!(take_notes(), expected, "{places:?} seed {seed}");
            assert!(mesh.at_ms() < began + 5, "at once, not at the deadline");
        }
    }
}

#[test]
fn circle_is_shown_as_who_asks_whom() {
    let mut mesh = Mesh::new(1, 1);
    mesh.tell_plain(
        1,
        tell(|_, cx| {
            let _later = cx.run(async move |_: &mut Agent<Plain>, cx: &mut AsyncCx<_>| {
                let inner = ask(|_, cx| {
                    cx.run(async move |_: &mut Agent<Plain>, cx: &mut AsyncCx<_>| {
                        let answer = cx.entity::<Agent<Plain>>(1).message(echo(1)).await;
                        note(answer.map_or_else(|error| error.to_string(), |_| "?".to_owned()));
                        1
                    })
                });
                let _ = cx.entity::<Agent<Plain>>(2).message(inner).await;
            });
        }),
    );
    mesh.settle();
    assert_eq!(take_notes(), ["asks wait for each other: plain/1 asks plain/2 asks plain/1"]);
}

#[test]
fn two_turns_that_ask_each_other_are_refused() {
    // Nobody began the other's turn: each asks while its own ask waits behind the other's turn.
    for places in [[0, 0], [0, 1]] {
        for seed in 1..=10 {
            let (mut mesh, keys) = keys_on(&places, seed);
            let began = mesh.at_ms();
            let asks: Vec<_> = [(0, 1), (1, 0)]
                .into_iter()
                .map(|(from, to)| {
                    let (from, to) = (keys[from], keys[to]);
                    mesh.ask::<Plain, _>(
                        from,
                        ask(move |_, cx| {
                            cx.run(async move |_: &mut Agent<Plain>, cx: &mut AsyncCx<_>| {
                                cx.sleep(Duration::from_millis(5)).await;
                                let answer = cx.entity::<Agent<Plain>>(to).message(echo(7)).await;
                                report(from, to, answer)
                            })
                        }),
                    )
                })
                .collect();
            mesh.wait_ms(15);
            assert!(mesh.at_ms() < began + 20);
            let lines = take_notes();
            assert!(!lines.is_empty(), "{places:?} seed {seed}: at least one is refused");
            for line in &lines {
                let (a, b) = (keys[0], keys[1]);
                let right =
                    [format!("{a} asked {b}: [{a}, {b}]"), format!("{b} asked {a}: [{b}, {a}]")];
                assert!(right.contains(line), "{line}");
            }
            assert!(asks.iter().all(|ask| matches!(outcome(*ask), Some(Ok(_)))), "all turns end");
        }
    }
}

#[test]
fn circle_of_three_turns_that_nobody_of_them_began_is_refused() {
    for seed in 1..=10 {
        let (mut mesh, keys) = keys_on(&[0, 1, 2], seed);
        for from in 0..3 {
            let (from, to) = (keys[from], keys[(from + 1) % 3]);
            mesh.tell_plain(
                from,
                tell(move |_, cx| {
                    let _later = cx.run(async move |_: &mut Agent<Plain>, cx: &mut AsyncCx<_>| {
                        cx.sleep(Duration::from_millis(5)).await;
                        let answer = cx.entity::<Agent<Plain>>(to).message(echo(7)).await;
                        report(from, to, answer);
                    });
                }),
            );
        }
        mesh.wait_ms(15);
        assert_eq!(mesh.async_turns(), 0, "seed {seed}: all of them ended");
        assert!(!take_notes().is_empty());
    }
}

#[test]
fn parallel_asks_that_meet_again_are_innocent() {
    for seed in 1..=20 {
        // A asks B and C, both ask D.
        let (mut mesh, keys) = keys_on(&[0, 1, 2, 1], seed);
        let [a, b, c, d] = keys[..] else { panic!("four keys") };
        let answer = mesh.answer(
            a,
            ask(move |_, cx| {
                cx.run(async move |_: &mut Agent<Plain>, cx: &mut AsyncCx<_>| {
                    let asks = [b, c].map(|next| {
                        let call = cx.entity::<Agent<Plain>>(next).message(chain(vec![d]));
                        Box::pin(async move { call.await.unwrap_or(0) }) as _
                    });
                    join(asks.into()).await.into_iter().sum()
                })
            }),
        );
        assert_eq!(answer, Some(Ok(2 * d)), "seed {seed}");
        assert_eq!(mesh.count(|stats| stats.cycles), 0);
        assert!(take_notes().is_empty());
    }
}

#[test]
fn busy_crowd_without_a_circle_is_never_refused() {
    for seed in 1..=10 {
        let (mut mesh, keys) = keys_on(&[0, 1, 2, 0, 1, 2, 0, 1], seed);
        let mut asks = Vec::new();
        // Asks only ever go to a later key, so there is no circle, but all wait for all.
        for _ in 0..100 {
            let mut path: Vec<_> = (0..keys.len()).filter(|_| mesh.below(2) == 0).collect();
            if path.is_empty() {
                path.push(0);
            }
            let path: Vec<_> = path.into_iter().map(|at| keys[at]).collect();
            asks.push((
                mesh.ask::<Plain, _>(path[0], chain(path[1..].to_vec())),
                path[path.len() - 1],
            ));
        }
        mesh.settle();
        for (ask, expected) in asks {
            assert_eq!(outcome(ask), Some(Ok(expected)), "seed {seed}");
        }
        assert_eq!(mesh.count(|stats| stats.cycles), 0);
    }
}

#[test]
fn random_circles_never_hold_anybody_until_the_deadline() {
    for seed in 1..=100 {
        let (mut mesh, keys) = keys_on(&[0, 1, 2, 0, 1], seed);
        let mut asks = Vec::new();
        for _ in 0..30 {
            let path: Vec<_> = (0..4).map(|_| keys[mesh.below(5) as usize]).collect();
            asks.push(mesh.ask::<Plain, _>(path[0], chain(path[1..].to_vec())));
        }
        mesh.settle();
        assert!(asks.iter().all(|ask| matches!(outcome(*ask), Some(Ok(_)))), "seed {seed}");
        let lines = take_notes();
        assert!(lines.iter().all(|line| line.contains('[')), "refused as circles: {lines:?}");
        assert_eq!(mesh.async_turns(), 0);
    }
}

#[test]
fn interleaved_turn_may_ask_its_own_busy_entity() {
    let mut mesh = Mesh::new(1, 1);
    let answer = mesh.ask::<Plain, _>(
        1,
        ask(|_, cx| {
            cx.interleave(async move |cx: AsyncCx<Agent<Plain>>| {
                cx.sleep(Duration::from_millis(5)).await;
                let answer = cx.entity::<Agent<Plain>>(1).message(echo(4)).await;
                report(1, 1, answer)
            })
        }),
    );
    mesh.tell_plain(
        1,
        tell(|_, cx| {
            let _later = cx.run(async move |_: &mut Agent<Plain>, cx: &mut AsyncCx<_>| {
                cx.sleep(Duration::from_millis(15)).await;
            });
        }),
    );
    mesh.wait_ms(25);
    assert_eq!(outcome(answer), Some(Ok(4)));
    assert!(take_notes().is_empty());
}

#[test]
fn circle_through_an_interleaved_turn_is_refused() {
    // 1 holds its state and asks 2, whose interleaved turn asks 1: nobody would go on.
    let mut mesh = Mesh::new(1, 1);
    let answer = mesh.answer(
        1,
        ask(|_, cx| {
            cx.run(async move |_: &mut Agent<Plain>, cx: &mut AsyncCx<_>| {
                let inner = ask(|_, cx| {
                    cx.interleave(async move |cx: AsyncCx<Agent<Plain>>| {
                        let answer = cx.entity::<Agent<Plain>>(1).message(echo(4)).await;
                        report(2, 1, answer) + 5
                    })
                });
                cx.entity::<Agent<Plain>>(2).message(inner).await.unwrap_or(0)
            })
        }),
    );
    assert_eq!(answer, Some(Ok(5)));
    assert_eq!(take_notes(), ["2 asked 1: [2, 1]"]);
}

#[test]
fn reads_may_ask_each_other_and_a_write_in_the_circle_is_refused() {
    for write in [false, true] {
        let mut mesh = Mesh::new(1, 1);
        let answer = mesh.answer(
            1,
            look(move |_, cx| {
                cx.run_read(async move |_: &Agent<Plain>, cx: &mut AsyncCx<_>| {
                    let inner = look(move |_, cx| {
                        cx.run_read(async move |_: &Agent<Plain>, cx: &mut AsyncCx<_>| {
                            let entity = cx.entity::<Agent<Plain>>(1);
                            let answer = if write {
                                entity.message(echo(3)).await
                            } else {
                                entity.message(look(|_, _| 3)).await
                            };
                            report(2, 1, answer)
                        })
                    });
                    cx.entity::<Agent<Plain>>(2).message(inner).await.unwrap_or(9)
                })
            }),
        );
        assert_eq!(answer, Some(Ok(if write { 0 } else { 3 })));
        let lines = take_notes();
        assert_eq!(lines, if write { vec!["2 asked 1: [2, 1]"] } else { vec![] });
    }
}

#[test]
fn activation_that_waits_for_itself_is_refused() {
    let mut mesh = Mesh::new(1, 1);
    let ask = mesh.ask::<Slow, _>(13, echo(1));
    mesh.wait_ms(15);
    let lines = take_notes();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].starts_with("refused Err(Cycle"), "{lines:?}");
    assert_eq!(lines[1], "activation heard Ok(7)");
    assert_eq!(outcome(ask), Some(Ok(1)));
}

#[test]
fn refused_ask_is_taken_out_of_the_stash_and_others_stay() {
    let mut mesh = Mesh::new(1, 1);
    let answer = mesh.ask::<Plain, _>(
        1,
        ask(|_, cx| {
            cx.run(async move |_: &mut Agent<Plain>, cx: &mut AsyncCx<_>| {
                cx.sleep(Duration::from_millis(5)).await;
                let own = cx.entity::<Agent<Plain>>(1).message(echo(4)).await;
                report(1, 1, own)
            })
        }),
    );
    let others: Vec<_> = (0..5).map(|reply| mesh.ask::<Plain, _>(1, echo(reply))).collect();
    mesh.wait_ms(10);
    assert_eq!(outcome(answer), Some(Ok(0)));
    for (reply, ask) in others.into_iter().enumerate() {
        assert_eq!(outcome(ask), Some(Ok(reply as u64)));
    }
}
