//! What requests and the client's thread share: output, and asks that wait for their answers.
//!
//! # Sending
//! Whoever makes a request writes it behind what waits and, unless somebody is sending already,
//! sends all of it. So requests that come together leave together, and nobody waits for a socket:
//! what it does not take, the client's thread sends later.
//!
//! A future does not send at once while answers are outstanding. It has itself polled again, behind
//! the tasks that its executor was going to poll anyway, and sends what all of them have written
//! by then. The requests of one pass of an executor so leave with one system call, and no future
//! relies on another one being polled. What is left by one that nobody polls again leaves with the
//! next answer. A tell behind others is left to the client's thread.

use std::net::{Shutdown, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use coreside_shard::rkyv::util::AlignedVec;
use coreside_shard::{Encode, Handler, KeyWords, Message, Table, WireError};

use super::calls::{Call, Calls, Pending};
use super::output::Output;
use super::wakeup::{Wakeup, send_some};
use super::{ClientConfig, ClientError};
use crate::native::Welcome;
use crate::native::frame::{ALIGN, Code, HEADER_BYTES, Header, Kind};
use crate::tls::{Channel, Opened, TlsError};

/// Why a request was not sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Unsent {
    /// There is no connection.
    Down,
    /// Too much waits already, or the message is longer than a frame may be.
    Full,
}

/// What all connections of a client have in common.
pub(super) struct Common {
    pub(super) config: ClientConfig,
    pub(super) table: Arc<Table>,
    pub(super) wakeup: Wakeup,
    /// The client was dropped.
    closed: AtomicBool,
}

impl Common {
    pub(super) fn new(config: ClientConfig, table: Arc<Table>) -> Result<Self, ClientError> {
        Ok(Self { config, table, wakeup: Wakeup::new()?, closed: AtomicBool::new(false) })
    }

    /// The number of a message in the client's own table.
    pub(super) fn number_of<E: Handler<M>, M: Message>(&self) -> Option<u16> {
        self.table.find_wire::<E, M>()
    }

    /// Ends the client's thread, and every ask.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.wakeup.wake();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }
}

/// One connection, and what comes after it when it is lost.
pub(super) struct Connection {
    common: Arc<Common>,
    state: Mutex<State>,
}

struct State {
    /// `None` while there is no connection.
    link: Option<Up>,
    calls: Calls,
}

/// A connection that is up.
struct Up {
    stream: Arc<TcpStream>,
    /// By number of the client's table: the node's number.
    numbers: Vec<u16>,
    frame_bytes_max: u32,
    calls_max: usize,
    output: Output,
    /// Somebody is sending.
    sending: bool,
    /// Sending is left to the client's thread: the socket takes no more, or more comes soon.
    left: bool,
    /// When the last tell was written.
    told_at: Option<Instant>,
}

/// A message that is about to be written.
pub(super) struct Letter<'a, M> {
    /// Its number in the client's own table.
    pub(super) number: u16,
    pub(super) key: KeyWords,
    pub(super) message: &'a M,
}

/// When a request is sent that has been written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Leaves {
    Now,
    /// Now if no answer is outstanding, else when its future is polled again.
    Soon,
}

/// A frame that answers an ask: its call number, and where in the input its body is.
pub(super) struct Answer {
    pub(super) call: u32,
    pub(super) outcome: Result<(usize, usize), Code>,
}

impl Connection {
    pub(super) fn new(common: Arc<Common>) -> Self {
        Self { common, state: Mutex::new(State { link: None, calls: Calls::default() }) }
    }

