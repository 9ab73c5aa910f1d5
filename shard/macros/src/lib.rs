//! The attribute macros of Coreside: [`macro@entity`] for state, [`macro@handlers`] for behaviour,
//! [`macro@wire`] for what travels.
//!
//! They only write down what a user could write by hand against the traits of `coreside`: message
//! structs, trait impls, and the typed reference with a method per handler. They hold no policy and
//! generate no unsafe code. An error never stops the expansion of the rest of the block, so that
//! one mistake is reported as one mistake.

mod entity;
mod errors;
#[cfg(test)]
mod expanded;
mod handler;
mod handlers;
mod mark;
mod method;
mod owner;
mod parameter;
mod sweep;
mod wire;

use proc_macro::TokenStream;

/// Makes a struct (or an enum) the state of an entity.
///
/// # Examples
/// ```ignore
/// // Runs as runtime/tests/compile_pass/account.rs: this crate cannot depend on `coreside`.
/// use coreside::{entity, handlers};
///
/// #[entity]
/// pub struct Account {
///     balance: i64,
/// }
///
/// #[handlers]
/// impl Account {
///     pub fn deposit(&mut self, amount: i64) -> i64 {
///         self.balance += amount;
///         self.balance
///     }
/// }
/// ```
///
/// With options:
/// ```ignore
/// // Runs as runtime/tests/compile_pass/life.rs, with every option there is.
/// #[entity(
///     name = "session", key = Name, activate_async = Session::load,
///     idle = "120s", resident = 100_000, on_passivate = Session::save,
///     backoff = "10ms..10s", faults = "10 in 60s"
/// )]
/// pub struct Session { /* .. */ }
///
/// #[handlers]
/// impl Session {
///     async fn load(key: Name, cx: AsyncCx<Self>) -> Self { /* .. */ }
///
///     #[skip]
///     fn save(&mut self, cx: &mut Cx<Self>) { /* .. */ }
/// }
/// ```
///
/// # Options
/// | option | meaning | default |
/// |---|---|---|
/// | `key = u128` | `u64`, `u128`, `Name`, or a type of yours that is a `Key` | `u64` |
/// | `name = "account"` | what callers outside call the type, in any case | the type's name |
/// | `activate = path` | `fn(Key, &mut Cx<Self>) -> Self`: makes the state | `Default` per field |
/// | `activate_async = path` | `async fn(Key, AsyncCx<Self>) -> Self`: makes it in its own time | |
/// | `on_stop = path` | `fn(&mut Self, &mut Cx<Self>)`: the last turn, in good order | |
/// | `on_passivate = path` | likewise, before the entity is put away | |
/// | `crate = path` | where `coreside` is, if it was renamed | `::coreside` |
///
/// And those that become `Entity::LIFE`, each with its default in `Life`:
///
/// | option | meaning |
/// |---|---|
/// | `on_fault = restart` | what follows a fault: `restart`, `resume`, `stop`, `escalate` |
/// | `backoff = "10ms..10s"` | the wait before the first restart and the longest; it doubles |
/// | `jitter = 20` | how far each wait may be off, in percent |
/// | `faults = "10 in 60s"` | faults within a time; one more ends the entity |
/// | `reset = "30s"` | after so long without a fault the wait begins at the first again |
/// | `children = one_for_one` | whom a child's fault restarts: `one_for_all`, `rest_for_one` |
/// | `idle = "120s"` | put away after so long without a turn |
/// | `resident = 100_000` | entities in memory per shard, beyond which the coldest are put away |
/// | `stash = 128` | records that may wait for one busy entity |
/// | `alive` | restarted for ever, never put away |
///
/// A duration is a whole number and `us`, `ms`, `s`, `m` or `h`. Options that leave each other
/// without effect, such as `alive` and `idle`, are errors.
///
/// Without `activate` and `activate_async`, each field starts as the `Default` of its type; a
/// `Default` of the entity itself is not asked.
///
/// # What is generated
/// - `impl Entity for Account`, with `LIFE` where one of its options is given.
/// - `AccountRef<V>`, as visible as `Account`: its address, with a method per handler.
///
/// Each entity needs exactly one block with [`macro@handlers`].
#[proc_macro_attribute]
pub fn entity(options: TokenStream, item: TokenStream) -> TokenStream {
    entity::expand(options.into(), item.into()).into()
}

