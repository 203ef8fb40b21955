//! The built gateway as a process: started on ports that the system picks, watched, and ended by its id.

use crate::{Rest, certificates::Authority, wait::until};
use std::{
    io::{BufRead, BufReader, Read},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    thread::JoinHandle,
    time::Duration,
};
use tempfile::TempDir;

/// How a gateway is started.
#[derive(Debug, Clone)]
pub struct Options {
    /// Data-plane threads.
    pub workers: usize,
    /// Flags besides the ones that every test needs.
    pub flags: Vec<String>,
    /// Environment variables.
    pub environment: Vec<(String, String)>,
    /// How many files the process may have open, where that is not what this one may.
    pub open_files: Option<usize>,
}

impl Default for Options {
    fn default() -> Self {
        Self { workers: 2, flags: Vec::new(), environment: Vec::new(), open_files: None }
    }
}

impl Options {
    /// With one more flag and its value.
    #[must_use]
    pub fn flag(mut self, flag: &str, value: impl ToString) -> Self {
        self.flags.extend([flag.to_owned(), value.to_string()]);
        self
    }

    /// With one more environment variable.
    #[must_use]
    pub fn variable(mut self, name: &str, value: impl ToString) -> Self {
        self.environment.push((name.to_owned(), value.to_string()));
        self
    }
}

impl Options {
    /// With the mutual TLS listener on, whose certificate `authority` signs and whose callers it must have signed too. The
    /// files are put into `directory`.
    #[must_use]
    pub fn mutual_tls(self, directory: &Path, authority: &Authority) -> Self {
        let leaf = authority.server(&["localhost"]);
        let file = |name: &str, text: &str| {
            let path = directory.join(name);
            std::fs::write(&path, text).expect("a temporary file can be written");
            path.display().to_string()
        };
        self.flag("--mtls-listen", "127.0.0.1:0")
            .flag("--mtls-certificate", file("mtls.pem", &leaf.chain_pem))
            .flag("--mtls-key", file("mtls.key", &leaf.key_pem))
            .flag("--mtls-client-ca", file("callers.pem", &authority.pem()))
    }
}

/// Where a gateway listens, as it says itself in `addresses.json`.
#[derive(Debug, Clone, serde::Deserialize)]
pub struct Addresses {
    /// The plaintext proxy listener.
    pub proxy: SocketAddr,
    /// The mutual TLS proxy listener, where it has a certificate.
    #[serde(default)]
    pub mtls: Option<SocketAddr>,
    /// The REST API.
    pub admin: SocketAddr,
    /// Metrics and health.
    pub metrics: SocketAddr,
}

/// A running gateway; killed when dropped.
pub struct Gateway {
    /// Where it listens.
    pub addresses: Addresses,
    child: Child,
    directory: Arc<Directory>,
    output: Arc<Output>,
}

