//! Latency by percentile as an SVG picture.
//!
//! The horizontal axis is `log(1 / (1 - p))`: each further nine takes the same width, so the tail
//! that matters is not squeezed against the edge. The vertical axis is logarithmic as well.

use std::fmt::{self, Write};

use hdrhistogram::Histogram;

use super::svg::{BOTTOM, Caption, LEFT, RIGHT, Scale, TOP, edges, frame, line, text};
use super::{PERCENTILES, units};

/// Powers of ten on the horizontal axis: up to 99.999 %.
const NINES: usize = 5;
const NINE_LABELS: [&str; NINES + 1] = ["0 %", "90 %", "99 %", "99.9 %", "99.99 %", "99.999 %"];
/// Points of the curve per nine; about one per three pixels.
const POINTS_PER_NINE: usize = 60;

/// The picture as text.
pub(crate) fn render(latency: &Histogram<u64>, caption: &Caption<'_>) -> String {
    let mut out = String::new();
    // Writing into a string cannot fail.
    let _ = write_all(&mut out, latency, caption);
    out
}

fn write_all(out: &mut String, latency: &Histogram<u64>, caption: &Caption<'_>) -> fmt::Result {
    let scale = match latency.is_empty() {
        true => Scale::new(1e3, 1e6),
        false => Scale::new(latency.min() as f64, latency.max() as f64),
    };
    frame(out, caption)?;
    scale.grid(out)?;
    nines_grid(out)?;
    if latency.is_empty() {
        let (x, y) = ((LEFT + RIGHT) / 2.0, (TOP + BOTTOM) / 2.0);
        text(out, x, y, "note", "middle", "nothing was measured")?;
    } else {
        curve(out, latency, &scale)?;
        marks(out, latency, &scale)?;
    }
    writeln!(out, "</svg>")
}

/// The place of `nines` decimal nines.
fn x(nines: f64) -> f64 {
    LEFT + nines / NINES as f64 * (RIGHT - LEFT)
}

fn nines_grid(out: &mut String) -> fmt::Result {
    for (nines, label) in NINE_LABELS.iter().enumerate() {
        let x = x(nines as f64);
        line(out, "grid", (x, TOP), (x, BOTTOM))?;
        text(out, x, BOTTOM + 20.0, "tick", "middle", label)?;
    }
    edges(out)
}

/// The curve ends where a single request is all that lies beyond.
fn curve(out: &mut String, latency: &Histogram<u64>, scale: &Scale) -> fmt::Result {
    let nines_max = (latency.len() as f64).log10().clamp(0.05, NINES as f64);
    let count = (nines_max * POINTS_PER_NINE as f64).ceil() as usize;
    let mut points = String::new();
    for index in 0..=count {
        let nines = nines_max * index as f64 / count as f64;
        let ns = latency.value_at_quantile(1.0 - 10f64.powf(-nines));
        write!(points, "{:.1},{:.1} ", x(nines), scale.y(ns as f64))?;
    }
    let points = points.trim_end();
    writeln!(
        out,
        r#"<polygon class="area" points="{LEFT},{BOTTOM} {points} {:.1},{BOTTOM}"/>"#,
        x(nines_max)
    )?;
    writeln!(out, r#"<polyline class="curve" points="{points}"/>"#)
}

/// The named percentiles and the maximum.
fn marks(out: &mut String, latency: &Histogram<u64>, scale: &Scale) -> fmt::Result {
    let maximum = latency.max() as f64;
    let y_max = scale.y(maximum);
    line(out, "max", (LEFT, y_max), (RIGHT, y_max))?;
    let label = format!("max {}", units::time(maximum));
    text(out, LEFT + 8.0, y_max - 6.0, "maxtext", "start", &label)?;
    for (name, quantile) in PERCENTILES {
        let nines = -(1.0 - quantile).log10();
        if nines > (latency.len() as f64).log10() {
            continue;
        }
        let ns = latency.value_at_quantile(quantile) as f64;
        let (x, y) = (x(nines), scale.y(ns));
        writeln!(out, r#"<circle class="dot" cx="{x:.1}" cy="{y:.1}" r="5"/>"#)?;
        let label = format!("{name} {}", units::time(ns));
        // The curve never falls, so below and to the right of a point is room; except at the edge.
        let low = y + 26.0 > BOTTOM;
        let (x, y) = if low { (x - 4.0, y - 14.0) } else { (x + 9.0, y + 19.0) };
        text(out, x, y, "mark", "start", &label)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::svg::assert_well_formed;
    use super::*;
    use crate::random::Random;
    use crate::tally::Tally;

    fn picture(values: impl IntoIterator<Item = u64>) -> String {
        let mut tally = Tally::new();
        for value in values {
            tally.latency.saturating_record(value);
        }
        let caption = Caption {
            title: "a < b & \"c\"\u{1}",
            subtitle: &"{word} ".repeat(200),
            across: "percentile of requests",
            up: "latency",
        };
        render(&tally.latency, &caption)
    }

    #[test]
    fn pictures_of_all_sizes_are_well_formed() {
        let mut random = Random::new(1, 0);
        assert_well_formed(&picture([]));
        assert_well_formed(&picture([1]));
        assert_well_formed(&picture([0, u64::MAX]));
        assert_well_formed(&picture((0..100_000).map(|_| 1_000 + random.below(1_000_000))));
        assert_well_formed(&picture(std::iter::repeat_n(50_000, 1_000)));
    }

    #[test]
    fn the_curve_never_falls() {
        let mut random = Random::new(1, 0);
        let svg = picture((0..100_000).map(|_| 1_000 + random.below(1_000_000)));
        let points = svg.split("class=\"curve\" points=\"").nth(1).expect("a curve");
        let points = points.split('"').next().expect("an end");
        let y: Vec<f64> = points
            .split(' ')
            .map(|point| point.split(',').nth(1).expect("y").parse().expect("a number"))
            .collect();
        assert!(y.len() > 100);
        assert!(y.windows(2).all(|pair| pair[1] <= pair[0]), "smaller is higher on the page");
    }
}
