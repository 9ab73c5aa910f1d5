//! What is wrong with certificates, or with a peer.

use std::path::PathBuf;
use std::{fmt, io};

/// Why there is no TLS.
#[derive(Debug)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read.
    File(PathBuf, io::Error),
    /// A file does not hold, in PEM, what it is there for.
    Content(PathBuf),
    /// The name by which the peer is to be known is none.
    Name(String),
    /// Certificates and key do not go together, or the peer broke off or was refused.
    Rustls(rustls::Error),
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path, error) => write!(f, "cannot read {}: {error}", path.display()),
            Self::Content(path) => write!(
                f,
                "{} does not hold what it should: a certificate (chain) or a private key, in PEM",
                path.display()
            ),
            Self::Name(name) => write!(f, "'{name}' is no name of a server"),
            Self::Rustls(error) => write!(f, "TLS: {error}"),
        }
    }
}

impl std::error::Error for TlsError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::File(_, error) => Some(error),
            Self::Rustls(error) => Some(error),
            Self::Content(_) | Self::Name(_) => None,
        }
    }
}

impl From<rustls::Error> for TlsError {
    fn from(error: rustls::Error) -> Self {
        Self::Rustls(error)
    }
}
