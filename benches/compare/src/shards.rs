//! Clients that know the shards beside clients that do not: one node with two shards, in one run.
//!
//! Those that know them send every request to the shard of its key; those that do not send it to
//! the shard that the kernel gave their connection to, and half of them, and half of the answers,
//! go from that shard to the other. Both are `coreside-load`, closed loop, depositing to accounts
//! of the ledger. A ratio above 1 means that those that know serve more, or are sooner.
//!
//! Where the machine has fewer than three cores, shards and load share them, and it says so.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::latency::{Server, listening, results};
use crate::{Options, Rows, Summary, cores};

const SHARDS: usize = 2;

const CONNECTIONS: &str = "16";

/// Requests outstanding on each connection.
const DEPTHS: [usize; 3] = [1, 16, 64];

/// What one measurement comes to.
#[derive(Clone, Copy)]
struct Sample {
    /// Replies per second.
    rate: f64,
    /// Times from request to reply, in microseconds.
    p50_us: f64,
    p99_us: f64,
}

/// Compares them, and prints and returns what they did.
pub fn run(options: &Options) -> Rows {
    let Some(programs) = &options.tools else { return Rows::new() };
    match race(programs, options) {
        Ok(rows) => rows,
        Err(error) => {
            println!("shards: {error}");
            Rows::new()
        }
    }
}

fn race(programs: &Path, options: &Options) -> io::Result<Rows> {
    let count = cores::allowed().len();
    if count <= SHARDS {
        println!("shards: {count} cores for {SHARDS} shards and the load, which share them");
    }
    let server = ledger(programs)?;
    let (rounds, seconds) = if options.small { (1, 0.2) } else { (5, 2.0) };
    let rounds = options.rounds.unwrap_or(rounds);
    let seconds = options.seconds.map_or(seconds, f64::from);
    println!(
        "{:<27}{:>10}{:>10}{:>7}{:>18}{:>14}",
        "shards, known beside not", "known", "not", "ratio", "known min..max", "ratio"
    );
    let mut rows = Rows::new();
    for depth in DEPTHS {
        let mut samples = [Vec::new(), Vec::new()];
        for round in 0..rounds {
            // To and fro, so that neither always follows the other.
            for turn in 0..samples.len() {
                let place = (round + turn) % samples.len();
                let sample = measure(programs, server.address, place == 0, (depth, seconds))?;
                samples[place].push(sample);
            }
        }
        rows.extend(report(depth, &samples));
    }
    Ok(rows)
}

/// A node of two shards on the first two cores, or on the only one.
fn ledger(programs: &Path) -> io::Result<Server> {
    let mut command = Command::new(programs.join("examples/ledger"));
    let shards = SHARDS.to_string();
    command.args(["--listen", "127.0.0.1:0", "--listen-native", "127.0.0.1:0"]);
    command.args(["--shards", &shards]).stdin(Stdio::piped()).stdout(Stdio::piped());
    listening(command.spawn()?, "listening for native clients on ")
}

fn measure(
    programs: &Path,
    address: SocketAddr,
    knows: bool,
    (depth, seconds): (usize, f64),
) -> io::Result<Sample> {
    let mut command = Command::new(programs.join("coreside-load"));
    command.args(["--quiet", "--check", "--protocol", "native", "--mix", "deposit=1"]);
    command.args(["--addr", &address.to_string(), "--connections", CONNECTIONS]);
    command.args(["--depth", &depth.to_string(), "--warmup", "0.5"]);
    command.args(["--duration", &seconds.to_string()]);
    if knows {
        command.arg("--shard-aware");
    }
    let found = results(&mut command)?;
    let us = |name| found["latency_ns"][name].as_f64().map(|ns| ns / 1e3);
    match (found["rate_per_s"].as_f64(), us("p50"), us("p99")) {
        (Some(rate), Some(p50_us), Some(p99_us)) => Ok(Sample { rate, p50_us, p99_us }),
        _ => Err(io::Error::other("the load's report has another form")),
    }
}

/// Prints the lines of one depth; the rows say the same.
fn report(depth: usize, samples: &[Vec<Sample>; 2]) -> Rows {
    let bench = format!("shards/{CONNECTIONS}x{depth}");
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
            "{:<27}{:>10.0}{:>10.0}{:>7.2}{:>18}{:>14}",
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
    rows
}
