//! Any bytes from outside: the property of the fuzz target `native_session`, on a bounded number of
//! mutations of inputs that go some way.

use crate::native_property;
use crate::random::Random;

/// About two seconds where this was written.
const MUTATIONS: u64 = 200_000;

#[test]
fn any_bytes_cut_anywhere_mean_the_same_and_harm_nothing() {
    let rows = native_property::rows();
    let seeds = native_property::seeds(&rows);
    for seed in &seeds {
        native_property::check(&rows, seed);
    }
    for number in 0..MUTATIONS {
        let input = mutate(&seeds, &mut Random::new(number));
        let outcome = std::panic::catch_unwind(|| native_property::check(&rows, &input));
        assert!(outcome.is_ok(), "mutation {number}: {input:?}");
    }
}

fn mutate(seeds: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut input = seeds[random.below(seeds.len())].clone();
    for _ in 0..random.below(4) {
        let at = random.below(input.len() + 1);
        match random.below(5) {
            0 if at < input.len() => input[at] = random.below(256) as u8,
            // A field of a header, more likely than not.
            1 if at < input.len() => {
                let at = (at / 16 * 16 + random.below(8)).min(input.len() - 1);
                input[at] = [0, 1, 2, 3, 4, 5, 9, 15, 16, 17, 32, 255][random.below(12)];
            }
            2 => {
                let end = (at + random.below(40)).min(input.len());
                input.drain(at..end);
            }
            3 => {
                let other = &seeds[random.below(seeds.len())];
                let from = random.below(other.len() / 16 + 1) * 16;
                input.truncate(at / 16 * 16);
                input.extend_from_slice(&other[from..]);
            }
            _ => {
                let end = (at + random.below(64)).min(input.len());
                let piece = input[at..end].to_vec();
                input.splice(at..at, piece);
            }
        }
    }
    input
}