    /// Nothing that is done under the lock can leave the state half changed.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_connected(&self) -> bool {
        self.lock().link.is_some()
    }

    /// The handshake is done.
    pub(super) fn up(
        &self,
        stream: Arc<TcpStream>,
        tls: Option<Box<Channel>>,
        welcome: &Welcome,
        numbers: Vec<u16>,
    ) {
        self.lock().link = Some(Up {
            stream,
            numbers,
            frame_bytes_max: welcome.frame_bytes_max,
            calls_max: welcome.calls_max as usize,
            output: Output::new(tls),
            sending: false,
            left: false,
            told_at: None,
        });
    }

    /// The connection is lost: nobody will say what became of what was sent.
    pub(super) fn down(&self) {
        let mut state = self.lock();
        state.link = None;
        let calls = std::mem::take(&mut state.calls);
        drop(state);
        for call in calls.into_calls() {
            call.pending.end(Err(Code::MaybeExecuted));
        }
    }

    pub(super) fn tell<M: Encode>(&self, letter: Letter<'_, M>) -> Result<(), Unsent> {
        let now = Instant::now();
        let mut state = self.lock();
        state.write(Header::new(Kind::Tell), letter, self.common.config.output_bytes_max)?;
        let Some(up) = &mut state.link else { return Ok(()) };
        let before = up.told_at.replace(now);
        if up.sending || up.left {
            return Ok(());
        }
        if before.is_some_and(|before| now.saturating_duration_since(before) < TELLS_APART) {
            up.left = true;
            drop(state);
            self.common.wakeup.wake();
            return Ok(());
        }
        self.send(state);
        Ok(())
    }

    /// Sends the message and has `pending` get the answer. Returns where the message is in the
    /// output, for [`flush`](Self::flush), if it waits there.
    pub(super) fn ask<M: Encode>(
        &self,
        letter: Letter<'_, M>,
        within: Duration,
        pending: Arc<dyn Pending>,
        leaves: Leaves,
    ) -> Result<Option<u64>, Unsent> {
        let mut state = self.lock();
        let outstanding = state.calls.len();
        match &state.link {
            None => return Err(Unsent::Down),
            Some(up) if outstanding >= up.calls_max => return Err(Unsent::Full),
            Some(_) => {}
        }
        let call = state.calls.next().ok_or(Unsent::Full)?;
        let time_us = u32::try_from(within.as_micros()).unwrap_or(u32::MAX).max(1);
        let header = Header { call, time_us, ..Header::new(Kind::Ask) };
        state.write(header, letter, self.common.config.output_bytes_max)?;
        // An instant that the clock cannot name is as good as never.
        let deadline = Instant::now().checked_add(within + GRACE);
        let look = state.calls.next_look();
        state.calls.put(call, Call { pending, deadline });
        let is_earlier = state.calls.next_look() != look;
        let waits_at = match &state.link {
            Some(Up { output, sending, left, .. }) if leaves == Leaves::Soon => {
                let is_little = outstanding > 0 && output.unsent_bytes() < BYTES_TOGETHER_MAX;
                (is_little && !sending && !left).then(|| output.position())
            }
            _ => None,
        };
        match waits_at {
            Some(_) => drop(state),
            None => self.send(state),
        }
        if is_earlier {
            // The client's thread sleeps until the first deadline that it knows of.
            self.common.wakeup.wake();
        }
        Ok(waits_at)
    }

    /// Sends what waits if what was written at `position` is among it.
    pub(super) fn flush(&self, position: u64) {
        let state = self.lock();
        if state.link.as_ref().is_some_and(|up| up.output.waits(position)) {
            self.send(state);
        }
    }

    /// Answers a ping.
    pub(super) fn pong(&self, call: u32) {
        let mut state = self.lock();
        if let Some(up) = &mut state.link {
            let pong = Header { call, ..Header::new(Kind::Pong) };
            let written = up.output.write(|out| {
                pong.write(out);
                Ok::<(), ()>(())
            });
            debug_assert_eq!(written, Ok(()));
            self.send(state);
        }
    }

    /// Takes TLS off bytes that came and appends what is inside to `input`.
    pub(super) fn open(
        &self,
        bytes: &[u8],
        input: &mut AlignedVec<ALIGN>,
    ) -> Result<Opened, TlsError> {
        let mut state = self.lock();
        let tls = state.link.as_mut().and_then(|up| up.output.tls.as_mut());
        let Some(tls) = tls else { return Ok(Opened::Last) };
        let opened = tls.open(bytes, input);
        if tls.has_output() {
            self.send(state);
        }
        opened.map_err(TlsError::Rustls)
    }

    /// Sends what waits, unless somebody does so already or it is left to the client's thread.
    fn send<'a>(&'a self, mut state: MutexGuard<'a, State>) {
        match &mut state.link {
            Some(up) if !up.sending && !up.left => up.sending = true,
            _ => return,
        }
        for _ in 0..SENDS_MAX {
            let Some(up) = &mut state.link else { return };
            let Some((output, sent)) = up.output.take() else {
                up.sending = false;
                return;
            };
            let stream = Arc::clone(&up.stream);
            drop(state);
            let taken = send_some(stream.as_raw_fd(), &output[sent..]);
            state = self.lock();
            // Another connection than the one that was sent to has nothing to do with this.
            let Some(up) = state.link.as_mut().filter(|up| Arc::ptr_eq(&up.stream, &stream)) else {
                return;
            };
            match taken {
                Ok(taken) if sent + taken < output.len() => {
                    up.output.put_back(output, sent + taken);
                    break;
                }
                Ok(_) => up.output.recycle(output),
                Err(_) => {
                    // The client's thread finds the connection broken, and mends it.
                    up.stream.shutdown(Shutdown::Both).unwrap_or_default();
                    (up.sending, up.left) = (false, true);
                    return;
                }
            }
        }
        if let Some(up) = &mut state.link {
            (up.sending, up.left) = (false, up.output.unsent_bytes() > 0);
            let left = up.left;
            drop(state);
            if left {
                self.common.wakeup.wake();
            }
        }
    }

    /// Whether sending is left to the client's thread.
    pub(super) fn has_left(&self) -> bool {
        self.lock().link.as_ref().is_some_and(|up| up.left)
    }

    /// Sends what was left, as far as the socket takes it.
    pub(super) fn send_left(&self) {
        let mut state = self.lock();
        if let Some(up) = &mut state.link {
            up.left = false;
            self.send(state);
        }
    }

    /// Takes out the asks that are answered, each with its answer.
    pub(super) fn take(&self, answers: Vec<Answer>, ended: &mut Vec<(Call, Answer)>) {
        let mut state = self.lock();
        for answer in answers {
            ended.extend(state.calls.take(answer.call).map(|call| (call, answer)));
        }
    }

    /// Sends what no future has sent so far.
    pub(super) fn send_rest(&self) {
        let state = self.lock();
        if state.link.as_ref().is_some_and(|up| up.output.unsent_bytes() > 0) {
            self.send(state);
        }
    }

    /// Ends what is overdue. Returns how long the client's thread may sleep, if there is an end.
    pub(super) fn expire(&self, now: Instant) -> Option<Duration> {
        let mut state = self.lock();
        let overdue = state.calls.take_overdue(now);
        let left = state.calls.left(now);
        drop(state);
        for call in overdue {
            call.pending.end(Err(Code::MaybeExecuted));
        }
        left
    }
}

