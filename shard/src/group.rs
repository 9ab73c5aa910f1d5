//! Groups of entities that services need, all of them made of entities and messages.
//!
//! | what | to whom a message goes | begun by |
//! |---|---|---|
//! | [`Topic`] | everybody who has subscribed, of any type | [`Registry::topic`] |
//! | [`Group`], [`Cx::broadcast`] | a set of keys of one type | nothing |
//! | singleton | the one instance of its type | [`Registry::singleton`] |
//! | pool | an instance on the caller's own shard, in turn | [`Registry::pool`] |
//! | workers | instances 0 to n, always running | [`Registry::workers`] |
//!
//! There is no router by consistent hash: a key is one. Entities of one type with keys that are
//! made of whatever is to be spread (a customer, a symbol, `hash % n`) are spread over all shards,
//! and the same key always finds the same entity.
//!
//! # Cost
//! Who uses none of this pays nothing for it: no turn and no record looks at a group.
//!
//! [`Cx::broadcast`]: crate::Cx::broadcast
//! [`Registry::topic`]: crate::Registry::topic
//! [`Registry::singleton`]: crate::Registry::singleton
//! [`Registry::pool`]: crate::Registry::pool
//! [`Registry::workers`]: crate::Registry::workers

mod broadcast;
mod hub;
mod kept;
mod pool;
mod relay;
mod single;
mod subscriber;
mod topic;

pub use broadcast::{Broadcast, Group};
pub use hub::{Hub, Publish, Subscribe, Unsubscribe};
pub(crate) use kept::Instances;
pub use pool::PoolKeys;
pub(crate) use pool::Pools;
pub use single::Single;
pub(crate) use subscriber::Resolve;
pub use topic::{Published, Topic};
