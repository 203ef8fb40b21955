//! `tidegate filter inspect`: what a gateway thinks of a module, without one.

use super::{USAGE, compiler, complain, json, limits, module, needs, read_module, say, settings_file};
use clap::{ArgMatches, Command};
use serde_json::json;
use std::{fmt::Write as _, process::ExitCode};
use tidegate_gateway::{
    filter::{Host, Inspection},
    trial,
};

pub(super) fn command() -> Command {
    Command::new("inspect")
        .about("Says what a module is, what it can use, or every reason why it would be refused")
        .arg(module())
        .arg(settings_file())
        .arg(json())
}

pub(super) fn inspect(given: &ArgMatches) -> ExitCode {
    let (bytes, limits) = match (read_module(given), limits(given)) {
        (Ok(bytes), Ok(limits)) => (bytes, limits),
        (bytes, limits) => {
            for mistake in bytes.err().into_iter().chain(limits.err()) {
                complain(&mistake);
            }
            return ExitCode::from(USAGE);
        }
    };
    let host = match Host::start(limits) {
        Ok(host) => host,
        Err(error) => return complain(&format!("the filter host could not be started: {error}")),
    };
    match compiler() {
        Ok(program) => host.compile_apart(program),
        Err(error) => return complain(&error),
    }
    let as_json = given.get_flag("json");
    let (digest, size_bytes) = (trial::digest(&bytes), bytes.len());
    match host.inspect(&bytes) {
        Ok(found) if as_json => {
            let Inspection { world, imports, functions, exports } = &found;
            say(&json!({
                "digest": digest, "size_bytes": size_bytes, "world": world, "imports": imports, "functions": functions,
                "exports": exports, "can_use": needs::of(functions),
            })
            .to_string())
        }
        Ok(found) => say(format!("sha256  {digest}\nsize    {}\n{}", size(size_bytes), lines(&found)).trim_end()),
        Err(reasons) if as_json => {
            say(&json!({"digest": digest, "size_bytes": size_bytes, "refused": reasons}).to_string());
            ExitCode::FAILURE
        }
        Err(reasons) => {
            for reason in &reasons {
                complain(&format!("it would be refused: {reason}"));
            }
            ExitCode::FAILURE
        }
    }
}

fn size(bytes: usize) -> String {
    match bytes {
        0..10_000 => format!("{bytes} bytes"),
        10_000..10_000_000 => format!("{} KB", bytes / 1000),
        _ => format!("{} MB", bytes / 1_000_000),
    }
}

fn lines(found: &Inspection) -> String {
    let mut text = format!("world   {}\nexports {}\n", found.world, found.exports.join(", "));
    let mut interface = "";
    for function in &found.functions {
        let (of, name) = function.split_once('.').unwrap_or(("", function));
        // Writing to a String cannot fail.
        let _ = match of == interface {
            true => write!(text, ", {name}"),
            false if interface.is_empty() => write!(text, "imports {of}: {name}"),
            false => write!(text, "\n        {of}: {name}"),
        };
        interface = of;
    }
    let needs = needs::of(&found.functions);
    text.push_str(if needs.is_empty() { "\ngrants  none are of use to it\n" } else { "\ngrants that it can use\n" });
    for need in needs {
        let _ = writeln!(text, "        {} ({}): {}", need.grant, need.function, need.when);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_listed_by_interface() {
        let found = Inspection {
            world: "w".to_owned(),
            imports: Vec::new(),
            functions: ["host.config", "host.now-ns", "message.rewrite"].map(str::to_owned).to_vec(),
            exports: vec!["handler".to_owned()],
        };
        let text = lines(&found);
        assert!(
            text.contains(
                "imports host: config, now-ns\n        message: rewrite\ngrants that it can use\n        grants.paths"
            ),
            "{text}"
        );
    }
}
