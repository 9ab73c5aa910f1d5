//! The previous version of what travels: how it is read, and how it is answered.
//!
//! An archive has no tags, so whoever reads it must know its exact shape. The previous version of a
//! message is therefore a type of its own, with its own schema and its own row on the wire
//! ([`Table::wire`](crate::Table::wire)). A client learns in the handshake which of the rows is
//! meant for it; from there on, no message says a version, and none is looked at.
//!
//! Both directions are needed: the message goes up to the version of today, its reply goes down to
//! the version that was asked in.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::{
    Decode, Encode, WireCall, WireError, WireRow, WireType, message_id, pass_on, schema,
    shape_of_call,
};
use crate::entity::{Handler, Message};
use crate::key::{Key, KeyWords};
use crate::lease::Body;
use crate::pending::Outside;
use crate::reply::AskError;
use crate::shard::Shard;

/// What `#[wire]` makes of a value's type: what it looked like in the version before.
///
/// For what has not changed, `Before` is the type itself. A list, an option and so on change with
/// what is in them.
#[diagnostic::on_unimplemented(
    message = "it is not known what `{Self}` was in the version before",
    label = "put `#[wire]` on the type"
)]
pub trait Evolve: WireType + Sized {
    /// The type in the version before.
    type Before: WireType;

    /// The value that one of the version before stands for.
    ///
    /// # Errors
    /// [`Unconvertible`] where this version has nothing for it.
    fn from_before(before: Self::Before) -> Result<Self, Unconvertible>;

    /// What a reader of the version before is told.
    ///
    /// # Errors
    /// [`Unconvertible`] where the version before has nothing for it.
    fn into_before(self) -> Result<Self::Before, Unconvertible>;
}

/// The version before of message `M`. `#[handlers]` makes one where a handler has a version; it is
/// written by hand where an argument was renamed, removed, or means something else now.
///
/// # Examples
/// ```ignore
/// // Runs in runtime/tests/wire/versions.rs: this crate knows no macros.
/// #[wire(message, version = 1)]
/// pub struct DepositV1 {
///     pub euros: i64,
/// }
///
/// impl Previous<AccountDeposit> for DepositV1 {
///     type Reply = i64;
///
///     fn upgrade(self) -> Result<AccountDeposit, Unconvertible> {
///         let cents = self.euros.checked_mul(100).ok_or(Unconvertible)?;
///         Ok(AccountDeposit { cents })
///     }
///
///     fn downgrade(cents: i64) -> Result<i64, Unconvertible> {
///         Ok(cents / 100)
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not the version before of `{M}`",
    label = "write `impl Previous<{M}> for {Self}`"
)]
pub trait Previous<M: Message>: WireType + Decode {
    /// The reply in that version.
    type Reply: WireType + Encode;

    /// The message that this one stands for.
    ///
    /// # Errors
    /// [`Unconvertible`] where there is none: the caller is
    /// [told](crate::AskError::Unconvertible), and nothing is done. A panic is taken for it.
    fn upgrade(self) -> Result<M, Unconvertible>;

    /// What the caller is told.
    ///
    /// # Errors
    /// [`Unconvertible`] where that version cannot say it: the caller is
    /// [told](crate::AskError::Unsayable) that the work was done. A panic is taken for it.
    fn downgrade(reply: M::Reply) -> Result<Self::Reply, Unconvertible>;
}

/// A value of one version that the other has nothing for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unconvertible;

impl fmt::Display for Unconvertible {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the other version of the message has nothing for this value")
    }
}

impl std::error::Error for Unconvertible {}

