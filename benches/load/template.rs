//! A command as text with placeholders, compiled once into copies and numbers.
//!
//! `SET key:{key} {value}` becomes the RESP array of its words. What does not vary (array header,
//! lengths of fixed words, the payload) is laid down in literals; what is left per request is a few
//! copies of fixed size, one formatted number per placeholder, and the length line in front of each
//! word that holds one.

use crate::decimal::Decimal;

/// Placeholders per command; a bound, so that a request's numbers live on the stack.
pub(crate) const NUMBERS_MAX: usize = 16;
/// Encoding copies whole blocks, so it may write this far behind a command's last byte.
pub(crate) const SLACK_BYTES: usize = BLOCK_BYTES + Decimal::BYTES_MAX;
/// Literals are stored padded to this unit.
const BLOCK_BYTES: usize = 16;
/// Longer literals are worth a call to the C library's copy.
const CALL_BYTES_MIN: usize = 128;

/// A compiled command.
#[derive(Clone, Debug)]
pub(crate) struct Template {
    literals: Vec<u8>,
    steps: Vec<Step>,
    numbers: Vec<Number>,
    bytes_max: usize,
}

/// Where the number of a placeholder comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Number {
    /// `{key}`
    Key,
    /// `{key2}`, and never in front of [`Self::Key`].
    OtherKey,
    /// `{rand:N}`
    Below(u64),
    /// `{seq}`
    Sequence,
    /// The same as an earlier one of this command: `{key}` twice is the same key.
    Same(usize),
}

#[derive(Clone, Copy, Debug)]
enum Step {
    /// Copy `literals[start..start + len]`, padded to whole blocks.
    Literal { start: usize, len: usize },
    /// Write the length line of a word with `fixed` bytes and the numbers `first..last`.
    Length { fixed: usize, first: usize, last: usize },
    /// Write a number.
    Number { index: usize },
}

/// Why a template is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub(crate) enum TemplateError {
    Empty,
    UnclosedBrace,
    UnknownPlaceholder(String),
    BadBound(String),
    TooManyPlaceholders,
}

impl std::fmt::Display for TemplateError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Empty => write!(f, "a command needs at least one word"),
            Self::UnclosedBrace => write!(f, "a '{{' is never closed"),
            Self::UnknownPlaceholder(name) => write!(
                f,
                "unknown placeholder {{{name}}}; there are {{key}}, {{key2}}, {{value}}, \
                 {{rand:N}} and {{seq}}"
            ),
            Self::BadBound(bound) => {
                write!(f, "{{rand:{bound}}} needs a whole number above 0, as in {{rand:100}}")
            }
            Self::TooManyPlaceholders => {
                write!(f, "more than {NUMBERS_MAX} placeholders in one command")
            }
        }
    }
}

impl Template {
    /// Compiles `text`; `value` stands for `{value}`.
    pub(crate) fn compile(text: &str, value: &[u8]) -> Result<Self, TemplateError> {
        let words: Vec<Word> = text
            .split_ascii_whitespace()
            .map(|word| Word::parse(word, value))
            .collect::<Result<_, _>>()?;
        if words.is_empty() {
            return Err(TemplateError::Empty);
        }
        let mut compiler = Compiler::default();
        compiler.literal(format!("*{}\r\n", words.len()).as_bytes());
        for word in &words {
            compiler.word(word)?;
        }
        Ok(compiler.finish())
    }

    /// The numbers that [`Self::encode`] expects, in order.
    pub(crate) fn numbers(&self) -> &[Number] {
        &self.numbers
    }

    /// An upper bound of a command's length on the wire.
    pub(crate) fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// Writes the command at `at` and returns the place behind it.
    ///
    /// # Panics
    /// When `out` has not [`Self::bytes_max`] and [`SLACK_BYTES`] more behind `at`; those bytes may
    /// be overwritten.
    pub(crate) fn encode(&self, values: &[Decimal], out: &mut [u8], at: usize) -> usize {
        let mut at = at;
        for step in &self.steps {
            at = match *step {
                Step::Literal { start, len } => self.copy(start, len, out, at),
                Step::Number { index } => values[index].write(out, at),
                Step::Length { fixed, first, last } => {
                    let bytes = values[first..last].iter().fold(fixed, |sum, v| sum + v.len());
                    length_line(bytes, out, at)
                }
            };
        }
        at
    }

