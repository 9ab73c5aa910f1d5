//! Looking into a running node: its dead letters, and its hottest entities.

use std::sync::mpsc;

use coreside_shard::{EntityId, Heat, Hot, Reason, Shard};

use crate::handle::Handle;
use crate::ingress::{Waiting, once};

/// What is known of a message that was accepted and not handled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LetterNote {
    /// The shard that keeps the message.
    pub shard: u16,
    /// To whom it was sent.
    pub entity: EntityId,
    /// The method that would have handled it.
    pub message: &'static str,
    /// Why it was not handled.
    pub reason: Reason,
    /// Whether an answer was wanted.
    pub asked: bool,
    /// When it was given up, in milliseconds since 1970.
    pub unix_ms: u64,
    /// Bytes that the message took in a queue.
    pub bytes: usize,
}

impl Handle {
    /// The last messages that were accepted and not handled, over all shards, the oldest first on
    /// each. Waits for the shards, so it is not for their threads.
    pub fn dead_letters(&self) -> Vec<LetterNote> {
        let notes = |shard: &mut Shard| {
            let number = shard.number();
            let note = |letter: &coreside_shard::DeadLetter| LetterNote {
                shard: number,
                entity: letter.entity(),
                message: letter.method(),
                reason: letter.reason(),
                asked: letter.is_ask(),
                unix_ms: letter.unix_ms(),
                bytes: letter.bytes(),
            };
            shard.dead_letters().map(note).collect::<Vec<_>>()
        };
        self.on_each_shard(notes).into_iter().flatten().collect()
    }

    /// How many messages were accepted and not handled for `reason`, over all shards. Waits for the
    /// shards, so it is not for their threads.
    pub fn dead_letter_count(&self, reason: Reason) -> u64 {
        self.on_each_shard(move |shard| shard.dead_letter_count(reason)).into_iter().sum()
    }

    /// Up to `n` of the entities of each shard that were hottest of late, the hottest of all first:
    /// which one is it that takes the time, or has the turns? Waits for the shards, so it is not
    /// for their threads.
    pub fn hottest(&self, n: usize, by: Heat) -> Vec<(EntityId, Hot)> {
        let hottest = self.on_each_shard(move |shard| shard.hottest(n, by));
        let mut all: Vec<_> = hottest.into_iter().flatten().collect();
        all.sort_by_key(|(_, hot)| {
            std::cmp::Reverse(match by {
                Heat::Time => hot.time_ns - hot.time_error_ns,
                Heat::Turns => hot.turns - hot.turns_error,
            })
        });
        all
    }

    /// Has every shard look into itself, behind those who wait for room there; shards that are
    /// stopping are left out.
    fn on_each_shard<R: Send + 'static>(
        &self,
        look: impl Fn(&mut Shard) -> R + Clone + Send + 'static,
    ) -> Vec<R> {
        let (sender, results) = mpsc::channel();
        for (number, ingress) in self.shared.ingresses.iter().enumerate() {
            let (look, sender) = (look.clone(), sender.clone());
            let job = once(move |shard| {
                // Whoever asked may be gone.
                let _ = sender.send((number, look(shard)));
            });
            // Where there is no room, in a while there is: it is not taken out of the line.
            match ingress.permit() {
                Ok(permit) => permit.push(job),
                Err(_) => drop(ingress.wait(Waiting { job, deadline_ns: u64::MAX, notice: None })),
            }
        }
        drop(sender);
        let mut results: Vec<_> = results.iter().collect();
        results.sort_by_key(|(number, _)| *number);
        results.into_iter().map(|(_, result)| result).collect()
    }
}
