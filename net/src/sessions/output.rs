//! Memory of output, some of which the kernel keeps the pages of: it is *registered*.
//!
//! A send without a copy has to find and hold the pages that it reads, unless they are registered.
//! So outputs that are expected to be large are written into memory that is.
//!
//! # Invariants
//! - A block's memory is that of one `Vec`, which goes out with the block's name and comes back
//!   with it. Only whoever has the `Vec` may let it grow, and then it lies elsewhere or has another
//!   capacity: it is the block's memory no more, and is not used under its name.
//! - A block that has lost its memory gets new memory, which is registered, before it goes out
//!   again.

use std::ops::{Deref, DerefMut};

/// Bytes of output.
#[derive(Debug, Default)]
pub(crate) struct Output {
    bytes: Vec<u8>,
    block: Option<Block>,
}

/// Registered memory of one output at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    number: u16,
    /// Where its memory begins.
    start: usize,
    bytes: usize,
}

/// The registered memory of the sessions of one protocol.
#[derive(Debug, Default)]
pub(crate) struct Blocks {
    free: Vec<Output>,
    /// Numbers of blocks without memory.
    lost: Vec<u16>,
    /// What a new block has room for.
    block_bytes: usize,
    /// Outputs that are smaller are not sent without a copy.
    min_bytes: usize,
}

impl Output {
    /// Output that begins empty in this memory.
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        Self { bytes, block: None }
    }

    /// The number of the block whose memory this is, if it is registered.
    pub(crate) fn registered(&self) -> Option<u16> {
        self.block.filter(|block| block.is_of(&self.bytes)).map(|block| block.number)
    }

    /// The memory, which must not be registered.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        debug_assert!(self.block.is_none(), "it goes back to the blocks");
        self.bytes
    }

    pub(super) fn has_block(&self) -> bool {
        self.block.is_some()
    }
}

impl Deref for Output {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        &self.bytes
    }
}

impl DerefMut for Output {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }
}

impl Block {
    fn is_of(self, bytes: &Vec<u8>) -> bool {
        bytes.as_ptr().addr() == self.start && bytes.capacity() == self.bytes
    }
}

impl Blocks {
    /// Blocks with these numbers, without memory so far.
    pub(crate) fn new(numbers: std::ops::Range<u16>, block_bytes: usize, min_bytes: usize) -> Self {
        Self { free: Vec::new(), lost: numbers.collect(), block_bytes, min_bytes }
    }

    /// Whether an output of so many bytes is worth a block, and fits.
    #[inline]
    pub(super) fn suits(&self, bytes: usize) -> bool {
        // With room for one that is a little larger.
        bytes >= self.min_bytes && bytes <= self.block_bytes / 4 * 3 && !self.free.is_empty()
    }

    /// Registered memory for one output.
    pub(super) fn take(&mut self) -> Option<Output> {
        self.free.pop()
    }

    /// Takes memory back, if it is a block's; gives back what is not.
    pub(super) fn give(&mut self, mut output: Output) -> Option<Output> {
        let Some(block) = output.block else { return Some(output) };
        if block.is_of(&output.bytes) {
            output.clear();
            self.free.push(output);
            return None;
        }
        self.lost.push(block.number);
        Some(Output::new(output.bytes))
    }

    /// Whether a block needs memory.
    #[inline]
    pub(crate) fn has_lost(&self) -> bool {
        !self.lost.is_empty()
    }

    /// Gives memory to a block that has none. `register` tells the kernel; if it fails, there is
    /// one block less.
    pub(crate) fn renew(&mut self, register: impl FnOnce(u16, &mut Vec<u8>) -> bool) {
        let Some(number) = self.lost.pop() else { return };
        let mut bytes = Vec::with_capacity(self.block_bytes);
        let is_registered = register(number, &mut bytes);
        if is_registered {
            let block = Block { number, start: bytes.as_ptr().addr(), bytes: bytes.capacity() };
            self.free.push(Output { bytes, block: Some(block) });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks(count: u16) -> Blocks {
        let mut blocks = Blocks::new(0..count, 1000, 100);
        while blocks.has_lost() {
            blocks.renew(|_, bytes| bytes.capacity() >= 1000);
        }
        blocks
    }

    #[test]
    fn blocks_are_for_what_is_large_and_fits() {
        let mut blocks = blocks(1);
        for (bytes, suits) in [(99, false), (100, true), (750, true), (751, false)] {
            assert_eq!(blocks.suits(bytes), suits, "{bytes}");
        }
        let output = blocks.take().expect("a block");
        assert!(!blocks.suits(100), "there is none left");
        assert!(blocks.give(output).is_none() && blocks.suits(100));
    }

    #[test]
    fn memory_that_has_moved_is_not_used_under_the_name_of_its_block() {
        let mut blocks = blocks(1);
        let mut output = blocks.take().expect("a block");
        output.resize(1000, 1);
        assert_eq!(output.registered(), Some(0));
        let more = output.capacity() + 1;
        output.resize(more, 1);
        assert_eq!(output.registered(), None);
        let moved = blocks.give(output).expect("it is not the block's");
        assert!(!moved.has_block() && blocks.has_lost());
        blocks.renew(|number, _| number == 0);
        let output = blocks.take().expect("the block has new memory");
        assert_eq!((output.registered(), output.len()), (Some(0), 0));
    }

    #[test]
    fn block_that_cannot_be_registered_is_no_more() {
        let mut blocks = Blocks::new(0..2, 1000, 100);
        blocks.renew(|_, _| false);
        blocks.renew(|_, _| true);
        assert!(blocks.take().is_some() && blocks.take().is_none() && !blocks.has_lost());
    }
}
