//! Topics, pools and instances that always run, as the entity under test meets them: the test plays
//! the hubs and the members.

use crate::entity::Entity;
use crate::group::{Hub, Publish, Published, Resolve, Subscribe, Unsubscribe};
use crate::key::{Key, Name};
use crate::kit::{Builder, HASH_KEY, Kit};

impl<E: Entity> Builder<E> {
    /// Makes [topics](crate::Topic) of messages `M` known. What the entity sends there is for
    /// [`published`](Kit::published) and [`is_subscribed`](Kit::is_subscribed); what others publish
    /// the test [tells](Kit::tell) the entity.
    ///
    /// Unless [`when`](Kit::when) says otherwise, who asks to subscribe is told that there was
    /// room, and who asks to publish that nobody has subscribed.
    pub fn topic<M: Published>(mut self) -> Self {
        self.registry.topic::<M>();
        self.stubs.push(|kit| {
            kit.when::<Hub<M>, Publish<M>>(|_, _| Ok(0));
            kit.when::<Hub<M>, Subscribe<M>>(|_, _| Ok(true));
            kit.when::<Hub<M>, Unsubscribe<M>>(|_, _| Ok(()));
        });
        self
    }

    /// Makes a pool of `T` known, with the members 0 to `count` (exclusive). None of them ever
    /// runs.
    ///
    /// # Panics
    /// When `count` is 0.
    pub fn pool<T: Entity<Key = u64>>(mut self, count: u32) -> Self {
        self.registry.pool::<T>(count);
        self
    }

    /// Has the entity always run, as a singleton or worker does: from the start, restarted for ever
    /// after faults, and begun again when it stops.
    pub fn always_running(mut self) -> Self {
        self.registry.row_of::<E>().life.keep_alive = true;
        self.always_running = true;
        self
    }
}

impl<E: Entity> Kit<E> {
    /// Takes everything that the entity published on the topic `name` and that the test has not
    /// taken yet, in order.
    ///
    /// # Panics
    /// When the kit does not know topics of `M`: see [`Builder::topic`].
    #[track_caller]
    pub fn published<M: Published>(&mut self, name: impl AsRef<[u8]>) -> Vec<M> {
        let topic = Name::new(name, &HASH_KEY);
        let sent = self.sent_to::<Hub<M>, Publish<M>>(|key| key == topic);
        sent.into_iter().map(|sent| sent.message.0).collect()
    }

    /// Whether the entity is in memory, and the last that it said to the topic `name` about its own
    /// subscription is that it wants one; among what the test has not taken by
    /// [`sent`](Kit::sent). That an end took the subscription with it, the test has to know.
    ///
    /// # Panics
    /// When the kit does not know topics of `M`: see [`Builder::topic`].
    #[track_caller]
    pub fn is_subscribed<M: Published>(&self, name: impl AsRef<[u8]>) -> bool {
        let _known = self.number::<Hub<M>, Subscribe<M>>();
        let topic = Name::new(name, &HASH_KEY).to_words();
        let directory = &self.shard.core.directory;
        let is_own = |resolve: Resolve<M>, key| resolve(directory, key).entity() == self.own;
        let mut said = self.letters.iter().rev().map(|letter| &letter.record);
        let wanted = said.find_map(|record| {
            if record.key() != topic {
                None
            } else if let Some(said) = record.message::<Hub<M>, Subscribe<M>>() {
                is_own(said.resolve, said.key).then_some(true)
            } else {
                let said = record.message::<Hub<M>, Unsubscribe<M>>()?;
                is_own(said.resolve, said.key).then_some(false)
            }
        });
        wanted == Some(true) && self.shard.locate(self.own).is_some()
    }
}
