//! CONNECT and upgraded connections: bytes both ways.
