//! Bodies of messages, and what keeps their memory in place while somebody looks into it.
//!
//! A body that comes off the network lies in memory which its receiver wants back. A [`Lease`] puts
//! that off: as long as one is there, the memory stays as it is. Where there is none to be had, the
//! bytes are copied into a block of their own, and the lease is that of the block. Whoever looks
//! sees no difference. A copy costs more than a lease at any size (`micro view/lent`), so who lends
//! decides alone.
//!
//! # Ownership
//! A lease is a share of an [`Arc`], of which it knows no type. So it goes to any thread, and may
//! outlive whoever lent the memory.
#![expect(unsafe_code, reason = "shared memory without its type")]

use std::fmt;
use std::mem::MaybeUninit;
use std::ptr::{self, NonNull};
use std::slice::SliceIndex;
use std::sync::Arc;

use rkyv::util::AlignedVec;

use crate::sabotage::{Bug, planted};

/// Keeps memory as it is. Cheap to clone.
///
/// # Cost
/// To make and to drop one: an atomic addition each.
pub struct Lease {
    owner: *const (),
    keeping: &'static Keeping,
}

/// How shares of memory are made and given back.
struct Keeping {
    /// One more share.
    share: unsafe fn(*const ()),
    /// One less.
    release: unsafe fn(*const ()),
}

/// The memory of an `Arc<T>`.
struct Of<T>(T);

impl<T> Of<T> {
    const KEEPING: &'static Keeping = &Keeping {
        // SAFETY: the owner is the pointer of an `Arc<T>`, as `Lease::of` made it.
        share: |owner| unsafe { Arc::increment_strong_count(owner.cast::<T>()) },
        // SAFETY: as above, and the share is given up.
        release: |owner| unsafe { Arc::decrement_strong_count(owner.cast::<T>()) },
    };
}

impl Lease {
    /// A share of `memory`.
    pub fn of<T: Send + Sync + 'static>(memory: Arc<T>) -> Self {
        Self { owner: Arc::into_raw(memory).cast(), keeping: Of::<T>::KEEPING }
    }
}

impl Clone for Lease {
    fn clone(&self) -> Self {
        // SAFETY: the owner is alive, as this lease is a share of it.
        unsafe { (self.keeping.share)(self.owner) };
        Self { ..*self }
    }
}

impl Drop for Lease {
    #[inline]
    fn drop(&mut self) {
        if planted(Bug::LeaseKept) {
            return;
        }
        // SAFETY: this is our share, given back once.
        unsafe { (self.keeping.release)(self.owner) };
    }
}

// SAFETY: a share of an `Arc` of something that is `Send` and `Sync`: `of` asks for it, and blocks
// are plain bytes.
unsafe impl Send for Lease {}
// SAFETY: as above.
unsafe impl Sync for Lease {}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lease")
    }
}

/// Who has memory that bodies lie in.
pub trait Lender {
    /// A lease of the memory for the sake of a body of so many bytes; `None` where it is not worth
    /// it, or too much is on lease already.
    fn lend(&self, bytes: usize) -> Option<Lease>;
}

/// The bytes of one message, where they were received.
#[derive(Clone, Copy)]
pub struct Body<'a> {
    bytes: &'a [u8],
    lender: Option<&'a dyn Lender>,
}

impl<'a> Body<'a> {
    /// Bytes that are copied where they have to be kept.
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, lender: None }
    }

    /// Bytes that `lender` keeps in place.
    ///
    /// # Safety
    /// While there is a lease of `lender`'s, the bytes stay where and as they are.
    #[inline]
    pub unsafe fn lent(bytes: &'a [u8], lender: &'a dyn Lender) -> Self {
        Self { bytes, lender: Some(lender) }
    }

    /// The bytes.
    #[inline]
    pub fn bytes(self) -> &'a [u8] {
        self.bytes
    }

    /// Only the part of it that lies in `range`.
    #[inline(always)]
    pub fn get(self, range: impl SliceIndex<[u8], Output = [u8]>) -> Option<Self> {
        Some(Self { bytes: self.bytes.get(range)?, ..self })
    }

    /// Where the bytes stay, and for how long.
    #[inline]
    pub(crate) fn keep(self) -> (NonNull<u8>, Lease) {
        if let Some(lender) = self.lender
            && let Some(lease) = lender.lend(self.bytes.len())
        {
            return (NonNull::from(self.bytes).cast(), lease);
        }
        copy(self.bytes)
    }
}

