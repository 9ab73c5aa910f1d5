//! Error replies: all of them counted, the first few distinct ones kept.
//!
//! Texts that differ in digits alone count as the same one: targets like to quote keys, and a
//! thousand refused keys are one mistake.

/// More of an error's text than this is cut.
pub(crate) const TEXT_BYTES_MAX: usize = 120;
/// Further distinct texts are only counted.
const TEXTS_MAX: usize = 5;

/// What the target refused.
#[derive(Clone, Debug, Default)]
pub(crate) struct ErrorLog {
    count: u64,
    texts: Vec<(String, u64)>,
}

impl ErrorLog {
    pub(crate) fn record(&mut self, text: &[u8]) {
        self.count += 1;
        self.keep(&String::from_utf8_lossy(text), 1);
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        self.count += other.count;
        for (text, count) in &other.texts {
            self.keep(text, *count);
        }
    }

    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// Distinct texts in order of appearance, each with its count; the first of a kind stands for
    /// all.
    pub(crate) fn texts(&self) -> impl Iterator<Item = (&str, u64)> {
        self.texts.iter().map(|(text, count)| (text.as_str(), *count))
    }

    fn keep(&mut self, text: &str, count: u64) {
        if let Some((_, times)) = self.texts.iter_mut().find(|(known, _)| same_shape(known, text)) {
            *times += count;
        } else if self.texts.len() < TEXTS_MAX {
            self.texts.push((text.to_owned(), count));
        }
    }
}

fn same_shape(a: &str, b: &str) -> bool {
    let a = a.bytes().filter(|byte| !byte.is_ascii_digit());
    a.eq(b.bytes().filter(|byte| !byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distinct_texts_are_bounded_and_counts_are_not() {
        let mut log = ErrorLog::default();
        for n in 0..100u8 {
            log.record(format!("ERR {n}: {}", (b'a' + n % 10) as char).as_bytes());
        }
        let mut total = ErrorLog::default();
        total.merge(&log);
        total.merge(&log);
        assert_eq!(total.count(), 200);
        assert_eq!(total.texts().count(), TEXTS_MAX);
        assert_eq!(total.texts().next(), Some(("ERR 0: a", 20)));
    }
}
