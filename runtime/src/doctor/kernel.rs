//! What the kernel, and whoever guards it, allows.

use std::error::Error;
use std::{fs, io};

use coreside_net::{UringFeatures, uring_features};

use super::Finding;
use crate::node::NodeError;
use crate::probe::{self, DriverChoice, Refusal};

/// The oldest version that has what is needed of io_uring.
const OLDEST: (u32, u32) = (6, 1);

pub(super) fn findings(choice: DriverChoice) -> Vec<Finding> {
    let mut findings = vec![kernel(), seccomp()];
    let choice = match probe::wanted(choice) {
        Ok(choice) => choice,
        Err(error) => {
            let advice = "correct or unset the variable CORESIDE_DRIVER";
            findings.push(Finding::failure("driver", error.to_string(), advice));
            return findings;
        }
    };
    let refusal = probe::try_uring().err();
    findings.push(match &refusal {
        None => Finding::good("io_uring", "works: a ring, its buffers and an executor were made"),
        Some(refusal) => {
            let why = refusal.error.to_string();
            Finding::warning("io_uring", why, advice(error_number(&refusal.error)))
        }
    });
    if refusal.is_none() && choice != DriverChoice::Epoll {
        findings.extend(features());
    }
    findings.push(driver(choice, refusal.as_ref()));
    findings
}

fn kernel() -> Finding {
    let release = read("/proc/sys/kernel/osrelease");
    match version(&release) {
        Some(version) if version < OLDEST => {
            let advice = "Linux 6.1 or newer has what the io_uring driver needs";
            Finding::warning("kernel", format!("Linux {release}"), advice)
        }
        _ => Finding::good("kernel", format!("Linux {release}")),
    }
}

/// A filter of system calls is no fault; it is what may explain the next finding.
fn seccomp() -> Finding {
    let status = read("/proc/self/status");
    let mode = status.lines().find_map(|line| line.strip_prefix("Seccomp:")).map(str::trim);
    let what = match mode {
        Some("0") => "no filter of system calls",
        Some(_) => "system calls are filtered, as in a container",
        None => "the kernel does not say whether system calls are filtered",
    };
    Finding::good("seccomp", what)
}

fn features() -> Vec<Finding> {
    let UringFeatures { multishot_receive, zero_copy_send } = match uring_features() {
        Ok(features) => features,
        Err(error) => {
            let advice = "try once more; something has run out for now";
            return vec![Finding::warning("features", error.to_string(), advice)];
        }
    };
    let receive = if multishot_receive {
        Finding::good("receive", "one receive goes on for as long as bytes come")
    } else {
        let advice = "Linux 6.1 or newer is needed, or --driver epoll";
        Finding::failure("receive", "a receive ends after its first bytes", advice)
    };
    let send = if zero_copy_send {
        Finding::good(
            "send",
            "large outputs can be sent without a copy; --calibrate measures from which size on",
        )
    } else {
        let advice = "nothing is lost but that: every output is copied once, as usual";
        Finding::warning("send", "the kernel has no sends without a copy", advice)
    };
    vec![receive, send]
}

fn driver(choice: DriverChoice, refusal: Option<&Refusal>) -> Finding {
    const EPOLL: &str = "epoll: a system call for each receive and each send";
    match (choice, refusal) {
        (DriverChoice::Epoll, _) => {
            Finding::good("driver", format!("{EPOLL}, as it was asked for"))
        }
        (_, None) => Finding::good("driver", "io_uring: one system call for what a pass has to do"),
        (DriverChoice::Auto, Some(refusal)) if refusal.for_good => {
            Finding::warning("driver", EPOLL, "see io_uring above")
        }
        (DriverChoice::Auto, Some(_)) => {
            let advice =
                "something has run out, see io_uring above; a node waits for no better time";
            Finding::failure("driver", "none: the node does not start", advice)
        }
        (DriverChoice::Uring, Some(_)) => {
            let advice = "see io_uring above, or let the node choose: --driver auto";
            Finding::failure("driver", "none: io_uring is asked for, and refused", advice)
        }
    }
}

/// What to do about an io_uring that fails with this error.
fn advice(error: Option<i32>) -> String {
    let switch = read("/proc/sys/kernel/io_uring_disabled");
    let profile = "allow io_uring_setup, io_uring_enter and io_uring_register in the seccomp \
                   profile; net/container has the rule and says where it goes";
    match (error, switch.as_str()) {
        (Some(libc::EPERM | libc::EACCES), "1" | "2") => format!(
            "sysctl kernel.io_uring_disabled is {switch}: set it to 0 on the host, or to 1 and the \
             process's group to kernel.io_uring_group"
        ),
        (Some(libc::EPERM | libc::EACCES), _) => profile.to_owned(),
        (Some(libc::ENOSYS), _) => format!("on Linux 6.1 or newer: {profile}"),
        (Some(libc::EINVAL | libc::EOPNOTSUPP), _) => {
            "Linux 6.1 or newer has what is needed".to_owned()
        }
        (Some(libc::EMFILE | libc::ENFILE), _) => "raise the limit of open files".to_owned(),
        // An executor says it in words.
        _ => "allow 1 MiB of memory to be locked: `ulimit -l 1024`, LimitMEMLOCK=1M, \
              docker run --ulimit memlock=1048576"
            .to_owned(),
    }
}

/// The number of the error that is behind another.
fn error_number(error: &NodeError) -> Option<i32> {
    let mut next: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return error.raw_os_error();
        }
        next = error.source();
    }
    None
}

/// `6.18` of `6.18.44-generic`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|character: char| !character.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// The text of a file without its end; empty where there is none.
pub(super) fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use coreside_net::NetError;

    use super::super::Verdict;
    use super::*;

    fn refusal(error: i32, for_good: bool) -> Refusal {
        let error = NodeError::Net(NetError::Ring(io::Error::from_raw_os_error(error)));
        Refusal { error, for_good }
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        assert_eq!(version("6.18.44-fc"), Some((6, 18)));
        assert_eq!(version("5.10-rc1"), Some((5, 10)));
        assert_eq!(version("next"), None);
        assert!(version("6.0.9") < Some(OLDEST) && version("6.1") >= Some(OLDEST));
    }

    #[test]
    fn driver_is_what_a_node_would_choose() {
        let (good, passing) = (refusal(libc::EPERM, true), refusal(libc::EMFILE, false));
        for (choice, refusal, verdict) in [
            (DriverChoice::Auto, None, Verdict::Good),
            (DriverChoice::Uring, None, Verdict::Good),
            (DriverChoice::Epoll, None, Verdict::Good),
            (DriverChoice::Epoll, Some(&good), Verdict::Good),
            (DriverChoice::Auto, Some(&good), Verdict::Warning),
            (DriverChoice::Auto, Some(&passing), Verdict::Failure),
            (DriverChoice::Uring, Some(&good), Verdict::Failure),
        ] {
            assert_eq!(driver(choice, refusal).verdict, verdict, "{choice:?}");
        }
    }

    #[test]
    fn every_refusal_has_its_advice() {
        assert_eq!(error_number(&refusal(libc::EPERM, true).error), Some(libc::EPERM));
        assert!(advice(Some(libc::ENOSYS)).contains("seccomp"));
        assert!(advice(Some(libc::EINVAL)).contains("6.1"));
        assert!(advice(Some(libc::ENOMEM)).contains("ulimit -l"));
        assert!(advice(None).contains("ulimit -l"));
    }
}
