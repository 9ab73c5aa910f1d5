//! What must hold for any bytes at all, cut anywhere, answered in any order.

use coreside_net::resp::Limits;
use coreside_net::sessions::Deadlines;

use super::client::Client;
use super::random::Random;
use super::replies;

/// Small bounds, so that little input reaches them.
const TIGHT: Limits = Limits {
    line_bytes_max: 128,
    arguments_max: 16,
    bulk_bytes_max: 1024,
    query_bytes_max: 4096,
    query_bytes_total_max: 4096,
    query_bytes_pause: 512,
    output_bytes_pause: 2048,
    output_bytes_max: 1 << 20,
    output_bytes_total_max: 3 << 19,
    message_bytes_pause: 2048,
    message_bytes_total_max: 3072,
    pipeline_max: 8,
    connections_max: 4,
    connections_per_address_max: 4,
    deadlines: Deadlines::NONE,
};

/// Checks `bytes`; the first one chooses how they are cut and in which order answers come.
pub(crate) fn check(bytes: &[u8]) {
    let Some((seed, input)) = bytes.split_first() else {
        return;
    };
    let whole = run(input, &mut [input.len()].into_iter(), |_| 0);
    let single = run(input, &mut std::iter::repeat_n(1, input.len()), |waiting| waiting - 1);
    let mut cuts = Random::new(u64::from(*seed));
    let mut picks = Random::new(u64::from(*seed) + 1);
    let mixed = run(input, &mut std::iter::repeat_with(|| 1 + cuts.below(50)), |waiting| {
        picks.below(waiting)
    });
    // These say how the bytes came, so they may differ.
    let speaks_of_itself = [&b"info"[..], b"list"]
        .iter()
        .any(|word| input.windows(4).any(|window| window.eq_ignore_ascii_case(word)));
    if !speaks_of_itself {
        assert_eq!(show(&whole), show(&single), "whole and byte by byte");
        assert_eq!(show(&whole), show(&mixed), "whole and in pieces");
    }
}

fn show(output: &[u8]) -> String {
    output.escape_ascii().to_string()
}

fn run(
    input: &[u8],
    cuts: &mut dyn Iterator<Item = usize>,
    mut pick: impl FnMut(usize) -> usize,
) -> Vec<u8> {
    let mut client = Client::new(TIGHT);
    let mut rest = input;
    while !rest.is_empty() {
        // As the transport does: nothing is read from a peer that may not send.
        if !client.sessions.wants_input(client.id) {
            client.settle(&mut pick);
            if !client.sessions.wants_input(client.id) {
                break;
            }
        }
        let len = cuts.next().unwrap_or(rest.len()).clamp(1, rest.len()).min(256);
        client.receive(&rest[..len]);
        rest = &rest[len..];
        let held = client.sessions.unparsed_bytes();
        assert!(held <= 2 * TIGHT.query_bytes_max, "{held} bytes held");
        if pick(4) == 0 {
            client.settle(&mut pick);
        }
    }
    client.sessions.end_input(client.id);
    client.settle(&mut pick);
    assert!(client.is_finished(), "a session whose peer is gone ends");
    assert_eq!(client.sessions.owed_count(), 0, "every command is answered");
    let replies = replies::count(&client.output);
    assert!(replies.is_ok(), "reply at {replies:?} of {}", show(&client.output));
    client.sessions.close(client.id);
    assert_eq!((client.sessions.unparsed_bytes(), client.sessions.open_count()), (0, 0));
    assert_eq!((client.sessions.output_bytes(), client.sessions.message_bytes()), (0, 0));
    client.output
}
