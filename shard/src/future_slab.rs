//! The slab of a shard's futures: blocks of a few sizes, used again without the allocator.
//!
//! An async turn that comes and goes costs a block off a list. Futures above the largest size get a
//! heap block of their own. What the slab has grown to it keeps, for the async turns to come; their
//! number is bounded.
#![expect(unsafe_code, reason = "futures of any type are kept in raw blocks")]

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::ptr::NonNull;
use std::rc::Rc;
use std::task::{Context, Poll};

/// Sizes of blocks, in bytes.
const SIZES: [usize; 6] = [128, 256, 512, 1024, 2048, 4096];
/// Alignment of blocks.
const ALIGN: usize = 16;
/// Bytes that the slab grows by.
const CHUNK_BYTES: usize = 64 << 10;

/// Blocks for futures.
///
/// # Invariants
/// A block in a free list lies in a chunk of this slab and nobody uses it.
#[derive(Default)]
pub(crate) struct FutureSlab {
    lists: RefCell<Lists>,
}

#[derive(Default)]
struct Lists {
    free: [Vec<NonNull<u8>>; SIZES.len()],
    chunks: Vec<NonNull<u8>>,
}

const CHUNK: Layout = match Layout::from_size_align(CHUNK_BYTES, ALIGN) {
    Ok(layout) => layout,
    Err(_) => panic!("a chunk is a block like any other"),
};

impl FutureSlab {
    /// Moves a future into a block.
    pub(crate) fn place<F: Future<Output = ()> + 'static>(self: &Rc<Self>, future: F) -> Placed {
        let layout = Layout::new::<F>();
        let class = SIZES.iter().position(|size| layout.size() <= *size);
        let class = class.filter(|_| layout.align() <= ALIGN);
        let at = match class {
            Some(class) => self.take(class),
            None => allocate(layout),
        };
        // SAFETY: the block is ours alone, and large and aligned enough for an F.
        unsafe { at.cast::<F>().write(future) };
        Placed { at, class, table: &Table::<F>::TABLE, slab: Rc::clone(self) }
    }

    fn take(&self, class: usize) -> NonNull<u8> {
        let mut lists = self.lists.borrow_mut();
        if lists.free[class].is_empty() {
            let chunk = allocate(CHUNK);
            lists.chunks.push(chunk);
            let starts = (0..CHUNK_BYTES).step_by(SIZES[class]);
            // SAFETY: offsets below the chunk's size.
            lists.free[class].extend(starts.rev().map(|offset| unsafe { chunk.add(offset) }));
        }
        match lists.free[class].pop() {
            Some(block) => block,
            None => unreachable!("a chunk has at least one block"),
        }
    }

    fn give_back(&self, class: usize, block: NonNull<u8>) {
        self.lists.borrow_mut().free[class].push(block);
    }
}

impl Drop for FutureSlab {
    fn drop(&mut self) {
        for chunk in self.lists.get_mut().chunks.drain(..) {
            // SAFETY: allocated with this layout; whoever had a block of it had the slab too.
            unsafe { dealloc(chunk.as_ptr(), CHUNK) };
        }
    }
}

fn allocate(layout: Layout) -> NonNull<u8> {
    if layout.size() == 0 {
        // Never read or written, only aligned.
        return NonNull::without_provenance(match std::num::NonZeroUsize::new(layout.align()) {
            Some(align) => align,
            None => unreachable!("alignments are powers of two"),
        });
    }
    // SAFETY: the size is not zero.
    let block = unsafe { alloc(layout) };
    NonNull::new(block).unwrap_or_else(|| handle_alloc_error(layout))
}

/// A future in its block, its type forgotten. It does not move before it is dropped.
pub(crate) struct Placed {
    at: NonNull<u8>,
    /// The size of the block; `None` for a heap block of its own.
    class: Option<usize>,
    table: &'static FutureTable,
    slab: Rc<FutureSlab>,
}

/// What is done with a future whose type is forgotten.
struct FutureTable {
    poll: unsafe fn(NonNull<u8>, &mut Context<'_>) -> Poll<()>,
    drop: unsafe fn(NonNull<u8>),
    layout: Layout,
}

struct Table<F>(std::marker::PhantomData<F>);

impl<F: Future<Output = ()>> Table<F> {
    const TABLE: FutureTable =
        FutureTable { poll: Self::poll, drop: Self::drop, layout: Layout::new::<F>() };

