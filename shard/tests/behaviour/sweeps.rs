//! Sweeps: one pass over every entity of a type, with one total.

use std::cell::{Cell, RefCell};
use std::marker::PhantomData;
use std::sync::Arc;

use coreside_shard::{
    Address, AskError, Cx, Entity, Handler, Message, Registration, Registry, Sweep, Table, ToValue,
    ValueWriter, Via, Visit,
};

use crate::book::{Witness, book, close, live, note};
use crate::mesh::{Mesh, config};

/// A number.
struct Cell64 {
    value: u64,
    _alive: Witness,
}

struct Set(u64);

impl Message for Set {
    type Reply = ();
}

impl Entity for Cell64 {
    type Key = u64;
    type Ref<V: Via> = Address<Self, V>;
    const NAME: &'static str = "cell";

    fn activate(_key: u64, _cx: &mut Cx<'_, Self>) -> Self {
        Self { value: 0, _alive: Witness::new("state") }
    }

    fn register(table: &mut Registration<'_, Self>) {
        table.message::<Set>("set");
        table.sweep::<Total<AddUp>>("add_up", None);
        table.sweep::<Total<StopOdd>>("stop_odd", None);
        table.sweep::<Total<PanicAtSeven>>("panic_at_seven", None);
        table.sweep::<Total<PanicInMerge>>("panic_in_merge", None);
        table.sweep::<Total<PanicInDefault>>("panic_in_default", None);
    }
}

impl Handler<Set> for Cell64 {
    type Answer = ();

    fn handle(&mut self, Set(value): Set, _cx: &mut Cx<'_, Self>) {
        self.value = value;
    }
}

/// Counts and sums what it visits, and does what `H` adds to that.
struct Total<H> {
    count: u64,
    sum: u64,
    _alive: Witness,
    habit: PhantomData<H>,
}

/// What a sweep does beside adding up.
trait Habit: Send + 'static {
    fn begin() {}

    fn visit(_key: u64) -> Visit {
        Visit::Keep
    }

    fn merge() {}
}

impl<H: Habit> Default for Total<H> {
    fn default() -> Self {
        H::begin();
        Self { count: 0, sum: 0, _alive: Witness::new("total"), habit: PhantomData }
    }
}

impl<H: Habit> Sweep<Cell64> for Total<H> {
    fn visit(&mut self, key: u64, cell: &mut Cell64) -> Visit {
        if cell.value != key {
            note(format!("key {key} has the value {}", cell.value));
        }
        let visit = H::visit(key);
        self.count += 1;
        self.sum += cell.value;
        visit
    }

    fn merge(&mut self, other: Self) {
        H::merge();
        self.count += other.count;
        self.sum += other.sum;
    }
}

impl<H> ToValue for Total<H> {
    fn write_to(&self, out: &mut dyn ValueWriter) {
        (self.count, self.sum).write_to(out);
    }
}

struct AddUp;

impl Habit for AddUp {}

struct StopOdd;

impl Habit for StopOdd {
    fn visit(key: u64) -> Visit {
        if key.is_multiple_of(2) { Visit::Keep } else { Visit::Stop }
    }
}

struct PanicAtSeven;

impl Habit for PanicAtSeven {
    fn visit(key: u64) -> Visit {
        assert!(key % 10 != 7, "told to, in a visit");
        Visit::Keep
    }
}

thread_local! {
    /// Merges that go well before one panics.
    static MERGES: Cell<u32> = const { Cell::new(0) };
}

struct PanicInMerge;

impl Habit for PanicInMerge {
    fn merge() {
        MERGES.set(MERGES.get().checked_sub(1).expect("told to, in a merge"));
    }
}

struct PanicInDefault;

impl Habit for PanicInDefault {
    fn begin() {
        panic!("told to, where a total begins");
    }
}

fn table() -> Arc<Table> {
    let mut registry = Registry::new();
    registry.entity::<Cell64>();
    registry.build().expect("one type")
}

/// Cells on so many shards, each with its key as its value.
fn cells(shards: u16, count: u64) -> Mesh {
    let mut mesh = Mesh::new(shards, 1 << 14, &config(), &table(), 1);
    for key in 0..count {
        let sent = mesh.shards[0].tell::<Cell64, _>(key, Set(key));
        assert!(sent.is_ok());
        if key % 512 == 0 {
            mesh.settle();
        }
    }
    mesh.settle();
    mesh
}

thread_local! {
    /// Counts and sums of the sweeps that have ended, or why there are none.
    static ENDED: RefCell<Vec<Result<(u64, u64), AskError>>> = const { RefCell::new(vec![]) };
}

fn sweep<H: Habit>(mesh: &mut Mesh, shard: usize) -> Result<(), AskError> {
    mesh.shards[shard].sweep::<Cell64, Total<H>, _>(|total, _| {
        ENDED.with_borrow_mut(|ended| ended.push(total.map(|total| (total.count, total.sum))));
    })
}

#[test]
fn a_sweep_visits_every_entity_once() {
    for shards in [1, 2, 5] {
        // More than a poll's share of slots on each shard.
        let mut mesh = cells(shards, 9_000);
        for from in 0..usize::from(shards) {
            assert_eq!(sweep::<AddUp>(&mut mesh, from), Ok(()));
            mesh.settle();
            assert_eq!(ENDED.take(), [Ok((9_000, 9_000 * 8_999 / 2))]);
        }
        drop(mesh);
        close("sum");
    }
}

