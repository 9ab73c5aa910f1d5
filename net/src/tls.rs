//! TLS 1.3 between the bytes of a socket and a session.
//!
//! Only version 1.3 is spoken. No session is resumed and no early data is taken: connections live
//! long, and what does not exist cannot be replayed.
//!
//! | module | holds |
//! |---|---|
//! | `error` | what is wrong with certificates, or with a peer |
//! | `files` | certificates and keys, as files hold them |
//! | `server` | what the connections of a node are secured with, renewed when its files change |
//! | `client` | what a client secures its connection with |
//! | `rights` | who may call what, by the names in certificates |
//! | `channel` | one connection: takes TLS off what comes, and puts it on what goes |

mod channel;
mod client;
mod error;
mod files;
mod rights;
mod server;

pub(crate) use self::channel::{Channel, Opened};
pub use self::client::ClientTls;
pub use self::error::TlsError;
pub(crate) use self::rights::Rights;
pub use self::server::{Renewal, ServerTls, TlsConfig};
