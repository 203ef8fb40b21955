//! The metrics that a VM has defined, by number. They are the plugin's instruments, the same on all workers.

use super::abi::{Answer, Metric, Status};
use crate::{
    filter::instruments::{Histogram, Instruments},
    telemetry::{Counter, Gauge},
};
use std::{borrow::Cow, sync::Arc};

/// The longest name of an instrument.
const NAME_BYTES: usize = 64;

/// What a VM has defined.
#[derive(Debug, Default)]
pub(super) struct Metrics(Vec<(Box<str>, Instrument)>);

#[derive(Debug)]
enum Instrument {
    Counter(Arc<Counter>),
    Gauge(Arc<Gauge>),
    Histogram(Arc<Histogram>),
    /// It could not be made: what is counted with it is lost.
    Nothing(Metric),
}

impl Metrics {
    /// The number of a metric. One that cannot be made has a number as well, since SDKs take a refusal for a failure.
    pub(super) fn define(&mut self, kind: Metric, name: &str, among: &Instruments, most: usize) -> Answer<u32> {
        let name = instrument_name(name);
        let same = |(other, instrument): &(Box<str>, Instrument)| **other == *name && instrument.kind() == kind;
        if let Some(place) = self.0.iter().position(same) {
            return u32::try_from(place).map_err(|_| Status::InternalFailure);
        }
        // Beyond the instruments that there may be, those that are none.
        if self.0.len() >= most.saturating_mul(2) {
            return Err(Status::InternalFailure);
        }
        let made = match kind {
            Metric::Counter => among.counter(&name).map(Instrument::Counter),
            Metric::Gauge => among.gauge(&name).map(Instrument::Gauge),
            Metric::Histogram => among.histogram(&name).map(Instrument::Histogram),
        };
        self.0.push((name.into(), made.unwrap_or(Instrument::Nothing(kind))));
        u32::try_from(self.0.len() - 1).map_err(|_| Status::InternalFailure)
    }

    pub(super) fn increment(&self, id: u32, by: i64) -> Answer {
        match self.find(id).ok_or(Status::BadArgument)? {
            Instrument::Counter(counter) => counter.add(u64::try_from(by).map_err(|_| Status::BadArgument)?),
            Instrument::Gauge(gauge) => gauge.add(by),
            Instrument::Nothing(Metric::Counter | Metric::Gauge) => {}
            Instrument::Histogram(_) | Instrument::Nothing(Metric::Histogram) => return Err(Status::BadArgument),
        }
        Ok(())
    }

    pub(super) fn record(&self, id: u32, value: u64) -> Answer {
        match self.find(id).ok_or(Status::NotFound)? {
            // As elsewhere: what is recorded of a counter is added to it.
            Instrument::Counter(counter) => counter.add(value),
            Instrument::Gauge(gauge) => gauge.set(i64::try_from(value).unwrap_or(i64::MAX)),
            Instrument::Histogram(histogram) => histogram.observe(value),
            Instrument::Nothing(_) => {}
        }
        Ok(())
    }

    pub(super) fn value(&self, id: u32) -> Answer<u64> {
        match self.find(id).ok_or(Status::BadArgument)? {
            Instrument::Counter(counter) => Ok(counter.value()),
            Instrument::Gauge(gauge) => Ok(u64::try_from(gauge.value()).unwrap_or_default()),
            Instrument::Nothing(Metric::Counter | Metric::Gauge) => Ok(0),
            Instrument::Histogram(_) | Instrument::Nothing(Metric::Histogram) => Err(Status::BadArgument),
        }
    }

    fn find(&self, id: u32) -> Option<&Instrument> {
        self.0.get(id as usize).map(|(_, instrument)| instrument)
    }
}

impl Instrument {
    fn kind(&self) -> Metric {
        match self {
            Self::Counter(_) => Metric::Counter,
            Self::Gauge(_) => Metric::Gauge,
            Self::Histogram(_) => Metric::Histogram,
            Self::Nothing(kind) => *kind,
        }
    }
}

/// The name as the gateway's page of metrics can have it: what other hosts allow beyond that becomes `_`.
fn instrument_name(name: &str) -> Cow<'_, str> {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    let begins = name.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase());
    if name.bytes().all(fits) && begins && name.len() <= NAME_BYTES {
        return Cow::Borrowed(name);
    }
    let mut fitted = String::with_capacity(name.len() + 1);
    if !name.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic()) {
        fitted.push('m');
    }
    let letters = name.bytes().map(|byte| byte.to_ascii_lowercase());
    fitted.extend(letters.map(|byte| if fits(byte) { char::from(byte) } else { '_' }));
    fitted.truncate(NAME_BYTES);
    Cow::Owned(fitted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::limits::Limits;

    #[test]
    fn metrics_are_what_their_kind_says() {
        let instruments = Instruments::new(Limits { instruments: 3, ..Limits::default() }, Arc::default());
        let mut metrics = Metrics::default();
        let mut define = |kind, name| metrics.define(kind, name, &instruments, 3).unwrap();
        let counter = define(Metric::Counter, "Requests.total;code");
        let gauge = define(Metric::Gauge, "level");
        let histogram = define(Metric::Histogram, "size");
        let nothing = define(Metric::Counter, "one_more");
        assert_eq!(define(Metric::Gauge, "level"), gauge, "it is the same");
        assert_eq!((metrics.increment(counter, 2), metrics.increment(counter, -1)), (Ok(()), Err(Status::BadArgument)));
        assert_eq!((metrics.increment(gauge, -3), metrics.record(gauge, 7)), (Ok(()), Ok(())));
        assert_eq!((metrics.record(histogram, 1), metrics.increment(histogram, 1)), (Ok(()), Err(Status::BadArgument)));
        assert_eq!((metrics.increment(nothing, 1), metrics.value(nothing)), (Ok(()), Ok(0)));
        assert_eq!((metrics.value(counter), metrics.value(gauge)), (Ok(2), Ok(7)));
        assert_eq!((metrics.record(counter, 1), metrics.value(counter)), (Ok(()), Ok(3)));
        assert_eq!((metrics.value(99), metrics.record(99, 1)), (Err(Status::BadArgument), Err(Status::NotFound)));
        assert!(instruments.counter("requests_total_code").is_some());
    }

    #[test]
    fn names_are_made_to_fit() {
        for (name, fitted) in [("a_1", "a_1"), ("wasm.A-b", "wasm_a_b"), ("1st", "m1st"), ("", "m"), ("_x", "m_x")] {
            assert_eq!(instrument_name(name), fitted);
        }
        assert_eq!(instrument_name(&"ä".repeat(100)).len(), NAME_BYTES);
    }
}
