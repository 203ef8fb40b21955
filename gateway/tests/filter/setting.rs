//! The stage: filters built from source, a gateway's policy with one route, and exchanges on it.

use futures_util::FutureExt as _;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::PathBuf,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};
use tidegate_gateway::{
    credentials::Credentials,
    fault::Fault,
    filter::{self, Asked, Chains, Closing, Facts, Host, Instances, Limits},
    http::{body::Body, reply::Dialect},
    live::Live,
};
use tidegate_policy::{
    Identity, Mistake, Name, Permit, Reason, Snapshot, Target,
    credential::Credential,
    exchange::{FilterFacts, Verdict},
    identity::{Caller, Proof},
    plugin::{Digest, Plugin},
    publication::Module,
    route::FilterUse,
    snapshot::Rows,
    target,
};

/// The plugins that are there, and the files that cargo makes of them.
const PLUGINS: [(&str, &str); 5] =
    [("audit", "audit"), ("hostile", "hostile"), ("json-grpc", "json_grpc"), ("stamp", "stamp"), ("witness", "witness")];

/// The bytes of a filter as `make filters` left it beside this program; `TIDEGATE_FILTERS` names another directory.
///
/// # Panics
/// When it has not been built, saying how to build it.
pub(crate) fn filter(name: &str) -> Arc<[u8]> {
    let path = directory().join(format!("{name}.wasm"));
    std::fs::read(&path)
        .unwrap_or_else(|error| panic!("{}: {error}; build the filters first: make filters", path.display()))
        .into()
}

/// Every filter that was built, by name.
pub(crate) fn filters() -> BTreeMap<String, Arc<[u8]>> {
    let directory = directory();
    let entries = std::fs::read_dir(&directory);
    let entries =
        entries.unwrap_or_else(|error| panic!("{}: {error}; build the filters first: make filters", directory.display()));
    let paths = entries.map(|entry| entry.unwrap().path());
    let modules = paths.filter(|path| path.extension().is_some_and(|extension| extension == "wasm"));
    modules
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .map(|name| (name.clone(), filter(&name)))
        .collect()
}

fn directory() -> PathBuf {
    if let Some(directory) = std::env::var_os("TIDEGATE_FILTERS") {
        return directory.into();
    }
    let own = std::env::current_exe().expect("a process knows its program");
    let target = own.ancestors().nth(3).expect("a test lies in the target directory, in the folder of its profile, in deps");
    target.join("wasm32-unknown-unknown/filter")
}

/// The forms in which the host runs a typed filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// As it is, without the layer of components.
    Module,
    Component,
}

pub(crate) const FORMS: [Form; 2] = [Form::Module, Form::Component];

impl Form {
    /// The bytes to upload for a module as cargo makes it.
    pub(crate) fn of(self, bytes: &[u8]) -> Arc<[u8]> {
        match self {
            Self::Module => bytes.into(),
            Self::Component => {
                let mut encoder = wit_component::ComponentEncoder::default().module(bytes).unwrap();
                encoder.encode().unwrap().into()
            }
        }
    }
}

/// A module with its digest.
pub(crate) fn module(bytes: Arc<[u8]>) -> Module {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &bytes);
    Module::here(Digest::new(digest.as_ref().try_into().unwrap()), bytes)
}

/// A place on a route with this configuration.
pub(crate) fn used(config: &str) -> FilterUse {
    FilterUse::of("tried".parse().unwrap(), serde_json::from_str(config).unwrap())
}

/// The route that exchanges are on where nothing else is said.
const ROUTE: &str = "api";

/// Limits for a test in which time is of no interest: a machine may be as busy as it likes.
pub(crate) fn unhurried() -> Limits {
    let long = Duration::from_secs(600);
    Limits { callback: long, configure: long, compile: long, ..Limits::default() }
}

/// A worker with a host of its own, and routes of which each belongs to a service of its own.
pub(crate) struct Stage {
    pub(crate) host: Host,
    pub(crate) chains: Chains,
    pub(crate) instances: Instances,
    /// How filters that cargo made are run.
    form: Form,
    /// How exchanges come.
    pub(crate) come: target::Form,
    /// Of what is in force, only the policy.
    live: Live,
    identity: Identity,
    /// The line of every request.
    asked: Request<()>,
    permits: BTreeMap<String, Arc<Permit>>,
    credentials: BTreeMap<Name, Arc<Credential>>,
}

/// An exchange without bodies, whose filters never suspend.
#[derive(Debug)]
pub(crate) struct Run(pub(crate) filter::Run);

/// What the chain wants done with a message.
#[derive(Debug)]
pub(crate) enum Flow {
    Continue,
    Reply(Box<Response<Body>>),
}

