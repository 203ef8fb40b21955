//! `tidegate filter push`: uploads a module to a running gateway, and says which routes run it.

use super::{USAGE, complain, json, module, path_of, read_module, say, text_of};
use anyhow::{Context, anyhow, bail};
use bytes::Bytes;
use clap::{Arg, ArgMatches, Command, value_parser};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::{path::PathBuf, process::ExitCode, time::Duration};
use tidegate_policy::Name;

/// Longest wait for an answer: a gateway takes 30 s at most to compile a module, and may be told to take minutes for those
/// that bring an interpreter.
const PATIENCE: Duration = Duration::from_secs(300);
/// Most bytes of an answer; a page of routes is the largest.
const ANSWER_BYTES: usize = 64 << 20;

pub(super) fn command() -> Command {
    Command::new("push")
        .about("Uploads a module to a gateway")
        .arg(module())
        .arg(Arg::new("name").long("name").value_name("NAME").required(true).help("The plugin's name"))
        .arg(Arg::new("url").long("url").value_name("URL").default_value("http://127.0.0.1:7070").help("The REST API"))
        .arg(
            Arg::new("token-file")
                .long("token-file")
                .value_name("FILE")
                .value_parser(value_parser!(PathBuf))
                .default_value("data/admin.token")
                .help("A file that holds a token of role editor or admin"),
        )
        .arg(json())
}

