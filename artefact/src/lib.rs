//! Compiled filters as bytes that may be kept on a disk: sealed with a key, and loaded only if this key sealed them.
//!
//! What is compiled is native code, and loading it runs whatever it says. So this crate owns the one `unsafe` block of the
//! project and the proof that it needs: nothing reaches it that [`seal`] did not write. It never touches a file.

use aws_lc_rs::{constant_time, digest, hmac};
use std::hash::{Hash, Hasher};
use wasmtime::{Engine, Module, component::Component};

/// How a sealed artefact begins: what it is, and which layout follows.
const COMPONENT: [u8; 16] = *b"tidegate native1";
const MODULE: [u8; 16] = *b"tidegate module1";
const MAGIC_BYTES: usize = 16;
const DIGEST_BYTES: usize = 32;
const TAG_BYTES: usize = 32;
/// The magic, the engine and the terms, the tag; the code follows. A multiple of 16, so that the code keeps the alignment of the whole.
const HEADER_BYTES: usize = MAGIC_BYTES + DIGEST_BYTES + TAG_BYTES;

/// What was compiled: native code, and what it is code of.
#[derive(Clone)]
pub enum Native {
    /// A component.
    Component(Component),
    /// A core module.
    Module(Module),
}

/// What seals artefacts. It cannot be read back, and neither can it seal anything but what an engine compiled.
pub struct Key {
    secret: hmac::Key,
    /// What the compiler went by beside its engine, as a hash.
    terms: digest::Digest,
}

/// Why an artefact is not loaded. All of them are mended by compiling anew.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// Another version of the compiler made it, or another configuration, or a processor with other features, or it was made on other
    /// terms.
    #[error("it was compiled for another engine, or on other terms")]
    Stale,
    /// It is damaged, or another key sealed it, or another module, or nobody at all.
    #[error("it is damaged, or was not sealed by this gateway for this module")]
    Foreign,
    /// It is genuine, and the engine refuses it.
    #[error("the engine refuses it: {0:#}")]
    Refused(wasmtime::Error),
}

impl Key {
    /// The key with these bytes, which nobody else may know, for what is compiled on these terms: what decides, beside the engine,
    /// what becomes of a module. What was made on others is stale.
    pub fn new(secret: &[u8; 32], terms: &str) -> Self {
        let terms = digest::digest(&digest::SHA256, terms.as_bytes());
        Self { secret: hmac::Key::new(hmac::HMAC_SHA256, secret), terms }
    }

    /// The tag of what `engine` made of the module with the digest `module`.
    fn tag(&self, magic: &[u8; MAGIC_BYTES], engine: &[u8], module: &[u8; 32], code: &[u8]) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&self.secret);
        // Every part but the last has a fixed length, so no two artefacts are written alike.
        for part in [magic, engine, module, code] {
            context.update(part);
        }
        context.sign()
    }

    /// What tells apart engines that cannot run each other's code, and terms that something else may have become of it on.
    fn compatibility(&self, engine: &Engine) -> digest::Digest {
        let mut hasher = Sha256(digest::Context::new(&digest::SHA256));
        engine.precompile_compatibility_hash().hash(&mut hasher);
        hasher.write(self.terms.as_ref());
        hasher.0.finish()
    }
}

/// What was compiled from the module with the SHA-256 digest `module`, to be kept wherever.
///
/// # Errors
/// There is no memory for it.
pub fn seal(key: &Key, module: &[u8; 32], native: &Native) -> wasmtime::Result<Vec<u8>> {
    let (magic, code, engine) = match native {
        Native::Component(component) => (COMPONENT, component.serialize()?, component.engine()),
        Native::Module(module) => (MODULE, module.serialize()?, module.engine()),
    };
    let engine = key.compatibility(engine);
    let tag = key.tag(&magic, engine.as_ref(), module, &code);
    Ok([&magic, engine.as_ref(), tag.as_ref(), &code].concat())
}

