//! What the source must always be: sizes, names, and which part may know which.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

/// Files longer than this are hard to hold in one's head.
const LONGEST_FILE: usize = 500;
/// Longer files, each with the reason why it is better whole.
const LONG_FILES: [(&str, &str); 0] = [];
/// Words that say nothing about what a file holds.
const EMPTY_NAMES: [&str; 8] = ["util", "utils", "common", "helpers", "helper", "misc", "manager", "handler2"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests lie in the workspace").to_owned()
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every Rust file below `folders`, by its path from the root.
fn sources(folders: &[&str]) -> Vec<(String, String)> {
    let root = root();
    let mut found = Vec::new();
    let mut open: Vec<PathBuf> = folders.iter().map(|folder| root.join(folder)).collect();
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.expect("a folder can be read").path();
            if path.is_dir() {
                // What a build leaves is nobody's source: the fuzz targets have theirs beside them.
                if !path.ends_with("target") {
                    open.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(&root).expect("it lies below").display().to_string();
                found.push((name, read(&path)));
            }
        }
    }
    assert!(!found.is_empty(), "{folders:?} hold no Rust files");
    found
}

const EVERYTHING: [&str; 7] = ["policy", "artefact", "gateway", "admin", "sdk", "plugins", "tests"];

#[test]
fn files_are_short_or_say_why_not() {
    let long: Vec<_> = sources(&EVERYTHING)
        .into_iter()
        .map(|(name, text)| (text.lines().count(), name))
        .filter(|(lines, name)| *lines > LONGEST_FILE && !LONG_FILES.iter().any(|(long, _)| long == name))
        .collect();
    assert!(long.is_empty(), "split them, or list them here with a reason: {long:#?}");
}

#[test]
fn files_are_named_for_what_they_hold() {
    for (name, _) in sources(&EVERYTHING) {
        for part in name.trim_end_matches(".rs").split('/') {
            assert!(!EMPTY_NAMES.contains(&part), "{name}: {part:?} says nothing about what it holds");
        }
    }
}

#[test]
fn modules_say_what_they_own() {
    let silent: Vec<_> =
        sources(&["policy/src", "artefact/src", "gateway/src", "admin/src", "sdk/src", "plugins", "tests/src", "tests/e2e"])
            .into_iter()
            .filter(|(_, text)| !text.starts_with("//!"))
            .map(|(name, _)| name)
            .collect();
    assert!(silent.is_empty(), "begin them with `//!`: {silent:#?}");
}

#[test]
fn the_data_plane_knows_nothing_of_the_control_plane() {
    for (name, text) in sources(&["gateway/src"]) {
        let joins = name == "gateway/src/main.rs" || name.starts_with("gateway/src/command/");
        assert!(joins || !text.contains("tidegate_admin"), "{name} must not know the control plane");
    }
    for (name, text) in sources(&["admin/src"]) {
        assert!(!text.contains("tidegate_gateway"), "{name} must not know the data plane");
    }
}

#[test]
fn policy_does_no_input_or_output() {
    let manifest = read(&root().join("policy/Cargo.toml"));
    for dependency in ["tokio", "sqlx", "wasmtime", "hyper", "axum", "tracing"] {
        assert!(!manifest.contains(&format!("\n{dependency}")), "policy must not depend on {dependency}");
    }
    for (name, text) in sources(&["policy/src"]) {
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        for word in [
            "std::fs",
            "std::net::Tcp",
            "std::net::Udp",
            "std::process",
            "std::thread",
            "async fn",
            "SystemTime::now",
            "Instant::now",
        ] {
            assert!(!code.contains(word), "{name}: {word} has no place in policy");
        }
    }
}

#[test]
fn sql_lives_in_the_store_alone() {
    for (name, text) in sources(&["admin/src", "gateway/src"]) {
        let store = name.starts_with("admin/src/store");
        assert!(store || !text.contains("sqlx::query"), "{name}: SQL belongs to admin/src/store");
    }
}

#[test]
fn nothing_is_left_to_be_done() {
    let marks = [
        ["TO", "DO"].concat(),
        ["FIX", "ME"].concat(),
        ["XX", "X"].concat(),
        ["unimplemen", "ted!("].concat(),
        ["to", "do!("].concat(),
    ];
    for (name, text) in sources(&EVERYTHING) {
        for mark in &marks {
            assert!(!text.contains(mark.as_str()), "{name} holds {mark}");
        }
    }
}

#[test]
fn the_commands_of_the_readme_exist() {
    let makefile = read(&root().join("Makefile"));
    let readme = read(&root().join("README.md"));
    // Commands stand at the beginning of a line or of a `span`; "make" in a sentence is a word.
    let commands: BTreeSet<_> = readme
        .lines()
        .flat_map(|line| line.split('`'))
        .filter_map(|piece| piece.strip_prefix("make "))
        .filter_map(|rest| rest.split_whitespace().next())
        .collect();
    assert!(commands.contains("demo") && commands.contains("test"), "{commands:?}");
    for command in commands {
        assert!(makefile.contains(&format!("\n{command}:")), "README.md names `make {command}`, which is not in the Makefile");
    }
}

#[test]
fn every_setting_is_documented() {
    let page = read(&root().join("docs/settings.md"));
    let (status, help, _) = tidegate_tests::gateway::run(&["serve", "--help"]);
    assert!(status.success());
    let flags: BTreeSet<_> = help
        .split(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '-'))
        .filter_map(|word| word.strip_prefix("--"))
        .filter(|flag| !flag.is_empty() && !matches!(*flag, "help" | "version"))
        .collect();
    assert!(flags.len() > 10, "{flags:?}");
    for flag in flags {
        assert!(page.contains(flag) || page.contains(&flag.replace('-', "_")), "docs/settings.md does not list {flag}");
    }
}

#[test]
fn the_architecture_fits_on_two_screens() {
    let page = read(&root().join("docs/architecture.md"));
    let lines = page.lines().count();
    assert!((20..=110).contains(&lines), "{lines} lines");
}
