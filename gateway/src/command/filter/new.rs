//! `tidegate filter new`: writes a project that builds, with a filter that does something. It never overwrites.

use super::{
    USAGE, complain, path_of, say,
    templates::{File, Language},
    text_of,
};
use clap::{Arg, ArgMatches, Command, builder::PossibleValuesParser, value_parser};
use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};
use tidegate_policy::Name;

/// Where the SDK comes from when it is not here.
const REPOSITORY: &str = env!("CARGO_PKG_REPOSITORY");

pub(super) fn command() -> Command {
    let languages = PossibleValuesParser::new(Language::ALL.map(Language::name));
    Command::new("new")
        .about("Begins a filter's project from a template")
        .arg(Arg::new("name").value_name("NAME").required(true).help("The filter's name, and its folder's"))
        .arg(
            Arg::new("lang")
                .long("lang")
                .value_name("LANGUAGE")
                .value_parser(languages)
                .default_value("rust")
                .help("What it is written in"),
        )
        .arg(
            Arg::new("in")
                .long("in")
                .value_name("DIR")
                .value_parser(value_parser!(PathBuf))
                .default_value(".")
                .help("The folder that the project's folder is made in"),
        )
        .arg(
            Arg::new("sdk").long("sdk").value_name("PATH").value_parser(value_parser!(PathBuf)).help(
                "A checkout of Tidegate to take the Rust SDK from [default: the one this is run in, else its repository]",
            ),
        )
}

pub(super) fn new(given: &ArgMatches) -> ExitCode {
    let name: Name = match text_of(given, "name").parse() {
        Ok(name) => name,
        Err(error) => {
            complain(&format!("NAME: {error}"));
            return ExitCode::from(USAGE);
        }
    };
    let Some(language) = Language::ALL.into_iter().find(|language| language.name() == text_of(given, "lang")) else {
        return ExitCode::from(USAGE);
    };
    let checkout = match given.get_one::<PathBuf>("sdk") {
        Some(path) => match sdk_in(path) {
            Some(sdk) => Some(sdk),
            None => {
                return complain(&format!(
                    "--sdk: {} is no checkout of Tidegate: there is no sdk/Cargo.toml of the crate tidegate-sdk in it",
                    path.display()
                ));
            }
        },
        None => std::env::current_dir().ok().and_then(|here| here.ancestors().find_map(sdk_in)),
    };
    let words = Words::new(&name, checkout.as_deref());
    let folder = path_of(given, "in").join(name.as_str());
    match write(&folder, language.files(), &words) {
        Ok(()) => {
            let next = words.filled(language.next());
            say(&format!("wrote {}; in it:\n{next}\n  README.md has the rest", folder.display()))
        }
        Err(error) => complain(&format!("{} cannot be made: {error}", folder.display())),
    }
}

/// The SDK's folder, where `checkout` is one of this repository or that folder itself.
fn sdk_in(checkout: &Path) -> Option<PathBuf> {
    [checkout.join("sdk"), checkout.to_owned()].into_iter().find_map(|folder| {
        let manifest = std::fs::read_to_string(folder.join("Cargo.toml")).ok()?;
        let is_sdk = manifest.lines().any(|line| line.trim() == "name = \"tidegate-sdk\"");
        is_sdk.then(|| folder.canonicalize().ok()).flatten()
    })
}

/// What templates leave open.
struct Words([(&'static str, String); 3]);

impl Words {
    fn new(name: &Name, checkout: Option<&Path>) -> Self {
        let sdk = match checkout {
            // A JSON string is one of TOML as well.
            Some(path) => format!("path = {}", serde_json::Value::from(path.to_string_lossy())),
            None => format!("git = \"{REPOSITORY}\""),
        };
        let package = package(name);
        Self([("{{crate}}", package.replace('-', "_")), ("{{name}}", package), ("{{sdk}}", sdk)])
    }

    fn filled(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, (word, value)| text.replace(word, value))
    }
}

/// The name as packages may be called: dots are for no one, and digits do not come first.
fn package(name: &Name) -> String {
    let name = name.as_str().replace('.', "-");
    if name.starts_with(|first: char| first.is_ascii_digit()) { format!("filter-{name}") } else { name }
}

/// Writes the files into a folder that is new or empty.
fn write(folder: &Path, files: &[File], words: &Words) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    if std::fs::read_dir(folder)?.next().is_some() {
        let detail = "there are files in it already, and nothing is overwritten; choose another name or --in";
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, detail));
    }
    for file in files {
        let path = folder.join(file.path);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::File::create_new(path)?.write_all(words.filled(file.content).as_bytes())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_template_is_filled_whole() {
        let words = Words::new(&"my.filter".parse().unwrap(), None);
        for language in Language::ALL {
            let folder = tempfile::tempdir().unwrap();
            write(folder.path(), language.files(), &words).unwrap();
            for File { path, .. } in language.files() {
                let text = std::fs::read_to_string(folder.path().join(path)).unwrap();
                assert!(!text.contains("{{"), "{path} has something left open: {text}");
            }
        }
    }

    #[test]
    fn the_sdk_comes_from_the_checkout_or_the_repository() {
        let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let sdk = sdk_in(checkout).unwrap();
        assert_eq!(sdk_in(&sdk), Some(sdk.clone()), "the folder itself is as good");
        assert_eq!(sdk_in(&checkout.join("docs")), None);
        let name: Name = "stamp".parse().unwrap();
        let manifest = Language::Rust.files().iter().find(|file| file.path == "Cargo.toml").unwrap().content;
        let here = Words::new(&name, Some(&sdk)).filled(manifest);
        assert!(here.contains("tidegate-sdk = { path = \"/"), "{here}");
        let there = Words::new(&name, None).filled(manifest);
        assert!(there.contains("tidegate-sdk = { git = \"https://"), "{there}");
        for text in [here, there] {
            text.parse::<toml::Table>().unwrap();
        }
    }

    #[test]
    fn nothing_is_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let words = Words::new(&"stamp".parse().unwrap(), None);
        std::fs::write(folder.path().join("mine"), "mine").unwrap();
        let error = write(folder.path(), Language::Rust.files(), &words).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn names_become_packages() {
        let packages = ["a.b", "7up", "require-team"].map(|name| package(&name.parse().unwrap()));
        assert_eq!(packages, ["a-b", "filter-7up", "require-team"]);
    }
}
