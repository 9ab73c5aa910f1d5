//! What of io_uring is here, found out by trying.

#![expect(unsafe_code, reason = "an engine and its buffers")]

use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

use super::buffers::{Buffers, GROUP};
use super::engine::{DriverKind, Engine};
use super::error::NetError;
use super::socket::{Kind, Protocol, token};
use super::zero_copy::ZeroCopy;
use crate::sessions::SessionId;

/// What of io_uring there is, of what not every net needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UringFeatures {
    /// One receive goes on for as long as bytes come. Without it nothing works.
    pub multishot_receive: bool,
    /// Outputs can be sent [without a copy](ZeroCopy).
    pub zero_copy_send: bool,
}

/// What a net on io_uring would have here. Makes a small ring and lets it go.
///
/// # Errors
/// What the kernel refused; [`NetError::refuses_uring`] tells whether that will stay so.
pub fn uring_features() -> Result<UringFeatures, NetError> {
    const BUFFERS: u16 = 2;
    const BUFFER_BYTES: usize = 4096;
    let mut engine = Engine::new(DriverKind::Uring)?;
    engine.configure_sends(ZeroCopy::From(1));
    let zero_copy_send = engine.sends().refusal.is_none();
    // SAFETY: the engine is dropped before the buffers are.
    let mut buffers = unsafe { Buffers::new(&mut engine, BUFFERS, BUFFER_BYTES)? };
    let multishot_receive = receives_go_on(&mut engine, &mut buffers)?;
    drop(engine);
    Ok(UringFeatures { multishot_receive, zero_copy_send })
}

/// Whether a receive has more to come when it has received.
fn receives_go_on(engine: &mut Engine, buffers: &mut Buffers) -> Result<bool, NetError> {
    /// Loopback is done when the call returns; the bound is for a kernel that works otherwise.
    const PASSES_MAX: usize = 1000;
    let (ours, mut theirs) = UnixStream::pair().map_err(NetError::Connection)?;
    let token = token(Protocol::Native, Kind::Receive, SessionId { slot: 0, generation: 0 });
    let queued = engine.receive(ours.as_raw_fd(), GROUP, token);
    theirs.write_all(b"a byte or two").map_err(NetError::Connection)?;
    let mut batch = Vec::new();
    for _ in 0..PASSES_MAX {
        if !queued || !batch.is_empty() {
            break;
        }
        engine.enter(buffers).map_err(NetError::Enter)?;
        engine.take(&mut batch);
    }
    Ok(batch.first().is_some_and(|first| first.more && first.buffer.is_some()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_there_is_uring_receives_go_on() {
        match uring_features() {
            Ok(features) => assert!(features.multishot_receive, "it is what every net relies on"),
            Err(error) => assert!(error.refuses_uring(), "{error}"),
        }
    }
}
