//! What TLS costs: a node of ours asked by its own client, over TLS and in plain text.
//!
//! The node has one shard, on the first core; the client is on the last, with 64 connections and as
//! many requests outstanding on each as it says. A request and its reply hold as many bytes as it
//! says, and every reply is compared. A ratio below 1 is what TLS leaves of the rate of plain text;
//! client and node pay alike, each on its own core.

use std::cell::Cell;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use coreside::{Client, ClientTls, Idle, Node, TlsConfig, entity, handlers};

use crate::latency::{Server, announced, end_with_input};
use crate::{Options, Rows, Summary, cores};

/// The first word of a server's command line; the folder of its certificate follows, if it has one.
pub const SERVER: &str = "tls-server";

#[entity]
struct Mirror {
    asked: u64,
}

#[handlers]
impl Mirror {
    #[local]
    #[wire]
    fn echo(&mut self, bytes: Vec<u8>) -> Vec<u8> {
        self.asked += 1;
        bytes
    }
}

/// Requests outstanding on each connection, and bytes of each.
const WORKS: [(usize, usize); 3] = [(1, 64), (16, 64), (16, 4096)];
const CONNECTIONS: usize = 64;

/// The process of a node.
///
/// # Errors
/// What it could not do.
pub fn serve(folder: Option<String>) -> io::Result<()> {
    end_with_input();
    let core = cores::allowed().first().copied().unwrap_or_default();
    let mut node = Node::builder().entity::<Mirror>().shards(1).cores(vec![core]).idle(Idle::Spin);
    if let Some(folder) = folder.map(PathBuf::from) {
        node = node.tls(TlsConfig::new(folder.join("node.crt"), folder.join("node.key")));
    }
    let node = node.listen_native((Ipv4Addr::LOCALHOST, 0).into()).start();
    let node = node.map_err(io::Error::other)?;
    println!("listening on {}", node.native_addr().ok_or(io::ErrorKind::AddrNotAvailable)?);
    loop {
        std::thread::park();
    }
}

/// A certificate in a folder of its own, which is gone when this is dropped.
struct Certificate(PathBuf);

impl Certificate {
    fn new() -> io::Result<Self> {
        let folder = std::env::temp_dir().join(format!("coreside-tls-{}", std::process::id()));
        std::fs::create_dir(&folder)?;
        let certificate = Self(folder);
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]);
        let made = made.map_err(io::Error::other)?;
        std::fs::write(certificate.0.join("node.crt"), made.cert.pem())?;
        std::fs::write(certificate.0.join("node.key"), made.signing_key.serialize_pem())?;
        Ok(certificate)
    }
}

impl Drop for Certificate {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap_or_default();
    }
}

/// Measures both, and prints and returns what they did.
pub fn run(options: &Options) -> Rows {
    if cores::allowed().len() < 2 {
        println!("tls: needs two cores, one for the node and one for its client");
        return Rows::new();
    }
    let (rounds, length) = if options.small { (1, 300) } else { (5, 1000) };
    let rounds = options.rounds.unwrap_or(rounds);
    let certificate = match Certificate::new() {
        Ok(certificate) => certificate,
        Err(error) => {
            println!("tls: {error}");
            return Rows::new();
        }
    };
    println!("{:<31}{:>8}{:>8}{:>7}{:>16}", "1000/s", "TLS", "plain", "ratio", "TLS min..max");
    let mut rows = Rows::new();
    for work in WORKS {
        let (mut sealed, mut plain) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            for (folder, rates) in
                [(Some(certificate.0.as_path()), &mut sealed), (None, &mut plain)]
            {
                match measure(folder, work, Duration::from_millis(length)) {
                    Ok(rate) => rates.push(rate),
                    Err(error) => println!("tls: {error}"),
                }
            }
        }
        if sealed.len() == rounds && plain.len() == rounds {
            rows.push(report(work, &sealed, &plain));
        }
    }
    rows
}

fn report((depth, bytes): (usize, usize), sealed: &[f64], plain: &[f64]) -> serde_json::Value {
    let ratio = Summary::of(sealed.iter().zip(plain).map(|(sealed, plain)| sealed / plain)).median;
    let [ours, theirs] = [sealed, plain].map(|rates| Summary::of(rates.iter().copied()));
    let bench = format!("tls/{CONNECTIONS}x{depth}/{bytes}B");
    println!(
        "{bench:<31}{:>8.1}{:>8.1}{ratio:>7.2}{:>16}",
        ours.median / 1e3,
        theirs.median / 1e3,
        format!("{:.1}..{:.1}", ours.min / 1e3, ours.max / 1e3)
    );
    serde_json::json!({
        "bench": bench, "ours": ours.median, "rival": "plain text", "theirs": theirs.median,
        "ratio": ratio, "unit": "requests/s", "min": ours.min, "max": ours.max,
    })
}

/// Requests per second of a node of its own.
fn measure(folder: Option<&Path>, work: (usize, usize), length: Duration) -> io::Result<f64> {
    let mut command = std::process::Command::new(std::env::current_exe()?);
    let server: Server = announced(command.arg(SERVER).args(folder), "listening on ")?;
    let load = || {
        cores::pin(cores::allowed().len() - 1);
        ask(server.address, folder, work, length)
    };
    // A thread of its own, as its core is the thread's.
    std::thread::scope(|scope| match scope.spawn(load).join() {
        Ok(rate) => rate,
        Err(_) => Err(io::Error::other("the load failed")),
    })
}

fn ask(
    address: SocketAddr,
    folder: Option<&Path>,
    (depth, bytes): (usize, usize),
    length: Duration,
) -> io::Result<f64> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let tasks = tokio::task::LocalSet::new();
    let (replies, failures) = (Rc::new(Cell::new(0_u64)), Rc::new(Cell::new(0_u64)));
    tasks.block_on(&runtime, async {
        for connection in 0..CONNECTIONS {
            let mut client = Client::builder().entity::<Mirror>();
            if let Some(folder) = folder {
                client = client.tls(ClientTls::new(folder.join("node.crt")));
            }
            let client = client.connect(address).map_err(io::Error::other)?;
            for call in 0..depth {
                let key = (connection * depth + call) as u64;
                let content = vec![key as u8; bytes];
                let (client, replies, failures) =
                    (client.clone(), Rc::clone(&replies), Rc::clone(&failures));
                tokio::task::spawn_local(async move {
                    loop {
                        let reply = client.entity::<Mirror>(key).echo(content.clone()).await;
                        if reply.as_ref() != Ok(&content) {
                            return failures.set(failures.get() + 1);
                        }
                        replies.set(replies.get() + 1);
                    }
                });
            }
        }
        tokio::time::sleep(length / 4).await;
        let (from, began) = (replies.get(), Instant::now());
        tokio::time::sleep(length).await;
        let count = (replies.get() - from) as f64;
        match failures.get() {
            0 if count == 0.0 => Err(io::Error::other("no reply in all the time")),
            0 => Ok(count / began.elapsed().as_secs_f64()),
            failures => Err(io::Error::other(format!("{failures} requests failed"))),
        }
    })
}
