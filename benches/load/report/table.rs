use std::fmt::{self, Write};

use super::{hiccups, percentiles, units};
use crate::plan::Plan;
use crate::run::Outcome;

/// The result as lines for a terminal.
pub(crate) fn render(plan: &Plan, label: Option<&str>, outcome: &Outcome) -> String {
    let mut out = String::new();
    // Writing into a string cannot fail.
    let _ = write_all(&mut out, plan, label, outcome);
    out
}

fn write_all(out: &mut String, plan: &Plan, label: Option<&str>, outcome: &Outcome) -> fmt::Result {
    let tally = &outcome.tally;
    if let Some(label) = label {
        writeln!(out, "{label}")?;
    }
    writeln!(out, "{}", plan.summary())?;
    writeln!(out)?;
    if outcome.interrupted {
        writeln!(out, "  interrupted after    {:.1} s", tally.window_ns as f64 / 1e9)?;
    }
    let replies = units::count(tally.replies);
    let seconds = tally.window_ns as f64 / 1e9;
    writeln!(
        out,
        "  rate        {:>14}   {replies} replies in {seconds:.2} s",
        rate(tally.rate())
    )?;
    if tally.told > 0 {
        let told = units::count(tally.told);
        let per_second = rate(tally.per_second(tally.told));
        writeln!(out, "  told        {per_second:>14}   {told} messages that nobody answers")?;
    }
    if plan.rate.is_some() {
        let share = 100.0 * (tally.replies + tally.told) as f64 / tally.due.max(1) as f64;
        writeln!(out, "  offered     {:>14}   {share:.2} % achieved", rate(tally.offered_rate()))?;
    }
    writeln!(
        out,
        "  data        {:>14}   sent, {} received",
        units::data_rate(tally.per_second(tally.sent_bytes)),
        units::data_rate(tally.per_second(tally.received_bytes))
    )?;
    writeln!(out, "  errors      {:>14}", units::count(tally.errors.count()))?;
    for (text, count) in tally.errors.texts() {
        writeln!(out, "              {:>14} x {text}", units::count(count))?;
    }
    if tally.unanswered > 0 {
        writeln!(out, "  unanswered  {:>14}", units::count(tally.unanswered))?;
    }
    writeln!(out)?;
    let from = if plan.rate.is_some() { "due time" } else { "sending" };
    writeln!(out, "  latency from {from} in µs, {} samples", units::count(tally.latency.len()))?;
    for (name, ns) in percentiles(tally) {
        writeln!(out, "  {name:<12}{:>14}", units::microseconds(ns))?;
    }
    writeln!(out)?;
    writeln!(out, "  hiccups in µs: how late this program saw a timer of 1 ms")?;
    let [p99, max] = hiccups(tally);
    writeln!(out, "  {:<12}{:>14}", "p99", units::microseconds(p99))?;
    writeln!(out, "  {:<12}{:>14}", "max", units::microseconds(max))?;
    if plan.rate.is_some() && tally.fell_behind() {
        writeln!(out)?;
        writeln!(
            out,
            "  THE TARGET DID NOT KEEP UP: {} of {} due requests could not even be sent.",
            units::count(tally.unsent),
            units::count(tally.due)
        )?;
        writeln!(out, "  These latencies measure a growing queue; they depend on --duration.")?;
    }
    Ok(())
}

fn rate(per_second: f64) -> String {
    format!("{}/s", units::count(per_second.round() as u64))
}
