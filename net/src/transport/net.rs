//! The sockets of one shard: completions in, requests to the shard; answers out, in one call.
//!
//! A driver calls, in this order and for ever: [`Net::receive`], `Shard::poll` with
//! [`Net::outside`], [`Net::flush`].
//!
//! # Invariants
//! - At most one receive and one send are under way per connection.
//! - A connection that receives nothing keeps `wants_receive` until a receive is queued, whatever
//!   went wrong before. It is in `unarmed` unless its session takes no bytes for now; then the
//!   session's being dirty again brings it back.
//! - Nothing looks at all connections; what has something to do is in a list.

#![expect(unsafe_code, reason = "memory that the kernel reads and writes")]

mod complete;

use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::RawFd;
use std::{fmt, io};

use coreside_shard::Outside;
use io_uring::cqueue;

use super::accept::Acceptor;
use super::buffers::{Buffers, GROUP};
use super::error::NetError;
use super::ring::{Completion, Ring};
use super::socket::{GENERATION_MASK, Kind, Socket, parts, token};
use crate::resp::{Facts, Intake, Limits, Sessions};
use crate::sessions::{SessionId, SessionsStats};

/// How a net is set up.
#[derive(Clone, Copy, Debug)]
pub struct NetConfig {
    /// The bounds of the sessions.
    pub limits: Limits,
    /// How many buffers the kernel receives into: a power of two, at most 32,768.
    pub buffers: u16,
    /// Bytes of each of them. A receive takes a whole buffer, however little arrives.
    ///
    /// 4 and 16 KiB cost the same processor time per command, from requests of 36 bytes to values
    /// of 16 kB (differences below the spread of 5 %), so the default is the one that takes less
    /// memory.
    pub buffer_bytes: u32,
}

impl Default for NetConfig {
    fn default() -> Self {
        Self { limits: Limits::default(), buffers: 1024, buffer_bytes: 4096 }
    }
}

/// What a net has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetStats {
    /// What its sessions have done.
    pub sessions: SessionsStats,
    /// System calls to submit and collect.
    pub enters: u64,
    /// Connections turned away because there were too many.
    pub refused: u64,
    /// Receives that ended because no buffer was free.
    pub buffers_exhausted: u64,
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
    ring: Ring,
    buffers: Buffers,
    sessions: Sessions,
    sockets: Vec<Option<Socket>>,
    acceptor: Option<Acceptor>,
    /// Connections whose receive is to be started.
    unarmed: Vec<SessionId>,
    batch: Vec<MaybeUninit<cqueue::Entry>>,
    refused: u64,
    buffers_exhausted: u64,
    failure: Option<io::Error>,
    /// The kernel takes a ring's operations from one thread only.
    of_one_thread: PhantomData<*const ()>,
}

/// Completions taken per pass; what is left waits for the next one.
const BATCH: usize = 512;

impl Net {
    /// A net of the calling thread, with or without a socket to listen on.
    ///
    /// # Errors
    /// What the kernel refused. Linux 6.1 is the oldest that has what is needed.
    pub fn new(config: NetConfig, listener: Option<TcpListener>) -> Result<Self, NetError> {
        let acceptor = listener.map(Acceptor::new).transpose()?;
        let mut ring = Ring::new()?;
        // SAFETY: `Net` drops its ring before its buffers, and so does a failure behind this line.
        let buffers =
            unsafe { Buffers::new(&mut ring, config.buffers, config.buffer_bytes as usize)? };
        Ok(Self {
            ring,
            buffers,
            sessions: Sessions::new(config.limits),
            sockets: Vec::new(),
            acceptor,
            unarmed: Vec::new(),
            batch: (0..BATCH).map(|_| MaybeUninit::uninit()).collect(),
            refused: 0,
            buffers_exhausted: 0,
            failure: None,
            of_one_thread: PhantomData,
        })
    }

