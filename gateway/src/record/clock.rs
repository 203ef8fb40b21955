//! When an exchange began, as its id and as RFC 3339 text, at the price of one reading of the clock.

use crate::telemetry::trace::write_hex;
use std::{
    cell::{Cell, RefCell},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// When an exchange began, and its place among those of its worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Microseconds since 1970, moved on where the clock stood still or went back, so that they ascend.
    pub micros: u64,
    /// The worker's number in the upper 8 bits, a counter in the lower 24.
    pub counter: u32,
}

/// A worker's clock.
#[derive(Debug)]
pub struct Clock {
    worker: u32,
    counter: Cell<u32>,
    last: Cell<u64>,
    /// The second that was written last, and its text up to the seconds.
    second: RefCell<(u64, [u8; 19])>,
}

impl Stamp {
    /// 16 hexadecimal digits of microseconds and 8 of the counter.
    pub fn digits(&self) -> [u8; 24] {
        let mut text = [0; 24];
        write_hex(&self.micros.to_be_bytes(), &mut text[..16]);
        write_hex(&self.counter.to_be_bytes(), &mut text[16..]);
        text
    }

    /// The time.
    pub fn time(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_micros(self.micros)
    }
}

impl Clock {
    /// The clock of worker number `worker`, of which the lower 8 bits tell its ids from the other workers'.
    pub fn new(worker: u32) -> Self {
        Self {
            worker: worker << 24,
            counter: Cell::new(0),
            last: Cell::new(0),
            second: RefCell::new((u64::MAX, *b"1970-01-01T00:00:00")),
        }
    }

    /// A new stamp.
    pub fn stamp(&self) -> Stamp {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let micros = u64::try_from(now.as_micros()).unwrap_or(u64::MAX).max(self.last.get() + 1);
        let counter = self.counter.get();
        self.last.set(micros);
        self.counter.set((counter + 1) & 0x00ff_ffff);
        Stamp { micros, counter: self.worker | counter }
    }

    /// `stamp` as RFC 3339 text in UTC with microseconds.
    pub fn text(&self, stamp: &Stamp) -> [u8; 27] {
        let (seconds, fraction) = (stamp.micros / 1_000_000, stamp.micros % 1_000_000);
        let mut second = self.second.borrow_mut();
        if second.0 != seconds {
            *second = (seconds, second_text(seconds));
        }
        let mut text = *b"1970-01-01T00:00:00.000000Z";
        text[..19].copy_from_slice(&second.1);
        digits(fraction, &mut text[20..26]);
        text
    }
}

/// `number` in decimal digits, as many as `text` has room for.
fn digits(mut number: u64, text: &mut [u8]) {
    for digit in text.iter_mut().rev() {
        *digit = b'0' + u8::try_from(number % 10).unwrap_or_default();
        number /= 10;
    }
}

fn second_text(seconds: u64) -> [u8; 19] {
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = date(days);
    let mut text = *b"1970-01-01T00:00:00";
    for (number, place) in
        [(year, 0..4), (month, 5..7), (day, 8..10), (of_day / 3600, 11..13), (of_day / 60 % 60, 14..16), (of_day % 60, 17..19)]
    {
        digits(number, &mut text[place]);
    }
    text
}

/// The proleptic Gregorian date of the day that is `days` after 1970-01-01, counting years from March so that the leap
/// day is a year's last.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(micros: u64) -> String {
        String::from_utf8(Clock::new(0).text(&Stamp { micros, counter: 0 }).to_vec()).unwrap()
    }

    #[test]
    fn times_are_written_in_rfc_3339() {
        assert_eq!(written(0), "1970-01-01T00:00:00.000000Z");
        assert_eq!(written(951_782_400_000_001), "2000-02-29T00:00:00.000001Z");
        assert_eq!(written(1_709_251_199_999_999), "2024-02-29T23:59:59.999999Z");
        assert_eq!(written(1_709_251_200_000_000), "2024-03-01T00:00:00.000000Z");
        assert_eq!(written(4_102_444_799_123_456), "2099-12-31T23:59:59.123456Z");
    }

    #[test]
    fn ids_ascend_and_differ_between_workers() {
        let (first, second) = (Clock::new(1), Clock::new(2));
        let ids: Vec<[u8; 24]> = (0..10_000).map(|_| first.stamp().digits()).collect();
        assert!(ids.is_sorted_by(|before, after| before < after));
        assert_eq!(&ids[0][16..18], b"01");
        assert_eq!(&second.stamp().digits()[16..], b"02000000");
        let clock = Clock { counter: Cell::new(0x00ff_ffff), ..Clock::new(1) };
        assert_eq!(clock.stamp().counter, 0x01ff_ffff);
        assert_eq!(clock.stamp().counter, 0x0100_0000, "the counter never runs into the worker's number");
    }
}
