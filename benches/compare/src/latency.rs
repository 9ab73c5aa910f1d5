//! How evenly servers answer at a rate that they are given: a node of ours at 70 % of what it can
//! do, over RESP and natively, beside redis-server and a service of tokio and actix at the same
//! rate.
//!
//! All count: a request adds to the counter of one of a hundred thousand keys. `coreside-load`
//! sends it when it is due, whether or not earlier ones are answered, and a latency counts from
//! then, so a server that stops for a while cannot hide it. The server is on the first core, the
//! load on the last. The last column says how late the load itself saw its timer: what of a latency
//! is the machine's.
//!
//! A rival that does not keep the rate has no latency there that would mean anything: the longer
//! one measures, the longer it gets. It says so, and is measured at 70 % of its own capacity too.
//!
//! | module | holds |
//! |---|---|
//! | `servers` | the processes that are asked |
//! | `load` | `coreside-load`, and what it has found |
//! | `actix_service` | the service of tokio and actix |

mod actix_service;
mod load;
mod servers;

use std::io;
use std::path::PathBuf;

use self::load::{Found, Load};
use self::servers::{SIDES, Side};
use crate::{Options, Rows, Summary, cores};

pub use self::load::results;
pub use self::servers::{Server, WORD as SERVER, announced, end_with_input, listening};

/// The part of its own capacity at which a server is to answer evenly.
const PART: f64 = 0.7;

/// Where the programs are that take part.
pub struct Tools {
    /// `coreside-load`, and the examples in `examples`.
    programs: PathBuf,
    redis: PathBuf,
}

/// The process of the service of tokio and actix.
///
/// # Errors
/// What the service could not do.
pub fn serve() -> io::Result<()> {
    servers::end_with_input();
    actix_service::serve()
}

/// Measures all of them, and prints and returns what they did.
pub fn run(options: &Options) -> Rows {
    let (Some(programs), Some(redis)) = (options.tools.clone(), options.redis.clone()) else {
        return Rows::new();
    };
    if cores::allowed().len() < 2 {
        println!("latency: needs two cores, one for the server and one for the load");
        return Rows::new();
    }
    let tools = Tools { programs, redis };
    let (rounds, seconds) = if options.small { (1, 1.0) } else { (3, 5.0) };
    let rounds = options.rounds.unwrap_or(rounds);
    let seconds = options.seconds.map_or(seconds, f64::from);
    let capacities = SIDES.each_ref().map(|side| capacity(&tools, side, rounds, seconds));
    let mut rows = Rows::new();
    for (ours, found) in SIDES.iter().zip(&capacities).filter(|(side, _)| side.is_ours) {
        let Ok(capacity) = found else { continue };
        rows.extend(race(&tools, ours, PART * capacity.median, &capacities, (rounds, seconds)));
    }
    rows
}

/// Requests per second, each connection having one outstanding.
fn capacity(tools: &Tools, side: &Side, rounds: usize, seconds: f64) -> io::Result<Summary> {
    let load = Load { rate: None, seconds: (seconds / 2.0).max(1.0) };
    let rates: io::Result<Vec<_>> =
        (0..rounds).map(|_| measure(tools, side, load).map(|found| found.rate)).collect();
    let capacity = rates.map(|rates| Summary::of(rates.into_iter()));
    match &capacity {
        Ok(Summary { median, min, max }) => println!(
            "{:<24} {:>8.1} thousand/s closed loop ({:.1}..{:.1})",
            side.name,
            median / 1e3,
            min / 1e3,
            max / 1e3
        ),
        Err(error) => println!("latency: {}: {error}", side.name),
    }
    capacity
}

