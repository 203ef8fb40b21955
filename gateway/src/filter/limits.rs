//! Limits on what filters may use, and the counters that say when one was met.

use crate::telemetry::{Counter, Gauge};
use std::time::Duration;

/// Limits on what a filter may use. Each has a setting and a metric.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Linear memory of one instance, in bytes. 32 MiB hold a descriptor set or a schema with room; a worker has one
    /// instance of each filter, so this times the filters times the workers is the most that filters can take.
    pub memory_bytes: usize,
    /// Table elements of one instance. Toolchains put one function pointer per indirectly called function there.
    pub table_elements: usize,
    /// Processor time for one callback. Callbacks take microseconds, and a worker serves nobody else meanwhile, so this is
    /// the longest pause that one filter can cause. A worker that waits for its core spends at most a tenth of it by that.
    pub callback: Duration,
    /// Processor time for starting an instance and for its `configure`.
    pub configure: Duration,
    /// Bytes a filter may hand to the host in one call.
    pub hostcall_bytes: usize,
    /// Handles an instance may hold: one for each of its metrics, and the three at most that it is lent in a callback.
    pub handles: usize,
    /// Exchanges that may be open on one instance. What a filter keeps of each takes of its memory.
    pub exchanges: usize,
    /// Uploaded size. A filter in Rust takes some hundred KiB; one that brings its own interpreter takes 12 to 18 MiB.
    pub module_bytes: usize,
    /// Time for compiling a module. Cranelift takes about a second for 1 MiB.
    pub compile: Duration,
    /// Address space of the process that compiles a module. A module of 18 MiB took less than one
    /// GiB, beside what allocator and threads reserve.
    pub compile_memory_bytes: usize,
    /// Modules compiled at once; compiling cannot be interrupted, so one that ran out of time still counts until it ends.
    pub compilers: usize,
    /// Compiled modules kept for `configure` and the next publication although no route uses them.
    pub compiled: usize,
    /// Fields of a message that a filter wrote to.
    pub header_count: usize,
    /// Bytes of names and values of a message that a filter wrote to. What HTTP servers accept at most in their defaults.
    pub header_bytes: usize,
    /// Bytes of a message's body that are held for one filter: what it asked to hold or buffer, and what it makes of that.
    pub body_bytes: usize,
    /// Bytes of bodies that are held for filters, all exchanges together: a caller that sends all but the last byte of a body
    /// has it held for as long as it likes to go on, and can open many exchanges. What filters' own calls send and bring is among them:
    /// alone, `calls` times twice `call_bytes` would be 256 MiB for each filter, and many times that for streams of messages.
    pub held_bytes: usize,
    /// Exchanges of one worker that may have an instance of a filter to themselves: those of `isolation: exchange`, and
    /// of filters with calls of their own.
    pub own_instances: usize,
    /// Linear memory of all those instances, all filters and workers together: without it one filter could take `own_instances` times
    /// `memory_bytes` on each worker, which is 2 GiB. Those that wait for their next exchange have at most half of it, and make room
    /// for one that the same worker needs now.
    pub own_memory_bytes: usize,
    /// Calls of its own that one filter may have open, all workers together.
    pub calls: usize,
    /// Calls of its own that one filter may make in one exchange.
    pub calls_per_exchange: u32,
    /// Longest time for such a call, from its beginning to the last byte of its answer.
    pub call_timeout: Duration,
    /// Bytes of the body of such a call, and of that of its answer.
    pub call_bytes: usize,
    /// Attributes that the filters of one exchange may set.
    pub attribute_count: usize,
    /// Bytes of names and values of those.
    pub attribute_bytes: usize,
    /// Audit events of one filter in one exchange.
    pub event_count: usize,
    /// Bytes of audit events of one filter in one exchange.
    pub event_bytes: usize,
    /// Log messages of one instance in a second; as many again may come at once.
    pub log_rate: u32,
    /// Bytes of one log message; longer ones are cut.
    pub log_bytes: usize,
    /// Longest wait before an instance that keeps failing is started again. Starting takes some 50 µs, so short waits are
    /// affordable, and long ones would punish callers who did nothing.
    pub back_off: Duration,
    /// Compiled modules kept on disk. One for each that is registered, and those before it for a while.
    pub artefacts: usize,
    /// Bytes of them, all together. Native code has about five times the size of the module.
    pub artefact_bytes: usize,
    /// How long an instance may serve nothing before it is dropped. Starting another takes some 50 µs.
    pub idle: Duration,
    /// Values that one plugin may share among its instances.
    pub kv_entries: usize,
    /// Bytes of their keys and values, all together.
    pub kv_bytes: usize,
    /// Bytes of one key.
    pub kv_key_bytes: usize,
    /// Bytes of one value.
    pub kv_value_bytes: usize,
    /// Queues that the Proxy-Wasm VMs of one `vm_id` may share.
    pub queues: usize,
    /// Messages that wait in one of them.
    pub queue_messages: usize,
    /// Bytes of those.
    pub queue_bytes: usize,
    /// Metrics that one plugin may define. Every one is a series, a histogram up to 67.
    pub instruments: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_bytes: 32 << 20,
            table_elements: 20_000,
            callback: Duration::from_millis(100),
            configure: Duration::from_secs(1),
            hostcall_bytes: 1 << 20,
            handles: 1024,
            exchanges: 16_384,
            module_bytes: 32 << 20,
            compile: Duration::from_secs(30),
            compile_memory_bytes: 3 << 30,
            compilers: 2,
            compiled: 64,
            header_count: 128,
            header_bytes: 64 << 10,
            body_bytes: 1 << 20,
            held_bytes: 256 << 20,
            own_instances: 64,
            own_memory_bytes: 1 << 30,
            calls: 256,
            calls_per_exchange: 8,
            call_timeout: Duration::from_secs(10),
            call_bytes: 512 << 10,
            attribute_count: 32,
            attribute_bytes: 16 << 10,
            event_count: 16,
            event_bytes: 16 << 10,
            log_rate: 50,
            log_bytes: 4 << 10,
            back_off: Duration::from_secs(1),
            artefacts: 1024,
            artefact_bytes: 1 << 30,
            idle: Duration::from_secs(300),
            kv_entries: 10_000,
            kv_bytes: 16 << 20,
            kv_key_bytes: 1 << 10,
            kv_value_bytes: 64 << 10,
            queues: 64,
            queue_messages: 1024,
            queue_bytes: 1 << 20,
            instruments: 64,
        }
    }
}

