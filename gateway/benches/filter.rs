//! What filters cost: CPU time of one exchange through a chain of 1, 4 and 16 header filters (two callbacks and five host
//! calls each, besides the begin and the end), over an exchange without filters. Prints microseconds.
#![expect(clippy::unwrap_used, reason = "a measurement that cannot be made ends the program")]

#[expect(dead_code, reason = "the tests use more of it")]
#[path = "../tests/filter/setting.rs"]
mod setting;

use serde_json::{Value, json};
use setting::{Run, Stage, request, response};
use std::{hint::black_box, io::Write, time::Instant};

/// Exchanges per measurement, long enough that the clock does not count.
const BATCH: u32 = 2_000;
/// Measurements, of which the least disturbed one counts.
const BATCHES: u32 = 30;

fn main() {
    let mut out = std::io::stdout().lock();
    let bare = cheapest(|| {
        black_box((request(&[]), response()));
    });
    writeln!(out, "building both heads: {bare:.2} µs, taken off below").unwrap();
    for (name, plugin, config) in [("header filter", "stamp", Value::Null), ("audit", "audit", audit())] {
        for count in [1, 4, 16] {
            let link = json!({"plugin": plugin, "config": config});
            let stage = Stage::new((0..count).map(|_| link.clone()).collect());
            let spent = cheapest(|| stage.exchange_measured()) - bare;
            writeln!(out, "{name} × {count:2}: {spent:6.2} µs an exchange, {:5.2} µs a filter", spent / f64::from(count))
                .unwrap();
        }
    }
}

fn audit() -> Value {
    json!({"request_headers": ["x-tenant", "user-agent"], "response_headers": ["x-request-id"]})
}

impl Stage {
    fn exchange_measured(&self) {
        let facts = self.facts("api");
        let mut run = Run(self.instances.begin(&self.chains, facts).unwrap().unwrap());
        let requested = run.on_request(&mut request(&[])).is_ok();
        let responded = run.on_response(&mut response()).is_ok();
        let facts = black_box(run.close());
        assert!(requested && responded, "{facts:?}");
    }
}

/// Microseconds of the cheapest batch, per call.
fn cheapest(mut exchange: impl FnMut()) -> f64 {
    let batch = |exchange: &mut dyn FnMut()| {
        let begun = Instant::now();
        for _ in 0..BATCH {
            exchange();
        }
        begun.elapsed().as_secs_f64() * 1e6 / f64::from(BATCH)
    };
    (0..BATCHES).map(|_| batch(&mut exchange)).fold(f64::INFINITY, f64::min)
}
