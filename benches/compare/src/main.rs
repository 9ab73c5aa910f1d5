//! Parts of Coreside beside their rivals.
//!
//! ```text
//! cd benches/compare
//! cargo run --release -- [ring] [timers] [codec] [wire] [tls] [OPTIONS]
//! cargo run --release -- shards --tools DIR [--seconds N] ..
//! cargo run --release -- latency --tools DIR --redis FILE [--seconds N] ..
//! ```
//!
//! Without a name, all are run; `shards` and `latency` only with the programs that they need.
//! `--small` takes seconds, and its figures mean little. Rivals take turns in one process. One JSON
//! object per row:
//! `{"bench","ours","rival","theirs","ratio","unit","min","max"}`: medians, and the spread of ours.

mod codec;
mod cores;
mod latency;
mod ring;
mod shards;
mod timers;
mod tls;
mod wire;

use std::path::PathBuf;

/// What the command line asks for.
#[derive(Default)]
pub struct Options {
    names: Vec<String>,
    /// Each comparison has its own number of rounds, unless this is given.
    pub rounds: Option<usize>,
    /// Less work, to see that it runs.
    pub small: bool,
    /// Only the rows of `wire` whose names contain this.
    pub only: Option<String>,
    json: Option<String>,
    /// Of each measurement at a given rate.
    pub seconds: Option<u32>,
    /// Where `coreside-load` is, and the examples in `examples`.
    pub tools: Option<PathBuf>,
    /// `redis-server`.
    pub redis: Option<PathBuf>,
}

impl Options {
    /// Whether the row of this name is asked for.
    pub fn wants(&self, row: &str) -> bool {
        self.only.as_ref().is_none_or(|part| row.contains(part))
    }
}

/// Results, one object each.
pub type Rows = Vec<serde_json::Value>;

/// A comparison: what it is called, and what runs it.
type Comparison = (&'static str, fn(&Options) -> Rows);

const COMPARISONS: &[Comparison] = &[
    ("ring", ring::run),
    ("timers", timers::run),
    ("codec", codec::run),
    ("wire", wire::run),
    ("shards", shards::run),
    ("tls", tls::run),
    ("latency", latency::run),
];

const USAGE: &str = "usage: compare [ring] [timers] [codec] [wire] [shards] [tls] [latency] \
     [--small] [--rounds N] [--only ROW] [--json FILE] [--seconds N] [--tools DIR] [--redis FILE]";

fn main() -> std::process::ExitCode {
    let mut args = std::env::args().skip(1).peekable();
    if args.next_if(|arg| arg == wire::SERVER).is_some() {
        return ended(wire::serve(args));
    }
    if args.next_if(|arg| arg == latency::SERVER).is_some() {
        return ended(latency::serve());
    }
    if args.next_if(|arg| arg == tls::SERVER).is_some() {
        return ended(tls::serve(args.next()));
    }
    let Some(options) = parse(args) else {
        eprintln!("{USAGE}");
        return std::process::ExitCode::from(2);
    };
    let mut lines = String::new();
    for (name, run) in COMPARISONS {
        if options.names.is_empty() || options.names.iter().any(|given| given == name) {
            for row in run(&options) {
                lines.push_str(&format!("{row}\n"));
            }
        }
    }
    if let Some(file) = &options.json
        && let Err(error) = std::fs::write(file, lines)
    {
        eprintln!("{file}: {error}");
        return std::process::ExitCode::FAILURE;
    }
    std::process::ExitCode::SUCCESS
}

/// How the process of a server ends.
fn ended(served: std::io::Result<()>) -> std::process::ExitCode {
    match served {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            std::process::ExitCode::FAILURE
        }
    }
}

fn parse(mut args: impl Iterator<Item = String>) -> Option<Options> {
    let mut options = Options::default();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--small" => options.small = true,
            "--rounds" => options.rounds = Some(args.next()?.parse().ok().filter(|n| *n > 0)?),
            "--only" => options.only = Some(args.next()?),
            "--json" => options.json = Some(args.next()?),
            "--seconds" => options.seconds = Some(args.next()?.parse().ok().filter(|n| *n > 0)?),
            "--tools" => options.tools = Some(args.next()?.into()),
            "--redis" => options.redis = Some(args.next()?.into()),
            name if COMPARISONS.iter().any(|(known, _)| *known == name) => options.names.push(arg),
            _ => return None,
        }
    }
    Some(options)
}

/// What the rounds of one measurement come to.
#[derive(Clone, Copy)]
pub struct Summary {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Summary {
    /// Of at least one value.
    pub fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        Self { median: values[values.len() / 2], min: values[0], max: values[values.len() - 1] }
    }
}
