//! How the bytes of a body are found on the wire: by length, by chunks (RFC 9112 section 7.1) or by the connection's
//! end. Pure: it is handed a buffer and takes from it what belongs to the body, and never more.

use super::{Framing, head};
use ::http::HeaderMap;
use bytes::{Buf, Bytes, BytesMut};

/// Most bytes of chunk extensions in one body. Nothing in use needs any; RFC 9112 section 7.1.1 asks for a limit.
const MAX_EXTENSION_BYTES: usize = 4 * 1024;

/// Most bytes of a trailer section, the line that ends it included.
const MAX_TRAILER_BYTES: usize = 16 * 1024;

/// Longest chunk size accepted, in hexadecimal digits: more would not fit 64 bits.
const MAX_SIZE_DIGITS: usize = 16;

/// Where a body is on its way in.
#[derive(Debug)]
pub(super) enum Decoder {
    /// So many bytes are still to come. Zero means that the body has ended.
    Length(u64),
    /// In chunks.
    Chunked(Chunks),
    /// Until the connection ends.
    Close,
}

/// Where a chunked body is on its way in.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    state: ChunkState,
    /// Bytes of extensions seen in the whole body.
    extensions: usize,
    scan: head::Scan,
}

#[derive(Debug, Default)]
enum ChunkState {
    #[default]
    Size,
    Data(u64),
    DataEnd,
    Trailers,
    End,
}

/// What a decoder found.
#[derive(Debug)]
pub(super) enum Decoded {
    /// Part of the body; never empty.
    Data(Bytes),
    /// The trailer section; the body has ended.
    Trailers(HeaderMap),
    /// The body has ended.
    End,
    /// The buffer holds no more of it: more must be read.
    More,
}

impl Decoder {
    /// Whether nothing of the body is still to come.
    pub(super) fn ended(&self) -> bool {
        matches!(self, Self::Length(0) | Self::Chunked(Chunks { state: ChunkState::End, .. }))
    }

    /// Bytes still to come, where that is known.
    pub(super) fn remaining(&self) -> Option<u64> {
        match self {
            Self::Length(remaining) => Some(*remaining),
            _ if self.ended() => Some(0),
            Self::Chunked(_) | Self::Close => None,
        }
    }

    /// Takes the next piece of the body from `buffer`.
    pub(super) fn decode(&mut self, buffer: &mut BytesMut) -> Result<Decoded, Framing> {
        match self {
            Self::Length(0) => Ok(Decoded::End),
            _ if buffer.is_empty() && !self.ended() => Ok(Decoded::More),
            Self::Length(remaining) => {
                let data = take(buffer, *remaining);
                *remaining -= data.len() as u64;
                Ok(Decoded::Data(data))
            }
            Self::Chunked(chunks) => chunks.decode(buffer),
            Self::Close => Ok(Decoded::Data(buffer.split().freeze())),
        }
    }
}

impl Chunks {
    fn decode(&mut self, buffer: &mut BytesMut) -> Result<Decoded, Framing> {
        loop {
            match self.state {
                ChunkState::Size => match self.size_line(buffer)? {
                    Some(0) => self.state = ChunkState::Trailers,
                    Some(size) => self.state = ChunkState::Data(size),
                    None => return Ok(Decoded::More),
                },
                ChunkState::Data(remaining) => {
                    if buffer.is_empty() {
                        return Ok(Decoded::More);
                    }
                    let data = take(buffer, remaining);
                    let left = remaining - data.len() as u64;
                    self.state = if left == 0 { ChunkState::DataEnd } else { ChunkState::Data(left) };
                    return Ok(Decoded::Data(data));
                }
                ChunkState::DataEnd => match buffer.get(..2) {
                    Some(b"\r\n") => {
                        buffer.advance(2);
                        self.state = ChunkState::Size;
                    }
                    Some(_) => return Err(Framing::Bad("a chunk is not followed by CRLF")),
                    None if buffer.first().is_some_and(|&byte| byte != b'\r') => {
                        return Err(Framing::Bad("a chunk is not followed by CRLF"));
                    }
                    None => return Ok(Decoded::More),
                },
                ChunkState::Trailers => return self.trailers(buffer),
                ChunkState::End => return Ok(Decoded::End),
            }
        }
    }

