//! What it costs to send with and without a copy, by size, measured.
//!
//! A thread sends as a shard would: several outputs under way, each in memory that is used again
//! when the kernel is done with it. Counted is the processor time of that thread, because that is
//! what a shard has too little of; waiting for the peer costs it nothing. The ways of sending take
//! turns, so that what else goes on in the machine meets all of them alike, and the median over the
//! rounds is what counts.

#![expect(unsafe_code, reason = "operations of the kernel on memory of this process")]

use std::io::{self, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::thread;
use std::time::Duration;

use io_uring::{IoUring, cqueue, opcode, types};

use super::error::NetError;

/// What is to be measured.
#[derive(Clone, Debug)]
pub struct Calibration {
    /// Where to send to: something that reads and throws away. `None` for a thread of this process,
    /// over loopback.
    pub peer: Option<SocketAddr>,
    /// Bytes of the outputs.
    pub sizes: Vec<usize>,
    /// How often each size is measured in each way.
    pub rounds: usize,
    /// Bytes that are sent per round, at least.
    pub round_bytes: usize,
}

impl Default for Calibration {
    /// 1 KiB to 1 MiB over loopback, a second or two.
    fn default() -> Self {
        Self {
            peer: None,
            sizes: (10..=20).map(|power| 1 << power).collect(),
            rounds: 9,
            round_bytes: 2 << 20,
        }
    }
}

/// What the outputs of one size cost.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SendCost {
    /// Bytes of an output.
    pub bytes: usize,
    /// Processor time of a usual send, in nanoseconds.
    pub plain_ns: u64,
    /// The same, without a copy.
    pub zero_copy_ns: u64,
    /// The same, from memory of which the kernel keeps the pages; `None` where it does not, because
    /// there is a limit to memory that may be locked.
    pub registered_ns: Option<u64>,
    /// The part of the sends without a copy that the kernel has copied all the same.
    pub copied: f64,
}

/// Ways to send.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Plain,
    ZeroCopy,
    Registered,
}

const WAYS: [Way; 3] = [Way::Plain, Way::ZeroCopy, Way::Registered];

/// Outputs under way at a time.
const UNDER_WAY: usize = 4;

/// How long the peer may take nothing.
const PATIENCE: Duration = Duration::from_secs(10);

impl Calibration {
    /// Measures.
    ///
    /// # Errors
    /// What the kernel refused, or that the peer is gone or takes nothing.
    ///
    /// # Panics
    /// If there is no round.
    pub fn run(&self) -> Result<Vec<SendCost>, NetError> {
        assert!(self.rounds > 0, "a median needs a round");
        let Some(peer) = self.peer else {
            let (stream, theirs) = loopback().map_err(NetError::Connection)?;
            return thread::scope(|scope| {
                scope.spawn(move || throw_away(theirs));
                // It ends with the connection.
                self.measure(stream)
            });
        };
        self.measure(TcpStream::connect(peer).map_err(NetError::Connection)?)
    }

    fn measure(&self, stream: TcpStream) -> Result<Vec<SendCost>, NetError> {
        stream.set_nodelay(true).map_err(NetError::Connection)?;
        let largest = self.sizes.iter().copied().max().unwrap_or_default();
        let mut sender = Sender::new(&stream, largest)?;
        let costs = self.sizes.iter().map(|bytes| self.cost(&mut sender, *bytes)).collect();
        // Before the connection.
        drop(sender);
        costs
    }

    fn cost(&self, sender: &mut Sender, bytes: usize) -> Result<SendCost, NetError> {
        let count = (self.round_bytes / bytes.max(1)).max(2 * UNDER_WAY);
        let ways = if sender.is_registered { &WAYS[..] } else { &WAYS[..2] };
        let mut times = WAYS.map(|_| Vec::with_capacity(self.rounds));
        let (mut copied, mut notices) = (0, 0);
        for _ in 0..self.rounds {
            for (way, times) in ways.iter().zip(&mut times) {
                let round = sender.round(*way, bytes, count).map_err(NetError::Enter)?;
                times.push(round.busy_ns / count as u64);
                (copied, notices) = (copied + round.copied, notices + round.notices);
            }
        }
        let [plain, zero_copy, registered] = times.map(median);
        Ok(SendCost {
            bytes,
            plain_ns: plain.unwrap_or_default(),
            zero_copy_ns: zero_copy.unwrap_or_default(),
            registered_ns: registered,
            copied: f64::from(copied) / f64::from(notices.max(1)),
        })
    }
}

/// Both ends of a connection.
fn loopback() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let ours = TcpStream::connect(listener.local_addr()?)?;
    Ok((ours, listener.accept()?.0))
}

/// Reads what comes.
fn throw_away(mut stream: TcpStream) {
    let mut bytes = vec![0; 256 << 10];
    while stream.read(&mut bytes).is_ok_and(|len| len > 0) {}
}

fn median(mut times: Vec<u64>) -> Option<u64> {
    times.sort_unstable();
    times.get(times.len() / 2).copied()
}

