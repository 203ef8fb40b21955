//! Starts that fail say why and change nothing; what was acknowledged is there after any end.

use crate::harness::{Gate, open, service, settings};
use serde_json::json;
use std::path::Path;
use tempfile::TempDir;
use tidegate_admin::StartError;
use tidegate_policy::credential::Secret;

async fn refused(directory: &Path) -> StartError {
    open(settings(directory)).await.err().expect("it does not start")
}

fn contents(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = std::fs::read_dir(directory).expect("the directory").map(|entry| entry.expect("an entry").path());
    let mut files: Vec<_> = entries
        .map(|path| (path.display().to_string(), std::fs::read(&path).expect("a file")))
        .filter(|(name, _)| !name.ends_with(".lock"))
        .collect();
    files.sort();
    files
}

async fn used() -> TempDir {
    let gate = Gate::start().await;
    gate.put("/v1/services/a", service("a.example")).await.is(201);
    gate.put("/v1/credentials/s", json!({"kind": "secret", "value": "material"})).await.is(201);
    gate.stop().await
}

#[tokio::test]
async fn what_was_acknowledged_is_in_force_after_a_restart() {
    let gate = Gate::start_in(used().await, |_| {}).await;
    let publication = gate.publications.borrow().clone();
    assert_eq!(publication.revision, 2);
    assert!(publication.snapshot.service("a").is_some());
    assert_eq!(publication.credentials.len(), 1);
    gate.get("/v1/services/a").await.is(200);
}

#[tokio::test]
async fn a_copy_of_the_files_at_any_moment_holds_every_acknowledged_change() {
    let gate = Gate::start().await;
    for number in 0..20 {
        gate.put(&format!("/v1/services/s{number}"), service(&format!("s{number}.example"))).await.is(201);
        // What a power cut would leave: the files as they are now, the process never having closed anything.
        let copy = TempDir::new().expect("a directory");
        for (name, bytes) in contents(gate.directory.path()) {
            let path = copy.path().join(Path::new(&name).file_name().expect("a name"));
            if name.ends_with("-shm") {
                continue;
            }
            std::fs::write(&path, bytes).expect("it is copied");
            std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("permissions");
        }
        let control = open(settings(copy.path())).await.expect("it starts from the copy");
        assert_eq!(control.publications().borrow().revision, number + 1);
    }
}

#[tokio::test]
async fn a_damaged_database_is_named_and_left_as_it_was() {
    let directory = used().await;
    let path = directory.path().join("tidegate.db");
    let mut bytes = std::fs::read(&path).expect("the database");
    let pages = bytes.len() / 4096;
    assert!(pages > 4, "{pages} pages");
    bytes[4096..].fill(0xa5);
    std::fs::write(&path, bytes).expect("it is damaged");
    let before = contents(directory.path());
    let error = refused(directory.path()).await;
    assert!(matches!(error, StartError::DatabaseDamaged { .. }), "{error}");
    assert!(contents(directory.path()) == before, "nothing was changed");
    std::fs::write(&path, "this is a letter to the editor").expect("it is replaced");
    let before = contents(directory.path());
    let error = refused(directory.path()).await;
    assert!(matches!(error, StartError::DatabaseDamaged { .. }), "{error}");
    assert!(contents(directory.path()) == before, "nothing was changed");
}

#[tokio::test]
async fn a_newer_schema_is_named_and_left_as_it_was() {
    use sqlx::{ConnectOptions, Connection};
    let directory = used().await;
    let path = directory.path().join("tidegate.db");
    let mut connection = sqlx::sqlite::SqliteConnectOptions::new().filename(&path).connect().await.expect("it opens");
    let sql = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES (9999, 'later', 1, x'00', 0)";
    sqlx::query(sql).execute(&mut connection).await.expect("it is written");
    connection.close().await.expect("it closes");
    let before = contents(directory.path());
    let error = refused(directory.path()).await;
    assert!(matches!(error, StartError::DatabaseNewer { found: 9999, .. }), "{error}");
    assert!(contents(directory.path()) == before, "nothing was changed");
}

#[tokio::test]
async fn keys_that_do_not_fit_are_refused() {
    let directory = used().await;
    let mut other = settings(directory.path());
    other.key = Some(Secret::from("MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=".to_owned()));
    let error = open(other).await.err().expect("it does not start");
    assert!(matches!(error, StartError::KeyWrong { .. }) && error.to_string().contains("TIDEGATE_KEY"), "{error}");
    let key = directory.path().join("tidegate.key");
    std::fs::rename(&key, directory.path().join("elsewhere")).expect("the key goes");
    let error = refused(directory.path()).await;
    assert!(matches!(error, StartError::KeyMissing { .. }), "{error}");
    assert!(!key.exists(), "no other key was made");
}

