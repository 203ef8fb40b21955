//! Compiled modules on disk: what a restart finds there, and what it does not believe.

use crate::setting::{Stage, filter, module, used};
use serde_json::json;
use std::{
    collections::BTreeMap,
    fs::{self, File},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};
use tempfile::TempDir;
use tidegate_gateway::filter::{Chains, Host, Limits};
use tidegate_policy::{
    plugin::Digest,
    publication::{Content, Module, ModuleStore, Unread},
};

/// A gateway's data directory, over several lives.
struct Data(TempDir);

impl Data {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// A host as a start of the gateway has it.
    fn start(&self, limits: Limits) -> Host {
        let host = Host::start(limits).unwrap();
        host.keep_in(self.0.path());
        host
    }

    fn directory(&self) -> PathBuf {
        self.0.path().join("filters")
    }

    fn of(&self, module: &Module) -> PathBuf {
        self.directory().join(module.digest.to_string())
    }

    fn files(&self) -> Vec<PathBuf> {
        let mut files: Vec<_> = fs::read_dir(self.directory()).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
    }
}

/// Starts the filter, which takes its compiled module.
fn start(host: &Host, module: &Module) {
    host.configure(module, &used("{}")).unwrap();
}

/// Another module of the same meaning: with a custom section of this content.
fn variant(of: &[u8], number: u8) -> Module {
    module([of, &[0, 3, 1, b'v', number]].concat().into())
}

/// What came of looking on disk: compiled anew, loaded, stale, refused.
fn counted(host: &Host) -> (u64, u64, u64, u64) {
    let metrics = host.metrics();
    let (loaded, stale) = (metrics.artefacts_loaded.value(), metrics.artefacts_stale.value());
    (metrics.compiled.value(), loaded, stale, metrics.artefacts_refused.value())
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// Modules as a database has them, read when they are needed.
struct Stored {
    answer: Result<Arc<[u8]>, Unread>,
    reads: AtomicUsize,
}

impl ModuleStore for Stored {
    fn read(&self, _digest: Digest) -> Result<Arc<[u8]>, Unread> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.answer.clone()
    }
}

#[test]
fn a_stored_module_is_read_once_in_its_life() {
    let (data, mut stage) = (Data::new(), Stage::new(json!([{"plugin": "stamp", "on_error": "skip"}])));
    let (bytes, snapshot) = (filter("stamp"), stage.snapshot());
    let prepare = |answer: Result<Arc<[u8]>, Unread>| {
        let host = data.start(Limits::default());
        let stored = Arc::new(Stored { answer, reads: AtomicUsize::new(0) });
        let module = Module { digest: module(Arc::clone(&bytes)).digest, content: Content::Stored(Arc::clone(&stored) as _) };
        let modules = BTreeMap::from([("stamp".parse().unwrap(), module)]);
        (Chains::prepare(&host, &snapshot, &modules, &Chains::default()), stored.reads.load(Ordering::Relaxed))
    };
    for (unread, said) in
        [(Unread::Gone, "is missing from the database"), (Unread::Failed("the disk fails".to_owned()), "the disk fails")]
    {
        let (unreadable, reads) = prepare(Err(unread));
        stage.chains = unreadable;
        let outcome = stage.exchange();
        assert!(outcome.passed() && outcome.error().contains(said), "the exchange meets on_error: {outcome:?}");
        assert_eq!(reads, 1);
    }
    assert_eq!(prepare(Ok(Arc::clone(&bytes))).1, 1);
    assert_eq!(prepare(Err(Unread::Gone)).1, 0, "it is on disk, compiled");
}

