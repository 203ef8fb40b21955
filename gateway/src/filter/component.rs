//! Filters as components: what they may call, as `bindgen!` has it, and what they export. Everything is copied from and into
//! their memory, and what it is for is done by the store's `State`, as for core modules.

pub(super) mod guest;

use super::{
    audit::{self, Fields},
    bindings::{
        Filter,
        tidegate::filter::{
            attributes::{self, Attr},
            audit::{Host as Audit, Outcome},
            host,
            kv::{self, Entry, KvError},
            message::{self, LineError},
            telemetry::{self, Counter, Gauge, Histogram, Level},
            types::{self, BodyError, HeaderError, HeaderOp, LocalReply},
            upstream::{self, PolicyError, TlsSettings},
        },
    },
    calls,
    headers::{self, Change, Refusal},
    lent::{BodyView, HeadersView},
    names::Names,
    shared::{Measure, time_to_live},
    state::State,
};
use http::HeaderValue;
use wasmtime::{
    Result, bail,
    component::{HasSelf, Linker, Resource},
};

/// Offers all interfaces of the plain world.
pub(super) fn link(linker: &mut Linker<State>) -> Result<()> {
    Filter::add_to_linker::<_, HasSelf<_>>(linker, |state| state)
}

fn bytes(value: &HeaderValue) -> Vec<u8> {
    value.as_bytes().to_vec()
}

impl types::Host for State {}

impl types::HostHeaders for State {
    fn get(&mut self, handle: Resource<HeadersView>, name: String) -> Result<Option<Vec<u8>>> {
        Ok(headers::get(self.headers(handle.rep())?, name.as_bytes()).map(bytes))
    }

    fn get_all(&mut self, handle: Resource<HeadersView>, name: String) -> Result<Vec<Vec<u8>>> {
        Ok(headers::get_all(self.headers(handle.rep())?, name.as_bytes()).map(bytes).collect())
    }

    fn get_many(&mut self, handle: Resource<HeadersView>, names: Vec<String>) -> Result<Vec<Option<Vec<u8>>>> {
        let values = headers::get_many(self.headers(handle.rep())?, &names, self.limits.memory_bytes);
        match values {
            Some(values) => Ok(values),
            None => bail!("more was asked for in one call than the filter's memory may hold"),
        }
    }

    fn entries(&mut self, handle: Resource<HeadersView>) -> Result<Vec<(String, Vec<u8>)>> {
        let entries = headers::entries(self.headers(handle.rep())?);
        Ok(entries.map(|(name, value)| (name.as_str().to_owned(), bytes(value))).collect())
    }

    fn set(
        &mut self,
        handle: Resource<HeadersView>,
        name: String,
        value: Vec<u8>,
    ) -> Result<std::result::Result<(), HeaderError>> {
        let change = Change::set(&mut self.names, name.as_bytes(), &value);
        self.change_header(handle.rep(), change)
    }

    fn apply(&mut self, handle: Resource<HeadersView>, ops: Vec<HeaderOp>) -> Result<std::result::Result<(), HeaderError>> {
        let changes = ops.iter().map(|op| change(&mut self.names, op)).collect();
        self.change_headers(handle.rep(), changes)
    }

    fn drop(&mut self, _: Resource<HeadersView>) -> Result<()> {
        // Handles are only ever lent, so there is nothing to drop.
        Ok(())
    }
}

fn change(names: &mut Names, op: &HeaderOp) -> std::result::Result<Change, Refusal> {
    match op {
        HeaderOp::Set((name, value)) => Change::set(names, name.as_bytes(), value),
        HeaderOp::Append((name, value)) => Change::append(names, name.as_bytes(), value),
        HeaderOp::Remove(name) => Change::remove(names, name.as_bytes()),
    }
}

impl types::HostBody for State {
    fn len(&mut self, handle: Resource<BodyView>) -> Result<u64> {
        Ok(self.body(handle.rep())?.len() as u64)
    }

    fn read(&mut self, handle: Resource<BodyView>, offset: u64, len: u32) -> Result<Vec<u8>> {
        Ok(self.read_body(handle.rep(), offset, len)?.to_vec())
    }

    fn splice(
        &mut self,
        handle: Resource<BodyView>,
        offset: u64,
        len: u64,
        data: Vec<u8>,
    ) -> Result<std::result::Result<(), BodyError>> {
        self.splice_body(handle.rep(), (offset, len), &data)
    }

    fn take(&mut self, handle: Resource<BodyView>) -> Result<Vec<u8>> {
        Ok(self.take_body(handle.rep())?.into())
    }

    fn drop(&mut self, _: Resource<BodyView>) -> Result<()> {
        Ok(())
    }
}

impl attributes::Host for State {
    fn get(&mut self, name: String) -> Result<Option<Attr>> {
        Ok(self.attribute(&name))
    }

    fn set(&mut self, name: String, value: Attr) -> Result<bool> {
        Ok(self.set_attribute(&name, value))
    }
}

impl message::Host for State {
    fn answer(&mut self, reply: LocalReply) -> Result<()> {
        Self::answer(self, reply);
        Ok(())
    }

