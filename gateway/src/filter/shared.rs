//! What filters call about what their plugin holds beyond their instances: the values it shares and what it counts.

use super::{bindings::tidegate::filter::kv::KvError, instruments, kv::Refusal, state::State};
use crate::telemetry;
use std::{sync::Arc, time::Duration};
use wasmtime::{Result, bail};

/// A metric that an instance has a handle to. One that could not be made is nothing: what is counted with it is lost.
#[derive(Debug)]
pub(super) enum Instrument {
    Counter(Option<Arc<telemetry::Counter>>),
    Gauge(Option<Arc<telemetry::Gauge>>),
    Histogram(Option<Arc<instruments::Histogram>>),
}

/// Which of them it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Measure {
    Counter,
    Gauge,
    Histogram,
}

impl Instrument {
    const fn measure(&self) -> Measure {
        match self {
            Self::Counter(_) => Measure::Counter,
            Self::Gauge(_) => Measure::Gauge,
            Self::Histogram(_) => Measure::Histogram,
        }
    }
}

impl State {
    /// Makes a metric, or finds it; its place among the instance's own, which its handle is for.
    pub(super) fn make(&mut self, measure: Measure, name: &str) -> u32 {
        let made = &self.holding.instruments;
        let made = Some(match measure {
            Measure::Counter => Instrument::Counter(made.counter(name)),
            Measure::Gauge => Instrument::Gauge(made.gauge(name)),
            Measure::Histogram => Instrument::Histogram(made.histogram(name)),
        });
        // What was dropped leaves its place to the next; how many there are is bounded by the handles an instance may hold.
        let place = self.instruments.iter().position(Option::is_none).unwrap_or(self.instruments.len());
        match self.instruments.get_mut(place) {
            Some(slot) => *slot = made,
            None => self.instruments.push(made),
        }
        u32::try_from(place).unwrap_or(u32::MAX)
    }

    /// How many metrics the instance has handles to.
    pub(super) fn instruments_held(&self) -> usize {
        self.instruments.iter().flatten().count()
    }

    pub(super) fn count(&self, place: u32, amount: u64) -> Result<()> {
        match self.instrument(place) {
            Some(Instrument::Counter(counter)) => counter.iter().for_each(|counter| counter.add(amount)),
            _ => bail!("a handle was used that is no counter's"),
        }
        Ok(())
    }

    pub(super) fn set_gauge(&self, place: u32, value: i64) -> Result<()> {
        match self.instrument(place) {
            Some(Instrument::Gauge(gauge)) => gauge.iter().for_each(|gauge| gauge.set(value)),
            _ => bail!("a handle was used that is no gauge's"),
        }
        Ok(())
    }

    pub(super) fn move_gauge(&self, place: u32, amount: i64) -> Result<()> {
        match self.instrument(place) {
            Some(Instrument::Gauge(gauge)) => gauge.iter().for_each(|gauge| gauge.add(amount)),
            _ => bail!("a handle was used that is no gauge's"),
        }
        Ok(())
    }

    pub(super) fn observe(&self, place: u32, value: u64) -> Result<()> {
        match self.instrument(place) {
            Some(Instrument::Histogram(histogram)) => histogram.iter().for_each(|histogram| histogram.observe(value)),
            _ => bail!("a handle was used that is no histogram's"),
        }
        Ok(())
    }

    /// Lets go of a metric; what it has counted stays.
    pub(super) fn drop_instrument(&mut self, measure: Measure, place: u32) -> Result<()> {
        match self.instruments.get_mut(place as usize) {
            Some(slot) if slot.as_ref().is_some_and(|there| there.measure() == measure) => {
                *slot = None;
                Ok(())
            }
            _ => bail!("a handle was dropped that is not there"),
        }
    }

    fn instrument(&self, place: u32) -> Option<&Instrument> {
        self.instruments.get(place as usize)?.as_ref()
    }
}

/// How long a value is kept.
pub(super) fn time_to_live(milliseconds: Option<u32>) -> Option<Duration> {
    milliseconds.map(|milliseconds| Duration::from_millis(milliseconds.into()))
}

impl From<Refusal> for KvError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::TooLarge => Self::TooLarge,
            Refusal::Full => Self::Full,
            Refusal::Mismatch => Self::Mismatch,
        }
    }
}