    /// Takes a line `size [; extensions] CRLF`. Space around the size is refused rather than skipped: it means nothing,
    /// and readers differ in what they make of it.
    fn size_line(&mut self, buffer: &mut BytesMut) -> Result<Option<u64>, Framing> {
        let digits = buffer.iter().take(MAX_SIZE_DIGITS + 1).take_while(|byte| byte.is_ascii_hexdigit()).count();
        if digits > MAX_SIZE_DIGITS {
            return Err(Framing::Bad("a chunk size has more than 16 digits"));
        }
        let Some(&next) = buffer.get(digits) else { return Ok(None) };
        if digits == 0 || !matches!(next, b'\r' | b';') {
            return Err(Framing::Bad("a chunk size is not a hexadecimal number alone"));
        }
        let Some(line_feed) = memchr::memchr(b'\n', &buffer[digits..]) else {
            let pending = buffer.len() - digits;
            if self.extensions + pending > MAX_EXTENSION_BYTES {
                return Err(Framing::Bad("chunk extensions are longer than 4096 bytes"));
            }
            return Ok(None);
        };
        let line = &buffer[..digits + line_feed];
        let Some(extension) = line[digits..].strip_suffix(b"\r") else {
            return Err(Framing::Bad("a chunk size line ends in a bare LF"));
        };
        if extension.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t') {
            return Err(Framing::Bad("a chunk extension holds a control character"));
        }
        self.extensions += extension.len();
        if self.extensions > MAX_EXTENSION_BYTES {
            return Err(Framing::Bad("chunk extensions are longer than 4096 bytes"));
        }
        let size = line[..digits].iter().fold(0_u64, |size, &digit| size << 4 | u64::from(hexadecimal(digit)));
        buffer.advance(digits + line_feed + 1);
        Ok(Some(size))
    }

    fn trailers(&mut self, buffer: &mut BytesMut) -> Result<Decoded, Framing> {
        if buffer.starts_with(b"\r\n") {
            buffer.advance(2);
            self.state = ChunkState::End;
            return Ok(Decoded::End);
        }
        let end = self.scan.advance(buffer)?;
        if end.unwrap_or(buffer.len()) > MAX_TRAILER_BYTES {
            return Err(Framing::TooLarge("the trailer section is longer than 16384 bytes"));
        }
        let Some(end) = end else { return Ok(Decoded::More) };
        let trailers = head::parse_trailers(&buffer.split_to(end).freeze())?;
        self.state = ChunkState::End;
        Ok(Decoded::Trailers(trailers))
    }
}

fn take(buffer: &mut BytesMut, at_most: u64) -> Bytes {
    let length = usize::try_from(at_most).unwrap_or(usize::MAX).min(buffer.len());
    buffer.split_to(length).freeze()
}