/// How much longer than the node a client waits: the way there and back.
const GRACE: Duration = Duration::from_millis(50);

/// Output that is worth a system call, whatever comes behind it.
const BYTES_TOGETHER_MAX: usize = 32 << 10;

/// A tell so soon behind another has more behind it, in all likelihood.
const TELLS_APART: Duration = Duration::from_micros(50);

/// How often somebody sends what others have written meanwhile, before it is left to the client's
/// thread: everybody has work of their own.
const SENDS_MAX: usize = 8;

impl State {
    /// Writes a message behind what waits.
    fn write<M: Encode>(
        &mut self,
        header: Header,
        letter: Letter<'_, M>,
        output_bytes_max: usize,
    ) -> Result<(), Unsent> {
        let Some(up) = &mut self.link else { return Err(Unsent::Down) };
        if up.output.unsent_bytes() > output_bytes_max {
            return Err(Unsent::Full);
        }
        let Letter { number, key, message } = letter;
        let header = Header { message: up.numbers[usize::from(number)], ..header };
        let frame_bytes_max = up.frame_bytes_max as usize;
        let content = |out: &mut Vec<u8>| {
            let start = out.len() - HEADER_BYTES;
            out.extend_from_slice(&key[0].to_le_bytes());
            out.extend_from_slice(&key[1].to_le_bytes());
            message.encode(out)?;
            let fits = out.len() - start <= frame_bytes_max;
            if fits { Ok(()) } else { Err(WireError::Unwritable) }
        };
        let written = up.output.write(|out| header.write_with(out, content));
        written.map_err(|_| Unsent::Full)
    }
}
