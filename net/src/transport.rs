//! The sockets of a shard, on an io_uring ring of its own, or on epoll where there is none.
//!
//! | module | holds |
//! |---|---|
//! | `listen` | listening sockets, one per shard on one port |
//! | `net` | [`Net`]: completions in, requests to the shard; answers out, in one system call |
//! | `accept` | taking connections, also when descriptors run out |
//! | `port` | one protocol's connections |
//! | `socket` | what the kernel does for one connection, and how that ends |
//! | `linger` | connections that are over, until their peers have everything |
//! | `engine` | what carries out the operations: one of the two that follow |
//! | `ring` | the submission and completion queues of io_uring |
//! | `epoll` | calls that do not wait, when epoll says that there is something to do |
//! | `buffers` | memory that the kernel receives into |
//! | `zero_copy` | when outputs are sent without a copy |
//! | `features` | what of io_uring is here, found out by trying |
//! | `calibrate` | what it costs to send with and without a copy, measured |
//! | `error` | why there is no net |

mod listen;

mod net;

mod accept;
mod buffers;
mod calibrate;
mod engine;
mod epoll;
mod error;
mod features;
mod linger;
mod port;
mod ring;
mod socket;
mod zero_copy;

pub use self::calibrate::{Calibration, SendCost};
pub use self::engine::DriverKind;
pub use self::error::NetError;
pub use self::features::{UringFeatures, uring_features};
pub use self::listen::listen;
pub use self::net::{Listeners, Net, NetConfig, NetStats};
pub use self::port::Moving;
pub use self::zero_copy::{SendStats, ZeroCopy};
