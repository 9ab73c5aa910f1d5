//! What to do, once the command line is known to make sense.

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use crate::arguments::{
    Arrivals, CoreList, Distribution, Idle, KeyBits, Load, Protocol, Run, Share, Sweep, Workload,
};
use crate::driver::Phase;
use crate::keys::Keys;
use crate::native::message::{Message, Named, TELL};
use crate::native::shape::{Refusal, Types};
use crate::native::words::Mistake;
use crate::random::Random;
use crate::report::units;
use crate::schedule::Schedule;
use crate::source::{Command, Source, Weighted};
use crate::template::{Template, TemplateError};
use crate::zipf::Zipf;

/// Outstanding requests per connection while populating, unless `--depth` is deeper.
const POPULATE_DEPTH: u32 = 64;

/// A run in terms of its parts.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) targets: Vec<SocketAddr>,
    pub(crate) protocol: Protocol,
    pub(crate) connections: usize,
    pub(crate) depth: u32,
    pub(crate) threads: usize,
    pub(crate) cores: Vec<usize>,
    pub(crate) keys: u64,
    pub(crate) distribution: Distribution,
    pub(crate) zipf_exponent: f64,
    pub(crate) hot_keys: u64,
    pub(crate) hot_share: f64,
    pub(crate) seed: u64,
    /// The commands as they were written, and their weights.
    pub(crate) commands: Vec<(String, u32)>,
    pub(crate) value_bytes: usize,
    /// Of a single run; a sweep has a list of its own.
    pub(crate) rate: Option<f64>,
    pub(crate) arrivals: Arrivals,
    pub(crate) warmup: Duration,
    pub(crate) length: Length,
    pub(crate) populate: Option<String>,
    /// Each connection is to a shard, and sends what belongs there.
    pub(crate) shard_aware: bool,
    /// Keys have 128 bits.
    pub(crate) wide_keys: bool,
    pub(crate) timeout: Duration,
    idle: Option<Idle>,
    workload: Vec<Weighted>,
    populating: Option<Weighted>,
    /// What the handshake names: the workload's messages, then the populating one.
    messages: Vec<Named>,
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
    Message { text: String, error: Mistake },
    Type { text: String, error: Mistake },
    Weight { text: String },
    Mix { name: String, known: Vec<String> },
    EmptyMix,
    NotNative,
    ManyCommands,
    FewConnections { connections: usize, threads: usize },
    Descending,
    Misplaced(&'static str, &'static str),
    ManyTargets,
}

impl std::fmt::Display for PlanError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Address { text, reason } => write!(f, "--addr {text}: {reason}"),
            Self::Command { text, error } => write!(f, "command '{text}': {error}"),
            Self::Message { text, error } => write!(f, "command '{text}': {error}"),
            Self::Type { text, error } => write!(f, "--type '{text}': {error}"),
            Self::Weight { text } => {
                write!(f, "command '{text}': a weight is a whole number above 0, as in 3*GET x")
            }
            Self::Mix { name, known } => {
                write!(f, "--mix {name}: the commands are {}", known.join(", "))
            }
            Self::EmptyMix => write!(f, "--mix: at least one weight must be above 0"),
            Self::NotNative => write!(
                f,
                "this workload has no native messages; --workload ledger has, or give --command"
            ),
            Self::ManyCommands => write!(f, "more than {COMMANDS_MAX} commands"),
            Self::FewConnections { connections, threads } => {
                write!(f, "{connections} connections are too few for {threads} threads")
            }
            Self::Descending => write!(f, "--rates must ascend"),
            Self::Misplaced(option, other) => write!(f, "{option} goes with {other}"),
            Self::ManyTargets => write!(f, "--shard-aware takes one --addr"),
        }
    }
}

impl std::error::Error for PlanError {}

impl Load {
    /// Options that change nothing without another one, which was not given.
    fn find_misplaced(&self) -> Result<(), PlanError> {
        let protocol = (self.protocol == Protocol::Native, "--protocol native");
        let zipf = (self.distribution == Distribution::Zipf, "--distribution zipf");
        let hot = (self.distribution == Distribution::Hot, "--distribution hot");
        let options = [
            (self.shard_aware, "--shard-aware", protocol),
            (self.key_bits == KeyBits::Wide, "--key-bits 128", protocol),
            (!self.types.is_empty(), "--type", protocol),
            (self.zipf_exponent.is_some(), "--zipf-exponent", zipf),
            (self.hot_keys.is_some(), "--hot-keys", hot),
            (self.hot_share.is_some(), "--hot-share", hot),
        ];
        for (given, option, (fits, other)) in options {
            if given && !fits {
                return Err(PlanError::Misplaced(option, other));
            }
        }
        Ok(())
    }
}

