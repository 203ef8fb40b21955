//! Tests of whole requests: what HTTP method, path, query and body become.

use crate::request::{self, Parts, Place, Refusal, write::Unknown};
use crate::response::{self, Extract, Style};
use crate::routes::{Defaults, Found, Routes};
use crate::samples;
use crate::schema::Schema;

struct Api {
    schema: Schema,
    routes: Routes,
}

impl Api {
    fn shop() -> Self {
        let schema = samples::schema_of(&samples::set("shop.proto"));
        let routes = Routes::build(&schema, Defaults::Exposed).unwrap();
        Self { schema, routes }
    }

    /// The method's name and its message as JSON.
    fn call(&self, unknown: Unknown, http_method: &str, target: &str, body: &str) -> Result<(String, String), Refusal> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let Found::Call(place, captures) = self.routes.find(http_method, path) else { panic!("no call: {http_method} {path}") };
        let binding = self.routes.binding(place);
        let parts = Parts { variables: &captures.values(binding)?, query, body: body.as_bytes() };
        let frame = request::convert(&self.schema, binding, unknown, &parts)?;
        let (header, message) = frame.split_at(5);
        assert_eq!(header, [&[0], &(message.len() as u32).to_be_bytes()[..]].concat());
        let method = &self.schema.methods()[binding.method];
        let mut json = Vec::new();
        response::convert(&self.schema, Style::default(), method.input, Extract::All, message, &mut json).unwrap();
        let name = method.path.rsplit_once('/').unwrap().1;
        Ok((name.to_owned(), String::from_utf8(json).unwrap()))
    }

    fn found(&self, http_method: &str, path: &str) -> String {
        match self.routes.find(http_method, path) {
            Found::Call(place, _) => {
                self.schema.methods()[self.routes.binding(place).method].path.rsplit_once('/').unwrap().1.to_owned()
            }
            Found::WrongMethod(allowed) => format!("only {}", allowed.join(" ")),
            Found::Nothing => "nothing".to_owned(),
        }
    }
}

