//! The numbers of the Proxy-Wasm ABI, 0.1.0 to 0.2.1, as types. Pure.

/// What a host function answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Ok = 0,
    NotFound = 1,
    BadArgument = 2,
    ParseFailure = 4,
    InvalidMemoryAccess = 6,
    Empty = 7,
    CasMismatch = 8,
    InternalFailure = 10,
}

/// What comes of a host function; an error is a status other than `Ok`.
pub(super) type Answer<T = ()> = Result<T, Status>;

/// The version of the ABI that a module is written for, as far as the host has to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Version {
    V0_1_0,
    V0_2_0,
    /// Also what some toolchains call `0_2_100`.
    V0_2_1,
}

impl Version {
    /// The version behind `proxy_abi_version_` in a marker's name.
    pub(super) fn of_marker(rest: &str) -> Option<Self> {
        match rest {
            "0_1_0" => Some(Self::V0_1_0),
            "0_2_0" => Some(Self::V0_2_0),
            "0_2_1" | "0_2_100" => Some(Self::V0_2_1),
            _ => None,
        }
    }

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::V0_1_0 => "0.1.0",
            Self::V0_2_0 => "0.2.0",
            Self::V0_2_1 => "0.2.1",
        }
    }
}

/// Header maps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Map {
    RequestHeaders,
    RequestTrailers,
    ResponseHeaders,
    ResponseTrailers,
    GrpcInitial,
    GrpcTrailing,
    CallHeaders,
    CallTrailers,
}

impl TryFrom<u32> for Map {
    type Error = Status;

    fn try_from(number: u32) -> Answer<Self> {
        Ok(match number {
            0 => Self::RequestHeaders,
            1 => Self::RequestTrailers,
            2 => Self::ResponseHeaders,
            3 => Self::ResponseTrailers,
            4 => Self::GrpcInitial,
            5 => Self::GrpcTrailing,
            6 => Self::CallHeaders,
            7 => Self::CallTrailers,
            _ => return Err(Status::BadArgument),
        })
    }
}

/// Buffers. Those of tunnels (2 and 3) are known and empty where there is no tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Buffer {
    RequestBody,
    ResponseBody,
    Downstream,
    Upstream,
    CallBody,
    Grpc,
    VmConfiguration,
    PluginConfiguration,
    ForeignArguments,
}

impl TryFrom<u32> for Buffer {
    type Error = Status;

    fn try_from(number: u32) -> Answer<Self> {
        Ok(match number {
            0 => Self::RequestBody,
            1 => Self::ResponseBody,
            2 => Self::Downstream,
            3 => Self::Upstream,
            4 => Self::CallBody,
            5 => Self::Grpc,
            6 => Self::VmConfiguration,
            7 => Self::PluginConfiguration,
            8 => Self::ForeignArguments,
            _ => return Err(Status::BadArgument),
        })
    }
}

/// What `proxy_continue_stream` and `proxy_close_stream` are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StreamType {
    Request,
    Response,
    Downstream,
    Upstream,
}

impl TryFrom<u32> for StreamType {
    type Error = Status;

    fn try_from(number: u32) -> Answer<Self> {
        Ok(match number {
            0 => Self::Request,
            1 => Self::Response,
            2 => Self::Downstream,
            3 => Self::Upstream,
            _ => return Err(Status::BadArgument),
        })
    }
}

/// Metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Metric {
    Counter,
    Gauge,
    Histogram,
}

impl TryFrom<u32> for Metric {
    type Error = Status;

    fn try_from(number: u32) -> Answer<Self> {
        Ok(match number {
            0 => Self::Counter,
            1 => Self::Gauge,
            2 => Self::Histogram,
            _ => return Err(Status::BadArgument),
        })
    }
}

/// What a guest answers about a head. Larger numbers are the strictest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HeadAction {
    Continue,
    /// The head waits; whether the body does is the route's to say.
    Stop,
    /// Head and body wait.
    StopAll,
}

impl From<u32> for HeadAction {
    fn from(number: u32) -> Self {
        match number {
            // 2 is to end the message behind its head, by its name; Envoy takes it for 0, and so do filters by now.
            0 | 2 => Self::Continue,
            1 => Self::Stop,
            // Holding the rest in a buffer and holding it back at its source differ in where it waits.
            _ => Self::StopAll,
        }
    }
}

/// What a guest answers about a piece of a body. Larger numbers are the strictest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BodyAction {
    Continue,
    StopAndBuffer,
    StopAndWatermark,
    StopWithoutBuffer,
}

impl From<u32> for BodyAction {
    fn from(number: u32) -> Self {
        match number {
            0 => Self::Continue,
            1 => Self::StopAndBuffer,
            2 => Self::StopAndWatermark,
            _ => Self::StopWithoutBuffer,
        }
    }
}

/// What a guest answers about trailers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TrailersAction {
    Continue,
    Stop,
}

impl From<u32> for TrailersAction {
    fn from(number: u32) -> Self {
        if number == 0 { Self::Continue } else { Self::Stop }
    }
}

/// Who ended a connection, as guests are told of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum EndedBy {
    /// The gateway, a filter of its own or the other end.
    #[default]
    Local = 1,
    Remote = 2,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_mean_nothing_are_bad_arguments() {
        for number in [8, 100, u32::MAX] {
            assert_eq!(Map::try_from(number), Err(Status::BadArgument));
        }
        assert_eq!(Buffer::try_from(9), Err(Status::BadArgument));
        assert_eq!(StreamType::try_from(4), Err(Status::BadArgument));
        assert_eq!(Metric::try_from(3), Err(Status::BadArgument));
    }

    #[test]
    fn actions_beyond_the_last_are_the_strictest() {
        for number in [3, 4, 5, u32::MAX] {
            assert_eq!(HeadAction::from(number), HeadAction::StopAll);
        }
        assert_eq!(BodyAction::from(7), BodyAction::StopWithoutBuffer);
        assert_eq!(TrailersAction::from(u32::MAX), TrailersAction::Stop);
    }

    #[test]
    fn versions_that_are_not_served_are_none() {
        assert_eq!(Version::of_marker("0_2_100"), Some(Version::V0_2_1));
        for rest in ["0_3_0", "", "1_0_0", "0_2_1_"] {
            assert_eq!(Version::of_marker(rest), None, "{rest}");
        }
    }
}
