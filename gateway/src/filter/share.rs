//! What is held of bodies for filters, and of those of their own calls, all exchanges and workers together. Whoever holds something
//! has a share of it, which is given back when the share is dropped; a share of nothing is counted nowhere.

use super::{
    limits::{Limits, Metrics},
    outbound::CallError,
};
use bytes::Bytes;
use std::sync::Arc;

/// A part of what may be held of bodies.
#[derive(Debug, Default)]
pub(super) struct Share {
    bytes: usize,
    /// Where it is counted, once there is anything to count.
    of: Option<Arc<Metrics>>,
}

/// As much is held as may be (setting `filter_held_bytes`).
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NoRoom;

/// What is held of the answer to a call while it comes.
#[derive(Debug)]
pub struct Held {
    share: Share,
    most: usize,
    metrics: Arc<Metrics>,
}

/// Bytes with the share that they have.
struct Covered {
    data: Bytes,
    _share: Share,
}

/// What a call sends, counted until the last of it is dropped.
pub(super) fn counted(data: Bytes, limits: &Limits, metrics: &Arc<Metrics>) -> Result<Bytes, NoRoom> {
    let mut share = Share::default();
    share.resize(data.len(), limits, metrics)?;
    Ok(share.cover(data))
}

impl Held {
    /// Nothing yet.
    pub(super) fn nothing(limits: &Limits, metrics: &Arc<Metrics>) -> Self {
        Self { share: Share::default(), most: limits.held_bytes, metrics: Arc::clone(metrics) }
    }

    /// Makes it so many bytes.
    ///
    /// # Errors
    /// There is no room for them.
    pub fn resize(&mut self, bytes: usize) -> Result<(), CallError> {
        self.share.resize_within(bytes, self.most, &self.metrics).map_err(|NoRoom| CallError::Budget)
    }

    /// Hands it on. It counts until the last of it is dropped.
    pub fn cover(self, data: Bytes) -> Bytes {
        self.share.cover(data)
    }
}

impl Share {
    /// Makes it a share of so many bytes. Where there is no room for them it stays as it is.
    pub(super) fn resize(&mut self, bytes: usize, limits: &Limits, metrics: &Arc<Metrics>) -> Result<(), NoRoom> {
        self.resize_within(bytes, limits.held_bytes, metrics)
    }

    fn resize_within(&mut self, bytes: usize, most: usize, metrics: &Arc<Metrics>) -> Result<(), NoRoom> {
        let more = bytes.saturating_sub(self.bytes);
        if more > 0 && !metrics.held_bytes.add_within(signed(more), signed(most)) {
            metrics.held_refused.add(1);
            return Err(NoRoom);
        }
        if bytes > 0 && self.of.is_none() {
            self.of = Some(Arc::clone(metrics));
        }
        let less = self.bytes.saturating_sub(bytes);
        if less > 0 {
            metrics.held_bytes.add(-signed(less));
        }
        self.bytes = bytes;
        Ok(())
    }

    /// What was held and goes on now. It counts until the last of it is dropped: whoever does not take it still has it held.
    /// A filter may have made more of it, which is not refused any more.
    pub(super) fn cover(mut self, data: Bytes) -> Bytes {
        let Some(metrics) = self.of.as_ref().filter(|_| !data.is_empty()) else { return data };
        metrics.held_bytes.add(signed(data.len()) - signed(self.bytes));
        self.bytes = data.len();
        Bytes::from_owner(Covered { data, _share: self })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if let Some(metrics) = self.of.as_ref().filter(|_| self.bytes > 0) {
            metrics.held_bytes.add(-signed(self.bytes));
        }
    }
}

impl AsRef<[u8]> for Covered {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

fn signed(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn world() -> (Limits, Arc<Metrics>) {
        (Limits { held_bytes: 10, ..Limits::default() }, Arc::default())
    }

    #[test]
    fn what_is_held_is_bounded_and_given_back() {
        let (limits, metrics) = world();
        let (mut one, mut other) = (Share::default(), Share::default());
        assert_eq!(one.resize(6, &limits, &metrics), Ok(()));
        assert_eq!(other.resize(4, &limits, &metrics), Ok(()));
        assert_eq!(other.resize(5, &limits, &metrics), Err(NoRoom));
        assert_eq!((metrics.held_bytes.value(), metrics.held_refused.value()), (10, 1), "what was there stays");
        assert_eq!(one.resize(2, &limits, &metrics), Ok(()));
        assert_eq!(other.resize(5, &limits, &metrics), Ok(()));
        drop(one);
        assert_eq!(metrics.held_bytes.value(), 5);
        assert_eq!(other.resize(0, &limits, &metrics), Ok(()));
        drop(other);
        assert_eq!(metrics.held_bytes.value(), 0);
    }

    #[test]
    fn what_goes_on_counts_until_it_is_gone() {
        let (limits, metrics) = world();
        let share = |bytes| {
            let mut share = Share::default();
            share.resize(bytes, &limits, &metrics).unwrap();
            share
        };
        let mut data = share(9).cover(Bytes::from_static(b"seven b"));
        assert_eq!(metrics.held_bytes.value(), 7, "a filter has made it shorter");
        let first = data.split_to(3);
        drop(data);
        assert_eq!((metrics.held_bytes.value(), &first[..]), (7, &b"sev"[..]), "some of it is there, and keeps the whole");
        drop(first);
        assert_eq!(metrics.held_bytes.value(), 0);
        let longer = share(10).cover(Bytes::from_static(b"a dozen byte"));
        assert_eq!(metrics.held_bytes.value(), 12, "and here it has made it longer");
        drop((longer, share(0).cover(Bytes::from_static(b"not held"))));
        drop(share(0).cover(Bytes::new()));
        assert_eq!(metrics.held_bytes.value(), 0);
    }

    #[test]
    fn what_was_not_held_goes_on_as_it_is() {
        let (limits, metrics) = world();
        let mut share = Share::default();
        share.resize(0, &limits, &metrics).unwrap();
        let data = Bytes::from_static(b"data");
        assert_eq!(share.cover(data.clone()).as_ptr(), data.as_ptr());
        assert_eq!(Arc::strong_count(&metrics), 1, "nothing is kept of what is counted");
    }

    #[test]
    fn threads_together_keep_the_limit() {
        let (limits, metrics) = (Limits { held_bytes: 1000, ..Limits::default() }, Arc::<Metrics>::default());
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mut shares = Vec::new();
                    for round in 0..1000 {
                        let mut share = Share::default();
                        if share.resize(7, &limits, &metrics).is_ok() {
                            shares.push(share);
                        }
                        assert!(metrics.held_bytes.value() <= 1000);
                        if round % 50 == 0 {
                            shares.clear();
                        }
                    }
                });
            }
        });
        assert_eq!(metrics.held_bytes.value(), 0);
    }
}
