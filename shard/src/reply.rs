//! Replies: the token that an ask takes along, and what comes back instead of a reply.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use crate::core::Core;
use crate::identity::EntityId;

/// Names a waiting ask: the shard it waits on, its place there, and the generation of the place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Token(u64);

impl Token {
    /// The most asks that may wait on one shard.
    pub(crate) const PLACES_MAX: u32 = (1 << 24) - 1;

    #[inline(always)]
    pub(crate) const fn new(shard: u16, place: u32, generation: u32) -> Self {
        Self((generation as u64) << 40 | (shard as u64) << 24 | place as u64)
    }

    #[inline(always)]
    pub(crate) const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    #[inline(always)]
    pub(crate) const fn bits(self) -> u64 {
        self.0
    }

    /// The token of the next generation, of another place.
    #[inline(always)]
    pub(crate) const fn next_at(self, place: u32) -> Self {
        // The generation has the highest bits, so it comes round by itself.
        Self((self.0 & !(Self::PLACES_MAX as u64) | place as u64).wrapping_add(1 << 40))
    }

    /// The token of an ask that was made about the same time.
    pub(crate) const fn neighbour(self) -> Self {
        Self(self.0 ^ 1)
    }

    #[inline(always)]
    pub(crate) const fn shard(self) -> u16 {
        (self.0 >> 24) as u16
    }

    #[inline(always)]
    pub(crate) const fn place(self) -> u32 {
        (self.0 & 0xff_ffff) as u32
    }

    #[inline(always)]
    pub(crate) const fn generation(self) -> u32 {
        (self.0 >> 40) as u32
    }
}

/// The duty to answer an ask in a later turn; made by [`Cx::later`](crate::Cx::later), ended by
/// [`Cx::reply`](crate::Cx::reply).
///
/// It is not `Clone`, so an ask is answered at most once. Dropped without a reply, it leaves the
/// asker to its deadline; behind that a reply is for nobody, and is counted.
#[must_use = "an asker waits for this reply until its deadline"]
pub struct ReplyTo<R> {
    /// The bits of the asker's token; 0 when the message was told, not asked: the reply goes
    /// nowhere.
    token: u64,
    pub(crate) deadline_ns: u64,
    pub(crate) message: u16,
    reply: PhantomData<fn(R)>,
}

const _: () = assert!(size_of::<ReplyTo<()>>() == 24, "a continuation captures it in place");

impl<R> ReplyTo<R> {
    pub(crate) fn new(token: Option<Token>, message: u16, deadline_ns: u64) -> Self {
        let token = token.map_or(0, Token::bits);
        Self { token, deadline_ns, message, reply: PhantomData }
    }

    pub(crate) fn token(&self) -> Option<Token> {
        // The generation of an ask that waits is odd, so its bits are never 0.
        (self.token != 0).then_some(Token(self.token))
    }
}

impl<R> fmt::Debug for ReplyTo<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplyTo").field("asked", &self.token().is_some()).finish()
    }
}

impl Core {
    /// Sends a reply that was put off. However many were, what goes beyond the bound of the way is
    /// for asks that wait, whose number is bounded.
    pub(crate) fn reply_put_off<R: Send + 'static>(&mut self, to: ReplyTo<R>, reply: R) {
        let Some(token) = to.token() else { return };
        if to.deadline_ns <= self.now.monotonic_ns && !self.takes_late_answer(token) {
            self.stats.answers_late += 1;
            return;
        }
        self.reply_record::<R>(token, to.message, reply);
    }

    /// Like [`error_record`](Self::error_record), for an ask past its deadline.
    pub(crate) fn late_error_record(&mut self, token: Token, error: AskError) {
        if self.takes_late_answer(token) {
            return self.error_record(token, error);
        }
        self.stats.answers_late += 1;
    }

    /// Whether the way is within its bound: an ask past its deadline ends by itself, if it has not
    /// yet.
    fn takes_late_answer(&self, token: Token) -> bool {
        match self.peers.get(usize::from(token.shard())) {
            Some(Some(peer)) => peer.outbox_words() < self.outbox_words_max,
            _ => self.queue.is_within_bound(),
        }
    }
}

