//! The connections of a worker.
//!
//! Bounded in total and per guest. When there is no room an entry goes for the new one, so an insertion does not fail for
//! that: at its own limit a guest loses one of its own; when the total is reached, the guest that has most does. What goes
//! first of a guest's is in [`super::fair`]. So a scan or a SYN flood costs others nothing that is within their fair share.
//!
//! An entry is found until its expiry, to the second; it is taken out by [`Tracker::sweep`] or when its place is needed.
//! Whoever takes out entries is told of each by a callback, for what they hold: the binding, and what is shown of them.
//!
//! Timeouts: [`Timeouts`]. TCP is refreshed by valid segments either way, all else by what leads out from the guest only
//! (RFC 4787, REQ-6: else strangers could keep a mapping), unless configured otherwise or where the connection came from
//! outside and holds no binding that could be kept.

use super::binding::BindingRef;
use super::entry::{Entry, State};
use super::fair::Guests;
use super::index::{self, Index, prefetch};
use super::journal::{Happened, Journal};
use super::slab::Slab;
use super::tcp::{Invalid, Step, Tcp};
use super::wheel::{Due, Wheel};
use super::{Direction, EntryRef, Guess, Hash, Probe, Seen, Tuple, V4Probe, V4Tuple, Verdict};

const TCP: u8 = 6;
const ICMP: u8 = 1;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;
/// How full the index is when all entries are in use, in percent.
const LOAD: usize = 60;
/// Entries that one sweep takes out or puts further on.
const SWEEP: u32 = 64;

/// Most entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// In total: from 1 to [`Limits::MAX_ENTRIES`].
    pub entries: u32,
    /// Of one guest: at least 1.
    pub per_guest: u32,
}

impl Limits {
    /// As many as the index can tell apart well.
    pub const MAX_ENTRIES: u32 = 1 << 24;

    fn clamped(self, most: u32) -> Limits {
        Limits { entries: self.entries.clamp(1, most), per_guest: self.per_guest.max(1) }
    }
}

/// Seconds without a packet after which a connection ends, by state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// TCP before both sides have agreed (RFC 5382, REQ-5: at least 240).
    pub tcp_transitory: u32,
    /// TCP until both sides have closed (RFC 5382, REQ-5: at least 7440).
    pub tcp_established: u32,
    /// TCP when both sides have closed, or one has reset (RFC 7857, sections 2.1 and 2.2: 240).
    pub tcp_closing: u32,
    /// UDP, one way or both (RFC 4787, REQ-5: at least 120, 300 recommended).
    pub udp: u32,
    /// ICMP queries (RFC 5508, REQ-2: at least 60).
    pub icmp: u32,
    /// Other protocols.
    pub other: u32,
}

/// How connections are judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How long they live.
    pub timeouts: Timeouts,
    /// TCP connections that began before they were tracked are taken up at an ACK.
    pub pick_up: bool,
    /// Packets from outside refresh, too (RFC 4787, REQ-6c: a choice).
    pub inbound_refresh: bool,
}

/// A connection to be tracked.
#[derive(Clone, Copy, Debug)]
pub struct New {
    /// The guest on whose account it goes; the inside end.
    pub guest: u16,
    /// The first packet came from outside.
    pub inbound: bool,
    /// The epoch of the tables that it was decided under.
    pub epoch: u32,
    /// What the caller keeps for each direction.
    pub data: [u32; 2],
    /// The binding that it holds, IPv4 only. With an entry it is the entry's, and whoever is told that that is gone releases
    /// it; without one it stays the caller's.
    pub binding: Option<BindingRef>,
}

/// Why a connection is not tracked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// This entry has one of the tuples.
    Taken(EntryRef),
    /// An entry cannot have both tuples: they are the same, are of two zones, protocols or families, or IPv6 is translated.
    Unlike,
    /// TCP: no connection begins with this segment.
    Invalid(Invalid),
    /// The index is crowded around these tuples; their hash being keyed, that is chance of the rarest kind.
    Crowded,
}

/// Why an entry is gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Why {
    /// Its time was over.
    Expired,
    /// Its guest was at its limit.
    GuestLimit,
    /// The total was reached, and its guest had most.
    Full,
    /// It was removed or flushed.
    Removed,
}