    /// Takes what arrived and sends on the commands that are whole. Returns how much there was to
    /// do: 0 means that nothing happened.
    ///
    /// # Cost
    /// A system call only if the kernel has flagged work and no completion is waiting.
    pub fn receive<I: Intake>(&mut self, intake: &mut I) -> usize {
        let resumed = self.sessions.resume(intake);
        if self.ring.wants_collect() && !self.ring.has_completions() {
            self.enter();
        }
        let mut batch = std::mem::take(&mut self.batch);
        let count = self.ring.take(&mut batch);
        for entry in &batch[..count] {
            // SAFETY: `take` has filled the first `count` entries.
            let completion = Completion::from(unsafe { entry.assume_init_ref() });
            self.complete(completion, intake);
        }
        self.batch = batch;
        self.buffers.publish();
        resumed + count
    }

    /// Where the shard's answers go.
    pub fn outside(&mut self) -> &mut dyn Outside {
        &mut self.sessions
    }

    /// Sends the answers, closes what is done, receives where there is room again. Returns how many
    /// connections it dealt with.
    ///
    /// # Errors
    /// The ring is broken; nothing can be expected of this net any more.
    ///
    /// # Cost
    /// At most one system call (one more per 1,024 operations), none if there is nothing to submit.
    pub fn flush(&mut self) -> Result<usize, NetError> {
        let mut count = 0;
        while let Some(id) = self.sessions.next_dirty() {
            self.attend(id);
            count += 1;
        }
        if !self.unarmed.is_empty() {
            count += self.arm();
        }
        if let Some(acceptor) = &mut self.acceptor
            && acceptor.wants_start()
        {
            acceptor.start(&mut self.ring);
        }
        if self.ring.wants_enter() {
            self.enter();
        }
        match self.failure.take() {
            Some(error) => Err(NetError::Enter(error)),
            None => Ok(count),
        }
    }

    /// Has the kernel signal `eventfd` when something arrives while wake-ups are on (see
    /// [`prepare_park`](Self::prepare_park)).
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn register_eventfd(&mut self, eventfd: RawFd) -> Result<(), NetError> {
        self.ring.register_eventfd(eventfd).map_err(NetError::Wakeup)
    }

    /// Switches wake-ups on, and says whether it is safe to sleep: if not, something has arrived
    /// in the meantime, wake-ups are off again, and the driver should go on.
    pub fn prepare_park(&mut self) -> bool {
        self.ring.set_wakeups(true);
        // What arrived before the switch was not signalled; look again now that it would be.
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
        let may_sleep = self.is_idle();
        if !may_sleep {
            self.ring.set_wakeups(false);
        }
        may_sleep
    }

    /// Switches wake-ups off; to be called after every sleep.
    pub fn unpark(&mut self) {
        self.ring.set_wakeups(false);
    }

    /// Whether the next pass would find nothing to do.
    pub fn is_idle(&mut self) -> bool {
        !self.ring.has_completions()
            && !self.ring.wants_enter()
            && !self.sessions.has_dirty()
            && !self.sessions.has_ready()
            && self.acceptor.as_ref().is_none_or(|acceptor| !acceptor.wants_start())
    }

    /// Whether an answer is owed, or something is to be sent or closed.
    pub fn has_unfinished_work(&self) -> bool {
        self.sessions.owed_count() > 0
            || self.sessions.has_dirty()
            || self.sockets.iter().flatten().any(|socket| socket.sending || socket.closing)
    }

    /// Stops listening, parses no more commands, and closes each connection when what it is owed
    /// has been sent. Done when [`connection_count`](Self::connection_count) is 0.
    pub fn drain(&mut self) {
        // Connections that wait to be accepted are refused by the kernel from here on. What the
        // kernel still does for the listener ends with it.
        if let Some(acceptor) = self.acceptor.take() {
            acceptor.stop();
        }
        self.sessions.drain();
    }

    /// How many connections are open.
    pub fn connection_count(&self) -> usize {
        self.sessions.open_count()
    }

    /// What was done so far.
    pub fn stats(&self) -> NetStats {
        NetStats {
            sessions: self.sessions.stats(),
            enters: self.ring.enters(),
            refused: self.refused,
            buffers_exhausted: self.buffers_exhausted,
        }
    }

