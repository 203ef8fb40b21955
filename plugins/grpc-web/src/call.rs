//! A call's two bodies: the request's, whole, out of gRPC-Web's coding; the answer's, piece by piece, into it, with the trailers
//! as its last frame.

use crate::{
    frames::{Frames, Stands, TRAILERS, trailers},
    media::{Coding, Media},
    status::{Code, Status},
    text::{Decoder, encode},
};

/// The frames of a whole request, or why there are none.
pub(crate) fn request(media: &Media, body: Vec<u8>) -> Result<Vec<u8>, Status> {
    let refused = |message: &str| Err(Status::new(Code::InvalidArgument, message));
    let frames = match media.coding {
        Coding::Binary => body,
        Coding::Text => {
            let mut decoder = Decoder::default();
            match decoder.push(&body).and_then(|frames| decoder.finish().map(|()| frames)) {
                Ok(frames) => frames,
                Err(_) => return refused("the request's body is not the base64 that its content type says"),
            }
        }
    };
    let mut followed = Frames::default();
    match followed.push(&frames) {
        Ok(()) if followed.stands() == Stands::Between => Ok(frames),
        Ok(()) => refused("the request's body ends within a message"),
        Err(error) if error.flag == TRAILERS => refused("the request's body holds trailers, which only answers have"),
        Err(_) => refused("the request's body is not made of gRPC's frames"),
    }
}

/// An answer that is on its way.
#[derive(Debug)]
pub(crate) struct Answer {
    coding: Coding,
    frames: Frames,
    stage: Stage,
}

/// Where its status is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Still to come.
    Open,
    /// In the head: an answer of trailers only.
    InHead,
    /// Told: nothing may follow.
    Told,
}

/// What becomes of a piece.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// It goes on as it came.
    AsItCame,
    /// This goes on in its place.
    Instead(Vec<u8>),
}

/// The answer broke off within a message, where no status can be told any more.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Broken;

impl Answer {
    pub(crate) fn new(coding: Coding, stage: Stage) -> Self {
        Self { coding, frames: Frames::default(), stage }
    }

    /// The next piece of the service's answer. What is not gRPC ends it with a status, and the rest is left out.
    pub(crate) fn push(&mut self, piece: &[u8]) -> Piece {
        if self.stage == Stage::Told {
            return Piece::Instead(Vec::new());
        }
        match (self.frames.push(piece), self.coding) {
            (Ok(()), Coding::Binary) => Piece::AsItCame,
            (Ok(()), Coding::Text) => Piece::Instead(self.coded(piece)),
            (Err(error), _) => {
                self.stage = Stage::Told;
                let status = Status::new(Code::Internal, "the service's answer is not made of gRPC's frames");
                Piece::Instead(self.coded(&[&piece[..error.at], &status_frame(&status)].concat()))
            }
        }
    }

    /// The answer has ended with these trailers, if it had any: what is added to it.
    pub(crate) fn finish(&mut self, fields: Option<&[(String, Vec<u8>)]>) -> Result<Vec<u8>, Broken> {
        let stage = std::mem::replace(&mut self.stage, Stage::Told);
        if stage == Stage::Told || (stage == Stage::InHead && fields.is_none()) {
            return Ok(Vec::new());
        }
        if self.frames.stands() == Stands::Within {
            return Err(Broken);
        }
        let has_status = |fields: &&[(String, Vec<u8>)]| fields.iter().any(|(name, _)| name == "grpc-status");
        let frame = match fields.filter(|fields| stage == Stage::InHead || has_status(fields)) {
            Some(fields) => trailers(fields.iter().map(|(name, value)| (name.as_str(), value.as_slice()))),
            None => status_frame(&Status::new(Code::Unknown, "the service's answer ended without a status")),
        };
        Ok(self.coded(&frame))
    }

    fn coded(&self, bytes: &[u8]) -> Vec<u8> {
        match self.coding {
            Coding::Binary => bytes.to_vec(),
            // With its padding, for who waits for a message cannot wait for the next to complete the group.
            Coding::Text => encode(bytes).into_bytes(),
        }
    }
}

