//! Says what a node would find on this machine, and what to do about it.
//!
//! ```text
//! cargo run -p coreside --features cli --bin coreside-doctor -- --calibrate
//! ```

use std::process::ExitCode;

use clap::Parser;
use coreside::doctor::DoctorOptions;

/// What a Coreside node would find on this machine, and what to do about it
#[derive(Parser)]
struct Options {
    #[command(flatten)]
    doctor: DoctorOptions,
}

fn main() -> ExitCode {
    Options::parse().doctor.run()
}
