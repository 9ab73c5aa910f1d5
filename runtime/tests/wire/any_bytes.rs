//! Any bytes as any message of the examples: the property of the fuzz target `wire_types`, on a
//! bounded number of mutations.

use crate::wire_types;
use std::path::Path;

const MUTATIONS: u64 = 200_000;

#[test]
fn any_bytes_are_a_message_or_are_refused() {
    let seeds = wire_types::seeds();
    seeds.iter().for_each(|seed| wire_types::check(seed));
    for number in 0..MUTATIONS {
        let input = mutate(&seeds, &mut Random(number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1));
        let checked = std::panic::catch_unwind(|| wire_types::check(&input));
        assert!(checked.is_ok(), "mutation {number}: {input:?}");
    }
}

/// Pseudo-random numbers from a seed (xorshift64*).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % bound.max(1)
    }
}

fn mutate(seeds: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut input = seeds[random.below(seeds.len())].clone();
    for _ in 0..random.below(4) {
        let at = random.below(input.len() + 1);
        match random.below(4) {
            0 if at < input.len() => input[at] ^= 1 << random.below(8),
            1 if at < input.len() => input[at] = [0, 1, 2, 127, 128, 255][random.below(6)],
            2 => drop(input.drain(at..(at + random.below(9)).min(input.len()))),
            _ => {
                let other = &seeds[random.below(seeds.len())];
                let from = random.below(other.len());
                input.splice(at..at, other[from..].iter().copied());
            }
        }
    }
    input
}

/// The property lists the messages of the files that it knows; another file has to be made known.
#[test]
fn no_example_with_messages_on_the_wire_is_forgotten() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let mut found = Vec::new();
    let mut folders = vec![examples.clone()];
    while let Some(folder) = folders.pop() {
        for entry in folder.read_dir().expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                // Simulated messages come off no network.
                folders.extend((!path.ends_with("sim")).then_some(path));
            } else if path.extension().is_some_and(|extension| extension == "rs")
                && std::fs::read_to_string(&path).expect("text").contains("#[wire")
            {
                found.push(path.strip_prefix(&examples).expect("it is in there").to_owned());
            }
        }
    }
    assert_eq!(found, [Path::new("ledger.rs")]);
}
