//! A thread-per-core runtime for stateful entities.

extern crate self as coreside;

pub use coreside_macros::{entity, handlers};
pub use coreside_shard::{
    Address, Answer, Args, ArgumentError, AskError, Call, Command, Cx, Each, Entity,
    FromArguments, Full, Handler, HashKey, INLINE_BYTES_MAX, Key, KeyWords, Later, LookAhead,
    Message, Name, Registration, RegistryError, ReplyTo, Sweep, ToValue, ValueWriter, Via, Visit,
    parse_integer,
};
