//! Parts of Coreside beside their rivals.
//!
//! ```text
//! cd benches/compare
//! cargo run --release -- [ring] [timers] [codec] [wire] [shards] [--small] [--rounds N]
//!     [--json FILE]
//! ```
//!
//! Without a name, all are run. `--small` takes seconds, and its figures mean little. Rivals take
//! turns in one process. One JSON object per row:
//! `{"bench","ours","rival","theirs","ratio","unit","min","max"}`: medians, and the spread of ours.

mod codec;
mod cores;
mod ring;
mod shards;
mod timers;
mod wire;

/// What the command line asks for.
#[derive(Default)]
pub struct Options {
    names: Vec<String>,
    /// Each comparison has its own number of rounds, unless this is given.
    pub rounds: Option<usize>,
    /// Less work, to see that it runs.
    pub small: bool,
    json: Option<String>,
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
];

const USAGE: &str =
    "usage: compare [ring] [timers] [codec] [wire] [shards] [--small] [--rounds N] [--json FILE]";

fn main() -> std::process::ExitCode {
    let mut args = std::env::args().skip(1).peekable();
    if args.next_if(|arg| arg == wire::SERVER).is_some() {
        return match wire::serve(args) {
            Ok(()) => std::process::ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{error}");
                std::process::ExitCode::FAILURE
            }
        };
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

fn parse(mut args: impl Iterator<Item = String>) -> Option<Options> {
    let mut options = Options::default();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--small" => options.small = true,
            "--rounds" => options.rounds = Some(args.next()?.parse().ok().filter(|n| *n > 0)?),
            "--json" => options.json = Some(args.next()?),
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
