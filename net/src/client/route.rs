//! Which connection a message takes, by the key of its entity.

use std::sync::Arc;

use coreside_shard::{HashKey, Key, Placement};

use super::connection::Connection;

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
