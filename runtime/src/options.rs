//! The command-line options that every service has.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use coreside_net::ZeroCopy;
use coreside_net::tls::TlsConfig;

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

    /// Speak TLS 1.3 on every port, with this certificate and the chain above it (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_key", help_heading = TLS)]
    pub tls_cert: Option<PathBuf>,

    /// The private key of that certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert", help_heading = TLS)]
    pub tls_key: Option<PathBuf>,

    /// Serve only clients with a certificate from an authority in this file (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert", help_heading = TLS)]
    pub tls_client_ca: Option<PathBuf>,

    /// Serve clients without a certificate too; one that is shown has to be from such an authority
    #[arg(long, requires = "tls_client_ca", help_heading = TLS)]
    pub tls_anonymous_clients: bool,

    /// What clients with this name in their certificate may call, such as
    /// 'desk=Account.*,GET'; repeat it for others. Without it everybody may call everything
    #[arg(long, value_name = "NAME=LIST", requires = "tls_client_ca", help_heading = TLS)]
    #[arg(value_parser = parse_right, verbatim_doc_comment)]
    pub tls_allow: Vec<ClientRight>,

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

const TLS: &str = "TLS";

/// What some clients may call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientRight {
    /// The name in their certificate: a DNS name or a URI.
    pub client: String,
    /// Names of messages and commands; `Account.*` stands for all that begin like it.
    pub messages: Vec<String>,
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
        if let Some(tls) = self.tls() {
            node = node.tls(tls);
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

    fn tls(&self) -> Option<TlsConfig> {
        let mut tls = TlsConfig::new(self.tls_cert.as_ref()?, self.tls_key.as_ref()?);
        tls = match &self.tls_client_ca {
            Some(file) if self.tls_anonymous_clients => tls.optional_client_ca(file),
            Some(file) => tls.client_ca(file),
            None => tls,
        };
        for ClientRight { client, messages } in &self.tls_allow {
            tls = tls.allow(client, messages);
        }
        Some(tls)
    }
}

/// `desk=Account.*,GET`; a URI may hold the sign as well.
fn parse_right(text: &str) -> Result<ClientRight, String> {
    let (client, messages) = text.rsplit_once('=').unwrap_or_default();
    let messages: Vec<_> = messages.split(',').map(|name| name.trim().to_owned()).collect();
    if client.is_empty() || messages.iter().any(String::is_empty) {
        return Err("must be NAME=LIST, such as desk=Account.*,GET".to_owned());
    }
    Ok(ClientRight { client: client.to_owned(), messages })
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

    #[derive(Debug, clap::Parser)]
    struct Service {
        #[command(flatten)]
        node: NodeOptions,
    }

    fn parse(words: &[&str]) -> Result<NodeOptions, String> {
        let words = ["service"].iter().chain(words);
        let parsed = <Service as clap::Parser>::try_parse_from(words);
        parsed.map(|service| service.node).map_err(|error| error.to_string())
    }

    #[test]
    fn tls_takes_what_belongs_together_and_names_what_is_missing() {
        assert!(parse(&[]).expect("plain text").tls().is_none());
        let pair = ["--tls-cert", "node.crt", "--tls-key", "node.key"];
        assert!(parse(&pair).expect("a pair").tls().is_some());
        let lacks = |words: &[&str], what: &str| {
            let error = parse(words).expect_err("something is missing");
            assert!(error.contains(what), "{error}");
        };
        lacks(&pair[..2], "--tls-key");
        lacks(&pair[2..], "--tls-cert");
        lacks(&["--tls-client-ca", "clients.crt"], "--tls-cert");
        lacks(&[&pair[..], &["--tls-anonymous-clients"]].concat(), "--tls-client-ca");
        lacks(&[&pair[..], &["--tls-allow", "desk=GET"]].concat(), "--tls-client-ca");
        let all = [&pair[..], &["--tls-client-ca", "clients.crt", "--tls-allow"]].concat();
        let allowed = parse(&[&all[..], &["spiffe://a?b=c=Account.*, GET"]].concat());
        let right = ClientRight {
            client: "spiffe://a?b=c".to_owned(),
            messages: vec!["Account.*".to_owned(), "GET".to_owned()],
        };
        assert_eq!(allowed.expect("all of it").tls_allow, [right]);
        lacks(&[&all[..], &["desk"]].concat(), "NAME=LIST");
        lacks(&[&all[..], &["desk=GET,,"]].concat(), "NAME=LIST");
    }

    #[test]
    fn core_lists_are_read() {
        assert_eq!(parse_cores("1"), Ok(CoreList(vec![1])));
        assert_eq!(parse_cores("0,3-5"), Ok(CoreList(vec![0, 3, 4, 5])));
        for bad in ["", "a", "3-1", "1,,2", "-1"] {
            assert!(parse_cores(bad).is_err(), "{bad}");
        }
    }
}
