//! What holds for any bytes that are taken for a part of the handshake, or for frames.

use coreside_net::native::frame::{ALIGN, FrameError, HEADER_BYTES, Header};
use coreside_net::native::{Hello, Welcome};

/// What is read is written again as it was.
pub(crate) fn check_handshake(bytes: &[u8]) {
    for messages_max in [0, 3, u16::MAX] {
        let Ok(hello) = Hello::read(bytes, messages_max) else { continue };
        assert!(hello.messages.len() <= usize::from(messages_max));
        let mut out = Vec::new();
        hello.write(&mut out);
        let written = content(&out);
        assert_eq!(Some(written), bytes.get(..written.len()), "every field has its bytes");
        assert_eq!(Hello::read(written, messages_max), Ok(hello));
    }
    if let Ok(welcome) = Welcome::read(bytes) {
        let mut out = Vec::new();
        welcome.write(&mut out);
        let written = content(&out);
        assert!(written.len() <= bytes.len());
        assert_eq!(Welcome::read(written), Ok(welcome));
    }
}

fn content(frame: &[u8]) -> &[u8] {
    let header = Header::read(frame, u32::MAX).expect("our own").expect("whole");
    &frame[HEADER_BYTES..header.length as usize]
}

/// Frames are found where they are, and a length is checked before it is believed.
pub(crate) fn check_frames(bytes: &[u8]) {
    let Some((limit, stream)) = bytes.split_first_chunk() else { return };
    let frame_bytes_max = u32::from(u16::from_le_bytes(*limit)).max(HEADER_BYTES as u32);
    let (mut at, mut count) = (0, 0);
    while let Some(rest) = stream.get(at..) {
        assert!(count <= stream.len() / ALIGN, "each frame takes its bytes");
        count += 1;
        match Header::read(rest, frame_bytes_max) {
            Ok(None) => return assert!(rest.len() < HEADER_BYTES),
            Err(FrameError::Length(length)) => {
                return assert!(length < HEADER_BYTES as u32 || length > frame_bytes_max);
            }
            Err(FrameError::Kind(kind)) => return assert!(!(1..=9).contains(&kind)),
            Ok(Some(header)) => {
                let padded = header.padded();
                assert_eq!(header.to_bytes(), rest[..HEADER_BYTES], "every field has its bytes");
                assert!(
                    (HEADER_BYTES..=frame_bytes_max as usize).contains(&(header.length as usize))
                );
                assert!(padded.is_multiple_of(ALIGN) && padded - (header.length as usize) < ALIGN);
                at += padded;
            }
        }
    }
}
