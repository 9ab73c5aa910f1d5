//! What the doctor says, as a program: here, and where io_uring is refused.

#[path = "support/filter.rs"]
mod filter;

use std::process::{Command, Output};

use coreside::DriverChoice;
use coreside::doctor::{self, Verdict};
use filter::{refuse_uring, where_refused};

/// The words of a finding, if there is one about this.
fn finding(about: &str, choice: DriverChoice) -> Option<(Verdict, String, Option<String>)> {
    let report = doctor::examine(choice);
    let found = report.findings.into_iter().find(|finding| finding.about == about)?;
    Some((found.verdict, found.what, found.advice))
}

#[test]
fn everything_is_looked_at_and_every_fault_has_its_advice() {
    let report = doctor::examine(DriverChoice::Auto);
    for about in [
        "kernel",
        "seccomp",
        "io_uring",
        "driver",
        "cores",
        "siblings",
        "quota",
        "huge pages",
        "locked memory",
        "open files",
        "clock",
    ] {
        let found = report.findings.iter().filter(|finding| finding.about == about).count();
        assert_eq!(found, 1, "{about}: {report}");
    }
    for finding in &report.findings {
        let is_good = finding.verdict == Verdict::Good;
        assert_eq!(finding.advice.is_none(), is_good, "{finding:?}");
    }
}

#[test]
fn refused_uring_is_a_warning_or_a_failure_with_what_to_do() {
    if std::env::var_os("CORESIDE_DRIVER").is_some() {
        return;
    }
    for error in [libc::EPERM, libc::ENOSYS] {
        where_refused(error, || {
            let (verdict, _, advice) = finding("io_uring", DriverChoice::Auto).expect("a finding");
            assert_eq!(verdict, Verdict::Warning);
            assert!(advice.expect("what to do").contains("seccomp profile"));
            let (verdict, what, _) = finding("driver", DriverChoice::Auto).expect("a finding");
            assert_eq!(verdict, Verdict::Warning);
            assert!(what.starts_with("epoll"), "{what}");
            let (verdict, ..) = finding("driver", DriverChoice::Uring).expect("a finding");
            assert_eq!(verdict, Verdict::Failure);
            let (verdict, ..) = finding("driver", DriverChoice::Epoll).expect("a finding");
            assert_eq!(verdict, Verdict::Good);
            assert!(finding("send", DriverChoice::Auto).is_none(), "there is no ring to ask");
        });
    }
}

/// Runs the program, whose io_uring is refused if that is wanted.
fn doctor(arguments: &[&str], refused: bool) -> Output {
    let run = || {
        let mut doctor = Command::new(env!("CARGO_BIN_EXE_coreside-doctor"));
        doctor.args(arguments).env_remove("CORESIDE_DRIVER").output().expect("it starts")
    };
    std::thread::scope(|scope| {
        let running = scope.spawn(|| {
            // A filter holds for the children of the thread, too.
            if refused {
                refuse_uring(libc::EPERM);
            }
            run()
        });
        running.join().expect("no panic")
    })
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn exit_code_says_whether_a_node_runs() {
    for (arguments, refused, code) in [
        (&["--for-driver", "epoll"][..], true, 0),
        (&[], true, 0),
        (&["--for-driver", "uring"], true, 1),
        (&["--for-driver", "uring", "--json"], true, 1),
        (&["--calibrate"], true, 1),
        (&["--to", "127.0.0.1:1"], false, 2),
        (&["--calibrate", "--to", "127.0.0.1:1"], false, 1),
    ] {
        let output = doctor(arguments, refused);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", text(&output.stdout));
    }
    let unmeasured = doctor(&["--calibrate", "--to", "127.0.0.1:1"], false);
    assert!(text(&unmeasured.stderr).contains("127.0.0.1:1"), "{}", text(&unmeasured.stderr));
    let refused = doctor(&["--for-driver", "uring"], true);
    let said = text(&refused.stdout);
    assert!(said.contains("FAILURE  driver"), "{said}");
    assert!(said.ends_with("A node does not run here.\n"), "{said}");
}

#[test]
fn programs_get_one_object() {
    for refused in [false, true] {
        let output = doctor(&["--json"], refused);
        let said = text(&output.stdout);
        assert_eq!(output.status.code(), Some(0), "{said}");
        assert!(said.starts_with(r#"{"report":{"can_run":true,"findings":[{"about":"kernel""#));
        assert!(said.ends_with("]},\"calibration\":null}\n"), "{said}");
        assert_eq!(said.lines().count(), 1);
        if refused {
            assert!(said.contains(r#""what":"epoll: "#), "{said}");
        }
    }
}

#[test]
fn calibration_over_loopback_ends_with_what_to_configure() {
    let output = doctor(&["--calibrate"], false);
    let said = text(&output.stdout);
    if !output.status.success() {
        // A machine without io_uring.
        return assert!(text(&output.stderr).starts_with("nothing was measured"), "{said}");
    }
    assert!(said.contains("Over loopback the kernel copies in any case"), "{said}");
    assert!(said.contains("never pay on this path"), "{said}");
    let output = doctor(&["--calibrate", "--json"], false);
    let said = text(&output.stdout);
    assert!(said.contains(r#""calibration":{"zero_copy_from_bytes":null,"costs":[{"#), "{said}");
    assert_eq!(said.matches(r#""plain_ns":"#).count(), 11, "1 KiB to 1 MiB");
}

#[test]
fn reader_that_wants_no_more_is_no_fault() {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let mut doctor = Command::new(env!("CARGO_BIN_EXE_coreside-doctor"));
    let output = doctor.arg("--for-driver=epoll").stdout(writer).output().expect("it starts");
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
}
