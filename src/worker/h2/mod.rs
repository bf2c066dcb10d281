//! HTTP/2.
pub mod io;
