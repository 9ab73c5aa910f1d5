//! The sending side of a shard: everything that a handler may reach through its context.
#![expect(unsafe_code, reason = "records are written in place as raw words")]

mod fingerprint;

use std::any::TypeId;
use std::sync::Arc;

use crate::config::{MeshEnd, Now, Placement, ShardConfig, Stats};
use crate::doorbell::Doorbell;
use crate::entity::{Handler, Message};
use crate::key::{HashKey, Key, KeyWords};
use crate::peer::Peer;
use crate::pending::{Pending, Resume, Waiting, When};
use crate::queue::RunQueue;
use crate::record::{Head, Kind, Payload, Word};
use crate::reply::{AskError, Token};
use crate::table::{Directory, Table};
use crate::turn::write_key;

/// Wakes a shard that sleeps; called at most once per sleep.
pub type Wake = Arc<dyn Fn(u16) + Send + Sync>;

/// Run queue, ways to other shards, waiting asks: all of a shard but its entities.
pub(crate) struct Core {
    pub(crate) shard: u16,
    pub(crate) now: Now,
    pub(crate) queue: RunQueue,
    pub(crate) pending: Pending,
    pub(crate) directory: Directory,
    pub(crate) hash_key: HashKey,
    pub(crate) stats: Stats,
    /// By message number: what a reply to it must be.
    pub(crate) reply_types: Box<[TypeId]>,
    /// By shard; `None` at its own place.
    peers: Vec<Option<Peer>>,
    doorbells: Vec<Arc<Doorbell>>,
    wake: Wake,
    placement: Placement,
    ask_timeout_ns: u64,
    outbox_words_max: usize,
}

/// A queue on the way is at its bound; the message comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full<M>(pub M);

impl<M> std::fmt::Display for Full<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the queue on the way to the entity is full; try again later")
    }
}

impl Core {
    pub(crate) fn new(
        config: &ShardConfig,
        table: &Table,
        mesh: &mut MeshEnd,
        placement: Placement,
        wake: Wake,
    ) -> Self {
        let peer = |ring: Option<_>| ring.map(|ring| Peer::new(ring, config.outbox_words_max));
        Self {
            shard: mesh.shard,
            now: Now::default(),
            queue: RunQueue::new(config.queue_words_max),
            pending: Pending::new(mesh.shard, config.asks_max),
            directory: table.directory.clone(),
            hash_key: config.hash_key,
            stats: Stats::default(),
            reply_types: table.rows.iter().map(|row| row.reply_type).collect(),
            peers: mesh.outbound.drain(..).map(peer).collect(),
            doorbells: std::mem::take(&mut mesh.doorbells),
            wake,
            placement,
            ask_timeout_ns: config.ask_timeout_ns,
            outbox_words_max: config.outbox_words_max,
        }
    }

    pub(crate) fn shards(&self) -> u16 {
        self.peers.len() as u16
    }

    pub(crate) fn ask_deadline_ns(&self) -> u64 {
        self.now.monotonic_ns.saturating_add(self.ask_timeout_ns)
    }

    /// Sends a message to `key`, wherever it lives, and expects no answer.
    #[inline(always)]
    pub(crate) fn tell<E: Handler<M>, M: Message>(
        &mut self,
        key: E::Key,
        message: M,
    ) -> Result<(), Full<M>> {
        let number = self.directory.message::<E, M>();
        // The key's own code runs before room is taken: what is reserved is always written.
        let key = key.to_words();
        let words = 1 + E::Key::WORDS + Payload::<M>::WORDS;
        let Some(at) = self.reserve::<E::Key>(key, words) else { return Err(Full(message)) };
        // SAFETY: `words` words were reserved, and here are head, key and value: all of them.
        unsafe {
            at.cast::<u64>().write(Head::new(Kind::Tell, words, number).bits());
            write_key::<E::Key>(at.add(1), key);
            Payload::<M>::write(at.add(1 + E::Key::WORDS), message);
        }
        Ok(())
    }

