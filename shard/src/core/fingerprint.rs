//! What of a shard a simulator compares between two runs and checks against its bounds.
#![expect(unsafe_code, reason = "records are read in place")]

use super::Core;
use crate::record::Kind;
use crate::shard::Shard;

/// How many records a fingerprint looks at, counted from the front: where two runs part, they do
/// so there within a few polls.
const RECORDS_MAX: usize = 64;

impl Core {
    /// Folds the run queue: how long it is, and head and key, or token, of the records in front.
    /// Neither values nor addresses, which differ between two runs.
    fn fingerprint(&mut self) -> u64 {
        let mut hash = fold(0, self.queue.len_words() as u64);
        let mut position = self.queue.head();
        for _ in 0..RECORDS_MAX {
            if position == self.queue.tail() {
                break;
            }
            // SAFETY: records lie between head and tail, and `position` steps from one to the next.
            let head = unsafe { self.queue.record_head(position) };
            hash = fold(hash, head.bits());
            // SAFETY: as above.
            let record = unsafe { self.queue.record(position) };
            // The key of a tell or ask, the token of a reply or sweep; in a system record, an
            // address.
            if head.kind() != Kind::System {
                // SAFETY: every record has this word, which belongs to the routing and is written.
                hash = fold(hash, unsafe { record.add(1).cast::<u64>().read() });
            }
            position += head.words();
        }
        fold(hash, self.pending.len() as u64)
    }

    fn outbox_words_longest(&self) -> usize {
        self.peers.iter().flatten().map(|peer| peer.outbox_words()).max().unwrap_or(0)
    }
}

impl Shard {
    /// A number that is the same in two runs that went the same way: of what waits to be run and
    /// of what was sent and taken.
    pub fn fingerprint(&mut self) -> u64 {
        let (written, read) = self.traffic_words();
        fold(fold(self.core.fingerprint(), written), read)
    }

    /// Words that wait in the run queue, and in the longest outbox.
    pub fn backlog_words(&self) -> (usize, usize) {
        (self.core.queue.len_words(), self.core.outbox_words_longest())
    }
}

/// A multiplication and a rotation: each word changes all that follow.
fn fold(hash: u64, word: u64) -> u64 {
    (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_word_and_their_order_change_the_fingerprint() {
        assert_ne!(fold(fold(0, 1), 2), fold(fold(0, 2), 1));
        assert_ne!(fold(fold(0, 1), 2), fold(fold(0, 1), 3));
    }
}
