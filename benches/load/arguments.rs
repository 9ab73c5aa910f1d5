//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::cores;

/// Drives a server, and measures how fast and how evenly it answers.
///
/// By default the loop is closed: each connection keeps `--depth` requests outstanding, which finds
/// the target's capacity. `--rate` opens the loop: requests fall due on a fixed schedule and their
/// latency counts from then, so that a slow target cannot hide its own delays. `sweep` does that at
/// a range of rates.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "coreside-load",
    version,
    verbatim_doc_comment,
    args_conflicts_with_subcommands = true,
    disable_help_subcommand = true,
    after_help = EXAMPLES
)]
pub(crate) struct CommandLine {
    #[command(subcommand)]
    pub(crate) action: Option<Action>,

    #[command(flatten)]
    pub(crate) run: Run,
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Action {
    /// Measures latency at a range of rates, and draws the curve
    ///
    /// Without `--rates`, a closed loop finds the target's capacity first, and the rates are parts
    /// of it. All points are measured over the same connections, `--warmup` and `--duration` each.
    #[command(verbatim_doc_comment)]
    Sweep(Sweep),
}

/// One measurement.
#[derive(Clone, Debug, Args)]
pub(crate) struct Run {
    #[command(flatten)]
    pub(crate) load: Load,

    /// Open loop: requests per second in total
    #[arg(long, short, value_name = "R", value_parser = positive)]
    #[arg(help_heading = MEASUREMENT)]
    pub(crate) rate: Option<f64>,

    /// Spacing of the requests of an open loop
    #[arg(long, value_enum, default_value = "constant", value_name = "NAME", requires = "rate")]
    #[arg(help_heading = MEASUREMENT)]
    pub(crate) arrivals: Arrivals,

    /// Measure this many requests instead
    #[arg(long, value_name = "N", conflicts_with = "duration", value_parser = at_least_one)]
    #[arg(help_heading = MEASUREMENT)]
    pub(crate) requests: Option<u64>,

    /// Write the percentile distribution in the text format of HdrHistogram, in microseconds
    #[arg(long, value_name = "FILE", help_heading = REPORT)]
    pub(crate) hgrm: Option<PathBuf>,
}

/// Measurements at a range of rates.
#[derive(Clone, Debug, Args)]
pub(crate) struct Sweep {
    #[command(flatten)]
    pub(crate) load: Load,

    /// Requests per second of each point, in ascending order, such as 1e5,2e5,3e5
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = positive)]
    #[arg(help_heading = MEASUREMENT)]
    pub(crate) rates: Vec<f64>,

    /// Points of the curve without --rates: even parts of the capacity
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = points)]
    #[arg(conflicts_with = "rates", help_heading = MEASUREMENT)]
    pub(crate) points: u16,

    /// Spacing of the requests
    #[arg(long, value_enum, default_value = "constant", value_name = "NAME")]
    #[arg(help_heading = MEASUREMENT)]
    pub(crate) arrivals: Arrivals,
}

const TARGET: &str = "Target";
const LOAD: &str = "Load";
const MEASUREMENT: &str = "Measurement";
const REPORT: &str = "Report";

/// What single runs and sweeps have in common.
#[derive(Clone, Debug, Args)]
pub(crate) struct Load {
    /// Target as HOST:PORT; repeat it to spread the connections over several
    #[arg(long, default_value = "127.0.0.1:6379", value_delimiter = ',', value_name = "HOST:PORT")]
    #[arg(help_heading = TARGET)]
    pub(crate) addr: Vec<String>,

    /// What the target speaks: RESP (Redis and the like), or Coreside's native protocol
    #[arg(long, value_enum, default_value = "resp", value_name = "NAME", help_heading = TARGET)]
    pub(crate) protocol: Protocol,

    /// Connections in total, over all threads
    #[arg(long, short, default_value_t = 64, value_name = "N", value_parser = at_least_one)]
    #[arg(help_heading = LOAD)]
    pub(crate) connections: u64,

    /// Outstanding requests per connection
    #[arg(long, short, default_value_t = 1, value_name = "N", value_parser = depth)]
    #[arg(help_heading = LOAD)]
    pub(crate) depth: u32,

    /// Load threads, each with its own ring
    #[arg(long, short, default_value_t = 1, value_name = "N", value_parser = threads)]
    #[arg(help_heading = LOAD)]
    pub(crate) threads: u16,

    /// Cores to pin the threads to, in turn, such as 1 or 1,3-5
    #[arg(long, value_name = "LIST", value_parser = parse_cores, help_heading = LOAD)]
    pub(crate) cores: Option<CoreList>,

