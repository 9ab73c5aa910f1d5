//! `view/N`: a message of N bytes off the network that is looked at where it lies, from the bytes
//! to the end of its turn, on one core; `view/flat` is one of eight numbers. Beside it, as the
//! limit, the same message taken by value. `view/lent/N` has a message that is lent beside one that
//! is copied: it says whether lending pays.

use coreside::{Archived, entity, handlers};
use coreside_shard::rkyv::util::AlignedVec;
use coreside_shard::{Body, Encode, Shard, SharedBytes, WireCall};

use crate::bench_entity::alone_with;
use crate::machine;
use crate::measure::{Effort, Row, nanoseconds_each};

/// Reads a byte of each line of what it gets.
#[entity]
#[derive(Default)]
struct Reader {
    sum: u64,
}

impl Reader {
    fn read(&mut self, bytes: &[u8]) {
        self.sum += bytes.iter().step_by(64).map(|byte| u64::from(*byte)).sum::<u64>();
    }
}

#[handlers]
impl Reader {
    #[local]
    #[wire]
    #[archived]
    fn look(&mut self, bytes: &Archived<Vec<u8>>) {
        self.read(bytes);
    }

    #[local]
    #[wire]
    fn take(&mut self, bytes: Vec<u8>) {
        self.read(&bytes);
    }

    #[local]
    #[wire]
    #[archived]
    fn look_flat(&mut self, words: &Archived<[u64; 8]>) {
        self.sum += words[7].to_native();
    }

    #[local]
    #[wire]
    fn take_flat(&mut self, words: [u64; 8]) {
        self.sum += words[7];
    }
}

/// Messages that arrive between two polls.
const BATCH: u64 = 32;

/// One handler and what it gets.
struct Line {
    shard: Shard,
    number: u16,
    archive: SharedBytes,
}

impl Line {
    fn new(method: &str, message: &impl Encode) -> Self {
        let shard = alone_with::<Reader>();
        let number = shard.wire().iter().position(|row| row.name.1 == method);
        let mut bytes = Vec::new();
        assert!(message.encode(&mut bytes).is_ok(), "it fits");
        let mut archive = AlignedVec::new();
        archive.extend_from_slice(&bytes);
        let archive = SharedBytes::new(archive);
        Self { shard, number: number.unwrap_or_default() as u16, archive }
    }

    /// Nanoseconds for each message.
    fn run(&mut self, count: u64, is_lent: bool) -> f64 {
        nanoseconds_each(|| {
            for _ in 0..count / BATCH {
                for _ in 0..BATCH {
                    let body = self.archive.body(0);
                    let body = if is_lent { body } else { Body::new(body.bytes()) };
                    let sent = self.shard.send_wire(self.number, [7, 0], body, WireCall::Tell);
                    assert!(sent.is_ok(), "there is room for a batch");
                }
                self.shard.poll(Default::default(), &mut ());
            }
            count / BATCH * BATCH
        })
    }
}

/// A list of so many bytes, looked at and taken.
pub(crate) fn run(effort: &Effort, bytes: usize) -> Row {
    let message = vec![1_u8; bytes];
    compare(effort, ("look", "take"), &message, bytes)
}

/// Eight numbers.
pub(crate) fn flat(effort: &Effort) -> Row {
    compare(effort, ("look_flat", "take_flat"), &[1_u64; 8], 64)
}

fn compare(
    effort: &Effort,
    (look, take): (&str, &str),
    message: &impl Encode,
    bytes: usize,
) -> Row {
    machine::pin(&machine::cores(), 0);
    let (mut looks, mut takes) = (Line::new(look, message), Line::new(take, message));
    let count = effort.scaled(8_000_000_000 / (bytes as u64 + 1000));
    effort.compare("ns", || looks.run(count, true), || takes.run(count, true))
}

/// A list of so many bytes, lent and copied.
pub(crate) fn lent(effort: &Effort, bytes: usize) -> Row {
    machine::pin(&machine::cores(), 0);
    let message = vec![1_u8; bytes];
    let (mut lent, mut copied) = (Line::new("look", &message), Line::new("look", &message));
    let count = effort.scaled(8_000_000_000 / (bytes as u64 + 1000));
    effort.compare("ns", || lent.run(count, true), || copied.run(count, false))
}
