//! Everybody but the entity under test: what is sent to them is taken here instead of being run.
//!
//! The shard is the production one. Only its copy of the message table differs: each message leads
//! to [`intercept`], which runs the turn that the table names if the record is for the entity under
//! test, and keeps the record otherwise. System records are diverted where they are done.
#![expect(unsafe_code, reason = "records are taken out of their queue, and typed again")]

use std::collections::VecDeque;
use std::slice;

use crate::entity::{Handler, Message};
use crate::identity::EntityId;
use crate::key::KeyWords;
use crate::owned_record::OwnedRecord;
use crate::pending::Outside;
use crate::record::{Head, Kind, Payload, Word};
use crate::shard::Shard;
use crate::store::StoreId;
use crate::supervise::End;
use crate::system::{Place, System};
use crate::ties::Holder;

/// What was sent to anybody but the entity under test.
pub(crate) struct Others {
    own: EntityId,
    /// Tells and asks that the kit has not looked at, in order.
    pub(crate) arrived: Vec<OwnedRecord>,
    /// Whom it watches, and who is told.
    pub(crate) watched: Vec<(EntityId, Holder)>,
    /// Whom it started, and who is told of their faults.
    pub(crate) started: Vec<(EntityId, Holder)>,
    /// Who was told to stop since it was last started.
    pub(crate) stopped: Vec<EntityId>,
    /// Who was restarted because one that it is bound to failed.
    pub(crate) restarted: Vec<EntityId>,
    /// How lives of the entity under test ended that the kit watched.
    pub(crate) ends: VecDeque<End>,
}

impl Others {
    pub(crate) fn new(own: EntityId) -> Self {
        Self {
            own,
            arrived: Vec::new(),
            watched: Vec::new(),
            started: Vec::new(),
            stopped: Vec::new(),
            restarted: Vec::new(),
            ends: VecDeque::new(),
        }
    }

    fn is_own(&self, kind: u16, key: KeyWords) -> bool {
        self.own.kind == kind && self.own.key == key
    }

    /// Takes note of a system record to somebody else.
    fn note(&mut self, record: System) {
        match record {
            System::Start { entity, supervisor } => {
                self.stopped.retain(|other| *other != entity);
                put(&mut self.started, entity, supervisor);
            }
            System::Stop { entity, .. } | System::StopChild { entity, .. } => {
                self.stopped.push(entity);
            }
            System::Restart { entity, .. } => self.restarted.push(entity),
            System::Watch { entity, watcher } => put(&mut self.watched, entity, watcher),
            System::Unwatch { entity, .. } => self.watched.retain(|(other, _)| *other != entity),
            System::TellEnded { end, .. } => self.ends.push_back(end),
            System::ChildEnded { .. }
            | System::ChildFailed { .. }
            | System::TellFault { .. }
            | System::Escalated { .. }
            | System::Probe(_) => {}
        }
    }
}

/// An entity has one entry: the newest.
fn put(list: &mut Vec<(EntityId, Holder)>, entity: EntityId, holder: Holder) {
    match list.iter_mut().find(|(other, _)| *other == entity) {
        Some((_, known)) => *known = holder,
        None => list.push((entity, holder)),
    }
}

impl Shard {
    /// Has everything that is not for `own` taken instead of run.
    pub(crate) fn keep_others_out(&mut self, own: EntityId) {
        for row in &mut self.rows {
            (row.run_tell, row.run_ask) = (intercept, intercept);
        }
        self.others = Some(Box::new(Others::new(own)));
    }

    /// Gives a system record back unless it is for somebody else than the entity under test.
    pub(crate) fn divert(&mut self, record: System) -> Option<System> {
        let Some(others) = &mut self.others else { return Some(record) };
        match record.place() {
            Place::Of(entity) if !others.is_own(entity.kind, entity.key) => {
                others.note(record);
                None
            }
            _ => Some(record),
        }
    }
}

