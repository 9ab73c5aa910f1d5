//! What is the same for every session: what is being sent, its switches, its times.

use std::sync::Arc;

use super::deadlines::Times;
use super::held::{Held, Place};
use super::output::Output;
use super::{Session, SessionId, Shared};
use crate::tls::{Channel, Rights};

/// What is the same for every session: what is being sent, and its switches.
#[derive(Debug)]
pub struct Line {
    pub(crate) id: SessionId,
    pub(crate) flags: Flags,
    /// Output that is being filled.
    pub(crate) output: Output,
    /// Output that is being sent, as it goes to the socket; not touched until the send is done.
    sending: Output,
    sent: usize,
    /// Bytes of the last output: the next may be as large.
    last_bytes: usize,
    /// Where that output is held once it is sent, if the kernel goes on reading it.
    sending_place: Option<Place>,
    held: Held,
    /// Bytes of output, as they were counted last for the sum over all sessions.
    pub(super) counted_bytes: usize,
    pub(super) times: Times,
    /// For a connection that speaks TLS.
    pub(super) tls: Option<Box<Channel>>,
    /// What the peer may call; `None` for everything.
    pub(super) rights: Option<Arc<Rights>>,
}

/// The switches of a session.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Flags {
    /// Parsing stopped at a pause; there may be whole requests among the bytes that wait.
    pub(crate) stalled: bool,
    /// The session is in the list of those that are ready to be parsed.
    pub(crate) ready: bool,
    /// The session is in the list of those with something to send or to close.
    pub(crate) dirty: bool,
    /// No further request is parsed: the connection closes when what is owed has been sent.
    pub(crate) ending: bool,
    /// The peer will send no more bytes.
    pub(crate) input_ended: bool,
    /// The connection closes at once; nothing is sent any more.
    pub(crate) killed: bool,
}

/// Replies that wait to be in order are not sent, and so would not be counted.
const UNCOUNTED_BYTES_MAX: usize = 16 * 1024;

impl Line {
    pub(crate) fn new(id: SessionId) -> Self {
        Self {
            id,
            flags: Flags::default(),
            output: Output::default(),
            sending: Output::default(),
            sent: 0,
            last_bytes: 0,
            sending_place: None,
            held: Held::default(),
            counted_bytes: 0,
            times: Times::new(0),
            tls: None,
            rights: None,
        }
    }

    /// Bytes that wait to be sent, or for the socket to take them.
    #[inline]
    pub(crate) fn waiting_bytes(&self) -> usize {
        self.output.len() + self.sending.len() - self.sent
    }

    /// The same, where what TLS has to say besides counts as one more.
    #[inline]
    pub(crate) fn unsent_bytes(&self) -> usize {
        let aside = self.tls.as_ref().is_some_and(|tls| tls.has_output()) || self.owes_goodbye();
        self.waiting_bytes() + usize::from(aside)
    }

    /// Memory of output: what waits to be sent, and what was sent and is still read by the kernel.
    #[inline]
    pub(crate) fn output_bytes(&self) -> usize {
        self.waiting_bytes() + self.held.bytes()
    }

    /// Nothing is sent any more, and the connection closes at once. The input may still be counted,
    /// and stays until then.
    pub(crate) fn kill(&mut self) {
        self.flags.killed = true;
        self.flags.stalled = false;
        self.output.clear();
    }

    /// Whether output of so many bytes is much more than was counted.
    #[inline]
    pub(crate) fn is_uncounted(&self, output_bytes: usize) -> bool {
        output_bytes > self.counted_bytes + UNCOUNTED_BYTES_MAX
    }

    /// Whether no more requests come: the peer's fault or the node's wish.
    pub(crate) fn takes_no_more(&self) -> bool {
        let Flags { ending, input_ended, stalled, ready, .. } = self.flags;
        ending || (input_ended && !stalled && !ready)
    }

    /// Whether the peer may call whatever there is.
    pub(crate) fn may_call_all(&self) -> bool {
        self.rights.is_none()
    }

    /// Whether the peer may call the message of this name.
    #[inline]
    pub(crate) fn may_call(&self, name: impl Iterator<Item = u8> + Clone) -> bool {
        self.rights.as_ref().is_none_or(|rights| rights.allow(name))
    }

    /// Whether a send is under way.
    pub(super) fn is_sending(&self) -> bool {
        !self.sending.is_empty()
    }

    /// Whether the peer has taken nothing of a send for `time_ns`.
    pub(super) fn is_slow(&self, now_ns: u64, time_ns: u64) -> bool {
        self.is_sending() && self.times.is_stuck(now_ns, time_ns)
    }

