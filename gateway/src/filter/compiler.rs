//! Where modules are compiled: in a process of its own for each, since compilers recurse, and take time and memory out of
//! proportion to what they are given. A module that makes one of them fall over costs that process and nothing else.
//!
//! The process is this program again, as `tidegate compile`. It is sent an order and answers with what was compiled, under a
//! seal whose key only the two know, or with the reasons for refusing it.

use super::{core::contract::TERMS, engine, inspect, limits::Limits};
use aws_lc_rs::rand;
use rustix::process::{Resource, Rlimit, Signal, set_parent_process_death_signal, setrlimit};
use std::{
    io::{self, Read, Write},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
};
use tidegate_artefact::{Key, Native};
use tidegate_policy::plugin::Digest;
use wasmtime::Engine;
use zeroize::Zeroizing;

/// The command of this program that does it.
pub const COMMAND: &str = "compile";

/// The stack of the thread that compiles. Validators recurse once for each level of what is nested; the default of 2 MiB has
/// overflowed on honest modules elsewhere.
pub(super) const STACK_BYTES: usize = 8 << 20;
/// The first byte of an answer.
const COMPILED: u8 = 0;
const REFUSED: u8 = 1;

/// A process that compiles, so that it can be ended while somebody else reads from it.
#[derive(Clone, Default)]
pub(super) struct Process(Arc<Mutex<Option<Child>>>);

/// What a process is told before the module's bytes, each number as 8 bytes, little-endian.
struct Order {
    /// What the answer is sealed with.
    secret: Zeroizing<[u8; 32]>,
    digest: [u8; 32],
    module_bytes: u64,
    memory_bytes: u64,
    seconds: u64,
}

impl Process {
    fn child(&self) -> MutexGuard<'_, Option<Child>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends it, whatever it is doing.
    pub(super) fn end(&self) {
        if let Some(child) = self.child().as_mut() {
            // One that has ended by itself is as good.
            let _ended = child.kill();
        }
    }

    /// Has `program` compile `bytes`. Ends when the process has.
    pub(super) fn compile(
        &self,
        program: &Path,
        engine: &Engine,
        limits: &Limits,
        digest: Digest,
        bytes: &[u8],
    ) -> Result<Native, Vec<String>> {
        let trouble = |error: io::Error| vec![format!("the compiler could not be run: {error}; try again later")];
        let mut secret = Zeroizing::new([0; 32]);
        rand::fill(&mut *secret).map_err(|_| trouble(io::Error::other("there are no random numbers")))?;
        let mut child = Command::new(program)
            .arg(COMMAND)
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // What it might say there could be the module's words.
            .stderr(Stdio::null())
            .spawn()
            .map_err(trouble)?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        self.child().replace(child);
        let key = Key::new(&secret, TERMS);
        let order = Order {
            secret,
            digest: *digest.bytes(),
            module_bytes: limits.module_bytes as u64,
            memory_bytes: limits.compile_memory_bytes as u64,
            seconds: limits.compile.as_secs().saturating_add(1),
        };
        // What it answers with begins with one byte that says of which kind it is.
        let most = limits.artefact_bytes.saturating_add(1);
        let (written, answer) = thread::scope(|scope| {
            let write = || input.map_or(Ok(()), |mut input| order.write(&mut input).and_then(|()| input.write_all(bytes)));
            let writing = scope.spawn(write);
            let mut answer = Vec::new();
            let read = output.map_or(Ok(0), |output| output.take((most as u64).saturating_add(1)).read_to_end(&mut answer));
            let written = writing.join().unwrap_or_else(|_| Err(io::Error::other("the order could not be written")));
            (written, read.map(|_| answer))
        });
        let child = self.child().take();
        let ended = child.map(|mut child| child.wait()).transpose();
        let answer = answer.map_err(trouble)?;
        if answer.len() > most {
            let limit = limits.artefact_bytes;
            let detail = format!("what was compiled is larger than {limit} bytes (setting filter_artefact_bytes)");
            return Err(vec![format!("{detail}; make the module smaller, or let more be kept")]);
        }
        match answer.split_first() {
            Some((&COMPILED, sealed)) => tidegate_artefact::open(&key, digest.bytes(), engine, sealed)
                .map_err(|refusal| vec![format!("what was compiled cannot be used: {refusal}; try again later")]),
            Some((&REFUSED, reasons)) => {
                Err(serde_json::from_slice(reasons).unwrap_or_else(|error| trouble(io::Error::other(error))))
            }
            _ => {
                let end = ended.map_err(trouble)?.map(|status| status.to_string()).unwrap_or_default();
                let limit = limits.compile_memory_bytes;
                // One that refuses a module early reads no more of it, which is no failure; this one says nothing.
                if let Err(error) = written {
                    let detail = format!("the compiler ended before it had read the whole module ({end}): {error}");
                    return Err(vec![format!(
                        "{detail}; it has {limit} bytes of memory for it (setting filter_compile_memory_bytes); try again later"
                    )]);
                }
                Err(vec![format!(
                    "the compiler fell over it ({end}): it is nested too deeply, or takes more than {limit} bytes (setting filter_compile_memory_bytes); make it smaller or flatter"
                )])
            }
        }
    }
}

