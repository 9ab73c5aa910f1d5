//! What to do, once the command line is known to make sense.

use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use crate::arguments::{Arguments, Arrivals, CoreList, Distribution, Idle, Workload};
use crate::driver::Phase;
use crate::keys::Keys;
use crate::random::Random;
use crate::report::units;
use crate::schedule::Schedule;
use crate::source::{Source, Weighted};
use crate::template::{Template, TemplateError};
use crate::zipf::Zipf;

/// Outstanding requests per connection while populating, unless `--depth` is deeper.
const POPULATE_DEPTH: u32 = 64;

/// A run in terms of its parts.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) targets: Vec<SocketAddr>,
    pub(crate) connections: usize,
    pub(crate) depth: u32,
    pub(crate) threads: usize,
    pub(crate) cores: Vec<usize>,
    pub(crate) keys: u64,
    pub(crate) distribution: Distribution,
    pub(crate) zipf_exponent: f64,
    pub(crate) seed: u64,
    /// The commands as they were written.
    pub(crate) commands: Vec<String>,
    pub(crate) value_bytes: usize,
    pub(crate) rate: Option<f64>,
    pub(crate) arrivals: Arrivals,
    pub(crate) warmup: Duration,
    pub(crate) length: Length,
    pub(crate) spin: bool,
    pub(crate) populate: Option<String>,
    pub(crate) timeout: Duration,
    workload: Vec<Weighted>,
    populating: Option<Weighted>,
}

/// How long to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Length {
    Time(Duration),
    Requests(u64),
}

/// Why a command line that parses makes no sense.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub(crate) enum PlanError {
    Address { text: String, reason: String },
    Command { text: String, error: TemplateError },
    Weight { text: String },
    FewConnections { connections: usize, threads: usize },
}

impl std::fmt::Display for PlanError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Address { text, reason } => write!(f, "--addr {text}: {reason}"),
            Self::Command { text, error } => write!(f, "command '{text}': {error}"),
            Self::Weight { text } => {
                write!(f, "command '{text}': a weight is a whole number above 0, as in 3*GET x")
            }
            Self::FewConnections { connections, threads } => {
                write!(f, "{connections} connections are too few for {threads} threads")
            }
        }
    }
}

impl Plan {
    /// # Errors
    /// When an address, a command or a combination is wrong.
    pub(crate) fn new(arguments: &Arguments) -> Result<Self, PlanError> {
        let (connections, threads) =
            (arguments.connections as usize, usize::from(arguments.threads));
        if connections < threads {
            return Err(PlanError::FewConnections { connections, threads });
        }
        let targets = arguments.addr.iter().map(|text| resolve(text)).collect::<Result<_, _>>()?;
        let commands: Vec<String> = if arguments.command.is_empty() {
            let workload = arguments.workload.unwrap_or(Workload::Set);
            workload.commands().iter().map(|&text| text.to_owned()).collect()
        } else {
            arguments.command.clone()
        };
        let value = vec![b'x'; arguments.value_bytes as usize];
        let compile = |text: &String| compile(text, &value);
        let workload = commands.iter().map(compile).collect::<Result<_, _>>()?;
        let populating = arguments.populate.as_ref().map(compile).transpose()?;
        let length = match arguments.requests {
            Some(requests) => Length::Requests(requests),
            None => Length::Time(Duration::from_secs_f64(arguments.duration)),
        };
        let spin = match arguments.idle {
            Some(idle) => idle == Idle::Spin,
            None => arguments.rate.is_some(),
        };
        Ok(Self {
            targets,
            connections,
            depth: arguments.depth,
            threads,
            cores: arguments.cores.clone().map_or_else(Vec::new, |CoreList(cores)| cores),
            keys: arguments.keys,
            distribution: arguments.distribution,
            zipf_exponent: arguments.zipf_exponent,
            seed: arguments.seed,
            commands,
            value_bytes: value.len(),
            rate: arguments.rate,
            arrivals: arguments.arrivals,
            warmup: Duration::from_secs_f64(arguments.warmup),
            length,
            spin,
            populate: arguments.populate.clone(),
            timeout: Duration::from_secs_f64(arguments.timeout),
            workload,
            populating,
        })
    }

