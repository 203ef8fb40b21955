//! Content types: which bodies are gRPC-Web's, how they are coded, and what each is called on the other side.

/// How a body is coded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Coding {
    /// `application/grpc-web`: the frames themselves.
    Binary,
    /// `application/grpc-web-text`: base64 of the frames.
    Text,
}

/// A gRPC-Web content type: its coding, and the messages' format (`+proto`), if it is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Media {
    pub(crate) coding: Coding,
    format: String,
}

impl Media {
    /// What a request's `content-type` says; nothing, where it is not gRPC-Web's.
    pub(crate) fn of_request(content_type: &str) -> Option<Self> {
        let essence = essence(content_type);
        let (kind, format) = essence.split_at(essence.find('+').unwrap_or(essence.len()));
        let coding = match kind {
            "application/grpc-web" => Coding::Binary,
            "application/grpc-web-text" => Coding::Text,
            _ => return None,
        };
        is_format(format).then(|| Self { coding, format: format.to_owned() })
    }

    /// What the caller wants its answer in: what it accepts, where that is gRPC-Web's, else what it sent. Clients of the text
    /// coding say so in `accept`, because it is the answer that their engines can only read as text.
    pub(crate) fn of_answer(&self, accept: Option<&str>) -> Self {
        accept.and_then(|accept| accept.split(',').find_map(Self::of_request)).unwrap_or_else(|| self.clone())
    }

    /// The name of the same messages in gRPC.
    pub(crate) fn grpc(&self) -> String {
        format!("application/grpc{}", self.format)
    }

    /// The content type of an answer that the service sent as `content_type`; nothing, where that is not gRPC's.
    pub(crate) fn answering(&self, content_type: &str) -> Option<String> {
        let essence = essence(content_type);
        let format = essence.strip_prefix("application/grpc")?;
        is_format(format).then(|| self.named(if format.is_empty() { &self.format } else { format }))
    }

    /// The content type of an answer that the filter gives.
    pub(crate) fn own(&self) -> String {
        self.named(&self.format)
    }

    fn named(&self, format: &str) -> String {
        let kind = match self.coding {
            Coding::Binary => "application/grpc-web",
            Coding::Text => "application/grpc-web-text",
        };
        format!("{kind}{format}")
    }
}

fn essence(content_type: &str) -> String {
    content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// Nothing, or a plus and a name.
fn is_format(format: &str) -> bool {
    match format.strip_prefix('+') {
        Some(name) => !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte)),
        None => format.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_types_have_names_on_both_sides() {
        let rows = [
            ("application/grpc-web", "application/grpc", "application/grpc-web"),
            ("application/grpc-web+proto", "application/grpc+proto", "application/grpc-web+proto"),
            ("Application/gRPC-Web+JSON; charset=x", "application/grpc+json", "application/grpc-web+json"),
            ("application/grpc-web-text", "application/grpc", "application/grpc-web-text"),
            ("application/grpc-web-text+proto", "application/grpc+proto", "application/grpc-web-text+proto"),
        ];
        for (web, grpc, answer) in rows {
            let media = Media::of_request(web).unwrap();
            assert_eq!(media.grpc(), grpc, "{web}");
            assert_eq!(media.answering("application/grpc").as_deref(), Some(answer), "{web}");
            assert_eq!(media.own(), answer, "{web}");
        }
        let media = Media::of_request("application/grpc-web").unwrap();
        assert_eq!(media.answering("application/grpc+proto; x=y").as_deref(), Some("application/grpc-web+proto"));
        for other in ["text/html", "application/grpcx", "application/grpc-web", "application/json", ""] {
            assert_eq!(media.answering(other), None, "{other}");
        }
        let others = [
            "application/grpc",
            "application/grpc+proto",
            "application/json",
            "application/grpc-web+",
            "application/grpc-webx",
            "",
        ];
        for other in others {
            assert_eq!(Media::of_request(other), None, "{other}");
        }
    }

    #[test]
    fn the_answer_is_coded_as_the_caller_wants_it() {
        let media = |text| Media::of_request(text).unwrap();
        let rows = [
            ("application/grpc-web+proto", None, Coding::Binary),
            ("application/grpc-web-text", None, Coding::Text),
            ("application/grpc-web-text", Some("*/*"), Coding::Text),
            ("application/grpc-web+proto", Some("application/grpc-web-text"), Coding::Text),
            ("application/grpc-web-text", Some("text/html, application/grpc-web+proto;q=0.9"), Coding::Binary),
        ];
        for (sent, accept, coding) in rows {
            assert_eq!(media(sent).of_answer(accept).coding, coding, "{sent} {accept:?}");
        }
    }
}
