//! The operations of one shard where there is no io_uring: calls that do not wait, made when epoll
//! says that they have something to do.
//!
//! Sockets are watched edge-triggered, for reading and writing at once, with one `epoll_ctl` in the
//! life of each. Level-triggered, a socket would have to be taken out and put back whenever its
//! session pauses, and whenever a send begins or ends to wait, or the loop would spin on a socket
//! that is always writable. The price is that readiness must be kept here: an edge is told once.
//!
//! # Invariants
//! - What is said to be ready stays so until a call says `EAGAIN`, or a receive from a stream whose
//!   peer goes on comes back with less than it had room for.
//! - A connection that receives and is readable is in `ready`.
//! - The memory of a send is read only between `send` and the completion of it.

#![expect(unsafe_code, reason = "system calls on memory of this process")]

mod receives;

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use self::receives::Room;
use super::buffers::Buffers;
use super::engine::{BATCH, Completion};
use super::error::NetError;
use super::socket::{Kind, owner, parts, protocol};

/// Events taken per call; the kernel goes round among the rest.
const EVENTS: usize = 256;
/// Connections accepted per pass.
const ACCEPTS: usize = 64;

/// The descriptors of one shard and what is to be done with them.
pub(super) struct Epoll {
    epoll: OwnedFd,
    /// By protocol and slot.
    sockets: [Vec<Option<Watched>>; 2],
    /// By protocol.
    listeners: [Option<Listening>; 2],
    /// Connections with something to receive, by owner. Those that have changed their mind since
    /// are left out when their turn comes.
    ready: VecDeque<u64>,
    done: VecDeque<Completion>,
    events: Vec<libc::epoll_event>,
    calls: u64,
    sends: u64,
    waits_for_buffers: u64,
}

/// A connection.
struct Watched {
    /// Its tokens without their kind.
    owner: u64,
    socket: RawFd,
    /// The token of the receive that is under way.
    receive: Option<u64>,
    /// Where that receive writes, if not into a buffer of the net.
    room: Option<Room>,
    send: Option<Sending>,
    readable: bool,
    /// The stream has an end: no edge follows when what is before it has been received.
    ended: bool,
    /// It is in `ready`.
    listed: bool,
}

/// A send that is under way.
#[derive(Clone, Copy)]
struct Sending {
    token: u64,
    start: *const u8,
    len: usize,
}

/// A listener.
struct Listening {
    listener: RawFd,
    readable: bool,
    accept: Option<u64>,
    poll: Option<u64>,
}

impl Epoll {
    pub(super) fn new() -> Result<Self, NetError> {
        // SAFETY: makes a new descriptor, touches no memory.
        let epoll = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if epoll < 0 {
            return Err(NetError::Epoll(io::Error::last_os_error()));
        }
        Ok(Self {
            // SAFETY: the descriptor is new and ours alone.
            epoll: unsafe { OwnedFd::from_raw_fd(epoll) },
            sockets: [Vec::new(), Vec::new()],
            listeners: [None, None],
            ready: VecDeque::new(),
            done: VecDeque::new(),
            events: vec![libc::epoll_event { events: 0, u64: 0 }; EVENTS],
            calls: 0,
            sends: 0,
            waits_for_buffers: 0,
        })
    }

    /// System calls made, without those that found that nothing has happened.
    pub(super) fn calls(&self) -> u64 {
        self.calls
    }

    /// Outputs that were to be sent.
    pub(super) fn sends(&self) -> u64 {
        self.sends
    }

    /// Passes that ended because no buffer was free.
    pub(super) fn waits_for_buffers(&self) -> u64 {
        self.waits_for_buffers
    }

    /// Readable when there is something to collect.
    pub(super) fn descriptor(&self) -> RawFd {
        self.epoll.as_raw_fd()
    }

    pub(super) fn accept(&mut self, listener: RawFd, token: u64) -> bool {
        // Somebody may wait and be gone again when the accept is made, which must not wait then.
        match set_nonblocking(listener).and_then(|()| self.listen(listener, token)) {
            Ok(listening) => listening.accept = Some(token),
            Err(error) => self.fail(token, &error),
        }
        true
    }

    pub(super) fn poll_listener(&mut self, listener: RawFd, token: u64) -> bool {
        match self.listen(listener, token) {
            Ok(listening) => listening.poll = Some(token),
            Err(error) => self.fail(token, &error),
        }
        true
    }

