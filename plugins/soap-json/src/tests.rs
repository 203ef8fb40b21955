//! The filter on scripted exchanges.

use super::*;
use serde_json::{Value, json};
use tidegate_sdk::testing::{Driver, Message, Scripted};

const SOAP11: &str = "http://schemas.xmlsoap.org/soap/envelope/";

fn driver(version: &str) -> Driver<SoapJson> {
    let config = json!({
        "version": version, "path": "/services/orders?x=1", "namespace": "urn:orders",
        "arrays": ["line"], "numbers": ["line/price"], "faults": {"Missing": 404}, "limits": {"bytes": 1000},
        "operations": [
            {"method": "GET", "path": "/orders/{id}", "query": ["lang"], "element": "GetOrder", "action": "urn:orders#Get"},
            {"method": "POST", "path": "/orders", "element": "PlaceOrder", "action": "urn:orders#Place"},
        ],
    });
    Driver::new(config).unwrap().grants(json!({"paths": ["/services/*"]}))
}

fn called<'a>(driver: &'a Driver<SoapJson>, method: &str, path: &str, query: &str) -> Scripted<'a, SoapJson> {
    let exchange = driver.exchange().attribute("request.method", method).attribute("request.path", path);
    if query.is_empty() { exchange } else { exchange.attribute("request.query", query) }
}

fn envelope(body: &str) -> String {
    format!("<s:Envelope xmlns:s='{SOAP11}'><s:Body>{body}</s:Body></s:Envelope>")
}

fn placed(driver: &Driver<SoapJson>) -> Scripted<'_, SoapJson> {
    let body = br#"{"article":"a","count":2}"#;
    called(driver, "POST", "/orders", "").request(Message::new([("content-type", "application/json")]).body([body]))
}

/// What the caller received: status, content type, JSON.
fn received(exchange: &Scripted<'_, SoapJson>) -> (u16, String, Value) {
    assert_eq!(exchange.failure(), None);
    let received = exchange.caller().unwrap();
    assert!(received.complete);
    let body = serde_json::from_slice(&received.body).unwrap();
    (exchange.status().unwrap().as_u16(), received.header("content-type").unwrap_or_default().to_owned(), body)
}

#[test]
fn a_request_becomes_an_envelope_wherever_its_pieces_end() {
    let driver = driver("1.1");
    let body = br#"{"article":"<&>","count":2}"#;
    let head = [
        ("content-type", "application/json"),
        ("accept", "application/json"),
        ("accept-encoding", "gzip"),
        ("content-md5", "x"),
    ];
    for cut in 0..=body.len() {
        let (one, other) = body.split_at(cut);
        let exchange = called(&driver, "POST", "/orders", "").request(Message::new(head).body([one, other]));
        let sent = exchange.upstream().unwrap();
        let wanted = "<soap:Body><PlaceOrder xmlns=\"urn:orders\"><article>&lt;&amp;&gt;</article><count>2</count></PlaceOrder></soap:Body>";
        assert!(String::from_utf8_lossy(&sent.body).contains(wanted), "{cut}");
        assert!(sent.complete);
        assert_eq!(exchange.rewritten(), Some(("POST", "/services/orders?x=1")));
        assert_eq!(sent.header("content-type"), Some("text/xml; charset=utf-8"));
        assert_eq!(sent.header("soapaction"), Some("\"urn:orders#Place\""));
        assert_eq!((sent.header("accept-encoding"), sent.header("content-md5")), (Some("identity"), None));
    }
}

#[test]
fn a_request_without_a_body_becomes_an_envelope() {
    let driver = driver("1.2");
    let head = [("if-none-match", "*"), ("range", "bytes=0-1"), ("soapaction", "\"urn:orders#Place\"")];
    let exchange = called(&driver, "GET", "/orders/7", "lang=de").request(head);
    let sent = exchange.upstream().unwrap();
    let wanted = "<soap:Body><GetOrder xmlns=\"urn:orders\"><id>7</id><lang>de</lang></GetOrder></soap:Body>";
    assert!(String::from_utf8_lossy(&sent.body).contains(wanted), "{:?}", String::from_utf8_lossy(&sent.body));
    assert_eq!(sent.header("content-type"), Some("application/soap+xml; charset=utf-8; action=\"urn:orders#Get\""));
    assert_eq!(exchange.rewritten(), Some(("POST", "/services/orders?x=1")));
    for (name, _) in head {
        assert_eq!(sent.header(name), None, "{name}");
    }
}

