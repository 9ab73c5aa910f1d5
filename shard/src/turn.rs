//! Turns: how a record meets its entity.
//!
//! [`run`] is the one dispatch path. It is compiled once per pair of entity and message type; the
//! message table holds its address. In order: find the entity (by the hint that looking ahead left
//! in the record, or by the index), take the message out of the record, call the handler, send the
//! reply. An entity that is not in memory, or not ready, takes the slow way (`admit`).
//!
//! # Ownership
//! During a turn the handler holds `&mut` to its entity, which lies in the store, and [`Cx`] holds
//! `&mut` to the shard's [`Core`](crate::core::Core), which is everything *but* the stores. So a
//! handler can tell, ask and reply, and cannot reach an entity, its own included, by any second
//! way.
//!
//! # Faults
//! The batch of turns that calls [`run`] is guarded against panics as a whole. `shard.current` says
//! whose turn it was, so that the guard can deal with that entity and answer its asker.
#![expect(unsafe_code, reason = "entities and messages are typed again behind the table")]

use std::marker::PhantomData;

use crate::condition::Stage;
use crate::cx::{After, Cx};
use crate::entity::{Answer, Entity, Handler, Message};
use crate::fault::{Current, NO_MESSAGE};
use crate::index::SlotNumber;
use crate::key::{Key, KeyWords};
use crate::owned_record::OwnedRecord;
use crate::pending::{Captured, Outcome, Outside, Taken};
use crate::record::{ASK_WORDS, Head, Payload, Word};
use crate::reply::{AskError, Token};
use crate::sabotage::{Bug, planted};
use crate::shard::Shard;
use crate::slot::Slot;
use crate::store::{Store, StoreId, narrow};

/// Who asked, and what to do with the answer.
pub(crate) struct Asker<F> {
    pub(crate) slot: SlotNumber,
    pub(crate) generation: u32,
    pub(crate) then: F,
}

/// Who asked for a shorter time than there was.
pub(crate) struct AskerWithin<F> {
    pub(crate) asker: Asker<F>,
    /// What follows the answer has this deadline.
    pub(crate) deadline_ns: u64,
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
    // SAFETY: the caller's contract.
    let (token, deadline_ns) = unsafe { asked::<KEY_WORDS, ASK>(at) };
    if ASK && deadline_ns <= shard.core.now.monotonic_ns && !planted(Bug::DoneTooLate) {
        // SAFETY: the caller's contract.
        return unsafe { shard.expire(at, head) };
    }
    // SAFETY: one step; no other reference to a store is alive.
    let store = unsafe { id.get() };
    let slot = match store.ready_by_hint(head.upper(), key) {
        Some(slot) => slot,
        None => match store.find_ready(key) {
            Some(slot) => slot,
            None => match store.find(key) {
                Some(slot) if E::READ && shard.may_read(id, slot) => slot,
                // SAFETY: the caller's contract.
                found => return unsafe { shard.admit(outside, at, head, id, found) },
            },
        },
    };
    // SAFETY: the value follows, and the record is given up. It is taken out before the handler
    // runs, which may make the queue grow and move.
    let message =
        unsafe { Payload::<M>::read(at.add(1 + KEY_WORDS + if ASK { ASK_WORDS } else { 0 })) };
    if M::TRIES > 1 {
        keep_spare::<E, M>(shard, widen(key), (token, deadline_ns), head.message(), &message);
    }
    // SAFETY: one step; where a read was looked into, the one above is over.
    let store = if E::READ { unsafe { id.get() } } else { store };
    let place = store.slot::<KEY_WORDS, E>(slot);
    shard.current = Current::new(id, slot, token, head.message());
    if E::READ {
        shard.core.reading = true;
    }
    let mut cx = Cx {
        core: &mut shard.core,
        // SAFETY: the slot is taken, so its head is initialised.
        generation: unsafe { (*place).head.generation },
        key: E::Key::from_words(widen(key)),
        store: id,
        slot,
        token,
        message: head.message(),
        after: 0,
        deadline_ns,
        entity: PhantomData,
    };
    // SAFETY: the state is initialised. Whoever else uses it only reads, as this turn does; or this
    // turn is the only user. `cx` does not reach stores.
    let answer = unsafe {
        match E::READ {
            true => (*place).entity.assume_init_ref().read(message, &mut cx),
            false => (*place).entity.assume_init_mut().handle(message, &mut cx),
        }
    };
    let after = cx.after;
    end_turn::<E, M>(shard, (id, slot, after), (token, head.message()), answer, outside);
}

