//! `tidegate token`: mints a token for the REST API with the key in the data directory.

use super::{complain, say};
use clap::ArgMatches;
use std::process::ExitCode;
use tidegate_gateway::settings::Settings;
use tidegate_policy::duration::Span;

pub(super) fn mint(settings: Settings, given: &ArgMatches) -> ExitCode {
    let text = |name: &str| given.get_one::<String>(name).cloned().unwrap_or_default();
    let (role, ttl) = (text("role").parse::<tidegate_admin::Role>(), text("ttl").parse::<Span>());
    match (role, ttl) {
        (Ok(role), Ok(ttl)) => match tidegate_admin::mint_token(&settings.data_dir, role, ttl.length()) {
            Ok(token) => say(&token),
            // With what the system said, which is the error's source.
            Err(error) => complain(&format!("{:#}", anyhow::Error::from(error))),
        },
        (role, ttl) => {
            if let Err(error) = role {
                complain(&format!("--role: {error}"));
            }
            if let Err(error) = ttl {
                complain(&format!("--ttl: {error}"));
            }
            ExitCode::from(super::USAGE)
        }
    }
}
