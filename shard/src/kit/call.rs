//! Messages from the test to the entity, and their answers.

use std::any::TypeId;
use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use crate::cx::nanoseconds;
use crate::entity::{Entity, Handler, Message, Via};
use crate::key::Key;
use crate::kit::Kit;
use crate::pending::Outside;
use crate::reply::AskError;

/// A message that the test is about to send to the entity.
#[must_use = "nothing is sent before `ask`, `begin` or `tell`"]
pub struct KitCall<'k, E: Entity, T: Entity, M> {
    kit: &'k mut Kit<E>,
    key: T::Key,
    message: M,
    /// `u64::MAX` stands for no limit of its own.
    within_ns: u64,
}

impl<'k, E: Entity> Via for &'k mut Kit<E> {
    type Call<T: Handler<M>, M: Message> = KitCall<'k, E, T, M>;

    fn call<T: Handler<M>, M: Message>(self, key: T::Key, message: M) -> Self::Call<T, M> {
        KitCall::new(self, key, message)
    }
}

impl<'k, E: Entity, T: Handler<M>, M: Message> KitCall<'k, E, T, M> {
    pub(crate) fn new(kit: &'k mut Kit<E>, key: T::Key, message: M) -> Self {
        let same = TypeId::of::<T>() == TypeId::of::<E>() && key.to_words() == kit.own.key;
        assert!(same, "a kit sends to {} and nobody else", kit.own);
        Self { kit, key, message, within_ns: u64::MAX }
    }

    /// Ends the wait for the answer after `limit`.
    pub fn within(mut self, limit: Duration) -> Self {
        self.within_ns = nanoseconds(limit);
        self
    }

    /// Sends the message and expects no answer.
    #[track_caller]
    pub fn tell(self) {
        let told = self.kit.shard.tell::<T, M>(self.key, self.message);
        assert!(told.is_ok(), "the run queue is at its bound");
        self.kit.run();
    }

    /// Asks, and returns the answer.
    ///
    /// # Errors
    /// Why there is none, as any asker gets it.
    ///
    /// # Panics
    /// When there is no answer yet.
    #[track_caller]
    pub fn ask(self) -> Result<M::Reply, AskError> {
        let number = self.kit.shard.core.directory.message::<T, M>();
        let method = self.kit.shard.table.rows[usize::from(number)].method;
        let (kit, asked) = self.send();
        match asked.take() {
            Some(answer) => answer,
            None => panic!("{}", kit.why_no_answer(method)),
        }
    }

    /// Asks; the answer may come later.
    #[track_caller]
    pub fn begin(self) -> Asked<M::Reply> {
        self.send().1
    }

    #[track_caller]
    fn send(self) -> (&'k mut Kit<E>, Asked<M::Reply>) {
        let Self { kit, key, message, within_ns } = self;
        let deadline_ns = kit.shard.core.deadline_of_ask(u64::MAX, within_ns);
        let asked = Asked { answer: Rc::new(RefCell::new(None)) };
        let answer = Rc::clone(&asked.answer);
        let then = move |reply, _: &mut dyn Outside| {
            answer.replace(Some(reply));
        };
        let sent = kit.shard.ask::<T, M, _>(key, message, deadline_ns, then);
        assert!(sent.is_ok(), "the run queue, or the number of asks, is at its bound");
        kit.run();
        (kit, asked)
    }
}

impl<E: Entity> Kit<E> {
    /// What to tell a test that expects an answer which is not there.
    fn why_no_answer(&self, method: &str) -> String {
        let own = self.own;
        let waits: Vec<_> = self
            .letters
            .iter()
            .filter(|letter| letter.waits())
            .map(|letter| letter.name())
            .collect();
        let what = if !waits.is_empty() {
            format!(
                "answers to {} are missing: stub them by `kit.when` beforehand, or `begin` this \
                 ask and give them by `kit.answer`",
                waits.join(", ")
            )
        } else if self.is_restarting() {
            "it is being restarted: `begin` this ask and `kit.advance` the time".to_owned()
        } else {
            "it waits for time to pass, an answer, or another message: `begin` this ask and give \
             it that"
                .to_owned()
        };
        format!("{own} has not answered `{method}`: {what}")
    }
}

/// An ask of the test's that may be answered later.
#[derive(Debug)]
pub struct Asked<R> {
    answer: Rc<RefCell<Option<Result<R, AskError>>>>,
}

impl<R> Asked<R> {
    /// Takes the answer, if it is there.
    pub fn take(&self) -> Option<Result<R, AskError>> {
        self.answer.take()
    }

    /// Whether there is an answer to [take](Self::take).
    pub fn is_answered(&self) -> bool {
        self.answer.borrow().is_some()
    }
}

impl<E: Entity, T: Entity, M> fmt::Debug for KitCall<'_, E, T, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KitCall").field("key", &self.key).finish_non_exhaustive()
    }
}
