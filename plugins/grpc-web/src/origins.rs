//! Which pages may call (the Fetch standard's CORS protocol), and what their browsers are told.

/// The pages that may call.
#[derive(Debug)]
pub(crate) struct Origins {
    pub(crate) allowed: Allowed,
    /// Whether browsers may send cookies and show answers to requests with them.
    pub(crate) credentials: Credentials,
    /// What a preflight answers with.
    pub(crate) request_headers: String,
    pub(crate) exposed_headers: String,
    pub(crate) max_age: String,
}

/// Which origins.
#[derive(Debug)]
pub(crate) enum Allowed {
    Any,
    These(Vec<String>),
}

/// Whether requests may carry what the browser keeps for the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Credentials {
    Allowed,
    Omitted,
}

/// Who calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Caller {
    /// Not a page: no browser, so nothing to be told.
    Program,
    /// A page of an origin that may call: what it is told.
    Page(Vec<(&'static str, String)>),
    /// A page of another origin.
    Stranger,
}

/// What every answer depends on, so that caches keep answers to different pages apart.
pub(crate) const VARY: &str = "origin";

impl Origins {
    /// Who sends a request with this `origin`.
    pub(crate) fn caller(&self, origin: Option<&str>) -> Caller {
        let Some(origin) = origin else { return Caller::Program };
        let told = match &self.allowed {
            Allowed::Any => "*",
            // Byte by byte: browsers send origins in one form, and anything else is no browser's.
            Allowed::These(these) if these.iter().any(|this| this == origin) => origin,
            Allowed::These(_) => return Caller::Stranger,
        };
        let mut headers = vec![("access-control-allow-origin", told.to_owned())];
        if self.credentials == Credentials::Allowed {
            headers.push(("access-control-allow-credentials", "true".to_owned()));
        }
        Caller::Page(headers)
    }

    /// What the page of an allowed origin may read besides.
    pub(crate) fn exposed(&self) -> (&'static str, String) {
        ("access-control-expose-headers", self.exposed_headers.clone())
    }

    /// What a preflight answers besides.
    pub(crate) fn preflight(&self) -> [(&'static str, String); 3] {
        [
            ("access-control-allow-methods", "POST".to_owned()),
            ("access-control-allow-headers", self.request_headers.clone()),
            ("access-control-max-age", self.max_age.clone()),
        ]
    }
}

/// Whether this is an origin as browsers send it: scheme, host, and a port that is not the scheme's own.
pub(crate) fn is_origin(text: &str) -> bool {
    let Some((scheme, authority)) = text.split_once("://") else { return false };
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    };
    let named = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-._".contains(&byte);
    let is_host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => {
            address.contains(':') && address.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b':' || byte == b'.')
        }
        None => !host.is_empty() && host.bytes().all(named),
    };
    let is_scheme = scheme.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase())
        && scheme.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"+-.".contains(&byte));
    let is_port = port.is_none_or(|port| {
        let own = matches!((scheme, port), ("http", "80") | ("https", "443"));
        !own && !port.starts_with('0') && port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok()
    });
    is_scheme && is_host && is_port
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origins(allowed: Allowed, credentials: Credentials) -> Origins {
        let text = String::new;
        Origins { allowed, credentials, request_headers: text(), exposed_headers: text(), max_age: text() }
    }

    #[test]
    fn pages_of_allowed_origins_are_told_so_and_others_are_not() {
        let these = origins(Allowed::These(vec!["https://app.example".to_owned()]), Credentials::Allowed);
        let told = vec![
            ("access-control-allow-origin", "https://app.example".to_owned()),
            ("access-control-allow-credentials", "true".to_owned()),
        ];
        assert_eq!(these.caller(Some("https://app.example")), Caller::Page(told));
        for other in [
            "https://app.example.evil",
            "http://app.example",
            "https://APP.example",
            "null",
            "",
            "*",
            "https://app.example:443",
        ] {
            assert_eq!(these.caller(Some(other)), Caller::Stranger, "{other}");
        }
        assert_eq!(these.caller(None), Caller::Program);
        let any = origins(Allowed::Any, Credentials::Omitted);
        assert_eq!(any.caller(Some("null")), Caller::Page(vec![("access-control-allow-origin", "*".to_owned())]));
    }

    #[test]
    fn origins_are_written_as_browsers_send_them() {
        let good =
            ["https://app.example", "http://localhost:8080", "https://[2001:db8::1]:8443", "http://[::1]", "app+x://y_z"];
        for text in good {
            assert!(is_origin(text), "{text}");
        }
        let bad = [
            "",
            "app.example",
            "https://",
            "https://app.example/",
            "https://App.example",
            "https://app.example:443",
            "http://a:80",
            "https://a:0",
            "https://a:70000",
            "https://a:",
            "https://u@a",
            "*",
            "null",
            "https://*.example",
            "https://a b",
            "://a",
        ];
        for text in bad {
            assert!(!is_origin(text), "{text}");
        }
    }
}
