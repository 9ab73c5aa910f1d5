//! What is computed from text, beside what the macros and rkyv make of the same types.

use coreside::rkyv::Archive;
use coreside::{entity, handlers, wire};
use coreside_net::native::frame::{HEADER_BYTES, Header, KEY_BYTES};
use coreside_shard::{Encode, WireType};

use super::message::Message;
use super::shape::{Shape, Types};
use super::words::Words;

#[wire]
#[derive(Clone, Debug)]
struct Total {
    accounts: u64,
    total: i128,
    last: Option<u16>,
}

#[wire]
#[derive(Clone, Debug)]
struct Pair(u8, String);

#[wire]
#[derive(Clone, Debug)]
struct Nothing;

#[wire]
#[derive(Clone, Debug)]
enum Side {
    Buy,
    Sell(u32, Pair),
    Both { a: bool, total: Total },
}

#[wire]
#[derive(Clone, Copy, Debug)]
enum Refusal {
    Busy,
    Gone,
}

const DECLARED: [&str; 5] = [
    "struct Total { accounts: u64, total: i128, last: Option<u16>, }",
    "struct Pair(u8, String)",
    "struct Nothing",
    "enum Side { Buy, Sell(u32, Pair), Both { a: bool, total: Total } }",
    "enum Refusal { Busy, Gone }",
];

fn types() -> Types {
    let mut types = Types::default();
    for text in DECLARED {
        types.declare(text).expect("a declaration");
    }
    types
}

fn shape(text: &str) -> Shape {
    let mut words = Words::new(text).expect("short");
    let shape = types().shape(&mut words).expect("a type");
    assert_eq!(words.end(), Ok(()), "{text}");
    shape
}

fn agrees<T: WireType>(text: &str) {
    let shape = shape(text);
    assert_eq!(shape.schema, T::SCHEMA, "schema of {text}");
    let (bytes, align) = (size_of::<<T as Archive>::Archived>(), align_of::<T::Archived>());
    assert_eq!((shape.layout.bytes, shape.layout.align), (bytes, align), "layout of {text}");
}

#[test]
fn schemas_and_layouts_are_those_of_the_macros() {
    agrees::<()>("()");
    agrees::<bool>("bool");
    agrees::<char>("char");
    agrees::<u128>("u128");
    agrees::<f32>("f32");
    agrees::<String>("String");
    agrees::<(u8, i64, String)>("(u8, i64, String)");
    agrees::<(u16,)>("(u16,)");
    agrees::<[(u8, u16); 3]>("[(u8, u16); 3]");
    agrees::<Option<i64>>("Option<i64>");
    agrees::<Option<()>>("Option<()>");
    agrees::<Vec<Option<Total>>>("Vec<Option<Total>>");
    agrees::<Pair>("Pair");
    agrees::<Nothing>("Nothing");
    agrees::<Total>("Total");
    agrees::<Side>("Side");
    agrees::<Refusal>("Refusal");
    agrees::<Result<i64, Refusal>>("Result<i64, Refusal>");
    agrees::<Result<(), Side>>("Result<(), Side>");
    agrees::<Result<Vec<u8>, Result<u8, Refusal>>>("Result<Vec<u8>, Result<u8, Refusal>>");
}

#[test]
fn refusals_are_read_out_of_archives() {
    fn read<T: Encode>(text: &str, reply: &T) -> Option<String> {
        let mut archive = Vec::new();
        reply.encode(&mut archive).expect("an archive");
        let shape = shape(text);
        let refusal = shape.refusal().expect("a result");
        assert!(refusal.read(&[]).is_err(), "too short");
        refusal.read(&archive).expect("long enough").map(str::to_owned)
    }
    let refused = |reply: Result<i64, Refusal>| read("Result<i64, Refusal>", &reply);
    assert_eq!(refused(Ok(1)), None);
    assert_eq!(refused(Err(Refusal::Busy)).as_deref(), Some("Busy"));
    assert_eq!(refused(Err(Refusal::Gone)).as_deref(), Some("Gone"));
    let total = Total { accounts: 1, total: 2, last: Some(3) };
    let sides = [
        (Side::Buy, "Buy"),
        (Side::Sell(5, Pair(1, "a long text, out of line".into())), "Sell"),
        (Side::Both { a: true, total }, "Both"),
    ];
    for (side, name) in sides {
        let reply: Result<String, Side> = Err(side);
        assert_eq!(read("Result<String, Side>", &reply).as_deref(), Some(name));
    }
    let text: Result<String, String> = Err("no".into());
    assert_eq!(read("Result<String, String>", &text).as_deref(), Some(""));
}

