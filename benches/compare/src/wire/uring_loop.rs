//! io_uring without any runtime, one operation at a time each way: per connection one receive, and
//! one send of the answers to what it brought. All that is asked of the kernel goes in at once, and
//! the loop spins.
//!
//! # Invariants
//! *In flight*: a receive writes to the connection's input and a send reads its output; neither is
//! touched, moved or freed before the completion.

use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;

use io_uring::types::Fd;
use io_uring::{IoUring, cqueue, opcode, squeue};

use super::frames::Input;
use super::server::{accept, announce, set_busy};

const SEND: u64 = 1 << 32;

struct Connection {
    stream: TcpStream,
    input: Input,
    output: Vec<u8>,
    /// Bytes of the output that the socket has taken.
    sent: usize,
    receives: bool,
    sends: bool,
    /// Bytes that came while a send was under way.
    came: usize,
}

pub fn serve(connections: usize) -> io::Result<()> {
    set_busy(|| None);
    let listener = TcpListener::bind("127.0.0.1:0")?;
    announce(listener.local_addr()?);
    let mut connections: Vec<_> =
        accept(&listener, connections)?.into_iter().map(Connection::new).collect();
    let mut ring = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_taskrun_flag()
        .setup_cqsize(4096)
        .build(1024)?;
    for (number, connection) in connections.iter_mut().enumerate() {
        go_on(connection, number, &mut ring)?;
    }
    let mut batch: Vec<cqueue::Entry> = Vec::new();
    let mut open = connections.len();
    while open > 0 {
        if has_work(&ring.submission()) {
            ring.submit()?;
        } else {
            std::hint::spin_loop();
        }
        batch.extend(ring.completion());
        for entry in batch.drain(..) {
            let number = entry.user_data() as u32 as usize;
            let connection = &mut connections[number];
            let is_send = entry.user_data() & SEND != 0;
            match (is_send, entry.result()) {
                (false, count @ 1..) => connection.received(count as usize),
                (true, count @ 1..) => connection.sent(count as usize),
                // Closed by the peer; nothing else can come on the loopback device.
                (false, _) => open -= 1,
                (true, _) => connection.sends = false,
            }
            if entry.result() > 0 {
                go_on(&mut connections[number], number, &mut ring)?;
            }
        }
    }
    Ok(())
}

impl Connection {
    fn new(stream: TcpStream) -> Self {
        let (input, output) = (Input::new(), Vec::with_capacity(16 * 1024));
        Self { stream, input, output, sent: 0, receives: false, sends: false, came: 0 }
    }

    fn received(&mut self, count: usize) {
        self.receives = false;
        self.came = count;
    }

    fn sent(&mut self, count: usize) {
        self.sends = false;
        self.sent += count;
        if self.sent == self.output.len() {
            self.output.clear();
            self.sent = 0;
        }
    }
}

/// Whether the kernel has anything to do for us.
fn has_work(queue: &squeue::SubmissionQueue<'_>) -> bool {
    !queue.is_empty() || queue.taskrun() || queue.cq_overflow()
}

/// Answers what came unless a send is under way, and asks the kernel for what is next.
fn go_on(connection: &mut Connection, number: usize, ring: &mut IoUring) -> io::Result<()> {
    let fd = Fd(connection.stream.as_raw_fd());
    if !connection.sends {
        if connection.came > 0 {
            let came = std::mem::take(&mut connection.came);
            connection.input.came(came, &mut connection.output);
        }
        let rest = &connection.output[connection.sent..];
        if !rest.is_empty() {
            let send = opcode::Send::new(fd, rest.as_ptr(), rest.len() as u32)
                .flags(libc::MSG_NOSIGNAL | libc::MSG_WAITALL);
            push(ring, &send.build().user_data(SEND | number as u64))?;
            connection.sends = true;
        }
    }
    if !connection.receives && connection.came == 0 {
        let room = connection.input.room();
        let receive = opcode::Recv::new(fd, room.as_mut_ptr(), room.len() as u32);
        push(ring, &receive.build().user_data(number as u64))?;
        connection.receives = true;
    }
    Ok(())
}

fn push(ring: &mut IoUring, entry: &squeue::Entry) -> io::Result<()> {
    // Two at most for each connection, which is less than there is room for.
    // SAFETY: the memory stays as it is until the completion (*In flight*); connections live as
    // long as the ring.
    unsafe { ring.submission().push(entry) }.map_err(io::Error::other)
}
