//! Schemas for tests, compiled from `.proto` sources when they are asked for.

use crate::descriptor::FileSet;
use crate::schema::{MessageId, Names, Schema};
use prost::Message;
use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver};

/// The sources by the names that they are imported with.
const SOURCES: [(&str, &str); 4] = [
    ("google/api/annotations.proto", include_str!("annotations.proto")),
    ("shop.proto", include_str!("shop.proto")),
    ("everything.proto", include_str!("everything.proto")),
    ("old.proto", include_str!("old.proto")),
];

struct Sources(Vec<(String, String)>);

impl FileResolver for Sources {
    fn resolve_path(&self, path: &std::path::Path) -> Option<String> {
        path.to_str().map(str::to_owned)
    }

    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        let source = self.0.iter().find(|(known, _)| known == name);
        let (_, source) = source.ok_or_else(|| protox::Error::file_not_found(name))?;
        File::from_source(name, source)
    }
}

/// The descriptor set of a file among the samples, with what it imports.
pub(crate) fn set(name: &str) -> Vec<u8> {
    compile(name, SOURCES.iter().map(|(name, source)| ((*name).to_owned(), (*source).to_owned())).collect())
}

/// The descriptor set of a source, which may import the samples.
pub(crate) fn set_of(source: &str) -> Vec<u8> {
    let samples = SOURCES.iter().map(|(name, source)| ((*name).to_owned(), (*source).to_owned()));
    compile("test.proto", samples.chain([("test.proto".to_owned(), source.to_owned())]).collect())
}

fn compile(name: &str, sources: Vec<(String, String)>) -> Vec<u8> {
    let mut resolver = ChainFileResolver::new();
    resolver.add(Sources(sources));
    resolver.add(GoogleFileResolver::new());
    let mut compiler = protox::Compiler::with_file_resolver(resolver);
    compiler.include_imports(true).open_file(name).unwrap_or_else(|error| panic!("{name}: {error}"));
    compiler.encode_file_descriptor_set()
}

pub(crate) fn schema_of(set: &[u8]) -> Schema {
    Schema::build(&FileSet::decode(set).unwrap(), None, Names::Json).unwrap()
}

/// A message of one of the samples.
pub(crate) fn message(file: &str, name: &str) -> (Schema, MessageId) {
    let schema = schema_of(&set(file));
    let id = schema.named(name).unwrap_or_else(|| panic!("no {name}"));
    (schema, id)
}
