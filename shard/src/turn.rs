//! Turns: how a record meets its entity, and what the handler may do meanwhile.
//!
//! [`run`] is the one dispatch path. It is compiled once per pair of entity and message type; the
//! message table holds its address. In order: take the message out of the record, find the entity
//! (by the hint that looking ahead left in the record, by the index, or by activating it), call the
//! handler, send the reply.
//!
//! # Ownership
//! During a turn the handler holds `&mut` to its entity, which lies in the store, and [`Cx`] holds
//! `&mut` to the shard's [`Core`], which is everything *but* the stores. So a handler can tell, ask
//! and reply, and cannot reach an entity, its own included, by any second way.
//!
//! # Faults
//! The batch of turns that calls [`run`] is guarded against panics as a whole. `shard.current` says
//! whose turn it is, so that the guard can drop that entity and answer its asker.
#![expect(unsafe_code, reason = "entities and messages are typed again behind the table")]

use std::any::TypeId;
use std::marker::PhantomData;

use crate::core::{Core, Full};
use crate::entity::{Address, Answer, Entity, Handler, Later, Message, Via};
use crate::fault::Current;
use crate::index::SlotNumber;
use crate::key::{Key, KeyWords};
use crate::pending::{Captured, Outcome, Outside, Resume, When};
use crate::record::{Head, Payload, Word};
use crate::reply::{AskError, ReplyTo, Token};
use crate::shard::Shard;
use crate::store::{Slot, StoreId, narrow};

/// What a handler knows and may do during its turn.
pub struct Cx<'a, E: Entity> {
    core: &'a mut Core,
    key: E::Key,
    slot: SlotNumber,
    generation: u32,
    token: Option<Token>,
    message: u16,
    stop: bool,
    entity: PhantomData<fn(E)>,
}

impl<'a, E: Entity> Cx<'a, E> {
    /// The key of the entity whose turn it is.
    pub fn key(&self) -> E::Key {
        self.key
    }

    /// Milliseconds since 1970, as of the start of this poll.
    pub fn unix_ms(&self) -> u64 {
        self.core.now.unix_ms
    }

    /// Nanoseconds of the shard's own clock, which never goes back, as of the start of this poll.
    pub fn monotonic_ns(&self) -> u64 {
        self.core.now.monotonic_ns
    }

    /// The way to the entity `key` of type `T`, wherever it lives.
    ///
    /// # Panics
    /// When a message is prepared and `T` is not registered with this node.
    #[inline(always)]
    pub fn entity<T: Entity>(&mut self, key: T::Key) -> T::Ref<&mut Cx<'a, E>> {
        T::Ref::from(Address::new(key, self))
    }

    /// Ends this entity after the turn: its state is dropped and its memory is free. The next
    /// message for its key activates it anew.
    pub fn stop(&mut self) {
        self.stop = true;
    }

    /// Puts off the reply to a later turn. Return the first half from the handler, keep the second
    /// and give it to [`reply`](Self::reply) once the reply is known.
    ///
    /// # Panics
    /// When `R` is not the reply of the message that is being handled; the turn fails.
    pub fn later<R: 'static>(&mut self) -> (Later<R>, ReplyTo<R>) {
        if self.token.is_some() {
            let expected = self.core.reply_types[usize::from(self.message)];
            assert!(expected == TypeId::of::<R>(), "`later` promises the message's own reply type");
        }
        let reply_to = ReplyTo { token: self.token, message: self.message, reply: PhantomData };
        (Later { reply: PhantomData }, reply_to)
    }

    /// Answers an ask that was put off.
    pub fn reply<R: Send + 'static>(&mut self, to: ReplyTo<R>, reply: R) {
        if let Some(token) = to.token {
            self.core.reply_record::<R>(token, to.message, reply);
        }
    }
}

