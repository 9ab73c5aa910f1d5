//! Micro benchmarks of the shard: what a message costs, beside a loop written by hand.
//!
//! ```text
//! cargo run --release -p coreside-bench --bin micro -- [FILTER] [--json FILE] [--quick]
//! ```
//!
//! Every row runs two programs alternately in one process: *ours*, on the shard's own code, and the
//! *limit*, a loop that does the same memory work with everything else taken away: types known at
//! compile time, no dispatch, no supervision, no bounds. Beside `async/..` stands the same in sync
//! turns, beside `ring/24B/array-queue` that queue, beside `view/..` the message by value. A row
//! shows the medians, the ratio of ours to the limit (median over the pairs of runs), and the least
//! and greatest of our runs.

mod activate;
mod ask;
mod async_turn;
mod bench_entity;
mod cross;
mod limits;
mod machine;
mod measure;
mod restart;
mod ring;
mod tell;
mod timer;
mod view;
mod watch;
mod wire;

use std::error::Error;
use std::path::PathBuf;

use clap::Parser;

use measure::{Effort, Row};

/// Micro benchmarks of the shard, each beside a hand-written limit
#[derive(Parser)]
struct Options {
    /// Run only the rows whose name contains this
    filter: Option<String>,

    /// Write one JSON object per row to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Small sizes and few rounds: shows that everything runs, not how fast
    #[arg(long)]
    quick: bool,

    /// Pairs of runs per row [default: 9; 3 with --quick]
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,
}

/// One row: its name, and what measures it.
type Bench = (&'static str, fn(&Effort) -> Row);

const BENCHES: &[Bench] = &[
    ("tell/1", |effort| tell::run(effort, 1)),
    ("tell/1k", |effort| tell::run(effort, 1_000)),
    ("tell/1m", |effort| tell::run(effort, 1_000_000)),
    ("tell/10m", |effort| tell::run(effort, 10_000_000)),
    ("ask/local", ask::run),
    ("ring/24B", ring::run),
    ("ring/24B/array-queue", ring::run_array_queue),
    ("cross/tell", cross::tell),
    ("cross/ask", cross::ask),
    ("async/ready", async_turn::ready),
    ("async/ask", async_turn::ask),
    ("async/sleep", async_turn::sleep),
    ("restart", restart::run),
    ("watch", watch::run),
    ("view/flat", view::flat),
    ("view/64B", |effort| view::run(effort, 64)),
    ("view/1KiB", |effort| view::run(effort, 1 << 10)),
    ("view/4KiB", |effort| view::run(effort, 4 << 10)),
    ("view/64KiB", |effort| view::run(effort, 64 << 10)),
    ("view/lent/64B", |effort| view::lent(effort, 64)),
    ("timer", timer::run),
    ("timer/bytes", timer::footprint),
    ("footprint/10m", activate::footprint),
    ("activate/10m", activate::rate),
    ("wire/ask", wire::ask),
];

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    let effort = Effort::new(options.quick, options.rounds);
    let wanted = |name: &str| options.filter.as_deref().is_none_or(|filter| name.contains(filter));
    println!("{}", machine::describe());
    println!("{}", Row::HEADER);
    let mut lines = String::new();
    let mut count = 0;
    for (name, bench) in BENCHES.iter().filter(|(name, _)| wanted(name)) {
        let row = bench(&effort);
        println!("{}", row.to_text(name));
        lines.push_str(&row.to_json(name).to_string());
        lines.push('\n');
        count += 1;
    }
    if count == 0 {
        let names: Vec<_> = BENCHES.iter().map(|(name, _)| *name).collect();
        return Err(format!("no row matches; there are: {}", names.join(" ")).into());
    }
    if let Some(file) = options.json {
        std::fs::write(&file, lines).map_err(|error| format!("{}: {error}", file.display()))?;
    }
    Ok(())
}
