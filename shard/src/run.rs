//! The middle of a poll: everything that may run user code.
//!
//! System records first, then what is due, then turns from the run queue up to the budget, then
//! sweeps and the hands that look for idle entities.
#![expect(unsafe_code, reason = "records are read in place and typed again through the table")]

use crate::admit::key_at;
use crate::config::LookAhead;
use crate::fault::Current;
use crate::look_ahead::{BLOCK, Cursors};
use crate::peer::take_system;
use crate::pending::{Outcome, Outside, Taken};
use crate::record::{Head, Kind, Word};
use crate::reply::{AskError, Token};
use crate::shard::Shard;
use crate::store::StoreId;
use crate::sweep::Sweeping;
use crate::table::take_error;

impl Shard {
    /// Everything in a poll that may run user code. Picks up where it was when a panic ended it.
    pub(crate) fn run_all(&mut self, outside: &mut dyn Outside) {
        self.running = Head::NONE;
        self.run_system_lane(outside);
        self.expire_asks(outside);
        self.run_alarms(outside);
        self.run_woken();
        if self.looks_ahead() {
            self.run_turns::<true>(outside);
        } else {
            self.run_turns::<false>(outside);
        }
        self.running = self.sweeps.first().map_or(Head::NONE, Sweeping::head);
        self.run_sweeps();
        if !self.hands.is_empty() {
            self.hands_lag = self.move_hands(outside);
        }
        self.running = Head::NONE;
    }

    /// Whether fetching ahead pays in this poll: there are records to look at, and the entities do
    /// not fit the near caches anyway.
    fn looks_ahead(&self) -> bool {
        const FEW_WORDS: usize = 32;
        match self.look_ahead {
            LookAhead::Off => false,
            LookAhead::On => true,
            LookAhead::Above { .. } if self.core.queue.len_words() < FEW_WORDS => false,
            LookAhead::Above { bytes } => {
                // SAFETY: one step each.
                let working = |store: &StoreId| unsafe { store.get() }.working_bytes();
                self.stores.iter().map(working).sum::<usize>() > bytes
            }
        }
    }

    /// Runs records from the front of the queue until it is empty or the budget is used up.
    ///
    /// With `AHEAD`, the records of the next block are looked at before each block of turns.
    // Apart from the rest of a poll, so that the loop has the registers to itself.
    #[inline(never)]
    fn run_turns<const AHEAD: bool>(&mut self, outside: &mut dyn Outside) {
        let mut cursors = Cursors::at(self.core.queue.head());
        while self.turns_left > 0 && !self.core.queue.is_empty() {
            if AHEAD {
                self.look_ahead(&mut cursors);
            }
            if self.sampler.is_due() {
                self.run_sampled(outside);
            }
            let block = if AHEAD { BLOCK.min(self.turns_left) } else { self.turns_left };
            let end = self.turns_left - self.sampler.take(block);
            while self.turns_left > end {
                if self.core.has_system() {
                    self.run_system_lane(outside);
                }
                if self.core.queue.is_empty() {
                    break;
                }
                let position = self.core.queue.head();
                // SAFETY: a record starts at the head of a queue that is not empty.
                let head = unsafe { self.core.queue.record_head(position) };
                // SAFETY: as above.
                let at = unsafe { self.core.queue.record(position) };
                self.core.queue.advance(head.words());
                self.turns_left -= 1;
                // SAFETY: the record was just taken off the queue.
                unsafe { self.run_record(at, head, outside) };
            }
            self.sampler.give_back(self.turns_left - end);
        }
    }

    /// Runs the oldest record, and takes the time that it took.
    #[cold]
    fn run_sampled(&mut self, outside: &mut dyn Outside) {
        if self.core.has_system() {
            self.run_system_lane(outside);
        }
        if self.core.queue.is_empty() {
            return;
        }
        let position = self.core.queue.head();
        // SAFETY: a record starts at the head of a queue that is not empty.
        let (head, at) =
            unsafe { (self.core.queue.record_head(position), self.core.queue.record(position)) };
        self.core.queue.advance(head.words());
        self.turns_left -= 1;
        let random = self.core.random();
        let weight = self.sampler.restart(random);
        if !head.is_for_entity() {
            // SAFETY: the record was just taken off the queue.
            return unsafe { self.run_record(at, head, outside) };
        }
        let kind = self.table.rows[usize::from(head.message())].store;
        // SAFETY: a record for an entity of this table stands there.
        let key = unsafe { key_at(at, &self.table, head) };
        let stopwatch_ns = self.sampler.stopwatch_ns;
        let began_ns = stopwatch_ns();
        // SAFETY: as above.
        unsafe { self.run_record(at, head, outside) };
        let took_ns = stopwatch_ns().saturating_sub(began_ns);
        let now_ns = self.core.now.monotonic_ns;
        self.sampler.record(kind, key, (weight, took_ns), now_ns);
    }

