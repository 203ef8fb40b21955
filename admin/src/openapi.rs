//! The OpenAPI description: schemas from the types, paths from the collections. The text is kept as a snapshot in
//! `admin/openapi.json`, so that a change of the API shows in its review.

use crate::{
    api::explain::{Explanation, Question},
    credential::CredentialFacts,
    noun::Noun,
    problem::Said,
};
use serde_json::{Map, Value, json};
use std::sync::LazyLock;
use tidegate_policy::{credential, exchange, issuer, plugin, route, rule, service, workload};
use utoipa::ToSchema;

/// The document as text.
pub(crate) fn text() -> &'static str {
    static TEXT: LazyLock<String> = LazyLock::new(|| format!("{:#}\n", document()));
    &TEXT
}

const ABOUT: &str = "Registers external APIs and who may reach them, and shows what left.\n\n\
Every request under /v1 brings `Authorization: Bearer <token>`. A viewer reads everything (key material is never shown to anyone) and asks \
/v1/explain; an editor also changes services, routes, rules, workloads and plugins; an admin also changes credentials and issuers. The \
first start writes an admin token to admin.token in the data directory; `tidegate token --role viewer --ttl 8h` mints more.\n\n\
A change that was answered with 2xx is stored and in force. Every error is problem+json (RFC 9457) and lists all mistakes.\n\n\
Documents are put bare and answered as {name, revision, created, updated, document}; the revision is the entity tag.";

fn document() -> Value {
    let mut paths = Map::new();
    for noun in Noun::ALL {
        paths.insert(format!("/v1/{}", noun.as_str()), collection(noun));
        paths.insert(format!("/v1/{}/{{name}}", noun.as_str()), entry(noun));
    }
    paths.insert("/v1/explain".to_owned(), explain());
    paths.insert("/v1/exchanges".to_owned(), exchanges());
    for (path, summary, kind) in [
        ("/healthz", "Whether the process lives", "text/plain"),
        ("/readyz", "Whether it takes traffic; 503 says why not", "text/plain"),
        ("/metrics", "Metrics in the Prometheus text format", "text/plain"),
        ("/openapi.json", "This document", "application/json"),
        ("/docs", "This document as a page", "text/html"),
    ] {
        let responses = json!({"200": {"description": "It is so", "content": {kind: {}}}});
        paths.insert(path.to_owned(), json!({"get": {"summary": summary, "security": [], "responses": responses}}));
    }
    json!({
        "openapi": "3.1.0",
        "info": {"title": "Tidegate", "version": env!("CARGO_PKG_VERSION"), "description": ABOUT},
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
            "schemas": schemas(),
        },
    })
}

fn collection(noun: Noun) -> Value {
    let page = json!({
        "type": "object",
        "required": ["items"],
        "properties": {
            "items": {"type": "array", "items": item(noun)},
            "next": {"type": "string", "description": "The cursor of the next page; absent on the last"},
        },
    });
    json!({"get": {
        "summary": format!("Lists {} by name", noun.as_str()),
        "parameters": [
            query("limit", "Items on a page, 1 to 1000; 100 unless given"),
            query("cursor", "Where the page begins: `next` of the page before"),
        ],
        "responses": responses(&[("200", "A page", Some(page))]),
    }})
}

fn entry(noun: Noun) -> Value {
    let one = noun.singular();
    let who = if matches!(noun, Noun::Credentials | Noun::Issuers) { "an admin" } else { "an editor or admin" };
    let content = match noun {
        Noun::Plugins => json!({"application/wasm": {"schema": {"type": "string", "format": "binary"}}}),
        _ => json!({"application/json": {"schema": reference(sent(noun))}}),
    };
    let put = json!({
        "summary": format!("Creates or replaces a {one}"),
        "description": format!("For {who}. The same document again changes nothing."),
        "parameters": [
            query("dry_run", "true: answers what would change, and changes nothing"),
            header("If-Match", "Only if this is its revision, or `*`: only if it exists"),
            header("If-None-Match", "`*`: only if it does not exist"),
        ],
        "requestBody": {"required": true, "content": content},
        "responses": responses(&[
            ("200", "It was replaced, or is as it was", Some(item(noun))),
            ("201", "It was created", Some(item(noun))),
            ("412", "It is not in the state that the request names", None),
            ("413", "The body is larger than the limit", None),
            ("422", "The document has mistakes; all are listed", None),
            NO_ROOM,
        ]),
    });
    let mut methods = json!({
        "parameters": [{"name": "name", "in": "path", "required": true, "description": "Its name", "schema": reference("Name")}],
        "get": {
            "summary": format!("Shows a {one}"),
            "responses": responses(&[("200", "It", Some(item(noun))), ("404", "There is none of this name", None)]),
        },
        "put": put,
        "delete": {
            "summary": format!("Deletes a {one}"),
            "description": format!("For {who}."),
            "parameters": [
                query("dry_run", "true: answers what would change, and changes nothing"),
                header("If-Match", "Only if this is its revision, or `*`"),
            ],
            "responses": responses(&[
                ("204", "It is gone", None),
                ("404", "There is none of this name", None),
                ("409", "Something refers to it; `referrers` lists what", None),
                ("412", "It is not in the state that the request names", None),
            ]),
        },
    });
    if noun == Noun::Plugins {
        methods["post"] = methods["put"].clone();
    }
    methods
}

/// Of requests with bodies.
const NO_ROOM: (&str, &str, Option<Value>) =
    ("503", "The bodies of other requests take all the memory there is for them", None);

