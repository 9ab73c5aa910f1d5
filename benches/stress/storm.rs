//! The entities of `panics`: those that are served, those that panic, and what drives both.

use std::sync::atomic::{AtomicU64, Ordering};

use coreside::{AskError, AsyncCx, Cx, NodeBuilder, entity, handlers};
use hdrhistogram::Histogram;

use crate::clock::{Pace, next_poll, now_ns};

/// States of [`Fragile`] that were made, over all shards.
pub(crate) static LIVES: AtomicU64 = AtomicU64::new(0);
/// Turns of [`Fragile`] that found a state that had panicked before.
pub(crate) static STALE: AtomicU64 = AtomicU64::new(0);

/// Registers them.
pub(crate) fn register(node: NodeBuilder) -> NodeBuilder {
    node.entity::<Served>()
        .entity::<Fragile>()
        .entity::<Sturdy>()
        .entity::<Client>()
        .entity::<Striker>()
}

/// Is served: counts and adds up what it is asked.
#[entity]
pub(crate) struct Served {
    account: Account,
}

/// What one served entity did, or is known to have done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) turns: u64,
    pub(crate) sum: u64,
}

impl Account {
    pub(crate) fn add(&mut self, other: Self) {
        self.turns += other.turns;
        self.sum += other.sum;
    }
}

#[handlers]
impl Served {
    #[local]
    pub(crate) fn serve(&mut self, value: u32) -> u64 {
        self.account.add(Account { turns: 1, sum: value.into() });
        self.account.sum
    }

    #[local]
    pub(crate) fn account(&self) -> Account {
        self.account
    }
}

/// Panics whenever it has a turn, and is made anew.
#[entity(
    activate = Fragile::begin, on_fault = restart, backoff = "1ms..1ms",
    faults = "4000000000 in 60s"
)]
pub(crate) struct Fragile {
    panics: u64,
}

#[handlers]
impl Fragile {
    fn begin(_key: u64, _cx: &mut Cx<Self>) -> Self {
        LIVES.fetch_add(1, Ordering::Relaxed);
        Self { panics: 0 }
    }

    #[local]
    pub(crate) fn strike(&mut self) {
        if self.panics > 0 {
            STALE.fetch_add(1, Ordering::Relaxed);
        }
        self.panics += 1;
        panic!("struck");
    }
}

/// Panics whenever it is struck, and goes on with its state.
#[entity(on_fault = resume, faults = "4000000000 in 60s")]
pub(crate) struct Sturdy {
    panics: u64,
}

#[handlers]
impl Sturdy {
    #[local]
    pub(crate) fn strike(&mut self) {
        self.panics += 1;
        panic!("struck");
    }

    #[local]
    pub(crate) fn panics(&self) -> u64 {
        self.panics
    }
}

/// How a client asks.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum Manner {
    /// Not at all.
    #[default]
    Quiet,
    /// Whenever an answer has come.
    Closed,
    /// When it is time, whatever has come; latency counts from then, for what is due from
    /// `record_ns` on.
    Open { pace: Pace, record_ns: u64 },
}

/// Asks served entities from within its shard, and keeps the books.
#[entity]
pub(crate) struct Client {
    manner: Manner,
    entities: u64,
    random: u64,
    /// Of the current pace.
    asked: u64,
    counts: AskCounts,
    /// By served entity: what has been answered.
    accounts: Vec<Account>,
    latency: Option<Histogram<u64>>,
}

/// What a client counts.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct AskCounts {
    pub(crate) outstanding: u64,
    pub(crate) answered: u64,
    /// Answered with an error, or not sent.
    pub(crate) failed: u64,
}

#[handlers]
impl Client {
    /// Begins to ask `entities` in a closed loop of `window`.
    #[local]
    pub(crate) fn close(&mut self, entities: u64, window: u64, cx: &mut Cx<Self>) {
        self.prepare(entities, cx.key());
        // Latency is recorded here too, so that the capacity has what that costs in it.
        (self.manner, self.latency) = (Manner::Closed, new_histogram());
        for _ in 0..window {
            self.ask(now_ns(), cx);
        }
    }

    /// Asks at a pace from now on; looks at the time in every poll of its shard.
    #[local]
    #[interleave]
    pub(crate) async fn open(pace: Pace, record_ns: u64, cx: AsyncCx<Self>) {
        let begin = |client: &mut Self| {
            (client.manner, client.asked) = (Manner::Open { pace, record_ns }, 0);
            client.latency = new_histogram();
        };
        cx.with(begin).await;
        let mut over = false;
        while !over {
            over = now_ns() >= pace.end_ns;
            // Once more behind the end, so that all that was due is asked. Where the queue is full,
            // the next poll's turn asks for it.
            let _ = cx.entity::<Self>(cx.key()).ask_due().try_tell();
            next_poll().await;
            over |= cx.with(|client| matches!(client.manner, Manner::Quiet)).await;
        }
    }

    #[local]
    pub(crate) fn ask_due(&mut self, cx: &mut Cx<Self>) {
        let Manner::Open { pace, .. } = self.manner else { return };
        let due = pace.due(now_ns());
        while self.asked < due {
            let due_ns = pace.due_ns(self.asked);
            self.asked += 1;
            self.ask(due_ns, cx);
        }
    }

    #[local]
    pub(crate) fn quiet(&mut self) {
        self.manner = Manner::Quiet;
    }

    #[local]
    pub(crate) fn counts(&self) -> AskCounts {
        self.counts
    }

    #[local]
    pub(crate) fn accounts(&self) -> Vec<Account> {
        self.accounts.clone()
    }

    /// The latencies of the last pace, in nanoseconds.
    #[local]
    pub(crate) fn latency(&mut self) -> Option<Histogram<u64>> {
        self.latency.take()
    }

