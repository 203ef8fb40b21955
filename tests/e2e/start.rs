//! A start that cannot be: what is wrong is said, the exit status is not zero, and nothing is changed.

use std::{collections::BTreeMap, path::Path, sync::Arc};
use tidegate_tests::{
    Gateway, Options,
    gateway::{Directory, refuse_to_start},
    plugins,
    wait::until,
};

/// A data directory that a gateway has used and left.
async fn used() -> Arc<Directory> {
    let directory = Directory::new();
    let mut gateway = Gateway::start_in(Arc::clone(&directory), &Options::default()).await;
    let secret = serde_json::json!({"kind": "secret", "value": "kept"});
    gateway.rest().register("credentials", "key", &secret).await;
    gateway.terminate();
    assert!(gateway.ended().await.success());
    directory
}

/// The files of `directory` that hold something to lose.
fn files(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(directory).expect("a folder can be read");
    let files = entries.map(|entry| entry.expect("a folder can be read").path()).filter(|path| path.is_file());
    let named = files.map(|path| (path.file_name().unwrap_or_default().to_string_lossy().into_owned(), path));
    // Shared memory and logs of SQLite come and go with whoever opens the database.
    let kept = named.filter(|(name, _)| !name.ends_with("-shm") && !name.ends_with("-wal") && !name.contains("lock"));
    kept.map(|(name, path)| (name, std::fs::read(path).expect("a file can be read"))).collect()
}

async fn refused(directory: &Directory, options: &Options, words: &[&str]) {
    let before = files(directory.path());
    let (status, said) = refuse_to_start(directory.path(), options).await;
    assert!(!status.success(), "{status}: {said}");
    for word in words {
        assert!(said.to_lowercase().contains(&word.to_lowercase()), "{word:?} is not in what it said:\n{said}");
    }
    assert!(!said.contains("panicked"), "{said}");
    assert!(before == files(directory.path()), "nothing may be changed");
}

/// Changes a database that nobody has open.
fn execute(path: &Path, sql: &str) {
    let python = format!(
        "import sqlite3; db = sqlite3.connect({path:?}); db.execute(\"{sql}\"); db.commit(); \
                          db.execute('PRAGMA wal_checkpoint(TRUNCATE)'); db.close()"
    );
    let status = std::process::Command::new("python3").args(["-c", &python]).status().expect("python3 can be run");
    assert!(status.success());
}

#[tokio::test]
async fn a_damaged_database_is_named() {
    let directory = used().await;
    let path = directory.path().join("tidegate.db");
    let mut bytes = std::fs::read(&path).expect("the database is there");
    let half = bytes.len() / 2;
    bytes[..half].fill(0xee);
    std::fs::write(&path, &bytes).expect("the database can be written");
    refused(&directory, &Options::default(), &["tidegate.db", "damaged"]).await;
}

#[tokio::test]
async fn a_database_of_a_newer_version_is_left_alone() {
    let directory = used().await;
    let path = directory.path().join("tidegate.db");
    let sql = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
               VALUES (99999999999999, 'from the future', 1, x'00', 0)";
    execute(&path, sql);
    refused(&directory, &Options::default(), &["tidegate.db", "newer"]).await;
}

#[tokio::test]
async fn a_module_that_is_damaged_is_named_and_can_be_uploaded_again() {
    let directory = Directory::new();
    let mut gateway = Gateway::start_in(Arc::clone(&directory), &Options::default()).await;
    gateway.rest().upload("stamp", plugins::module("stamp")).await;
    let service = serde_json::json!({"hosts": ["api.example.com"], "ports": [{"number": 80, "protocol": "http"}]});
    gateway.rest().register("services", "api", &service).await;
    let route = serde_json::json!({"service": "api", "filters": [{"plugin": "stamp"}]});
    gateway.rest().register("routes", "api", &route).await;
    gateway.terminate();
    assert!(gateway.ended().await.success());
    execute(&directory.path().join("tidegate.db"), "UPDATE module SET bytes = x'00'");
    // What was compiled before is as good as ever.
    let mut gateway = Gateway::start_in(Arc::clone(&directory), &Options::default()).await;
    assert!(!gateway.output().contains("cannot be run"), "{}", gateway.output());
    gateway.terminate();
    assert!(gateway.ended().await.success());
    std::fs::remove_dir_all(directory.path().join("filters")).expect("compiled filters are there");
    let gateway = Gateway::start_in(Arc::clone(&directory), &Options::default()).await;
    let said = gateway.output();
    assert!(said.contains("stamp") && said.contains("other bytes than were uploaded"), "{said}");
    gateway.rest().upload("stamp", plugins::module("stamp")).await;
    assert!(gateway.output().contains("are there again"), "{}", gateway.output());
    let compiled = async || (gateway.metric("tidegate_filter_compiled_total", "").await >= 1.0).then_some(());
    until("the module to be compiled", compiled).await;
}

