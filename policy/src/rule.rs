//! A rule: who may reach what.

use crate::{
    Mistake,
    selector::{From, To},
    snapshot::Rows,
};
use std::time::SystemTime;

/// Who may reach what. An entry list that is empty means everyone, everything, always.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Rule {
    /// What the rule does when it matches.
    pub action: Action,
    /// Callers it is about; one entry that matches suffices.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<From>,
    /// Requests it is about; one entry that matches suffices.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub to: Vec<To>,
    /// Times at which it is in force; one entry that matches suffices.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub when: Vec<Window>,
}

/// What a rule does when it matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Action {
    /// The exchange may leave, unless a deny rule matches too.
    Allow,
    /// The exchange is refused, whatever else matches.
    Deny,
    /// The outcome stays as it is; the record lists the rule.
    Report,
}

/// A stretch of time. All fields that are given must hold; times are UTC.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Window {
    /// Days of the week; empty means every day.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub days: Vec<Day>,
    /// From this time of day on, inclusive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<TimeOfDay>,
    /// Until this time of day, exclusive; earlier than `from`, it is the next day's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<TimeOfDay>,
}

/// A day of the week.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[expect(missing_docs, reason = "the names of the days say it")]
pub enum Day {
    Monday,
    Tuesday,
    Wednesday,
    Thursday,
    Friday,
    Saturday,
    Sunday,
}

/// A time of day, `HH:MM`, in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TimeOfDay {
    minutes: u16,
}

/// A moment as windows see it: UTC, to the minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// 0 is Monday.
    weekday: u8,
    /// Minutes since midnight.
    minutes: u16,
}

impl std::convert::From<SystemTime> for Moment {
    fn from(time: SystemTime) -> Self {
        // A clock set before 1970 is read as 1970: it is wrong anyway.
        let seconds = time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        // 1970-01-01 was a Thursday.
        let weekday = (seconds / 86_400 + 3) % 7;
        let minutes = seconds % 86_400 / 60;
        Self { weekday: u8::try_from(weekday).unwrap_or(0), minutes: u16::try_from(minutes).unwrap_or(0) }
    }
}

impl Window {
    /// Whether it is open at `moment`. One that ends the next day belongs to the day on which it began.
    pub fn holds(&self, moment: Moment) -> bool {
        let Moment { weekday, minutes } = moment;
        let on = |weekday: u8| self.days.is_empty() || self.days.iter().any(|day| *day as u8 == weekday);
        let from = self.from.map_or(0, TimeOfDay::minutes);
        let until = self.until.map_or(1440, TimeOfDay::minutes);
        if from <= until {
            return on(weekday) && (from..until).contains(&minutes);
        }
        (on(weekday) && minutes >= from) || (on((weekday + 6) % 7) && minutes < until)
    }
}

impl Rule {
    /// What is wrong with it, by itself and beside `rows`.
    pub(crate) fn check(&self, rows: &Rows) -> Vec<Mistake> {
        let mut mistakes = Vec::new();
        for (at, from) in self.from.iter().enumerate() {
            mistakes.extend(from.check().into_iter().map(|mistake| mistake.under(&format!("/from/{at}"))));
        }
        for (at, to) in self.to.iter().enumerate() {
            mistakes.extend(to.check(rows).into_iter().map(|mistake| mistake.under(&format!("/to/{at}"))));
        }
        for (at, window) in self.when.iter().enumerate() {
            if *window == Window::default() {
                mistakes.push(Mistake::at(
                    format!("/when/{at}"),
                    "an empty window is always open: name days or times, or leave it out",
                ));
            }
            if window.from.is_some() && window.from == window.until {
                mistakes.push(Mistake::at(format!("/when/{at}/until"), "is the same as `from`, so the window never opens"));
            }
        }
        mistakes
    }
}

impl TimeOfDay {
    /// Minutes since midnight, 0 to 1439.
    pub const fn minutes(self) -> u16 {
        self.minutes
    }
}

impl TryFrom<String> for TimeOfDay {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let digits = text.len() == 5
            && text.bytes().enumerate().all(|(at, byte)| if at == 2 { byte == b':' } else { byte.is_ascii_digit() });
        let part = |range| text.get(range).and_then(|part: &str| part.parse::<u16>().ok());
        match (part(0..2), part(3..5)) {
            (Some(hour @ 0..=23), Some(minute @ 0..=59)) if digits => Ok(Self { minutes: hour * 60 + minute }),
            _ => Err(format!("{text:?} is not a time of day: write HH:MM, from 00:00 to 23:59")),
        }
    }
}

impl std::convert::From<TimeOfDay> for String {
    fn from(time: TimeOfDay) -> Self {
        format!("{:02}:{:02}", time.minutes / 60, time.minutes % 60)
    }
}
