//! Every ask ends once: with the reply, or with an error that says what may have happened.

use coreside_shard::{Address, Later, Via};
use coreside_shard::{AskError, Cx, Entity, Handler, Message, Registration, ShardConfig};

use crate::actor::{Act, Actor, CURSED, Relay, Release, error_of, table_with};
use crate::book::{book, close, live, outcome};
use crate::mesh::{Mesh, config};

#[test]
fn every_ask_ends() {
    let mut mesh = Mesh::of_actors(3, &config(), 1);
    for from in 0..3 {
        for home in 0..3 {
            let id = mesh.on::<u64>(home, 0);
            let echo = mesh.ask::<u64>(from, id, Act::Nothing).expect("room");
            let large = mesh.ask_large::<u64>(from, id, Act::Nothing).expect("room");
            let failed = mesh.ask::<u64>(from, id, Act::Panic).expect("room");
            let failed_large = mesh.ask_large::<u64>(from, id, Act::Panic).expect("room");
            let kept = mesh.ask_keep::<u64>(from, id).expect("room");
            mesh.settle();
            assert_eq!(outcome(echo), Some(Ok(echo)));
            assert_eq!(outcome(large), Some(Ok(large)));
            assert_eq!(outcome(failed), Some(Err(AskError::Failed)));
            assert_eq!(outcome(failed_large), Some(Err(AskError::Failed)));
            assert_eq!(outcome(kept), None, "still waits");
            mesh.wait(1_010_000_000);
            assert_eq!(outcome(kept), Some(Err(AskError::MaybeExecuted)));
        }
    }
    assert_eq!(mesh.asks_waiting(), 0);
    assert_eq!(mesh.count(|stats| stats.asks_expired), 9);
    drop(mesh);
    close("asks");
}

#[test]
fn a_reply_may_come_later() {
    let mut mesh = Mesh::of_actors(2, &config(), 1);
    for home in 0..2 {
        let id = mesh.on::<u64>(home, 0);
        let kept: Vec<_> = (0..5).map(|_| mesh.ask_keep::<u64>(0, id).expect("room")).collect();
        mesh.settle();
        assert!(kept.iter().all(|number| outcome(*number).is_none()));
        assert!(mesh.shards[1].tell::<Actor<u64>, _>(id, Release).is_ok());
        mesh.settle();
        assert!(kept.iter().all(|number| outcome(*number) == Some(Ok(*number))));
    }
    assert_eq!(mesh.count(|stats| stats.answers_late), 0);
    drop(mesh);
    close("later");
}

#[test]
fn a_late_reply_is_dropped_and_counted() {
    let mut mesh = Mesh::of_actors(2, &config(), 1);
    for home in 0..2 {
        let id = mesh.on::<u64>(home, 0);
        let kept = mesh.ask_keep::<u64>(0, id).expect("room");
        mesh.settle();
        mesh.wait(2_000_000_000);
        assert_eq!(outcome(kept), Some(Err(AskError::MaybeExecuted)));
        // Another ask takes the place of the one that has ended.
        let other = mesh.ask_keep::<u64>(0, 77).expect("room");
        assert!(mesh.shards[0].tell::<Actor<u64>, _>(id, Release).is_ok());
        mesh.settle();
        assert_eq!(outcome(other), None, "the late reply is not taken for another's");
        assert_eq!(mesh.count(|stats| stats.answers_late), home as u64 + 1);
        mesh.wait(2_000_000_000);
    }
    drop(mesh);
    close("late replies");
}

#[test]
fn a_late_large_reply_is_dropped_once() {
    let mut mesh = Mesh::of_actors(2, &config(), 1);
    let far = mesh.on::<u64>(1, 0);
    mesh.ask_large::<u64>(0, far, Act::Nothing).expect("room");
    mesh.poll(0);
    // The reply lies in the ring while the deadline passes.
    mesh.poll(1);
    assert_eq!(live("reply"), 1);
    mesh.now.monotonic_ns += 2_000_000_000;
    mesh.poll(0);
    assert_eq!(live("reply"), 0);
    assert_eq!(book(|book| book.outcomes.len()), 1);
    assert_eq!(mesh.count(|stats| stats.answers_late), 1);
    drop(mesh);
    close("late large reply");
}

#[test]
fn an_ask_ends_soon_after_its_deadline_and_not_before() {
    let mut mesh = Mesh::of_actors(1, &config(), 1);
    let number = mesh.ask_keep::<u64>(0, 1).expect("room");
    let deadline_ns = mesh.now.monotonic_ns + 1_000_000_000;
    let mut ended_ns = None;
    while ended_ns.is_none() && mesh.now.monotonic_ns < deadline_ns + 10_000_000 {
        mesh.now.monotonic_ns += 100_000;
        mesh.poll(0);
        ended_ns = outcome(number).map(|_| mesh.now.monotonic_ns);
    }
    let late_ns = ended_ns.expect("it ended").checked_sub(deadline_ns).expect("not before");
    assert!(late_ns <= 2_200_000, "{late_ns} ns late");
    drop(mesh);
    close("deadline");
}