    /// The run in one line for the head of a report.
    pub(crate) fn summary(&self) -> String {
        let mut parts = vec![self.commands.join(" | ")];
        parts.push(match self.rate {
            Some(rate) => format!("open loop, {} {}", units::rate(rate), self.arrivals.name()),
            None => "closed loop".to_owned(),
        });
        parts.push(format!("{} connections x depth {}", self.connections, self.depth));
        if self.threads > 1 {
            parts.push(format!("{} threads", self.threads));
        }
        parts.push(match self.distribution {
            Distribution::Uniform => format!("{} keys", units::count(self.keys)),
            Distribution::Zipf => {
                format!("{} keys, zipf {}", units::count(self.keys), self.zipf_exponent)
            }
        });
        parts.join(", ")
    }

    /// The deepest pipeline that any phase of the run uses.
    pub(crate) fn depth_max(&self) -> u32 {
        if self.populate.is_some() { self.depth.max(POPULATE_DEPTH) } else { self.depth }
    }

    /// Memory to send from per connection: a full pipeline of the longest command, but no more than
    /// helps; a pipeline that does not fit goes out in pieces.
    pub(crate) fn outbox_bytes(&self) -> usize {
        const OUTBOX_BYTES_MAX: usize = 256 * 1024;
        let commands = self.workload.iter().chain(&self.populating);
        let longest = commands.map(|command| command.room_bytes()).max().unwrap_or(0);
        (longest * self.depth_max() as usize).min(OUTBOX_BYTES_MAX).max(longest)
    }

    /// The targets of a thread's connections: its share of all, which go to the targets in turn.
    pub(crate) fn connections_of(&self, thread: usize) -> Vec<SocketAddr> {
        (thread..self.connections)
            .step_by(self.threads)
            .map(|connection| self.targets[connection % self.targets.len()])
            .collect()
    }

    /// One request per key of the thread's range, or `None` without `--populate`.
    pub(crate) fn populating_phase(&self, thread: usize, begin_ns: u64) -> Option<Phase> {
        let command = self.populating.clone()?;
        let keys = Keys::Sequential { next: self.first_key(thread) };
        let limit = self.first_key(thread + 1) - self.first_key(thread);
        Some(Phase {
            source: self.source(vec![command], keys, thread, 0),
            schedule: None,
            depth: self.depth_max(),
            open_ns: begin_ns,
            close_ns: u64::MAX,
            limit,
            spin: false,
        })
    }

    /// Warm-up and measurement.
    pub(crate) fn loading_phase(&self, thread: usize, begin_ns: u64) -> Phase {
        let keys = match self.distribution {
            Distribution::Uniform => Keys::Uniform { count: self.keys },
            Distribution::Zipf => Keys::Zipf(Zipf::new(self.keys, self.zipf_exponent)),
        };
        let schedule = self.rate.map(|rate| match self.arrivals {
            Arrivals::Constant => Schedule::constant(begin_ns, rate, thread, self.threads),
            Arrivals::Poisson => {
                Schedule::poisson(begin_ns, rate, self.threads, self.random(thread, 2))
            }
        });
        let open_ns = begin_ns + self.warmup.as_nanos() as u64;
        let (close_ns, limit) = match self.length {
            Length::Time(time) => (open_ns + time.as_nanos() as u64, u64::MAX),
            Length::Requests(requests) => (u64::MAX, share(requests, thread, self.threads)),
        };
        let source = self.source(self.workload.clone(), keys, thread, 1);
        Phase { source, schedule, depth: self.depth, open_ns, close_ns, limit, spin: self.spin }
    }

