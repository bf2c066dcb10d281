//! What is observed: counters owned by one worker each, the request id, the log.

pub mod counters;
pub mod log;
pub mod request_id;
