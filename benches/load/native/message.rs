use coreside_net::native::frame::{ALIGN, HEADER_BYTES, Header, KEY_BYTES, Kind};
use coreside_shard::{message_id, schema};

use super::shape::{Layout, RELATIVE, Refusal, Shape, Types};
use super::words::{Mistake, Words};
use crate::template::{NUMBERS_MAX, Number};

/// Where header and key hold what changes with each request.
const NUMBER_AT: usize = 6;
const CALL_AT: usize = 8;
const KEY_AT: usize = HEADER_BYTES;
const UPPER_AT: usize = KEY_AT + 8;

/// In front of the signature of a message that wants no answer.
pub(crate) const TELL: &str = "tell ";

/// A message as the handshake names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Named {
    /// `Type.method`.
    pub(crate) name: String,
    pub(crate) id: u64,
    pub(crate) schema: u64,
    /// How its reply says no, if it can.
    pub(crate) refusal: Option<Refusal>,
    /// Bytes of its frame.
    pub(crate) frame_bytes: usize,
}

/// A message, compiled into the frame of an ask or a tell.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    named: Named,
    /// The frame with its padding; zeros where numbers go.
    frame: Vec<u8>,
    numbers: Vec<Number>,
    places: Vec<Place>,
    /// Its place among the workload's messages.
    index: u16,
    /// Nobody answers it.
    tells: bool,
    /// Keys have 128 bits.
    wide: bool,
}

/// Where a number goes.
#[derive(Clone, Copy, Debug)]
struct Place {
    at: usize,
    bytes: usize,
    /// Is added to the number, modulo 2^64.
    add: u64,
}

/// The archive of a message in the making: what lies outside of the root, and the fields.
#[derive(Default)]
struct Archive {
    /// Texts too long to lie in the root, in the order of the fields.
    outside: Vec<u8>,
    root: Vec<u8>,
    layout: Option<Layout>,
    /// Fields whose text lies outside: where in the root, and where in `outside`.
    relative: Vec<(usize, usize)>,
    numbers: Vec<(Number, Place)>,
}

/// A kind of number.
#[derive(Clone, Copy)]
struct Integer {
    name: &'static str,
    bytes: usize,
    least: i128,
    greatest: i128,
}

const INTEGERS: [Integer; 8] = [
    Integer::new("u8", 1, 0, u8::MAX as i128),
    Integer::new("u16", 2, 0, u16::MAX as i128),
    Integer::new("u32", 4, 0, u32::MAX as i128),
    Integer::new("u64", 8, 0, u64::MAX as i128),
    Integer::new("i8", 1, i8::MIN as i128, i8::MAX as i128),
    Integer::new("i16", 2, i16::MIN as i128, i16::MAX as i128),
    Integer::new("i32", 4, i32::MIN as i128, i32::MAX as i128),
    Integer::new("i64", 8, i64::MIN as i128, i64::MAX as i128),
];

impl Integer {
    const fn new(name: &'static str, bytes: usize, least: i128, greatest: i128) -> Self {
        Self { name, bytes, least, greatest }
    }
}

