//! Text for programs.

use std::fmt::Write as _;

use super::Report;
use super::curve::Curve;

/// The object of a report.
pub(super) fn report(report: &Report) -> String {
    let findings = report.findings.iter().map(|finding| {
        let advice = finding.advice.as_deref().map_or("null".to_owned(), string);
        let [about, verdict, what] =
            [finding.about, finding.verdict.name(), &finding.what].map(string);
        format!(r#"{{"about":{about},"verdict":{verdict},"what":{what},"advice":{advice}}}"#)
    });
    let findings: Vec<_> = findings.collect();
    format!(r#"{{"can_run":{},"findings":[{}]}}"#, report.can_run(), findings.join(","))
}

/// The object of a curve.
pub(super) fn curve(curve: &Curve) -> String {
    let costs = curve.costs.iter().map(|cost| {
        let registered_ns = cost.registered_ns.map_or("null".to_owned(), |ns| ns.to_string());
        format!(
            r#"{{"bytes":{},"plain_ns":{},"zero_copy_ns":{},"registered_ns":{},"copied":{:.3}}}"#,
            cost.bytes, cost.plain_ns, cost.zero_copy_ns, registered_ns, cost.copied
        )
    });
    let costs: Vec<_> = costs.collect();
    let threshold = curve.threshold().bytes().map_or("null".to_owned(), |bytes| bytes.to_string());
    format!(r#"{{"zero_copy_from_bytes":{threshold},"costs":[{}]}}"#, costs.join(","))
}

fn string(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => out.extend(['\\', character]),
            '\n' => out.push_str("\\n"),
            control if control.is_control() => {
                // Writing to a string succeeds.
                let _ = write!(out, "\\u{:04x}", u32::from(control));
            }
            other => out.push(other),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::super::{Finding, SendCost};
    use super::*;

    #[test]
    fn text_is_quoted_whatever_is_in_it() {
        assert_eq!(string("a \"b\" \\ \n\u{1}é"), "\"a \\\"b\\\" \\\\ \\n\\u0001é\"");
    }

    #[test]
    fn report_and_curve_are_objects() {
        let findings = vec![Finding::good("a", "b"), Finding::failure("c", "d", "e")];
        assert_eq!(
            report(&Report { findings }),
            concat!(
                r#"{"can_run":false,"findings":[{"about":"a","verdict":"good","what":"b","#,
                r#""advice":null},{"about":"c","verdict":"failure","what":"d","advice":"e"}]}"#
            )
        );
        let cost =
            SendCost { bytes: 1, plain_ns: 2, zero_copy_ns: 3, registered_ns: None, copied: 1.0 };
        let text = curve(&Curve { costs: vec![cost], is_loopback: true });
        assert!(text.starts_with(r#"{"zero_copy_from_bytes":null,"costs":[{"bytes":1,"#), "{text}");
    }
}
