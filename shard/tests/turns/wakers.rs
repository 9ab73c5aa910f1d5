//! Any future will do in an async turn, as long as it wakes its waker: from other threads, while
//! the shard sleeps, and also where each part of a turn has a waker of its own.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use coreside_shard::{AsyncCx, ShardConfig};

use crate::agent::{Agent, Plain, Tick, ask, echo, tell};
use crate::gate::{Gate, yield_now};
use crate::mesh::{Mesh, config};
use crate::notes::{note, outcome, take_notes};

#[test]
#[expect(clippy::disallowed_methods, reason = "wakers are used by other threads")]
fn other_threads_wake_turns_of_a_shard_that_sleeps() {
    const TURNS: u64 = 200;
    let (rung, rings) = mpsc::channel();
    let wake = Arc::new(move |_: u16| rung.send(()).expect("the driver listens"));
    let mut mesh = Mesh::with_wake(1, 64, &config(), 1, wake);
    let gates: Vec<Gate> = (0..TURNS).map(|_| Gate::new()).collect();
    let asks: Vec<_> = gates
        .iter()
        .enumerate()
        .map(|(key, gate)| {
            let gate = gate.clone();
            mesh.ask::<Plain, _>(
                key as u64,
                ask(move |_, cx| {
                    cx.run(async move |_, _| {
                        gate.passed().await;
                        7
                    })
                }),
            )
        })
        .collect();
    mesh.settle();
    let openers = gates.chunks(TURNS as usize / 4).map(<[Gate]>::to_vec).map(|gates| {
        std::thread::spawn(move || {
            for gate in gates {
                gate.knock();
                gate.open();
                std::thread::yield_now();
            }
        })
    });
    let openers: Vec<_> = openers.collect();
    let bell = Arc::clone(&mesh.bells[0]);
    while mesh.async_turns() > 0 {
        if !mesh.poll(0).is_idle() {
            continue;
        }
        bell.prepare_sleep();
        if !mesh.shards[0].has_work() {
            // Nobody polls now: if no ring comes, the test hangs.
            rings.recv().expect("somebody rings");
        }
        bell.awake();
    }
    openers.into_iter().for_each(|opener| opener.join().expect("it does not panic"));
    mesh.settle();
    assert!(asks.into_iter().all(|ask| outcome(ask) == Some(Ok(7))));
}

#[test]
fn bell_is_rung_once_when_a_sleeping_shard_is_woken() {
    let rings = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&rings);
    let wake = Arc::new(move |_: u16| {
        counted.fetch_add(1, Ordering::Relaxed);
    });
    let mut mesh = Mesh::with_wake(1, 64, &config(), 1, wake);
    let gate = mesh.hold::<Plain>(1);
    mesh.settle();
    gate.knock();
    assert_eq!(rings.load(Ordering::Relaxed), 0, "it is awake");
    assert!(mesh.shards[0].has_work());
    mesh.settle();
    mesh.bells[0].prepare_sleep();
    gate.knock();
    gate.knock();
    assert_eq!(rings.load(Ordering::Relaxed), 1);
    mesh.settle();
    mesh.bells[0].awake();
}

#[test]
fn wakers_that_are_left_over_do_no_harm() {
    let mut mesh = Mesh::new(1, 1);
    let gate = Gate::new();
    for key in 0..10 {
        let held = gate.clone();
        mesh.ask_within::<Plain, _>(
            key,
            ask(move |_, cx| {
                cx.run(async move |_, _| {
                    held.passed().await;
                    1
                })
            }),
            5,
        );
    }
    mesh.wait_ms(10);
    assert_eq!((mesh.async_turns(), gate.waiting()), (0, 10), "cancelled; their wakers are kept");
    // Others take their places, and are polled in vain.
    let next = Gate::new();
    let asks: Vec<_> = (0..10)
        .map(|key| {
            let held = next.clone();
            mesh.ask::<Plain, _>(
                key,
                ask(move |_, cx| {
                    cx.run(async move |_, _| {
                        held.passed().await;
                        2
                    })
                }),
            )
        })
        .collect();
    mesh.settle();
    gate.open();
    mesh.settle();
    assert!(asks.iter().all(|ask| outcome(*ask).is_none()));
    next.open();
    mesh.settle();
    assert!(asks.iter().all(|ask| outcome(*ask) == Some(Ok(2))));
    drop(mesh);
    gate.knock();
}

/// Notes that it was woken, and wakes what it is a part of.
struct PartWake {
    woken: AtomicBool,
    whole: Waker,
}

