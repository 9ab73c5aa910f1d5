//! The command line.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

use crate::cores;

/// Drives a server that speaks RESP, and measures how fast and how evenly it answers.
///
/// By default the loop is closed: each connection keeps `--depth` requests outstanding, which finds
/// the target's capacity. `--rate` opens the loop: requests fall due on a fixed schedule and their
/// latency counts from then, so that a slow target cannot hide its own delays.
#[derive(Clone, Debug, Parser)]
#[command(name = "coreside-load", version, verbatim_doc_comment, after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// Target as HOST:PORT; repeat it to spread the connections over several
    #[arg(long, default_value = "127.0.0.1:6379", value_delimiter = ',', value_name = "HOST:PORT")]
    pub(crate) addr: Vec<String>,

    /// Connections in total, over all threads
    #[arg(long, short, default_value_t = 64, value_name = "N", value_parser = at_least_one)]
    pub(crate) connections: u64,

    /// Outstanding requests per connection
    #[arg(long, short, default_value_t = 1, value_name = "N", value_parser = depth)]
    pub(crate) depth: u32,

    /// Load threads, each with its own ring
    #[arg(long, short, default_value_t = 1, value_name = "N", value_parser = threads)]
    pub(crate) threads: u16,

    /// Cores to pin the threads to, in turn, such as 1 or 1,3-5
    #[arg(long, value_name = "LIST", value_parser = parse_cores)]
    pub(crate) cores: Option<CoreList>,

    /// Distinct keys
    #[arg(long, default_value_t = 1_000_000, value_name = "N", value_parser = at_least_one)]
    pub(crate) keys: u64,

    /// How keys are drawn; with zipf, key 0 is the most popular
    #[arg(long, value_enum, default_value = "uniform", value_name = "NAME")]
    pub(crate) distribution: Distribution,

    /// Steepness of the Zipf distribution
    #[arg(long, default_value_t = 0.99, value_name = "E", value_parser = positive)]
    pub(crate) zipf_exponent: f64,

    /// Seed of all random numbers
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub(crate) seed: u64,

    /// Predefined workload [default: set]
    #[arg(long, short, value_enum, value_name = "NAME", conflicts_with = "command")]
    pub(crate) workload: Option<Workload>,

    /// Command to send, optionally weighted as in '3*GET key:{key}'; repeat it for a mixture.
    /// Placeholders: {key}, {key2} (another key), {value}, {rand:N}, {seq}
    #[arg(long, value_name = "TEMPLATE")]
    pub(crate) command: Vec<String>,

    /// Size of {value}
    #[arg(long, default_value_t = 8, value_name = "N", value_parser = value_bytes)]
    pub(crate) value_bytes: u32,

    /// Open loop: requests per second in total
    #[arg(long, short, value_name = "R", value_parser = positive)]
    pub(crate) rate: Option<f64>,

    /// Spacing of the requests of an open loop
    #[arg(long, value_enum, default_value = "constant", value_name = "NAME", requires = "rate")]
    pub(crate) arrivals: Arrivals,

    /// Seconds of load before measuring
    #[arg(long, default_value_t = 2.0, value_name = "S", value_parser = seconds)]
    pub(crate) warmup: f64,

    /// Seconds to measure
    #[arg(long, default_value_t = 10.0, value_name = "S", value_parser = seconds)]
    pub(crate) duration: f64,

    /// Measure this many requests instead
    #[arg(long, value_name = "N", conflicts_with = "duration", value_parser = at_least_one)]
    pub(crate) requests: Option<u64>,

    /// What a thread does while nothing has come [default: park, or spin with --rate]
    #[arg(long, value_enum, value_name = "NAME")]
    pub(crate) idle: Option<Idle>,

    /// Send this once for every key first, such as 'SET key:{key} {value}'
    #[arg(long, value_name = "TEMPLATE")]
    pub(crate) populate: Option<String>,

    /// Give up when no reply has come for this long
    #[arg(long, default_value_t = 10.0, value_name = "S", value_parser = positive)]
    pub(crate) timeout: f64,

    /// Exit with 1 if there was any error reply
    #[arg(long)]
    pub(crate) check: bool,

    /// Write parameters and results as a JSON object
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,

    /// Draw the latency percentiles
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,

    /// Write the percentile distribution in the text format of HdrHistogram, in microseconds
    #[arg(long, value_name = "FILE")]
    pub(crate) hgrm: Option<PathBuf>,

    /// Title of the reports
    #[arg(long, value_name = "TEXT")]
    pub(crate) label: Option<String>,

    /// No progress and no table
    #[arg(long, short)]
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

Exit code: 0 when measured, 1 when --check found error replies, 2 when the target failed or the
command line is wrong.";

/// Cores in the order in which threads take them.
#[derive(Clone, Debug)]
pub(crate) struct CoreList(pub(crate) Vec<usize>);

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Distribution {
    Uniform,
    Zipf,
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
    /// The commands it stands for.
    pub(crate) fn commands(self) -> &'static [&'static str] {
        match self {
            Self::Set => &["SET key:{key} {value}"],
            Self::Get => &["GET key:{key}"],
            Self::Incr => &["INCR counter:{key}"],
            Self::Ping => &["PING"],
            // No deposits: the sum of all balances stays what populating made it.
            // Amounts of 10 to 18: never 0, which a ledger refuses.
            Self::Ledger => &["ACCOUNT.TRANSFER {key} {key2} 1{rand:9}", "ACCOUNT.BALANCE {key}"],
            Self::Mixed => &["9*GET key:{key}", "1*SET key:{key} {value}"],
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
        Arguments::command().debug_assert();
    }

    #[test]
    fn limits_are_enforced() {
        let parse =
            |words: &[&str]| Arguments::try_parse_from([&["coreside-load"], words].concat());
        assert!(parse(&["--depth", "0"]).is_err());
        assert!(parse(&["--rate", "-5"]).is_err());
        assert!(parse(&["--rate", "inf"]).is_err());
        assert!(parse(&["--arrivals", "poisson"]).is_err(), "arrivals need a rate");
        assert!(parse(&["--workload", "set", "--command", "PING"]).is_err());
        assert!(parse(&["--cores", "2-1"]).is_err());
        let parsed = parse(&["--keys", "10_000_000", "--rate", "2e6"]).expect("valid");
        assert_eq!(parsed.keys, 10_000_000);
        assert_eq!(parsed.rate, Some(2e6));
    }
}
