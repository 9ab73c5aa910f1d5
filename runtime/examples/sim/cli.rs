//! The command line.

use std::io::{BufRead, IsTerminal, Write, stderr, stdin, stdout};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use coreside::sim::{Oracle, Sim, SimBuilder, SimError};

use crate::farm::{Task, Verdict, farm};
use crate::lesser::lesser;
use crate::suite::run::{Sabotage, run};
use crate::suite::scenario::{FIELDS, Scenario};
use crate::suite::workload::{KINDS, Kind, Load, Workload};
use crate::table::{Totals, grouped};

/// Runs simulated nodes from seeds and says which seeds break a promise.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
struct Options {
    /// How many seeds to run.
    #[arg(long, default_value_t = 2_000, default_value_if("sabotage", "true", "400"))]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Only this workload; without it, each seed has the next one (see --list).
    #[arg(long)]
    workload: Option<String>,
    /// Runs one seed and shows its last steps.
    #[arg(long, value_name = "SEED")]
    replay: Option<u64>,
    /// Changes a number of the replayed scenario (see --list).
    #[arg(long, value_name = "NAME=VALUE", requires = "replay")]
    set: Vec<String>,
    /// Shows every step of a replay as it happens.
    #[arg(long, requires = "replay")]
    trace: bool,
    /// How many runs at a time (default: one per processor).
    #[arg(long)]
    jobs: Option<usize>,
    /// Leaves scenarios that fail as they are, instead of making them smaller.
    #[arg(long)]
    as_found: bool,
    /// Lists workloads and the numbers of a scenario.
    #[arg(long)]
    list: bool,
    /// Plants bugs in the runtime, one at a time, and counts the seeds until each is found;
    /// --seeds bounds them (default: 400).
    #[arg(long)]
    sabotage: bool,
    /// In how many independent ranges of seeds each bug is looked for.
    #[arg(long, default_value_t = 5, requires = "sabotage")]
    ranges: u64,
    /// Only this bug.
    #[arg(long)]
    bug: Option<String>,
    /// Runs what it is told on its standard input.
    #[arg(long, hide = true)]
    worker: bool,
}

/// Violations after which no more seeds are run.
const VIOLATIONS_MAX: usize = 20;

/// Failing seeds that are made smaller.
const LESSENED_MAX: usize = 3;

pub(crate) fn main() -> ExitCode {
    let options = Options::parse();
    if options.worker {
        return work(&options);
    }
    if options.list {
        list();
        return ExitCode::SUCCESS;
    }
    let kind = match options.workload.as_deref().map(|name| (name, Kind::named(name))) {
        None => None,
        Some((_, Some(kind))) => Some(kind),
        Some((name, None)) => return refuse(&format!("there is no workload '{name}'; see --list")),
    };
    if options.sabotage {
        return sabotage(&options, kind);
    }
    match options.replay {
        Some(seed) => replay(&options, kind.unwrap_or_else(|| Kind::of(seed)), seed),
        None => hunt(&options, kind),
    }
}

fn refuse(why: &str) -> ExitCode {
    eprintln!("error: {why}");
    ExitCode::from(2)
}

fn list() {
    println!("workloads:");
    for kind in KINDS {
        println!("  {:<10} {}", kind.name, kind.about);
    }
    println!("numbers of a scenario:");
    for (name, _, least) in FIELDS {
        println!("  {name:<18} at least {least}");
    }
}

#[cfg(sabotage)]
use crate::sabotage::plant_named as plant;

#[cfg(not(sabotage))]
fn plant(_bug: &str) -> bool {
    false
}

#[cfg(sabotage)]
fn sabotage(options: &Options, kind: Option<&'static Kind>) -> ExitCode {
    let (from, seeds, ranges) = (options.from, options.seeds, options.ranges.max(1));
    crate::sabotage::hunt((from, seeds, ranges), kind, options.bug.as_deref())
}

#[cfg(not(sabotage))]
fn sabotage(_options: &Options, _kind: Option<&'static Kind>) -> ExitCode {
    refuse("bugs are planted in a build with --cfg sabotage: scripts/sim --sabotage makes it")
}

/// Runs tasks, one per line, each answered with a line.
fn work(options: &Options) -> ExitCode {
    if let Some(bug) = &options.bug
        && !plant(bug)
    {
        return refuse(&format!("there is no bug '{bug}' in this build"));
    }
    for line in stdin().lock().lines() {
        let Some(task) = line.ok().and_then(|line| Task::read(&line)) else { break };
        let verdict = task.run();
        if writeln!(stdout(), "{}", verdict.write()).and_then(|()| stdout().flush()).is_err() {
            break;
        }
    }
    ExitCode::SUCCESS
}

