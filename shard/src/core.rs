//! The sending side of a shard: everything that a handler may reach through its context.
#![expect(unsafe_code, reason = "records are written in place as raw words")]

mod fingerprint;

use std::any::TypeId;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use crate::attached::AttachedMap;
use crate::config::{MeshEnd, Now, Placement, ShardConfig, Stats};
use crate::dead_letter::DeadLetters;
use crate::doorbell::Doorbell;
use crate::entity::{Handler, Message};
use crate::future_slab::FutureSlab;
use crate::group::Pools;
use crate::identity::EntityId;
use crate::index::SlotNumber;
use crate::key::{HashKey, Key, KeyWords};
use crate::own_timers::OwnTimers;
use crate::owned_record::OwnedRecord;
use crate::peer::{IN_ORDER, Peer, SYSTEM_WORDS, write_system};
use crate::pending::{AskedBy, Pending, Resume, Waiting};
use crate::queue::RunQueue;
use crate::record::{ASK_WORDS, Head, Kind, Payload, Word};
use crate::reply::{AskError, Token};
use crate::sabotage::{self, Bug, planted};
use crate::schedule::Alarm;
use crate::supervise::Fault;
use crate::system::{Place, System};
use crate::table::{Directory, Table};
use crate::task::{TaskId, Tasks, Wakes};
use crate::ties::Holder;
use crate::timer::Wheel;
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
    pub(crate) table: Arc<Table>,
    pub(crate) attached: AttachedMap,
    pub(crate) dead_letters: DeadLetters,
    pub(crate) wheel: Wheel<Alarm>,
    pub(crate) own_timers: OwnTimers,
    pub(crate) tasks: Tasks,
    pub(crate) futures: Rc<FutureSlab>,
    /// Async turns that the turn under way began.
    pub(crate) begun: Vec<TaskId>,
    /// The async turn that is being polled.
    pub(crate) polling: Option<TaskId>,
    /// The tag of the async turn that asks just now.
    pub(crate) asking_task: u32,
    /// Why the turn under way failed.
    pub(crate) failure: Option<String>,
    /// A copy of the message that is being handled, if it may be tried again, and how often.
    pub(crate) spare: Option<(OwnedRecord, u32)>,
    /// How often that message was tried before.
    pub(crate) trying: u32,
    /// The turn under way only reads.
    pub(crate) reading: bool,
    /// The read that is to have its turn was the first to wait.
    pub(crate) read_is_first: bool,
    /// Who is having its last turn.
    pub(crate) saying_goodbye: Option<(u16, SlotNumber)>,
    /// By entity type: how many had their last turn and wait for the async part of it.
    pub(crate) leaving: Box<[u32]>,
    /// Watches and children that were numbered so far.
    ties: u64,
    /// Faults of entities without a supervisor, the last ones.
    pub(crate) faults: VecDeque<Fault>,
    /// Whose fault nobody is left to decide about.
    pub(crate) escalation: Option<EntityId>,
    /// Takes the backtrace of the last panic, where one was kept.
    pub(crate) backtrace: fn() -> Option<String>,
    pub(crate) pools: Pools,
    /// The node is stopping: nothing that ends is begun again, and no restart waits.
    pub(crate) stopping: bool,
    /// System records for this shard.
    lane: VecDeque<System>,
    lane_max: usize,
    random: u64,
    /// By shard; `None` at its own place.
    pub(crate) peers: Vec<Option<Peer>>,
    doorbells: Vec<Arc<Doorbell>>,
    wake: Wake,
    pub(crate) placement: Placement,
    ask_timeout_ns: u64,
    pub(crate) outbox_words_max: usize,
}

