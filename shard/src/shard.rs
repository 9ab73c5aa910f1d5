//! The shard: one thread's entities, and the loop body that lets them have their turns.
//!
//! A shard is a state machine without thread, clock or socket. [`Shard::poll`] takes what arrived,
//! runs a bounded number of turns, and shows other shards what was sent to them. Whoever drives it
//! decides when, and says what time it is; so the same code runs on a pinned core and in a
//! simulator.
//!
//! # Ownership
//! A shard is made on the thread that drives it and stays there, as it is not `Send`; so entities
//! and continuations need not be either. What is sent is its [`MeshEnd`].
//!
//! # Invariants
//! Between polls no turn is under way: `current` is [`Current::NONE`].
#![expect(unsafe_code, reason = "records are read in place and typed again through the table")]

use std::collections::VecDeque;
use std::io;
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::commands::Commands;
use crate::config::{LookAhead, MeshEnd, Now, Placement, Progress, ShardConfig, Stats};
use crate::core::{Core, Wake};
use crate::entity::Entity;
use crate::fault::Current;
use crate::key::HashKey;
use crate::kit::Others;
use crate::passivate::{Hand, Press};
use crate::peer::{IN_LANE, take_system};
use crate::pending::{Outcome, Outside};
use crate::queue::RunQueue;
use crate::record::{Head, Kind, Payload, RECORD_WORDS_MAX, Word, copy_words};
use crate::reply::Token;
use crate::ring::Consumer;
use crate::sampler::Sampler;
use crate::store::{Store, StoreId};
use crate::sweep::Sweeping;
use crate::table::{Row, Run, Table, TypeRow};
use crate::task::TaskId;

/// One thread's entities and everything they need.
///
/// It stays on the thread that made it:
/// ```compile_fail
/// fn is_send<T: Send>() {}
/// is_send::<coreside_shard::Shard>();
/// ```
pub struct Shard {
    pub(crate) core: Core,
    /// By number of the entity type.
    pub(crate) stores: Box<[StoreId]>,
    /// By message number: what a turn needs of the table, and the store, in one step.
    pub(crate) rows: Box<[Dispatch]>,
    pub(crate) current: Current,
    /// The head of the record whose turn it is, for whoever watches; [`Head::NONE`] between turns.
    pub(crate) running: Head,
    pub(crate) polls: u64,
    pub(crate) turns_left: u32,
    turns_per_poll: u32,
    queue_words_max: usize,
    pub(crate) look_ahead: LookAhead,
    inbound: Vec<Option<Consumer>>,
    pub(crate) sweeps: Vec<Sweeping>,
    /// Timers that may still fire in this poll.
    pub(crate) alarms_left: u32,
    /// Async turns whose wakers were used.
    pub(crate) woken: VecDeque<TaskId>,
    /// One for each type whose entities are put away.
    pub(crate) hands: Vec<Hand>,
    pub(crate) press: Press,
    pub(crate) hands_lag: bool,
    pub(crate) sampler: Sampler,
    pub(crate) resident_bytes_max: usize,
    pub(crate) table: Arc<Table>,
    /// In a test kit: takes what is sent to anybody but the entity under test.
    pub(crate) others: Option<Box<Others>>,
}

/// Where the records of one message go.
pub(crate) struct Dispatch {
    pub(crate) run_tell: Run,
    pub(crate) run_ask: Run,
    pub(crate) store: StoreId,
    pub(crate) key_words: u32,
}

/// Words after which room is given back to the writer of a ring, which may be waiting for it.
const RELEASE_WORDS: usize = 512;

/// Words taken from one ring per poll.
const INBOUND_WORDS_PER_POLL: usize = 32 << 10;

impl Shard {
    /// A shard of a node with this table, joined to the others by `mesh`.
    ///
    /// # Errors
    /// The kernel's, when addresses for the stores cannot be reserved.
    pub fn new(
        config: &ShardConfig,
        table: Arc<Table>,
        mut mesh: MeshEnd,
        placement: Placement,
        wake: Wake,
    ) -> io::Result<Self> {
        let store = |(number, row): (usize, &TypeRow)| {
            let (number, hash) = (number as u16, config.hash_key);
            Store::new(number, row.layout, hash, config.entities_max).map(StoreId::new)
        };
        let stores = table.types.iter().enumerate().map(store).collect::<io::Result<Box<_>>>()?;
        let passivates = |row: &TypeRow| {
            row.life.passivates() || config.resident_bytes_max != usize::MAX && !row.life.keep_alive
        };
        let hands = (0..).zip(&table.types).filter(|(_, row)| passivates(row));
        let dispatch = |row: &Row| Dispatch {
            run_tell: row.run_tell,
            run_ask: row.run_ask,
            store: stores[usize::from(row.store)],
            key_words: u32::from(row.key_words),
        };
        Ok(Self {
            core: Core::new(config, &table, &mut mesh, placement, wake),
            rows: table.rows.iter().map(dispatch).collect(),
            stores,
            current: Current::NONE,
            running: Head::NONE,
            polls: 0,
            turns_left: 0,
            turns_per_poll: config.turns_per_poll.max(1),
            queue_words_max: RunQueue::rounded(config.queue_words_max),
            look_ahead: config.look_ahead,
            inbound: mesh.inbound,
            sweeps: Vec::new(),
            alarms_left: 0,
            woken: VecDeque::new(),
            hands: hands.map(|(kind, _)| Hand::new(kind)).collect(),
            press: Press::default(),
            hands_lag: false,
            sampler: Sampler::new(config.stopwatch_ns),
            resident_bytes_max: config.resident_bytes_max,
            table,
            others: None,
        })
    }

