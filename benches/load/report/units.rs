/// A rate, such as `8.21 M/s`.
pub(crate) fn rate(per_second: f64) -> String {
    format!("{}/s", scaled(per_second, &["", "k", "M", "G"]))
}

/// A data rate, such as `310 MB/s`.
pub(crate) fn data_rate(bytes_per_second: f64) -> String {
    format!("{}/s", scaled(bytes_per_second, &["B", "kB", "MB", "GB"]))
}

/// Nanoseconds as microseconds with the digits that the histogram vouches for.
pub(crate) fn microseconds(ns: u64) -> String {
    let us = ns as f64 / 1e3;
    let decimals = if us >= 100.0 {
        0
    } else if us >= 10.0 {
        1
    } else {
        2
    };
    grouped(&format!("{us:.decimals$}"))
}

/// A time in the unit that suits it, such as `250 µs`.
pub(crate) fn time(ns: f64) -> String {
    let (value, unit) = match ns {
        ns if ns < 1e3 => (ns, "ns"),
        ns if ns < 1e6 => (ns / 1e3, "µs"),
        ns if ns < 1e9 => (ns / 1e6, "ms"),
        ns => (ns / 1e9, "s"),
    };
    format!("{} {unit}", significant(value))
}

/// A count with its thousands apart.
pub(crate) fn count(count: u64) -> String {
    grouped(&count.to_string())
}

fn scaled(value: f64, units: &[&str]) -> String {
    let mut value = value;
    let mut unit = 0;
    while value >= 1e3 && unit + 1 < units.len() {
        value /= 1e3;
        unit += 1;
    }
    format!("{} {}", significant(value), units[unit]).trim_end().to_owned()
}

/// Three digits, without needless zeros behind the point.
fn significant(value: f64) -> String {
    let decimals = if value >= 100.0 {
        0
    } else if value >= 10.0 {
        1
    } else {
        2
    };
    let text = format!("{value:.decimals$}");
    if text.contains('.') {
        return text.trim_end_matches('0').trim_end_matches('.').to_owned();
    }
    text
}

fn grouped(text: &str) -> String {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let mut out = String::new();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    if !fraction.is_empty() {
        out.push('.');
        out.push_str(fraction);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(rate(8_214_000.0), "8.21 M/s");
        assert_eq!(rate(12.0), "12/s");
        assert_eq!(data_rate(310_200_000.0), "310 MB/s");
        assert_eq!(microseconds(1_234_567), "1,235");
        assert_eq!(microseconds(12_345), "12.3");
        assert_eq!(microseconds(945), "0.94");
        assert_eq!(time(250_000.0), "250 µs");
        assert_eq!(time(2.5e9), "2.5 s");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(count(999), "999");
    }
}
