//! How the services of the slow path count.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counters of the service. They only grow, and are read from any thread.
        #[derive(Debug, Default)]
        pub struct Counters {
            $($(#[$doc])* pub $name: std::sync::atomic::AtomicU64,)*
        }

        impl Counters {
            /// All counters, by their stable names.
            pub fn rows(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name.load(std::sync::atomic::Ordering::Relaxed)),)*]
            }
        }
    };
}

pub(super) use counters;

/// One more.
pub(super) fn count(counter: &AtomicU64) {
    count_by(counter, 1);
}

/// So many more.
pub(super) fn count_by(counter: &AtomicU64, more: u64) {
    counter.fetch_add(more, Ordering::Relaxed);
}
