//! One run of the programs: its effort, its report, what is shown meanwhile, and its early end.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget};

use crate::report::Report;

/// What both programs are given.
pub(crate) struct Run {
    pub(crate) quick: bool,
    pub(crate) report: Report,
    interrupted: Arc<AtomicBool>,
    bar: ProgressBar,
}

/// How often one looks whether something has happened.
const LOOK: Duration = Duration::from_millis(5);

impl Run {
    /// The first Ctrl-C ends measurements early; a second one ends the process.
    pub(crate) fn new(quick: bool) -> io::Result<Self> {
        const INTERRUPTED: i32 = 130;
        let interrupted = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            let stop = Arc::clone(&interrupted);
            // In this order: the second signal finds the flag that the first has set.
            let flag = Arc::clone(&stop);
            signal_hook::flag::register_conditional_shutdown(signal, INTERRUPTED, flag)?;
            signal_hook::flag::register(signal, stop)?;
        }
        // Without a terminal, nothing is drawn.
        let bar = ProgressBar::new_spinner();
        bar.set_draw_target(ProgressDrawTarget::stderr());
        Ok(Self { quick, report: Report::default(), interrupted, bar })
    }

    pub(crate) fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }

    /// Shows what goes on from now.
    pub(crate) fn show(&self, text: impl Into<String>) {
        self.bar.set_message(text.into());
        self.bar.tick();
    }

    /// Takes the line away before something is printed.
    pub(crate) fn hide(&self) {
        self.bar.finish_and_clear();
        self.bar.reset();
    }

    /// Waits for so long or until the run is interrupted, and has `look` look now and then.
    pub(crate) fn pass(&self, seconds: f64, mut look: impl FnMut()) {
        let limit = Instant::now() + Duration::from_secs_f64(seconds);
        while !self.is_interrupted() {
            let left = limit.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            std::thread::sleep(left.min(LOOK * 10));
            self.bar.tick();
            look();
        }
    }

    /// Waits until `done`, at most for `limit`, also when the run is interrupted: what was begun
    /// has to end. Returns whether it is done.
    pub(crate) fn until(&self, limit: Duration, mut done: impl FnMut() -> bool) -> bool {
        let limit = Instant::now() + limit;
        while !done() {
            if Instant::now() > limit {
                return false;
            }
            std::thread::sleep(LOOK);
            self.bar.tick();
        }
        true
    }
}
