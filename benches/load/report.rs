//! The forms in which a result is shown.

/// The curve of latency against load.
pub(crate) mod curve;
/// The text format of HdrHistogram.
pub(crate) mod hgrm;
/// The JSON object.
pub(crate) mod json;
/// The machine that it was measured on.
pub(crate) mod machine;
/// The percentile plot.
pub(crate) mod plot;
/// The points of a sweep, as text and as JSON.
pub(crate) mod points;
/// Lines, words and scales of both pictures.
pub(crate) mod svg;
/// The table on standard output.
pub(crate) mod table;
/// Numbers for readers.
pub(crate) mod units;

use crate::tally::Tally;

/// The percentiles that every report names.
pub(crate) const PERCENTILES: [(&str, f64); 5] =
    [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("p99.99", 0.9999)];

/// Each percentile's name and latency in nanoseconds, the maximum last.
pub(crate) fn percentiles(tally: &Tally) -> Vec<(&'static str, u64)> {
    let quantile = |(name, quantile)| (name, tally.latency.value_at_quantile(quantile));
    let maximum = ("max", tally.latency.max());
    PERCENTILES.into_iter().map(quantile).chain([maximum]).collect()
}

/// How late the loop saw its timer, in nanoseconds: 99th percentile and maximum.
pub(crate) fn hiccups(tally: &Tally) -> [u64; 2] {
    [tally.hiccups.value_at_quantile(0.99), tally.hiccups.max()]
}