    fn source(&self, commands: Vec<Weighted>, keys: Keys, thread: usize, purpose: u64) -> Source {
        let random = self.random(thread, purpose);
        Source::new(commands, keys, random, thread as u64, self.threads as u64)
    }

    fn random(&self, thread: usize, purpose: u64) -> Random {
        const PURPOSES: u64 = 3;
        Random::new(self.seed, thread as u64 * PURPOSES + purpose)
    }

    /// Where a thread's range of keys begins; ranges of consecutive threads are adjacent.
    fn first_key(&self, thread: usize) -> u64 {
        (u128::from(self.keys) * thread as u128 / self.threads as u128) as u64
    }
}

fn share(total: u64, thread: usize, threads: usize) -> u64 {
    let (thread, threads) = (thread as u64, threads as u64);
    total / threads + u64::from(thread < total % threads)
}

fn resolve(text: &str) -> Result<SocketAddr, PlanError> {
    let error = |reason: String| PlanError::Address { text: text.to_owned(), reason };
    let mut found = text.to_socket_addrs().map_err(|reason| error(reason.to_string()))?;
    found.next().ok_or_else(|| error("this name has no address".to_owned()))
}

/// Compiles `GET x` or `3*GET x`.
fn compile(text: &str, value: &[u8]) -> Result<Weighted, PlanError> {
    let (weight, command) = match text.split_once('*') {
        // A star inside the command, behind its first word, is none of ours.
        Some((weight, command)) if !weight.contains(char::is_whitespace) => match weight.parse() {
            Ok(weight) if weight > 0 => (weight, command),
            _ => return Err(PlanError::Weight { text: text.to_owned() }),
        },
        _ => (1, text),
    };
    let template = Template::compile(command, value)
        .map_err(|error| PlanError::Command { text: text.to_owned(), error })?;
    Ok(Weighted { weight, template })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    fn plan(words: &[&str]) -> Result<Plan, PlanError> {
        let words = [&["coreside-load"], words].concat();
        Plan::new(&Arguments::try_parse_from(words).expect("a parsable command line"))
    }

    #[test]
    fn connections_and_keys_are_shared_out_completely() {
        let plan = plan(&[
            "--connections",
            "10",
            "--threads",
            "3",
            "--keys",
            "100",
            "--populate",
            "SET {key} x",
            "--addr",
            "127.0.0.1:1,127.0.0.1:2",
        ])
        .expect("valid");
        let connections: usize = (0..3).map(|thread| plan.connections_of(thread).len()).sum();
        assert_eq!(connections, 10);
        let keys: u64 =
            (0..3).filter_map(|thread| plan.populating_phase(thread, 0)).map(|p| p.limit).sum();
        assert_eq!(keys, 100);
        assert_eq!((0..3).map(|thread| share(11, thread, 3)).sum::<u64>(), 11);
    }

    #[test]
    fn weights_are_told_from_stars() {
        assert_eq!(compile("3*GET {key}", b"").expect("valid").weight, 3);
        assert_eq!(compile("KEYS a*b", b"").expect("valid").weight, 1);
        assert!(matches!(compile("0*GET x", b""), Err(PlanError::Weight { .. })));
        assert!(matches!(compile("x*GET x", b""), Err(PlanError::Weight { .. })));
    }

    #[test]
    fn mistakes_are_named() {
        assert!(matches!(plan(&["--addr", "nonsense"]), Err(PlanError::Address { .. })));
        assert!(matches!(plan(&["--command", "GET {x}"]), Err(PlanError::Command { .. })));
        let few = plan(&["--connections", "1", "--threads", "2"]);
        assert!(matches!(few, Err(PlanError::FewConnections { .. })));
    }

    #[test]
    fn outboxes_hold_at_least_one_command() {
        let plan = plan(&["--value-bytes", "1000000", "--depth", "64"]).expect("valid");
        assert!(plan.outbox_bytes() > 1_000_000 && plan.outbox_bytes() < 1_100_000);
    }
}
