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
//!
//! # Waking
//! To wake a task of a thread that sleeps costs a switch of threads, to and fro where both share a
//! core. So the tasks of one read stand in a line: the client's thread wakes one after the other,
//! and so does whoever of them is polled first, for whose thread the others are neighbours.
//!
//! # Waiting
//! What may not be under way yet waits in the [`Window`], as a whole frame, and is sent when
//! answers and credit come in.

use std::collections::VecDeque;
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsRawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::{Duration, Instant};

use coreside_shard::rkyv::util::AlignedVec;
use coreside_shard::{Encode, Handler, Message, Table};

use super::calls::{Call, Calls, Pending};
use super::output::Output;
use super::state::{GRACE, Letter, State, Unsent, Up, micros};
use super::wakeup::{Wakeup, send_some};
use super::window::{Notice, Sort, Window};
use super::{ClientConfig, ClientError};
use crate::native::Welcome;
use crate::native::frame::{ALIGN, Code, Header, Kind};
use crate::tls::{Channel, Opened, TlsError};

/// What all connections of a client have in common.
pub(super) struct Common {
    pub(super) config: ClientConfig,
    pub(super) table: Arc<Table>,
    pub(super) wakeup: Wakeup,
    /// By message: the number of its entity type.
    pub(super) kinds: Vec<u16>,
    /// The client was dropped.
    closed: AtomicBool,
}

impl Common {
    pub(super) fn new(config: ClientConfig, table: Arc<Table>) -> Result<Self, ClientError> {
        let rows = table.wire();
        let kind = |name| rows.iter().position(|row| row.name.0 == name).unwrap_or_default() as u16;
        let kinds = rows.iter().map(|row| kind(row.name.0)).collect();
        let (wakeup, closed) = (Wakeup::new()?, AtomicBool::new(false));
        Ok(Self { config, table, wakeup, kinds, closed })
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
    /// Tasks whose answers are there, to be woken.
    woken: Mutex<VecDeque<Waker>>,
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
        let state = Mutex::new(State { link: None, calls: Calls::default() });
        Self { common, state, woken: Mutex::default() }
    }

