//! The sockets of a shard, on an io_uring ring of its own.
//!
//! | module | holds |
//! |---|---|
//! | `listen` | listening sockets, one per shard on one port |
//! | `net` | [`Net`]: completions in, requests to the shard; answers out, in one system call |
//! | `accept` | taking connections, also when descriptors run out |
//! | `port` | one protocol's connections |
//! | `socket` | what the kernel does for one connection, and how that ends |
//! | `ring` | the submission and completion queues |
//! | `buffers` | memory that the kernel receives into |
//! | `error` | why there is no net |

mod listen;

mod net;

mod accept;
mod buffers;
mod error;
mod port;
mod ring;
mod socket;

pub use self::error::NetError;
pub use self::listen::listen;
pub use self::net::{Listeners, Net, NetConfig, NetStats};
pub use self::port::Moving;
