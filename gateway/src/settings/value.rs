//! How values of settings are written, in every layer alike.

use super::LogFormat;
use crate::{
    http::forward::Pseudonym,
    record::{ledger::WhenFull, recorder::Log},
};
use std::{fmt::Display, net::SocketAddr, path::PathBuf, str::FromStr, time::Duration};
use tidegate_policy::{duration::Span, snapshot::Mode};

/// A value of a setting.
pub(super) trait Value: Sized {
    /// What the help calls it.
    const KIND: &'static str;
    /// Reads it; the error is a sentence that says what would be right.
    fn read(text: &str) -> Result<Self, String>;
    /// Writes it as it would be read; empty where it is unset.
    fn show(&self) -> String;
}

fn parse<T: FromStr>(text: &str, right: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{text:?} is not {right}"))
}

macro_rules! plain {
    ($($kind:ty, $name:literal, $right:literal;)*) => {$(
        impl Value for $kind {
            const KIND: &'static str = $name;
            fn read(text: &str) -> Result<Self, String> {
                parse(text, $right)
            }
            fn show(&self) -> String {
                self.to_string()
            }
        }
    )*};
}

plain! {
    usize, "NUMBER", "a whole number";
    u32, "NUMBER", "a whole number that fits in 32 bits";
    u64, "NUMBER", "a whole number";
    f64, "RATIO", "a number such as 0.1";
    bool, "true|false", "true or false";
    SocketAddr, "ADDRESS", "an address with a port, such as 127.0.0.1:3128 or [::]:3128";
    String, "TEXT", "text";
}

impl Value for Duration {
    const KIND: &'static str = "DURATION";
    fn read(text: &str) -> Result<Self, String> {
        text.parse().map(Span::length)
    }
    fn show(&self) -> String {
        Span::new(*self).to_string()
    }
}

impl Value for Pseudonym {
    const KIND: &'static str = "NAME";
    fn read(text: &str) -> Result<Self, String> {
        Self::new(text)
    }
    fn show(&self) -> String {
        self.name().to_owned()
    }
}

impl Value for PathBuf {
    const KIND: &'static str = "PATH";
    fn read(text: &str) -> Result<Self, String> {
        if text.is_empty() { Err("an empty path is none: give a path".to_owned()) } else { Ok(Self::from(text)) }
    }
    fn show(&self) -> String {
        self.display().to_string()
    }
}

impl<T: Value> Value for Option<T> {
    const KIND: &'static str = T::KIND;
    fn read(text: &str) -> Result<Self, String> {
        if text.is_empty() { Ok(None) } else { T::read(text).map(Some) }
    }
    fn show(&self) -> String {
        self.as_ref().map(T::show).unwrap_or_default()
    }
}

impl Value for Vec<SocketAddr> {
    const KIND: &'static str = "ADDRESS,…";
    fn read(text: &str) -> Result<Self, String> {
        let address = |text: &str| {
            // A name server's port is 53 unless it is given.
            text.parse()
                .or_else(|_| text.parse().map(|ip: std::net::IpAddr| SocketAddr::new(ip, 53)))
                .map_err(|_: std::net::AddrParseError| format!("{text:?} is not an IP address, with a port or without"))
        };
        text.split(',').map(str::trim).filter(|text| !text.is_empty()).map(address).collect()
    }
    fn show(&self) -> String {
        joined(self)
    }
}

fn joined(values: &[impl Display]) -> String {
    values.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

macro_rules! words {
    ($($kind:ty, $name:literal: $($word:literal => $value:path),+;)*) => {$(
        impl Value for $kind {
            const KIND: &'static str = $name;
            fn read(text: &str) -> Result<Self, String> {
                match text {
                    $($word => Ok($value),)+
                    _ => Err(format!("{text:?} is not one of {}", $name)),
                }
            }
            fn show(&self) -> String {
                match self {
                    $($value => $word,)+
                }
                .to_owned()
            }
        }
    )*};
}

words! {
    Mode, "registered|open": "registered" => Mode::Registered, "open" => Mode::Open;
    WhenFull, "drop|wait": "drop" => WhenFull::Drop, "wait" => WhenFull::Wait;
    LogFormat, "text|json": "text" => LogFormat::Text, "json" => LogFormat::Json;
}

impl Value for Log {
    const KIND: &'static str = "off|stdout|PATH";
    fn read(text: &str) -> Result<Self, String> {
        match text {
            "" => Err("empty: give off, stdout or a file's path".to_owned()),
            "off" => Ok(Self::Off),
            "stdout" => Ok(Self::Stdout),
            path => Ok(Self::File(PathBuf::from(path))),
        }
    }
    fn show(&self) -> String {
        match self {
            Self::Off => "off".to_owned(),
            Self::Stdout => "stdout".to_owned(),
            Self::File(path) => path.display().to_string(),
        }
    }
}
