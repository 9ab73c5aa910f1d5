//! Latency by load as an SVG picture: some percentiles over the offered rate.

use std::fmt::{self, Write};

use super::svg::{BOTTOM, Caption, LEFT, RIGHT, Scale, TOP, edges, frame, line, text};
use super::units;
use crate::sweep::{Curve, Point};

/// The percentiles that are drawn, with their colours: readable beside each other, and in grey.
const SERIES: [(&str, f64, &str); 3] =
    [("p50", 0.5, "#54aeff"), ("p99", 0.99, "#0550ae"), ("p99.9", 0.999, "#bc4c00")];

/// Steps on the horizontal axis, at most.
const TICKS_MAX: f64 = 10.0;

/// The picture as text.
pub(crate) fn render(curve: &Curve, caption: &Caption<'_>) -> String {
    let mut out = String::new();
    // Writing into a string cannot fail.
    let _ = write_all(&mut out, curve, caption);
    out
}

fn write_all(out: &mut String, curve: &Curve, caption: &Caption<'_>) -> fmt::Result {
    let shown: Vec<&Point> = curve.points.iter().filter(|point| measured(point)).collect();
    let capacity = curve.capacity.as_ref().map(|outcome| outcome.tally.rate());
    let fastest = shown.last().map_or(1.0, |point| point.rate);
    let across = Across::new(fastest.max(capacity.unwrap_or(0.0)));
    let scale = scale(&shown);
    frame(out, caption)?;
    scale.grid(out)?;
    across.grid(out)?;
    edges(out)?;
    if shown.is_empty() {
        let (x, y) = ((LEFT + RIGHT) / 2.0, (TOP + BOTTOM) / 2.0);
        text(out, x, y, "note", "middle", "nothing was measured")?;
        return writeln!(out, "</svg>");
    }
    if let Some(capacity) = capacity {
        let x = across.x(capacity);
        line(out, "max", (x, TOP), (x, BOTTOM))?;
        let label = format!("closed loop {}", units::rate(capacity));
        text(out, x - 6.0, BOTTOM - 10.0, "maxtext", "end", &label)?;
    }
    for (_, quantile, colour) in SERIES {
        series(out, &shown, |point| place(point, quantile, &across, &scale), colour)?;
    }
    legend(out, shown.iter().any(|point| point.outcome.tally.fell_behind()))?;
    writeln!(out, "</svg>")
}

fn measured(point: &Point) -> bool {
    !point.outcome.tally.latency.is_empty()
}

fn latency(point: &Point, quantile: f64) -> f64 {
    point.outcome.tally.latency.value_at_quantile(quantile) as f64
}

fn place(point: &Point, quantile: f64, across: &Across, scale: &Scale) -> (f64, f64) {
    (across.x(point.rate), scale.y(latency(point, quantile)))
}

/// All that is drawn fits.
fn scale(points: &[&Point]) -> Scale {
    let all = || {
        let of_point = |point: &Point| SERIES.map(|(_, quantile, _)| latency(point, quantile));
        points.iter().copied().flat_map(of_point)
    };
    match all().reduce(f64::min).zip(all().reduce(f64::max)) {
        Some((least, greatest)) => Scale::new(least, greatest),
        None => Scale::new(1e3, 1e6),
    }
}

/// The linear axis of rates.
struct Across {
    step: f64,
    /// The rate at the right edge.
    end: f64,
}

impl Across {
    /// From 0 to a little beyond `greatest`, in steps of 1, 2 or 5 times a power of ten.
    fn new(greatest: f64) -> Self {
        let end = greatest.max(1e-3) * 1.06;
        let power = 10f64.powf((end / TICKS_MAX).log10().floor());
        let fits = |step: &f64| end / step <= TICKS_MAX;
        let step = [1.0, 2.0, 5.0].map(|digit| digit * power).into_iter().find(fits);
        Self { step: step.unwrap_or(10.0 * power), end }
    }

    fn x(&self, rate: f64) -> f64 {
        LEFT + (rate / self.end).clamp(0.0, 1.0) * (RIGHT - LEFT)
    }

