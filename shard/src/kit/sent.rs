//! What the entity sent to others, and the answers that the test gives.

use std::fmt;
use std::time::Duration;

use crate::entity::{Entity, Handler, Message};
use crate::identity::EntityId;
use crate::key::Key;
use crate::kit::{Kit, LETTERS_MAX};
use crate::owned_record::OwnedRecord;
use crate::reply::{AskError, Token};
use crate::shard::Shard;

/// A message that the entity sent to another one.
pub struct Sent<T: Handler<M>, M: Message> {
    /// To whom.
    pub key: T::Key,
    /// What.
    pub message: M,
    /// How long the entity waits for the answer from when it was sent; `None` where it told.
    pub within: Option<Duration>,
    ask: Option<(Token, u16)>,
}

impl<T: Handler<M>, M: Message> fmt::Debug for Sent<T, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sent")
            .field("key", &self.key)
            .field("within", &self.within)
            .finish_non_exhaustive()
    }
}

/// A message that the test has not taken yet.
pub(crate) struct Letter {
    pub(crate) record: OwnedRecord,
    to: EntityId,
    method: &'static str,
    within: Option<Duration>,
    /// A stub gave the answer.
    answered: bool,
}

impl Letter {
    /// Whether the entity waits for an answer that nobody has given.
    pub(crate) fn waits(&self) -> bool {
        self.within.is_some() && !self.answered
    }

    /// `Ledger/7 note`.
    pub(crate) fn name(&self) -> String {
        format!("{} {}", self.to, self.method)
    }
}

/// What answers the asks of one message type.
pub(crate) struct Stub {
    message: u16,
    answer: Answer,
}

type Answer = Box<dyn FnMut(&mut Shard, &OwnedRecord)>;

impl<E: Entity> Kit<E> {
    /// Takes everything that the entity told or asked entities of type `T` by a message `M` and
    /// that the test has not taken yet, in the order in which it was sent.
    ///
    /// # Panics
    /// When the kit does not know `T`: see [`Builder::other`](crate::kit::Builder::other).
    #[track_caller]
    pub fn sent<T: Handler<M>, M: Message>(&mut self) -> Vec<Sent<T, M>> {
        self.sent_to(|_| true)
    }

    /// The same, from entities with certain keys.
    #[track_caller]
    pub(crate) fn sent_to<T, M>(&mut self, wanted: impl Fn(T::Key) -> bool) -> Vec<Sent<T, M>>
    where
        T: Handler<M>,
        M: Message,
    {
        self.number::<T, M>();
        let mut sent = Vec::new();
        for letter in std::mem::take(&mut self.letters) {
            let is_one = letter.record.is::<T, M>();
            if !is_one || !wanted(T::Key::from_words(letter.record.key())) {
                self.letters.push(letter);
            } else if let Ok(opened) = open::<T, M>(letter) {
                sent.push(opened);
            }
        }
        sent
    }

    /// Takes the oldest message `M` that the entity told or asked an entity of type `T` and that
    /// the test has not taken yet.
    ///
    /// # Panics
    /// When there is none.
    #[track_caller]
    pub fn expect_sent<T: Handler<M>, M: Message>(&mut self) -> Sent<T, M> {
        let number = self.number::<T, M>();
        let at = self.letters.iter().position(|letter| letter.record.is::<T, M>());
        if let Some(at) = at
            && let Ok(sent) = open::<T, M>(self.letters.remove(at))
        {
            return sent;
        }
        let method = self.shard.table.rows[usize::from(number)].method;
        let others: Vec<_> = self.letters.iter().map(Letter::name).collect();
        panic!("{} has sent no {} {method}; it has sent {others:?}", self.own, T::NAME);
    }

    /// To whom the entity sent what the test has not taken yet, and the method of the message; in
    /// order.
    pub fn untaken(&self) -> impl Iterator<Item = (EntityId, &'static str)> {
        self.letters.iter().map(|letter| (letter.to, letter.method))
    }

    /// Fails when the entity sent anything that the test has not taken.
    #[track_caller]
    pub fn expect_nothing_sent(&self) {
        let sent: Vec<_> = self.letters.iter().map(Letter::name).collect();
        assert!(sent.is_empty(), "{} has sent {sent:?}", self.own);
    }

