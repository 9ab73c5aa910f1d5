//! Servers are processes of their own: this program again, on the first core. To each byte on its
//! standard input a server says for how long it has been busy, and ends with that input.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::OnceLock;

use crate::cores;

/// The first word of a server's command line; its name and the number of connections follow.
pub const WORD: &str = "wire-server";

/// What a server does: it announces where it listens, and serves so many connections.
pub type Serve = fn(usize) -> io::Result<()>;

/// A server that runs, until it is dropped.
pub struct Server {
    child: Child,
    output: BufReader<ChildStdout>,
    pub address: SocketAddr,
}

/// For how long a server was busy, in nanoseconds.
type Busy = Box<dyn Fn() -> Option<f64> + Send + Sync>;

/// What knows it, where it is not the time that the process had on its core.
static BUSY: OnceLock<Busy> = OnceLock::new();

/// Has the server say this when it is asked for how long it was busy; `None` for what cannot be
/// told: a loop that spins is always busy.
pub fn set_busy(busy: impl Fn() -> Option<f64> + Send + Sync + 'static) {
    // Once: a process is one server.
    let _ = BUSY.set(Box::new(busy));
}

impl Server {
    /// Returns when it listens.
    pub fn start(name: &str, connections: usize) -> io::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args([WORD, name, &connections.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let Some(output) = child.stdout.take() else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        let mut output = BufReader::new(output);
        let mut line = String::new();
        output.read_line(&mut line)?;
        match line.trim().parse() {
            Ok(port) => Ok(Self { child, output, address: (Ipv4Addr::LOCALHOST, port).into() }),
            Err(_) => {
                let ended = child.wait()?;
                Err(io::Error::other(format!("the server {name} did not start: {ended}")))
            }
        }
    }

    /// For how long it has been busy, in nanoseconds; `None` where it cannot tell.
    pub fn busy_ns(&mut self) -> io::Result<Option<f64>> {
        let input = self.child.stdin.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        input.write_all(b"?")?;
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        Ok(line.trim().parse().ok())
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
        while let Ok(1) = io::stdin().read(&mut [0]) {
            let busy_ns = match BUSY.get() {
                Some(busy) => busy(),
                None => Some(cores::process_time_ns()),
            };
            println!("{}", busy_ns.map_or("-".to_owned(), |ns| ns.to_string()));
        }
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
