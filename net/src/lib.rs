//! The sockets of one Coreside shard: RESP and native sessions, and the transport.
//!
//! | module | holds |
//! |---|---|
//! | [`client`] | calling entities of a node from another program |
//! | [`native`] | the native protocol: frames of archives, likewise |
//! | [`resp`] | the protocol of Redis clients, as state machines without I/O |
//! | [`sessions`] | connections without sockets, whatever they speak |
//! | [`tls`] | TLS between the bytes of a socket and a session |
//! | `transport` | sockets on an io_uring ring of the shard's own, or on epoll |

pub mod client;
pub mod native;
pub mod resp;
pub mod sessions;
pub mod tls;

mod transport;

pub use self::resp::{Facts, Limits};
pub use self::transport::{
    Calibration, DriverKind, Listeners, Moving, Net, NetConfig, NetError, NetStats, SendCost,
    SendStats, UringFeatures, ZeroCopy, listen, uring_features,
};