#[expect(clippy::too_many_lines, reason = "a table")]
#[test]
fn requests_become_messages() {
    let api = Api::shop();
    let cases = [
        ("GET", "/v1/shops/1/orders/2", "", "GetOrder", r#"{"name":"shops/1/orders/2"}"#),
        ("GET", "/v1/shops/1/orders/2?with_items=true", "", "GetOrder", r#"{"name":"shops/1/orders/2","withItems":true}"#),
        ("GET", "/v1/shops/a%20b/orders/c%2Fd", "", "GetOrder", r#"{"name":"shops/a b/orders/c%2Fd"}"#),
        ("GET", "/v1/orders/c%2Fd%C3%BC", "", "GetOrder", r#"{"name":"c/dü"}"#),
        ("HEAD", "/v1/shops/1/orders/2", "", "GetOrder", r#"{"name":"shops/1/orders/2"}"#),
        ("GET", "/v1/shops/1/orders", "", "ListOrders", r#"{"parent":"shops/1"}"#),
        (
            "GET",
            "/v1/shops/1/orders?page_size=10&pageToken=a+b%26c&states=OPEN&states=2&filter.customer.name=Ada&filter.gift=false",
            "",
            "ListOrders",
            r#"{"parent":"shops/1","pageSize":10,"pageToken":"a b&c","states":["OPEN","PAID"],"filter":{"customer":{"name":"Ada"},"gift":false}}"#,
        ),
        (
            "GET",
            "/v1/shops/1/orders?since=2026-01-01T00:00:00Z&readMask=name,createdAt&least=0&tags=&tags=x&&page_size=-1",
            "",
            "ListOrders",
            r#"{"parent":"shops/1","pageSize":-1,"since":"2026-01-01T00:00:00Z","readMask":"name,createdAt","least":0,"tags":["","x"]}"#,
        ),
        (
            "POST",
            "/v1/shops/1/orders?request_id=7",
            r#"{"name": "n", "items": [{"sku": "a", "quantity": 2}], "labels": {"k": "v"}}"#,
            "CreateOrder",
            r#"{"parent":"shops/1","order":{"name":"n","items":[{"sku":"a","quantity":2}],"labels":{"k":"v"}},"requestId":"7"}"#,
        ),
        ("POST", "/v1/shops/1/orders", "", "CreateOrder", r#"{"parent":"shops/1"}"#),
        ("POST", "/v1/shops/1/orders", "null", "CreateOrder", r#"{"parent":"shops/1"}"#),
        (
            "PATCH",
            "/v1/shops/1/orders/2?update_mask=state",
            r#"{"name": "another", "state": "PAID"}"#,
            "UpdateOrder",
            r#"{"order":{"name":"shops/1/orders/2","state":"PAID"},"updateMask":"state"}"#,
        ),
        (
            "POST",
            "/v1/shops/1/orders/2:cancel",
            r#"{"reason": "late", "name": "another"}"#,
            "CancelOrder",
            r#"{"name":"shops/1/orders/2","reason":"late"}"#,
        ),
        ("POST", "/v1/shops/1/orders/2:cancel", " \n", "CancelOrder", r#"{"name":"shops/1/orders/2"}"#),
        ("GET", "/v1/shops/1/orders:watch?page_size=1", "", "WatchOrders", r#"{"parent":"shops/1","pageSize":1}"#),
        ("GET", "/files/a/b%2Fc/d.txt", "", "GetFile", r#"{"path":"a/b%2Fc/d.txt"}"#),
        ("GET", "/files", "", "GetFile", "{}"),
        ("PUT", "/v1/tags/0", r#"["a", "b"]"#, "Tag", r#"{"tags":["a","b"]}"#),
        ("PUT", "/v1/tags/-7", "[]", "Tag", r#"{"number":-7}"#),
        ("POST", "/shop.v1.Orders/Plain", r#"{"name": "n"}"#, "Plain", r#"{"name":"n"}"#),
        (
            "POST",
            "/shop.v1.Orders/GetOrder",
            r#"{"name": "n", "with_items": true}"#,
            "GetOrder",
            r#"{"name":"n","withItems":true}"#,
        ),
    ];
    for (http_method, target, body, name, message) in cases {
        let called = api.call(Unknown::Refuse, http_method, target, body);
        assert_eq!(called, Ok((name.to_owned(), message.to_owned())), "{http_method} {target}");
    }
}

#[test]
fn what_does_not_fit_is_refused_with_its_place() {
    let api = Api::shop();
    let body = |pointer: &str| Place::Body(pointer.to_owned());
    let path = |name: &str| Place::Path(name.to_owned());
    let query = |name: &str| Place::Query(name.to_owned());
    let cases = [
        ("GET", "/v1/shops/1/orders?page_size=ten", "", query("page_size"), "\"ten\" is not a whole number"),
        ("GET", "/v1/shops/1/orders?page_size=1&pageSize=1", "", query("pageSize"), "the field is given twice"),
        ("GET", "/v1/shops/1/orders?states=LOST", "", query("states"), "\"LOST\" is not a value of the enum shop.v1.State"),
        ("GET", "/v1/shops/1/orders?nope=1", "", query("nope"), "shop.v1.ListOrdersRequest has no field \"nope\""),
        ("GET", "/v1/shops/1/orders?filter.nope=1", "", query("filter.nope"), "shop.v1.Filter has no field \"nope\""),
        ("GET", "/v1/shops/1/orders?filter=1", "", query("filter"), "filter is a message"),
        ("GET", "/v1/shops/1/orders?labels.a=1", "", query("labels.a"), "there is nothing within labels"),
        ("GET", "/v1/shops/1/orders?labels=1", "", query("labels"), "labels is a map"),
        ("GET", "/v1/shops/1/orders?page_size.x=1", "", query("page_size.x"), "there is nothing within page_size"),
        ("GET", "/v1/shops/1/orders?parent=x", "", query("parent"), "the path has the value of this field already"),
        ("GET", "/v1/shops/1/orders?filter.gift=1", "", query("filter.gift"), "\"1\" stands where true or false is needed"),
        ("GET", "/v1/shops/1/orders?since=now", "", query("since"), "\"now\" is not an RFC 3339 timestamp"),
        ("GET", "/v1/shops/1/orders?page_token=%FF", "", query("page_token"), "not UTF-8"),
        (
            "GET",
            "/v1/shops/1/orders?filter.customer.mail=a&filter.customer.phone=b",
            "",
            query("filter.customer.phone"),
            "another field of the same oneof",
        ),
        ("POST", "/v1/shops/1/orders?order.name=x", "{}", query("order.name"), "this field is in the body"),
        ("POST", "/v1/shops/1/orders/2:cancel?reason=x", "{}", query("reason"), "all fields of this call are in its body"),
        ("POST", "/v1/shops/1/orders", r#"{"items": [{"quantity": "many"}]}"#, body("/items/0/quantity"), "\"many\" is not"),
        ("POST", "/v1/shops/1/orders", "[]", body(""), "expected an object"),
        ("PUT", "/v1/tags/x", "[]", path("number"), "\"x\" is not a whole number"),
        ("PUT", "/v1/tags/1", r#"["a", 1]"#, body("/1"), "1 stands where a string is needed"),
        ("PUT", "/v1/tags/1", r#"["a"] x"#, body(""), "the body is not JSON: trailing characters"),
        ("GET", "/v1/orders/%FF", "", path("name"), "not UTF-8"),
    ];
    for (http_method, target, sent, place, detail) in cases {
        let refusal = api.call(Unknown::Refuse, http_method, target, sent).expect_err(target);
        assert_eq!(refusal.place, place, "{target}: {refusal:?}");
        assert!(refusal.detail.contains(detail), "{target}: {refusal:?}");
    }
    let many = format!("/v1/shops/1/orders?{}", "tags=a&".repeat(257));
    assert!(api.call(Unknown::Refuse, "GET", &many, "").unwrap_err().detail.contains("at most 256"));
    let called = api.call(Unknown::Ignore, "GET", "/v1/shops/1/orders?utm_source=x&page_size=1", "").unwrap();
    assert_eq!(called.1, r#"{"parent":"shops/1","pageSize":1}"#);
    let called = api.call(Unknown::Ignore, "POST", "/v1/shops/1/orders/2:cancel?utm_source=x", "{}").unwrap();
    assert_eq!(called.1, r#"{"name":"shops/1/orders/2"}"#);
}

#[test]
fn paths_are_found_by_their_most_literal_template() {
    let set = samples::set_of(
        r#"syntax = "proto3"; import "google/api/annotations.proto";
        message M { string a = 1; string b = 2; }
        service S {
          rpc Literal(M) returns (M) { option (google.api.http) = { get: "/v1/x/y" }; }
          rpc One(M) returns (M) { option (google.api.http) = { get: "/v1/{a}/y" }; }
          rpc Two(M) returns (M) { option (google.api.http) = { get: "/v1/{a}/{b}" }; }
          rpc Rest(M) returns (M) { option (google.api.http) = { get: "/v1/{a=**}" }; }
          rpc Put(M) returns (M) { option (google.api.http) = { put: "/v1/x/y" body: "*" }; }
          rpc Verb(M) returns (M) { option (google.api.http) = { get: "/v1/{a}:go" }; }
          rpc RestVerb(M) returns (M) { option (google.api.http) = { get: "/v1/{a=**}:stop" }; }
          rpc Every(M) returns (M) { option (google.api.http) = { custom { kind: "*" path: "/any" } }; }
          rpc Deep(M) returns (M) { option (google.api.http) = { get: "/v1/x/{a}/deep" }; }
          rpc Delete(M) returns (M) { option (google.api.http) = { delete: "/v2/{a}" }; }
          rpc Patch(M) returns (M) { option (google.api.http) = { patch: "/v2/{a}" body: "b" }; }
        }"#,
    );
    let schema = samples::schema_of(&set);
    let api = Api { routes: Routes::build(&schema, Defaults::Exposed).unwrap(), schema };
    let cases = [
        ("GET", "/v1/x/y", "Literal"),
        ("GET", "/v1/z/y", "One"),
        ("GET", "/v1/x/z", "Two"),
        ("GET", "/v1/x/y/z", "Rest"),
        ("GET", "/v1/x/y/deep", "Deep"),
        ("GET", "/v1/x/z/deep", "Deep"),
        ("GET", "/v1/x/z/shallow", "Rest"),
        ("GET", "/v1", "Rest"),
        ("PUT", "/v1/x/y", "Put"),
        ("GET", "/v1/x:go", "Verb"),
        ("GET", "/v1/x:y", "Rest"),
        ("GET", "/v1/x/y:stop", "RestVerb"),
        ("GET", "/v1/x/y:other", "Two"),
        ("GET", "/v1/x:a/b", "Two"),
        ("BREW", "/any", "Every"),
        ("POST", "/S/Literal", "Literal"),
        ("GET", "/S/Literal", "only POST"),
        ("PUT", "/v2/x", "only DELETE PATCH"),
        ("DELETE", "/v1/x/y", "only GET PUT"),
        ("GET", "/v1/", "nothing"),
        ("GET", "/v1//y", "nothing"),
        ("GET", "/v1/x/", "nothing"),
        ("GET", "/v2", "nothing"),
        ("GET", "/", "nothing"),
        ("GET", "", "nothing"),
        ("OPTIONS", "*", "nothing"),
        ("POST", "/S/Nothing", "nothing"),
        ("POST", "/%53/Literal", "nothing"),
    ];
    for (http_method, path, expected) in cases {
        assert_eq!(api.found(http_method, path), expected, "{http_method} {path}");
    }
    assert_eq!(api.found("GET", &format!("/v1{}", "/a".repeat(300))), "nothing", "too many segments");
    let hidden = Routes::build(&api.schema, Defaults::Hidden).unwrap();
    assert!(matches!(hidden.find("POST", "/S/Literal"), Found::Nothing));
}

#[test]
fn wrong_annotations_are_named() {
    let cases = [
        (r#"get: "/v1/{nope}""#, "google.api.http of /S/One: M has no field \"nope\""),
        (r#"get: "/v1/{list}""#, "names the list list, which a path cannot have"),
        (r#"get: "/v1/{inner}""#, "inner is a message"),
        (r#"get: "/v1/{inner.nope}""#, "M has no field \"nope\""),
        (r#"get: "/v1/{a""#, "the template \"/v1/{a\" is wrong: a variable is not closed"),
        (r#"post: "/v1/x" body: "nope""#, "body names \"nope\", which M has not"),
        (r#"post: "/v1/{a}" body: "a""#, "a is bound to both the path and the body"),
        (r#"get: "/v1/x" response_body: "nope""#, "response_body names \"nope\""),
        (r#"body: "*""#, "it has no pattern"),
        (r#"custom { path: "/x" }"#, "a custom pattern has no kind"),
        (
            r#"get: "/x" additional_bindings { get: "/y" additional_bindings { get: "/z" } }"#,
            "an additional binding has additional",
        ),
        (r#"get: "/x" additional_bindings { get: "/{a=**}/y" }"#, "nothing but a verb may follow **"),
        (r#"get: "/same""#, "/S/One and /S/Two are both annotated with the same method and path"),
    ];
    for (rule, expected) in cases {
        let source = format!(
            r#"syntax = "proto3"; import "google/api/annotations.proto";
            message M {{ string a = 1; repeated string list = 2; M inner = 3; }}
            service S {{
              rpc Two(M) returns (M) {{ option (google.api.http) = {{ get: "/same" }}; }}
              rpc One(M) returns (M) {{ option (google.api.http) = {{ {rule} }}; }}
            }}"#
        );
        let schema = samples::schema_of(&samples::set_of(&source));
        let error = Routes::build(&schema, Defaults::Exposed).expect_err(rule);
        assert!(error.contains(expected), "{rule}: {error}");
    }
}