    fn rewrite(&mut self, method: String, path: String) -> Result<std::result::Result<(), LineError>> {
        Ok(Self::rewrite(self, &method, &path))
    }

    fn set_status(&mut self, status: u16) -> Result<std::result::Result<(), LineError>> {
        Ok(Self::set_status(self, status))
    }
}

impl upstream::Host for State {
    fn select_service(&mut self, name: String) -> Result<std::result::Result<(), PolicyError>> {
        Ok(Self::select_service(self, &name))
    }

    fn select_endpoint(&mut self, address: String, port: u16) -> Result<std::result::Result<(), PolicyError>> {
        Ok(Self::select_endpoint(self, &address, port))
    }

    fn originate_tls(&mut self, settings: TlsSettings) -> Result<std::result::Result<(), PolicyError>> {
        Ok(Self::originate_tls(self, settings))
    }

    fn inject_secret(
        &mut self,
        header: String,
        credential: String,
        prefix: String,
    ) -> Result<std::result::Result<(), PolicyError>> {
        Ok(Self::inject_secret(self, &header, &credential, &prefix))
    }
}

impl Audit for State {
    fn emit(
        &mut self,
        kind: String,
        outcome: Outcome,
        known: Vec<(String, String)>,
        fields: Vec<(String, Attr)>,
    ) -> Result<bool> {
        let mut all = Fields::within(&self.limits);
        for (field, name) in known {
            all.add(field, || self.attribute(&name));
        }
        for (field, value) in fields {
            all.add(field, || Some(value));
        }
        Ok(self.record(kind, audit::outcome(outcome), all))
    }
}

impl telemetry::Host for State {
    fn enabled(&mut self, level: Level) -> Result<bool> {
        Ok(calls::enabled(level))
    }

    fn log(&mut self, level: Level, message: String) -> Result<()> {
        Self::log(self, level, &message);
        Ok(())
    }
}

impl telemetry::HostCounter for State {
    fn new(&mut self, name: String) -> Result<Resource<Counter>> {
        Ok(Resource::new_own(self.make(Measure::Counter, &name)))
    }

    fn add(&mut self, handle: Resource<Counter>, amount: u64) -> Result<()> {
        self.count(handle.rep(), amount)
    }

    fn drop(&mut self, handle: Resource<Counter>) -> Result<()> {
        self.drop_instrument(Measure::Counter, handle.rep())
    }
}

impl telemetry::HostGauge for State {
    fn new(&mut self, name: String) -> Result<Resource<Gauge>> {
        Ok(Resource::new_own(self.make(Measure::Gauge, &name)))
    }

    fn set(&mut self, handle: Resource<Gauge>, value: i64) -> Result<()> {
        self.set_gauge(handle.rep(), value)
    }

    fn add(&mut self, handle: Resource<Gauge>, amount: i64) -> Result<()> {
        self.move_gauge(handle.rep(), amount)
    }

    fn drop(&mut self, handle: Resource<Gauge>) -> Result<()> {
        self.drop_instrument(Measure::Gauge, handle.rep())
    }
}

impl telemetry::HostHistogram for State {
    fn new(&mut self, name: String) -> Result<Resource<Histogram>> {
        Ok(Resource::new_own(self.make(Measure::Histogram, &name)))
    }

    fn observe(&mut self, handle: Resource<Histogram>, value: u64) -> Result<()> {
        Self::observe(self, handle.rep(), value)
    }

    fn drop(&mut self, handle: Resource<Histogram>) -> Result<()> {
        self.drop_instrument(Measure::Histogram, handle.rep())
    }
}

impl kv::Host for State {
    fn get(&mut self, key: String) -> Result<Option<Entry>> {
        Ok(self.holding.store.get(&key).map(|entry| Entry { value: entry.value, version: entry.version }))
    }

    fn set(&mut self, key: String, value: Vec<u8>, ttl_ms: Option<u32>) -> Result<std::result::Result<u64, KvError>> {
        Ok(self.holding.store.set(&key, &value, time_to_live(ttl_ms)).map_err(KvError::from))
    }

    fn compare_and_set(
        &mut self,
        key: String,
        value: Vec<u8>,
        expect: u64,
        ttl_ms: Option<u32>,
    ) -> Result<std::result::Result<u64, KvError>> {
        let set = self.holding.store.compare_and_set(&key, &value, expect, time_to_live(ttl_ms));
        Ok(set.map_err(KvError::from))
    }

    fn increment(&mut self, key: String, delta: i64, ttl_ms: Option<u32>) -> Result<std::result::Result<i64, KvError>> {
        Ok(self.holding.store.increment(&key, delta, time_to_live(ttl_ms)).map_err(KvError::from))
    }

    fn remove(&mut self, key: String) -> Result<()> {
        self.holding.store.remove(&key);
        Ok(())
    }
}

impl host::Host for State {
    fn config(&mut self) -> Result<Vec<u8>> {
        Ok(self.config.to_vec())
    }

    fn now_ns(&mut self) -> Result<u64> {
        Ok(calls::now_ns())
    }

    fn monotonic_ns(&mut self) -> Result<u64> {
        Ok(Self::monotonic_ns(self))
    }

    fn random(&mut self, len: u32) -> Result<Vec<u8>> {
        calls::random(len)
    }
}
