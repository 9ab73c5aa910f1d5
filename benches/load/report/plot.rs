//! Latency by percentile as an SVG picture.
//!
//! The horizontal axis is `log(1 / (1 - p))`: each further nine takes the same width, so the tail
//! that matters is not squeezed against the edge. The vertical axis is logarithmic as well.

use std::fmt::{self, Write};

use hdrhistogram::Histogram;

use super::{PERCENTILES, units};

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 560.0;
/// The plot area within the picture.
const LEFT: f64 = 88.0;
const RIGHT: f64 = 924.0;
const TOP: f64 = 112.0;
const BOTTOM: f64 = 486.0;

/// Powers of ten on the horizontal axis: up to 99.999 %.
const NINES: usize = 5;
const NINE_LABELS: [&str; NINES + 1] = ["0 %", "90 %", "99 %", "99.9 %", "99.99 %", "99.999 %"];
/// Points of the curve per nine; about one per three pixels.
const POINTS_PER_NINE: usize = 60;

/// Characters of the small text that fit into a line.
const SUBTITLE_CHARS: usize = 132;
const SUBTITLE_LINES_MAX: usize = 2;

/// What stands around the curve.
pub(crate) struct Caption<'a> {
    pub(crate) title: &'a str,
    /// Parameters and machine.
    pub(crate) subtitle: &'a str,
    /// What a latency counts from.
    pub(crate) axis: &'a str,
}

/// The picture as text.
pub(crate) fn render(latency: &Histogram<u64>, caption: &Caption<'_>) -> String {
    let mut out = String::new();
    // Writing into a string cannot fail.
    let _ = write_all(&mut out, latency, caption);
    out
}

fn write_all(out: &mut String, latency: &Histogram<u64>, caption: &Caption<'_>) -> fmt::Result {
    let scale = Scale::new(latency);
    frame(out, caption)?;
    grid(out, &scale)?;
    if latency.is_empty() {
        let (x, y) = ((LEFT + RIGHT) / 2.0, (TOP + BOTTOM) / 2.0);
        text(out, x, y, "note", "middle", "nothing was measured")?;
    } else {
        curve(out, latency, &scale)?;
        marks(out, latency, &scale)?;
    }
    writeln!(out, "</svg>")
}