    /// A shard without others, for tests and benchmarks.
    ///
    /// # Errors
    /// As for [`new`](Self::new).
    pub fn alone(config: &ShardConfig, table: Arc<Table>) -> io::Result<Self> {
        Self::new(config, table, MeshEnd::alone(), Placement::even(1), Arc::new(|_| ()))
    }

    /// One pass: takes what arrived, runs a bounded number of turns, publishes what they sent.
    ///
    /// # Panics
    /// Never for a panic in user code, which is contained. A broken invariant of the shard itself
    /// aborts the process.
    pub fn poll(&mut self, now: Now, outside: &mut dyn Outside) -> Progress {
        self.tick(now);
        self.polls += 1;
        self.turns_left = self.turns_per_poll;
        self.refill_alarms();
        let received = self.receive();
        let before = self.core.stats;
        while !self.guard(|shard| shard.run_all(outside)) {}
        let turns = self.turns_per_poll - self.turns_left;
        self.core.stats.turns += u64::from(turns);
        self.core.stats.received += u64::from(received);
        self.core.queue.rewind();
        self.core.publish();
        let stats = &self.core.stats;
        let other = stats.other() - before.other();
        Progress {
            received,
            turns,
            expired: (stats.asks_expired - before.asks_expired) as u32,
            other: other as u32,
            more: !self.core.queue.is_empty()
                || !self.sweeps.is_empty()
                || self.hands_lag
                || self.core.has_system()
                || self.core.tasks.any_woken(),
        }
    }

    /// Says what time it is, for what is sent before the next poll.
    pub fn tick(&mut self, now: Now) {
        self.core.now = now;
    }

    /// The commands of this node.
    pub fn commands(&self) -> &Arc<Commands> {
        &self.table.commands
    }

    /// The secret under which keys are hashed.
    pub fn hash_key(&self) -> &HashKey {
        &self.core.hash_key
    }

    /// The time of the current poll, or of the last one.
    pub fn now(&self) -> Now {
        self.core.now
    }

    /// When an ask from outside that begins now ends at the latest, on the shard's own clock.
    pub fn ask_deadline_ns(&self) -> u64 {
        self.core.ask_deadline_ns()
    }

    /// This shard's number.
    pub fn number(&self) -> u16 {
        self.core.shard
    }

    /// What was counted so far.
    pub fn stats(&self) -> Stats {
        self.core.stats
    }

    /// Entities of type `E` in memory on this shard.
    ///
    /// # Panics
    /// When `E` is not registered with this node.
    pub fn entities<E: Entity>(&self) -> usize {
        let store = self.stores[usize::from(self.core.directory.entity::<E>())];
        // SAFETY: one step.
        unsafe { store.get() }.len()
    }

    /// Entities of all types in memory on this shard.
    pub fn entities_in_all(&self) -> usize {
        // SAFETY: one step each.
        self.stores.iter().map(|store| unsafe { store.get() }.len()).sum()
    }

    /// Whether intake from outside should pause: more waits already than is wholesome.
    #[inline]
    pub fn is_congested(&self) -> bool {
        self.core.queue.len_words() > self.queue_words_max / 4 || self.core.outboxes_are_congested()
    }

    /// Whether records wait that a poll would take.
    pub fn has_work(&mut self) -> bool {
        !self.core.queue.is_empty()
            || !self.sweeps.is_empty()
            || !self.core.outboxes_are_empty()
            || self.core.has_system()
            || self.core.tasks.any_woken()
            || self.inbound.iter_mut().flatten().any(|ring| !ring.is_empty())
    }

    /// When the shard has to be polled next if nothing arrives, on its own clock: a timer is due,
    /// or an idle entity is to be put away. It may be early, and is never late.
    pub fn next_deadline_ns(&self) -> Option<u64> {
        [self.core.wheel.next_deadline_ns(), self.next_pass_ns()].into_iter().flatten().min()
    }

