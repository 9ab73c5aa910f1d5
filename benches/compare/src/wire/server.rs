//! Servers are processes of their own: this program again, on the first core. They end with the
//! standard input that whoever started them holds.

use std::io::{self, BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use crate::cores;

/// The first word of a server's command line; its name and the number of connections follow.
pub const WORD: &str = "wire-server";

/// What a server does: it announces where it listens, and serves so many connections.
pub type Serve = fn(usize) -> io::Result<()>;

/// A server that runs, until it is dropped.
pub struct Server {
    child: Child,
    pub address: SocketAddr,
}

impl Server {
    /// Returns when it listens.
    pub fn start(name: &str, connections: usize) -> io::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args([WORD, name, &connections.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        if let Some(output) = child.stdout.take() {
            BufReader::new(output).read_line(&mut line)?;
        }
        match line.trim().parse() {
            Ok(port) => Ok(Self { child, address: (Ipv4Addr::LOCALHOST, port).into() }),
            Err(_) => {
                let ended = child.wait()?;
                Err(io::Error::other(format!("the server {name} did not start: {ended}")))
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended with its connections.
        self.child.kill().unwrap_or_default();
        let _ended = self.child.wait();
    }
}

/// Says where the server listens.
pub fn announce(address: SocketAddr) {
    println!("{}", address.port());
}

/// The whole of a server's process.
pub fn run(serve: Serve, connections: usize) -> io::Result<()> {
    cores::pin(0);
    std::thread::spawn(|| {
        let _ended = io::stdin().read(&mut [0]);
        std::process::exit(0);
    });
    serve(connections)
}

/// For loops that serve a fixed number of connections.
pub fn accept(listener: &TcpListener, connections: usize) -> io::Result<Vec<TcpStream>> {
    let accept = |_| {
        let (stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        Ok(stream)
    };
    (0..connections).map(accept).collect()
}
