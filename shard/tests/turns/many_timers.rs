//! However many timers are set, and whoever sets them, each costs the same.

use std::time::Duration;

use coreside_shard::ShardConfig;

use crate::agent::{Tick, tell};
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