/// A message that a handler is about to send.
#[must_use = "nothing is sent before `try_tell` or `ask`"]
pub struct Call<'c, 'a, S: Entity, E: Entity, M> {
    cx: &'c mut Cx<'a, S>,
    key: E::Key,
    message: M,
}

impl<'c, 'a, S: Entity> Via for &'c mut Cx<'a, S> {
    type Call<E: Handler<M>, M: Message> = Call<'c, 'a, S, E, M>;

    #[inline(always)]
    fn call<E: Handler<M>, M: Message>(self, key: E::Key, message: M) -> Self::Call<E, M> {
        Call { cx: self, key, message }
    }
}

impl<S: Entity, E: Handler<M>, M: Message> Call<'_, '_, S, E, M> {
    /// Sends the message and expects no answer.
    ///
    /// # Delivery
    /// In the order sent, exactly once while the entity lives.
    ///
    /// # Errors
    /// [`Full`] with the message inside when the queue on the way is at its bound.
    ///
    /// # Cost
    /// A few nanoseconds: the message is moved into the run queue or the ring. No allocation
    /// for messages up to [`INLINE_BYTES_MAX`](crate::INLINE_BYTES_MAX) bytes, one for larger ones.
    #[inline(always)]
    pub fn try_tell(self) -> Result<(), Full<M>> {
        self.cx.core.tell::<E, M>(self.key, self.message)
    }

    /// Sends the message; the answer comes as a turn of its own, in which `then` runs with this
    /// entity. If the entity is gone by then, `then` is dropped and does not run.
    ///
    /// # Delivery
    /// `then` gets the reply, or an error that says whether the work may have been done: always
    /// one of the two, at the latest when the node's deadline for asks has passed.
    ///
    /// # Errors
    /// [`NotAsked`] with the message and `then` inside when a bound is reached.
    ///
    /// # Cost
    /// Two records. No allocation while `then` captures at most 24 bytes.
    #[inline]
    pub fn ask<F>(self, then: F) -> Result<(), NotAsked<M, F>>
    where
        F: FnOnce(&mut S, Result<M::Reply, AskError>, &mut Cx<'_, S>) + 'static,
    {
        let Cx { core, slot, generation, .. } = self.cx;
        let asker = Asker { slot: *slot, generation: *generation, then };
        let resume = (resume::<S, M::Reply, F> as Resume, When::InTurn);
        let deadline_ns = core.ask_deadline_ns();
        core.ask::<E, M, _>(self.key, self.message, asker, resume, deadline_ns)
            .map_err(|(message, asker)| NotAsked { message, then: asker.then })
    }
}

/// An ask that was not sent because a bound was reached.
///
/// # Examples
/// To treat it as an answer that never came, call what was to get the answer:
/// `(refused.then)(self, Err(AskError::NotSent), cx)`.
#[derive(Clone, Copy)]
pub struct NotAsked<M, F> {
    /// The message.
    pub message: M,
    /// What was to get the answer.
    pub then: F,
}

impl<M, F> std::fmt::Debug for NotAsked<M, F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NotAsked(a queue on the way to the entity is full)")
    }
}

/// Who asked, and what to do with the answer.
struct Asker<F> {
    slot: SlotNumber,
    generation: u32,
    then: F,
}

/// Runs the turn of one tell or ask.
///
/// # Safety
/// `at` is a record of message `M` to entity `E`, whose value is given up, and an ask if `ASK`;
/// `head` is its head; `store` is this shard's store of `E`.
pub(crate) unsafe fn run<const ASK: bool, E: Handler<M>, M: Message>(
    shard: &mut Shard,
    outside: &mut dyn Outside,
    at: *mut Word,
    head: Head,
    store: StoreId,
) {
    // SAFETY: the caller's contract; the number of key words is that of E.
    unsafe {
        if E::Key::WORDS == 1 {
            run_keyed::<1, ASK, E, M>(shard, outside, at, head, store);
        } else {
            run_keyed::<2, ASK, E, M>(shard, outside, at, head, store);
        }
    }
}