impl Message {
    /// Compiles `Type.method(argument: kind = value, ..) -> Reply`, or the same behind [`TELL`];
    /// `value` stands for `{value}`.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub(crate) fn compile(text: &str, value: &str, types: &Types) -> Result<Self, Mistake> {
        let signature = text.strip_prefix(TELL);
        let kind = if signature.is_some() { Kind::Tell } else { Kind::Ask };
        let mut words = Words::new(signature.unwrap_or(text))?;
        let entity = words.name("the name of an entity type")?;
        words.expect(".")?;
        let method = words.name("the name of a method")?;
        words.expect("(")?;
        let mut archive = Archive::default();
        let fields = words.list(")", |words| archive.argument(words, value, types))?;
        let reply = if words.eat("->") { types.shape(&mut words)? } else { Shape::unit() };
        words.end()?;
        let body = archive.finish();
        let mut frame = vec![0; HEADER_BYTES + KEY_BYTES];
        frame.extend_from_slice(&body);
        let length = u32::try_from(frame.len()).map_err(|_| Mistake::TooLarge)?;
        frame.resize(frame.len().next_multiple_of(ALIGN), 0);
        let header = Header { length, ..Header::new(kind) };
        frame[..HEADER_BYTES].copy_from_slice(&header.to_bytes());
        let key = (Number::Key, Place { at: KEY_AT, bytes: 8, add: 0 });
        let (mut numbers, places): (Vec<_>, Vec<_>) =
            [key].into_iter().chain(archive.numbers).unzip();
        repeat(&mut numbers)?;
        let named = Named {
            name: format!("{entity}.{method}"),
            id: message_id(entity, method),
            schema: schema("call", &[schema("message", &fields), reply.schema]),
            refusal: reply.refusal().cloned(),
            frame_bytes: frame.len(),
        };
        let tells = kind == Kind::Tell;
        Ok(Self { named, frame, numbers, places, index: 0, tells, wide: false })
    }

    pub(crate) fn named(&self) -> &Named {
        &self.named
    }

    /// Its place among the workload's messages.
    pub(crate) fn set_index(&mut self, index: u16) {
        self.index = index;
    }

    pub(crate) fn index(&self) -> u16 {
        self.index
    }

    /// Whether nobody answers it.
    pub(crate) fn tells(&self) -> bool {
        self.tells
    }

    /// Goes to entities whose keys have 128 bits.
    pub(crate) fn widen(&mut self) {
        self.wide = true;
    }

    /// Goes by the numbers of a welcome, given in the order of the workload's messages.
    pub(crate) fn renumber(&mut self, numbers: &[u16]) {
        let number = numbers[usize::from(self.index)];
        self.frame[NUMBER_AT..NUMBER_AT + 2].copy_from_slice(&number.to_le_bytes());
    }

    /// The numbers that [`Self::encode`] expects, in order.
    pub(crate) fn numbers(&self) -> &[Number] {
        &self.numbers
    }

    pub(crate) fn frame_bytes(&self) -> usize {
        self.frame.len()
    }

    /// Writes the frame at `at` and returns the place behind it.
    ///
    /// # Panics
    /// When `out` has not [`Self::frame_bytes`] behind `at`.
    pub(crate) fn encode(&self, values: &[u64], call: u32, out: &mut [u8], at: usize) -> usize {
        let end = at + self.frame.len();
        let out = &mut out[at..end];
        out.copy_from_slice(&self.frame);
        out[CALL_AT..CALL_AT + 4].copy_from_slice(&call.to_le_bytes());
        for (place, value) in self.places.iter().zip(values) {
            let bytes = value.wrapping_add(place.add).to_le_bytes();
            // Nearly every number has eight bytes, and a copy of fixed size is one move.
            match place.bytes {
                8 => out[place.at..place.at + 8].copy_from_slice(&bytes),
                few => out[place.at..place.at + few].copy_from_slice(&bytes[..few]),
            }
        }
        if self.wide {
            out[UPPER_AT..UPPER_AT + 8].copy_from_slice(&upper_half(values[0]).to_le_bytes());
        }
        end
    }
}

