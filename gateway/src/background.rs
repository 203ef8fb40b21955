//! Threads whose work no exchange waits for. Where they share a core with a worker they give way to it: the database takes a batch of
//! records in half a millisecond, which is what every request on that core would wait for it.

use rustix::process::{getpriority_process, setpriority_process};
use std::{num::NonZero, thread::available_parallelism};

/// How much nicer than the workers they are (sched(7)), on so many cores. Where all of these are busy they still get a tenth of one, a
/// quarter or half, and records need a twentieth of one for each worker, of which there are no more than cores.
fn nicer(cores: usize) -> i32 {
    match cores {
        0..=2 => 10,
        3..=5 => 5,
        _ => 0,
    }
}

/// There is nothing nicer.
const NICEST: i32 = 19;

/// Makes this thread give way, and those that it begins from now on.
pub fn give_way() {
    let nicer = nicer(available_parallelism().map_or(1, NonZero::get));
    // None is the thread that asks, on Linux.
    let done = getpriority_process(None).and_then(|now| setpriority_process(None, (now + nicer).min(NICEST)));
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
        let expected = (before + nicer(available_parallelism().unwrap().get())).min(NICEST);
        assert_eq!((own, begun, nice()), (expected, own, before));
    }
}