impl WireRow {
    /// The row of the version before of `M`.
    pub(crate) fn previous<E, M, P>(method: &'static str) -> Self
    where
        E: Handler<M>,
        M: Message<Reply: Encode> + WireType,
        P: Previous<M>,
    {
        const {
            assert!(P::VERSION < M::VERSION, "the version before has a lower number");
        }
        Self {
            id: message_id(E::NAME, method),
            schema: schema("call", &[P::SCHEMA, <P::Reply>::SCHEMA]),
            version: P::VERSION,
            name: (E::NAME, method),
            key_words: E::Key::WORDS as u8,
            looks: false,
            is_previous: true,
            shape: shape_of_call::<P, P::Reply>,
            send: send::<E, M, P>,
        }
    }
}

fn send<E, M, P>(
    shard: &mut Shard,
    key: KeyWords,
    body: Body<'_>,
    call: WireCall,
) -> Result<(), WireError>
where
    E: Handler<M>,
    M: Message<Reply: Encode>,
    P: Previous<M>,
{
    let before = P::decode(body.bytes())?;
    let message =
        converted(|| before.upgrade()).map_err(|Unconvertible| WireError::Unconvertible)?;
    match call {
        WireCall::Tell | WireCall::TellNoted { .. } => pass_on::<E, M>(shard, key, message, call),
        WireCall::Ask { deadline_ns, ticket } => {
            let then =
                move |answer: Result<M::Reply, AskError>, outside: &mut dyn Outside| match answer
                    .map(|reply| converted(|| P::downgrade(reply)))
                {
                    Ok(Ok(reply)) => outside.answer_wire(ticket, Ok(&reply)),
                    Ok(Err(Unconvertible)) => outside.answer_wire(ticket, Ok(&Unsayable)),
                    Err(error) => outside.answer_wire(ticket, Err(error)),
                };
            let key = E::Key::from_words(key);
            shard.ask::<E, M, _>(key, message, deadline_ns, then).map_err(|_| WireError::Full)
        }
    }
}

/// Converts outside of any turn, where a panic of the service's own code would be one of the shard:
/// it says that there is no counterpart. Nothing is half done, as conversions own what they have.
fn converted<T>(convert: impl FnOnce() -> Result<T, Unconvertible>) -> Result<T, Unconvertible> {
    catch_unwind(AssertUnwindSafe(convert)).unwrap_or(Err(Unconvertible))
}

/// A reply that the caller's version has nothing for.
struct Unsayable;

impl Encode for Unsayable {
    fn encode(&self, _out: &mut Vec<u8>) -> Result<(), WireError> {
        Err(WireError::Unconvertible)
    }
}

macro_rules! unchanged {
    ($($plain:ty)*) => {$(
        impl Evolve for $plain {
            type Before = Self;

            fn from_before(before: Self) -> Result<Self, Unconvertible> {
                Ok(before)
            }

            fn into_before(self) -> Result<Self, Unconvertible> {
                Ok(self)
            }
        }
    )*};
}

unchanged!(() bool char u8 u16 u32 u64 u128 i8 i16 i32 i64 i128 f32 f64 String);

impl<T: Evolve> Evolve for Option<T>
where
    Self: WireType,
    Option<T::Before>: WireType,
{
    type Before = Option<T::Before>;

    fn from_before(before: Self::Before) -> Result<Self, Unconvertible> {
        before.map(T::from_before).transpose()
    }

    fn into_before(self) -> Result<Self::Before, Unconvertible> {
        self.map(T::into_before).transpose()
    }
}

impl<T: Evolve, E: Evolve> Evolve for Result<T, E>
where
    Self: WireType,
    Result<T::Before, E::Before>: WireType,
{
    type Before = Result<T::Before, E::Before>;

    fn from_before(before: Self::Before) -> Result<Self, Unconvertible> {
        Ok(match before {
            Ok(value) => Ok(T::from_before(value)?),
            Err(error) => Err(E::from_before(error)?),
        })
    }

    fn into_before(self) -> Result<Self::Before, Unconvertible> {
        Ok(match self {
            Ok(value) => Ok(value.into_before()?),
            Err(error) => Err(error.into_before()?),
        })
    }
}

impl<T: Evolve> Evolve for Vec<T>
where
    Self: WireType,
    Vec<T::Before>: WireType,
{
    type Before = Vec<T::Before>;

    fn from_before(before: Self::Before) -> Result<Self, Unconvertible> {
        before.into_iter().map(T::from_before).collect()
    }

    fn into_before(self) -> Result<Self::Before, Unconvertible> {
        self.into_iter().map(T::into_before).collect()
    }
}

impl<T: Evolve, const N: usize> Evolve for [T; N]
where
    Self: WireType,
    [T::Before; N]: WireType,
{
    type Before = [T::Before; N];

    fn from_before(before: Self::Before) -> Result<Self, Unconvertible> {
        let items: Vec<T> = before.into_iter().map(T::from_before).collect::<Result<_, _>>()?;
        items.try_into().map_err(|_| Unconvertible)
    }

    fn into_before(self) -> Result<Self::Before, Unconvertible> {
        let items: Vec<_> = self.into_iter().map(T::into_before).collect::<Result<_, _>>()?;
        items.try_into().map_err(|_| Unconvertible)
    }
}

macro_rules! tuple {
    ($($item:ident $at:tt)*) => {
        impl<$($item: Evolve),*> Evolve for ($($item,)*)
        where
            Self: WireType,
            ($($item::Before,)*): WireType,
        {
            type Before = ($($item::Before,)*);

            fn from_before(before: Self::Before) -> Result<Self, Unconvertible> {
                Ok(($($item::from_before(before.$at)?,)*))
            }

            fn into_before(self) -> Result<Self::Before, Unconvertible> {
                Ok(($(self.$at.into_before()?,)*))
            }
        }
    };
}

tuple!(A 0);
tuple!(A 0 B 1);
tuple!(A 0 B 1 C 2);
tuple!(A 0 B 1 C 2 D 3);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_not_changed_is_what_it_was() {
        type Whole = (Option<u8>, Vec<String>, [i64; 2], Result<(u16,), char>);
        let value: Whole = (Some(1), vec!["a".to_owned()], [2, 3], Err('b'));
        let before = value.clone().into_before().expect("the same");
        assert_eq!(Whole::from_before(before), Ok(value));
        assert_eq!(<<Whole as Evolve>::Before as WireType>::SCHEMA, Whole::SCHEMA);
    }
}