impl<'a> From<&'a [u8]> for Body<'a> {
    #[inline]
    fn from(bytes: &'a [u8]) -> Self {
        Self::new(bytes)
    }
}

impl fmt::Debug for Body<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Body({} bytes)", self.bytes.len())
    }
}

/// Bytes that lie at a multiple of 16, lent to whoever looks at most of them.
#[derive(Debug)]
pub struct SharedBytes {
    bytes: Arc<AlignedVec<CHUNK_BYTES>>,
}

impl SharedBytes {
    /// Bytes that nobody changes while anybody looks at them.
    pub fn new(bytes: AlignedVec<CHUNK_BYTES>) -> Self {
        Self { bytes: Arc::new(bytes) }
    }

    /// The bytes from `start` on.
    pub fn body(&self, start: usize) -> Body<'_> {
        // SAFETY: a lease is a share of the bytes, which change only where nobody else shares them.
        unsafe { Body::lent(&self.bytes[start..], self) }
    }

    /// The bytes, if nobody looks at them any more; from `start` on as a copy otherwise, which is
    /// said by `true`.
    pub fn take(self, start: usize) -> (AlignedVec<CHUNK_BYTES>, bool) {
        match Arc::try_unwrap(self.bytes) {
            Ok(bytes) => (bytes, false),
            Err(shared) => {
                let mut rest = AlignedVec::with_capacity(shared.len() - start);
                rest.extend_from_slice(&shared[start..]);
                (rest, true)
            }
        }
    }
}

impl Lender for SharedBytes {
    /// A lease keeps all of the memory: at most twice what is looked at.
    fn lend(&self, bytes: usize) -> Option<Lease> {
        let is_most = bytes >= self.bytes.capacity() / 2;
        is_most.then(|| Lease::of(Arc::clone(&self.bytes)))
    }
}

/// What blocks are made of. Their first one says how many they are.
#[repr(C, align(16))]
struct Chunk([u8; CHUNK_BYTES]);

const CHUNK_BYTES: usize = 16;

/// Copies bytes into a block of their own; they begin at a multiple of 16.
fn copy(bytes: &[u8]) -> (NonNull<u8>, Lease) {
    let chunks = 1 + bytes.len().div_ceil(CHUNK_BYTES);
    let block = Arc::<[Chunk]>::new_uninit_slice(chunks);
    let first = Arc::into_raw(block).cast_mut().cast::<MaybeUninit<Chunk>>();
    // SAFETY: the block is new and has a first chunk, which a number fits.
    unsafe { first.cast::<usize>().write(chunks) };
    // SAFETY: there is a chunk behind the first, or the place behind the block where none follows.
    let start = unsafe { first.add(1) }.cast::<u8>();
    // SAFETY: the other chunks hold as many bytes, and nobody else has the block.
    unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), start, bytes.len()) };
    // SAFETY: behind the start of an allocation.
    let start = unsafe { NonNull::new_unchecked(start) };
    (start, Lease { owner: first.cast_const().cast(), keeping: &BLOCK })
}

static BLOCK: Keeping = Keeping {
    // SAFETY: the owner is a block that is alive.
    share: |owner| unsafe { Arc::increment_strong_count(whole_block(owner)) },
    // SAFETY: as above, and the share is given up.
    release: |owner| unsafe { Arc::decrement_strong_count(whole_block(owner)) },
};

