//! A healthy route in bad company: several workers, more than there are cores, each of which runs both.

use crate::setting::{Flow, Run, Stage, request, response};
use serde_json::{Value, json};
use std::{collections::BTreeMap, sync::atomic::Ordering, time::Duration};
use tidegate_gateway::filter::{Chains, Facts, Instances, Limits};

/// How the filters of the hostile routes misbehave.
const MODES: [&str; 4] = ["trap", "loop", "memory", "stack"];
/// Workers; they fight for the cores, so that each loses its own again and again.
const WORKERS: usize = 8;
/// Healthy exchanges of each worker, each of which is open while a hostile one runs.
const ROUNDS: usize = 100;

/// What the exchanges of one worker run on.
struct Worker<'a> {
    chains: &'a Chains,
    facts: &'a BTreeMap<&'a str, Facts<'a>>,
    instances: Instances,
}

impl Worker<'_> {
    fn begin(&self, route: &str) -> Run {
        Run(self.instances.begin(self.chains, self.facts[route]).expect("a chain").expect("filters that start"))
    }

    /// Runs healthy exchanges, each around a hostile one; how many of those ran out of time.
    fn work(&self) -> u64 {
        let mut timeouts = 0;
        for round in 0..ROUNDS {
            let mut healthy = self.begin("healthy");
            let mut head = request(&[]);
            assert!(matches!(healthy.on_request(&mut head), Ok(Flow::Continue)), "{:?}", healthy.close());
            assert_eq!(head.headers["x-stamp"], "stamped");

            let mut hostile = self.begin(MODES[round % MODES.len()]);
            assert!(hostile.on_request(&mut request(&[])).is_err());
            let error = hostile.close().remove(0).error.expect("a reason");
            timeouts += u64::from(error.starts_with("it ran for longer"));

            assert!(matches!(healthy.on_response(&mut response()), Ok(Flow::Continue)), "{:?}", healthy.close());
            let facts = healthy.close();
            assert!(facts.iter().all(|facts| facts.outcome == "continued" && facts.error.is_none()), "{facts:?}");
            assert_eq!(facts[1].events.len(), 1, "{facts:?}");
        }
        timeouts
    }
}

#[test]
fn a_healthy_route_loses_nothing_and_only_loops_run_out_of_time() {
    let hostile = |mode: &str| json!([{"plugin": "hostile", "config": {"at": "request", "mode": mode}}]);
    let healthy = json!([{"plugin": "stamp"}, {"plugin": "audit"}]);
    let routes: Vec<(&str, Value)> = MODES.iter().map(|mode| (*mode, hostile(mode))).chain([("healthy", healthy)]).collect();
    // So little time that a wait for a core is longer than the whole of it: waiting must not count.
    let limits = Limits { callback: Duration::from_millis(20), memory_bytes: 8 << 20, ..Limits::default() };
    let stage = Stage::routes(limits, &routes);
    let facts: BTreeMap<_, _> = routes.iter().map(|(route, _)| (*route, stage.facts(route))).collect();
    let (chains, facts) = (&stage.chains, &facts);
    let timeouts = std::sync::atomic::AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                let worker = Worker { chains, facts, instances: Instances::default() };
                timeouts.fetch_add(worker.work(), Ordering::Relaxed);
            });
        }
    });
    let timeouts = timeouts.into_inner();
    assert!(timeouts >= WORKERS as u64, "{timeouts}");
    assert_eq!(stage.host.metrics().timeouts.value(), timeouts, "no other filter ran out of time");
}