#[test]
fn a_sweep_of_nothing_has_a_total() {
    let mut mesh = cells(3, 0);
    assert_eq!(sweep::<AddUp>(&mut mesh, 1), Ok(()));
    mesh.settle();
    assert_eq!(ENDED.take(), [Ok((0, 0))]);
    drop(mesh);
    close("nothing");
}

#[test]
fn a_sweep_removes_what_it_is_told_to() {
    let mut mesh = cells(3, 3_000);
    assert_eq!(sweep::<StopOdd>(&mut mesh, 0), Ok(()));
    mesh.settle();
    assert_eq!(sweep::<AddUp>(&mut mesh, 1), Ok(()));
    mesh.settle();
    let odd = 1_500 * 1_500;
    assert_eq!(ENDED.take(), [Ok((3_000, 3_000 * 2_999 / 2)), Ok((1_500, 1_500 * 2_999 - odd))]);
    assert_eq!(live("state"), 1_500);
    drop(mesh);
    close("stop odd");
}

#[test]
fn entities_that_come_and_go_during_a_sweep_do_no_harm() {
    let mut mesh = cells(1, 9_000);
    assert_eq!(sweep::<AddUp>(&mut mesh, 0), Ok(()));
    assert_eq!(sweep::<StopOdd>(&mut mesh, 0), Ok(()));
    assert_eq!(sweep::<AddUp>(&mut mesh, 0), Ok(()));
    for key in 9_000..9_999 {
        mesh.poll(0);
        assert!(mesh.shards[0].tell::<Cell64, _>(key, Set(key)).is_ok());
    }
    mesh.settle();
    let totals = ENDED.take();
    let counts: Vec<_> = totals.iter().map(|total| total.as_ref().map(|total| total.0)).collect();
    let [Ok(first), Ok(second), Ok(third)] = counts[..] else { panic!("{counts:?}") };
    assert!((9_000..10_000).contains(&first), "{counts:?}");
    assert!((9_000..10_000).contains(&second), "{counts:?}");
    assert!((4_500..5_500).contains(&third), "{counts:?}");
    drop(mesh);
    close("coming and going");
}

#[test]
fn a_message_told_before_a_sweep_is_seen_by_it() {
    let mut mesh = cells(2, 100);
    for key in 100..300 {
        assert!(mesh.shards[0].tell::<Cell64, _>(key, Set(key)).is_ok());
    }
    assert_eq!(sweep::<AddUp>(&mut mesh, 0), Ok(()));
    mesh.settle();
    assert_eq!(ENDED.take(), [Ok((300, 300 * 299 / 2))]);
    drop(mesh);
    close("told before");
}

#[test]
fn a_panic_in_a_visit_drops_that_entity_and_nothing_else() {
    let mut mesh = cells(2, 1_000);
    assert_eq!(sweep::<PanicAtSeven>(&mut mesh, 0), Ok(()));
    mesh.settle();
    let sevens: u64 = (0..100).map(|ten| ten * 10 + 7).sum();
    assert_eq!(ENDED.take(), [Ok((900, 1_000 * 999 / 2 - sevens))]);
    assert_eq!(mesh.faults(), 100);
    assert_eq!((live("state"), live("total")), (900, 0));
    drop(mesh);
    close("visit");
}

#[test]
fn a_panic_in_a_merge_fails_the_sweep() {
    for good in 0..3 {
        let mut mesh = cells(4, 1_000);
        MERGES.set(good);
        assert_eq!(sweep::<PanicInMerge>(&mut mesh, 0), Ok(()));
        mesh.settle();
        mesh.wait(120_000_000_000);
        assert_eq!(ENDED.take(), [Err(AskError::Failed)], "after {good} merges");
        assert_eq!(mesh.asks_waiting(), 0);
        drop(mesh);
        close("merge");
    }
}

#[test]
fn a_panic_where_a_total_begins_fails_the_sweep() {
    let mut mesh = cells(2, 10);
    assert_eq!(sweep::<PanicInDefault>(&mut mesh, 0), Ok(()));
    mesh.settle();
    assert_eq!(ENDED.take(), [Err(AskError::Failed)]);
    assert_eq!(live("state"), 10);
    drop(mesh);
    close("default");
}

#[test]
fn a_sweep_that_finds_no_room_for_its_asks_is_refused() {
    let config = coreside_shard::ShardConfig { asks_max: 2, ..config() };
    let mut mesh = Mesh::new(3, 1 << 10, &config, &table(), 1);
    assert_eq!(sweep::<AddUp>(&mut mesh, 0), Err(AskError::NotSent));
    mesh.settle();
    assert!(ENDED.take().is_empty());
    assert_eq!(mesh.asks_waiting(), 0);
    drop(mesh);
    close("no room");
}

#[test]
fn a_shard_that_ends_during_a_sweep_drops_its_total() {
    let mut mesh = cells(2, 20_000);
    assert_eq!(sweep::<AddUp>(&mut mesh, 0), Ok(()));
    mesh.poll(0);
    mesh.poll(1);
    assert!(live("total") > 0, "under way");
    drop(mesh);
    assert_eq!(book(|book| book.outcomes.len()), 0);
    close("end");
}
