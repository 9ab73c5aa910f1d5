use serde_json::{Map, Value, json};

use super::machine::Machine;
use super::{hiccups, percentiles};
use crate::arguments::Distribution;
use crate::plan::{Length, Plan};
use crate::run::Outcome;

/// Everything about a run as one object. Times are in nanoseconds where their names say so.
pub(crate) fn render(
    plan: &Plan,
    label: Option<&str>,
    machine: &Machine,
    outcome: &Outcome,
) -> String {
    let object = json!({
        "label": label,
        "version": env!("CARGO_PKG_VERSION"),
        "machine": machine.to_json(),
        "parameters": parameters(plan),
        "results": results(plan.rate.is_some(), outcome),
    });
    format!("{object:#}\n")
}

/// What was asked for.
pub(crate) fn parameters(plan: &Plan) -> Value {
    let targets: Vec<String> = plan.targets.iter().map(ToString::to_string).collect();
    let (duration_s, requests) = match plan.length {
        Length::Time(time) => (Some(time.as_secs_f64()), None),
        Length::Requests(requests) => (None, Some(requests)),
    };
    let zipf = plan.distribution == Distribution::Zipf;
    let hot = plan.distribution == Distribution::Hot;
    let commands: Vec<&str> = plan.commands.iter().map(|(text, _)| text.as_str()).collect();
    let weights: Vec<u32> = plan.commands.iter().map(|(_, weight)| *weight).collect();
    json!({
        "protocol": plan.protocol.name(),
        "key_bits": if plan.wide_keys { 128 } else { 64 },
        "shard_aware": plan.shard_aware,
        "targets": targets,
        "connections": plan.connections,
        "depth": plan.depth,
        "threads": plan.threads,
        "cores": plan.cores,
        "keys": plan.keys,
        "distribution": plan.distribution.name(),
        "zipf_exponent": zipf.then_some(plan.zipf_exponent),
        "hot_keys": hot.then_some(plan.hot_keys),
        "hot_share": hot.then_some(plan.hot_share),
        "seed": plan.seed,
        "commands": commands,
        "weights": weights,
        "value_bytes": plan.value_bytes,
        "rate": plan.rate,
        "arrivals": plan.rate.map(|_| plan.arrivals.name()),
        "warmup_s": plan.warmup.as_secs_f64(),
        "duration_s": duration_s,
        "requests": requests,
        "idle": if plan.spins(plan.rate) { "spin" } else { "park" },
        "populate": plan.populate,
        "timeout_s": plan.timeout.as_secs_f64(),
    })
}

/// What was found, in an open loop or in a closed one.
pub(crate) fn results(open: bool, outcome: &Outcome) -> Value {
    let tally = &outcome.tally;
    let [hiccup_p99, hiccup_max] = hiccups(tally);
    let latency: Map<String, Value> =
        percentiles(tally).into_iter().map(|(name, ns)| (name.to_owned(), ns.into())).collect();
    let texts: Map<String, Value> =
        tally.errors.texts().map(|(text, count)| (text.to_owned(), count.into())).collect();
    json!({
        "interrupted": outcome.interrupted,
        "window_ns": tally.window_ns,
        "replies": tally.replies,
        "tells": tally.told,
        "rate_per_s": tally.rate(),
        "offered_per_s": open.then(|| tally.offered_rate()),
        "fell_behind": open.then(|| tally.fell_behind()),
        "unsent": tally.unsent,
        "unanswered": tally.unanswered,
        "sent_bytes_per_s": tally.per_second(tally.sent_bytes),
        "received_bytes_per_s": tally.per_second(tally.received_bytes),
        "errors": tally.errors.count(),
        "error_texts": texts,
        "samples": tally.latency.len(),
        "latency_from": if open { "due" } else { "sent" },
        "latency_ns": latency,
        "latency_mean_ns": tally.latency.mean(),
        "latency_min_ns": tally.latency.min(),
        "hiccup_ns": { "p99": hiccup_p99, "max": hiccup_max },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arguments::CommandLine;
    use crate::tally::Tally;
    use clap::Parser;

    #[test]
    fn the_object_has_parameters_machine_and_percentiles() {
        let line = CommandLine::try_parse_from(["coreside-load", "--rate", "5"]).expect("valid");
        let plan = Plan::new(&line.run).expect("valid");
        let mut tally = Tally::new();
        tally.latency.record(1_000).expect("in range");
        let outcome = Outcome { tally, interrupted: false };
        let text = render(&plan, Some("a \"title\""), &Machine::detect(), &outcome);
        let object: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(object["label"], "a \"title\"");
        assert_eq!(object["parameters"]["rate"], 5.0);
        assert_eq!(object["results"]["latency_ns"]["p99.9"], 1_000);
        assert!(object["machine"]["kernel"].is_string());
    }
}
