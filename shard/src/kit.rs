//! A kit for tests: one entity, without a node, with the time in the test's hands.
//!
//! A [`Kit`] drives a real shard with one entity in it: the turns, timers, restarts and async turns
//! are those of production. What the entity sends to anybody else (any other key, of any type) is
//! kept for the test to look at, and the test plays everybody else: it answers what was asked, ends
//! whom the entity watches, and lets those fail whom it started.
//!
//! | to | there is |
//! |---|---|
//! | send | [`ask`](Kit::ask), [`begin`](Kit::begin), [`tell`](Kit::tell) |
//! | see what was sent | [`sent`](Kit::sent), [`expect_sent`](Kit::expect_sent) |
//! | answer | [`answer`](Kit::answer), [`when`](Kit::when) |
//! | play topics, pools | [`topic`](Builder::topic), [`published`](Kit::published) |
//! | let time pass | [`advance`](Kit::advance) |
//! | see faults | [`expect_fault`](Kit::expect_fault), [`dead_letters`](Kit::dead_letters) |
//! | play those it watches or started | [`other`](Kit::other) |
//! | look at it | [`state`](Kit::state), [`is_live`](Kit::is_live), [`is_busy`](Kit::is_busy) |
//!
//! Each call returns when the entity has nothing more to do at that time. So a test has no waits,
//! and two runs are the same.
//!
//! # Time
//! It stands still until the test [advances](Kit::advance) it. It goes in ticks of 2^20 ns (about
//! 1.05 ms), as the shard's timers do, and each advance is rounded up to a tick: what was set for a
//! second has happened behind `advance` by a second.
//!
//! # Faults
//! A fault that the test does not [expect](Kit::expect_fault) fails the test when the kit is
//! dropped, so that an assertion in a handler counts. The default panic hook prints each one.
//!
//! # In production builds
//! The kit is always compiled: it needs no dependency, and what a program does not use of it is not
//! in the program. The shard asks once per system record whether it belongs to a kit; the way of a
//! message does not know of it.
#![expect(unsafe_code, reason = "the state is lent to a closure while nobody else uses it")]

mod builder;
mod call;
mod group;
mod other;
mod others;
mod sent;

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use crate::condition::Stage;
use crate::config::Now;
use crate::dead_letter::DeadLetter;
use crate::entity::{Address, Entity, Handler, Message};
use crate::identity::{EntityId, Recipient};
use crate::key::HashKey;
use crate::reply::AskError;
use crate::shard::Shard;
use crate::supervise::{End, Fault};
use crate::system::System;
use crate::table::NOT_REGISTERED;
use crate::ties::Holder;

pub use builder::Builder;
pub use call::{Asked, KitCall};
pub use other::Other;
pub(crate) use others::Others;
pub use sent::Sent;

use sent::{Letter, Stub};

/// The secret under which every kit hashes keys: makes the [`Name`](crate::Name) of an entity.
pub const HASH_KEY: HashKey = HashKey::new(0x6b69_7420_666f_7220_7465_7374_7320_2121);

/// What a kit's clock goes in: the tick of the shard's timers.
const TICK_NS: u64 = 1 << 20;

/// Polls after which an entity that still has work is taken never to come to rest. A poll is up to
/// 1,024 turns.
const POLLS_MAX: u32 = 1_000;

/// What may be kept of what an entity sent before the test looks at it.
const LETTERS_MAX: usize = 1 << 20;

/// One entity under test, alone on a shard.
///
/// # Panics
/// The methods panic, in the line of the test that called them, where the test expects what is not
/// so. They say what they found instead.
pub struct Kit<E: Entity> {
    shard: Shard,
    key: E::Key,
    own: EntityId,
    now: Now,
    faults: VecDeque<Fault>,
    /// How often each entity failed that was made to.
    failed: Vec<EntityId>,
    letters: Vec<Letter>,
    stubs: Vec<Stub>,
}

impl<E: Entity> Kit<E> {
    /// A kit for the entity `key`, which sends to no other type; else use
    /// [`builder`](Self::builder).
    pub fn new(key: E::Key) -> Self {
        Self::builder().build(key)
    }

    /// A kit for an entity that sends to other types.
    ///
    /// # Examples
    /// `Kit::<Account>::builder().other::<Ledger>().build(42)`
    pub fn builder() -> Builder<E> {
        Builder::new()
    }

    /// The key of the entity.
    pub fn key(&self) -> E::Key {
        self.key
    }

    /// The typed reference, with a method per handler: `kit.entity().deposit(10).ask()`.
    pub fn entity(&mut self) -> E::Ref<&mut Self> {
        E::Ref::from(Address::new(self.key, self))
    }

    /// Asks the entity and returns its answer.
    ///
    /// # Errors
    /// Why there is none, as any asker gets it.
    ///
    /// # Panics
    /// When there is no answer yet: the entity waits for something that the test has to give, so
    /// the test should [begin](Self::begin) the ask.
    #[track_caller]
    pub fn ask<M: Message>(&mut self, message: M) -> Result<M::Reply, AskError>
    where
        E: Handler<M>,
    {
        self.entity_call(message).ask()
    }

