//! A rule: who may reach what.

use crate::selector::{From, To};

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
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
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
