//! The sockets of one shard: completions in, requests to the shard; answers out, in one call.
//!
//! A driver calls, in this order and for ever: [`Net::receive`], `Shard::poll` with
//! [`Net::outside`], [`Net::flush`].

#![expect(unsafe_code, reason = "memory that the kernel reads and writes")]

use std::marker::PhantomData;
use std::net::TcpListener;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::{fmt, io};

use coreside_shard::{AskError, Encode, Outside, Ticket, ToValue};

use super::buffers::Buffers;
use super::engine::{BATCH, Completion, DriverKind, Engine};
use super::error::NetError;
use super::port::{Moving, Port};
use super::socket::{Kind, Protocol, parts, protocol};
use super::zero_copy::{SendStats, ZeroCopy};
use crate::native;
use crate::native::frame::{Code, Header, Kind as FrameKind};
use crate::resp::{self, Limits};
use crate::sessions::{Blocks, SessionsStats};
use crate::tls::ServerTls;

/// How a net is set up.
#[derive(Clone, Copy, Debug)]
pub struct NetConfig {
    /// How it deals with the kernel (default: io_uring). A node sets it as its own driver says.
    pub driver: DriverKind,
    /// The bounds of the RESP sessions.
    pub limits: Limits,
    /// The bounds of the native sessions.
    pub native: native::Limits,
    /// How many buffers the kernel receives into: a power of two, at most 32,768.
    pub buffers: u16,
    /// Bytes of each of them. A receive takes a whole buffer, however little arrives.
    ///
    /// 4 and 16 KiB cost the same processor time per command, from requests of 36 bytes to values
    /// of 16 kB (differences below the spread of 5 %), so the default is the one that takes less
    /// memory.
    pub buffer_bytes: u32,
    /// So many bytes of a native message, or of an argument of a RESP command, are to be missing
    /// that the rest is received straight into the memory where its beginning lies (default:
    /// 64 KiB). What is received otherwise is copied there, unless a buffer holds the whole of it.
    pub direct_min_bytes: u32,
    /// Which outputs are sent without a copy (default: none). What pays depends on the way to the
    /// clients: over loopback nothing does.
    pub zero_copy: ZeroCopy,
    /// Outputs of each protocol that are written into memory of which the kernel keeps the pages,
    /// at a time, where they are sent without a copy (default: 4; at most 8,192). What the kernel
    /// does not register, because there is a limit to memory that may be locked, it finds anew for
    /// each send.
    pub registered_blocks: u16,
    /// Bytes of each of them (default: 512 KiB). Outputs of up to three quarters are written there.
    pub registered_block_bytes: u32,
}

impl Default for NetConfig {
    fn default() -> Self {
        Self {
            driver: DriverKind::default(),
            limits: Limits::default(),
            native: native::Limits::default(),
            buffers: 512,
            buffer_bytes: 8192,
            direct_min_bytes: 64 << 10,
            zero_copy: ZeroCopy::default(),
            registered_blocks: 4,
            registered_block_bytes: 512 << 10,
        }
    }
}

/// What a net has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetStats {
    /// What its RESP sessions have done.
    pub sessions: SessionsStats,
    /// What its native sessions have done.
    pub native: SessionsStats,
    /// System calls to submit and collect. With epoll: those that had something to do.
    pub enters: u64,
    /// Bytes of output that are there just now, over all connections.
    pub output_bytes: u64,
    /// Bytes of messages that are not handled just now, those of closed connections included.
    pub message_bytes: u64,
    /// Connections turned away because there were too many.
    pub refused: u64,
    /// Receives that ended, or had to wait, because no buffer was free.
    pub buffers_exhausted: u64,
    /// Receive buffers that were kept for messages that are looked at where they lie.
    pub leases: u64,
    /// Those that are just now.
    pub leased: u64,
    /// Receives straight into the memory of a message.
    pub direct_receives: u64,
    /// How outputs were sent.
    pub sends: SendStats,
}