fn status_frame(status: &Status) -> Vec<u8> {
    let fields = status.fields();
    trailers(fields.iter().map(|(name, value)| (*name, value.as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &[u8] = b"\0\0\0\0\x03abc\x01\0\0\0\x01d";

    fn media(text: &str) -> Media {
        Media::of_request(text).unwrap()
    }

    /// What a caller gets of an answer that comes in these pieces.
    fn answer(coding: Coding, pieces: &[&[u8]], fields: Option<&[(String, Vec<u8>)]>) -> Result<Vec<u8>, Broken> {
        let mut answer = Answer::new(coding, Stage::Open);
        let mut got = Vec::new();
        for piece in pieces {
            match answer.push(piece) {
                Piece::AsItCame => got.extend_from_slice(piece),
                Piece::Instead(bytes) => got.extend(bytes),
            }
        }
        got.extend(answer.finish(fields)?);
        if coding == Coding::Text {
            let mut decoder = Decoder::default();
            got = decoder.push(&got).unwrap();
            decoder.finish().unwrap();
        }
        Ok(got)
    }

    fn ended(code: u8, message: &str) -> Vec<u8> {
        let lines = format!("grpc-status: {code}\r\ngrpc-message: {message}\r\n");
        [&[TRAILERS, 0, 0, 0, u8::try_from(lines.len()).unwrap()][..], lines.as_bytes()].concat()
    }

    #[test]
    fn requests_are_whole_or_refused() {
        assert_eq!(request(&media("application/grpc-web"), TWO.to_vec()), Ok(TWO.to_vec()));
        let text = media("application/grpc-web-text");
        let parts = [encode(&TWO[..6]), encode(&TWO[6..])].concat();
        assert_eq!(request(&text, parts.clone().into_bytes()), Ok(TWO.to_vec()));
        for end in 1..TWO.len() {
            assert_eq!(request(&media("application/grpc-web"), TWO[..end].to_vec()).is_ok(), end == 8, "{end}");
        }
        for end in 1..parts.len() {
            assert!(request(&text, parts.as_bytes()[..end].to_vec()).is_err(), "{end}");
        }
        let rows: [(&str, &[u8], &str); 4] = [
            ("application/grpc-web-text", b"AAAA-", "base64"),
            ("application/grpc-web-text", b"AAAA", "within a message"),
            ("application/grpc-web", b"\x80\0\0\0\0", "trailers"),
            ("application/grpc-web", b"{}", "gRPC's frames"),
        ];
        for (kind, body, why) in rows {
            let status = request(&media(kind), body.to_vec()).unwrap_err();
            assert!(status.code == Code::InvalidArgument && status.message.contains(why), "{kind}: {status:?}");
        }
        assert_eq!(request(&text, Vec::new()), Ok(Vec::new()));
    }

    #[test]
    fn where_an_answers_pieces_end_does_not_matter() {
        let fields = [("grpc-status".to_owned(), b"0".to_vec()), ("x-sum-bin".to_owned(), b"AQ".to_vec())];
        let end = b"\x80\0\0\0\x1fgrpc-status: 0\r\nx-sum-bin: AQ\r\n";
        let wanted = [TWO, end].concat();
        for coding in [Coding::Binary, Coding::Text] {
            for one in 0..=TWO.len() {
                for other in one..=TWO.len() {
                    let pieces = [&TWO[..one], &TWO[one..other], &TWO[other..]];
                    assert_eq!(answer(coding, &pieces, Some(&fields)).as_ref(), Ok(&wanted), "{coding:?} {pieces:?}");
                }
            }
        }
    }

    #[test]
    fn a_message_is_readable_as_soon_as_it_has_come() {
        let mut answer = Answer::new(Coding::Text, Stage::Open);
        for _ in 0..3 {
            let Piece::Instead(text) = answer.push(&TWO[8..]) else { panic!("text is encoded") };
            assert_eq!(Decoder::default().push(&text), Ok(TWO[8..].to_vec()));
        }
    }

    #[test]
    fn an_answer_ends_with_a_status_in_any_case() {
        let lost = ended(2, "the service's answer ended without a status");
        let spoilt = ended(13, "the service's answer is not made of gRPC's frames");
        for coding in [Coding::Binary, Coding::Text] {
            assert_eq!(answer(coding, &[TWO], None), Ok([TWO, &lost].concat()));
            assert_eq!(answer(coding, &[TWO], Some(&[])), Ok([TWO, &lost].concat()));
            assert_eq!(answer(coding, &[], None), Ok(lost.clone()));
            let broken = [TWO, b"<html>"].concat();
            for cut in 0..=broken.len() {
                let (one, other) = broken.split_at(cut);
                assert_eq!(answer(coding, &[one, other, b"more"], None), Ok([TWO, &spoilt].concat()), "{cut}");
            }
            for end in [1, 4, 6, 12] {
                assert_eq!(answer(coding, &[&TWO[..end]], Some(&[])), Err(Broken), "{end}");
            }
        }
        let mut answer = Answer::new(Coding::Binary, Stage::InHead);
        assert_eq!((answer.push(b""), answer.finish(None)), (Piece::AsItCame, Ok(Vec::new())));
    }
}