/// Our `side` beside all rivals at `rate`.
fn race(
    tools: &Tools,
    ours: &Side,
    rate: f64,
    capacities: &[io::Result<Summary>; SIDES.len()],
    (rounds, seconds): (usize, f64),
) -> Rows {
    println!(
        "\n{:<44}{:>10}{:>10}{:>7}{:>18}{:>22}",
        format!("{} at {:.1} thousand/s", ours.name, rate / 1e3),
        "ours",
        "theirs",
        "ratio",
        "ours min..max",
        "timer late p99|max"
    );
    let rivals: Vec<_> = SIDES.iter().zip(capacities).filter(|(side, _)| !side.is_ours).collect();
    let mut sides = vec![ours];
    sides.extend(rivals.iter().map(|(side, _)| *side));
    let mut found: Vec<Vec<Found>> = vec![Vec::new(); sides.len()];
    for round in 0..rounds {
        for turn in 0..sides.len() {
            // To and fro, so that none always follows the same one.
            let number = if round % 2 == 0 { turn } else { sides.len() - 1 - turn };
            match measure(tools, sides[number], Load { rate: Some(rate), seconds }) {
                Ok(one) => found[number].push(one),
                Err(error) => println!("latency: {}: {error}", sides[number].name),
            }
        }
    }
    let mut rows = Rows::new();
    if found[0].len() < rounds {
        return rows;
    }
    let thousands = format!("{:.1} thousand/s", rate / 1e3);
    for ((rival, capacity), theirs) in rivals.iter().zip(&found[1..]) {
        if theirs.len() < rounds {
            continue;
        }
        if theirs.iter().all(|one| one.kept) {
            rows.extend(report(ours, &thousands, rival.name, &found[0], theirs));
            continue;
        }
        let most = Summary::of(theirs.iter().map(|one| one.rate)).median;
        println!("{} cannot keep {thousands}: it answers {:.1}", rival.name, most / 1e3);
        let failed = format!("{}, which answers {:.1}", rival.name, most / 1e3);
        rows.extend(report(ours, &thousands, &failed, &found[0], theirs));
        let Ok(capacity) = capacity else { continue };
        let load = Load { rate: Some(PART * capacity.median), seconds };
        let own: io::Result<Vec<_>> = (0..rounds).map(|_| measure(tools, rival, load)).collect();
        let name =
            format!("{} at {:.1}, 70 % of its own", rival.name, PART * capacity.median / 1e3);
        match own {
            Ok(own) => rows.extend(report(ours, &thousands, &name, &found[0], &own)),
            Err(error) => println!("latency: {name}: {error}"),
        }
    }
    rows
}

/// What a load finds with a server of its own.
fn measure(tools: &Tools, side: &Side, load: Load) -> io::Result<Found> {
    let server = (side.start)(tools)?;
    load::run(tools, side, server.address, load)
}

/// One percentile of a [`Found`].
type Percentile = fn(&Found) -> f64;

const PERCENTILES: [(&str, Percentile); 2] =
    [("p99.9", |found| found.p999_us), ("p99.99", |found| found.p9999_us)];

/// Prints two lines; the rows say the same.
fn report(ours: &Side, at: &str, rival: &str, own: &[Found], theirs: &[Found]) -> Rows {
    let late = |pick: Percentile| Summary::of(own.iter().chain(theirs).map(pick)).max;
    let late =
        format!("{:.0}|{:.0}", late(|found| found.late_p99_us), late(|found| found.late_max_us));
    let line = |(name, pick): (&str, Percentile)| {
        let pairs = own.iter().zip(theirs).map(|(own, theirs)| pick(theirs) / pick(own));
        let ratio = Summary::of(pairs).median;
        let [own, theirs] = [own, theirs].map(|side| Summary::of(side.iter().map(pick)));
        println!(
            "{:<44}{:>10.0}{:>10.0}{:>7.2}{:>18}{:>22}",
            format!("{name}, us, beside {rival}"),
            own.median,
            theirs.median,
            ratio,
            format!("{:.0}..{:.0}", own.min, own.max),
            late
        );
        serde_json::json!({
            "bench": format!("latency/{} {name} at {at}", ours.name), "ours": own.median,
            "rival": rival, "theirs": theirs.median, "ratio": ratio, "unit": "us",
            "min": own.min, "max": own.max,
        })
    };
    PERCENTILES.map(line).to_vec()
}
