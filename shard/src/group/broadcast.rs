//! One message to many entities of one type.

use std::collections::BTreeSet;
use std::marker::PhantomData;

use crate::core::Full;
use crate::cx::Cx;
use crate::entity::{Entity, Handler, Message};
use crate::key::{Key, KeyWords};

/// What became of a broadcast.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "who was full did not get the message"]
pub struct Broadcast<K> {
    /// To how many the message is on its way.
    pub told: usize,
    /// Who does not get it, because a queue on the way was full; in the order of the broadcast.
    pub full: Vec<K>,
}

impl<K: Copy> Broadcast<K> {
    /// Gives a clone of `message` to `tell` for each key, the last time the message itself.
    #[doc(hidden)]
    pub fn of<M: Clone>(
        keys: impl IntoIterator<Item = K>,
        message: M,
        mut tell: impl FnMut(K, M) -> bool,
    ) -> Self {
        let mut outcome = Self { told: 0, full: Vec::new() };
        let mut add = |key, told| match told {
            true => outcome.told += 1,
            false => outcome.full.push(key),
        };
        let mut keys = keys.into_iter();
        let Some(mut last) = keys.next() else { return outcome };
        for key in keys {
            let told = tell(last, message.clone());
            add(last, told);
            last = key;
        }
        let told = tell(last, message);
        add(last, told);
        outcome
    }
}

impl<E: Entity> Cx<'_, E> {
    /// Tells each of these entities a clone of `message`.
    ///
    /// # Delivery
    /// As for one tell each: in the order sent, exactly once while the entity lives; a full queue
    /// on the way to one is in nobody else's way.
    ///
    /// # Cost
    /// A clone and a record for each.
    pub fn broadcast<T, M>(
        &mut self,
        keys: impl IntoIterator<Item = T::Key>,
        message: M,
    ) -> Broadcast<T::Key>
    where
        T: Handler<M>,
        M: Message + Clone,
    {
        let tell = |key, message| self.core.tell::<T, M>(key, message).is_ok();
        Broadcast::of(keys, message, tell)
    }
}

/// A set of entities of one type, by key, that an entity keeps to tell them all something.
///
/// It knows nothing of their lives: whoever keeps one [watches](Cx::watch) its members and takes
/// out who ends, if that is wanted.
///
/// # Examples
/// ```ignore
/// // Runs as runtime/tests/node/groups.rs.
/// fn join(&mut self, player: u64, cx: &mut Cx<Self>) -> bool {
///     let added = self.players.add(player).unwrap_or(false);
///     added && cx.watch::<Player>(player).is_ok()
/// }
///
/// fn say(&mut self, text: String, cx: &mut Cx<Self>) {
///     let _whoever_is_too_busy_misses_it = self.players.broadcast(cx, Said(text));
/// }
/// ```
pub struct Group<E> {
    keys: BTreeSet<KeyWords>,
    max: usize,
    entity: PhantomData<fn(E)>,
}

impl<E: Entity> Group<E> {
    /// Members of a group that is made by `Default`.
    pub const MEMBERS_MAX: usize = 65_536;

    /// An empty group of at most `max` members.
    pub fn new(max: usize) -> Self {
        Self { keys: BTreeSet::new(), max, entity: PhantomData }
    }

    /// Adds a member. Returns whether it was none yet.
    ///
    /// # Errors
    /// [`Full`] with the key when there are as many members as may be.
    pub fn add(&mut self, key: E::Key) -> Result<bool, Full<E::Key>> {
        let words = key.to_words();
        if self.keys.len() >= self.max && !self.keys.contains(&words) {
            return Err(Full(key));
        }
        Ok(self.keys.insert(words))
    }

    /// Takes a member out. Returns whether it was one.
    pub fn remove(&mut self, key: E::Key) -> bool {
        self.keys.remove(&key.to_words())
    }

    /// Whether this is a member.
    pub fn contains(&self, key: E::Key) -> bool {
        self.keys.contains(&key.to_words())
    }

    /// Members.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is no member.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The members, in an order that depends on nothing but who they are.
    pub fn keys(&self) -> impl Iterator<Item = E::Key> {
        self.keys.iter().map(|words| E::Key::from_words(*words))
    }

    /// Tells each member a clone of `message` (see [`Cx::broadcast`]).
    pub fn broadcast<S, M>(&self, cx: &mut Cx<'_, S>, message: M) -> Broadcast<E::Key>
    where
        S: Entity,
        E: Handler<M>,
        M: Message + Clone,
    {
        cx.broadcast::<E, M>(self.keys(), message)
    }
}

impl<E: Entity> Default for Group<E> {
    fn default() -> Self {
        Self::new(Self::MEMBERS_MAX)
    }
}

impl<E> Clone for Group<E> {
    fn clone(&self) -> Self {
        Self { keys: self.keys.clone(), max: self.max, entity: PhantomData }
    }
}

impl<E> std::fmt::Debug for Group<E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Group").field("members", &self.keys.len()).finish_non_exhaustive()
    }
}
