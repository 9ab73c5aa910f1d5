//! Timers belong to one life of their entity, fire once it is time, and never in a later life.

use std::time::Duration;

use coreside_shard::{AsyncCx, ShardConfig, Timer};

use crate::agent::{
    Agent, BadClone, BadDrop, Clear, LargeTick, Plain, Tick, Tough, ask, ask_of, echo,
};
use crate::agent::{noting, tell, tell_of};
use crate::gate::Gate;
use crate::mesh::{Mesh, config};
use crate::notes::{Witness, alive, note, outcome, take_notes};

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// What the notes say of ticks of agent 1: number, and milliseconds since `began`.
fn ticks(began: u64) -> Vec<(u64, u64)> {
    let tick = |line: &String| {
        let words: Vec<_> = line.split(' ').collect();
        let number = |at: usize| words[at].parse::<u64>().expect("a number");
        (words[1] == "tick").then(|| (number(2), number(4) - began))
    };
    take_notes().iter().filter_map(tick).collect()
}

#[test]
fn timer_fires_once_never_early_and_at_most_two_ticks_late() {
    let mut mesh = Mesh::new(1, 1);
    let began = mesh.at_ms();
    mesh.tell_plain(
        1,
        tell(|_, cx| {
            for delay in [0, 1, 5, 40, 300] {
                assert!(cx.after(ms(delay), Tick(delay)).is_ok());
            }
        }),
    );
    mesh.wait_ms(310);
    let ticks = ticks(began);
    assert!(ticks.iter().map(|(number, _)| *number).eq([0, 1, 5, 40, 300]));
    assert!(ticks.iter().all(|(delay, at)| (*delay..=delay + 2).contains(at)), "{ticks:?}");
    assert_eq!(mesh.timers(), 0);
}

#[test]
fn shard_says_when_the_next_timer_is_due() {
    let mut mesh = Mesh::new(1, 1);
    mesh.tell_plain(1, tell(|_, cx| assert!(cx.after(ms(250), Tick(1)).is_ok())));
    mesh.settle();
    let mut sleeps = 0;
    while take_notes().is_empty() {
        let due_ns = mesh.shards[0].next_deadline_ns().expect("a timer is set");
        assert!(due_ns > mesh.now.monotonic_ns, "nothing is left to do before");
        mesh.now.monotonic_ns = due_ns;
        mesh.shards[0].poll(mesh.now, &mut ());
        sleeps += 1;
    }
    assert!(sleeps <= 6, "{sleeps} sleeps");
    assert_eq!(mesh.shards[0].next_deadline_ns(), None);
}

#[test]
fn timers_of_one_time_fire_in_the_order_set() {
    let mut mesh = Mesh::new(1, 1);
    let began = mesh.at_ms();
    mesh.tell_plain(
        1,
        tell(|_, cx| {
            for number in 0..100 {
                assert!(cx.after(ms(3), Tick(number)).is_ok());
            }
        }),
    );
    mesh.wait_ms(10);
    assert!(ticks(began).into_iter().map(|(number, _)| number).eq(0..100));
}

#[test]
fn keyed_timer_takes_the_place_of_the_one_of_its_name() {
    let mut mesh = Mesh::new(1, 1);
    let began = mesh.at_ms();
    mesh.tell_plain(
        1,
        tell(|_, cx| {
            assert!(cx.after_keyed(7, ms(5), LargeTick::new(1)).is_ok());
            assert!(cx.after_keyed(8, ms(5), Tick(8)).is_ok());
            assert!(cx.after_keyed(7, ms(9), Tick(2)).is_ok());
            assert!(cx.every_keyed(7, ms(20), Tick(3)).is_ok());
        }),
    );
    mesh.settle();
    assert_eq!((alive("tick"), mesh.timers()), (0, 2));
    mesh.wait_ms(30);
    assert!(ticks(began).into_iter().map(|(number, _)| number).eq([8, 3]));
    mesh.tell_plain(
        1,
        tell(|_, cx| {
            assert!(cx.cancel_keyed(7));
            assert!(!cx.cancel_keyed(7));
            assert!(!cx.cancel_keyed(8), "it has fired");
        }),
    );
    mesh.wait_ms(50);
    assert!(take_notes().is_empty());
    assert_eq!(mesh.timers(), 0);
}