pub(super) fn push(given: &ArgMatches) -> ExitCode {
    let (bytes, gateway, name) = match (read_module(given), Gateway::of(given), text_of(given, "name").parse::<Name>()) {
        (Ok(bytes), Ok(gateway), Ok(name)) => (bytes, gateway, name),
        (bytes, gateway, name) => {
            let mistakes = [bytes.err(), gateway.err(), name.err().map(|error| format!("--name: {error}"))];
            for mistake in mistakes.into_iter().flatten() {
                complain(&mistake);
            }
            return ExitCode::from(USAGE);
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return complain(&format!("the upload could not be started: {error}")),
    };
    match runtime.block_on(gateway.push(&name, bytes)) {
        Ok(Pushed { answer, users }) if given.get_flag("json") => say(&json!({"plugin": answer, "used_by": users}).to_string()),
        Ok(Pushed { answer, users }) => {
            let digest = answer["document"]["digest"].as_str().unwrap_or_default();
            let revision = &answer["revision"];
            let users = match users.as_slice() {
                [] => "no route runs it yet: name it in a route's filters".to_owned(),
                users => format!("run by the routes {}", users.join(", ")),
            };
            say(&format!("{name} is at revision {revision}\nsha256  {digest}\n{users}"))
        }
        Err(error) => complain(&format!("{error:#}")),
    }
}

/// A gateway's REST API.
struct Gateway {
    /// Host and port.
    authority: String,
    token: String,
}

struct Pushed {
    /// The plugin as the gateway has it now.
    answer: Value,
    /// The routes that run it.
    users: Vec<String>,
}

impl Gateway {
    fn of(given: &ArgMatches) -> Result<Self, String> {
        let url: hyper::Uri = text_of(given, "url").parse().map_err(|error| format!("--url: it is not a URL: {error}"))?;
        let authority = url.authority().filter(|_| url.scheme_str() == Some("http")).ok_or(
            "--url: give it as http://HOST:PORT; the API speaks plain HTTP on loopback, so reach one elsewhere through a tunnel of yours",
        )?;
        let authority = if authority.port().is_some() { authority.to_string() } else { format!("{authority}:80") };
        let path = path_of(given, "token-file");
        let token = std::fs::read_to_string(&path).map_err(|error| {
            format!(
                "--token-file: {} cannot be read: {error}; `tidegate serve` writes admin.token into its data directory",
                path.display()
            )
        })?;
        Ok(Self { authority, token: token.trim().to_owned() })
    }

    async fn push(&self, name: &Name, bytes: Vec<u8>) -> anyhow::Result<Pushed> {
        let answer = self.ask("POST", &format!("/v1/plugins/{name}"), bytes.into()).await?;
        let users = self.users(name).await.context("it is uploaded, and the routes that run it could not be read")?;
        Ok(Pushed { answer, users })
    }

    /// The routes that run the plugin.
    async fn users(&self, name: &Name) -> anyhow::Result<Vec<String>> {
        let mut users = Vec::new();
        let mut path = "/v1/routes?limit=500".to_owned();
        loop {
            let page = self.ask("GET", &path, Bytes::new()).await?;
            let runs = |route: &&Value| {
                let filters = route["document"]["filters"].as_array();
                filters.is_some_and(|filters| filters.iter().any(|filter| filter["plugin"] == name.as_str()))
            };
            let routes = page["items"].as_array().context("the gateway answers something that is no list of routes")?;
            users.extend(routes.iter().filter(runs).filter_map(|route| Some(route["name"].as_str()?.to_owned())));
            match page["next"].as_str() {
                Some(next) => path = format!("/v1/routes?limit=500&cursor={next}"),
                None => return Ok(users),
            }
        }
    }

    /// One call, over a connection of its own; an error says what the gateway said.
    async fn ask(&self, method: &str, path: &str, body: Bytes) -> anyhow::Result<Value> {
        let call = tokio::time::timeout(PATIENCE, self.call(method, path, body)).await;
        let (status, body) = call.map_err(|_| anyhow!("{} does not answer", self.authority))??;
        if status.is_success() {
            return serde_json::from_slice(&body).context("the gateway answers something that is no JSON");
        }
        match serde_json::from_slice::<Value>(&body) {
            Ok(problem) => bail!("{}", told(status, &problem)),
            Err(_) => bail!("{} answers {status}: is that the REST API?", self.authority),
        }
    }

    async fn call(&self, method: &str, path: &str, body: Bytes) -> anyhow::Result<(hyper::StatusCode, Bytes)> {
        let connected = tokio::net::TcpStream::connect(&self.authority).await;
        let stream = connected.with_context(|| format!("no gateway at http://{} (--url)", self.authority))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let request = hyper::Request::builder()
            .method(method)
            .uri(path)
            .header("host", &self.authority)
            .header("authorization", format!("Bearer {}", self.token))
            .header("content-type", "application/wasm")
            .body(Full::new(body))
            .context("the token cannot be sent: is --token-file a token's?")?;
        let exchange = async move {
            let response = sender.send_request(request).await?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_BYTES).collect().await.map_err(|error| anyhow!(error))?;
            anyhow::Ok((status, body.to_bytes()))
        };
        // The connection carries this one call, and ends with it.
        let connection = async {
            let ended = connection.await;
            ended.map_err(anyhow::Error::from)?;
            std::future::pending::<anyhow::Result<(hyper::StatusCode, Bytes)>>().await
        };
        tokio::select! {
            answered = exchange => answered,
            broken = connection => broken,
        }
    }
}

/// A problem as the API tells it, with every mistake.
fn told(status: hyper::StatusCode, problem: &Value) -> String {
    let text = |value: &Value, name: &str| value[name].as_str().unwrap_or_default().to_owned();
    let mistakes = problem["mistakes"].as_array().into_iter().flatten().map(|mistake| {
        match (text(mistake, "pointer"), text(mistake, "detail")) {
            (pointer, detail) if pointer.is_empty() => format!("\n  {detail}"),
            (pointer, detail) => format!("\n  {pointer}: {detail}"),
        }
    });
    format!("the gateway refuses it with {status}: {}{}", text(problem, "detail"), mistakes.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mistake_is_told() {
        let problem =
            json!({"detail": "two mistakes", "mistakes": [{"pointer": "", "detail": "a"}, {"pointer": "/x", "detail": "b"}]});
        let told = told(hyper::StatusCode::UNPROCESSABLE_ENTITY, &problem);
        assert!(told.ends_with("two mistakes\n  a\n  /x: b"), "{told}");
    }
}
