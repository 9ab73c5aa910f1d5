//! RESP2 and RESP3, the protocol of Redis clients, as state machines without I/O.
//!
//! Bytes go in ([`Sessions::receive`]), requests go to a shard ([`Intake`]), answers come back in
//! any order ([`Sessions`] is the shard's [`Outside`](coreside_shard::Outside)), and bytes come out
//! in the order of the commands ([`begin_send`](crate::sessions::Sessions::begin_send)).
//!
//! | module | holds |
//! |---|---|
//! | `limits` | every bound of a session, with its default |
//! | `intake` | what a session needs of its shard |
//! | `parse` | bytes to commands, in place |
//! | `write` | values to bytes |
//! | `order` | replies that come out of order leave in order |
//! | `gather` | one command over many keys: many answers become one |
//! | `session` | one connection |
//! | `underway` | a message under way, as its ticket names it |
//! | `builtin` | the commands that the session itself answers |

mod limits;

mod builtin;
mod gather;
mod intake;
mod order;
mod parse;
mod session;
mod underway;
mod write;

pub use self::builtin::Facts;
pub use self::intake::{Entry, Intake};
pub use self::limits::Limits;
pub use self::session::Session;

/// The RESP sessions of one shard.
pub type Sessions = crate::sessions::Sessions<Session>;
