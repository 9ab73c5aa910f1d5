//! A thread-per-core runtime for stateful entities.
//!
//! *Entities* hold state in memory, millions of them on one node. Each belongs to one *shard*, a
//! thread on a core of its own, and handles one message at a time. Shards share nothing and talk
//! over lock-free rings. An entity is addressed by type and key, whether or not it is in memory;
//! the first message activates it. A handler that panics takes its entity down and nothing else.
//!
//! ```
//! use coreside::{Node, entity, handlers};
//!
//! #[entity]
//! struct Account {
//!     balance: i64,
//! }
//!
//! #[handlers]
//! impl Account {
//!     fn deposit(&mut self, amount: i64) -> i64 {
//!         self.balance += amount;
//!         self.balance
//!     }
//! }
//!
//! let node = Node::builder().entity::<Account>().shards(2).start()?;
//! assert_eq!(node.entity::<Account>(42).deposit(10).wait(), Ok(10));
//! assert_eq!(node.entity::<Account>(42).deposit(5).wait(), Ok(15));
//! # Ok::<(), coreside::NodeError>(())
//! ```
//!
//! The same entities answer Redis clients: give the builder an address to [`listen`] on, and
//! `ACCOUNT.DEPOSIT 42 10` calls the handler.
//!
//! [`listen`]: NodeBuilder::listen

extern crate self as coreside;

mod clock;
mod driver;
mod group;
mod handle;
mod ingress;
mod node;
#[cfg(feature = "cli")]
mod options;
mod park;
mod signals;
mod stopping;
mod topology;

pub use coreside_macros::{entity, handlers};
pub use coreside_net::{Limits, NetConfig, NetError};
pub use coreside_shard::{
    Activating, Address, Answer, Args, ArgumentError, AskError, Asking, AsyncCall, AsyncCx,
    Backoff, Broadcast, Call, Children, Command, Cx, Cycle, DeadLetter, Each, End, Entity,
    EntityId, Fallible, Fault, FromArguments, Full, Group, Handler, HashKey, Hub, INLINE_BYTES_MAX,
    Key, KeyWords, Later, Life, LookAhead, Message, Name, NotAsked, OnFault, Publish, Published,
    Reason, Registration, RegistryError, ReplyTo, Single, Sleep, Span, Subscribe, Sweep,
    Terminated, Timer, ToValue, Topic, Unsubscribe, ValueWriter, Via, Visit, parse_integer,
};
pub use handle::{Handle, NodeStats, Request};
pub use node::{Idle, Node, NodeBuilder, NodeError};
#[cfg(feature = "cli")]
pub use options::NodeOptions;

/// The README's code, compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
