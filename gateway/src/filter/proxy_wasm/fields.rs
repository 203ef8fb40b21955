//! A message's fields as guests see them: with the pseudo-fields of HTTP/2 in front, the authority in place of `host`, and
//! without the caller's secret towards the gateway. Pure.

use crate::filter::{
    headers::{self, visible},
    names::Names,
};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header,
    uri::{Authority, PathAndQuery},
};
use std::borrow::Cow;

/// The fields of one message, or of its trailers.
#[derive(Debug, Clone, Copy)]
pub(super) struct View<'a> {
    pub(super) line: Line<'a>,
    pub(super) fields: &'a HeaderMap,
}

/// What stands before the fields.
#[derive(Debug, Clone, Copy)]
pub(super) enum Line<'a> {
    /// Trailers have none.
    None,
    Request {
        method: &'a Method,
        path: Option<&'a PathAndQuery>,
        authority: Option<&'a Authority>,
        scheme: &'static str,
    },
    Response(StatusCode),
}

/// A value, held without a copy wherever there is one already.
#[derive(Debug, Clone)]
pub(super) enum Field {
    Value(HeaderValue),
    Path(PathAndQuery),
    Authority(Authority),
    Method(Method),
    Status(StatusCode),
    Static(&'static str),
}

impl Field {
    pub(super) fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Value(value) => value.as_bytes(),
            Self::Path(path) => path.as_str().as_bytes(),
            Self::Authority(authority) => authority.as_str().as_bytes(),
            Self::Method(method) => method.as_str().as_bytes(),
            Self::Status(status) => status.as_str().as_bytes(),
            Self::Static(text) => text.as_bytes(),
        }
    }
}

impl<'a> View<'a> {
    /// The first value of a field.
    pub(super) fn get(&self, name: &[u8]) -> Option<Field> {
        self.first(name, headers::get)
    }

    /// The same, for a guest whose names these are.
    pub(super) fn get_by(&self, name: &[u8], names: &mut Names) -> Option<Field> {
        self.first(name, |fields, name| names.get(fields, name))
    }

    fn first(&self, name: &[u8], find: impl FnOnce(&'a HeaderMap, &[u8]) -> Option<&'a HeaderValue>) -> Option<Field> {
        if name.first() == Some(&b':') {
            return self.pseudo(name);
        }
        if name.eq_ignore_ascii_case(b"host") && matches!(self.line, Line::Request { .. }) {
            return self.authority();
        }
        find(self.fields, name).cloned().map(Field::Value)
    }

    /// Every field, as it is to be written to a guest's memory.
    pub(super) fn pairs(&self) -> Vec<(&'a [u8], Cow<'a, [u8]>)> {
        let mut pairs = Vec::with_capacity(self.fields.len() + 4);
        match self.line {
            Line::None => {}
            Line::Request { method, path, authority, scheme } => {
                let path = path.map_or("/", PathAndQuery::as_str);
                let named = self.fields.get(header::HOST).map(HeaderValue::as_bytes);
                if let Some(authority) = named.or(authority.map(|authority| authority.as_str().as_bytes())) {
                    pairs.push((&b":authority"[..], Cow::Borrowed(authority)));
                }
                pairs.push((b":path", Cow::Borrowed(path.as_bytes())));
                pairs.push((b":method", Cow::Borrowed(method.as_str().as_bytes())));
                pairs.push((b":scheme", Cow::Borrowed(scheme.as_bytes())));
            }
            // The text of a status lives as long as the program, but its type does not say so.
            Line::Response(status) => pairs.push((b":status", Cow::Owned(status.as_str().as_bytes().to_vec()))),
        }
        let fields = self.visible_fields();
        pairs.extend(fields.map(|(name, value)| (name.as_str().as_bytes(), Cow::Borrowed(value.as_bytes()))));
        pairs
    }

    /// The fields, each value for itself.
    fn visible_fields(&self) -> impl Iterator<Item = (&'a HeaderName, &'a HeaderValue)> + use<'a> {
        let request = matches!(self.line, Line::Request { .. });
        self.fields.iter().filter(move |(name, _)| visible(name) && !(request && **name == header::HOST))
    }

    /// How many pairs there are.
    pub(super) fn count(&self) -> u32 {
        let line = match self.line {
            Line::None => 0,
            Line::Request { .. } => 4,
            Line::Response(_) => 1,
        };
        let count = line + self.visible_fields().count();
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    fn pseudo(&self, name: &[u8]) -> Option<Field> {
        match (self.line, name) {
            (Line::Request { method, .. }, b":method") => Some(Field::Method(method.clone())),
            (Line::Request { path, .. }, b":path") => Some(path.map_or(Field::Static("/"), |path| Field::Path(path.clone()))),
            (Line::Request { scheme, .. }, b":scheme") => Some(Field::Static(scheme)),
            (Line::Request { .. }, b":authority") => self.authority(),
            (Line::Response(status), b":status") => Some(Field::Status(status)),
            _ => None,
        }
    }

    fn authority(&self) -> Option<Field> {
        let Line::Request { authority, .. } = self.line else { return None };
        let named = self.fields.get(header::HOST).cloned().map(Field::Value);
        named.or_else(|| authority.cloned().map(Field::Authority))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(of: &[(&'static str, &'static str)]) -> HeaderMap {
        of.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn a_request_has_its_line_in_front_and_no_host() {
        let fields =
            fields(&[("host", "api.example"), ("proxy-authorization", "Bearer x"), ("x-a", "1"), ("x-a", "2"), ("x-b", "3")]);
        let path = PathAndQuery::from_static("/v1?a=b");
        let line = Line::Request { method: &Method::POST, path: Some(&path), authority: None, scheme: "https" };
        let view = View { line, fields: &fields };
        let pairs = view.pairs();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let pairs: Vec<_> = pairs.iter().map(|(name, value)| format!("{}={}", text(name), text(value))).collect();
        assert_eq!(
            pairs,
            [":authority=api.example", ":path=/v1?a=b", ":method=POST", ":scheme=https", "x-a=1", "x-a=2", "x-b=3"]
        );
        for (name, value) in [
            (":path", Some("/v1?a=b")),
            (":authority", Some("api.example")),
            ("Host", Some("api.example")),
            ("X-A", Some("1")),
            ("x-b", Some("3")),
            ("Proxy-Authorization", None),
            (":status", None),
            ("x\u{e9}", None),
        ] {
            assert_eq!(view.get(name.as_bytes()).map(|field| text(field.as_bytes())).as_deref(), value, "{name}");
        }
    }

    #[test]
    fn values_are_never_joined() {
        let fields = fields(&[("set-cookie", "a=1"), ("set-cookie", "b=2")]);
        let view = View { line: Line::Response(StatusCode::CREATED), fields: &fields };
        assert_eq!((view.pairs().len(), view.count()), (3, 3));
        assert_eq!(view.get(b"set-cookie").unwrap().as_bytes(), b"a=1");
        assert_eq!(view.get(b":status").unwrap().as_bytes(), b"201");
    }
}