#[test]
fn cancelled_timer_never_fires_and_drops_its_message() {
    let mut mesh = Mesh::new(1, 1);
    mesh.tell_plain(
        1,
        tell(|_, cx| {
            let timer = cx.after(ms(5), LargeTick::new(1)).ok().expect("room");
            assert!(cx.cancel(timer));
            assert!(!cx.cancel(timer));
        }),
    );
    mesh.wait_ms(10);
    assert!(take_notes().is_empty());
    assert_eq!((alive("tick"), mesh.timers()), (0, 0));
}

thread_local! {
    static TIMER: std::cell::Cell<Option<Timer>> = const { std::cell::Cell::new(None) };
}

#[test]
fn periodic_timer_fires_until_it_is_cancelled() {
    let mut mesh = Mesh::new(1, 1);
    let began = mesh.at_ms();
    mesh.tell_plain(1, tell(|_, cx| TIMER.set(cx.every(ms(10), Tick(1)).ok())));
    mesh.wait_ms(101);
    let at: Vec<_> = ticks(began).into_iter().map(|(_, at)| at).collect();
    assert!((8..=10).contains(&at.len()), "{at:?}");
    assert!(at.windows(2).all(|pair| (10..=12).contains(&(pair[1] - pair[0]))), "{at:?}");
    mesh.tell_plain(
        1,
        tell(|_, cx| {
            let timer = TIMER.get().expect("it was set");
            assert!(cx.cancel(timer), "its name is good for all periods");
            assert!(!cx.cancel(timer));
        }),
    );
    mesh.wait_ms(50);
    assert!(take_notes().is_empty());
    assert_eq!(mesh.timers(), 0);
}

#[test]
fn late_shard_does_not_catch_up_with_periods() {
    let mut mesh = Mesh::new(1, 1);
    let began = mesh.at_ms();
    mesh.tell_plain(1, tell(|_, cx| assert!(cx.every(ms(10), Tick(1)).is_ok())));
    mesh.settle();
    mesh.jump_ms(1000);
    assert_eq!(ticks(began).len(), 1);
    mesh.wait_ms(12);
    assert_eq!(ticks(began).len(), 1);
}

#[test]
fn periodic_timer_waits_once_while_its_entity_is_busy() {
    let mut mesh = Mesh::new(1, 1);
    let gate = Gate::new();
    let held = gate.clone();
    mesh.tell_plain(
        1,
        tell(move |_, cx| {
            assert!(cx.every(ms(2), Tick(1)).is_ok());
            let _later = cx.run(async move |_, _| held.passed().await);
        }),
    );
    mesh.wait_ms(500);
    assert!(take_notes().is_empty());
    gate.open();
    mesh.settle();
    assert_eq!(take_notes().len(), 1, "and not once per period");
    mesh.wait_ms(21);
    assert!((6..=10).contains(&take_notes().len()), "it goes on as before");
}

#[test]
fn timer_that_waits_for_a_busy_entity_can_still_be_cancelled() {
    let mut mesh = Mesh::new(1, 1);
    let gate = Gate::new();
    let held = gate.clone();
    mesh.tell_plain(
        1,
        tell(move |_, cx| {
            assert!(cx.after_keyed(1, ms(5), LargeTick::new(1)).is_ok());
            assert!(cx.every_keyed(2, ms(5), LargeTick::new(2)).is_ok());
            assert!(cx.after_keyed(3, ms(5), Tick(3)).is_ok());
            let _later = cx.run(async move |_, _| held.passed().await);
        }),
    );
    mesh.tell_plain(
        1,
        tell(|_, cx| {
            assert!(cx.cancel_keyed(1) && cx.cancel_keyed(2));
            assert!(cx.after_keyed(3, ms(5), Tick(4)).is_ok(), "in place of the one that waits");
        }),
    );
    mesh.wait_ms(20);
    gate.open();
    mesh.settle();
    assert!(take_notes().is_empty());
    mesh.wait_ms(10);
    let lines = take_notes();
    assert!(lines.len() == 1 && lines[0].starts_with("1 tick 4"), "{lines:?}");
    assert_eq!((alive("tick"), mesh.timers()), (0, 0));
}