    /// Sends a message to `key`, wherever it lives; `resume` gets the answer, with `continuation`.
    /// Both come back when a bound is reached.
    #[inline(always)]
    pub(crate) fn ask<E: Handler<M>, M: Message, F>(
        &mut self,
        key: E::Key,
        message: M,
        continuation: F,
        (resume, when): (Resume, When),
        deadline_ns: u64,
    ) -> Result<(), (M, F)> {
        let number = self.directory.message::<E, M>();
        let key = key.to_words();
        let words = 2 + E::Key::WORDS + Payload::<M>::WORDS;
        if !self.pending.has_room() {
            return Err((message, continuation));
        }
        let Some(at) = self.reserve::<E::Key>(key, words) else {
            return Err((message, continuation));
        };
        let waiting = Waiting { resume, when, message: number, deadline_ns };
        let token = self.pending.insert(continuation, waiting);
        // SAFETY: `words` words were reserved, and here are head, key, token and value: all of
        // them.
        unsafe {
            at.cast::<u64>().write(Head::new(Kind::Ask, words, number).bits());
            write_key::<E::Key>(at.add(1), key);
            at.add(1 + E::Key::WORDS).cast::<u64>().write(token.bits());
            Payload::<M>::write(at.add(2 + E::Key::WORDS), message);
        }
        Ok(())
    }

    /// Room for a record to `key`: in the run queue, or on the way to the shard where it lives.
    #[inline(always)]
    fn reserve<K: Key>(&mut self, key: KeyWords, words: usize) -> Option<*mut Word> {
        if self.peers.len() > 1 {
            let shard = self.placement.shard(self.hash_key.hash_words::<K>(key));
            if let Some(peer) = &mut self.peers[usize::from(shard)] {
                return peer.reserve(words);
            }
        }
        self.queue.reserve(words)
    }

    /// Sends the reply of an ask to the shard where it waits, this one included, to be taken from
    /// the run queue there.
    pub(crate) fn reply_record<R: Send + 'static>(&mut self, token: Token, message: u16, reply: R) {
        let words = 2 + Payload::<R>::WORDS;
        let at = self.reserve_answer(token.shard(), words);
        // SAFETY: `words` words were reserved: head, token and value.
        unsafe {
            at.cast::<u64>().write(Head::new(Kind::Reply, words, message).bits());
            at.add(1).cast::<u64>().write(token.bits());
            Payload::<R>::write(at.add(2), reply);
        }
    }

    /// Tells the shard where an ask waits that there is no reply, and why.
    pub(crate) fn error_record(&mut self, token: Token, error: AskError) {
        let at = self.reserve_answer(token.shard(), 2);
        let head = Head::new(Kind::Reply, 2, 0).with_status(error.to_status());
        // SAFETY: two words were reserved: head and token.
        unsafe {
            at.cast::<u64>().write(head.bits());
            at.add(1).cast::<u64>().write(token.bits());
        }
    }

    /// Asks a shard for a sweep; the total comes back as the reply to `token`.
    pub(crate) fn sweep_record(&mut self, shard: u16, sweep: u16, token: Token) {
        let at = self.reserve_answer(shard, 2);
        // SAFETY: two words were reserved: head and token.
        unsafe {
            at.cast::<u64>().write(Head::new(Kind::Sweep, 2, sweep).bits());
            at.add(1).cast::<u64>().write(token.bits());
        }
    }

    #[inline]
    fn reserve_answer(&mut self, shard: u16, words: usize) -> *mut Word {
        match self.peers.get_mut(usize::from(shard)) {
            Some(Some(peer)) => peer.reserve_answer(words),
            _ => self.queue.reserve_unbounded(words),
        }
    }

    /// Shows the other shards what was written for them, and wakes those that sleep.
    #[inline]
    pub(crate) fn publish(&mut self) {
        for (shard, peer) in self.peers.iter_mut().enumerate() {
            let Some(peer) = peer else { continue };
            if peer.publish() && self.doorbells[shard].must_ring() {
                (self.wake)(shard as u16);
            }
        }
    }

    /// Whether an outbox holds back more than half of what it may.
    pub(crate) fn outboxes_are_congested(&self) -> bool {
        let line = self.outbox_words_max / 2;
        self.peers.iter().flatten().any(|peer| peer.outbox_words() > line)
    }

    /// Whether nothing waits for room in a ring.
    pub(crate) fn outboxes_are_empty(&self) -> bool {
        self.peers.iter().flatten().all(|peer| peer.outbox_words() == 0)
    }

    /// Words ever written to other shards.
    pub(crate) fn written_words(&self) -> u64 {
        self.peers.iter().flatten().map(Peer::written_words).sum()
    }

    /// Throws away what waits to be run or sent, each record through `each`. What was put into
    /// rings is left to its readers, if they still are.
    pub(crate) fn clear_with(&mut self, mut each: impl FnMut(*mut Word)) {
        self.queue.clear_with(&mut each);
        for peer in self.peers.drain(..).flatten() {
            peer.clear_with(&mut each);
        }
    }
}