/// Does what a turn asked for, then sends its answer.
#[inline(always)]
fn end_turn<E: Handler<M>, M: Message>(
    shard: &mut Shard,
    (id, slot, after): (StoreId, SlotNumber, u8),
    (token, number): (Option<Token>, u16),
    answer: E::Answer,
    outside: &mut dyn Outside,
) {
    if E::READ {
        shard.core.reading = false;
    }
    // Before the reply, which may run code of the asker's.
    if after != 0 && !shard.after_turn(id, slot, after, (token, number), outside) {
        drop(answer);
        return shard.current.clear();
    }
    if M::TRIES > 1 {
        shard.core.spare = None;
    }
    match token {
        Some(token) => {
            if let Some(reply) = answer.into_reply() {
                shard.reply::<M::Reply>(token, number, reply, outside);
            }
        }
        None => drop(answer),
    }
    shard.current.clear();
}

/// Who waits for the answer of the record at `at`, and until when.
///
/// # Safety
/// A record for an entity with keys of so many words stands there, an ask if `ASK`.
#[inline(always)]
unsafe fn asked<const KEY_WORDS: usize, const ASK: bool>(at: *const Word) -> (Option<Token>, u64) {
    if !ASK {
        return (None, u64::MAX);
    }
    // SAFETY: in an ask the token follows the key, and the deadline the token.
    let [token, deadline_ns] = unsafe { at.add(1 + KEY_WORDS).cast::<[u64; ASK_WORDS]>().read() };
    (Some(Token::from_bits(token)), deadline_ns)
}

/// Keeps a copy of a message that may be tried again.
fn keep_spare<E: Handler<M>, M: Message>(
    shard: &mut Shard,
    key: KeyWords,
    (token, deadline_ns): (Option<Token>, u64),
    number: u16,
    message: &M,
) {
    shard.current = Current::answering(token);
    let Some(copy) = message.duplicate() else { return };
    let record = OwnedRecord::tell::<E, M>(&shard.table, number, E::Key::from_words(key), copy);
    let record = match token {
        Some(token) => record.into_ask(token, deadline_ns),
        None => record,
    };
    shard.core.spare = Some((record, M::TRIES));
}

/// What a type's own code is called for, beside messages.
#[derive(Clone, Copy)]
pub(crate) struct Hooks {
    /// Makes the state.
    pub(crate) activate: unsafe fn(&mut Shard, StoreId, SlotNumber) -> u8,
    /// The last turn before the entity is put away.
    pub(crate) on_passivate: unsafe fn(&mut Shard, StoreId, SlotNumber) -> u8,
    /// The last turn before it stops.
    pub(crate) on_stop: unsafe fn(&mut Shard, StoreId, SlotNumber) -> u8,
}

impl Hooks {
    pub(crate) const fn of<E: Entity>() -> Self {
        Self {
            activate: activate::<E>,
            on_passivate: last_turn::<E, true>,
            on_stop: last_turn::<E, false>,
        }
    }
}