#[tokio::test]
async fn a_key_that_is_not_the_databases_is_named() {
    let directory = used().await;
    let key = std::fs::read_dir(directory.path())
        .expect("a folder can be read")
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .find(|path| path.to_string_lossy().contains("seal") || path.to_string_lossy().ends_with("tidegate.key"))
        .expect("the key that credentials are sealed under is a file of the data directory");
    let whole = std::fs::read(&key).expect("the key can be read");
    std::fs::write(&key, "too short").expect("the key can be written");
    let name = key.file_name().unwrap_or_default().to_string_lossy().into_owned();
    refused(&directory, &Options::default(), &[&name]).await;
    // Another key of the right shape: it opens nothing that is sealed.
    let another: Vec<u8> = whole.iter().map(|byte| if byte.is_ascii_digit() { b'0' + (b'9' - byte) } else { *byte }).collect();
    let another = if another == whole { whole.iter().map(|byte| !byte).collect() } else { another };
    std::fs::write(&key, another).expect("the key can be written");
    refused(&directory, &Options::default(), &["key"]).await;
    std::fs::remove_file(&key).expect("the key can be removed");
    refused(&directory, &Options::default(), &["key"]).await;
}

#[tokio::test]
async fn a_port_that_is_taken_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a loopback port is free");
    let address = taken.local_addr().expect("a bound socket has an address").to_string();
    for flag in ["--proxy-listen", "--admin-listen", "--metrics-listen"] {
        let directory = used().await;
        refused(
            &directory,
            &Options::default().flag(flag, &address),
            &[&address, &flag.trim_start_matches("--").replace('-', "_")],
        )
        .await;
    }
}

#[tokio::test]
async fn a_second_gateway_on_the_same_data_is_refused() {
    let first = Gateway::start(&Options::default()).await;
    let (status, said) = refuse_to_start(first.directory().path(), &Options::default()).await;
    assert!(!status.success() && said.contains(&first.directory().path().display().to_string()), "{status}: {said}");
    assert_eq!(first.rest().get("/v1/services").await.status, 200, "the first one goes on");
}

#[tokio::test]
async fn all_mistakes_in_the_settings_are_reported_together() {
    let directory = Directory::new();
    let file = directory.path().join("tidegate.toml");
    std::fs::write(&file, "workers = 0\nno_such_setting = 1\nadmin_listen = \"nowhere\"\n").expect("a file can be written");
    let (status, said) = refuse_to_start(
        directory.path(),
        &Options::default()
            .flag("--config", file.display())
            .flag("--proxy-listen", "also nowhere")
            .variable("TIDEGATE_METRICS_LISTEN", "nor here"),
    )
    .await;
    assert!(!status.success());
    for word in ["no_such_setting", "also nowhere"] {
        assert!(said.contains(word), "{word:?} is not in what it said:\n{said}");
    }
    assert!(!directory.path().join("tidegate.db").exists(), "nothing was made");
}

#[tokio::test]
async fn flags_win_over_the_environment_and_that_over_the_file() {
    let directory = Directory::new();
    let file = directory.path().join("tidegate.toml");
    std::fs::write(&file, "drain_timeout = \"1s\"\nrecord_log = \"/nonexistent/file\"\n").expect("a file can be written");
    let records = directory.path().join("records.jsonl");
    let options = Options::default()
        .flag("--config", file.display())
        .variable("TIDEGATE_RECORD_LOG", "/nonexistent/variable")
        .flag("--record-log", records.display());
    let _gateway = Gateway::start_in(Arc::clone(&directory), &options).await;
    assert!(records.exists(), "the flag's file is the one that is written");
}
