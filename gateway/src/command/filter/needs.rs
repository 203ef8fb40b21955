//! What a filter's imports say of its route's grants.

/// What of the grants a filter can use, and by which function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub(super) struct Need {
    /// The field of `grants`, or what else has to be there.
    pub(super) grant: &'static str,
    /// The function that makes use of it.
    pub(super) function: &'static str,
    /// When it is needed.
    pub(super) when: &'static str,
}

const NEEDS: [Need; 6] = [
    Need { grant: "grants.services", function: "upstream.select-service", when: "for every service that it sends requests to" },
    Need { grant: "grants.endpoints", function: "upstream.select-endpoint", when: "to choose among the service's endpoints" },
    Need {
        grant: "grants.credentials",
        function: "upstream.inject-secret",
        when: "for every secret that it has written into requests",
    },
    Need {
        grant: "grants.credentials, grants.loosen_tls",
        function: "upstream.originate-tls",
        when: "for certificates and trust that the service does not register, and to verify less than it does",
    },
    Need { grant: "grants.paths", function: "message.rewrite", when: "for every path that it rewrites requests to" },
    Need {
        grant: "an allow rule for the principal filter/<plugin>",
        function: "outbound.send",
        when: "for every service that it calls by itself",
    },
];

/// What a filter that imports these functions can use.
pub(super) fn of(functions: &[String]) -> Vec<Need> {
    NEEDS.into_iter().filter(|need| functions.iter().any(|function| function == need.function)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_tell_what_is_needed() {
        let functions = ["host.config", "message.rewrite", "outbound.send"].map(str::to_owned);
        let grants: Vec<_> = of(&functions).iter().map(|need| need.grant).collect();
        assert_eq!(grants, ["grants.paths", "an allow rule for the principal filter/<plugin>"]);
        assert!(of(&["headers.get".to_owned()]).is_empty());
    }
}
