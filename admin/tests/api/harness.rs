//! A running control plane and a small HTTP client.

use serde_json::{Value, json};
use std::{net::SocketAddr, path::Path, sync::Arc};
use tempfile::TempDir;
use tidegate_admin::{ControlPlane, DataPlane, Inspection, Metrics, Settings, StartError};
use tidegate_policy::{Publication, exchange::Batch, publication::Module, route::FilterUse};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
};

/// Accepts modules that begin as WebAssembly does, and configurations that do not say `{"refuse": …}`.
struct Plane;

impl DataPlane for Plane {
    fn inspect(&self, bytes: &[u8]) -> Result<Inspection, Vec<String>> {
        if bytes.starts_with(b"\0asm") {
            return Ok(Inspection {
                world: "tidegate:filter/filter@0.1.0".to_owned(),
                imports: vec!["wasi:clocks".to_owned()],
            });
        }
        Err(vec!["it is not WebAssembly".to_owned(), "and it is too short".to_owned()])
    }

    fn configure(&self, module: &Module, used: &FilterUse) -> Result<(), String> {
        match used.config.get("refuse").and_then(Value::as_str) {
            Some(why) => Err(why.to_owned()),
            None if module.read().is_ok_and(|bytes| bytes.ends_with(b"picky")) => Err("this version wants more".to_owned()),
            None => Ok(()),
        }
    }

    fn metrics(&self) -> String {
        "tidegate_of_the_data_plane 1\n".to_owned()
    }

    fn ready(&self) -> Result<(), String> {
        Ok(())
    }
}

pub(crate) struct Gate {
    pub(crate) directory: TempDir,
    pub(crate) address: SocketAddr,
    pub(crate) token: String,
    pub(crate) publications: watch::Receiver<Arc<Publication>>,
    pub(crate) records: mpsc::Sender<Batch>,
    pub(crate) metrics: Arc<Metrics>,
    stop: oneshot::Sender<()>,
    running: JoinHandle<()>,
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) text: String,
}

pub(crate) fn settings(directory: &Path) -> Settings {
    Settings { listen: SocketAddr::from(([127, 0, 0, 1], 0)), ..Settings::new(directory) }
}

pub(crate) async fn open(settings: Settings) -> Result<ControlPlane, StartError> {
    tidegate_admin::open(settings, Arc::new(Plane)).await
}

impl Gate {
    pub(crate) async fn start() -> Self {
        Self::start_in(TempDir::new().expect("a directory"), |_| {}).await
    }

    pub(crate) async fn start_in(directory: TempDir, change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = settings(directory.path());
        change(&mut settings);
        let control = open(settings).await.expect("it starts");
        let token = std::fs::read_to_string(directory.path().join("admin.token")).expect("the first token");
        let (records, received) = mpsc::channel(16);
        let (stop, stopped) = oneshot::channel::<()>();
        let (address, publications, metrics) = (control.address(), control.publications(), control.metrics());
        let running = tokio::spawn(control.run(received, async move { drop(stopped.await) }));
        Self { directory, address, token: token.trim().to_owned(), publications, records, metrics, stop, running }
    }

    /// Stops it; everything it has been given is stored then.
    pub(crate) async fn stop(self) -> TempDir {
        drop(self.records);
        self.stop.send(()).expect("it runs");
        self.running.await.expect("it stops in order");
        self.directory
    }

    pub(crate) async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut request =
            format!("{method} {path} HTTP/1.1\r\nhost: gate\r\nconnection: close\r\ncontent-length: {}\r\n", body.len());
        if !headers.iter().any(|(name, _)| *name == "authorization") {
            request += &format!("authorization: Bearer {}\r\n", self.token);
        }
        for (name, value) in headers.iter().filter(|(_, value)| !value.is_empty()) {
            request += &format!("{name}: {value}\r\n");
        }
        let mut stream = TcpStream::connect(self.address).await.expect("it listens");
        stream.write_all(format!("{request}\r\n").as_bytes()).await.expect("the head is sent");
        // An early answer may close before the whole body is taken.
        stream.write_all(body).await.ok();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.ok();
        let answer = String::from_utf8(bytes).expect("answers are text");
        let (head, text) = answer.split_once("\r\n\r\n").expect("an answer has a head");
        let status = head.get(9..12).and_then(|status| status.parse().ok()).expect("a status");
        Answer { status, head: head.to_ascii_lowercase(), text: text.to_owned() }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], b"").await
    }

    pub(crate) async fn put(&self, path: &str, document: Value) -> Answer {
        self.send("PUT", path, &[("content-type", "application/json")], document.to_string().as_bytes()).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.send("DELETE", path, &[], b"").await
    }
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}\n{}", self.head, self.text))
    }

    /// Checks the status, showing the answer where it is another.
    pub(crate) fn is(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}\n{}", self.head, self.text);
        self
    }

    pub(crate) fn pointers(&self) -> Vec<String> {
        let body = self.json();
        let mistakes = body["mistakes"].as_array().expect("mistakes are listed");
        mistakes.iter().map(|mistake| mistake["pointer"].as_str().expect("a pointer").to_owned()).collect()
    }
}

pub(crate) fn service(host: &str) -> Value {
    json!({"hosts": [host], "ports": [{"number": 443, "protocol": "https"}]})
}
