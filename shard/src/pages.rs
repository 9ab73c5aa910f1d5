//! Memory in large pages: address space that is reserved once and filled as it is needed.
//!
//! A store grows without moving: its region of addresses is as long as it may ever become, and
//! pages behind it are made usable in steps. So a slot's address is one multiplication, growth
//! never copies, and nothing stalls while millions of entities move house.
#![expect(unsafe_code, reason = "mmap, mprotect and madvise are the kernel's interface")]

use std::io;
use std::ptr::NonNull;

/// A reserved region of addresses, usable from its start up to a line that only moves up.
///
/// # Invariants
/// `usable <= reserved`; bytes below `usable` are readable, writable and were zero at first.
pub(crate) struct Region {
    start: NonNull<u8>,
    reserved: usize,
    usable: usize,
}

/// The size of a large page on x86-64 and most of arm64.
const LARGE_PAGE: usize = if cfg!(miri) { 4096 } else { 2 << 20 };

/// Small stores stay on small pages; only what lies behind this is asked to be large.
const SMALL_BYTES: usize = 2 << 20;

/// The longest step by which the usable part grows.
const STEP_MAX: usize = 64 << 20;

// SAFETY: the region is owned memory like a Box<[u8]>; nothing about it is bound to a thread.
unsafe impl Send for Region {}

impl Region {
    /// Reserves addresses for `bytes` bytes (rounded up to large pages); takes no memory yet.
    ///
    /// # Errors
    /// The kernel's error when there is no such stretch of free addresses.
    pub(crate) fn reserve(bytes: usize) -> io::Result<Self> {
        let reserved = bytes.max(1).next_multiple_of(LARGE_PAGE);
        let start = kernel::map(reserved)?;
        Ok(Self { start, reserved, usable: 0 })
    }

    /// The first byte.
    #[inline(always)]
    pub(crate) fn start(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    /// Makes at least the first `bytes` bytes usable. Returns false when the region or the memory
    /// is exhausted.
    #[inline(always)]
    pub(crate) fn ensure(&mut self, bytes: usize) -> bool {
        bytes <= self.usable || self.grow(bytes)
    }

    #[cold]
    fn grow(&mut self, bytes: usize) -> bool {
        if bytes > self.reserved {
            return false;
        }
        // An eighth more, in whole pages: few system calls, little reserve.
        let step = (self.usable / 8).clamp(64 << 10, STEP_MAX);
        let target = bytes.max(self.usable + step);
        let page = if target > SMALL_BYTES { LARGE_PAGE } else { 4096 };
        let target = target.next_multiple_of(page).min(self.reserved);
        // SAFETY: usable <= target <= reserved, so the stretch lies inside our own mapping.
        let from = unsafe { self.start().add(self.usable) };
        let length = target - self.usable;
        if !kernel::make_usable(from, length, target > SMALL_BYTES) {
            return false;
        }
        self.usable = target;
        true
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        kernel::unmap(self.start(), self.reserved);
    }
}

/// The kernel's part.
#[cfg(not(miri))]
mod kernel {
    use super::{LARGE_PAGE, NonNull, io};

    /// Addresses for `reserved` bytes, a multiple of large pages, at a large page's boundary.
    pub(super) fn map(reserved: usize) -> io::Result<NonNull<u8>> {
        // One page more, to start at a large page's boundary.
        let asked = reserved + LARGE_PAGE;
        // SAFETY: a new private mapping without access; no existing memory is touched.
        let mapped = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                asked,
                libc::PROT_NONE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if mapped == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let mapped = mapped.cast::<u8>();
        let lead = mapped.align_offset(LARGE_PAGE);
        unmap(mapped, lead);
        // SAFETY: lead < LARGE_PAGE, so the start lies within what was mapped.
        let start = unsafe { mapped.add(lead) };
        // SAFETY: as above; the rest behind the reserved part is LARGE_PAGE - lead bytes.
        let behind = unsafe { start.add(reserved) };
        unmap(behind, LARGE_PAGE - lead);
        Ok(NonNull::new(start).ok_or(io::ErrorKind::OutOfMemory)?)
    }

    /// Makes a stretch of a region usable. Returns whether there was memory for it.
    pub(super) fn make_usable(from: *mut u8, length: usize, large: bool) -> bool {
        // SAFETY: changes access of our own pages only, which nobody else knows of.
        let outcome =
            unsafe { libc::mprotect(from.cast(), length, libc::PROT_READ | libc::PROT_WRITE) };
        if outcome != 0 {
            return false;
        }
        if large {
            // Advice: where the kernel does not follow it, things are slower, not wrong.
            // SAFETY: our own mapping; the advice does not change contents.
            unsafe { libc::madvise(from.cast(), length, libc::MADV_HUGEPAGE) };
        }
        true
    }

    pub(super) fn unmap(at: *mut u8, bytes: usize) {
        if bytes > 0 {
            // SAFETY: called for stretches of a mapping that this module made and gives up.
            unsafe { libc::munmap(at.cast(), bytes) };
        }
    }
}

/// Miri's kernel maps nothing that cannot be used: all of a region is there from the start.
#[cfg(miri)]
mod kernel {
    use super::{LARGE_PAGE, NonNull, io};
    use std::alloc::{Layout, alloc_zeroed, dealloc};

    fn layout(reserved: usize) -> Layout {
        Layout::from_size_align(reserved, LARGE_PAGE).unwrap_or(Layout::new::<u8>())
    }

    pub(super) fn map(reserved: usize) -> io::Result<NonNull<u8>> {
        // SAFETY: a region has at least a page.
        let start = unsafe { alloc_zeroed(layout(reserved)) };
        Ok(NonNull::new(start).ok_or(io::ErrorKind::OutOfMemory)?)
    }

    pub(super) fn make_usable(_from: *mut u8, _length: usize, _large: bool) -> bool {
        true
    }

    pub(super) fn unmap(at: *mut u8, bytes: usize) {
        // SAFETY: allocated with this layout, and given up.
        unsafe { dealloc(at, layout(bytes)) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn region_grows_in_place_and_starts_zeroed() {
        let mut region = Region::reserve(32 << 20).expect("address space");
        let start = region.start();
        assert!(start.addr().is_multiple_of(LARGE_PAGE));
        for bytes in [1, 4096, 100_000, 5 << 20, 32 << 20] {
            assert!(region.ensure(bytes));
            // SAFETY: below `bytes`, which is usable now.
            let last = unsafe { start.add(bytes - 1) };
            // SAFETY: as above.
            assert_eq!(unsafe { last.read() }, 0);
        }
        assert_eq!(region.start(), start);
        assert!(!region.ensure((32 << 20) + 1), "beyond what was reserved");
    }
}
