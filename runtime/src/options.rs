//! The command-line options that every service has.

use std::net::SocketAddr;

use clap::{Args, ValueEnum};
use coreside_net::ZeroCopy;

use crate::node::{Idle, NodeBuilder};
use crate::probe::DriverChoice;

/// Where a service listens and what it runs on. Flatten it into the options of your own.
#[derive(Args, Clone, Debug)]
pub struct NodeOptions {
    /// Address to serve Redis clients on; port 0 takes any free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7379")]
    pub listen: SocketAddr,

    /// Listen beyond loopback in plain text: whoever is on the network can read and change it
    #[arg(long)]
    pub insecure_plaintext: bool,

    /// Number of shards [default: one per core that the process may use]
    #[arg(long, value_name = "N")]
    pub shards: Option<usize>,

    /// Cores to pin the shards to, such as 0 or 2-5,8
    #[arg(long, value_name = "LIST", value_parser = parse_cores)]
    pub cores: Option<CoreList>,

    /// What a shard does while there is nothing to do
    #[arg(long, value_enum, default_value_t = IdleOption::Park)]
    pub idle: IdleOption,

    /// How the shards deal with the kernel
    #[arg(long, value_enum, default_value_t = DriverOption::Auto)]
    pub driver: DriverOption,

    /// Send outputs from this size on without a copy; `coreside-doctor --calibrate` measures from
    /// which on it pays [default: copy all]
    #[arg(long, value_name = "BYTES")]
    pub send_zc: Option<u32>,
}

/// What a shard does while there is nothing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum IdleOption {
    /// Look for work all the time: least latency, a whole core
    Spin,
    /// Look for 50 µs, then sleep: no time used
    Park,
}

/// How the shards deal with the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DriverOption {
    /// io_uring, or epoll where that is refused
    Auto,
    /// io_uring or nothing
    Uring,
    /// epoll: a system call for each receive and each send
    Epoll,
}

impl From<DriverOption> for DriverChoice {
    fn from(option: DriverOption) -> Self {
        match option {
            DriverOption::Auto => Self::Auto,
            DriverOption::Uring => Self::Uring,
            DriverOption::Epoll => Self::Epoll,
        }
    }
}

/// Numbers of cores, in the order given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoreList(pub Vec<usize>);

impl NodeOptions {
    /// Sets a node up as the options say.
    pub fn apply(&self, mut node: NodeBuilder) -> NodeBuilder {
        node = node.listen(self.listen).catch_signals();
        if self.insecure_plaintext {
            node = node.insecure_plaintext();
        }
        if let Some(cores) = &self.cores {
            node = node.cores(cores.0.clone());
        }
        if let Some(shards) = self.shards {
            node = node.shards(shards);
        }
        node = node.driver(self.driver.into());
        if let Some(bytes) = self.send_zc {
            node = node.zero_copy(ZeroCopy::From(bytes));
        }
        match self.idle {
            IdleOption::Spin => node.idle(Idle::Spin),
            // The builder knows how long to look first: it depends on the cores there are.
            IdleOption::Park => node,
        }
    }
}

/// `1`, `0,2` or `1,3-5`.
fn parse_cores(text: &str) -> Result<CoreList, String> {
    let number = |text: &str| {
        text.trim().parse::<usize>().map_err(|_| format!("'{text}' is not the number of a core"))
    };
    let mut cores = Vec::new();
    for part in text.split(',') {
        match part.split_once('-') {
            Some((first, last)) => {
                let (first, last) = (number(first)?, number(last)?);
                if last < first || last - first > 4096 {
                    return Err(format!("'{part}' is not a range of cores"));
                }
                cores.extend(first..=last);
            }
            None => cores.push(number(part)?),
        }
    }
    Ok(CoreList(cores))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn core_lists_are_read() {
        assert_eq!(parse_cores("1"), Ok(CoreList(vec![1])));
        assert_eq!(parse_cores("0,3-5"), Ok(CoreList(vec![0, 3, 4, 5])));
        for bad in ["", "a", "3-1", "1,,2", "-1"] {
            assert!(parse_cores(bad).is_err(), "{bad}");
        }
    }
}
