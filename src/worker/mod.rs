//! All data-path I/O of one core.
