//! Messages and replies as archives: bytes that are checked once and read where they lie.
//!
//! What may travel is a closed world of plain data ([`WireType`]): numbers, text, options, lists,
//! arrays, tuples, and the types that `#[wire]` stands on. Hash tables, shared pointers and trait
//! objects are not in it, so they do not compile. The reason is not taste: all holes that were
//! found in the validation of archives sat there.
//!
//! # Schema
//! Each type has a number that is made of its shape: names of fields, their types, their order.
//! Two programs whose numbers agree read each other's archives; where they differ, the handshake
//! says so, before any archive is read.
//!
//! # Versions
//! | module | holds |
//! |---|---|
//! | `evolve` | the previous version of what travels, and the way between both |
//! | `shape` | shapes as text, for lock files |
#![expect(unsafe_code, reason = "scratch memory for archives in the making")]

mod evolve;
mod shape;

use std::alloc::{Layout, alloc, dealloc};
use std::fmt;
use std::ptr::NonNull;

use rkyv::api::low::{self, LowDeserializer, LowSerializer, LowValidator};
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor::{Failure, Source};
use rkyv::ser::Allocator;
use rkyv::{Archive, Deserialize, Portable, Serialize};

pub use self::evolve::{Evolve, Previous, Unconvertible};
pub use self::shape::{ShapeField, Shapes};
use crate::entity::{Handler, Message};
use crate::key::{Key, KeyWords};
use crate::lease::Body;
use crate::pending::Ticket;
use crate::sabotage::{Bug, planted};
use crate::shard::Shard;
use crate::table::Table;

/// Plain data that may travel between nodes and clients.
///
/// A list is of what takes room: eight bytes could say that there are four billion of anything
/// else, and whoever reads them would be busy for long.
/// ```
/// const SCHEMA: u64 = <Vec<bool> as coreside_shard::WireType>::SCHEMA;
/// ```
/// ```compile_fail,E0080
/// const SCHEMA: u64 = <Vec<()> as coreside_shard::WireType>::SCHEMA;
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` may not travel on the wire",
    label = "put `#[wire]` on the type; hash tables, shared pointers and trait objects stay at home"
)]
pub trait WireType: Archive {
    /// Says what the bytes of an archive of this type mean.
    const SCHEMA: u64;
    /// 1, and one more with each change.
    const VERSION: u16 = 1;

    /// Says in words what the schema says in a number; types that have a name add themselves to
    /// `shapes`.
    fn shape(shapes: &mut Shapes) -> String;
}

/// Values that become archives.
pub trait Encode {
    /// Writes the archive behind what is in `out`, whose start is where alignment counts from.
    ///
    /// # Errors
    /// [`WireError::Unwritable`] when the value is too large for the offsets of an archive.
    fn encode(&self, out: &mut Vec<u8>) -> Result<(), WireError>;
}

/// Values that come out of archives.
pub trait Decode: Sized {
    /// Checks the archive `body` and takes the value out.
    ///
    /// # Errors
    /// [`WireError::Invalid`] when the bytes are not an archive of this type, or do not lie at a
    /// multiple of 16.
    ///
    /// # Cost
    /// One pass over the archive, plus the allocations of the value's own.
    fn decode(body: &[u8]) -> Result<Self, WireError>;
}

/// Why bytes are not a message, or a message not bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WireError {
    /// The bytes are not an archive of the message's type.
    Invalid,
    /// The value does not fit into an archive.
    Unwritable,
    /// A bound of the node is reached: nothing was sent.
    Full,
    /// No message has this number.
    Unknown,
    /// The value is of another version, and there is nothing for it in this one.
    Unconvertible,
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Invalid => "the body is not an archive of the message's type",
            Self::Unwritable => "the value is too large for an archive",
            Self::Full => "a queue on the way to the entity is full; try again later",
            Self::Unknown => "no message has this number",
            Self::Unconvertible => "the other version of the message has nothing for this value",
        })
    }
}

impl std::error::Error for WireError {}

impl<T> Encode for T
where
    T: WireType + for<'a> Serialize<LowSerializer<&'a mut Vec<u8>, Scratch, Failure>>,
{
    #[inline]
    fn encode(&self, out: &mut Vec<u8>) -> Result<(), WireError> {
        match low::to_bytes_in_with_alloc::<_, _, Failure>(self, out, Scratch) {
            Ok(_) => Ok(()),
            Err(Failure) => Err(WireError::Unwritable),
        }
    }
}

impl<T> Decode for T
where
    T: WireType,
    T::Archived: Portable
        + for<'a> CheckBytes<LowValidator<'a, Failure>>
        + Deserialize<T, LowDeserializer<Failure>>,
{
    #[inline]
    fn decode(body: &[u8]) -> Result<Self, WireError> {
        let archive =
            low::access::<T::Archived, Failure>(body).map_err(|Failure| WireError::Invalid)?;
        low::deserialize::<T, Failure>(archive).map_err(|Failure| WireError::Invalid)
    }
}

