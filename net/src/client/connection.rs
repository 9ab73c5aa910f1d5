//! What requests and the client's thread share: output, and asks that wait for their answers.
//!
//! # Sending
//! Whoever makes a request writes it behind what waits and, unless somebody is sending already,
//! sends all of it. So requests that come together leave together, and nobody waits for a socket:
//! what it does not take, the client's thread sends later.

use std::net::{Shutdown, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use coreside_shard::rkyv::util::AlignedVec;
use coreside_shard::{Encode, Handler, KeyWords, Message, Table, WireError};

use super::wakeup::{Wakeup, send_some};
use super::{ClientConfig, ClientError};
use crate::native::Welcome;
use crate::native::frame::{ALIGN, Code, Header, Kind};
use crate::tls::{Channel, Opened, TlsError};

/// Waits for the answer to an ask.
pub(super) trait Pending: Send {
    /// Takes the archive of the reply, or why there is none.
    fn end(self: Box<Self>, answer: Result<&[u8], Code>);
}

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
    /// Whole frames, except that `sent` bytes at the front are gone where there is no TLS.
    output: Vec<u8>,
    sent: usize,
    tls: Option<Box<Channel>>,
    /// What TLS has made of output, except that `sent` bytes at the front are gone.
    sealed: Vec<u8>,
    /// Somebody is sending.
    sending: bool,
    /// The socket takes no more: the client's thread waits until it does.
    blocked: bool,
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
            output: Vec::new(),
            sent: 0,
            tls,
            sealed: Vec::new(),
            sending: false,
            blocked: false,
        });
    }

    /// The connection is lost: nobody will say what became of what was sent.
    pub(super) fn down(&self) {
        let mut state = self.lock();
        state.link = None;
        let calls = std::mem::take(&mut state.calls);
        drop(state);
        for pending in calls.into_pending() {
            pending.end(Err(Code::MaybeExecuted));
        }
    }

    pub(super) fn tell(
        &self,
        number: u16,
        key: KeyWords,
        message: &impl Encode,
    ) -> Result<(), Unsent> {
        let mut state = self.lock();
        let header = Header::new(Kind::Tell);
        state.write(header, number, key, message, self.common.config.output_bytes_max)?;
        self.send(state);
        Ok(())
    }

    pub(super) fn ask(
        &self,
        number: u16,
        key: KeyWords,
        message: &impl Encode,
        within: Duration,
        pending: Box<dyn Pending>,
    ) -> Result<(), (Unsent, Box<dyn Pending>)> {
        let mut state = self.lock();
        match &state.link {
            None => return Err((Unsent::Down, pending)),
            Some(up) if state.calls.len() >= up.calls_max => return Err((Unsent::Full, pending)),
            Some(_) => {}
        }
        let call = state.calls.next();
        let time_us = u32::try_from(within.as_micros()).unwrap_or(u32::MAX).max(1);
        let header = Header { call, time_us, ..Header::new(Kind::Ask) };
        let output_bytes_max = self.common.config.output_bytes_max;
        if let Err(unsent) = state.write(header, number, key, message, output_bytes_max) {
            return Err((unsent, pending));
        }
        // An instant that the clock cannot name is as good as never.
        let deadline = Instant::now().checked_add(within + GRACE);
        // The client's thread sleeps until the first deadline that it knows of.
        let first = state.calls.len() == 0;
        state.calls.put(call, pending, deadline);
        self.send(state);
        if first {
            self.common.wakeup.wake();
        }
        Ok(())
    }

    /// Answers a ping.
    pub(super) fn pong(&self, call: u32) {
        let mut state = self.lock();
        if let Some(up) = &mut state.link {
            Header { call, ..Header::new(Kind::Pong) }.write(&mut up.output);
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
        let tls = state.link.as_mut().and_then(|up| up.tls.as_mut());
        let Some(tls) = tls else { return Ok(Opened::Last) };
        let opened = tls.open(bytes, input);
        if tls.has_output() {
            self.send(state);
        }
        opened.map_err(TlsError::Rustls)
    }

    /// Sends what waits, unless somebody does so already or the socket takes nothing.
    fn send<'a>(&'a self, mut state: MutexGuard<'a, State>) {
        match &mut state.link {
            Some(up) if !up.sending && !up.blocked => up.sending = true,
            _ => return,
        }
        while let Some(up) = &mut state.link {
            let Some((output, sent)) = up.take_output() else {
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
                    up.put_back(output, sent + taken);
                    (up.sending, up.blocked) = (false, true);
                    drop(state);
                    return self.common.wakeup.wake();
                }
                Ok(_) => up.recycle(output),
                Err(_) => {
                    // The client's thread finds the connection broken, and mends it.
                    up.stream.shutdown(Shutdown::Both).unwrap_or_default();
                    (up.sending, up.blocked) = (false, true);
                    return;
                }
            }
        }
    }

    /// Whether output waits for the socket.
    pub(super) fn is_blocked(&self) -> bool {
        self.lock().link.as_ref().is_some_and(|up| up.blocked)
    }

    /// The socket takes bytes again.
    pub(super) fn unblock(&self) {
        let mut state = self.lock();
        if let Some(up) = &mut state.link {
            up.blocked = false;
            self.send(state);
        }
    }

    /// Gives an answer to whoever waits for it.
    pub(super) fn answer(&self, call: u32, answer: Result<&[u8], Code>) {
        let pending = self.lock().calls.take(call);
        if let Some(pending) = pending {
            pending.end(answer);
        }
    }

    /// Ends what is overdue. Returns how long the next one has, if any waits.
    pub(super) fn expire(&self, now: Instant) -> Option<Duration> {
        let mut state = self.lock();
        let overdue = state.calls.take_overdue(now);
        let left = state.calls.left(now);
        drop(state);
        for pending in overdue {
            pending.end(Err(Code::MaybeExecuted));
        }
        left
    }
}

