//! Ours: a node with one shard, and what a client has to know of it.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpStream};

use coreside::{Idle, Node, entity, handlers};
use coreside_net::native::frame::{HEADER_BYTES, Header, Kind, VERSION};
use coreside_net::native::{Hello, Standing, Welcome};
use coreside_shard::Registry;

use super::server::{announce, set_busy};
use crate::codec::Trade;
use crate::cores;

#[entity]
#[derive(Default)]
pub struct Desk {
    trades: u64,
}

#[handlers]
impl Desk {
    #[local]
    #[wire]
    pub fn echo(&mut self, trade: Trade) -> Trade {
        self.trades += 1;
        trade
    }
}

pub fn serve(_connections: usize) -> io::Result<()> {
    let node = Node::builder()
        .entity::<Desk>()
        .shards(1)
        .cores(vec![cores::allowed()[0]])
        .idle(Idle::Spin)
        .listen_native((Ipv4Addr::LOCALHOST, 0).into())
        .start()
        .map_err(io::Error::other)?;
    let handle = node.handle();
    set_busy(move || Some(handle.stats().busy_ns as f64));
    announce(node.native_addr().ok_or(io::ErrorKind::AddrNotAvailable)?);
    loop {
        std::thread::park();
    }
}

/// The handshake. Returns the number of the message.
pub fn shake_hands(stream: &mut TcpStream) -> io::Result<u16> {
    let mut registry = Registry::new();
    registry.entity::<Desk>();
    let table = registry.build().map_err(io::Error::other)?;
    let messages = table.wire().iter().map(|row| (row.id, row.schema)).collect();
    let versions = (VERSION, VERSION);
    let mut hello = Vec::new();
    Hello { versions, shard: None, cluster: 0, messages }.write(&mut hello);
    stream.write_all(&hello)?;
    let mut header = [0; HEADER_BYTES];
    stream.read_exact(&mut header)?;
    let header = Header::read(&header, 4096).map_err(io::Error::other)?;
    let Some(header) = header.filter(|header| header.kind == Kind::Welcome) else {
        return Err(io::Error::other("the node refuses the connection"));
    };
    let mut content = vec![0; header.padded() - HEADER_BYTES];
    stream.read_exact(&mut content)?;
    content.truncate(header.length as usize - HEADER_BYTES);
    let welcome = Welcome::read(&content).map_err(io::Error::other)?;
    match welcome.messages[..] {
        [Standing::Number(number)] => Ok(number),
        _ => Err(io::Error::other("the node does not know the message")),
    }
}
