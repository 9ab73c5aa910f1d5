//! Refuses io_uring, as containers do. A filter holds for the thread that installs it, and for the
//! threads and processes that this one starts.

#![expect(unsafe_code, reason = "filters are set with system calls")]

use std::thread;

/// From here on, this thread and those that it starts get this error from `io_uring_setup`.
pub(crate) fn refuse_uring(error: i32) {
    let step = |code: u32, k: u32, jf: u8| libc::sock_filter { code: code as u16, jt: 0, jf, k };
    let mut filter = [
        // The first word of what the filter is given is the number of the call.
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, libc::SYS_io_uring_setup as u32, 1),
        step(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO | error as u32, 0),
        step(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW, 0),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: a flag of this thread.
    let outcome = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    assert_eq!(outcome, 0, "no filter without it");
    // SAFETY: the kernel copies the program, which lives through the call.
    let outcome =
        unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
    assert_eq!(outcome, 0, "the filter is taken: {}", std::io::Error::last_os_error());
}

/// Runs `work` where io_uring is refused with this error.
pub(crate) fn where_refused(error: i32, work: impl FnOnce() + Send + 'static) {
    let refused = thread::spawn(move || {
        refuse_uring(error);
        work();
    });
    refused.join().expect("no panic");
}
