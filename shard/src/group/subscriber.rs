//! Who gets what is published: an entity of any type that handles the message.
#![expect(unsafe_code, reason = "records are written in place as raw words")]

use std::marker::PhantomData;

use crate::core::Core;
use crate::entity::{Handler, Message};
use crate::identity::{EntityId, Recipient};
use crate::key::{Key, KeyWords};
use crate::table::Directory;

/// An entity that handles `M`, without its own type.
///
/// # Invariants
/// The number of the message is that of `M` to entities of this kind: the only way to make one
/// names the entity's type.
pub(crate) struct Subscriber<M> {
    to: Recipient,
    message: PhantomData<fn(M)>,
}

/// Names a subscriber by its key, on the shard that wants to know.
pub(crate) type Resolve<M> = fn(&Directory, KeyWords) -> Subscriber<M>;

impl<M> Clone for Subscriber<M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M> Copy for Subscriber<M> {}

impl<M: Message> Subscriber<M> {
    /// The entity of type `E` with this key.
    ///
    /// # Panics
    /// When `E` is not registered with messages `M`.
    pub(crate) fn new<E: Handler<M>>(directory: &Directory, key: KeyWords) -> Self {
        let entity = EntityId::of::<E>(directory.entity::<E>(), E::Key::from_words(key));
        let to = Recipient { entity, message: directory.message::<E, M>() };
        Self { to, message: PhantomData }
    }

    pub(crate) fn entity(&self) -> EntityId {
        self.to.entity
    }

    /// Sends it a message, if the queue on the way has room.
    pub(crate) fn tell(&self, core: &mut Core, message: M) -> bool {
        let words = self.to.tell_words::<M>();
        let home = usize::from(core.home(self.to.entity));
        let room = match core.peers.get_mut(home) {
            Some(Some(peer)) => peer.reserve(words),
            _ => core.queue.reserve(words),
        };
        let Some(at) = room else { return false };
        // SAFETY: as many words were reserved, and the message is the one of the number.
        unsafe { self.to.write_tell(at, message) };
        true
    }
}

impl Core {
    /// The shard where an entity lives.
    pub(crate) fn home(&self, entity: EntityId) -> u16 {
        let hash = if entity.wide {
            self.hash_key.hash_two(entity.key)
        } else {
            self.hash_key.hash_one(entity.key[0])
        };
        self.placement.shard(hash)
    }

    /// Sends a message of the runtime's own, beyond the bounds of the queues on the way: the
    /// number of such messages is bounded by what they tell of.
    pub(crate) fn tell_surely<E: Handler<M>, M: Message>(&mut self, key: E::Key, message: M) {
        let kind = self.directory.entity::<E>();
        let to = Recipient {
            entity: EntityId::of::<E>(kind, key),
            message: self.directory.message::<E, M>(),
        };
        let words = to.tell_words::<M>();
        let at = self.reserve_answer(self.home(to.entity), words);
        // SAFETY: as many words were reserved, and the message is the one of the number.
        unsafe { to.write_tell(at, message) };
    }
}