#[test]
fn an_answer_becomes_json_wherever_its_pieces_end() {
    let driver = driver("1.1");
    let body = envelope("<r xmlns='urn:orders'><line><price>9.50</price><name>é</name></line></r>");
    let head = [("content-type", "text/xml; charset=utf-8"), ("etag", "\"1\""), ("x-id", "7")];
    for cut in 0..=body.len() {
        let (one, other) = body.as_bytes().split_at(cut);
        let exchange = placed(&driver).response(StatusCode::OK, Message::new(head).body([one, other]));
        let wanted = json!({"line": [{"price": 9.50, "name": "é"}]});
        assert_eq!(received(&exchange), (200, "application/json".to_owned(), wanted), "{cut}");
        let received = exchange.caller().unwrap();
        assert_eq!((received.header("etag"), received.header("x-id")), (None, Some("7")));
    }
}

#[test]
fn trailers_do_not_get_in_the_way() {
    let driver = driver("1.1");
    let message = |kind, body: &str| Message::new([("content-type", kind)]).body([body]).trailers([("x-sum", "1")]);
    let exchange = called(&driver, "POST", "/orders", "").request(message("application/json", "{}"));
    assert!(String::from_utf8_lossy(&exchange.upstream().unwrap().body).contains("<PlaceOrder xmlns=\"urn:orders\"/>"));
    let exchange = exchange.response(StatusCode::OK, message("text/xml", &envelope("<r/>")));
    assert_eq!(received(&exchange), (200, "application/json".to_owned(), json!({"line": []})));
}

#[test]
fn what_cannot_be_sent_is_refused_and_reaches_nobody() {
    let driver = driver("1.1");
    let large = format!("{{\"a\":\"{}\"}}", "a".repeat(1000));
    let rows = [
        ("POST", "/orders", "application/json", "{\"a\":", 400, "not JSON"),
        ("POST", "/orders", "application/json", "{\"a b\":1}", 400, "not a name"),
        ("POST", "/orders", "text/xml", "<a/>", 415, "send JSON"),
        ("POST", "/orders", "application/json", &large, 413, "`limits.bytes`"),
        ("PUT", "/orders", "application/json", "{}", 405, "POST"),
        ("GET", "/other", "application/json", "{}", 404, "no operation"),
    ];
    for (method, path, kind, body, status, detail) in rows {
        let exchange = called(&driver, method, path, "").request(Message::new([("content-type", kind)]).body([body]));
        let (answered, kind, problem) = received(&exchange);
        assert_eq!((answered, kind.as_str()), (status, problem::MEDIA_TYPE), "{method} {path}: {problem}");
        assert!(problem["detail"].as_str().unwrap().contains(detail), "{method} {path}: {problem}");
        assert!(exchange.upstream().is_none(), "{method} {path}");
        assert_eq!(exchange.replied().unwrap().reason(), problem["detail"]);
        assert_eq!(exchange.caller().unwrap().header("allow").is_some(), status == 405);
    }
    assert_eq!(driver.counter("requests_refused"), 6);
}

