use std::fmt;

/// Texts on the command line are short; a bound on how deep types may nest.
const TEXT_BYTES_MAX: usize = 4096;

/// What is left of a text.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Words<'a> {
    rest: &'a str,
}

/// Why a message or a type is not understood.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub(crate) enum Mistake {
    TooLong,
    /// Something else should stand before this rest.
    Expected {
        what: &'static str,
        before: String,
    },
    UnknownType(String),
    DeclaredTwice(String),
    /// A value may vary in numbers alone, of up to 64 bits.
    NoArgument(String),
    OutOfRange {
        number: String,
        kind: &'static str,
    },
    TooManyNumbers,
    TooLarge,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => write!(f, "more than {TEXT_BYTES_MAX} bytes"),
            Self::Expected { what, before } if before.is_empty() => {
                write!(f, "expected {what} at the end")
            }
            Self::Expected { what, before } => write!(f, "expected {what} before '{before}'"),
            Self::UnknownType(name) => {
                write!(f, "unknown type {name}; declare it, as in --type 'struct {name} {{ .. }}'")
            }
            Self::DeclaredTwice(name) => write!(f, "the type {name} is declared twice"),
            Self::NoArgument(name) => write!(
                f,
                "an argument cannot be a {name}, only a number of 8 to 64 bits or a String"
            ),
            Self::OutOfRange { number, kind } => write!(f, "{number} does not fit into {kind}"),
            Self::TooManyNumbers => {
                write!(f, "more than {} numbers in one message", crate::template::NUMBERS_MAX)
            }
            Self::TooLarge => write!(f, "the message is too large for a frame"),
        }
    }
}

impl<'a> Words<'a> {
    pub(crate) fn new(text: &'a str) -> Result<Self, Mistake> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(Mistake::TooLong);
        }
        Ok(Self { rest: text.trim_start() })
    }

    /// Takes `mark` if it comes next.
    pub(crate) fn eat(&mut self, mark: &str) -> bool {
        match self.rest.strip_prefix(mark) {
            Some(rest) => {
                self.rest = rest.trim_start();
                true
            }
            None => false,
        }
    }

    pub(crate) fn expect(&mut self, mark: &'static str) -> Result<(), Mistake> {
        if self.eat(mark) { Ok(()) } else { Err(self.expected(mark)) }
    }

    /// Takes a name: letters, digits, underscores.
    pub(crate) fn name(&mut self, what: &'static str) -> Result<&'a str, Mistake> {
        let begins = self.rest.starts_with(|c: char| c.is_alphabetic() || c == '_');
        let name = self.take_while(|c| c.is_alphanumeric() || c == '_');
        if begins && !name.is_empty() { Ok(name) } else { Err(self.expected(what)) }
    }

    /// Takes a whole number, perhaps with a sign and with underscores.
    pub(crate) fn number(&mut self) -> Result<i128, Mistake> {
        let negative = self.eat("-");
        let digits = self.take_while(|c| c.is_ascii_digit() || c == '_').replace('_', "");
        match digits.parse::<i128>() {
            Ok(number) => Ok(if negative { -number } else { number }),
            Err(_) => Err(self.expected("a whole number")),
        }
    }

    /// Takes everything up to `mark`, and `mark`.
    pub(crate) fn until(&mut self, mark: char, what: &'static str) -> Result<&'a str, Mistake> {
        let (taken, rest) = self.rest.split_once(mark).ok_or_else(|| self.expected(what))?;
        self.rest = rest.trim_start();
        Ok(taken)
    }

    /// What has been taken since `before`.
    pub(crate) fn taken_since(&self, before: &Self) -> &'a str {
        before.rest[..before.rest.len() - self.rest.len()].trim_end()
    }

    pub(crate) fn at_digit(&self) -> bool {
        self.rest.starts_with(|c: char| c.is_ascii_digit() || c == '-')
    }

    pub(crate) fn end(&self) -> Result<(), Mistake> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.expected("the end")) }
    }

    /// Takes items up to `close`, with commas between them and perhaps one behind the last.
    pub(crate) fn list<T>(
        &mut self,
        close: &'static str,
        mut item: impl FnMut(&mut Self) -> Result<T, Mistake>,
    ) -> Result<Vec<T>, Mistake> {
        let mut items = Vec::new();
        while !self.eat(close) {
            items.push(item(self)?);
            if !self.eat(",") {
                self.expect(close)?;
                break;
            }
        }
        Ok(items)
    }

    pub(crate) fn expected(&self, what: &'static str) -> Mistake {
        const SHOWN_CHARS: usize = 24;
        Mistake::Expected { what, before: self.rest.chars().take(SHOWN_CHARS).collect() }
    }

    fn take_while(&mut self, belongs: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|c| !belongs(c)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest.trim_start();
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_may_end_in_a_comma() {
        for (text, expected) in [(")", 0), ("a)", 1), ("a, b)", 2), ("a ,b , )", 2)] {
            let mut words = Words::new(text).expect("short");
            let names = words.list(")", |words| words.name("a name")).expect("a list");
            assert_eq!(names.len(), expected, "{text}");
            assert_eq!(words.end(), Ok(()));
        }
    }

    #[test]
    fn mistakes_say_where() {
        let mut words = Words::new("a b)").expect("short");
        let error = words.list(")", |words| words.name("a name")).expect_err("no comma");
        assert_eq!(error.to_string(), "expected ) before 'b)'");
        assert!(Words::new(&"x".repeat(5_000)).is_err());
    }
}