/// Why an ask ended without a reply, and whether its work may have been done.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AskError {
    /// The message never reached the entity: nothing was done, it is safe to ask again.
    NotSent,
    /// The message was sent and nobody will say whether the entity handled it: the node is
    /// stopping, or the deadline passed.
    MaybeExecuted,
    /// The entity failed in the turn that handled the message. Its state was dropped; what the turn
    /// told others before has been sent.
    Failed,
    /// The deadline passed before the message had its turn: nothing was done.
    Expired,
    /// The entity waits for the answer to an ask that waits for this one: nothing was done, and
    /// nothing ever would have been.
    Cycle(Cycle),
    /// The node that was asked has no such message, or not for this client: nothing was done, and
    /// nothing would be if it were asked again.
    NoSuchMessage,
    /// Whoever asked knows the message in an older version than the node, and the node's has
    /// nothing for this value: nothing was done, and nothing would be if it were asked again.
    Unconvertible,
    /// The entity handled the message, and nobody will hear its reply: it has nothing in the older
    /// version of the message that was asked with, or it is longer than a frame may be.
    Unsayable,
}

/// Asks that wait for each other in a circle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cycle(pub(crate) Arc<Vec<EntityId>>);

// It travels with every answer, in registers.
const _: () = assert!(size_of::<AskError>() == 16);

impl Cycle {
    /// The entities, each asking the one before it; the first asked the last.
    pub fn entities(&self) -> &[EntityId] {
        &self.0
    }
}

impl fmt::Display for Cycle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for entity in self.0.iter().rev() {
            write!(f, "{entity} asks ")?;
        }
        self.0.last().map_or(Ok(()), |entity| write!(f, "{entity}"))
    }
}

impl AskError {
    /// The error as the status of a reply record; 0 is kept for a value.
    pub(crate) const fn to_status(&self) -> u32 {
        match self {
            Self::NotSent => 1,
            Self::MaybeExecuted => 2,
            Self::Failed => 3,
            Self::Expired => 4,
            Self::Cycle(_) => Self::CYCLE,
            Self::NoSuchMessage => 6,
            Self::Unconvertible => 7,
            Self::Unsayable => 8,
        }
    }

    /// The status behind which the error's own value follows.
    pub(crate) const CYCLE: u32 = 5;

    pub(crate) const fn from_status(status: u32) -> Option<Self> {
        match status {
            0 => None,
            1 => Some(Self::NotSent),
            3 => Some(Self::Failed),
            4 => Some(Self::Expired),
            6 => Some(Self::NoSuchMessage),
            7 => Some(Self::Unconvertible),
            8 => Some(Self::Unsayable),
            _ => Some(Self::MaybeExecuted),
        }
    }
}

impl fmt::Display for AskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cycle(cycle) => return write!(f, "asks wait for each other: {cycle}"),
            Self::NotSent => "the message was not sent; nothing was done",
            Self::MaybeExecuted => "no answer came in time; the work may have been done",
            Self::Failed => "the entity failed while it handled the message",
            Self::Expired => "the deadline passed before the message was handled",
            Self::NoSuchMessage => "the node has no such message, or not for this client",
            Self::Unconvertible => {
                "the node's version of the message has nothing for this value; nothing was done"
            }
            Self::Unsayable => {
                "the message was handled, and its reply cannot be told: this version of the \
                 message has nothing for it, or it is longer than a frame may be"
            }
        })
    }
}

impl std::error::Error for AskError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_keeps_its_parts() {
        let token = Token::new(65_535, Token::PLACES_MAX - 1, (1 << 24) - 1);
        assert_eq!(
            (token.shard(), token.place(), token.generation()),
            (65_535, Token::PLACES_MAX - 1, (1 << 24) - 1)
        );
        assert_eq!(Token::from_bits(token.bits()), token);
    }

    #[test]
    fn error_survives_the_trip_as_a_status() {
        for error in [
            AskError::NotSent,
            AskError::MaybeExecuted,
            AskError::Failed,
            AskError::Expired,
            AskError::NoSuchMessage,
            AskError::Unconvertible,
            AskError::Unsayable,
        ] {
            assert_eq!(AskError::from_status(error.to_status()), Some(error.clone()));
        }
        assert_eq!(AskError::from_status(0), None);
    }
}
