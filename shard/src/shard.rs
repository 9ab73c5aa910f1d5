//! The shard: one thread's entities, and the loop body that lets them have their turns.
//!
//! A shard is a state machine without thread, clock or socket. [`Shard::poll`] takes what arrived,
//! runs a bounded number of turns, and shows other shards what was sent to them. Whoever drives it
//! decides when, and says what time it is; so the same code runs on a pinned core and in a
//! simulator.
//!
//! # Ownership
//! A shard may be moved to the thread that is to drive it before its first poll, and stays there:
//! entities need not be `Send`.
//!
//! # Invariants
//! Between polls no turn is under way: `current` is [`Current::NONE`].
#![expect(unsafe_code, reason = "records are read in place and typed again through the table")]

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::commands::{CommandId, Commands};
use crate::config::{LookAhead, MeshEnd, Now, Placement, Progress, ShardConfig, Stats};
use crate::entity::{Entity, Handler, Message};
use crate::index::SlotNumber;
use crate::key::HashKey;
use crate::pending::{Outcome, Outside, Resume, Taken, Ticket, Waiting, When};
use crate::queue::RunQueue;
use crate::record::{Head, Kind, Payload, RECORD_WORDS_MAX, Word, copy_words};
use crate::reply::{AskError, Token};
use crate::ring::Consumer;
use crate::store::{Store, StoreId};
use crate::sweep::{SLOTS_PER_POLL, Sweeping};
use crate::table::{Row, Run, Table};
use crate::value::{Args, ArgumentError, ToValue};

pub(crate) use crate::core::Core;
pub use crate::core::{Full, Wake};

/// One thread's entities and everything they need.
pub struct Shard {
    pub(crate) core: Core,
    /// By number of the entity type.
    pub(crate) stores: Box<[StoreId]>,
    /// By message number: what a turn needs of the table, and the store, in one step.
    rows: Box<[Dispatch]>,
    pub(crate) current: Current,
    turns_left: u32,
    turns_per_poll: u32,
    queue_words_max: usize,
    look_ahead: LookAhead,
    inbound: Vec<Option<Consumer>>,
    sweeps: Vec<Sweeping>,
    table: Arc<Table>,
}

// SAFETY: a shard is sent once, before its first poll, when it holds no entity, no record and no
// continuation; afterwards it stays on its thread (`Ownership` above, kept by the drivers). The
// rings and queues themselves carry only values that are Send.
unsafe impl Send for Shard {}

/// Where the records of one message go.
struct Dispatch {
    run_tell: Run,
    run_ask: Run,
    store: StoreId,
    key_words: u32,
}

/// Why a command was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CallError {
    /// Its key or arguments are not what it takes.
    Argument(ArgumentError),
    /// A queue on the way is at its bound.
    Full,
}

impl std::fmt::Display for CallError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Argument(error) => error.fmt(f),
            Self::Full => f.write_str("BUSY the node is at its bound; try again later"),
        }
    }
}

/// Whose user code is running, for the guard against panics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Current {
    stage: Stage,
    slot: SlotNumber,
    store: Option<StoreId>,
    /// The asker's token; 0 when nobody asks.
    token: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// No user code: a panic here is a bug of the runtime.
    None,
    /// The state for a slot is being made.
    Activating,
    /// An entity has its turn.
    Turn,
    /// A continuation outside of any entity, or the drop of a value.
    Answering,
}

impl Current {
    pub(crate) const NONE: Self = Self { stage: Stage::None, slot: 0, store: None, token: 0 };

    #[inline(always)]
    pub(crate) fn new(store: StoreId, slot: SlotNumber, token: Option<Token>) -> Self {
        Self { stage: Stage::Turn, slot, store: Some(store), token: token.map_or(0, Token::bits) }
    }

    /// The user's code has returned.
    #[inline(always)]
    pub(crate) fn clear(&mut self) {
        self.stage = Stage::None;
    }

    pub(crate) fn activating(store: StoreId, slot: SlotNumber, token: Option<Token>) -> Self {
        Self { stage: Stage::Activating, ..Self::new(store, slot, token) }
    }

    pub(crate) const ANSWERING: Self = Self { stage: Stage::Answering, ..Self::NONE };
}

