//! However many timers are set, and whoever sets them, each costs the same.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use coreside_shard::{Cx, ShardConfig, Timer};

use crate::agent::{Agent, Plain, Tick, tell};
use crate::mesh::{Mesh, config};
use crate::notes::take_notes;

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[test]
fn a_million_timers_fire_each_in_its_time() {
    const ENTITIES: u64 = 1000;
    let mut mesh = Mesh::with(1, 64, &ShardConfig { turns_per_poll: 1024, ..config() }, 1);
    for key in 0..ENTITIES {
        mesh.tell_plain(
            key,
            tell(move |_, cx| {
                for number in 0..1000u64 {
                    let delay = (number * 7919 + key * 31) % 1000;
                    let (due_ns, timer) = (cx.monotonic_ns() + delay * 1_000_000, delay + 1);
                    assert!(cx.after(ms(delay), Tick(due_ns / 1_000_000)).is_ok(), "{timer}");
                }
            }),
        );
    }
    mesh.settle();
    let mut fired = 0;
    let mut polls = 0;
    while mesh.timers() > 0 {
        mesh.now.monotonic_ns += 1_000_000;
        mesh.settle();
        for line in take_notes() {
            let words: Vec<_> = line.split(' ').map(|word| word.parse().unwrap_or(0)).collect();
            let late: u64 = words[4] - words[2];
            assert!(late <= 3, "{late} ms late");
            fired += 1;
        }
        polls += 1;
    }
    assert_eq!(fired, 1_000_000);
    assert!(polls <= 1010);
}

#[test]
fn many_timers_of_one_entity_cost_no_more_than_those_of_many() {
    let mut mesh = Mesh::with(1, 64, &ShardConfig { turns_per_poll: 1024, ..config() }, 1);
    mesh.tell_plain(
        1,
        tell(|_, cx| {
            for number in 0..300_000 {
                assert!(cx.after(ms(number / 1000), Tick(number)).is_ok());
            }
        }),
    );
    mesh.settle();
    mesh.jump_ms(400);
    assert_eq!((take_notes().len(), mesh.timers()), (300_000, 0));
}

#[test]
fn many_names_of_one_entity_cost_no_more_than_those_of_many() {
    const NAMES: u64 = 100_000;
    let mut mesh = Mesh::new(1, 1);
    mesh.tell_plain(
        1,
        tell(|_, cx| {
            for round in 0..3 {
                for name in 0..NAMES {
                    // The bits of both halves count.
                    let name = name << 20 | name << 44;
                    assert!(cx.after_keyed(name, ms(5 + round), Tick(round)).is_ok());
                }
            }
            for name in (0..NAMES).filter(|name| name % 10 > 0) {
                assert!(cx.cancel_keyed(name << 20 | name << 44));
            }
            assert!(!cx.cancel_keyed(1 << 20) && !cx.cancel_keyed(10 << 20));
        }),
    );
    mesh.settle();
    assert_eq!(mesh.timers() as u64, NAMES / 10);
    mesh.wait_ms(20);
    let lines = take_notes();
    assert_eq!((lines.len() as u64, mesh.timers()), (NAMES / 10, 0));
    assert!(lines.iter().all(|line| line.starts_with("1 tick 2")));
}

/// What should be set: by entity and number.
type Model = BTreeMap<(u64, u64), Expected>;

struct Expected {
    timer: Timer,
    name: Option<u64>,
    due_ms: u64,
}

thread_local! {
    static MODEL: RefCell<Model> = const { RefCell::new(Model::new()) };
}

/// Takes those that have fired out of the model.
fn strike_out_fired(model: &mut Model) {
    for line in take_notes() {
        let words: Vec<_> = line.split(' ').map(|word| word.parse::<u64>()).collect();
        let [Ok(key), _, Ok(number), _, Ok(at_ms)] = words[..] else { continue };
        let expected = model.remove(&(key, number)).expect("it is set");
        assert!(at_ms >= expected.due_ms, "it is early");
    }
}

/// Does as `random` says with the timers of one entity, and with the model.
fn change(cx: &mut Cx<'_, Agent<Plain>>, number: u64, random: u64, model: &mut Model) {
    strike_out_fired(model);
    let (key, due_ms) = (cx.key(), cx.monotonic_ns() / 1_000_000 + random / 64 % 40);
    let delay = ms(random / 64 % 40);
    let name = random / 8 % 5;
    let own = || (key, 0)..(key + 1, 0);
    let named =
        |(at, expected): (&(u64, u64), &Expected)| (expected.name == Some(name)).then_some(*at);
    match random % 8 {
        0..3 => {
            let timer = cx.after(delay, Tick(number)).ok().expect("room");
            model.insert((key, number), Expected { timer, name: None, due_ms });
        }
        3..5 => {
            let timer = cx.after_keyed(name, delay, Tick(number)).ok().expect("room");
            let former = model.range(own()).find_map(named);
            former.map(|at| model.remove(&at));
            model.insert((key, number), Expected { timer, name: Some(name), due_ms });
        }
        5 => {
            let former = model.range(own()).find_map(named);
            assert_eq!(cx.cancel_keyed(name), former.is_some());
            former.map(|at| model.remove(&at));
        }
        6 => {
            let count = model.range(own()).count().max(1);
            let other = model.range(own()).nth(random as usize / 8 % count);
            if let Some((at, timer)) = other.map(|(at, expected)| (*at, expected.timer)) {
                assert!(cx.cancel(timer) && !cx.cancel(timer));
                model.remove(&at);
            }
        }
        _ if (random / 8).is_multiple_of(8) => {
            cx.stop();
            model.retain(|at, _| at.0 != key);
        }
        _ => {}
    }
}

#[test]
fn timers_of_entities_do_what_a_list_of_them_does() {
    for seed in 1..=40 {
        println!("seed {seed}");
        let mut mesh = Mesh::new(1, seed);
        MODEL.take();
        for number in 0..3000 {
            let random = mesh.below(1 << 40);
            let change = move |_: &mut Agent<Plain>, cx: &mut Cx<'_, Agent<Plain>>| {
                MODEL.with_borrow_mut(|model| change(cx, number, random, model));
            };
            mesh.tell_plain(random >> 36, tell(change));
            mesh.settle();
            if mesh.below(20) == 0 {
                mesh.wait_ms(random % 8);
            }
            MODEL.with_borrow_mut(|model| {
                strike_out_fired(model);
                let now_ms = mesh.at_ms();
                assert!(model.values().all(|expected| expected.due_ms + 3 >= now_ms), "late");
                assert_eq!(mesh.timers(), model.len());
            });
        }
    }
}