impl Run {
    /// Shows the request's head.
    pub(crate) fn on_request(&mut self, head: &mut http::request::Parts) -> Result<Flow, Fault> {
        let mut request = Request::from_parts(taken(head), Body::empty());
        let reply = self.0.request(&mut request).now_or_never().expect("calls that never suspend")?;
        Ok(reply.map_or_else(
            || {
                *head = request.into_parts().0;
                Flow::Continue
            },
            Flow::Reply,
        ))
    }

    /// Shows the response's head.
    pub(crate) fn on_response(&mut self, head: &mut http::response::Parts) -> Result<Flow, Fault> {
        let mut response = Response::from_parts(answered(head), Body::empty());
        let reply = self.0.response(&mut response, Instant::now()).now_or_never().expect("calls that never suspend")?;
        Ok(reply.map_or_else(
            || {
                *head = response.into_parts().0;
                Flow::Continue
            },
            Flow::Reply,
        ))
    }

    /// Ends it; what the record says of each filter.
    pub(crate) fn close(self) -> Vec<FilterFacts<'static>> {
        pin!(self.0.close(closing())).now_or_never().expect("calls that never suspend")
    }
}

/// The request as its filters let it go on, which none of them fails or answers.
pub(crate) async fn passed_on(run: &filter::Run, head: http::request::Parts, body: Body) -> Request<Body> {
    let mut request = Request::from_parts(head, body);
    let reply = run.request(&mut request).await;
    assert!(matches!(reply, Ok(None)), "the request goes on: {reply:?}");
    request
}

/// The response as its filters let it go back.
pub(crate) async fn passed_back(run: &filter::Run, head: http::response::Parts, body: Body) -> Response<Body> {
    let mut response = Response::from_parts(head, body);
    let reply = run.response(&mut response, Instant::now()).await;
    assert!(matches!(reply, Ok(None)), "the response goes back: {reply:?}");
    response
}

/// The head, which comes back when it has been shown.
pub(crate) fn taken(head: &mut http::request::Parts) -> http::request::Parts {
    std::mem::replace(head, Request::new(()).into_parts().0)
}

/// The same of a response.
pub(crate) fn answered(head: &mut http::response::Parts) -> http::response::Parts {
    std::mem::replace(head, Response::new(()).into_parts().0)
}

/// How an exchange ends well.
pub(crate) fn closing() -> Closing {
    Closing {
        verdict: Verdict::Allowed,
        reason: Reason::AllowedByRule,
        fault: None,
        total: Duration::from_millis(5),
        request_bytes: 0,
        response_bytes: 0,
    }
}

/// What came of one exchange.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) request: Result<Flow, Fault>,
    pub(crate) response: Option<Result<Flow, Fault>>,
    pub(crate) request_headers: HeaderMap,
    pub(crate) response_headers: HeaderMap,
    pub(crate) facts: Vec<FilterFacts<'static>>,
}

impl Stage {
    /// A route with these filters, as its document lists them.
    pub(crate) fn new(filters: Value) -> Self {
        Self::with(Limits::default(), filters)
    }

    pub(crate) fn with(limits: Limits, filters: Value) -> Self {
        Self::routes(limits, &[(ROUTE, filters)])
    }

    /// A route with these filters, in this form.
    pub(crate) fn formed(form: Form, limits: Limits, filters: Value) -> Self {
        let mut stage = Self { form, ..Self::empty(limits) };
        stage.publish(filters);
        stage
    }

    /// Several routes.
    pub(crate) fn routes(limits: Limits, routes: &[(&str, Value)]) -> Self {
        let mut stage = Self::empty(limits);
        stage.publish_routes(routes);
        stage
    }

    /// No route yet.
    pub(crate) fn empty(limits: Limits) -> Self {
        Self {
            host: Host::start(limits).unwrap(),
            chains: Chains::default(),
            instances: Instances::default(),
            form: Form::Module,
            come: target::Form::Plain,
            live: Live::default(),
            identity: caller(),
            asked: Request::from_parts(request(&[]), ()),
            permits: BTreeMap::new(),
            credentials: BTreeMap::new(),
        }
    }

    /// Has these credentials in force, each as its document says it.
    pub(crate) fn holding(mut self, credentials: &[(&str, Value)]) -> Self {
        let credential = |document: &Value| Arc::new(serde_json::from_value(document.clone()).unwrap());
        self.credentials = credentials.iter().map(|(name, document)| (name.parse().unwrap(), credential(document))).collect();
        self.live.credentials = Credentials::of(&self.credentials);
        self
    }

