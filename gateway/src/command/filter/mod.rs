//! `tidegate filter`: what authors of filters do before, and when, their filter is on a gateway.

mod inspect;
mod needs;
mod new;
mod push;
mod templates;
mod text;
mod trial;

use super::{USAGE, complain, say};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use std::{collections::BTreeMap, path::PathBuf, process::ExitCode, time::Duration};
use tidegate_gateway::{
    filter::Limits,
    settings::{self, Sources},
};

/// An author's machine may take this long to compile a module: how busy it is says nothing of a gateway.
const COMPILE: Duration = Duration::from_secs(300);

/// The command and what it takes.
pub(super) fn command() -> Command {
    Command::new("filter")
        .about("Makes, inspects, tries and uploads filters")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(new::command())
        .subcommand(inspect::command())
        .subcommand(trial::command())
        .subcommand(push::command())
}

/// Runs the one that was asked for.
pub(super) fn run(given: &ArgMatches) -> ExitCode {
    match given.subcommand() {
        Some(("new", given)) => new::new(given),
        Some(("inspect", given)) => inspect::inspect(given),
        Some(("test", given)) => trial::test(given),
        Some(("push", given)) => push::push(given),
        _ => ExitCode::from(USAGE),
    }
}

/// The module that a command is about.
fn module() -> Arg {
    Arg::new("module").value_name("FILE.wasm").required(true).value_parser(value_parser!(PathBuf)).help("The built module")
}

/// Whether a program reads the answer.
fn json() -> Arg {
    Arg::new("json").long("json").action(ArgAction::SetTrue).help("Answers in JSON")
}

fn text_of<'a>(given: &'a ArgMatches, name: &str) -> &'a str {
    given.get_one::<String>(name).map_or("", String::as_str)
}

fn path_of(given: &ArgMatches, name: &str) -> PathBuf {
    given.get_one::<PathBuf>(name).cloned().unwrap_or_default()
}

/// The module's bytes, or what is in the way of them.
fn read_module(given: &ArgMatches) -> Result<Vec<u8>, String> {
    let path = path_of(given, "module");
    std::fs::read(&path).map_err(|error| format!("{} cannot be read: {error}; build the filter first", path.display()))
}

/// Where a gateway's limits on filters are read from.
fn settings_file() -> Arg {
    Arg::new("settings")
        .long("settings")
        .value_name("FILE")
        .env("TIDEGATE_CONFIG")
        .value_parser(value_parser!(PathBuf))
        .help("The gateway's file of settings, for its limits on filters; TIDEGATE_* variables go before it")
}

/// This program, which compiles modules in processes of their own: here, one that makes the compiler fall over would end the
/// command without a word.
fn compiler() -> Result<PathBuf, String> {
    std::env::current_exe().map_err(|error| format!("this program's own file is not known, which is to compile it: {error}"))
}

/// The limits that a gateway with these settings has, but for the time that compiling takes.
fn limits(given: &ArgMatches) -> Result<Limits, String> {
    let file = given.get_one::<PathBuf>("settings").cloned();
    let sources = Sources { file, environment: std::env::vars_os().collect(), flags: BTreeMap::new() };
    let filter = settings::read(&sources).map(|settings| settings.filter);
    filter.map(|limits| Limits { compile: limits.compile.max(COMPILE), ..limits }).map_err(|mistakes| mistakes.0.join("\n"))
}

/// What is written there, or in the file that is named behind an `@`.
fn written(argument: &str) -> Result<String, String> {
    match argument.strip_prefix('@') {
        Some(path) => std::fs::read_to_string(path).map_err(|error| format!("{path} cannot be read: {error}")),
        None => Ok(argument.to_owned()),
    }
}