#[test]
fn timer_of_an_earlier_life_never_fires() {
    // However a life ends: by itself, by a fault, or while timers wait for a busy entity.
    for how in 0..4 {
        let mut mesh = Mesh::new(1, 1);
        let gate = Gate::new();
        let held = gate.clone();
        mesh.tell_plain(
            1,
            tell(move |_, cx| {
                assert!(cx.after(ms(5), LargeTick::new(1)).is_ok());
                assert!(cx.after_keyed(1, ms(15), Tick(2)).is_ok());
                assert!(cx.every(ms(5), LargeTick::new(3)).is_ok());
                cx.receive_timeout(ms(15), LargeTick::new(4));
                match how {
                    0 => cx.stop(),
                    1 => panic!("told to"),
                    2 => cx.fail("told to"),
                    _ => {
                        let _later = cx.run(async move |_, _: &mut AsyncCx<_>| {
                            held.passed().await;
                            panic!("told to")
                        });
                    }
                }
            }),
        );
        if how == 3 {
            mesh.wait_ms(10);
            gate.open();
        }
        mesh.settle();
        assert_eq!((alive("tick"), mesh.timers()), (0, 0), "{how}");
        mesh.wait_ms(14);
        // A new life, in the same slot, with a timer of its own.
        mesh.tell_plain(1, tell(|_, cx| assert!(cx.after(ms(30), Tick(9)).is_ok())));
        mesh.wait_ms(50);
        let lines = take_notes();
        assert!(lines.len() == 1 && lines[0].starts_with("1 tick 9"), "{how}: {lines:?}");
        assert_eq!((alive("tick"), mesh.timers()), (0, 0), "{how}");
    }
}

#[test]
fn timer_of_another_entity_cannot_be_cancelled() {
    let mut mesh = Mesh::new(1, 1);
    mesh.tell_plain(1, tell(|_, cx| TIMER.set(cx.after(ms(5), Tick(1)).ok())));
    mesh.settle();
    mesh.tell_plain(
        2,
        tell(|_, cx| {
            assert!(cx.after_keyed(1, ms(5), Tick(2)).is_ok());
            assert!(!cx.cancel(TIMER.get().expect("it was set")));
        }),
    );
    mesh.tell_plain(1, tell(|_, cx| assert!(!cx.cancel_keyed(1), "that is the other's")));
    mesh.wait_ms(10);
    assert_eq!(take_notes().len(), 2);
}

#[test]
fn timers_that_wait_for_a_busy_entity_count_against_the_bound() {
    let mut mesh = Mesh::with(1, 64, &ShardConfig { timers_max: 2, ..config() }, 1);
    let gate = Gate::new();
    let held = gate.clone();
    mesh.tell_plain(
        1,
        tell(move |_, cx| {
            assert!(cx.after(ms(1), Tick(1)).is_ok() && cx.after(ms(1), Tick(2)).is_ok());
            let _later = cx.run(async move |_, _| held.passed().await);
        }),
    );
    mesh.wait_ms(10);
    mesh.tell_plain(2, tell(|_, cx| assert!(cx.after(ms(1), Tick(3)).is_err())));
    mesh.settle();
    assert_eq!(mesh.timers(), 2);
    gate.open();
    mesh.settle();
    assert_eq!((mesh.timers(), take_notes().len()), (0, 2));
}

#[test]
fn timer_beyond_the_bound_comes_back() {
    let mut mesh = Mesh::with(1, 64, &ShardConfig { timers_max: 2, ..config() }, 1);
    mesh.tell_plain(
        1,
        tell(|_, cx| {
            assert!(cx.after(ms(5), Tick(1)).is_ok());
            let timer = cx.every(ms(5), Tick(2)).ok().expect("room");
            let refused = cx.after(ms(5), LargeTick::new(3)).expect_err("full");
            assert_eq!(refused.0.number, 3);
            assert!(cx.every(ms(5), Tick(4)).is_err());
            assert!(cx.cancel(timer));
            assert!(cx.after(ms(5), Tick(5)).is_ok());
        }),
    );
    mesh.wait_ms(10);
    assert_eq!(take_notes().len(), 2);
}

#[test]
fn message_that_cannot_be_cloned_is_a_fault_of_its_entity() {
    let mut mesh = Mesh::new(1, 1);
    mesh.tell_plain(
        1,
        tell(|_, cx| {
            assert!(cx.every(ms(5), BadClone(false)).is_ok());
            cx.receive_timeout(ms(2), BadClone(false));
        }),
    );
    mesh.tell::<Tough, _>(
        2,
        tell_of(|_: &mut Agent<Tough>, cx| {
            assert!(cx.every(ms(5), BadClone(false)).is_ok());
        }),
    );
    mesh.wait_ms(11);
    assert!(mesh.count(|stats| stats.faults) >= 2);
    mesh.wait_ms(20);
    assert!(mesh.count(|stats| stats.faults) >= 5, "each period is tried again");
    assert_eq!(mesh.answer(1, echo(1)), Some(Ok(1)), "the shard goes on, and so does it");
    let ask = mesh.ask::<Tough, _>(2, ask_of(|_: &mut Agent<Tough>, _| 2));
    mesh.settle();
    assert_eq!(outcome(ask), Some(Ok(2)));
    assert_eq!(mesh.timers(), 1, "the periodic timer of the one that resumes is still set");
}