    /// Forgets the listener of this token's protocol, which is about to be closed.
    pub(super) fn forget_listener(&mut self, token: u64) {
        self.listeners[protocol(token) as usize] = None;
    }

    /// Watches a connection no longer that is not closed here.
    pub(super) fn forget(&mut self, socket: RawFd, token: u64) {
        if self.find(token).is_some() {
            self.sockets[protocol(token) as usize][parts(token).1 as usize] = None;
            self.calls += 1;
            let none = ptr::null_mut();
            // SAFETY: takes a descriptor out of the set, touches no memory.
            let result = unsafe {
                libc::epoll_ctl(self.epoll.as_raw_fd(), libc::EPOLL_CTL_DEL, socket, none)
            };
            debug_assert_eq!(result, 0, "it is watched");
        }
    }

    /// Sends what the socket takes of `bytes`, once it takes any.
    ///
    /// # Safety
    /// `bytes` must stay in place and unchanged until the completion of this operation is taken, or
    /// this is dropped.
    pub(super) unsafe fn send(&mut self, socket: RawFd, bytes: &[u8], token: u64) -> bool {
        self.sends += 1;
        match self.watch(socket, token) {
            Ok(watched) => {
                debug_assert!(watched.send.is_none(), "one send at a time");
                let (start, len) = (bytes.as_ptr(), bytes.len().min(i32::MAX as usize));
                watched.send = Some(Sending { token, start, len });
                self.try_send(token);
            }
            Err(error) => self.fail(token, &error),
        }
        true
    }

    pub(super) fn cancel(&mut self, target: u64, token: u64) -> bool {
        if let Some(watched) = self.find(target)
            && watched.receive.take_if(|receive| *receive == target).is_some()
        {
            self.done.push_back(ended(target, -libc::ECANCELED));
        }
        self.done.push_back(ended(token, 0));
        true
    }

    /// Whether a pass has room for more completions than there are.
    pub(super) fn wants_collect(&self) -> bool {
        self.done.len() < BATCH
    }

    /// Whether there is nothing to be done before epoll says more.
    pub(super) fn is_idle(&self) -> bool {
        let waits = |listening: &Listening| {
            !listening.readable || listening.accept.is_none() && listening.poll.is_none()
        };
        self.done.is_empty() && self.ready.is_empty() && self.listeners.iter().flatten().all(waits)
    }

    pub(super) fn take(&mut self, batch: &mut Vec<Completion>) {
        let count = self.done.len().min(BATCH);
        batch.extend(self.done.drain(..count));
    }