    /// Puts other filters on the route.
    pub(crate) fn publish(&mut self, filters: Value) {
        self.publish_routes(&[(ROUTE, filters)]);
    }

    pub(crate) fn publish_routes(&mut self, routes: &[(&str, Value)]) {
        let modules: BTreeMap<Name, Module> =
            PLUGINS.into_iter().map(|(plugin, file)| (plugin.parse().unwrap(), module(self.form.of(&filter(file))))).collect();
        self.publish_modules(routes, &modules);
    }

    /// Puts other filters on routes, of these modules.
    pub(crate) fn publish_modules(&mut self, routes: &[(&str, Value)], modules: &BTreeMap<Name, Module>) {
        // Only modules of the other kind are asked what they are: that compiles them, whether a route has them or not.
        let proxy = |module: &Module| module.read().unwrap().windows(MARKER.len()).any(|bytes| bytes == MARKER);
        let asked = |module: &Module| proxy(module).then(|| self.host.inspect(&module.read().unwrap()).ok()).flatten();
        let world = |module: &Module| asked(module).map_or_else(|| TYPED.to_owned(), |found| found.world);
        let worlds = modules.iter().map(|(name, module)| (name.clone(), world(module))).collect();
        self.live.snapshot = Arc::new(snapshot(routes, (modules, &worlds), &self.credentials));
        self.chains = Chains::prepare(&self.host, &self.live.snapshot, modules, &self.chains);
        self.permits = routes.iter().map(|(route, _)| ((*route).to_owned(), Arc::new(self.decide(route)))).collect();
    }

    fn decide(&self, route: &str) -> Permit {
        let target = Target { form: self.come, host: format!("{route}.example.com").parse().unwrap(), port: 443 };
        let request = target::Request {
            target: &target,
            method: &http::Method::POST,
            path: "/v1/charges",
            query: None,
            headers: &HeaderMap::new(),
            time: SystemTime::now(),
        };
        self.live.snapshot.decide(&self.identity, &request).expect("permitted")
    }

    pub(crate) fn begin(&self) -> Result<Run, Fault> {
        self.begin_on(ROUTE)
    }

    pub(crate) fn begin_on(&self, route: &str) -> Result<Run, Fault> {
        self.instances.begin(&self.chains, self.facts(route)).expect("a chain").map(Run)
    }

    /// What is in force of the policy.
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.live.snapshot)
    }

    /// An exchange that was permitted.
    pub(crate) fn facts(&self, route: &str) -> Facts<'_> {
        let (identity, permit, live) = (&self.identity, &self.permits[route], &self.live);
        let (peer, local) = (([10, 1, 2, 3], 40_000).into(), ([10, 9, 9, 9], 3128).into());
        let asked = (self.come != target::Form::Tunnel).then(|| Asked::of(&self.asked));
        Facts { id: 7, identity, asked, permit, live, dialect: Dialect::Http, peer, local }
    }

    pub(crate) fn exchange(&self) -> Outcome {
        self.exchange_with(&[])
    }

    pub(crate) fn exchange_with(&self, headers: &[(&'static str, &'static str)]) -> Outcome {
        self.exchange_on(ROUTE, headers)
    }

    /// One whole exchange; the response is shown where the request went on.
    pub(crate) fn exchange_on(&self, route: &str, headers: &[(&'static str, &'static str)]) -> Outcome {
        let mut request = request(headers);
        let mut response = response();
        let mut run = match self.begin_on(route) {
            Ok(run) => run,
            Err(fault) => {
                return Outcome {
                    request: Err(fault),
                    response: None,
                    request_headers: request.headers,
                    response_headers: response.headers,
                    facts: Vec::new(),
                };
            }
        };
        let requested = run.on_request(&mut request);
        let responded = matches!(requested, Ok(Flow::Continue)).then(|| run.on_response(&mut response));
        Outcome {
            request: requested,
            response: responded,
            request_headers: request.headers,
            response_headers: response.headers,
            facts: run.close(),
        }
    }
}

impl Outcome {
    /// Whether the exchange went through, whatever its filters did.
    pub(crate) fn passed(&self) -> bool {
        matches!((&self.request, &self.response), (Ok(Flow::Continue), Some(Ok(Flow::Continue))))
    }

    pub(crate) fn fault(&self) -> &Fault {
        match (&self.request, &self.response) {
            (Err(fault), _) | (_, Some(Err(fault))) => fault,
            _ => panic!("no fault: {self:?}"),
        }
    }

    pub(crate) fn error(&self) -> &str {
        self.facts[0].error.as_deref().unwrap_or_default()
    }

