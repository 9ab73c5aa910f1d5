//! `cross/tell` and `cross/ask`: from a handler on one core to a handler on another.
#![expect(unsafe_code, reason = "the limit's records are bare memory")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use coreside_shard::{
    Address, Cx, Entity, Handler, MeshEnd, Message, Placement, Registration, Registry, Shard,
    ShardConfig, Table, Via, Word, mesh, ring,
};

use crate::bench_entity::config;
use crate::machine;
use crate::measure::{Effort, Row, Spin, millions_per_second};

/// Keys that live on the second of two shards, to choose receivers from.
const SINKS: usize = 1024;
const RING_WORDS: usize = 64 << 10;

/// Sends: a batch per turn, then itself again.
struct Source {
    sinks: Arc<[u64]>,
    next: usize,
}

/// Receives and adds up.
struct Sink {
    sum: u64,
    count: u64,
}

/// Sends a batch.
struct Go;
/// Is added up.
struct Add(u64);
/// Is added up and answered.
struct Ask(u64);
/// Asks a sink, over and over.
struct PingPong;

impl Message for Go {
    type Reply = ();
}
impl Message for Add {
    type Reply = ();
}
impl Message for Ask {
    type Reply = u64;
}
impl Message for PingPong {
    type Reply = ();
}

/// The keys of the sinks, by which a source finds them.
static SINK_KEYS: std::sync::OnceLock<Arc<[u64]>> = std::sync::OnceLock::new();

impl Entity for Source {
    type Key = u64;
    type Ref<V: Via> = Address<Self, V>;
    const NAME: &'static str = "Source";

    fn activate(_key: u64, _cx: &mut Cx<'_, Self>) -> Self {
        let sinks = SINK_KEYS.get().cloned().unwrap_or_default();
        Self { sinks, next: 0 }
    }

    fn register(table: &mut Registration<'_, Self>) {
        table.message::<Go>("go").message::<PingPong>("ping_pong");
    }
}

impl Entity for Sink {
    type Key = u64;
    type Ref<V: Via> = Address<Self, V>;
    const NAME: &'static str = "Sink";

    fn activate(_key: u64, _cx: &mut Cx<'_, Self>) -> Self {
        Self { sum: 0, count: 0 }
    }

    fn register(table: &mut Registration<'_, Self>) {
        table.message::<Add>("add").message::<Ask>("ask");
    }
}

impl Handler<Go> for Source {
    type Answer = ();

    fn handle(&mut self, _: Go, cx: &mut Cx<'_, Self>) {
        for _ in 0..64 {
            let sink = self.sinks[self.next % SINKS];
            if cx.entity::<Sink>(sink).message(Add(self.next as u64)).try_tell().is_err() {
                // The outbox is at its bound: go on when the other shard has caught up.
                break;
            }
            self.next += 1;
        }
        let _ = cx.entity::<Self>(cx.key()).message(Go).try_tell();
    }
}

impl Handler<Add> for Sink {
    type Answer = ();

    #[inline(always)]
    fn handle(&mut self, Add(value): Add, _cx: &mut Cx<'_, Self>) {
        self.sum = self.sum.wrapping_add(value);
        self.count += 1;
    }
}

impl Handler<Ask> for Sink {
    type Answer = u64;

    fn handle(&mut self, Ask(value): Ask, _cx: &mut Cx<'_, Self>) -> u64 {
        self.count += 1;
        value + 1
    }
}

impl Handler<PingPong> for Source {
    type Answer = ();

    fn handle(&mut self, _: PingPong, cx: &mut Cx<'_, Self>) {
        let call = cx.entity::<Sink>(self.sinks[0]).message(Ask(self.next as u64));
        let asked = call.ask(|source, answer, cx| {
            source.next = answer.unwrap_or(0) as usize;
            let _ = cx.entity::<Self>(cx.key()).message(PingPong).try_tell();
        });
        debug_assert!(asked.is_ok());
    }
}

/// What two shards are made of, each on the thread that drives it.
struct Pair {
    table: Arc<Table>,
    config: ShardConfig,
    placement: Placement,
    /// The key of a source that lives on the first shard; the sinks live on the second.
    source: u64,
}

impl Pair {
    fn new() -> Self {
        let mut registry = Registry::new();
        registry.entity::<Source>().entity::<Sink>();
        let table = match registry.build() {
            Ok(table) => table,
            Err(error) => panic!("the benchmark's own types: {error}"),
        };
        let (config, placement) = (config(), Placement::even(2));
        let lives_on = |shard| {
            let (placement, hash_key) = (placement.clone(), config.hash_key);
            (0u64..).filter(move |key| placement.shard(hash_key.hash(*key)) == shard)
        };
        SINK_KEYS.get_or_init(|| lives_on(1).take(SINKS).collect());
        let source = lives_on(0).next().unwrap_or_default();
        Self { table, config, placement, source }
    }

    fn shard(&self, end: MeshEnd) -> Shard {
        let table = Arc::clone(&self.table);
        match Shard::new(&self.config, table, end, self.placement.clone(), Arc::new(|_| ())) {
            Ok(shard) => shard,
            Err(error) => panic!("no address space for the benchmark: {error}"),
        }
    }
}