/// The upper half of the key of 128 bits whose lower half is `key`: all of its bits depend on it.
pub(crate) fn upper_half(key: u64) -> u64 {
    let mixed = (key ^ key >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ mixed >> 29
}

/// `{key}` twice is the same key.
fn repeat(numbers: &mut [Number]) -> Result<(), Mistake> {
    if numbers.len() > NUMBERS_MAX {
        return Err(Mistake::TooManyNumbers);
    }
    for index in 1..numbers.len() {
        if matches!(numbers[index], Number::Key | Number::OtherKey)
            && let Some(first) = numbers[..index].iter().position(|n| *n == numbers[index])
        {
            numbers[index] = Number::Same(first);
        }
    }
    Ok(())
}

impl Archive {
    /// Takes `name: kind = value`, and returns the schema of the field.
    fn argument<'a>(
        &mut self,
        words: &mut Words<'a>,
        value: &'a str,
        types: &Types,
    ) -> Result<u64, Mistake> {
        let name = words.name("an argument")?;
        words.expect(":")?;
        let before = *words;
        let shape = types.shape(words)?;
        let kind = words.taken_since(&before);
        words.expect("=")?;
        if shape.schema == schema("String", &[]) {
            self.text(text(words, value)?);
        } else if let Some(integer) = INTEGERS.iter().find(|i| schema(i.name, &[]) == shape.schema)
        {
            self.number(words, integer)?;
        } else {
            return Err(Mistake::NoArgument(kind.to_owned()));
        }
        Ok(schema(name, &[shape.schema]))
    }

    /// Makes room for a field and returns its place in the root.
    fn append(&mut self, field: Layout) -> usize {
        let layout = self.layout.get_or_insert(Layout::of_fields([]));
        let at = layout.append(field);
        self.root.resize(at + field.bytes, 0);
        at
    }

    /// Up to eight bytes of text stand in the root; of a longer one a length and a distance.
    fn text(&mut self, text: &[u8]) {
        let at = self.append(RELATIVE);
        if text.len() > RELATIVE.bytes {
            self.relative.push((at, self.outside.len()));
            let length = text.len() as u32;
            // The upper two of the first byte's bits say that it is no text.
            let length = (length & 0x3f) | 0x80 | ((length & !0x3f) << 2);
            self.root[at..at + 4].copy_from_slice(&length.to_le_bytes());
            self.outside.extend_from_slice(text);
        } else {
            // Filled up with a byte that no text contains.
            self.root[at..at + RELATIVE.bytes].fill(0xff);
            self.root[at..at + text.len()].copy_from_slice(text);
        }
    }

    /// Takes `7`, `{key}` or `7 + {rand:10}`.
    fn number(&mut self, words: &mut Words<'_>, kind: &Integer) -> Result<(), Mistake> {
        let at = self.append(Layout { bytes: kind.bytes, align: kind.bytes });
        let mut add = 0;
        let mut drawn = None;
        if words.at_digit() {
            add = words.number()?;
            if words.eat("+") {
                drawn = Some(placeholder(words)?);
            }
        } else {
            drawn = Some(placeholder(words)?);
        }
        let most = match drawn {
            Some(Number::Below(bound)) => add.saturating_add(i128::from(bound) - 1),
            _ => add,
        };
        for number in [add, most] {
            if !(kind.least..=kind.greatest).contains(&number) {
                let number = number.to_string();
                return Err(Mistake::OutOfRange { number, kind: kind.name });
            }
        }
        match drawn {
            Some(number) => {
                let place = Place { at, bytes: kind.bytes, add: add as u64 };
                self.numbers.push((number, place));
            }
            None => {
                self.root[at..at + kind.bytes].copy_from_slice(&add.to_le_bytes()[..kind.bytes]);
            }
        }
        Ok(())
    }

    /// The archive: what lies outside, then the root at its alignment. Places of numbers count from
    /// the frame's beginning from here on.
    fn finish(&mut self) -> Vec<u8> {
        let Some(layout) = self.layout else { return Vec::new() };
        let mut body = std::mem::take(&mut self.outside);
        let root_at = body.len().next_multiple_of(layout.align);
        for &(at, outside_at) in &self.relative {
            let distance = outside_at as i32 - (root_at + at) as i32;
            self.root[at + 4..at + 8].copy_from_slice(&distance.to_le_bytes());
        }
        for (_, place) in &mut self.numbers {
            place.at += HEADER_BYTES + KEY_BYTES + root_at;
        }
        self.root.resize(self.root.len().next_multiple_of(layout.align), 0);
        body.resize(root_at, 0);
        body.extend_from_slice(&self.root);
        body
    }
}

/// Takes `"text"` or `{value}`.
fn text<'a>(words: &mut Words<'a>, value: &'a str) -> Result<&'a [u8], Mistake> {
    if words.eat("{value}") {
        return Ok(value.as_bytes());
    }
    if words.eat("\"") {
        return Ok(words.until('"', "a closing \"")?.as_bytes());
    }
    Err(words.expected("{value} or a text in quotes"))
}