    /// Asks that wait for their answer.
    pub fn asks_waiting(&self) -> usize {
        self.core.pending.len()
    }

    /// Words ever sent to other shards, and ever taken from them. Summed over all shards, the two
    /// are equal when nothing is under way.
    pub fn traffic_words(&self) -> (u64, u64) {
        let read = self.inbound.iter().flatten().map(Consumer::read_words).sum();
        (self.core.written_words(), read)
    }

    /// Answers an ask. One that waits here and touches no entity is answered at once; every other
    /// gets a record.
    #[inline(never)]
    pub(crate) fn reply<R: Send + 'static>(
        &mut self,
        token: Token,
        message: u16,
        reply: R,
        outside: &mut dyn Outside,
    ) {
        if !Payload::<R>::INLINE {
            return self.core.reply_record::<R>(token, message, reply);
        }
        let Some(taken) = self.core.pending.take_outside(token, message) else {
            return self.core.reply_record::<R>(token, message, reply);
        };
        // As it would stand among words; the continuation takes it out.
        let mut reply = ManuallyDrop::new(reply);
        self.resume(taken, Outcome::Value((&raw mut reply).cast()), outside);
    }

    /// Moves records from the other shards' rings into the run queue.
    fn receive(&mut self) -> u32 {
        let mut received = 0;
        for ring in self.inbound.iter_mut().flatten() {
            let mut words = 0;
            let share = (ring.capacity_words() / 4).min(RELEASE_WORDS);
            while words < INBOUND_WORDS_PER_POLL {
                // A full queue leaves the records where they are: its own turns will empty it.
                if self.core.queue.len_words() + RECORD_WORDS_MAX > self.queue_words_max {
                    break;
                }
                let Some(record) = ring.pop() else { break };
                words += record.len();
                received += 1;
                // SAFETY: the first word of a record is its head, which is always written.
                let head = Head::from_bits(unsafe { record[0].assume_init() });
                if head.kind() == Kind::System && head.message() == IN_LANE {
                    // SAFETY: a system record, which leaves the ring.
                    self.core.receive_system(*unsafe { take_system(record.as_ptr()) });
                    continue;
                }
                let at = self.core.queue.reserve_unbounded(record.len());
                // SAFETY: as many words were reserved; ring and queue are apart.
                unsafe { copy_words(record.as_ptr(), at, record.len()) };
                if ring.unreleased_words() >= share {
                    ring.release();
                }
            }
            ring.release();
        }
        received
    }
}

impl Drop for Shard {
    /// Drops every message, continuation and entity, once.
    fn drop(&mut self) {
        let table = Arc::clone(&self.table);
        let drop_record = |record: *mut Word| {
            // SAFETY: every caller below gives the record up. One value whose drop panics does
            // not keep the others.
            let drop_value = || unsafe { table.drop_record(record) };
            let _ = catch_unwind(AssertUnwindSafe(drop_value));
        };
        for number in 0..self.core.pending.places() {
            let Some(taken) = self.core.pending.take_at(number) else { continue };
            self.attempt(|shard| shard.resume(taken, Outcome::Forget, &mut ()));
        }
        for task in self.core.tasks.take_all() {
            self.drop_guarded(|| drop(task));
        }
        for mut attached in self.core.attached.drain().collect::<Vec<_>>() {
            for waiting in std::mem::take(&mut attached.stash) {
                self.drop_guarded(|| drop(waiting));
            }
            self.drop_guarded(|| drop(attached));
        }
        while let Some(letter) = self.core.dead_letters.take(0) {
            self.drop_guarded(|| drop(letter));
        }
        let mut alarms = Vec::new();
        self.core.wheel.clear_with(|alarm| alarms.push(alarm));
        for alarm in alarms {
            let core = &self.core;
            let _ = catch_unwind(AssertUnwindSafe(|| core.drop_alarm(alarm)));
        }
        self.core.clear_with(drop_record);
        for mut ring in self.inbound.drain(..).flatten() {
            while let Some(record) = ring.pop() {
                drop_record(record.as_ptr().cast_mut());
            }
            let Some(mut rest) = ring.into_rest() else { continue };
            while let Some(record) = rest.pop() {
                drop_record(record.as_ptr().cast_mut());
            }
        }
        for sweeping in self.sweeps.drain(..) {
            let row = &table.sweeps[usize::from(sweeping.row)];
            // SAFETY: made by the row's `start`, given up here.
            let drop_total = || unsafe { (row.drop_total)(sweeping.total) };
            let _ = catch_unwind(AssertUnwindSafe(drop_total));
        }
        for store in std::mem::take(&mut self.stores) {
            // SAFETY: the shard is going, and with it the rows that name the store.
            unsafe { store.discard() };
        }
    }
}
