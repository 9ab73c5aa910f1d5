//! A flat message of 64 bytes as an archive, beside postcard and bitcode: written behind what waits
//! to be sent, and taken out of a receive buffer by value, checked.
//!
//! All of them write and read the same values, one message at a time, a thousand different ones per
//! pass, interleaved in one process. A ratio above 1 means that ours takes less time.

use std::hint::black_box;
use std::time::Instant;

use coreside_macros::wire;
use coreside_shard::rkyv::util::AlignedVec;
use coreside_shard::{Decode, Encode};

use crate::{Options, Rows, Summary};

/// As a service would have it: eight words.
#[wire(crate = coreside_shard)]
#[derive(
    Clone,
    Copy,
    PartialEq,
    Debug,
    serde::Serialize,
    serde::Deserialize,
    bitcode::Encode,
    bitcode::Decode,
)]
pub struct Trade {
    pub id: u64,
    pub account: u64,
    pub price: i64,
    pub quantity: u64,
    pub flags: u32,
    pub kind: u32,
    pub time_ns: u64,
    pub venue: [u8; 16],
}

const MESSAGES: usize = 1000;
const PASSES: usize = 2000;
const PASSES_SMALL: usize = 20;

/// One program: its name, and the nanoseconds per message that it takes to write and to read.
type Side = (&'static str, fn(&[Trade], usize) -> (f64, f64));

const SIDES: &[Side] = &[("ours", ours), ("postcard", postcard), ("bitcode", bitcode)];

/// Races all of them, and prints and returns what they did.
pub fn run(options: &Options) -> Rows {
    let (rounds, passes) = if options.small { (1, PASSES_SMALL) } else { (9, PASSES) };
    let rounds = options.rounds.unwrap_or(rounds);
    let trades: Vec<_> = (0..MESSAGES as u64).map(trade).collect();
    let mut samples = vec![Vec::new(); SIDES.len()];
    for _ in 0..rounds {
        for (place, (_, run)) in SIDES.iter().enumerate() {
            samples[place].push(run(&trades, passes));
        }
    }
    println!(
        "{:<24}{:>10}{:>10}{:>8}{:>18}",
        "codec/64B beside", "ours", "theirs", "ratio", "ours min..max"
    );
    let mut rows = Rows::new();
    for (what, pick) in [
        ("codec/write", (|pair: &(f64, f64)| pair.0) as fn(&(f64, f64)) -> f64),
        ("codec/read", |pair| pair.1),
    ] {
        let ours: Vec<f64> = samples[0].iter().map(pick).collect();
        for ((rival, _), theirs) in SIDES.iter().zip(&samples).skip(1) {
            let theirs: Vec<f64> = theirs.iter().map(pick).collect();
            let ratio = Summary::of(theirs.iter().zip(&ours).map(|(a, b)| a / b)).median;
            let (ours, theirs) =
                (Summary::of(ours.iter().copied()), Summary::of(theirs.iter().copied()));
            let name = format!("{what} {rival}");
            println!(
                "{name:<24}{:>10.1}{:>10.1}{ratio:>8.2}{:>10.1}..{:.1}",
                ours.median, theirs.median, ours.min, ours.max
            );
            rows.push(serde_json::json!({
                "bench": what, "ours": ours.median, "rival": rival, "theirs": theirs.median,
                "ratio": ratio, "unit": "ns", "min": ours.min, "max": ours.max,
            }));
        }
    }
    rows
}

/// One of many.
pub fn trade(number: u64) -> Trade {
    // Values of all sizes, as some of the rivals write small ones in fewer bytes.
    let word = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    Trade {
        id: word,
        account: word >> 20,
        price: (word >> 40) as i64 - 4_000_000,
        quantity: word & 0xffff,
        flags: word as u32 & 7,
        kind: (word >> 8) as u32 & 0xff,
        time_ns: 1_700_000_000_000_000_000 + number,
        venue: word.to_le_bytes().repeat(2).try_into().unwrap_or_default(),
    }
}

/// Nanoseconds per message of `passes` over all of them.
fn time(passes: usize, mut pass: impl FnMut()) -> f64 {
    let start = Instant::now();
    for _ in 0..passes {
        pass();
    }
    start.elapsed().as_nanos() as f64 / (passes * MESSAGES) as f64
}

fn ours(trades: &[Trade], passes: usize) -> (f64, f64) {
    let mut out = Vec::with_capacity(MESSAGES * 64);
    let write = time(passes, || {
        out.clear();
        for trade in trades {
            black_box(trade).encode(&mut out).expect("it fits");
        }
        black_box(&out);
    });
    assert_eq!(out.len(), MESSAGES * 64);
    let mut buffer = AlignedVec::<16>::new();
    buffer.extend_from_slice(&out);
    let read = time(passes, || {
        for (body, trade) in buffer.chunks_exact(64).zip(trades) {
            let read = Trade::decode(black_box(body)).expect("an archive");
            debug_assert_eq!(read, *trade);
            black_box(read);
        }
    });
    (write, read)
}

fn postcard(trades: &[Trade], passes: usize) -> (f64, f64) {
    let mut out = Vec::with_capacity(MESSAGES * 80);
    let mut ends = Vec::new();
    let write = time(passes, || {
        out.clear();
        ends.clear();
        for trade in trades {
            out =
                ::postcard::to_extend(black_box(trade), std::mem::take(&mut out)).expect("it fits");
            ends.push(out.len());
        }
        black_box(&out);
    });
    let read = time(passes, || {
        let mut start = 0;
        for end in &ends {
            let read: Trade = ::postcard::from_bytes(black_box(&out[start..*end])).expect("whole");
            black_box(read);
            start = *end;
        }
    });
    (write, read)
}

fn bitcode(trades: &[Trade], passes: usize) -> (f64, f64) {
    let mut coder = ::bitcode::Buffer::new();
    let mut out = Vec::with_capacity(MESSAGES * 80);
    let mut ends = Vec::new();
    let write = time(passes, || {
        out.clear();
        ends.clear();
        for trade in trades {
            out.extend_from_slice(coder.encode(black_box(trade)));
            ends.push(out.len());
        }
        black_box(&out);
    });
    let read = time(passes, || {
        let mut start = 0;
        for end in &ends {
            let read: Trade = coder.decode(black_box(&out[start..*end])).expect("whole");
            black_box(read);
            start = *end;
        }
    });
    (write, read)
}