#[entity]
#[derive(Default)]
struct Probe {
    turns: u64,
}

#[handlers]
impl Probe {
    #[wire]
    fn nothing(&mut self) {
        self.turns += 1;
    }

    #[wire]
    fn transfer(&mut self, to: u64, amount: i64) -> i64 {
        self.turns += to;
        amount
    }

    #[local]
    #[wire]
    fn mixed(
        &mut self,
        a: u8,
        first: String,
        b: i64,
        c: u16,
        second: String,
        d: i16,
    ) -> (u64, i64) {
        self.turns += u64::from(a) + u64::from(c);
        ((first.len() + second.len()) as u64, b + i64::from(d))
    }

    #[local]
    #[wire]
    fn small(&mut self, a: i8, b: u32, c: String, d: i32) -> String {
        self.turns += u64::from(b);
        format!("{c}{a}{d}")
    }
}

/// The archive in a frame whose numbers are all `value`.
fn body(text: &str, repeated: &str, value: u64) -> Vec<u8> {
    let message = Message::compile(text, repeated, &types()).expect("valid");
    let mut out = vec![0xee; message.frame_bytes()];
    let end = message.encode(&[value; 16], 7, &mut out, 0);
    assert_eq!(end, out.len());
    let header = Header::read(&out, 1 << 20).expect("a header").expect("whole");
    assert!(out[header.length as usize..].iter().all(|byte| *byte == 0), "padding is zero");
    out[HEADER_BYTES + KEY_BYTES..header.length as usize].to_vec()
}

fn encoded(message: &impl Encode) -> Vec<u8> {
    let mut out = Vec::new();
    message.encode(&mut out).expect("an archive");
    out
}

#[test]
fn bodies_are_the_archives_of_generated_messages() {
    assert_eq!(body("Probe.nothing()", "", 0), encoded(&ProbeNothing));
    for (to, amount) in [(0, 0), (5, -9), (u64::MAX, i64::MIN)] {
        let text = format!("Probe.transfer(to: u64 = {to}, amount: i64 = {amount}) -> i64");
        assert_eq!(body(&text, "", 0), encoded(&ProbeTransfer { to, amount }));
        let text = format!("Probe.transfer(to: u64 = {{key2}}, amount: i64 = {amount} + {{seq}})");
        let amount = amount.wrapping_add(3);
        assert_eq!(body(&text, "", 3), encoded(&ProbeTransfer { to: 3, amount }));
    }
}

#[test]
fn texts_of_all_lengths_lie_where_rkyv_puts_them() {
    let mixed = "Probe.mixed(a: u8 = 200, first: String = {value}, b: i64 = -5, c: u16 = {seq}, \
                 second: String = \"second text\", d: i16 = 1 + {seq}) -> (u64, i64)";
    let small = "Probe.small(a: i8 = -1, b: u32 = {seq}, c: String = {value}, d: i32 = -7)";
    // To and beyond where the text leaves the root, or its length takes another bit.
    for bytes in [0, 1, 7, 8, 9, 15, 16, 17, 63, 64, 65, 127, 128, 255, 256, 5_000, 70_000] {
        let value = "x".repeat(bytes);
        let (first, second) = (value.clone(), "second text".to_owned());
        let message = ProbeMixed { a: 200, first, b: -5, c: 9, second, d: 10 };
        assert_eq!(body(mixed, &value, 9), encoded(&message), "{bytes} bytes of text");
        let message = ProbeSmall { a: -1, b: 9, c: value.clone(), d: -7 };
        assert_eq!(body(small, &value, 9), encoded(&message), "{bytes} bytes of text");
    }
}
