//! What is observed: counters owned by one worker each, the request id, log set-up.
