//! How many instructions the request path takes, counted by valgrind's callgrind: a figure that does not depend on what else
//! the machine does, so that growth shows at once.
//!
//! `make instructions` counts every scenario, prints the table and compares it with `baseline.json` beside this file: more than
//! five in a hundred above it is a failure. `make instructions WRITE=--write` writes the baseline anew.
#![expect(clippy::unwrap_used, reason = "a measurement that cannot be made ends the program")]

mod baseline;
mod exchange;
mod scenario;
#[expect(dead_code, reason = "the tests use more of it")]
#[path = "../../../gateway/tests/filter/setting.rs"]
mod setting;

use baseline::Baseline;
use scenario::Scenario;
use std::{
    io::Write as _,
    process::{Command, ExitCode},
};

/// The gateway's own.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => compare(),
        ["--write"] => write(),
        // What valgrind is given to count.
        ["run", name, times] => {
            let scenario = Scenario::named(name).unwrap_or_else(|| panic!("no scenario is named {name}"));
            scenario.run(times.parse().unwrap());
            ExitCode::SUCCESS
        }
        _ => panic!("usage: instructions [--write]"),
    }
}

fn compare() -> ExitCode {
    let mut out = std::io::stdout().lock();
    let (counted, before) = (Baseline::now(), Baseline::read());
    writeln!(out, "{:<14} {:>14} {:>14} {:>8}", "", "instructions", "baseline", "change").unwrap();
    let mut grown = Vec::new();
    for (name, count) in &counted.instructions {
        let Some(&there) = before.instructions.get(name) else {
            writeln!(out, "{name:<14} {count:>14} {:>14}", "none").unwrap();
            grown.push(name);
            continue;
        };
        let change = (*count as f64 / there as f64 - 1.0) * 100.0;
        writeln!(out, "{name:<14} {count:>14} {there:>14} {change:>+7.1}%").unwrap();
        if change > 5.0 {
            grown.push(name);
        }
    }
    if grown.is_empty() {
        return ExitCode::SUCCESS;
    }
    if counted.made_with != before.made_with {
        let (there, here) = (&before.made_with, &counted.made_with);
        writeln!(out, "not judged: the baseline is of {there}, and this is {here}").unwrap();
        return ExitCode::SUCCESS;
    }
    writeln!(out, "more than 5 % over the baseline: {grown:?}. Find out why; where it is worth it, write the baseline anew:")
        .unwrap();
    writeln!(out, "make instructions WRITE=--write").unwrap();
    ExitCode::FAILURE
}

fn write() -> ExitCode {
    Baseline::now().write();
    ExitCode::SUCCESS
}

/// The instructions that one turn of a scenario takes.
fn count(scenario: Scenario) -> u64 {
    if scenario.is_one_function() {
        let within = format!("--toggle-collect={}", scenario::COUNTED);
        return collected(scenario, &[&within], 1_000) / 1_000;
    }
    // Those of many turns less those of a few, which have the same beginning.
    let (few, many) = (500, 4_500);
    (collected(scenario, &[], many) - collected(scenario, &[], few)) / u64::from(many - few)
}

fn collected(scenario: Scenario, options: &[&str], times: u32) -> u64 {
    let program = std::env::current_exe().unwrap();
    let valgrind = ["--tool=callgrind", "--callgrind-out-file=/dev/null", "--smc-check=all-non-file"];
    let mut command = Command::new("valgrind");
    command.args(valgrind).args(options).arg(program).args(["run", scenario.name()]).arg(times.to_string());
    let ran = command.output().unwrap_or_else(|error| panic!("valgrind does not start ({error}); install it: make setup"));
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{}: {said}", scenario.name());
    let line = said.lines().find_map(|line| line.split_once("Collected :")).unwrap_or_else(|| panic!("no count in {said}"));
    line.1.trim().parse().unwrap()
}
