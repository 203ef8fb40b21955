//! How many files this process may have open, and what follows from it. Every connection is one.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The part of the open files that pipes may be, all workers together. A tunnel that gets none is copied; an exchange that gets
/// no connection fails.
const PART_OF_PIPES: u64 = 16;
/// A pipe has two ends.
const EACH_PIPE: u64 = 2;

/// Lets this process have as many files open as its hard limit says, and says how many that is; none where there is no limit.
pub(crate) fn raised() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return limit.current;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        Ok(()) => limit.maximum,
        Err(error) => {
            tracing::warn!(%error, "the soft limit on open files cannot be raised to the hard one");
            limit.current
        }
    }
}

/// How many pipes each of so many workers may have in use, where so many are wanted.
pub(crate) fn pipes(open_files: Option<u64>, workers: usize, wanted: usize) -> usize {
    let workers = workers.max(1) as u64;
    let most = open_files.map(|files| files / PART_OF_PIPES / EACH_PIPE / workers);
    most.and_then(|most| usize::try_from(most).ok()).map_or(wanted, |most| wanted.min(most))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pipes_are_a_small_part_of_the_open_files() {
        for (open_files, workers, wanted, pipes_of_each) in [
            (None, 256, 64, 64),
            (Some(1 << 20), 64, 64, 64),
            (Some(1024), 2, 64, 16),
            (Some(1024), 64, 64, 0),
            (Some(1024), 1, 8, 8),
            (Some(0), 1, 64, 0),
            (Some(u64::MAX), 1, usize::MAX, usize::MAX >> 5),
        ] {
            assert_eq!(pipes(open_files, workers, wanted), pipes_of_each, "{open_files:?} {workers} {wanted}");
        }
    }

    #[test]
    fn as_many_files_may_be_open_as_the_hard_limit_says() {
        let hard = getrlimit(Resource::Nofile).maximum;
        assert_eq!(raised(), hard);
        assert_eq!(getrlimit(Resource::Nofile).current, hard);
    }
}
