//! A bounded run of what the fuzz target does, the same each time.

use super::random::drive;

/// Runs of so many bytes each.
const RUNS: u32 = 24;
const BYTES: usize = 512;

#[test]
fn random_calls_harm_nobody() {
    // A linear congruential generator (Knuth's MMIX), whose upper bits are random enough to choose by.
    let mut state = 20_261_129_u64;
    for _ in 0..RUNS {
        let byte = |state: &mut u64| {
            *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (*state >> 56) as u8
        };
        let bytes: Vec<u8> = (0..BYTES).map(|_| byte(&mut state)).collect();
        drive(&bytes);
    }
}
