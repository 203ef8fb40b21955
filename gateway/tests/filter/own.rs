//! Instances that exchanges have to themselves: how much memory they have together, and what becomes of exchanges for which there is
//! none.

use crate::{
    setting::{Flow, Run, Stage, filter, module, request, unhurried},
    written::{DONE, Parts, written},
};
use serde_json::{Value, json};
use std::{collections::BTreeMap, time::Duration};
use tidegate_gateway::{fault::Fault, filter::Limits};
use tidegate_policy::{Name, Reason, publication::Module};

fn stage(own_memory_bytes: usize, filters: Value) -> Stage {
    let plugins = ["stamp", "hostile", "courier"];
    let modules: BTreeMap<Name, Module> =
        plugins.into_iter().map(|plugin| (plugin.parse().unwrap(), module(filter(plugin)))).collect();
    let mut stage = Stage::empty(Limits { own_memory_bytes, ..unhurried() });
    stage.publish_modules(&[("api", filters)], &modules);
    stage
}

fn stamp(on_error: &str) -> Value {
    json!([{"plugin": "stamp", "isolation": "exchange", "on_error": on_error}])
}

/// Begins an exchange, and stays in it.
fn begun(stage: &Stage) -> Result<Run, Fault> {
    let mut run = stage.begin()?;
    let shown = run.on_request(&mut request(&[]));
    if let Err(fault) = shown {
        let facts = run.close();
        assert!(facts[0].outcome == "failed" && facts[0].error.is_some(), "the record names what ended it: {facts:?}");
        return Err(fault);
    }
    assert!(matches!(shown, Ok(Flow::Continue)), "{shown:?}");
    Ok(run)
}

/// What one instance takes.
fn of_one(filters: Value) -> usize {
    let stage = stage(usize::MAX, filters);
    let run = begun(&stage).unwrap();
    let bytes = stage.host.metrics().own_memory_bytes.value();
    drop(run.close());
    usize::try_from(bytes).unwrap()
}

fn is_overload(fault: &Fault) -> bool {
    fault.reason() == Reason::Overloaded && fault.status() == 503 && fault.to_string().contains("filter_own_memory_bytes")
}

#[test]
fn exchanges_together_have_only_so_much_memory() {
    for on_error in ["deny", "skip"] {
        let each = of_one(stamp(on_error));
        let stage = stage(each * 5 / 2, stamp(on_error));
        let metrics = stage.host.metrics();
        let own = || usize::try_from(metrics.own_memory_bytes.value()).unwrap();
        let one = begun(&stage).unwrap();
        let two = begun(&stage).unwrap();
        let refused = begun(&stage).unwrap_err();
        assert!(is_overload(&refused), "{on_error}: {refused:?}");
        assert_eq!((own(), metrics.own_memory_refused.value()), (each * 2, 1), "{on_error}");
        drop(one.close());
        assert_eq!(own(), each, "{on_error}");
        // There is room again at once: nothing has failed that others would have to wait for.
        let three = begun(&stage).unwrap();
        drop((two.close(), three.close()));
        assert_eq!((own(), metrics.failures.value()), (0, 0), "{on_error}");
    }
}

#[test]
fn one_that_outgrows_what_is_left_is_refused_and_is_no_failure() {
    let grows = |isolation: &str| {
        let config = json!({"at": "request", "mode": "memory"});
        json!([{"plugin": "hostile", "isolation": isolation, "config": config}])
    };
    let own = stage(8 << 20, grows("exchange"));
    for _ in 0..3 {
        let refused = begun(&own).unwrap_err();
        assert!(is_overload(&refused), "{refused:?}");
    }
    let metrics = own.host.metrics();
    assert_eq!((metrics.own_memory_bytes.value(), metrics.failures.value()), (0, 0));
    assert!(metrics.own_memory_refused.value() >= 3);
    // One that all exchanges share has its own limit, and so has each of the others.
    for stage in [stage(8 << 20, grows("shared")), stage(usize::MAX, grows("exchange"))] {
        assert_eq!(begun(&stage).unwrap_err().reason(), Reason::FilterFailed);
        assert_eq!(stage.host.metrics().own_memory_refused.value(), 0);
    }
}

/// Asks for two MiB, which are refused.
const OUTGROWS: &str = "(if (i32.ne (memory.grow (i32.const 32)) (i32.const -1)) (then unreachable))";

/// A route with one such filter, each of whose exchanges has an instance, and little memory for them.
fn outgrows(limits: Limits, parts: &Parts<'_>) -> Stage {
    let modules = BTreeMap::from([("outgrows".parse().unwrap(), module(written(parts).into()))]);
    let mut stage = Stage::empty(Limits { own_memory_bytes: 1 << 20, ..limits });
    stage.publish_modules(&[("api", json!([{"plugin": "outgrows", "isolation": "exchange"}]))], &modules);
    stage
}

