//! Neighbours: which MAC an IP address on the link has, for ARP and ND alike, and the frames that wait to know.
//!
//! # States (RFC 4861, 7.3.2)
//!
//! | state | MAC known | what happens |
//! |---|---|---|
//! | incomplete | no | asked of all, 3 times 1 s apart; frames wait |
//! | reachable | yes | confirmed within 30 s |
//! | stale | yes | not confirmed since and not used; forgotten after a minute |
//! | probe | yes | asked of the MAC itself, 3 times 1 s apart |
//! | failed | no | wanted, but nobody answers; asked of all after 2, 4, 8, 16, 30, 30 … s; frames are discarded |
//!
//! incomplete → reachable by an answer; → probe by an unsolicited claim, which must prove itself; → failed, or forgotten
//! when nobody wants it. reachable → probe after 30 s when wanted or used, else → stale. stale → probe when used. probe →
//! reachable by an answer; → incomplete, or forgotten when nobody wants it, after 3 probes. failed → as incomplete.
//!
//! # Whom to believe
//!
//! Anyone on the link can claim anyone's address (RFC 4861, 11.1), so:
//!
//! - A claim never makes an entry. Only we do, by asking.
//! - A claim that differs from a binding never replaces it at once, as RFC 826 and RFC 4861, 7.2.5 would: it is remembered
//!   and the known MAC is probed, at most once a second. When that answers within a second, it keeps the address and
//!   the claim is forgotten; when it does not, the claimant gets the address, and is probed in its turn. So a
//!   spoofer cannot take the address of a peer that is alive, and one that came back with another MAC is followed in one to
//!   two seconds after its announcement, in about four without any.
//! - An advertisement without the override flag makes us probe, no more (RFC 4861, 7.2.5).
//! - Only what answers a question of ours confirms a binding.
//!
//! # Bounds
//!
//! Wanted entries are as many as are wanted; others are at most a given number, of which the least recently used goes first, in
//! time logarithmic in that number. 64 frames wait for one neighbour, 256 in all; the oldest are discarded first.

use std::collections::btree_map::Entry as Slot;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use crate::frame::Frame;
use crate::types::{Instant, Mac};

/// Questions before no answer counts as one (RFC 4861, 10: `MAX_MULTICAST_SOLICIT`, `MAX_UNICAST_SOLICIT`).
const TRIES: u32 = 3;
/// Between questions (RFC 4861, 10: `RETRANS_TIMER`).
const RETRY: Duration = Duration::from_secs(1);
/// How long an answer counts (RFC 4861, 10: `REACHABLE_TIME`).
const REACHABLE: Duration = Duration::from_secs(30);
/// How long a binding is kept that nobody uses.
const STALE: Duration = Duration::from_secs(60);
/// Longest time between questions for a wanted neighbour that does not answer.
const BACK_OFF: Duration = Duration::from_secs(30);
/// Most frames that wait for one neighbour.
pub const QUEUE: usize = 64;
/// Most frames that wait in all.
pub const QUEUE_TOTAL: usize = 256;

/// What is to be done outside.
#[derive(Debug)]
pub enum Effect {
    /// Ask who has `ip`: all, or the one that had it last.
    Solicit {
        /// The address.
        ip: IpAddr,
        /// Whom to ask; nobody: all.
        to: Option<Mac>,
    },
    /// `ip` has another MAC, or none that is known.
    Changed {
        /// The address.
        ip: IpAddr,
        /// Its MAC now.
        mac: Option<Mac>,
    },
    /// Send a frame: its destination MAC is written.
    Release(Frame),
    /// Count and free a frame that found nobody.
    Discard(Frame),
}

/// What someone says of an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Claim {
    /// The MAC that it has, they say.
    pub mac: Mac,
    /// It answers a question of ours.
    pub solicited: bool,
    /// It means to replace what is known; ARP always does.
    pub overrides: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Questions asked so far, as in `Probe` and `Failed`.
    Incomplete(u32),
    /// Since when.
    Reachable(Instant),
    Stale,
    Probe(u32),
    Failed(u32),
}

