//! `tidegate filter test`: runs a module against a described exchange, with the host that a gateway runs.

use super::{
    USAGE, compiler, complain, json, limits, module, path_of, read_module, say, settings_file, text, text_of, written,
};
use clap::{Arg, ArgMatches, Command, value_parser};
use std::{path::PathBuf, process::ExitCode};
use tidegate_gateway::trial::{Refused, Trial, script};
use tidegate_policy::{Mistake, Name};

pub(super) fn command() -> Command {
    let text = |name: &'static str, value: &'static str| Arg::new(name).long(name).value_name(value);
    let file = |name: &'static str, value: &'static str| text(name, value).value_parser(value_parser!(PathBuf));
    Command::new("test")
        .about("Runs a module against a described exchange; fails where the filter does")
        .arg(module())
        .arg(file("request", "REQUEST.json").required(true).help("The request, its caller, and what is around it"))
        .arg(file("response", "RESPONSE.json").help("What the upstream answers [default: 200, nothing]"))
        .arg(text("config", "JSON|@FILE").default_value("null").help("The filter's configuration"))
        .arg(text("grants", "JSON|@FILE").default_value("{}").help("What its route grants it"))
        .arg(text("on-error", "deny|skip").default_value("deny").help("What becomes of the exchange when the filter fails"))
        .arg(text("place", "JSON|@FILE").default_value("{}").help("What else its route says to a Proxy-Wasm filter"))
        .arg(text("isolation", "shared|exchange").default_value("shared").help("Whether exchanges share an instance"))
        .arg(text("name", "NAME").default_value("tried").help("The plugin's name"))
        .arg(settings_file())
        .arg(json())
}

pub(super) fn test(given: &ArgMatches) -> ExitCode {
    let (bytes, trial) = match (read_module(given), described(given)) {
        (Ok(bytes), Ok(trial)) => (bytes, trial),
        (bytes, trial) => {
            for mistake in bytes.err().into_iter().chain(trial.err()) {
                complain(&mistake);
            }
            return ExitCode::from(USAGE);
        }
    };
    match trial.run(&bytes) {
        Ok(report) => {
            let told = match given.get_flag("json") {
                true => serde_json::to_string(&report).map_err(|error| error.to_string()),
                false => Ok(text::of(&report)),
            };
            match told {
                Ok(told) if !report.failed() => say(told.trim_end()),
                Ok(told) => {
                    say(told.trim_end());
                    let error = report.filter.error.as_deref().unwrap_or("it does not say why");
                    complain(&format!("the filter failed: {error}"))
                }
                Err(error) => complain(&error),
            }
        }
        Err(refused) => {
            for line in refusals(&refused) {
                complain(&line);
            }
            ExitCode::FAILURE
        }
    }
}

fn refusals(refused: &Refused) -> Vec<String> {
    match refused {
        Refused::Module(reasons) => reasons.iter().map(|reason| format!("the module would be refused: {reason}")).collect(),
        Refused::Config(reason) => vec![format!("the filter refuses its configuration: {reason}")],
        Refused::Script(mistakes) => mistakes.iter().map(|mistake| format!("the description: {mistake}")).collect(),
        Refused::System(reason) => vec![reason.clone()],
    }
}

/// The trial that the command line describes.
fn described(given: &ArgMatches) -> Result<Trial, String> {
    let at = |flag: &str, mistake: Mistake| format!("--{flag}: {mistake}");
    let name = |error: String| format!("--name: {error}");
    let response = match given.get_one::<PathBuf>("response") {
        Some(_) => read(given, "response")?,
        None => script::Response::default(),
    };
    let quoted = |flag: &str| serde_json::Value::from(text_of(given, flag)).to_string();
    Ok(Trial {
        plugin: text_of(given, "name").parse::<Name>().map_err(name)?,
        config: script::read(&written(text_of(given, "config"))?).map_err(|mistake| at("config", mistake))?,
        grants: script::read(&written(text_of(given, "grants"))?).map_err(|mistake| at("grants", mistake))?,
        on_error: script::read(&quoted("on-error")).map_err(|mistake| at("on-error", mistake))?,
        place: script::read(&written(text_of(given, "place"))?).map_err(|mistake| at("place", mistake))?,
        isolation: script::read(&quoted("isolation")).map_err(|mistake| at("isolation", mistake))?,
        limits: limits(given)?,
        compiler: Some(compiler()?),
        request: read(given, "request")?,
        response,
    })
}

/// The description in the file that a flag names.
fn read<T: serde::de::DeserializeOwned>(given: &ArgMatches, flag: &str) -> Result<T, String> {
    let path = path_of(given, flag);
    let text =
        std::fs::read_to_string(&path).map_err(|error| format!("--{flag}: {} cannot be read: {error}", path.display()))?;
    script::read(&text).map_err(|mistake| format!("{}: {mistake}", path.display()))
}
