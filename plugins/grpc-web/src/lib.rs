//! The gRPC-Web filter.
