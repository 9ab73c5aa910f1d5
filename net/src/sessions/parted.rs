//! How a connection goes on at another shard: what it takes along.

use std::sync::Arc;

use coreside_shard::Body;

use super::{Session, SessionId, Sessions, Talk, find, note, settle};
use crate::tls::{Channel, Rights};

/// What a connection takes along to another shard.
#[derive(Debug, Default)]
pub(crate) struct Parted {
    /// What was received and not parsed.
    input: Vec<u8>,
    tls: Option<Box<Channel>>,
    rights: Option<Arc<Rights>>,
}

impl<S: Session> Sessions<S> {
    /// The shard that the connection is to go on at, if it is not this one.
    pub(crate) fn moves_to(&mut self, id: SessionId) -> Option<u16> {
        find(&mut self.slots, id)?.moves_to()
    }

    /// Ends a session whose connection goes on elsewhere.
    pub(crate) fn part(&mut self, id: SessionId) -> Parted {
        let mut parted = Parted::default();
        if let Some(session) = find(&mut self.slots, id) {
            self.shared.unparsed_bytes -= session.unparsed_bytes();
            parted.input = session.take_input();
            parted.tls = session.line().tls.take();
            parted.rights = session.line().rights.take();
        }
        self.close(id);
        parted
    }

    /// Goes on where another session has [parted](Self::part).
    pub(crate) fn go_on<I>(&mut self, id: SessionId, parted: Parted, intake: &mut I)
    where
        S: Talk<I>,
    {
        let Some(session) = find(&mut self.slots, id) else { return };
        let line = session.line();
        (line.tls, line.rights) = (parted.tls, parted.rights);
        line.times.spoken();
        let (before, requests) = (session.unparsed_bytes(), self.shared.stats.requests);
        session.receive(Body::new(&parted.input), intake, &mut self.shared);
        note(session, before, requests, &mut self.shared);
        settle(session, &mut self.shared);
    }
}
