//! Replies that come out of order leave in order.
//!
//! Every command of a connection takes a sequence number. The reply whose turn it is is written
//! straight to the output; a reply that is early is kept aside until its turn.
//!
//! # Invariants
//! - `head..tail` are the replies owed, of which `early` are kept aside.
//! - A slot that belongs to no early reply is [`Slot::OWED`].
//! - `slots` is empty or has at least as many slots as there were replies owed when the last early
//!   one came, so no two early replies share a slot.
//!
//! # Cost
//! In order: two comparisons. Early: a copy, no allocation in the steady state.

/// The replies that a connection owes.
#[derive(Debug, Default)]
pub(crate) struct Order {
    /// The number of the oldest reply owed.
    head: u32,
    /// The number of the next command.
    tail: u32,
    /// How many replies are kept aside.
    early: u32,
    /// Where the reply `n` is aside: at `n` modulo the length, a power of two.
    slots: Vec<Slot>,
    aside: Vec<u8>,
    /// How many bytes of `aside` belong to replies that are still there.
    aside_live: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Slot {
    start: u32,
    len: u32,
}

impl Slot {
    const OWED: Self = Self { start: u32::MAX, len: 0 };
}

impl Order {
    /// How many replies are owed.
    #[inline]
    pub(crate) fn owed(&self) -> u32 {
        self.tail.wrapping_sub(self.head)
    }

    /// Bytes kept aside.
    #[inline]
    pub(crate) fn aside_bytes(&self) -> usize {
        self.aside.len()
    }

    /// The number of the next command, whose reply is owed from now on.
    #[inline]
    pub(crate) fn take(&mut self) -> u32 {
        let sequence = self.tail;
        self.tail = self.tail.wrapping_add(1);
        sequence
    }

    /// Whether the reply is owed and not aside.
    #[inline]
    pub(crate) fn is_owed(&self, sequence: u32) -> bool {
        let distance = sequence.wrapping_sub(self.head);
        distance < self.owed() && !(self.early > 0 && self.is_aside(sequence, distance))
    }

    fn is_aside(&self, sequence: u32, distance: u32) -> bool {
        (distance as usize) < self.slots.len()
            && self.slots[sequence as usize & (self.slots.len() - 1)] != Slot::OWED
    }

    /// Has `write` write the reply `sequence` to `out` if it is its turn, aside otherwise. Returns
    /// its length.
    #[inline]
    pub(crate) fn put(
        &mut self,
        sequence: u32,
        out: &mut Vec<u8>,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> usize {
        debug_assert!(self.is_owed(sequence), "a reply is owed once");
        if sequence != self.head {
            return self.put_aside(sequence, write);
        }
        let start = out.len();
        write(out);
        let len = out.len() - start;
        self.head = self.head.wrapping_add(1);
        if self.early > 0 {
            self.release(out);
        }
        len
    }

    fn put_aside(&mut self, sequence: u32, write: impl FnOnce(&mut Vec<u8>)) -> usize {
        if self.slots.len() < self.owed() as usize {
            self.grow();
        }
        if self.aside.len() > COMPACT_BYTES_MIN && self.aside.len() > 2 * self.aside_live {
            self.compact();
        }
        let start = self.aside.len();
        write(&mut self.aside);
        let len = self.aside.len() - start;
        let mask = self.slots.len() - 1;
        self.slots[sequence as usize & mask] = Slot { start: start as u32, len: len as u32 };
        self.aside_live += len;
        self.early += 1;
        len
    }

    /// Writes out the early replies whose turn has come.
    fn release(&mut self, out: &mut Vec<u8>) {
        let mask = self.slots.len() - 1;
        while self.early > 0 {
            let slot = &mut self.slots[self.head as usize & mask];
            if *slot == Slot::OWED {
                return;
            }
            let (start, len) = (slot.start as usize, slot.len as usize);
            *slot = Slot::OWED;
            out.extend_from_slice(&self.aside[start..start + len]);
            self.aside_live -= len;
            self.early -= 1;
            self.head = self.head.wrapping_add(1);
        }
        debug_assert_eq!(self.aside_live, 0);
        self.aside.clear();
        // An idle connection should not hold much.
        if self.aside.capacity() > KEPT_BYTES_MAX {
            self.aside = Vec::new();
        }
        if self.slots.len() > KEPT_SLOTS_MAX {
            self.slots = Vec::new();
        }
    }

    fn grow(&mut self) {
        let len = (self.owed() as usize).next_power_of_two().max(SLOTS_MIN);
        let mut slots = vec![Slot::OWED; len];
        if self.early > 0 {
            let (old_mask, mask) = (self.slots.len() - 1, len - 1);
            // An early reply is never further from the head than the old slots reached.
            for distance in 0..self.slots.len() as u32 {
                let sequence = self.head.wrapping_add(distance) as usize;
                slots[sequence & mask] = self.slots[sequence & old_mask];
            }
        }
        self.slots = slots;
    }

    /// Moves the replies that are still there together. Amortized: at least as many bytes were
    /// released as are moved.
    fn compact(&mut self) {
        let mask = self.slots.len() - 1;
        let mut aside = Vec::with_capacity(self.aside_live * 2);
        for distance in 0..self.owed() {
            let slot = &mut self.slots[self.head.wrapping_add(distance) as usize & mask];
            if *slot != Slot::OWED {
                let start = slot.start as usize;
                slot.start = aside.len() as u32;
                aside.extend_from_slice(&self.aside[start..start + slot.len as usize]);
            }
        }
        debug_assert_eq!(aside.len(), self.aside_live);
        self.aside = aside;
    }
}

const SLOTS_MIN: usize = 16;
const COMPACT_BYTES_MIN: usize = 16 * 1024;
const KEPT_BYTES_MAX: usize = 4 * 1024;
const KEPT_SLOTS_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn put(order: &mut Order, sequence: u32, out: &mut Vec<u8>, text: &[u8]) {
        order.put(sequence, out, |buffer| buffer.extend_from_slice(text));
    }