/// Scratch memory of the general allocator, for what has to be laid out before it is written: lists
/// of what is not plain. Nothing else allocates.
#[derive(Clone, Copy, Debug)]
pub struct Scratch;

// SAFETY: the general allocator returns memory that nobody else has, of the layout asked for.
unsafe impl<E: Source> Allocator<E> for Scratch {
    unsafe fn push_alloc(&mut self, layout: Layout) -> Result<NonNull<[u8]>, E> {
        // SAFETY: the caller's contract: the layout has a size.
        let Some(at) = NonNull::new(unsafe { alloc(layout) }) else {
            std::alloc::handle_alloc_error(layout)
        };
        Ok(NonNull::slice_from_raw_parts(at, layout.size()))
    }

    unsafe fn pop_alloc(&mut self, at: NonNull<u8>, layout: Layout) -> Result<(), E> {
        // SAFETY: the caller's contract: made above with this layout.
        unsafe { dealloc(at.as_ptr(), layout) };
        Ok(())
    }
}

/// The schema of a shape: its name, and what it is made of (FNV-1a, 64 bits).
pub const fn schema(name: &str, parts: &[u64]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325;
    let mut at = 0;
    while at < name.len() {
        hash = mix(hash, name.as_bytes()[at]);
        at += 1;
    }
    let mut at = 0;
    while at < parts.len() {
        // A mark before each part, so that a name cannot run into one.
        hash = mix(hash, 0xff);
        let bytes = parts[at].to_le_bytes();
        let mut byte = 0;
        while byte < bytes.len() {
            hash = mix(hash, bytes[byte]);
            byte += 1;
        }
        at += 1;
    }
    hash
}

const fn mix(hash: u64, byte: u8) -> u64 {
    (hash ^ byte as u64).wrapping_mul(0x0100_0000_01b3)
}

macro_rules! plain {
    ($($plain:ty)*) => {$(
        impl WireType for $plain {
            const SCHEMA: u64 = schema(stringify!($plain), &[]);

            fn shape(_: &mut Shapes) -> String {
                stringify!($plain).to_owned()
            }
        }
    )*};
}

plain!(() bool char u8 u16 u32 u64 u128 i8 i16 i32 i64 i128 f32 f64 String);

impl<T: WireType> WireType for Option<T>
where
    Self: Archive,
{
    const SCHEMA: u64 = schema("option", &[T::SCHEMA]);

    fn shape(shapes: &mut Shapes) -> String {
        format!("Option<{}>", T::shape(shapes))
    }
}

impl<T: WireType, E: WireType> WireType for Result<T, E>
where
    Self: Archive,
{
    const SCHEMA: u64 = schema("result", &[T::SCHEMA, E::SCHEMA]);

    fn shape(shapes: &mut Shapes) -> String {
        format!("Result<{}, {}>", T::shape(shapes), E::shape(shapes))
    }
}

impl<T: WireType> WireType for Vec<T>
where
    Self: Archive,
{
    const SCHEMA: u64 = {
        assert!(
            size_of::<T::Archived>() > 0,
            "a list on the wire has items that take room: nothing bounds how many others a few \
             bytes would stand for"
        );
        schema("list", &[T::SCHEMA])
    };

    fn shape(shapes: &mut Shapes) -> String {
        format!("Vec<{}>", T::shape(shapes))
    }
}

impl<T: WireType, const N: usize> WireType for [T; N]
where
    Self: Archive,
{
    const SCHEMA: u64 = schema("array", &[N as u64, T::SCHEMA]);

    fn shape(shapes: &mut Shapes) -> String {
        format!("[{}; {N}]", T::shape(shapes))
    }
}

macro_rules! tuple {
    ($($item:ident)*) => {
        impl<$($item: WireType),*> WireType for ($($item,)*)
        where
            Self: Archive,
        {
            const SCHEMA: u64 = schema("tuple", &[$($item::SCHEMA),*]);

            fn shape(shapes: &mut Shapes) -> String {
                let items = [$(("", $item::shape(shapes))),*];
                Shapes::message(&items)
            }
        }
    };
}

tuple!(A);
tuple!(A B);
tuple!(A B C);
tuple!(A B C D);

/// What a caller on the network wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WireCall {
    /// No answer.
    Tell,
    /// No answer, but word that it was handled, under this ticket, at the latest a little after the
    /// deadline.
    TellNoted {
        /// Nanoseconds of the shard's clock. The message itself has none.
        deadline_ns: u64,
        /// What [`Outside::answer_wire`](crate::Outside::answer_wire) is given, with a unit.
        ticket: Ticket,
    },
    /// An answer under this ticket, at the latest a little after the deadline.
    Ask {
        /// Nanoseconds of the shard's clock.
        deadline_ns: u64,
        /// What [`Outside::answer_wire`](crate::Outside::answer_wire) is given.
        ticket: Ticket,
    },
}

