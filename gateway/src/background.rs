//! Threads whose work no exchange waits for. Where they share a core with a worker they give way to it: the database takes a batch of
//! records in half a millisecond, which is what every request on that core would wait for it.

use rustix::process::{getpriority_process, setpriority_process};

/// How much nicer than the workers they are (sched(7)): of cores that are never idle they still get a quarter of one, and records need a
/// twentieth of one for each worker.
const NICER: i32 = 5;
/// There is nothing nicer.
const NICEST: i32 = 19;

/// Makes this thread give way, and those that it begins from now on.
pub fn give_way() {
    // None is the thread that asks, on Linux.
    let done = getpriority_process(None).and_then(|now| setpriority_process(None, (now + NICER).min(NICEST)));
    if let Err(error) = done {
        tracing::debug!(%error, "a background thread is as nice as a worker");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_gives_way_and_the_others_do_not() {
        let nice = || getpriority_process(None).unwrap();
        let before = nice();
        let (own, begun) = std::thread::spawn(move || {
            give_way();
            (nice(), std::thread::spawn(nice).join().unwrap())
        })
        .join()
        .unwrap();
        assert_eq!((own, begun, nice()), ((before + NICER).min(NICEST), own, before));
    }
}