    #[test]
    fn reply_in_turn_leaves_at_once() {
        let (mut order, mut out) = (Order::default(), Vec::new());
        for text in [&b"a"[..], b"b"] {
            let sequence = order.take();
            put(&mut order, sequence, &mut out, text);
        }
        assert_eq!(out, b"ab");
        assert_eq!((order.owed(), order.slots.capacity()), (0, 0));
    }

    #[test]
    fn shuffled_replies_leave_in_order_over_the_wrap_of_the_numbers() {
        let mut random = fastrand(7);
        for round in 0..200u32 {
            let start = u32::MAX - round * 3;
            let mut order = Order { head: start, tail: start, ..Order::default() };
            let (mut out, mut expected, mut open) = (Vec::new(), Vec::new(), Vec::new());
            for step in 0..400u32 {
                if open.len() < 70 && random(2) == 0 {
                    open.push((order.take(), step));
                    let text = vec![b'a' + (step % 26) as u8; step as usize % 300];
                    expected.extend_from_slice(&text);
                } else if !open.is_empty() {
                    let (sequence, step) = open.swap_remove(random(open.len() as u32) as usize);
                    let text = vec![b'a' + (step % 26) as u8; step as usize % 300];
                    put(&mut order, sequence, &mut out, &text);
                }
            }
            while let Some((sequence, step)) = open.pop() {
                let text = vec![b'a' + (step % 26) as u8; step as usize % 300];
                put(&mut order, sequence, &mut out, &text);
            }
            assert_eq!(out, expected, "round {round}");
            assert_eq!((order.owed(), order.early, order.aside.len()), (0, 0, 0));
        }
    }

    #[test]
    fn bytes_aside_stay_bounded_when_something_is_always_early() {
        let (mut order, mut out) = (Order::default(), Vec::new());
        let text = [b'x'; 100];
        // The newest reply always comes first, so there is never a moment without an early one.
        let mut late = order.take();
        for _ in 0..100_000 {
            let newest = order.take();
            let next = order.take();
            put(&mut order, newest, &mut out, &text);
            put(&mut order, late, &mut out, &text);
            late = next;
            out.clear();
            assert!(order.aside.len() <= 2 * COMPACT_BYTES_MIN);
        }
    }

    fn fastrand(seed: u64) -> impl FnMut(u32) -> u32 {
        let mut state = seed;
        move |bound| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as u32 % bound
        }
    }
}
