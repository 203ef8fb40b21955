//! What becomes of filters that take their time when a publication with many of them comes.

use crate::{
    setting::{Stage, module},
    written::smallest,
};
use serde_json::{Value, json};
use std::{collections::BTreeMap, time::Duration};
use tidegate_gateway::filter::Limits;
use tidegate_policy::Reason;

#[test]
fn filters_that_take_their_time_do_not_hold_up_all_routes() {
    let cores = std::thread::available_parallelism().unwrap().get();
    // A core tries at most six of them before the time for trials is over.
    let names: Vec<String> = (0..cores * 16).map(|number| format!("slow-{number}")).collect();
    let limits = Limits { configure: Duration::from_millis(100), ..Limits::default() };
    let mut stage = Stage::with(limits, json!([]));
    let endless = module(smallest("(loop $again br $again) unreachable").into());
    let modules =
        BTreeMap::from([("slow".parse().unwrap(), endless), ("well".parse().unwrap(), module(smallest("i32.const 0").into()))]);
    let slow = names.iter().map(|name| (name.as_str(), json!([{"plugin": "slow", "config": {"name": name}}])));
    let routes: Vec<(&str, Value)> = slow.chain([("api", json!([{"plugin": "well"}]))]).collect();
    stage.publish_modules(&routes, &modules);
    let tried = stage.host.metrics().timeouts.value();
    assert!((1..=cores as u64 * 6).contains(&tried), "{tried} of {}", names.len());
    assert_eq!(stage.host.metrics().compiled.value(), 2, "routes share what was compiled");
    assert!(stage.exchange().passed());
    for name in [&names[0], &names[names.len() - 1]] {
        let outcome = stage.exchange_on(name, &[]);
        assert_eq!(outcome.fault().reason(), Reason::FilterFailed, "tried or not, it cannot start: {outcome:?}");
    }
}