#[test]
fn one_that_runs_out_of_time_as_well_has_failed() {
    let parts = Parts { open: &format!("{OUTGROWS} (loop (br 0)) {DONE}"), ..Parts::default() };
    let stage = outgrows(Limits { callback: Duration::from_millis(20), ..unhurried() }, &parts);
    let mut run = stage.begin().unwrap();
    let fault = run.on_request(&mut request(&[])).unwrap_err();
    let facts = run.close();
    let error = facts[0].error.as_deref().unwrap();
    assert_eq!((fault.reason(), facts[0].outcome.as_ref()), (Reason::FilterFailed, "failed"));
    assert!(error.starts_with("it ran for longer than 20 ms"), "{error}");
    let metrics = stage.host.metrics();
    assert_eq!((metrics.failures.value(), metrics.timeouts.value()), (1, 1));
    assert!(metrics.own_memory_refused.value() >= 1);
}

#[test]
fn a_refusal_is_one_although_there_was_no_memory_for_it() {
    // Where there is as much memory as it likes it takes its configuration; the text lies behind the result.
    let parts = Parts {
        configure: "(if (i32.eq (memory.grow (i32.const 32)) (i32.const -1)) (then
            (i32.store8 (i32.const 0) (i32.const 1))
            (i32.store (i32.const 4) (i32.const 16)) (i32.store (i32.const 8) (i32.const 4))
            (i32.store (i32.const 16) (i32.const 0x6c6c616d))))
            i32.const 0",
        ..Parts::default()
    };
    let stage = outgrows(unhurried(), &parts);
    let mut run = stage.begin().unwrap();
    let fault = run.on_request(&mut request(&[])).unwrap_err();
    let facts = run.close();
    assert_eq!((fault.reason(), facts[0].error.as_deref()), (Reason::FilterFailed, Some("mall")), "{fault:?}");
}

#[test]
fn those_that_wait_leave_half_of_it_to_others() {
    let courier = || json!([{"plugin": "courier", "config": {"at": "log", "calls": []}}]);
    let each = of_one(courier());
    for (own_memory_bytes, starts, waiting) in [(each * 2, 1, each), (each * 2 - 1, 3, 0)] {
        let stage = stage(own_memory_bytes, courier());
        let metrics = stage.host.metrics();
        let before = metrics.starts.value();
        for _ in 0..3 {
            drop(begun(&stage).unwrap().close());
        }
        assert_eq!(metrics.starts.value() - before, starts);
        assert_eq!(usize::try_from(metrics.own_memory_bytes.value()).unwrap(), waiting);
        assert_eq!(usize::try_from(metrics.own_memory_idle_bytes.value()).unwrap(), waiting);
    }
}

#[test]
fn those_that_wait_make_room() {
    let courier = || json!([{"plugin": "courier", "config": {"at": "log", "calls": []}}]);
    let (waits, works) = (of_one(courier()), of_one(stamp("deny")));
    // One that waits and one at work fit, and not a second one at work.
    let own_memory_bytes = (waits * 2).max(works * 2);
    assert!(own_memory_bytes < waits + works * 2);
    let modules = ["stamp", "courier"].map(|plugin| (plugin.parse().unwrap(), module(filter(plugin))));
    let mut stage = Stage::empty(Limits { own_memory_bytes, ..unhurried() });
    stage.publish_modules(&[("api", courier()), ("other", stamp("deny"))], &modules.into());
    drop(begun(&stage).unwrap().close());
    let metrics = stage.host.metrics();
    assert_eq!(usize::try_from(metrics.own_memory_idle_bytes.value()).unwrap(), waits);
    let mut at_work: Vec<_> = (0..2).map(|_| stage.begin_on("other").unwrap()).collect();
    for run in &mut at_work {
        assert!(matches!(run.on_request(&mut request(&[])), Ok(Flow::Continue)));
    }
    assert_eq!(metrics.own_memory_idle_bytes.value(), 0);
    assert_eq!(usize::try_from(metrics.own_memory_bytes.value()).unwrap(), works * 2);
    // What made room counts no longer as one that exists.
    at_work.into_iter().for_each(|run| drop(run.close()));
    drop(begun(&stage).unwrap().close());
    assert_eq!(usize::try_from(metrics.own_memory_idle_bytes.value()).unwrap(), waits);
}

