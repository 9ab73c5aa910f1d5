//! Messages cost no heap allocation: counted, on this thread, by an allocator of our own.
#![expect(unsafe_code, reason = "a global allocator is unsafe to implement")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use coreside_shard::rkyv::util::AlignedVec;
use coreside_shard::rkyv::{Archive, Deserialize, Serialize};
use coreside_shard::{
    Address, Archived, AskError, AsyncCx, Cx, Encode, Entity, Handler, HashKey, Later, Message,
    Now, Outside, Placement, Registration, Registry, ReplyTo, Shapes, Shard, ShardConfig,
    SharedBytes, Terminated, Ticket, Via, ViewHandler, WireCall, WireType, look, mesh, schema,
};

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

/// The system's allocator, counting what each thread asks of it.
struct Counting;

// SAFETY: passes everything on to the system's allocator; the count lies in a plain thread-local.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's contract is the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's contract is the system allocator's.
        unsafe { System.dealloc(at, layout) };
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        count();
        // SAFETY: the caller's contract is the system allocator's.
        unsafe { System.realloc(at, layout, bytes) }
    }
}

fn count() {
    // A thread that is ending counts no more.
    let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Adds up; asks its neighbour when told to.
#[derive(Default)]
struct Counter {
    sum: u64,
    answered: u64,
    kept: Option<ReplyTo<u64>>,
}

struct Add(u64);

impl Message for Add {
    type Reply = u64;
}

/// The largest message that travels inside its record, with the largest such reply.
struct Widest([u64; 16]);

impl Message for Widest {
    type Reply = [u64; 16];
}

/// Has one counter add to another, answered when that is done.
struct Relay {
    to: u64,
    amount: u64,
}

impl Message for Relay {
    type Reply = u64;
}

/// Gives the counter all that an entity can have beside its state.
struct Attach;

impl Message for Attach {
    type Reply = ();
}

/// Is looked at in its archive.
#[derive(Archive, Serialize, Deserialize)]
#[rkyv(crate = coreside_shard::rkyv)]
struct Seen {
    words: [u64; 16],
}

impl WireType for Seen {
    const SCHEMA: u64 = schema("Seen", &[]);

    fn shape(_: &mut Shapes) -> String {
        "Seen".to_owned()
    }
}

impl Message for Seen {
    type Reply = u64;
}

/// Answers in an async turn, which is polled twice.
struct Think;

impl Message for Think {
    type Reply = u64;
}

impl Message for Never {
    type Reply = ();
}

/// Has the counter sent [`Often`] every millisecond, and again each time it gets it.
struct Repeat;

impl Message for Repeat {
    type Reply = ();
}

/// A message of a timer that is due often.
#[derive(Clone)]
struct Often;

impl Message for Often {
    type Reply = ();
}

/// A message of a timer that is never due here.
#[derive(Clone)]
struct Never;

impl Entity for Counter {
    type Key = u64;
    type Ref<V: Via> = Address<Self, V>;
    const NAME: &'static str = "counter";

    fn activate(_key: u64, _cx: &mut Cx<'_, Self>) -> Self {
        Self::default()
    }

    fn register(table: &mut Registration<'_, Self>) {
        table.message::<Add>("add").message::<Widest>("widest").message::<Relay>("relay");
        table.message::<Attach>("attach").message::<Think>("think").message::<Never>("never");
        table.message::<Terminated>("terminated").message::<Repeat>("repeat");
        table.message::<Often>("often").message::<Seen>("see").wire_archived::<Seen>("see");
    }
}

impl Handler<Add> for Counter {
    type Answer = u64;

    fn handle(&mut self, Add(amount): Add, _cx: &mut Cx<'_, Self>) -> u64 {
        self.sum += amount;
        self.sum
    }
}

impl Handler<Widest> for Counter {
    type Answer = [u64; 16];

    fn handle(&mut self, Widest(words): Widest, _cx: &mut Cx<'_, Self>) -> [u64; 16] {
        self.sum += words[15];
        words
    }
}

impl Handler<Relay> for Counter {
    type Answer = Later<u64>;

    fn handle(&mut self, relay: Relay, cx: &mut Cx<'_, Self>) -> Later<u64> {
        let (later, reply_to) = cx.later();
        assert!(self.kept.is_none(), "one relay at a time");
        self.kept = Some(reply_to);
        let then = |counter: &mut Self, sum: Result<u64, AskError>, cx: &mut Cx<'_, Self>| {
            counter.answered += 1;
            if let Some(reply_to) = counter.kept.take() {
                cx.reply(reply_to, sum.unwrap_or(0));
            }
        };
        let sent = cx.entity::<Self>(relay.to).message(Add(relay.amount)).ask(then);
        assert!(sent.is_ok(), "room for an ask");
        later
    }
}

impl Handler<Attach> for Counter {
    type Answer = ();

