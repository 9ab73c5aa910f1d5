//! A panic while a value is dropped, wherever that happens: contained like any other.

use coreside_shard::{
    Address, AskError, Cx, Entity, Handler, Life, Message, OnFault, Outside, Registration, Via,
};

use crate::actor::{Act, table_with};
use crate::book::{book, close, finish, live, outcome};
use crate::mesh::{Mesh, config};

#[test]
fn a_state_that_panics_when_dropped_is_gone_all_the_same() {
    let mut mesh = Mesh::of_actors(2, &config(), 1);
    let (near, far) = (mesh.on::<u64>(0, 0), mesh.on::<u64>(1, 0));
    for id in [near, far] {
        let stopped = mesh.ask::<u64>(0, id, Act::StopAndPanicInDrop).expect("room");
        mesh.settle();
        assert_eq!(outcome(stopped), Some(Err(AskError::Failed)), "its end is part of the turn");
        let failed = mesh.ask::<u64>(0, id, Act::PanicTwice).expect("room");
        mesh.settle();
        assert_eq!(outcome(failed), Some(Err(AskError::Failed)));
        let again = mesh.ask::<u64>(0, id, Act::Nothing).expect("room");
        mesh.settle();
        assert_eq!(outcome(again), Some(Ok(again)));
    }
    assert_eq!(book(|book| book.activations), 6);
    assert_eq!(mesh.entities::<u64>(), 2);
    assert_eq!(mesh.faults(), 6, "one for a stop, two for a panic with a panic after it");
    assert_eq!(live("state"), 2);
    drop(mesh);
    close("drops");
}

/// A message that panics when it is dropped.
struct Grenade;

impl Drop for Grenade {
    fn drop(&mut self) {
        panic!("told to, in a message's drop");
    }
}

impl Message for Grenade {
    type Reply = u64;
}

/// The same, above the inline limit.
struct Bomb(Grenade, [u64; 20]);

impl Message for Bomb {
    type Reply = u64;
}

/// Panics with something that panics when it is dropped.
struct Throw;

impl Message for Throw {
    type Reply = u64;
}

/// Its answer panics when it is dropped.
struct Answer;

impl Message for Answer {
    type Reply = Grenade;
}

struct Target;

impl Entity for Target {
    type Key = u64;
    type Ref<V: Via> = Address<Self, V>;
    const NAME: &'static str = "target";
    const LIFE: Life = Life { on_fault: OnFault::Stop, ..Life::DEFAULT };

    fn activate(_key: u64, _cx: &mut Cx<'_, Self>) -> Self {
        Self
    }

    fn register(table: &mut Registration<'_, Self>) {
        table.message::<Grenade>("grenade").message::<Bomb>("bomb").message::<Answer>("answer");
        table.message::<Throw>("throw");
    }
}

impl Handler<Grenade> for Target {
    type Answer = u64;

    fn handle(&mut self, grenade: Grenade, _cx: &mut Cx<'_, Self>) -> u64 {
        drop(grenade);
        1
    }
}

impl Handler<Bomb> for Target {
    type Answer = u64;

    fn handle(&mut self, bomb: Bomb, _cx: &mut Cx<'_, Self>) -> u64 {
        bomb.1[0]
    }
}

impl Handler<Answer> for Target {
    type Answer = Grenade;

    fn handle(&mut self, _: Answer, _cx: &mut Cx<'_, Self>) -> Grenade {
        Grenade
    }
}

impl Handler<Throw> for Target {
    type Answer = u64;

    fn handle(&mut self, _: Throw, _cx: &mut Cx<'_, Self>) -> u64 {
        std::panic::panic_any(Grenade)
    }
}

fn mesh(shards: u16, entities_max: usize) -> Mesh {
    let table = table_with(|registry| {
        registry.entity::<Target>();
    });
    let config = coreside_shard::ShardConfig { entities_max, ..config() };
    Mesh::new(shards, 1 << 12, &config, &table, 1)
}

