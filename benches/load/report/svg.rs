//! What both pictures have: the page, its words, and a logarithmic axis of latencies.

use std::fmt::{self, Write};

use super::units;

pub(crate) const WIDTH: f64 = 960.0;
pub(crate) const HEIGHT: f64 = 560.0;
/// The plot area within the picture.
pub(crate) const LEFT: f64 = 88.0;
pub(crate) const RIGHT: f64 = 924.0;
pub(crate) const TOP: f64 = 112.0;
pub(crate) const BOTTOM: f64 = 486.0;

/// Characters of the small text that fit into a line.
const SUBTITLE_CHARS: usize = 132;
const SUBTITLE_LINES_MAX: usize = 2;

/// What stands around the plot.
pub(crate) struct Caption<'a> {
    pub(crate) title: &'a str,
    /// Parameters and machine.
    pub(crate) subtitle: &'a str,
    /// Along the horizontal axis.
    pub(crate) across: &'a str,
    /// Along the vertical axis: what a latency counts from.
    pub(crate) up: &'a str,
}

/// Background, style and words. The background is painted, so the picture is legible on a dark page
/// too.
pub(crate) fn frame(out: &mut String, caption: &Caption<'_>) -> fmt::Result {
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
    text(out, (LEFT + RIGHT) / 2.0, HEIGHT - 22.0, "axis", "middle", caption.across)?;
    let (x, y) = (26.0, (TOP + BOTTOM) / 2.0);
    let turned = format!("translate({x} {y}) rotate(-90)");
    let axis = escape(caption.up);
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
  .line { fill: none; stroke-width: 2.5; stroke-linejoin: round; }
  .point { stroke-width: 2; }
</style>
";

/// A logarithmic axis of latencies.
pub(crate) struct Scale {
    /// Logarithms of the lowest and the highest latency shown.
    low: f64,
    high: f64,
}

impl Scale {
    /// From the step of 1, 2 or 5 below the least latency to that above the greatest.
    pub(crate) fn new(least: f64, greatest: f64) -> Self {
        let (least, greatest) = (least.max(1.0), greatest.max(1.0));
        let below = steps().take_while(|&step| step <= least).last().unwrap_or(1.0);
        let above = steps().find(|&step| step > greatest * 1.05).unwrap_or(least * 10.0);
        Self { low: below.log10(), high: above.log10() }
    }

    pub(crate) fn y(&self, ns: f64) -> f64 {
        let share = (ns.max(1.0).log10() - self.low) / (self.high - self.low);
        BOTTOM - share.clamp(0.0, 1.0) * (BOTTOM - TOP)
    }

    fn shows(&self, ns: f64) -> bool {
        (self.low - 1e-9..=self.high + 1e-9).contains(&ns.log10())
    }

    /// Its lines across the plot, with their latencies.
    pub(crate) fn grid(&self, out: &mut String) -> fmt::Result {
        // Over many decades the lines between the powers of ten would only crowd the page.
        let crowded = self.high - self.low > 4.0;
        let power_of_ten = |step: f64| step.log10().fract().abs() < 1e-9;
        let shown = |step: &f64| self.shows(*step) && (!crowded || power_of_ten(*step));
        for step in steps().filter(shown) {
            let y = self.y(step);
            line(out, "grid", (LEFT, y), (RIGHT, y))?;
            text(out, LEFT - 10.0, y + 4.0, "tick", "end", &units::time(step))?;
        }
        Ok(())
    }
}

/// 1, 2, 5, 10, 20, 50, ... nanoseconds, beyond what a histogram holds.
fn steps() -> impl Iterator<Item = f64> {
    (0..12).flat_map(|power| [1.0, 2.0, 5.0].map(|step| step * 10f64.powi(power)))
}

/// The two axes.
pub(crate) fn edges(out: &mut String) -> fmt::Result {
    line(out, "edge", (LEFT, BOTTOM), (RIGHT, BOTTOM))?;
    line(out, "edge", (LEFT, TOP), (LEFT, BOTTOM))
}

pub(crate) fn line(out: &mut String, class: &str, from: (f64, f64), to: (f64, f64)) -> fmt::Result {
    let ((x1, y1), (x2, y2)) = (from, to);
    writeln!(out, r#"<line class="{class}" x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}"/>"#)
}

pub(crate) fn text(
    out: &mut String,
    x: f64,
    y: f64,
    class: &str,
    anchor: &str,
    text: &str,
) -> fmt::Result {
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

/// Checks that tags are balanced and that text has no bare specials.
#[cfg(test)]
pub(crate) fn assert_well_formed(svg: &str) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subtitles_are_wrapped_and_cut() {
        let lines = wrap(&"word ".repeat(200));
        assert_eq!(lines.len(), SUBTITLE_LINES_MAX);
        assert!(lines[1].ends_with('…'));
        assert!(lines.iter().all(|line| line.chars().count() <= SUBTITLE_CHARS + 2));
    }
}