    fn handle(&mut self, _: Attach, cx: &mut Cx<'_, Self>) {
        let hour = Duration::from_secs(3600);
        assert!(cx.after(hour, Never).is_ok() && cx.every(hour, Never).is_ok());
        assert!(cx.watch::<Self>(cx.key() ^ 1).is_ok());
        if cx.key() % 2 == 0 {
            cx.receive_timeout(hour, Never);
        }
    }
}

impl Handler<Repeat> for Counter {
    type Answer = ();

    fn handle(&mut self, _: Repeat, cx: &mut Cx<'_, Self>) {
        assert!(cx.every(Duration::from_millis(1), Often).is_ok());
    }
}

impl ViewHandler<Seen> for Counter {
    fn handle_view(&mut self, seen: &Archived<Seen>, _cx: &mut Cx<'_, Self>) -> u64 {
        self.sum += seen.words[15].to_native();
        self.sum
    }
}

impl Handler<Seen> for Counter {
    type Answer = u64;

    fn handle(&mut self, seen: Seen, cx: &mut Cx<'_, Self>) -> u64 {
        look::<Seen, _>(&seen, |seen| self.handle_view(seen, cx))
    }
}

impl Handler<Often> for Counter {
    type Answer = ();

    /// Two timers take the places of two: one that has fired, and one with a name.
    fn handle(&mut self, _: Often, cx: &mut Cx<'_, Self>) {
        self.sum += 1;
        assert!(cx.after(Duration::from_micros(100), Never).is_ok());
        assert!(cx.after_keyed(1, Duration::from_secs(1), Never).is_ok());
    }
}

impl Handler<Never> for Counter {
    type Answer = ();

    fn handle(&mut self, _: Never, _: &mut Cx<'_, Self>) {}
}

impl Handler<Terminated> for Counter {
    type Answer = ();

    fn handle(&mut self, _: Terminated, _: &mut Cx<'_, Self>) {}
}

impl Handler<Think> for Counter {
    type Answer = Later<u64>;

    fn handle(&mut self, _: Think, cx: &mut Cx<'_, Self>) -> Later<u64> {
        cx.run(async |counter: &mut Self, _: &mut AsyncCx<Self>| {
            let mut polled = false;
            std::future::poll_fn(|cx| {
                if std::mem::replace(&mut polled, true) {
                    return Poll::Ready(());
                }
                cx.waker().wake_by_ref();
                Poll::Pending
            })
            .await;
            counter.sum += 1;
            counter.sum
        })
    }
}

const HASH: HashKey = HashKey::new(7);
/// More than are sent between two polls, so that a counter has one relay at a time.
const KEYS: u64 = 128;
const ROUNDS: u64 = 100_000;

struct Pair {
    shards: Vec<Shard>,
    now: Now,
}

impl Pair {
    fn new(shards: u16) -> Self {
        let mut registry = Registry::new();
        registry.entity::<Counter>();
        let table = registry.build().expect("one type");
        let config = ShardConfig { entities_max: 1_000, ..ShardConfig::new(HASH) };
        let start = |end| {
            let (table, placement) = (Arc::clone(&table), Placement::even(shards));
            Shard::new(&config, table, end, placement, Arc::new(|_| ())).expect("address space")
        };
        let shards = mesh(usize::from(shards), 1 << 12).into_iter().map(start).collect();
        Self { shards, now: Now::default() }
    }

    fn settle(&mut self) {
        loop {
            self.now.monotonic_ns += 1_000;
            for shard in &mut self.shards {
                shard.poll(self.now, &mut ());
            }
            if !self.shards.iter_mut().any(Shard::has_work) {
                return;
            }
        }
    }

