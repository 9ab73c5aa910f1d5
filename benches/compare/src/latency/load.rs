//! `coreside-load`, and what it has found.

use std::io;
use std::net::SocketAddr;
use std::process::Command;

use super::Tools;
use super::servers::Side;
use crate::cores;

/// How a server is asked.
#[derive(Clone, Copy)]
pub struct Load {
    /// Requests per second, however fast the server is; without it, each connection asks again when
    /// it has its answer.
    pub rate: Option<f64>,
    pub seconds: f64,
}

/// What came of it.
#[derive(Clone, Copy)]
pub struct Found {
    /// Replies per second.
    pub rate: f64,
    /// Whether the server kept the rate that it was given.
    pub kept: bool,
    pub p999_us: f64,
    pub p9999_us: f64,
    pub late_p99_us: f64,
    pub late_max_us: f64,
}

const CONNECTIONS: &str = "64";
const KEYS: &str = "100000";
/// Outstanding on a connection at a given rate: what falls due meanwhile is sent all the same.
const DEPTH: &str = "64";

/// Asks the server for some time.
///
/// # Errors
/// When the load fails, or the server answers with an error.
pub fn run(tools: &Tools, side: &Side, address: SocketAddr, load: Load) -> io::Result<Found> {
    let core = cores::allowed().last().copied().unwrap_or_default();
    let mut command = Command::new(tools.programs.join("coreside-load"));
    command.args(["--quiet", "--check", "--connections", CONNECTIONS, "--keys", KEYS]);
    command.args(["--addr", &address.to_string(), "--cores", &core.to_string()]);
    command.args(["--warmup", "1", "--duration", &load.seconds.to_string()]).args(side.asks);
    if let Some(rate) = load.rate {
        let rate = rate.to_string();
        command.args(["--depth", DEPTH, "--arrivals", "poisson", "--rate", &rate]);
    }
    match read(&results(&mut command)?) {
        Some(Found { rate: 0.0, .. }) => Err(io::Error::other("no reply in all the time")),
        Some(found) => Ok(found),
        None => Err(io::Error::other("the load's report has another form")),
    }
}

/// Runs `coreside-load`, and returns the results of its report.
///
/// # Errors
/// When it fails: what it says.
pub fn results(command: &mut Command) -> io::Result<serde_json::Value> {
    let name = format!("coreside-compare-{}.json", std::process::id());
    let report = std::env::temp_dir().join(name);
    let output = command.arg("--json").arg(&report).output()?;
    let text = std::fs::read_to_string(&report).unwrap_or_default();
    std::fs::remove_file(&report).unwrap_or_default();
    if !output.status.success() {
        return Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    let mut report: serde_json::Value = serde_json::from_str(&text).map_err(io::Error::other)?;
    Ok(report["results"].take())
}

fn read(results: &serde_json::Value) -> Option<Found> {
    let us = |value: &serde_json::Value| Some(value.as_f64()? / 1e3);
    Some(Found {
        rate: results["rate_per_s"].as_f64()?,
        // Without a rate there is none to keep.
        kept: !results["fell_behind"].as_bool().unwrap_or_default(),
        p999_us: us(&results["latency_ns"]["p99.9"])?,
        p9999_us: us(&results["latency_ns"]["p99.99"])?,
        late_p99_us: us(&results["hiccup_ns"]["p99"])?,
        late_max_us: us(&results["hiccup_ns"]["max"])?,
    })
}
