//! What is asked of values that several threads change at the same time.

use super::*;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Barrier,
    thread,
};

const THREADS: usize = 8;

fn store(limits: Limits) -> Store {
    Store::new(limits, Arc::default())
}

fn number(entry: &Entry) -> i64 {
    i64::from_le_bytes(entry.value.as_slice().try_into().unwrap())
}

/// Entries and bytes as they are, not as they were counted.
fn measured(store: &Store) -> (usize, usize) {
    let map = store.map.pin();
    map.iter().fold((0, 0), |(entries, bytes), (key, value)| (entries + 1, bytes + key.len() + value.bytes.len()))
}

/// Runs `work` on several threads that begin together; what each of them made.
fn together<R: Send>(work: impl Fn(usize) -> R + Sync) -> Vec<R> {
    let start = Barrier::new(THREADS);
    thread::scope(|scope| {
        let spawn = |number| {
            let (start, work) = (&start, &work);
            scope.spawn(move || {
                start.wait();
                work(number)
            })
        };
        (0..THREADS).map(spawn).collect::<Vec<_>>().into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

/// Numbers that look random and are the same in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

#[test]
fn whatever_is_done_it_is_as_a_plain_map_with_a_clock_would_have_it() {
    for seed in 0..50 {
        let (store, mut dice, mut now) = (store(Limits::default()), Dice(seed), Duration::ZERO);
        let mut model: BTreeMap<String, (Vec<u8>, u64, Option<Duration>)> = BTreeMap::new();
        for _ in 0..400 {
            now += Duration::from_millis(dice.roll(5));
            model.retain(|_, (_, _, expires)| expires.is_none_or(|expires| now < expires));
            let key = format!("k{}", dice.roll(4));
            let ttl = (dice.roll(2) == 0).then(|| Duration::from_millis(dice.roll(20)));
            let until = ttl.map(|ttl| now + ttl);
            let value = dice.roll(100).to_le_bytes()[..if dice.roll(4) == 0 { 3 } else { 8 }].to_vec();
            let there = model.get(&key).cloned();
            match dice.roll(6) {
                0 => {
                    let version = store.set_at(&key, &value, ttl, now).unwrap();
                    model.insert(key, (value, version, until));
                }
                1 => {
                    let expected = if dice.roll(2) == 0 { dice.roll(30) } else { there.as_ref().map_or(0, |(_, v, _)| *v) };
                    let set = store.compare_and_set_at(&key, &value, expected, ttl, now);
                    assert_eq!(set.is_ok(), expected == there.map_or(0, |(_, version, _)| version));
                    if let Ok(version) = set {
                        model.insert(key, (value, version, until));
                    }
                }
                2 => {
                    let delta = dice.roll(9).cast_signed() - 4;
                    let sum = store.increment_at(&key, delta, ttl, now);
                    let (bytes, _, expires) = there.unwrap_or((vec![0; 8], 0, until));
                    let Ok(number) = <[u8; 8]>::try_from(bytes) else {
                        assert_eq!(sum, Err(Refusal::Mismatch));
                        continue;
                    };
                    assert_eq!(sum, Ok(i64::from_le_bytes(number) + delta));
                    if let Some(entry) = store.get_at(&key, now) {
                        model.insert(key, (entry.value, entry.version, expires));
                    }
                }
                3 => {
                    store.remove(&key);
                    model.remove(&key);
                }
                4 => store.sweep_at(now),
                _ => {
                    let found = store.get_at(&key, now).map(|entry| (entry.value, entry.version));
                    assert_eq!(found, there.map(|(value, version, _)| (value, version)), "seed {seed}");
                }
            }
            assert_eq!(store.size(), measured(&store), "seed {seed}");
        }
    }
}

#[test]
fn increments_are_one_after_the_other_whoever_makes_them() {
    const EACH: usize = 2_000;
    let store = store(Limits::default());
    let sums = together(|_| (0..EACH).map(|_| store.increment("n", 1, None).unwrap()).collect::<Vec<_>>());
    for sums in &sums {
        assert!(sums.is_sorted_by(|one, next| one < next), "a thread's own increments are in order");
    }
    let all: BTreeSet<i64> = sums.into_iter().flatten().collect();
    let most = i64::try_from(THREADS * EACH).unwrap();
    assert!(all.into_iter().eq(1..=most), "every sum was answered once");
    assert_eq!(number(&store.get("n").unwrap()), most);
    assert_eq!(store.size(), (1, 9));
}

#[test]
fn every_sum_follows_on_the_one_before_even_while_numbers_are_forgotten() {
    let store = store(Limits::default());
    let ttl = Some(Duration::from_micros(50));
    let sums = together(|thread| {
        let round = |round| {
            let sum = store.increment("n", 1, ttl).unwrap();
            match (thread + round) % 7 {
                0 => store.remove("n"),
                1 => store.sweep(),
                _ => {}
            }
            sum
        };
        (0..2_000).map(round).collect::<Vec<_>>()
    });
    let mut answered: BTreeMap<i64, usize> = BTreeMap::new();
    sums.into_iter().flatten().for_each(|sum| *answered.entry(sum).or_default() += 1);
    assert!(answered[&1] > 1, "it was forgotten again and again");
    // Whoever was answered 3 came after one who was answered 2 since the number was forgotten last.
    assert!(answered.keys().copied().eq(1..=answered.len() as i64), "{answered:?}");
    assert!(answered.values().is_sorted_by(|less, more| less >= more), "{answered:?}");
    assert_eq!(store.size(), measured(&store));
}

#[test]
fn of_those_who_expect_one_version_one_succeeds() {
    let store = store(Limits::default());
    let set = together(|thread| {
        let mut mine = 0;
        while mine < 500 {
            let there = store.get("n");
            let value = there.as_ref().map_or(0, number) + 1;
            let version = there.map_or(0, |there| there.version);
            match store.compare_and_set("n", &value.to_le_bytes(), version, None) {
                Ok(_) => mine += 1,
                Err(refusal) => assert_eq!(refusal, Refusal::Mismatch, "{thread}"),
            }
        }
        mine
    });
    assert_eq!(number(&store.get("n").unwrap()), set.into_iter().sum::<i64>(), "none of them overwrote another");
}

#[test]
fn a_version_does_not_come_back() {
    let store = store(Limits::default());
    let first = store.compare_and_set("k", b"1", 0, None).unwrap();
    store.remove("k");
    let second = store.set("k", b"1", None).unwrap();
    assert_ne!(first, second);
    assert_eq!(store.compare_and_set("k", b"2", first, None), Err(Refusal::Mismatch));
    assert_eq!(store.compare_and_set("k", b"2", 0, None), Err(Refusal::Mismatch));
    assert!(store.compare_and_set("k", b"2", second, None).is_ok());
}

#[test]
fn the_bounds_hold_at_every_moment() {
    let limits = Limits { kv_entries: 20, kv_bytes: 1_000, ..Limits::default() };
    let store = store(limits);
    let refused: usize = together(|thread| {
        let (mut dice, mut refused) = (Dice(thread as u64), 0);
        for _ in 0..3_000 {
            let key = format!("k{}", dice.roll(40));
            let value = vec![0; usize::try_from(dice.roll(100)).unwrap()];
            match (dice.roll(3), store.set(&key, &value, None)) {
                (0, _) => store.remove(&key),
                (_, Ok(_)) => {}
                (_, Err(refusal)) => {
                    assert_eq!(refusal, Refusal::Full);
                    refused += 1;
                }
            }
            let (entries, bytes) = measured(&store);
            // Others change the map while it is measured, each by one entry at most.
            assert!(entries <= 20 + THREADS && bytes <= 1_000 + THREADS * 103, "{entries} entries, {bytes} bytes");
        }
        refused
    })
    .into_iter()
    .sum();
    assert!(refused > 0, "the limits were met");
    assert!(store.metrics.kv_refused.value() >= refused as u64);
    let (entries, bytes) = measured(&store);
    assert!(entries <= 20 && bytes <= 1_000, "{entries} entries, {bytes} bytes");
    assert_eq!(store.size(), (entries, bytes), "what is counted is what is there");
}

#[test]
fn a_full_store_takes_changes_that_need_no_more_room() {
    let store = store(Limits { kv_entries: 2, kv_bytes: 20, ..Limits::default() });
    store.set("a", b"123456789", None).unwrap();
    store.set("b", b"123456789", None).unwrap();
    assert_eq!(store.set("c", b"", None), Err(Refusal::Full), "a third entry");
    assert_eq!(store.set("a", b"1234567890", None), Err(Refusal::Full), "one byte more");
    store.set("a", b"987654321", None).unwrap();
    store.set("a", b"", None).unwrap();
    store.set("b", b"123456789012345678", None).unwrap();
    assert_eq!(store.size(), (2, 20));
    assert_eq!(store.metrics.kv_refused.value(), 2);
}

#[test]
fn keys_and_values_have_a_largest_size_and_sums_an_end() {
    let store = store(Limits { kv_key_bytes: 3, kv_value_bytes: 9, ..Limits::default() });
    assert_eq!(store.set("long", b"", None), Err(Refusal::TooLarge));
    assert_eq!(store.set("k", &[0; 10], None), Err(Refusal::TooLarge));
    assert_eq!(store.increment("n", i64::MAX, None), Ok(i64::MAX));
    assert_eq!(store.increment("n", 1, None), Ok(i64::MAX));
    store.set("k", b"words", None).unwrap();
    assert_eq!(store.increment("k", 1, None), Err(Refusal::Mismatch));
    assert!(!format!("{store:?}").contains("words"));
}

#[test]
fn what_has_expired_goes_without_being_asked_for() {
    let store = store(Limits { kv_entries: 1, ..Limits::default() });
    let at = Duration::from_millis;
    store.increment_at("n", 1, Some(at(10)), at(0)).unwrap();
    store.increment_at("n", 1, Some(at(10)), at(9)).unwrap();
    assert_eq!(store.get_at("n", at(9)).map(|entry| number(&entry)), Some(2), "its time counts from the first");
    assert_eq!(store.get_at("n", at(10)), None);
    assert_eq!(store.set_at("m", b"", None, at(10)), Err(Refusal::Full), "its room is free when it is swept");
    store.sweep_at(at(9));
    assert_eq!(store.size(), (1, 9), "not before its time");
    store.sweep_at(at(10));
    assert_eq!((store.size(), store.metrics.kv_expired.value()), ((0, 0), 1));
    store.set_at("m", b"", None, at(10)).unwrap();
}
