//! Reads of one entity have their turns beside each other; writes wait for them, and are not
//! starved by those that come later.

use coreside_shard::AsyncCx;

use crate::agent::{Agent, Look, Plain, Tight, ask, echo, look, look_of, noting};
use crate::gate::Gate;
use crate::mesh::Mesh;
use crate::notes::{note, outcome, take_notes};

/// A read that notes its begin, and waits for the gate.
fn reading(gate: &Gate, number: u64) -> Look<Plain> {
    let gate = gate.clone();
    look(move |_, cx| {
        cx.run_read(async move |agent: &Agent<Plain>, _: &mut AsyncCx<_>| {
            note(format!("read {number}"));
            gate.passed().await;
            agent.value + number
        })
    })
}

#[test]
fn reads_run_beside_each_other() {
    let mut mesh = Mesh::new(1, 1);
    let gates = [Gate::new(), Gate::new()];
    let first = mesh.ask::<Plain, _>(1, reading(&gates[0], 1));
    let second = mesh.ask::<Plain, _>(1, reading(&gates[1], 2));
    mesh.settle();
    assert_eq!(take_notes(), ["read 1", "read 2"]);
    assert_eq!(mesh.answer(1, look(|agent, _| agent.value + 3)), Some(Ok(3)), "a sync one too");
    gates[1].open();
    mesh.settle();
    assert_eq!((outcome(first), outcome(second)), (None, Some(Ok(2))));
    gates[0].open();
    mesh.settle();
    assert_eq!(outcome(first), Some(Ok(1)));
}

#[test]
fn write_waits_for_the_reads_and_later_reads_wait_for_the_write() {
    let mut mesh = Mesh::new(1, 1);
    let gate = Gate::new();
    let first = mesh.ask::<Plain, _>(1, reading(&gate, 1));
    mesh.settle();
    let write = mesh.ask::<Plain, _>(
        1,
        ask(|agent, _| {
            note("write");
            agent.value = 10;
            0
        }),
    );
    let later = mesh.ask::<Plain, _>(
        1,
        look(|agent, _| {
            note("later");
            agent.value
        }),
    );
    mesh.settle();
    assert_eq!(take_notes(), ["read 1"]);
    gate.open();
    mesh.settle();
    assert_eq!(take_notes(), ["write", "later"]);
    assert_eq!(outcome(first), Some(Ok(1)));
    assert_eq!((outcome(write), outcome(later)), (Some(Ok(0)), Some(Ok(10))));
}

#[test]
fn steady_reads_do_not_starve_a_write() {
    let mut mesh = Mesh::new(1, 1);
    let gates: Vec<Gate> = (0..40).map(|_| Gate::new()).collect();
    let mut write = None;
    for (number, gate) in gates.iter().enumerate() {
        mesh.ask::<Plain, _>(1, reading(gate, number as u64));
        if number == 10 {
            write = Some(mesh.ask::<Plain, _>(1, echo(1)));
        }
        // There are two reads under way at any time, so there is never a moment without one.
        if number > 1 {
            gates[number - 2].open();
        }
        mesh.settle();
        if number == 14 {
            assert_eq!(write.and_then(outcome), Some(Ok(1)), "it waits for two reads, no more");
        }
    }
}

#[test]
fn reads_that_waited_run_beside_each_other() {
    let mut mesh = Mesh::new(1, 1);
    let (hold, gate) = (mesh.hold::<Plain>(1), Gate::new());
    let reads: Vec<_> =
        (0..5).map(|number| mesh.ask::<Plain, _>(1, reading(&gate, number))).collect();
    mesh.tell_plain(1, noting::<Plain>("write"));
    let last = mesh.ask::<Plain, _>(1, reading(&gate, 9));
    mesh.settle();
    assert!(take_notes().is_empty());
    hold.open();
    mesh.settle();
    assert_eq!(take_notes(), ["read 0", "read 1", "read 2", "read 3", "read 4"]);
    gate.open();
    mesh.settle();
    assert_eq!(take_notes(), ["1 write", "read 9"]);
    assert!(reads.into_iter().chain([last]).all(|read| matches!(outcome(read), Some(Ok(_)))));
}

#[test]
fn reads_beyond_the_bound_of_an_entity_wait_in_order() {
    let mut mesh = Mesh::new(1, 1);
    let gate = Gate::new();
    for number in 0..7 {
        let gate = gate.clone();
        mesh.ask::<Tight, _>(
            1,
            look_of(move |_: &Agent<Tight>, cx| {
                note(format!("begin {number}"));
                cx.run_read(async move |_, _| {
                    gate.passed().await;
                    number
                })
            }),
        );
    }
    mesh.settle();
    assert_eq!(take_notes(), ["begin 0", "begin 1", "begin 2", "begin 3"]);
    gate.open();
    mesh.settle();
    assert_eq!(take_notes(), ["begin 4", "begin 5", "begin 6"]);
    assert_eq!((mesh.async_turns(), mesh.count(|stats| stats.refused)), (0, 0));
}
