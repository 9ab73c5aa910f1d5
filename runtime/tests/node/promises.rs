//! Figures that users rely on where they say nothing else.

use std::time::Duration;

use coreside::{Backoff, Children, HashKey, Life, Message, OnFault, StallConfig};
use coreside_shard::ShardConfig;

const fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

struct Plain;

impl Message for Plain {
    type Reply = ();
}

#[test]
fn entity_that_declares_nothing_is_restarted_and_never_put_away() {
    let Life { on_fault, backoff, children, idle, resident_max, stash_max, keep_alive } =
        Life::default();
    assert_eq!((on_fault, children), (OnFault::Restart, Children::OneForOne));
    assert_eq!((idle, resident_max, stash_max, keep_alive), (None, None, 128, false));
    let Backoff { first, most, jitter_percent, faults_max, within, reset } = backoff;
    assert_eq!((first, most, jitter_percent), (ms(10), ms(10_000), 20));
    assert_eq!((faults_max, within, reset), (10, ms(60_000), ms(30_000)));
}

#[test]
fn message_that_declares_nothing_is_tried_once() {
    assert_eq!(Plain::TRIES, 1);
    assert!(Plain.duplicate().is_none());
}

#[test]
fn ask_has_a_second_and_turns_have_two_milliseconds() {
    let shard = ShardConfig::new(HashKey::new(1));
    assert_eq!(shard.ask_timeout_ns, 1_000_000_000);
    let stalls = StallConfig::default();
    assert_eq!((stalls.after, stalls.backtrace_after), (ms(2), ms(25)));
}
