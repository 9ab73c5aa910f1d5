//! A record that stands alone, outside of any queue: its value goes with it.
#![expect(unsafe_code, reason = "records are raw words until the table names their type")]

use std::sync::Arc;

use crate::entity::{Handler, Message};
use crate::identity::{EntityId, Recipient};
use crate::key::KeyWords;
use crate::record::{ASK_WORDS, Head, Kind, Payload, RECORD_WORDS_MAX, Word};
use crate::reply::Token;
use crate::sabotage::{Bug, planted};
use crate::table::Table;

/// A tell or an ask with the table that knows its type. Dropped, it drops its value.
pub(crate) struct OwnedRecord {
    /// Empty once the value was given away.
    words: Box<[Word]>,
    table: Arc<Table>,
}

impl OwnedRecord {
    /// Takes over a record from a queue.
    ///
    /// # Safety
    /// `record` is a whole tell or ask of this table, whose value is given up.
    pub(crate) unsafe fn take(record: &[Word], table: &Arc<Table>) -> Self {
        debug_assert!(record.len() <= RECORD_WORDS_MAX);
        Self { words: record.into(), table: Arc::clone(table) }
    }

    /// A new tell.
    pub(crate) fn tell<E: Handler<M>, M: Message>(
        table: &Arc<Table>,
        message: u16,
        key: E::Key,
        value: M,
    ) -> Self {
        let entity = EntityId::of::<E>(table.rows[usize::from(message)].store, key);
        Self::tell_to(table, Recipient { entity, message }, value)
    }

    /// A new tell to somebody whose type is not known here.
    pub(crate) fn tell_to<M: Message>(table: &Arc<Table>, to: Recipient, message: M) -> Self {
        let mut record = vec![Word::uninit(); to.tell_words::<M>()].into_boxed_slice();
        // SAFETY: as many words as a tell takes; the number is that of M to the entity's type.
        unsafe { to.write_tell(record.as_mut_ptr(), message) };
        Self { words: record, table: Arc::clone(table) }
    }

    pub(crate) fn head(&self) -> Head {
        // SAFETY: the first word of a record is always written, and the value is still here.
        Head::from_bits(unsafe { self.words[0].assume_init() })
    }

    pub(crate) fn words(&self) -> &[Word] {
        &self.words
    }

    /// Whether it is a message `M` to an entity `E`.
    pub(crate) fn is<E: Handler<M>, M: Message>(&self) -> bool {
        self.table.find_message::<E, M>() == Some(self.head().message())
    }

    fn key_words(&self) -> usize {
        usize::from(self.table.rows[usize::from(self.head().message())].key_words)
    }

    /// Who is to get it.
    pub(crate) fn key(&self) -> KeyWords {
        let mut key = [0; 2];
        for (at, word) in key[..self.key_words()].iter_mut().enumerate() {
            // SAFETY: the key of a record is always written.
            *word = unsafe { self.words[1 + at].assume_init() };
        }
        key
    }

    /// Who waits for the answer.
    pub(crate) fn token(&self) -> Option<Token> {
        let asks = self.head().kind() == Kind::Ask;
        // SAFETY: in an ask the token follows the key, and is always written.
        asks.then(|| Token::from_bits(unsafe { self.words[1 + self.key_words()].assume_init() }))
    }

    /// When the asker's patience ends.
    pub(crate) fn deadline_ns(&self) -> Option<u64> {
        self.token()?;
        // SAFETY: in an ask the deadline follows the token, and is always written.
        Some(unsafe { self.words[1 + self.key_words() + 1].assume_init() })
    }

    /// Whether nobody waits for the answer any more.
    pub(crate) fn is_late(&self, now_ns: u64) -> bool {
        self.deadline_ns().is_some_and(|deadline_ns| deadline_ns <= now_ns)
    }

    /// Where the value stands.
    pub(crate) fn value(&self) -> &[Word] {
        let asked = if self.head().kind() == Kind::Ask { ASK_WORDS } else { 0 };
        &self.words[1 + self.key_words() + asked..]
    }

    /// The same message, told: its value moves into the new record.
    pub(crate) fn into_tell(self) -> Self {
        if self.head().kind() == Kind::Tell {
            return self;
        }
        let mut tell = self.words[..1 + self.key_words()].to_vec();
        tell.extend_from_slice(self.value());
        tell[0] = Word::new(Head::new(Kind::Tell, tell.len(), self.head().message()).bits());
        let table = Arc::clone(&self.table);
        self.release();
        Self { words: tell.into_boxed_slice(), table }
    }

    /// The same message, asked: its value moves into the new record.
    pub(crate) fn into_ask(self, token: Token, deadline_ns: u64) -> Self {
        let mut ask = self.words[..1 + self.key_words()].to_vec();
        ask.extend([Word::new(token.bits()), Word::new(deadline_ns)]);
        ask.extend_from_slice(self.value());
        ask[0] = Word::new(Head::new(Kind::Ask, ask.len(), self.head().message()).bits());
        let table = Arc::clone(&self.table);
        self.release();
        Self { words: ask.into_boxed_slice(), table }
    }

    /// Gives the words away, and with them the duty to run or drop the value.
    pub(crate) fn release(mut self) -> Box<[Word]> {
        std::mem::take(&mut self.words)
    }
}

impl Drop for OwnedRecord {
    fn drop(&mut self) {
        if !self.words.is_empty() && !planted(Bug::LeakedValue) {
            // SAFETY: the record and its value are ours, and nobody uses them afterwards.
            unsafe { self.table.drop_record(self.words.as_mut_ptr()) };
        }
    }
}

impl Recipient {
    /// The words of a tell to it.
    pub(crate) fn tell_words<M>(&self) -> usize {
        1 + self.key_words() + Payload::<M>::WORDS
    }

    fn key_words(&self) -> usize {
        if self.entity.wide { 2 } else { 1 }
    }

    /// Writes a tell: head, key, value.
    ///
    /// # Safety
    /// [`tell_words`](Self::tell_words) words may be written at `at`, and the number of the message
    /// is that of `M` to entities of this kind.
    pub(crate) unsafe fn write_tell<M: Message>(&self, at: *mut Word, message: M) {
        let head = Head::new(Kind::Tell, self.tell_words::<M>(), self.message).bits();
        // SAFETY: the caller's contract.
        unsafe { at.cast::<u64>().write(head) };
        // SAFETY: the caller's contract.
        unsafe { at.add(1).cast::<u64>().write(self.entity.key[0]) };
        if self.entity.wide {
            // SAFETY: the caller's contract: a wide key has two words.
            unsafe { at.add(2).cast::<u64>().write(self.entity.key[1]) };
        }
        // SAFETY: the value takes the rest of the words.
        unsafe { Payload::<M>::write(at.add(1 + self.key_words()), message) };
    }
}
