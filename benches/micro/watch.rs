//! `watch`: an entity is watched, ends, and its watcher is told.

use std::collections::HashMap;

use coreside::{Cx, Terminated, entity, handlers};

use crate::bench_entity::{alone_with, settle};
use crate::machine;
use crate::measure::{Effort, Row, nanoseconds_each};

/// Pairs of entities under way.
const PAIRS: u64 = 512;

/// Watches another of its kind, and counts those that are gone.
#[entity]
struct Watcher {
    gone: u64,
}

#[handlers]
impl Watcher {
    /// Watches that entity.
    #[local]
    fn look(&mut self, at: u64, cx: &mut Cx<Self>) {
        let watched = cx.watch::<Self>(at);
        debug_assert!(watched.is_ok());
    }

    #[local]
    fn live(&mut self) {
        self.gone = 0;
    }

    #[local]
    fn end(&mut self, cx: &mut Cx<Self>) {
        cx.stop();
    }

    #[on]
    fn gone(&mut self, _terminated: Terminated, _cx: &mut Cx<Self>) {
        self.gone += 1;
    }

    #[local]
    fn count(&self, into: std::sync::mpsc::Sender<u64>) {
        // Somebody waits for it.
        let _ = into.send(self.gone);
    }
}

/// Nanoseconds for an entity that is activated, watched and stopped, and for the turn in which its
/// watcher hears of it: five turns. The limit keeps the watchers in a hash map, and takes and
/// counts them at once.
pub(crate) fn run(effort: &Effort) -> Row {
    machine::pin(&machine::cores(), 0);
    let rounds = effort.scaled(1_000_000) / PAIRS + 1;
    let mut shard = alone_with::<Watcher>();
    let mut all = 0;
    let ours = || {
        all += rounds * PAIRS;
        nanoseconds_each(|| {
            for _ in 0..rounds {
                round(&mut shard);
            }
            rounds * PAIRS
        })
    };
    let mut gone = vec![0u64; PAIRS as usize];
    let mut watchers: HashMap<u64, Vec<u64>> = HashMap::new();
    let limit = || {
        nanoseconds_each(|| {
            for _ in 0..rounds {
                for key in 0..PAIRS {
                    watchers.entry(key + PAIRS).or_default().push(key);
                }
                for key in 0..PAIRS {
                    for watcher in watchers.remove(&(key + PAIRS)).unwrap_or_default() {
                        gone[watcher as usize] += 1;
                    }
                }
            }
            std::hint::black_box(&gone);
            rounds * PAIRS
        })
    };
    let row = effort.compare("ns", ours, limit);
    assert_eq!(told(&mut shard), all, "each watch is told once");
    row
}

fn round(shard: &mut coreside_shard::Shard) {
    for key in 0..PAIRS {
        let lives = shard.tell::<Watcher, WatcherLive>(key + PAIRS, WatcherLive {});
        let looks = shard.tell::<Watcher, WatcherLook>(key, WatcherLook { at: key + PAIRS });
        debug_assert!(lives.is_ok() && looks.is_ok());
    }
    settle(shard, 0);
    for key in 0..PAIRS {
        let ends = shard.tell::<Watcher, WatcherEnd>(key + PAIRS, WatcherEnd {});
        debug_assert!(ends.is_ok());
    }
    settle(shard, 0);
}

/// How many ends the watchers were told.
fn told(shard: &mut coreside_shard::Shard) -> u64 {
    let (into, counts) = std::sync::mpsc::channel();
    for key in 0..PAIRS {
        let asked = shard.tell::<Watcher, WatcherCount>(key, WatcherCount { into: into.clone() });
        debug_assert!(asked.is_ok());
    }
    settle(shard, 0);
    counts.try_iter().sum()
}