/// Polls `shard` until told to stop; shows its turns in `turns` as it goes.
fn drive(mut shard: Shard, stop: &AtomicBool, turns: &AtomicU64) {
    while !stop.load(Ordering::Relaxed) {
        // Deadlines need a poll now and then; the rest of the time a look at the rings will do.
        for _ in 0..64 {
            if shard.has_work() {
                shard.poll(Default::default(), &mut ());
                turns.store(shard.stats().turns, Ordering::Relaxed);
            }
        }
        shard.poll(Default::default(), &mut ());
    }
}

/// Turns per second of the second of two shards, from a while after `start` of the first.
fn run_two(seconds: f64, start: impl FnOnce(&mut Shard, u64) + Send) -> f64 {
    let pair = Pair::new();
    let mut ends = mesh(2, RING_WORDS).into_iter();
    let mut end = || ends.next().unwrap_or_else(MeshEnd::alone);
    let (first, second) = (end(), end());
    let stop = AtomicBool::new(false);
    let turns = [AtomicU64::new(0), AtomicU64::new(0)];
    let cores = machine::cores();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            machine::pin(&cores, 0);
            let mut shard = pair.shard(first);
            start(&mut shard, pair.source);
            drive(shard, &stop, &turns[0]);
        });
        scope.spawn(|| {
            machine::pin(&cores, 1);
            drive(pair.shard(second), &stop, &turns[1]);
        });
        let nap = std::time::Duration::from_secs_f64(seconds / 10.0);
        std::thread::sleep(nap);
        let (begin, before) = (Instant::now(), turns[1].load(Ordering::Relaxed));
        std::thread::sleep(nap * 10);
        let count = turns[1].load(Ordering::Relaxed) - before;
        let rate = count as f64 / begin.elapsed().as_secs_f64();
        stop.store(true, Ordering::Relaxed);
        rate
    })
}

fn seconds(effort: &Effort) -> f64 {
    if effort.quick { 0.1 } else { 0.7 }
}

/// Messages per second from handlers on one core to handlers on another. The limit is a ring of
/// such records whose consumer adds each to one of as many sums.
pub(crate) fn tell(effort: &Effort) -> Row {
    let count = effort.scaled(20_000_000);
    let ours = || {
        let go = |shard: &mut Shard, source| {
            assert!(shard.tell::<Source, Go>(source, Go).is_ok());
        };
        run_two(seconds(effort), go) / 1e6
    };
    effort.compare("M/s", ours, || ring_of_sums(count))
}

fn ring_of_sums(count: u64) -> f64 {
    let cores = machine::cores();
    let (mut producer, mut consumer) = ring(RING_WORDS);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            machine::pin(&cores, 0);
            let mut spin = Spin::default();
            for next in 0..count {
                let record = [Word::new(3), Word::new(next % SINKS as u64), Word::new(next)];
                while producer.push(&record).is_err() {
                    producer.publish();
                    spin.once();
                }
                if next % 64 == 63 {
                    producer.publish();
                }
            }
            producer.publish();
        });
        let receiver = scope.spawn(|| {
            machine::pin(&cores, 1);
            let mut sums = vec![[0u64; 8]; SINKS];
            let rate = millions_per_second(|| {
                let mut seen = 0;
                while seen < count {
                    while let Some(record) = consumer.pop() {
                        // SAFETY: the producer writes all three words, and keys below SINKS.
                        let sum =
                            unsafe { sums.get_unchecked_mut(record[1].assume_init() as usize) };
                        // SAFETY: as above.
                        sum[0] = sum[0].wrapping_add(unsafe { record[2].assume_init() });
                        sum[1] += 1;
                        seen += 1;
                    }
                    consumer.release();
                }
                count
            });
            std::hint::black_box(&sums);
            rate
        });
        receiver.join().unwrap_or(f64::NAN)
    })
}

/// Nanoseconds from a handler's ask to the turn with the answer, through another core, while both
/// spin. The limit is one cache line that two threads change in turn.
pub(crate) fn ask(effort: &Effort) -> Row {
    let ours = || {
        let ping = |shard: &mut Shard, source| {
            assert!(shard.tell::<Source, PingPong>(source, PingPong).is_ok());
        };
        // One turn on the second shard per round trip.
        1e9 / run_two(seconds(effort), ping)
    };
    effort.compare("ns", ours, || atomic_ping_pong(seconds(effort)))
}

fn atomic_ping_pong(seconds: f64) -> f64 {
    const STOP: u64 = u64::MAX;
    let cores = machine::cores();
    let line = AtomicU64::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            machine::pin(&cores, 1);
            let mut spin = Spin::default();
            loop {
                match line.load(Ordering::Acquire) {
                    STOP => return,
                    odd if odd % 2 == 1 => line.store(odd + 1, Ordering::Release),
                    _ => spin.once(),
                }
            }
        });
        let asker = scope.spawn(|| {
            machine::pin(&cores, 0);
            let (begin, mut round, mut spin) = (Instant::now(), 0, Spin::default());
            while round % 256 != 0 || begin.elapsed().as_secs_f64() < seconds {
                line.store(round * 2 + 1, Ordering::Release);
                while line.load(Ordering::Acquire) != round * 2 + 2 {
                    spin.once();
                }
                round += 1;
            }
            let each_ns = begin.elapsed().as_nanos() as f64 / round as f64;
            line.store(STOP, Ordering::Release);
            each_ns
        });
        asker.join().unwrap_or(f64::NAN)
    })
}
