//! Which driver a node runs on: the one that was asked for, or the better one of those that the
//! kernel, and whoever guards it, allow.

use std::{env, thread};

use coreside_net::{DriverKind, Net, ZeroCopy};

use crate::host::{self, Seat};
use crate::node::{Node, NodeBuilder, NodeError};

/// Which driver a node is to run on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DriverChoice {
    /// What the environment variable `CORESIDE_DRIVER` says: `uring` or `epoll`. If it is not set,
    /// or says `auto`: io_uring where it works, otherwise epoll, and a line on the standard error.
    #[default]
    Auto,
    /// io_uring. Where it is refused, the node does not start.
    Uring,
    /// epoll and plain threads.
    Epoll,
}

impl NodeBuilder {
    /// Which driver the shards run on (default: [`DriverChoice::Auto`]).
    ///
    /// io_uring needs Linux 6.1, 512 KiB of memory that may be locked, and a container that allows
    /// its three system calls. Without it a node does the same at more cost: a system call for each
    /// receive and each send.
    pub fn driver(mut self, choice: DriverChoice) -> Self {
        self.driver = choice;
        self
    }

    /// Which outputs to clients are sent without a copy, where the driver is io_uring (default:
    /// none). [`Curve::threshold`](crate::doctor::Curve::threshold) says from which size on it
    /// pays.
    pub fn zero_copy(mut self, zero_copy: ZeroCopy) -> Self {
        self.net.zero_copy = zero_copy;
        self
    }
}

impl Node {
    /// Which driver the shards run on.
    pub fn driver(&self) -> DriverKind {
        self.driver
    }
}

/// Why there is no io_uring.
pub(crate) struct Refusal {
    pub(crate) error: NodeError,
    /// It is refused to this process, rather than that something has run out for now.
    pub(crate) for_good: bool,
}

/// The driver to run on. Tries io_uring out, unless it is not wanted.
pub(crate) fn choose(choice: DriverChoice) -> Result<DriverKind, NodeError> {
    let choice = wanted(choice)?;
    if choice == DriverChoice::Epoll {
        return Ok(DriverKind::Epoll);
    }
    match try_uring() {
        Ok(()) => Ok(DriverKind::Uring),
        Err(Refusal { error, for_good: true }) if choice == DriverChoice::Auto => {
            eprintln!("coreside: {error}; the node runs on epoll instead");
            Ok(DriverKind::Epoll)
        }
        Err(refusal) => Err(refusal.error),
    }
}

/// The choice, or that of the environment where it is left to it.
pub(crate) fn wanted(choice: DriverChoice) -> Result<DriverChoice, NodeError> {
    match (choice, env::var("CORESIDE_DRIVER")) {
        (DriverChoice::Auto, Ok(text)) => parse(&text),
        (choice, _) => Ok(choice),
    }
}

fn parse(text: &str) -> Result<DriverChoice, NodeError> {
    match text {
        "" | "auto" => Ok(DriverChoice::Auto),
        "uring" => Ok(DriverChoice::Uring),
        "epoll" => Ok(DriverChoice::Epoll),
        other => Err(NodeError::Driver(other.to_owned())),
    }
}

/// Makes what each shard needs, the net's ring and an executor, and lets it go again.
pub(crate) fn try_uring() -> Result<(), Refusal> {
    Net::probe().map_err(|error| {
        let for_good = error.refuses_uring();
        Refusal { error: NodeError::Net(error), for_good }
    })?;
    // On a thread of its own: the caller's may have an executor, and glommio panics where it does
    // not know better.
    let made = thread::scope(|scope| {
        scope.spawn(|| host::executor(Seat::Anywhere).make().map(drop)).join()
    });
    let broken = "it failed where io_uring works".to_owned();
    match made {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => {
            let for_good = !has_run_out(error.raw_os_error());
            Err(Refusal { error: NodeError::Executor(error.to_string()), for_good })
        }
        Err(_) => Err(Refusal { error: NodeError::Executor(broken), for_good: true }),
    }
}

/// Whether an executor fails for want of something that may come back. Everything else stays so;
/// what it says of a limit on memory that may be locked is text, without a number.
fn has_run_out(error: Option<i32>) -> bool {
    matches!(error, Some(libc::EMFILE | libc::ENFILE | libc::EAGAIN | libc::EINTR))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn environment_is_read_or_refused() {
        for (text, choice) in [
            ("", DriverChoice::Auto),
            ("auto", DriverChoice::Auto),
            ("uring", DriverChoice::Uring),
            ("epoll", DriverChoice::Epoll),
        ] {
            assert_eq!(parse(text).ok(), Some(choice), "{text}");
        }
        for text in ["io_uring", "EPOLL", "1"] {
            assert!(matches!(parse(text), Err(NodeError::Driver(_))), "{text}");
        }
    }

    #[test]
    fn what_has_run_out_is_told_from_what_is_refused() {
        assert!(has_run_out(Some(libc::EMFILE)));
        assert!(!has_run_out(Some(libc::EPERM)) && !has_run_out(None));
    }
}
