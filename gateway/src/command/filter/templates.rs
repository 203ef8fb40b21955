//! The projects that `tidegate filter new` begins with: files of `sdk/templates`, compiled in.

/// The languages that there are templates for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Language {
    Rust,
}

/// A file of a project: where it goes, and what is in it.
pub(super) struct File {
    pub(super) path: &'static str,
    pub(super) content: &'static str,
}

/// Files of one template. Cargo would take a file named `Cargo.toml` for a package of this repository, and hidden files are easily lost, so
/// some have other names in it.
macro_rules! files {
    ($folder:literal: $($path:literal = $source:literal),+ $(,)?) => {
        &[$(File { path: $path, content: include_str!(concat!("../../../../sdk/templates/", $folder, "/", $source)) }),+]
    };
}

const RUST: &[File] = files!["rust":
    "Cargo.toml" = "Cargo.toml.template",
    ".cargo/config.toml" = "cargo/config.toml",
    ".gitignore" = "gitignore",
    "README.md" = "README.md",
    "config.json" = "config.json",
    "requests/allowed.json" = "requests/allowed.json",
    "requests/refused.json" = "requests/refused.json",
    "src/lib.rs" = "src/lib.rs",
    "src/tests.rs" = "src/tests.rs",
];

impl Language {
    /// Every one.
    pub(super) const ALL: [Self; 1] = [Self::Rust];

    /// As the command line has it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Rust => "rust",
        }
    }

    /// What a project of it begins with.
    pub(super) const fn files(self) -> &'static [File] {
        match self {
            Self::Rust => RUST,
        }
    }

    /// What to do next, in the project's folder.
    pub(super) const fn next(self) -> &'static str {
        match self {
            Self::Rust => {
                "  cargo test        # natively, without a gateway\n  cargo module      # builds target/wasm32-unknown-unknown/release/{{crate}}.wasm"
            }
        }
    }
}
