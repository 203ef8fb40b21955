//! `POST /v1/explain`: what would be decided, by the code that decides.

use super::{json, read_json};
use crate::{control::Control, document, problem::Problem};
use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri},
    response::Response,
};
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::SystemTime,
};
use tidegate_policy::{
    Host, Identity, Mistake, Name, Reason, Request, Snapshot, Target,
    identity::{Caller, Proof},
    target::Form,
};

/// A question: may this caller make this request?
#[derive(Debug, serde::Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Question {
    /// Who calls; absent, a caller of whom nothing is known.
    #[serde(default)]
    from: Asker,
    /// What is asked for.
    request: Asked,
}

/// Who calls. With only an address, the caller is who the registered workloads say; what else is given is believed.
#[derive(Debug, Default, serde::Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
struct Asker {
    /// The address it connects from.
    #[schema(value_type = Option<String>)]
    address: Option<IpAddr>,
    /// Its principal.
    principal: Option<String>,
    /// Its namespace.
    namespace: Option<String>,
    /// Its service account.
    service_account: Option<String>,
    /// Its labels.
    labels: BTreeMap<String, String>,
    /// The claims of its token.
    #[schema(value_type = Object)]
    claims: serde_json::Map<String, serde_json::Value>,
}

/// What is asked for.
#[derive(Debug, serde::Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct Asked {
    /// The method; `CONNECT` asks for a tunnel.
    #[serde(default = "get")]
    method: String,
    /// `http://…` for a request in the clear, `https://…` for one that the gateway originates TLS for, `host:port` for a
    /// tunnel.
    url: String,
    /// Its headers.
    #[serde(default)]
    headers: BTreeMap<String, String>,
}

/// What would be decided.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
pub(crate) struct Explanation {
    /// `allowed` or `denied`.
    verdict: &'static str,
    /// The reason, from the closed list.
    reason: Reason,
    /// The status a refused caller gets.
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    /// The deciding rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<Name>,
    /// The service that registers the host.
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<Name>,
    /// The service's port that would be reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    /// The route that would be taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<Name>,
    /// Report rules that match.
    reports: Vec<Name>,
    /// What records would call the caller.
    #[serde(skip_serializing_if = "Option::is_none")]
    workload: Option<String>,
    /// The revision that was asked.
    revision: u64,
}

/// `POST /v1/explain`
pub(crate) async fn explain(State(control): State<Arc<Control>>, headers: HeaderMap, body: Body) -> Result<Response, Problem> {
    let body = read_json(&control, &headers, body).await?;
    let question: Question = document::read(&body.bytes).map_err(Problem::mistakes)?;
    let current = control.current();
    let snapshot = &current.publication.snapshot;
    let identity = identity(snapshot, question.from);
    let request = Parsed::of(&question.request).map_err(Problem::mistakes)?;
    let mut explanation = request.decided(snapshot, &identity);
    explanation.workload = identity.caller.label().map(|label| label.to_string());
    explanation.revision = current.publication.revision;
    json(StatusCode::OK, &explanation)
}

fn get() -> String {
    "GET".to_owned()
}

fn identity(snapshot: &Snapshot, from: Asker) -> Identity {
    let known = snapshot.caller_at(from.address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)));
    let described = from.principal.is_some()
        || from.namespace.is_some()
        || from.service_account.is_some()
        || !from.labels.is_empty()
        || !from.claims.is_empty();
    if !described {
        return known;
    }
    let by_network = if from.address.is_some() { (*known.caller).clone() } else { Caller::default() };
    let mut labels = by_network.labels;
    labels.extend(from.labels);
    let caller = Caller {
        // Whoever is described brought something to be known by.
        proof: if by_network.proof == Proof::None { Proof::Certificate } else { by_network.proof },
        principal: from.principal.map(Arc::from).or(by_network.principal),
        namespace: from.namespace.map(Arc::from).or(by_network.namespace),
        service_account: from.service_account.map(Arc::from).or(by_network.service_account),
        labels,
        claims: from.claims,
    };
    Identity { source: known.source, caller: Arc::new(caller) }
}