/// Makes the state for a slot in stage `Activating`, or begins to. Returns what is to be done
/// behind it ([`After`]); the stage says whether the state is there.
///
/// # Safety
/// The store is that of `E`, and nothing else uses the slot's state.
unsafe fn activate<E: Entity>(shard: &mut Shard, id: StoreId, slot: SlotNumber) -> u8 {
    // SAFETY: one step.
    let store = unsafe { id.get() };
    let (key, generation) = (E::Key::from_words(store.key(slot)), store.generation(slot));
    let state = store.state(slot).cast::<E>();
    let owner = crate::schedule::Owner { kind: store.number(), slot, generation };
    if let Some(future) = E::activate_async(key, crate::async_cx::AsyncCx::new(key, owner)) {
        if shard.core.begin_activation(future, owner) {
            return After::RUN;
        }
        shard.core.failure = Some("too many async turns are under way".to_owned());
        return After::FAIL;
    }
    let mut cx = plain_cx::<E>(shard, key, (id, slot, generation), u64::MAX);
    let entity = E::activate(key, &mut cx);
    let after = cx.after;
    // SAFETY: the slot is for this state, and nothing was written there yet.
    unsafe { state.write(entity) };
    // SAFETY: one step, after the user's code.
    unsafe { id.get() }.set_stage(slot, Stage::Live);
    shard.core.stats.activations += 1;
    after
}

/// Lets a live entity say goodbye.
///
/// # Safety
/// The store is that of `E`, and the slot's state is initialised and free to be used.
unsafe fn last_turn<E: Entity, const PASSIVATE: bool>(
    shard: &mut Shard,
    id: StoreId,
    slot: SlotNumber,
) -> u8 {
    // SAFETY: one step.
    let store = unsafe { id.get() };
    let (key, generation) = (E::Key::from_words(store.key(slot)), store.generation(slot));
    // SAFETY: the caller's contract.
    let entity = unsafe { &mut *store.state(slot).cast::<E>() };
    let mut cx = plain_cx::<E>(shard, key, (id, slot, generation), u64::MAX);
    if PASSIVATE {
        entity.on_passivate(&mut cx);
    } else {
        entity.on_stop(&mut cx);
    }
    cx.after
}

/// The context of a turn in which no message is handled.
#[inline(always)]
fn plain_cx<E: Entity>(
    shard: &mut Shard,
    key: E::Key,
    (store, slot, generation): (StoreId, SlotNumber, u32),
    deadline_ns: u64,
) -> Cx<'_, E> {
    Cx {
        core: &mut shard.core,
        key,
        store,
        slot,
        generation,
        token: None,
        message: NO_MESSAGE,
        after: 0,
        deadline_ns,
        entity: PhantomData,
    }
}

