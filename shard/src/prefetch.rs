//! The processor's hint that a cache line will be needed.
#![expect(unsafe_code, reason = "an instruction that the language does not know")]

/// Starts loading the cache line at `at`, which need not be valid memory.
#[inline(always)]
pub(crate) fn prefetch(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint; it never faults.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}