    /// Distinct keys
    #[arg(long, default_value_t = 1_000_000, value_name = "N", value_parser = at_least_one)]
    #[arg(help_heading = LOAD)]
    pub(crate) keys: u64,

    /// Bits of the keys of a native target's entities; the upper half of 128 is made of the lower
    #[arg(long, value_enum, default_value = "64", value_name = "BITS", help_heading = LOAD)]
    pub(crate) key_bits: KeyBits,

    /// Spread the connections over the shards of a native target, and send each key's requests on
    /// those to its shard; else any shard takes any request and sends it on
    #[arg(long, help_heading = LOAD)]
    pub(crate) shard_aware: bool,

    /// How keys are drawn; with zipf, key 0 is the most popular, with hot the first --hot-keys are
    #[arg(long, value_enum, default_value = "uniform", value_name = "NAME", help_heading = LOAD)]
    pub(crate) distribution: Distribution,

    /// Steepness of the Zipf distribution [default: 0.99]
    #[arg(long, value_name = "E", value_parser = positive, help_heading = LOAD)]
    pub(crate) zipf_exponent: Option<f64>,

    /// Keys in the hot set [default: 100]
    #[arg(long, value_name = "N", value_parser = at_least_one, help_heading = LOAD)]
    pub(crate) hot_keys: Option<u64>,

    /// Part of the requests that go to the hot set [default: 0.9]
    #[arg(long, value_name = "P", value_parser = part, help_heading = LOAD)]
    pub(crate) hot_share: Option<f64>,

    /// Seed of all random numbers
    #[arg(long, default_value_t = 1, value_name = "N", help_heading = LOAD)]
    pub(crate) seed: u64,

    /// Predefined workload [default: set, or ledger with --protocol native]
    #[arg(long, short, value_enum, value_name = "NAME", conflicts_with = "command")]
    #[arg(help_heading = LOAD)]
    pub(crate) workload: Option<Workload>,

    /// Command to send, optionally weighted as in '3*GET key:{key}'; repeat it for a mixture.
    /// Placeholders: {key}, {key2} (another key), {value}, {rand:N}, {seq}.
    /// With --protocol native: 'Type.method(argument: type = value, ..) -> Reply', asked of entity
    /// {key}; arguments are numbers of 8 to 64 bits (7, {key2} or 7 + {rand:10}) or a String
    /// ("text" or {value}); nothing behind the bracket means that the reply is (). Behind
    /// 'tell' the message wants no answer, as in '9*tell Type.method()', and has no latency
    #[arg(long, value_name = "TEMPLATE", help_heading = LOAD, verbatim_doc_comment)]
    pub(crate) command: Vec<String>,

    /// Weights of the workload's commands by name, such as deposit=80,balance=20; one that is not
    /// named is not sent. A command's name is its first word or its method, less all up to a dot;
    /// of one that is told, tell- and its method
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = share)]
    #[arg(help_heading = LOAD)]
    pub(crate) mix: Vec<Share>,

    /// Type in the signatures of native messages, as the program declares it, such as
    /// 'enum Refusal { Busy, TooFew { have: u64 } }'; repeat it for several
    #[arg(long = "type", value_name = "DECLARATION", help_heading = LOAD)]
    pub(crate) types: Vec<String>,

    /// Size of {value}
    #[arg(long, default_value_t = 8, value_name = "N", value_parser = value_bytes)]
    #[arg(help_heading = LOAD)]
    pub(crate) value_bytes: u32,

    /// Send this once for every key first, such as 'SET key:{key} {value}'
    #[arg(long, value_name = "TEMPLATE", help_heading = LOAD)]
    pub(crate) populate: Option<String>,

    /// Seconds of load before measuring
    #[arg(long, default_value_t = 2.0, value_name = "S", value_parser = seconds)]
    #[arg(help_heading = MEASUREMENT)]
    pub(crate) warmup: f64,

    /// Seconds to measure
    #[arg(long, default_value_t = 10.0, value_name = "S", value_parser = seconds)]
    #[arg(help_heading = MEASUREMENT)]
    pub(crate) duration: f64,

    /// What a thread does while nothing has come [default: park, or spin in an open loop]
    #[arg(long, value_enum, value_name = "NAME", help_heading = MEASUREMENT)]
    pub(crate) idle: Option<Idle>,

    /// Give up when no reply has come for this long
    #[arg(long, default_value_t = 10.0, value_name = "S", value_parser = positive)]
    #[arg(help_heading = MEASUREMENT)]
    pub(crate) timeout: f64,

    /// Exit with 1 if there was any error reply
    #[arg(long, help_heading = REPORT)]
    pub(crate) check: bool,

    /// Write parameters and results as a JSON object
    #[arg(long, value_name = "FILE", help_heading = REPORT)]
    pub(crate) json: Option<PathBuf>,

    /// Draw the latency by percentile; of a sweep, by load
    #[arg(long, value_name = "FILE", help_heading = REPORT)]
    pub(crate) svg: Option<PathBuf>,

    /// Title of the reports
    #[arg(long, value_name = "TEXT", help_heading = REPORT)]
    pub(crate) label: Option<String>,

    /// No progress and no table
    #[arg(long, short, help_heading = REPORT)]
    pub(crate) quiet: bool,
}

