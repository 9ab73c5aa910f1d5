//! The suite as a program: runs scenarios from seeds, many at a time, and says which fail.
//! `scripts/sim` builds and starts it.

mod cli;
mod farm;
mod lesser;
#[cfg(sabotage)]
mod sabotage;
mod table;
// Named by its path, so that its own parts are found beside it, as the test finds them.
#[path = "suite.rs"]
mod suite;

fn main() -> std::process::ExitCode {
    cli::main()
}
