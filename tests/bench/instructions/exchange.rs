//! A whole exchange: the data plane with one worker, a client that asks over one connection, and an API that answers it. The two
//! do next to nothing, so that what is counted is the gateway's.

use serde_json::json;
use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::Arc,
};
use tidegate_gateway::{
    listen::{self, Listeners},
    plane::Plane,
    record::{self, recorder::Log},
    settings::Settings,
    worker,
};
use tidegate_policy::{Publication, Rows, Snapshot};
use tokio::sync::{mpsc, watch};

const ASKED: &[u8] = b"GET /v1/charges HTTP/1.1\r\nHost: api.example.com\r\nUser-Agent: wrk\r\nX-Team: payments\r\n\r\n";
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok";

/// Has `times` exchanges.
pub(crate) fn run(times: u32) {
    let directory = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let listen = listen::Settings { proxy: SocketAddr::from(([127, 0, 0, 1], 0)), ..listen::Settings::default() };
    let settings = Settings {
        data_dir: directory.path().to_owned(),
        listen: listen.clone(),
        workers: worker::Settings { workers: 1, ..worker::Settings::default() },
        record: record::Settings { log: Log::File(directory.path().join("records.jsonl")), ..record::Settings::default() },
        ..Settings::default()
    };
    let listeners = Listeners::bind(&listen, false, Arc::default()).unwrap();
    let gate = listeners.addresses().next().unwrap().1;
    let (_publisher, publications) = watch::channel(Arc::new(publication(api())));
    // Records go nowhere but to the file.
    let (forward, mut records) = mpsc::channel(64);
    runtime.spawn(async move { while records.recv().await.is_some() {} });
    let running = runtime.block_on(async {
        let plane = Plane::new(&settings).unwrap();
        plane.follow(publications).await.unwrap();
        plane.start(listeners, Vec::new(), forward).unwrap()
    });
    let mut client = TcpStream::connect(gate).unwrap();
    let mut answer = [0; 4096];
    for _ in 0..times {
        client.write_all(ASKED).unwrap();
        let mut read = 0;
        while !answer[..read].ends_with(b"ok") {
            let more = client.read(&mut answer[read..]).unwrap();
            assert!(more > 0 && answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer[..read]));
            read += more;
        }
    }
    drop(client);
    running.accepting.stop();
    running.workers.join();
    running.recorder.join();
}

/// An API that answers whatever it reads.
fn api() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        let mut asked = [0; 4096];
        while socket.read(&mut asked).is_ok_and(|read| read > 0) && socket.write_all(ANSWER).is_ok() {}
    });
    address
}

/// What the benchmark beside other proxies has registered, less what it does not ask for.
fn publication(api: SocketAddr) -> Publication {
    let mut rows = Rows::default();
    let service = json!({"hosts": ["api.example.com"], "ports": [{"number": 80, "protocol": "http"}],
        "resolution": "static", "endpoints": [{"address": "127.0.0.1", "port": api.port()}], "networks": ["127.0.0.0/8"]});
    let workload = json!({"networks": ["127.0.0.0/8"], "principal": "spiffe://bench/ns/load/sa/client", "namespace": "load"});
    let rule = json!({"action": "allow", "from": [{"namespaces": ["load"]}], "to": [{"services": ["api"]}]});
    rows.services.insert("api".parse().unwrap(), Arc::new(serde_json::from_value(service).unwrap()));
    rows.workloads.insert("load".parse().unwrap(), Arc::new(serde_json::from_value(workload).unwrap()));
    rows.rules.insert("load".parse().unwrap(), Arc::new(serde_json::from_value(rule).unwrap()));
    Publication { revision: 1, snapshot: Arc::new(Snapshot::compile(&rows).unwrap()), ..Publication::default() }
}