/// What the filter host counts, all workers together.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Callbacks that failed: traps, time, memory, invalid answers.
    pub failures: Counter,
    /// Of those, the ones that ran out of time.
    pub timeouts: Counter,
    /// Exchanges that met a filter while it waited to be started again, or whose instance was lost to another's failure.
    pub unavailable: Counter,
    /// Answers given in the upstream's place.
    pub replies: Counter,
    /// Instances started.
    pub starts: Counter,
    /// Instances alive.
    pub instances: Gauge,
    /// Bytes of their linear memories.
    pub memory_bytes: Gauge,
    /// Memory growth refused.
    pub memory_refused: Counter,
    /// Bytes of the linear memories of instances that exchanges have to themselves.
    pub own_memory_bytes: Gauge,
    /// Of those, the ones of instances that wait for their next exchange.
    pub own_memory_idle_bytes: Gauge,
    /// Growth of those that was refused because they have as much together as they may.
    pub own_memory_refused: Counter,
    /// Table growth refused.
    pub tables_refused: Counter,
    /// Changes of first lines refused.
    pub lines_refused: Counter,
    /// Header changes refused.
    pub headers_refused: Counter,
    /// Body changes refused, and bodies that were too large to be held.
    pub bodies_refused: Counter,
    /// Bytes of bodies that are held, or were and are not sent yet.
    pub held_bytes: Gauge,
    /// Exchanges that ended, and calls of filters' own that were not made, because no more was to be held.
    pub held_refused: Counter,
    /// Times that a filter held as much of a tunnel as it may, so that nothing more was read.
    pub tunnels_full: Counter,
    /// Choices of the way out that were refused.
    pub wishes_refused: Counter,
    /// Calls that filters made.
    pub calls: Counter,
    /// Of those, the ones that got no answer.
    pub calls_failed: Counter,
    /// Attributes that could not be set.
    pub attributes_refused: Counter,
    /// Exchanges on which a filter that must leave an event left none.
    pub silent: Counter,
    /// Audit events dropped.
    pub events_dropped: Counter,
    /// Log messages dropped.
    pub logs_dropped: Counter,
    /// Modules compiled.
    pub compiled: Counter,
    /// Modules whose compilation ran out of time or found every compiler busy.
    pub compile_refused: Counter,
    /// Compiled modules that were taken from disk.
    pub artefacts_loaded: Counter,
    /// Those that another version of the gateway left there.
    pub artefacts_stale: Counter,
    /// Those that were damaged or not the gateway's own.
    pub artefacts_refused: Counter,
    /// Those that could not be read or written.
    pub artefacts_failed: Counter,
    /// Those that made room for others.
    pub artefacts_evicted: Counter,
    /// Compiled modules on disk.
    pub artefacts: Gauge,
    /// Their bytes.
    pub artefact_bytes: Gauge,
    /// Values not taken because of a limit.
    pub kv_refused: Counter,
    /// Values forgotten because their time was over.
    pub kv_expired: Counter,
    /// Messages that no queue had room for.
    pub queues_refused: Counter,
    /// Metrics of plugins that were not made: of another kind than before, without a proper name, or too many.
    pub instruments_refused: Counter,
    /// Instances dropped because they had served nothing for a while.
    pub idle_dropped: Counter,
}
