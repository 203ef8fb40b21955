//! Takes the workers' batches to the record log and on to the control plane. A thread of its own, so that a slow disk or
//! a full pipe behind standard output holds up nothing but records.

use super::ledger::WhenFull;
use crate::telemetry::{
    Counter,
    page::{Kind, Page},
};
use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{Builder, JoinHandle},
};
use tidegate_policy::exchange::Batch;
use tokio::sync::mpsc;

/// Where records go as JSON lines.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Log {
    /// Nowhere; the control plane still has them.
    Off,
    /// To standard output.
    #[default]
    Stdout,
    /// To this file, which is appended to, and opened again on SIGHUP so that it can be rotated.
    File(PathBuf),
}

/// What is counted of the way behind the queue.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Records written to the log.
    pub logged: Counter,
    /// Records that could not be written to the log.
    pub failed: Counter,
    /// Records that reached the control plane's queue.
    pub forwarded: Counter,
    /// Records that the control plane's queue had no room for.
    pub unforwarded: Counter,
}

/// The running recorder.
#[derive(Debug)]
pub struct Recorder {
    thread: JoinHandle<()>,
    reopen: Arc<AtomicBool>,
}

/// What a recorder works with.
#[derive(Debug)]
pub struct Parts {
    /// Where lines go.
    pub log: Log,
    /// What happens when the control plane's queue is full.
    pub when_full: WhenFull,
    /// The workers' batches.
    pub batches: mpsc::Receiver<Batch>,
    /// The control plane's queue.
    pub forward: mpsc::Sender<Batch>,
    /// Where it counts.
    pub metrics: Arc<Metrics>,
}

struct Sink {
    log: Log,
    file: Option<File>,
    /// Whether the last write failed, so that a failure is logged once and not with every batch.
    failing: bool,
}

impl Recorder {
    /// Opens the log and starts the thread. It ends when every worker's end of the queue is gone and all is written.
    ///
    /// # Errors
    /// The log file cannot be opened, or the thread cannot be started; a sentence that says what to do.
    pub fn start(parts: Parts) -> Result<Self, String> {
        let file = match &parts.log {
            Log::File(path) => Some(open(path).map_err(|error| refusal(path, &error))?),
            Log::Off | Log::Stdout => None,
        };
        let reopen = Arc::new(AtomicBool::new(false));
        let sink = Sink { log: parts.log.clone(), file, failing: false };
        let flag = Arc::clone(&reopen);
        let thread = Builder::new()
            .name("recorder".to_owned())
            .spawn(move || {
                crate::background::give_way();
                record(parts, sink, &flag);
            })
            .map_err(|error| format!("the recorder's thread could not be started: {error}"))?;
        Ok(Self { thread, reopen })
    }

    /// Has the log file opened again before the next batch is written.
    pub fn reopener(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.reopen)
    }

    /// Waits until everything is written. The workers' ends of the queue must be gone.
    pub fn join(self) {
        if self.thread.join().is_err() {
            tracing::error!("the recorder failed; the last records may be missing from the record log");
        }
    }
}

fn record(mut parts: Parts, mut sink: Sink, reopen: &AtomicBool) {
    while let Some(batch) = parts.batches.blocking_recv() {
        if reopen.swap(false, Ordering::Relaxed) {
            sink.reopen();
        }
        let count = u64::from(batch.count);
        match sink.write(&batch.lines) {
            Ok(true) => parts.metrics.logged.add(count),
            Ok(false) => {}
            Err(()) => parts.metrics.failed.add(count),
        }
        let sent = match parts.when_full {
            WhenFull::Wait => parts.forward.blocking_send(batch).is_ok(),
            WhenFull::Drop => parts.forward.try_send(batch).is_ok(),
        };
        if sent { parts.metrics.forwarded.add(count) } else { parts.metrics.unforwarded.add(count) }
    }
}

impl Sink {
    /// Whether `lines` were written to a log. A failure is logged when it begins.
    fn write(&mut self, lines: &[u8]) -> Result<bool, ()> {
        let written = match (&self.log, &mut self.file) {
            (Log::Off, _) => return Ok(false),
            (Log::Stdout, _) => {
                let mut out = io::stdout().lock();
                out.write_all(lines).and_then(|()| out.flush())
            }
            (Log::File(_), Some(file)) => file.write_all(lines),
            (Log::File(_), None) => Err(io::Error::other("the file is not open")),
        };
        match written {
            Ok(()) => {
                self.failing = false;
                Ok(true)
            }
            Err(error) => {
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::error!(error = %error, "records cannot be written to the record log; free its disk or reopen it with SIGHUP");
                }
                Err(())
            }
        }
    }

    fn reopen(&mut self) {
        let Log::File(path) = &self.log else { return };
        match open(path) {
            Ok(file) => self.file = Some(file),
            Err(error) => tracing::error!("{}; the old file is kept", refusal(path, &error)),
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

fn refusal(path: &Path, error: &io::Error) -> String {
    format!("the record log {} cannot be opened for appending ({error}); change record_log or its permissions", path.display())
}

impl Metrics {
    /// Writes the numbers to `page`.
    pub fn write(&self, page: &mut Page) {
        let log =
            page.family(Kind::Counter, "tidegate_records_logged_total", "Records by what became of them at the record log.");
        log.add(&[("outcome", "written")], self.logged.value());
        log.add(&[("outcome", "failed")], self.failed.value());
        let help = "Records by what became of them at the control plane's queue.";
        let store = page.family(Kind::Counter, "tidegate_records_forwarded_total", help);
        store.add(&[("outcome", "accepted")], self.forwarded.value());
        store.add(&[("outcome", "dropped")], self.unforwarded.value());
    }
}
