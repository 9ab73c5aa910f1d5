//! The part of a topic that lives on one shard: who has subscribed there.
//!
//! It watches its subscribers, which are of the same shard. So the end of one is known here before
//! anything that its next life sends, a new subscription included.

use super::hub::{Gone, Hub, LIFE};
use super::subscriber::Subscriber;
use super::topic::Published;
use crate::cx::Cx;
use crate::entity::{Address, Entity, Handler, Message, Via};
use crate::identity::EntityId;
use crate::key::Name;
use crate::life::Life;
use crate::registry::Registration;
use crate::sabotage::{Bug, planted};
use crate::supervise::Terminated;

/// The subscribers of a topic on one shard, at most [`Hub::SUBSCRIBERS_MAX`].
pub(crate) struct Relay<M> {
    subscribers: Vec<Subscriber<M>>,
    /// The hub, and for which shard this relay is there; known once there was a subscriber.
    hub: Option<(Name, u16)>,
}

/// A subscriber from here on.
pub(crate) struct Add<M> {
    pub(crate) subscriber: Subscriber<M>,
    pub(crate) hub: Name,
    pub(crate) shard: u16,
}

/// No longer.
pub(crate) struct Remove<M> {
    pub(crate) subscriber: Subscriber<M>,
}

/// For all subscribers.
pub(crate) struct Deliver<M>(pub(crate) M);

impl<M: Published> Message for Add<M> {
    type Reply = ();
}

impl<M: Published> Message for Remove<M> {
    type Reply = ();
}

impl<M: Published> Message for Deliver<M> {
    type Reply = ();
}

impl<M: Published> Entity for Relay<M> {
    type Key = Name;
    type Ref<V: Via> = Address<Self, V>;
    const NAME: &'static str = "Relay";
    const LIFE: Life = LIFE;

    fn full_name() -> &'static str {
        std::any::type_name::<Self>()
    }

    fn activate(_: Name, _: &mut Cx<'_, Self>) -> Self {
        Self { subscribers: Vec::new(), hub: None }
    }

    fn register(table: &mut Registration<'_, Self>) {
        table
            .message::<Deliver<M>>("deliver")
            .message::<Add<M>>("add")
            .message::<Remove<M>>("remove")
            .message::<Terminated>("terminated");
    }
}

impl<M: Published> Relay<M> {
    fn find(&self, entity: EntityId) -> Option<usize> {
        self.subscribers.iter().position(|subscriber| {
            let other = subscriber.entity();
            other.key == entity.key && other.kind == entity.kind
        })
    }

    fn remove(&mut self, at: usize, cx: &mut Cx<'_, Self>) {
        self.subscribers.swap_remove(at);
        self.report_gone(cx);
    }

    /// The hub has counted a subscriber that is none.
    fn report_gone(&self, cx: &mut Cx<'_, Self>) {
        if let Some((hub, shard)) = self.hub {
            cx.core.tell_surely::<Hub<M>, _>(hub, Gone { shard });
        }
    }

    /// A relay without subscribers has nothing to remember.
    fn stop_if_empty(&self, cx: &mut Cx<'_, Self>) {
        if self.subscribers.is_empty() {
            cx.stop();
        }
    }
}

impl<M: Published> Handler<Deliver<M>> for Relay<M> {
    type Answer = ();

    fn handle(&mut self, Deliver(message): Deliver<M>, cx: &mut Cx<'_, Self>) {
        let mut tell = |subscriber: &Subscriber<M>, message| {
            if !subscriber.tell(cx.core, message) {
                cx.core.stats.copies_refused += 1;
            }
        };
        if let Some((last, others)) = self.subscribers.split_last() {
            let others = others.iter().skip(usize::from(planted(Bug::CopyForgotten)));
            others.for_each(|subscriber| tell(subscriber, message.clone()));
            tell(last, message);
        }
        self.stop_if_empty(cx);
    }
}

impl<M: Published> Handler<Add<M>> for Relay<M> {
    type Answer = ();

    fn handle(&mut self, Add { subscriber, hub, shard }: Add<M>, cx: &mut Cx<'_, Self>) {
        self.hub = Some((hub, shard));
        let entity = subscriber.entity();
        // Of one that cannot be watched, nobody could say when it ends.
        if self.find(entity).is_some() || cx.watch_entity(entity).is_err() {
            self.report_gone(cx);
        } else {
            self.subscribers.push(subscriber);
        }
        self.stop_if_empty(cx);
    }
}

impl<M: Published> Handler<Remove<M>> for Relay<M> {
    type Answer = ();

    fn handle(&mut self, Remove { subscriber }: Remove<M>, cx: &mut Cx<'_, Self>) {
        let entity = subscriber.entity();
        if let Some(at) = self.find(entity) {
            cx.unwatch_entity(entity);
            self.remove(at, cx);
        }
        self.stop_if_empty(cx);
    }
}

impl<M: Published> Handler<Terminated> for Relay<M> {
    type Answer = ();

    fn handle(&mut self, ended: Terminated, cx: &mut Cx<'_, Self>) {
        if let Some(at) = self.find(ended.entity) {
            self.remove(at, cx);
        }
        self.stop_if_empty(cx);
    }
}