#[test]
fn those_that_wait_make_no_more_room_than_is_needed() {
    let courier = || json!([{"plugin": "courier", "config": {"at": "log", "calls": []}}]);
    let (waits, works) = (of_one(courier()), of_one(stamp("deny")));
    // Two that wait are half of it at most, and one of them has to go for the last of those at work.
    let count = (waits * 3).div_ceil(works);
    let modules = ["stamp", "courier"].map(|plugin| (plugin.parse().unwrap(), module(filter(plugin))));
    let mut stage = Stage::empty(Limits { own_memory_bytes: works * count + waits, ..unhurried() });
    stage.publish_modules(&[("api", courier()), ("other", stamp("deny"))], &modules.into());
    let two = [begun(&stage).unwrap(), begun(&stage).unwrap()];
    two.into_iter().for_each(|run| drop(run.close()));
    let metrics = stage.host.metrics();
    assert_eq!(usize::try_from(metrics.own_memory_idle_bytes.value()).unwrap(), waits * 2);
    let mut at_work: Vec<_> = (0..count).map(|_| stage.begin_on("other").unwrap()).collect();
    for run in &mut at_work {
        assert!(matches!(run.on_request(&mut request(&[])), Ok(Flow::Continue)));
    }
    assert_eq!(usize::try_from(metrics.own_memory_idle_bytes.value()).unwrap(), waits, "one of them still waits");
    at_work.into_iter().for_each(|run| drop(run.close()));
}

#[test]
fn one_that_never_fits_leaves_those_that_wait_alone() {
    let courier = || json!([{"plugin": "courier", "config": {"at": "log", "calls": []}}]);
    let waits = of_one(courier());
    // As a start needs it, which a canary has, and no exchange.
    let parts = Parts {
        configure: "(drop (memory.grow (i32.const 256))) (i32.store8 (i32.const 0xffffff) (i32.const 0)) i32.const 0",
        ..Parts::default()
    };
    let modules = [("courier", filter("courier")), ("large", written(&parts).into())];
    let modules = modules.map(|(plugin, bytes)| (plugin.parse().unwrap(), module(bytes)));
    let large = json!([{"plugin": "large", "isolation": "exchange"}]);
    let mut stage = Stage::empty(Limits { own_memory_bytes: waits * 3, ..unhurried() });
    assert!(waits * 3 < 16 << 20);
    stage.publish_modules(&[("api", courier()), ("other", large)], &modules.into());
    drop(begun(&stage).unwrap().close());
    let metrics = stage.host.metrics();
    let mut run = stage.begin_on("other").unwrap();
    assert!(is_overload(&run.on_request(&mut request(&[])).unwrap_err()));
    drop(run.close());
    assert_eq!(usize::try_from(metrics.own_memory_idle_bytes.value()).unwrap(), waits);
}

#[test]
fn one_that_asks_bit_by_bit_is_made_room_for() {
    let courier = || json!([{"plugin": "courier", "config": {"at": "log", "calls": []}}]);
    let waits = of_one(courier());
    // Beyond what is free and what one of those that wait leaves.
    let pages = (waits * 3).div_ceil(64 << 10) + 1;
    let configure = format!(
        "(loop $again (if (i32.lt_u (memory.size) (i32.const {pages})) (then
            (if (i32.eq (memory.grow (i32.const 1)) (i32.const -1)) (then unreachable))
            (br $again))))
        i32.const 0"
    );
    let parts = Parts { configure: &configure, ..Parts::default() };
    let modules = [("courier", filter("courier")), ("slow", written(&parts).into())];
    let modules = modules.map(|(plugin, bytes)| (plugin.parse().unwrap(), module(bytes)));
    let slow = json!([{"plugin": "slow", "isolation": "exchange"}]);
    let mut stage = Stage::empty(Limits { own_memory_bytes: waits * 4, ..unhurried() });
    stage.publish_modules(&[("api", courier()), ("other", slow)], &modules.into());
    let two = [begun(&stage).unwrap(), begun(&stage).unwrap()];
    two.into_iter().for_each(|run| drop(run.close()));
    let metrics = stage.host.metrics();
    assert_eq!(usize::try_from(metrics.own_memory_idle_bytes.value()).unwrap(), waits * 2);
    let mut run = stage.begin_on("other").unwrap();
    assert!(matches!(run.on_request(&mut request(&[])), Ok(Flow::Continue)));
    drop(run.close());
    assert_eq!((metrics.own_memory_idle_bytes.value(), metrics.failures.value()), (0, 0));
}

#[test]
fn one_may_wait_while_others_are_at_work() {
    let courier = || json!([{"plugin": "courier", "config": {"at": "log", "calls": []}}]);
    let each = of_one(courier());
    // Two take more than half of it; one that waits does not.
    let stage = stage(each * 3, courier());
    let metrics = stage.host.metrics();
    let (one, two) = (begun(&stage).unwrap(), begun(&stage).unwrap());
    let starts = metrics.starts.value();
    drop(one.close());
    let three = begun(&stage).unwrap();
    assert_eq!(
        (metrics.starts.value(), metrics.own_memory_idle_bytes.value()),
        (starts, 0),
        "the one that waited is used again"
    );
    drop((two.close(), three.close()));
    assert_eq!(usize::try_from(metrics.own_memory_idle_bytes.value()).unwrap(), each, "the second has to go");
    assert_eq!(usize::try_from(metrics.own_memory_bytes.value()).unwrap(), each);
}
