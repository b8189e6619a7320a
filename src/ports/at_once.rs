//! Opening and closing many devices at once. Each waits for the kernel (an RCU grace period or two, 10 to 30 ms), not for a CPU, so a
//! thousand one after the other take half a minute, and together a second.

use std::sync::{Mutex, PoisonError};

/// Threads at most: where they wait for each other in the kernel, more are no faster.
const THREADS: usize = 32;

/// Does the same to all of several, many at a time; gives what comes of each, in their order.
///
/// # Panics
/// When `work` does.
pub fn at_once<T: Send, R: Send>(items: Vec<T>, work: impl Fn(T) -> R + Sync) -> Vec<R> {
    let threads = items.len().min(THREADS);
    if threads < 2 {
        return items.into_iter().map(work).collect();
    }
    let waiting = Mutex::new(items.into_iter().enumerate());
    let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).next();
    let one = || std::iter::from_fn(next).map(|(at, item)| (at, work(item))).collect::<Vec<_>>();
    let mut done: Vec<(usize, R)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(one)).collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, Vec<(usize, R)>>| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        threads.into_iter().flat_map(join).collect()
    });
    done.sort_unstable_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_done_each_once_and_the_order_stays() {
        for count in [0, 1, 2, 31, 32, 33, 1000] {
            let doubled = at_once((0..count).collect(), |n: u32| n * 2);
            assert_eq!(doubled, (0..count).map(|n| n * 2).collect::<Vec<_>>());
        }
    }

    #[test]
    fn they_wait_together() {
        let barrier = std::sync::Barrier::new(8);
        at_once((0..8).collect(), |_: u32| barrier.wait().is_leader());
    }

    #[test]
    #[should_panic(expected = "the third")]
    fn a_panic_is_the_callers() {
        at_once((0..4).collect(), |n: u32| assert!(n != 2, "the third"));
    }
}
