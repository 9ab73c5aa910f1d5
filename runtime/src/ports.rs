//! Where a node listens: a port for Redis clients, and one for native clients.

use std::net::{SocketAddr, TcpListener};

use coreside_net::{Listeners, listen, native};
use coreside_shard::HashKey;

use crate::node::{NodeBuilder, NodeError};

/// The addresses to listen on, and what those are told who come.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ports {
    resp: Option<SocketAddr>,
    native: Option<SocketAddr>,
    cluster: u128,
    hides_hash_key: bool,
}

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
    pub(crate) fn facts(self, (shard, shards): (u16, u16), hash_key: HashKey) -> native::Facts {
        let hash_key = (!self.hides_hash_key).then_some(hash_key);
        native::Facts { shard, shards, cluster: self.cluster, hash_key }
    }

    /// Listens for this number of shards.
    pub(crate) fn open(self, shards: usize) -> Result<Open, NodeError> {
        let (mut resp, mut native) = (sockets(self.resp, shards)?, sockets(self.native, shards)?);
        let address = |sockets: &[TcpListener]| sockets.first()?.local_addr().ok();
        let mut open = Open { resp: address(&resp), native: address(&native), ..Open::default() };
        open.listeners.resize_with(shards, || Listeners { resp: resp.pop(), native: native.pop() });
        Ok(open)
    }
}

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

    /// The cluster that the node belongs to, for native clients that ask for one.
    pub fn cluster(mut self, id: u128) -> Self {
        self.ports.cluster = id;
        self
    }
}
