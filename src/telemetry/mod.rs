//! What is observed: metrics in shards owned by one worker each, the record of an exchange, the
//! request id, the trace and its spans, the log, the lines of the access log.

pub mod access_log;
pub mod log;
pub mod metrics;
pub mod record;
pub mod request_id;
pub mod trace;