/// The sockets of one shard.
///
/// # Examples
/// A driver that never sleeps:
///
/// ```no_run
/// use coreside_net::{Net, NetError};
/// use coreside_shard::{Now, Shard};
///
/// fn drive(net: &mut Net, shard: &mut Shard, clock: impl Fn() -> Now) -> Result<(), NetError> {
///     loop {
///         net.receive(shard);
///         shard.poll(clock(), net.outside());
///         net.flush()?;
///     }
/// }
/// ```
///
/// One that sleeps gives its eventfd to [`register_eventfd`](Self::register_eventfd) once, and
/// reads it whenever [`prepare_park`](Self::prepare_park) allows.
pub struct Net {
    // Before the buffers and the sessions, whose memory the kernel uses: fields drop in order.
    engine: Engine,
    buffers: Buffers,
    resp: Port<resp::Session>,
    native: Port<native::Session>,
    batch: Vec<Completion>,
    failure: Option<io::Error>,
    /// The kernel takes operations from one thread only.
    of_one_thread: PhantomData<*const ()>,
}

/// The sockets on which a net listens; `None` for a protocol that is not spoken.
#[derive(Debug, Default)]
pub struct Listeners {
    /// For Redis clients.
    pub resp: Option<TcpListener>,
    /// For native clients.
    pub native: Option<TcpListener>,
    /// What all connections are secured with; `None` for plain text.
    pub tls: Option<Arc<ServerTls>>,
}

impl Net {
    /// A net of the calling thread.
    ///
    /// # Errors
    /// What the kernel refused. Linux 6.1 is the oldest that has what is needed of io_uring.
    ///
    /// # Panics
    /// If the numbers in `config` are not as it says.
    pub fn new(config: NetConfig, listeners: Listeners) -> Result<Self, NetError> {
        assert!(config.registered_blocks <= 8192, "the kernel registers no more than 16,384");
        let mut engine = Engine::new(config.driver)?;
        engine.configure_sends(config.zero_copy);
        // SAFETY: `Net` drops its engine before its buffers, and so does a failure from here on.
        let buffers =
            unsafe { Buffers::new(&mut engine, config.buffers, config.buffer_bytes as usize)? };
        let mut net = Self {
            engine,
            buffers,
            resp: Port::new(
                Protocol::Resp,
                config.limits,
                listeners.resp,
                b"-ERR max number of clients reached\r\n".to_vec(),
                config.direct_min_bytes as usize,
            )?,
            native: Port::new(
                Protocol::Native,
                config.native,
                listeners.native,
                go_away(),
                config.direct_min_bytes as usize,
            )?,
            batch: Vec::with_capacity(BATCH),
            failure: None,
            of_one_thread: PhantomData,
        };
        net.reserve_blocks(config);
        net.resp.sessions.set_tls(listeners.tls.clone());
        net.native.sessions.set_tls(listeners.tls);
        Ok(net)
    }

    /// Has large outputs written into registered memory, if they are sent without a copy.
    fn reserve_blocks(&mut self, config: NetConfig) {
        let Self { engine, resp, native, .. } = self;
        let count = config.registered_blocks;
        if !engine.reserve_blocks(2 * count) {
            return;
        }
        let (bytes, min_bytes) =
            (config.registered_block_bytes as usize, engine.zero_copy_min_bytes());
        *resp.sessions.blocks() = Blocks::new(0..count, bytes, min_bytes);
        *native.sessions.blocks() = Blocks::new(count..2 * count, bytes, min_bytes);
        resp.renew_blocks(engine);
        native.renew_blocks(engine);
    }

    /// Says what time it is, counted from anywhere, and closes what has missed a deadline. To be
    /// called before [`receive`](Self::receive); nothing is ever due for whoever does not.
    #[inline]
    pub fn tick(&mut self, now_ns: u64) {
        self.resp.tick(now_ns);
        self.native.tick(now_ns);
    }

    /// When [`tick`](Self::tick) has something to do.
    pub fn next_deadline_ns(&self) -> Option<u64> {
        let deadlines = [self.resp.next_deadline_ns(), self.native.next_deadline_ns()];
        deadlines.into_iter().flatten().min()
    }

    /// Whether a net on io_uring can be had here. Makes a small one and lets it go.
    ///
    /// # Errors
    /// What the kernel refused; [`NetError::refuses_uring`] tells whether that will stay so.
    pub fn probe() -> Result<(), NetError> {
        const BUFFERS: u16 = 1;
        const BUFFER_BYTES: usize = 4096;
        let mut engine = Engine::new(DriverKind::Uring)?;
        // SAFETY: the engine is dropped first, and nothing was asked of it.
        let buffers = unsafe { Buffers::new(&mut engine, BUFFERS, BUFFER_BYTES) };
        drop(engine);
        buffers.map(drop)
    }