struct Parsed {
    target: Target,
    method: Method,
    path: String,
    query: Option<String>,
    headers: HeaderMap,
}

impl Parsed {
    fn of(asked: &Asked) -> Result<Self, Vec<Mistake>> {
        let mut mistakes = Vec::new();
        let method = Method::from_bytes(asked.method.as_bytes()).unwrap_or_else(|_| {
            mistakes.push(Mistake::at("/request/method", "this is not a method"));
            Method::GET
        });
        let mut headers = HeaderMap::new();
        for (name, value) in &asked.headers {
            match (HeaderName::try_from(name), HeaderValue::try_from(value)) {
                (Ok(name), Ok(value)) => drop(headers.append(name, value)),
                _ => mistakes.push(Mistake::at(document::pointer_of("/request/headers", name), "this is not a header")),
            }
        }
        match target(&method, &asked.url) {
            Ok((target, uri)) if mistakes.is_empty() => {
                let tunnel = target.form == Form::Tunnel;
                let path = if tunnel { String::new() } else { uri.path().to_owned() };
                Ok(Self { target, method, path, query: uri.query().map(str::to_owned), headers })
            }
            Ok(_) => Err(mistakes),
            Err(detail) => {
                mistakes.push(Mistake::at("/request/url", detail));
                Err(mistakes)
            }
        }
    }

    fn decided(&self, snapshot: &Snapshot, identity: &Identity) -> Explanation {
        let request = Request {
            target: &self.target,
            method: &self.method,
            path: &self.path,
            query: self.query.as_deref(),
            headers: &self.headers,
            time: SystemTime::now(),
        };
        match snapshot.decide(identity, &request) {
            Ok(permit) => Explanation {
                verdict: "allowed",
                reason: permit.reason(),
                status: None,
                rule: permit.rule().cloned(),
                service: permit.service().map(|service| service.name.clone()),
                port: Some(permit.port().number),
                route: permit.route().map(|route| route.name.clone()),
                reports: permit.reports().to_vec(),
                workload: None,
                revision: 0,
            },
            Err(denial) => Explanation {
                verdict: "denied",
                reason: denial.reason,
                status: Some(denial.reason.status().as_u16()),
                rule: denial.rule.clone(),
                service: denial.service.as_ref().map(|service| service.name.clone()),
                port: None,
                route: None,
                reports: denial.reports.clone(),
                workload: None,
                revision: 0,
            },
        }
    }
}

fn target(method: &Method, url: &str) -> Result<(Target, Uri), String> {
    let uri: Uri = url.parse().map_err(|error| format!("{url:?} is not a URL: {error}"))?;
    let authority =
        uri.authority().ok_or_else(|| format!("{url:?} has no host: write http://host/path, or host:port with CONNECT"))?;
    if authority.as_str().contains('@') {
        return Err("a target carries no user information".to_owned());
    }
    let (form, default_port) = match (method, uri.scheme_str()) {
        (&Method::CONNECT, None) => (Form::Tunnel, None),
        (&Method::CONNECT, Some(_)) => return Err("with CONNECT, write host:port".to_owned()),
        (_, Some("http")) => (Form::Plain, Some(80)),
        (_, Some("https")) => (Form::Secure, Some(443)),
        (_, Some(other)) => return Err(format!("the scheme {other:?} is not one the gateway speaks: use http or https")),
        (_, None) => return Err("write http://… or https://…; host:port goes with the method CONNECT".to_owned()),
    };
    let host: Host = authority.host().parse()?;
    let given = authority.port().map(|port| port.as_str().parse().map_err(|_| format!("{port} is not a port"))).transpose()?;
    let port = given.or(default_port).ok_or("with CONNECT, write the port too")?;
    Ok((Target { form, host, port }, uri))
}