/// How much longer than the node a client waits: the way there and back.
const GRACE: Duration = Duration::from_millis(50);

impl State {
    /// Writes a message behind what waits.
    fn write(
        &mut self,
        header: Header,
        number: u16,
        key: KeyWords,
        message: &impl Encode,
        output_bytes_max: usize,
    ) -> Result<(), Unsent> {
        let Some(up) = &mut self.link else { return Err(Unsent::Down) };
        if up.unsent_bytes() > output_bytes_max {
            return Err(Unsent::Full);
        }
        let header = Header { message: up.numbers[usize::from(number)], ..header };
        let frame_bytes_max = up.frame_bytes_max as usize;
        let start = up.output.len();
        let content = |out: &mut Vec<u8>| {
            out.extend_from_slice(&key[0].to_le_bytes());
            out.extend_from_slice(&key[1].to_le_bytes());
            message.encode(out)?;
            let fits = out.len() - start <= frame_bytes_max;
            if fits { Ok(()) } else { Err(WireError::Unwritable) }
        };
        header.write_with(&mut up.output, content).map_err(|_| Unsent::Full)
    }
}

impl Up {
    fn unsent_bytes(&self) -> usize {
        self.output.len() + self.sealed.len() - self.sent
    }

    /// What there is to send, and how much of its front is gone already.
    fn take_output(&mut self) -> Option<(Vec<u8>, usize)> {
        let Self { output, sealed, sent, tls, .. } = self;
        let next = match tls {
            Some(tls) => {
                tls.seal(output, sealed);
                tls.flush(sealed);
                output.clear();
                sealed
            }
            None => output,
        };
        let is_empty = next.is_empty();
        (!is_empty).then(|| (std::mem::take(next), std::mem::take(sent)))
    }

    /// Puts what was not sent before what was written meanwhile.
    fn put_back(&mut self, mut output: Vec<u8>, sent: usize) {
        self.sent = sent;
        if self.tls.is_some() {
            debug_assert!(self.sealed.is_empty(), "only whoever sends seals");
            self.sealed = output;
            return;
        }
        output.extend_from_slice(&self.output);
        self.output = output;
    }

    /// Keeps the memory of what was sent, unless a burst made it large.
    fn recycle(&mut self, mut output: Vec<u8>) {
        const BYTES_KEPT_MAX: usize = 256 << 10;
        let place = if self.tls.is_some() { &mut self.sealed } else { &mut self.output };
        if place.capacity() == 0 && output.capacity() <= BYTES_KEPT_MAX {
            output.clear();
            *place = output;
        }
    }
}

/// Asks that wait for their answers, by call number.
#[derive(Default)]
struct Calls {
    places: Vec<Place>,
    free: Vec<u32>,
    len: usize,
    /// When an overdue ask is looked for next; not later than any deadline.
    next_look: Option<Instant>,
}

#[derive(Default)]
struct Place {
    /// The high bits of the call number: tells the calls apart that had this place.
    turn: u32,
    pending: Option<(Box<dyn Pending>, Option<Instant>)>,
}

/// Places take the low bits of a call number.
const PLACE_BITS: u32 = 20;

impl Calls {
    fn len(&self) -> usize {
        self.len
    }

    /// The number of the next call; [`put`](Self::put) makes it one.
    fn next(&mut self) -> u32 {
        let place = match self.free.last() {
            Some(place) => *place,
            None => {
                self.places.push(Place::default());
                let place = self.places.len() as u32 - 1;
                self.free.push(place);
                place
            }
        };
        self.places[place as usize].turn << PLACE_BITS | place
    }

    fn put(&mut self, call: u32, pending: Box<dyn Pending>, deadline: Option<Instant>) {
        let popped = self.free.pop();
        debug_assert_eq!(popped, Some(call & PLACE_MASK));
        self.places[(call & PLACE_MASK) as usize].pending = Some((pending, deadline));
        self.len += 1;
        self.next_look = [self.next_look, deadline].into_iter().flatten().min();
    }

    fn take(&mut self, call: u32) -> Option<Box<dyn Pending>> {
        let number = call & PLACE_MASK;
        let place = self.places.get_mut(number as usize)?;
        if place.turn != call >> PLACE_BITS {
            return None;
        }
        let (pending, _) = place.pending.take()?;
        place.turn = (place.turn + 1) & (u32::MAX >> PLACE_BITS);
        self.free.push(number);
        self.len -= 1;
        Some(pending)
    }

    fn take_overdue(&mut self, now: Instant) -> Vec<Box<dyn Pending>> {
        let mut overdue = Vec::new();
        if self.next_look.is_none_or(|next| next > now) {
            return overdue;
        }
        self.next_look = None;
        for number in 0..self.places.len() as u32 {
            let place = &self.places[number as usize];
            let Some((_, deadline)) = &place.pending else { continue };
            match deadline {
                Some(at) if *at <= now => {
                    let call = place.turn << PLACE_BITS | number;
                    overdue.extend(self.take(call));
                }
                at => self.next_look = [self.next_look, *at].into_iter().flatten().min(),
            }
        }
        overdue
    }

    fn left(&self, now: Instant) -> Option<Duration> {
        self.next_look.filter(|_| self.len > 0).map(|at| at.saturating_duration_since(now))
    }

    fn into_pending(self) -> impl Iterator<Item = Box<dyn Pending>> {
        self.places.into_iter().filter_map(|place| place.pending.map(|(pending, _)| pending))
    }
}

const PLACE_MASK: u32 = (1 << PLACE_BITS) - 1;