/// # Safety
/// As for [`run`], and `KEY_WORDS` is that of `E`.
#[inline(always)]
unsafe fn run_keyed<const KEY_WORDS: usize, const ASK: bool, E: Handler<M>, M: Message>(
    shard: &mut Shard,
    outside: &mut dyn Outside,
    at: *mut Word,
    head: Head,
    id: StoreId,
) {
    // SAFETY: the key follows the head.
    let key = unsafe { at.add(1).cast::<[u64; KEY_WORDS]>().read() };
    let token = ASK.then(|| {
        // SAFETY: in an ask the token follows the key.
        Token::from_bits(unsafe { at.add(1 + KEY_WORDS).cast::<u64>().read() })
    });
    // SAFETY: the value follows, and the record is given up. It is taken out before the handler
    // runs, which may make the queue grow and move.
    let message = unsafe { Payload::<M>::read(at.add(1 + KEY_WORDS + usize::from(ASK))) };

    // SAFETY: one step; no other reference to a store is alive.
    let store = unsafe { id.get() };
    let (slot, stop) = match store.by_hint(head.upper(), key).or_else(|| store.find(key)) {
        Some(slot) => (slot, false),
        None => match activate::<KEY_WORDS, E>(shard, id, key, token) {
            Some(activated) => activated,
            None => return shard.refuse(token, message),
        },
    };
    let place = store.slot::<KEY_WORDS, E>(slot);
    shard.current = Current::new(id, slot, token);
    let mut cx = Cx {
        core: &mut shard.core,
        // SAFETY: the slot is live, so its head is initialised.
        generation: unsafe { (*place).head.generation },
        key: E::Key::from_words(widen(key)),
        slot,
        token,
        message: head.message(),
        stop,
        entity: PhantomData,
    };
    // SAFETY: the state is initialised, and this turn is the only user: `cx` does not reach stores.
    let entity = unsafe { (*place).entity.assume_init_mut() };
    let answer = entity.handle(message, &mut cx);
    // Before the reply, which may run code of the asker's.
    if cx.stop {
        // SAFETY: one step, after the user's code.
        unsafe { id.get() }.remove(slot);
    }
    match token {
        Some(token) => {
            if let Some(reply) = answer.into_reply() {
                shard.reply::<M::Reply>(token, head.message(), reply, outside);
            }
        }
        None => drop(answer),
    }
    shard.current.clear();
}

/// Makes the state of `key`, which is not in memory; returns whether it wants to stop again after
/// its first turn. `None` when the store is full.
#[inline(never)]
fn activate<const KEY_WORDS: usize, E: Entity>(
    shard: &mut Shard,
    id: StoreId,
    key: [u64; KEY_WORDS],
    token: Option<Token>,
) -> Option<(SlotNumber, bool)> {
    // SAFETY: one step; no other reference to a store is alive.
    let store = unsafe { id.get() };
    let slot = store.claim(key).ok()?;
    let place = store.slot::<KEY_WORDS, E>(slot);
    shard.current = Current::activating(id, slot, token);
    // SAFETY: a claimed slot's head is initialised.
    let generation = unsafe { (*place).head.generation };
    let key = E::Key::from_words(widen(key));
    let mut cx = Cx {
        core: &mut shard.core,
        key,
        slot,
        generation,
        token: None,
        message: 0,
        stop: false,
        entity: PhantomData,
    };
    let entity = E::activate(key, &mut cx);
    let stop = cx.stop;
    // SAFETY: the slot was claimed for this state, and nothing was written there yet.
    unsafe { (*place).entity.write(entity) };
    // SAFETY: one step, after the user's code.
    let store = unsafe { id.get() };
    if store.settle::<KEY_WORDS>(slot).is_err() {
        // SAFETY: just written; not filed, so nobody else finds it.
        let entity = unsafe { (*place).entity.assume_init_read() };
        store.abandon::<KEY_WORDS>(slot);
        shard.current = Current::ANSWERING;
        drop(entity);
        shard.current.clear();
        return None;
    }
    shard.current.clear();
    shard.core.stats.activations += 1;
    Some((slot, stop))
}