#[test]
fn message_whose_drop_panics_is_contained_wherever_a_timer_drops_it() {
    let mut mesh = Mesh::new(1, 1);
    // At the end of a life, by a fault and in good order.
    for stops in [false, true] {
        mesh.tell_plain(
            1,
            tell(move |_, cx| {
                for _ in 0..3 {
                    assert!(cx.after(ms(5), BadDrop).is_ok());
                }
                if stops {
                    return cx.stop();
                }
                panic!("told to");
            }),
        );
        mesh.wait_ms(30);
    }
    // While it waits for a busy entity whose life ends.
    let gate = Gate::new();
    let held = gate.clone();
    mesh.tell_plain(
        1,
        tell(move |_, cx| {
            assert!(cx.after(ms(5), BadDrop).is_ok());
            let _later = cx.run(async move |_, _: &mut AsyncCx<_>| {
                held.passed().await;
                panic!("told to")
            });
        }),
    );
    mesh.wait_ms(10);
    gate.open();
    mesh.wait_ms(100);
    assert_eq!(mesh.timers(), 0);
    assert_eq!(mesh.answer(1, echo(1)), Some(Ok(1)));
    // And at the end of the shard.
    mesh.tell_plain(
        1,
        tell(|_, cx| {
            assert!(cx.after(ms(5), BadDrop).is_ok());
        }),
    );
    mesh.settle();
}

#[test]
fn timers_are_dropped_with_their_shard() {
    let mut mesh = Mesh::new(1, 1);
    mesh.tell_plain(
        1,
        tell(|_, cx| {
            assert!(cx.after(ms(5), LargeTick::new(1)).is_ok());
            assert!(cx.every(ms(5), LargeTick::new(2)).is_ok());
            cx.receive_timeout(ms(5), LargeTick::new(3));
        }),
    );
    mesh.settle();
    assert_eq!(alive("tick"), 3);
    drop(mesh);
    assert_eq!((alive("tick"), alive("state")), (0, 0));
}

#[test]
fn timer_and_messages_share_the_order_of_the_stash() {
    let mut mesh = Mesh::new(1, 1);
    let gate = Gate::new();
    let held = gate.clone();
    mesh.tell_plain(
        1,
        tell(move |_, cx| {
            assert!(cx.after(ms(5), LargeTick::new(1)).is_ok());
            let _later = cx.run(async move |_, _| held.passed().await);
        }),
    );
    mesh.tell_plain(1, noting::<Plain>("before"));
    mesh.wait_ms(10);
    mesh.tell_plain(
        1,
        ask(|_, _| {
            note("after");
            0
        }),
    );
    mesh.settle();
    gate.open();
    mesh.settle();
    assert_eq!(take_notes(), ["1 before", "1 large tick 1", "after"]);
}

#[test]
fn entity_that_a_sweep_ends_takes_all_that_is_its_own_along() {
    let mut mesh = Mesh::new(1, 1);
    mesh.tell_plain(
        1,
        tell(|_, cx| {
            assert!(cx.every(ms(5), LargeTick::new(1)).is_ok());
            cx.receive_timeout(ms(5), LargeTick::new(2));
            let witness = Witness::new("future");
            let _later = cx.interleave(async move |cx: AsyncCx<Agent<Plain>>| {
                let _witness = witness;
                cx.sleep(ms(10)).await;
                cx.with(|agent| note(format!("reached {}", agent.key))).await;
            });
        }),
    );
    mesh.settle();
    let swept = mesh.shards[0].sweep::<Agent<Plain>, Clear, _>(|total, _| {
        note(total.map_or(0, |total| total.0));
    });
    assert!(swept.is_ok());
    mesh.settle();
    assert_eq!((alive("tick"), alive("future"), mesh.timers()), (0, 0, 0));
    // Another entity in its slot has nothing of it.
    assert_eq!(mesh.answer(2, echo(1)), Some(Ok(1)));
    mesh.wait_ms(30);
    assert_eq!(take_notes(), ["1"]);
}
