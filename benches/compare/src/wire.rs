//! A request and its reply of 64 bytes over TCP: a node of ours beside raw loops on the runtimes
//! that one would write a server on, and beside the usual frameworks.
//!
//! The server is a process on the first core, the load a thread on the last, so this needs two.
//! Ours and the raw loops move the same frames and get the same load, each reply of which is
//! checked; ours dispatches every request to one of a thousand entities and checks its body, a raw
//! loop copies bytes. tonic and tarpc have clients of their own, which cost more than the load
//! does; so the last row has the node asked by its own client. A ratio above 1 means that ours
//! serves more requests.
//!
//! The load and a server share what TCP costs: where the load is hardly ever idle, all servers that
//! are faster than it look alike. For how long a server was busy for each request tells them apart
//! even then: the time that the process had on its core, or what the node says of itself. Loops
//! that spin cannot tell.
//!
//! | module | holds |
//! |---|---|
//! | `frames` | the bytes, and how a raw loop answers them |
//! | `load` | the load of ours and the raw loops |
//! | `server` | the process that a server runs in |
//! | `ours` | the node |
//! | `tokio_loop`, `glommio_loop`, `monoio_loop` | raw loops on runtimes |
//! | `uring_loop`, `coalescing_loop` | raw loops on io_uring alone |
//! | `grpc`, `tarpc_service` | the frameworks |
//! | `by_client` | the node again, asked as those are |
//! | `ring` | `coreside-load`'s ring, for the load and for the loop that coalesces |

mod by_client;
mod coalescing_loop;
mod frames;
mod glommio_loop;
mod grpc;
mod load;
mod monoio_loop;
mod ours;
mod server;
mod tarpc_service;
mod tokio_loop;
mod uring_loop;

#[warn(unsafe_code, reason = "the file says that it expects this")]
#[allow(dead_code, reason = "a load generator uses more of it")]
#[path = "../../load/ring.rs"]
mod ring;

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use self::load::{Rate, Start, Window};
use self::server::{Serve, Server};
use crate::{Options, Rows, Summary, cores};

pub use self::server::WORD as SERVER;

/// Connections, and requests outstanding on each.
#[derive(Clone, Copy)]
pub struct Work {
    connections: usize,
    depth: usize,
}

const WORKS: [Work; 3] = [
    Work { connections: 64, depth: 1 },
    Work { connections: 64, depth: 16 },
    Work { connections: 16, depth: 64 },
];

/// One program: how it serves, what asks it, and what ours should reach at each depth.
struct Side {
    name: &'static str,
    serve: Serve,
    measure: fn(SocketAddr, Work, Window) -> io::Result<Rate>,
    goals: [Option<f64>; WORKS.len()],
}

const SIDES: [Side; 9] = [
    Side { name: "ours", serve: ours::serve, measure: native, goals: [None; 3] },
    Side {
        name: "tokio",
        serve: tokio_loop::serve,
        measure: plain,
        goals: [Some(1.2), Some(1.5), None],
    },
    Side {
        name: "glommio",
        serve: glommio_loop::serve,
        measure: plain,
        goals: [Some(2.0), Some(2.5), None],
    },
    Side { name: "monoio", serve: monoio_loop::serve, measure: plain, goals: [None; 3] },
    Side {
        name: "io_uring",
        serve: uring_loop::serve,
        measure: plain,
        goals: [Some(0.85), None, None],
    },
    Side {
        name: "io_uring, coalescing",
        serve: coalescing_loop::serve,
        measure: plain,
        goals: [None, None, Some(0.6)],
    },
    Side { name: "tonic", serve: grpc::serve, measure: grpc::measure, goals: [Some(5.0); 3] },
    Side {
        name: "tarpc",
        serve: tarpc_service::serve,
        measure: tarpc_service::measure,
        goals: [Some(5.0); 3],
    },
    Side {
        name: "ours, by its client",
        serve: ours::serve,
        measure: by_client::measure,
        goals: [None; 3],
    },
];

fn native(address: SocketAddr, work: Work, window: Window) -> io::Result<Rate> {
    load::measure(address, work, window, Start::Handshake)
}

fn plain(address: SocketAddr, work: Work, window: Window) -> io::Result<Rate> {
    load::measure(address, work, window, Start::Plain)
}

/// The process of a server; `args` is what follows [`SERVER`].
///
/// # Errors
/// What the server could not do.
pub fn serve(mut args: impl Iterator<Item = String>) -> io::Result<()> {
    let name = args.next().unwrap_or_default();
    let connections = args.next().and_then(|count| count.parse().ok());
    match (SIDES.iter().find(|side| side.name == name), connections) {
        (Some(side), Some(connections)) => server::run(side.serve, connections),
        _ => Err(io::ErrorKind::InvalidInput.into()),
    }
}

