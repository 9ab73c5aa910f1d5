//! Any bytes from a peer: the properties of the fuzz targets `handshake`, `frames`, `tls` and
//! `client`, on their corpora and a bounded number of mutations.

use crate::client_property;
use crate::handshake_property;
use crate::random::Random;
use crate::tls_property;

/// The inputs that are part of the repository.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = format!("{}/fuzz/corpus/{target}", env!("CARGO_MANIFEST_DIR"));
    let entries = std::fs::read_dir(&folder).expect(&folder);
    let mut files: Vec<_> = entries.map(|entry| entry.expect("a file").path()).collect();
    files.sort();
    files.iter().map(|file| std::fs::read(file).expect("a file")).collect()
}

/// Checks the corpus of a target, and mutations of it.
fn check_all(target: &str, mutations: u64, check: impl Fn(&[u8])) {
    let corpus = corpus(target);
    assert!(corpus.len() >= 4, "the corpus of {target}");
    corpus.iter().for_each(|input| check(input));
    for number in 0..mutations {
        let input = mutate(&corpus, &mut Random::new(number));
        let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| check(&input)));
        assert!(checked.is_ok(), "{target}, mutation {number}: {input:?}");
    }
}

fn mutate(corpus: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut input = corpus[random.below(corpus.len())].clone();
    for _ in 0..1 + random.below(4) {
        let at = random.below(input.len() + 1);
        match random.below(4) {
            0 | 1 if at < input.len() => {
                input[at] = match random.below(3) {
                    0 => random.below(256) as u8,
                    1 => input[at] ^ 1 << random.below(8),
                    _ => [0, 1, 2, 9, 15, 16, 17, 254, 255][random.below(9)],
                };
            }
            2 => {
                let end = (at + random.below(40)).min(input.len());
                input.drain(at..end);
            }
            _ => {
                let other = &corpus[random.below(corpus.len())];
                let from = random.below(other.len() + 1);
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
        }
    }
    input
}

#[test]
fn any_handshake_is_read_as_it_was_written_or_refused() {
    check_all("handshake", 100_000, handshake_property::check_handshake);
}

#[test]
fn any_stream_falls_into_frames_or_is_refused() {
    check_all("frames", 100_000, handshake_property::check_frames);
}

#[test]
fn any_records_say_what_was_said_or_end_the_connection() {
    let setting = tls_property::Setting::new();
    check_all("tls", 500, |input| tls_property::check(&setting, input));
}

#[test]
fn every_ask_ends_whatever_the_node_says() {
    let node = client_property::Node::new();
    check_all("client", 1_000, |input| client_property::check(&node, input));
}