/// Runs many seeds.
fn hunt(options: &Options, kind: Option<&'static Kind>) -> ExitCode {
    let stopping = Arc::new(AtomicBool::new(false));
    for signal in [libc::SIGINT, libc::SIGTERM] {
        // Without a handler the signal ends us at once: as good.
        let _ = signal_hook::flag::register(signal, Arc::clone(&stopping));
    }
    let jobs =
        options.jobs.unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from));
    let (sender, verdicts) = channel();
    let last = options.from.saturating_add(options.seeds);
    let began = Instant::now();
    let mut totals = Totals::default();
    let mut failed: Vec<(Task, Verdict)> = Vec::new();
    thread::scope(|scope| {
        farm(scope, jobs, options.from..last, kind, &stopping, &sender);
        drop(sender);
        let mut shown = Instant::now();
        loop {
            match verdicts.recv_timeout(Duration::from_millis(200)) {
                Ok((task, verdict)) => {
                    totals.add(task.kind.name, &verdict.tally);
                    if verdict.failure.is_some() {
                        failed.push((task, verdict));
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if failed.len() >= VIOLATIONS_MAX {
                stopping.store(true, Ordering::Relaxed);
            }
            if shown.elapsed() > Duration::from_millis(500) {
                shown = Instant::now();
                progress(&totals, options.seeds, failed.len(), began);
            }
        }
    });
    if stderr().is_terminal() {
        eprint!("\r\x1b[K");
    }
    print!("{totals}");
    for (task, verdict) in &failed {
        println!("\nseed {} ({}): {}", task.scenario.seed, task.kind.name, verdict.what());
    }
    for (task, verdict) in failed.iter().take(LESSENED_MAX) {
        let task = if options.as_found { task.clone() } else { lesser(task, verdict) };
        println!("\nreplay: {}", task.replay());
    }
    let stopped = stopping.load(Ordering::Relaxed) && failed.len() < VIOLATIONS_MAX;
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "\n{} seeds, {} violations{}",
        grouped(totals.runs),
        failed.len(),
        if stopped { " (stopped)" } else { "" }
    );
    eprintln!("{seconds:.1} s, {:.0} seeds/s", totals.runs as f64 / seconds);
    if failed.is_empty() && totals.runs > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn progress(totals: &Totals, seeds: u64, failed: usize, began: Instant) {
    if stderr().is_terminal() {
        let rate = totals.runs as f64 / began.elapsed().as_secs_f64();
        let (runs, seeds) = (grouped(totals.runs), grouped(seeds));
        eprint!("\r\x1b[K{runs} of {seeds} seeds, {rate:.0}/s, {failed} violations");
    }
}

/// Runs one seed and shows what it did.
fn replay(options: &Options, kind: &'static Kind, seed: u64) -> ExitCode {
    let drawn = kind.scenario(seed);
    let mut scenario = drawn.clone();
    for word in &options.set {
        let set = word.split_once('=').and_then(|(name, value)| {
            let value = value.parse().ok()?;
            scenario.set(name, value).then_some(())
        });
        if set.is_none() {
            return refuse(&format!("'{word}' is not NAME=VALUE with a name of --list"));
        }
    }
    println!("workload {}, seed {seed}: {}", kind.name, scenario.differences(&Scenario::default()));
    if let Some(bug) = &options.bug
        && !plant(bug)
    {
        return refuse(&format!("there is no bug '{bug}' in this build"));
    }
    let mut workload = (kind.make)();
    let report = if options.trace {
        run(&mut Traced(workload), &scenario, Sabotage::default())
    } else {
        run(&mut *workload, &scenario, Sabotage::default())
    };
    if !options.trace {
        report.last_steps.iter().for_each(|step| println!("{step}"));
    }
    let mut totals = Totals::default();
    totals.add(kind.name, &report.tally);
    print!("{totals}");
    println!("trace hash {:016x}", report.hash);
    match report.failure {
        None => {
            println!("\n1 seeds, 0 violations");
            ExitCode::SUCCESS
        }
        Some(failure) => {
            println!("\n{failure}\n\n1 seeds, 1 violations");
            ExitCode::FAILURE
        }
    }
}

/// A workload whose steps are shown as they happen.
struct Traced(Box<dyn Workload>);

impl Workload for Traced {
    fn register(&self, builder: SimBuilder) -> SimBuilder {
        self.0.register(builder).oracle(ShowSteps)
    }

    fn load(&mut self, load: &mut Load<'_>) {
        self.0.load(load);
    }

    fn end(&mut self, sim: &mut Sim) -> Result<(), SimError> {
        println!("load has stopped");
        self.0.end(sim)
    }
}

/// No judge: shows each step.
struct ShowSteps;

impl Oracle for ShowSteps {
    fn name(&self) -> &'static str {
        "steps"
    }

    fn after_step(&mut self, sim: &Sim) -> Result<(), String> {
        sim.last_steps().last().into_iter().for_each(|step| println!("{step}"));
        Ok(())
    }
}