impl Order {
    fn write(&self, output: &mut impl Write) -> io::Result<()> {
        output.write_all(&*self.secret)?;
        output.write_all(&self.digest)?;
        [self.module_bytes, self.memory_bytes, self.seconds]
            .iter()
            .try_for_each(|number| output.write_all(&number.to_le_bytes()))
    }

    fn read(input: &mut impl Read) -> io::Result<Self> {
        let (mut secret, mut digest, mut numbers) = (Zeroizing::new([0; 32]), [0; 32], [[0; 8]; 3]);
        input.read_exact(&mut *secret)?;
        input.read_exact(&mut digest)?;
        for number in &mut numbers {
            input.read_exact(number)?;
        }
        let [module_bytes, memory_bytes, seconds] = numbers.map(u64::from_le_bytes);
        Ok(Self { secret, digest, module_bytes, memory_bytes, seconds })
    }

    /// Bounds this process for good. The kernel ends it when its time is over, or when the gateway has ended.
    fn bound(&self) -> io::Result<()> {
        let threads = thread::available_parallelism().map_or(1, |threads| threads.get() as u64);
        for (resource, most) in
            [(Resource::As, self.memory_bytes), (Resource::Cpu, self.seconds.saturating_mul(threads)), (Resource::Core, 0)]
        {
            setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) })?;
        }
        set_parent_process_death_signal(Some(Signal::KILL))?;
        Ok(())
    }
}

/// Does one order: what such a process is for. What it reads and writes is its standard input and output.
///
/// # Errors
/// The order cannot be read, the answer cannot be written, or the process cannot be bounded.
pub fn serve(mut input: impl Read, mut output: impl Write) -> io::Result<()> {
    let order = Order::read(&mut input)?;
    order.bound()?;
    let mut bytes = Vec::new();
    input.take(order.module_bytes.saturating_add(1)).read_to_end(&mut bytes)?;
    let limits = Limits { module_bytes: usize::try_from(order.module_bytes).unwrap_or(usize::MAX), ..Limits::default() };
    let work = move || {
        let engine = Engine::new(&engine::config()).map_err(|error| vec![format!("{error:#}")])?;
        let native = inspect::compile(&engine, &limits, &bytes)?;
        tidegate_artefact::seal(&Key::new(&order.secret, TERMS), &order.digest, &native)
            .map_err(|error| vec![format!("{error:#}")])
    };
    let compiled = thread::Builder::new().stack_size(STACK_BYTES).spawn(work)?.join();
    match compiled.unwrap_or_else(|_| Err(vec!["the compiler failed on it; rebuild it with a current toolchain".to_owned()])) {
        Ok(sealed) => {
            output.write_all(&[COMPILED])?;
            output.write_all(&sealed)?;
        }
        Err(reasons) => {
            output.write_all(&[REFUSED])?;
            serde_json::to_writer(&mut output, &reasons)?;
        }
    }
    output.flush()
}
