//! The core is pure: no file, socket, clock, thread, database or runtime is within its reach.

use std::path::Path;

const BANNED: [&str; 17] = [
    "std::fs",
    "File::",
    "std::process",
    "std::thread",
    "std::env",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "UnixStream",
    "ToSocketAddrs",
    "SystemTime::now",
    "Instant::now",
    "tokio",
    "sqlx",
    "hyper",
    "rustls",
    "async fn",
];

#[test]
fn no_source_reaches_outside() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = vec![root.join("src")];
    let mut read = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("the crate's own folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            read += 1;
            let text = std::fs::read_to_string(&path).expect("a source file");
            for banned in BANNED {
                assert!(!text.contains(banned), "{} uses {banned}", path.display());
            }
            assert!(text.lines().count() <= 500, "{} is longer than 500 lines: split it", path.display());
            assert!(text.starts_with("//!"), "{} does not say what it owns", path.display());
        }
    }
    assert!(read > 20, "only {read} sources were found");
}

#[test]
fn the_dependencies_are_these_and_no_others() {
    let manifest = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).expect("the manifest");
    let (_, dependencies) = manifest.split_once("[dependencies]").expect("its dependencies");
    let names: Vec<&str> = dependencies
        .lines()
        .take_while(|line| !line.starts_with('['))
        .filter_map(|line| line.split(['.', ' ', '=']).next().filter(|name| !matches!(*name, "" | "#")))
        .collect();
    assert_eq!(names, ["foldhash", "http", "idna", "ipnet", "serde", "serde_json", "utoipa", "zeroize"]);
}