fn explain() -> Value {
    json!({"post": {
        "summary": "Says what would be decided, by the code that decides",
        "requestBody": {"required": true, "content": {"application/json": {"schema": reference("Question")}}},
        "responses": responses(&[
            ("200", "The decision", Some(reference("Explanation"))),
            ("422", "The question has mistakes; all are listed", None),
            NO_ROOM,
        ]),
    }})
}

fn exchanges() -> Value {
    let page = json!({
        "type": "object",
        "required": ["items"],
        "properties": {"items": {"type": "array", "items": reference("Exchange")}, "next": {"type": "string"}},
    });
    let mut responses = responses(&[
        (
            "200",
            "A page in order of arrival, newest first; records of different workers may change places within 20 ms",
            Some(page),
        ),
        ("429", "Too many callers follow already", None),
    ]);
    responses["200"]["content"]["text/event-stream"] = json!({"schema": {"type": "string"}});
    json!({"get": {
        "summary": "Lists the records of exchanges, or follows them",
        "description": "With `Accept: text/event-stream` or `follow=true`, events named `exchange` as they come; an event named `missed` says how many records a slow reader lost.",
        "parameters": [
            query("workload", "Only this caller's"),
            query("service", "Only those with this service"),
            query("verdict", "Only allowed, denied or invalid ones"),
            query("reason", "Only those with this reason"),
            query("since", "From this time on (RFC 3339)"),
            query("until", "Up to this time (RFC 3339)"),
            query("limit", "Items on a page, 1 to 1000; 100 unless given"),
            query("cursor", "Where the page begins: `next` of the page before"),
            query("follow", "true: follow"),
        ],
        "responses": responses,
    }})
}

/// The schema of what is put.
fn sent(noun: Noun) -> &'static str {
    match noun {
        Noun::Services => "Service",
        Noun::Routes => "Route",
        Noun::Rules => "Rule",
        Noun::Workloads => "Workload",
        Noun::Issuers => "Issuer",
        Noun::Credentials => "Credential",
        Noun::Plugins => "Plugin",
    }
}

/// The schema of what is answered.
fn item(noun: Noun) -> Value {
    let shown = if noun == Noun::Credentials { "CredentialFacts" } else { sent(noun) };
    json!({
        "type": "object",
        "required": ["name", "revision", "created", "updated", "document"],
        "properties": {
            "name": reference("Name"),
            "revision": {"type": "integer", "description": "The revision that last changed it; its entity tag"},
            "created": {"type": "string", "format": "date-time"},
            "updated": {"type": "string", "format": "date-time"},
            "document": reference(shown),
        },
    })
}

fn responses(own: &[(&str, &str, Option<Value>)]) -> Value {
    let problem = || json!({"application/problem+json": {"schema": reference("Problem")}});
    let mut all = Map::new();
    for (status, description, schema) in own {
        let mut response = json!({"description": description});
        match schema {
            Some(schema) => response["content"] = json!({"application/json": {"schema": schema}}),
            None if *status != "204" => response["content"] = problem(),
            None => {}
        }
        all.insert((*status).to_owned(), response);
    }
    for (status, description) in [
        ("400", "The request cannot be understood"),
        ("401", "A valid token is needed"),
        ("403", "The token's role does not permit this"),
    ] {
        all.insert(status.to_owned(), json!({"description": description, "content": problem()}));
    }
    Value::Object(all)
}

fn query(name: &str, description: &str) -> Value {
    json!({"name": name, "in": "query", "description": description, "schema": {"type": "string"}})
}

fn header(name: &str, description: &str) -> Value {
    json!({"name": name, "in": "header", "description": description, "schema": {"type": "string"}})
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

fn schemas() -> Value {
    let mut found = Vec::new();
    macro_rules! add {
        ($($type:ty),* $(,)?) => {$(
            found.push((<$type as ToSchema>::name().into_owned(), <$type as utoipa::PartialSchema>::schema()));
            <$type as ToSchema>::schemas(&mut found);
        )*};
    }
    add!(
        service::Service,
        route::Route,
        rule::Rule,
        workload::Workload,
        issuer::Issuer,
        credential::Credential,
        CredentialFacts,
        plugin::Plugin,
        exchange::Exchange<'static>,
        tidegate_policy::Name,
        Question,
        Explanation,
        Said,
    );
    let schemas = found.into_iter().map(|(name, schema)| (name, serde_json::to_value(schema).unwrap_or_default()));
    Value::Object(schemas.collect::<std::collections::BTreeMap<_, _>>().into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Run with `UPDATE_SNAPSHOTS=1` to write the snapshot anew.
    #[test]
    fn the_snapshot_is_what_is_served() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.json");
        if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
            std::fs::write(path, text()).expect("the snapshot is written");
        }
        let snapshot = std::fs::read_to_string(path).unwrap_or_default();
        assert!(snapshot == text(), "admin/openapi.json differs: run this test with UPDATE_SNAPSHOTS=1 and review the change");
    }

    #[test]
    fn every_reference_leads_somewhere() {
        fn walk(value: &Value, schemas: &Value, missing: &mut Vec<String>) {
            match value {
                Value::Object(object) => {
                    if let Some(Value::String(reference)) = object.get("$ref") {
                        let name = reference.trim_start_matches("#/components/schemas/");
                        if schemas.get(name).is_none() {
                            missing.push(name.to_owned());
                        }
                    }
                    object.values().for_each(|value| walk(value, schemas, missing));
                }
                Value::Array(items) => items.iter().for_each(|value| walk(value, schemas, missing)),
                _ => {}
            }
        }
        let document = document();
        let mut missing = Vec::new();
        walk(&document, &document["components"]["schemas"], &mut missing);
        assert!(missing.is_empty(), "{missing:?}");
    }
}