    /// Whether the peer has still to take, or to confirm, what was sent.
    pub(super) fn awaits_peer(&self) -> bool {
        self.is_sending() || !self.held.is_empty()
    }

    /// Whether TLS is not agreed on yet.
    pub(super) fn is_tls_shaking(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.is_shaking())
    }

    /// Whether TLS wants an end that says that it is one.
    pub(super) fn owes_goodbye(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.owes_goodbye() && self.takes_no_more())
    }

    /// The bytes to send next, unless a send is under way. They stay where they are until
    /// [`end_send`](Self::end_send). Nothing comes behind them if nothing is `owed`.
    #[inline]
    pub(super) fn begin_send<S: Session>(
        &mut self,
        owed: u32,
        shared: &mut Shared<S>,
    ) -> Option<&[u8]> {
        if self.flags.killed || self.is_sending() {
            return None;
        }
        debug_assert_eq!(self.sent, 0);
        if self.tls.is_some() {
            self.seal(owed, shared);
        } else {
            std::mem::swap(&mut self.output, &mut self.sending);
        }
        if self.sending.is_empty() {
            return None;
        }
        self.last_bytes = self.sending.len();
        self.send_begins(shared);
        Some(&self.sending)
    }

    /// Puts the output into as few records of TLS as hold it.
    fn seal<S: Session>(&mut self, owed: u32, shared: &mut Shared<S>) {
        let is_last = owed == 0 && self.takes_no_more();
        let Some(tls) = &mut self.tls else { return };
        shared.equip(&mut self.sending);
        debug_assert!(!self.output.has_block() && !self.sending.has_block(), "TLS has none");
        if !tls.is_shaking() {
            tls.seal(&self.output, &mut self.sending);
            shared.strip(&mut self.output);
            if is_last {
                tls.say_goodbye();
            }
        }
        tls.flush(&mut self.sending);
        if self.sending.is_empty() {
            shared.strip(&mut self.sending);
        }
    }

    /// `len` bytes more have been sent; returns whether the send is done.
    pub(super) fn end_send<S: Session>(&mut self, len: usize, shared: &mut Shared<S>) -> bool {
        self.sent += len;
        debug_assert!(self.sent <= self.sending.len());
        if self.sent < self.sending.len() && !self.flags.killed {
            if len > 0 {
                self.times.moved(shared.now_ns);
            }
            return false;
        }
        self.sent = 0;
        let output = std::mem::take(&mut self.sending);
        let output = match self.sending_place.take() {
            Some(place) => self.held.keep(place, output),
            None => Some(output),
        };
        if let Some(output) = output {
            shared.strip_output(output);
        }
        true
    }

    /// Gives the output memory, if it has none.
    #[inline]
    pub(crate) fn equip<S: Session>(&mut self, shared: &mut Shared<S>) {
        if self.output.capacity() == 0 {
            let is_plain = self.tls.is_none();
            self.output = shared.output(if is_plain { self.last_bytes } else { 0 });
        }
    }

    /// Gives the memory of output back; nothing is sent any more.
    pub(super) fn retire<S: Session>(&mut self, shared: &mut Shared<S>) {
        shared.strip_output(std::mem::take(&mut self.output));
        shared.strip_output(std::mem::take(&mut self.sending));
    }

    /// The registered memory that the send under way reads.
    pub(super) fn registered(&self) -> Option<u16> {
        self.sending.registered()
    }

    /// A place for the output that is being sent, so that the kernel may read it after the end of
    /// the send; `None` while the kernel reads enough already.
    pub(super) fn place(&mut self) -> Option<Place> {
        if self.sending_place.is_none() {
            self.sending_place = self.held.place();
        }
        self.sending_place
    }

    /// The kernel goes on reading the output in `place` until it gives notice.
    pub(super) fn lent(&mut self, place: Place) {
        self.held.lent(place);
    }

    /// The kernel reads the output in `place` no more, as far as one send is concerned.
    pub(super) fn noticed<S: Session>(&mut self, place: Place, shared: &mut Shared<S>) {
        self.times.moved(shared.now_ns);
        let in_use = self.sending_place == Some(place);
        if let Some(output) = self.held.noticed(place, in_use) {
            shared.strip_output(output);
        }
    }

    /// Takes what the kernel may still read, and does not say when it no longer does.
    pub(super) fn leak_held(&mut self) {
        if self.sending_place.is_some() {
            std::mem::forget(std::mem::take(&mut self.sending));
        }
        std::mem::forget(std::mem::take(&mut self.held));
    }

    /// What is left of the send under way.
    pub(super) fn rest_of_send(&self) -> Option<&[u8]> {
        Some(&self.sending[self.sent..]).filter(|rest| !rest.is_empty())
    }
}
