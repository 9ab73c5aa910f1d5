//! `async/ready`, `async/ask` and `async/sleep`: what an async turn costs more than a sync one.
//!
//! The limit is the same work in sync turns on the same shard: a handler that returns at once, one
//! that asks with a continuation, one that sets a timer.

use std::time::Duration;

use coreside::{AskError, AsyncCx, Cx, entity, handlers};
use coreside_shard::{Message, Shard};

use crate::bench_entity::{alone_with, settle};
use crate::machine;
use crate::measure::{Effort, Row, nanoseconds_each};

/// Entities; one message to each is under way.
const ENTITIES: u64 = 512;
/// How long a turn sleeps.
const NAP: Duration = Duration::from_millis(1);

/// Does the same in both manners.
#[entity]
struct Worker {
    turns: u64,
}

#[handlers]
impl Worker {
    #[local]
    fn ready(&mut self) {
        self.turns += 1;
    }

    #[local]
    async fn ready_async(&mut self) {
        self.turns += 1;
    }

    /// Asked by those whose number is below; they never ask in a ring.
    #[local]
    fn value(&mut self) -> u64 {
        self.turns
    }

    #[local]
    fn ask(&mut self, cx: &mut Cx<Self>) {
        let then = |worker: &mut Self, answer: Result<u64, AskError>, _: &mut Cx<Self>| {
            worker.turns += 1 + answer.unwrap_or(0) % 2;
        };
        let asked = cx.entity::<Self>(cx.key() + ENTITIES).value().ask(then);
        debug_assert!(asked.is_ok());
    }

    #[local]
    async fn ask_async(&mut self, cx: &mut AsyncCx<Self>) {
        let answer = cx.entity::<Self>(cx.key() + ENTITIES).value().await;
        self.turns += 1 + answer.unwrap_or(0) % 2;
    }

    #[local]
    fn sleep(&mut self, cx: &mut Cx<Self>) {
        let set = cx.after(NAP, WorkerReady {});
        debug_assert!(set.is_ok());
    }

    #[local]
    async fn sleep_async(&mut self, cx: &mut AsyncCx<Self>) {
        cx.sleep(NAP).await;
        self.turns += 1;
    }

    #[local]
    fn turns(&self, into: std::sync::mpsc::Sender<u64>) {
        // Somebody waits for it.
        let _ = into.send(self.turns);
    }
}

/// Nanoseconds for a turn that waits for nothing.
pub(crate) fn ready(effort: &Effort) -> Row {
    let (sync, async_) = (|| WorkerReady {}, || WorkerReadyAsync {});
    compare(effort, 8_000_000, 0, sync, async_)
}

/// Nanoseconds for a turn that asks another entity once, with the turn that answers.
pub(crate) fn ask(effort: &Effort) -> Row {
    compare(effort, 2_000_000, 0, || WorkerAsk {}, || WorkerAskAsync {})
}

/// Nanoseconds for a turn that sleeps once; the time passes as soon as all sleep.
pub(crate) fn sleep(effort: &Effort) -> Row {
    let nap_ns = NAP.as_nanos() as u64 * 2;
    compare(effort, 2_000_000, nap_ns, || WorkerSleep {}, || WorkerSleepAsync {})
}

fn compare<S: Message, A: Message>(
    effort: &Effort,
    count: u64,
    nap_ns: u64,
    sync: fn() -> S,
    async_: fn() -> A,
) -> Row
where
    Worker: coreside_shard::Handler<S> + coreside_shard::Handler<A>,
{
    machine::pin(&machine::cores(), 0);
    let rounds = effort.scaled(count) / ENTITIES + 1;
    let (mut ours, mut limit) = (alone_with::<Worker>(), alone_with::<Worker>());
    let (mut ours_ns, mut limit_ns) = (0, 0);
    effort.compare(
        "ns",
        || nanoseconds_each(|| run(&mut ours, rounds, nap_ns, &mut ours_ns, async_)),
        || nanoseconds_each(|| run(&mut limit, rounds, nap_ns, &mut limit_ns, sync)),
    )
}

/// Tells each entity so often, and lets `nap_ns` pass after each round.
fn run<M: Message>(
    shard: &mut Shard,
    rounds: u64,
    nap_ns: u64,
    now_ns: &mut u64,
    message: fn() -> M,
) -> u64
where
    Worker: coreside_shard::Handler<M>,
{
    for _ in 0..rounds {
        for key in 0..ENTITIES {
            let told = shard.tell::<Worker, M>(key, message());
            debug_assert!(told.is_ok());
        }
        settle(shard, *now_ns);
        if nap_ns > 0 {
            *now_ns += nap_ns;
            settle(shard, *now_ns);
        }
    }
    rounds * ENTITIES
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    fn turns_after<M: Message>(nap_ns: u64, message: fn() -> M) -> u64
    where
        Worker: coreside_shard::Handler<M>,
    {
        let (mut shard, mut now_ns) = (alone_with::<Worker>(), 0);
        run(&mut shard, 3, nap_ns, &mut now_ns, message);
        let (into, turns) = mpsc::channel();
        for key in 0..ENTITIES {
            let told = shard.tell::<Worker, WorkerTurns>(key, WorkerTurns { into: into.clone() });
            assert!(told.is_ok());
        }
        settle(&mut shard, now_ns);
        turns.try_iter().sum()
    }

    #[test]
    fn both_manners_do_all_the_work() {
        let nap_ns = NAP.as_nanos() as u64 * 2;
        let all = 3 * ENTITIES;
        assert_eq!(turns_after(0, || WorkerReady {}), all);
        assert_eq!(turns_after(0, || WorkerReadyAsync {}), all);
        assert_eq!(turns_after(0, || WorkerAsk {}), all);
        assert_eq!(turns_after(0, || WorkerAskAsync {}), all);
        assert_eq!(turns_after(nap_ns, || WorkerSleep {}), all);
        assert_eq!(turns_after(nap_ns, || WorkerSleepAsync {}), all);
    }
}