#[tokio::test]
async fn a_taken_port_and_a_taken_directory_are_named() {
    let gate = Gate::start().await;
    let error = refused(gate.directory.path()).await;
    assert!(matches!(error, StartError::InUse { .. }), "{error}");
    let elsewhere = TempDir::new().expect("a directory");
    let mut taken = settings(elsewhere.path());
    taken.listen = gate.address;
    let error = open(taken).await.err().expect("it does not start");
    assert!(matches!(error, StartError::Listen { .. }) && error.to_string().contains(&gate.address.to_string()), "{error}");
    assert!(contents(elsewhere.path()).is_empty(), "nothing was made");
}

#[tokio::test]
async fn connections_beyond_the_limit_and_slow_ones_are_closed() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let limits = |settings: &mut tidegate_admin::Settings| {
        settings.api_connections = 1;
        settings.api_header_timeout = std::time::Duration::from_millis(50);
    };
    let gate = Gate::start_in(TempDir::new().expect("a directory"), limits).await;
    let mut slow = tokio::net::TcpStream::connect(gate.address).await.expect("it listens");
    slow.write_all(b"GET /healthz HTTP/1.1\r\n").await.expect("a part is sent");
    let mut beyond = tokio::net::TcpStream::connect(gate.address).await.expect("it listens");
    assert_eq!(beyond.read(&mut [0; 1]).await.unwrap_or(0), 0, "one too many is closed");
    assert_eq!(gate.metrics.connections_refused.value(), 1);
    let mut rest = Vec::new();
    slow.read_to_end(&mut rest).await.ok();
    while gate.metrics.requests.value() == 0 {
        if let Ok(mut stream) = tokio::net::TcpStream::connect(gate.address).await {
            stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: g\r\nconnection: close\r\n\r\n").await.ok();
            stream.read_to_end(&mut rest).await.ok();
        }
    }
}

#[tokio::test]
async fn writes_at_once_follow_one_another_and_are_audited() {
    use sqlx::{ConnectOptions, Connection, Row};
    let gate = Gate::start().await;
    let writes = (0..40).map(|number| {
        let gate = &gate;
        async move { gate.put(&format!("/v1/services/s{number}"), service(&format!("s{number}.example"))).await.is(201).json() }
    });
    let answers = futures_util::future::join_all(writes).await;
    let mut revisions: Vec<_> = answers.iter().map(|answer| answer["revision"].as_i64().expect("a revision")).collect();
    revisions.sort_unstable();
    assert_eq!(revisions, (1..=40).collect::<Vec<_>>());
    assert_eq!(gate.publications.borrow().snapshot.services().count(), 40);
    gate.delete("/v1/services/s7").await.is(204);
    let directory = gate.stop().await;
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(directory.path().join("tidegate.db"));
    let mut connection = options.connect().await.expect("it opens");
    let sql = "SELECT action, name, who, before, after FROM revision JOIN audit ON audit.revision = number ORDER BY number DESC LIMIT 1";
    let last = sqlx::query(sql).fetch_one(&mut connection).await.expect("it is audited");
    assert_eq!((last.get::<String, _>(0), last.get::<String, _>(1)), ("deleted".to_owned(), "s7".to_owned()));
    assert!(last.get::<String, _>(2).starts_with("admin:"));
    assert!(last.get::<Option<String>, _>(3).is_some_and(|before| before.contains("s7.example")));
    assert_eq!(last.get::<Option<String>, _>(4), None);
    connection.close().await.expect("it closes");
}

#[tokio::test]
async fn a_caller_that_goes_away_does_not_leave_a_change_half_made() {
    use tokio::io::AsyncWriteExt;
    let mut gate = Gate::start().await;
    let body = service("a.example").to_string();
    let request = format!(
        "PUT /v1/services/a HTTP/1.1\r\nhost: g\r\nauthorization: Bearer {}\r\ncontent-length: {}\r\n\r\n{body}",
        gate.token,
        body.len()
    );
    let mut stream = tokio::net::TcpStream::connect(gate.address).await.expect("it listens");
    stream.write_all(request.as_bytes()).await.expect("it is sent");
    gate.publications.changed().await.expect("it is published");
    drop(stream);
    gate.put("/v1/services/b", service("b.example")).await.is(201);
    assert_eq!(gate.publications.borrow().revision, 2);
    gate.get("/v1/services/a").await.is(200);
}

