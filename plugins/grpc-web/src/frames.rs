//! gRPC's frames (a flag, a length of four bytes, the message), followed without being kept: where one ends, and whether they
//! are frames at all.

/// Follows the frames of one body.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    /// What has come of the next frame's flag and length.
    prefix: [u8; PREFIX],
    have: usize,
    /// What is still to come of the message.
    left: u32,
    messages: u64,
}

/// Where the body stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stands {
    /// Between two frames: it may end here, and something may be added.
    Between,
    /// Within a frame.
    Within,
}

/// What follows is not a frame: `at` bytes of the piece belong to frames before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotAFrame {
    pub(crate) at: usize,
    pub(crate) flag: u8,
}

/// Bytes of flag and length.
const PREFIX: usize = 5;
/// The flag of a message that is compressed as `grpc-encoding` says. Every other bit is reserved; 0x80 is gRPC-Web's trailers,
/// which only an answer to a gRPC-Web caller has.
const COMPRESSED: u8 = 1;
/// The flag of the frame that gRPC-Web ends a body with.
pub(crate) const TRAILERS: u8 = 0x80;

impl Frames {
    /// Follows what has come.
    pub(crate) fn push(&mut self, piece: &[u8]) -> Result<(), NotAFrame> {
        let mut at = 0;
        while at < piece.len() {
            let rest = &piece[at..];
            if self.left > 0 {
                let taken = rest.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
                self.left -= u32::try_from(taken).unwrap_or(self.left);
                at += taken;
                continue;
            }
            if self.have == 0 && rest[0] & !COMPRESSED != 0 {
                return Err(NotAFrame { at, flag: rest[0] });
            }
            let taken = rest.len().min(PREFIX - self.have);
            self.prefix[self.have..self.have + taken].copy_from_slice(&rest[..taken]);
            self.have += taken;
            at += taken;
            if self.have == PREFIX {
                let [_, length @ ..] = self.prefix;
                self.left = u32::from_be_bytes(length);
                self.have = 0;
                self.messages += 1;
            }
        }
        Ok(())
    }

    /// Where the body stands.
    pub(crate) fn stands(&self) -> Stands {
        if self.left == 0 && self.have == 0 { Stands::Between } else { Stands::Within }
    }
}

/// The frame that ends a gRPC-Web body: the trailers, as lines of HTTP/1.1.
pub(crate) fn trailers<'a>(fields: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Vec<u8> {
    let mut frame = vec![TRAILERS, 0, 0, 0, 0];
    for (name, value) in fields {
        frame.extend_from_slice(name.to_ascii_lowercase().as_bytes());
        frame.extend_from_slice(b": ");
        frame.extend_from_slice(value);
        frame.extend_from_slice(b"\r\n");
    }
    // The gateway bounds trailers far below the length's four bytes.
    let length = u32::try_from(frame.len() - PREFIX).unwrap_or(u32::MAX);
    frame[1..PREFIX].copy_from_slice(&length.to_be_bytes());
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(flag: u8, message: &[u8]) -> Vec<u8> {
        let length = u32::try_from(message.len()).unwrap().to_be_bytes();
        [&[flag][..], &length, message].concat()
    }

    /// The frames' ends, and where the body stops being frames, when it comes in these pieces.
    fn follow(pieces: &[&[u8]]) -> (Stands, u64, Option<(usize, u8)>) {
        let mut frames = Frames::default();
        let mut before = 0;
        for piece in pieces {
            if let Err(error) = frames.push(piece) {
                return (frames.stands(), frames.messages, Some((before + error.at, error.flag)));
            }
            before += piece.len();
        }
        (frames.stands(), frames.messages, None)
    }

    #[test]
    fn where_pieces_end_does_not_matter() {
        let three = [frame(0, b""), frame(1, b"abc"), frame(0, &[0xff; 7])].concat();
        let broken = [&three[..], &frame(TRAILERS, b"x")].concat();
        let ends = [0, 5, 13, 25];
        for body in [&three, &broken] {
            for end in 0..=body.len() {
                let body = &body[..end];
                let error = (end > three.len()).then_some((three.len(), TRAILERS));
                let stands = if error.is_some() || ends.contains(&end) { Stands::Between } else { Stands::Within };
                for one in 0..=body.len() {
                    for other in one..=body.len() {
                        let got = follow(&[&body[..one], &body[one..other], &body[other..]]);
                        assert_eq!((got.0, got.2), (stands, error), "{end} cut at {one} and {other}");
                    }
                }
            }
        }
        assert_eq!(follow(&[&three]).1, 3);
    }

    #[test]
    fn only_two_flags_are_known() {
        for flag in 0..=u8::MAX {
            let error = Frames::default().push(&frame(flag, b"x")).err();
            assert_eq!(error, (flag > 1).then_some(NotAFrame { at: 0, flag }));
        }
    }

    #[test]
    fn trailers_are_lines_in_a_frame() {
        let fields: [(&str, &[u8]); 2] = [("Grpc-Status", b"5"), ("x-odd-bin", b"\xe9\xff")];
        let lines = b"grpc-status: 5\r\nx-odd-bin: \xe9\xff\r\n";
        assert_eq!(trailers(fields), [&[TRAILERS, 0, 0, 0, u8::try_from(lines.len()).unwrap()][..], lines].concat());
        assert_eq!(trailers([]), [TRAILERS, 0, 0, 0, 0]);
    }
}
