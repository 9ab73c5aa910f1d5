//! What is shown on a terminal while a run goes on.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::gate::{Gate, Stage};
use crate::plan::{Length, Plan};
use crate::report::units;

/// A line on standard error, if that is a terminal.
///
/// It is drawn by the main thread alone, a few times a second, from counters that the load threads
/// publish anyway.
pub(crate) struct Progress<'a> {
    plan: &'a Plan,
    bar: ProgressBar,
    /// The stage that is shown, and when it began.
    shown: Option<(Stage, u64)>,
    last_ns: u64,
    last_replies: u64,
}

impl<'a> Progress<'a> {
    pub(crate) fn new(plan: &'a Plan, quiet: bool) -> Self {
        let bar = ProgressBar::hidden();
        if !quiet {
            // Without a terminal, indicatif draws nothing there.
            bar.set_draw_target(ProgressDrawTarget::stderr());
        }
        Self { plan, bar, shown: None, last_ns: 0, last_replies: 0 }
    }

    pub(crate) fn update(&mut self, gate: &Gate) {
        let (stage, begin_ns) = gate.stage();
        let (now_ns, replies) = (gate.clock.now_ns(), gate.replies());
        if self.shown != Some((stage, begin_ns)) {
            self.shown = Some((stage, begin_ns));
            (self.last_ns, self.last_replies) = (begin_ns, 0);
            self.restyle(stage);
        }
        let passed_ns = now_ns.saturating_sub(self.last_ns).max(1);
        let rate = replies.saturating_sub(self.last_replies) as f64 * 1e9 / passed_ns as f64;
        (self.last_ns, self.last_replies) = (now_ns, replies);
        let passed = Duration::from_nanos(now_ns.saturating_sub(begin_ns));
        let text = match stage {
            Stage::Connecting => format!("connecting {} times", self.plan.connections),
            Stage::Populating => format!("populating  {}", units::rate(rate)),
            Stage::Loading if passed < self.plan.warmup => {
                format!("warming up  {}", units::rate(rate))
            }
            Stage::Loading => format!("measuring   {}", units::rate(rate)),
        };
        self.bar.set_message(text);
        self.bar.set_position(match (stage, self.plan.length) {
            (Stage::Populating, _) | (_, Length::Requests(_)) => replies,
            (_, Length::Time(_)) => passed.as_millis() as u64,
        });
        self.bar.tick();
    }

    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }

    fn restyle(&self, stage: Stage) {
        let length = match (stage, self.plan.length) {
            (Stage::Connecting, _) => None,
            (Stage::Populating, _) => self.plan.populate.is_some().then_some(self.plan.keys),
            // The warm-up's requests are not counted in advance.
            (Stage::Loading, Length::Requests(_)) => None,
            (Stage::Loading, Length::Time(time)) => {
                Some((self.plan.warmup + time).as_millis() as u64)
            }
        };
        let template = match length {
            Some(_) => "{spinner} {msg:34} [{bar:32}] {percent:>3} %",
            None => "{spinner} {msg}",
        };
        self.bar.set_position(0);
        self.bar.set_length(length.unwrap_or(0));
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.bar.set_style(style.progress_chars("=> "));
        }
    }
}
