use std::fmt::{self, Write};

use hdrhistogram::Histogram;

/// Nanoseconds per unit of the file, which is the microsecond.
const UNIT_NS: f64 = 1e3;
/// Lines per halving of the distance to 100 %, as other writers of this format have it.
const LINES_PER_HALVING: u32 = 5;

/// The percentile distribution as HdrHistogram's plotting tools read it.
pub(crate) fn render(latency: &Histogram<u64>) -> String {
    let mut out = String::new();
    // Writing into a string cannot fail.
    let _ = write_all(&mut out, latency);
    out
}

fn write_all(out: &mut String, latency: &Histogram<u64>) -> fmt::Result {
    writeln!(
        out,
        "{:>12} {:>14} {:>10} {:>14}\n",
        "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
    )?;
    let mut total = 0;
    for step in latency.iter_quantiles(LINES_PER_HALVING) {
        total += step.count_since_last_iteration();
        let value = step.value_iterated_to() as f64 / UNIT_NS;
        let quantile = step.quantile_iterated_to();
        write!(out, "{value:12.3} {quantile:2.12} {total:10}")?;
        if quantile < 1.0 {
            write!(out, " {:14.2}", 1.0 / (1.0 - quantile))?;
        }
        writeln!(out)?;
    }
    let (mean, deviation) = (latency.mean() / UNIT_NS, latency.stdev() / UNIT_NS);
    let maximum = latency.max() as f64 / UNIT_NS;
    writeln!(out, "#[Mean    = {mean:12.3}, StdDeviation   = {deviation:12.3}]")?;
    writeln!(out, "#[Max     = {maximum:12.3}, Total count    = {:12}]", latency.len())?;
    let sub_buckets = 2 * 10u64.pow(u32::from(latency.sigfig()));
    let (buckets, sub_buckets) = (latency.buckets(), sub_buckets.next_power_of_two());
    writeln!(out, "#[Buckets = {buckets:12}, SubBuckets     = {sub_buckets:12}]")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tally::Tally;

    #[test]
    fn lines_ascend_to_the_total() {
        let mut tally = Tally::new();
        for value in 1..=10_000u64 {
            tally.latency.record(value * 100).expect("in range");
        }
        let text = render(&tally.latency);
        let rows: Vec<Vec<f64>> = text
            .lines()
            .skip(2)
            .take_while(|line| !line.starts_with('#'))
            .map(|line| line.split_whitespace().map(|word| word.parse().expect("number")).collect())
            .collect();
        assert!(rows.len() > 20);
        assert!(
            rows.windows(2).all(|pair| (0..3).all(|column| pair[0][column] <= pair[1][column]))
        );
        let last = rows.last().expect("rows");
        assert_eq!((last[1], last[2], last.len()), (1.0, 10_000.0, 3));
        assert!((last[0] - 1_000.0).abs() < 1.0);
        assert!(text.contains("Total count    =        10000]"), "{text}");
        assert!(text.contains("SubBuckets     =         2048]"), "{text}");
    }

    #[test]
    fn an_empty_histogram_has_a_footer() {
        assert!(render(&Tally::new().latency).contains("#[Max     =        0.000"));
    }
}