/// Makes a message of a body and sends it.
pub(crate) type Send = fn(&mut Shard, KeyWords, Body<'_>, WireCall) -> Result<(), WireError>;

/// One message that callers on the network may send.
#[derive(Clone, Copy)]
pub struct WireRow {
    /// Made of the names of entity type and method; the same in every build.
    pub id: u64,
    /// What the bodies of message and reply look like.
    pub schema: u64,
    /// The version of the message whose schema this is.
    pub version: u16,
    /// The name of the entity type, and of the method.
    pub name: (&'static str, &'static str),
    /// How many words the key has: 1 or 2.
    pub key_words: u8,
    /// Whether the message is looked at where it lies, and its memory kept meanwhile.
    pub looks: bool,
    /// Whether it is the version before of another row's message: what clients send that were
    /// built before the last change.
    pub is_previous: bool,
    pub(crate) shape: fn(&mut Shapes) -> String,
    pub(crate) send: Send,
}

impl fmt::Debug for WireRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, schema, version, name: (entity, method), .. } = self;
        write!(f, "WireRow({entity}.{method} version {version}, {id:016x}, schema {schema:016x})")
    }
}

impl WireRow {
    pub(crate) fn of<E, M>(method: &'static str) -> Self
    where
        E: Handler<M>,
        M: Message<Reply: WireType + Encode> + WireType + Decode,
    {
        Self::named::<E, M>(method, send::<E, M>, false)
    }

    /// What callers outside see is the same, however the message is handled.
    pub(crate) fn named<E, M>(method: &'static str, send: Send, looks: bool) -> Self
    where
        E: Handler<M>,
        M: Message<Reply: WireType> + WireType,
    {
        Self {
            id: message_id(E::NAME, method),
            schema: schema("call", &[M::SCHEMA, M::Reply::SCHEMA]),
            version: M::VERSION,
            name: (E::NAME, method),
            key_words: E::Key::WORDS as u8,
            looks,
            is_previous: false,
            shape: shape_of_call::<M, M::Reply>,
            send,
        }
    }

    /// Arguments and reply in words, as in `(amount: i64) -> i64`. Types that have a name are added
    /// to `shapes`.
    pub fn shape(&self, shapes: &mut Shapes) -> String {
        (self.shape)(shapes)
    }
}

fn shape_of_call<M: WireType, R: WireType>(shapes: &mut Shapes) -> String {
    format!("{} -> {}", M::shape(shapes), R::shape(shapes))
}

/// The number by which a method goes on the wire.
pub const fn message_id(entity: &str, method: &str) -> u64 {
    schema(entity, &[schema(method, &[])])
}

fn send<E, M>(
    shard: &mut Shard,
    key: KeyWords,
    body: Body<'_>,
    call: WireCall,
) -> Result<(), WireError>
where
    E: Handler<M>,
    M: Message<Reply: Encode> + Decode,
{
    let message = M::decode(body.bytes())?;
    pass_on::<E, M>(shard, key, message, call)
}

/// Sends a message that came off the network.
#[inline(always)]
pub(crate) fn pass_on<E, M>(
    shard: &mut Shard,
    key: KeyWords,
    message: M,
    call: WireCall,
) -> Result<(), WireError>
where
    E: Handler<M>,
    M: Message<Reply: Encode>,
{
    let key = E::Key::from_words(key);
    match call {
        WireCall::Tell => shard.tell::<E, M>(key, message).map_err(|_| WireError::Full),
        WireCall::TellNoted { .. } if planted(Bug::NoteForgotten) => {
            shard.tell::<E, M>(key, message).map_err(|_| WireError::Full)
        }
        WireCall::TellNoted { deadline_ns, ticket } => shard
            .tell_noted::<E, M, _>(key, message, deadline_ns, move |_, outside| {
                outside.answer_wire(ticket, Ok(&()));
            })
            .map_err(|_| WireError::Full),
        WireCall::Ask { deadline_ns, ticket } => {
            shard.ask_wire::<E, M>(key, message, deadline_ns, ticket).map_err(|_| WireError::Full)
        }
    }
}

impl Table {
    /// What callers on the network may send, in the order of the numbers by which
    /// [`Shard::send_wire`] knows it. Previous versions stand behind all others.
    pub fn wire(&self) -> &[WireRow] {
        &self.wire
    }

    /// Those of [`wire`](Self::wire) that are of the current version: what this program sends.
    pub fn wire_current(&self) -> &[WireRow] {
        let current = self.wire.iter().position(|row| row.is_previous);
        &self.wire[..current.unwrap_or(self.wire.len())]
    }
}

impl Shard {
    /// What callers on the network may send to this node.
    pub fn wire(&self) -> &[WireRow] {
        self.table.wire()
    }

    /// Sends the message number `number` of [`wire`](Self::wire), whose archive is `body`.
    ///
    /// # Errors
    /// Why nothing was sent; no answer follows then.
    #[inline]
    pub fn send_wire(
        &mut self,
        number: u16,
        key: KeyWords,
        body: Body<'_>,
        call: WireCall,
    ) -> Result<(), WireError> {
        match self.table.wire.get(usize::from(number)) {
            Some(row) => (row.send)(self, key, body, call),
            None => Err(WireError::Unknown),
        }
    }
}
