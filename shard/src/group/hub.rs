//! The entity behind a topic: it gives each message its place in the order, and passes it to every
//! shard that has subscribers.
//!
//! On each of those lives a [`Relay`], which knows the subscribers there. The hub knows how many
//! they are: it counts one up when it sends a subscriber on, and the relay reports each that is
//! gone, or was none. So the count is never too low, and a shard whose count is 0 is forgotten.

use std::fmt;
use std::marker::PhantomData;

use super::relay::{Add, Deliver, Relay, Remove};
use super::subscriber::{Resolve, Subscriber};
use super::topic::Published;
use crate::config::PARTITIONS;
use crate::core::Core;
use crate::cx::Cx;
use crate::entity::{Address, Entity, Handler, Message, Via};
use crate::key::{Key, KeyWords, Name};
use crate::life::{Life, OnFault};
use crate::registry::Registration;

/// The entity behind a topic; its key is the topic's name. [`Topic`](crate::Topic) has its calls.
pub struct Hub<M> {
    /// At most one per shard.
    lines: Vec<Line>,
    message: PhantomData<fn(M)>,
}

/// The way to the subscribers of one shard.
struct Line {
    shard: u16,
    relay: Name,
    subscribers: u32,
}

/// The life of hubs and relays. What a fault (of the message's own code) leaves is whole, and
/// nobody else knows who has subscribed; so they stay.
pub(crate) const LIFE: Life = Life { on_fault: OnFault::Resume, keep_alive: true, ..Life::DEFAULT };

/// A message for all subscribers of a topic. The answer is for how many it is on its way.
#[derive(Clone, Debug)]
pub struct Publish<M>(pub M);

impl<M: Published> Message for Publish<M> {
    type Reply = u64;
}

/// Has an entity get what is published. The answer is whether there was room.
pub struct Subscribe<M> {
    pub(crate) key: KeyWords,
    pub(crate) resolve: Resolve<M>,
}

/// Takes a subscription back.
pub struct Unsubscribe<M> {
    pub(crate) key: KeyWords,
    pub(crate) resolve: Resolve<M>,
}

/// A relay has a subscriber less than the hub counts.
pub(crate) struct Gone {
    pub(crate) shard: u16,
}

impl<M> Subscribe<M> {
    pub(crate) fn new(key: KeyWords, resolve: Resolve<M>) -> Self {
        Self { key, resolve }
    }
}

impl<M> Unsubscribe<M> {
    pub(crate) fn new(key: KeyWords, resolve: Resolve<M>) -> Self {
        Self { key, resolve }
    }
}

impl<M> fmt::Debug for Subscribe<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscribe").field("key", &self.key).finish_non_exhaustive()
    }
}

impl<M> fmt::Debug for Unsubscribe<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unsubscribe").field("key", &self.key).finish_non_exhaustive()
    }
}

impl<M: Published> Message for Subscribe<M> {
    type Reply = bool;
}

impl<M: Published> Message for Unsubscribe<M> {
    type Reply = ();
}

impl Message for Gone {
    type Reply = ();
}

impl<M: Published> Entity for Hub<M> {
    type Key = Name;
    type Ref<V: Via> = Address<Self, V>;
    const NAME: &'static str = "Hub";
    const LIFE: Life = LIFE;

    fn full_name() -> &'static str {
        std::any::type_name::<Self>()
    }

    fn activate(_: Name, _: &mut Cx<'_, Self>) -> Self {
        Self { lines: Vec::new(), message: PhantomData }
    }

    fn register(table: &mut Registration<'_, Self>) {
        table
            .message::<Publish<M>>("publish")
            .message::<Subscribe<M>>("subscribe")
            .message::<Unsubscribe<M>>("unsubscribe")
            .message::<Gone>("gone");
    }
}

impl<M: Published> Hub<M> {
    /// Subscribers that a topic may have on one shard: a message to them all is one turn of some
    /// ten nanoseconds for each.
    pub const SUBSCRIBERS_MAX: u32 = 4096;

