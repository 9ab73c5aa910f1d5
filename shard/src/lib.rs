//! Everything that one thread of a Coreside node owns.
//!
//! A *shard* holds entities, runs their turns, and exchanges records with other shards. It knows no
//! thread, clock, socket, file, random source or executor: what it needs is passed in. The crate
//! `coreside` puts shards on real cores and is what a service depends on; this one is for those
//! who drive shards themselves, and for benchmarks.
//!
//! Reading order: a [message's way](record) through the [ring] or the queue to its [turn](Cx), the
//! store that the turn finds its entity in, and the [shard](Shard) that joins them.

mod commands;
mod config;
mod core;
mod doorbell;
mod entity;
mod index;
mod key;
mod pages;
mod peer;
mod pending;
mod queue;
mod record;
mod registry;
mod reply;
mod ring;
mod shard;
mod store;
mod sweep;
mod sync;
mod table;
mod turn;
mod value;

pub use commands::{CommandId, CommandRow, Commands, Each};
pub use config::{
    LookAhead, MeshEnd, Now, PARTITIONS, Placement, Progress, ShardConfig, Stats, mesh,
};
pub use doorbell::Doorbell;
pub use entity::{Address, Answer, Entity, Handler, Later, Message, Via};
pub use key::{HashKey, Key, KeyWords, Name};
pub use pending::{Outside, Ticket};
pub use record::{INLINE_BYTES_MAX, Word};
pub use registry::{Command, Registration, Registry, RegistryError};
pub use reply::{AskError, ReplyTo};
pub use ring::{Consumer, Producer, RingFull, ring};
pub use shard::{CallError, Full, Shard, Wake};
pub use sweep::{Sweep, Visit};
pub use table::Table;
pub use turn::{Call, Cx, NotAsked};
pub use value::{Args, ArgumentError, FromArguments, Span, ToValue, ValueWriter, parse_integer};
