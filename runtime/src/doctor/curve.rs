//! What sends cost by size, as a table and a picture, and which threshold follows.

use std::fmt;

use coreside_net::{Calibration, NetError, SendCost, ZeroCopy};

use super::json;

/// What sends cost by size.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    /// In the order of their sizes.
    pub costs: Vec<SendCost>,
    /// It was measured over loopback, where the kernel copies all the same.
    pub is_loopback: bool,
}

/// From which size on sends without a copy pay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Threshold {
    /// From so many bytes on.
    From(u32),
    /// For none of the sizes that were measured.
    Never,
}

/// What a send without a copy must save to be worth its notice: measurements differ by as much.
const GAIN_MIN: f64 = 0.1;

impl Curve {
    /// Measures.
    ///
    /// # Errors
    /// What the kernel refused, or that the peer is gone or takes nothing.
    pub fn measure(calibration: &Calibration) -> Result<Self, NetError> {
        let is_loopback = calibration.peer.is_none_or(|peer| peer.ip().is_loopback());
        Ok(Self { costs: calibration.run()?, is_loopback })
    }

    /// The least size from which on, all the way up, sends without a copy cost less by a tenth.
    pub fn threshold(&self) -> Threshold {
        let pays = |cost: &&SendCost| {
            let least = cost.plain_ns as f64 * (1.0 - GAIN_MIN);
            cost.copied < 0.5 && (cost.zero_copy_ns as f64) < least
        };
        match self.costs.iter().rev().take_while(pays).last() {
            Some(cost) => Threshold::From(u32::try_from(cost.bytes).unwrap_or(u32::MAX)),
            None => Threshold::Never,
        }
    }

    /// The same for programs: an object of `zero_copy_from_bytes`, which is null for never, and
    /// `costs`, each of which has the fields of a [`SendCost`].
    pub fn to_json(&self) -> String {
        json::curve(self)
    }
}

impl Threshold {
    /// The size, if there is one.
    pub fn bytes(self) -> Option<u32> {
        match self {
            Self::From(bytes) => Some(bytes),
            Self::Never => None,
        }
    }
}

impl From<Threshold> for ZeroCopy {
    fn from(threshold: Threshold) -> Self {
        threshold.bytes().map_or(Self::Never, Self::From)
    }
}

/// Characters of the picture's bars.
const BAR_CHARS: f64 = 40.0;

impl fmt::Display for Curve {
    /// A table, a picture of the cost of each byte, and the threshold.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Processor time of a send, in microseconds:\n")?;
        writeln!(
            f,
            "{:>9} {:>9} {:>9} {:>11} {:>7}",
            "bytes", "send", "SEND_ZC", "registered", "copied"
        )?;
        for cost in &self.costs {
            let us = |ns: u64| format!("{:.2}", ns as f64 / 1e3);
            writeln!(
                f,
                "{:>9} {:>9} {:>9} {:>11} {:>6.0}%",
                cost.bytes,
                us(cost.plain_ns),
                us(cost.zero_copy_ns),
                cost.registered_ns.map_or("-".to_owned(), us),
                cost.copied * 100.0
            )?;
        }
        self.draw(f)?;
        if self.is_loopback {
            writeln!(
                f,
                "Over loopback the kernel copies in any case, so this shows what a send without a \
                 copy costs\nbeside that, and nothing of what it saves. Measure the way to your \
                 clients with `--to ADDR`."
            )?;
        }
        match self.threshold() {
            Threshold::From(bytes) => write!(
                f,
                "Sends without a copy pay from {bytes} bytes on: \
                 NetConfig {{ zero_copy: ZeroCopy::From({bytes}), .. }}, --send-zc {bytes}"
            ),
            Threshold::Never => {
                write!(
                    f,
                    "Sends without a copy never pay on this path: leave them off, as they are"
                )
            }
        }
    }
}

impl Curve {
    /// A bar for each size and way: nanoseconds per KiB, on a logarithmic scale.
    fn draw(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let per_kib = |ns: u64, cost: &SendCost| ns as f64 * 1024.0 / cost.bytes.max(1) as f64;
        let ways = |cost: &SendCost| {
            [(Some(cost.plain_ns), "="), (Some(cost.zero_copy_ns), "o"), (cost.registered_ns, "+")]
                .map(|(ns, mark)| ns.map(|ns| (per_kib(ns, cost), mark)))
        };
        let all = self.costs.iter().flat_map(ways).flatten();
        let (least, most) = all.fold((f64::MAX, 1.0_f64), |(least, most), (ns, _)| {
            (least.min(ns.max(1.0)), most.max(ns))
        });
        // The least gets a bar, too.
        let (low, high) = ((least / 1.5).log10(), most.log10());
        writeln!(f, "\nNanoseconds per KiB, logarithmic: = send, o SEND_ZC, + registered\n")?;
        for cost in &self.costs {
            for (ns, mark) in ways(cost).into_iter().flatten() {
                let share = (ns.max(1.0).log10() - low) / (high - low).max(f64::MIN_POSITIVE);
                let bar = mark.repeat((share * BAR_CHARS).round().clamp(0.0, BAR_CHARS) as usize);
                let bytes = if mark == "=" { cost.bytes.to_string() } else { String::new() };
                writeln!(f, "{bytes:>9} |{bar} {ns:.0}")?;
            }
        }
        writeln!(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(zero_copy_ns: &[u64], copied: f64) -> Curve {
        let cost = |(at, ns): (usize, &u64)| SendCost {
            bytes: 1024 << at,
            plain_ns: 1000,
            zero_copy_ns: *ns,
            registered_ns: Some(*ns),
            copied,
        };
        Curve { costs: zero_copy_ns.iter().enumerate().map(cost).collect(), is_loopback: false }
    }

    #[test]
    fn threshold_is_where_the_gain_begins_and_stays() {
        for (zero_copy_ns, threshold) in [
            (&[3000, 2000, 1000][..], Threshold::Never),
            (&[3000, 950, 920], Threshold::Never),
            (&[3000, 899, 500], Threshold::From(2048)),
            (&[500, 1000, 500], Threshold::From(4096)),
            (&[500, 500, 1000], Threshold::Never),
            (&[10, 10, 10], Threshold::From(1024)),
            (&[], Threshold::Never),
        ] {
            assert_eq!(curve(zero_copy_ns, 0.0).threshold(), threshold, "{zero_copy_ns:?}");
            assert_eq!(curve(zero_copy_ns, 1.0).threshold(), Threshold::Never, "it copies");
        }
    }

    #[test]
    fn picture_has_a_bar_for_each_way_and_size() {
        let text = curve(&[3000, 899, 1], 0.0).to_string();
        let bars: Vec<_> = text.lines().filter(|line| line.contains(" |")).collect();
        assert_eq!(bars.len(), 9, "{text}");
        assert!(bars.iter().all(|bar| bar.chars().count() < 70), "{text}");
        assert!(text.ends_with("--send-zc 2048"), "{text}");
        assert!(!curve(&[], 0.0).to_string().contains("NaN"));
    }
}