/// Runs the turn in which an entity gets the answer to its ask.
///
/// # Safety
/// An [`Asker`] of this type was captured, which is given up; a value in `outcome` is an `R`.
pub(crate) unsafe fn resume<S: Entity, R: 'static, F>(
    taken: &mut Taken,
    outcome: Outcome,
    shard: &mut Shard,
    outside: &mut dyn Outside,
) where
    F: FnOnce(&mut S, Result<R, AskError>, &mut Cx<'_, S>) + 'static,
{
    // SAFETY: the caller's contract.
    let asker = unsafe { Captured::<Asker<F>>::read(taken.captured.as_ptr()) };
    let (kind, deadline_ns) = (taken.by.kind(), taken.deadline_to_inherit_ns());
    // SAFETY: the caller's contract.
    unsafe { resume_asker::<S, R, F>((kind, asker), deadline_ns, outcome, shard, outside) };
}

/// Like [`resume`], for an ask that had less time than its turn.
///
/// # Safety
/// As for [`resume`], with an [`AskerWithin`].
pub(crate) unsafe fn resume_within<S: Entity, R: 'static, F>(
    taken: &mut Taken,
    outcome: Outcome,
    shard: &mut Shard,
    outside: &mut dyn Outside,
) where
    F: FnOnce(&mut S, Result<R, AskError>, &mut Cx<'_, S>) + 'static,
{
    // SAFETY: the caller's contract.
    let AskerWithin { asker, deadline_ns } =
        unsafe { Captured::<AskerWithin<F>>::read(taken.captured.as_ptr()) };
    let kind = taken.by.kind();
    // SAFETY: the caller's contract.
    unsafe { resume_asker::<S, R, F>((kind, asker), deadline_ns, outcome, shard, outside) };
}

/// # Safety
/// `kind` is the number of `S`; a value in `outcome` is an `R`, which is given up.
#[inline(always)]
unsafe fn resume_asker<S: Entity, R: 'static, F>(
    (kind, asker): (u16, Asker<F>),
    deadline_ns: u64,
    outcome: Outcome,
    shard: &mut Shard,
    outside: &mut dyn Outside,
) where
    F: FnOnce(&mut S, Result<R, AskError>, &mut Cx<'_, S>) + 'static,
{
    let answer = match outcome {
        // SAFETY: the caller's contract.
        Outcome::Value(at) => Ok(unsafe { Payload::<R>::read(at) }),
        Outcome::Error(error) => Err(error),
        Outcome::Forget => return,
    };
    let Asker { slot, generation, then } = asker;
    let id = shard.stores[usize::from(kind)];
    // SAFETY: one step; no other reference to a store is alive.
    let store = unsafe { id.get() };
    let ready = if S::Key::WORDS == 1 {
        store.is_ready_in::<1>(slot, generation)
    } else {
        store.is_ready_in::<2>(slot, generation)
    };
    let life = (id, slot, generation);
    if ready || store.make_ready(slot, generation) {
        return answer_in_turn(shard, life, answer, then, deadline_ns, outside);
    }
    answer_when_ready(shard, life, answer, then, deadline_ns, outside);
}

/// Has an entity get an answer once it is free to be used; it may be gone.
#[cold]
#[inline(never)]
fn answer_when_ready<S: Entity, R: 'static, F>(
    shard: &mut Shard,
    (id, slot, generation): (StoreId, SlotNumber, u32),
    answer: Result<R, AskError>,
    then: F,
    deadline_ns: u64,
    outside: &mut dyn Outside,
) where
    F: FnOnce(&mut S, Result<R, AskError>, &mut Cx<'_, S>) + 'static,
{
    // SAFETY: one step.
    if !unsafe { id.get() }.is_alive(slot, generation) {
        shard.core.stats.answers_unclaimed += 1;
        shard.current = Current::ANSWERING;
        drop((answer, then));
        return shard.current.clear();
    }
    let turn = move |shard: &mut Shard, outside: &mut dyn Outside| {
        answer_in_turn(shard, (id, slot, generation), answer, then, deadline_ns, outside);
    };
    shard.turn_or_stash(id, (slot, generation), true, outside, turn);
}

/// Calls `then` with a live entity that is free to be used.
#[inline(always)]
fn answer_in_turn<S: Entity, R: 'static, F>(
    shard: &mut Shard,
    (id, slot, generation): (StoreId, SlotNumber, u32),
    answer: Result<R, AskError>,
    then: F,
    deadline_ns: u64,
    outside: &mut dyn Outside,
) where
    F: FnOnce(&mut S, Result<R, AskError>, &mut Cx<'_, S>) + 'static,
{
    shard.current = Current::new(id, slot, None, NO_MESSAGE);
    // SAFETY: one step.
    let store = unsafe { id.get() };
    // SAFETY: the slot is taken, so its head is initialised; `S` says how long the key is.
    let (key, entity) = unsafe {
        if S::Key::WORDS == 1 {
            state_of::<1, S>(store, slot)
        } else {
            state_of::<2, S>(store, slot)
        }
    };
    let mut cx = plain_cx::<S>(shard, key, (id, slot, generation), deadline_ns);
    // SAFETY: the state is initialised, and this turn is the only user.
    then(unsafe { &mut *entity }, answer, &mut cx);
    let after = cx.after;
    if after != 0 {
        shard.after_turn(id, slot, after, (None, NO_MESSAGE), outside);
    }
    shard.current.clear();
}

/// The key in a slot, and where its state is.
///
/// # Safety
/// The slot is taken, in the store of `E`, and `KEY_WORDS` is that of `E`.
#[inline(always)]
unsafe fn state_of<const KEY_WORDS: usize, E: Entity>(
    store: &Store,
    slot: SlotNumber,
) -> (E::Key, *mut E) {
    let place = store.slot::<KEY_WORDS, E>(slot);
    // SAFETY: the caller's contract.
    let (key, entity) = unsafe { ((*place).head.key, (&raw mut (*place).entity).cast::<E>()) };
    (E::Key::from_words(widen(key)), entity)
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