/// Takes the place of a message's turn.
///
/// # Safety
/// A tell or ask of this shard's table stands at `at`, and is given up; `head` is its head, and
/// `store` this shard's store of its entity.
unsafe fn intercept(
    shard: &mut Shard,
    outside: &mut dyn Outside,
    at: *mut Word,
    head: Head,
    store: StoreId,
) {
    // SAFETY: the caller's contract.
    let words = unsafe { slice::from_raw_parts(at, head.words()) };
    // SAFETY: the caller's contract.
    let record = unsafe { OwnedRecord::take(words, &shard.table) };
    let row = shard.table.rows[usize::from(head.message())];
    match &mut shard.others {
        Some(others) if !others.is_own(row.store, record.key()) => others.arrived.push(record),
        _ => {
            let run = if head.kind() == Kind::Tell { row.run_tell } else { row.run_ask };
            let mut words = record.release();
            // SAFETY: the record is whole, of the message that its number names, and given up.
            unsafe { run(shard, outside, words.as_mut_ptr(), head, store) };
        }
    }
}

impl OwnedRecord {
    /// The message, if it is an `M` to an `E`.
    pub(crate) fn message<E: Handler<M>, M: Message>(&self) -> Option<&M> {
        // SAFETY: the number says that the value is an M, and the record owns it.
        self.is::<E, M>().then(|| unsafe { Payload::<M>::peek(self.value().as_ptr()) })
    }

    /// Takes the message out, if it is an `M` to an `E`.
    pub(crate) fn into_message<E: Handler<M>, M: Message>(self) -> Result<M, Self> {
        if !self.is::<E, M>() {
            return Err(self);
        }
        // SAFETY: the number says that the value is an M. It is read once: what is left of the
        // record is given away as words.
        let message = unsafe { Payload::<M>::read(self.value().as_ptr()) };
        self.release();
        Ok(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cx::Cx;
    use crate::entity::{Address, Entity, Via};
    use crate::registry::{Registration, Registry};
    use crate::reply::Token;
    use std::sync::Arc;

    struct Sink;

    /// Counts how many there are.
    struct Witness {
        _alive: Arc<()>,
        number: u64,
    }

    impl Message for Witness {
        type Reply = ();
    }

    /// The same above the inline limit.
    struct Large {
        witness: Witness,
        _padding: [u64; 20],
    }

    impl Message for Large {
        type Reply = ();
    }

    impl Entity for Sink {
        type Key = u128;
        type Ref<V: Via> = Address<Self, V>;
        const NAME: &'static str = "sink";

        fn activate(_key: u128, _cx: &mut Cx<'_, Self>) -> Self {
            Self
        }

        fn register(table: &mut Registration<'_, Self>) {
            table.message::<Witness>("witness").message::<Large>("large");
        }
    }

    impl Handler<Witness> for Sink {
        type Answer = ();

        fn handle(&mut self, _: Witness, _: &mut Cx<'_, Self>) {}
    }

    impl Handler<Large> for Sink {
        type Answer = ();

        fn handle(&mut self, _: Large, _: &mut Cx<'_, Self>) {}
    }

    #[test]
    fn message_is_taken_out_of_its_record_once() {
        let mut registry = Registry::new();
        registry.entity::<Sink>();
        let table = registry.build().expect("one name");
        let alive = Arc::new(());
        let witness = || Witness { _alive: Arc::clone(&alive), number: 7 };
        for deadline_ns in [None, Some(99)] {
            let asked = |record: OwnedRecord| match deadline_ns {
                Some(at) => record.into_ask(Token::new(0, 1, 1), at),
                None => record,
            };
            let small = asked(OwnedRecord::tell::<Sink, Witness>(&table, 0, 5, witness()));
            assert_eq!(small.deadline_ns(), deadline_ns);
            assert_eq!(small.message::<Sink, Witness>().map(|seen| seen.number), Some(7));
            let small = small.into_message::<Sink, Large>().err().expect("of the other type");
            assert_eq!(
                small.into_message::<Sink, Witness>().ok().map(|taken| taken.number),
                Some(7)
            );
            let large = Large { witness: witness(), _padding: [3; 20] };
            let large = asked(OwnedRecord::tell::<Sink, Large>(&table, 1, 5, large));
            assert_eq!(large.deadline_ns(), deadline_ns);
            assert!(
                large.into_message::<Sink, Large>().is_ok_and(|taken| taken.witness.number == 7)
            );
            drop(asked(OwnedRecord::tell::<Sink, Witness>(&table, 0, 5, witness())));
            assert_eq!(Arc::strong_count(&alive), 1);
        }
    }
}
