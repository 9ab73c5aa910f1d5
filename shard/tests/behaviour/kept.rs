//! Instances that are always running, and those of pools.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::Duration;

use coreside_shard::{
    Address, AsyncCx, Backoff, Cx, Entity, Handler, Life, Message, OnFault, PoolKeys, Registration,
    Registry, Single, Terminated, Via,
};

use crate::mesh::{Mesh, config};
use crate::shards::HASH;

thread_local! {
    /// Turns of each kind of activation and message, by entity.
    static SEEN: RefCell<BTreeMap<(&'static str, u64), u64>> =
        const { RefCell::new(BTreeMap::new()) };
    /// What activations do.
    static ACTIVATION: Cell<Do> = const { Cell::new(Do::Nothing) };
}

fn see(what: &'static str, key: u64) {
    SEEN.with_borrow_mut(|seen| *seen.entry((what, key)).or_default() += 1);
}

fn seen(what: &'static str, key: u64) -> u64 {
    SEEN.with_borrow(|seen| seen.get(&(what, key)).copied().unwrap_or_default())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Do {
    Nothing,
    Stop,
    Panic,
    /// Stops after 5 ms, in which it takes nothing else.
    StopLater,
    /// The clerk takes its watches back.
    Unwatch,
}

impl Message for Do {
    type Reply = ();
}

fn act<E: Entity>(what: Do, cx: &mut Cx<'_, E>) {
    match what {
        Do::Nothing | Do::Unwatch => {}
        Do::Stop => cx.stop(),
        Do::StopLater => {
            let _later = cx.run(async |_: &mut E, cx: &mut AsyncCx<E>| {
                cx.sleep(Duration::from_millis(5)).await;
                cx.stop();
            });
        }
        Do::Panic => panic!("told to"),
    }
}

/// Runs always. What its type declares would end it at its first fault.
struct Worker(u64);

impl Entity for Worker {
    type Key = u64;
    type Ref<V: Via> = Address<Self, V>;
    const NAME: &'static str = "worker";
    const LIFE: Life = Life {
        on_fault: OnFault::Stop,
        idle: Some(Duration::from_secs(1)),
        backoff: Backoff { jitter_percent: 0, ..Backoff::DEFAULT },
        ..Life::DEFAULT
    };

    fn activate(key: u64, cx: &mut Cx<'_, Self>) -> Self {
        see("activate", key);
        act(ACTIVATION.get(), cx);
        Self(key)
    }

    fn on_stop(&mut self, _: &mut Cx<'_, Self>) {
        see("stop", self.0);
    }

    fn register(table: &mut Registration<'_, Self>) {
        table.message::<Do>("do");
    }
}

impl Handler<Do> for Worker {
    type Answer = ();

    fn handle(&mut self, what: Do, cx: &mut Cx<'_, Self>) {
        see("do", self.0);
        act(what, cx);
    }
}

/// The only one of its type.
struct Clerk;

impl Entity for Clerk {
    type Key = Single;
    type Ref<V: Via> = Address<Self, V>;
    const NAME: &'static str = "clerk";

    fn activate(_: Single, cx: &mut Cx<'_, Self>) -> Self {
        see("clerk", 0);
        // Before the worker's own shard may have begun it.
        for key in 0..WORKERS {
            cx.watch::<Worker>(key).expect("room");
        }
        Self
    }

    fn register(table: &mut Registration<'_, Self>) {
        table.message::<Do>("do").message::<Terminated>("terminated");
    }
}

impl Handler<Do> for Clerk {
    type Answer = ();

    fn handle(&mut self, what: Do, cx: &mut Cx<'_, Self>) {
        see("clerk does", 0);
        if what == Do::Unwatch {
            (0..WORKERS).for_each(|key| cx.unwatch::<Worker>(key));
        }
        act(what, cx);
    }
}

impl Handler<Terminated> for Clerk {
    type Answer = ();

    fn handle(&mut self, ended: Terminated, _: &mut Cx<'_, Self>) {
        see("ended", ended.entity.key::<Worker>().expect("a worker"));
    }
}

/// Without state; says on which shard it is.
struct Stateless;

impl Entity for Stateless {
    type Key = u64;
    type Ref<V: Via> = Address<Self, V>;
    const NAME: &'static str = "stateless";

    fn activate(_: u64, _: &mut Cx<'_, Self>) -> Self {
        Self
    }

    fn register(table: &mut Registration<'_, Self>) {
        table.message::<Do>("do").message::<UsePool>("use_pool");
    }
}

impl Handler<Do> for Stateless {
    type Answer = ();

    fn handle(&mut self, what: Do, cx: &mut Cx<'_, Self>) {
        see("member", cx.key());
        act(what, cx);
    }
}

/// Tells this many members of the pool on the same shard, and the clerk.
struct UsePool(u64);

impl Message for UsePool {
    type Reply = ();
}

impl Handler<UsePool> for Stateless {
    type Answer = ();

    fn handle(&mut self, UsePool(calls): UsePool, cx: &mut Cx<'_, Self>) {
        for _ in 0..calls {
            cx.pool::<Stateless>().message(Do::Nothing).try_tell().expect("room");
        }
    }
}

const WORKERS: u64 = 7;
const MEMBERS: u32 = 3;

fn registry() -> Registry {
    SEEN.take();
    ACTIVATION.set(Do::Nothing);
    let mut registry = Registry::new();
    registry.workers::<Worker>(WORKERS as u32).singleton::<Clerk>().pool::<Stateless>(MEMBERS);
    registry
}

fn mesh(shards: u16, seed: u64) -> Mesh {
    let table = registry().build().expect("the names differ");
    Mesh::new(shards, 1 << 14, &config(), &table, seed)
}

fn start(mesh: &mut Mesh) {
    for shard in &mut mesh.shards {
        shard.start_kept(mesh.now);
    }
}

fn workers(mesh: &Mesh) -> usize {
    mesh.shards.iter().map(|shard| shard.entities::<Worker>()).sum()
}

fn tell(mesh: &mut Mesh, key: u64, what: Do) {
    assert!(mesh.shards[0].tell::<Worker, _>(key, what).is_ok());
}

#[test]
fn kept_instances_are_activated_before_the_first_poll_each_once() {
    for shards in [1, 2, 5] {
        let mut mesh = mesh(shards, 1);
        start(&mut mesh);
        assert_eq!(workers(&mesh), WORKERS as usize);
        assert!((0..WORKERS).all(|key| seen("activate", key) == 1));
        assert_eq!(seen("clerk", 0), 1);
        mesh.settle();
        // Nobody was told that a worker is not there.
        assert!((0..WORKERS).all(|key| seen("ended", key) == 0), "{shards} shards");
    }
}

#[test]
fn worker_that_stops_is_begun_again_and_what_came_meanwhile_is_handled() {
    let mut mesh = mesh(3, 1);
    start(&mut mesh);
    mesh.settle();
    tell(&mut mesh, 3, Do::Stop);
    mesh.settle();
    assert_eq!((seen("stop", 3), seen("ended", 3)), (1, 1), "it says goodbye, and is mourned");
    tell(&mut mesh, 3, Do::Nothing);
    mesh.settle();
    assert_eq!((seen("activate", 3), seen("do", 3)), (1, 1));
    mesh.wait(12_000_000);
    assert_eq!((seen("activate", 3), seen("do", 3)), (2, 2));
}

#[test]
fn ask_that_waits_for_another_life_waits_until_its_deadline() {
    let mut mesh = mesh(1, 1);
    start(&mut mesh);
    tell(&mut mesh, 0, Do::StopLater);
    for ms in [8, 100] {
        let deadline_ns = mesh.now.monotonic_ns + ms * 1_000_000;
        let asked = mesh.shards[0].ask::<Worker, _, _>(0, Do::Nothing, deadline_ns, |_, _| ());
        assert!(asked.is_ok());
    }
    // Both came while it was busy, and it begins again 10 ms behind its end.
    (0..10).for_each(|_| mesh.wait(1_000_000));
    assert_eq!((seen("stop", 0), seen("activate", 0)), (1, 1));
    assert_eq!(mesh.count(|stats| stats.expired), 1);
    (0..10).for_each(|_| mesh.wait(1_000_000));
    assert_eq!((seen("activate", 0), seen("do", 0)), (2, 2));
}

#[test]
fn worker_is_restarted_for_ever_whatever_its_type_declares() {
    let mut mesh = mesh(2, 1);
    start(&mut mesh);
    mesh.settle();
    for round in 1..=40 {
        tell(&mut mesh, 2, Do::Panic);
        mesh.settle();
        mesh.wait(11_000_000_000);
        assert_eq!(seen("activate", 2), round + 1);
    }
    assert_eq!(workers(&mesh), WORKERS as usize);
}

#[test]
fn kept_instances_are_never_put_away() {
    let mut mesh = mesh(2, 1);
    start(&mut mesh);
    (0..20).for_each(|_| mesh.wait(1_000_000_000));
    assert_eq!(workers(&mesh), WORKERS as usize);
    assert_eq!(mesh.count(|stats| stats.passivations), 0);
}

#[test]
fn worker_that_ends_at_once_each_time_is_begun_ever_more_slowly() {
    for what in [Do::Stop, Do::Panic] {
        let mut mesh = mesh(1, 1);
        ACTIVATION.set(what);
        start(&mut mesh);
        mesh.settle();
        assert!((0..WORKERS).all(|key| seen("activate", key) == 1), "{what:?}");
        (0..1_000).for_each(|_| mesh.wait(1_000_000));
        // 10, 20, 40 and so on: ten in ten seconds, seven in one.
        let activations = seen("activate", 0);
        assert!((5..=9).contains(&activations), "{what:?}: {activations} in a second");
        ACTIVATION.set(Do::Nothing);
        (0..10).for_each(|_| mesh.wait(10_000_000_000));
        tell(&mut mesh, 0, Do::Nothing);
        mesh.settle();
        assert_eq!(seen("do", 0), 1, "{what:?}");
    }
}

#[test]
fn singleton_comes_back_and_keeps_its_mail() {
    let mut mesh = mesh(4, 1);
    start(&mut mesh);
    for what in [Do::Panic, Do::Nothing, Do::Stop, Do::Nothing] {
        assert!(mesh.shards[2].tell::<Clerk, _>(Single, what).is_ok());
    }
    mesh.settle();
    for _ in 0..10 {
        mesh.wait(100_000_000);
    }
    assert_eq!((seen("clerk", 0), seen("clerk does", 0)), (3, 4));
    assert_eq!(mesh.shards.iter().map(|shard| shard.entities::<Clerk>()).sum::<usize>(), 1);
}

#[test]
fn kept_instance_with_nothing_else_attached_is_begun_again() {
    let mut mesh = mesh(2, 1);
    start(&mut mesh);
    mesh.settle();
    // From here on nobody watches a worker, and the clerk watches nobody.
    assert!(mesh.shards[0].tell::<Clerk, _>(Single, Do::Unwatch).is_ok());
    mesh.settle();
    assert!(mesh.shards[0].tell::<Clerk, _>(Single, Do::Stop).is_ok());
    (0..WORKERS).for_each(|key| tell(&mut mesh, key, Do::Stop));
    mesh.settle();
    mesh.wait(20_000_000);
    assert_eq!((workers(&mesh) as u64, seen("clerk", 0)), (WORKERS, 2));
    assert!((0..WORKERS).all(|key| seen("activate", key) == 2));
}

#[test]
fn stopping_node_begins_nothing_again() {
    let mut mesh = mesh(2, 1);
    start(&mut mesh);
    mesh.settle();
    mesh.shards.iter_mut().for_each(|shard| shard.release_kept());
    (0..WORKERS).for_each(|key| tell(&mut mesh, key, Do::Stop));
    mesh.wait(20_000_000_000);
    assert_eq!(workers(&mesh), 0);
    assert!((0..WORKERS).all(|key| seen("activate", key) == 1 && seen("stop", key) == 1));
}

#[test]
fn pool_is_called_on_the_callers_shard_each_member_in_turn() {
    let mut mesh = mesh(4, 1);
    start(&mut mesh);
    mesh.settle();
    let callers: Vec<u64> = (0..4)
        .map(|shard| (1_000..).find(|key| mesh.home(*key) == shard).expect("a key"))
        .collect();
    for (shard, caller) in callers.into_iter().enumerate() {
        assert!(mesh.shards[shard].tell::<Stateless, _>(caller, UsePool(30)).is_ok());
    }
    let before = mesh.count(|stats| stats.received);
    mesh.settle();
    assert_eq!(mesh.count(|stats| stats.received), before, "nothing has left its shard");
    let members = SEEN.with_borrow(|seen| {
        let of_pool = seen.iter().filter(|((what, _), _)| *what == "member");
        of_pool.map(|((_, key), calls)| (*key, *calls)).collect::<Vec<_>>()
    });
    assert_eq!(members.len(), 4 * MEMBERS as usize);
    assert!(members.iter().all(|(_, calls)| *calls == 30 / u64::from(MEMBERS)), "{members:?}");
}

#[test]
fn callers_outside_find_the_same_members_on_one_shard_after_the_other() {
    let table = registry().build().expect("the names differ");
    let mesh = mesh(4, 1);
    let placement = coreside_shard::Placement::even(4);
    let keys = PoolKeys::new(&table, &HASH, &placement, 4);
    let calls = 4 * MEMBERS as usize;
    let found: Vec<u64> = (0..calls).map(|call| keys.member::<Stateless>(&table, call)).collect();
    for (call, key) in found.iter().enumerate() {
        assert_eq!(mesh.home(*key), call % 4);
        assert_eq!(*key, keys.member::<Stateless>(&table, call + calls), "around again");
    }
    let mut sorted = found.clone();
    sorted.sort_unstable();
    sorted.dedup();
    assert_eq!(sorted.len(), calls);
}