/// Runs the turn in which an entity gets the answer to its ask.
///
/// # Safety
/// `captured` holds an [`Asker`] of this type, which is given up; a value in `outcome` is an `R`.
unsafe fn resume<S: Entity, R, F>(
    captured: *mut Word,
    outcome: Outcome,
    shard: &mut Shard,
    _outside: &mut dyn Outside,
) where
    F: FnOnce(&mut S, Result<R, AskError>, &mut Cx<'_, S>) + 'static,
{
    // SAFETY: the caller's contract.
    let Asker { slot, generation, then } = unsafe { Captured::<Asker<F>>::read(captured) };
    let answer = match outcome {
        // SAFETY: the caller's contract.
        Outcome::Value(at) => Ok(unsafe { Payload::<R>::read(at) }),
        Outcome::Error(error) => Err(error),
        Outcome::Forget => return,
    };
    let id = shard.stores[usize::from(shard.core.directory.entity::<S>())];
    // SAFETY: one step; no other reference to a store is alive.
    let store = unsafe { id.get() };
    if !store.is_live(slot) || store.generation(slot) != generation {
        shard.core.stats.answers_unclaimed += 1;
        return;
    }
    shard.current = Current::new(id, slot, None);
    let stop = if S::Key::WORDS == 1 {
        answer_in_turn(shard, store.slot::<1, S>(slot), slot, answer, then)
    } else {
        answer_in_turn(shard, store.slot::<2, S>(slot), slot, answer, then)
    };
    if stop {
        // SAFETY: one step, after the user's code.
        unsafe { id.get() }.remove(slot);
    }
    shard.current.clear();
}

/// Calls `then` with the live entity in `place`; returns whether the entity is to stop.
fn answer_in_turn<const KEY_WORDS: usize, S: Entity, R, F>(
    shard: &mut Shard,
    place: *mut Slot<KEY_WORDS, S>,
    slot: SlotNumber,
    answer: Result<R, AskError>,
    then: F,
) -> bool
where
    F: FnOnce(&mut S, Result<R, AskError>, &mut Cx<'_, S>) + 'static,
{
    // SAFETY: the slot is live, so its head is initialised.
    let head = unsafe { &(*place).head };
    let mut cx = Cx {
        core: &mut shard.core,
        generation: head.generation,
        key: S::Key::from_words(widen(head.key)),
        slot,
        token: None,
        message: 0,
        stop: false,
        entity: PhantomData,
    };
    // SAFETY: the state is initialised, and this turn is the only user.
    let entity = unsafe { (*place).entity.assume_init_mut() };
    then(entity, answer, &mut cx);
    cx.stop
}

#[inline(always)]
fn widen<const KEY_WORDS: usize>(key: [u64; KEY_WORDS]) -> [u64; 2] {
    [key[0], if KEY_WORDS == 2 { key[KEY_WORDS - 1] } else { 0 }]
}

/// The slot's address type, named once so that layout and turn agree.
const _: () = {
    assert!(std::mem::offset_of!(Slot<1, u64>, entity) == 16);
    assert!(std::mem::offset_of!(Slot<2, u64>, entity) == 24);
};

/// The key of a message as the words of its record.
#[inline(always)]
pub(crate) fn write_key<K: Key>(at: *mut Word, words: KeyWords) {
    if K::WORDS == 1 {
        // SAFETY: called for records with room for the key.
        unsafe { at.cast::<[u64; 1]>().write(narrow(words)) };
    } else {
        // SAFETY: as above.
        unsafe { at.cast::<[u64; 2]>().write(words) };
    }
}