#[test]
fn a_message_that_panics_when_dropped_takes_its_receiver_down_and_nothing_else() {
    let mut mesh = mesh(2, 100);
    for (number, id) in [(1, 0), (2, 1), (3, 2), (4, 3)] {
        mesh.tell::<u64>(0, id, Act::Nothing).expect("room");
        let then = move |answer, _: &mut dyn Outside| finish(number, answer);
        let sent = match number % 2 {
            0 => mesh.shards[0].ask::<Target, _, _>(id, Grenade, u64::MAX, then).is_ok(),
            _ => {
                let bomb = Bomb(Grenade, [0; 20]);
                mesh.shards[0].ask::<Target, _, _>(id, bomb, u64::MAX, then).is_ok()
            }
        };
        assert!(sent);
        mesh.settle();
        assert_eq!(outcome(number), Some(Err(AskError::Failed)));
    }
    assert_eq!(mesh.shards.iter().map(|shard| shard.entities::<Target>()).sum::<usize>(), 0);
    assert_eq!(live("state"), 4);
    assert_eq!(mesh.faults(), 4);
    drop(mesh);
    close("messages");
}

/// The book's number of the ask under test, which no message has.
const ASK: u64 = 1 << 50;

/// Takes the answer without dropping it.
fn keep(answer: Result<Grenade, AskError>, _: &mut dyn Outside) {
    finish(ASK, answer.map(std::mem::forget).map(|()| 0));
}

#[test]
fn a_refused_message_that_panics_when_dropped_is_contained() {
    let mut mesh = mesh(1, 1);
    assert!(mesh.shards[0].ask::<Target, _, _>(1, Answer, u64::MAX, keep).is_ok());
    mesh.settle();
    let then = |answer, _: &mut dyn Outside| finish(ASK + 1, answer);
    assert!(mesh.shards[0].ask::<Target, _, _>(2, Grenade, u64::MAX, then).is_ok());
    mesh.settle();
    assert_eq!(outcome(ASK), Some(Ok(0)));
    assert_eq!(outcome(ASK + 1), Some(Err(AskError::NotSent)));
    assert_eq!(mesh.faults(), 1);
    drop(mesh);
    close("refused");
}

#[test]
fn a_late_reply_that_panics_when_dropped_is_contained() {
    let mut mesh = mesh(2, 100);
    let id = mesh.on::<u64>(1, 0);
    let deadline_ns = mesh.now.monotonic_ns + 1_000_000;
    assert!(mesh.shards[0].ask::<Target, _, _>(id, Answer, deadline_ns, keep).is_ok());
    mesh.poll(0);
    mesh.poll(1);
    mesh.wait(10_000_000);
    let number = mesh.ask::<u64>(0, id, Act::Nothing).expect("room");
    mesh.settle();
    assert_eq!(outcome(number), Some(Ok(number)), "the shards go on");
    assert_eq!(outcome(ASK), Some(Err(AskError::MaybeExecuted)));
    assert_eq!(mesh.faults(), 1);
    drop(mesh);
    close("late reply");
}

#[test]
fn a_panic_whose_reason_panics_when_dropped_is_contained() {
    let mut mesh = mesh(2, 100);
    for home in 0..2 {
        let id = mesh.on::<u64>(home, 0);
        let then = move |answer, _: &mut dyn Outside| finish(ASK + home as u64, answer);
        assert!(mesh.shards[0].ask::<Target, _, _>(id, Throw, u64::MAX, then).is_ok());
        mesh.settle();
        assert_eq!(outcome(ASK + home as u64), Some(Err(AskError::Failed)));
    }
    drop(mesh);
    close("reason");
}

#[test]
fn a_state_that_panics_at_the_end_of_its_shard_leaves_the_others_their_drops() {
    let mut mesh = Mesh::of_actors(2, &config(), 1);
    for id in 0..20 {
        let act = if id % 5 == 2 { Act::PanicInDrop } else { Act::Nothing };
        mesh.tell::<u64>(0, id, act).expect("room");
        mesh.tell::<u128>(0, id, act).expect("room");
    }
    mesh.settle();
    mesh.ask_keep::<u64>(0, 1).expect("room");
    assert_eq!(live("state"), 40);
    drop(mesh);
    close("end");
}
