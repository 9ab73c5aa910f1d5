//! The native protocol: frames with archives, between programs that know the same message types.
//!
//! `PROTOCOL.md` in this package says what the bytes are, for clients in other languages.
//!
//! Bytes go in ([`Sessions::receive`](crate::sessions::Sessions::receive)), messages go to a shard
//! ([`Intake`]), straight from the receive buffer; answers come back in any order and leave in that
//! order, each written once, into the buffer that is sent.
//!
//! | module | holds |
//! |---|---|
//! | `limits` | every bound of a session, with its default |
//! | `intake` | what a session needs of its shard |
//! | `frame` | the frames, written and read |
//! | `hello` | the handshake |
//! | `credit` | what one connection may have under way |
//! | `session` | one connection |

pub mod frame;

pub(crate) mod credit;
mod hello;
mod intake;
mod limits;
mod session;

pub use self::hello::{Facts, Hello, HelloError, Standing, Welcome};
pub use self::intake::Intake;
pub use self::limits::Limits;
pub use self::session::Session;

/// The native sessions of one shard.
pub type Sessions = crate::sessions::Sessions<Session>;