    /// A hub without subscribers has nothing to remember.
    fn stop_if_empty(&self, cx: &mut Cx<'_, Self>) {
        if self.lines.is_empty() {
            cx.stop();
        }
    }

    /// The way to the relay of a shard, made where there is none.
    fn line(&mut self, shard: u16, cx: &Cx<'_, Self>) -> &mut Line {
        let at = match self.lines.iter().position(|line| line.shard == shard) {
            Some(at) => at,
            None => {
                let relay = relay_key(cx.key, shard, cx.core);
                self.lines.push(Line { shard, relay, subscribers: 0 });
                self.lines.len() - 1
            }
        };
        &mut self.lines[at]
    }
}

impl<M: Published> Handler<Publish<M>> for Hub<M> {
    type Answer = u64;

    fn handle(&mut self, Publish(message): Publish<M>, cx: &mut Cx<'_, Self>) -> u64 {
        let mut told = 0;
        let mut tell = |line: &Line, message| {
            let subscribers = u64::from(line.subscribers);
            match cx.core.tell::<Relay<M>, _>(line.relay, Deliver(message)) {
                Ok(()) => told += subscribers,
                Err(_) => cx.core.stats.copies_refused += subscribers,
            }
        };
        if let Some((last, others)) = self.lines.split_last() {
            others.iter().for_each(|line| tell(line, message.clone()));
            tell(last, message);
        }
        self.stop_if_empty(cx);
        told
    }
}

impl<M: Published> Handler<Subscribe<M>> for Hub<M> {
    type Answer = bool;

    fn handle(&mut self, subscribe: Subscribe<M>, cx: &mut Cx<'_, Self>) -> bool {
        let subscriber: Subscriber<M> = (subscribe.resolve)(&cx.core.directory, subscribe.key);
        let shard = cx.core.home(subscriber.entity());
        let line = self.line(shard, cx);
        if line.subscribers >= Self::SUBSCRIBERS_MAX {
            cx.core.stats.subscriptions_refused += 1;
            return false;
        }
        line.subscribers += 1;
        let hub = cx.key;
        cx.core.tell_surely::<Relay<M>, _>(line.relay, Add { subscriber, hub, shard });
        true
    }
}

impl<M: Published> Handler<Unsubscribe<M>> for Hub<M> {
    type Answer = ();

    fn handle(&mut self, unsubscribe: Unsubscribe<M>, cx: &mut Cx<'_, Self>) {
        let subscriber = (unsubscribe.resolve)(&cx.core.directory, unsubscribe.key);
        let shard = cx.core.home(subscriber.entity());
        if let Some(line) = self.lines.iter().find(|line| line.shard == shard)
            && cx.core.tell::<Relay<M>, _>(line.relay, Remove { subscriber }).is_err()
        {
            // There is no bound to how often one is taken back.
            cx.fail("the queue on the way to the subscriber is full");
        }
        self.stop_if_empty(cx);
    }
}

impl<M: Published> Handler<Gone> for Hub<M> {
    type Answer = ();

    fn handle(&mut self, Gone { shard }: Gone, cx: &mut Cx<'_, Self>) {
        if let Some(line) = self.lines.iter_mut().find(|line| line.shard == shard) {
            line.subscribers = line.subscribers.saturating_sub(1);
        }
        self.lines.retain(|line| line.subscribers > 0);
        self.stop_if_empty(cx);
    }
}

/// Keys that are looked at for a relay. Its shard has subscribers, so it has one partition of 4,096
/// at least; then all of these miss it once in ten million.
const TRIES: u64 = 16 * PARTITIONS as u64;

/// A key for the topic's relay on `shard`: near the topic's own, and one that placement puts there.
fn relay_key(topic: Name, shard: u16, core: &Core) -> Name {
    let [first, second] = topic.to_words();
    let near = |number: u64| [first ^ number, second];
    let is_there = |words: &KeyWords| core.placement.shard(core.hash_key.hash_two(*words)) == shard;
    let found = (1..=TRIES).map(near).find(is_there);
    // A relay that is elsewhere works as well, and costs its subscribers the way.
    Name::from_words(found.unwrap_or(near(TRIES + 1 + u64::from(shard))))
}