    /// Asks what is ready, and does what is to be done with it.
    ///
    /// # Errors
    /// What `epoll_wait` said.
    pub(super) fn enter(&mut self, buffers: &mut Buffers) -> io::Result<()> {
        let epoll = self.epoll.as_raw_fd();
        let room = self.events.len() as i32;
        // SAFETY: the kernel writes at most as many events as there is room for.
        let count = unsafe { libc::epoll_wait(epoll, self.events.as_mut_ptr(), room, 0) };
        let count = match usize::try_from(count) {
            Ok(count) => count,
            Err(_) => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => 0,
                error => return Err(error),
            },
        };
        self.calls += u64::from(count > 0);
        for at in 0..count {
            let libc::epoll_event { events, u64: data } = self.events[at];
            self.note(events as i32, data);
        }
        for protocol in 0..self.listeners.len() {
            self.serve_listener(protocol);
        }
        self.serve_sockets(buffers);
        Ok(())
    }

    /// Notes what epoll says of a descriptor.
    fn note(&mut self, events: i32, data: u64) {
        const END: i32 = libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR;
        if parts(data).0 == Some(Kind::Accept) {
            if let Some(listening) = &mut self.listeners[protocol(data) as usize] {
                listening.readable = true;
            }
            return;
        }
        let Some(watched) = self.find(data) else { return };
        watched.ended |= events & END != 0;
        watched.readable |= events & (libc::EPOLLIN | END) != 0;
        let sends = watched.send.is_some() && events & (libc::EPOLLOUT | END) != 0;
        self.list(data);
        if sends {
            self.try_send(data);
        }
    }

    fn serve_listener(&mut self, protocol: usize) {
        let Some(listening) = &mut self.listeners[protocol] else { return };
        if let Some(token) = listening.poll
            && listening.readable
        {
            self.calls += 1;
            // Whoever was announced may have been accepted since.
            listening.readable = is_readable(listening.listener);
            if listening.readable {
                listening.poll = None;
                self.done.push_back(ended(token, i32::from(libc::POLLIN)));
            }
        }
        let Some(token) = listening.accept else { return };
        for _ in 0..ACCEPTS {
            if !listening.readable {
                break;
            }
            self.calls += 1;
            let none = ptr::null_mut();
            // SAFETY: makes a new descriptor; the address of the peer is not asked for.
            let result =
                unsafe { libc::accept4(listening.listener, none, none.cast(), libc::SOCK_CLOEXEC) };
            match outcome(result as isize) {
                connection @ 0.. => self.done.push_back(goes_on(token, connection, None)),
                error if would_wait(error) => listening.readable = false,
                error if error == -libc::EINTR => break,
                error => {
                    listening.accept = None;
                    self.done.push_back(ended(token, error));
                    break;
                }
            }
        }
    }

    /// Sends, unless the socket takes nothing now.
    fn try_send(&mut self, token: u64) {
        let Some(watched) = find(&mut self.sockets, token) else { return };
        let Some(Sending { token, start, len }) = watched.send else { return };
        let result = loop {
            self.calls += 1;
            // SAFETY: the bytes that the caller of `send` keeps in place.
            let result = unsafe {
                let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
                libc::send(watched.socket, start.cast(), len, flags)
            };
            match outcome(result) {
                error if would_wait(error) => return,
                error if error == -libc::EINTR => {}
                result => break result,
            }
        };
        watched.send = None;
        self.done.push_back(ended(token, result));
    }

    /// Puts a connection into `ready`, if it belongs there.
    fn list(&mut self, token: u64) {
        let Some(watched) = find(&mut self.sockets, token) else { return };
        if watched.readable && watched.receive.is_some() && !watched.listed {
            watched.listed = true;
            self.ready.push_back(owner(token));
        }
    }

    fn find(&mut self, token: u64) -> Option<&mut Watched> {
        find(&mut self.sockets, token)
    }

    /// The connection that the token names; from now on it is watched.
    fn watch(&mut self, socket: RawFd, token: u64) -> io::Result<&mut Watched> {
        let sockets = &mut self.sockets[protocol(token) as usize];
        let slot = parts(token).1 as usize;
        if slot >= sockets.len() {
            sockets.resize_with(slot + 1, || None);
        }
        let place = &mut sockets[slot];
        if place.as_ref().is_none_or(|watched| watched.owner != owner(token)) {
            // The connection that had the slot before is closed, and with it the kernel's watch.
            *place = None;
            let events = libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP;
            add(&self.epoll, socket, events, owner(token))?;
            self.calls += 1;
        }
        Ok(place.get_or_insert(Watched {
            owner: owner(token),
            socket,
            receive: None,
            room: None,
            send: None,
            readable: false,
            ended: false,
            listed: false,
        }))
    }

    /// The listener of the token's protocol; from now on it is watched.
    fn listen(&mut self, listener: RawFd, token: u64) -> io::Result<&mut Listening> {
        let place = &mut self.listeners[protocol(token) as usize];
        if place.is_none() {
            let data = owner(token) | (Kind::Accept as u64) << 56;
            add(&self.epoll, listener, libc::EPOLLIN, data)?;
            self.calls += 1;
        }
        Ok(place.get_or_insert(Listening { listener, readable: false, accept: None, poll: None }))
    }

    /// Reports an operation that could not begin.
    fn fail(&mut self, token: u64, error: &io::Error) {
        let number = error.raw_os_error().unwrap_or(libc::EIO);
        self.done.push_back(ended(token, -number));
    }
}

impl Drop for Epoll {
    /// Closes connections that nobody has taken.
    fn drop(&mut self) {
        self.done.drain(..).for_each(Completion::discard);
    }
}

fn find(sockets: &mut [Vec<Option<Watched>>; 2], token: u64) -> Option<&mut Watched> {
    let place = sockets[protocol(token) as usize].get_mut(parts(token).1 as usize)?;
    place.as_mut().filter(|watched| watched.owner == owner(token))
}

