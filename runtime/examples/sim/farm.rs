//! Many runs at a time, each in a process that may die of it: a broken invariant of a shard aborts,
//! and that is a finding like any other, which must name its seed.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write as _};
use std::ops::Range;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, Scope};
use std::time::Duration;

use crate::suite::run::{Failure, Sabotage, run};
use crate::suite::scenario::Scenario;
use crate::suite::workload::Kind;

/// One run to be made.
#[derive(Clone)]
pub(crate) struct Task {
    pub(crate) kind: &'static Kind,
    pub(crate) scenario: Scenario,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) failure: Option<Failure>,
    pub(crate) hash: u64,
    pub(crate) tally: BTreeMap<String, u64>,
}

/// How long one run may take by the real clock. Most take some milliseconds.
const RUN_MAX: Duration = Duration::from_secs(20);

/// One run in so many is made twice, and must go the same way.
const TWICE_ONE_IN: u64 = 32;

/// Starts `jobs` threads, each with a process of its own, that run seeds until there are no more.
pub(crate) fn farm<'scope>(
    scope: &'scope Scope<'scope, '_>,
    jobs: usize,
    seeds: Range<u64>,
    kind: Option<&'static Kind>,
    stopping: &Arc<AtomicBool>,
    verdicts: &Sender<(Task, Verdict)>,
) {
    let next = Arc::new(AtomicU64::new(seeds.start));
    for _ in 0..jobs.max(1) {
        let (next, stopping, verdicts) =
            (Arc::clone(&next), Arc::clone(stopping), verdicts.clone());
        scope.spawn(move || {
            let mut worker = Worker::new();
            while !stopping.load(Ordering::Relaxed) {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= seeds.end {
                    break;
                }
                let kind = kind.unwrap_or_else(|| Kind::of(seed));
                let task = Task { kind, scenario: kind.scenario(seed) };
                let mut verdict = worker.run(&task);
                if seed % TWICE_ONE_IN == 0 && verdict.failure.is_none() {
                    let again = worker.run(&task).hash;
                    verdict.failure = (again != verdict.hash).then(|| Failure {
                        oracle: "repetition".to_owned(),
                        what: format!("trace {:016x}, then {again:016x}", verdict.hash),
                    });
                }
                if verdicts.send((task, verdict)).is_err() {
                    break;
                }
            }
        });
    }
}

impl Task {
    /// Runs it in this process.
    pub(crate) fn run(&self) -> Verdict {
        let report = run(&mut *(self.kind.make)(), &self.scenario, Sabotage::default());
        let tally = report.tally.into_iter().map(|(what, count)| (what.to_owned(), count));
        Verdict { failure: report.failure, hash: report.hash, tally: tally.collect() }
    }

    /// The command that runs it again.
    pub(crate) fn replay(&self) -> String {
        let seed = self.scenario.seed;
        let mut command = format!("scripts/sim --workload {} --replay {seed}", self.kind.name);
        let differences = self.scenario.differences(&self.kind.scenario(seed));
        for word in differences.split(' ').filter(|word| !word.is_empty()) {
            // A string takes everything.
            let _ = write!(command, " --set {word}");
        }
        command
    }

    /// As one line.
    fn write(&self) -> String {
        let seed = self.scenario.seed;
        let differences = self.scenario.differences(&self.kind.scenario(seed));
        format!("{} {seed} {differences}", self.kind.name)
    }

    /// From the line that [`write`](Self::write) made.
    pub(crate) fn read(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace();
        let kind = Kind::named(words.next()?)?;
        let mut scenario = kind.scenario(words.next()?.parse().ok()?);
        for word in words {
            let (name, value) = word.split_once('=')?;
            scenario.set(name, value.parse().ok()?);
        }
        Some(Self { kind, scenario })
    }
}

impl Verdict {
    fn failed(oracle: &str, what: String) -> Self {
        let failure = Failure { oracle: oracle.to_owned(), what };
        Self { failure: Some(failure), ..Self::default() }
    }

    /// Why it failed.
    pub(crate) fn what(&self) -> String {
        self.failure.as_ref().map_or_else(String::new, Failure::to_string)
    }

    /// As one line: hash, tally, failure, with bars between.
    pub(crate) fn write(&self) -> String {
        let mut line = format!("{:x}|", self.hash);
        for (what, count) in &self.tally {
            // A string takes everything.
            let _ = write!(line, "{what}={count};");
        }
        if let Some(Failure { oracle, what }) = &self.failure {
            let _ = write!(line, "|{oracle}|{}", what.replace('\n', " "));
        }
        line
    }

    /// From the line that [`write`](Self::write) made.
    fn read(line: &str) -> Option<Self> {
        let mut parts = line.splitn(4, '|');
        let hash = u64::from_str_radix(parts.next()?, 16).ok()?;
        let count = |pair: &str| {
            let (what, count) = pair.split_once('=')?;
            Some((what.to_owned(), count.parse().ok()?))
        };
        let tally = parts.next()?.split_terminator(';').map(count).collect::<Option<_>>()?;
        let failure = parts
            .next()
            .zip(parts.next())
            .map(|(oracle, what)| Failure { oracle: oracle.to_owned(), what: what.to_owned() });
        Some(Self { failure, hash, tally })
    }
}

/// A process that makes runs, and another one when that has died.
pub(crate) struct Worker {
    process: Option<Process>,
    /// The bug that is planted in it.
    bug: Option<String>,
}

struct Process {
    child: Child,
    tasks: ChildStdin,
    verdicts: Receiver<String>,
}

impl Worker {
    pub(crate) fn new() -> Self {
        Self { process: None, bug: None }
    }

    /// One with a bug planted (see `scripts/sim --sabotage`).
    #[cfg(sabotage)]
    pub(crate) fn with_bug(bug: Option<&str>) -> Self {
        Self { process: None, bug: bug.map(str::to_owned) }
    }

    pub(crate) fn run(&mut self, task: &Task) -> Verdict {
        if self.process.is_none() {
            match Process::start(self.bug.as_deref()) {
                Ok(process) => self.process = Some(process),
                Err(error) => return Verdict::failed("set-up", error.to_string()),
            }
        }
        let Some(process) = &mut self.process else {
            return Verdict::failed("set-up", "there is no process".to_owned());
        };
        let verdict = process.run(task);
        if verdict.failure.is_some() {
            // What has failed may have left something behind.
            self.process = None;
        }
        verdict
    }
}

impl Process {
    fn start(bug: Option<&str>) -> std::io::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("--worker")
            .args(bug.map(|bug| format!("--bug={bug}")))
            // Ctrl-C is for us; it ends when its input does.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let (Some(tasks), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(std::io::ErrorKind::BrokenPipe.into());
        };
        let (sender, verdicts) = channel();
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Self { child, tasks, verdicts })
    }

    fn run(&mut self, task: &Task) -> Verdict {
        // If it cannot be written, there will be no answer either.
        let _ = writeln!(self.tasks, "{}", task.write());
        match self.verdicts.recv_timeout(RUN_MAX) {
            Ok(line) => Verdict::read(&line)
                .unwrap_or_else(|| Verdict::failed("process", format!("said '{line}'"))),
            Err(RecvTimeoutError::Timeout) => {
                Verdict::failed("process", format!("no end after {} s", RUN_MAX.as_secs()))
            }
            Err(RecvTimeoutError::Disconnected) => {
                let end = self.child.wait().map(|status| status.to_string());
                let end = end.unwrap_or_else(|error| error.to_string());
                Verdict::failed("process", format!("ended by itself: {end}"))
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Gone already, perhaps.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
