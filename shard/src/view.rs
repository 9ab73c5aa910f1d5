//! Messages that are looked at where their archives lie, instead of being taken out of them.
//!
//! A handler with `#[archived]` is given `&Archived<M>`. From the network its message comes as a
//! [`View`], which is a message of its own beside `M`: the archive, checked once, with a
//! [`Lease`] of the memory that it lies in, whose drop gives the memory back. A `View` waits, is
//! stashed, tried again and buried as any other message. Within the node the message is an `M`; it
//! becomes an archive in its turn.
#![expect(unsafe_code, reason = "archives that were checked are not checked again")]

use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::ptr::NonNull;

use rkyv::api::low::{self, LowDeserializer, LowValidator};
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor::Failure;
use rkyv::util::AlignedVec;
use rkyv::{Deserialize, Portable};

use crate::cx::Cx;
use crate::entity::{Handler, Message};
use crate::key::KeyWords;
use crate::lease::{Body, Lease};
use crate::shard::Shard;
use crate::wire::{Encode, WireCall, WireError, WireRow, WireType, pass_on};

/// A value as it lies in its archive.
pub type Archived<T> = rkyv::Archived<T>;

/// Values that can be looked at in their archives: all that may travel.
pub trait Viewable:
    WireType<Archived: Portable + Sync + for<'a> CheckBytes<LowValidator<'a, Failure>>> + Encode
{
}

impl<T> Viewable for T where
    T: WireType<Archived: Portable + Sync + for<'a> CheckBytes<LowValidator<'a, Failure>>> + Encode
{
}

/// The archive of an `M`, where it was received.
///
/// The memory goes back to whoever received into it when the last clone is dropped. As this is what
/// arrives in place of the `M`, it is what a dead letter is asked for:
/// `letter.message::<E, View<M>>()`.
pub struct View<M: WireType> {
    /// # Invariants
    /// A checked archive that stays where and as it is for as long as the lease is there.
    archive: NonNull<Archived<M>>,
    lease: Lease,
    message: PhantomData<fn() -> M>,
}

impl<M: Viewable> View<M> {
    /// Checks the archive and keeps it, where it is or as a copy.
    ///
    /// # Errors
    /// [`WireError::Invalid`] when the bytes are not an archive of this type, or do not lie at a
    /// multiple of 16.
    ///
    /// # Cost
    /// One pass over the archive. An atomic addition where the memory is lent, an allocation and a
    /// copy where it is not.
    pub fn new(body: Body<'_>) -> Result<Self, WireError> {
        let bytes = body.bytes();
        if !bytes.as_ptr().addr().is_multiple_of(ALIGN) {
            return Err(WireError::Invalid);
        }
        let archive = low::access::<Archived<M>, Failure>(bytes)
            .map_err(|Failure| WireError::Invalid)
            .map(NonNull::from)?;
        let offset = archive.addr().get() - bytes.as_ptr().addr();
        let (start, lease) = body.keep();
        // SAFETY: the archive's root lies in the bytes, of which all are kept behind `start`. What
        // was checked is true of a copy as well: offsets in archives are relative, and a copy lies
        // at a multiple of 16 as the bytes do.
        let archive = unsafe { start.add(offset) }.cast();
        Ok(Self { archive, lease, message: PhantomData })
    }
}

impl<M: WireType> Deref for View<M> {
    type Target = Archived<M>;

    #[inline]
    fn deref(&self) -> &Archived<M> {
        // SAFETY: the field's invariant; the lease is there for as long as `self` is borrowed.
        unsafe { self.archive.as_ref() }
    }
}

impl<M: WireType> Clone for View<M> {
    fn clone(&self) -> Self {
        Self { archive: self.archive, lease: self.lease.clone(), message: PhantomData }
    }
}

// SAFETY: all that a view gives is a shared reference to the archive, and the lease is `Send`.
unsafe impl<M: WireType<Archived: Sync>> Send for View<M> {}
// SAFETY: as above.
unsafe impl<M: WireType<Archived: Sync>> Sync for View<M> {}

impl<M: WireType<Archived: fmt::Debug>> fmt::Debug for View<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("View").field(&**self).finish()
    }
}

impl<M: Message + Viewable> Message for View<M> {
    type Reply = M::Reply;

    const TRIES: u32 = M::TRIES;

    fn duplicate(&self) -> Option<Self> {
        Some(self.clone())
    }
}

/// The turn that an entity makes of a message that it looks at in its archive. With it comes the
/// handler of [`View<M>`].
///
/// The archive is lent for the turn, and cannot be kept.
pub trait ViewHandler<M: Message + WireType>: Handler<M> {
    /// Handles the message to completion.
    fn handle_view(
        &mut self,
        message: &Archived<M>,
        cx: &mut Cx<'_, Self>,
    ) -> <Self as Handler<M>>::Answer;

    /// Handles the message without changing the entity.
    ///
    /// # Panics
    /// Where it is not written and [`READ`](Handler::READ) is set; the turn fails.
    fn read_view(
        &self,
        message: &Archived<M>,
        cx: &mut Cx<'_, Self>,
    ) -> <Self as Handler<M>>::Answer {
        let _ = (message, cx);
        panic!("a view that is only read needs `ViewHandler::read_view`")
    }
}

