//! Counts of one worker. Single writer, no atomics: other threads never look at them; control
//! gets a copy with the worker's last word.

use std::cell::Cell;

macro_rules! counters {
    ($( $(#[$doc:meta])* $name:ident, )*) => {
        /// One worker's counters.
        #[derive(Debug, Default)]
        pub struct Counters { $( $(#[$doc])* pub $name: Cell<u64>, )* }

        /// Their values at one moment.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Totals { $( $(#[$doc])* pub $name: u64, )* }

        impl Counters {
            pub fn totals(&self) -> Totals {
                Totals { $( $name: self.$name.get(), )* }
            }
        }

        impl std::ops::AddAssign for Totals {
            fn add_assign(&mut self, other: Totals) {
                $( self.$name += other.$name; )*
            }
        }
    };
}

counters! {
    /// Client connections accepted.
    connections,
    /// Client connections answered 503 because there were too many.
    connections_shed,
    /// Requests whose head was read.
    requests,
    /// Exchanges the gateway answered or cut off itself, for whatever reason.
    refusals,
    /// Connections to endpoints opened.
    upstream_connects,
    /// Tries beyond the first.
    retries,
    /// Connection tasks that panicked.
    panics,
}

/// Adds one.
#[inline]
pub fn count(counter: &Cell<u64>) {
    counter.set(counter.get() + 1);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_add_up() {
        let (a, b) = (Counters::default(), Counters::default());
        count(&a.requests);
        count(&b.requests);
        count(&b.panics);
        let mut sum = a.totals();
        sum += b.totals();
        assert_eq!((sum.requests, sum.panics, sum.retries), (2, 1, 0));
    }
}