/// What [`seal`] was given for `module`, ready to be run by `engine`.
///
/// # Errors
/// The bytes are not what [`seal`] made with this key for this module and an engine like this one.
pub fn open(key: &Key, module: &[u8; 32], engine: &Engine, sealed: &[u8]) -> Result<Native, Refusal> {
    let (header, code) = sealed.split_at_checked(HEADER_BYTES).ok_or(Refusal::Foreign)?;
    let (magic, header) = header.split_first_chunk::<MAGIC_BYTES>().ok_or(Refusal::Foreign)?;
    let (made_by, tag) = header.split_at(DIGEST_BYTES);
    if *magic != COMPONENT && *magic != MODULE {
        return Err(Refusal::Foreign);
    }
    // Not to be believed yet, but whoever lies here only has the module compiled anew.
    if made_by != key.compatibility(engine).as_ref() {
        return Err(Refusal::Stale);
    }
    let expected = key.tag(magic, made_by, module, code);
    constant_time::verify_slices_are_equal(expected.as_ref(), tag).map_err(|_| Refusal::Foreign)?;
    load(*magic, engine, code).map_err(Refusal::Refused)
}

/// Loads code whose tag was verified.
#[expect(unsafe_code, reason = "loading native code is what this crate is for; see the comment on the block")]
fn load(magic: [u8; MAGIC_BYTES], engine: &Engine, code: &[u8]) -> wasmtime::Result<Native> {
    // SAFETY: both `deserialize` ask for the unchanged output of `serialize`, of their own type and of a compatible engine. The
    // caller, which is `open` alone, has verified a tag over `code`, over `magic`, which says which of the two types it is of,
    // and over a hash of what the engine says it is compatible with. Only `seal` makes tags, only of what `serialize` gave it, with a key that does not leave `Key`; so what has a valid tag is
    // such output. `code` is memory of ours, which nobody can change between the verification and the copy made here; that
    // is why files are read and not mapped.
    unsafe {
        match magic {
            MODULE => Module::deserialize(engine, code).map(Native::Module),
            _ => Component::deserialize(engine, code).map(Native::Component),
        }
    }
}

/// Hashes by SHA-256, which says the same in every process.
struct Sha256(digest::Context);

impl Hasher for Sha256 {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        let digest = self.0.clone().finish();
        digest.as_ref().first_chunk().map_or(0, |first| u64::from_le_bytes(*first))
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wasmtime::{Config, OptLevel, Store, component::Linker};

    const DIGEST: [u8; 32] = [7; 32];

    fn engine(level: OptLevel) -> Engine {
        let mut config = Config::new();
        config.wasm_component_model(true).cranelift_opt_level(level);
        Engine::new(&config).expect("an engine")
    }

