//! Frames: a header of 16 bytes, and what follows it, up to the next multiple of 16.
//!
//! Every frame begins at a multiple of 16 of its stream, and so does every archive in it; a
//! receiver whose buffers begin at multiples of 16 reads archives where they lie.

use std::fmt;

use coreside_shard::Body;

/// What frames are a multiple of.
pub const ALIGN: usize = 16;

/// Bytes of a header.
pub const HEADER_BYTES: usize = 16;

/// Bytes of the key in front of a message's archive.
pub const KEY_BYTES: usize = 16;

/// The first bytes of both sides of the handshake.
pub const MAGIC: [u8; 8] = *b"CORESIDE";

/// The version of the protocol that this crate speaks.
pub const VERSION: u16 = 1;

/// What a frame is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Kind {
    /// The client's first frame.
    Hello = 1,
    /// The node's first frame.
    Welcome = 2,
    /// A message without an answer.
    Tell = 3,
    /// A message with an answer.
    Ask = 4,
    /// The answer to an ask.
    Reply = 5,
    /// Why there is no answer to an ask.
    Error = 6,
    /// Is answered by [`Pong`](Self::Pong) with the same call number.
    Ping = 7,
    /// The answer to a ping.
    Pong = 8,
    /// The sender closes the connection once what is owed has been sent.
    GoAway = 9,
    /// Tells that were handled, by their call numbers: so many may follow.
    Credit = 10,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        const KINDS: [Kind; 10] = [
            Kind::Hello,
            Kind::Welcome,
            Kind::Tell,
            Kind::Ask,
            Kind::Reply,
            Kind::Error,
            Kind::Ping,
            Kind::Pong,
            Kind::GoAway,
            Kind::Credit,
        ];
        KINDS.get(usize::from(byte).checked_sub(1)?).copied()
    }
}

/// Why there is no answer to an ask, or why a connection ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
#[non_exhaustive]
pub enum Code {
    /// Nothing was done; it is safe to ask again.
    NotSent = 1,
    /// Nobody will say whether the work was done.
    MaybeExecuted = 2,
    /// The entity failed in the turn.
    Failed = 3,
    /// The time was up before the turn: nothing was done.
    Expired = 4,
    /// The entity waits for an answer that waits for this one: nothing was done.
    Cycle = 5,
    /// A bound of the node is reached: nothing was done; it is safe to ask again, later.
    Full = 6,
    /// The body is not an archive of the message's type: nothing was done.
    Invalid = 7,
    /// No message has this number: nothing was done.
    Unknown = 8,
    /// The reply is longer than a frame may be: the work was done.
    TooLong = 9,
    /// The message is of an old version, and there is nothing for it in the node's: nothing was
    /// done.
    Unconvertible = 10,
    /// There is nothing for the reply in the client's version of the message: the work was done.
    Unsayable = 11,
    /// The peer does not follow the protocol.
    Protocol = 32,
    /// No version of the protocol is known to both sides.
    Version = 33,
    /// The node belongs to another cluster.
    Cluster = 34,
    /// The node stops.
    Stopping = 35,
    /// The connection went beyond a limit.
    Limit = 36,
}

impl Code {
    /// The code of this number.
    pub fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::NotSent,
            2 => Self::MaybeExecuted,
            3 => Self::Failed,
            4 => Self::Expired,
            5 => Self::Cycle,
            6 => Self::Full,
            7 => Self::Invalid,
            8 => Self::Unknown,
            9 => Self::TooLong,
            10 => Self::Unconvertible,
            11 => Self::Unsayable,
            32 => Self::Protocol,
            33 => Self::Version,
            34 => Self::Cluster,
            35 => Self::Stopping,
            36 => Self::Limit,
            _ => return None,
        })
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotSent => "nothing was done; it is safe to ask again",
            Self::MaybeExecuted => "nobody will say whether the work was done",
            Self::Failed => "the entity failed in the turn that handled the message",
            Self::Expired => "the time was up before the message had its turn; nothing was done",
            Self::Cycle => "the entity waits for an answer that waits for this one",
            Self::Full => "a bound of the node is reached; try again later",
            Self::Invalid => "the body is not an archive of the message's type",
            Self::Unknown => "no message has this number",
            Self::TooLong => "the reply is longer than a frame may be",
            Self::Unconvertible => "the node's version of the message has nothing for this value",
            Self::Unsayable => "the client's version of the message has nothing for the reply",
            Self::Protocol => "the peer does not follow the protocol",
            Self::Version => "no version of the protocol is known to both sides",
            Self::Cluster => "the node belongs to another cluster",
            Self::Stopping => "the node stops",
            Self::Limit => "the connection went beyond a limit of the node",
        })
    }
}

