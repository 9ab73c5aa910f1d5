//! Faults that no supervisor hears of: the node tells somebody, and stops where it must.
//!
//! A panic on a shard's thread is a fault, which is reported once, with what is known of it: by a
//! message to the supervisor, or here. So the process's panic hook is silent about it, and only
//! keeps where it was. All other panics are left to the hook that was there before, also those of
//! code that a shard only calls for somebody else: wakers, sinks.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::thread::{self, LocalKey};
use std::time::{Duration, Instant};

use coreside_shard::Fault;

use crate::node::NodeBuilder;

thread_local! {
    /// A shard is at work on this thread, and contains panics.
    static CONTAINED: Cell<bool> = const { Cell::new(false) };
    /// When the next backtrace may be taken.
    static NEXT_BACKTRACE: Cell<Option<Instant>> = const { Cell::new(None) };
    /// When the next line about a panic in no turn may be printed.
    static NEXT_LINE: Cell<Option<Instant>> = const { Cell::new(None) };
    /// What the last of them said, and where it was.
    static LAST: RefCell<Option<(String, String)>> = const { RefCell::new(None) };
    /// Whether there is such a one.
    static KEPT: Cell<bool> = const { Cell::new(false) };
}

/// Keeps where panics on shards were, from now on, and leaves all others to the hook before.
pub(crate) fn keep_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !CONTAINED.get() {
                return before(panic);
            }
            let mut place = panic.location().map_or_else(String::new, |at| format!("at {at}"));
            if is_time_for(&NEXT_BACKTRACE) {
                // Taken where RUST_BACKTRACE asks for it, as everywhere.
                let backtrace = Backtrace::capture();
                if backtrace.status() == BacktraceStatus::Captured {
                    place = format!("{place}\n{backtrace}");
                }
            }
            let text = panic.payload_as_str().unwrap_or("a panic without text").to_owned();
            LAST.replace(Some((text, place)));
            KEPT.set(true);
        }));
    });
}

/// To find the names of a backtrace, or to print a line, takes its time: so there is one per shard
/// and tenth of a second, however many panics there are.
fn is_time_for(next: &'static LocalKey<Cell<Option<Instant>>>) -> bool {
    let now = Instant::now();
    let is_time = next.get().is_none_or(|next| now >= next);
    if is_time {
        next.set(Some(now + Duration::from_millis(100)));
    }
    is_time
}

/// Where the last contained panic on this thread was.
pub(crate) fn take_last() -> Option<String> {
    KEPT.set(false);
    LAST.take().map(|(_, place)| place)
}

/// Panics during `work` are contained by this shard, and reported as faults. One that was no fault
/// of an entity, such as one in the drop of a message, is reported here.
pub(crate) fn contained<R>(shard: u16, work: impl FnOnce() -> R) -> R {
    CONTAINED.set(true);
    let result = work();
    CONTAINED.set(false);
    if KEPT.get() {
        report_last(shard);
    }
    result
}

#[cold]
fn report_last(shard: u16) {
    KEPT.set(false);
    if let Some((text, place)) = LAST.take()
        && is_time_for(&NEXT_LINE)
    {
        eprintln!("coreside: shard {shard}: a panic in no turn was contained: {text}, {place}");
    }
}

/// Runs code of somebody else (a waker, a sink, the drop of a message), whose panic is no fault of
/// an entity and must not end a shard. The panic hook reports it as any other.
pub(crate) fn contain(foreign: impl FnOnce()) {
    let contained = CONTAINED.replace(false);
    // What is to be said of it, the hook has said.
    let _ = catch_unwind(AssertUnwindSafe(foreign));
    CONTAINED.set(contained);
}

/// Ends the process when a panic ends its scope: one that nobody contains is a bug of ours, and a
/// node without one of its shards would leave callers without an answer.
pub(crate) struct AbortOnPanic {
    pub(crate) shard: u16,
}

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            let place = take_last().unwrap_or_else(|| "as was said above".to_owned());
            eprintln!("coreside: shard {} is broken, {place}; aborting", self.shard);
            std::process::abort();
        }
    }
}