impl<E, M> Handler<View<M>> for E
where
    E: ViewHandler<M>,
    M: Message + Viewable,
{
    type Answer = <E as Handler<M>>::Answer;

    const READ: bool = <E as Handler<M>>::READ;

    #[inline]
    fn handle(&mut self, message: View<M>, cx: &mut Cx<'_, Self>) -> Self::Answer {
        self.handle_view(&message, cx)
    }

    #[inline]
    fn read(&self, message: View<M>, cx: &mut Cx<'_, Self>) -> Self::Answer {
        self.read_view(&message, cx)
    }
}

thread_local! {
    /// What messages of this thread become archives in. Empty while one is looked at.
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// What archives begin at a multiple of.
const ALIGN: usize = 16;

/// Memory that is kept for the next archive.
const SCRATCH_BYTES_MAX: usize = 64 << 10;

/// Looks at a message as at its archive: how a handler with `#[archived]` gets a message from
/// within the node.
///
/// # Panics
/// When the message is too large for an archive: beyond 2 GiB.
///
/// # Cost
/// The message becomes an archive, and the archive is checked. No allocation up to 64 KiB.
pub fn look<M: Viewable, R>(message: &M, look: impl FnOnce(&Archived<M>) -> R) -> R {
    let mut scratch = SCRATCH.take();
    scratch.clear();
    if let Err(error) = message.encode(&mut scratch) {
        panic!("a message that is looked at in its archive: {error}");
    }
    let mut copy = AlignedVec::new();
    let bytes = aligned(&scratch, &mut copy);
    let Ok(archive) = low::access::<Archived<M>, Failure>(bytes) else {
        panic!("a message does not become an archive of its type");
    };
    let answer = look(archive);
    if scratch.capacity() <= SCRATCH_BYTES_MAX {
        SCRATCH.set(scratch);
    }
    answer
}

/// The same bytes at a multiple of 16, where a vector's need not lie.
fn aligned<'a>(bytes: &'a [u8], copy: &'a mut AlignedVec<ALIGN>) -> &'a [u8] {
    if bytes.as_ptr().addr().is_multiple_of(ALIGN) {
        return bytes;
    }
    copy.extend_from_slice(bytes);
    copy
}

/// Takes a value out of its archive, which was checked.
///
/// # Panics
/// When the type's own code does not accept what its check has accepted.
#[inline]
pub fn unarchived<T>(archive: &Archived<T>) -> T
where
    T: WireType<Archived: Deserialize<T, LowDeserializer<Failure>>>,
{
    match low::deserialize::<T, Failure>(archive) {
        Ok(value) => value,
        Err(Failure) => panic!("a checked archive does not give its value"),
    }
}

/// Checks a body and sends it as a view.
fn send<E, M>(
    shard: &mut Shard,
    key: KeyWords,
    body: Body<'_>,
    call: WireCall,
) -> Result<(), WireError>
where
    E: ViewHandler<M>,
    M: Message<Reply: Encode> + Viewable,
{
    let view = View::<M>::new(body)?;
    pass_on::<E, View<M>>(shard, key, view, call)
}

impl WireRow {
    pub(crate) fn of_view<E, M>(method: &'static str) -> Self
    where
        E: ViewHandler<M>,
        M: Message<Reply: WireType + Encode> + Viewable,
    {
        Self::named::<E, M>(method, send::<E, M>, true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_lie_at_a_multiple_of_their_alignment() {
        let mut bytes = AlignedVec::<ALIGN>::new();
        bytes.extend_from_slice(&[0, 1, 2, 3]);
        let mut copy = AlignedVec::new();
        assert_eq!(aligned(&bytes, &mut copy).as_ptr(), bytes.as_ptr());
        let moved = aligned(&bytes[1..], &mut copy);
        assert!(moved.as_ptr().addr().is_multiple_of(ALIGN));
        assert_eq!(moved, [1, 2, 3]);
    }

    #[test]
    fn who_looks_may_look_again() {
        let outer = "x".repeat(1000);
        let sum = look(&outer, |outer: &Archived<String>| {
            let inner = look(&7_u64, |inner: &Archived<u64>| inner.to_native());
            outer.len() as u64 + inner
        });
        assert_eq!(sum, 1007);
        assert_eq!(look(&vec![1_u16, 2], |list: &Archived<Vec<u16>>| list.len()), 2);
    }

    #[test]
    fn bytes_that_a_copy_would_shift_are_no_view() {
        let mut bytes = AlignedVec::<ALIGN>::new();
        bytes.resize(32, 7);
        // The number lies where it may, but 8 bytes behind the start of what is kept.
        let between = Body::new(&bytes[8..]);
        assert!(low::access::<Archived<u128>, Failure>(between.bytes()).is_ok());
        assert_eq!(View::<u128>::new(between).map(drop), Err(WireError::Invalid));
        let view = View::<u128>::new(Body::new(&bytes)).expect("an archive");
        assert!(view.archive.is_aligned());
    }

    #[test]
    fn a_view_is_what_was_sent_and_nothing_else() {
        let mut archive = Vec::new();
        assert_eq!(vec!["a".to_owned(), "b".repeat(100)].encode(&mut archive), Ok(()));
        let mut bytes = AlignedVec::<ALIGN>::new();
        bytes.extend_from_slice(&archive);
        let view = View::<Vec<String>>::new(Body::new(&bytes)).expect("an archive");
        let copy = view.clone();
        drop(view);
        bytes.fill(0xff);
        assert_eq!(unarchived::<Vec<String>>(&copy), ["a".to_owned(), "b".repeat(100)]);
        let invalid = View::<Vec<String>>::new(Body::new(&bytes)).map(drop);
        assert_eq!(invalid, Err(WireError::Invalid));
    }
}