/// One connection, and what is sent on it.
struct Sender {
    ring: IoUring,
    socket: RawFd,
    outputs: Vec<Vec<u8>>,
    is_registered: bool,
}

/// What a round has come to.
#[derive(Default)]
struct Round {
    busy_ns: u64,
    notices: u32,
    copied: u32,
}

impl Sender {
    fn new(stream: &TcpStream, bytes: usize) -> Result<Self, NetError> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .build(4 * UNDER_WAY as u32)
            .map_err(NetError::Ring)?;
        let mut outputs = vec![vec![1; bytes]; UNDER_WAY];
        let pages: Vec<_> = outputs
            .iter_mut()
            .map(|output| libc::iovec { iov_base: output.as_mut_ptr().cast(), iov_len: bytes })
            .collect();
        // SAFETY: the outputs lie still until the ring is dropped: it is the first of the fields.
        let is_registered = unsafe { ring.submitter().register_buffers(&pages) }.is_ok();
        Ok(Self { ring, socket: stream.as_raw_fd(), outputs, is_registered })
    }

    /// Sends `count` outputs and waits until the kernel is done with them.
    fn round(&mut self, way: Way, bytes: usize, count: usize) -> io::Result<Round> {
        let mut round = Round::default();
        let mut free: Vec<usize> = (0..UNDER_WAY).collect();
        let mut left = count;
        let begun_ns = busy_ns();
        while left > 0 || free.len() < UNDER_WAY {
            if left > 0
                && let Some(index) = free.pop()
            {
                self.push(way, bytes, index)?;
                left -= 1;
            }
            self.wait()?;
            for entry in self.ring.completion() {
                let is_notice = cqueue::notif(entry.flags());
                if is_notice {
                    round.notices += 1;
                    round.copied += u32::from(entry.result() < 0);
                } else if entry.result() != bytes as i32 {
                    return Err(refusal(entry.result()));
                }
                if is_notice || !cqueue::more(entry.flags()) {
                    free.push(entry.user_data() as usize);
                }
            }
        }
        round.busy_ns = busy_ns() - begun_ns;
        Ok(round)
    }

    fn push(&mut self, way: Way, bytes: usize, index: usize) -> io::Result<()> {
        /// `IORING_SEND_ZC_REPORT_USAGE`: the notice says whether the kernel has copied.
        const REPORT_USAGE: u16 = 1 << 3;
        let (start, len) = (self.outputs[index].as_ptr(), bytes as u32);
        let socket = types::Fd(self.socket);
        let flags = libc::MSG_NOSIGNAL | libc::MSG_WAITALL;
        let zero_copy =
            || opcode::SendZc::new(socket, start, len).flags(flags).zc_flags(REPORT_USAGE);
        let entry = match way {
            Way::Plain => opcode::Send::new(socket, start, len).flags(flags).build(),
            Way::ZeroCopy => zero_copy().build(),
            Way::Registered => zero_copy().buf_index(Some(index as u16)).build(),
        };
        // SAFETY: the output is as long as the longest that is sent, nobody writes it, and it lies
        // still for longer than the ring is there.
        unsafe { self.ring.submission().push(&entry.user_data(index as u64)) }
            .map_err(|_| io::Error::from_raw_os_error(libc::EBUSY))
    }

    /// Submits what there is and waits for a completion, for as long as the peer may take.
    fn wait(&self) -> io::Result<()> {
        let patience = types::Timespec::from(PATIENCE);
        let limit = types::SubmitArgs::new().timespec(&patience);
        self.ring.submitter().submit_with_args(1, &limit).map(drop)
    }
}

/// Why a send has come to this.
fn refusal(result: i32) -> io::Error {
    match result {
        error if error < 0 => io::Error::from_raw_os_error(-error),
        _ => io::ErrorKind::WriteZero.into(),
    }
}

/// Processor time of this thread.
fn busy_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes the time, which lives through the call.
    let outcome = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    debug_assert_eq!(outcome, 0, "every thread has this clock");
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_measured_and_known_to_copy() {
        let calibration =
            Calibration { sizes: vec![1024, 64 << 10], rounds: 3, ..Calibration::default() };
        let costs = match calibration.run() {
            Ok(costs) => costs,
            Err(error) => return assert!(error.refuses_uring(), "{error}"),
        };
        assert_eq!(costs.len(), 2);
        for cost in costs {
            assert!(cost.plain_ns > 0 && cost.zero_copy_ns > 0 && cost.registered_ns != Some(0));
            assert!(cost.copied > 0.99, "{cost:?}");
        }
    }

    #[test]
    fn peer_that_is_not_there_is_an_error() {
        let nobody = TcpListener::bind(("127.0.0.1", 0)).and_then(|gone| gone.local_addr());
        let peer = Some(nobody.expect("a port"));
        assert!(Calibration { peer, ..Calibration::default() }.run().is_err());
    }
}