/// Races all of them, and prints and returns what they did.
pub fn run(options: &Options) -> Rows {
    if cores::allowed().len() < 2 {
        println!("wire: needs two cores, one for the server and one for the load");
        return Rows::new();
    }
    let (rounds, warm_up, length) = if options.small { (1, 50, 100) } else { (5, 300, 1000) };
    let [warm_up, length] = [warm_up, length].map(Duration::from_millis);
    let window = Window { warm_up, length };
    let rounds = options.rounds.unwrap_or(rounds);
    println!(
        "{:<31}{:>8}{:>8}{:>7}{:>16}{:>14}{:>12}{:>13}  goal",
        "wire/64B, 1000/s beside",
        "ours",
        "theirs",
        "ratio",
        "ours min..max",
        "ratio",
        "load idle",
        "busy, ns"
    );
    let mut rows = Rows::new();
    for (place, work) in WORKS.into_iter().enumerate() {
        let sides: Vec<_> = SIDES
            .iter()
            .enumerate()
            .filter(|(number, side)| *number == 0 || options.wants(&row_name(work, side)))
            .map(|(_, side)| side)
            .collect();
        let mut samples = vec![Vec::new(); sides.len()];
        for round in 0..if sides.len() > 1 { rounds } else { 0 } {
            for turn in 0..sides.len() {
                // To and fro, so that none always follows the same one.
                let number = if round % 2 == 0 { turn } else { sides.len() - 1 - turn };
                match measure(sides[number], work, window) {
                    Ok(rate) => samples[number].push(rate),
                    Err(error) => println!("wire: {}: {error}", sides[number].name),
                }
            }
        }
        for (side, theirs) in sides.iter().zip(&samples).skip(1) {
            // A side that failed in a round has said so, and is left out.
            if samples[0].len() == rounds && theirs.len() == rounds {
                rows.extend(report(work, side, side.goals[place], &samples[0], theirs));
            }
        }
    }
    rows
}

/// Requests per second of one side, from a server of its own.
fn measure(side: &Side, work: Work, window: Window) -> io::Result<Rate> {
    let mut server = Server::start(side.name, work.connections)?;
    let address = server.address;
    let load = || {
        cores::pin(cores::allowed().len() - 1);
        (side.measure)(address, work, window)
    };
    let (busy_ns, began) = (server.busy_ns()?, Instant::now());
    // A thread for each, as its ring and its core are the thread's.
    let rate = std::thread::scope(|scope| match scope.spawn(load).join() {
        Ok(Ok(Rate { rate: 0.0, .. })) => Err(io::Error::other("no reply in all the time")),
        Ok(rate) => rate,
        Err(_) => Err(io::Error::other("the load failed")),
    })?;
    let span = began.elapsed().as_secs_f64();
    let busy = busy_ns.zip(server.busy_ns()?).map(|(before, after)| (after - before) / span);
    Ok(Rate { busy_ns: busy.map(|busy| busy / rate.rate), ..rate })
}

fn bench_name(work: Work) -> String {
    format!("wire/{}x{}", work.connections, work.depth)
}

fn row_name(work: Work, side: &Side) -> String {
    format!("{} {}", bench_name(work), side.name)
}

/// Prints one rival's line; the rows say the same.
fn report(work: Work, side: &Side, goal: Option<f64>, ours: &[Rate], theirs: &[Rate]) -> Rows {
    let ratio = Summary::of(ours.iter().zip(theirs).map(|(ours, theirs)| ours.rate / theirs.rate));
    let idle = [ours, theirs].map(|side| Summary::of(side.iter().map(|side| side.idle)).median);
    let busy = [ours, theirs].map(|side| {
        let busy: Option<Vec<f64>> = side.iter().map(|side| side.busy_ns).collect();
        busy.map(|busy| Summary::of(busy.into_iter()))
    });
    let [ours, theirs] = [ours, theirs].map(|side| Summary::of(side.iter().map(|side| side.rate)));
    let bench = bench_name(work);
    let goal = goal.map_or(String::new(), |goal| {
        let met = if ratio.median >= goal { "met" } else { "not met" };
        format!("  {goal} {met}")
    });
    let percent = |part: f64| format!("{:.0}%", part.max(0.0) * 100.0);
    let spread = |low: f64, high: f64, digits| format!("{low:.digits$}..{high:.digits$}");
    println!(
        "{:<31}{:>8.1}{:>8.1}{:>7.2}{:>16}{:>14}{:>12}{:>13}{goal}",
        row_name(work, side),
        ours.median / 1e3,
        theirs.median / 1e3,
        ratio.median,
        spread(ours.min / 1e3, ours.max / 1e3, 1),
        spread(ratio.min, ratio.max, 2),
        idle.map(percent).join("|"),
        busy.map(|busy| busy.map_or("-".to_owned(), |ns| format!("{:.0}", ns.median))).join("|"),
    );
    let mut rows = vec![serde_json::json!({
        "bench": bench, "ours": ours.median, "rival": side.name, "theirs": theirs.median,
        "ratio": ratio.median, "unit": "requests/s", "min": ours.min, "max": ours.max,
    })];
    if let [Some(ours), Some(theirs)] = busy {
        rows.push(serde_json::json!({
            "bench": format!("{bench} busy"), "ours": ours.median, "rival": side.name,
            "theirs": theirs.median, "ratio": theirs.median / ours.median,
            "unit": "ns of the server per request", "min": ours.min, "max": ours.max,
        }));
    }
    rows
}