fn hexadecimal(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => digit - b'A' + 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `wire` in two pieces cut at `cut` and returns the body, whether trailers came, and what is left over.
    fn feed(wire: &[u8], cut: usize) -> Result<(Vec<u8>, Option<HeaderMap>, Vec<u8>), Framing> {
        let mut decoder = Decoder::Chunked(Chunks::default());
        let mut buffer = BytesMut::new();
        let mut body = Vec::new();
        let mut pieces = [&wire[..cut], &wire[cut..]].into_iter();
        loop {
            match decoder.decode(&mut buffer)? {
                Decoded::Data(data) => body.extend_from_slice(&data),
                Decoded::Trailers(trailers) => {
                    return Ok((body, Some(trailers), [&buffer[..], pieces.next().unwrap_or(b"")].concat()));
                }
                Decoded::End => return Ok((body, None, [&buffer[..], pieces.next().unwrap_or(b"")].concat())),
                Decoded::More => match pieces.next() {
                    Some(piece) => buffer.extend_from_slice(piece),
                    None => return Err(Framing::Bad("incomplete")),
                },
            }
        }
    }

    #[test]
    fn a_chunked_body_is_the_same_wherever_it_is_cut() {
        let wire = b"5\r\nhello\r\n6;name=value\r\n world\r\n0\r\nx-sum: 11\r\n\r\nNEXT";
        for cut in 0..wire.len() {
            let (body, trailers, rest) = feed(wire, cut).unwrap();
            assert_eq!(body, b"hello world", "cut at {cut}");
            assert_eq!(trailers.unwrap()["x-sum"], "11", "cut at {cut}");
            assert_eq!(rest, b"NEXT", "cut at {cut}");
        }
    }

    #[test]
    fn a_body_without_trailers_ends_where_it_ends() {
        for cut in 0..16 {
            assert_eq!(feed(b"A\r\n0123456789\r\n0\r\n\r\nG", cut).unwrap(), (b"0123456789".to_vec(), None, b"G".to_vec()));
        }
    }

    #[test]
    fn bad_chunks_are_refused_wherever_they_are_cut() {
        let long = [b"5;".as_slice(), &[b'a'; 5000]].concat();
        let rows: &[(&str, &[u8])] = &[
            ("empty size", b"\r\nhello\r\n0\r\n\r\n"),
            ("not hexadecimal", b"g\r\nhello\r\n0\r\n\r\n"),
            ("prefix", b"0x5\r\nhello\r\n0\r\n\r\n"),
            ("plus", b"+5\r\nhello\r\n0\r\n\r\n"),
            ("minus", b"-5\r\nhello\r\n0\r\n\r\n"),
            ("leading space", b" 5\r\nhello\r\n0\r\n\r\n"),
            ("trailing space", b"5 \r\nhello\r\n0\r\n\r\n"),
            ("space before extension", b"5 ;a\r\nhello\r\n0\r\n\r\n"),
            ("underscore", b"1_0\r\nhello\r\n0\r\n\r\n"),
            ("seventeen digits", b"00000000000000005\r\nhello\r\n0\r\n\r\n"),
            ("bare LF after size", b"5\nhello\r\n0\r\n\r\n"),
            ("bare LF after extension", b"5;a\nhello\r\n0\r\n\r\n"),
            ("bare CR in extension", b"5;a\rb\r\nhello\r\n0\r\n\r\n"),
            ("NUL in extension", b"5;a\0\r\nhello\r\n0\r\n\r\n"),
            ("bare CR after size", b"5\rhello\r\n0\r\n\r\n"),
            ("bare LF after data", b"5\r\nhello\n0\r\n\r\n"),
            ("data longer than said", b"5\r\nhello!\r\n0\r\n\r\n"),
            ("bare LF ends trailers", b"0\r\n\n"),
            ("bare LF in trailers", b"0\r\na: b\n\r\n"),
            ("folded trailer", b"0\r\na: b\r\n c\r\n\r\n"),
            ("space before colon", b"0\r\na : b\r\n\r\n"),
            ("trailer without colon", b"0\r\nGET / HTTP/1.1\r\n\r\n"),
            ("extension too long", &long),
        ];
        for (name, wire) in rows {
            for cut in 0..wire.len() {
                let outcome = feed(wire, cut);
                assert!(outcome.is_err(), "{name} cut at {cut}: {outcome:?}");
                if wire.len() > 4000 && cut > 3 {
                    break;
                }
            }
        }
    }

    #[test]
    fn a_length_is_kept_to_the_byte() {
        let mut decoder = Decoder::Length(3);
        let mut buffer = BytesMut::from(&b"abcGET"[..]);
        assert!(matches!(decoder.decode(&mut buffer), Ok(Decoded::Data(data)) if data == "abc"));
        assert!(decoder.ended());
        assert!(matches!(decoder.decode(&mut buffer), Ok(Decoded::End)));
        assert_eq!(buffer, "GET");
    }
}
