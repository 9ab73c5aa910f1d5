//! Receives: into buffers of the net, or into memory that they bring along.

#![expect(unsafe_code, reason = "system calls on memory of this process")]

use std::os::fd::RawFd;

use super::super::buffers::Buffers;
use super::super::engine::BATCH;
use super::super::socket::{owner, parts, protocol};
use super::{Epoll, ended, find, goes_on, outcome, would_wait};

/// Memory to receive into.
#[derive(Clone, Copy)]
pub(super) struct Room {
    start: *mut u8,
    len: usize,
}

impl Epoll {
    pub(in super::super) fn receive(&mut self, socket: RawFd, token: u64) -> bool {
        self.start_receive(socket, token, None)
    }

    /// Receives once, what there is of `len` bytes, into the memory at `start`.
    ///
    /// # Safety
    /// The memory must stay in place, and be touched by nobody else, until the completion of this
    /// operation is taken, or this is dropped.
    pub(in super::super) unsafe fn receive_into(
        &mut self,
        socket: RawFd,
        start: *mut u8,
        len: usize,
        token: u64,
    ) -> bool {
        self.start_receive(socket, token, Some(Room { start, len }))
    }

    fn start_receive(&mut self, socket: RawFd, token: u64, room: Option<Room>) -> bool {
        match self.watch(socket, token) {
            Ok(watched) => {
                watched.receive = Some(token);
                watched.room = room;
                self.list(token);
            }
            Err(error) => self.fail(token, &error),
        }
        true
    }

    /// Receives once from each connection that has something, as long as there are buffers.
    pub(super) fn serve_sockets(&mut self, buffers: &mut Buffers) {
        for _ in 0..self.ready.len() {
            if self.done.len() >= BATCH {
                return;
            }
            let Some(&token) = self.ready.front() else { return };
            if self.has_room(token) {
                self.ready.pop_front();
                self.receive_into_room(token);
                continue;
            }
            let Some(buffer) = buffers.borrow() else {
                // The next in line is the first to get one.
                self.waits_for_buffers += 1;
                return;
            };
            self.ready.pop_front();
            if !self.receive_once(token, buffer, buffers) {
                buffers.put_back(buffer);
            }
        }
    }

    fn has_room(&self, token: u64) -> bool {
        let place = self.sockets[protocol(token) as usize].get(parts(token).1 as usize);
        place.and_then(Option::as_ref).is_some_and(|watched| {
            watched.owner == owner(token) && watched.receive.is_some() && watched.room.is_some()
        })
    }

    /// Receives into the memory that the receive brought along.
    fn receive_into_room(&mut self, token: u64) {
        let Some(watched) = find(&mut self.sockets, token) else { return };
        watched.listed = false;
        let (Some(token), Some(room)) = (watched.receive, watched.room) else { return };
        match self.receive_at(token, room.start, room.len) {
            Some(result) => {
                if let Some(watched) = find(&mut self.sockets, token) {
                    (watched.receive, watched.room) = (None, None);
                }
                self.done.push_back(ended(token, result));
            }
            None => self.list(token),
        }
    }

    /// Returns whether there is something in the buffer now.
    fn receive_once(&mut self, token: u64, buffer: u16, buffers: &mut Buffers) -> bool {
        let Some(watched) = find(&mut self.sockets, token) else { return false };
        watched.listed = false;
        let Some(token) = watched.receive else { return false };
        let room = buffers.room(buffer);
        let outcome = self.receive_at(token, room.as_mut_ptr(), room.len());
        match outcome {
            Some(len @ 1..) => {
                self.done.push_back(goes_on(token, len, Some(buffer)));
                self.list(token);
                return true;
            }
            Some(end) => {
                if let Some(watched) = find(&mut self.sockets, token) {
                    watched.receive = None;
                }
                self.done.push_back(ended(token, end));
            }
            None => self.list(token),
        }
        false
    }

    /// Receives what there is, up to `len` bytes, into memory that nobody else uses during the
    /// call; `None` if there is nothing. Notes whether there may be more.
    fn receive_at(&mut self, token: u64, start: *mut u8, len: usize) -> Option<i32> {
        let watched = find(&mut self.sockets, token)?;
        self.calls += 1;
        // SAFETY: the kernel writes at most as many bytes as there is room for, into memory that is
        // lent for the call.
        let result = unsafe { libc::recv(watched.socket, start.cast(), len, libc::MSG_DONTWAIT) };
        match outcome(result) {
            received @ 1.. => {
                watched.readable = watched.ended || received as usize == len;
                Some(received)
            }
            error if would_wait(error) => {
                watched.readable = false;
                None
            }
            error if error == -libc::EINTR => None,
            end => Some(end),
        }
    }
}
