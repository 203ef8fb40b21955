//! Filters that break the ABI itself, written as text: as core modules and as components they fail with a reason, and the
//! host goes on.

use crate::{
    setting::{FORMS, Form, Stage, module, used},
    written::{Text, smallest},
};
use serde_json::json;
use tidegate_gateway::filter::{Host, Limits};
use tidegate_policy::publication::Module;

const IMPORTS: &str = r#"
    (import "tidegate:filter/types@0.1.0" "[resource-drop]body" (func $drop-body (param i32)))
    (import "tidegate:filter/types@0.1.0" "[method]headers.get" (func $get (param i32 i32 i32 i32)))
    (import "tidegate:filter/types@0.1.0" "[method]headers.get-many" (func $get-many (param i32 i32 i32 i32)))
    (import "tidegate:filter/types@0.1.0" "[method]headers.apply" (func $apply (param i32 i32 i32 i32)))
    (import "tidegate:filter/attributes@0.1.0" "set" (func $set (param i32 i32 i32 i64 i32) (result i32)))
    (import "tidegate:filter/attributes@0.1.0" "get" (func $attribute (param i32 i32 i32)))
    (import "tidegate:filter/audit@0.1.0" "emit" (func $emit (param i32 i32 i32 i32 i32 i32 i32) (result i32)))
    (import "tidegate:filter/telemetry@0.1.0" "log" (func $log (param i32 i32 i32)))
    (import "tidegate:filter/telemetry@0.1.0" "[constructor]counter" (func $counter (param i32 i32) (result i32)))
    (import "tidegate:filter/telemetry@0.1.0" "[method]counter.add" (func $count (param i32 i64)))
    (import "tidegate:filter/telemetry@0.1.0" "[resource-drop]counter" (func $drop-counter (param i32)))
    (import "tidegate:filter/telemetry@0.1.0" "[constructor]gauge" (func $gauge (param i32 i32) (result i32)))
    (import "tidegate:filter/telemetry@0.1.0" "[method]gauge.set" (func $set-gauge (param i32 i64)))
    (import "tidegate:filter/kv@0.1.0" "set" (func $keep (param i32 i32 i32 i32 i32 i32 i32)))
    (import "tidegate:filter/host@0.1.0" "now-ns" (func $now (result i64)))
    (import "tidegate:filter/upstream@0.1.0" "originate-tls" (func $originate-tls (param i32 i32)))
    (import "tidegate:filter/message@0.1.0" "answer" (func $reply (param i32 i32 i32 i32 i32 i32 i32 i32 i32)))"#;

/// A name at 64, its end no UTF-8, zeros everywhere else.
const FIELDS: &str = r#"
    (data (i32.const 64) "x-tenant\ff")
    (data (i32.const 80) "state.a")
    (global $head (mut i32) (i32.const 0))
    (global $begun (mut i32) (i32.const 0))"#;

/// What a filter does, with two MiB of memory. Without more it reads a header in both directions.
#[derive(Clone, Copy)]
struct Filter {
    pages: &'static str,
    /// What else is in the module.
    extra: &'static str,
    realloc: &'static str,
    configure: &'static str,
    tidy: &'static str,
    open: &'static str,
    answer: &'static str,
    response: &'static str,
}

const READ: &str = "(call $get (local.get $h) (i32.const 64) (i32.const 8) (i32.const 128))";

const GOOD: Filter = Filter {
    pages: "32",
    extra: "",
    realloc: "i32.const 1024",
    configure: "i32.const 0",
    tidy: "",
    open: READ,
    answer: "i32.const 1",
    response: "(call $get (local.get $h) (i32.const 64) (i32.const 8) (i32.const 128))",
};

impl Filter {
    const fn opens(open: &'static str) -> Self {
        Self { open, ..GOOD }
    }

    const fn makes_room(realloc: &'static str) -> Self {
        Self { realloc, ..GOOD }
    }

