//! What VMs share beyond their lives and threads: values, and queues of messages. A queue moves one message under a lock,
//! since every VM may take from it as well as add to it.

use crate::filter::{
    kv,
    limits::{Limits, Metrics},
};
use bytes::Bytes;
use std::{
    borrow::Cow,
    collections::{BTreeMap, VecDeque},
    fmt::{self, Write as _},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};
use tokio::sync::mpsc;

/// What the VMs of one `vm_id` share, or those of one plugin that have none.
#[derive(Debug)]
pub(in crate::filter) struct Commons {
    pub(super) store: kv::Store,
    pub(super) queues: Queues,
}

/// Queues by name.
pub(super) struct Queues {
    by_name: Mutex<BTreeMap<Box<str>, Arc<Queue>>>,
    limits: Limits,
}

/// One queue.
pub(in crate::filter) struct Queue {
    id: u32,
    waiting: Mutex<Waiting>,
    limits: Limits,
}

#[derive(Default)]
struct Waiting {
    messages: VecDeque<Bytes>,
    bytes: usize,
    /// Who is told that there is a message: the next in turn, who is the last from then on.
    listeners: VecDeque<mpsc::Sender<u32>>,
}

/// A queue has as many messages or bytes as it may.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full;

impl Commons {
    pub(in crate::filter) fn new(limits: Limits, metrics: Arc<Metrics>) -> Self {
        let queues = Queues { by_name: Mutex::default(), limits };
        Self { store: kv::Store::new(limits, metrics), queues }
    }
}

impl Queues {
    /// The queue of this name, made if absent; none where there are too many.
    pub(super) fn register(&self, name: &str) -> Option<Arc<Queue>> {
        static IDS: AtomicU32 = AtomicU32::new(1);
        let mut by_name = self.lock();
        if let Some(queue) = by_name.get(name) {
            return Some(Arc::clone(queue));
        }
        if by_name.len() >= self.limits.queues || name.len() > self.limits.kv_key_bytes {
            return None;
        }
        let id = IDS.fetch_add(1, Ordering::Relaxed);
        let queue = Arc::new(Queue { id, waiting: Mutex::default(), limits: self.limits });
        by_name.insert(name.into(), Arc::clone(&queue));
        Some(queue)
    }

    pub(super) fn named(&self, name: &str) -> Option<Arc<Queue>> {
        self.lock().get(name).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Box<str>, Arc<Queue>>> {
        self.by_name.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    pub(super) fn id(&self) -> u32 {
        self.id
    }

    /// Tells `listener` of messages from now on, in turn with others.
    pub(super) fn listen(&self, listener: mpsc::Sender<u32>) {
        let mut waiting = self.lock();
        waiting.listeners.retain(|other| !other.is_closed());
        waiting.listeners.push_back(listener);
    }

    pub(super) fn push(&self, message: &[u8]) -> Result<(), Full> {
        let mut waiting = self.lock();
        let bytes = waiting.bytes + message.len();
        if waiting.messages.len() >= self.limits.queue_messages || bytes > self.limits.queue_bytes {
            return Err(Full);
        }
        waiting.bytes = bytes;
        waiting.messages.push_back(Bytes::copy_from_slice(message));
        // One that is behind is told of a message before this one, and empties the queue then.
        for _ in 0..waiting.listeners.len() {
            let Some(listener) = waiting.listeners.pop_front() else { break };
            let told = listener.try_send(self.id);
            if !matches!(told, Err(mpsc::error::TrySendError::Closed(_))) {
                waiting.listeners.push_back(listener);
            }
            if told.is_ok() {
                break;
            }
        }
        Ok(())
    }

    pub(super) fn pop(&self) -> Option<Bytes> {
        let mut waiting = self.lock();
        let message = waiting.messages.pop_front()?;
        waiting.bytes -= message.len();
        Some(message)
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A key or a name as it is kept: as text where it is text, else as its bytes' numbers behind a mark that no text has.
pub(super) fn key_of(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.starts_with('\0') => Cow::Borrowed(text),
        _ => {
            let mut text = String::with_capacity(1 + 2 * bytes.len());
            text.push('\0');
            for byte in bytes {
                // Writing to a String cannot fail.
                let _ = write!(text, "{byte:02x}");
            }
            Cow::Owned(text)
        }
    }
}

impl fmt::Debug for Queues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Messages are the filters' and may be secrets.
        f.debug_struct("Queues").field("number", &self.lock().len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commons(limits: Limits) -> Commons {
        Commons::new(limits, Arc::default())
    }

    #[test]
    fn a_queue_is_bounded_and_in_order() {
        let commons = commons(Limits { queue_messages: 2, queue_bytes: 10, queues: 1, ..Limits::default() });
        let queue = commons.queues.register("one").unwrap();
        assert_eq!(commons.queues.register("one").unwrap().id(), queue.id());
        assert!(commons.queues.register("two").is_none(), "there may be one");
        assert_eq!(queue.push(b"12345678901"), Err(Full));
        assert_eq!((queue.push(b"a"), queue.push(b"b"), queue.push(b"c")), (Ok(()), Ok(()), Err(Full)));
        assert_eq!(queue.pop().as_deref(), Some(&b"a"[..]));
        assert_eq!(queue.push(b"123456789"), Ok(()), "what was taken makes room");
        assert_eq!(queue.push(b""), Err(Full));
        assert_eq!((queue.pop().unwrap().len(), queue.pop().unwrap().len(), queue.pop()), (1, 9, None));
        assert_eq!(commons.queues.named("one").map(|queue| queue.id()), Some(queue.id()));
        assert!(commons.queues.named("two").is_none());
    }

    #[test]
    fn listeners_are_told_in_turn_and_those_that_have_gone_are_forgotten() {
        let commons = commons(Limits::default());
        let queue = commons.queues.register("one").unwrap();
        let (one, mut hears_one) = mpsc::channel(1);
        let (two, mut hears_two) = mpsc::channel(1);
        queue.listen(one);
        queue.listen(two);
        queue.push(b"a").unwrap();
        queue.push(b"b").unwrap();
        assert_eq!((hears_one.try_recv(), hears_two.try_recv()), (Ok(queue.id()), Ok(queue.id())));
        drop(hears_one);
        queue.push(b"c").unwrap();
        assert_eq!(hears_two.try_recv(), Ok(queue.id()));
    }

    #[test]
    fn keys_that_are_no_text_are_told_apart() {
        assert_eq!(key_of(b"plain"), "plain");
        assert_eq!(key_of(b"\xff\x00"), "\0ff00");
        assert_ne!(key_of(b"\0ff00"), key_of(b"\xff\x00"));
    }
}