    fn copy(&self, start: usize, len: usize, out: &mut [u8], at: usize) -> usize {
        if len >= CALL_BYTES_MIN {
            out[at..at + len].copy_from_slice(&self.literals[start..start + len]);
        } else {
            let padded = start + len.next_multiple_of(BLOCK_BYTES);
            let (blocks, _) = self.literals[start..padded].as_chunks::<BLOCK_BYTES>();
            for (index, block) in blocks.iter().enumerate() {
                let to = at + index * BLOCK_BYTES;
                out[to..to + BLOCK_BYTES].copy_from_slice(block);
            }
        }
        at + len
    }
}

fn length_line(bytes: usize, out: &mut [u8], at: usize) -> usize {
    if let Some(line) = LENGTH_LINES.get(bytes) {
        out[at..at + 8].copy_from_slice(line);
        return at + if bytes < 10 { 4 } else { 5 };
    }
    out[at] = b'$';
    let end = Decimal::new(bytes as u64).write(out, at + 1);
    out[end..end + 2].copy_from_slice(b"\r\n");
    end + 2
}

/// The length lines of words below 100 bytes, ready to be copied; nearly every word is one.
static LENGTH_LINES: [[u8; 8]; 100] = {
    let mut lines = [[0; 8]; 100];
    let mut bytes = 0;
    while bytes < lines.len() {
        let (tens, ones) = (b'0' + bytes as u8 / 10, b'0' + bytes as u8 % 10);
        lines[bytes] = match bytes {
            0..10 => [b'$', ones, b'\r', b'\n', 0, 0, 0, 0],
            _ => [b'$', tens, ones, b'\r', b'\n', 0, 0, 0],
        };
        bytes += 1;
    }
    lines
};

/// One word of a command.
struct Word {
    parts: Vec<Part>,
}

enum Part {
    Bytes(Vec<u8>),
    Number(Number),
}

impl Word {
    fn parse(word: &str, value: &[u8]) -> Result<Self, TemplateError> {
        let mut parts = Vec::new();
        let mut rest = word;
        while let Some((before, tail)) = rest.split_once('{') {
            parts.push(Part::Bytes(before.as_bytes().to_vec()));
            let (name, after) = tail.split_once('}').ok_or(TemplateError::UnclosedBrace)?;
            parts.push(Part::parse(name, value)?);
            rest = after;
        }
        parts.push(Part::Bytes(rest.as_bytes().to_vec()));
        Ok(Self { parts })
    }
}

impl Part {
    fn parse(name: &str, value: &[u8]) -> Result<Self, TemplateError> {
        Ok(match name {
            "key" => Self::Number(Number::Key),
            "key2" => Self::Number(Number::OtherKey),
            "seq" => Self::Number(Number::Sequence),
            "value" => Self::Bytes(value.to_vec()),
            _ => match name.strip_prefix("rand:") {
                Some(bound) => match bound.parse() {
                    Ok(bound) if bound > 0 => Self::Number(Number::Below(bound)),
                    _ => return Err(TemplateError::BadBound(bound.to_owned())),
                },
                None => return Err(TemplateError::UnknownPlaceholder(name.to_owned())),
            },
        })
    }
}

#[derive(Default)]
struct Compiler {
    /// The literal under construction: consecutive fixed bytes become one copy.
    pending: Vec<u8>,
    literals: Vec<u8>,
    steps: Vec<Step>,
    numbers: Vec<Number>,
    bytes_max: usize,
}

impl Compiler {
    fn literal(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
    }

    fn word(&mut self, word: &Word) -> Result<(), TemplateError> {
        let mut fixed = 0;
        let mut count = 0;
        for part in &word.parts {
            match part {
                Part::Bytes(bytes) => fixed += bytes.len(),
                Part::Number(_) => count += 1,
            }
        }
        let first = self.numbers.len();
        if count == 0 {
            self.literal(format!("${fixed}\r\n").as_bytes());
        } else {
            self.step(Step::Length { fixed, first, last: first + count }, Decimal::BYTES_MAX);
        }
        for part in &word.parts {
            match part {
                Part::Bytes(bytes) => self.literal(bytes),
                Part::Number(number) => self.number(*number)?,
            }
        }
        self.literal(b"\r\n");
        Ok(())
    }

    fn number(&mut self, number: Number) -> Result<(), TemplateError> {
        let index = self.numbers.len();
        if index == NUMBERS_MAX {
            return Err(TemplateError::TooManyPlaceholders);
        }
        // Each `{rand:N}` is drawn anew; the others name one number per command.
        let earlier = match number {
            Number::Below(_) => None,
            _ => self.numbers.iter().position(|&known| known == number),
        };
        self.numbers.push(earlier.map_or(number, Number::Same));
        self.step(Step::Number { index }, Decimal::BYTES_MAX);
        Ok(())
    }

