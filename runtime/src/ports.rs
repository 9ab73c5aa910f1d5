//! Where a node listens: a port for Redis clients, and one for native clients.
//!
//! # Invariants
//! - Nothing listens beyond loopback in plain text unless somebody has said that it may.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, io};

use coreside_net::tls::{ServerTls, TlsConfig, TlsError};
use coreside_net::{Listeners, listen, native};
use coreside_shard::HashKey;

use crate::node::{NodeBuilder, NodeError};

/// The addresses to listen on, and what those are told who come.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ports {
    resp: Option<SocketAddr>,
    native: Option<SocketAddr>,
    cluster: u128,
    hides_hash_key: bool,
    /// Plain text may leave the machine.
    insecure_plaintext: bool,
    tls: Option<TlsConfig>,
}

/// How often the files of TLS are looked at.
const LOOK_AT_FILES: Duration = Duration::from_secs(5);

/// The sockets of all shards, and where they are.
#[derive(Debug, Default)]
pub(crate) struct Open {
    /// One for each shard.
    pub(crate) listeners: Vec<Listeners>,
    pub(crate) resp: Option<SocketAddr>,
    pub(crate) native: Option<SocketAddr>,
}

impl Ports {
    /// What native clients are told by a shard.
    pub(crate) fn facts(&self, (shard, shards): (u16, u16), hash_key: HashKey) -> native::Facts {
        let hash_key = (!self.hides_hash_key).then_some(hash_key);
        native::Facts { shard, shards, cluster: self.cluster, hash_key }
    }

    /// Listens for this number of shards.
    pub(crate) fn open(&mut self, shards: usize) -> Result<Open, NodeError> {
        self.check()?;
        let tls = self.load_tls()?;
        let (mut resp, mut native) = (sockets(self.resp, shards)?, sockets(self.native, shards)?);
        let address = |sockets: &[TcpListener]| sockets.first()?.local_addr().ok();
        let mut open = Open { resp: address(&resp), native: address(&native), ..Open::default() };
        open.listeners.resize_with(shards, || Listeners {
            resp: resp.pop(),
            native: native.pop(),
            tls: tls.clone(),
        });
        Ok(open)
    }

    /// Refuses to speak plain text with other machines, before any socket is made.
    fn check(&self) -> Result<(), NodeError> {
        let exposed = [self.resp, self.native].into_iter().flatten().find(is_exposed);
        match exposed {
            Some(address) if self.tls.is_none() && !self.insecure_plaintext => {
                let why = io::Error::new(io::ErrorKind::PermissionDenied, PlainTextRefused);
                Err(NodeError::Listen(address, why))
            }
            _ => Ok(()),
        }
    }

    /// Reads the certificates, if any are asked for, and goes on looking whether they change.
    fn load_tls(&mut self) -> Result<Option<Arc<ServerTls>>, NodeError> {
        let (Some(address), Some(config)) = (self.resp.or(self.native), self.tls.take()) else {
            return Ok(None);
        };
        let refused = |error: TlsError| NodeError::Listen(address, io::Error::other(error));
        let tls = ServerTls::load(config).map_err(refused)?;
        let report = |renewed: Result<(), TlsError>| match renewed {
            Ok(()) => eprintln!("coreside: new certificates are in use"),
            Err(error) => eprintln!("coreside: the certificates stay as they are: {error}"),
        };
        tls.keep_fresh(LOOK_AT_FILES, report).map_err(NodeError::System)?;
        Ok(Some(tls))
    }
}

/// Whether other machines may reach a socket that is bound to `address`.
fn is_exposed(address: &SocketAddr) -> bool {
    !address.ip().to_canonical().is_loopback()
}

/// Whoever is on the way could read and change everything.
#[derive(Debug)]
struct PlainTextRefused;

impl fmt::Display for PlainTextRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "other machines can reach it, and it would speak plain text with them; give the node \
             a certificate with `NodeBuilder::tls` (`--tls-cert`, `--tls-key`), or listen on \
             127.0.0.1 or [::1], or, on a network where you trust everybody, allow it by \
             `NodeBuilder::insecure_plaintext()` (`--insecure-plaintext`)",
        )
    }
}

impl std::error::Error for PlainTextRefused {}

fn sockets(address: Option<SocketAddr>, shards: usize) -> Result<Vec<TcpListener>, NodeError> {
    let Some(address) = address else { return Ok(Vec::new()) };
    listen(address, shards).map_err(|error| NodeError::Listen(address, error))
}

impl NodeBuilder {
    /// Serves Redis clients (RESP2 and RESP3) on `address` (default: nobody). Port 0 takes any free
    /// one.
    pub fn listen(mut self, address: SocketAddr) -> Self {
        self.ports.resp = Some(address);
        self
    }

    /// Serves native clients ([`Client`](crate::Client)) on `address` (default: nobody): they may
    /// send the messages of handlers with `#[wire]`. Port 0 takes any free one.
    pub fn listen_native(mut self, address: SocketAddr) -> Self {
        self.ports.native = Some(address);
        self
    }

    /// Does not tell native clients what keys are hashed with. They cannot aim keys at one bucket
    /// then, nor send each message to the shard of its key, which costs a way between shards.
    pub fn hide_hash_key(mut self) -> Self {
        self.ports.hides_hash_key = true;
        self
    }

    /// Speaks TLS 1.3 on every port, instead of plain text. Changed files are taken over within
    /// seconds, for new connections; what cannot be used is said on standard error and changes
    /// nothing.
    pub fn tls(mut self, config: TlsConfig) -> Self {
        self.ports.tls = Some(config);
        self
    }

    /// Lets the node listen beyond loopback in plain text (default: it refuses to start). Whoever
    /// is on the network can read and change what goes over it, and call every entity.
    pub fn insecure_plaintext(mut self) -> Self {
        self.ports.insecure_plaintext = true;
        self
    }

    /// The cluster that the node belongs to, for native clients that ask for one.
    pub fn cluster(mut self, id: u128) -> Self {
        self.ports.cluster = id;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_is_not_exposed() {
        for inside in ["127.0.0.1:0", "127.9.9.9:1", "[::1]:0", "[::ffff:127.0.0.1]:0"] {
            assert!(!is_exposed(&inside.parse().expect("an address")), "{inside}");
        }
        for outside in ["0.0.0.0:0", "[::]:0", "10.0.0.1:1", "[::ffff:10.0.0.1]:0", "8.8.8.8:0"] {
            assert!(is_exposed(&outside.parse().expect("an address")), "{outside}");
        }
    }

    #[test]
    fn tls_may_listen_everywhere_and_plain_text_where_somebody_says_so() {
        let mut ports = Ports { resp: "0.0.0.0:0".parse().ok(), ..Ports::default() };
        assert!(ports.check().is_err());
        ports.insecure_plaintext = true;
        assert!(ports.check().is_ok());
        let tls = Some(TlsConfig::new("node.crt", "node.key"));
        assert!(Ports { tls, insecure_plaintext: false, ..ports }.check().is_ok());
    }
}
