//! The projects that `tidegate filter new` begins with: files of `sdk/templates`, compiled in.

/// The languages that there are templates for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Language {
    Rust,
    JavaScript,
    Python,
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

const JAVASCRIPT: &[File] = files!["js":
    ".gitignore" = "gitignore",
    "README.md" = "README.md",
    "config.json" = "config.json",
    "package.json" = "package.json",
    "requests/allowed.json" = "requests/allowed.json",
    "requests/refused.json" = "requests/refused.json",
    "src/filter.js" = "src/filter.js",
    "src/settings.js" = "src/settings.js",
    "test/settings.test.js" = "test/settings.test.js",
    "wit/filter.wit" = "../../wit/filter.wit",
];

const PYTHON: &[File] = files!["python":
    ".gitignore" = "gitignore",
    "README.md" = "README.md",
    "app.py" = "app.py",
    "config.json" = "config.json",
    "requests/allowed.json" = "requests/allowed.json",
    "requests/refused.json" = "requests/refused.json",
    "requirements.txt" = "requirements.txt",
    "settings.py" = "settings.py",
    "test_settings.py" = "test_settings.py",
    "wit/filter.wit" = "../../wit/filter.wit",
];

impl Language {
    /// Every one.
    pub(super) const ALL: [Self; 3] = [Self::Rust, Self::JavaScript, Self::Python];

    /// As the command line has it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Rust => "rust",
            Self::JavaScript => "js",
            Self::Python => "python",
        }
    }

    /// What a project of it begins with.
    pub(super) const fn files(self) -> &'static [File] {
        match self {
            Self::Rust => RUST,
            Self::JavaScript => JAVASCRIPT,
            Self::Python => PYTHON,
        }
    }

    /// What to do next, in the project's folder.
    pub(super) const fn next(self) -> &'static str {
        match self {
            Self::Rust => {
                "  cargo test        # natively, without a gateway\n  cargo module      # builds target/wasm32-unknown-unknown/release/{{crate}}.wasm"
            }
            Self::JavaScript => {
                "  npm install       # what builds it, once\n  npm test\n  npm run build     # builds {{name}}.wasm"
            }
            Self::Python => {
                "  python3 -m venv .venv && .venv/bin/pip install -r requirements.txt     # what builds it, once\n  .venv/bin/python -m unittest\n  .venv/bin/componentize-py -d wit -w filter componentize --stub-wasi app -o {{name}}.wasm"
            }
        }
    }
}
