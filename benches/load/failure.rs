//! Why a run ends without a result.

use std::io;
use std::net::SocketAddr;

use crate::native::handshake::HandshakeError;
use crate::session::Nonsense;

/// A failure of the target or of the machine; each is one line and exit code 2.
#[derive(Debug)]
#[non_exhaustive]
pub(crate) enum Failure {
    /// The kernel refused the ring or its memory.
    Ring(io::Error),
    /// A thread could not be confined to its core.
    Pin { core: usize, error: io::Error },
    /// Nobody answers at this address.
    Connect { target: SocketAddr, error: io::Error },
    /// The target closed a connection.
    Closed { session: usize },
    /// A connection broke.
    Broken { session: usize, error: io::Error },
    /// The target does not speak the protocol.
    Nonsense { session: usize, error: Nonsense },
    /// The target speaks it, but not about this.
    Handshake { target: SocketAddr, error: HandshakeError },
    /// No reply has come for the time-out.
    Silent { outstanding: u64, quiet_ns: u64 },
    /// Populating met error replies.
    Refused { count: u64, text: String },
    /// Another thread failed first and says why.
    Elsewhere,
    /// A report could not be written.
    Write { path: std::path::PathBuf, error: io::Error },
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ring(error) => write!(f, "io_uring does not work here: {error}"),
            Self::Pin { core, error } => write!(f, "cannot run on core {core}: {error}"),
            Self::Connect { target, error } => write!(f, "cannot connect to {target}: {error}"),
            Self::Closed { session } => {
                write!(f, "the target closed connection {session} during the run")
            }
            Self::Broken { session, error } => write!(f, "connection {session} broke: {error}"),
            Self::Nonsense { session, error } => write!(f, "connection {session}: {error}"),
            Self::Handshake { target, error } => write!(f, "{target}: {error}"),
            Self::Silent { outstanding, quiet_ns } => write!(
                f,
                "the target has not answered for {:.1} s, with {outstanding} requests outstanding",
                *quiet_ns as f64 / 1e9
            ),
            Self::Refused { count, text } => {
                write!(f, "populating met {count} error replies, the first being: {text}")
            }
            Self::Elsewhere => write!(f, "another load thread failed"),
            Self::Write { path, error } => write!(f, "cannot write {}: {error}", path.display()),
        }
    }
}

impl std::error::Error for Failure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Ring(error)
            | Self::Pin { error, .. }
            | Self::Connect { error, .. }
            | Self::Broken { error, .. }
            | Self::Write { error, .. } => Some(error),
            _ => None,
        }
    }
}
