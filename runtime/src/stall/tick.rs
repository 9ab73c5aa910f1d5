//! The tick: a look at a shard's turn from a signal handler, on the shard's own thread.
//!
//! # The signal
//! SIGURG, as Go's runtime has it for preemption: ignored by default, so a late tick harms nobody;
//! not queued, so ticks do not pile up; passed on in silence by debuggers; and wanted by hardly any
//! program. Whoever handles it too is not disturbed: what is not our timer's goes on to them. Only
//! one that is sent to a shard's own thread may coincide with a tick and be lost, as a second of
//! two such signals always may. System calls of handlers are restarted where the kernel can do so.
//!
//! # What the handler may do
//! It interrupts anything, an allocation or a lock being taken. So it reads the clock, reads
//! through a [`WatchPoint`], writes into memory that was set aside, and calls `write` to wake the
//! reporter. For a long stall it also unwinds its own stack, with the unwinder of the C compiler's
//! library, which neither allocates nor waits for a lock once it has run (glibc 2.35 and later find
//! the tables without one; before, with one that a thread may take again). Frame pointers would be
//! simpler to follow, and are not there: neither the standard library nor a release build has them.
#![expect(unsafe_code, reason = "timers and signals are the kernel's interface")]

use std::cell::{Cell, UnsafeCell};
use std::io;
use std::mem::{MaybeUninit, zeroed};
use std::ptr;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use coreside_shard::{Serial, TurnSeen, WatchPoint, What};

use super::{FRAMES_MAX, Sighting, Sightings};

const SIGNAL: libc::c_int = libc::SIGURG;

/// The longest time from one tick to the next.
const TICK_MAX: Duration = Duration::from_millis(1);
/// The shortest.
const TICK_MIN: Duration = Duration::from_micros(100);

thread_local! {
    /// The watch over this thread's shard. Without destructor or first use, so fit for a handler.
    static WATCH: Cell<*const Lookout> = const { Cell::new(ptr::null()) };
}

/// Marks the ticks of our timers.
static MARK: u8 = 0;

/// Who handled the signal before. Set once the handler is installed.
static PREVIOUS: OnceLock<Option<libc::sigaction>> = OnceLock::new();

/// Ticks for one shard while it is awake.
pub(crate) struct Watch {
    timer: libc::timer_t,
    period: Duration,
    lookout: Rc<Lookout>,
}

/// What the handler works with.
struct Lookout {
    shard: u16,
    point: WatchPoint,
    sightings: Arc<Sightings>,
    after_ns: u64,
    backtrace_after_ns: u64,
    hang_after_ns: u64,
    /// Somebody uses `state`: the handler, or whoever it interrupts.
    busy: AtomicBool,
    state: UnsafeCell<State>,
}

/// What earlier ticks saw.
struct State {
    /// The turn under way.
    serial: Option<Serial>,
    since_ns: u64,
    level: Level,
    sighting: Sighting,
}

/// How far a turn has come.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Short,
    Stall,
    Long,
    Hang,
}

impl Watch {
    /// Begins to watch the shard of this thread. It ticks from the start.
    ///
    /// # Errors
    /// The kernel's, when it gives no timer.
    pub(crate) fn start(
        shard: u16,
        point: WatchPoint,
        sightings: Arc<Sightings>,
    ) -> io::Result<Self> {
        install();
        let timer = create_timer()?;
        let config = *sightings.config();
        let ns = |limit: Duration| u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX);
        let lookout = Rc::new(Lookout {
            shard,
            point,
            sightings,
            after_ns: ns(config.after),
            // A hang has a backtrace in any case.
            backtrace_after_ns: ns(config.backtrace_after.min(config.hang_after)),
            hang_after_ns: ns(config.hang_after),
            busy: AtomicBool::new(false),
            state: UnsafeCell::new(State::new()),
        });
        // What the unwinder allocates, it does the first time.
        let mut frames = [0; FRAMES_MAX];
        unwind(&mut frames, 0);
        WATCH.set(Rc::as_ptr(&lookout));
        let period = (config.after / 2).clamp(TICK_MIN, TICK_MAX);
        let watch = Self { timer, period, lookout };
        watch.resume();
        Ok(watch)
    }

    /// Ticks again: the shard is awake.
    pub(crate) fn resume(&self) {
        self.set(self.period);
    }

    /// Ticks no more: the shard is about to sleep. What was seen of its last turn is reported.
    pub(crate) fn pause(&self) {
        self.set(Duration::ZERO);
        self.lookout.look(0);
    }

    fn set(&self, period: Duration) {
        let period = libc::timespec {
            tv_sec: period.as_secs() as libc::time_t,
            tv_nsec: period.subsec_nanos() as libc::c_long,
        };
        let spec = libc::itimerspec { it_interval: period, it_value: period };
        // SAFETY: the timer is ours, and the kernel only reads `spec`.
        unsafe { libc::timer_settime(self.timer, 0, &raw const spec, ptr::null_mut()) };
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.pause();
        // A tick that is still to come finds no watch.
        WATCH.set(ptr::null());
        // SAFETY: the timer is ours, and is not used again.
        unsafe { libc::timer_delete(self.timer) };
    }
}