    fn module(&self, form: Form) -> Module {
        let Self { pages, extra, realloc, configure, tidy, open, answer, response } = self;
        let tidy = format!(r#"(func (export "cabi_post_tidegate:filter/handler@0.1.0#configure") (param i32) {tidy})"#);
        let drop = "(call $drop (local.get $h))";
        let text = Text {
            imports: IMPORTS,
            pages,
            fields: &[FIELDS, extra, &tidy].concat(),
            realloc,
            configure,
            open: &format!("(global.set $head (local.get $h)) {open} {drop} {answer}"),
            response: &format!("{response} {drop} i32.const 0"),
            close: "",
        };
        module(form.of(&text.bytes()))
    }

    /// Why it is not accepted with any configuration.
    fn refusal(&self, form: Form) -> String {
        Host::start(Limits::default()).unwrap().configure(&self.module(form), &used("{}")).unwrap_err()
    }

    fn stage(&self, form: Form, limits: Limits) -> Stage {
        let healthy = module(form.of(&smallest("i32.const 0")));
        let modules = [("misused".parse().unwrap(), self.module(form)), ("healthy".parse().unwrap(), healthy)];
        let mut stage = Stage::with(limits, json!([]));
        let routes = [("api", json!([{"plugin": "misused"}])), ("healthy", json!([{"plugin": "healthy"}]))];
        stage.publish_modules(&routes, &modules.into());
        stage
    }

    /// Runs an exchange through it: it has to fail with a reason that has one of these words.
    fn fails(&self, case: &str, named: &str) {
        self.fails_within(Limits::default(), case, named);
    }

    fn fails_within(&self, limits: Limits, case: &str, named: &str) {
        for form in FORMS {
            let stage = self.stage(form, limits);
            let outcome = stage.exchange();
            assert!(!outcome.passed(), "{case} as {form:?}: {outcome:?}");
            let error = outcome.facts.first().and_then(|facts| facts.error.as_deref()).unwrap_or_default();
            assert!(error.contains(named), "{case} as {form:?}: {error}");
            assert_eq!(stage.host.metrics().failures.value(), 1, "{case} as {form:?}");
            assert!(stage.exchange_on("healthy", &[]).passed(), "{case} as {form:?}: the host goes on");
        }
    }
}

#[test]
fn one_that_breaks_nothing_passes() {
    // What comes before everything else, as reactors have it, and as modules have it, which may call nothing that needs memory.
    const BEGUN: Filter = Filter::opens("(if (i32.eqz (global.get $begun)) (then unreachable))");
    let initialized = Filter {
        extra: r#"(func (export "_initialize") (call $log (i32.const 0) (i32.const 64) (i32.const 8)) (global.set $begun (i32.const 1)))"#,
        ..BEGUN
    };
    // Tidying up after each callback, which components are made to do.
    let tidy = Filter {
        extra: r#"(func (export "cabi_post_tidegate:filter/handler@0.1.0#open") (param i32) (global.set $begun (i32.const 1)))"#,
        response: "(if (i32.eqz (global.get $begun)) (then unreachable))",
        ..GOOD
    };
    let started = Filter { extra: "(func $start (global.set $begun (i32.const 1))) (start $start)", ..BEGUN };
    // The first byte of the memory is a place like any other.
    let room_at_0 = Filter::makes_room("i32.const 0");
    for (case, filter) in
        [("all is well", GOOD), ("room at 0", room_at_0), ("initialized", initialized), ("tidy", tidy), ("started", started)]
    {
        for form in FORMS {
            let outcome = filter.stage(form, Limits::default()).exchange();
            assert!(outcome.passed() && outcome.facts[0].error.is_none(), "{case} as {form:?}: {outcome:?}");
        }
    }
}

/// Attributes of each kind: the case, what it holds as a parameter, and as the audit event shows it. Place 64 and length 8 are a text.
const KINDS: [(u32, &str, &str); 6] = [
    (0, "64", "\"x-tenant\""),
    (1, "-2", "-2"),
    (2, "-2", "18446744073709551614"),
    (3, "1", "true"),
    (4, "64", "\"eC10ZW5hbnQ=\""),
    (5, "7", "7"),
];

#[test]
fn attributes_of_each_kind_come_back() {
    for (case, value, _) in KINDS {
        let same = match case {
            0 | 4 => "(i64.ne (i64.load (i32.load (i32.const 528))) (i64.load (i32.const 64)))".to_owned(),
            3 => "(i32.ne (i32.load8_u (i32.const 528)) (i32.const 1))".to_owned(),
            _ => format!("(i64.ne (i64.load (i32.const 528)) (i64.const {value}))"),
        };
        let open = format!(
            "(if (i32.eqz (call $set (i32.const 80) (i32.const 7) (i32.const {case}) (i64.const {value}) (i32.const 8))) (then unreachable))
            (call $attribute (i32.const 80) (i32.const 7) (i32.const 512))
            (if (i32.ne (i32.load8_u (i32.const 512)) (i32.const 1)) (then unreachable))
            (if (i32.ne (i32.load8_u (i32.const 520)) (i32.const {case})) (then unreachable))
            (if {same} (then unreachable))"
        );
        for form in FORMS {
            let outcome = Filter::opens(open.clone().leak()).stage(form, Limits::default()).exchange();
            assert!(outcome.passed() && outcome.facts[0].error.is_none(), "{case} as {form:?}: {outcome:?}");
        }
    }
}

#[test]
fn events_have_fields_of_each_kind() {
    // A field is a name, of which there is one letter for each, and the attribute: its case, and eight bytes that hold it.
    let fields = KINDS.into_iter().zip(0_u32..).map(|((case, value, _), number)| {
        let at = 4096 + number * 24;
        let name = 80 + number;
        let value = if matches!(case, 0 | 4) { "0x0000000800000040" } else { value };
        format!(
            "(i32.store (i32.const {at}) (i32.const {name})) (i32.store offset=4 (i32.const {at}) (i32.const 1))
            (i32.store offset=8 (i32.const {at}) (i32.const {case})) (i64.store offset=16 (i32.const {at}) (i64.const {value}))"
        )
    });
    let emit = "(drop (call $emit (i32.const 64) (i32.const 8) (i32.const 2) (i32.const 0) (i32.const 0) (i32.const 4096) (i32.const 6)))";
    let open = fields.collect::<String>() + emit;
    for form in FORMS {
        let outcome = Filter::opens(open.clone().leak()).stage(form, Limits::default()).exchange();
        assert!(outcome.passed() && outcome.facts[0].error.is_none(), "as {form:?}: {outcome:?}");
        let [event] = &outcome.facts[0].events[..] else { panic!("as {form:?}: {outcome:?}") };
        assert_eq!((&*event.kind, &*event.outcome), ("x-tenant", "modified"));
        // The names are the letters of `state.`, of which the fourth is the second again: what comes last counts.
        for ((_, _, shown), name) in KINDS.iter().zip(["s", "t", "a", "t", "e", "."]).filter(|((case, ..), _)| *case != 1) {
            assert_eq!(event.fields[name].to_string(), *shown, "{name} as {form:?}");
        }
    }
}

#[test]
fn what_lies_outside_of_the_memory_is_not_read() {
    for (case, open) in [
        ("behind the end", "(call $get (local.get $h) (i32.const 2097152) (i32.const 1) (i32.const 128))"),
        ("across the end", "(call $get (local.get $h) (i32.const 2097148) (i32.const 8) (i32.const 128))"),
        ("a length that wraps", "(call $get (local.get $h) (i32.const 64) (i32.const -1) (i32.const 128))"),
        ("a list's length that wraps", "(call $get-many (local.get $h) (i32.const 64) (i32.const 0x20000001) (i32.const 128))"),
        (
            "a list of names that are elsewhere",
            "(i32.store (i32.const 256) (i32.const -16)) (i32.store (i32.const 260) (i32.const 32))
            (call $get-many (local.get $h) (i32.const 256) (i32.const 1) (i32.const 128))",
        ),
        ("a result behind the end", "(call $get (local.get $h) (i32.const 64) (i32.const 8) (i32.const 2097148))"),
        ("settings across the end", "(call $originate-tls (i32.const 2097088) (i32.const 128))"),
    ] {
        Filter::opens(open).fails(case, "out of bounds");
    }
}

#[test]
fn what_is_not_aligned_is_not_read() {
    for (case, open) in [
        ("a list", "(call $get-many (local.get $h) (i32.const 65) (i32.const 1) (i32.const 128))"),
        ("a result", "(call $get (local.get $h) (i32.const 64) (i32.const 8) (i32.const 130))"),
        ("settings", "(call $originate-tls (i32.const 258) (i32.const 128))"),
    ] {
        Filter::opens(open).fails(case, "aligned");
    }
}

#[test]
fn what_the_types_do_not_allow_is_refused() {
    for (case, open, named) in [
        ("a name that is no text", "(call $get (local.get $h) (i32.const 64) (i32.const 9) (i32.const 128))", "utf-8"),
        (
            "a change of no kind",
            "(i32.store (i32.const 256) (i32.const 3)) (call $apply (local.get $h) (i32.const 256) (i32.const 1) (i32.const 128))",
            "discriminant",
        ),
        (
            "an attribute of no kind",
            "(drop (call $set (i32.const 64) (i32.const 8) (i32.const 6) (i64.const 0) (i32.const 0)))",
            "discriminant",
        ),
        ("a level that is none", "(call $log (i32.const 6) (i32.const 64) (i32.const 8))", "discriminant"),
        (
            "an outcome that is none",
            "(drop (call $emit (i32.const 64) (i32.const 8) (i32.const 4) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)))",
            "discriminant",
        ),
        (
            "neither some nor none",
            "(call $keep (i32.const 64) (i32.const 8) (i32.const 64) (i32.const 8) (i32.const 2) (i32.const 1) (i32.const 128))",
            "discriminant",
        ),
        (
            "a mode that is none",
            "(i32.store (i32.const 256) (i32.const 0x301)) (call $originate-tls (i32.const 256) (i32.const 128))",
            "discriminant",
        ),
    ] {
        Filter::opens(open).fails(case, named);
    }
    Filter { answer: "i32.const 8", ..GOOD }.fails("a flow that is none", "discriminant");
    Filter { answer: "i32.const -1", ..GOOD }.fails("a flow that is none", "discriminant");
}

#[test]
fn room_that_is_none_is_not_written_to() {
    for (case, realloc, named) in [
        ("behind the end", "i32.const 2097152", "beyond end of memory"),
        ("across the end", "i32.const 2097150", "beyond end of memory"),
        ("far away", "i32.const -4", "beyond end of memory"),
        ("nothing but a trap", "unreachable", "trapped"),
        ("without an end", "(loop $again br $again) unreachable", "ran for longer than"),
        ("by calling the host", "(drop (call $now)) i32.const 1024", "cannot leave component instance"),
        (
            "by calling the host with text",
            "(call $log (i32.const 0) (i32.const 64) (i32.const 8)) i32.const 1024",
            "cannot leave",
        ),
        ("by giving back what was lent", "(call $drop (global.get $head)) i32.const 1024", "cannot leave"),
    ] {
        Filter::makes_room(realloc).fails(case, named);
    }
    let many = "(i32.store (i32.const 256) (i32.const 64)) (i32.store (i32.const 260) (i32.const 8))
        (call $get-many (local.get $h) (i32.const 256) (i32.const 1) (i32.const 128))";
    Filter { realloc: "i32.const 1026", ..Filter::opens(many) }.fails("a list that is not aligned", "not aligned");
    Filter { realloc: "i32.const 2097148", ..Filter::opens(many) }.fails("a list across the end", "beyond end of memory");
}

#[test]
fn handles_are_of_their_kind_and_of_their_time() {
    let dropped = "(local.set $n (call $counter (i32.const 64) (i32.const 1)))
        (call $drop-counter (local.get $n))";
    for (case, open) in [
        ("a gauge as a counter", "(call $count (call $gauge (i32.const 64) (i32.const 1)) (i64.const 1))".to_owned()),
        ("a counter as a gauge", "(call $set-gauge (call $counter (i32.const 64) (i32.const 1)) (i64.const 1))".to_owned()),
        ("a gauge dropped as a counter", "(call $drop-counter (call $gauge (i32.const 64) (i32.const 1)))".to_owned()),
        ("a head as a counter", "(call $count (local.get $h) (i64.const 1))".to_owned()),
        (
            "a counter as a head",
            "(call $get (call $counter (i32.const 64) (i32.const 1)) (i32.const 64) (i32.const 8) (i32.const 128))".to_owned(),
        ),
        ("one that was never given", "(call $count (i32.const 77) (i64.const 1))".to_owned()),
        ("a head that was never lent, given back", "(call $drop (i32.const 77))".to_owned()),
        ("a head given back as a body", "(call $drop-body (local.get $h))".to_owned()),
        ("a counter given back as a head", "(call $drop (call $counter (i32.const 64) (i32.const 1)))".to_owned()),
        ("one that was dropped", format!("{dropped} (call $count (local.get $n) (i64.const 1))")),
        ("one that is dropped twice", format!("{dropped} (call $drop-counter (local.get $n))")),
    ] {
        Filter::opens(open.leak()).fails(case, "");
    }
}

#[test]
fn a_handle_of_an_earlier_callback_is_worth_nothing() {
    for (kept, named) in [
        ("(call $get (global.get $head) (i32.const 64) (i32.const 8) (i32.const 128))", "was used after its callback"),
        ("(call $drop (global.get $head))", "was given back that is not lent"),
    ] {
        let outcome = Filter { response: kept, ..GOOD }.stage(Form::Module, Limits::default()).exchange();
        // As a component it has the same number again, as what it is lent now.
        assert!(outcome.error().contains(named), "{outcome:?}");
    }
}

#[test]
fn what_is_handed_over_in_a_call_is_bounded() {
    // More elements than there are bytes allowed, each of them nothing.
    let tiny = "(call $get-many (local.get $h) (i32.const 1024) (i32.const 140000) (i32.const 128))";
    Filter::opens(tiny).fails("many that are nothing", "fuel");
    // Twelve pairs of names that are one and the same stretch of 100 kB.
    let same = "(local.set $n (i32.const 4096))
        (loop $next
            (i32.store (local.get $n) (i32.const 65536)) (i32.store offset=4 (local.get $n) (i32.const 100000))
            (local.set $n (i32.add (local.get $n) (i32.const 16)))
            (br_if $next (i32.lt_u (local.get $n) (i32.const 4288))))
        (drop (call $emit (i32.const 64) (i32.const 8) (i32.const 0) (i32.const 4096) (i32.const 12) (i32.const 0) (i32.const 0)))";
    Filter::opens(same).fails("one that is many", "fuel");
}

#[test]
fn as_much_may_be_handed_over_in_either_form() {
    // Lists of each kind, whose elements are nothing but themselves: one more in each call, until it is too many.
    for (case, list) in [
        ("names of fields", "(call $get-many (local.get $h) (i32.const 4096) (local.get $n) (i32.const 128))"),
        ("changes", "(call $apply (local.get $h) (i32.const 4096) (local.get $n) (i32.const 128))"),
        (
            "fields of an event that are known",
            "(drop (call $emit (i32.const 64) (i32.const 0) (i32.const 0) (i32.const 4096) (local.get $n) (i32.const 0) (i32.const 0)))",
        ),
        (
            "fields of an event",
            "(drop (call $emit (i32.const 64) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 4096) (local.get $n)))",
        ),
        (
            "fields of an answer",
            "(call $reply (i32.const 204) (i32.const 4096) (local.get $n) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
                (i32.const 0) (i32.const 0))",
        ),
        (
            "names in a certificate",
            "(i32.store (i32.const 272) (i32.const 1)) (i32.store (i32.const 276) (i32.const 4096)) (i32.store (i32.const 280) (local.get $n))
            (call $originate-tls (i32.const 256) (i32.const 128))",
        ),
    ] {
        let open = format!(
            "(global.set $counter (call $counter (i32.const 64) (i32.const 1)))
            (loop $more
                {list}
                (call $count (global.get $counter) (i64.const 1))
                (local.set $n (i32.add (local.get $n) (i32.const 1)))
                (br $more))"
        );
        let filter = Filter { extra: "(global $counter (mut i32) (i32.const 0))", ..Filter::opens(open.leak()) };
        let most = FORMS.map(|form| {
            let stage = filter.stage(form, Limits { hostcall_bytes: 4096, ..Limits::default() });
            let outcome = stage.exchange();
            assert!(outcome.error().contains("fuel"), "{case} as {form:?}: {outcome:?}");
            let mut page = tidegate_gateway::telemetry::page::Page::default();
            stage.host.write(&mut page);
            let (page, counter) = (page.text(), "tidegate_plugin_counter_total{plugin=\"misused\",metric=\"x\"} ");
            let counted = page.lines().find_map(|line| line.strip_prefix(counter)?.parse::<usize>().ok());
            counted.unwrap_or_else(|| panic!("{case} as {form:?}: {page}"))
        });
        assert_eq!(most[0], most[1], "{case}");
        assert!((50..200).contains(&most[0]), "{case}: {most:?}");
    }
}

