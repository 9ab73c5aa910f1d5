//! Stress programs: what a node does while much goes wrong, with checks that can fail.
//!
//! ```text
//! cargo run --release --bin stress -- [panics | overload] [--quick] [--json FILE]
//! ```
//!
//! `panics`: a million panics in some entities while others are served. `overload`: ten times as
//! much offered as can be done, from outside and between shards, and rings as small as they may be.
//! Speeds are reported as median, least and greatest; they never fail a run. What has to be exact
//! (counts, states, bounds, every ask's end) is checked, and a check that fails makes the exit code
//! 1. Ctrl-C ends a measurement early; what was measured is reported and checked.

mod across;
mod clock;
#[path = "../micro/machine.rs"]
#[expect(dead_code, reason = "a node pins its own threads")]
mod machine;
mod memory;
mod outside;
mod overload;
mod panics;
mod report;
mod rings;
mod run;
mod sink;
mod storm;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::run::Run;

/// What a node does while much goes wrong
#[derive(Parser)]
struct Options {
    /// Which program [default: all of them]
    #[command(subcommand)]
    program: Option<Program>,

    /// Write one JSON object per row and check to this file
    #[arg(long, value_name = "FILE", global = true)]
    json: Option<PathBuf>,

    /// Small and short: shows that everything runs and adds up, not how fast
    #[arg(long, global = true)]
    quick: bool,
}

#[derive(Subcommand)]
enum Program {
    /// Panics in some entities while others are served
    Panics(panics::Options),
    /// More offered than can be done
    Overload(overload::Options),
}

fn main() -> ExitCode {
    let options = Options::parse();
    match start(options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("stress: {error}");
            ExitCode::from(2)
        }
    }
}

/// Returns whether every check held.
fn start(options: Options) -> Result<bool, Box<dyn Error>> {
    println!("{}", machine::describe());
    let mut run = Run::new(options.quick)?;
    match options.program {
        Some(Program::Panics(panics)) => panics::run(&panics, &mut run)?,
        Some(Program::Overload(overload)) => overload::run(&overload, &mut run)?,
        None => {
            panics::run(&panics::Options::default(), &mut run)?;
            overload::run(&overload::Options::default(), &mut run)?;
        }
    }
    if let Some(file) = options.json {
        std::fs::write(&file, run.report.to_json())
            .map_err(|error| format!("{}: {error}", file.display()))?;
    }
    Ok(run.report.all_held())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_stand_before_and_behind_the_program() {
        for line in [
            "stress --quick panics --panics 5",
            "stress panics --panics 5 --quick --json f",
            "stress overload --seconds 0.5 --ring-bytes 512,4096 --quick",
        ] {
            let parsed = Options::try_parse_from(line.split(' '));
            assert!(parsed.is_ok_and(|options| options.quick), "{line}");
        }
        assert!(Options::try_parse_from(["stress", "floods"]).is_err());
    }
}
