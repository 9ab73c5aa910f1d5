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
mod admit;
#[cfg(not(loom))]
mod async_cx;
#[cfg(not(loom))]
mod attached;
#[cfg(not(loom))]
mod call;
#[cfg(not(loom))]
mod commands;
#[cfg(not(loom))]
mod condition;
#[cfg(not(loom))]
mod config;
#[cfg(not(loom))]
mod core;
#[cfg(not(loom))]
mod cx;
#[cfg(not(loom))]
mod cycle;
#[cfg(not(loom))]
mod dead_letter;
#[cfg(not(loom))]
mod drain;
#[cfg(not(loom))]
mod entered;
#[cfg(not(loom))]
mod entity;
#[cfg(not(loom))]
mod fault;
#[cfg(not(loom))]
mod future_slab;
#[cfg(not(loom))]
mod group;
#[cfg(not(loom))]
mod heat;
#[cfg(not(loom))]
mod identity;
#[cfg(not(loom))]
mod index;
#[cfg(not(loom))]
mod inspect;
#[cfg(not(loom))]
mod key;
#[cfg(not(loom))]
pub mod kit;
#[cfg(not(loom))]
mod lease;
#[cfg(not(loom))]
mod life;
#[cfg(not(loom))]
mod look_ahead;
#[cfg(not(loom))]
mod own_timers;
#[cfg(not(loom))]
mod owned_record;
#[cfg(not(loom))]
mod pages;
#[cfg(not(loom))]
mod passivate;
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
mod run;
#[cfg(all(not(loom), not(sabotage)))]
mod sabotage;
#[cfg(all(not(loom), sabotage))]
pub mod sabotage;
#[cfg(not(loom))]
mod sampler;
#[cfg(not(loom))]
mod schedule;
#[cfg(not(loom))]
mod shard;
#[cfg(not(loom))]
mod slot;
#[cfg(not(loom))]
mod slot_map;
#[cfg(not(loom))]
mod stash;
#[cfg(not(loom))]
mod store;
#[cfg(not(loom))]
mod supervise;
#[cfg(not(loom))]
mod sweep;
#[cfg(not(loom))]
mod system;
#[cfg(not(loom))]
mod table;
#[cfg(not(loom))]
mod task;
#[cfg(not(loom))]
mod ties;
#[cfg(not(loom))]
mod timer;
#[cfg(not(loom))]
mod turn;
#[cfg(not(loom))]
mod value;
#[cfg(not(loom))]
mod view;
#[cfg(not(loom))]
mod watch_point;
#[cfg(not(loom))]
mod wire;

pub use doorbell::Doorbell;
pub use record::{INLINE_BYTES_MAX, Word};
pub use ring::{Consumer, Producer, RingFull, ring};
pub use room::{Refused, Room};

/// The archives' own crate, for the code of `#[wire]`.
#[doc(hidden)]
pub use rkyv;

#[cfg(not(loom))]
pub use {
    self::core::{Full, Wake},
    async_cx::{Activating, Asking, AsyncCall, AsyncCx, Sleep},
    call::{Call, NotAsked},
    commands::{CommandId, CommandRow, Commands, Each},
    config::{LookAhead, MeshEnd, Now, PARTITIONS, Placement, Progress, ShardConfig, Stats, mesh},
    cx::Cx,
    dead_letter::{DeadLetter, Reason},
    entity::{Address, Answer, Entity, Fallible, Handler, Later, Message, Via},
    group::{
        Broadcast, Group, Hub, PoolKeys, Publish, Published, Single, Subscribe, Topic, Unsubscribe,
    },
    heat::Hot,
    identity::EntityId,
    inspect::Heat,
    key::{HashKey, Key, KeyWords, Name},
    lease::{Body, Lease, Lender, SharedBytes},
    life::{Backoff, Children, Life, OnFault},
    pending::{Outside, Ticket},
    registry::{Command, Registration, Registry, RegistryError},
    reply::{AskError, Cycle, ReplyTo},
    request::CallError,
    schedule::Timer,
    shard::Shard,
    supervise::{End, Fault, Terminated},
    sweep::{Sweep, Visit},
    table::Table,
    value::{Args, ArgumentError, FromArguments, Span, ToValue, ValueWriter, parse_integer},
    view::{Archived, View, ViewHandler, Viewable, look, unarchived},
    watch_point::{Serial, TurnSeen, WatchPoint, What},
    wire::{
        Decode, Encode, Evolve, Previous, Scratch, ShapeField, Shapes, Unconvertible, WireCall,
        WireError, WireRow, WireType, message_id, schema,
    },
};
