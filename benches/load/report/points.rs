//! The points of a sweep as lines for a terminal and as JSON.

use std::fmt::{self, Write};

use serde_json::{Value, json};

use super::json::{parameters, results};
use super::machine::Machine;
use super::{hiccups, units};
use crate::plan::Plan;
use crate::sweep::{Curve, Point};

/// The percentiles of the table.
const COLUMNS: [(&str, f64); 3] = [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)];

/// A line for each point.
pub(crate) fn table(plan: &Plan, label: Option<&str>, curve: &Curve) -> String {
    let mut out = String::new();
    // Writing into a string cannot fail.
    let _ = write_table(&mut out, plan, label, curve);
    out
}

/// How the loop of a sweep is called.
pub(crate) fn pace(plan: &Plan) -> String {
    format!("open loop at a range of rates, {}", plan.arrivals.name())
}

fn write_table(out: &mut String, plan: &Plan, label: Option<&str>, curve: &Curve) -> fmt::Result {
    if let Some(label) = label {
        writeln!(out, "{label}")?;
    }
    writeln!(out, "{}", plan.summary_at(pace(plan)))?;
    writeln!(out)?;
    if let Some(capacity) = &curve.capacity {
        let (rate, p99) = (capacity.tally.rate(), capacity.tally.latency.value_at_quantile(0.99));
        let (rate, p99) = (per_second(rate), units::microseconds(p99));
        writeln!(out, "  closed loop  {rate}/s, p99 {p99} µs from sending")?;
        writeln!(out)?;
    }
    if curve.interrupted() {
        writeln!(out, "  interrupted; the last point is shorter than the others")?;
        writeln!(out)?;
    }
    let [offered, achieved, errors] = ["offered/s", "achieved/s", "errors"];
    write!(out, "  {offered:>12} {achieved:>12}")?;
    for (name, _) in COLUMNS {
        write!(out, " {name:>10}")?;
    }
    writeln!(out, " {:>10} {errors:>9}   {:>10} {:>10}", "max", "hiccup p99", "hiccup max")?;
    for point in &curve.points {
        row(out, point)?;
    }
    writeln!(out)?;
    writeln!(
        out,
        "  Latencies from due time, and hiccups, in µs. A hiccup is how late this program saw\n  \
         a timer of 1 ms: latencies up to there may be this machine's, not the target's."
    )?;
    if curve.points.iter().any(|point| point.outcome.tally.fell_behind()) {
        writeln!(
            out,
            "  *  Replies did not keep up: these latencies measure a growing queue. It is the"
        )?;
        writeln!(out, "     target's if the hiccups are short beside them.")?;
    }
    let texts = curve.points.iter().flat_map(|point| point.outcome.tally.errors.texts());
    if let Some((text, _)) = texts.into_iter().next() {
        writeln!(out, "  The first error reply: {text}")?;
    }
    Ok(())
}

fn row(out: &mut String, point: &Point) -> fmt::Result {
    let tally = &point.outcome.tally;
    write!(out, "  {:>12} {:>12}", per_second(point.rate), per_second(tally.rate()))?;
    for (_, quantile) in COLUMNS {
        write!(out, " {:>10}", units::microseconds(tally.latency.value_at_quantile(quantile)))?;
    }
    let max = units::microseconds(tally.latency.max());
    write!(out, " {max:>10} {:>9}", units::count(tally.errors.count()))?;
    let [p99, max] = hiccups(tally).map(units::microseconds);
    let behind = if tally.fell_behind() { "  *" } else { "" };
    writeln!(out, "   {p99:>10} {max:>10}{behind}")
}

fn per_second(rate: f64) -> String {
    units::count(rate.round() as u64)
}

/// Everything about a sweep as one object.
pub(crate) fn json(plan: &Plan, label: Option<&str>, machine: &Machine, curve: &Curve) -> String {
    let points: Vec<Value> = curve
        .points
        .iter()
        .map(|point| {
            let mut results = results(true, &point.outcome);
            results["rate"] = json!(point.rate);
            results
        })
        .collect();
    let mut parameters = parameters(plan);
    parameters["arrivals"] = json!(plan.arrivals.name());
    parameters["rate"] = Value::Null;
    let object = json!({
        "label": label,
        "version": env!("CARGO_PKG_VERSION"),
        "machine": machine.to_json(),
        "parameters": parameters,
        "capacity": curve.capacity.as_ref().map(|outcome| results(false, outcome)),
        "points": points,
    });
    format!("{object:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arguments::CommandLine;
    use crate::run::Outcome;
    use crate::tally::Tally;
    use clap::Parser;

    #[test]
    fn every_point_has_a_line_and_an_object() {
        let line = CommandLine::try_parse_from(["coreside-load"]).expect("valid");
        let plan = Plan::new(&line.run).expect("valid");
        let outcome = |replies| {
            let mut tally = Tally::new();
            (tally.due, tally.replies, tally.window_ns) = (1_000, replies, 1_000_000_000);
            tally.latency.record(42_000).expect("in range");
            tally.hiccups.record(3_000).expect("in range");
            Outcome { tally, interrupted: false }
        };
        let points = [(1_000.0, 1_000), (2_000.0, 500)];
        let points = points.map(|(rate, replies)| Point { rate, outcome: outcome(replies) });
        let curve = Curve { capacity: Some(outcome(1_500)), points: points.into() };
        let text = table(&plan, Some("label"), &curve);
        assert!(text.contains("closed loop  1,500/s"), "{text}");
        assert_eq!(text.lines().filter(|line| line.contains("42.0")).count(), 3, "{text}");
        assert!(text.contains("2,000          500"), "{text}");
        assert_eq!(text.matches('*').count(), 2, "a mark and what it means: {text}");
        let object: Value =
            serde_json::from_str(&json(&plan, None, &Machine::detect(), &curve)).expect("JSON");
        assert_eq!(object["points"][1]["rate"], 2_000.0);
        assert_eq!(object["points"][1]["fell_behind"], true);
        let hiccups = &object["points"][0]["hiccup_ns"];
        assert_eq!(hiccups["max"], hiccups["p99"]);
        assert_eq!(object["capacity"]["replies"], 1_500);
    }
}
