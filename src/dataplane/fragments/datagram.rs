//! What is known of one datagram, and where another fragment fits into it.

use arrayvec::ArrayVec;

use super::list::{Chained, Link, Linked};
use super::{Key, PIECES};
use crate::stats::DropReason;
use crate::types::Instant;

#[derive(Clone, Copy, Debug)]
pub(super) enum State {
    /// The first fragment is not there yet.
    Wait,
    /// It was there and has these ports.
    Known(Option<(u16, u16)>),
    /// All of it is dropped.
    Doomed(DropReason),
}

#[derive(Debug)]
pub(super) struct Datagram {
    pub(super) key: Key,
    pub(super) hash: u64,
    pub(super) chain: u32,
    pub(super) owner: u32,
    pub(super) links: [Link; 3],
    pub(super) ends: Instant,
    pub(super) state: State,
    /// First byte and the one behind the last of what was seen, in order. They do not overlap.
    pub(super) seen: ArrayVec<(u16, u16), PIECES>,
    pub(super) bytes_seen: u32,
    /// Where the datagram ends, when that is known.
    pub(super) len: Option<u16>,
    /// Frames that wait, in the order in which they came, and their buffers in bytes.
    pub(super) first: u32,
    pub(super) last: u32,
    pub(super) charge: usize,
}

impl Linked<3> for Datagram {
    fn links(&mut self) -> &mut [Link; 3] {
        &mut self.links
    }
}

impl Chained for Datagram {
    type Key = Key;
    fn key(&self) -> &Key {
        &self.key
    }
    fn chain(&mut self) -> &mut u32 {
        &mut self.chain
    }
    fn next(&self) -> u32 {
        self.chain
    }
}

/// Where a fragment fits into what was seen.
pub(super) enum Fit {
    At(usize),
    Duplicate,
    Never(DropReason),
}

impl Datagram {
    /// Where a fragment goes among those that were seen.
    pub(super) fn fit(&self, start: u16, end: u16, more: bool) -> Fit {
        let contradicts = match self.len {
            Some(len) => end > len || (end == len) == more,
            None => !more && self.seen.last().is_some_and(|&(_, last)| last >= end),
        };
        if contradicts {
            return Fit::Never(DropReason::FragmentLength);
        }
        let at = self.seen.partition_point(|&(from, _)| from < start);
        let before = at.checked_sub(1).and_then(|before| self.seen.get(before));
        match (before, self.seen.get(at)) {
            (_, Some(&same)) if same == (start, end) => Fit::Duplicate,
            (Some(&(_, to)), _) if to > start => Fit::Never(DropReason::FragmentOverlap),
            (_, Some(&(from, _))) if from < end => Fit::Never(DropReason::FragmentOverlap),
            _ if self.seen.is_full() => Fit::Never(DropReason::FragmentLimit),
            _ => Fit::At(at),
        }
    }
}
