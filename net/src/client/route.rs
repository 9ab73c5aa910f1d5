//! Which connection a message takes, by the key of its entity.

use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use coreside_shard::{HashKey, Key, Placement};

use super::connection::Connection;
use crate::native::Welcome;

/// The route of a client as it is now: read for each message, renewed by the client's thread alone,
/// or before there is one.
#[derive(Default)]
pub(super) struct Router(ArcSwap<Route>);

/// The connections to a node, and how keys are spread over them. A node that is started anew may
/// have another one; whoever has looked at this one goes on with it.
#[derive(Default)]
pub(super) struct Route {
    /// `None` where the node does not tell.
    pub(super) spread: Option<Spread>,
    /// One to each shard, in their order, or one to any. There are never fewer in another route.
    pub(super) lanes: Box<[Arc<Connection>]>,
}

/// How keys are spread over the shards of a node.
#[derive(Clone)]
pub(super) struct Spread {
    pub(super) hash_key: HashKey,
    pub(super) shards: u16,
    pub(super) placement: Placement,
}

impl Router {
    /// To be let go of soon.
    pub(super) fn route(&self) -> Guard<Arc<Route>> {
        self.0.load()
    }

    /// A node may come back with another hash key, or another number of shards.
    pub(super) fn renew(&self, welcome: &Welcome) {
        let Welcome { hash_key: Some(hash_key), shards: shards @ 1.., .. } = *welcome else {
            return;
        };
        let Route { spread, lanes } = &**self.route();
        let is_known = |spread: &Spread| (spread.hash_key, spread.shards) == (hash_key, shards);
        if !spread.as_ref().is_some_and(is_known) {
            let spread = Some(Spread { hash_key, shards, placement: Placement::even(shards) });
            self.0.store(Arc::new(Route { spread, lanes: lanes.clone() }));
        }
    }

    /// From here on there are these connections.
    pub(super) fn set_lanes(&self, lanes: Box<[Arc<Connection>]>) {
        let spread = self.route().spread.clone();
        self.0.store(Arc::new(Route { spread, lanes }));
    }
}

impl Route {
    /// The connections to try for a key, each with its number: that to its shard, then the others,
    /// which cost the message a way between shards.
    pub(super) fn lanes<K: Key>(&self, key: K) -> impl Iterator<Item = (usize, &Connection)> {
        let shard = |spread: &Spread| spread.placement.shard(spread.hash_key.hash(key));
        let shard = usize::from(self.spread.as_ref().map_or(0, shard));
        // There may be more shards than connections.
        let len = self.lanes.len();
        let first = if shard < len { shard } else { shard % len.max(1) };
        (first..len).chain(0..first).map(|number| (number, &*self.lanes[number]))
    }

    /// The connection of this number, which another route has, too.
    pub(super) fn lane(&self, number: usize) -> &Connection {
        &self.lanes[number]
    }
}