    /// Tells the entity.
    #[track_caller]
    pub fn tell<M: Message>(&mut self, message: M)
    where
        E: Handler<M>,
    {
        self.entity_call(message).tell();
    }

    /// Asks the entity; the answer may come later.
    #[track_caller]
    pub fn begin<M: Message>(&mut self, message: M) -> Asked<M::Reply>
    where
        E: Handler<M>,
    {
        self.entity_call(message).begin()
    }

    fn entity_call<M: Message>(&mut self, message: M) -> KitCall<'_, E, E, M>
    where
        E: Handler<M>,
    {
        KitCall::new(self, self.key, message)
    }

    /// Brings the entity into memory, as the first message would.
    #[track_caller]
    pub fn activate(&mut self) {
        let id = self.shard.stores[usize::from(self.own.kind)];
        if self.shard.locate(self.own).is_none()
            && let Some(slot) = self.shard.place(id, self.own.key)
        {
            self.shard.guard(|shard| shard.restart_now(id, slot, &mut ()));
        }
        self.run();
    }

    /// Ends the entity in good order, as its supervisor or a drain would.
    #[track_caller]
    pub fn stop(&mut self) {
        self.end_own(End::Stopped);
    }

    /// Puts the entity away, as happens to one that is idle.
    #[track_caller]
    pub fn passivate(&mut self) {
        self.end_own(End::Passivated);
    }

    #[track_caller]
    fn end_own(&mut self, end: End) {
        self.shard.core.send_system(System::Stop { entity: self.own, end });
        self.run();
    }

    /// Watches the entity; [`expect_end`](Self::expect_end) says how it ended. One end per watch.
    #[track_caller]
    pub fn watch(&mut self) {
        let kit = EntityId { kind: u16::MAX, wide: false, name: "kit", key: [0, 0] };
        let who = Recipient { entity: kit, message: 0 };
        let watcher = Holder { who, number: self.shard.core.next_tie() };
        self.shard.core.send_system(System::Watch { entity: self.own, watcher });
        self.run();
    }

    /// How the entity ended that was [watched](Self::watch).
    #[track_caller]
    pub fn expect_end(&mut self) -> End {
        match self.others().ends.pop_front() {
            Some(end) => end,
            None => panic!("{} has not ended since it was watched by `kit.watch()`", self.own),
        }
    }

    /// Lets the entity do what there is to do at this time. Every other method does so itself; this
    /// is for async turns whose waker was used elsewhere.
    ///
    /// # Panics
    /// When the entity does not come to rest: it sends itself message upon message.
    #[track_caller]
    pub fn run(&mut self) {
        for _ in 0..POLLS_MAX {
            self.shard.core.pending.look_again();
            let progress = self.shard.poll(self.now, &mut ());
            self.take_faults();
            let answered = self.take_arrived();
            let next_ns = self.shard.core.pending.next_deadline_ns();
            let overdue = next_ns.is_some_and(|at_ns| at_ns <= self.now.monotonic_ns);
            if progress.is_idle() && !answered && !overdue && !self.shard.has_work() {
                return;
            }
        }
        panic!("{} does not come to rest: it sends itself message upon message", self.own);
    }

    /// Lets time pass: timers fire, asks end at their deadlines, restarts happen, an idle entity is
    /// put away; each at its own time and in order.
    #[track_caller]
    pub fn advance(&mut self, time: Duration) {
        let time_ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        // An inherited deadline is up to a nanosecond later than the one that it was taken from.
        let until_ns = self.now.monotonic_ns.saturating_add(time_ns).saturating_add(1);
        assert!(until_ns < u64::MAX / 2, "{time:?} is longer than a kit's clock goes");
        let until_ns = until_ns.next_multiple_of(TICK_NS);
        self.run();
        while let Some(next_ns) = self.next_due_ns().filter(|next_ns| *next_ns < until_ns) {
            let next_ns = next_ns.max(self.now.monotonic_ns + 1);
            self.go_to(next_ns.next_multiple_of(TICK_NS));
        }
        if self.now.monotonic_ns < until_ns {
            self.go_to(until_ns);
        }
    }

    /// When the shard has something to do next.
    fn next_due_ns(&self) -> Option<u64> {
        let ask_ns = self.shard.core.pending.next_deadline_ns();
        [self.shard.next_deadline_ns(), ask_ns].into_iter().flatten().min()
    }

    #[track_caller]
    fn go_to(&mut self, at_ns: u64) {
        let passed_ms = at_ns / 1_000_000 - self.now.monotonic_ns / 1_000_000;
        self.now = Now { monotonic_ns: at_ns, unix_ms: self.now.unix_ms + passed_ms };
        self.run();
    }

    /// Milliseconds since 1970, as the entity sees them.
    pub fn unix_ms(&self) -> u64 {
        self.now.unix_ms
    }

    /// Nanoseconds of the shard's own clock, as the entity sees them.
    pub fn monotonic_ns(&self) -> u64 {
        self.now.monotonic_ns
    }