const EXAMPLES: &str = "\
Examples:
  Capacity, with deep pipelines:
    coreside-load --connections 64 --depth 64 --workload get --cores 1
  Latency at a given rate:
    coreside-load --rate 200000 --arrivals poisson --svg latency.svg
  A workload of one's own:
    coreside-load --populate 'SET key:{key} {value}' \\
        --command '9*GET key:{key}' --command '1*DEL key:{key}' --distribution zipf
  The example 'ledger', started with --listen-native 127.0.0.1:7380:
    coreside-load --protocol native --addr 127.0.0.1:7380 --mix deposit=80,balance=20
  Any other service, by the signatures of its handlers:
    coreside-load --protocol native --addr 127.0.0.1:7380 \\
        --command '4*Cart.add(item: u64 = {rand:500}, note: String = {value}) -> Option<u32>' \\
        --command 'Cart.total() -> i64'
  Latency against load:
    coreside-load sweep --addr 127.0.0.1:7379 --workload get --svg curve.svg

Exit code: 0 when measured, 1 when --check found error replies, 2 when the target failed or the
command line is wrong. With the native protocol a reply that is an Err counts as an error reply.";

/// The most points of a sweep.
pub(crate) const POINTS_MAX: u16 = 100;

/// Cores in the order in which threads take them.
#[derive(Clone, Debug)]
pub(crate) struct CoreList(pub(crate) Vec<usize>);

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Protocol {
    Resp,
    Native,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum KeyBits {
    #[value(name = "64")]
    Narrow,
    #[value(name = "128")]
    Wide,
}

/// The weight of the commands of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Share {
    pub(crate) name: String,
    pub(crate) weight: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Distribution {
    /// All alike
    Uniform,
    /// A few popular ones, and a long tail
    Zipf,
    /// A hot set, alike among themselves, and all others
    Hot,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Arrivals {
    /// Evenly spaced
    Constant,
    /// Independent of each other, as from many users
    Poisson,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Idle {
    /// Poll the ring without pause
    Spin,
    /// Sleep in the kernel
    Park,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Workload {
    /// SET key:{key} {value}
    Set,
    /// GET key:{key}
    Get,
    /// INCR counter:{key}
    Incr,
    /// PING
    Ping,
    /// Transfers between accounts and questions for balances, half and half
    Ledger,
    /// Nine GET for each SET
    Mixed,
}

impl Workload {
    /// The commands it stands for; empty if the protocol has none. Those of weight 0 are only sent
    /// if `--mix` names them.
    pub(crate) fn commands(self, protocol: Protocol) -> &'static [&'static str] {
        match (self, protocol) {
            (Self::Ledger, Protocol::Native) => NATIVE_LEDGER,
            (_, Protocol::Native) => &[],
            (Self::Set, _) => &["SET key:{key} {value}"],
            (Self::Get, _) => &["GET key:{key}"],
            (Self::Incr, _) => &["INCR counter:{key}"],
            (Self::Ping, _) => &["PING"],
            (Self::Ledger, _) => LEDGER,
            (Self::Mixed, _) => &["9*GET key:{key}", "1*SET key:{key} {value}"],
        }
    }

    /// The types in the signatures of its native commands.
    pub(crate) fn types(self) -> &'static [&'static str] {
        match self {
            Self::Ledger => &[LEDGER_REFUSAL],
            _ => &[],
        }
    }
}

/// No deposits by default: the sum of all balances stays what populating made it.
///
/// Amounts of 10 to 18: never 0, which a ledger refuses.
const LEDGER: &[&str] = &[
    "ACCOUNT.TRANSFER {key} {key2} 1{rand:9}",
    "ACCOUNT.BALANCE {key}",
    "0*ACCOUNT.DEPOSIT {key} 1{rand:9}",
    "0*ACCOUNT.WITHDRAW {key} 1{rand:9}",
];

/// The same, natively.
const NATIVE_LEDGER: &[&str] = &[
    "Account.transfer(to: u64 = {key2}, amount: i64 = 10 + {rand:9}) -> Result<i64, Refusal>",
    "Account.balance() -> i64",
    "0*Account.deposit(amount: i64 = 10 + {rand:9}) -> Result<i64, Refusal>",
    "0*Account.withdraw(amount: i64 = 10 + {rand:9}) -> Result<i64, Refusal>",
    "0*tell Account.deposit(amount: i64 = 10 + {rand:9}) -> Result<i64, Refusal>",
];

const LEDGER_REFUSAL: &str =
    "enum Refusal { NotPositive, Insufficient, Overflow, SameAccount, Unknown, Busy }";

impl Protocol {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Resp => "resp",
            Self::Native => "native",
        }
    }
}

