//! Plants bugs in the runtime, one after the other, and counts the seeds that it takes to find
//! each.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::ExitCode;

use coreside::sabotage::{Bug, plant};

use crate::farm::{Task, Verdict, Worker};
use crate::suite::workload::{KINDS, Kind};

/// How far the ranges lie apart: each begins with another workload.
const RANGE_SEEDS: u64 = 100_003;

/// Plants the bug of this name in this thread; false when there is none.
pub(crate) fn plant_named(name: &str) -> bool {
    let bug = Bug::ALL.iter().find(|bug| format!("{bug:?}") == name);
    plant(bug.copied());
    bug.is_some()
}

/// What came of one range.
enum Found {
    /// After so many seeds.
    After {
        seeds: u64,
        by: String,
    },
    /// The process died in a way that only memory that is not ours makes it die.
    Unsafe(String),
    Not,
}

/// Runs seeds with each bug until it is found, `seeds` of them at most, in each of some independent
/// ranges, and without a bug.
pub(crate) fn hunt(
    (from, seeds, ranges): (u64, u64, u64),
    kind: Option<&'static Kind>,
    only: Option<&str>,
) -> ExitCode {
    println!("# What the simulator finds\n");
    println!(
        "Bugs planted in the runtime, one at a time (`scripts/sim --sabotage`): which workload\n\
         and oracle found each, and after how many seeds, the median of {ranges} ranges of at\n\
         most {seeds} seeds, in which each seed has the next of {} workloads. `-` is a bug that\n\
         was not found in the median range.\n",
        KINDS.len()
    );
    println!("| bug | what it is | found by | median seeds | ranges |");
    println!("|---|---|---|---:|---:|");
    let (mut found, mut died, mut all) = (0, 0, 0);
    for bug in Bug::ALL {
        let name = format!("{bug:?}");
        if only.is_some_and(|only| only != name) {
            continue;
        }
        all += 1;
        let mut by: BTreeMap<String, u64> = BTreeMap::new();
        let mut counts = Vec::new();
        for range in 0..ranges {
            match one(Some(&name), from + range * RANGE_SEEDS, seeds, kind) {
                Found::After { seeds, by: finder } => {
                    *by.entry(finder).or_default() += 1;
                    counts.push(seeds);
                }
                Found::Unsafe(what) => {
                    died += 1;
                    eprintln!("{name}: {what}");
                }
                Found::Not => {}
            }
        }
        found += u64::from(!counts.is_empty());
        row(*bug, &by, counts, ranges);
    }
    let control = match one(None, from, seeds, kind) {
        Found::Not => 0,
        Found::After { by, .. } => {
            eprintln!("without a bug: {by}");
            1
        }
        Found::Unsafe(what) => {
            eprintln!("without a bug: {what}");
            1
        }
    };
    println!("\nWithout a bug: {seeds} seeds, {control} violations.");
    println!("\nfound {found} of {all}");
    let good = found == all && control == 0 && died == 0;
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn row(bug: Bug, by: &BTreeMap<String, u64>, mut counts: Vec<u64>, ranges: u64) {
    let found_in = counts.len();
    counts.resize(ranges as usize, u64::MAX);
    counts.sort_unstable();
    let median = match counts[counts.len() / 2] {
        u64::MAX => "-".to_owned(),
        seeds => seeds.to_string(),
    };
    let mut finders: Vec<_> = by.iter().collect();
    finders.sort_by_key(|(_, times)| std::cmp::Reverse(**times));
    let mut names = String::new();
    for (finder, _) in finders {
        // A string takes everything.
        let _ = write!(names, "{}{finder}", if names.is_empty() { "" } else { ", " });
    }
    println!("| {bug:?} | {} | {names} | {median} | {found_in} of {ranges} |", what(bug));
}

/// Runs seeds until one fails that does not fail without the bug.
fn one(bug: Option<&str>, from: u64, seeds: u64, kind: Option<&'static Kind>) -> Found {
    let mut worker = Worker::with_bug(bug);
    for count in 0..seeds {
        let seed = from + count;
        let kind = kind.unwrap_or_else(|| Kind::of(seed));
        let task = Task { kind, scenario: kind.scenario(seed) };
        let verdict = worker.run(&task);
        let Some(failure) = &verdict.failure else { continue };
        if bug.is_some() && Worker::new().run(&task).failure.is_some() {
            // Not the bug's doing.
            note(None, &task, &verdict);
            continue;
        }
        if failure.what.contains("SIGSEGV") || failure.what.contains("SIGBUS") {
            return Found::Unsafe(format!("{}, seed {seed}: {}", kind.name, verdict.what()));
        }
        note(bug, &task, &verdict);
        return Found::After { seeds: count + 1, by: format!("{}: {}", kind.name, failure.oracle) };
    }
    Found::Not
}

/// For whoever looks on.
fn note(bug: Option<&str>, task: &Task, verdict: &Verdict) {
    let (name, seed) = (task.kind.name, task.scenario.seed);
    eprintln!("{}: {name} {seed}: {}", bug.unwrap_or("no bug"), verdict.what());
}

/// What a bug is, in a few words.
fn what(bug: Bug) -> &'static str {
    match bug {
        Bug::LostWakeUp => "a shard that sleeps is not woken",
        Bug::DroppedOnFullRing => "a record that finds its ring full is dropped",
        Bug::PassesTheOutbox => "a record passes those in the outbox",
        Bug::UnboundedOutbox => "the outbox has no bound",
        Bug::LostWhenFull => "a full run queue loses a message",
        Bug::ReorderedStash => "the stash is given out in the wrong order",
        Bug::SilentStash => "a full stash drops without a count",
        Bug::RestartLosesMessage => "a restart loses the oldest message that waits",
        Bug::SameLife => "a restart keeps the old generation",
        Bug::NoBackoff => "a restart comes at once",
        Bug::StaleTimer => "a timer of an earlier life fires",
        Bug::EarlyTimer => "a timer fires a second early",
        Bug::AskWaitsForEver => "an ask does not end at its deadline",
        Bug::DoneTooLate => "expired work is done",
        Bug::WrongToken => "a reply goes to another ask",
        Bug::TimerTwice => "a periodic timer fires twice",
        Bug::TerminatedTwice => "a watcher is told twice",
        Bug::WatcherForgotten => "one of the watchers is not told",
        Bug::UnwatchIgnored => "a watch that was taken back tells",
        Bug::FaultNotTold => "the supervisor is not told of a fault",
        Bug::OrphanGoesOn => "a child goes on when its supervisor ends",
        Bug::ResumeForgets => "a state to be kept through a fault is made anew",
        Bug::PutsAwayBusy => "an entity with timers is put away",
        Bug::NotCancelled => "an async turn outlives its asker's deadline",
        Bug::StaysShut => "an entity stays shut behind a cancelled turn",
        Bug::CycleMissed => "a circle of asks is not refused",
        Bug::SweepSkips => "a sweep leaves one entity out",
        Bug::LeakedValue => "a message given up is not dropped",
        Bug::PoisonForgotten => "poison is thrown away",
        Bug::DeadlineNotInherited => "a nested ask has a deadline of its own",
        Bug::BoundGoesOn => "an entity bound to one that failed goes on",
        Bug::EscalationForgotten => "an escalated fault is forgotten",
        Bug::ReadGoesOn => "a life goes on behind the fault of a read",
        Bug::CopyForgotten => "a subscriber gets no copy",
        Bug::StaysAway => "an instance that always runs stays away",
        Bug::NoteForgotten => "a client does not hear that its tell was handled",
        Bug::LeaseKept => "a lease is never given back",
    }
}
