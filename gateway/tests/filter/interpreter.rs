//! The filter that does what a script says, as text: what it imports, and how it reads.

use crate::script::{ANSWER, DATA, DEMAND_ZERO, Function, HEAP, KEPT, LAST, MAKE_ROOM_SO, NO_ERROR, SCRIPT, TEXTS};
use std::fmt::Write as _;

/// Where the room for what the host hands over ends.
const HEAP_END: usize = 192 << 10;
/// Pages of memory.
const PAGES: usize = 4;

/// The imports of a filter that can call all of `functions`.
pub(crate) fn imports(functions: &[Function]) -> String {
    let mut text = String::new();
    for (number, Function { module, name, parameters, result }) in functions.iter().enumerate() {
        let parameters = types(parameters);
        let result = if result.is_empty() { String::new() } else { format!("(result {result})") };
        let _ = writeln!(text, r#"(import "{module}" "{name}" (func $f{number} (param{parameters}) {result}))"#);
    }
    text
}

/// The types of parameters of these kinds.
pub(crate) fn types(parameters: &str) -> String {
    let of = |kind| match kind {
        'l' => " i64",
        'n' | 'h' | 'o' | 'r' => " i32",
        _ => " i32 i32",
    };
    parameters.chars().map(of).collect()
}

/// What follows the imports: the memory, `$room` that makes room of a size, `$load` that takes a script of so many letters
/// from a place, and `$run` that goes on with it up to the next answer.
pub(crate) fn fields(functions: &[Function], texts: &[&str]) -> String {
    let length: usize = texts.iter().map(|text| text.len()).sum();
    assert!(TEXTS + length < NO_ERROR, "texts end before what lies behind them");
    let texts: String = texts.iter().flat_map(|text| text.bytes()).map(|byte| format!("\\{byte:02x}")).collect();
    let memory = format!(
        r#"(memory (export "memory") {PAGES})
        (data (i32.const {TEXTS}) "{texts}")
        (global $at (mut i32) (i32.const {SCRIPT}))
        (global $end (mut i32) (i32.const {SCRIPT}))
        (global $heap (mut i32) (i32.const {HEAP}))
        (global $so (mut i32) (i32.const 0))"#
    );
    [memory, reading(), making_room(), running(functions.len()), calling(functions)].concat()
}

/// How a script is taken from where it was handed over, and read number by number.
fn reading() -> String {
    format!(
        "(func $load (param $from i32) (param $letters i32) (local $to i32)
            (local.set $to (i32.const {SCRIPT}))
            (global.set $end (i32.add (i32.const {SCRIPT}) (i32.shr_u (local.get $letters) (i32.const 1))))
            (block (loop
                (br_if 1 (i32.ge_u (local.get $to) (global.get $end)))
                (i32.store8 (local.get $to) (i32.or
                    (i32.shl (i32.sub (i32.load8_u (local.get $from)) (i32.const 97)) (i32.const 4))
                    (i32.sub (i32.load8_u offset=1 (local.get $from)) (i32.const 97))))
                (local.set $from (i32.add (local.get $from) (i32.const 2)))
                (local.set $to (i32.add (local.get $to) (i32.const 1)))
                (br 0))))
        (func $byte (result i32)
            (i32.load8_u (global.get $at))
            (global.set $at (i32.add (global.get $at) (i32.const 1))))
        (func $long (result i64) (local $lies i32) (local $number i64)
            (local.set $lies (call $byte))
            (local.set $number (i64.load align=1 (global.get $at)))
            (global.set $at (i32.add (global.get $at) (i32.const 8)))
            (if (result i64) (local.get $lies)
                (then (i64.load align=1 (i32.and (i32.wrap_i64 (local.get $number)) (i32.const 127))))
                (else (local.get $number))))
        (func $int (result i32) (i32.wrap_i64 (call $long)))"
    )
}

/// Room for what the host hands over: well made, none, a trap, with more memory, in the midst of further calls, at an odd place,
/// or wherever the script says.
fn making_room() -> String {
    let so = |number: u32, what: &str| format!("(if (i32.eq (global.get $so) (i32.const {number})) (then {what}))");
    let place = "(return (local.get $place))";
    let ways = [
        so(0, place),
        so(1, "(return (i32.const 0))"),
        so(2, "(unreachable)"),
        so(3, &format!("(drop (memory.grow (i32.const 1))) {place}")),
        so(4, &format!("(drop (call $run)) {place}")),
        so(5, "(return (i32.add (local.get $place) (i32.const 1)))"),
    ];
    format!(
        "(func $room (param $size i32) (result i32) (local $place i32)
            (local.set $place (global.get $heap))
            (global.set $heap (i32.and (i32.add (i32.add (local.get $place) (local.get $size)) (i32.const 7)) (i32.const -8)))
            (if (i32.gt_u (global.get $heap) (i32.const {HEAP_END})) (then (global.set $heap (i32.const {HEAP}))))
            {}
            (global.get $so))",
        ways.concat()
    )
}

/// The loop through the script. What the host writes may lie in it, so nothing in it makes it go back.
fn running(functions: usize) -> String {
    format!(
        "(func $run (result i32) (local $what i32)
            (loop $next
                (if (i32.ge_u (global.get $at) (global.get $end)) (then (return (i32.const 0))))
                (local.set $what (call $byte))
                (if (i32.lt_u (local.get $what) (i32.const {functions})) (then
                    (i32.store (i32.const {LAST}) (call_indirect (result i32) (local.get $what)))
                    (br $next)))
                (if (i32.eq (local.get $what) (i32.const {ANSWER})) (then (return (call $int))))
                (if (i32.eq (local.get $what) (i32.const {MAKE_ROOM_SO})) (then (global.set $so (call $int)) (br $next)))
                (if (i32.eq (local.get $what) (i32.const {DEMAND_ZERO})) (then
                    (if (call $int) (then (unreachable))) (br $next)))
                (if (i32.eq (local.get $what) (i32.const {DATA})) (then
                    (global.set $at (i32.add (i32.and (call $int) (i32.const 65535)) (global.get $at)))))
                (br $next))
            (unreachable))"
    )
}

/// Every function, called with what follows in the script.
fn calling(functions: &[Function]) -> String {
    let mut text = String::from("(table funcref (elem");
    for number in 0..functions.len() {
        let _ = write!(text, " $do{number}");
    }
    text.push_str("))");
    for (number, Function { parameters, result, .. }) in functions.iter().enumerate() {
        let types = types(parameters);
        let taken = types.split_whitespace().map(|kind| if kind == "i64" { "(call $long)" } else { "(call $int)" });
        let call = format!("(call $f{number} {})", taken.collect::<String>());
        let answer = match *result {
            "" => format!("{call} (i32.const 0)"),
            "i64" => format!("(i32.wrap_i64 {call})"),
            _ => call,
        };
        let _ = writeln!(text, "(func $do{number} (result i32) {answer})");
    }
    text
}

/// Keeps what a function was called with, of this many parameters of which the first is `$p0`, where scripts find it.
pub(crate) fn keep(parameters: usize) -> String {
    let store = |number| format!("(i32.store (i32.const {}) (local.get $p{number}))", KEPT + number * 4);
    (0..parameters).map(store).collect()
}