/// A bound on a mixture; far more than anyone writes down.
const COMMANDS_MAX: usize = 1_000;

impl Plan {
    /// One measurement.
    ///
    /// # Errors
    /// When an address, a command or a combination is wrong.
    pub(crate) fn new(run: &Run) -> Result<Self, PlanError> {
        let length = match run.requests {
            Some(requests) => Length::Requests(requests),
            None => Length::Time(Duration::from_secs_f64(run.load.duration)),
        };
        Self::of_load(&run.load, run.rate, run.arrivals, length)
    }

    /// What all points of a sweep have in common.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub(crate) fn of_sweep(sweep: &Sweep) -> Result<Self, PlanError> {
        if !sweep.rates.is_sorted() {
            return Err(PlanError::Descending);
        }
        let length = Length::Time(Duration::from_secs_f64(sweep.load.duration));
        Self::of_load(&sweep.load, None, sweep.arrivals, length)
    }

    fn of_load(
        load: &Load,
        rate: Option<f64>,
        arrivals: Arrivals,
        length: Length,
    ) -> Result<Self, PlanError> {
        let (connections, threads) = (load.connections as usize, usize::from(load.threads));
        if connections < threads {
            return Err(PlanError::FewConnections { connections, threads });
        }
        load.find_misplaced()?;
        let targets: Vec<_> =
            load.addr.iter().map(|text| resolve(text)).collect::<Result<_, _>>()?;
        if load.shard_aware && targets.len() > 1 {
            return Err(PlanError::ManyTargets);
        }
        let compiled = compile_all(load)?;
        Ok(Self {
            targets,
            protocol: load.protocol,
            connections,
            depth: load.depth,
            threads,
            cores: load.cores.clone().map_or_else(Vec::new, |CoreList(cores)| cores),
            keys: load.keys,
            distribution: load.distribution,
            zipf_exponent: load.zipf_exponent.unwrap_or(0.99),
            hot_keys: load.hot_keys.unwrap_or(100).min(load.keys),
            hot_share: load.hot_share.unwrap_or(0.9),
            seed: load.seed,
            commands: compiled.commands,
            value_bytes: load.value_bytes as usize,
            rate,
            arrivals,
            warmup: Duration::from_secs_f64(load.warmup),
            length,
            populate: load.populate.clone(),
            shard_aware: load.shard_aware,
            wide_keys: load.key_bits == KeyBits::Wide,
            timeout: Duration::from_secs_f64(load.timeout),
            idle: load.idle,
            workload: compiled.workload,
            populating: compiled.populating,
            messages: compiled.messages,
        })
    }

    /// Whether threads look for replies without pause, in a loop that is open at this rate or
    /// closed.
    pub(crate) fn spins(&self, rate: Option<f64>) -> bool {
        self.idle.map_or(rate.is_some(), |idle| idle == Idle::Spin)
    }

    /// The messages that a native handshake names.
    pub(crate) fn messages(&self) -> &[Named] {
        &self.messages
    }

    /// How the reply to each of them says no, if it can.
    pub(crate) fn refusals(&self) -> Arc<[Option<Refusal>]> {
        self.messages.iter().map(|named| named.refusal.clone()).collect()
    }

    /// The run in one line for the head of a report.
    pub(crate) fn summary(&self) -> String {
        let pace = match self.rate {
            Some(rate) => format!("open loop, {} {}", units::rate(rate), self.arrivals.name()),
            None => "closed loop".to_owned(),
        };
        self.summary_at(pace)
    }

    /// The same, with the loop in the caller's words.
    pub(crate) fn summary_at(&self, pace: String) -> String {
        let mut parts = vec![self.mixture(" | ")];
        if self.protocol == Protocol::Native {
            parts.push("native protocol".to_owned());
            let wide = self.wide_keys.then_some("keys of 128 bits");
            let aware = self.shard_aware.then_some("each shard asked for its own keys");
            parts.extend([wide, aware].into_iter().flatten().map(str::to_owned));
        }
        parts.push(pace);
        parts.push(format!("{} connections x depth {}", self.connections, self.depth));
        if self.threads > 1 {
            parts.push(format!("{} threads", self.threads));
        }
        parts.push(match self.distribution {
            Distribution::Uniform => format!("{} keys", units::count(self.keys)),
            Distribution::Zipf => {
                format!("{} keys, zipf {}", units::count(self.keys), self.zipf_exponent)
            }
            Distribution::Hot => format!(
                "{} keys, {} of them hot with {} of the requests",
                units::count(self.keys),
                units::count(self.hot_keys),
                self.hot_share
            ),
        });
        parts.join(", ")
    }

    /// The commands with their weights, unless those are all 1.
    fn mixture(&self, between: &str) -> String {
        let plain = self.commands.iter().all(|(_, weight)| *weight == 1);
        let command = |(text, weight): &(String, u32)| match plain {
            true => text.clone(),
            false => format!("{weight}*{text}"),
        };
        self.commands.iter().map(command).collect::<Vec<_>>().join(between)
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

    /// A thread's connections: its share of all, which go to the targets in turn. Each has a number
    /// among all.
    pub(crate) fn connections_of(&self, thread: usize) -> Vec<(usize, SocketAddr)> {
        (thread..self.connections)
            .step_by(self.threads)
            .map(|connection| (connection, self.targets[connection % self.targets.len()]))
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
    pub(crate) fn loading_phase(&self, thread: usize, begin_ns: u64, rate: Option<f64>) -> Phase {
        let keys = match self.distribution {
            Distribution::Uniform => Keys::Uniform { count: self.keys },
            Distribution::Zipf => Keys::Zipf(Zipf::new(self.keys, self.zipf_exponent)),
            Distribution::Hot => {
                Keys::Hot { count: self.keys, hot: self.hot_keys, share: self.hot_share }
            }
        };
        let schedule = rate.map(|rate| match self.arrivals {
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
        let spin = self.spins(rate);
        Phase { source, schedule, depth: self.depth, open_ns, close_ns, limit, spin }
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

/// A command line's commands.
struct Compiled {
    commands: Vec<(String, u32)>,
    workload: Vec<Weighted>,
    populating: Option<Weighted>,
    messages: Vec<Named>,
}

fn compile_all(load: &Load) -> Result<Compiled, PlanError> {
    let native = load.protocol == Protocol::Native;
    let workload = load.workload.unwrap_or(if native { Workload::Ledger } else { Workload::Set });
    let mut types = Types::default();
    let predefined = if load.command.is_empty() { workload.types() } else { &[] };
    for text in predefined.iter().copied().chain(load.types.iter().map(String::as_str)) {
        let wrong = |error| PlanError::Type { text: text.to_owned(), error };
        types.declare(text).map_err(wrong)?;
    }
    let mut written: Vec<(&str, u32)> = if load.command.is_empty() {
        let commands = workload.commands(load.protocol).iter();
        commands.map(|text| weighted(text)).collect::<Result<_, _>>()?
    } else {
        load.command.iter().map(|text| weighted(text)).collect::<Result<_, _>>()?
    };
    if written.is_empty() {
        return Err(PlanError::NotNative);
    }
    if !load.command.is_empty()
        && let Some((text, _)) = written.iter().find(|(_, weight)| *weight == 0)
    {
        return Err(PlanError::Weight { text: (*text).to_owned() });
    }
    mix(&mut written, &load.mix)?;
    if written.len() > COMMANDS_MAX {
        return Err(PlanError::ManyCommands);
    }
    let value = "x".repeat(load.value_bytes as usize);
    let mut messages = Vec::new();
    let mut compile = |(text, weight): (&str, u32)| -> Result<Weighted, PlanError> {
        let command = match load.protocol {
            Protocol::Resp => Template::compile(text, value.as_bytes())
                .map(Command::Resp)
                .map_err(|error| PlanError::Command { text: text.to_owned(), error })?,
            Protocol::Native => {
                let mut message = Message::compile(text, &value, &types)
                    .map_err(|error| PlanError::Message { text: text.to_owned(), error })?;
                message.set_index(messages.len() as u16);
                if load.key_bits == KeyBits::Wide {
                    message.widen();
                }
                messages.push(message.named().clone());
                Command::Native(message)
            }
        };
        Ok(Weighted { weight, command })
    };
    let workload = written.iter().copied().map(&mut compile).collect::<Result<_, _>>()?;
    let populating = load.populate.as_deref().map(|text| compile((text, 1))).transpose()?;
    let commands = written.into_iter().map(|(text, weight)| (text.to_owned(), weight)).collect();
    Ok(Compiled { commands, workload, populating, messages })
}

/// Takes `GET x` or `3*GET x` apart.
fn weighted(text: &str) -> Result<(&str, u32), PlanError> {
    match text.split_once('*') {
        // A star inside the command, behind its first word, is none of ours.
        Some((weight, command)) if !weight.contains(|c: char| c.is_whitespace() || c == '(') => {
            match weight.parse() {
                Ok(weight) => Ok((command, weight)),
                Err(_) => Err(PlanError::Weight { text: text.to_owned() }),
            }
        }
        _ => Ok((text, 1)),
    }
}

/// Gives commands the weights of `--mix`, and leaves out those of weight 0.
fn mix(written: &mut Vec<(&str, u32)>, shares: &[Share]) -> Result<(), PlanError> {
    let names: Vec<String> = written.iter().map(|(text, _)| name(text)).collect();
    if let Some(share) = shares.iter().find(|share| !names.contains(&share.name)) {
        return Err(PlanError::Mix { name: share.name.clone(), known: names });
    }
    if !shares.is_empty() {
        for ((_, weight), name) in written.iter_mut().zip(&names) {
            let share = shares.iter().find(|share| share.name == *name);
            *weight = share.map_or(0, |share| share.weight);
        }
    }
    written.retain(|(_, weight)| *weight > 0);
    if written.is_empty() { Err(PlanError::EmptyMix) } else { Ok(()) }
}

/// What a command is called: its first word or its method, less all up to a dot, in small letters;
/// `tell-` before the method of one that is told.
fn name(text: &str) -> String {
    if let Some(told) = text.strip_prefix(TELL) {
        return format!("tell-{}", name(told));
    }
    let end = text.find(|c: char| c.is_whitespace() || c == '(').unwrap_or(text.len());
    let word = &text[..end];
    word.rsplit('.').next().unwrap_or(word).to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arguments::CommandLine;
    use clap::Parser;

    fn plan(words: &[&str]) -> Result<Plan, PlanError> {
        let words = [&["coreside-load"], words].concat();
        Plan::new(&CommandLine::try_parse_from(words).expect("a parsable command line").run)
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
        assert_eq!(weighted("3*GET {key}").expect("valid"), ("GET {key}", 3));
        assert_eq!(weighted("KEYS a*b").expect("valid"), ("KEYS a*b", 1));
        assert_eq!(weighted("A.m(a:String=\"*\")").expect("valid").1, 1);
        assert!(matches!(weighted("x*GET x"), Err(PlanError::Weight { .. })));
        let zero = plan(&["--command", "0*GET x"]);
        assert!(matches!(zero, Err(PlanError::Weight { .. })));
    }

    #[test]
    fn mixtures_are_by_name_in_both_protocols() {
        for protocol in ["resp", "native"] {
            let ledger = ["--protocol", protocol, "--workload", "ledger", "--mix"];
            let mixed = |mix| plan(&[&ledger[..], &[mix]].concat());
            let plan = mixed("deposit=80,balance=20").expect("valid");
            let weights: Vec<u32> = plan.workload.iter().map(|w| w.weight).collect();
            assert_eq!(weights, [20, 80], "in the order of the workload");
            assert!(plan.summary().to_lowercase().contains("80*account.deposit"));
            assert!(matches!(mixed("deposits=1"), Err(PlanError::Mix { .. })));
            assert!(matches!(mixed("deposit=0"), Err(PlanError::EmptyMix)));
        }
    }

    #[test]
    fn mistakes_are_named() {
        assert!(matches!(plan(&["--addr", "nonsense"]), Err(PlanError::Address { .. })));
        assert!(matches!(plan(&["--command", "GET {x}"]), Err(PlanError::Command { .. })));
        let native = |words: &[&str]| plan(&[&["--protocol", "native"], words].concat());
        assert!(matches!(native(&["--workload", "get"]), Err(PlanError::NotNative)));
        assert!(matches!(native(&["--command", "GET x"]), Err(PlanError::Message { .. })));
        assert!(matches!(native(&["--type", "enum {}"]), Err(PlanError::Type { .. })));
        for words in [
            &["--shard-aware"][..],
            &["--key-bits", "128"],
            &["--type", "struct A;"],
            &["--zipf-exponent", "1"],
            &["--hot-keys", "5"],
            &["--hot-share", "0.5", "--distribution", "zipf"],
        ] {
            let misplaced = plan(words);
            assert!(matches!(misplaced, Err(PlanError::Misplaced(..))), "{words:?}");
        }
        let few = plan(&["--connections", "1", "--threads", "2"]);
        assert!(matches!(few, Err(PlanError::FewConnections { .. })));
    }

    #[test]
    fn outboxes_hold_at_least_one_command() {
        let plan = plan(&["--value-bytes", "1000000", "--depth", "64"]).expect("valid");
        assert!(plan.outbox_bytes() > 1_000_000 && plan.outbox_bytes() < 1_100_000);
    }
}
