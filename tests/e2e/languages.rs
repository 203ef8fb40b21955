//! Filters in other languages: the templates are built with the commands of their READMEs, uploaded and run. `make languages`
//! installs what builds them; where that is missing, a test says so and passes.

use http::HeaderValue;
use serde_json::json;
use std::{os::unix::fs::symlink, path::PathBuf};
use tempfile::TempDir;
use tidegate_tests::{
    Options, World,
    api::{Api, Speaks},
    gateway::{self, build_directory},
    until,
    world::POD_PRINCIPAL,
};
use tokio::process::Command;

/// A language: its template's folder, what `make languages` installs for it, what a project calls that, and the commands that
/// test and build a project.
struct Language {
    template: &'static str,
    installed: &'static str,
    linked: &'static str,
    commands: [&'static str; 2],
    /// The template's filter, and another in its place, which keeps a header of each exchange.
    filter: &'static str,
    keeper: &'static str,
}

const JAVASCRIPT: Language = Language {
    template: "js",
    installed: "js/node_modules",
    linked: "node_modules",
    commands: ["npm test", "npm run build"],
    filter: "src/filter.js",
    keeper: include_str!("../keeper/filter.js"),
};

const PYTHON: Language = Language {
    template: "python",
    installed: "python",
    linked: ".venv",
    commands: [
        ".venv/bin/python -m unittest",
        ".venv/bin/componentize-py -d wit -w filter componentize --stub-wasi app -o require-team.wasm",
    ],
    filter: "app.py",
    keeper: include_str!("../keeper/app.py"),
};

/// A project, removed with the folder that it is in.
struct Project(TempDir);

impl Project {
    fn path(&self) -> PathBuf {
        self.0.path().join(NAME)
    }
}

/// What the projects are called.
const NAME: &str = "require-team";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_template_in_javascript_works() {
    if let Some(project) = JAVASCRIPT.project() {
        JAVASCRIPT.build(&project).await;
        works(&project, World::start_with(patient()).await).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_template_in_python_works() {
    if let Some(project) = PYTHON.project() {
        PYTHON.build(&project).await;
        works(&project, World::start_with(patient()).await).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exchanges_on_one_instance_in_javascript_do_not_see_each_other() {
    JAVASCRIPT.keeps_exchanges_apart().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exchanges_on_one_instance_in_python_do_not_see_each_other() {
    PYTHON.keeps_exchanges_apart().await;
}

/// The defaults, but for the time of compiling: a debug build, and other tests beside this one, need several times as much.
fn patient() -> Options {
    Options::default().flag("--filter-compile-timeout", "4m")
}

impl Language {
    /// A new project in this language; none where it cannot be built here.
    fn project(&self) -> Option<Project> {
        let target = build_directory().parent().expect("a profile's folder lies in the target folder").join("languages");
        // Written last, so that half an installation is none.
        if !target.join(self.template).join("pins").exists() {
            use std::io::Write;
            let what = self.template;
            let _: std::io::Result<()> = writeln!(
                std::io::stderr().lock(),
                "SKIPPED: what builds filters in {what} is missing; make languages installs it"
            );
            return None;
        }
        let folder = tempfile::tempdir().expect("a temporary directory can be made");
        let within = folder.path().to_string_lossy();
        let (status, out, err) = gateway::run(&["filter", "new", NAME, "--lang", self.template, "--in", &within]);
        assert!(status.success(), "{out}\n{err}");
        let project = Project(folder);
        symlink(target.join(self.installed), project.path().join(self.linked)).expect("a link can be made");
        Some(project)
    }

    async fn build(&self, project: &Project) {
        let readme = std::fs::read_to_string(project.path().join("README.md")).expect("a template has a README");
        for command in self.commands {
            assert!(readme.contains(command), "the README does not say {command:?}:\n{readme}");
            let output = Command::new("sh").args(["-c", command]).current_dir(project.path()).output().await;
            let output = output.expect("a shell starts");
            let said = [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
            assert!(output.status.success(), "{command}: {said}");
        }
    }
}

impl Language {
    /// Two exchanges are open at once on the only instance there is. Each gets back what was kept of it.
    async fn keeps_exchanges_apart(&self) {
        let Some(project) = self.project() else { return };
        std::fs::write(project.path().join(self.filter), self.keeper).expect("the project is there");
        self.build(&project).await;
        let options = Options { workers: 1, ..patient() }.flag("--filter-memory-bytes", 128 << 20);
        let world = World::start_with(options).await;
        let api = Api::start(Speaks::Http1).await;
        world.open_plain("api", "api.example.com", api.address).await;
        upload(&project, &world).await;
        world.rest.register("routes", "api", &json!({"service": "api", "filters": [{"plugin": NAME}]})).await;
        world.in_force().await;
        let mut teams = Vec::new();
        for (number, team) in ["checkout", "billing"].into_iter().enumerate() {
            let mut pod = world.pod().await;
            pod.send(format!("GET http://api.example.com/gate HTTP/1.1\r\nHost: api.example.com\r\nX-Team: {team}\r\n\r\n"))
                .await;
            until("the request to wait at the API", async || (api.waiting() == number + 1).then_some(())).await;
            teams.push((team, pod));
        }
        assert_eq!(world.gateway.metric("tidegate_filter_instances", "").await, 1.0, "they share it");
        for (seen, (team, _)) in api.seen().iter().zip(&teams) {
            assert_eq!(
                (&seen.headers["x-team"], &seen.headers["x-checked"]),
                (&HeaderValue::from_static(team), &HeaderValue::from_static(team))
            );
        }
        api.open_gate();
        let mut open = Vec::new();
        for (team, mut pod) in teams {
            let reply = pod.reply().await;
            assert_eq!((reply.status, reply.header("x-kept")), (200, Some(team)), "{reply:?}");
            open.push(reply.header("x-open").map(str::to_owned));
        }
        assert!(open.contains(&Some("2".to_owned())), "one of them was answered while the other was open, too: {open:?}");
    }
}

/// Whether the filter that was built in `project` does what its README says, on a real gateway.
async fn works(project: &Project, world: World) {
    let api = Api::start(Speaks::Http1).await;
    world.open_plain("api", "api.example.com", api.address).await;
    upload(project, &world).await;
    let plugin = world.rest.get(&format!("/v1/plugins/{NAME}")).await.json();
    let imports = plugin["document"]["imports"].as_array().unwrap_or_else(|| panic!("no imports: {plugin}"));
    let foreign: Vec<_> =
        imports.iter().filter(|name| !name.as_str().is_some_and(|name| name.starts_with("tidegate:"))).collect();
    assert!(!imports.is_empty() && foreign.is_empty(), "{plugin}");

    for (config, said) in [
        (json!({}), "/header: the name of a header is needed"),
        (json!({"header": "x-team", "colour": "blue"}), "/colour: unknown field; there are header, values"),
    ] {
        let route = json!({"service": "api", "filters": [{"plugin": NAME, "config": config}]});
        let refused = world.rest.put("/v1/routes/api", &route).await;
        assert_eq!(refused.status, 422, "{config}: {}", refused.text());
        let mistake = &refused.json()["mistakes"][0];
        assert_eq!(mistake["pointer"], "/filters/0/config", "{config}: {mistake}");
        assert!(mistake["detail"].as_str().is_some_and(|detail| detail.contains(said)), "{config}: {mistake}");
    }

    let config = json!({"header": "x-team", "values": ["checkout", "billing"]});
    let route = json!({"service": "api", "filters": [{"plugin": NAME, "config": config}]});
    world.rest.register("routes", "api", &route).await;
    world.in_force().await;
    let send = async |path: &str, header: &str| {
        let url = format!("http://api.example.com{path}");
        world.pod().await.get(&url, "api.example.com", header).await
    };
    let reply = send("/allowed", "X-Team: checkout\r\n").await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(api.seen().last().expect("it went through").headers["x-checked-by"], NAME);
    for (path, header, said) in [
        ("/without", "", "the header x-team is missing\n"),
        ("/unlisted", "X-Team: nobody\r\n", "the header x-team has a value that is not listed\n"),
    ] {
        let reply = send(path, header).await;
        assert_eq!((reply.status, reply.text().as_str()), (403, said), "{path}: {reply:?}");
        assert_eq!(reply.reason(), "filter_denied", "{path}: {reply:?}");
    }
    assert_eq!(api.seen().len(), 1, "what is refused does not get through");
    for (path, outcome, value) in
        [("/allowed", "allowed", "checkout"), ("/without", "denied", ""), ("/unlisted", "denied", "nobody")]
    {
        let record = world.rest.record_to(path).await;
        let events = record["filters"][0]["events"].as_array().unwrap_or_else(|| panic!("no events: {record}"));
        assert_eq!(events.len(), 1, "{record}");
        assert_eq!((&events[0]["kind"], &events[0]["outcome"]), (&json!(NAME), &json!(outcome)), "{record}");
        let fields = &events[0]["fields"];
        assert_eq!((&fields["value"], &fields["principal"]), (&json!(value), &json!(POD_PRINCIPAL)), "{record}");
    }
}

/// Uploads it with curl, as the READMEs do: the harness's own client does not wait as long as a large module may take.
async fn upload(project: &Project, world: &World) {
    let url = format!("http://{}/v1/plugins/{NAME}", world.rest.address);
    let output = Command::new("curl")
        .args(["--fail-with-body", "--silent", "--show-error", "--max-time", "280", "--data-binary", &format!("@{NAME}.wasm")])
        .args(["-H", &format!("Authorization: Bearer {}", world.rest.token()), &url])
        .current_dir(project.path())
        .output();
    let output = output.await.expect("curl starts; make setup installs it");
    let said = [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
    assert!(output.status.success(), "{said}");
}