/// Has epoll report the edges of these events.
fn add(epoll: &OwnedFd, descriptor: RawFd, events: i32, data: u64) -> io::Result<()> {
    let mut event = libc::epoll_event { events: (events | libc::EPOLLET) as u32, u64: data };
    // SAFETY: the kernel reads the event during the call.
    let result = unsafe {
        libc::epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, descriptor, &raw mut event)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn set_nonblocking(descriptor: RawFd) -> io::Result<()> {
    // SAFETY: reads the flags of a descriptor, touches no memory.
    let flags = unsafe { libc::fcntl(descriptor, libc::F_GETFL) };
    // SAFETY: sets the flags of a descriptor, touches no memory.
    let result = unsafe { libc::fcntl(descriptor, libc::F_SETFL, flags | libc::O_NONBLOCK) };
    if flags >= 0 && result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn is_readable(descriptor: RawFd) -> bool {
    let mut poll = libc::pollfd { fd: descriptor, events: libc::POLLIN, revents: 0 };
    // SAFETY: one entry, which lives through the call; it does not wait.
    unsafe { libc::poll(&raw mut poll, 1, 0) > 0 }
}

/// What a call returned, or the number of its error, negative.
fn outcome(result: isize) -> i32 {
    if result >= 0 {
        return i32::try_from(result).unwrap_or(i32::MAX);
    }
    -io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)
}

fn would_wait(error: i32) -> bool {
    error == -libc::EAGAIN || error == -libc::EWOULDBLOCK
}

fn ended(token: u64, result: i32) -> Completion {
    Completion { token, result, buffer: None, more: false, is_notice: false }
}

fn goes_on(token: u64, result: i32, buffer: Option<u16>) -> Completion {
    Completion { token, result, buffer, more: true, is_notice: false }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::super::engine::{DriverKind, Engine};
    use super::super::socket::{Protocol, token};
    use super::*;
    use crate::sessions::SessionId;

    const BUFFER_BYTES: usize = 8;

    /// An engine with so many buffers. It is dropped before them.
    struct Rig {
        engine: Engine,
        buffers: Buffers,
    }

    impl Rig {
        fn new(buffers: u16) -> Self {
            let mut engine = Engine::new(DriverKind::Epoll).expect("epoll");
            // SAFETY: the rig drops its engine first.
            let buffers = unsafe { Buffers::new(&mut engine, buffers, BUFFER_BYTES) };
            Self { engine, buffers: buffers.expect("memory") }
        }

        /// What one pass completes; the buffers stay taken until they are given back.
        fn pass(&mut self) -> Vec<Completion> {
            self.engine.enter(&mut self.buffers).expect("epoll_wait works");
            let mut batch = Vec::new();
            self.engine.take(&mut batch);
            batch.iter().filter_map(|done| done.buffer).for_each(|id| self.buffers.take(id));
            batch
        }

        /// The bytes of a completion, whose buffer is given back.
        fn bytes(&mut self, done: Completion) -> Vec<u8> {
            let id = done.buffer.expect("a buffer");
            let bytes = self.buffers.bytes(id, done.result as usize).to_vec();
            self.buffers.give(id);
            bytes
        }
    }

    fn name(kind: Kind, slot: u32) -> u64 {
        token(Protocol::Native, kind, SessionId { slot, generation: 7 })
    }

    fn receive(rig: &mut Rig, socket: &UnixStream, slot: u32) {
        assert!(rig.engine.receive(socket.as_raw_fd(), 0, name(Kind::Receive, slot)));
    }

    #[test]
    fn short_receive_is_followed_by_the_end_that_came_with_it() {
        let mut rig = Rig::new(2);
        let (ours, mut theirs) = UnixStream::pair().expect("sockets");
        receive(&mut rig, &ours, 3);
        assert!(rig.pass().is_empty() && rig.engine.is_idle(), "writable is no news");
        theirs.write_all(b"bye").expect("sent");
        drop(theirs);
        let done = rig.pass();
        assert_eq!(done.len(), 1);
        assert_eq!((done[0].token, done[0].more), (name(Kind::Receive, 3), true));
        assert_eq!(rig.bytes(done[0]), b"bye");
        let done = rig.pass();
        assert_eq!((done[0].result, done[0].more, done[0].buffer), (0, false, None));
        assert!(rig.pass().is_empty() && rig.engine.is_idle());
    }

    #[test]
    fn receive_goes_on_while_there_is_more_and_after_a_pause() {
        let mut rig = Rig::new(2);
        let (ours, mut theirs) = UnixStream::pair().expect("sockets");
        receive(&mut rig, &ours, 0);
        theirs.write_all(b"two buffers and some").expect("sent");
        let done = rig.pass();
        assert_eq!(rig.bytes(done[0]), b"two buff");
        assert!(!rig.engine.is_idle(), "no edge will tell of the rest");
        assert!(rig.engine.cancel(name(Kind::Receive, 0), name(Kind::Cancel, 0)));
        let results: Vec<_> = rig.pass().iter().map(|done| (done.result, done.more)).collect();
        assert_eq!(results, [(-libc::ECANCELED, false), (0, false)]);
        assert!(rig.pass().is_empty() && rig.engine.is_idle(), "nobody takes the rest");
        receive(&mut rig, &ours, 0);
        for expected in [b"ers and ".as_slice(), b"some"] {
            let done = rig.pass();
            assert_eq!(rig.bytes(done[0]), expected);
        }
        assert!(rig.pass().is_empty() && rig.engine.is_idle());
    }

    #[test]
    fn send_ends_whenever_the_peer_has_room_again() {
        let mut rig = Rig::new(1);
        let (ours, mut theirs) = UnixStream::pair().expect("sockets");
        let bytes = vec![b'x'; 4 << 20];
        let send = |rig: &mut Rig, sent: usize| {
            // SAFETY: the bytes outlive the rig's use of them: the completion is awaited.
            let queued =
                unsafe { rig.engine.send(ours.as_raw_fd(), &bytes[sent..], name(Kind::Send, 1)) };
            assert!(queued);
        };
        let mut room = vec![0; 64 << 10];
        let (mut sent, mut taken, mut parts) = (0, 0, 0);
        send(&mut rig, sent);
        while sent < bytes.len() {
            let Some(done) = rig.pass().pop() else {
                assert!(rig.engine.is_idle() && taken < sent, "it waits for the peer");
                taken += theirs.read(&mut room).expect("bytes come");
                continue;
            };
            assert_eq!(done.token, name(Kind::Send, 1));
            sent += usize::try_from(done.result).expect("the peer is there");
            parts += 1;
            if sent < bytes.len() {
                send(&mut rig, sent);
            }
        }
        assert!(parts > 4, "{parts} ends for sixty-four reads");
    }

    #[test]
    fn send_to_a_peer_that_is_gone_fails() {
        let mut rig = Rig::new(1);
        let (ours, theirs) = UnixStream::pair().expect("sockets");
        let bytes = vec![b'x'; 4 << 20];
        let send = |rig: &mut Rig| {
            // SAFETY: the bytes outlive the rig's use of them: the completion is awaited.
            unsafe { rig.engine.send(ours.as_raw_fd(), &bytes, name(Kind::Send, 1)) }
        };
        assert!(send(&mut rig));
        let done = rig.pass();
        assert!((1..bytes.len() as i32).contains(&done[0].result), "{}", done[0].result);
        assert!(send(&mut rig) && rig.pass().is_empty(), "it waits for the peer");
        theirs.shutdown(std::net::Shutdown::Both).expect("connected");
        assert_eq!(rig.pass()[0].result, -libc::EPIPE);
    }

    #[test]
    fn slot_of_a_closed_connection_serves_the_next() {
        let mut rig = Rig::new(2);
        for generation in 0..3 {
            let (ours, mut theirs) = UnixStream::pair().expect("sockets");
            let id = SessionId { slot: 0, generation };
            let token = token(Protocol::Resp, Kind::Receive, id);
            assert!(rig.engine.receive(ours.as_raw_fd(), 0, token));
            theirs.write_all(b"more than a buffer").expect("sent");
            let done = rig.pass();
            assert_eq!((done[0].token, rig.bytes(done[0])), (token, b"more tha".to_vec()));
            // It is closed while its rest is next in line.
            assert!(rig.engine.cancel(token, 0));
            rig.pass();
        }
    }

    #[test]
    fn who_waits_for_a_buffer_is_the_first_to_get_one() {
        let mut rig = Rig::new(1);
        let pairs: Vec<_> = (0..3).map(|_| UnixStream::pair().expect("sockets")).collect();
        for (slot, (ours, theirs)) in pairs.iter().enumerate() {
            receive(&mut rig, ours, slot as u32);
            let mut theirs = theirs;
            theirs.write_all(&[b'0' + slot as u8; 3 * BUFFER_BYTES]).expect("sent");
        }
        let mut order = Vec::<u8>::new();
        for _ in 0..9 {
            let done = rig.pass();
            assert_eq!(done.len(), 1, "one buffer, one receive");
            order.extend(rig.bytes(done[0]).first());
        }
        assert_eq!(order[..3], order[3..6], "they take turns");
        assert_eq!(order[..3], order[6..]);
        assert!(rig.engine.waits_for_buffers() > 0);
        assert!(rig.pass().is_empty() && rig.engine.is_idle());
    }
}