    /// The number in the only event's field.
    pub(crate) fn number(&self, field: &str) -> u64 {
        self.facts[0].events[0].fields[field].as_u64().unwrap()
    }
}

fn caller() -> Identity {
    let caller = Caller {
        proof: Proof::Network { workload: "checkout".parse().unwrap() },
        principal: Some("spiffe://cluster.local/ns/shop/sa/checkout".into()),
        namespace: Some("shop".into()),
        ..Caller::default()
    };
    Identity { source: IpAddr::from([10, 1, 2, 3]), caller: Arc::new(caller) }
}

pub(crate) fn request(headers: &[(&'static str, &'static str)]) -> http::request::Parts {
    let mut request = Request::post("http://api.example.com/v1/charges?dry=1");
    // With the room that the gateway's own reader of heads leaves.
    *request.headers_mut().expect("a valid line") = HeaderMap::with_capacity(10 + headers.len());
    let usual = [
        ("host", "api.example.com"),
        ("user-agent", "curl/8"),
        ("content-length", "0"),
        ("proxy-authorization", "Bearer secret"),
        ("authorization", "Bearer other-secret"),
        ("x-tenant", "blue"),
    ];
    for (name, value) in usual.iter().chain(headers) {
        request = request.header(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    request.body(()).unwrap().into_parts().0
}

pub(crate) fn response() -> http::response::Parts {
    let mut response = Response::builder().status(StatusCode::CREATED);
    *response.headers_mut().expect("a valid status") = HeaderMap::with_capacity(6);
    response.header("content-type", "application/json").header("x-request-id", "42").body(()).unwrap().into_parts().0
}

/// What Proxy-Wasm modules export.
const MARKER: &[u8] = b"proxy_abi_version_";

/// What typed filters are of.
const TYPED: &str = "tidegate:filter/filter@0.1.0";

/// What is wrong with routes of these modules and of a typed filter named `typed`, as whoever writes them is told.
pub(crate) fn mistakes(routes: &[(&str, Value)], modules: &BTreeMap<Name, Module>) -> String {
    let host = Host::start(Limits::default()).unwrap();
    let mut worlds: BTreeMap<Name, String> =
        modules.iter().map(|(name, module)| (name.clone(), host.inspect(&module.read().unwrap()).unwrap().world)).collect();
    let mut modules = modules.clone();
    modules.insert("typed".parse().unwrap(), module(Arc::from(*b"typed")));
    worlds.insert("typed".parse().unwrap(), TYPED.to_owned());
    let compiled = compile(routes, (&modules, &worlds), &BTreeMap::new());
    let mistakes = compiled.err().unwrap_or_default();
    mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// Modules by name, and the world of each.
type Worlds<'a> = (&'a BTreeMap<Name, Module>, &'a BTreeMap<Name, String>);

fn snapshot(routes: &[(&str, Value)], modules: Worlds<'_>, credentials: &BTreeMap<Name, Arc<Credential>>) -> Snapshot {
    compile(routes, modules, credentials).expect("a valid policy")
}

fn compile(
    routes: &[(&str, Value)],
    (modules, worlds): Worlds<'_>,
    credentials: &BTreeMap<Name, Arc<Credential>>,
) -> Result<Snapshot, Vec<Mistake>> {
    let named = |name: &str| name.parse::<Name>().unwrap();
    let service = |name: &str| {
        json!({
            "hosts": [format!("{name}.example.com")], "ports": [{"number": 443, "protocol": "https"}],
            "endpoints": [{"address": "203.0.113.10"}],
        })
    };
    let services = routes.iter().map(|(name, _)| (named(name), Arc::new(serde_json::from_value(service(name)).unwrap())));
    let route = |name: &str, filters: &Value| serde_json::from_value(json!({"service": name, "filters": filters})).unwrap();
    let names: Vec<_> = routes.iter().map(|(name, _)| *name).collect();
    let rule = json!({"action": "allow", "to": [{"services": names}]});
    let plugin = |name: &Name, module: &Module| Plugin {
        digest: module.digest,
        size_bytes: module.read().unwrap().len() as u64,
        world: worlds[name].clone(),
        imports: Vec::new(),
    };
    let rows = Rows {
        services: services.collect(),
        routes: routes.iter().map(|(name, filters)| (named(name), Arc::new(route(name, filters)))).collect(),
        rules: [(named("checkout"), Arc::new(serde_json::from_value(rule).unwrap()))].into(),
        plugins: modules.iter().map(|(name, module)| (name.clone(), Arc::new(plugin(name, module)))).collect(),
        credentials: credentials.iter().map(|(name, credential)| (name.clone(), credential.kind())).collect(),
        ..Rows::default()
    };
    Snapshot::compile(&rows)
}
