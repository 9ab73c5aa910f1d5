//! Frames from a socket, one at a time.

use std::io::{ErrorKind, Read};

use coreside_net::native::frame::{HEADER_BYTES, Header};

/// The next frame; `None` at the end of the stream.
pub(crate) fn read_frame(stream: &mut impl Read) -> Option<(Header, Vec<u8>)> {
    let mut bytes = [0; HEADER_BYTES];
    match stream.read_exact(&mut bytes) {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return None,
        other => other.expect("received"),
    }
    let header = Header::read(&bytes, 1 << 20).expect("a frame").expect("whole");
    let mut content = vec![0; header.padded() - HEADER_BYTES];
    stream.read_exact(&mut content).expect("received");
    content.truncate(header.length as usize - HEADER_BYTES);
    Some((header, content))
}
