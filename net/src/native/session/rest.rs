//! Bytes that wait: for the rest of their frame, or for the end of a pause.

use coreside_shard::rkyv::util::AlignedVec;
use coreside_shard::{Body, SharedBytes};

use super::{Intake, Limits, Session, Shared};
use crate::native::frame::{Header, Kind};

impl Session {
    /// Goes on with the bytes that waited.
    pub(super) fn frames_of_rest<I: Intake>(&mut self, intake: &mut I, shared: &mut Shared) {
        let mut rest = std::mem::take(&mut self.rest);
        let at = self.rest_at;
        let mut taken = at;
        if self.is_looked_at(&rest[at..], intake, shared) {
            let whole = SharedBytes::new(rest);
            taken += self.frames(whole.body(at), intake, shared);
            let is_copy;
            (rest, is_copy) = whole.take(taken);
            if is_copy {
                taken = 0;
            }
        } else {
            taken += self.frames(Body::new(&rest[at..]), intake, shared);
        }
        let left = rest.len() - taken;
        if left == 0 || self.line.flags.ending || self.line.flags.killed {
            self.rest_at = 0;
            return;
        }
        self.rest_at = taken;
        if taken > left {
            // Amortized: fewer bytes move than have been parsed.
            rest.copy_within(taken.., 0);
            rest.resize(left, 0);
            self.rest_at = 0;
        }
        self.rest = rest;
    }

    /// Whether the first frame is whole, and a message that is looked at where it lies.
    fn is_looked_at<I: Intake>(&self, rest: &[u8], intake: &I, shared: &Shared) -> bool {
        let Ok(Some(header)) = Header::read(rest, shared.limits.frame_bytes_max) else {
            return false;
        };
        let is_message = matches!(header.kind, Kind::Tell | Kind::Ask);
        let row = intake.messages().get(usize::from(header.message));
        is_message && header.padded() <= rest.len() && row.is_some_and(|row| row.looks)
    }

    /// What the frame at the front of `rest` lacks, if nothing else keeps it from being parsed.
    pub(super) fn missing_bytes(&self, limits: &Limits) -> usize {
        let rest = &self.rest[self.rest_at..];
        let flags = &self.line.flags;
        if !self.greeted || flags.stalled || flags.ready || flags.killed {
            return 0;
        }
        match Header::read(rest, limits.frame_bytes_max) {
            Ok(Some(header)) => header.padded().saturating_sub(rest.len()),
            _ => 0,
        }
    }

    pub(super) fn drop_input(&mut self) {
        self.rest = AlignedVec::new();
        self.rest_at = 0;
    }
}