    /// Runs `send` for each round, after a warm-up; returns the allocations that took.
    fn count(&mut self, mut send: impl FnMut(&mut Shard, u64)) -> u64 {
        let mut rounds = |pair: &mut Self, rounds: u64| {
            for round in 0..rounds {
                send(&mut pair.shards[0], round);
                if round % 100 == 99 {
                    pair.settle();
                }
            }
            pair.settle();
        };
        rounds(self, 1_000);
        let before = ALLOCATIONS.get();
        rounds(self, ROUNDS);
        ALLOCATIONS.get() - before
    }
}

#[test]
fn the_allocator_counts() {
    let before = ALLOCATIONS.get();
    drop(std::hint::black_box(Box::new(1)));
    assert_eq!(ALLOCATIONS.get() - before, 1);
}

#[test]
fn no_allocation_per_tell() {
    for shards in [1, 2, 3] {
        let allocations = Pair::new(shards).count(|shard, round| {
            assert!(shard.tell::<Counter, _>(round % KEYS, Add(round)).is_ok());
        });
        assert_eq!(allocations, 0, "{shards} shards");
    }
}

#[test]
fn no_allocation_per_ask() {
    for shards in [1, 2, 3] {
        let mut answers = 0;
        let counted = std::rc::Rc::new(Cell::new(0));
        let allocations = Pair::new(shards).count(|shard, round| {
            let counted = std::rc::Rc::clone(&counted);
            let then = move |answer: Result<u64, AskError>, _: &mut dyn Outside| {
                counted.set(counted.get() + u64::from(answer.is_ok()));
            };
            assert!(shard.ask::<Counter, _, _>(round % KEYS, Add(1), u64::MAX, then).is_ok());
            answers += 1;
        });
        assert_eq!(allocations, 0, "{shards} shards");
        assert_eq!(counted.get(), answers);
    }
}

#[test]
fn no_allocation_per_message_at_the_inline_limit() {
    for shards in [1, 2] {
        let allocations = Pair::new(shards).count(|shard, round| {
            let then = |_: Result<[u64; 16], AskError>, _: &mut dyn Outside| ();
            let message = Widest([round; 16]);
            assert!(shard.ask::<Counter, _, _>(round % KEYS, message, u64::MAX, then).is_ok());
        });
        assert_eq!(allocations, 0, "{shards} shards");
    }
}

#[test]
fn no_allocation_per_message_that_is_looked_at_in_its_archive() {
    let (mut bytes, mut archive) = (Vec::new(), AlignedVec::new());
    assert_eq!(Seen { words: [1; 16] }.encode(&mut bytes), Ok(()));
    archive.extend_from_slice(&bytes);
    let archive = SharedBytes::new(archive);
    for shards in [1, 2, 3] {
        let allocations = Pair::new(shards).count(|shard, round| {
            let key = [round % KEYS, 0];
            let ask = WireCall::Ask { deadline_ns: u64::MAX - 1, ticket: Ticket([0, 0]) };
            for call in [WireCall::Tell, ask] {
                assert_eq!(shard.send_wire(0, key, archive.body(0), call), Ok(()));
            }
            assert!(shard.tell::<Counter, _>(key[0], Seen { words: [round; 16] }).is_ok());
        });
        assert_eq!(allocations, 0, "{shards} shards");
    }
}

#[test]
fn no_allocation_per_ask_between_entities() {
    for shards in [1, 2] {
        let allocations = Pair::new(shards).count(|shard, round| {
            let (from, to) = (round % KEYS, KEYS + round % 7);
            let relay = Relay { to, amount: 1 };
            let then = |sum: Result<u64, AskError>, _: &mut dyn Outside| {
                assert!(sum.is_ok_and(|sum| sum > 0), "an answer");
            };
            assert!(shard.ask::<Counter, _, _>(from, relay, u64::MAX, then).is_ok());
        });
        assert_eq!(allocations, 0, "{shards} shards");
    }
}

#[test]
fn no_allocation_per_message_of_entities_that_have_timers_and_watchers() {
    for shards in [1, 2] {
        let mut pair = Pair::new(shards);
        for key in 0..KEYS + 7 {
            assert!(pair.shards[0].tell::<Counter, _>(key, Attach).is_ok());
        }
        pair.settle();
        let allocations = pair.count(|shard, round| {
            assert!(shard.tell::<Counter, _>(round % KEYS, Add(1)).is_ok());
            let relay = Relay { to: KEYS + round % 7, amount: 1 };
            let then = |sum: Result<u64, AskError>, _: &mut dyn Outside| {
                assert!(sum.is_ok_and(|sum| sum > 0), "an answer");
            };
            assert!(shard.ask::<Counter, _, _>(round % KEYS, relay, u64::MAX, then).is_ok());
        });
        assert_eq!(allocations, 0, "{shards} shards");
    }
}

#[test]
fn no_allocation_per_timer_set_or_fired() {
    let mut pair = Pair::new(1);
    for key in 0..KEYS {
        assert!(pair.shards[0].tell::<Counter, _>(key, Repeat).is_ok());
    }
    let mut wait = |milliseconds: u64| {
        for _ in 0..milliseconds {
            pair.now.monotonic_ns += 1_000_000;
            pair.settle();
        }
        (pair.shards[0].stats().timers_fired, ALLOCATIONS.get())
    };
    let (fired, allocations) = wait(100);
    let (fired_later, allocations_later) = wait(1_000);
    assert!(fired_later - fired > 200 * KEYS, "periods and what they set");
    assert_eq!(allocations_later - allocations, 0);
}

#[test]
fn no_allocation_per_async_turn() {
    for shards in [1, 2] {
        let allocations = Pair::new(shards).count(|shard, round| {
            let then = |sum: Result<u64, AskError>, _: &mut dyn Outside| {
                assert!(sum.is_ok_and(|sum| sum > 0), "an answer");
            };
            assert!(shard.ask::<Counter, _, _>(round % KEYS, Think, u64::MAX, then).is_ok());
        });
        // Lists grow to what is under way at once.
        assert!(allocations < 10, "{allocations} on {shards} shards");
    }
}