    fn step(&mut self, step: Step, bytes_max: usize) {
        self.flush();
        self.steps.push(step);
        self.bytes_max += bytes_max;
    }

    fn flush(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        let (start, len) = (self.literals.len(), self.pending.len());
        self.literals.append(&mut self.pending);
        self.literals.resize(start + len.next_multiple_of(BLOCK_BYTES), 0);
        self.steps.push(Step::Literal { start, len });
        self.bytes_max += len;
    }

    fn finish(mut self) -> Template {
        self.flush();
        self.name_first_key();
        let Self { literals, steps, numbers, bytes_max, .. } = self;
        Template { literals, steps, numbers, bytes_max }
    }
}

impl Compiler {
    /// Makes the key that comes first in the command the one that is drawn first.
    ///
    /// The second draw avoids the first, and numbers are drawn in order of appearance.
    fn name_first_key(&mut self) {
        let first = self.numbers.iter().find(|n| matches!(n, Number::Key | Number::OtherKey));
        if first != Some(&Number::OtherKey) {
            return;
        }
        for number in &mut self.numbers {
            *number = match *number {
                Number::Key => Number::OtherKey,
                Number::OtherKey => Number::Key,
                other => other,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(text: &str, value: &[u8], numbers: &[u64]) -> String {
        let template = Template::compile(text, value).expect("a valid template");
        let values: Vec<Decimal> = numbers.iter().map(|&number| Decimal::new(number)).collect();
        assert_eq!(values.len(), template.numbers().len());
        let mut out = vec![0xff; 7 + template.bytes_max() + SLACK_BYTES];
        let end = template.encode(&values, &mut out, 7);
        assert!(end - 7 <= template.bytes_max());
        String::from_utf8_lossy(&out[7..end]).into_owned()
    }

    #[test]
    fn words_become_a_resp_array() {
        assert_eq!(encode("PING", b"", &[]), "*1\r\n$4\r\nPING\r\n");
        assert_eq!(
            encode("SET key:{key} {value}", b"abc", &[1234]),
            "*3\r\n$3\r\nSET\r\n$8\r\nkey:1234\r\n$3\r\nabc\r\n"
        );
    }

    #[test]
    fn lengths_follow_the_numbers() {
        for number in [0, 9, 10, 999, 1_000, 99_999_999, 100_000_000, u64::MAX] {
            let text = number.to_string();
            let expected =
                format!("*2\r\n$3\r\nGET\r\n${}\r\na{text}b{text}\r\n", 2 + 2 * text.len());
            assert_eq!(encode("GET a{key}b{seq}", b"", &[number, number]), expected);
        }
    }

    #[test]
    fn every_length_of_a_word_is_announced() {
        for bytes in 1..300 {
            let word = "w".repeat(bytes);
            let length = bytes + 1;
            assert_eq!(
                encode(&format!("{word}{{key}}"), b"", &[7]),
                format!("*1\r\n${length}\r\n{word}7\r\n")
            );
        }
    }

    #[test]
    fn long_payloads_are_copied_whole() {
        for bytes in [15, 16, 17, 127, 128, 129, 5_000] {
            let value = vec![b'v'; bytes];
            let expected =
                format!("*3\r\n$3\r\nSET\r\n$1\r\n7\r\n${bytes}\r\n{}\r\n", "v".repeat(bytes));
            assert_eq!(encode("SET {key} {value}", &value, &[7]), expected);
        }
    }

    #[test]
    fn a_repeated_key_is_one_number_and_rand_is_not() {
        let template = Template::compile("X {key} {key2} {key} {rand:5} {rand:5}", b"");
        let numbers = template.expect("a valid template").numbers;
        assert_eq!(
            numbers,
            [Number::Key, Number::OtherKey, Number::Same(0), Number::Below(5), Number::Below(5)]
        );
    }

    #[test]
    fn mistakes_are_named() {
        let error = |text| Template::compile(text, b"").err();
        assert_eq!(error("  "), Some(TemplateError::Empty));
        assert_eq!(error("GET {key"), Some(TemplateError::UnclosedBrace));
        assert_eq!(error("GET {kee}"), Some(TemplateError::UnknownPlaceholder("kee".into())));
        assert_eq!(error("GET {rand:0}"), Some(TemplateError::BadBound("0".into())));
        assert_eq!(error(&"{seq}".repeat(17)), Some(TemplateError::TooManyPlaceholders));
    }
}