#[test]
fn handles_to_metrics_are_bounded() {
    let endless = "(loop $next (drop (call $counter (i32.const 64) (i32.const 1))) br $next)";
    let limits = Limits { handles: 16, ..Limits::default() };
    Filter::opens(endless).fails_within(limits, "a counter again and again", "handle limit exceeded");
}

#[test]
fn memory_and_tables_are_bounded() {
    for (case, filter, named) in [
        ("more memory than there may be", Filter { pages: "600", ..GOOD }, "memory"),
        ("a larger table than there may be", Filter { extra: "(table 30000 funcref)", ..GOOD }, "table"),
    ] {
        for form in FORMS {
            let refusal = filter.refusal(form);
            assert!(refusal.contains(named), "{case} as {form:?}: {refusal}");
        }
    }
    let grows = "(if (i32.ne (memory.grow (i32.const 600)) (i32.const -1)) (then unreachable))
        (if (i32.ne (table.grow $table (ref.null func) (i32.const 30000)) (i32.const -1)) (then unreachable))";
    let grown = Filter { extra: "(table $table 1 funcref)", ..Filter::opens(grows) };
    for form in FORMS {
        let stage = grown.stage(form, Limits::default());
        let outcome = stage.exchange();
        assert!(outcome.passed() && outcome.facts[0].error.is_none(), "as {form:?}: {outcome:?}");
        let metrics = stage.host.metrics();
        assert_eq!((metrics.memory_refused.value(), metrics.tables_refused.value()), (1, 1), "as {form:?}");
    }
}

