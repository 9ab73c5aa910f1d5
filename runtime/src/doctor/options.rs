//! The command line.

use std::io::Write as _;
use std::net::SocketAddr;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::{Calibration, Curve, examine};
use crate::options::DriverOption;

/// What to look at, and how to show it. Flatten it into the options of your own.
#[derive(Args, Clone, Debug)]
pub struct DoctorOptions {
    /// Measure what sends cost with and without a copy, by size, and say from which on it pays
    #[arg(long)]
    pub calibrate: bool,

    /// Measure the way to this address, where somebody must read and throw away, such as
    /// `nc -lk 9000 > /dev/null` [default: loopback, where the kernel copies in any case]
    #[arg(long, value_name = "ADDR", requires = "calibrate")]
    pub to: Option<SocketAddr>,

    /// Print one object of JSON for programs
    #[arg(long)]
    pub json: bool,

    /// The driver that the node is to be asked for
    #[arg(long, value_name = "DRIVER", value_enum, default_value_t = DriverOption::Auto)]
    pub for_driver: DriverOption,
}

/// Commands that every service may have beside serving. Put them into the options of your own, as
/// `#[command(subcommand)] command: Option<ServiceCommand>`.
#[derive(Clone, Debug, Subcommand)]
pub enum ServiceCommand {
    /// Say what a node would find on this machine, and what to do about it
    Doctor(DoctorOptions),
}

impl ServiceCommand {
    /// Does it. The exit code is 1 where a node would not run, or nothing could be measured.
    pub fn run(&self) -> ExitCode {
        let Self::Doctor(options) = self;
        options.run()
    }
}

impl DoctorOptions {
    /// Looks, measures if that is wanted, and prints. The exit code is 1 where a node would not
    /// run, or nothing could be measured.
    pub fn run(&self) -> ExitCode {
        let report = examine(self.for_driver.into());
        let calibration = Calibration { peer: self.to, ..Calibration::default() };
        let curve = self.calibrate.then(|| Curve::measure(&calibration));
        let mut out = std::io::stdout().lock();
        // Whoever reads no further, such as `head`, wants no more.
        let _ = match (&curve, self.json) {
            (Some(Ok(curve)), true) => {
                let (report, curve) = (report.to_json(), curve.to_json());
                writeln!(out, r#"{{"report":{report},"calibration":{curve}}}"#)
            }
            (_, true) => writeln!(out, r#"{{"report":{},"calibration":null}}"#, report.to_json()),
            (Some(Ok(curve)), false) => writeln!(out, "{report}\n\n{curve}"),
            (_, false) => writeln!(out, "{report}"),
        };
        match curve {
            Some(Err(error)) => {
                let way = self.to.map_or(String::new(), |peer| format!(" on the way to {peer}"));
                eprintln!("nothing was measured{way}: {error}");
                ExitCode::FAILURE
            }
            _ if report.can_run() => ExitCode::SUCCESS,
            _ => ExitCode::FAILURE,
        }
    }
}