    /// # Safety
    /// A live `F` stands at `at`, which has not moved since it was first polled.
    unsafe fn poll(at: NonNull<u8>, cx: &mut Context<'_>) -> Poll<()> {
        // SAFETY: the caller's contract.
        unsafe { Pin::new_unchecked(at.cast::<F>().as_mut()) }.poll(cx)
    }

    /// # Safety
    /// A live `F` stands at `at`, and is given up.
    unsafe fn drop(at: NonNull<u8>) {
        // SAFETY: the caller's contract.
        unsafe { at.cast::<F>().drop_in_place() };
    }
}

impl Placed {
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // SAFETY: the future is live until this is dropped, and stays in its block.
        unsafe { (self.table.poll)(self.at, cx) }
    }
}

impl Drop for Placed {
    fn drop(&mut self) {
        /// Gives the block back also when the future's drop panics.
        struct Block<'a>(&'a Placed);
        impl Drop for Block<'_> {
            fn drop(&mut self) {
                match self.0.class {
                    Some(class) => self.0.slab.give_back(class, self.0.at),
                    None if self.0.table.layout.size() == 0 => {}
                    // SAFETY: allocated with this layout, and nobody uses it any more.
                    None => unsafe { dealloc(self.0.at.as_ptr(), self.0.table.layout) },
                }
            }
        }
        let block = Block(self);
        // SAFETY: the future is live, and this is the end of it.
        unsafe { (block.0.table.drop)(block.0.at) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::task::Waker;

    /// Pending so often, then ready; counts its drop.
    struct Counts<const BYTES: usize> {
        left: u32,
        dropped: Rc<Cell<u32>>,
        fill: [u8; BYTES],
    }

    impl<const BYTES: usize> Future for Counts<BYTES> {
        type Output = ();

        fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
            assert!(self.fill.iter().all(|byte| *byte == BYTES as u8), "another's bytes");
            self.left = self.left.saturating_sub(1);
            if self.left == 0 { Poll::Ready(()) } else { Poll::Pending }
        }
    }

    impl<const BYTES: usize> Drop for Counts<BYTES> {
        fn drop(&mut self) {
            self.dropped.set(self.dropped.get() + 1);
        }
    }

    fn place<const BYTES: usize>(slab: &Rc<FutureSlab>, dropped: &Rc<Cell<u32>>) -> Placed {
        let fill = [BYTES as u8; BYTES];
        slab.place(Counts::<BYTES> { left: 2, dropped: Rc::clone(dropped), fill })
    }

    #[test]
    fn futures_of_all_sizes_are_polled_and_dropped_once() {
        let (slab, dropped) = (Rc::new(FutureSlab::default()), Rc::new(Cell::new(0)));
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..100 {
            let mut futures: Vec<Placed> = (0..40)
                .flat_map(|_| {
                    [
                        place::<0>(&slab, &dropped),
                        place::<100>(&slab, &dropped),
                        place::<1000>(&slab, &dropped),
                        place::<10_000>(&slab, &dropped),
                    ]
                })
                .collect();
            assert!(futures.iter_mut().all(|future| future.poll(&mut cx).is_pending()));
            futures.truncate(100);
            assert!(futures.iter_mut().all(|future| future.poll(&mut cx).is_ready()));
        }
        assert_eq!(dropped.get(), 16_000);
        let chunks = slab.lists.borrow().chunks.len();
        assert!(chunks <= 3, "{chunks} chunks for three sizes: blocks are used again");
    }

    #[test]
    fn future_outlives_the_slab_it_came_from() {
        let (slab, dropped) = (Rc::new(FutureSlab::default()), Rc::new(Cell::new(0)));
        let future = place::<100>(&slab, &dropped);
        drop(slab);
        drop(future);
        assert_eq!(dropped.get(), 1);
    }

    #[test]
    fn block_comes_back_when_the_drop_panics() {
        struct Bad;
        impl Future for Bad {
            type Output = ();
            fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
                Poll::Ready(())
            }
        }
        impl Drop for Bad {
            fn drop(&mut self) {
                panic!("told to, in a drop");
            }
        }
        let slab = Rc::new(FutureSlab::default());
        let future = slab.place(Bad);
        let free = slab.lists.borrow().free[0].len();
        assert!(catch_unwind(AssertUnwindSafe(|| drop(future))).is_err());
        assert_eq!(slab.lists.borrow().free[0].len(), free + 1);
    }
}