/// All chunks of a block, by its first.
///
/// # Safety
/// A live block of [`copy`]'s begins there.
unsafe fn whole_block(first: *const ()) -> *const [MaybeUninit<Chunk>] {
    // SAFETY: the first chunk begins with their number, and nobody writes there.
    let chunks = unsafe { first.cast::<usize>().read() };
    ptr::slice_from_raw_parts(first.cast(), chunks)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    /// Lends a vector, so many times.
    struct Bytes {
        memory: Arc<Vec<u8>>,
        left: Cell<u32>,
    }

    impl Bytes {
        fn new(len: usize, left: u32) -> Self {
            let memory = (0..len).map(|at| at as u8).collect();
            Self { memory: Arc::new(memory), left: Cell::new(left) }
        }

        fn body(&self) -> Body<'_> {
            // SAFETY: a lease is a share of the vector, which nobody changes.
            unsafe { Body::lent(&self.memory, self) }
        }
    }

    impl Lender for Bytes {
        fn lend(&self, _: usize) -> Option<Lease> {
            self.left.set(self.left.get().checked_sub(1)?);
            Some(Lease::of(Arc::clone(&self.memory)))
        }
    }

    /// What is kept of `body`, read back.
    fn read(body: Body<'_>, at: NonNull<u8>) -> &[u8] {
        // SAFETY: as many bytes are kept there, by a lease that the caller holds.
        unsafe { std::slice::from_raw_parts(at.as_ptr(), body.bytes().len()) }
    }

    #[test]
    fn lease_keeps_the_memory_and_is_given_back_once() {
        let lender = Bytes::new(64, 1);
        let (at, lease) = lender.body().keep();
        assert_eq!(at.as_ptr().cast_const(), lender.memory.as_ptr());
        let second = lease.clone();
        assert_eq!(Arc::strong_count(&lender.memory), 3);
        drop(lease);
        assert_eq!(Arc::strong_count(&lender.memory), 2);
        let other = std::thread::spawn(move || drop(second));
        assert!(other.join().is_ok());
        assert_eq!(Arc::strong_count(&lender.memory), 1);
    }

    #[test]
    fn what_is_not_lent_is_copied_to_where_archives_may_lie() {
        for len in [0, 1, 15, 16, 17, 1000] {
            let lender = Bytes::new(len, 0);
            let (at, lease) = lender.body().keep();
            assert!(at.as_ptr().addr().is_multiple_of(CHUNK_BYTES), "{len}");
            assert_eq!(Arc::strong_count(&lender.memory), 1, "{len}");
            let second = lease.clone();
            drop(lease);
            assert_eq!(read(lender.body(), at), lender.memory.as_slice());
            drop(second);
        }
    }

    #[test]
    fn shared_bytes_are_lent_to_who_looks_at_most_of_them() {
        let mut bytes = AlignedVec::with_capacity(256);
        bytes.resize(192, 7);
        let shared = SharedBytes::new(bytes);
        let body = shared.body(0);
        let start = body.bytes().as_ptr();
        let (few, _) = body.get(..64).expect("within").keep();
        assert_ne!(few.as_ptr().cast_const(), start);
        let (most, lease) = body.get(..128).expect("within").keep();
        assert_eq!(most.as_ptr().cast_const(), start);
        let (rest, is_copy) = shared.take(128);
        assert_eq!((rest.len(), is_copy), (64, true));
        assert_eq!(read(Body::new(&[7; 16]), most), [7; 16]);
        drop(lease);
        let (rest, is_copy) = SharedBytes::new(rest).take(16);
        assert_eq!((rest.len(), is_copy), (64, false));
    }

    #[test]
    fn part_of_a_body_is_lent_and_other_bytes_are_not() {
        let lender = Bytes::new(128, 2);
        let body = lender.body();
        let part = body.get(64..).expect("within");
        let (at, lease) = part.keep();
        assert_eq!(at.as_ptr().cast_const(), part.bytes().as_ptr());
        let copy = lender.memory.to_vec();
        let elsewhere = Body::new(&copy);
        assert_ne!(elsewhere.keep().0.as_ptr().cast_const(), copy.as_ptr());
        assert_eq!(lender.left.get(), 1);
        drop(lease);
    }
}