    /// Gives the answer to what the entity asked, or the error that it gets in place of one. An
    /// answer behind the deadline finds nobody, as in production.
    ///
    /// # Panics
    /// When it was told and not asked, or a [stub](Self::when) has answered it.
    #[track_caller]
    pub fn answer<T: Handler<M>, M: Message>(
        &mut self,
        sent: Sent<T, M>,
        answer: Result<M::Reply, AskError>,
    ) {
        let Some((token, message)) = sent.ask else {
            let why = if sent.within.is_none() { "was told, not asked" } else { "has a stub" };
            panic!("there is nothing to answer: {} {:?} {why}", T::NAME, sent.key);
        };
        give::<M>(&mut self.shard, token, message, answer);
        self.run();
    }

    /// Has `answer` answer from now on whatever the entity asks entities of type `T` by a message
    /// `M`; in place of what was said before. The messages are there for [`sent`](Self::sent) none
    /// the less.
    ///
    /// # Panics
    /// When the kit does not know `T`.
    #[track_caller]
    pub fn when<T: Handler<M>, M: Message>(
        &mut self,
        mut answer: impl FnMut(T::Key, &M) -> Result<M::Reply, AskError> + 'static,
    ) {
        let number = self.number::<T, M>();
        let stub = move |shard: &mut Shard, record: &OwnedRecord| {
            let (Some(token), Some(message)) = (record.token(), record.message::<T, M>()) else {
                return;
            };
            let answer = answer(T::Key::from_words(record.key()), message);
            give::<M>(shard, token, number, answer);
        };
        self.stubs.retain(|stub| stub.message != number);
        self.stubs.push(Stub { message: number, answer: Box::new(stub) });
    }

    /// The number of a message to others.
    #[track_caller]
    pub(crate) fn number<T: Handler<M>, M: Message>(&self) -> u16 {
        match self.shard.table.find_message::<T, M>() {
            Some(number) => number,
            None => panic!(
                "the kit does not know messages {} to {}: add `.other::<{}>()` to `Kit::builder()`",
                std::any::type_name::<M>(),
                T::NAME,
                std::any::type_name::<T>()
            ),
        }
    }

    /// Files what the shard has put aside, and answers what has a stub. Returns whether there was
    /// anything to answer.
    #[track_caller]
    pub(crate) fn take_arrived(&mut self) -> bool {
        let mut any = false;
        for record in std::mem::take(&mut self.others().arrived) {
            let number = record.head().message();
            let row = &self.shard.table.rows[usize::from(number)];
            let now_ns = self.now.monotonic_ns;
            let left = |at_ns: u64| Duration::from_nanos(at_ns.saturating_sub(now_ns));
            let mut letter = Letter {
                to: self.shard.core.identity(row.store, record.key()),
                method: row.method,
                within: record.deadline_ns().map(left),
                answered: false,
                record,
            };
            let stub = self.stubs.iter_mut().find(|stub| stub.message == number);
            if let Some(stub) = stub.filter(|_| letter.within.is_some()) {
                (stub.answer)(&mut self.shard, &letter.record);
                letter.answered = true;
                any = true;
            }
            self.letters.push(letter);
        }
        let count = self.letters.len();
        assert!(count <= LETTERS_MAX, "{} has sent {count} messages: take some", self.own);
        any
    }
}

/// Types a letter again, if it is an `M` to a `T`.
fn open<T: Handler<M>, M: Message>(letter: Letter) -> Result<Sent<T, M>, Letter> {
    let Letter { record, to, method, within, answered } = letter;
    let (key, number) = (T::Key::from_words(record.key()), record.head().message());
    let ask = record.token().filter(|_| !answered).map(|token| (token, number));
    match record.into_message::<T, M>() {
        Ok(message) => Ok(Sent { key, message, within, ask }),
        Err(record) => Err(Letter { record, to, method, within, answered }),
    }
}

/// Answers an ask as another shard would.
fn give<M: Message>(
    shard: &mut Shard,
    token: Token,
    message: u16,
    answer: Result<M::Reply, AskError>,
) {
    match answer {
        Ok(reply) => shard.core.reply_record::<M::Reply>(token, message, reply),
        Err(error) => shard.core.error_record(token, error),
    }
}
