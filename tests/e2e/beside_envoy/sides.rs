//! The two sides: a real Envoy, and the gateway, each with the same modules at the same places before the same servers.

use super::{
    outcome::{Outcome, outcome},
    shape::{Likeness, Shape},
};
use serde_json::{Value, json};
use std::{collections::BTreeSet, fmt::Write as _, net::SocketAddr, path::PathBuf};
use tidegate_tests::{
    Options, World,
    api::{Api, Speaks},
    envoy::{self, Cluster, Envoy, HELD_BYTES, OnHeadersStop, Place},
    harbour::Harbour,
    plugins,
    world::{plain_service, with},
};

/// Both sides, and what stands behind them.
pub(super) struct Sides {
    program: PathBuf,
    places: Vec<Place>,
    clusters: [Cluster; 3],
    envoy: Envoy,
    world: World,
    api: Api,
    #[expect(dead_code, reason = "it serves until it is dropped")]
    harbour: Harbour,
}

/// The place `name` with the filter `shapes`, as most shapes need it.
pub(super) fn place(name: &'static str) -> Place {
    let module = plugins::proxy_wasm("shapes");
    Place {
        name,
        module,
        configuration: "the filter's own",
        upstream: None,
        behind: &[],
        fails_open: false,
        on_headers_stop: OnHeadersStop::StopAll,
    }
}

impl Sides {
    /// Both sides with these places; nothing where there is no Envoy.
    pub(super) async fn start(places: &[Place]) -> Option<Self> {
        let program = envoy::installed()?;
        let (api, harbour) = (Api::start(Speaks::Http1).await, Harbour::start().await);
        let cluster = |name, address, version| Cluster { name, address, version };
        let clusters = [
            cluster("api", api.address, http::Version::HTTP_11),
            cluster("harbour", harbour.address, http::Version::HTTP_2),
            cluster("down", closed().await, http::Version::HTTP_11),
        ];
        let envoy = Envoy::start(&program, places, &clusters).await;
        let world = registered(places, &clusters).await;
        Some(Self { program, places: places.to_vec(), clusters, envoy, world, api, harbour })
    }

    /// Sends every shape to both, and fails where they differ otherwise than it says.
    pub(super) async fn compare(&mut self, group: &str, shapes: &[Shape]) {
        let mut table = format!("# {group}\n");
        let mut mistakes = String::new();
        for shape in shapes {
            let there = outcome(shape, self.envoy.address(shape.place), &self.api).await;
            if there.notes.iter().any(|note| note == super::outcome::NEVER_NOTED) {
                // A machine that trapped is dead for good there, and so may the whole process be.
                self.envoy = Envoy::start(&self.program, &self.places, &self.clusters).await;
            }
            let here = outcome(shape, self.world.gateway.addresses.proxy, &self.api).await;
            if let Some(mistake) = mistake(shape, &there, &here) {
                writeln!(mistakes, "\n{shape}\n{mistake}\n-- Envoy\n{there}-- the gateway\n{here}").expect("a text takes more");
            }
            writeln!(table, "\n## {shape}\n\n```\n{there}```").expect("a text takes more");
        }
        report(group, &table);
        assert!(mistakes.is_empty(), "{mistakes}");
    }
}

/// What is wrong with the two outcomes of a shape, if anything is.
fn mistake(shape: &Shape, there: &Outcome, here: &Outcome) -> Option<String> {
    match shape.likeness {
        Likeness::Alike => (there != here).then(|| "they differ".to_owned()),
        Likeness::AlikeToTheCaller => {
            let alike = there.answer == here.answer && there.notes == here.notes;
            (!alike).then(|| "they differ, whatever the upstream saw".to_owned())
        }
        Likeness::Unlike { because, here: own } => {
            let (there, here) = (there.to_string(), here.to_string());
            let has =
                |outcome: &str, line: &str| outcome.lines().any(|other| other.split_whitespace().eq(line.split_whitespace()));
            let wrong = own.iter().find(|line| has(&there, line) || !has(&here, line));
            wrong.map(|line| format!("the gateway alone should have the line {line:?}, because {because}"))
        }
    }
}

/// A gateway that knows the clusters as services, and each place as a service with a route that the module is on.
async fn registered(places: &[Place], clusters: &[Cluster]) -> World {
    let options = Options { workers: 1, ..Options::default() }.flag("--filter-body-bytes", HELD_BYTES);
    let world = World::start_with(options).await;
    for cluster in clusters {
        register(&world, cluster.name, cluster).await;
    }
    let modules: BTreeSet<_> = places.iter().map(|place| &place.module).collect();
    for module in modules {
        let bytes = std::fs::read(module).unwrap_or_else(|error| panic!("{}: {error}", module.display()));
        let uploaded = world.rest.upload(&plugin(module), bytes).await;
        assert!(matches!(uploaded.status, 200 | 201), "{}: {}", module.display(), uploaded.text());
    }
    for place in places {
        let upstream = clusters.iter().find(|cluster| Some(cluster.name) == place.upstream).unwrap_or(&clusters[0]);
        register(&world, place.name, upstream).await;
        world.rest.register("routes", place.name, &route(place)).await;
    }
    world.in_force().await;
    world
}

async fn register(world: &World, name: &str, cluster: &Cluster) {
    let service = plain_service(&format!("{name}.example.com"), cluster.address);
    let protocol = if cluster.version == http::Version::HTTP_2 { "http2" } else { "http" };
    world.rest.register("services", name, &with(service, "/ports/0/protocol", protocol.into())).await;
    world.allow(name).await;
}

fn plugin(module: &std::path::Path) -> String {
    module.file_stem().expect("a module has a name").to_string_lossy().into_owned()
}

fn route(place: &Place) -> Value {
    let filters = place.configurations().map(|configuration| {
        json!({
            "plugin": plugin(&place.module),
            "root_id": "shapes",
            "vm_id": place.name,
            "vm_config": "of the machine",
            "environment": {"TIDE": "ebb"},
            "config": configuration,
            "on_error": if place.fails_open { "skip" } else { "deny" },
            "allow_on_headers_stop_iteration": place.on_headers_stop == OnHeadersStop::GoOn,
            "grants": {"paths": ["/*"]},
        })
    });
    json!({"service": place.name, "filters": filters.collect::<Vec<_>>()})
}

/// An address at which nobody listens.
async fn closed() -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a loopback port can be bound");
    listener.local_addr().expect("a bound socket has an address")
}

/// Leaves `table` beside the built programs, for whoever looks up what Envoy does.
fn report(group: &str, table: &str) {
    let folder: PathBuf = tidegate_tests::gateway::build_directory().join("beside-envoy");
    std::fs::create_dir_all(&folder).expect("a folder beside the programs can be made");
    std::fs::write(folder.join(format!("{group}.md")), table).expect("a file beside the programs can be written");
}