/// A data directory: the test's own and kept, or made for one gateway and removed with it.
#[derive(Debug)]
pub struct Directory(PathBuf, #[expect(dead_code, reason = "removes the directory when dropped")] Option<TempDir>);

#[derive(Debug, Default)]
struct Output(Mutex<String>);

impl Directory {
    /// A new, empty one, removed when the last user is gone.
    pub fn new() -> Arc<Self> {
        let made = tempfile::Builder::new().prefix("tidegate-").tempdir().expect("a temporary directory can be made");
        Arc::new(Self(made.path().to_owned(), Some(made)))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Gateway {
    /// Starts on an empty data directory and waits until it is ready.
    pub async fn start(options: &Options) -> Self {
        Self::start_in(Directory::new(), options).await
    }

    /// Starts in `directory` and waits until it is ready.
    ///
    /// # Panics
    /// When it ends instead; what it printed is in the message.
    pub async fn start_in(directory: Arc<Directory>, options: &Options) -> Self {
        let (mut child, output, _) = spawn(directory.path(), options);
        let file = directory.path().join("addresses.json");
        let addresses: Addresses = until("the gateway to say where it listens", async || {
            if let Some(status) = child.try_wait().expect("a child can be waited for") {
                panic!("the gateway ended with {status} instead of starting:\n{}", output.text());
            }
            serde_json::from_slice(&std::fs::read(&file).ok()?).ok()
        })
        .await;
        let gateway = Self { addresses, child, directory, output };
        until("the gateway to be ready", async || {
            let answer = crate::rest::ask(gateway.addresses.metrics, "GET", "/readyz", &[], Vec::new()).await.ok()?;
            (answer.status == 200).then_some(())
        })
        .await;
        gateway
    }

    /// A client of its REST API that brings the admin token of its first start.
    pub fn rest(&self) -> Rest {
        let file = self.directory.path().join("admin.token");
        let token = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        Rest::new(self.addresses.admin, token.trim())
    }

    /// Its data directory.
    pub fn directory(&self) -> &Arc<Directory> {
        &self.directory
    }

    /// Everything it has printed, on both streams.
    pub fn output(&self) -> String {
        self.output.text()
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How many files it has open.
    pub fn open_files(&self) -> usize {
        let path = format!("/proc/{}/fd", self.id());
        std::fs::read_dir(&path).unwrap_or_else(|error| panic!("{path}: {error}")).count()
    }

    /// The largest resident set it ever had, in bytes (`VmHWM`).
    pub fn peak_memory_bytes(&self) -> u64 {
        let path = format!("/proc/{}/status", self.id());
        let status = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("the kernel reports it");
        let kib: u64 = line.trim().trim_end_matches(" kB").trim().parse().expect("a number of KiB");
        kib * 1024
    }

    /// Asks it to end (SIGTERM).
    pub fn terminate(&self) {
        self.signal("TERM");
    }

    /// Ends it on the spot (SIGKILL), as a crash or a power cut of the machine's processes would.
    pub fn kill(&mut self) {
        self.signal("KILL");
        self.child.wait().expect("a child can be waited for");
    }

    fn signal(&self, name: &str) {
        let status = Command::new("kill").args(["-s", name, &self.id().to_string()]).status();
        assert!(status.is_ok_and(|status| status.success()), "the gateway is gone already:\n{}", self.output());
    }

    /// How it ended, once it has.
    pub async fn ended(&mut self) -> ExitStatus {
        let child = &mut self.child;
        until("the gateway to end", async || child.try_wait().expect("a child can be waited for")).await
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        self.child.try_wait().expect("a child can be waited for").is_none()
    }

    /// The value of a metric, summed over all its label sets that contain `labels`.
    pub async fn metric(&self, name: &str, labels: &str) -> f64 {
        let text = self.metrics().await;
        let lines = text
            .lines()
            .filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])) && line.contains(labels));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// All metrics, in the Prometheus text format.
    pub async fn metrics(&self) -> String {
        let answer = crate::rest::ask(self.addresses.metrics, "GET", "/metrics", &[], Vec::new()).await;
        answer.unwrap_or_else(|error| panic!("metrics cannot be read: {error}")).text()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // It may have ended by itself, and a test that is unwinding must not fail twice.
        let _: std::io::Result<()> = self.child.kill();
        let _: std::io::Result<ExitStatus> = self.child.wait();
        if std::thread::panicking() {
            use std::io::Write;
            let _: std::io::Result<()> = writeln!(std::io::stderr().lock(), "--- the gateway said:\n{}", self.output());
        }
    }
}

/// Runs a gateway that is expected not to start: its exit status and what it printed.
pub async fn refuse_to_start(directory: &Path, options: &Options) -> (ExitStatus, String) {
    let (mut child, output, readers) = spawn(directory, options);
    let status = tokio::time::timeout(
        crate::wait::LIMIT,
        until("the gateway to give up", async || child.try_wait().expect("a child can be waited for")),
    )
    .await;
    let Ok(status) = status else {
        let _: std::io::Result<()> = child.kill();
        panic!("the gateway started although it should not have:\n{}", output.text());
    };
    // Its last words may still be on their way.
    for reader in readers {
        reader.join().expect("a reader ends with the process");
    }
    (status, output.text())
}

/// Runs a subcommand of the gateway's binary, such as `token`, and returns how it ended and what it printed.
pub fn run(arguments: &[&str]) -> (ExitStatus, String, String) {
    let output = Command::new(binary()).args(arguments).output().expect("the built gateway can be run");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status, text(&output.stdout), text(&output.stderr))
}

fn spawn(directory: &Path, options: &Options) -> (Child, Arc<Output>, [JoinHandle<()>; 2]) {
    // A file of an earlier run says where that run listened.
    let _: std::io::Result<()> = std::fs::remove_file(directory.join("addresses.json"));
    let mut command = match options.open_files {
        None => Command::new(binary()),
        // The shell limits itself, and becomes the gateway.
        Some(files) => {
            let mut shell = Command::new("sh");
            shell.args(["-c", "ulimit -n \"$0\" && exec \"$@\"", &files.to_string()]).arg(binary());
            shell
        }
    };
    command.arg("serve").arg("--data-dir").arg(directory).args(["--workers", &options.workers.to_string()]);
    for flag in ["--proxy-listen", "--admin-listen", "--metrics-listen"] {
        if !options.flags.iter().any(|given| given == flag) {
            command.args([flag, "127.0.0.1:0"]);
        }
    }
    command.args(&options.flags).envs(options.environment.iter().cloned());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the built gateway can be run");
    let output = Arc::new(Output::default());
    let readers = [
        output.keep(child.stdout.take().expect("its output is piped")),
        output.keep(child.stderr.take().expect("its output is piped")),
    ];
    (child, output, readers)
}

impl Output {
    fn keep(self: &Arc<Self>, from: impl Read + Send + 'static) -> JoinHandle<()> {
        let kept = Arc::clone(self);
        std::thread::spawn(move || {
            for line in BufReader::new(from).lines().map_while(Result::ok) {
                let mut text = kept.0.lock().expect("nobody panics within");
                text.push_str(&line);
                text.push('\n');
            }
        })
    }

    fn text(&self) -> String {
        self.0.lock().expect("nobody panics within").clone()
    }
}

/// The folder of the built binaries, `target/<profile>`, in which this test lies too.
pub fn build_directory() -> PathBuf {
    let own = std::env::current_exe().expect("a process knows its program");
    let folder = own.parent().expect("a program lies in a folder");
    let folder = if folder.ends_with("deps") { folder.parent().expect("deps lies in a profile's folder") } else { folder };
    folder.to_owned()
}

/// The built gateway.
///
/// # Panics
/// When it has not been built, saying how to build it.
pub fn binary() -> PathBuf {
    let path = std::env::var_os("TIDEGATE_BINARY").map_or_else(|| build_directory().join("tidegate"), PathBuf::from);
    assert!(path.exists(), "{} is missing; build it first: cargo build -p tidegate-gateway (make test does)", path.display());
    path
}

/// How long a change made over REST may take until it is in force on every worker. The design allows 50 ms; a debug build
/// on a machine that runs other tests beside this one gets more.
pub const IN_FORCE_WITHIN: Duration = Duration::from_secs(5);