/// Background, style and words. The background is painted, so the picture is legible on a dark page
/// too.
fn frame(out: &mut String, caption: &Caption<'_>) -> fmt::Result {
    writeln!(
        out,
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">"#
    )?;
    writeln!(out, "<title>{}</title>", escape(caption.title))?;
    out.push_str(STYLE);
    writeln!(
        out,
        r#"<rect class="page" x="0.5" y="0.5" width="{}" height="{}" rx="8"/>"#,
        WIDTH - 1.0,
        HEIGHT - 1.0
    )?;
    text(out, LEFT, 42.0, "title", "start", caption.title)?;
    for (index, line) in wrap(caption.subtitle).iter().enumerate() {
        text(out, LEFT, 64.0 + 17.0 * index as f64, "small", "start", line)?;
    }
    text(out, (LEFT + RIGHT) / 2.0, HEIGHT - 22.0, "axis", "middle", "percentile of requests")?;
    let (x, y) = (26.0, (TOP + BOTTOM) / 2.0);
    let turned = format!("translate({x} {y}) rotate(-90)");
    let axis = escape(caption.axis);
    writeln!(out, r#"<text class="axis" text-anchor="middle" transform="{turned}">{axis}</text>"#)
}

const STYLE: &str = "\
<style>
  text { font-family: system-ui, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif; fill: #24292f; }
  .title { font-size: 20px; font-weight: 600; }
  .small, .tick { font-size: 12px; fill: #57606a; }
  .axis { font-size: 13px; fill: #57606a; }
  .note { font-size: 16px; fill: #57606a; }
  .mark { font-size: 13px; font-weight: 600; paint-order: stroke; stroke: #fff;
    stroke-width: 4px; stroke-linejoin: round; }
  .page { fill: #fff; stroke: #d0d7de; }
  .grid { stroke: #eaeef2; stroke-width: 1; }
  .edge { stroke: #8c959f; stroke-width: 1; }
  .area { fill: #0969da; fill-opacity: 0.08; }
  .curve { fill: none; stroke: #0969da; stroke-width: 2.5; stroke-linejoin: round; }
  .dot { fill: #0969da; stroke: #fff; stroke-width: 1.5; }
  .max { stroke: #cf222e; stroke-width: 1.2; stroke-dasharray: 5 4; }
  .maxtext { font-size: 12px; fill: #cf222e; }
</style>
";

/// Logarithmic scales of the plot area.
struct Scale {
    /// Logarithms of the lowest and the highest latency shown.
    low: f64,
    high: f64,
}

impl Scale {
    /// From the step of 1, 2 or 5 below the least latency to that above the greatest.
    fn new(latency: &Histogram<u64>) -> Self {
        let (least, greatest) = match latency.is_empty() {
            true => (1e3, 1e6),
            false => (latency.min().max(1) as f64, latency.max().max(1) as f64),
        };
        let below = steps().take_while(|&step| step <= least).last().unwrap_or(1.0);
        let above = steps().find(|&step| step > greatest * 1.05).unwrap_or(least * 10.0);
        Self { low: below.log10(), high: above.log10() }
    }

    fn y(&self, ns: f64) -> f64 {
        let share = (ns.max(1.0).log10() - self.low) / (self.high - self.low);
        BOTTOM - share.clamp(0.0, 1.0) * (BOTTOM - TOP)
    }

    fn shows(&self, ns: f64) -> bool {
        (self.low - 1e-9..=self.high + 1e-9).contains(&ns.log10())
    }
}

/// The place of `nines` decimal nines.
fn x(nines: f64) -> f64 {
    LEFT + nines / NINES as f64 * (RIGHT - LEFT)
}

/// 1, 2, 5, 10, 20, 50, ... nanoseconds, beyond what a histogram holds.
fn steps() -> impl Iterator<Item = f64> {
    (0..12).flat_map(|power| [1.0, 2.0, 5.0].map(|step| step * 10f64.powi(power)))
}

fn grid(out: &mut String, scale: &Scale) -> fmt::Result {
    // Over many decades the lines between the powers of ten would only crowd the page.
    let crowded = scale.high - scale.low > 4.0;
    let power_of_ten = |step: f64| step.log10().fract().abs() < 1e-9;
    let shown = |step: &f64| scale.shows(*step) && (!crowded || power_of_ten(*step));
    for step in steps().filter(shown) {
        let y = scale.y(step);
        line(out, "grid", (LEFT, y), (RIGHT, y))?;
        text(out, LEFT - 10.0, y + 4.0, "tick", "end", &units::time(step))?;
    }
    for (nines, label) in NINE_LABELS.iter().enumerate() {
        let x = x(nines as f64);
        line(out, "grid", (x, TOP), (x, BOTTOM))?;
        text(out, x, BOTTOM + 20.0, "tick", "middle", label)?;
    }
    line(out, "edge", (LEFT, BOTTOM), (RIGHT, BOTTOM))?;
    line(out, "edge", (LEFT, TOP), (LEFT, BOTTOM))
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

fn line(out: &mut String, class: &str, from: (f64, f64), to: (f64, f64)) -> fmt::Result {
    let ((x1, y1), (x2, y2)) = (from, to);
    writeln!(out, r#"<line class="{class}" x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}"/>"#)
}

fn text(out: &mut String, x: f64, y: f64, class: &str, anchor: &str, text: &str) -> fmt::Result {
    let text = escape(text);
    writeln!(
        out,
        r#"<text class="{class}" x="{x:.1}" y="{y:.1}" text-anchor="{anchor}">{text}</text>"#
    )
}

/// Lines of at most [`SUBTITLE_CHARS`], broken at blanks; what does not fit is left out visibly.
fn wrap(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let last = lines.len() - 1;
        let length = lines[last].chars().count() + word.chars().count();
        if lines[last].is_empty() {
            lines[last].extend(word.chars().take(SUBTITLE_CHARS));
        } else if length < SUBTITLE_CHARS {
            lines[last].push(' ');
            lines[last].push_str(word);
        } else if lines.len() < SUBTITLE_LINES_MAX {
            lines.push(word.chars().take(SUBTITLE_CHARS).collect());
        } else {
            lines[last].push_str(" …");
            break;
        }
    }
    lines
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            // Not even escaped are these allowed in XML.
            control if control.is_control() => out.push(' '),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
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
            axis: "latency",
        };
        render(&tally.latency, &caption)
    }

    /// Checks that tags are balanced and that text has no bare specials.
    fn assert_well_formed(svg: &str) {
        let mut open = Vec::new();
        let mut rest = svg;
        while let Some(start) = rest.find('<') {
            let body = &rest[..start];
            assert!(!body.contains('>'), "a bare '>' in {body:?}");
            for (at, _) in body.match_indices('&') {
                let entity = &body[at..];
                assert!(["&amp;", "&lt;", "&gt;", "&quot;"].iter().any(|e| entity.starts_with(e)));
            }
            let end = start + rest[start..].find('>').expect("a closed tag");
            let tag = &rest[start + 1..end];
            assert_eq!(tag.matches('"').count() % 2, 0, "odd quotes in {tag}");
            match tag.strip_prefix('/') {
                Some(name) => assert_eq!(open.pop(), Some(name)),
                None if tag.ends_with('/') => {}
                None => open.push(tag.split_whitespace().next().expect("a name")),
            }
            rest = &rest[end + 1..];
        }
        assert!(open.is_empty(), "{open:?} never closed");
        assert!(rest.trim().is_empty());
        assert!(svg.chars().all(|c| c == '\n' || !c.is_control()));
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
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

    #[test]
    fn subtitles_are_wrapped_and_cut() {
        let lines = wrap(&"word ".repeat(200));
        assert_eq!(lines.len(), SUBTITLE_LINES_MAX);
        assert!(lines[1].ends_with('…'));
        assert!(lines.iter().all(|line| line.chars().count() <= SUBTITLE_CHARS + 2));
    }
}