/// The first 16 bytes of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// Bytes of the frame, this header included, padding not.
    pub length: u32,
    /// What the frame is.
    pub kind: Kind,
    /// A [`Code`] where the kind has one, else 0.
    pub code: u8,
    /// The message's number, as the welcome gave it; 0 where there is none.
    pub message: u16,
    /// Chosen by whoever asks or pings, and brought back by the answer; chosen by whoever tells,
    /// and brought back by [`Kind::Credit`], many at once; else 0.
    pub call: u32,
    /// In asks, microseconds that are left; 0 for as long as the node allows. Else 0.
    pub time_us: u32,
}

/// Why bytes are no frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FrameError {
    /// The length is less than that of a header, or beyond the limit.
    Length(u32),
    /// No such kind.
    Kind(u8),
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length(length) => write!(f, "a frame of {length} bytes"),
            Self::Kind(kind) => write!(f, "a frame of kind {kind}"),
        }
    }
}

impl std::error::Error for FrameError {}

impl Header {
    /// A header of this kind and nothing else.
    pub const fn new(kind: Kind) -> Self {
        Self { length: HEADER_BYTES as u32, kind, code: 0, message: 0, call: 0, time_us: 0 }
    }

    /// Reads the header at the front of `bytes`; `None` while there are fewer than 16.
    ///
    /// # Errors
    /// What is wrong with it. `frame_bytes_max` is the longest frame.
    #[inline]
    pub fn read(bytes: &[u8], frame_bytes_max: u32) -> Result<Option<Self>, FrameError> {
        let Some(bytes) = bytes.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        let word = u128::from_le_bytes(*bytes);
        let (length, kind) = (word as u32, (word >> 32) as u8);
        if length < HEADER_BYTES as u32 || length > frame_bytes_max {
            return Err(FrameError::Length(length));
        }
        let kind = Kind::from_byte(kind).ok_or(FrameError::Kind(kind))?;
        Ok(Some(Self {
            length,
            kind,
            code: (word >> 40) as u8,
            message: (word >> 48) as u16,
            call: (word >> 64) as u32,
            time_us: (word >> 96) as u32,
        }))
    }

    /// The header as bytes.
    #[inline]
    pub fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let word = u128::from(self.length)
            | u128::from(self.kind as u8) << 32
            | u128::from(self.code) << 40
            | u128::from(self.message) << 48
            | u128::from(self.call) << 64
            | u128::from(self.time_us) << 96;
        word.to_le_bytes()
    }

    /// Bytes up to the next frame.
    #[inline]
    pub fn padded(self) -> usize {
        (self.length as usize).next_multiple_of(ALIGN)
    }

    /// Appends this frame without content to `out`, which holds whole frames.
    pub fn write(self, out: &mut Vec<u8>) {
        self.write_with(out, |_| Ok::<(), std::convert::Infallible>(())).unwrap_or_default();
    }

    /// Appends this frame to `out`, which holds whole frames; `content` writes what follows the
    /// header. The length is counted.
    ///
    /// # Errors
    /// What `content` says; `out` is as it was then.
    #[inline]
    pub fn write_with<E>(
        mut self,
        out: &mut Vec<u8>,
        content: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        debug_assert!(out.len().is_multiple_of(ALIGN), "whole frames");
        let start = out.len();
        out.extend_from_slice(&[0; HEADER_BYTES]);
        if let Err(error) = content(out) {
            out.truncate(start);
            return Err(error);
        }
        let behind = out.len() - start;
        self.length = behind as u32;
        if let Some(header) = out.get_mut(start..).and_then(|out| out.first_chunk_mut()) {
            *header = self.to_bytes();
        }
        if !behind.is_multiple_of(ALIGN) {
            out.resize(start + self.padded(), 0);
        }
        Ok(())
    }
}

/// A tell or an ask, where it lies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Message<'a> {
    /// Whether an answer is wanted.
    pub(crate) asks: bool,
    /// As in the [`Header`].
    pub(crate) number: u16,
    /// As in the [`Header`].
    pub(crate) call: u32,
    /// As in the [`Header`].
    pub(crate) time_us: u32,
    /// The entity's key.
    pub(crate) key: [u64; 2],
    /// The archive.
    pub(crate) body: Body<'a>,
}