    /// Sets what `INFO` and `HELLO` say about the node.
    pub fn set_facts(&mut self, facts: Facts) {
        self.sessions.set_facts(facts);
    }

    fn enter(&mut self) {
        if let Err(error) = self.ring.enter() {
            self.failure = Some(error);
        }
    }

    /// Sends, closes, or receives again.
    fn attend(&mut self, id: SessionId) {
        let Some(socket) = find(&mut self.sockets, id.slot, id.generation & GENERATION_MASK) else {
            debug_assert!(false, "every session has its socket");
            return;
        };
        if socket.closing {
            return;
        }
        if self.sessions.is_finished(id) {
            socket.shut_down();
            self.release_if_quiet(id.slot);
            return;
        }
        if socket.wants_receive {
            list(&mut self.unarmed, socket);
        }
        if socket.sending {
            return;
        }
        if let Some(bytes) = self.sessions.begin_send(id) {
            // SAFETY: the session leaves the bytes in place until `end_send` or `close`, and is
            // closed only when no send is under way.
            socket.sending =
                unsafe { self.ring.send(socket.descriptor(), bytes, token(Kind::Send, id)) };
            if !socket.sending {
                // The ring takes nothing even after an enter: it is broken, and `flush` says so.
                self.sessions.kill(id);
            }
        }
    }

    /// Starts the receives that are wanted and possible; returns how many.
    fn arm(&mut self) -> usize {
        let mut count = 0;
        let Self { unarmed, sockets, sessions, ring, .. } = self;
        unarmed.retain(|id| {
            let generation = id.generation & GENERATION_MASK;
            let Some(socket) = find(sockets, id.slot, generation) else {
                return false;
            };
            socket.listed = false;
            if socket.closing || socket.input_ended {
                socket.wants_receive = false;
            } else if sessions.wants_input(*id) {
                let token = token(Kind::Receive, *id);
                socket.receiving = ring.receive(socket.descriptor(), GROUP, token);
                socket.wants_receive = !socket.receiving;
                socket.listed = !socket.receiving;
                count += usize::from(socket.receiving);
            }
            socket.listed
        });
        count
    }

    /// Lets go of a connection for which the kernel does nothing any more.
    fn release_if_quiet(&mut self, slot: u32) {
        let place = &mut self.sockets[slot as usize];
        if let Some(socket) = place
            && socket.is_quiet()
        {
            self.sessions.close(socket.id);
            *place = None;
        }
    }
}

impl Drop for Net {
    /// Has the kernel let go of the memory of sends and receives before it is freed.
    fn drop(&mut self) {
        for socket in self.sockets.iter_mut().flatten() {
            socket.shut_down();
        }
        // A shut-down socket completes everything at once; the bound is for a broken ring, whose
        // operations end when it is closed, which happens before any memory is freed.
        for _ in 0..DROP_PASSES_MAX {
            if self.sockets.iter().flatten().all(Socket::is_quiet) || self.ring.enter().is_err() {
                return;
            }
            let mut batch = std::mem::take(&mut self.batch);
            let count = self.ring.take(&mut batch);
            for entry in &batch[..count] {
                // SAFETY: `take` has filled the first `count` entries.
                let completion = Completion::from(unsafe { entry.assume_init_ref() });
                let (kind, slot, generation) = parts(completion.token);
                let socket = find(&mut self.sockets, slot, generation);
                match (kind, socket) {
                    (Some(Kind::Receive), Some(socket)) => socket.receiving = completion.more,
                    (Some(Kind::Send), Some(socket)) => socket.sending = false,
                    _ => {}
                }
            }
            self.batch = batch;
        }
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

#[inline]
fn find(sockets: &mut [Option<Socket>], slot: u32, generation: u32) -> Option<&mut Socket> {
    let socket = sockets.get_mut(slot as usize)?.as_mut()?;
    (socket.id.generation & GENERATION_MASK == generation).then_some(socket)
}

/// Has the receive of a connection started at the next flush.
fn list(unarmed: &mut Vec<SessionId>, socket: &mut Socket) {
    if !socket.listed {
        socket.listed = true;
        unarmed.push(socket.id);
    }
}