/// What happened since the beginning.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stats {
    /// Connections tracked.
    pub created: u64,
    /// Entries whose time was over.
    pub expired: u64,
    /// Entries that went because their guest was at its limit.
    pub guest_limit: u64,
    /// Entries that went because the total was reached.
    pub full: u64,
    /// Entries that were removed or flushed.
    pub removed: u64,
    /// Connections refused.
    pub refused: u64,
    /// Packets that could not be of their connection.
    pub invalid: u64,
}

/// See the module's documentation.
pub struct Tracker {
    entries: Slab<Entry>,
    index: Index,
    wheel: Wheel,
    guests: Guests,
    limits: Limits,
    capacity: u32,
    settings: Settings,
    keys: [u64; 4],
    stats: Stats,
    /// Of what happens, while somebody wants to know.
    journal: Option<Box<Journal>>,
}

impl Tracker {
    /// A tracker with room for `limits.entries`. Memory for them is addressed now and taken when it is needed. `seed` keys
    /// the hash and is secret.
    pub fn new(limits: Limits, settings: Settings, seed: u64) -> Tracker {
        let limits = limits.clamped(Limits::MAX_ENTRIES);
        let slots = limits.entries as usize * 2;
        Tracker {
            entries: Slab::new(limits.entries),
            index: Index::new(slots, limits.entries << 1 | 1, LOAD),
            wheel: Wheel::new(),
            guests: Guests::new(),
            limits,
            capacity: limits.entries,
            settings,
            keys: index::keys(seed),
            stats: Stats::default(),
            journal: None,
        }
    }

    /// Begins to note what happens to connections, or ceases to. While nobody wants to know, it costs a branch when one begins,
    /// ends or changes its state.
    pub fn keep_journal(&mut self, wanted: bool) {
        if wanted != self.journal.is_some() {
            self.journal = wanted.then(Box::default);
        }
    }

    /// What happened since it was last taken.
    pub fn journal(&mut self) -> Option<&mut Journal> {
        self.journal.as_deref_mut()
    }

