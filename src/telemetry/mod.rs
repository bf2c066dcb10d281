//! What is observed: counters owned by one worker each, the request id, the log,
//! the lines of the access log.

pub mod access_log;
pub mod counters;
pub mod log;
pub mod request_id;
