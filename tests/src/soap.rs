//! A SOAP service for orders, 1.1 and 1.2: it reads what it is sent with an XML reader of its own, insists on what its
//! contract says, and answers with envelopes, faults and, where it is asked to, with what no service should answer.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{HeaderMap, Request, Response, StatusCode, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use roxmltree::{Document, Node};
use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
};
use tokio::net::TcpListener;

/// The namespace of the operations and of what they hold.
pub const ORDERS: &str = "urn:example:orders";
/// The namespace of the header entry that every call must have.
pub const TENANT: &str = "urn:example:tenant";

/// Lines of the order whose id is `large`: some 200 KB of XML.
pub const LARGE: usize = 2400;

const SOAP11: &str = "http://schemas.xmlsoap.org/soap/envelope/";
const SOAP12: &str = "http://www.w3.org/2003/05/soap-envelope";

/// A SOAP service. It serves until it is dropped.
pub struct Soap {
    /// Where it listens.
    pub address: SocketAddr,
    state: Arc<State>,
    task: tokio::task::AbortHandle,
}

#[derive(Default)]
struct State {
    seen: Mutex<Vec<Seen>>,
}

/// What the service saw of a request.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Its method and target.
    pub line: String,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: String,
}

/// A fault: code, subcode, reason, and the detail's XML.
struct Fault(&'static str, Option<&'static str>, String, String);

impl Soap {
    /// Starts serving HTTP/1.1 in the clear.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a loopback port can be bound");
        let address = listener.local_addr().expect("a bound socket has an address");
        let state = Arc::new(State::default());
        let serving = Arc::clone(&state);
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let state = Arc::clone(&serving);
                let service = service_fn(move |request| answer(request, Arc::clone(&state)));
                let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                // How a connection ends is the caller's business.
                connections.spawn(async move { drop(connection.await) });
            }
        });
        Self { address, state, task: task.abort_handle() }
    }

    /// The requests so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.state.seen.lock().expect("nobody panics within").clone()
    }
}