    /// Takes what arrived and sends on the commands that are whole. Returns how much there was to
    /// do: 0 means that nothing happened.
    ///
    /// # Cost
    /// A system call only if the kernel has flagged work and no completion is waiting. With epoll
    /// one to ask, and one for each receive.
    pub fn receive<I: resp::Intake + native::Intake>(&mut self, intake: &mut I) -> usize {
        let resumed = self.resp.sessions.resume(intake) + self.native.sessions.resume(intake);
        if self.engine.wants_collect() {
            self.enter();
        }
        let mut batch = std::mem::take(&mut self.batch);
        self.engine.take(&mut batch);
        let count = batch.len();
        for completion in batch.drain(..) {
            self.complete(completion, intake);
        }
        self.batch = batch;
        self.buffers.publish();
        resumed + count
    }

    /// Where the shard's answers go.
    pub fn outside(&mut self) -> &mut dyn Outside {
        self
    }

    /// Sends the answers, closes what is done, receives where there is room again. Returns how many
    /// connections it dealt with.
    ///
    /// # Errors
    /// The engine is broken; nothing can be expected of this net any more.
    ///
    /// # Cost
    /// At most one system call (one more per 1,024 operations), none if there is nothing to submit.
    /// With epoll one for each send.
    pub fn flush(&mut self) -> Result<usize, NetError> {
        // What was looked at in the turns since.
        self.buffers.reclaim();
        self.buffers.publish();
        let count = self.resp.flush(&mut self.engine) + self.native.flush(&mut self.engine);
        self.resp.renew_blocks(&mut self.engine);
        self.native.renew_blocks(&mut self.engine);
        if self.engine.wants_enter() {
            self.enter();
        }
        match self.failure.take() {
            Some(error) => Err(NetError::Enter(error)),
            None => Ok(count),
        }
    }

    /// Has the kernel signal `eventfd` when something arrives while wake-ups are on (see
    /// [`prepare_park`](Self::prepare_park)). Where there is a
    /// [`wait_descriptor`](Self::wait_descriptor), that one says so instead.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn register_eventfd(&mut self, eventfd: RawFd) -> Result<(), NetError> {
        self.engine.register_eventfd(eventfd).map_err(NetError::Wakeup)
    }

    /// What a sleeping driver waits on beside its eventfd: it is readable when something has
    /// arrived. `None` where the eventfd is signalled.
    pub fn wait_descriptor(&self) -> Option<RawFd> {
        self.engine.wait_descriptor()
    }

    /// Switches wake-ups on, and says whether it is safe to sleep: if not, something has arrived
    /// in the meantime, wake-ups are off again, and the driver should go on.
    pub fn prepare_park(&mut self) -> bool {
        self.engine.set_wakeups(true);
        // What arrived before the switch was not signalled; look again now that it would be.
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
        let may_sleep = self.is_idle();
        if !may_sleep {
            self.engine.set_wakeups(false);
        }
        may_sleep
    }

    /// Switches wake-ups off; to be called after every sleep.
    pub fn unpark(&mut self) {
        self.engine.set_wakeups(false);
    }

    /// Whether the next pass would find nothing to do.
    pub fn is_idle(&mut self) -> bool {
        self.engine.is_idle() && self.resp.is_idle() && self.native.is_idle()
    }

    /// Whether an answer is owed, or something is to be sent or closed.
    pub fn has_unfinished_work(&self) -> bool {
        self.resp.has_unfinished_work() || self.native.has_unfinished_work()
    }

    /// Stops listening, parses no more requests, and closes each connection when what it is owed
    /// has been sent. Done when [`connection_count`](Self::connection_count) is 0.
    pub fn drain(&mut self) {
        self.resp.drain(&mut self.engine);
        self.native.drain(&mut self.engine);
    }

    /// How many connections are open, also those that are over and whose peers have still to
    /// confirm what was sent.
    pub fn connection_count(&self) -> usize {
        self.resp.connection_count() + self.native.connection_count()
    }

    /// What was done so far.
    pub fn stats(&self) -> NetStats {
        NetStats {
            sessions: self.resp.sessions.stats(),
            native: self.native.sessions.stats(),
            enters: self.engine.enters(),
            output_bytes: {
                (self.resp.sessions.output_bytes() + self.native.sessions.output_bytes()) as u64
            },
            message_bytes: {
                (self.resp.sessions.message_bytes() + self.native.sessions.message_bytes()) as u64
            },
            refused: self.resp.refused + self.native.refused,
            buffers_exhausted: self.resp.buffers_exhausted
                + self.native.buffers_exhausted
                + self.engine.waits_for_buffers(),
            leases: self.buffers.leases,
            leased: self.buffers.leased() as u64,
            direct_receives: self.resp.direct_receives + self.native.direct_receives,
            sends: self.engine.sends(),
        }
    }

    /// Sets what `INFO` and `HELLO` say about the node.
    pub fn set_facts(&mut self, facts: resp::Facts) {
        self.resp.sessions.set_facts(facts);
    }

    /// Sets what native clients are told about the node.
    pub fn set_native_facts(&mut self, facts: native::Facts) {
        self.native.sessions.set_facts(facts);
    }

    /// Takes the connections that go on at other shards: their nets are to
    /// [adopt](Self::adopt) them.
    pub fn take_moving(&mut self) -> Vec<Moving> {
        std::mem::take(&mut self.native.moving)
    }

    /// Goes on with a connection that another shard's net has given up. It is closed if there are
    /// too many, or this net takes no more.
    pub fn adopt<I: resp::Intake + native::Intake>(&mut self, moving: Moving, intake: &mut I) {
        self.native.adopt(moving, intake);
    }

    #[inline]
    fn complete<I: resp::Intake + native::Intake>(
        &mut self,
        completion: Completion,
        intake: &mut I,
    ) {
        let (Some(kind), slot, generation) = parts(completion.token) else {
            debug_assert!(false, "a token of ours");
            return;
        };
        let Self { engine, buffers, resp, native, .. } = self;
        let place = (slot, generation);
        match (kind, protocol(completion.token)) {
            (Kind::Receive, Protocol::Resp) => {
                resp.received(place, completion, (engine, buffers), intake);
            }
            (Kind::Receive, Protocol::Native) => {
                native.received(place, completion, (engine, buffers), intake);
            }
            (Kind::Direct, Protocol::Resp) => {
                resp.received_direct(place, completion, engine, intake);
            }
            (Kind::Direct, Protocol::Native) => {
                native.received_direct(place, completion, engine, intake);
            }
            (kind, Protocol::Resp) => resp.complete((kind, slot, generation), completion, engine),
            (kind, Protocol::Native) => {
                native.complete((kind, slot, generation), completion, engine)
            }
        }
    }

    fn enter(&mut self) {
        if let Err(error) = self.engine.enter(&mut self.buffers) {
            self.failure = Some(error);
        }
    }
}

