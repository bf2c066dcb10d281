//! Whether a failed try may be repeated.
