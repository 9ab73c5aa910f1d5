//! One session over a fake shard: bytes in, bytes out.

#![allow(dead_code, reason = "every test uses a part of it")]

use coreside_net::resp::{Limits, Sessions};
use coreside_net::sessions::SessionId;

use super::fake::Fake;

pub(crate) struct Client {
    pub(crate) sessions: Sessions,
    pub(crate) fake: Fake,
    pub(crate) id: SessionId,
    pub(crate) output: Vec<u8>,
}

impl Client {
    pub(crate) fn new(limits: Limits) -> Self {
        let mut sessions = Sessions::new(limits);
        let id = sessions.open(None).expect("there is room for one");
        Self { sessions, fake: Fake::default(), id, output: Vec::new() }
    }

    pub(crate) fn receive(&mut self, bytes: &[u8]) {
        self.sessions.receive(self.id, bytes, &mut self.fake);
    }

    /// Moves what there is to send to `output`.
    pub(crate) fn send(&mut self) {
        while self.sessions.next_dirty().is_some() {}
        while let Some(bytes) = self.sessions.begin_send(self.id) {
            let len = bytes.len();
            self.output.extend_from_slice(bytes);
            assert!(self.sessions.end_send(self.id, len).is_none(), "all was sent");
        }
    }

    /// Answers, sends and resumes until there is nothing left to do. `pick` chooses among the
    /// requests that wait.
    pub(crate) fn settle(&mut self, mut pick: impl FnMut(usize) -> usize) {
        loop {
            while !self.fake.waiting.is_empty() {
                let index = pick(self.fake.waiting.len());
                self.fake.answer(index, &mut self.sessions);
            }
            self.send();
            if self.sessions.resume(&mut self.fake) == 0 && self.fake.waiting.is_empty() {
                break;
            }
        }
        self.send();
    }

    pub(crate) fn is_finished(&mut self) -> bool {
        self.sessions.is_finished(self.id)
    }
}

/// What a session replies to `input`, answered in order.
pub(crate) fn talk(input: &[u8]) -> String {
    let mut client = Client::new(Limits::default());
    client.receive(input);
    client.settle(|_| 0);
    String::from_utf8_lossy(&client.output).into_owned()
}