/// Makes each method of an impl block the handler of a message of its own.
///
/// # Examples
/// ```ignore
/// // Runs as runtime/tests/compile_pass/every_form.rs: this crate cannot depend on `coreside`.
/// #[handlers]
/// impl Account {
///     /// Callers outside say `ACCOUNT.DEPOSIT <key> <amount>`.
///     pub fn deposit(&mut self, amount: i64) -> i64 { /* .. */ }
///
///     /// A handler that sends takes `cx`; one that answers in a later turn returns `Later`.
///     pub fn send(&mut self, to: u64, amount: i64, cx: &mut Cx<Self>) -> Later<bool> { /* .. */ }
///
///     /// Callers outside may also say `GET <key>`.
///     #[command("GET")]
///     pub fn balance(&self) -> i64 { /* .. */ }
///
///     /// `DEL <key> <key> ..`: one message per key, the integers are added up.
///     #[command("DEL", each = sum)]
///     pub fn close(&mut self, cx: &mut Cx<Self>) -> i64 { /* .. */ }
///
///     /// Waits in its turn: the account takes no other message meanwhile.
///     #[fallible]
///     pub async fn save(&mut self, cx: &mut AsyncCx<Self>) -> io::Result<()> { /* .. */ }
///
///     /// Only other entities and the program itself may send it.
///     #[local]
///     pub fn credit(&mut self, amount: i64) -> bool { /* .. */ }
///
///     /// What a supervisor gets when one of its entities failed.
///     #[on]
///     fn child_failed(&mut self, fault: Fault, cx: &mut Cx<Self>) { /* .. */ }
///
///     /// Visits every live account on every shard and adds up the totals.
///     #[sweep]
///     pub fn audit(&self, total: &mut Audit) { /* .. */ }
///
///     /// A plain method: not a handler.
///     #[skip]
///     fn limit(&self) -> i64 { /* .. */ }
/// }
/// ```
///
/// # Methods
/// A handler takes `&mut self` or `&self`, any number of owned arguments, and, in any position,
/// the context. It returns the reply, `Later<Reply>`, or nothing. The method's visibility says
/// which Rust code may send the message; what callers outside of the node may do is said by an
/// attribute:
///
/// | attribute | meaning |
/// |---|---|
/// | none | callers outside say `TYPE.METHOD key arguments..` |
/// | `#[command("GET")]` | and also the bare name `GET` |
/// | `#[command("DEL", each = sum)]` | every argument is a key; the integers are added up |
/// | `#[command("MGET", each = array)]` | every argument is a key; the answers in order |
/// | `#[command("MSET", each = pairs)]` | keys and values alternate; `OK` when all are done |
/// | `#[local]` | no caller outside; argument and reply types need no text form |
/// | `#[sweep]`, `#[sweep("DBSIZE")]` | a pass over all live entities, see below |
/// | `#[sweep("FLUSHALL", words("ASYNC", "SYNC"))]` | and one of these words may follow it |
/// | `#[skip]` | a plain method, not a handler |
///
/// Functions without `self` and constants are left alone.
///
/// # Turns
/// How a method handles its message is said by its form, and by attributes that combine with
/// `#[local]`, with `#[command(..)]` and with each other:
///
/// | form | its turn |
/// |---|---|
/// | `fn go(&mut self, cx: &mut Cx<Self>, ..)` | ends when the method returns |
/// | `async fn go(&mut self, cx: &mut AsyncCx<Self>, ..)` | holds the entity while it waits |
/// | `#[read] fn go(&self, ..)` | only reads: runs also while other reads wait |
/// | `#[read] async fn go(&self, ..)` | other reads run while it waits |
/// | `#[interleave] async fn go(cx: AsyncCx<Self>, ..)` | all others run while it waits |
///
/// | attribute | meaning |
/// |---|---|
/// | `#[fallible]` | returns `Result<R, X>`: `R` is the reply, an `Err` is a fault like a panic |
/// | `#[retry]`, `#[retry(5)]` | a message that faults is tried 3 or 5 times; needs `Clone` |
/// | `#[wire]` | clients may send it as an archive: arguments and reply are `WireType`s |
/// | `#[wire(version = 2)]` | and so may clients with the version before, see [`macro@wire`] |
/// | `#[archived]` | beside `#[wire]`: looks at its message where it was received, see below |
/// | `#[on]` | handles a message type that exists: `Fault`, `Terminated`, one of yours |
///
/// The context is left out where it is not needed. Messages that come while the entity is held wait
/// in its stash. An async handler returns the reply itself, which the asker gets at the end of its
/// turn. An interleaved one reaches the state by `cx.with(..)`; neither it nor an async read is
/// alone with the entity, so neither can be fallible. With `#[on]` the message is the only
/// argument.
///
/// # Archives in place
/// With `#[wire]` and `#[archived]`, arguments taken as `&Archived<T>` are looked at in the
/// archive, which was checked once, and mostly lies in the buffer that the network wrote to; the
/// buffer is kept until the message is gone. Other arguments are taken out as usual. A reference to
/// an archive ends with the turn, so the method is a plain `fn`. References call it as any other,
/// with `T`; a message from within the node becomes an archive in its turn.
/// ```ignore
/// // Runs in runtime/tests/wire.rs.
/// #[local]
/// #[wire]
/// #[archived]
/// fn place(&mut self, order: &Archived<Order>, limit: i64) -> bool { /* .. */ }
/// ```
/// It pays for what is larger than a line or has parts of its own on the heap; a few numbers are as
/// well taken by value.
///
/// # Sweeps
/// A sweep is called once per live entity with, as wanted, the key by value and the total of its
/// shard: `fn audit(&self, key: u64, total: &mut Audit)`. The total is `Default` where a shard
/// begins and `AddAssign` where the shards' totals are merged. A sweep that returns `Visit` says
/// whether the entity stays (`Visit::Keep`) or goes (`Visit::Stop`).
///
/// # What is generated
/// For `deposit` of `Account`, as visible as the method:
/// - `AccountDeposit { amount }`, a `Message`, with the `Handler` that calls the method;
/// - `AccountRef::deposit(amount)`, which prepares the call to be told or asked;
/// - the row in the message table, with the parser of the arguments.
///
/// With `#[archived]` also `ViewHandler`, and the row of the `View` as which the message comes off
/// the network. With `#[on]` only the `Handler`, the method of the reference, which takes the
/// message, and the row. With `#[retry]`, `Message::TRIES` and `Message::duplicate`. With
/// `#[wire(version = 2)]`, `AccountDepositV1`, the message of the version before, with its
/// `Previous`.
///
/// For the sweep `audit`: `AccountAudit { total }`, a `Sweep`.
///
/// `#[handlers(crate = path)]` says where `coreside` is, if it was renamed.
#[proc_macro_attribute]
pub fn handlers(options: TokenStream, block: TokenStream) -> TokenStream {
    handlers::expand(options.into(), block.into()).into()
}