    #[skip]
    fn prepare(&mut self, entities: u64, key: u64) {
        self.entities = entities;
        self.accounts.resize(entities as usize, Account::default());
        self.random = key.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    }

    #[skip]
    fn ask(&mut self, due_ns: u64, cx: &mut Cx<Self>) {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let key = ((self.random >> 32) * self.entities) >> 32;
        let (place, value) = (key as u32, self.random as u32 & 0xffff);
        let then = move |client: &mut Self, answer: Result<u64, AskError>, cx: &mut Cx<Self>| {
            client.take_answer((due_ns, place, value), answer, cx);
        };
        match cx.entity::<Served>(key).serve(value).ask(then) {
            Ok(()) => self.counts.outstanding += 1,
            Err(_) => self.counts.failed += 1,
        }
    }

    #[skip]
    fn take_answer(
        &mut self,
        (due_ns, place, value): (u64, u32, u32),
        answer: Result<u64, AskError>,
        cx: &mut Cx<Self>,
    ) {
        self.counts.outstanding -= 1;
        if answer.is_err() {
            self.counts.failed += 1;
            return;
        }
        self.counts.answered += 1;
        self.accounts[place as usize].add(Account { turns: 1, sum: value.into() });
        let record_ns = match self.manner {
            Manner::Quiet => return,
            Manner::Closed => 0,
            Manner::Open { record_ns, .. } => record_ns,
        };
        let now_ns = now_ns();
        if let Some(latency) = self.latency.as_mut().filter(|_| due_ns >= record_ns) {
            latency.saturating_record(now_ns.saturating_sub(due_ns));
        }
        if matches!(self.manner, Manner::Closed) {
            self.ask(now_ns, cx);
        }
    }
}

/// Up to a minute, to three digits.
pub(crate) fn new_histogram() -> Option<Histogram<u64>> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).ok()
}

/// Has others panic from within its shard.
#[entity]
pub(crate) struct Striker {
    entities: u64,
    pace: Option<Pace>,
    /// Of the current pace.
    done: u64,
    floods: bool,
    counts: StrikeCounts,
}

/// What a striker counts.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct StrikeCounts {
    /// Told to those that restart.
    pub(crate) fragile: u64,
    /// Told to those that resume.
    pub(crate) sturdy: u64,
    pub(crate) refused: u64,
    /// Asks of a flood that have not ended, and that have not ended as they should.
    pub(crate) outstanding: u64,
    pub(crate) unexpected: u64,
}

impl StrikeCounts {
    /// Strikes that were accepted.
    pub(crate) fn sent(&self) -> u64 {
        self.fragile + self.sturdy
    }
}

#[handlers]
impl Striker {
    /// Strikes at a pace from now on, half of the time one that restarts.
    #[local]
    #[interleave]
    pub(crate) async fn strike_at(entities: u64, pace: Pace, cx: AsyncCx<Self>) {
        let begin = |striker: &mut Self| {
            (striker.entities, striker.pace, striker.done) = (entities, Some(pace), 0);
        };
        cx.with(begin).await;
        let mut over = false;
        while !over {
            over = now_ns() >= pace.end_ns;
            // Once more behind the end, so that all that was due is done.
            let _ = cx.entity::<Self>(cx.key()).strike_due().try_tell();
            next_poll().await;
            over |= cx.with(|striker| striker.pace.is_none()).await;
        }
    }

    #[local]
    pub(crate) fn strike_due(&mut self, cx: &mut Cx<Self>) {
        let Some(pace) = self.pace else { return };
        let due = pace.due(now_ns());
        while self.done < due {
            self.done += 1;
            let key = self.next_key(cx.key());
            if key.is_multiple_of(2) {
                self.count(cx.entity::<Fragile>(key).strike().try_tell().is_ok(), true);
            } else {
                self.count(cx.entity::<Sturdy>(key).strike().try_tell().is_ok(), false);
            }
        }
    }

    /// Strikes as fast as the faults are dealt with, `window` at a time.
    #[local]
    pub(crate) fn flood(&mut self, entities: u64, window: u64, cx: &mut Cx<Self>) {
        (self.entities, self.floods) = (entities, true);
        for _ in 0..window {
            self.strike(cx);
        }
    }

    #[local]
    pub(crate) fn quiet(&mut self) {
        (self.floods, self.pace) = (false, None);
    }

    #[local]
    pub(crate) fn counts(&self) -> StrikeCounts {
        self.counts
    }

    /// Every second number of them is of those that restart; each striker begins elsewhere.
    #[skip]
    fn next_key(&self, own: u64) -> u64 {
        (self.counts.sent() + self.counts.refused + own) % self.entities
    }

    #[skip]
    fn count(&mut self, accepted: bool, restarts: bool) {
        match (accepted, restarts) {
            (false, _) => self.counts.refused += 1,
            (true, true) => self.counts.fragile += 1,
            (true, false) => self.counts.sturdy += 1,
        }
    }

    #[skip]
    fn strike(&mut self, cx: &mut Cx<Self>) {
        let key = self.next_key(cx.key());
        let then = |striker: &mut Self, answer: Result<(), AskError>, cx: &mut Cx<Self>| {
            striker.counts.outstanding -= 1;
            striker.counts.unexpected += u64::from(answer != Err(AskError::Failed));
            if striker.floods {
                striker.strike(cx);
            }
        };
        let restarts = key.is_multiple_of(2);
        let accepted = if restarts {
            cx.entity::<Fragile>(key).strike().ask(then).is_ok()
        } else {
            cx.entity::<Sturdy>(key).strike().ask(then).is_ok()
        };
        self.count(accepted, restarts);
        self.counts.outstanding += u64::from(accepted);
    }
}