#[test]
fn what_the_service_says_otherwise_is_told_as_a_problem() {
    let driver = driver("1.1");
    let fault = envelope(
        "<s:Fault><faultcode>s:Client</faultcode><faultstring>gone</faultstring><detail><Missing/></detail></s:Fault>",
    );
    let large = envelope(&format!("<r>{}</r>", "a".repeat(1000)));
    let rows = [
        (500, "text/xml", fault.as_str(), 404, "gone"),
        (200, "text/xml", "<!DOCTYPE a [<!ENTITY x SYSTEM 'file:///etc/passwd'>]><a>&x;</a>", 502, "DOCTYPE"),
        (200, "text/xml; charset=iso-8859-1", &envelope("<r/>"), 502, "UTF-8"),
        (200, "text/html", "<p>", 502, "text/html"),
        (200, "text/xml", "<s:Envelope", 502, "well-formed"),
        (200, "text/xml", &large, 502, "`limits.bytes`"),
        (503, "text/html", "<p>", 503, "status 503"),
    ];
    for (status, kind, body, wanted, detail) in rows {
        let status = StatusCode::from_u16(status).unwrap();
        let exchange =
            placed(&driver).response(status, Message::new([("content-type", kind), ("retry-after", "3")]).body([body]));
        let (answered, kind, problem) = received(&exchange);
        assert_eq!((answered, kind.as_str()), (wanted, problem::MEDIA_TYPE), "{body}");
        assert_eq!(problem["status"], wanted);
        assert!(problem["detail"].as_str().unwrap().contains(detail), "{problem}");
        assert_eq!(exchange.caller().unwrap().header("retry-after"), Some("3"));
        assert!(exchange.replied().is_none(), "the service answered, not the filter");
    }
    assert_eq!((driver.counter("faults"), driver.counter("answers_unreadable")), (1, 6));
}

#[test]
fn answers_without_a_body_pass() {
    let driver = driver("1.1");
    let exchange = placed(&driver).response(StatusCode::ACCEPTED, [("x-id", "7")]);
    assert_eq!((exchange.status(), exchange.caller().unwrap().header("x-id")), (Some(StatusCode::ACCEPTED), Some("7")));
}

#[test]
fn a_path_that_is_not_granted_is_said_to_the_operator() {
    let driver = driver("1.1").grants(json!({"paths": ["/other"]}));
    let exchange = placed(&driver);
    let (status, _, problem) = received(&exchange);
    assert_eq!(status, 500, "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("grants.paths"), "{problem}");
    assert!(exchange.upstream().is_none());
    assert!(exchange.logged()[0].1.contains("grants.paths"));
}

#[test]
fn mistakes_in_the_configuration_are_pointed_at() {
    let error = |config: Value| Driver::<SoapJson>::new(config).unwrap_err().to_string();
    assert!(error(json!(null)).contains("missing field `version`"));
    let config = json!({"version": "2", "path": "/", "operations": []});
    assert!(error(config).starts_with("/version: unknown variant `2`"));
    let config = json!({"version": "1.1", "path": "/", "operations": [{"method": "GET", "path": "/", "element": "A", "x": 1}]});
    assert!(error(config).starts_with("/operations/0/x: unknown field"));
    let config = json!({"version": "1.1", "path": "/", "operations": [{"method": "GET", "path": "/", "element": "A"}]});
    assert!(error(config).starts_with("/operations/0/namespace: "));
}

#[test]
fn the_readmes_example_is_what_it_says() {
    let readme = include_str!("../README.md");
    let example = readme.split("```json").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let example: Value = serde_json::from_str(example).unwrap();
    let driver = Driver::<SoapJson>::new(example["config"].clone()).unwrap().grants(example["grants"].clone());
    let exchange = called(&driver, "GET", "/orders/7", "currency=EUR").request([]);
    let wanted = readme.split("<soap:Body>").nth(1).and_then(|rest| rest.split("</soap:Body>").next()).unwrap();
    assert!(String::from_utf8_lossy(&exchange.upstream().unwrap().body).contains(wanted));
    let answer = "<r xmlns='urn:example:orders'><order><line n='1'><article>a</article><price>9.50</price></line><paid>1</paid></order></r>";
    let answer = Message::new([("content-type", "text/xml")]).body([envelope(answer)]);
    let exchange = exchange.response(StatusCode::OK, answer);
    let wanted = readme.split("for instance, `").nth(1).and_then(|rest| rest.split('`').next()).unwrap();
    assert_eq!(String::from_utf8_lossy(&exchange.caller().unwrap().body), wanted);
}