impl Distribution {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Uniform => "uniform",
            Self::Zipf => "zipf",
            Self::Hot => "hot",
        }
    }
}

impl Arrivals {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Constant => "constant",
            Self::Poisson => "poisson",
        }
    }
}

fn at_least_one(text: &str) -> Result<u64, String> {
    in_range(text, 1, u64::MAX)
}

fn depth(text: &str) -> Result<u32, String> {
    in_range(text, 1, 65_536).map(|depth| depth as u32)
}

fn threads(text: &str) -> Result<u16, String> {
    in_range(text, 1, 1_024).map(|threads| threads as u16)
}

fn value_bytes(text: &str) -> Result<u32, String> {
    in_range(text, 0, 64 << 20).map(|bytes| bytes as u32)
}

fn points(text: &str) -> Result<u16, String> {
    in_range(text, 2, u64::from(POINTS_MAX)).map(|points| points as u16)
}

fn share(text: &str) -> Result<Share, String> {
    let wrong = || "must be NAME=WEIGHT with a whole number, as in deposit=80".to_owned();
    let (name, weight) = text.split_once('=').ok_or_else(wrong)?;
    let weight = weight.trim().parse().map_err(|_| wrong())?;
    Ok(Share { name: name.trim().to_lowercase(), weight })
}

fn part(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if (0.0..=1.0).contains(&number) => Ok(number),
        _ => Err("must be a number from 0 to 1".to_owned()),
    }
}

fn in_range(text: &str, low: u64, high: u64) -> Result<u64, String> {
    match text.replace('_', "").parse() {
        Ok(number) if (low..=high).contains(&number) => Ok(number),
        Ok(_) if high == u64::MAX => Err(format!("must be at least {low}")),
        Ok(_) => Err(format!("must lie in {low}..={high}")),
        Err(_) => Err("not a whole number".to_owned()),
    }
}

fn positive(text: &str) -> Result<f64, String> {
    match text.replace('_', "").parse::<f64>() {
        Ok(number) if number.is_finite() && number > 0.0 => Ok(number),
        _ => Err("must be a number above 0".to_owned()),
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    const SECONDS_MAX: f64 = 1e6;
    match text.parse::<f64>() {
        Ok(number) if (0.0..=SECONDS_MAX).contains(&number) => Ok(number),
        _ => Err(format!("must be a number of seconds from 0 to {SECONDS_MAX}")),
    }
}

fn parse_cores(text: &str) -> Result<CoreList, String> {
    cores::parse_list(text).map(CoreList)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_consistent() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn limits_are_enforced() {
        let parse =
            |words: &[&str]| CommandLine::try_parse_from([&["coreside-load"], words].concat());
        assert!(parse(&["--depth", "0"]).is_err());
        assert!(parse(&["--rate", "-5"]).is_err());
        assert!(parse(&["--rate", "inf"]).is_err());
        assert!(parse(&["--arrivals", "poisson"]).is_err(), "arrivals need a rate");
        assert!(parse(&["--workload", "set", "--command", "PING"]).is_err());
        assert!(parse(&["--cores", "2-1"]).is_err());
        assert!(parse(&["--hot-share", "1.5"]).is_err());
        assert!(parse(&["--mix", "deposit"]).is_err());
        assert!(parse(&["sweep", "--rate", "5"]).is_err(), "a sweep has many");
        assert!(parse(&["sweep", "--rates", "5", "--points", "3"]).is_err());
        let parsed = parse(&["--keys", "10_000_000", "--rate", "2e6"]).expect("valid").run;
        assert_eq!(parsed.load.keys, 10_000_000);
        assert_eq!(parsed.rate, Some(2e6));
        let parsed = parse(&["sweep", "--mix", "A=1,b=2", "--arrivals", "poisson"]).expect("valid");
        let Some(Action::Sweep(sweep)) = parsed.action else { panic!("a sweep") };
        let shares: Vec<_> = sweep.load.mix.iter().map(|s| (s.name.as_str(), s.weight)).collect();
        assert_eq!(shares, [("a", 1), ("b", 2)]);
    }
}