#[test]
fn a_restart_compiles_nothing() {
    let (data, stamp) = (Data::new(), module(filter("stamp")));
    let first = data.start(Limits::default());
    start(&first, &stamp);
    assert_eq!(counted(&first), (1, 0, 0, 0));
    assert_eq!(data.files(), [data.of(&stamp)]);
    let second = data.start(Limits::default());
    start(&second, &stamp);
    start(&second, &stamp);
    assert_eq!(counted(&second), (0, 1, 0, 0), "loaded once, and shared from then on");
    let refusal = second.configure(&stamp, &used(r#"{"value": ""}"#)).unwrap_err();
    assert_eq!(refusal, "/value: a stamp says something", "it is the filter that was uploaded");
    let bytes = stamp.read().unwrap();
    assert_eq!(second.inspect(&bytes).unwrap().imports, first.inspect(&bytes).unwrap().imports);
}

#[test]
fn nobody_else_can_read_or_write_there() {
    let (data, stamp) = (Data::new(), module(filter("stamp")));
    start(&data.start(Limits::default()), &stamp);
    assert_eq!((mode(&data.directory()), mode(&data.of(&stamp))), (0o700, 0o600));
    assert_eq!(mode(&data.0.path().join("filters.key")), 0o600);
    fs::set_permissions(data.directory(), fs::Permissions::from_mode(0o777)).unwrap();
    data.start(Limits::default());
    assert_eq!(mode(&data.directory()), 0o700, "a start closes it again");
}

/// A way to spoil a compiled module on disk.
type Spoil = fn(&Data, &Module, &Module);

#[test]
fn what_was_changed_is_compiled_anew_and_replaced() {
    fn edit(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = fs::read(path).unwrap();
        change(&mut bytes);
        fs::write(path, bytes).unwrap();
    }
    // How it is spoiled, and whether that reads as another version's.
    let rows: [(&str, bool, Spoil); 9] = [
        ("a byte of the code", false, |data, stamp, _| edit(&data.of(stamp), |bytes| bytes[5000] ^= 1)),
        ("the last byte", false, |data, stamp, _| edit(&data.of(stamp), |bytes| *bytes.last_mut().unwrap() ^= 1)),
        ("the seal", false, |data, stamp, _| edit(&data.of(stamp), |bytes| bytes[50] ^= 1)),
        ("the engine", true, |data, stamp, _| edit(&data.of(stamp), |bytes| bytes[20] ^= 1)),
        ("half of it", false, |data, stamp, _| edit(&data.of(stamp), |bytes| bytes.truncate(bytes.len() / 2))),
        ("all of it", false, |data, stamp, _| edit(&data.of(stamp), Vec::clear)),
        ("something else", false, |data, stamp, _| fs::write(data.of(stamp), b"\x7fELF").unwrap()),
        ("another module's", false, |data, stamp, audit| {
            fs::copy(data.of(audit), data.of(stamp)).unwrap();
        }),
        ("another gateway's", false, |data, stamp, _| {
            let other = Data::new();
            start(&other.start(Limits::default()), stamp);
            fs::copy(other.of(stamp), data.of(stamp)).unwrap();
        }),
    ];
    let (data, stamp, audit) = (Data::new(), module(filter("stamp")), module(filter("audit")));
    let first = data.start(Limits::default());
    start(&first, &stamp);
    start(&first, &audit);
    for (what, is_stale, spoil) in rows {
        spoil(&data, &stamp, &audit);
        let host = data.start(Limits::default());
        start(&host, &stamp);
        assert_eq!(counted(&host), (1, 0, u64::from(is_stale), u64::from(!is_stale)), "{what}");
        let again = data.start(Limits::default());
        start(&again, &stamp);
        assert_eq!(counted(&again), (0, 1, 0, 0), "{what}: it was replaced by one that holds");
    }
}

#[test]
fn a_key_that_was_exposed_lost_or_damaged_is_replaced() {
    let (data, stamp) = (Data::new(), module(filter("stamp")));
    let path = data.0.path().join("filters.key");
    start(&data.start(Limits::default()), &stamp);
    let spoil: [(&str, &dyn Fn()); 3] = [
        ("exposed", &|| fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap()),
        ("lost", &|| fs::remove_file(&path).unwrap()),
        ("damaged", &|| fs::write(&path, b"short").unwrap()),
    ];
    for (what, spoil) in spoil {
        let before = fs::read(&path).unwrap();
        spoil();
        let host = data.start(Limits::default());
        start(&host, &stamp);
        assert_eq!(counted(&host), (1, 0, 0, 1), "{what}");
        assert_ne!(fs::read(&path).unwrap(), before, "{what}");
        assert_eq!((mode(&path), fs::read(&path).unwrap().len()), (0o600, 32), "{what}");
    }
}

#[test]
fn the_ones_used_longest_ago_make_room() {
    let (data, stamp) = (Data::new(), filter("stamp"));
    let modules: Vec<_> = (0..4).map(|number| variant(&stamp, number)).collect();
    let long_ago = |module: &Module, days: u64| {
        let file = File::open(data.of(module)).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(days * 24 * 3600)).unwrap();
    };
    let limits = Limits { artefacts: 2, ..Limits::default() };
    start(&data.start(limits), &modules[0]);
    start(&data.start(limits), &modules[1]);
    long_ago(&modules[0], 2);
    long_ago(&modules[1], 1);
    // Being used makes the older one the younger.
    start(&data.start(limits), &modules[0]);
    let third = data.start(limits);
    start(&third, &modules[2]);
    assert_eq!(third.metrics().artefacts_evicted.value(), 1);
    let mut left = [data.of(&modules[0]), data.of(&modules[2])];
    left.sort();
    assert_eq!(data.files(), left);
    let bytes: u64 = left.iter().map(|path| fs::metadata(path).unwrap().len()).sum();
    assert_eq!((third.metrics().artefacts.value(), third.metrics().artefact_bytes.value()), (2, bytes.cast_signed()));

    // Room for one and a half: the limit on bytes is met first.
    let limits = Limits { artefact_bytes: usize::try_from(bytes).unwrap() * 3 / 4, ..Limits::default() };
    let fourth = data.start(limits);
    assert_eq!(data.files().len(), 1, "a start keeps to the limits it was given");
    start(&fourth, &modules[3]);
    assert_eq!(data.files(), [data.of(&modules[3])]);
    let none = data.start(Limits { artefact_bytes: 1000, ..Limits::default() });
    start(&none, &modules[0]);
    assert_eq!(data.files(), [] as [PathBuf; 0], "one that is larger than all may be is not kept");
}

#[test]
fn without_a_place_to_keep_them_filters_run_all_the_same() {
    let (data, stamp) = (Data::new(), module(filter("stamp")));
    // A file where the directory should be.
    fs::write(data.directory(), b"in the way").unwrap();
    let host = data.start(Limits::default());
    start(&host, &stamp);
    assert_eq!(counted(&host), (1, 0, 0, 0));

    let data = Data::new();
    let host = data.start(Limits::default());
    // What a crash left half written goes with the next start.
    fs::write(data.directory().join("0000.new"), b"half").unwrap();
    data.start(Limits::default());
    assert_eq!(data.files(), [] as [PathBuf; 0]);
    fs::remove_dir(data.directory()).unwrap();
    start(&host, &stamp);
    assert_eq!((counted(&host), host.metrics().artefacts_failed.value()), ((1, 0, 0, 0), 1));
}

#[test]
fn several_at_once_share_one() {
    let (data, stamp) = (Data::new(), module(filter("stamp")));
    let host = Arc::new(data.start(Limits { compilers: 8, ..Limits::default() }));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| start(&host, &stamp));
        }
    });
    assert_eq!(data.files(), [data.of(&stamp)]);
    let again = data.start(Limits::default());
    start(&again, &stamp);
    assert_eq!(counted(&again), (0, 1, 0, 0), "what was written by several is whole");
}