impl State {
    fn new() -> Self {
        let turn = TurnSeen { what: What::Answer(None), entity: None };
        let (frames, frame_count) = ([0; FRAMES_MAX], 0);
        let sighting = Sighting { turn, lasted_ns: 0, ended: false, frames, frame_count };
        Self { serial: None, since_ns: 0, level: Level::Short, sighting }
    }
}

impl Lookout {
    /// Compares the turn under way with what earlier ticks saw. It was interrupted at the
    /// instruction `at`, if it was.
    fn look(&self, at: usize) {
        // Set: the handler has interrupted a look that is not its own, and leaves it alone.
        if self.busy.swap(true, Ordering::Acquire) {
            return;
        }
        // SAFETY: `busy` was not set, so nobody else has a reference.
        let state = unsafe { &mut *self.state.get() };
        let (serial, now_ns) = (self.point.serial(), monotonic_ns());
        if serial.is_some() && serial == state.serial {
            self.goes_on(state, now_ns, at);
        } else {
            if state.level > Level::Short {
                state.sighting.ended = true;
                self.sightings.push(self.shard, state.sighting);
            }
            state.serial = serial;
            state.since_ns = now_ns;
            state.level = Level::Short;
        }
        self.busy.store(false, Ordering::Release);
    }

    fn goes_on(&self, state: &mut State, now_ns: u64, at: usize) {
        let lasted_ns = now_ns.saturating_sub(state.since_ns);
        let sighting = &mut state.sighting;
        if state.level == Level::Short && lasted_ns >= self.after_ns {
            state.level = Level::Stall;
            sighting.turn = self.point.turn();
            sighting.frame_count = 0;
            sighting.ended = false;
            self.sightings.count(self.shard);
        }
        if state.level == Level::Stall && lasted_ns >= self.backtrace_after_ns {
            state.level = Level::Long;
            sighting.frame_count = unwind(&mut sighting.frames, at);
        }
        sighting.lasted_ns = lasted_ns;
        if state.level == Level::Long && lasted_ns >= self.hang_after_ns {
            state.level = Level::Hang;
            self.sightings.push(self.shard, *sighting);
        }
    }
}

/// The addresses of this thread's stack, innermost first, from the one at `from` on (from the
/// first, where none is there). Returns how many there are.
fn unwind(frames: &mut [usize; FRAMES_MAX], from: usize) -> usize {
    let mut count = 0;
    // SAFETY: other threads are in nobody's way: on Linux this goes to the unwinder without any
    // state of the crate's, and the closure keeps an address and nothing else.
    unsafe {
        backtrace::trace_unsynchronized(|frame| {
            let address = frame.ip().addr();
            if address == from {
                // What is inside of it is the handler. The others are where calls return to, from
                // which names are looked for one before; this one is no call.
                frames[0] = address + 1;
                count = 1;
            } else {
                frames[count] = address;
                count += 1;
            }
            count < FRAMES_MAX
        });
    }
    count
}

/// The instruction that a handler has interrupted.
fn interrupted_at(context: *const libc::c_void) -> usize {
    // SAFETY: the kernel passes it to handlers that asked for it, as ours does.
    let registers = unsafe { &(*context.cast::<libc::ucontext_t>()).uc_mcontext };
    #[cfg(target_arch = "x86_64")]
    let at = registers.gregs[libc::REG_RIP as usize] as usize;
    #[cfg(target_arch = "aarch64")]
    let at = registers.pc as usize;
    at
}

