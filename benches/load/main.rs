//! `coreside-load`: a load generator for servers that speak RESP.
//!
//! One core of it drives a server at several million requests per second, so each request costs it
//! a few tens of nanoseconds: commands are compiled once and encoded by copying (`template`),
//! replies are skipped rather than parsed (`replies`), a pipeline costs one entry of bookkeeping
//! (`session`), and sockets are served through one completion ring per thread (`ring`) by one loop
//! (`driver`). Nothing allocates once the load has begun.

mod arguments;
mod plan;
mod run;

mod driver;
mod gate;
mod ring;
mod session;
mod tally;

mod decimal;
mod keys;
mod random;
mod schedule;
mod source;
mod template;
mod zipf;

mod errors;
mod replies;

mod clock;
mod cores;
mod failure;
mod progress;
mod report;

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;

use crate::arguments::Arguments;
use crate::clock::Clock;
use crate::failure::Failure;
use crate::gate::Gate;
use crate::plan::Plan;
use crate::report::machine::Machine;
use crate::report::plot::Caption;
use crate::run::Outcome;

/// There were error replies and `--check` was given.
const EXIT_ERRORS: u8 = 1;
/// The target or the machine failed, or the command line makes no sense.
const EXIT_FAILURE: u8 = 2;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let plan = match Plan::new(&arguments) {
        Ok(plan) => plan,
        Err(error) => return fail(&error),
    };
    let gate = Gate::new(Clock::start(), plan.threads);
    if let Err(error) = watch_interrupts(&gate) {
        return fail(&error);
    }
    let outcome = match run::run(&plan, &gate, arguments.quiet) {
        Ok(outcome) => outcome,
        Err(error) => return fail(&error),
    };
    if let Err(error) = report(&arguments, &plan, &outcome) {
        return fail(&error);
    }
    let tally = &outcome.tally;
    if tally.unanswered > 0 && !outcome.interrupted {
        let quiet_ns = plan.timeout.as_nanos() as u64;
        return fail(&Failure::Silent { outstanding: tally.unanswered, quiet_ns });
    }
    if arguments.check && tally.errors.count() > 0 {
        eprintln!("coreside-load: {} error replies", tally.errors.count());
        return ExitCode::from(EXIT_ERRORS);
    }
    ExitCode::SUCCESS
}

/// The first Ctrl-C ends the run early; a second one ends the process.
fn watch_interrupts(gate: &Gate) -> std::io::Result<()> {
    const INTERRUPTED: i32 = 130;
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        let stop = Arc::clone(&gate.stop);
        // In this order: the second signal finds the flag that the first has set.
        signal_hook::flag::register_conditional_shutdown(signal, INTERRUPTED, Arc::clone(&stop))?;
        signal_hook::flag::register(signal, stop)?;
    }
    Ok(())
}

fn report(arguments: &Arguments, plan: &Plan, outcome: &Outcome) -> Result<(), Failure> {
    let label = arguments.label.as_deref();
    if !arguments.quiet {
        print!("{}", report::table::render(plan, label, outcome));
    }
    if let Some(path) = &arguments.json {
        write(path, &report::json::render(plan, label, &Machine::detect(), outcome))?;
    }
    if let Some(path) = &arguments.svg {
        write(path, &plot(plan, label, outcome))?;
    }
    if let Some(path) = &arguments.hgrm {
        write(path, &report::hgrm::render(&outcome.tally.latency))?;
    }
    Ok(())
}

fn plot(plan: &Plan, label: Option<&str>, outcome: &Outcome) -> String {
    let rate = report::units::rate(outcome.tally.rate());
    let Machine { cpu, kernel, .. } = Machine::detect();
    let caption = Caption {
        title: label.unwrap_or("Latency by percentile"),
        subtitle: &format!("{}, {rate} achieved, {cpu}, Linux {kernel}", plan.summary()),
        axis: if plan.rate.is_some() { "latency from due time" } else { "latency" },
    };
    report::plot::render(&outcome.tally.latency, &caption)
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    std::fs::write(path, text).map_err(|error| Failure::Write { path: path.to_owned(), error })
}

fn fail(error: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("coreside-load: {error}");
    ExitCode::from(EXIT_FAILURE)
}