    #[track_caller]
    fn take_faults(&mut self) {
        for fault in self.shard.take_faults() {
            if fault.reason.contains(NOT_REGISTERED) {
                panic!(
                    "{} names a type that the kit does not know: add `.other::<TheType>()` to \
                     `Kit::builder()` ({})",
                    self.own, fault.reason
                );
            }
            // Another one fails where the test says so.
            if fault.entity == self.own {
                self.faults.push_back(fault);
            }
        }
    }

    /// Takes the oldest fault of the entity that the test has not seen.
    #[track_caller]
    pub fn expect_fault(&mut self) -> Fault {
        match self.faults.pop_front() {
            Some(fault) => fault,
            None => panic!("{} has had no fault that was not expected already", self.own),
        }
    }

    /// Whether a fault of the entity was escalated: its node, which supervises it, would stop.
    pub fn is_escalated(&self) -> bool {
        self.shard.escalation().is_some()
    }

    /// The messages that were accepted and not handled, the oldest first.
    pub fn dead_letters(&self) -> impl Iterator<Item = &DeadLetter> {
        self.shard.dead_letters()
    }

    /// Takes the oldest dead letter.
    #[track_caller]
    pub fn expect_dead_letter(&mut self) -> DeadLetter {
        match self.shard.take_dead_letter(0) {
            Some(letter) => letter,
            None => panic!("there is no dead letter"),
        }
    }

    /// Sends the message of a dead letter again, as a tell.
    #[track_caller]
    pub fn replay(&mut self, letter: DeadLetter) {
        self.shard.replay(letter, &mut ());
        self.run();
    }

    /// Whether the entity is in memory with its state: not before its first message, nor between a
    /// fault and the restart.
    pub fn is_live(&self) -> bool {
        self.stage().is_some_and(Stage::has_state)
    }

    /// Whether an async turn holds the entity's state, so that messages wait.
    pub fn is_busy(&self) -> bool {
        self.stage() == Some(Stage::Busy)
    }

    /// Whether the entity waits for its restart.
    pub fn is_restarting(&self) -> bool {
        self.stage() == Some(Stage::Restarting)
    }

    fn stage(&self) -> Option<Stage> {
        let (id, slot) = self.shard.locate(self.own)?;
        // SAFETY: one step.
        Some(unsafe { id.get() }.stage(slot))
    }

    /// Messages and answers that wait for the entity because it is busy or restarting.
    pub fn stashed(&self) -> usize {
        let slot = self.shard.locate(self.own).map(|(_, slot)| slot);
        let attached = slot.and_then(|slot| self.shard.core.attached.get(self.own.kind, slot));
        attached.map_or(0, |attached| attached.stash.len())
    }

    /// Timers of the entity that are set.
    pub fn timers(&self) -> usize {
        self.shard.timers()
    }

    /// Looks at the state.
    ///
    /// # Panics
    /// When the entity is not in memory, or an async turn holds its state.
    #[track_caller]
    pub fn state<R>(&self, look: impl FnOnce(&E) -> R) -> R {
        let held = self.stage() == Some(Stage::Busy);
        assert!(!held, "an async turn holds the state of {}", self.own);
        let Some((id, slot)) = self.shard.locate(self.own).filter(|_| self.is_live()) else {
            panic!("{} is not in memory: activate it, or advance to its restart", self.own);
        };
        // SAFETY: one step.
        let state = unsafe { id.get() }.state(slot).cast::<E>();
        // SAFETY: the stage says that the state is initialised, and that at most reads share it;
        // the shard is borrowed, so nothing runs meanwhile.
        look(unsafe { &*state })
    }

    /// An entity that the one under test watches, or started: to be ended, or to fail.
    pub fn other<T: Entity>(&mut self, key: T::Key) -> Other<'_, E, T> {
        Other::new(self, key)
    }

    /// Whom the entity watches now.
    pub fn watched(&self) -> Vec<EntityId> {
        self.others_ref().watched.iter().map(|(entity, _)| *entity).collect()
    }

    /// Whom the entity started, and who has not ended.
    pub fn started(&self) -> Vec<EntityId> {
        self.others_ref().started.iter().map(|(entity, _)| *entity).collect()
    }

    fn others(&mut self) -> &mut Others {
        match &mut self.shard.others {
            Some(others) => others,
            None => unreachable!("the builder keeps others out"),
        }
    }

    fn others_ref(&self) -> &Others {
        match &self.shard.others {
            Some(others) => others,
            None => unreachable!("the builder keeps others out"),
        }
    }
}

impl<E: Entity> fmt::Debug for Kit<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kit")
            .field("entity", &self.own)
            .field("live", &self.is_live())
            .finish_non_exhaustive()
    }
}

impl<E: Entity> Drop for Kit<E> {
    /// Fails the test for what it did not expect.
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let of = |fault: &Fault| match fault.message {
            "" => fault.reason.clone(),
            message => format!("{message}: {}", fault.reason),
        };
        let faults: Vec<_> = self.faults.iter().map(of).collect();
        assert!(
            faults.is_empty(),
            "{} failed, and the test did not `expect_fault`: {faults:#?}",
            self.own
        );
    }
}
