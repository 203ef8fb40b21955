//! A client of the REST API, as an operator's script would be one.

use crate::{raw::Reply, wait::until};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// A client that brings a token.
#[derive(Debug, Clone)]
pub struct Rest {
    /// Where the API listens.
    pub address: SocketAddr,
    token: String,
    /// The revision of the last change that this client or a clone of it made.
    revision: Arc<AtomicU64>,
}

impl Rest {
    /// A client of the API at `address` that brings `token`.
    pub fn new(address: SocketAddr, token: &str) -> Self {
        Self { address, token: token.to_owned(), revision: Arc::default() }
    }

    /// The token it brings.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Makes a call with these headers besides the token's.
    pub async fn call(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Reply {
        self.try_call(method, path, headers, body).await.unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    /// As [`Rest::call`], for when the gateway may be gone.
    ///
    /// # Errors
    /// What the connection failed of.
    pub async fn try_call(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> anyhow::Result<Reply> {
        let bearer = format!("Bearer {}", self.token);
        let mut all = vec![("authorization", bearer.as_str())];
        all.extend_from_slice(headers);
        let reply = ask(self.address, method, path, &all, body).await?;
        match (method, reply.status) {
            // What is gone has no entity tag; each change is one revision.
            ("DELETE", 204) => drop(self.revision.fetch_add(1, Ordering::Relaxed)),
            ("PUT" | "POST", 200 | 201) => {
                let tag = reply.header("etag").and_then(|tag| tag.trim_matches('"').parse().ok());
                self.revision.fetch_max(tag.unwrap_or(0), Ordering::Relaxed);
            }
            _ => {}
        }
        Ok(reply)
    }

    /// The revision of the last change that this client or a clone of it made; 0 before the first.
    pub fn revision(&self) -> u64 {
        self.revision.load(Ordering::Relaxed)
    }

    /// Reads `path`.
    pub async fn get(&self, path: &str) -> Reply {
        self.call("GET", path, &[], Vec::new()).await
    }

    /// Writes `document` to `path`, whatever the answer.
    pub async fn put(&self, path: &str, document: &Value) -> Reply {
        self.call("PUT", path, &[("content-type", "application/json")], document.to_string().into_bytes()).await
    }

    /// Sends `document` to `path`, whatever the answer.
    pub async fn post(&self, path: &str, document: &Value) -> Reply {
        self.call("POST", path, &[("content-type", "application/json")], document.to_string().into_bytes()).await
    }

    /// Deletes `path`, whatever the answer.
    pub async fn delete(&self, path: &str) -> Reply {
        self.call("DELETE", path, &[], Vec::new()).await
    }

    /// Registers `document` as `name` in `collection`.
    ///
    /// # Panics
    /// When that is refused.
    pub async fn register(&self, collection: &str, name: &str, document: &Value) -> Reply {
        let reply = self.put(&format!("/v1/{collection}/{name}"), document).await;
        assert!(matches!(reply.status, 200 | 201), "{collection}/{name} was refused with {}: {}", reply.status, reply.text());
        reply
    }

    /// Uploads a module.
    pub async fn upload(&self, name: &str, module: Vec<u8>) -> Reply {
        self.call("POST", &format!("/v1/plugins/{name}"), &[("content-type", "application/wasm")], module).await
    }

    /// What would be decided.
    pub async fn explain(&self, question: &Value) -> Value {
        let reply = self.post("/v1/explain", question).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        reply.json()
    }

    /// The latest records, newest first, as the API lists them.
    pub async fn records(&self, query: &str) -> Vec<Value> {
        let reply = self.get(&format!("/v1/exchanges?limit=500{query}")).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        items(reply.json())
    }

    /// The record for which `wanted` holds, once it is there.
    pub async fn record(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        until(&format!("the record of {what}"), async || self.records("").await.into_iter().find(|record| wanted(record))).await
    }

    /// The record of the exchange whose target contains `part`, once it is there.
    pub async fn record_to(&self, part: &str) -> Value {
        self.record(part, |record| record["target"].as_str().is_some_and(|target| target.contains(part))).await
    }
}

/// The list that an answer holds.
pub fn items(answer: Value) -> Vec<Value> {
    let list = match answer {
        Value::Array(list) => list,
        Value::Object(mut object) => match object.remove("items") {
            Some(Value::Array(list)) => list,
            other => panic!("no list of items: {other:?} in {object:?}"),
        },
        other => panic!("no list: {other}"),
    };
    // A list may give each document beside its name and revision; tests read the document's own fields.
    list
}

/// One HTTP/1.1 request over a connection of its own.
///
/// # Errors
/// What the connection failed of.
pub async fn ask(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: Vec<u8>,
) -> anyhow::Result<Reply> {
    let exchange = async {
        let stream = tokio::net::TcpStream::connect(address).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let connection = tokio::spawn(connection);
        let mut request = http::Request::builder().method(method).uri(path).header("host", address.to_string());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = sender.send_request(request.body(Full::new(Bytes::from(body)))?).await?;
        let reply = read(response).await?;
        connection.abort();
        anyhow::Ok(reply)
    };
    tokio::time::timeout(crate::wait::LIMIT, exchange).await?
}

/// A response read to its end.
///
/// # Errors
/// What the body failed of.
pub async fn read<B>(response: http::Response<B>) -> anyhow::Result<Reply>
where
    B: hyper::body::Body,
    B::Error: std::error::Error + Send + Sync + 'static,
{
    let pairs = |headers: &http::HeaderMap| {
        let pairs =
            headers.iter().map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()));
        pairs.collect::<Vec<_>>()
    };
    let (head, body) = response.into_parts();
    let body = body.collect().await?;
    let trailers = body.trailers().map(pairs).unwrap_or_default();
    Ok(Reply { status: head.status.as_u16(), headers: pairs(&head.headers), body: body.to_bytes().to_vec(), trailers })
}
