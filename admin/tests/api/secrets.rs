//! Key material is used and never shown.

use crate::harness::Gate;
use rcgen::{CertificateParams, KeyPair};
use serde_json::json;
use std::{
    io::Write,
    sync::{Arc, Mutex},
};
use tidegate_policy::credential::Credential;

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("the log").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn files(directory: &std::path::Path) -> Vec<(String, Vec<u8>)> {
    let entries = std::fs::read_dir(directory).expect("the directory").map(|entry| entry.expect("an entry").path());
    entries.map(|path| (path.display().to_string(), std::fs::read(&path).expect("a file"))).collect()
}

#[tokio::test]
async fn secrets_are_in_no_file_answer_log_line_or_debug_output() {
    const SECRET: &str = "sk_live_4eC39HqLyjWDarjtT1zdp7dc";
    let log = Log::default();
    let writer = log.clone();
    let subscriber =
        tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(move || writer.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let gate = Gate::start().await;
    let key = KeyPair::generate().expect("a key");
    let certificate =
        CertificateParams::new(vec!["client.example".to_owned()]).expect("names").self_signed(&key).expect("a certificate");
    let mut answers = Vec::new();
    answers.push(gate.put("/v1/credentials/stripe", json!({"kind": "secret", "value": SECRET})).await.is(201).text);
    let pair = json!({"kind": "certificate", "chain": certificate.pem(), "key": key.serialize_pem()});
    answers.push(gate.put("/v1/credentials/client", pair).await.is(201).text);
    answers.push(
        gate.put("/v1/credentials/stripe?dry_run=true", json!({"kind": "secret", "value": format!("{SECRET}x")}))
            .await
            .is(200)
            .text,
    );
    for wrong in [
        json!({"kind": SECRET}),
        json!({"kind": "secret", "value": {"nested": SECRET}}),
        json!({"kind": "certificate", "chain": SECRET, "key": SECRET}),
        json!({"kind": "trust", "pem": SECRET}),
        json!([SECRET]),
    ] {
        answers.push(gate.put("/v1/credentials/wrong", wrong).await.is(422).text);
    }
    answers.push(gate.get("/v1/credentials").await.is(200).text);
    answers.push(gate.get("/v1/credentials/stripe").await.is(200).text);
    answers.push(gate.delete("/v1/credentials/absent").await.is(404).text);
    let publication = gate.publications.borrow().clone();
    answers.push(format!("{publication:?}"));
    let held = publication
        .credentials
        .values()
        .filter(|held| matches!(&***held, Credential::Secret { value } if value.reveal() == SECRET));
    assert_eq!(held.count(), 1, "the data plane gets the material");
    let facts = gate.get("/v1/credentials/client").await.is(200).json();
    assert_eq!(facts["document"]["certificates"][0]["names"], json!(["DNS:client.example"]));
    assert_eq!(facts["document"]["certificates"][0]["fingerprint"].as_str().map(str::len), Some(64));
    let private: String = key.serialize_pem().lines().nth(1).expect("a line of the key").to_owned();
    let needles = [SECRET.as_bytes(), private.as_bytes()];
    let mut haystacks: Vec<_> = answers.into_iter().map(|text| ("an answer".to_owned(), text.into_bytes())).collect();
    haystacks.extend(files(gate.directory.path()));
    assert!(
        haystacks.iter().any(|(name, bytes)| name.ends_with("tidegate.db-wal") && !bytes.is_empty()),
        "the log of the database is searched"
    );
    let directory = gate.stop().await;
    haystacks.extend(files(directory.path()));
    haystacks.push(("the log".to_owned(), log.0.lock().expect("the log").clone()));
    for (name, bytes) in &haystacks {
        for needle in needles {
            assert!(!bytes.windows(needle.len()).any(|window| window == needle), "{name} shows key material");
        }
    }
}

#[tokio::test]
async fn material_that_is_not_what_it_says_is_refused() {
    let gate = Gate::start().await;
    let (key, other) = (KeyPair::generate().expect("a key"), KeyPair::generate().expect("a key"));
    let certificate =
        CertificateParams::new(vec!["client.example".to_owned()]).expect("names").self_signed(&key).expect("a certificate");
    let pem = certificate.pem();
    for (document, pointer) in [
        (json!({"kind": "certificate", "chain": pem, "key": other.serialize_pem()}), "/key"),
        (json!({"kind": "certificate", "chain": pem, "key": "nonsense"}), "/key"),
        (json!({"kind": "certificate", "chain": "nonsense", "key": key.serialize_pem()}), "/chain"),
        (json!({"kind": "trust", "pem": key.serialize_pem()}), "/pem"),
        (json!({"kind": "secret", "value": ""}), "/value"),
        (json!({"kind": "secret", "value": "from-a-file\n"}), "/value"),
        (json!({"kind": "secret", "value": "x", "pem": pem}), "/pem"),
    ] {
        assert_eq!(gate.put("/v1/credentials/a", document).await.is(422).pointers(), [pointer]);
    }
    gate.put("/v1/credentials/ca", json!({"kind": "trust", "pem": pem})).await.is(201);
    let service = json!({"hosts": ["a.example"], "ports": [{"number": 443, "protocol": "https"}], "tls": {"mode": "simple", "trust": "ca"}});
    gate.put("/v1/services/a", service).await.is(201);
    let refused = gate.delete("/v1/credentials/ca").await.is(409).json();
    assert_eq!(refused["referrers"], json!(["/services/a/tls/trust"]));
}
