//! The bytes that all of them move, but tonic and tarpc, which have their own: the frames of the
//! native protocol. To a raw loop these are a length in front, and behind a header what comes back.

use coreside_net::native::frame::{HEADER_BYTES, Header, KEY_BYTES, Kind};

/// What is asked and answered: a flat message.
pub const BODY_BYTES: usize = 64;
pub const ASK_BYTES: usize = HEADER_BYTES + KEY_BYTES + BODY_BYTES;
pub const REPLY_BYTES: usize = HEADER_BYTES + BODY_BYTES;

/// Room for what comes at once on a connection, and for a part of a frame behind it.
pub const INPUT_BYTES: usize = 16 * 1024;

// Nothing is padded.
const _: () = assert!(ASK_BYTES.is_multiple_of(16) && REPLY_BYTES.is_multiple_of(16));

/// What a raw loop does with the bytes that came: the reply to every whole request goes behind
/// `output`. Returns how many bytes these requests take.
///
/// # Panics
/// On a length that cannot be.
#[inline]
pub fn answer(input: &[u8], output: &mut Vec<u8>) -> usize {
    let mut rest = input;
    while let Some(length) = rest.first_chunk::<4>() {
        let length = u32::from_le_bytes(*length) as usize;
        assert!((HEADER_BYTES + KEY_BYTES..=INPUT_BYTES).contains(&length), "{length} bytes");
        let Some((frame, behind)) = rest.split_at_checked(length) else { break };
        let mut header = [0; HEADER_BYTES];
        header[..4].copy_from_slice(&((length - KEY_BYTES) as u32).to_le_bytes());
        header[4] = Kind::Reply as u8;
        header[8..12].copy_from_slice(&frame[8..12]);
        output.extend_from_slice(&header);
        output.extend_from_slice(&frame[HEADER_BYTES + KEY_BYTES..]);
        rest = behind;
    }
    input.len() - rest.len()
}

/// Bytes of one connection that came and were not answered yet.
pub struct Input {
    bytes: Box<[u8]>,
    filled: usize,
}

impl Input {
    pub fn new() -> Self {
        Self { bytes: vec![0; INPUT_BYTES].into(), filled: 0 }
    }

    /// Where the next bytes belong.
    pub fn room(&mut self) -> &mut [u8] {
        &mut self.bytes[self.filled..]
    }

    /// That many bytes came: answers what is whole.
    #[inline]
    pub fn came(&mut self, count: usize, output: &mut Vec<u8>) {
        self.filled += count;
        let taken = answer(&self.bytes[..self.filled], output);
        self.bytes.copy_within(taken..self.filled, 0);
        self.filled -= taken;
    }
}

/// Writes a request into `place`.
#[inline]
pub fn write_ask(place: &mut [u8], message: u16, call: u32, key: u64, body: &[u8; BODY_BYTES]) {
    let header = Header { length: ASK_BYTES as u32, message, call, ..Header::new(Kind::Ask) };
    place[..HEADER_BYTES].copy_from_slice(&header.to_bytes());
    place[HEADER_BYTES..][..KEY_BYTES].copy_from_slice(&u128::from(key).to_le_bytes());
    place[HEADER_BYTES + KEY_BYTES..][..BODY_BYTES].copy_from_slice(body);
}
