//! Clients that other people wrote. Where one is not installed the test says so and passes.

use std::{io::Write, process::Command};
use tidegate_tests::{World, world::POD};

/// Whether `program` is installed; says aloud when it is not.
fn installed(program: &str) -> bool {
    let found =
        Command::new("sh").args(["-c", &format!("command -v {program}")]).output().is_ok_and(|out| out.status.success());
    if !found {
        let _: std::io::Result<()> = writeln!(std::io::stderr().lock(), "SKIPPED: {program} is not installed");
    }
    found
}

fn run(program: &str, arguments: &[&str]) -> (bool, String) {
    let output = Command::new(program).args(arguments).output().expect("the client can be run");
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), text)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn curl_goes_through_in_every_form() {
    if !installed("curl") {
        return;
    }
    let world = World::start().await;
    let api = world.api("api.example.com").await;
    world.open("api", "api.example.com", api.address).await;
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, world.authority.pem()).expect("a file can be written");
    let (proxy, ca) = (format!("http://{}", world.gateway.addresses.proxy), ca.display().to_string());
    let common = ["-sS", "--max-time", "20", "--interface"];
    let pod = POD.to_string();
    let rows: [(&str, Vec<&str>); 4] = [
        ("absolute form", vec!["-x", &proxy, "http://api.example.com/v1/charges"]),
        ("CONNECT", vec!["-x", &proxy, "--cacert", &ca, "https://api.example.com/v1/charges"]),
        ("origin form", vec!["-H", "Host: api.example.com", &proxy]),
        ("HTTP/2", vec!["--http2-prior-knowledge", "-H", "Host: api.example.com", &proxy]),
    ];
    for (what, arguments) in rows {
        let mut all: Vec<&str> = common.to_vec();
        all.push(&pod);
        all.extend(arguments);
        let (ok, said) = tokio::task::spawn_blocking({
            let all: Vec<String> = all.iter().map(|&word| word.to_owned()).collect();
            move || run("curl", &all.iter().map(String::as_str).collect::<Vec<_>>())
        })
        .await
        .expect("curl runs");
        assert!(ok && said.contains("succeeded"), "{what}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h2load_finds_no_failure() {
    if !installed("h2load") {
        return;
    }
    let world = World::start().await;
    let api = world.api("api.example.com").await;
    world.open("api", "api.example.com", api.address).await;
    let url = format!("http://{}/v1/charges", world.gateway.addresses.proxy);
    let arguments = ["-n", "2000", "-c", "4", "-m", "20", "-H", ":authority: api.example.com", &url].map(str::to_owned);
    let (ok, said) = tokio::task::spawn_blocking(move || run("h2load", &arguments.each_ref().map(String::as_str)))
        .await
        .expect("h2load runs");
    assert!(ok && said.contains("2000 succeeded") && said.contains("2000 2xx"), "{said}");
}
