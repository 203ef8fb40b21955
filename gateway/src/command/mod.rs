//! The command line: which command, and the settings it is given.

mod addresses;
mod filter;
mod health;
mod serve;
mod token;

use clap::{Arg, ArgMatches, Command, value_parser};
use std::{collections::BTreeMap, fmt::Display, io::Write, path::PathBuf, process::ExitCode};
use tidegate_gateway::{
    filter::compiler,
    settings::{self, DEFINITIONS, Settings, Sources},
};

/// What a command ends with when its settings are wrong: clap's own code for a usage error.
const USAGE: u8 = 2;

/// Runs the command that was asked for.
pub(crate) fn run() -> ExitCode {
    let matches = line().get_matches();
    match matches.subcommand() {
        Some(("serve", given)) => with_settings(given, serve::serve),
        Some(("filter", given)) => filter::run(given),
        Some((compiler::COMMAND, _)) => compile(),
        Some(("token", given)) => with_settings(given, |settings| token::mint(settings, given)),
        Some(("healthcheck", given)) => with_settings(given, |settings| health::check(&settings)),
        _ => say(&format!("tidegate {}", env!("CARGO_PKG_VERSION"))),
    }
}

/// Compiles one module, as the gateway that started this process asks for.
fn compile() -> ExitCode {
    match compiler::serve(std::io::stdin().lock(), std::io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(&format!("no module was compiled: {error}")),
    }
}

fn line() -> Command {
    let about = "The one door through which a cluster's workloads reach the outside world";
    Command::new("tidegate")
        .about(about)
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(with_flags(Command::new("serve").about("Runs the gateway until SIGTERM"), |_| true))
        .subcommand(
            with_flags(Command::new("token").about("Prints a token for the REST API"), |name| name == "data_dir")
                .arg(Arg::new("role").long("role").value_name("viewer|editor|admin").required(true).help("What it may do"))
                .arg(Arg::new("ttl").long("ttl").value_name("DURATION").default_value("8h").help("How long it lasts")),
        )
        .subcommand(with_flags(Command::new("healthcheck").about("Exits 0 if the gateway on this machine is ready"), |name| {
            matches!(name, "data_dir" | "metrics_listen")
        }))
        .subcommand(filter::command())
        // Of the gateway's own, for `serve`.
        .subcommand(Command::new(compiler::COMMAND).hide(true))
        .subcommand(Command::new("version").about("Prints the version"))
}

/// Adds `--config` and the flags of those settings that `wanted` names.
fn with_flags(command: Command, wanted: fn(&str) -> bool) -> Command {
    let config = Arg::new("config")
        .long("config")
        .value_name("FILE")
        .env("TIDEGATE_CONFIG")
        .value_parser(value_parser!(PathBuf))
        .help("A TOML file of settings; flags and TIDEGATE_* variables go before it");
    DEFINITIONS.iter().filter(|definition| wanted(definition.name)).fold(command.arg(config), |command, definition| {
        let default = match definition.default_text().as_str() {
            "" => String::new(),
            text => format!(" [default: {text}]"),
        };
        let flag = Arg::new(definition.name)
            .long(definition.flag())
            .value_name(definition.kind)
            .allow_hyphen_values(true)
            .help(format!("{}{default}", definition.doc));
        command.arg(flag)
    })
}

fn with_settings(given: &ArgMatches, work: impl FnOnce(Settings) -> ExitCode) -> ExitCode {
    let flag = |name: &'static str| Some((name, given.try_get_one::<String>(name).ok()??.clone()));
    let sources = Sources {
        file: given.get_one::<PathBuf>("config").cloned(),
        environment: std::env::vars_os().collect(),
        flags: DEFINITIONS.iter().filter_map(|definition| flag(definition.name)).collect::<BTreeMap<_, _>>(),
    };
    match settings::read(&sources) {
        Ok(settings) => work(settings),
        Err(mistakes) => {
            for mistake in &mistakes.0 {
                complain(mistake);
            }
            ExitCode::from(USAGE)
        }
    }
}

/// Prints a line to standard output; fails where nobody reads it.
fn say(line: &str) -> ExitCode {
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{line}").and_then(|()| out.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Prints what is wrong to standard error, where there is nobody left to tell if that fails.
fn complain(what: &dyn Display) -> ExitCode {
    let _ = writeln!(std::io::stderr().lock(), "tidegate: {what}");
    ExitCode::FAILURE
}
