//! The processes that are asked, each on the first core alone. They end when they are dropped.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use super::Tools;
use crate::cores;

/// The first word of the command line of the service of tokio and actix.
pub const WORD: &str = "latency-server";

/// One server, and how it is asked.
pub struct Side {
    pub name: &'static str,
    pub is_ours: bool,
    pub start: fn(&Tools) -> io::Result<Server>,
    /// For `coreside-load`.
    pub asks: &'static [&'static str],
}

const COUNT: &[&str] = &["--command", "INCR counter:{key}"];

pub const SIDES: [Side; 4] = [
    Side { name: "ours, RESP", is_ours: true, start: kv, asks: COUNT },
    Side {
        name: "ours, native",
        is_ours: true,
        start: ledger,
        asks: &["--protocol", "native", "--mix", "deposit=1"],
    },
    Side { name: "redis-server", is_ours: false, start: redis, asks: COUNT },
    Side { name: "tokio + actix", is_ours: false, start: actix, asks: COUNT },
];

/// A server that runs, until it is dropped.
pub struct Server {
    child: Child,
    pub address: SocketAddr,
    /// Whoever writes into a closed pipe fails.
    _output: Option<BufReader<ChildStdout>>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().unwrap_or_default();
        let _ended = self.child.wait();
    }
}

fn kv(tools: &Tools) -> io::Result<Server> {
    let mut command = Command::new(tools.programs.join("examples/kv"));
    announced(node(&mut command), "listening on ")
}

fn ledger(tools: &Tools) -> io::Result<Server> {
    let mut command = Command::new(tools.programs.join("examples/ledger"));
    command.args(["--listen-native", "127.0.0.1:0"]);
    announced(node(&mut command), "listening for native clients on ")
}

/// A node of one shard.
fn node(command: &mut Command) -> &mut Command {
    let core = cores::allowed().first().copied().unwrap_or_default().to_string();
    command.args(["--listen", "127.0.0.1:0", "--shards", "1", "--idle", "spin", "--cores", &core])
}

fn actix(_tools: &Tools) -> io::Result<Server> {
    announced(Command::new(std::env::current_exe()?).arg(WORD), "listening on ")
}

/// A server on the first core that says where it listens.
pub fn announced(command: &mut Command, before: &str) -> io::Result<Server> {
    listening(spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped()))?, before)
}

/// The server that such a process is, once it has said where it listens.
pub fn listening(mut child: Child, before: &str) -> io::Result<Server> {
    let output = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
    let unknown = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let mut server = Server { child, address: unknown, _output: None };
    let mut output = BufReader::new(output);
    let mut line = String::new();
    while output.read_line(&mut line)? > 0 {
        if let Some(address) = line.trim().strip_prefix(before) {
            server.address = address.parse().map_err(io::Error::other)?;
            server._output = Some(output);
            return Ok(server);
        }
        line.clear();
    }
    Err(io::Error::other("it ended before it listened"))
}

/// Where nobody listens, as far as can be known.
fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// redis-server without files.
fn redis(tools: &Tools) -> io::Result<Server> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
    let port = address.port().to_string();
    let mut command = Command::new(&tools.redis);
    command.args(["--bind", "127.0.0.1", "--port", &port, "--save", "", "--appendonly", "no"]);
    let child = spawn(command.stdin(Stdio::null()).stdout(Stdio::null()))?;
    let server = Server { child, address, _output: None };
    let until = Instant::now() + Duration::from_secs(10);
    while !answers(address) {
        if Instant::now() > until {
            return Err(io::Error::other("it does not answer"));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(server)
}

fn answers(address: SocketAddr) -> bool {
    let ask = || -> io::Result<bool> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(b"PING\r\n")?;
        let mut reply = [0; 5];
        stream.read_exact(&mut reply)?;
        Ok(&reply == b"+PONG")
    };
    ask().unwrap_or_default()
}

/// Starts a process on the first core: it inherits that from the thread that starts it.
fn spawn(command: &mut Command) -> io::Result<Child> {
    let start = || {
        cores::allowed();
        cores::pin(0);
        command.spawn()
    };
    std::thread::scope(|scope| {
        let started = std::thread::Builder::new().spawn_scoped(scope, start)?.join();
        started.unwrap_or_else(|_| Err(io::Error::other("the thread that starts it failed")))
    })
}

/// Ends this process when whoever started it is gone.
pub fn end_with_input() {
    std::thread::spawn(|| {
        let _ended = io::stdin().read(&mut [0]);
        std::process::exit(0);
    });
}