#[tokio::test]
async fn what_cannot_be_used_is_found_before_anything_is_made() {
    use std::os::unix::fs::PermissionsExt;
    let short = |settings: &mut tidegate_admin::Settings| settings.key = Some(Secret::from("c2hvcnQ=".to_owned()));
    let exposed = |directory: &Path, name: &str| {
        let path = directory.join(name);
        std::fs::write(&path, [7; 32]).expect("a key is written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).expect("permissions");
    };
    let fresh = || TempDir::new().expect("a directory");
    let directory = fresh();
    let mut with_short = settings(directory.path());
    short(&mut with_short);
    let error = open(with_short).await.err().expect("it does not start");
    assert!(matches!(error, StartError::KeyForm { .. }), "{error}");
    assert!(contents(directory.path()).is_empty(), "nothing was made");
    for name in ["tidegate.key", "token.key"] {
        let directory = fresh();
        exposed(directory.path(), name);
        let before = contents(directory.path());
        let error = refused(directory.path()).await;
        assert!(matches!(error, StartError::KeyExposed { .. }) && error.to_string().contains(name), "{error}");
        assert!(contents(directory.path()) == before, "{name}: nothing was made");
    }
    let directory = fresh();
    std::fs::write(directory.path().join("exchanges.db"), "this is a letter to the editor").expect("it is written");
    let before = contents(directory.path());
    let error = refused(directory.path()).await;
    assert!(matches!(error, StartError::DatabaseDamaged { .. }) && error.to_string().contains("exchanges.db"), "{error}");
    assert!(contents(directory.path()) == before, "nothing was made");
    let error = refused(&directory.path().join("exchanges.db")).await;
    assert!(matches!(error, StartError::DataDirectory { .. }), "{error}");
}

#[tokio::test]
async fn damage_inside_the_records_does_not_keep_the_gateway_from_starting() {
    let directory = used().await;
    let path = directory.path().join("exchanges.db");
    let mut bytes = std::fs::read(&path).expect("the records");
    let page = 16_384;
    let last = bytes.len() - page;
    assert!(last >= page, "there is a page beside the schema's");
    bytes[last..].fill(0xa5);
    std::fs::write(&path, bytes).expect("it is damaged");
    let gate = Gate::start_in(directory, |_| {}).await;
    gate.get("/v1/services/a").await.is(200);
}

/// A small file system of its own; unmounted when dropped.
struct Disk(TempDir);

impl Disk {
    /// `None` where this process may not mount.
    fn mount(size: &str) -> Option<Self> {
        let at = TempDir::new().expect("a directory");
        let options = format!("size={size},mode=0700");
        let mounted = std::process::Command::new("mount").args(["-t", "tmpfs", "-o", &options, "none"]).arg(at.path()).output();
        mounted.is_ok_and(|output| output.status.success()).then_some(Self(at))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Where it fails the mount outlives the test, which then has said why already.
        std::process::Command::new("umount").arg("-l").arg(self.0.path()).status().ok();
    }
}

#[tokio::test]
async fn a_full_disk_refuses_changes_and_leaves_nothing_half_done() {
    let Some(disk) = Disk::mount("4m") else {
        eprintln!("SKIPPED a_full_disk_refuses_changes: mounting a file system needs privileges that this process lacks");
        return;
    };
    let inside = TempDir::new_in(disk.0.path()).expect("a directory");
    let gate = Gate::start_in(inside, |_| {}).await;
    gate.put("/v1/services/first", service("first.example")).await.is(201);
    let revision = gate.publications.borrow().revision;
    let filler = disk.0.path().join("filler");
    let mut file = std::fs::File::create(&filler).expect("a file");
    while std::io::Write::write_all(&mut file, &[0; 4096]).is_ok() {}
    // Larger than what a log that was written before may hold without growing.
    let hosts: Vec<_> = (0..20_000).map(|number| format!("h{number}.example")).collect();
    let large = json!({"hosts": hosts, "ports": [{"number": 443, "protocol": "https"}]});
    let refused = gate.put("/v1/services/second", large).await.is(507);
    assert!(refused.head.contains("application/problem+json") && refused.text.contains("free some space"), "{}", refused.text);
    gate.get("/v1/services/second").await.is(404);
    gate.get("/v1/services/first").await.is(200);
    assert_eq!(gate.publications.borrow().revision, revision, "nothing was put in force");
    // An open file keeps its space.
    drop(file);
    std::fs::remove_file(&filler).expect("space is freed");
    gate.put("/v1/services/second", service("second.example")).await.is(201);
    assert!(gate.publications.borrow().snapshot.service("second").is_some());
    drop(gate.stop().await);
}
