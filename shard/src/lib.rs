//! Everything that one thread of a Coreside node owns.
//!
//! A *shard* holds entities, runs their turns, and exchanges records with other shards. It knows no
//! thread, clock, socket, file, random source or executor: what it needs is passed in. The crate
//! `coreside` puts shards on real cores and is what a service depends on; this one is for those
//! who drive shards themselves, and for benchmarks.
//!
//! Reading order: `record` (what a message is on its way), `ring` and `queue` (the way), `turn`
//! (where it meets its entity), `store` (where the entity lives), `shard` (what joins them).

#![cfg_attr(
    test,
    allow(clippy::disallowed_methods, reason = "tests may use threads, clocks and std's maps")
)]
#![cfg_attr(loom, allow(dead_code, reason = "loom's build has only what two threads share"))]

// Shared by two threads: all that loom's build has.
mod doorbell;
mod record;
mod ring;
mod room;
mod sync;

// Owned by one.
#[cfg(not(loom))]
mod commands;
#[cfg(not(loom))]
mod config;
#[cfg(not(loom))]
mod core;
#[cfg(not(loom))]
mod entity;
#[cfg(not(loom))]
mod fault;
#[cfg(not(loom))]
mod index;
#[cfg(not(loom))]
mod key;
#[cfg(not(loom))]
mod look_ahead;
#[cfg(not(loom))]
mod pages;
#[cfg(not(loom))]
mod peer;
#[cfg(not(loom))]
mod pending;
#[cfg(not(loom))]
mod prefetch;
#[cfg(not(loom))]
mod queue;
#[cfg(not(loom))]
mod registry;
#[cfg(not(loom))]
mod reply;
#[cfg(not(loom))]
mod request;
#[cfg(not(loom))]
mod shard;
#[cfg(not(loom))]
mod store;
#[cfg(not(loom))]
mod sweep;
#[cfg(not(loom))]
mod table;
#[cfg(not(loom))]
mod turn;
#[cfg(not(loom))]
mod value;
#[cfg(not(loom))]
mod watch_point;

pub use doorbell::Doorbell;
pub use record::{INLINE_BYTES_MAX, Word};
pub use ring::{Consumer, Producer, RingFull, ring};
pub use room::{Refused, Room};

#[cfg(not(loom))]
pub use {
    self::core::{Full, Wake},
    commands::{CommandId, CommandRow, Commands, Each},
    config::{LookAhead, MeshEnd, Now, PARTITIONS, Placement, Progress, ShardConfig, Stats, mesh},
    entity::{Address, Answer, Entity, Handler, Later, Message, Via},
    key::{HashKey, Key, KeyWords, Name},
    pending::{Outside, Ticket},
    registry::{Command, Registration, Registry, RegistryError},
    reply::{AskError, ReplyTo},
    request::CallError,
    shard::Shard,
    sweep::{Sweep, Visit},
    table::Table,
    turn::{Call, Cx, NotAsked},
    value::{Args, ArgumentError, FromArguments, Span, ToValue, ValueWriter, parse_integer},
    watch_point::{Serial, TurnSeen, WatchPoint, What},
};