/// Makes a struct or an enum plain data that may travel: as an argument or a reply of a handler
/// with `#[wire]`.
///
/// # Examples
/// ```ignore
/// // Runs in runtime/tests/wire.rs: this crate cannot depend on `coreside`.
/// #[wire]
/// pub struct Order {
///     pub item: u64,
///     pub side: Side,
///     pub notes: Vec<String>,
/// }
///
/// #[wire]
/// pub enum Side {
///     Buy,
///     Sell,
/// }
/// ```
///
/// # What may be in it
/// Numbers, `bool`, `char`, `String`, `Option`, `Result`, `Vec`, arrays, tuples of up to four, and
/// other types with `#[wire]`. Not hash tables, shared pointers, trait objects, types with
/// parameters, or lists of what takes no room.
///
/// Its layout is what its fields make it, the same in every build: no `#[cfg]` within it, no
/// numbers of variants, nothing of `rkyv` that changes archives.
///
/// # Versions
/// A node takes the messages of the last release beside its own, each with its own schema. What is
/// new since then is marked, in the handler and in the types that it takes and returns, at any
/// depth; the marks go when the next version begins.
/// ```ignore
/// // Runs in runtime/tests/wire_versions.rs.
/// #[wire(version = 2)]
/// pub struct Order {
///     pub item: u64,
///     #[wire(since = 2)]                       // `Default`, where an old client is silent
///     pub notes: Vec<String>,
///     #[wire(since = 2, default = 1)]
///     pub count: u32,
/// }
///
/// #[wire(version = 2)]
/// pub enum Refusal {
///     Closed,
///     #[wire(since = 2, instead = Closed)]     // what an old client is told
///     Holiday { days: u8 },
/// }
///
/// #[handlers]
/// impl Shop {
///     #[wire(version = 2)]
///     pub fn place(&mut self, order: Order, #[wire(since = 2)] gift: bool) -> Result<u64, Refusal>
///     { /* .. */ }
/// }
/// ```
///
/// | on | what | meaning |
/// |---|---|---|
/// | handler | `version = 2` | version 1 is taken too: what is new left out, types as they were |
/// | handler | `version = 2, from = PriceV1` | the same by hand: `PriceV1` is a `Previous` |
/// | type | `version = 2` | what it was in version 1 is made likewise |
/// | type | `version = 2, from = u8` | the same by hand: `TryFrom` both ways |
/// | type | `message` | the arguments of an old message, for a `Previous`; also with a `version` |
/// | field, argument | `since = 2`, `default = value` | new in this version |
/// | variant | `since = 2`, `instead = Variant` | likewise |
///
/// An old client that is to be told of a new variant without `instead` is told of an error.
///
/// A handler or a type has a version of its own as soon as something in it has changed. What was
/// released is kept in a lock file, and a test says what a change would break:
/// `NodeBuilder::assert_wire_lock`.
///
/// # What is generated
/// - the derives of the archive (`rkyv`);
/// - `WireType::SCHEMA`, a number made of the names and types of the fields, in order: whoever has
///   another one is told so in the handshake;
/// - `OrderV1` for version 2 of `Order`, and `Evolve`, the way between both.
///
/// `#[wire(crate = path)]` says where `coreside` is, if it was renamed.
#[proc_macro_attribute]
pub fn wire(options: TokenStream, item: TokenStream) -> TokenStream {
    wire::expand(options.into(), item.into()).into()
}