#[derive(Debug)]
struct Entry {
    state: State,
    mac: Option<Mac>,
    /// Another MAC that claimed the address since it was confirmed.
    claimant: Option<Mac>,
    wanted: bool,
    /// Used, or doubted, since the last probe.
    used: bool,
    /// When the state ends; its key in `timers`.
    timer: Instant,
    /// Its key in `unwanted`, when it is not wanted.
    serial: u64,
    /// Frames that wait for it.
    waiting: usize,
}

/// The neighbours on one link.
#[derive(Debug)]
pub struct Neighbours {
    entries: BTreeMap<IpAddr, Entry>,
    timers: BTreeSet<(Instant, IpAddr)>,
    /// Entries that nobody wants, least recently used first.
    unwanted: BTreeMap<u64, IpAddr>,
    serial: u64,
    capacity: usize,
    waiting: VecDeque<(IpAddr, Frame)>,
}

impl Neighbours {
    /// No neighbours yet, and never more than `capacity` that nobody wants.
    pub fn new(capacity: usize) -> Neighbours {
        Neighbours {
            entries: BTreeMap::new(),
            timers: BTreeSet::new(),
            unwanted: BTreeMap::new(),
            serial: 0,
            capacity,
            waiting: VecDeque::new(),
        }
    }

    /// Keeps `ip` resolved from now on.
    pub fn want(&mut self, ip: IpAddr, now: Instant, out: &mut impl FnMut(Effect)) {
        match self.entries.entry(ip) {
            Slot::Vacant(slot) => {
                slot.insert(Entry::asked(now, true, 0));
                self.timers.insert((now.after(RETRY), ip));
                out(Effect::Solicit { ip, to: None });
            }
            Slot::Occupied(slot) => {
                let entry = slot.into_mut();
                if !entry.wanted {
                    self.unwanted.remove(&entry.serial);
                    entry.wanted = true;
                }
                if entry.state == State::Stale {
                    self.probe(ip, now, out);
                }
            }
        }
    }

    /// Wants `ip` no longer: it stays as long as it is used.
    pub fn unwant(&mut self, ip: IpAddr, out: &mut impl FnMut(Effect)) {
        let Some(entry) = self.entries.get_mut(&ip).filter(|entry| entry.wanted) else { return };
        entry.wanted = false;
        entry.serial = self.serial;
        self.unwanted.insert(self.serial, ip);
        self.serial += 1;
        if matches!(entry.state, State::Failed(_)) {
            self.forget(ip, out);
        }
        self.evict(self.capacity, out);
    }

    /// The MAC of `ip`, when it is known.
    pub fn mac(&self, ip: IpAddr) -> Option<Mac> {
        self.entries.get(&ip)?.mac
    }

    /// Sends a frame to `ip`: now, or as soon as its MAC is known.
    pub fn submit(&mut self, frame: Frame, ip: IpAddr, now: Instant, out: &mut impl FnMut(Effect)) {
        self.used(ip);
        match self.entries.get_mut(&ip).map(|entry| (entry.mac, entry.state)) {
            Some((Some(mac), state)) => {
                out(addressed(frame, mac));
                if state == State::Stale {
                    self.probe(ip, now, out);
                }
            }
            Some((None, State::Failed(_))) => out(Effect::Discard(frame)),
            Some((None, _)) => self.wait(ip, frame, out),
            None if self.capacity == 0 => out(Effect::Discard(frame)),
            None => {
                self.evict(self.capacity - 1, out);
                self.entries.insert(ip, Entry::asked(now, false, self.serial));
                self.unwanted.insert(self.serial, ip);
                self.serial += 1;
                self.timers.insert((now.after(RETRY), ip));
                self.wait(ip, frame, out);
                out(Effect::Solicit { ip, to: None });
            }
        }
    }

    /// Notes that `ip` is sent to: it is kept fresh, and goes last when room is needed.
    fn used(&mut self, ip: IpAddr) {
        let Some(entry) = self.entries.get_mut(&ip) else { return };
        entry.used = true;
        if !entry.wanted {
            self.unwanted.remove(&entry.serial);
            entry.serial = self.serial;
            self.unwanted.insert(self.serial, ip);
            self.serial += 1;
        }
    }