    /// Runs the record at `at`.
    ///
    /// # Safety
    /// A whole record of this shard's table stands there, with this head, and is given up.
    #[inline(always)]
    pub(crate) unsafe fn run_record(
        &mut self,
        at: *mut Word,
        head: Head,
        outside: &mut dyn Outside,
    ) {
        self.running = head;
        if head.is_for_entity() {
            debug_assert!(usize::from(head.message()) < self.rows.len());
            // SAFETY: records are written with numbers of the table, which the rows are a copy of.
            let row = unsafe { self.rows.get_unchecked(usize::from(head.message())) };
            let run = if head.kind() == Kind::Tell { row.run_tell } else { row.run_ask };
            let store = row.store;
            // SAFETY: the record is of the message that its number names, and is given up.
            unsafe { run(self, outside, at, head, store) };
        } else if head.kind() == Kind::Reply && head.upper() == 0 {
            // SAFETY: as above, and the record is a reply with a value.
            unsafe { self.run_reply(at, head, outside) };
        } else {
            // SAFETY: as above, and the record is for no entity.
            unsafe { self.run_system(at, head, outside) };
        }
    }

    /// Takes a reply to its asker.
    ///
    /// # Safety
    /// A reply with a value stands at `at`, with this head, and is given up.
    #[inline]
    unsafe fn run_reply(&mut self, at: *mut Word, head: Head, outside: &mut dyn Outside) {
        // SAFETY: the token follows the head, and the value the token.
        let (token, value) = unsafe { (at.add(1).cast::<u64>().read(), at.add(2)) };
        match self.core.pending.take(Token::from_bits(token), head.message()) {
            Some(taken) => self.resume(taken, Outcome::Value(value), outside),
            None => {
                self.core.stats.answers_late += 1;
                self.current = Current::ANSWERING;
                // SAFETY: the value is of the message's reply type, and is given up.
                unsafe { (self.table.drop_reply(head.message()))(value) };
                self.current.clear();
            }
        }
    }

    /// Tells an asker that there is no reply, starts a sweep, or lets what waits for an entity have
    /// a turn.
    ///
    /// # Safety
    /// A record for no entity stands at `at`, with this head, and is given up.
    #[cold]
    unsafe fn run_system(&mut self, at: *mut Word, head: Head, outside: &mut dyn Outside) {
        // SAFETY: every record has two words.
        let second = unsafe { at.add(1).cast::<u64>().read() };
        let token = Token::from_bits(second);
        match head.kind() {
            Kind::Drain => {
                let (slot, generation) = (second as u32, (second >> 32) as u32);
                self.run_drain(head.message(), (slot, generation), outside);
            }
            Kind::System => {
                // SAFETY: a system record, which is given up.
                let record = unsafe { take_system(at) };
                if let Some(record) = self.divert(*record) {
                    self.do_system(record, outside);
                }
            }
            Kind::Sweep => self.begin_sweep(head.message(), token),
            // SAFETY: the record is a reply without a value, and is given up.
            _ => unsafe { self.run_error(at, head, token, outside) },
        }
    }

    /// Tells an asker that there is no reply.
    ///
    /// # Safety
    /// A reply with a status stands at `at`, with this head, and is given up.
    unsafe fn run_error(
        &mut self,
        at: *const Word,
        head: Head,
        token: Token,
        outside: &mut dyn Outside,
    ) {
        // SAFETY: the caller's contract.
        let Some(error) = (unsafe { take_error(at, head) }) else { return };
        match self.core.pending.take_failed(token) {
            Some(taken) => self.resume(taken, Outcome::Error(error), outside),
            None => self.core.stats.answers_late += 1,
        }
    }

    #[inline(always)]
    pub(crate) fn resume(&mut self, mut taken: Taken, outcome: Outcome, outside: &mut dyn Outside) {
        // SAFETY: the pending table gives each continuation out once, with what it captured; a
        // value is of the reply type of the message that was asked.
        unsafe { (taken.resume)(&mut taken, outcome, self, outside) };
    }

    fn expire_asks(&mut self, outside: &mut dyn Outside) {
        let mut looked = 0;
        while let Some(taken) =
            self.core.pending.take_expired(self.core.now.monotonic_ns, &mut looked)
        {
            self.core.stats.asks_expired += 1;
            self.resume(taken, Outcome::Error(AskError::MaybeExecuted), outside);
        }
    }
}