/// Who is told of faults without a supervisor.
#[derive(Clone)]
pub(crate) struct FaultSink(Arc<Mutex<dyn FnMut(u16, Fault) + Send>>);

impl FaultSink {
    /// Tells of a fault on a shard.
    pub(crate) fn tell(&self, shard: u16, fault: Fault) {
        contain(|| {
            let mut sink = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            sink(shard, fault);
        });
    }
}

impl std::fmt::Debug for FaultSink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FaultSink")
    }
}

/// Lines per second that the default sink prints.
const LINES_MAX: u32 = 10;

impl Default for FaultSink {
    /// A line each on the standard error, up to ten per second.
    fn default() -> Self {
        let (mut since, mut lines, mut left_out) = (Instant::now(), 0, 0u64);
        Self(Arc::new(Mutex::new(move |shard: u16, fault: Fault| {
            if since.elapsed() >= Duration::from_secs(1) {
                if left_out > 0 {
                    eprintln!("coreside: {left_out} more faults were not printed");
                }
                (since, lines, left_out) = (Instant::now(), 0, 0);
            }
            if lines == LINES_MAX {
                left_out += 1;
                return;
            }
            lines += 1;
            eprintln!("coreside: shard {shard}: {}", describe(&fault));
        })))
    }
}

/// `Account/42 failed in deposit: out of range (fault 3), at src/main.rs:10:5`.
fn describe(fault: &Fault) -> String {
    let Fault { entity, message, reason, backtrace, count, .. } = fault;
    let turn = if message.is_empty() { String::new() } else { format!(" in {message}") };
    let place = backtrace.as_ref().map_or_else(String::new, |place| format!(", {place}"));
    format!("{entity} failed{turn}: {reason} (fault {count}){place}")
}

impl NodeBuilder {
    /// Who is told of the faults of entities that have no supervisor, with the shard's number
    /// (default: a line each on the standard error, up to ten per second). It is called on the
    /// shard's thread, which waits for it: it may send, and must not wait for the node. Its own
    /// panics harm nobody.
    ///
    /// # Panic hook
    /// The process's panic hook hears nothing of panics in handlers: a fault is reported here, or
    /// to the supervisor. The first node of a process puts a hook before the one that is there,
    /// which passes on every other panic. A hook that is set later hears of handlers' panics too,
    /// and faults then come without their place.
    pub fn on_fault(mut self, sink: impl FnMut(u16, Fault) + Send + 'static) -> Self {
        self.fault_sink = FaultSink(Arc::new(Mutex::new(sink)));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contained_panic_keeps_its_place_and_prints_nothing() {
        keep_panics();
        let fault = || catch_unwind(|| panic!("told to")).map_err(|_| take_last());
        let place = contained(0, fault).expect_err("a panic").expect("kept");
        assert!(place.starts_with("at ") && place.contains("faults.rs"), "{place}");
        assert_eq!(take_last(), None);
    }

    #[test]
    fn panic_of_foreign_code_is_left_to_the_hook_before() {
        keep_panics();
        contained(0, || contain(|| panic!("told to, and reported")));
        assert_eq!(take_last(), None, "it was nobody's fault");
        let fault = || catch_unwind(|| panic!("told to")).map_err(|_| take_last());
        assert!(contained(0, fault).is_err_and(|place| place.is_some()), "faults are kept again");
    }

    /// Not a test: what the next one starts.
    #[test]
    #[ignore = "ends its process"]
    fn broken_shard() {
        let _guard = AbortOnPanic { shard: 3 };
        panic!("told to");
    }

    #[test]
    fn broken_shard_ends_the_process() {
        let this = std::env::current_exe().expect("this binary has a path");
        let output = std::process::Command::new(this)
            .args(["--ignored", "--exact", "faults::tests::broken_shard", "--nocapture"])
            .output()
            .expect("it starts");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(text.contains("told to") && text.contains("shard 3 is broken"), "{text}");
        let signal = std::os::unix::process::ExitStatusExt::signal(&output.status);
        assert_eq!(signal, Some(libc::SIGABRT));
    }
}
