//! What long messages cost the one who receives them, copied from buffers of the net and straight
//! into place: `cargo bench -p coreside-net --bench large` (add `-- 20` for twenty rounds).
//!
//! Counted is the processor time of the passes that had something to do, per message. The two take
//! turns; the median over the rounds is shown, with the least and the greatest.

#![expect(unsafe_code, reason = "the processor time of a thread is a system call's")]

#[path = "../tests/support/fake.rs"]
mod fake;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use coreside_net::native::frame::{HEADER_BYTES, Header, Kind, VERSION};
use coreside_net::native::{Hello, Limits};
use coreside_net::{Listeners, Net, NetConfig, listen};
use fake::Fake;

const SIZES: [usize; 4] = [64 << 10, 128 << 10, 256 << 10, 1 << 20];
/// Bytes that are sent per round.
const ROUND_BYTES: usize = 16 << 20;
/// Messages that are sent before the first answer is waited for.
const WINDOW: usize = 4;

fn main() {
    // Cargo passes `--bench`; a run by hand may pass rounds. By default it is quick, for CI.
    let rounds = std::env::args().skip(1).find_map(|word| word.parse().ok()).unwrap_or(3);
    for size in SIZES {
        let mut copied = Target::new(size, u32::MAX);
        let mut direct = Target::new(size, 16 << 10);
        let mut times = [Vec::new(), Vec::new()];
        for _ in 0..rounds {
            times[0].push(copied.round());
            times[1].push(direct.round());
        }
        let [copied, direct] = times.map(|mut times| {
            times.sort_by(f64::total_cmp);
            (times[times.len() / 2], times[0], times[times.len() - 1])
        });
        println!(
            "{:>7} bytes: copied {:7.1} us ({:.1} to {:.1}), in place {:7.1} us ({:.1} to {:.1}), \
             ratio {:.2}",
            size,
            copied.0,
            copied.1,
            copied.2,
            direct.0,
            direct.1,
            direct.2,
            copied.0 / direct.0
        );
    }
}

/// A net on a thread of its own, and a client of it.
struct Target {
    stream: TcpStream,
    message: Vec<u8>,
    shared: Arc<Shared>,
    thread: Option<thread::JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    busy_ns: AtomicU64,
    stop: AtomicBool,
}

impl Target {
    fn new(size: usize, direct_min_bytes: u32) -> Self {
        let listener = listen("127.0.0.1:0".parse().expect("an address"), 1);
        let listener = listener.expect("a free port").remove(0);
        let address = listener.local_addr().expect("it is bound");
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let thread = thread::spawn(move || {
            let native = Limits { frame_bytes_max: 4 << 20, ..Limits::default() };
            let config = NetConfig { native, direct_min_bytes, ..NetConfig::default() };
            let listeners = Listeners { native: Some(listener), ..Listeners::default() };
            drive(&mut Net::new(config, listeners).expect("io_uring"), &theirs);
        });
        let mut stream = TcpStream::connect(address).expect("the net listens");
        let mut hello = Vec::new();
        let messages = Vec::new();
        Hello { versions: (VERSION, VERSION), shard: None, cluster: 0, messages }.write(&mut hello);
        stream.write_all(&hello).expect("sent");
        let header = read_header(&mut stream);
        let mut welcome = vec![0; header.padded() - HEADER_BYTES];
        stream.read_exact(&mut welcome).expect("a welcome");
        let header = Header { length: size as u32, ..Header::new(Kind::Ping) };
        let mut message = header.to_bytes().to_vec();
        message.resize(size, 7);
        Self { stream, message, shared, thread: Some(thread) }
    }

    /// Sends messages, each of which is answered. Returns microseconds of the net per message.
    fn round(&mut self) -> f64 {
        let count = ROUND_BYTES / self.message.len();
        let before_ns = self.shared.busy_ns.load(Ordering::Acquire);
        let mut unanswered = 0;
        for sent in 0..count {
            self.stream.write_all(&self.message).expect("sent");
            unanswered += 1;
            while unanswered >= WINDOW || (sent + 1 == count && unanswered > 0) {
                read_header(&mut self.stream);
                unanswered -= 1;
            }
        }
        let busy_ns = self.shared.busy_ns.load(Ordering::Acquire) - before_ns;
        busy_ns as f64 / 1e3 / count as f64
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the net does not panic");
        }
    }
}

fn drive(net: &mut Net, shared: &Shared) {
    let mut fake = Fake::default();
    let mut busy_ns = 0;
    while !shared.stop.load(Ordering::Acquire) {
        let begun_ns = now_ns();
        let received = net.receive(&mut fake);
        let sent = net.flush().expect("the ring works");
        if received + sent > 0 {
            busy_ns += now_ns() - begun_ns;
            shared.busy_ns.store(busy_ns, Ordering::Release);
        } else {
            thread::yield_now();
        }
    }
}

fn read_header(stream: &mut TcpStream) -> Header {
    let mut bytes = [0; HEADER_BYTES];
    stream.read_exact(&mut bytes).expect("an answer");
    Header::read(&bytes, u32::MAX).expect("a frame").expect("a whole header")
}

/// Processor time of this thread.
fn now_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes the time, which lives through the call.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