impl Drop for Soap {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(request: Request<Incoming>, state: Arc<State>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let Ok(body) = body.collect().await else { return Ok(reply(StatusCode::BAD_REQUEST, "text/plain", "half a request")) };
    let body = String::from_utf8_lossy(&body.to_bytes()).into_owned();
    let line = format!("{} {}", head.method, head.uri);
    state.seen.lock().expect("nobody panics within").push(Seen { line, headers: head.headers.clone(), body: body.clone() });
    let header = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let (namespace, kind) = match header("content-type").split(';').next().unwrap_or_default() {
        "text/xml" => (SOAP11, "text/xml; charset=utf-8"),
        "application/soap+xml" => (SOAP12, "application/soap+xml; charset=utf-8"),
        other => return Ok(reply(StatusCode::UNSUPPORTED_MEDIA_TYPE, "text/plain", &format!("{other:?} is not SOAP"))),
    };
    let action = match namespace {
        SOAP11 => header("soapaction").trim_matches('"').to_owned(),
        _ => header("content-type").split("action=\"").nth(1).unwrap_or_default().trim_end_matches('"').to_owned(),
    };
    let answered = match Document::parse(&body) {
        Ok(document) => operation(&document, namespace, &action),
        Err(error) => Err(Fault("Sender", None, format!("not XML: {error}"), String::new())),
    };
    Ok(match answered {
        Ok(Answer::Content(content)) => reply(StatusCode::OK, kind, &envelope(namespace, &content)),
        Ok(Answer::Raw(status, kind, text)) => reply(status, kind, &text),
        Err(fault) => reply(StatusCode::INTERNAL_SERVER_ERROR, kind, &envelope(namespace, &fault.xml(namespace))),
    })
}

enum Answer {
    /// What stands in the envelope's body.
    Content(String),
    /// Something else altogether.
    Raw(StatusCode, &'static str, String),
}

/// Carries out the one operation in the envelope's body.
fn operation(document: &Document<'_>, namespace: &str, action: &str) -> Result<Answer, Fault> {
    let sender = |reason: String| Fault("Sender", None, reason, String::new());
    let envelope = document.root_element();
    if !envelope.has_tag_name((namespace, "Envelope")) {
        return Err(Fault("VersionMismatch", None, "this is another version of SOAP".to_owned(), String::new()));
    }
    let part = |name: &str| envelope.children().find(|node| node.has_tag_name((namespace, name)));
    let tenant = part("Header").and_then(|header| header.children().find(|node| node.has_tag_name((TENANT, "Tenant"))));
    let Some("blue") = tenant.and_then(|tenant| tenant.text()) else { return Err(sender("no tenant".to_owned())) };
    let body = part("Body").ok_or_else(|| sender("no body".to_owned()))?;
    let call = body.first_element_child().ok_or_else(|| sender("no operation".to_owned()))?;
    let name = call.tag_name().name();
    if call.tag_name().namespace() != Some(ORDERS) || action != format!("{ORDERS}#{name}") {
        return Err(sender(format!("{name:?} with the action {action:?} is not an operation")));
    }
    match name {
        "GetOrder" => order(text(call, "id").unwrap_or_default(), text(call, "currency").unwrap_or("EUR")),
        "PlaceOrder" => placed(call).map_err(sender),
        other => Err(sender(format!("{other:?} is not an operation"))),
    }
}

fn text<'a>(node: Node<'a, 'a>, name: &str) -> Option<&'a str> {
    node.children().find(|child| child.has_tag_name((ORDERS, name)))?.text()
}

/// An order by its id; some ids are traps.
fn order(id: &str, currency: &str) -> Result<Answer, Fault> {
    let soap11 = |content: &str| format!("<e:Envelope xmlns:e='{SOAP11}'><e:Body>{content}</e:Body></e:Envelope>");
    let response = |content: &str| format!("<GetOrderResponse xmlns=\"{ORDERS}\">{content}</GetOrderResponse>");
    Ok(match id {
        "missing" => {
            let detail = format!("<o:OrderNotFound xmlns:o=\"{ORDERS}\"><o:id>{id}</o:id></o:OrderNotFound>");
            return Err(Fault("Sender", Some("NotFound"), "there is no such order".to_owned(), detail));
        }
        "broken" => return Err(Fault("Receiver", None, "the shelf fell over".to_owned(), String::new())),
        "entity" => Answer::Raw(
            StatusCode::OK,
            "text/xml",
            format!("<!DOCTYPE x [<!ENTITY f SYSTEM \"file:///etc/passwd\">]>{}", soap11(&response("<id>&f;</id>"))),
        ),
        "latin" => Answer::Raw(StatusCode::OK, "text/xml; charset=iso-8859-1", soap11(&response(""))),
        "large" => {
            let lines = (1..=LARGE).map(|n| {
                format!("<line n=\"{n}\"><article>a bolt of some length, and a nut</article><price>{n}.50</price></line>")
            });
            Answer::Content(response(&format!("<order id=\"{id}\">{}</order>", lines.collect::<String>())))
        }
        "away" => Answer::Raw(StatusCode::SERVICE_UNAVAILABLE, "text/html", "<p>later".to_owned()),
        "cut" => Answer::Raw(StatusCode::OK, "text/xml", soap11(&response(""))[..120].to_owned()),
        _ => Answer::Content(response(&format!(
            "<order id=\"{id}\"><line n=\"1\"><article>bolt &lt;M8&gt;</article><price currency=\"{currency}\">9.50</price></line>\
             <paid>1</paid><note xmlns:i=\"http://www.w3.org/2001/XMLSchema-instance\" i:nil=\"true\"/></order>"
        ))),
    })
}

/// Takes an order whose elements come in the order of its schema: a customer, then lines.
fn placed(call: Node<'_, '_>) -> Result<Answer, String> {
    let mut names = call.children().filter(Node::is_element).map(|node| node.tag_name().name());
    if names.next() != Some("customer") || names.any(|name| name != "line") {
        return Err("a customer is expected, then lines".to_owned());
    }
    let lines = call.children().filter(|node| node.has_tag_name((ORDERS, "line")));
    let counts = lines.map(|line| line.attribute("count").and_then(|count| count.parse::<u64>().ok()).unwrap_or(0));
    let counts: Vec<u64> = counts.collect();
    let customer = text_of(call, "customer");
    Ok(Answer::Content(format!(
        "<PlaceOrderResponse xmlns=\"{ORDERS}\"><id>7</id><lines>{}</lines><pieces>{}</pieces><customer>{customer}</customer></PlaceOrderResponse>",
        counts.len(),
        counts.iter().sum::<u64>(),
    )))
}

fn text_of(call: Node<'_, '_>, name: &str) -> String {
    let text = call.children().find(|child| child.has_tag_name((ORDERS, name))).and_then(|node| node.text());
    text.unwrap_or_default().replace('&', "&amp;").replace('<', "&lt;")
}

impl Fault {
    fn xml(&self, namespace: &str) -> String {
        let Self(code, subcode, reason, detail) = self;
        if namespace == SOAP12 {
            let subcode =
                subcode.map(|code| format!("<s:Subcode><s:Value xmlns:o=\"{ORDERS}\">o:{code}</s:Value></s:Subcode>"));
            return format!(
                "<s:Fault><s:Code><s:Value>s:{code}</s:Value>{}</s:Code><s:Reason><s:Text xml:lang=\"en\">{reason}</s:Text></s:Reason>\
                 <s:Detail>{detail}</s:Detail></s:Fault>",
                subcode.unwrap_or_default()
            );
        }
        let code = match *code {
            "Sender" => "Client",
            "Receiver" => "Server",
            other => other,
        };
        format!(
            "<s:Fault><faultcode>s:{code}</faultcode><faultstring>{reason}</faultstring><detail>{detail}</detail></s:Fault>"
        )
    }
}

fn envelope(namespace: &str, content: &str) -> String {
    format!(
        "<?xml version=\"1.0\" encoding=\"utf-8\"?><s:Envelope xmlns:s=\"{namespace}\"><s:Body>{content}</s:Body></s:Envelope>"
    )
}

fn reply(status: StatusCode, kind: &'static str, text: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text.to_owned())));
    *response.status_mut() = status;
    response.headers_mut().insert("content-type", http::HeaderValue::from_static(kind));
    response
}