    fn component(engine: &Engine) -> Native {
        let text = r#"(component
            (core module $code (func (export "answer") (result i32) i32.const 42))
            (core instance $code (instantiate $code))
            (func (export "answer") (result u32) (canon lift (core func $code "answer"))))"#;
        let bytes = wat::parse_str(text).expect("a component");
        Native::Component(Component::from_binary(engine, &bytes).expect("it compiles"))
    }

    #[test]
    fn what_was_sealed_runs_in_another_engine_of_the_same_kind() {
        let key = Key::new(&[1; 32], "terms");
        let sealed = seal(&key, &DIGEST, &component(&engine(OptLevel::Speed))).expect("it is sealed");
        let another = engine(OptLevel::Speed);
        let Native::Component(component) = open(&key, &DIGEST, &another, &sealed).expect("it is loaded") else {
            panic!("a component was sealed");
        };
        let mut store = Store::new(&another, ());
        let instance = Linker::new(&another).instantiate(&mut store, &component).expect("an instance");
        let answer = instance.get_typed_func::<(), (u32,)>(&mut store, "answer").expect("its function");
        assert_eq!(answer.call(&mut store, ()).expect("it returns"), (42,));
    }

    #[test]
    fn a_core_module_is_a_kind_of_its_own() {
        let (key, engine) = (Key::new(&[1; 32], "terms"), engine(OptLevel::Speed));
        let text = r#"(module (func (export "answer") (result i32) i32.const 42))"#;
        let bytes = wat::parse_str(text).expect("a module");
        let native = Native::Module(Module::from_binary(&engine, &bytes).expect("it compiles"));
        let sealed = seal(&key, &DIGEST, &native).expect("it is sealed");
        let Native::Module(module) = open(&key, &DIGEST, &engine, &sealed).expect("it is loaded") else {
            panic!("a module was sealed");
        };
        let mut store = Store::new(&engine, ());
        let instance = wasmtime::Instance::new(&mut store, &module, &[]).expect("an instance");
        let answer = instance.get_typed_func::<(), u32>(&mut store, "answer").expect("its function");
        assert_eq!(answer.call(&mut store, ()).expect("it returns"), 42);
        let mut relabelled = sealed;
        relabelled[..MAGIC_BYTES].copy_from_slice(&COMPONENT);
        assert!(matches!(open(&key, &DIGEST, &engine, &relabelled), Err(Refusal::Foreign)), "its kind is sealed with it");
    }

    #[test]
    fn another_engine_key_or_module_and_other_terms_are_refused() {
        let key = Key::new(&[1; 32], "terms");
        let fast = engine(OptLevel::Speed);
        let sealed = seal(&key, &DIGEST, &component(&fast)).expect("it is sealed");
        assert!(matches!(open(&key, &DIGEST, &engine(OptLevel::None), &sealed), Err(Refusal::Stale)));
        assert!(matches!(open(&Key::new(&[2; 32], "terms"), &DIGEST, &fast, &sealed), Err(Refusal::Foreign)));
        assert!(matches!(open(&key, &[8; 32], &fast, &sealed), Err(Refusal::Foreign)));
        let other_terms = Key::new(&[1; 32], "other terms");
        assert!(matches!(open(&other_terms, &DIGEST, &fast, &sealed), Err(Refusal::Stale)));
        let mut relabelled = sealed;
        relabelled[MAGIC_BYTES..][..DIGEST_BYTES].copy_from_slice(other_terms.compatibility(&fast).as_ref());
        assert!(
            matches!(open(&other_terms, &DIGEST, &fast, &relabelled), Err(Refusal::Foreign)),
            "the terms are sealed with it"
        );
        assert!(!format!("{key:?}").contains('1'));
    }

    #[test]
    fn not_one_byte_may_differ_and_none_may_lack() {
        let key = Key::new(&[1; 32], "terms");
        let engine = engine(OptLevel::Speed);
        let sealed = seal(&key, &DIGEST, &component(&engine)).expect("it is sealed");
        let places = (0..HEADER_BYTES).chain((HEADER_BYTES..sealed.len()).step_by(97)).chain([sealed.len() - 1]);
        for place in places {
            let mut changed = sealed.clone();
            changed[place] ^= 1;
            assert!(open(&key, &DIGEST, &engine, &changed).is_err(), "byte {place}");
        }
        for kept in [0, 1, MAGIC_BYTES, HEADER_BYTES - 1, HEADER_BYTES, sealed.len() - 1] {
            assert!(matches!(open(&key, &DIGEST, &engine, &sealed[..kept]), Err(Refusal::Foreign)), "{kept} bytes");
        }
        let longer = [sealed.as_slice(), b"\0"].concat();
        assert!(matches!(open(&key, &DIGEST, &engine, &longer), Err(Refusal::Foreign)));
    }

    #[test]
    fn a_forged_header_alone_loads_nothing() {
        let key = Key::new(&[1; 32], "terms");
        let engine = engine(OptLevel::Speed);
        let forged = [&COMPONENT, key.compatibility(&engine).as_ref(), &[0; TAG_BYTES], b"\x7fELF".as_slice()].concat();
        assert!(matches!(open(&key, &DIGEST, &engine, &forged), Err(Refusal::Foreign)));
    }
}