impl Outside for Net {
    #[inline]
    fn answer(&mut self, ticket: Ticket, answer: Result<&dyn ToValue, AskError>) {
        self.resp.sessions.answer(ticket, answer);
    }

    #[inline]
    fn answer_wire(&mut self, ticket: Ticket, answer: Result<&dyn Encode, AskError>) {
        self.native.sessions.answer_wire(ticket, answer);
    }
}

/// What a native client is told for which there is no room.
fn go_away() -> Vec<u8> {
    let mut frame = Vec::new();
    Header { code: Code::Limit as u8, ..Header::new(FrameKind::GoAway) }.write(&mut frame);
    frame
}

impl Drop for Net {
    /// Has the kernel let go of the memory of sends and receives before it is freed.
    fn drop(&mut self) {
        if !self.engine.lends_memory() {
            return;
        }
        self.resp.shut_down();
        self.native.shut_down();
        // A shut-down socket completes everything at once; the bound is for a broken ring, whose
        // operations end when it is closed, which happens before any memory is freed.
        for _ in 0..DROP_PASSES_MAX {
            let is_quiet = self.resp.is_quiet() && self.native.is_quiet();
            if is_quiet {
                return;
            }
            if self.engine.enter(&mut self.buffers).is_err() {
                break;
            }
            let mut batch = std::mem::take(&mut self.batch);
            self.engine.take(&mut batch);
            for completion in batch.drain(..) {
                let (Some(kind), slot, generation) = parts(completion.token) else { continue };
                if kind == Kind::Accept {
                    completion.discard();
                    continue;
                }
                match protocol(completion.token) {
                    Protocol::Resp => self.resp.note_end((kind, slot, generation), completion),
                    Protocol::Native => self.native.note_end((kind, slot, generation), completion),
                }
            }
            self.batch = batch;
        }
        // A peer that confirms late must not be sent what others put there, and one that sends late
        // must not write there.
        self.resp.leak();
        self.native.leak();
    }
}

/// More than enough to take a full completion queue.
const DROP_PASSES_MAX: usize = 1000;

impl fmt::Debug for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Net")
            .field("connections", &self.connection_count())
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}
