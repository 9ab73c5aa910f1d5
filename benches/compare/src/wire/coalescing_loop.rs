//! io_uring without any runtime, at its best: a multishot receive for each connection, and for all
//! that came on one in a pass one send. It spins.

use std::io;
use std::net::TcpListener;

use super::frames::answer;
use super::ring::{Completion, Ring};
use super::server::{accept, announce, set_busy};

/// Answers of one connection that may wait.
const OUTPUT_BYTES: usize = 64 * 1024;

/// What a connection needs beside the ring.
#[derive(Default)]
struct Session {
    /// Of a request whose end has not come.
    part: Vec<u8>,
    /// Answers of this pass, and those that wait for a send under way.
    output: Vec<u8>,
    /// It is in the list of those with something to send.
    dirty: bool,
}

pub fn serve(connections: usize) -> io::Result<()> {
    set_busy(|| None);
    let listener = TcpListener::bind("127.0.0.1:0")?;
    announce(listener.local_addr()?);
    let mut ring = Ring::new(accept(&listener, connections)?, OUTPUT_BYTES)?;
    let mut sessions: Vec<_> = (0..connections).map(|_| Session::default()).collect();
    let mut dirty = Vec::with_capacity(connections);
    let mut open = connections;
    while open > 0 {
        ring.poll()?;
        loop {
            let count = ring.take_batch();
            for index in 0..count {
                let number = match ring.completion(index)? {
                    Completion::Received(received) => {
                        sessions[received.session].take(ring.bytes(&received));
                        let number = received.session;
                        ring.give_back(received);
                        number
                    }
                    Completion::Sent(number) => number,
                    Completion::Settled => continue,
                    Completion::Closed(_) | Completion::Failed(..) => {
                        open -= 1;
                        continue;
                    }
                };
                let session = &mut sessions[number];
                if !session.output.is_empty() && !std::mem::replace(&mut session.dirty, true) {
                    dirty.push(number);
                }
            }
            if count == 0 {
                break;
            }
        }
        for number in dirty.drain(..) {
            sessions[number].dirty = false;
            send(&mut sessions[number].output, number, &mut ring)?;
        }
    }
    Ok(())
}

impl Session {
    fn take(&mut self, bytes: &[u8]) {
        if self.part.is_empty() {
            let taken = answer(bytes, &mut self.output);
            self.part.extend_from_slice(&bytes[taken..]);
        } else {
            self.part.extend_from_slice(bytes);
            let taken = answer(&self.part, &mut self.output);
            self.part.drain(..taken);
        }
    }
}

/// Sends all of `output`, unless a send is under way: its end comes back to this.
fn send(output: &mut Vec<u8>, number: usize, ring: &mut Ring) -> io::Result<()> {
    let Some(outbox) = ring.outbox(number) else { return Ok(()) };
    assert!(output.len() <= outbox.room_bytes(), "a client has a bounded number of requests");
    outbox.append(|bytes, at| {
        bytes[at..at + output.len()].copy_from_slice(output);
        at + output.len()
    });
    output.clear();
    ring.send(number)
}