#[test]
fn an_entitys_ask_ends_too() {
    for (home, name) in [(0, "the own shard"), (1, "another shard")] {
        let mut mesh = Mesh::of_actors(2, &config(), 1);
        let (asker, other) = (mesh.on::<u64>(0, 0), mesh.on::<u64>(home, 1));
        let relay = |act| move |stamp| Relay { act, ..Relay::new(stamp, other) };
        let good = mesh.ask_relay::<u64>(0, asker, relay(Act::Nothing)).expect("room");
        let failed = mesh.ask_relay::<u64>(0, asker, relay(Act::Panic)).expect("room");
        mesh.settle();
        assert!(matches!(outcome(good), Some(Ok(number)) if number > good), "{name}");
        assert_eq!(outcome(failed), Some(Ok(error_of(AskError::Failed))), "{name}");
        CURSED.set(Some(other));
        let failed = mesh.ask_relay::<u64>(0, asker, relay(Act::Nothing)).expect("room");
        mesh.settle();
        assert_eq!(outcome(failed), Some(Ok(error_of(AskError::Failed))), "{name}");
        CURSED.set(None);
        drop(mesh);
        close(name);
    }
}

#[test]
fn the_answer_to_an_entity_that_is_gone_is_counted() {
    for home in 0..2 {
        let mut mesh = Mesh::of_actors(2, &config(), 1);
        let (asker, other) = (mesh.on::<u64>(0, 0), mesh.on::<u64>(home, 1));
        let relay = |stamp| Relay { stop: true, ..Relay::new(stamp, other) };
        let number = mesh.ask_relay::<u64>(0, asker, relay).expect("room");
        // The next life of the same entity, most likely in the same slot.
        mesh.tell::<u64>(0, asker, Act::Nothing).expect("room");
        mesh.settle();
        assert_eq!(mesh.count(|stats| stats.answers_unclaimed), 1);
        assert_eq!(outcome(number), None, "the duty to answer went with the entity");
        mesh.wait(2_000_000_000);
        assert_eq!(outcome(number), Some(Err(AskError::MaybeExecuted)));
        drop(mesh);
        close("unclaimed");
    }
}

#[test]
fn many_asks_expire_over_a_few_polls() {
    let config = ShardConfig { asks_max: 100_000, ..config() };
    let mut mesh = Mesh::of_actors(1, &config, 1);
    for id in 0..20_000 {
        mesh.ask_keep::<u64>(0, id % 100).expect("room");
    }
    mesh.settle();
    assert_eq!(mesh.asks_waiting(), 20_000);
    mesh.now.monotonic_ns += 2_000_000_000;
    for _ in 0..12 {
        mesh.poll(0);
    }
    assert_eq!(mesh.asks_waiting(), 0);
    drop(mesh);
    close("many asks");
}

#[test]
fn end_asks_ends_each_with_the_given_error() {
    let mut mesh = Mesh::of_actors(2, &config(), 1);
    let kept: Vec<_> = (0..50).map(|id| mesh.ask_keep::<u64>(0, id).expect("room")).collect();
    let relay = |stamp| Relay { then: Act::Panic, ..Relay::new(stamp, 1) };
    mesh.ask_relay::<u64>(0, 2, relay).expect("room");
    mesh.poll(0);
    for shard in &mut mesh.shards {
        shard.end_asks(AskError::MaybeExecuted, &mut ());
    }
    assert_eq!(mesh.asks_waiting(), 0);
    assert!(kept.iter().all(|number| outcome(*number) == Some(Err(AskError::MaybeExecuted))));
    drop(mesh);
    close("end of asks");
}

/// Puts its reply off with a type that is not the reply's.
struct Mistaken;

struct Word;

impl Message for Word {
    type Reply = u64;
}

impl Entity for Mistaken {
    type Key = u64;
    type Ref<V: Via> = Address<Self, V>;
    const NAME: &'static str = "mistaken";

    fn activate(_key: u64, _cx: &mut Cx<'_, Self>) -> Self {
        Self
    }

    fn register(table: &mut Registration<'_, Self>) {
        table.message::<Word>("word");
    }
}

impl Handler<Word> for Mistaken {
    type Answer = Later<u64>;

    fn handle(&mut self, _: Word, cx: &mut Cx<'_, Self>) -> Later<u64> {
        let (_, wrong) = cx.later::<i64>();
        cx.reply(wrong, -1);
        cx.later::<u64>().0
    }
}

#[test]
fn a_reply_of_another_type_is_a_fault() {
    let table = table_with(|registry| {
        registry.entity::<Mistaken>();
    });
    let mut mesh = Mesh::new(1, 1 << 12, &config(), &table, 1);
    let then = |answer, _: &mut dyn coreside_shard::Outside| crate::book::finish(1, answer);
    assert!(mesh.shards[0].ask::<Mistaken, _, _>(1, Word, u64::MAX, then).is_ok());
    mesh.settle();
    assert_eq!(outcome(1), Some(Err(AskError::Failed)));
    drop(mesh);
    close("mistaken");
}
