//! A thread-per-core runtime for stateful entities.
//!
//! *Entities* hold state in memory, millions of them on one node. Each belongs to one *shard*, a
//! thread on a core of its own, and handles one message at a time. Shards share nothing and talk
//! over lock-free rings. An entity is addressed by type and key, whether or not it is in memory;
//! the first message activates it. A handler that panics takes its entity down and nothing else.
//!
//! ```
//! use coreside::{Node, entity, handlers};
//!
//! #[entity]
//! struct Account {
//!     balance: i64,
//! }
//!
//! #[handlers]
//! impl Account {
//!     fn deposit(&mut self, amount: i64) -> i64 {
//!         self.balance += amount;
//!         self.balance
//!     }
//! }
//!
//! let node = Node::builder().entity::<Account>().shards(2).start()?;
//! assert_eq!(node.entity::<Account>(42).deposit(10).wait(), Ok(10));
//! assert_eq!(node.entity::<Account>(42).deposit(5).wait(), Ok(15));
//! # Ok::<(), coreside::NodeError>(())
//! ```
//!
//! The same entities answer Redis clients: give the builder an address to [`listen`] on, and
//! `ACCOUNT.DEPOSIT 42 10` calls the handler.
//!
//! # What is promised
//! - **Order.** Messages from one sender to one entity arrive in the order sent.
//! - **Delivery.** Within a node a message that was accepted is handled exactly once, or it is a
//!   dead letter, counted by its [`Reason`] and kept for a while ([`Handle::dead_letters`]). What
//!   finds no room is handed back ([`Full`]), or waits for it ([`Request::tell`]).
//! - **Asks** end: with the reply, or at their deadline at the latest with an [`AskError`], which
//!   says whether the work may have been done.
//! - **Fairness.** A message at place k of its shard's run queue reaches its entity within k turns.
//!   An entity delays others by turns that are long, which are reported ([`StallConfig`]), and not
//!   by having much to do.
//! - **Faults** are their entity's: what follows is declared ([`Life`]), the asker is told, the
//!   supervisor gets a [`Fault`], and nobody else notices.
//! - **Versions.** A node takes the messages of the last release beside its own, and a test holds
//!   it to that ([`NodeBuilder::assert_wire_lock`]).
//! - **Bounds.** Every queue has one, set with the [`NodeBuilder`] or the entity's [`Life`].
//!
//! [`listen`]: NodeBuilder::listen

extern crate self as coreside;

mod arrivals;
mod clock;
pub mod doctor;
mod driver;
mod faults;
mod group;
mod handle;
mod host;
mod ingress;
mod inspect;
mod node;
#[cfg(feature = "cli")]
mod options;
mod park;
mod ports;
mod probe;
mod signals;
#[cfg(feature = "sim")]
pub mod sim;
mod stall;
mod stopping;
mod tell;
mod topology;
mod wire_lock;

/// For the code of `#[wire]` and `#[archived]`.
#[doc(hidden)]
pub use coreside_shard::{ShapeField, Shapes, look, rkyv, schema, unarchived};

pub use coreside_macros::{entity, handlers, wire};
pub use coreside_net::client::{Client, ClientBuilder, ClientError, ClientRequest};
pub use coreside_net::sessions::Deadlines;
pub use coreside_net::tls::{ClientTls, TlsConfig, TlsError};
pub use coreside_net::{DriverKind, Limits, NetConfig, NetError, SendStats, ZeroCopy};
#[cfg(sabotage)]
pub use coreside_shard::sabotage;
pub use coreside_shard::{
    Activating, Address, Answer, Archived, Args, ArgumentError, AskError, Asking, AsyncCall,
    AsyncCx, Backoff, Broadcast, Call, Children, Command, Cx, Cycle, DeadLetter, Each, End, Entity,
    EntityId, Evolve, Fallible, Fault, FromArguments, Full, Group, Handler, HashKey, Heat, Hot,
    Hub, INLINE_BYTES_MAX, Key, KeyWords, Later, Life, LookAhead, Message, Name, NotAsked, OnFault,
    Previous, Publish, Published, Reason, Registration, RegistryError, ReplyTo, Single, Sleep,
    Span, Subscribe, Sweep, Terminated, Timer, ToValue, Topic, Unconvertible, Unsubscribe,
    ValueWriter, Via, View, ViewHandler, Visit, WireType, parse_integer,
};
pub use handle::{Handle, NodeStats, Request};
pub use inspect::LetterNote;
pub use node::{Idle, Node, NodeBuilder, NodeError};
#[cfg(feature = "cli")]
pub use options::{ClientRight, CoreList, DriverOption, IdleOption, NodeOptions};
pub use probe::DriverChoice;
pub use stall::{StallConfig, StallReport};
pub use tell::{Stopped, Tell};
pub use wire_lock::{WireBreak, WireChange, WireLock, WireLockError};

/// # Examples
/// ```
/// use std::time::Duration;
///
/// use coreside::kit::Kit;
/// use coreside::{AskError, Cx, Later, entity, handlers};
///
/// #[entity]
/// struct Ledger;
///
/// #[handlers]
/// impl Ledger {
///     fn note(&mut self, amount: i64) -> bool {
///         amount != 0
///     }
/// }
///
/// #[entity]
/// struct Account {
///     balance: i64,
/// }
///
/// #[handlers]
/// impl Account {
///     /// Takes the deposit once the ledger has it.
///     fn deposit(&mut self, amount: i64, cx: &mut Cx<Self>) -> Later<bool> {
///         let (later, reply) = cx.later();
///         let then = move |this: &mut Self, noted: Result<bool, AskError>, cx: &mut Cx<Self>| {
///             let noted = noted == Ok(true);
///             this.balance += if noted { amount } else { 0 };
///             cx.reply(reply, noted);
///         };
///         cx.entity::<Ledger>(7).note(amount).ask(then).ok();
///         later
///     }
/// }
///
/// let mut kit = Kit::<Account>::builder().other::<Ledger>().build(42);
///
/// // The test plays the ledger.
/// let deposit = kit.entity().deposit(10).begin();
/// let note = kit.expect_sent::<Ledger, LedgerNote>();
/// assert_eq!((note.key, note.message.amount), (7, 10));
/// assert_eq!(deposit.take(), None);
/// kit.answer(note, Ok(true));
/// assert_eq!(deposit.take(), Some(Ok(true)));
///
/// // The ledger is silent, until the ask ends.
/// let deposit = kit.entity().deposit(10).begin();
/// kit.advance(Duration::from_secs(1));
/// assert_eq!(deposit.take(), Some(Err(AskError::MaybeExecuted)));
///
/// // A stub answers whatever comes.
/// kit.when::<Ledger, LedgerNote>(|_key, note| Ok(note.amount < 100));
/// assert_eq!(kit.entity().deposit(10).ask(), Ok(true));
/// assert_eq!(kit.entity().deposit(100).ask(), Ok(false));
/// assert_eq!(kit.state(|account| account.balance), 20);
/// ```
#[doc(inline)]
pub use coreside_shard::kit;

/// The README's code, compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
