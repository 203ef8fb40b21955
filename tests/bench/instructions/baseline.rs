//! The counts that are kept in the tree.

use crate::{count, scenario::Scenario};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, ffi::OsStr, path::PathBuf, process::Command};

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Baseline {
    /// Compiler, valgrind and processor. Others make of the same source, and count, something else.
    pub(crate) made_with: String,
    /// For one turn of each scenario.
    pub(crate) instructions: BTreeMap<String, u64>,
}

impl Baseline {
    /// Counted now.
    pub(crate) fn now() -> Self {
        let instructions = Scenario::ALL.into_iter().map(|scenario| (scenario.name().to_owned(), count(scenario))).collect();
        Self { made_with: made_with(), instructions }
    }

    pub(crate) fn read() -> Self {
        let path = Self::path();
        let text = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    pub(crate) fn write(&self) {
        std::fs::write(Self::path(), format!("{}\n", serde_json::to_string_pretty(self).unwrap())).unwrap();
    }

    fn path() -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/bench/instructions/baseline.json")
    }
}

fn made_with() -> String {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = |program: &OsStr| {
        let said =
            Command::new(program).arg("--version").output().unwrap_or_else(|error| panic!("{}: {error}", program.display()));
        String::from_utf8_lossy(&said.stdout).trim().to_owned()
    };
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find(|line| line.starts_with("model name")).and_then(|line| line.split_once(": "));
    let model = model.map_or("another processor", |(_, model)| model);
    format!("{}, {}, {model}", version(&rustc), version("valgrind".as_ref()))
}