    /// Nothing that is done under the lock can leave the state half changed.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_connected(&self) -> bool {
        self.lock().link.as_ref().is_some_and(|up| !up.leaves)
    }

    /// Whether the node takes the message of this number; `None` while there is no connection.
    pub(super) fn knows(&self, number: u16) -> Option<bool> {
        let state = self.lock();
        state.link.as_ref().map(|up| up.numbers[usize::from(number)].is_some())
    }

    /// The handshake is done.
    pub(super) fn up(
        &self,
        stream: Arc<TcpStream>,
        tls: Option<Box<Channel>>,
        welcome: &Welcome,
        numbers: Vec<Option<u16>>,
    ) {
        self.lock().link = Some(Up {
            stream,
            numbers,
            frame_bytes_max: welcome.frame_bytes_max,
            window: Window::new(welcome),
            output: Output::new(tls),
            sending: false,
            left: false,
            blocked: false,
            broken: false,
            told_at: None,
            leaves: false,
        });
    }

    /// The node takes no more: what waits here is sent to nobody.
    pub(super) fn leave(&self) {
        let mut state = self.lock();
        let Some(up) = &mut state.link else { return };
        up.leaves = true;
        let notices = up.window.clear();
        let waiting = state.calls.take_waiting();
        drop(state);
        let waiting = waiting.iter().map(|call| &*call.pending);
        let waiting = waiting.chain(notices.iter().map(|notice| &**notice));
        self.end_all(waiting.map(|pending| (pending, Err(Code::NotSent))));
    }

    /// The connection is lost: nobody will say what became of what was sent.
    pub(super) fn down(&self) {
        let mut state = self.lock();
        let link = state.link.take();
        let calls = std::mem::take(&mut state.calls);
        drop(state);
        let notices: Vec<_> = link.into_iter().flat_map(|mut up| up.window.clear()).collect();
        self.end_all(notices.iter().map(|notice| (&**notice, Err(Code::NotSent))));
        let calls: Vec<_> = calls.into_calls().collect();
        self.end_all(calls.iter().map(|call| {
            let was_sent = call.account.is_some();
            (&*call.pending, Err(if was_sent { Code::MaybeExecuted } else { Code::NotSent }))
        }));
    }

    /// Sends the message. Returns whether it was sent; otherwise it waits, and `notice` is told
    /// when it does no more.
    pub(super) fn tell<M: Encode>(
        &self,
        letter: Letter<'_, M>,
        notice: Option<Notice>,
    ) -> Result<bool, Unsent> {
        let now = Instant::now();
        let mut state = self.lock();
        if state.write(Header::new(Kind::Tell), letter, notice, &self.common)?.is_none() {
            return Ok(false);
        }
        let Some(up) = &mut state.link else { return Ok(true) };
        let before = up.told_at.replace(now);
        if up.sending || up.left {
            return Ok(true);
        }
        if before.is_some_and(|before| now.saturating_duration_since(before) < TELLS_APART) {
            up.left = true;
            drop(state);
            self.common.wakeup.wake();
            return Ok(true);
        }
        self.send(state);
        Ok(true)
    }

    /// Sends the message and has `pending` get the answer. Returns where the message is in the
    /// output, for [`flush`](Self::flush), if it was left there.
    pub(super) fn ask<M: Encode>(
        &self,
        letter: Letter<'_, M>,
        within: Duration,
        pending: Arc<dyn Pending>,
        leaves: Leaves,
    ) -> Result<Option<u64>, Unsent> {
        let mut state = self.lock();
        let outstanding = state.calls.len();
        let call = state.calls.next().ok_or(Unsent::Full)?;
        let header = Header { call, time_us: micros(within), ..Header::new(Kind::Ask) };
        let account = state.write(header, letter, None, &self.common)?;
        // An instant that the clock cannot name is as good as never.
        let deadline = Instant::now().checked_add(within.saturating_add(GRACE));
        let look = state.calls.next_look();
        state.calls.put(call, Call { pending, deadline, account });
        let is_earlier = state.calls.next_look() != look;
        let waits_at = match &state.link {
            _ if account.is_none() => None,
            Some(Up { output, sending, left, .. }) if leaves == Leaves::Soon => {
                let is_little = outstanding > 0 && output.unsent_bytes() < BYTES_TOGETHER_MAX;
                (is_little && !sending && !left).then(|| output.position())
            }
            _ => None,
        };
        match waits_at {
            None if account.is_some() => self.send(state),
            _ => drop(state),
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

    /// Sends a ping, or the answer to one; nothing to a node that reads nothing.
    pub(super) fn say(&self, kind: Kind, call: u32) {
        let mut state = self.lock();
        if let Some(up) = &mut state.link
            && up.output.unsent_bytes() <= self.common.config.output_bytes_max
        {
            let written = up.output.write(|out| {
                Header { call, ..Header::new(kind) }.write(out);
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
                    up.blocked = true;
                    break;
                }
                Ok(_) => up.output.recycle(output),
                Err(_) => {
                    up.stream.shutdown(Shutdown::Both).unwrap_or_default();
                    (up.sending, up.left, up.broken) = (false, true, true);
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

    /// Whether all tells that were sent are known to have been handled.
    pub(super) fn is_told_all(&self) -> bool {
        self.lock().link.as_ref().is_none_or(|up| up.window.has_no_tells())
    }

    /// Has TLS say that nothing more comes, once. Returns whether that is to be sent now.
    pub(super) fn say_goodbye(&self) -> bool {
        let mut state = self.lock();
        let Some(up) = &mut state.link else { return false };
        let says = up.output.say_goodbye();
        up.left |= says;
        says
    }

    /// Whether sending is left to the client's thread.
    pub(super) fn has_left(&self) -> bool {
        self.lock().link.as_ref().is_some_and(|up| up.left && !up.broken)
    }

    /// Sends what was left, unless the socket takes nothing.
    pub(super) fn send_left(&self, is_writable: bool) {
        let mut state = self.lock();
        if let Some(up) = &mut state.link
            && up.left
            && !up.broken
            && (is_writable || !up.blocked)
        {
            (up.left, up.blocked) = (false, false);
            self.send(state);
        }
    }

    /// Takes out the asks that are answered, each with its answer, and has others go on. Returns
    /// who waited until something was sent that is sent now.
    ///
    /// # Errors
    /// When there is more credit than was taken.
    pub(super) fn take(
        &self,
        answers: Vec<Answer>,
        credit: &[(u32, u32)],
        ended: &mut Vec<(Call, Answer)>,
    ) -> Result<Vec<Notice>, FalseCredit> {
        let mut state = self.lock();
        for answer in answers {
            let Some(call) = state.calls.take(answer.call) else { continue };
            state.end(&call);
            ended.push((call, answer));
        }
        let Some(up) = &mut state.link else { return Ok(Vec::new()) };
        for (account, count) in credit {
            if !up.window.end(*account, Sort::Tell, *count) {
                return Err(FalseCredit);
            }
        }
        Ok(state.go_on())
    }

    /// Ends what waited, and wakes its tasks.
    pub(super) fn end_all<'a>(
        &self,
        ended: impl Iterator<Item = (&'a dyn Pending, Result<&'a [u8], Code>)>,
    ) {
        let mut wakers = VecDeque::<Waker>::new();
        for (pending, answer) in ended {
            let Some(waker) = pending.end(answer) else { continue };
            if wakers.back().is_none_or(|last| !last.will_wake(&waker)) {
                wakers.push_back(waker);
            }
        }
        self.woken().append(&mut wakers);
        loop {
            // Not in the condition of the loop: whoever is woken takes the lock.
            let next = self.woken().pop_front();
            let Some(waker) = next else { return };
            wake(waker);
        }
    }

    /// Wakes the tasks that the client's thread has not come to.
    pub(super) fn wake_others(&self) {
        let wakers = std::mem::take(&mut *self.woken());
        wakers.into_iter().for_each(wake);
    }

    fn woken(&self) -> MutexGuard<'_, VecDeque<Waker>> {
        self.woken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends what no future has sent so far.
    pub(super) fn send_rest(&self) {
        let state = self.lock();
        if state.link.as_ref().is_some_and(|up| up.output.unsent_bytes() > 0) {
            self.send(state);
        }
    }

    /// Ends what is overdue. Returns how long the client's thread may sleep, if there is an end,
    /// and whether the node has left an ask without an answer.
    pub(super) fn expire(&self, now: Instant) -> (Option<Duration>, bool) {
        let mut state = self.lock();
        let overdue = state.calls.take_overdue(now);
        let left = state.calls.left(now);
        if overdue.is_empty() {
            return (left, false);
        }
        overdue.iter().for_each(|call| state.end(call));
        let notices = state.go_on();
        self.send(state);
        self.end_all(notices.iter().map(|notice| (&**notice, Ok(&[][..]))));
        self.end_all(overdue.iter().map(|call| {
            let was_sent = call.account.is_some();
            (&*call.pending, Err(if was_sent { Code::MaybeExecuted } else { Code::Expired }))
        }));
        (left, overdue.iter().any(|call| call.account.is_some()))
    }
}

/// Wakes a task. That may be the last of it, and so drop what is the caller's: a panic there, which
/// the panic hook reports, is not to end the thread that all other tasks rely on.
fn wake(waker: Waker) {
    catch_unwind(AssertUnwindSafe(|| waker.wake())).unwrap_or_default();
}

/// Output that is worth a system call, whatever comes behind it.
const BYTES_TOGETHER_MAX: usize = 32 << 10;

/// A tell so soon behind another has more behind it, in all likelihood.
const TELLS_APART: Duration = Duration::from_micros(50);

/// How often somebody sends what others have written meanwhile, before it is left to the client's
/// thread: everybody has work of their own.
const SENDS_MAX: usize = 8;

/// A node says that more tells were handled than it was sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct FalseCredit;

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use coreside_shard::Registry;

    use super::*;
    use crate::native::frame::VERSION;

    #[test]
    fn pings_of_a_node_that_reads_nothing_fill_no_memory() {
        let table = Registry::new().build().expect("nothing twice");
        let config = ClientConfig { output_bytes_max: 4096, ..ClientConfig::default() };
        let common = Arc::new(Common::new(config, table).expect("a descriptor"));
        let connection = Connection::new(common);
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let stream = Arc::new(TcpStream::connect(address).expect("it listens"));
        let _node = listener.accept().expect("it is there");
        let welcome = Welcome {
            version: VERSION,
            shard: 0,
            shards: 1,
            cluster: 0,
            frame_bytes_max: 1024,
            calls_max: 1,
            tells_max: 1,
            entity_messages_max: 1,
            hash_key: None,
            messages: Vec::new(),
        };
        connection.up(stream, None, &welcome, Vec::new());
        let unsent_bytes = || {
            let state = connection.lock();
            state.link.as_ref().expect("it is up").output.unsent_bytes()
        };
        // Until the socket takes no more, and then as many again.
        let mut pings = 0;
        while unsent_bytes() == 0 {
            connection.say(Kind::Pong, pings);
            pings += 1;
        }
        for call in 0..pings.max(1000) {
            connection.say(Kind::Pong, call);
        }
        assert!(unsent_bytes() <= 4096 + 16, "{} bytes", unsent_bytes());
    }
}