    /// Sets other limits: a total above what the tracker was made for counts as that. Of what is too much now, each
    /// insertion takes out two.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits.clamped(self.capacity);
    }

    /// Sets other settings, for packets from now on.
    pub fn set_settings(&mut self, settings: Settings) {
        self.settings = settings;
    }

    /// Entries that there are, with those that have ended and were not swept yet.
    pub fn len(&self) -> u32 {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// As [`Tracker::len`], of one guest.
    pub fn len_of(&self, guest: u16) -> u32 {
        self.guests.count(guest)
    }

    /// What happened since the beginning.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// Bytes that all of it takes once it is full.
    pub fn bytes(&self) -> usize {
        self.entries.bytes() + self.index.bytes() + self.wheel.bytes() + self.guests.bytes()
    }

    /// Works out a tuple's hash and brings its place in the index near.
    #[inline(always)]
    pub fn probe(&self, tuple: &Tuple) -> Probe {
        let hash = tuple.hash(&self.keys);
        self.index.prefetch(hash);
        Probe { tuple: *tuple, hash }
    }

    /// As [`Tracker::probe`], of an IPv4 tuple.
    #[inline(always)]
    pub fn probe_v4(&self, tuple: V4Tuple) -> V4Probe {
        let hash = tuple.hash(&self.keys);
        self.index.prefetch(hash);
        V4Probe { tuple, hash }
    }

    /// The second step, when others have been probed: brings the entry near.
    #[inline(always)]
    pub fn approach(&self, probe: &Probe) {
        let _ = self.approach_hash(probe.hash, probe.tuple.protocol);
    }

    /// The hash of a tuple that is not IPv4, whose place in the index it brings near.
    #[inline(always)]
    pub fn hash(&self, tuple: &Tuple) -> Hash {
        let hash = tuple.hash_v6(&self.keys);
        self.index.prefetch(hash);
        Hash(hash)
    }

    /// As [`Tracker::approach`], of an IPv6 tuple, whose entry has something in both its lines. What it found helps
    /// [`Tracker::find_v6`].
    #[inline(always)]
    pub fn approach_v6(&self, hash: Hash) -> Option<Guess> {
        self.approach_hash(hash.0, TCP)
    }

    /// As [`Tracker::approach`], of an IPv4 tuple. What it found helps [`Tracker::find_v4`].
    #[inline(always)]
    pub fn approach_v4(&self, probe: &V4Probe) -> Option<Guess> {
        self.approach_hash(probe.hash, probe.tuple.protocol())
    }

    #[inline(always)]
    fn approach_hash(&self, hash: u64, protocol: u8) -> Option<Guess> {
        let number = self.index.guess(hash)?;
        // It is not looked at yet: that would be to wait for it.
        let entry = &self.entries[number >> 1];
        prefetch(entry);
        if protocol == TCP {
            prefetch(&entry.tcp);
        }
        Some(Guess(number))
    }

    /// The connection of a probed tuple, and which way the packet goes in it.
    #[inline(always)]
    pub fn find(&self, probe: &Probe, now: u32) -> Option<(EntryRef, Direction)> {
        let number = self.find_number(probe)?;
        (self.entries[number >> 1].expiry > now).then(|| (EntryRef(number >> 1), Direction::of(number)))
    }

    /// As [`Tracker::find`], of an IPv4 tuple, with the entry, which may have ended.
    #[inline(always)]
    pub fn find_v4(&self, probe: &V4Probe, guess: Option<Guess>) -> Option<(EntryRef, Direction, &Entry)> {
        let tuple = &probe.tuple;
        let number = match guess {
            Some(Guess(number)) if self.entries[number >> 1].is_v4(Direction::of(number), tuple) => number,
            _ => self.find_far(probe.hash, |number| {
                self.entries[number >> 1].is_v4(Direction::of(number), tuple)
            })?,
        };
        Some((EntryRef(number >> 1), Direction::of(number), &self.entries[number >> 1]))
    }

    /// As [`Tracker::find_v4`], of an IPv6 tuple and its hash.
    #[inline(always)]
    pub fn find_v6(
        &self,
        tuple: &Tuple,
        hash: Hash,
        guess: Option<Guess>,
    ) -> Option<(EntryRef, Direction, &Entry)> {
        let number = match guess {
            Some(Guess(number)) if self.entries[number >> 1].is_v6(Direction::of(number), tuple) => number,
            _ => {
                self.find_far(hash.0, |number| self.entries[number >> 1].is_v6(Direction::of(number), tuple))?
            }
        };
        Some((EntryRef(number >> 1), Direction::of(number), &self.entries[number >> 1]))
    }

    /// Where the first guess was none, or wrong.
    #[inline(never)]
    fn find_far(&self, hash: u64, is: impl Fn(u32) -> bool) -> Option<u32> {
        self.index.find(hash, is)
    }

    #[inline(always)]
    fn find_number(&self, probe: &Probe) -> Option<u32> {
        self.index.find(probe.hash, |number| self.entries[number >> 1].is(Direction::of(number), probe))
    }

    /// An entry.
    #[inline(always)]
    pub fn entry(&self, at: EntryRef) -> Option<&Entry> {
        self.entries.get(at.0)
    }

    /// Takes over a decision about an entry: what is kept for each direction, and the epoch of the tables that say so.
    pub fn decide(&mut self, at: EntryRef, epoch: u32, data: [u32; 2]) {
        if let Some(entry) = self.entries.get_mut(at.0) {
            entry.decide(epoch, data);
        }
    }

    /// Keeps something for a direction of an entry, until the next decision about it.
    pub fn keep(&mut self, at: EntryRef, direction: Direction, data: u32) {
        if let Some(entry) = self.entries.get_mut(at.0) {
            entry.keep(direction, data);
        }
    }

    /// Notes that a packet went in a direction of a connection, if it can be of it.
    #[inline(always)]
    pub fn update(&mut self, at: EntryRef, direction: Direction, seen: &Seen, now: u32) -> Verdict {
        match self.entries.get_mut(at.0) {
            // Nothing can be wrong with it.
            Some(entry) if entry.state == State::Replied && seen.tcp.is_none() => {
                entry.refresh(direction, seen, &self.settings, now);
                Verdict::Pass
            }
            Some(_) => self.step(at, direction, seen, now),
            None => Verdict::Invalid(Invalid::NoHandshake),
        }
    }

    /// As [`Tracker::update`], for whatever has more states than one.
    #[inline(never)]
    fn step(&mut self, at: EntryRef, direction: Direction, seen: &Seen, now: u32) -> Verdict {
        let entry = &mut self.entries[at.0];
        let before = entry.state;
        let step = match (&seen.tcp, before) {
            (Some(segment), State::Established) => entry.tcp_step(direction, segment),
            _ => step_rarely(entry, direction, seen),
        };
        match step {
            Ok(Step::Refresh) if entry.state == before => {
                entry.refresh(direction, seen, &self.settings, now);
                Verdict::Pass
            }
            step => self.update_rarely(at, (direction, before, step), seen, now),
        }
    }

    /// After a step that changed the state, or was not one.
    #[inline(never)]
    fn update_rarely(
        &mut self,
        at: EntryRef,
        (direction, before, step): (Direction, State, Result<Step, Invalid>),
        seen: &Seen,
        now: u32,
    ) -> Verdict {
        let entry = &mut self.entries[at.0];
        let verdict = match step {
            Err(invalid) => {
                self.stats.invalid += 1;
                return Verdict::Invalid(invalid);
            }
            Ok(Step::Renew) => return Verdict::Renew,
            Ok(Step::Restarted) => Verdict::Restarted,
            Ok(Step::Refresh | Step::Keep) => Verdict::Pass,
        };
        entry.count(direction, seen.bytes);
        let state = entry.state;
        // A first reply does not refresh by itself; a new state of TCP does.
        let refreshes = self.settings.inbound_refresh || entry.is_kept_by(direction);
        if step != Ok(Step::Keep) && refreshes {
            entry.expiry = now.saturating_add(lifetime(&self.settings.timeouts, entry.protocol(), state));
            self.wheel.hasten(&mut self.entries, at.0);
        }
        if before.is_assured() != state.is_assured() {
            self.guests.requeue(&mut self.entries, at.0);
        }
        if before != state
            && let Some(journal) = &mut self.journal
        {
            journal.note(Happened::Changed, &self.entries[at.0]);
        }
        verdict
    }

    /// Tracks a connection that begins with this packet, whose tuple was probed. What goes for it is told to `gone`.
    ///
    /// # Errors
    /// [`Refused`]; nothing has changed, but for an entry of the same tuples that had ended.
    pub fn insert(
        &mut self,
        original: &Probe,
        reply: &Tuple,
        new: &New,
        seen: &Seen,
        now: u32,
        gone: &mut impl FnMut(&Entry, Why),
    ) -> Result<EntryRef, Refused> {
        let result = if original.tuple == *reply {
            Err(Refused::Unlike)
        } else {
            let entry = Entry::new(&original.tuple, reply, new.guest, new.inbound);
            let hashes = [original.hash, reply.hash(&self.keys)];
            entry.ok_or(Refused::Unlike).and_then(|entry| self.begin(entry, hashes, new, seen, now, gone))
        };
        self.stats.refused += u64::from(result.is_err());
        result
    }

    /// As [`Tracker::insert`], of IPv4 tuples, where [`Tracker::has_room`]: nothing living goes for it. That it is refused is not
    /// counted: the packet is judged anew then.
    ///
    /// # Errors
    /// As [`Tracker::insert`].
    #[inline(always)]
    pub fn insert_v4(
        &mut self,
        original: &V4Probe,
        reply: &V4Probe,
        new: &New,
        seen: &Seen,
        now: u32,
        gone: &mut impl FnMut(&Entry, Why),
    ) -> Result<EntryRef, Refused> {
        let entry = Entry::new_v4(&original.tuple, &reply.tuple, new.guest, new.inbound);
        self.begin(entry, [original.hash, reply.hash], new, seen, now, gone)
    }

    /// Whether no entry goes when so many of a guest are inserted.
    pub fn has_room(&self, guest: u16, count: u32) -> bool {
        let Limits { entries, per_guest } = self.limits;
        self.entries.len().saturating_add(count) <= entries
            && self.guests.count(guest).saturating_add(count) <= per_guest
    }

    /// Whether a connection may begin with this packet.
    pub fn may_begin(&self, protocol: u8, seen: &Seen) -> bool {
        let begins = |segment| Tcp::begin(segment, self.settings.pick_up).is_ok();
        protocol != TCP || seen.tcp.as_ref().is_some_and(begins)
    }

    /// Puts a new entry in its place. Not a call, for that would copy the entry when it was just written.
    #[inline(always)]
    fn begin(
        &mut self,
        mut entry: Entry,
        hashes: [u64; 2],
        new: &New,
        seen: &Seen,
        now: u32,
        gone: &mut impl FnMut(&Entry, Why),
    ) -> Result<EntryRef, Refused> {
        let [original, reply] = hashes;
        self.index.prefetch(reply);
        (entry.tcp, entry.state) = match (&seen.tcp, entry.protocol()) {
            (Some(segment), TCP) => Tcp::begin(segment, self.settings.pick_up).map_err(Refused::Invalid)?,
            (None, TCP) => return Err(Refused::Invalid(Invalid::NoHandshake)),
            _ => (Tcp::UNSEEN, State::Unreplied),
        };
        for (hash, way) in [(original, Direction::Original), (reply, Direction::Reply)] {
            let is = |number: u32| self.entries[number >> 1].has_tuple_of(Direction::of(number), &entry, way);
            if let Some(number) = self.index.find(hash, is) {
                let at = number >> 1;
                if self.entries[at].expiry > now {
                    return Err(Refused::Taken(EntryRef(at)));
                }
                self.take_out(at, Why::Expired, gone);
            }
        }
        self.make_room(new.guest, gone);
        entry.set_binding(new.binding);
        entry.decide(new.epoch, new.data);
        entry.count(Direction::Original, seen.bytes);
        entry.take_used();
        entry.expiry = now.saturating_add(lifetime(&self.settings.timeouts, entry.protocol(), entry.state));
        let at = self.put(entry, original, reply)?;
        self.stats.created += 1;
        Ok(at)
    }

    #[inline(always)]
    fn put(&mut self, entry: Entry, original: u64, reply: u64) -> Result<EntryRef, Refused> {
        let number = self.entries.take(entry).ok_or(Refused::Crowded)?;
        let (entries, keys) = (&self.entries, &self.keys);
        let hash_of = |number: u32| entries[number >> 1].tuple(Direction::of(number)).hash(keys);
        if self.index.insert(original, number << 1, hash_of).is_err() {
            self.entries.give_back(number);
            return Err(Refused::Crowded);
        }
        if self.index.insert(reply, number << 1 | 1, hash_of).is_err() {
            self.index.remove(original, number << 1);
            self.entries.give_back(number);
            return Err(Refused::Crowded);
        }
        self.wheel.arm(&mut self.entries, number);
        self.guests.add(&mut self.entries, number);
        if let Some(journal) = &mut self.journal {
            journal.note(Happened::New, &self.entries[number]);
        }
        Ok(EntryRef(number))
    }

    /// Takes over a copy of another tracker's entry, that holds this binding here: for looking at what would become of its
    /// packets. False: there is no room, or an entry has one of its tuples.
    pub fn import(&mut self, entry: &Entry, binding: Option<BindingRef>) -> bool {
        let [original, reply] =
            [Direction::Original, Direction::Reply].map(|direction| self.probe(&entry.tuple(direction)));
        if self.find_number(&original).is_some() || self.find_number(&reply).is_some() {
            return false;
        }
        let mut entry = *entry;
        entry.set_binding(binding);
        self.put(entry, original.hash, reply.hash).is_ok()
    }

    /// Evicts until one more entry of this guest fits; two at most, so that lowered limits are reached in small steps.
    fn make_room(&mut self, guest: u16, gone: &mut impl FnMut(&Entry, Why)) {
        for _ in 0..2 {
            let (loser, why) = if self.guests.count(guest) >= self.limits.per_guest {
                (Some(guest), Why::GuestLimit)
            } else if self.entries.len() >= self.limits.entries {
                (self.guests.richest(guest), Why::Full)
            } else {
                return;
            };
            if let Some(victim) = loser.and_then(|loser| self.guests.victim(&mut self.entries, loser)) {
                self.take_out(victim, why, gone);
            }
        }
    }

    /// Removes an entry.
    pub fn remove(&mut self, at: EntryRef, gone: &mut impl FnMut(&Entry, Why)) {
        if self.entries.get(at.0).is_some() {
            self.take_out(at.0, Why::Removed, gone);
        }
    }

    fn take_out(&mut self, number: u32, why: Why, gone: &mut impl FnMut(&Entry, Why)) {
        let entry = &self.entries[number];
        gone(entry, why);
        if let Some(journal) = &mut self.journal {
            journal.note(Happened::Ended(why), entry);
        }
        for direction in [Direction::Original, Direction::Reply] {
            self.index.remove(entry.tuple(direction).hash(&self.keys), number << 1 | direction as u32);
        }
        self.wheel.disarm(&mut self.entries, number);
        self.guests.remove(&mut self.entries, number);
        self.entries.give_back(number);
        *match why {
            Why::Expired => &mut self.stats.expired,
            Why::GuestLimit => &mut self.stats.guest_limit,
            Why::Full => &mut self.stats.full,
            Why::Removed => &mut self.stats.removed,
        } += 1;
    }

    /// Takes out what has ended by `now`, a bounded number of entries. True if there may be more, for another call.
    pub fn sweep(&mut self, now: u32, gone: &mut impl FnMut(&Entry, Why)) -> bool {
        for _ in 0..SWEEP {
            match self.wheel.next(&mut self.entries, now) {
                Due::Ended(number) => self.take_out(number, Why::Expired, gone),
                Due::More => {}
                Due::Nothing => return false,
            }
        }
        true
    }

    /// Looks at up to `most` places from `from` on, and shows those that have an entry. Returns where to go on, until all
    /// were seen. Entries that come and go between two calls may be missed.
    pub fn walk(&self, from: u32, most: u32, mut show: impl FnMut(EntryRef, &Entry)) -> Option<u32> {
        let end = self.entries.end().min(from.saturating_add(most));
        for number in from..end {
            if let Some(entry) = self.entries.get(number) {
                show(EntryRef(number), entry);
            }
        }
        (end < self.entries.end()).then_some(end)
    }

    /// As [`Tracker::walk`], but removes the entries that `is` true for.
    pub fn flush(
        &mut self,
        from: u32,
        most: u32,
        mut is: impl FnMut(&Entry) -> bool,
        gone: &mut impl FnMut(&Entry, Why),
    ) -> Option<u32> {
        let end = self.entries.end().min(from.saturating_add(most));
        for number in from..end {
            if self.entries.get(number).is_some_and(&mut is) {
                self.take_out(number, Why::Removed, gone);
            }
        }
        (end < self.entries.end()).then_some(end)
    }
}

/// What a packet does that is not the usual one of an established connection.
#[inline(never)]
fn step_rarely(entry: &mut Entry, direction: Direction, seen: &Seen) -> Result<Step, Invalid> {
    match (&seen.tcp, entry.protocol()) {
        (Some(segment), TCP) => entry.tcp_step(direction, segment),
        // A fragment goes with its connection and proves nothing; but what it carries may be acknowledged.
        (None, TCP) => {
            entry.note_part();
            Ok(Step::Keep)
        }
        _ => {
            if direction == Direction::Reply {
                entry.state = State::Replied;
            }
            Ok(Step::Refresh)
        }
    }
}

#[inline(always)]
pub(super) fn lifetime(timeouts: &Timeouts, protocol: u8, state: State) -> u32 {
    match state {
        State::Established | State::HalfClosed => timeouts.tcp_established,
        State::SynSent | State::SynReceived | State::PickedUp => timeouts.tcp_transitory,
        State::Closing | State::TimeWait | State::Reset => timeouts.tcp_closing,
        State::Vacant | State::Unreplied | State::Replied => match protocol {
            UDP => timeouts.udp,
            ICMP | ICMPV6 => timeouts.icmp,
            _ => timeouts.other,
        },
    }
}