fn placeholder(words: &mut Words<'_>) -> Result<Number, Mistake> {
    const CHOICES: &str = "a number, {key}, {key2}, {rand:N} or {seq}";
    let at = *words;
    let wrong = || at.expected(CHOICES);
    words.expect("{").map_err(|_| wrong())?;
    Ok(match words.until('}', CHOICES)? {
        "key" => Number::Key,
        "key2" => Number::OtherKey,
        "seq" => Number::Sequence,
        name => match name.strip_prefix("rand:").map(str::parse) {
            Some(Ok(bound)) if bound > 0 => Number::Below(bound),
            _ => return Err(wrong()),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mistake(text: &str) -> String {
        let error = Message::compile(text, "", &Types::default()).expect_err("a mistake");
        error.to_string()
    }

    #[test]
    fn frame_holds_what_the_text_says() {
        let text =
            "A.m(small: u8 = 7, to: u64 = {key2}, same: u64 = {key}, n: i64 = 10 + {rand:9})";
        let message = Message::compile(text, "", &Types::default()).expect("valid");
        let (key, other) = (Number::Key, Number::OtherKey);
        assert_eq!(message.numbers(), [key, other, Number::Same(0), Number::Below(9)]);
        let mut out = vec![0xee; 96];
        assert_eq!(message.encode(&[5, 6, 5, 8], 0x0102_0304, &mut out, 16), 80);
        let header = Header::read(&out[16..], 1024).expect("a header").expect("whole");
        let ask = Header { length: 64, call: 0x0102_0304, ..Header::new(Kind::Ask) };
        assert_eq!(header, ask);
        let word = |at: usize| u64::from_le_bytes(out[at..at + 8].try_into().expect("eight"));
        let words: Vec<u64> = (32..80).step_by(8).map(word).collect();
        assert_eq!(words, [5, 0, 7, 6, 5, 18]);
        assert_eq!((out[15], out[80]), (0xee, 0xee), "nothing beside the frame is touched");
    }

    #[test]
    fn tell_differs_from_an_ask_in_its_kind_and_a_wide_key_in_its_upper_half() {
        let compile = |text: &str| Message::compile(text, "", &Types::default()).expect("valid");
        let (ask, mut tell) =
            (compile("A.m(n: u8 = 7) -> i64"), compile("tell A.m(n: u8 = 7) -> i64"));
        assert_eq!((ask.tells(), tell.tells()), (false, true));
        assert_eq!(ask.named(), tell.named(), "the same message");
        let encode = |message: &Message| {
            let mut out = vec![0; message.frame_bytes()];
            message.encode(&[5], 0, &mut out, 0);
            out
        };
        let (asked, told) = (encode(&ask), encode(&tell));
        assert_eq!((asked[4], told[4]), (Kind::Ask as u8, Kind::Tell as u8));
        assert_eq!(asked[5..], told[5..]);
        tell.widen();
        let wide = encode(&tell);
        assert_eq!(wide[UPPER_AT..UPPER_AT + 8], upper_half(5).to_le_bytes());
        assert_eq!(
            (&wide[..UPPER_AT], &wide[UPPER_AT + 8..]),
            (&told[..UPPER_AT], &told[UPPER_AT + 8..])
        );
    }

    #[test]
    fn mistakes_are_named() {
        assert_eq!(mistake("Account"), "expected . at the end");
        assert_eq!(mistake("A.m(n: u8 = 300)"), "300 does not fit into u8");
        assert_eq!(mistake("A.m(n: u8 = 250 + {rand:7})"), "256 does not fit into u8");
        assert!(mistake("A.m(n: u64 = {kee})").starts_with("expected a number, {key}"));
        assert!(mistake("A.m(n: Total = 1)").contains("--type 'struct Total"));
        assert!(mistake("A.m(n: f64 = 1)").contains("cannot be a f64"));
        assert!(mistake("A.m(text: String = 1)").starts_with("expected {value}"));
        assert!(mistake("A.m() -> i64 x").starts_with("expected the end"));
        let many: String = (0..20).map(|n| format!("a{n}: u8 = {{seq}}, ")).collect();
        assert!(mistake(&format!("A.m({many})")).starts_with("more than 16"));
    }
}
