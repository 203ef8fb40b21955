//! The gateway's own log. For what concerns the operator of the filter; what concerns an exchange is an audit event.

use crate::host;

/// How much it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Every step.
    Trace,
    /// What helps to find a mistake.
    Debug,
    /// What is good to know.
    Info,
    /// What should be looked at.
    Warn,
    /// What failed.
    Error,
    /// What stops the filter from doing its work.
    Critical,
}

/// Whether a message of this level would be written: ask before making an expensive one.
pub fn enabled(level: Level) -> bool {
    host::log_enabled(level)
}

/// Writes a message. The gateway cuts long ones and drops those that come too fast.
pub fn write(level: Level, message: &str) {
    host::log(level, message);
}

/// Writes an informational message.
pub fn info(message: &str) {
    write(Level::Info, message);
}

/// Writes a warning.
pub fn warn(message: &str) {
    write(Level::Warn, message);
}

/// Writes an error.
pub fn error(message: &str) {
    write(Level::Error, message);
}
