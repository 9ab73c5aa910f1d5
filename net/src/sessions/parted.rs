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
    input_ended: bool,
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
            parted.input_ended = session.line().flags.input_ended;
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
        line.flags.input_ended = parted.input_ended;
        line.times.spoken();
        let (before, requests) = (session.unparsed_bytes(), self.shared.stats.requests);
        session.receive(Body::new(&parted.input), intake, &mut self.shared);
        note(session, before, requests, &mut self.shared);
        settle(session, &mut self.shared);
    }
}

#[cfg(test)]
mod tests {
    use coreside_shard::{KeyWords, WireCall, WireError, WireRow};

    use super::*;
    use crate::native::{self, Facts, Hello, Limits};

    /// A shard without messages.
    struct Nothing;

    impl native::Intake for Nothing {
        fn messages(&self) -> &[WireRow] {
            &[]
        }

        fn send(&mut self, _: u16, _: KeyWords, _: Body<'_>, _: WireCall) -> Result<(), WireError> {
            Err(WireError::Unknown)
        }

        fn is_congested(&self) -> bool {
            false
        }

        fn deadline_ns(&self, _: u32) -> u64 {
            0
        }
    }

    fn shard(shard: u16) -> (Sessions<native::Session>, SessionId) {
        let mut sessions = Sessions::new(Limits::default());
        sessions.set_facts(Facts { shard, shards: 2, ..Facts::default() });
        let id = sessions.open(None).expect("room");
        (sessions, id)
    }

    /// The end that TLS tells is told once; an end of the stream would be found again.
    #[test]
    fn rights_and_an_end_that_was_told_go_along() {
        let (mut first, id) = shard(0);
        let line = find(&mut first.slots, id).expect("it is open").line();
        line.rights = Some(Arc::default());
        let mut bytes = Vec::new();
        let hello = Hello { versions: (1, 1), shard: Some(1), cluster: 0, messages: Vec::new() };
        hello.write(&mut bytes);
        first.receive(id, &bytes, &mut Nothing);
        first.end_input(id);
        assert_eq!(first.moves_to(id), Some(1));
        assert!(!first.is_finished(id), "it is not greeted yet");
        let parted = first.part(id);
        assert_eq!((first.open_count(), first.unparsed_bytes()), (0, 0));
        let (mut second, id) = shard(1);
        second.go_on(id, parted, &mut Nothing);
        assert!(find(&mut second.slots, id).is_some_and(|session| session.line().rights.is_some()));
        assert_eq!(second.moves_to(id), None);
        let welcome = second.begin_send(id).map(<[u8]>::len).expect("a welcome");
        assert!(!second.is_finished(id), "the welcome is under way");
        assert!(second.end_send(id, welcome).is_none());
        assert!(second.is_finished(id), "the peer sends no more");
    }
}