/// Faults without a supervisor that are kept until somebody looks.
const FAULTS_KEPT: usize = 256;

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
        table: &Arc<Table>,
        mesh: &mut MeshEnd,
        placement: Placement,
        wake: Wake,
    ) -> Self {
        let own_bell = mesh.doorbell(mesh.shard).cloned();
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
            table: Arc::clone(table),
            attached: AttachedMap::new(table.types.len()),
            dead_letters: DeadLetters::new(config.dead_letters_max),
            wheel: Wheel::new(u32::MAX, 0),
            own_timers: OwnTimers::new(config.timers_max, table.types.len()),
            tasks: Tasks::new(config.tasks_max, Wakes::new(mesh.shard, own_bell, wake.clone())),
            futures: Rc::default(),
            begun: Vec::new(),
            polling: None,
            asking_task: 0,
            failure: None,
            spare: None,
            trying: 0,
            reading: false,
            read_is_first: false,
            saying_goodbye: None,
            leaving: vec![0; table.types.len()].into(),
            ties: 0,
            faults: VecDeque::new(),
            escalation: None,
            backtrace: config.backtrace,
            pools: Pools::new(table, &config.hash_key, &placement, mesh.shard),
            stopping: false,
            lane: VecDeque::new(),
            lane_max: config.system_max,
            random: config.seed ^ u64::from(mesh.shard).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
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

    /// The deadline of an ask from outside.
    pub(crate) fn ask_deadline_ns(&self) -> u64 {
        self.now.monotonic_ns.saturating_add(self.ask_timeout_ns)
    }

    /// The deadline of an ask from a turn with a deadline of its own, which it inherits;
    /// `u64::MAX` stands for none, as it does in `within_ns`. The lowest bit says whether it was
    /// inherited, so that what follows the answer inherits it too.
    #[inline(always)]
    pub(crate) fn deadline_of_ask(&self, of_turn_ns: u64, within_ns: u64) -> u64 {
        let inherits = of_turn_ns != u64::MAX && !planted(Bug::DeadlineNotInherited);
        let limit_ns = match within_ns {
            u64::MAX => u64::MAX,
            within_ns => self.now.monotonic_ns.saturating_add(within_ns),
        };
        let deadline_ns = match inherits {
            true => limit_ns.min(of_turn_ns),
            false if within_ns == u64::MAX => self.ask_deadline_ns(),
            false => limit_ns,
        };
        deadline_ns & !1 | u64::from(inherits)
    }

    /// The next of a sequence that depends on the shard's seed alone (xorshift; Marsaglia 2003).
    pub(crate) fn random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
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
    /// Both come back when a bound is reached. One deadline is the message's, one the answer's.
    #[inline(always)]
    pub(crate) fn ask_until<E: Handler<M>, M: Message, F>(
        &mut self,
        key: E::Key,
        message: M,
        continuation: F,
        (resume, by): (Resume, AskedBy),
        (turn_deadline_ns, deadline_ns): (u64, u64),
    ) -> Result<(), (M, F)> {
        let number = self.directory.message::<E, M>();
        let key = key.to_words();
        let words = 1 + ASK_WORDS + E::Key::WORDS + Payload::<M>::WORDS;
        if !self.pending.has_room() {
            return Err((message, continuation));
        }
        let Some(at) = self.reserve::<E::Key>(key, words) else {
            return Err((message, continuation));
        };
        let task = self.asking_task;
        let waiting = Waiting { resume, by, message: number, deadline_ns, task };
        let token = self.pending.insert(continuation, waiting);
        // SAFETY: `words` words were reserved, and here are head, key, token and value: all of
        // them.
        unsafe {
            at.cast::<u64>().write(Head::new(Kind::Ask, words, number).bits());
            write_key::<E::Key>(at.add(1), key);
            at.add(1 + E::Key::WORDS)
                .cast::<[u64; ASK_WORDS]>()
                .write([token.bits(), turn_deadline_ns]);
            Payload::<M>::write(at.add(1 + ASK_WORDS + E::Key::WORDS), message);
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
        if planted(Bug::LostWhenFull) {
            return self.queue.reserve(words).or_else(|| Some(sabotage::nowhere()));
        }
        self.queue.reserve(words)
    }

    /// Sends the reply of an ask to the shard where it waits, this one included, to be taken from
    /// the run queue there.
    pub(crate) fn reply_record<R: Send + 'static>(&mut self, token: Token, message: u16, reply: R) {
        let token = if planted(Bug::WrongToken) { token.neighbour() } else { token };
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
        let status = error.to_status();
        let words = if status == AskError::CYCLE { 3 } else { 2 };
        let at = self.reserve_answer(token.shard(), words);
        let head = Head::new(Kind::Reply, words, 0).with_status(status);
        // SAFETY: as many words were reserved: head, token, and a box where the error is one.
        unsafe {
            at.cast::<u64>().write(head.bits());
            at.add(1).cast::<u64>().write(token.bits());
            if words == 3 {
                at.add(2).cast::<*mut AskError>().write(Box::into_raw(Box::new(error)));
            }
        }
    }

    /// Has the next turn that waits for an entity of this shard run.
    pub(crate) fn drain_record(&mut self, kind: u16, slot: SlotNumber, generation: u32) {
        let at = self.queue.reserve_unbounded(2);
        let life = u64::from(slot) | u64::from(generation) << 32;
        // SAFETY: two words were reserved: head, and slot with generation.
        unsafe {
            at.cast::<u64>().write(Head::new(Kind::Drain, 2, kind).bits());
            at.add(1).cast::<u64>().write(life);
        }
    }

    /// Sends what is to be told in a turn, behind all that was sent there before; beyond the bounds
    /// of the queues, as the number of these is bounded by what they tell of.
    pub(crate) fn send_in_order(&mut self, record: System) {
        let shard = self.shard_of(&record).map_or(self.shard, |shard| shard as u16);
        let at = self.reserve_answer(shard, SYSTEM_WORDS);
        // SAFETY: as many words were reserved.
        unsafe { write_system(at, Box::new(record), IN_ORDER) };
    }

    /// The number of a new watch or child.
    pub(crate) fn next_tie(&mut self) -> u64 {
        self.ties += 1;
        self.ties
    }

    /// Who has this key.
    pub(crate) fn identity(&self, kind: u16, key: KeyWords) -> EntityId {
        let row = &self.table.types[usize::from(kind)];
        EntityId { kind, wide: row.layout.key_words == 2, name: row.name, key }
    }

    /// Sends a system record on behalf of a handler.
    pub(crate) fn try_send_system(&mut self, record: System) -> Result<(), Full<()>> {
        let waiting = match self.shard_of(&record) {
            Some(shard) => self.peers[shard].as_ref().map_or(0, Peer::lane_len),
            None => self.lane.len(),
        };
        if waiting >= self.lane_max {
            return Err(Full(()));
        }
        self.send_system(record);
        Ok(())
    }

    /// Sends a system record of the runtime's own, whose number is bounded by what it tells of.
    pub(crate) fn send_system(&mut self, record: System) {
        let shard = self.shard_of(&record);
        match shard.and_then(|shard| self.peers[shard].as_mut()) {
            Some(peer) => peer.send_system(Box::new(record)),
            None => self.lane.push_back(record),
        }
    }

    /// The other shard where a system record belongs; `None` for this one.
    fn shard_of(&self, record: &System) -> Option<usize> {
        let shard = match record.place() {
            Place::Shard(shard) => shard,
            Place::Of(entity) => {
                let hash = if entity.wide {
                    self.hash_key.hash_two(entity.key)
                } else {
                    self.hash_key.hash_one(entity.key[0])
                };
                self.placement.shard(hash)
            }
        };
        (shard != self.shard).then_some(usize::from(shard))
    }

    /// A system record from another shard.
    pub(crate) fn receive_system(&mut self, record: System) {
        self.lane.push_back(record);
    }

    #[inline(always)]
    pub(crate) fn has_system(&self) -> bool {
        !self.lane.is_empty()
    }

    pub(crate) fn take_system(&mut self) -> Option<System> {
        self.lane.pop_front()
    }

    /// Tells the supervisor of a fault, or keeps it for the node where there is none.
    pub(crate) fn report_fault(&mut self, supervisor: Option<Holder>, fault: Fault) {
        if planted(Bug::FaultNotTold) {
            return;
        }
        match supervisor {
            Some(Holder { who: supervisor, number }) => {
                let child = fault.entity;
                self.send_in_order(System::TellFault { supervisor, fault });
                let supervisor = supervisor.entity;
                self.send_system(System::ChildFailed { supervisor, child, number });
            }
            None => self.keep_fault(fault),
        }
    }

    /// A fault that no supervisor hears of.
    pub(crate) fn keep_fault(&mut self, fault: Fault) {
        self.stats.faults_unsupervised += 1;
        if self.faults.len() == FAULTS_KEPT {
            self.faults.pop_front();
        }
        self.faults.push_back(fault);
    }

    /// Has the supervisor fail in place of its child; without one the node is to stop.
    pub(crate) fn escalate(&mut self, child: EntityId, supervisor: Option<Holder>) {
        match supervisor {
            _ if planted(Bug::EscalationForgotten) => {}
            Some(Holder { who, number }) => {
                let supervisor = who.entity;
                self.send_system(System::Escalated { supervisor, child, number });
            }
            None => {
                self.escalation.get_or_insert(child);
            }
        }
    }

    /// A message made its entity fail. Returns whether it will be tried again, or why not.
    pub(crate) fn take_spare(&mut self) -> Option<(OwnedRecord, u32, u32)> {
        let tries = self.trying + 1;
        self.spare.take().map(|(record, tries_max)| (record, tries, tries_max))
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
    pub(crate) fn reserve_answer(&mut self, shard: u16, words: usize) -> *mut Word {
        if shard == self.shard {
            return self.queue.reserve_unbounded(words);
        }
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
            let shown = peer.publish() && !planted(Bug::LostWakeUp);
            if shown && self.doorbells[shard].must_ring() {
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
        self.peers.iter().flatten().all(Peer::is_clear)
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
