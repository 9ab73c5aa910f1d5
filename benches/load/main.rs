//! `coreside-load`: a load generator for servers that speak RESP or Coreside's native protocol.
//!
//! One core of it drives a server at several million requests per second, so each request costs it
//! a few tens of nanoseconds: commands are compiled once and encoded by copying (`template`),
//! replies are skipped rather than parsed (`replies`), a pipeline costs one entry of bookkeeping
//! (`session`), and sockets are served through one completion ring per thread (`ring`) by one loop
//! (`driver`). Nothing allocates once the load has begun. Natively, a message is compiled into a
//! frame in which a few words change (`native`).

mod arguments;
mod plan;
mod run;
mod sweep;

mod driver;
mod gate;
mod hiccup;
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
mod native;
mod replies;

#[cfg(test)]
mod against_node;

mod clock;
mod cores;
mod failure;
mod progress;
mod report;

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;

use crate::arguments::{Action, CommandLine, Load, Run, Sweep};
use crate::clock::Clock;
use crate::failure::Failure;
use crate::gate::Gate;
use crate::plan::Plan;
use crate::report::machine::Machine;
use crate::report::svg::Caption;
use crate::run::Outcome;
use crate::sweep::Curve;

/// There were error replies and `--check` was given.
const EXIT_ERRORS: u8 = 1;
/// The target or the machine failed, or the command line makes no sense.
const EXIT_FAILURE: u8 = 2;

fn main() -> ExitCode {
    let line = CommandLine::parse();
    let done = match &line.action {
        None => measure(&line.run),
        Some(Action::Sweep(sweep)) => measure_curve(sweep),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("coreside-load: {error}");
            ExitCode::from(EXIT_FAILURE)
        }
    }
}

fn measure(arguments: &Run) -> Result<ExitCode, Box<dyn Error>> {
    let plan = Plan::new(arguments)?;
    let Load { json, svg, .. } = &arguments.load;
    [json, svg, &arguments.hgrm].into_iter().flatten().try_for_each(|path| try_out(path))?;
    let gate = Gate::new(Clock::start(), plan.threads);
    watch_interrupts(&gate)?;
    let quiet = arguments.load.quiet;
    let outcome = run::run(&plan, &gate, quiet, |crew| crew.measure(plan.rate))?;
    report(arguments, &plan, &outcome)?;
    let tally = &outcome.tally;
    let unanswered = if outcome.interrupted { 0 } else { tally.unanswered };
    verdict(&arguments.load, &plan, unanswered, tally.errors.count())
}

fn measure_curve(arguments: &Sweep) -> Result<ExitCode, Box<dyn Error>> {
    let plan = Plan::of_sweep(arguments)?;
    let Sweep { load, rates, points, .. } = arguments;
    [&load.json, &load.svg].into_iter().flatten().try_for_each(|path| try_out(path))?;
    let gate = Gate::new(Clock::start(), plan.threads);
    watch_interrupts(&gate)?;
    let curve = run::run(&plan, &gate, load.quiet, |crew| sweep::sweep(crew, rates, *points))?;
    report_curve(load, &plan, &curve)?;
    let unanswered = if curve.interrupted() { 0 } else { curve.unanswered() };
    verdict(load, &plan, unanswered, curve.errors())
}

/// How the process ends once everything is reported.
fn verdict(
    load: &Load,
    plan: &Plan,
    unanswered: u64,
    errors: u64,
) -> Result<ExitCode, Box<dyn Error>> {
    if unanswered > 0 {
        let quiet_ns = plan.timeout.as_nanos() as u64;
        return Err(Failure::Silent { outstanding: unanswered, quiet_ns }.into());
    }
    if load.check && errors > 0 {
        eprintln!("coreside-load: {errors} error replies");
        return Ok(ExitCode::from(EXIT_ERRORS));
    }
    Ok(ExitCode::SUCCESS)
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

fn report(arguments: &Run, plan: &Plan, outcome: &Outcome) -> Result<(), Failure> {
    let load = &arguments.load;
    let label = load.label.as_deref();
    if !load.quiet {
        print!("{}", report::table::render(plan, label, outcome));
    }
    if let Some(path) = &load.json {
        write(path, &report::json::render(plan, label, &Machine::detect(), outcome))?;
    }
    if let Some(path) = &load.svg {
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
        across: "percentile of requests",
        up: if plan.rate.is_some() { "latency from due time" } else { "latency" },
    };
    report::plot::render(&outcome.tally.latency, &caption)
}

fn report_curve(load: &Load, plan: &Plan, curve: &Curve) -> Result<(), Failure> {
    let label = load.label.as_deref();
    if !load.quiet {
        print!("{}", report::points::table(plan, label, curve));
    }
    let machine = Machine::detect();
    if let Some(path) = &load.json {
        write(path, &report::points::json(plan, label, &machine, curve))?;
    }
    if let Some(path) = &load.svg {
        let Machine { cpu, kernel, .. } = &machine;
        let summary = plan.summary_at(report::points::pace(plan));
        let caption = Caption {
            title: label.unwrap_or("Latency by load"),
            subtitle: &format!("{summary}, {cpu}, Linux {kernel}"),
            across: "offered rate, requests per second",
            up: "latency from due time",
        };
        write(path, &report::curve::render(curve, &caption))?;
    }
    Ok(())
}

/// Whether a report can be written, before minutes of measuring are lost for it. What is there
/// stays until it is.
fn try_out(path: &Path) -> Result<(), Failure> {
    let found = path.metadata();
    if found.as_ref().is_ok_and(|found| !found.is_file() && !found.is_dir()) {
        // Whoever reads a pipe would take this for its end.
        return Ok(());
    }
    let is_new = found.is_err();
    let tried = std::fs::OpenOptions::new().append(true).create(true).open(path);
    let tried = tried.and_then(|_| if is_new { std::fs::remove_file(path) } else { Ok(()) });
    tried.map_err(|error| Failure::Write { path: path.to_owned(), error })
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    std::fs::write(path, text).map_err(|error| Failure::Write { path: path.to_owned(), error })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn report_that_cannot_be_written_is_refused_before_anything_is_measured() {
        let folder = std::env::temp_dir().join(format!("coreside-load-{}", std::process::id()));
        std::fs::create_dir(&folder).expect("a folder");
        let (lost, new, old) =
            (folder.join("no/a.svg"), folder.join("b.svg"), folder.join("c.svg"));
        std::fs::write(&old, "kept").expect("a file");
        // Nothing listens there any more.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let nowhere = listener.local_addr().expect("a port").to_string();
        drop(listener);
        let words = ["coreside-load", "sweep", "--addr", nowhere.as_str(), "--svg"];
        let run = |path: &Path| {
            let words = words.map(Into::into).into_iter().chain([path.into()]);
            let line = CommandLine::parse_from::<_, std::ffi::OsString>(words);
            let Some(Action::Sweep(sweep)) = &line.action else { panic!("a sweep") };
            measure_curve(sweep).expect_err("it fails").to_string()
        };
        assert!(run(&lost).contains("no/a.svg"), "{}", run(&lost));
        assert!(run(&new).contains("cannot connect") && !new.exists());
        assert!(run(&old).contains("cannot connect"));
        assert_eq!(std::fs::read_to_string(&old).expect("a file"), "kept");
        std::fs::remove_dir_all(&folder).expect("a folder");
    }
}