    fn grid(&self, out: &mut String) -> fmt::Result {
        for tick in 0..=(self.end / self.step) as u32 {
            let rate = f64::from(tick) * self.step;
            let x = self.x(rate);
            line(out, "grid", (x, TOP), (x, BOTTOM))?;
            let label = if tick == 0 { "0".to_owned() } else { units::rate(rate) };
            text(out, x, BOTTOM + 20.0, "tick", "middle", &label)?;
        }
        Ok(())
    }
}

/// One percentile: a line through its points, hollow where replies fell behind.
fn series(
    out: &mut String,
    points: &[&Point],
    place: impl Fn(&Point) -> (f64, f64),
    colour: &str,
) -> fmt::Result {
    let mut path = String::new();
    for point in points {
        let (x, y) = place(point);
        write!(path, "{x:.1},{y:.1} ")?;
    }
    let path = path.trim_end();
    writeln!(out, r#"<polyline class="line" stroke="{colour}" points="{path}"/>"#)?;
    for point in points {
        let (x, y) = place(point);
        let fill = if point.outcome.tally.fell_behind() { "#fff" } else { colour };
        dot(out, (x, y), colour, fill)?;
    }
    Ok(())
}

fn dot(out: &mut String, (x, y): (f64, f64), stroke: &str, fill: &str) -> fmt::Result {
    writeln!(
        out,
        r#"<circle class="point" cx="{x:.1}" cy="{y:.1}" r="4" stroke="{stroke}" fill="{fill}"/>"#
    )
}

/// At the top left, where latencies that rise to the right leave room.
fn legend(out: &mut String, behind: bool) -> fmt::Result {
    const LINE: f64 = 20.0;
    let (x, mut y) = (LEFT + 18.0, TOP + 22.0);
    for (name, _, colour) in SERIES.into_iter().rev() {
        let points = format!("{x:.1},{y:.1} {:.1},{y:.1}", x + 24.0);
        writeln!(out, r#"<polyline class="line" stroke="{colour}" points="{points}"/>"#)?;
        text(out, x + 32.0, y + 4.0, "mark", "start", name)?;
        y += LINE;
    }
    if behind {
        dot(out, (x + 12.0, y), "#57606a", "#fff")?;
        text(out, x + 32.0, y + 4.0, "tick", "start", "replies did not keep up")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::svg::assert_well_formed;
    use super::*;
    use crate::run::Outcome;
    use crate::tally::Tally;

    fn point(rate: f64, latencies: &[u64]) -> Point {
        let mut tally = Tally::new();
        for &latency in latencies {
            tally.latency.saturating_record(latency);
        }
        (tally.due, tally.replies) = (1_000, if rate > 900.0 { 500 } else { 1_000 });
        tally.window_ns = 1_000_000_000;
        Point { rate, outcome: Outcome { tally, interrupted: false } }
    }

    fn picture(points: Vec<Point>, capacity: bool) -> String {
        let capacity = capacity.then(|| point(950.0, &[5]).outcome);
        let caption = Caption { title: "<t>", subtitle: "s", across: "rate", up: "latency" };
        render(&Curve { capacity, points }, &caption)
    }

    #[test]
    fn pictures_of_all_sizes_are_well_formed() {
        assert_well_formed(&picture(Vec::new(), false));
        assert_well_formed(&picture(vec![point(1e-3, &[1])], true));
        assert_well_formed(&picture(vec![point(5e9, &[u64::MAX])], false));
        let many = (1..=20).map(|at| point(f64::from(at) * 50.0, &[1_000, 50_000_000]));
        let svg = picture(many.collect(), true);
        assert_well_formed(&svg);
        assert!(svg.contains("replies did not keep up"));
        assert_eq!(svg.matches("<circle").count(), 3 * 20 + 1);
    }

    #[test]
    fn ticks_are_few_and_round() {
        for greatest in [0.5, 1.0, 9.4, 9.5, 123.0, 1e6, 3.7e7] {
            let across = Across::new(greatest);
            let ticks = across.end / across.step;
            assert!((3.0..=TICKS_MAX).contains(&ticks), "{greatest}: {ticks}");
            assert!(across.x(greatest) < RIGHT);
        }
    }
}