#[test]
fn what_configure_answers_is_looked_at() {
    for (case, filter, named) in [
        ("behind the end", Filter { configure: "i32.const 2097148", ..GOOD }, "out of bounds"),
        ("not aligned", Filter { configure: "i32.const 2", ..GOOD }, "aligned"),
        (
            "neither well nor not",
            Filter { configure: "(i32.store (i32.const 256) (i32.const 2)) i32.const 256", ..GOOD },
            "discriminant",
        ),
        (
            "a reason that is no text",
            Filter {
                configure: "(i32.store (i32.const 256) (i32.const 1)) (i32.store (i32.const 260) (i32.const 64))
                    (i32.store (i32.const 264) (i32.const 9)) i32.const 256",
                ..GOOD
            },
            "utf-8",
        ),
        ("the host called while it tidies up", Filter { tidy: "(drop (call $now))", ..GOOD }, "cannot leave"),
    ] {
        for form in FORMS {
            let refusal = filter.refusal(form);
            assert!(refusal.contains(named), "{case} as {form:?}: {refusal}");
        }
    }
    let refused = Filter {
        configure: "(i32.store (i32.const 256) (i32.const 1)) (i32.store (i32.const 260) (i32.const 64))
            (i32.store (i32.const 264) (i32.const 8)) i32.const 256",
        tidy: "(if (i32.ne (local.get 0) (i32.const 256)) (then unreachable))",
        ..GOOD
    };
    for form in FORMS {
        assert_eq!(refused.refusal(form), "x-tenant", "as {form:?}");
    }
}