/// Async-signal-safe, as POSIX lists it.
fn monotonic_ns() -> u64 {
    let mut now = MaybeUninit::<libc::timespec>::zeroed();
    // SAFETY: the kernel writes the time there; zeros are a time too.
    let now = unsafe {
        libc::clock_gettime(libc::CLOCK_MONOTONIC, now.as_mut_ptr());
        now.assume_init()
    };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// A timer that sends this thread our signal, not armed yet.
fn create_timer() -> io::Result<libc::timer_t> {
    // SAFETY: all-zero is a valid `sigevent`.
    let mut event: libc::sigevent = unsafe { zeroed() };
    event.sigev_notify = libc::SIGEV_THREAD_ID;
    event.sigev_signo = SIGNAL;
    event.sigev_value.sival_ptr = (&raw const MARK).cast_mut().cast();
    // SAFETY: asks for a number, touches no memory.
    event.sigev_notify_thread_id = unsafe { libc::gettid() };
    let mut timer = MaybeUninit::uninit();
    // SAFETY: `event` is filled in, and the kernel writes the timer's name to `timer`.
    let made =
        unsafe { libc::timer_create(libc::CLOCK_MONOTONIC, &raw mut event, timer.as_mut_ptr()) };
    if made != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call has succeeded, so it is written.
    Ok(unsafe { timer.assume_init() })
}

/// Installs the handler for the process, once, and lets this thread have the signal.
fn install() {
    PREVIOUS.get_or_init(|| {
        // SAFETY: all-zero is a valid `sigaction`, with an empty mask.
        let mut action: libc::sigaction = unsafe { zeroed() };
        action.sa_sigaction = on_tick as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
        let mut previous = MaybeUninit::uninit();
        // SAFETY: the handler does what handlers may; the kernel writes the old one to `previous`.
        let done = unsafe { libc::sigaction(SIGNAL, &raw const action, previous.as_mut_ptr()) };
        // SAFETY: the call has succeeded, so it is written.
        (done == 0).then(|| unsafe { previous.assume_init() })
    });
    // SAFETY: all-zero is a valid set; both calls touch nothing but it and this thread's mask.
    unsafe {
        let mut set: libc::sigset_t = zeroed();
        libc::sigaddset(&raw mut set, SIGNAL);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const set, ptr::null_mut());
    }
}

/// The handler.
extern "C" fn on_tick(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: always there, and this thread's own.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: as above. What we interrupt may be about to read it.
    let errno_before = unsafe { errno.read() };
    if is_tick(info) {
        let lookout = WATCH.get();
        // SAFETY: a watch that is set is alive, and this thread's own.
        if let Some(lookout) = unsafe { lookout.as_ref() } {
            lookout.look(interrupted_at(context));
        }
    } else if let Some(Some(previous)) = PREVIOUS.get() {
        pass_on(previous, signal, info, context);
    }
    // SAFETY: as above.
    unsafe { errno.write(errno_before) };
}

fn is_tick(info: *const libc::siginfo_t) -> bool {
    // SAFETY: the kernel passes it to handlers that asked for it, as ours does.
    let info = unsafe { &*info };
    // SAFETY: what a timer sends has a value.
    info.si_code == libc::SI_TIMER
        && ptr::eq(unsafe { info.si_value() }.sival_ptr, (&raw const MARK).cast())
}

/// Calls whoever handled the signal before us.
fn pass_on(
    previous: &libc::sigaction,
    signal: libc::c_int,
    info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
) {
    type WithInfo = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void);
    type Plain = extern "C" fn(libc::c_int);
    let handler = previous.sa_sigaction;
    if handler == libc::SIG_DFL || handler == libc::SIG_IGN {
        // The default of this signal is to ignore it.
        return;
    }
    if previous.sa_flags & libc::SA_SIGINFO != 0 {
        // SAFETY: the flag says that the handler is of this type.
        let handler = unsafe { std::mem::transmute::<usize, WithInfo>(handler) };
        handler(signal, info, context);
    } else {
        // SAFETY: without the flag it is of this one.
        let handler = unsafe { std::mem::transmute::<usize, Plain>(handler) };
        handler(signal);
    }
}