impl Wake for PartWake {
    fn wake(self: Arc<Self>) {
        self.woken.store(true, Ordering::SeqCst);
        self.whole.wake_by_ref();
    }
}

/// Polls each part with a waker of its own, and only when that was used; as sets of futures do.
async fn join_woken(parts: Vec<Pin<Box<dyn Future<Output = ()>>>>) {
    let mut parts: Vec<_> = parts.into_iter().map(|part| Some((part, None))).collect();
    std::future::poll_fn(move |cx| {
        for entry in &mut parts {
            let Some((part, waker)) = entry else { continue };
            let waker = waker.get_or_insert_with(|| {
                let whole = cx.waker().clone();
                Arc::new(PartWake { woken: AtomicBool::new(true), whole })
            });
            if !waker.woken.swap(false, Ordering::SeqCst) {
                continue;
            }
            let own = Waker::from(Arc::clone(waker));
            if part.as_mut().poll(&mut Context::from_waker(&own)).is_ready() {
                *entry = None;
            }
        }
        if parts.iter().any(Option::is_some) { Poll::Pending } else { Poll::Ready(()) }
    })
    .await;
}

#[test]
fn parts_of_a_turn_that_are_only_polled_when_woken_all_go_on() {
    for seed in 1..=5 {
        let small = ShardConfig { queue_words_max: 4096, ..config() };
        let mut mesh = Mesh::with(2, 64, &small, seed);
        let (a, b) = (mesh.on(0, 0), mesh.on(1, 0));
        mesh.tell_plain(
            a,
            tell(move |_, cx| {
                let _later = cx.interleave(async move |cx: AsyncCx<Agent<Plain>>| {
                    let cx = std::rc::Rc::new(cx);
                    let mut parts: Vec<Pin<Box<dyn Future<Output = ()>>>> = Vec::new();
                    for number in 0..5 {
                        let asks = std::rc::Rc::clone(&cx);
                        parts.push(Box::pin(async move {
                            let answer = asks.entity::<Agent<Plain>>(b).message(echo(number)).await;
                            assert_eq!(answer, Ok(number));
                            note("asked");
                        }));
                        let sleeps = std::rc::Rc::clone(&cx);
                        parts.push(Box::pin(async move {
                            sleeps.sleep(Duration::from_millis(number)).await;
                            note("slept");
                        }));
                        let reaches = std::rc::Rc::clone(&cx);
                        parts.push(Box::pin(async move {
                            yield_now().await;
                            reaches.with(|agent| agent.value += 1).await;
                            note("reached");
                        }));
                        let tells = std::rc::Rc::clone(&cx);
                        parts.push(Box::pin(async move {
                            for _ in 0..400 {
                                tells.entity::<Agent<Plain>>(b).message(Tick(number)).tell().await;
                            }
                            note("told");
                        }));
                    }
                    join_woken(parts).await;
                    note("all");
                });
            }),
        );
        // An exclusive turn, so that the interleaved one has to wait for the state.
        mesh.tell_plain(
            a,
            tell(|_, cx| {
                let _later = cx.run(async move |_: &mut Agent<Plain>, cx: &mut AsyncCx<_>| {
                    cx.sleep(Duration::from_millis(3)).await;
                });
            }),
        );
        mesh.wait_ms(20);
        let lines = take_notes();
        let count = |line: &str| lines.iter().filter(|other| *other == line).count();
        let counts = ["asked", "slept", "reached", "told", "all"].map(count);
        assert_eq!(counts, [5, 5, 5, 5, 1], "seed {seed}");
        assert_eq!(lines.iter().filter(|line| line.contains("tick")).count(), 2000);
        assert_eq!(mesh.async_turns(), 0);
    }
}

#[test]
fn turns_go_on_in_the_order_in_which_they_were_woken() {
    let mut mesh = Mesh::new(1, 1);
    let gates: Vec<Gate> = (0..20).map(|_| Gate::new()).collect();
    for (key, gate) in gates.iter().enumerate() {
        let gate = gate.clone();
        mesh.tell_plain(
            key as u64,
            tell(move |agent, cx| {
                let key = agent.key;
                let _later = cx.run(async move |_, _| {
                    gate.passed().await;
                    note(key);
                });
            }),
        );
    }
    mesh.settle();
    gates.iter().for_each(Gate::open);
    mesh.settle();
    assert!(take_notes().into_iter().eq((0..20).map(|key: u64| key.to_string())));
}