/// How far ahead of its turn a record's index line is fetched: about 32 records of three words.
const FAR_WORDS: usize = 96;
/// How far ahead its slot is fetched.
const NEAR_WORDS: usize = 48;

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
        let store = |row: &crate::table::TypeRow| {
            Store::new(row.layout, config.hash_key, config.entities_max).map(StoreId::new)
        };
        let stores = table.types.iter().map(store).collect::<io::Result<Box<_>>>()?;
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
            turns_left: 0,
            turns_per_poll: config.turns_per_poll.max(1),
            queue_words_max: RunQueue::rounded(config.queue_words_max),
            look_ahead: config.look_ahead,
            inbound: mesh.inbound,
            sweeps: Vec::new(),
            table,
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
        self.turns_left = self.turns_per_poll;
        let received = self.receive();
        let expired_before = self.core.stats.asks_expired;
        while !self.guard(|shard| shard.run_all(outside)) {}
        let turns = self.turns_per_poll - self.turns_left;
        self.core.stats.turns += u64::from(turns);
        self.core.stats.received += u64::from(received);
        self.core.queue.rewind();
        self.core.publish();
        Progress {
            received,
            turns,
            expired: (self.core.stats.asks_expired - expired_before) as u32,
            more: !self.core.queue.is_empty() || !self.sweeps.is_empty(),
        }
    }

    /// Says what time it is, for what is sent before the next poll.
    pub fn tick(&mut self, now: Now) {
        self.core.now = now;
    }

    /// Runs `work`, which may send messages; a panic in it is contained and counted. Returns
    /// whether there was none.
    pub fn attempt(&mut self, work: impl FnOnce(&mut Self)) -> bool {
        self.guard(|shard| {
            shard.current = Current::ANSWERING;
            work(shard);
            shard.current.clear();
        })
    }

    /// Runs a part of a poll; deals with a panic in user code that ends it. Returns whether there
    /// was none.
    #[inline]
    fn guard(&mut self, part: impl FnOnce(&mut Self)) -> bool {
        match catch_unwind(AssertUnwindSafe(|| part(self))) {
            Ok(()) => true,
            Err(panic) => {
                self.contain(panic);
                false
            }
        }
    }

    /// Counts a message from outside that is lost because [`tell`](Self::tell) was refused.
    pub fn count_lost(&mut self) {
        self.core.stats.lost += 1;
    }

    /// Sends one message from outside of the shard and expects no answer.
    ///
    /// # Errors
    /// [`Full`] with the message inside when a queue on the way is at its bound.
    pub fn tell<E: Handler<M>, M: Message>(
        &mut self,
        key: E::Key,
        message: M,
    ) -> Result<(), Full<M>> {
        self.core.tell::<E, M>(key, message)
    }

    /// Sends one message from outside of the shard; `then` runs with the answer, once, at the
    /// latest a little after `deadline_ns` of the shard's clock.
    ///
    /// # Errors
    /// [`Full`] with the message inside when a bound is reached; `then` is dropped.
    #[inline]
    pub fn ask<E, M, F>(
        &mut self,
        key: E::Key,
        message: M,
        deadline_ns: u64,
        then: F,
    ) -> Result<(), Full<M>>
    where
        E: Handler<M>,
        M: Message,
        F: FnOnce(Result<M::Reply, AskError>, &mut dyn Outside) + 'static,
    {
        let resume = (answer_at_once::<M::Reply, F> as Resume, When::AtOnce);
        let asked = self.core.ask::<E, M, F>(key, message, then, resume, deadline_ns);
        asked.map_err(|(message, _)| Full(message))
    }

    /// Sends one message whose answer goes to [`Outside::answer`] under `ticket`.
    ///
    /// # Errors
    /// [`CallError::Full`] when a bound is reached; there is no answer then.
    pub fn ask_outside<E: Handler<M>, M: Message>(
        &mut self,
        key: E::Key,
        message: M,
        ticket: Ticket,
    ) -> Result<(), CallError>
    where
        M::Reply: ToValue,
    {
        let deadline_ns = self.core.ask_deadline_ns();
        let then = move |answer: Result<M::Reply, AskError>, outside: &mut dyn Outside| match answer
        {
            Ok(reply) => outside.answer(ticket, Ok(&reply)),
            Err(error) => outside.answer(ticket, Err(error)),
        };
        self.ask::<E, M, _>(key, message, deadline_ns, then).map_err(|_| CallError::Full)
    }

    /// Sends one command of one key; the answer goes to [`Outside::answer`] under `ticket`, in a
    /// later poll.
    ///
    /// # Errors
    /// What is wrong with key or arguments, or that a bound is reached; there is no answer then.
    pub fn ask_command(
        &mut self,
        id: CommandId,
        key: &[u8],
        args: &mut Args<'_>,
        ticket: Ticket,
    ) -> Result<(), CallError> {
        let table = Arc::as_ptr(&self.table);
        // SAFETY: the table lives as long as the shard, which does not replace it; a command sends
        // a message and nothing else.
        let commands = unsafe { &(*table).commands };
        let mut outcome = Err(CallError::Argument(ArgumentError::Message(
            "ERR the arguments could not be read: the command's own code failed",
        )));
        // Reading arguments may be the service's own code.
        self.attempt(|shard| outcome = (commands.row(id).ask)(shard, key, args, ticket));
        outcome
    }

    /// Starts the sweep that a command without key stands for; the total goes to
    /// [`Outside::answer`].
    ///
    /// # Errors
    /// As for [`ask_command`](Self::ask_command).
    pub fn ask_sweep(&mut self, id: CommandId, ticket: Ticket) -> Result<(), CallError> {
        self.ask_command(id, &[], &mut Args::new(&[], &[]), ticket)
    }

    /// Passes over all entities `E` of the node; `then` gets the merged total.
    ///
    /// # Errors
    /// [`AskError::NotSent`] when too many asks wait already; `then` is dropped.
    pub fn sweep<E, S, F>(&mut self, then: F) -> Result<(), AskError>
    where
        E: Entity,
        S: crate::sweep::Sweep<E>,
        F: FnOnce(Result<S, AskError>, &mut dyn Outside) + 'static,
    {
        let number = self.core.directory.sweep::<E, S>();
        let shards = self.core.shards();
        if !self.core.pending.has_room_for(usize::from(shards)) {
            return Err(AskError::NotSent);
        }
        let gather = Gather::new(shards, then);
        let deadline_ns = self.core.now.monotonic_ns.saturating_add(SWEEP_TIMEOUT_NS);
        for shard in 0..shards {
            let gather = std::rc::Rc::clone(&gather);
            let then = move |part: Result<S, AskError>, outside: &mut dyn Outside| {
                let done = gather.borrow_mut().add(part, S::merge);
                if let Some((then, total)) = done {
                    then(total, outside);
                }
            };
            let resume = answer_at_once_of(&then);
            let message = (self.table.rows.len() + usize::from(number)) as u16;
            let waiting = Waiting { resume, when: When::AtOnce, message, deadline_ns };
            let token = self.core.pending.insert(then, waiting);
            self.core.sweep_record(shard, number, token);
        }
        Ok(())
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
            || self.inbound.iter_mut().flatten().any(|ring| !ring.is_empty())
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

    /// Ends every ask that waits here with `error`: the shard is about to stop.
    pub fn end_asks(&mut self, error: AskError, outside: &mut dyn Outside) {
        while let Some(taken) = self.core.pending.take_any() {
            self.attempt(|shard| shard.resume(taken, Outcome::Error(error), outside));
        }
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
        if token.shard() != self.core.shard
            || self.core.pending.when(token, message) == Some(When::InTurn)
            || !Payload::<R>::INLINE
        {
            return self.core.reply_record::<R>(token, message, reply);
        }
        let Some(taken) = self.core.pending.take(token, message) else {
            self.core.stats.answers_late += 1;
            return;
        };
        let mut words = [Word::uninit(); RECORD_WORDS_MAX];
        // SAFETY: the array holds any inline value; the continuation takes it out.
        unsafe { Payload::<R>::write(words.as_mut_ptr(), reply) };
        self.current = Current::ANSWERING;
        self.resume(taken, Outcome::Value(words.as_mut_ptr()), outside);
    }

    /// Answers a message that found no room for its entity.
    #[cold]
    pub(crate) fn refuse<M>(&mut self, token: Option<Token>, message: M) {
        self.core.stats.refused += 1;
        if let Some(token) = token {
            self.core.error_record(token, AskError::NotSent);
        }
        self.current = Current::ANSWERING;
        drop(message);
        self.current = Current::NONE;
    }

    /// Moves records from the other shards' rings into the run queue.
    fn receive(&mut self) -> u32 {
        let mut received = 0;
        for ring in self.inbound.iter_mut().flatten() {
            let mut words = 0;
            let share = ring.capacity_words() / 4;
            while words < INBOUND_WORDS_PER_POLL {
                // A full queue leaves the records where they are: its own turns will empty it.
                if self.core.queue.len_words() + RECORD_WORDS_MAX > self.queue_words_max {
                    break;
                }
                let Some(record) = ring.pop() else { break };
                let at = self.core.queue.reserve_unbounded(record.len());
                // SAFETY: as many words were reserved; ring and queue are apart.
                unsafe { copy_words(record.as_ptr(), at, record.len()) };
                words += record.len();
                received += 1;
                if ring.unreleased_words() >= share {
                    ring.release();
                }
            }
            ring.release();
        }
        received
    }

    /// Everything in a poll that may run user code. Picks up where it was when a panic ended it.
    fn run_all(&mut self, outside: &mut dyn Outside) {
        self.expire_asks(outside);
        // SAFETY: one step each.
        let working = |store: &StoreId| unsafe { store.get() }.working_bytes();
        let ahead = match self.look_ahead {
            LookAhead::Off => false,
            LookAhead::On => true,
            LookAhead::Above { bytes } => self.stores.iter().map(working).sum::<usize>() > bytes,
        };
        if ahead {
            self.run_turns::<true>(outside);
        } else {
            self.run_turns::<false>(outside);
        }
        self.run_sweeps(outside);
    }

    /// Runs records from the front of the queue until it is empty or the budget is used up.
    ///
    /// The simple version is the last five lines of the loop. With `AHEAD`, two cursors walk the
    /// queue before them: `far` fetches the index line of each record's key, `near` finds the slot
    /// in that line by then, notes it in the record, and fetches the slot.
    fn run_turns<const AHEAD: bool>(&mut self, outside: &mut dyn Outside) {
        let mut far = self.core.queue.head();
        let mut near = far;
        while self.turns_left > 0 && !self.core.queue.is_empty() {
            let position = self.core.queue.head();
            if AHEAD {
                let tail = self.core.queue.tail();
                while far != tail && far - position < FAR_WORDS {
                    far += self.fetch_index(far);
                }
                while near != far && near - position < NEAR_WORDS {
                    near += self.fetch_slot(near);
                }
            }
            // SAFETY: a record starts at the head of a queue that is not empty.
            let at = unsafe { self.core.queue.record(position) };
            // SAFETY: as above.
            let head = unsafe { self.core.queue.record_head(position) };
            self.core.queue.advance(head.words());
            self.turns_left -= 1;
            self.run_record(at, head, outside);
        }
    }

    #[inline(always)]
    fn run_record(&mut self, at: *mut Word, head: Head, outside: &mut dyn Outside) {
        if head.is_for_entity() {
            debug_assert!(usize::from(head.message()) < self.rows.len());
            // SAFETY: records are written with numbers of the table, which the rows are a copy of.
            let row = unsafe { self.rows.get_unchecked(usize::from(head.message())) };
            let run = if head.kind() == Kind::Tell { row.run_tell } else { row.run_ask };
            let store = row.store;
            // SAFETY: the record is of the message that its number names, and is given up.
            unsafe { run(self, outside, at, head, store) };
        } else {
            self.run_system(at, head, outside);
        }
    }

    /// Takes a reply to its asker, or starts a sweep.
    fn run_system(&mut self, at: *mut Word, head: Head, outside: &mut dyn Outside) {
        // SAFETY: in replies and sweeps the token follows the head.
        let token = Token::from_bits(unsafe { at.add(1).cast::<u64>().read() });
        if head.kind() == Kind::Sweep {
            let row = &self.table.sweeps[usize::from(head.message())];
            self.current = Current { token: token.bits(), ..Current::ANSWERING };
            let total = (row.start)();
            self.current = Current::NONE;
            // SAFETY: one step.
            let end = unsafe { self.stores[usize::from(row.store)].get() }.slots_used();
            let row = head.message();
            self.sweeps.push(Sweeping { row, total, token, next: 0, end });
            return;
        }
        // SAFETY: the value, if there is one, follows the token.
        let value = unsafe { at.add(2) };
        let error = AskError::from_status(head.upper());
        self.current = Current::ANSWERING;
        let taken = match error {
            None => self.core.pending.take(token, head.message()),
            Some(_) => self.core.pending.take_failed(token),
        };
        match taken {
            Some(taken) => {
                let outcome = error.map_or(Outcome::Value(value), Outcome::Error);
                self.resume(taken, outcome, outside);
            }
            None => {
                self.core.stats.answers_late += 1;
                if error.is_none() {
                    // SAFETY: the value is of the message's reply type, and is given up.
                    unsafe { (self.table.drop_reply(head.message()))(value) };
                }
            }
        }
        self.current = Current::NONE;
    }

    #[inline(always)]
    fn resume(&mut self, mut taken: Taken, outcome: Outcome, outside: &mut dyn Outside) {
        // SAFETY: the pending table gives each continuation out once, with what it captured; a
        // value is of the reply type of the message that was asked.
        unsafe { (taken.resume)(taken.captured.as_mut_ptr(), outcome, self, outside) };
    }

    fn expire_asks(&mut self, outside: &mut dyn Outside) {
        let mut looked = 0;
        while let Some(taken) =
            self.core.pending.take_expired(self.core.now.monotonic_ns, &mut looked)
        {
            self.core.stats.asks_expired += 1;
            self.current = Current::ANSWERING;
            self.resume(taken, Outcome::Error(AskError::MaybeExecuted), outside);
            self.current = Current::NONE;
        }
    }

    /// Lets the oldest sweep go on for a bounded number of slots.
    fn run_sweeps(&mut self, _outside: &mut dyn Outside) {
        let Some(sweeping) = self.sweeps.first_mut() else { return };
        let row = &self.table.sweeps[usize::from(sweeping.row)];
        let id = self.stores[usize::from(row.store)];
        let until = sweeping.end.min(sweeping.next + SLOTS_PER_POLL);
        while sweeping.next < until {
            let slot = sweeping.next;
            sweeping.next += 1;
            // SAFETY: one step.
            let store = unsafe { id.get() };
            if !store.is_live(slot) {
                continue;
            }
            self.current = Current::new(id, slot, None);
            // SAFETY: the total is this sweep's, and the slot is live in the row's store.
            let visit = unsafe { (row.visit)(sweeping.total, store.at(slot)) };
            if visit == crate::sweep::Visit::Stop {
                // SAFETY: one step, after the user's code.
                unsafe { id.get() }.remove(slot);
            }
        }
        self.current = Current::NONE;
        if sweeping.next == sweeping.end {
            let sweeping = self.sweeps.remove(0);
            let finish = self.table.sweeps[usize::from(sweeping.row)].finish;
            let message = (self.table.rows.len() + usize::from(sweeping.row)) as u16;
            // SAFETY: the total was made by the row's `start` and is given up here.
            unsafe { finish(self, sweeping.total, sweeping.token, message) };
        }
    }

    /// Deals with a panic in user code: drops the entity whose turn it was, and answers its asker.
    ///
    /// This is the seam for supervision: the policy that follows a fault is decided here.
    #[cold]
    fn contain(&mut self, panic: Box<dyn Any + Send>) {
        let current = std::mem::replace(&mut self.current, Current::NONE);
        match current.stage {
            Stage::None => {
                let reason = panic_reason(&*panic);
                eprintln!("coreside: shard {} is broken: {reason}; aborting", self.core.shard);
                std::process::abort();
            }
            Stage::Activating => {
                // SAFETY: one step, after the user's code.
                current.store.into_iter().for_each(|id| unsafe { id.get() }.discard(current.slot));
            }
            Stage::Turn => {
                // SAFETY: one step, after the user's code.
                let Some(store) = current.store.map(|id| unsafe { id.get() }) else { return };
                if store.is_live(current.slot) {
                    // A second panic, in the state's own drop, leaks what it left.
                    let remove = || store.remove(current.slot);
                    if catch_unwind(AssertUnwindSafe(remove)).is_err() {
                        self.core.stats.faults += 1;
                    }
                }
            }
            Stage::Answering => {}
        }
        self.core.stats.faults += 1;
        // A panic's payload may panic in its own drop.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(panic)));
        if current.token != 0 {
            self.core.error_record(Token::from_bits(current.token), AskError::Failed);
        }
    }

    /// Looks at the record at `position`, far ahead; returns its length.
    #[inline(always)]
    fn fetch_index(&mut self, position: usize) -> usize {
        // SAFETY: the cursor steps from record to record below the tail.
        let head = unsafe { self.core.queue.record_head(position) };
        if head.is_for_entity() {
            // SAFETY: as above.
            let at = unsafe { self.core.queue.record(position) };
            // SAFETY: numbers in records are the table's.
            let row = unsafe { self.rows.get_unchecked(usize::from(head.message())) };
            // SAFETY: one step.
            let store = unsafe { row.store.get() };
            // SAFETY: the key follows the head.
            unsafe {
                if row.key_words == 1 {
                    store.fetch_index::<1>(at.add(1).cast::<[u64; 1]>().read());
                } else {
                    store.fetch_index::<2>(at.add(1).cast::<[u64; 2]>().read());
                }
            }
        }
        head.words()
    }

    /// Looks at the record at `position`, near its turn, and notes where its entity is.
    #[inline(always)]
    fn fetch_slot(&mut self, position: usize) -> usize {
        // SAFETY: as for `fetch_index`.
        let head = unsafe { self.core.queue.record_head(position) };
        if head.is_for_entity() {
            // SAFETY: as above.
            let at = unsafe { self.core.queue.record(position) };
            // SAFETY: numbers in records are the table's.
            let row = unsafe { self.rows.get_unchecked(usize::from(head.message())) };
            // SAFETY: one step.
            let store = unsafe { row.store.get() };
            // SAFETY: the key follows the head, whose upper half is the hint.
            unsafe {
                let hint = if row.key_words == 1 {
                    store.fetch_slot::<1>(at.add(1).cast::<[u64; 1]>().read())
                } else {
                    store.fetch_slot::<2>(at.add(1).cast::<[u64; 2]>().read())
                };
                at.cast::<u64>().write(head.with_status(hint).bits());
            }
        }
        head.words()
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
        while let Some(taken) = self.core.pending.take_any() {
            self.attempt(|shard| shard.resume(taken, Outcome::Forget, &mut ()));
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

/// Runs a continuation that touches no entity.
///
/// # Safety
/// `captured` holds an `F`, which is given up; a value in `outcome` is an `R`.
unsafe fn answer_at_once<R, F>(
    captured: *mut Word,
    outcome: Outcome,
    _shard: &mut Shard,
    outside: &mut dyn Outside,
) where
    F: FnOnce(Result<R, AskError>, &mut dyn Outside),
{
    // SAFETY: the caller's contract.
    let then = unsafe { crate::pending::Captured::<F>::read(captured) };
    match outcome {
        // SAFETY: the caller's contract.
        Outcome::Value(at) => then(Ok(unsafe { Payload::<R>::read(at) }), outside),
        Outcome::Error(error) => then(Err(error), outside),
        Outcome::Forget => drop(then),
    }
}

/// [`answer_at_once`] for a closure whose type has no name.
fn answer_at_once_of<R, F>(_: &F) -> Resume
where
    F: FnOnce(Result<R, AskError>, &mut dyn Outside),
{
    answer_at_once::<R, F>
}

/// How long a sweep may take.
const SWEEP_TIMEOUT_NS: u64 = 60_000_000_000;

/// The totals of the shards, as they come in.
struct Gather<S, F> {
    missing: u16,
    total: Option<Result<S, AskError>>,
    then: Option<F>,
}

impl<S, F> Gather<S, F> {
    fn new(shards: u16, then: F) -> std::rc::Rc<std::cell::RefCell<Self>> {
        let gather = Self { missing: shards, total: None, then: Some(then) };
        std::rc::Rc::new(std::cell::RefCell::new(gather))
    }

    /// Adds a part; with the last one, everything comes back.
    fn add(
        &mut self,
        part: Result<S, AskError>,
        merge: impl FnOnce(&mut S, S),
    ) -> Option<(F, Result<S, AskError>)> {
        self.missing -= 1;
        self.total = Some(match (self.total.take(), part) {
            (None, part) => part,
            (Some(Ok(mut total)), Ok(part)) => {
                // The service's own code: should it fail, so does the sweep, and its asker hears.
                match catch_unwind(AssertUnwindSafe(|| merge(&mut total, part))) {
                    Ok(()) => Ok(total),
                    Err(_) => Err(AskError::Failed),
                }
            }
            (Some(Err(error)), _) | (Some(Ok(_)), Err(error)) => Err(error),
        });
        if self.missing > 0 {
            return None;
        }
        self.then.take().zip(self.total.take())
    }
}

fn panic_reason(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a panic without text")
}
