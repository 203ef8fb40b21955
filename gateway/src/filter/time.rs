//! The time a call may take: processor time of its thread, so that a filter is not blamed for a worker that was not
//! scheduled. Looked at only when an epoch deadline is met, which calls that take microseconds never do.

use std::{fs, time::Duration};
use wasmtime::UpdateDeadline;

/// In how many steps a call's time is spent.
const STEPS: u32 = 10;
/// By how many milliseconds the epoch moves on at once, each of them a tick: the resolution of every time limit on filters. Each
/// time takes a busy core from its worker; once a millisecond, that was 3 % of it.
pub(super) const TICKS_AT_ONCE: u64 = 5;

/// What is left of a call's time.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Allowance {
    step: Duration,
    left: Duration,
    /// The thread's processor time when it was looked at last.
    seen: Option<Duration>,
}

impl Allowance {
    pub(super) fn new(time: Duration) -> Self {
        Self { step: time / STEPS, left: time, seen: None }
    }

    /// The ticks until the next look.
    pub(super) fn ticks(&self) -> u64 {
        ticks(self.left.min(self.step))
    }

    /// Goes on after others have used the thread: their time does not count. The ticks until the next look.
    pub(super) fn resume(&mut self) -> u64 {
        self.seen = None;
        self.ticks()
    }

    /// Takes off what was spent since the last look, when the thread's processor time is `now`. The first look, and
    /// every look where that time cannot be had, takes off a step.
    fn look(&mut self, now: Option<Duration>) {
        let spent = now.zip(self.seen).map_or(self.step, |(now, seen)| now.saturating_sub(seen));
        self.left = self.left.saturating_sub(spent);
        self.seen = now;
    }

    /// What becomes of a call that is running at its deadline.
    pub(super) fn met(&mut self) -> UpdateDeadline {
        self.look(thread_time());
        if self.left.is_zero() { UpdateDeadline::Interrupt } else { UpdateDeadline::Continue(self.ticks()) }
    }
}

/// The number of ticks after which `time` has surely passed.
fn ticks(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX / 2).saturating_add(TICKS_AT_ONCE)
}

/// The processor time of this thread, from the first field of Linux's `schedstat`.
fn thread_time() -> Option<Duration> {
    let fields = fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    fields.split_ascii_whitespace().next()?.parse().ok().map(Duration::from_nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_millis(100);

    fn left_after(looks: &[Option<u64>]) -> u128 {
        let mut allowance = Allowance::new(LIMIT);
        for look in looks {
            allowance.look(look.map(Duration::from_millis));
        }
        allowance.left.as_millis()
    }

    #[test]
    fn only_processor_time_is_spent() {
        assert_eq!(left_after(&[Some(5000)]), 90, "the first look costs a step, however long the worker waited");
        assert_eq!(left_after(&[Some(5000), Some(5000), Some(5001)]), 89, "a worker that waits spends nothing");
        assert_eq!(left_after(&[Some(5000), Some(5090)]), 0);
    }

    #[test]
    fn steps_are_counted_where_processor_time_is_not_to_be_had() {
        assert_eq!(left_after(&[None; 9]), 10);
        assert_eq!(left_after(&[None; 10]), 0);
    }

    #[test]
    fn a_deadline_is_not_met_before_its_time() {
        for millis in 0..=100 {
            let moves = ticks(Duration::from_millis(millis)).div_ceil(TICKS_AT_ONCE);
            // The first of them may come at once.
            assert!((moves - 1) * TICKS_AT_ONCE >= millis, "{millis} ms");
        }
    }

    #[test]
    fn processor_time_passes_with_work() {
        let before = thread_time().unwrap();
        while thread_time().unwrap() < before + Duration::from_millis(5) {}
    }
}
