//! The entity that the benchmarks send to: 48 bytes of state, so that a slot is one cache line.

use std::cell::Cell;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use coreside_shard::{
    Address, Cx, Entity, Handler, HashKey, LookAhead, Message, Now, Registration, Registry, Shard,
    ShardConfig, Table, Via,
};

use crate::measure::Random;

/// An account, as a service would have it.
pub(crate) struct Account {
    pub(crate) balance: i64,
    pub(crate) turns: u64,
    /// Makes up the state to 48 bytes.
    pub(crate) rest: [u64; 4],
}

/// Pays in, and pays the same amount on to a random account.
pub(crate) struct PassOn(pub(crate) i64);

/// Pays in and answers with the balance.
pub(crate) struct Deposit(pub(crate) i64);

/// Asks a random account to take a deposit, for ever.
pub(crate) struct AskOn(pub(crate) i64);

/// Does nothing to an account that it brings into memory.
pub(crate) struct Touch;

impl Message for PassOn {
    type Reply = ();
}
impl Message for Deposit {
    type Reply = i64;
}
impl Message for AskOn {
    type Reply = ();
}
impl Message for Touch {
    type Reply = ();
}

thread_local! {
    /// Where messages go next; the shard of a benchmark is alone on its thread.
    static NEXT: Cell<(Random, u64)> = const { Cell::new((Random::new(), 1)) };
}

/// Random keys are below `entities` from now on, on this thread.
pub(crate) fn aim_at(entities: u64) {
    NEXT.set((Random::new(), entities));
}

#[inline(always)]
fn next_key() -> u64 {
    NEXT.with(|cell| {
        let (mut random, entities) = cell.replace((Random::new(), 1));
        let key = random.below(entities);
        cell.set((random, entities));
        key
    })
}

impl Entity for Account {
    type Key = u64;
    type Ref<V: Via> = Address<Self, V>;
    const NAME: &'static str = "Account";

    #[inline]
    fn activate(_key: u64, _cx: &mut Cx<'_, Self>) -> Self {
        Self { balance: 0, turns: 0, rest: [0; 4] }
    }

    fn register(table: &mut Registration<'_, Self>) {
        table.message::<PassOn>("pass_on").message::<Deposit>("deposit");
        table.message::<AskOn>("ask_on").message::<Touch>("touch");
    }
}

impl Handler<PassOn> for Account {
    type Answer = ();

    #[inline(always)]
    fn handle(&mut self, PassOn(amount): PassOn, cx: &mut Cx<'_, Self>) {
        self.balance += amount;
        self.turns += 1;
        // The queue is far from its bound: as many messages are under way as at the start.
        let _ = cx.entity::<Self>(next_key()).message(PassOn(amount)).try_tell();
    }
}

impl Handler<Deposit> for Account {
    type Answer = i64;

    #[inline(always)]
    fn handle(&mut self, Deposit(amount): Deposit, _cx: &mut Cx<'_, Self>) -> i64 {
        self.balance += amount;
        self.turns += 1;
        self.balance
    }
}

impl Handler<AskOn> for Account {
    type Answer = ();

    #[inline(always)]
    fn handle(&mut self, AskOn(amount): AskOn, cx: &mut Cx<'_, Self>) {
        let call = cx.entity::<Self>(next_key()).message(Deposit(amount));
        let asked = call.ask(move |account, balance, cx| {
            account.rest[0] = account.rest[0].wrapping_add(balance.unwrap_or(0) as u64);
            account.turns += 1;
            let _ = cx.entity::<Self>(next_key()).message(AskOn(amount)).try_tell();
        });
        debug_assert!(asked.is_ok());
    }
}

impl Handler<Touch> for Account {
    type Answer = ();

    #[inline(always)]
    fn handle(&mut self, _: Touch, _cx: &mut Cx<'_, Self>) {
        self.turns += 1;
    }
}

/// The message table of one type.
fn table_of<E: Entity>() -> Arc<Table> {
    let mut registry = Registry::new();
    registry.entity::<E>();
    match registry.build() {
        Ok(table) => table,
        Err(error) => panic!("the benchmark's own types: {error}"),
    }
}

/// The defaults of a node on this machine.
pub(crate) fn config() -> ShardConfig {
    let mut config = ShardConfig::new(HashKey::new(0x5eed));
    config.look_ahead = LookAhead::Above { bytes: 512 << 10 };
    config.stopwatch_ns = stopwatch_ns;
    config
}

/// As a node has it.
fn stopwatch_ns() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_nanos() as u64
}

/// A shard with `entities` accounts in memory.
pub(crate) fn shard_of(entities: u64) -> Shard {
    let mut shard = alone();
    for key in 0..entities {
        while shard.tell::<Account, Touch>(key, Touch).is_err() {
            shard.poll(Default::default(), &mut ());
        }
        if key % 512 == 0 {
            shard.poll(Default::default(), &mut ());
        }
    }
    while !shard.poll(Default::default(), &mut ()).is_idle() {}
    assert_eq!(shard.entities::<Account>() as u64, entities);
    shard
}

/// A shard without others and without entities.
pub(crate) fn alone() -> Shard {
    alone_with::<Account>()
}

/// The same for entities of another type.
pub(crate) fn alone_with<E: Entity>() -> Shard {
    match Shard::alone(&config(), table_of::<E>()) {
        Ok(shard) => shard,
        Err(error) => panic!("no address space for the benchmark: {error}"),
    }
}

/// Polls at this time until nothing is left to do.
pub(crate) fn settle(shard: &mut Shard, monotonic_ns: u64) {
    let now = Now { monotonic_ns, unix_ms: monotonic_ns / 1_000_000 };
    while !shard.poll(now, &mut ()).is_idle() {}
}
