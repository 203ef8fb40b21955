//! A sample external API over TLS, with an authority of its own: what the demonstration and `compose.yaml` send to.
//!
//! `sample-api --listen 0.0.0.0:8443 --name api.example.com --ca-file /shared/ca.pem [--address-file FILE]` makes an authority
//! and a certificate, writes the authority's certificate where it is told, and serves until it is stopped. Every path
//! answers a small JSON document; `POST /v1/charges` and `GET /healthz` are the ones that are used.

use anyhow::{Context, bail};
use std::{io::Write, path::Path};
use tidegate_tests::{
    api::{Api, Speaks},
    certificates::Authority,
};

struct Arguments {
    listen: String,
    name: String,
    ca_file: String,
    address_file: Option<String>,
}

fn arguments() -> anyhow::Result<Arguments> {
    let mut read = Arguments {
        listen: "127.0.0.1:8443".to_owned(),
        name: "api.example.com".to_owned(),
        ca_file: "ca.pem".to_owned(),
        address_file: None,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let value = words.next().with_context(|| format!("{word} needs a value"))?;
        match word.as_str() {
            "--listen" => read.listen = value,
            "--name" => read.name = value,
            "--ca-file" => read.ca_file = value,
            "--address-file" => read.address_file = Some(value),
            other => bail!("{other} is unknown: use --listen, --name, --ca-file and --address-file"),
        }
    }
    Ok(read)
}

/// Writes `text` to `path` in one step, so that whoever waits for the file never reads half of it.
fn publish(path: &str, text: &str) -> anyhow::Result<()> {
    let beside = format!("{path}.new");
    std::fs::write(&beside, text).with_context(|| format!("{beside} cannot be written"))?;
    std::fs::rename(&beside, Path::new(path)).with_context(|| format!("{path} cannot be written"))
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = arguments()?;
    let authority = Authority::new("Sample API");
    let leaf = authority.server(&[&arguments.name]);
    let api = Api::start_at(&arguments.listen, Speaks::Tls(leaf.server_config(&["h2", "http/1.1"]))).await;
    publish(&arguments.ca_file, &authority.pem())?;
    if let Some(file) = &arguments.address_file {
        publish(file, &api.address.to_string())?;
    }
    writeln!(std::io::stdout().lock(), "sample API for {} on https://{}", arguments.name, api.address)?;
    std::future::pending().await
}
