//! Why there is no net.

use std::error::Error;
use std::fmt;
use std::io;

/// What failed when a net was set up or driven.
#[derive(Debug)]
#[non_exhaustive]
pub enum NetError {
    /// The kernel refused a ring.
    Ring(io::Error),
    /// The kernel refused memory to receive into, or to use it.
    Buffers(io::Error),
    /// The listening socket could not be prepared.
    Listener(io::Error),
    /// There is no connection to try something on.
    Connection(io::Error),
    /// The kernel refused an epoll descriptor.
    Epoll(io::Error),
    /// The kernel refused to be told of the descriptor that wakes a sleeping executor.
    Wakeup(io::Error),
    /// The kernel refused to take or complete operations.
    Enter(io::Error),
}

impl NetError {
    /// Whether the kernel, or who guards it, has no io_uring for this process: it is unknown,
    /// forbidden, older than what is used here, or has no memory that may be locked. Not so when
    /// the process has run out of something that may come back, such as descriptors.
    pub fn refuses_uring(&self) -> bool {
        let (Self::Ring(error) | Self::Buffers(error)) = self else { return false };
        matches!(
            error.raw_os_error(),
            Some(
                libc::ENOSYS
                    | libc::EPERM
                    | libc::EINVAL
                    | libc::EOPNOTSUPP
                    | libc::EACCES
                    | libc::ENOMEM
            )
        )
    }
}

impl fmt::Display for NetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ring(error) if error.kind() == io::ErrorKind::PermissionDenied => write!(
                f,
                "io_uring is forbidden here ({error}): allow io_uring_setup, io_uring_enter and \
                 io_uring_register in the container's seccomp profile, and set \
                 kernel.io_uring_disabled to 0"
            ),
            Self::Ring(error) => write!(
                f,
                "no io_uring ring ({error}): Linux 6.1 or newer is needed, with room for the ring \
                 in RLIMIT_MEMLOCK on kernels that count it"
            ),
            Self::Buffers(error) => {
                write!(f, "no receive buffers ({error}): Linux 6.1 or newer is needed")
            }
            Self::Epoll(error) => write!(f, "no epoll descriptor ({error})"),
            Self::Connection(error) => write!(f, "no connection to try it on: {error}"),
            Self::Listener(error) => write!(f, "the listening socket is unusable: {error}"),
            Self::Wakeup(error) => write!(f, "no wake-up by eventfd: {error}"),
            Self::Enter(error) => write!(f, "io_uring_enter or epoll_wait failed: {error}"),
        }
    }
}

impl Error for NetError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Ring(error)
            | Self::Buffers(error)
            | Self::Connection(error)
            | Self::Epoll(error)
            | Self::Listener(error)
            | Self::Wakeup(error)
            | Self::Enter(error) => Some(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_forbidden_or_unknown_is_told_from_what_has_run_out() {
        let ring = |number| NetError::Ring(io::Error::from_raw_os_error(number));
        for number in [38, 1, 22, 95, 13, 12] {
            assert!(ring(number).refuses_uring(), "{}", ring(number));
            let buffers = NetError::Buffers(io::Error::from_raw_os_error(number));
            assert!(buffers.refuses_uring());
            let enter = NetError::Enter(io::Error::from_raw_os_error(number));
            assert!(!enter.refuses_uring(), "it had a ring");
        }
        for number in [libc::EMFILE, libc::ENFILE, libc::EAGAIN, libc::EINTR] {
            assert!(!ring(number).refuses_uring(), "{}", ring(number));
        }
    }
}
