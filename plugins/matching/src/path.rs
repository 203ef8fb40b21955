//! Paths in the one spelling that they are compared in (RFC 3986 section 6.2.2).

/// `path` with needless percent-encoding undone, dot segments removed and empty segments joined, so that no other spelling of a
/// path gets past an entry that is meant for it.
pub(crate) fn normal(path: &str) -> String {
    let path = undone(path);
    let directory = path.ends_with('/') || path.ends_with("/.") || path.ends_with("/..");
    let mut segments: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            segment => segments.push(segment),
        }
    }
    let mut normal = String::with_capacity(path.len());
    for segment in &segments {
        normal.push('/');
        normal.push_str(segment);
    }
    if directory || segments.is_empty() {
        normal.push('/');
    }
    normal
}

/// Octets that need no encoding are decoded; the encoding of others is written in capitals.
fn undone(path: &str) -> String {
    let mut undone = String::with_capacity(path.len());
    let mut rest = path;
    while let Some((before, after)) = rest.split_once('%') {
        undone.push_str(before);
        let octet = after.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        rest = match octet {
            Some(octet) if octet.is_ascii_alphanumeric() || b"-._~".contains(&octet) => {
                undone.push(char::from(octet));
                &after[2..]
            }
            Some(octet) => {
                undone.push_str(&format!("%{octet:02X}"));
                &after[2..]
            }
            None => {
                undone.push('%');
                after
            }
        };
    }
    undone.push_str(rest);
    undone
}

#[cfg(test)]
mod tests {
    use super::normal;

    #[test]
    fn paths_have_one_spelling() {
        for (path, wanted) in [
            ("/v1/charges", "/v1/charges"),
            ("/v1/charges/", "/v1/charges/"),
            ("//v1//charges", "/v1/charges"),
            ("/v1/./x/../charges", "/v1/charges"),
            ("/%76%31/ch%61rges", "/v1/charges"),
            ("/v1/%2e%2E/v2", "/v2"),
            ("/a%2fb%", "/a%2Fb%"),
            ("/..", "/"),
            ("", "/"),
            ("*", "/*"),
        ] {
            assert_eq!(normal(path), wanted, "{path}");
        }
    }
}
