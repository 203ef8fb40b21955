//! A shape: a request, and what the filter is asked to do with it and its answer.

use http::Version;
use std::fmt;

/// A request, and what the filter `shapes` is asked to do in which phase.
#[derive(Debug, Clone)]
pub(super) struct Shape {
    pub(super) name: &'static str,
    pub(super) place: &'static str,
    pub(super) version: Version,
    pub(super) method: &'static str,
    pub(super) target: &'static str,
    pub(super) headers: Vec<(&'static str, &'static str)>,
    pub(super) pieces: Vec<String>,
    pub(super) sized: Sized,
    pub(super) trailers: Vec<(&'static str, &'static str)>,
    pub(super) script: &'static str,
    pub(super) notes: Notes,
    pub(super) likeness: Likeness,
}

/// Whether a body says its length beforehand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sized {
    ByLength,
    InChunks,
}

/// Whether the filter is asked what it noted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Notes {
    Compared,
    /// The module that noted them is gone, or notes nothing.
    Lost,
}

/// Whether the gateway does with a shape what Envoy does.
#[derive(Debug, Clone, Copy)]
pub(super) enum Likeness {
    Alike,
    /// But for what the upstream saw: whether the head had come there when the request was given up is a matter of luck.
    AlikeToTheCaller,
    /// It has a reason not to, and these lines are its own alone.
    Unlike {
        because: &'static str,
        here: &'static [&'static str],
    },
}

impl fmt::Display for Shape {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, place, version, method, target, headers, pieces, sized, trailers, script, .. } = self;
        write!(to, "{name}\n{method} {target} {version:?} {headers:?}")?;
        match &pieces[..] {
            [] => {}
            [piece] if piece.len() > 99 => write!(to, " {} bytes {sized:?}", piece.len())?,
            pieces => write!(to, " {pieces:?} {sized:?}")?,
        }
        write!(to, " trailers {trailers:?}, at `{place}`\n\n`{script}`")
    }
}

/// A shape with nothing to it yet: `GET /mirror` over HTTP/1.1.
pub(super) fn shape(name: &'static str, script: &'static str) -> Shape {
    Shape {
        name,
        place: "shapes",
        version: Version::HTTP_11,
        method: "GET",
        target: "/mirror",
        headers: Vec::new(),
        pieces: Vec::new(),
        sized: Sized::InChunks,
        trailers: Vec::new(),
        script,
        notes: Notes::Compared,
        likeness: Likeness::Alike,
    }
}

impl Shape {
    pub(super) fn at(self, place: &'static str) -> Self {
        Self { place, ..self }
    }

    pub(super) fn http2(self) -> Self {
        Self { version: Version::HTTP_2, ..self }
    }

    pub(super) fn to(self, target: &'static str) -> Self {
        Self { target, ..self }
    }

    pub(super) fn method(self, method: &'static str) -> Self {
        Self { method, ..self }
    }

    pub(super) fn header(mut self, name: &'static str, value: &'static str) -> Self {
        self.headers.push((name, value));
        self
    }

    /// A body in chunks.
    pub(super) fn chunks(self, pieces: &[&str]) -> Self {
        let pieces = pieces.iter().map(|&piece| piece.to_owned()).collect();
        Self { method: "POST", pieces, sized: Sized::InChunks, ..self }
    }

    /// A body that says its length.
    pub(super) fn sized(self, body: &str) -> Self {
        Self { method: "POST", pieces: vec![body.to_owned()], sized: Sized::ByLength, ..self }
    }

    /// `count` bytes that say their length.
    pub(super) fn bytes(self, count: usize) -> Self {
        Self { method: "POST", pieces: vec!["x".repeat(count)], sized: Sized::ByLength, ..self }
    }

    /// A trailer after the body.
    pub(super) fn trailer(mut self, name: &'static str, value: &'static str) -> Self {
        self.trailers.push((name, value));
        self
    }

    pub(super) fn without_notes(self) -> Self {
        Self { notes: Notes::Lost, ..self }
    }

    /// Where the filter answers while the request is on its way.
    pub(super) fn given_up(self) -> Self {
        Self { likeness: Likeness::AlikeToTheCaller, ..self }
    }

    /// Where the gateway does something else, for a reason: these lines, of the parts `answer`, `upstream` and `notes`, are its own
    /// alone.
    pub(super) fn unlike(self, because: &'static str, here: &'static [&'static str]) -> Self {
        Self { likeness: Likeness::Unlike { because, here }, ..self }
    }

    /// The host that names the place.
    pub(super) fn host(&self) -> String {
        format!("{}.example.com", self.place)
    }
}