    /// Someone says what MAC `ip` has. See the module's text on whom to believe. False when nobody asked about `ip`.
    pub fn heard(&mut self, ip: IpAddr, claim: Claim, now: Instant, out: &mut impl FnMut(Effect)) -> bool {
        let Some(entry) = self.entries.get_mut(&ip) else { return false };
        let Some(known) = entry.mac else {
            entry.mac = Some(claim.mac);
            entry.claimant = None;
            out(Effect::Changed { ip, mac: Some(claim.mac) });
            self.release(ip, claim.mac, out);
            if claim.solicited {
                self.reach(ip, now);
            } else {
                self.probe(ip, now, out);
            }
            return true;
        };
        if claim.mac == known {
            if claim.solicited && matches!(entry.state, State::Probe(_)) {
                self.reach(ip, now);
            }
            return true;
        }
        if claim.overrides {
            entry.claimant = Some(claim.mac);
        }
        entry.used = true;
        match entry.state {
            state @ State::Reachable(since) if since.after(RETRY) > now => {
                self.set(ip, state, since.after(RETRY))
            }
            State::Reachable(_) | State::Stale => self.probe(ip, now, out),
            _ => {}
        }
        true
    }

    /// Does what time demands.
    pub fn poll(&mut self, now: Instant, out: &mut impl FnMut(Effect)) {
        while let Some(&(timer, ip)) = self.timers.first() {
            if timer > now {
                break;
            }
            self.fire(ip, now, out);
        }
    }

    /// When [`Neighbours::poll`] has something to do next; nothing: never.
    pub fn deadline(&self) -> Option<Instant> {
        self.timers.first().map(|&(timer, _)| timer)
    }

    /// All neighbours: their MACs and the names of their states.
    pub fn iter(&self) -> impl Iterator<Item = (IpAddr, Option<Mac>, &'static str)> {
        self.entries.iter().map(|(&ip, entry)| (ip, entry.mac, entry.state.name()))
    }

    /// Lets go of all frames that wait.
    pub fn discard_waiting(&mut self, out: &mut impl FnMut(Effect)) {
        for (ip, frame) in std::mem::take(&mut self.waiting) {
            if let Some(entry) = self.entries.get_mut(&ip) {
                entry.waiting = 0;
            }
            out(Effect::Discard(frame));
        }
    }

    /// The end of an entry's state. Moves its timer or removes the entry, so that `poll` ends.
    fn fire(&mut self, ip: IpAddr, now: Instant, out: &mut impl FnMut(Effect)) {
        let Some(entry) = self.entries.get_mut(&ip) else { return };
        match entry.state {
            State::Incomplete(asked) if asked < TRIES => self.ask(ip, State::Incomplete(asked + 1), now, out),
            State::Incomplete(_) if entry.wanted => {
                self.drop_waiting(ip, out);
                self.ask(ip, State::Failed(1), now, out);
            }
            State::Failed(asked) => self.ask(ip, State::Failed(asked.saturating_add(1)), now, out),
            State::Reachable(_) if entry.wanted || entry.used => self.probe(ip, now, out),
            State::Reachable(_) => self.set(ip, State::Stale, now.after(STALE)),
            State::Probe(_) if entry.claimant.is_some() => {
                entry.mac = entry.claimant.take();
                out(Effect::Changed { ip, mac: entry.mac });
                self.probe(ip, now, out);
            }
            State::Probe(asked) if asked < TRIES => self.ask(ip, State::Probe(asked + 1), now, out),
            State::Probe(_) if entry.wanted => {
                entry.mac = None;
                out(Effect::Changed { ip, mac: None });
                self.ask(ip, State::Incomplete(1), now, out);
            }
            State::Incomplete(_) | State::Probe(_) | State::Stale => self.forget(ip, out),
        }
    }

    fn probe(&mut self, ip: IpAddr, now: Instant, out: &mut impl FnMut(Effect)) {
        if let Some(entry) = self.entries.get_mut(&ip) {
            entry.used = false;
        }
        self.ask(ip, State::Probe(1), now, out);
    }

    fn reach(&mut self, ip: IpAddr, now: Instant) {
        if let Some(entry) = self.entries.get_mut(&ip) {
            entry.claimant = None;
        }
        self.set(ip, State::Reachable(now), now.after(REACHABLE));
    }

