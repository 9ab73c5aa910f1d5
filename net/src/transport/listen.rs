//! Listening sockets: one per shard, all on one port, among which the kernel spreads connections.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};

/// Opens a listening socket per shard on `address`. A port of 0 is chosen once, for all of them.
///
/// # Errors
/// What the system said, for instance that the port is taken.
pub fn listen(address: SocketAddr, shards: usize) -> io::Result<Vec<TcpListener>> {
    let mut listeners = Vec::with_capacity(shards);
    let mut address = address;
    for _ in 0..shards {
        let listener = listen_one(address)?;
        address.set_port(listener.local_addr()?.port());
        listeners.push(listener);
    }
    Ok(listeners)
}

fn listen_one(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    // Linux hands both on to the connections, which saves calls for each.
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&keepalive())?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Who may idle for as long as he likes, as Redis clients may, and has vanished without a word, is
/// found out after ten minutes, as Redis finds out.
fn keepalive() -> TcpKeepalive {
    const SILENCE: Duration = Duration::from_secs(300);
    const PROBES: u32 = 3;
    TcpKeepalive::new().with_time(SILENCE).with_interval(SILENCE / PROBES).with_retries(PROBES)
}

/// Connections that wait to be accepted; the system cuts it down to `net.core.somaxconn`.
const BACKLOG: i32 = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_shards_listen_on_the_port_that_was_chosen_once() {
        let listeners = listen("127.0.0.1:0".parse().unwrap(), 3).unwrap();
        let ports: Vec<_> = listeners.iter().map(|l| l.local_addr().unwrap().port()).collect();
        assert_ne!(ports[0], 0);
        assert!(ports.iter().all(|port| *port == ports[0]), "{ports:?}");
    }

    #[test]
    fn peers_that_have_vanished_are_looked_for() {
        let listener = listen("127.0.0.1:0".parse().unwrap(), 1).unwrap().remove(0);
        let _peer = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (connection, _) = listener.accept().unwrap();
        let connection = socket2::SockRef::from(&connection);
        assert!(connection.keepalive().unwrap());
        assert_eq!(connection.tcp_keepalive_time().unwrap(), Duration::from_secs(300));
        assert_eq!(connection.tcp_keepalive_interval().unwrap(), Duration::from_secs(100));
        assert_eq!(connection.tcp_keepalive_retries().unwrap(), 3);
    }
}
