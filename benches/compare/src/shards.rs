//! Clients that know the shards beside clients that do not: one node with two shards, in one run.
//!
//! A client that knows them has a connection to each shard and sends every message to the shard of
//! its key. One that does not has one connection, to whichever shard the kernel gave it, and half
//! of its messages and answers go from that shard to the other. Both are `coreside::Client`, on one
//! thread of tokio, with as many tasks as requests may be outstanding; each reply is checked. A
//! ratio above 1 means that the first serves more, or is sooner.
//!
//! Node and clients are in one process. Where the machine has fewer than four cores they share
//! them, and it says so: what a client costs then limits both sides.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use coreside::{Client, Node};

use crate::codec::trade;
use crate::wire::ours::Desk;
use crate::{Options, Rows, Summary, cores};

const SHARDS: usize = 2;

/// Clients, each with connections of its own, so that those of the second kind meet both shards.
const CLIENTS: usize = 4;

/// Requests outstanding of each client.
const DEPTHS: [usize; 3] = [1, 16, 128];

/// Entities that are asked, in turn.
const ENTITIES: u64 = 1000;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Knows {
    Shards,
    OneConnection,
}

/// What one measurement comes to.
#[derive(Clone, Copy)]
struct Sample {
    /// Replies per second.
    rate: f64,
    /// Times from request to reply, in microseconds.
    p50_us: f64,
    p99_us: f64,
    /// Messages and answers that went from one shard to the other, per request.
    crossings: f64,
}

/// Compares them, and prints and returns what they did.
pub fn run(options: &Options) -> Rows {
    match race(options) {
        Ok(rows) => rows,
        Err(error) => {
            println!("shards: {error}");
            Rows::new()
        }
    }
}

fn race(options: &Options) -> io::Result<Rows> {
    let count = cores::allowed().len();
    if count < 4 {
        println!("shards: {count} cores for {SHARDS} shards and the clients, who share them");
    }
    let node = Node::builder()
        .entity::<Desk>()
        .shards(SHARDS)
        .listen_native((Ipv4Addr::LOCALHOST, 0).into())
        .start()
        .map_err(io::Error::other)?;
    let address = node.native_addr().ok_or(io::ErrorKind::AddrNotAvailable)?;
    let (rounds, length) = if options.small { (1, 100) } else { (7, 1000) };
    let (rounds, length) = (options.rounds.unwrap_or(rounds), Duration::from_millis(length));
    println!(
        "{:<27}{:>10}{:>10}{:>7}{:>16}{:>14}",
        "shards, known beside not", "known", "not", "ratio", "known min..max", "ratio"
    );
    let mut rows = Rows::new();
    for depth in DEPTHS {
        let mut samples = [Vec::new(), Vec::new()];
        for round in 0..rounds {
            // To and fro, so that neither always follows the other.
            let turns = [(0, Knows::Shards), (1, Knows::OneConnection)];
            let order = if round % 2 == 0 { [0, 1] } else { [1, 0] };
            for (place, knows) in order.map(|turn| turns[turn]) {
                let before = node.stats().between_shards;
                let mut sample = measure(address, knows, depth, length)?;
                let crossings = node.stats().between_shards - before;
                sample.crossings = crossings as f64 / (sample.rate * length.as_secs_f64());
                samples[place].push(sample);
            }
        }
        rows.extend(report(depth, &samples));
    }
    node.stop();
    Ok(rows)
}

fn measure(
    address: SocketAddr,
    knows: Knows,
    depth: usize,
    length: Duration,
) -> io::Result<Sample> {
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    runtime.block_on(async {
        let mut tasks = Vec::new();
        let clients = (0..CLIENTS).map(|_| {
            let builder = Client::builder().entity::<Desk>();
            let builder = if knows == Knows::Shards { builder } else { builder.any_shard() };
            builder.connect(address).map_err(io::Error::other)
        });
        let clients: Vec<Client> = clients.collect::<io::Result<_>>()?;
        let from = Instant::now() + length / 4;
        for (number, client) in clients.iter().enumerate() {
            for call in 0..depth {
                let first = (number * depth + call) as u64;
                tasks.push(tokio::spawn(ask(client.clone(), first, from, from + length)));
            }
        }
        let mut times_ns = Vec::new();
        for task in tasks {
            times_ns.extend(task.await.map_err(io::Error::other)??);
        }
        times_ns.sort_unstable();
        let at = |part: f64| {
            let index = (times_ns.len() as f64 * part) as usize;
            times_ns.get(index).map_or(f64::NAN, |ns| f64::from(*ns) / 1e3)
        };
        let rate = times_ns.len() as f64 / length.as_secs_f64();
        Ok(Sample { rate, p50_us: at(0.5), p99_us: at(0.99), crossings: 0.0 })
    })
}

/// Asks one entity after the other, and notes how long each took that was asked in the window.
async fn ask(client: Client, first: u64, from: Instant, end: Instant) -> io::Result<Vec<u32>> {
    let (mut times_ns, mut number) = (Vec::new(), first);
    loop {
        let trade = trade(number % ENTITIES);
        let begun = Instant::now();
        let reply = client.entity::<Desk>(number % ENTITIES).echo(trade).await;
        let now = Instant::now();
        match reply {
            Ok(reply) if reply == trade => {}
            other => return Err(io::Error::other(format!("{other:?} to {trade:?}"))),
        }
        if begun >= from && now < end {
            times_ns.push(u32::try_from((now - begun).as_nanos()).unwrap_or(u32::MAX));
        }
        if now >= end {
            return Ok(times_ns);
        }
        // In steps that bring each task to all entities.
        number += 7;
    }
}

/// Prints the lines of one depth; the rows say the same.
fn report(depth: usize, samples: &[Vec<Sample>; 2]) -> Rows {
    let bench = format!("shards/{CLIENTS}x{depth}");
    type Figure = (&'static str, fn(&Sample) -> f64, bool);
    let figures: [Figure; 3] = [
        ("requests/s", |sample| sample.rate, true),
        ("p50 us", |sample| sample.p50_us, false),
        ("p99 us", |sample| sample.p99_us, false),
    ];
    let mut rows = Rows::new();
    for (unit, figure, more_is_better) in figures {
        let [known, not] = samples;
        let better = |known: &Sample, not: &Sample| {
            let ratio = figure(known) / figure(not);
            if more_is_better { ratio } else { 1.0 / ratio }
        };
        let ratio = Summary::of(known.iter().zip(not).map(|(known, not)| better(known, not)));
        let [known, not] = [known, not].map(|side| Summary::of(side.iter().map(figure)));
        println!(
            "{:<27}{:>10.0}{:>10.0}{:>7.2}{:>16}{:>14}",
            format!("{bench} {unit}"),
            known.median,
            not.median,
            ratio.median,
            format!("{:.0}..{:.0}", known.min, known.max),
            format!("{:.2}..{:.2}", ratio.min, ratio.max),
        );
        rows.push(serde_json::json!({
            "bench": bench, "ours": known.median, "rival": "any shard", "theirs": not.median,
            "ratio": ratio.median, "unit": unit, "min": known.min, "max": known.max,
        }));
    }
    let crossings =
        |side: &[Sample]| Summary::of(side.iter().map(|sample| sample.crossings)).median;
    let [known, not] = [0, 1].map(|side| crossings(&samples[side]));
    println!("{:<27}{known:>10.2}{not:>10.2}", format!("{bench} crossings/request"));
    rows
}
