//! gRPC's framing of messages: a flag, a length, the message. Reads frames out of chunks that end anywhere, and keeps no more than
//! one message, up to a limit.

/// The flag of compression and the four bytes of the length.
pub(crate) const HEADER: usize = 5;

/// Leaves room for the header of a frame whose message is written next.
pub(crate) fn reserve(out: &mut Vec<u8>) {
    out.extend_from_slice(&[0; HEADER]);
}

/// Writes the header into the room that was left at the start.
pub(crate) fn fill(frame: &mut [u8]) {
    // A message is limited to far less than 4 GiB before it gets here.
    let length = u32::try_from(frame.len().saturating_sub(HEADER)).unwrap_or(u32::MAX);
    if let Some(header) = frame.first_chunk_mut::<HEADER>() {
        header[1..].copy_from_slice(&length.to_be_bytes());
    }
}

/// Why what came is no sequence of frames that can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FrameError {
    /// A compressed message, though identity was all that was asked for.
    Compressed,
    /// The first byte is neither 0 nor 1.
    Flag(u8),
    TooLarge {
        length: u32,
        limit: u32,
    },
    /// The body ended within a frame.
    CutOff,
}

impl std::fmt::Display for FrameError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Compressed => f.write_str("the message is compressed, though only identity was asked for"),
            Self::Flag(flag) => write!(f, "a message begins with {flag}, so this is not the framing of gRPC"),
            Self::TooLarge { length, limit } => {
                write!(f, "a message of {length} bytes is larger than the {limit} of `max_response_bytes`")
            }
            Self::CutOff => f.write_str("the body ends in the middle of a message"),
        }
    }
}

/// Puts messages together.
#[derive(Debug)]
pub(crate) struct Frames {
    limit: u32,
    /// The header and what there is of a message that came in several chunks.
    partial: Vec<u8>,
}

impl Frames {
    pub(crate) fn new(limit: u32) -> Self {
        Self { limit, partial: Vec::new() }
    }

    /// Shows each message that the chunk completes, until one is refused. Those that lie within one chunk are not copied.
    pub(crate) fn push<E: From<FrameError>>(
        &mut self,
        mut chunk: &[u8],
        mut each: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        while !chunk.is_empty() {
            if self.partial.is_empty()
                && let Some((header, rest)) = chunk.split_first_chunk::<HEADER>()
                && let Some((message, rest)) = rest.split_at_checked(self.length(header)?)
            {
                each(message)?;
                chunk = rest;
                continue;
            }
            self.fill_to(HEADER, &mut chunk);
            let Some(header) = self.partial.first_chunk::<HEADER>() else { return Ok(()) };
            let whole = HEADER + self.length(header)?;
            self.fill_to(whole, &mut chunk);
            if self.partial.len() == whole {
                each(&self.partial[HEADER..])?;
                self.partial.clear();
            }
        }
        Ok(())
    }

    /// Whether the body may end here.
    pub(crate) fn end(&self) -> Result<(), FrameError> {
        if self.partial.is_empty() { Ok(()) } else { Err(FrameError::CutOff) }
    }

    fn fill_to(&mut self, length: usize, chunk: &mut &[u8]) {
        let missing = length.saturating_sub(self.partial.len()).min(chunk.len());
        let (now, later) = chunk.split_at(missing);
        self.partial.extend_from_slice(now);
        *chunk = later;
    }

    fn length(&self, header: &[u8; HEADER]) -> Result<usize, FrameError> {
        let [flag, length @ ..] = *header;
        let length = u32::from_be_bytes(length);
        match flag {
            0 if length > self.limit => Err(FrameError::TooLarge { length, limit: self.limit }),
            0 => Ok(length as usize),
            1 => Err(FrameError::Compressed),
            other => Err(FrameError::Flag(other)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(message: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        reserve(&mut frame);
        frame.extend_from_slice(message);
        fill(&mut frame);
        frame
    }

    fn read(chunks: &[&[u8]]) -> Result<Vec<Vec<u8>>, FrameError> {
        let mut frames = Frames::new(1000);
        let mut messages = Vec::new();
        for chunk in chunks {
            frames.push(chunk, |message| {
                messages.push(message.to_vec());
                Ok::<_, FrameError>(())
            })?;
        }
        frames.end().map(|()| messages)
    }

    #[test]
    fn a_header_says_the_length() {
        assert_eq!(frame(b"abc"), [0, 0, 0, 0, 3, b'a', b'b', b'c']);
        assert_eq!(frame(b""), [0; 5]);
    }

    #[test]
    fn chunks_may_end_anywhere() {
        let messages = [b"first".to_vec(), Vec::new(), vec![7; 300], b"last".to_vec()];
        let bytes = messages.iter().flat_map(|message| frame(message)).collect::<Vec<u8>>();
        assert_eq!(read(&[&bytes]).unwrap(), messages);
        for size in 1..bytes.len() {
            let chunks: Vec<_> = bytes.chunks(size).collect();
            assert_eq!(read(&chunks).unwrap(), messages, "chunks of {size}");
        }
        for cut in 1..bytes.len() {
            let (one, another) = bytes.split_at(cut);
            assert_eq!(read(&[one, &[], another]).unwrap(), messages, "cut at {cut}");
        }
    }

    #[test]
    fn what_is_cut_off_is_no_end() {
        let bytes = frame(b"message");
        for cut in 1..bytes.len() {
            assert_eq!(read(&[&bytes[..cut]]), Err(FrameError::CutOff), "cut at {cut}");
        }
        assert_eq!(read(&[]), Ok(Vec::new()));
    }

    #[test]
    fn what_cannot_be_read_is_refused_at_its_header() {
        let cases: [(&[u8], FrameError); 4] = [
            (&[1, 0, 0, 0, 1], FrameError::Compressed),
            (b"{\"a\":", FrameError::Flag(b'{')),
            (&[0, 0, 0, 0x03, 0xe9], FrameError::TooLarge { length: 1001, limit: 1000 }),
            (&[0, 0xff, 0xff, 0xff, 0xff], FrameError::TooLarge { length: u32::MAX, limit: 1000 }),
        ];
        for (bytes, error) in cases {
            assert_eq!(read(&[bytes]), Err(error));
            assert_eq!(read(&[&bytes[..2], &bytes[2..]]), Err(error));
        }
    }
}
