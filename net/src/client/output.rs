//! What waits to be sent on one connection, as frames and, with TLS, as records.

use crate::native::frame::ALIGN;
use crate::tls::Channel;

/// Output of one connection that is up.
pub(super) struct Output {
    /// Whole frames, except that `sent` bytes at the front are gone where there is no TLS.
    frames: Vec<u8>,
    sent: usize,
    pub(super) tls: Option<Box<Channel>>,
    /// What TLS has made of frames, except that `sent` bytes at the front are gone.
    sealed: Vec<u8>,
    /// Bytes of frames that were ever written, and how many of them somebody has taken to send.
    written: u64,
    taken: u64,
}

/// Memory that is kept of output that was sent; a burst makes it larger.
const BYTES_KEPT_MAX: usize = 256 << 10;

impl Output {
    pub(super) fn new(tls: Option<Box<Channel>>) -> Self {
        Self { frames: Vec::new(), sent: 0, tls, sealed: Vec::new(), written: 0, taken: 0 }
    }

    /// Has `write` append frames; it keeps them whole.
    pub(super) fn write<E>(
        &mut self,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        let before = self.frames.len();
        let outcome = write(&mut self.frames);
        self.written += (self.frames.len() - before) as u64;
        outcome
    }

    pub(super) fn unsent_bytes(&self) -> usize {
        self.frames.len() + self.sealed.len() - self.sent
    }

    /// Where the next frame begins, counted over all that were ever written.
    pub(super) fn position(&self) -> u64 {
        self.written
    }

    /// Whether nobody has begun to send what was written before `position`.
    pub(super) fn waits(&self, position: u64) -> bool {
        self.taken < position
    }

    /// What there is to send, and how much of its front is gone already.
    pub(super) fn take(&mut self) -> Option<(Vec<u8>, usize)> {
        let Self { frames, sealed, sent, tls, written, taken } = self;
        let next = match tls {
            Some(tls) => {
                tls.seal(frames, sealed);
                tls.flush(sealed);
                frames.clear();
                sealed
            }
            None => frames,
        };
        *taken = *written;
        let is_empty = next.is_empty();
        (!is_empty).then(|| (std::mem::take(next), std::mem::take(sent)))
    }

    /// Has TLS say that nothing more comes, once. Returns whether it has something to say.
    pub(super) fn say_goodbye(&mut self) -> bool {
        let owes = |tls: &&mut Box<Channel>| tls.owes_goodbye();
        let tls = self.tls.as_mut().filter(owes);
        tls.map(|tls| tls.say_goodbye()).is_some()
    }

    /// Puts what was not sent before what was written meanwhile.
    pub(super) fn put_back(&mut self, mut output: Vec<u8>, mut sent: usize) {
        if sent > output.len() / 2 {
            // Amortized: fewer bytes move than have been sent. A slow peer may never take all.
            let whole = sent - sent % ALIGN;
            output.drain(..whole);
            sent -= whole;
        }
        self.sent = sent;
        if self.tls.is_some() {
            debug_assert!(self.sealed.is_empty(), "only whoever sends seals");
            self.sealed = output;
            return;
        }
        output.extend_from_slice(&self.frames);
        self.frames = output;
    }

    /// Keeps the memory of what was sent, unless a burst made it large.
    pub(super) fn recycle(&mut self, mut output: Vec<u8>) {
        let place = if self.tls.is_some() { &mut self.sealed } else { &mut self.frames };
        if place.capacity() == 0 && output.capacity() <= BYTES_KEPT_MAX {
            output.clear();
            *place = output;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sent_is_not_kept_for_a_peer_that_never_takes_all() {
        let mut output = Output::new(None);
        let (mut next, mut expected) = (0u64, 0u64);
        for round in 0..10_000 {
            let written = output.write(|out| {
                for number in next..next + 128 {
                    out.extend_from_slice(&number.to_le_bytes());
                }
                next += 128;
                Ok::<(), ()>(())
            });
            assert_eq!(written, Ok(()));
            let (bytes, sent) = output.take().expect("there is some");
            // A little remains each time.
            let (taken, _) = bytes[sent..bytes.len() - 8 * (1 + round % 7)].as_chunks();
            assert!(taken.iter().all(|number| {
                expected += 1;
                u64::from_le_bytes(*number) == expected - 1
            }));
            let sent = sent + taken.len() * 8;
            output.put_back(bytes, sent);
            assert_eq!(output.unsent_bytes(), (next - expected) as usize * 8);
            assert!(output.frames.capacity() < 16 << 10, "{} bytes", output.frames.capacity());
        }
    }
}