impl<'a> Message<'a> {
    /// The message whose whole frame is at the front of `input`, and what is behind it; `None` for
    /// whatever else there is.
    #[inline(always)]
    pub(crate) fn split(input: Body<'a>, frame_bytes_max: u32) -> Option<(Self, Body<'a>)> {
        const BODY: usize = HEADER_BYTES + KEY_BYTES;
        let front = input.bytes().first_chunk::<BODY>()?;
        let mut words = front.as_chunks().0.iter().map(|word| u64::from_le_bytes(*word));
        let [first, second, low, high] = std::array::from_fn(|_| words.next().unwrap_or(0));
        let (length, kind) = (first as u32, (first >> 32) as u8);
        let asks = kind == Kind::Ask as u8;
        if !(asks || kind == Kind::Tell as u8) || length > frame_bytes_max {
            return None;
        }
        let body = input.get(BODY..length as usize)?;
        let behind = input.get((length as usize).next_multiple_of(ALIGN)..)?;
        let (number, call) = ((first >> 48) as u16, second as u32);
        let message =
            Self { asks, number, call, time_us: (second >> 32) as u32, key: [low, high], body };
        Some((message, behind))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_survives_the_trip() {
        let header = Header {
            length: 0x0001_2345,
            kind: Kind::GoAway,
            code: 0xfe,
            message: 0xabcd,
            call: 0xdead_beef,
            time_us: 0x8765_4321,
        };
        assert_eq!(Header::read(&header.to_bytes(), u32::MAX), Ok(Some(header)));
    }

    #[test]
    fn every_kind_and_code_has_a_number_and_no_other_has() {
        let kinds = (0..=255).filter_map(Kind::from_byte).map(|kind| kind as u8);
        assert!(kinds.eq(1..=10));
        for byte in 0..=255 {
            assert!(Code::from_byte(byte).is_none_or(|code| code as u8 == byte));
        }
    }

    #[test]
    fn length_is_checked_before_anything_is_believed() {
        let mut bytes = Header::new(Kind::Ping).to_bytes();
        assert_eq!(Header::read(&bytes[..15], 1024), Ok(None));
        for (length, fits) in [(0u32, false), (15, false), (16, true), (1024, true), (1025, false)]
        {
            bytes[..4].copy_from_slice(&length.to_le_bytes());
            assert_eq!(Header::read(&bytes, 1024).is_ok(), fits, "{length}");
        }
        bytes[4] = 77;
        bytes[..4].copy_from_slice(&16u32.to_le_bytes());
        assert_eq!(Header::read(&bytes, 1024), Err(FrameError::Kind(77)));
    }

    #[test]
    fn message_is_split_as_its_header_says() {
        let mut bytes = Vec::new();
        for (kind, len) in [(Kind::Ask, 5u8), (Kind::Tell, 16), (Kind::Ask, 0)] {
            let header = Header { message: 0xabcd, call: 7, time_us: 9, ..Header::new(kind) };
            let content = |out: &mut Vec<u8>| {
                out.extend_from_slice(&(1u128 << 64 | 3).to_le_bytes());
                out.extend((0..len).map(|byte| byte + 1));
                Ok::<(), ()>(())
            };
            assert_eq!(header.write_with(&mut bytes, content), Ok(()));
        }
        let mut rest = Body::new(&bytes);
        for (asks, body) in [(true, 5), (false, 16), (true, 0)] {
            let Some((message, behind)) = Message::split(rest, 64) else { panic!("it is whole") };
            assert_eq!((message.asks, message.body.bytes().len()), (asks, body));
            assert_eq!((message.number, message.call, message.time_us), (0xabcd, 7, 9));
            assert_eq!(message.key, [3, 1]);
            rest = behind;
        }
        assert!(rest.bytes().is_empty());
        let is_left = |bytes: &[u8], max| Message::split(Body::new(bytes), max).is_none();
        // Parts, lengths that cannot be, and other kinds are left to others.
        let length = bytes[0] as usize;
        let padded = length.next_multiple_of(ALIGN);
        for end in 0..padded {
            assert!(is_left(&bytes[..end], 64));
        }
        assert!(is_left(&bytes, length as u32 - 1));
        for length in 0..32 {
            bytes[0] = length;
            assert!(is_left(&bytes, 64));
        }
        bytes[..4].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(is_left(&bytes, u32::MAX));
        bytes[..4].copy_from_slice(&37u32.to_le_bytes());
        for kind in (0..=255).filter(|kind| ![Kind::Ask as u8, Kind::Tell as u8].contains(kind)) {
            bytes[4] = kind;
            assert!(is_left(&bytes, 64));
        }
    }

    #[test]
    fn frames_are_padded_and_a_failed_one_leaves_no_trace() {
        let mut out = Vec::new();
        let content = |out: &mut Vec<u8>| {
            out.push(7);
            Ok::<(), ()>(())
        };
        assert_eq!(Header::new(Kind::Reply).write_with(&mut out, content), Ok(()));
        assert_eq!((out.len(), out[0], out[16]), (32, 17, 7));
        let failed = Header::new(Kind::Reply).write_with(&mut out, |out| {
            out.push(8);
            Err(())
        });
        assert_eq!((failed, out.len()), (Err(()), 32));
    }
}