    /// Asks for `ip` in a new state: all, or its MAC where that is known.
    fn ask(&mut self, ip: IpAddr, state: State, now: Instant, out: &mut impl FnMut(Effect)) {
        let delay = match state {
            State::Failed(asked) => RETRY.saturating_mul(1 << asked.min(5)).min(BACK_OFF),
            _ => RETRY,
        };
        self.set(ip, state, now.after(delay));
        out(Effect::Solicit { ip, to: self.mac(ip) });
    }

    fn set(&mut self, ip: IpAddr, state: State, timer: Instant) {
        let Some(entry) = self.entries.get_mut(&ip) else { return };
        self.timers.remove(&(entry.timer, ip));
        self.timers.insert((timer, ip));
        entry.timer = timer;
        entry.state = state;
    }

    fn forget(&mut self, ip: IpAddr, out: &mut impl FnMut(Effect)) {
        self.drop_waiting(ip, out);
        let Some(entry) = self.entries.remove(&ip) else { return };
        self.timers.remove(&(entry.timer, ip));
        if !entry.wanted {
            self.unwanted.remove(&entry.serial);
        }
        if entry.mac.is_some() {
            out(Effect::Changed { ip, mac: None });
        }
    }

    /// Forgets entries that nobody wants until `room` or fewer are left.
    fn evict(&mut self, room: usize, out: &mut impl FnMut(Effect)) {
        while self.unwanted.len() > room {
            let Some((_, ip)) = self.unwanted.pop_first() else { return };
            self.forget(ip, out);
        }
    }

    fn wait(&mut self, ip: IpAddr, frame: Frame, out: &mut impl FnMut(Effect)) {
        let full = self.entries.get(&ip).is_some_and(|entry| entry.waiting >= QUEUE);
        let oldest = if full {
            self.waiting.iter().position(|(waits_for, _)| *waits_for == ip)
        } else {
            (self.waiting.len() >= QUEUE_TOTAL).then_some(0)
        };
        if let Some((waits_for, frame)) = oldest.and_then(|at| self.waiting.remove(at)) {
            if let Some(entry) = self.entries.get_mut(&waits_for) {
                entry.waiting = entry.waiting.saturating_sub(1);
            }
            out(Effect::Discard(frame));
        }
        if let Some(entry) = self.entries.get_mut(&ip) {
            entry.waiting += 1;
        }
        self.waiting.push_back((ip, frame));
    }

    fn release(&mut self, ip: IpAddr, mac: Mac, out: &mut impl FnMut(Effect)) {
        self.take_waiting(ip, |frame| out(addressed(frame, mac)));
    }

    fn drop_waiting(&mut self, ip: IpAddr, out: &mut impl FnMut(Effect)) {
        self.take_waiting(ip, |frame| out(Effect::Discard(frame)));
    }

    /// Takes out all frames that wait for `ip`, in their order; the others keep theirs.
    fn take_waiting(&mut self, ip: IpAddr, mut take: impl FnMut(Frame)) {
        match self.entries.get_mut(&ip) {
            Some(entry) if entry.waiting > 0 => entry.waiting = 0,
            _ => return,
        }
        for _ in 0..self.waiting.len() {
            match self.waiting.pop_front() {
                Some((waits_for, frame)) if waits_for == ip => take(frame),
                Some(other) => self.waiting.push_back(other),
                None => return,
            }
        }
    }
}

impl Entry {
    /// An entry whose first question goes out now.
    fn asked(now: Instant, wanted: bool, serial: u64) -> Entry {
        Entry {
            state: State::Incomplete(1),
            mac: None,
            claimant: None,
            wanted,
            used: true,
            timer: now.after(RETRY),
            serial,
            waiting: 0,
        }
    }
}

impl State {
    fn name(self) -> &'static str {
        match self {
            State::Incomplete(_) => "incomplete",
            State::Reachable(_) => "reachable",
            State::Stale => "stale",
            State::Probe(_) => "probe",
            State::Failed(_) => "failed",
        }
    }
}

/// The frame with its destination MAC written.
pub(super) fn addressed(mut frame: Frame, mac: Mac) -> Effect {
    match frame.head_mut().first_chunk_mut() {
        Some(destination) => {
            *destination = mac.0;
            Effect::Release(frame)
        }
        None => Effect::Discard(frame),
    }
}

#[cfg(test)]
mod tests;
