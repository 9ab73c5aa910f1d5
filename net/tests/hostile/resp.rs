//! Any bytes from outside: the property of the fuzz target `resp_session`, on a bounded number of
//! mutations of its corpus.

use crate::random::Random;
use crate::resp_property;

/// About two seconds where this was written.
const MUTATIONS: u64 = 20_000;

#[test]
fn any_bytes_cut_anywhere_mean_the_same_and_harm_nothing() {
    let corpus = corpus();
    assert!(corpus.len() >= 10, "the corpus is part of the repository");
    for seed in &corpus {
        resp_property::check(seed);
    }
    for number in 0..MUTATIONS {
        let input = mutate(&corpus, &mut Random::new(number));
        let outcome = std::panic::catch_unwind(|| resp_property::check(&input));
        assert!(outcome.is_ok(), "mutation {number}: {}", input.escape_ascii());
    }
}

fn corpus() -> Vec<Vec<u8>> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/resp_session");
    let entries = std::fs::read_dir(folder).expect("the corpus");
    let mut files: Vec<_> = entries.map(|entry| entry.expect("a file").path()).collect();
    files.sort();
    files.iter().map(|file| std::fs::read(file).expect("a file")).collect()
}

fn mutate(corpus: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    const TOKENS: [&[u8]; 18] = [
        b"\r\n",
        b"\r",
        b"\n",
        b"*",
        b"$",
        b"\"",
        b"'",
        b"\\x4",
        b"-1",
        b"0",
        b"1025",
        b"17",
        b"*2\r\n$3\r\nGET\r\n$3\r\nbig\r\n",
        b"DBSIZE\r\n",
        b"HELLO 3\r\n",
        b"RESET\r\n",
        b"MGET a failed b\r\n",
        b"99999999999999999999",
    ];
    let mut input = corpus[random.below(corpus.len())].clone();
    for _ in 0..1 + random.below(6) {
        let at = random.below(input.len() + 1);
        match random.below(5) {
            0 if at < input.len() => input[at] = random.below(256) as u8,
            1 => drop(input.splice(at..at, TOKENS[random.below(TOKENS.len())].iter().copied())),
            2 => {
                let end = (at + random.below(12)).min(input.len());
                input.drain(at..end);
            }
            3 => {
                let other = &corpus[random.below(corpus.len())];
                let from = random.below(other.len());
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
            _ => {
                let end = (at + random.below(40)).min(input.len());
                let piece = input[at..end].to_vec();
                input.splice(at..at, piece);
            }
        }
        input.truncate(8192);
    }
    input
}
