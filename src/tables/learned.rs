//! Peers that were learned: VTEPs that nobody named and that have sent to a network of ours. Bounded, and forgotten after a
//! time of silence, so that one which went away does not get copies for ever, nor keep its place.
//!
//! A peer was heard of when something behind it was: the FDB's newest entry there says when. The FDB that is asked may be a
//! replica, which hears of a station again within an eighth of the ageing time, so the silence must be longer by a quarter:
//! a peer is never forgotten before the stations behind it. One whose stations are not learned, because a limit is
//! reached, is forgotten as if it were silent, and learned anew from its next frame.

use std::collections::BTreeMap;
use std::net::IpAddr;

/// Most peers that are learned, for all networks together.
pub const MAX_LEARNED: usize = 1024;

/// A VTEP and the network, by name, that it was heard in.
pub type LearnedPeer = (IpAddr, String);

/// See the module's documentation.
#[derive(Clone, Default, Debug)]
pub struct Learned(BTreeMap<LearnedPeer, Option<u32>>);

impl Learned {
    /// Takes a VTEP for a peer of a network. False when it is one, or when there is no room.
    pub fn insert(&mut self, peer: LearnedPeer) -> bool {
        if self.0.len() >= MAX_LEARNED || self.0.contains_key(&peer) {
            return false;
        }
        self.0.insert(peer, None);
        true
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &LearnedPeer> {
        self.0.keys()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Forgets those for which `keep` is false.
    pub fn retain(&mut self, keep: impl Fn(&LearnedPeer) -> bool) {
        self.0.retain(|peer, _| keep(peer));
    }

    /// Forgets those that were silent for too long, and gives them. `seen` tells when a station behind a peer was last
    /// seen, `now` the time, `aging` the stations' ageing time, all in seconds. A new peer's time begins with the first
    /// call after it came.
    pub fn age(
        &mut self,
        seen: impl Fn(&LearnedPeer) -> Option<u32>,
        now: u32,
        aging: u32,
    ) -> Vec<LearnedPeer> {
        let longest = aging.saturating_add(aging / 4);
        let mut gone = Vec::new();
        self.0.retain(|peer, heard| {
            let at = seen(peer).max(*heard).unwrap_or(now);
            *heard = Some(at);
            let keep = now.saturating_sub(at) <= longest;
            if !keep {
                gone.push(peer.clone());
            }
            keep
        });
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(n: u32) -> LearnedPeer {
        (IpAddr::V4((0xc000_0200 + n).into()), "blue".to_owned())
    }

    #[test]
    fn who_is_silent_is_forgotten_and_who_speaks_is_not() {
        let mut learned = Learned::default();
        assert!(learned.insert(peer(1)) && learned.insert(peer(2)) && !learned.insert(peer(1)));
        let first_only = |time: u32| move |of: &LearnedPeer| (*of == peer(1)).then_some(time);
        assert_eq!(learned.age(|_| None, 1000, 300), []);
        assert_eq!(learned.age(first_only(1200), 1300, 300), []);
        assert_eq!(learned.age(first_only(1200), 1375, 300), [], "a quarter longer than stations live");
        assert_eq!(learned.age(first_only(1200), 1376, 300), [peer(2)]);
        // What is heard of it is not unheard when the FDB has forgotten.
        assert_eq!(learned.age(|_| None, 1575, 300), []);
        assert_eq!(learned.age(|_| None, 1576, 300), [peer(1)]);
        assert!(learned.is_empty() && learned.insert(peer(1)), "it may come again");
    }

    #[test]
    fn no_more_than_the_limit_are_learned() {
        let mut learned = Learned::default();
        let count = (0..2000).filter(|n| learned.insert(peer(*n))).count();
        assert_eq!((count, learned.iter().count()), (MAX_LEARNED, MAX_LEARNED));
        learned.retain(|of| *of != peer(3));
        assert!(learned.insert(peer(1999)));
    }
}
