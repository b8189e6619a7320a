//! Virtual reassembly: which ports the fragments of a datagram have, without putting them together.
//!
//! The first fragment names the ports and passes. Those that come after it get its ports; those that come before it wait,
//! and are let go together when it comes. A datagram is forgotten when all of it was seen, or after its time.
//!
//! # What is dropped
//!
//! - Fragments that overlap: the whole datagram with those that wait, and all that come of it later (RFC 5722, 4; for IPv4 as
//!   well, where the same trick hides ports: RFC 1858). So are such that contradict each other on where the datagram ends.
//! - A fragment with exactly the range of one before: it alone, for a second first fragment could name other ports.
//! - One that is empty, that is not the last and no multiple of 8 bytes long (RFC 8200, 4.5), or that passes 65535 bytes.
//! - Those whose first does not come in time: 15 s for IPv4 (RFC 791, 3.2), 60 s for IPv6 (RFC 8200, 4.5).
//!
//! That a first fragment has its whole transport header is seen to before ([`check`](super::check)).
//!
//! # Bounds
//!
//! Datagrams and the buffers of waiting frames are bounded in total and an *owner*: a guest's port, or whatever else the
//! caller wants to be fair between. An owner at its own bound loses its own oldest datagram. When the total is reached, one
//! of those that have most loses its oldest: who has less than half of what another has loses nothing to anyone.
//! All is done in constant time and without allocation; the hash is keyed. A datagram has at most [`PIECES`] fragments.
//!
//! A frame ends in the [`Outcome`] of its own [`Fragments::track`], or was held; then it comes out of [`Fragments::pop`],
//! which the caller empties after each call that may put something there.

mod datagram;
mod list;

use std::time::Duration;

use arrayvec::ArrayVec;

use crate::frame::{CHUNK, Frame};
use crate::stats::DropReason;
use crate::types::Instant;
use datagram::{Datagram, Fit, State};
use list::{Chained, Classes, Index, Link, Linked, List, NONE, Slab};

/// Most fragments of one datagram: 64 KiB in pieces of 512 bytes.
pub const PIECES: usize = 128;
/// How long an IPv4 datagram may take (RFC 791, 3.2).
const TIME_V4: Duration = Duration::from_secs(15);
/// How long an IPv6 datagram may take (RFC 8200, 4.5).
const TIME_V6: Duration = Duration::from_secs(60);
/// The longest payload: that of an IPv4 datagram is shorter by its header.
const MAX_V4: u32 = 65535 - 20;
const MAX_V6: u32 = 65535;
/// Most datagrams whose time is over that one call forgets.
const EXPIRED_AT_ONCE: usize = 32;

/// What may be remembered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Datagrams in total; at least 1.
    pub datagrams: usize,
    /// Datagrams of one owner; at least 1.
    pub datagrams_owner: usize,
    /// Buffers of waiting frames in total, in bytes.
    pub bytes: usize,
    /// Those of one owner.
    pub bytes_owner: usize,
    /// Those of one datagram.
    pub bytes_datagram: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            datagrams: 4096,
            datagrams_owner: 1024,
            bytes: 1 << 20,
            bytes_owner: 1 << 18,
            bytes_datagram: 1 << 17,
        }
    }
}

/// What the fragments of a datagram have in common.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Key {
    /// Where the addresses mean what they mean: tenants' overlap.
    pub zone: u32,
    /// The source address; of IPv4 as `::ffff:a.b.c.d`.
    pub source: u128,
    /// The destination address.
    pub destination: u128,
    /// The identification.
    pub id: u32,
    /// The protocol of IPv4 (RFC 791, 3.2). 0 for IPv6, where it is no part of it (RFC 8200, 4.5).
    pub protocol: u8,
}

impl Key {
    fn is_v4(&self) -> bool {
        self.source >> 32 == 0xffff
    }
}

/// One fragment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Piece {
    /// Where its data belong, in bytes; a multiple of 8.
    pub offset: u16,
    /// Bytes of its data.
    pub len: u16,
    /// Others follow.
    pub more: bool,
    /// The ports of a first fragment, or the like of another protocol. Of others it does not count.
    pub ports: Option<(u16, u16)>,
    /// Against whose bounds it counts. The first fragment that comes decides for the datagram.
    pub owner: u32,
}

/// What becomes of a fragment.
#[derive(Debug)]
pub enum Outcome {
    /// It goes on, with the ports of its datagram.
    Pass(Frame, Option<(u16, u16)>),
    /// It waits for the first fragment.
    Held,
    /// It ends here.
    Drop(Frame, DropReason),
}

/// A fragment that waited: its frame, what came with it, and the ports or why it is dropped.
pub type Released<T> = (Frame, T, Result<Option<(u16, u16)>, DropReason>);

/// Kinds of lists of datagrams: by time, by owner, and by owner those with frames that wait.
const BY_TIME: usize = 0;
const OF_OWNER: usize = 1;
const WAITING: usize = 2;
/// Kinds of lists of owners: by datagrams, and by waiting bytes.
const BY_DATAGRAMS: usize = 0;
const BY_BYTES: usize = 1;

#[derive(Debug)]
struct Owner {
    id: u32,
    chain: u32,
    links: [Link; 2],
    datagrams: List<OF_OWNER>,
    waiting: List<WAITING>,
    count: usize,
    charge: usize,
}

impl Linked<2> for Owner {
    fn links(&mut self) -> &mut [Link; 2] {
        &mut self.links
    }
}

impl Chained for Owner {
    type Key = u32;
    fn key(&self) -> &u32 {
        &self.id
    }
    fn chain(&mut self) -> &mut u32 {
        &mut self.chain
    }
    fn next(&self) -> u32 {
        self.chain
    }
}

#[derive(Debug)]
struct Waiting<T> {
    held: Option<(Frame, T)>,
    next: u32,
    end: Result<Option<(u16, u16)>, DropReason>,
}

/// The datagrams that fragments were seen of. `T` is what the caller wants back with a frame that waited.
#[derive(Debug)]
pub struct Fragments<T> {
    limits: Limits,
    seed: u64,
    datagrams: Slab<Datagram>,
    by_key: Index,
    by_time: [List<BY_TIME>; 2],
    owners: Slab<Owner>,
    by_owner: Index,
    most_datagrams: Classes<BY_DATAGRAMS>,
    most_bytes: Classes<BY_BYTES>,
    waiting: Slab<Waiting<T>>,
    charge: usize,
    /// Frames that wait no longer.
    out: (u32, u32),
}

impl<T> Fragments<T> {
    /// Nothing seen yet. `seed` keys the hash and is secret. All memory is taken now.
    pub fn new(limits: Limits, seed: u64) -> Fragments<T> {
        let datagrams = limits.datagrams.max(1);
        Fragments {
            limits: Limits { datagrams, datagrams_owner: limits.datagrams_owner.max(1), ..limits },
            seed,
            datagrams: Slab::new(datagrams),
            by_key: Index::new(datagrams),
            by_time: [List::EMPTY; 2],
            owners: Slab::new(datagrams),
            by_owner: Index::new(datagrams),
            most_datagrams: Classes::new(),
            most_bytes: Classes::new(),
            // Each has a buffer at least, and all that wait may be about to leave when others come.
            waiting: Slab::new(limits.bytes / CHUNK * 2),
            charge: 0,
            out: (NONE, NONE),
        }
    }

    /// Datagrams that are remembered.
    pub fn len(&self) -> usize {
        self.datagrams.used()
    }

    /// True when none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Buffers of waiting frames, in bytes.
    pub fn waiting_bytes(&self) -> usize {
        self.charge
    }

    /// Decides on a fragment. `with` comes back with the frame when it has waited.
    pub fn track(&mut self, key: Key, piece: Piece, (frame, with): (Frame, T), now: Instant) -> Outcome {
        let (start, len) = (piece.offset, u32::from(piece.len));
        let end = u32::from(start) + len;
        let most = if key.is_v4() { MAX_V4 } else { MAX_V6 };
        let Some(end) = u16::try_from(end).ok().filter(|&end| u32::from(end) <= most) else {
            return Outcome::Drop(frame, DropReason::FragmentLength);
        };
        if len == 0 || piece.more && !len.is_multiple_of(8) || !start.is_multiple_of(8) {
            return Outcome::Drop(frame, DropReason::FragmentLength);
        }
        let slot = self.datagram(key, piece.owner, now);
        let datagram = &mut self.datagrams.slots[slot as usize];
        if let State::Doomed(reason) = datagram.state {
            return Outcome::Drop(frame, reason);
        }
        let at = match datagram.fit(start, end, piece.more) {
            Fit::At(at) => at,
            Fit::Duplicate => return Outcome::Drop(frame, DropReason::FragmentDuplicate),
            Fit::Never(reason) => {
                self.doom(slot, reason);
                return Outcome::Drop(frame, reason);
            }
        };
        let state = datagram.state;
        let ports = match state {
            _ if start == 0 => {
                datagram.state = State::Known(piece.ports);
                self.let_go(slot, Ok(piece.ports));
                piece.ports
            }
            State::Known(ports) => ports,
            _ => match self.hold(slot, frame, with) {
                Ok(()) => {
                    self.note(slot, at, (start, end), piece.more);
                    return Outcome::Held;
                }
                Err(frame) => return Outcome::Drop(frame, DropReason::FragmentLimit),
            },
        };
        self.note(slot, at, (start, end), piece.more);
        Outcome::Pass(frame, ports)
    }

    /// A frame that waits no longer, in the order in which they came. To be called until there is none, after each
    /// [`Fragments::track`], [`Fragments::expire`] and [`Fragments::clear`].
    pub fn pop(&mut self) -> Option<Released<T>> {
        loop {
            let slot = self.out.0;
            if slot == NONE {
                return None;
            }
            let waiting = &mut self.waiting.slots[slot as usize];
            self.out.0 = waiting.next;
            if self.out.0 == NONE {
                self.out.1 = NONE;
            }
            let (held, end) = (waiting.held.take(), waiting.end);
            self.waiting.free(slot);
            if let Some((frame, with)) = held {
                return Some((frame, with, end));
            }
        }
    }

    /// Forgets datagrams whose time is over: a bounded number of them, so to be called again while [`Fragments::deadline`] has
    /// passed.
    pub fn expire(&mut self, now: Instant) {
        for _ in 0..EXPIRED_AT_ONCE {
            let Some(slot) = self.oldest().filter(|&slot| self.ends(slot) <= now) else { return };
            self.forget(slot, DropReason::FragmentExpired);
        }
    }

    /// When [`Fragments::expire`] has something to do next; nothing: never.
    pub fn deadline(&self) -> Option<Instant> {
        self.oldest().map(|slot| self.ends(slot))
    }

    /// Forgets all of a zone, when that is no more. Not in constant time.
    pub fn clear(&mut self, zone: u32) {
        for list in 0..self.by_time.len() {
            let mut at = self.by_time[list].first();
            while let Some(slot) = at {
                at = List::<BY_TIME>::after(&mut self.datagrams.slots, slot);
                if self.datagrams.slots[slot as usize].key.zone == zone {
                    self.forget(slot, DropReason::FragmentExpired);
                }
            }
        }
    }

    fn ends(&self, slot: u32) -> Instant {
        self.datagrams.slots[slot as usize].ends
    }

    fn oldest(&self) -> Option<u32> {
        self.by_time.iter().filter_map(List::first).min_by_key(|&slot| self.ends(slot))
    }

    /// The entry of a datagram, made where there is none whose time is not over.
    fn datagram(&mut self, key: Key, owner: u32, now: Instant) -> u32 {
        let hash = hash(&key, self.seed);
        if let Some(slot) = self.by_key.find(&self.datagrams.slots, hash, &key) {
            if self.ends(slot) > now {
                return slot;
            }
            self.forget(slot, DropReason::FragmentExpired);
        }
        if let Some(own) = self.owner(owner) {
            let Owner { count, datagrams, .. } = &self.owners.slots[own as usize];
            if let Some(oldest) = datagrams.first().filter(|_| *count >= self.limits.datagrams_owner) {
                self.forget(oldest, DropReason::FragmentLimit);
            }
        }
        if self.datagrams.is_full()
            && let Some(heaviest) = self.most_datagrams.heaviest()
            && let Some(oldest) = self.owners.slots[heaviest as usize].datagrams.first()
        {
            self.forget(oldest, DropReason::FragmentLimit);
        }
        let owner = self.owner(owner).unwrap_or_else(|| self.new_owner(owner));
        let v4 = key.is_v4();
        let slot = self.datagrams.insert(Datagram {
            key,
            hash,
            chain: NONE,
            owner,
            links: [Link::UNLINKED; 3],
            ends: now.after(if v4 { TIME_V4 } else { TIME_V6 }),
            state: State::Wait,
            seen: ArrayVec::new(),
            bytes_seen: 0,
            len: None,
            first: NONE,
            last: NONE,
            charge: 0,
        });
        let slot = slot.unwrap_or_default(); // room was made, and there is at least one slot
        let slots = &mut self.datagrams.slots;
        self.by_key.insert(slots, hash, slot);
        self.by_time[usize::from(v4)].push(slots, slot);
        self.owners.slots[owner as usize].datagrams.push(slots, slot);
        self.count(owner, 1);
        slot
    }

    fn owner(&self, id: u32) -> Option<u32> {
        self.by_owner.find(&self.owners.slots, self.owner_hash(id), &id)
    }

    fn owner_hash(&self, id: u32) -> u64 {
        mix(u64::from(id) ^ self.seed, 0x9e37_79b9_7f4a_7c15)
    }

    /// An owner has a datagram at least, so there is room for one where there is room for a datagram.
    fn new_owner(&mut self, id: u32) -> u32 {
        let owner = Owner {
            id,
            chain: NONE,
            links: [Link::UNLINKED; 2],
            datagrams: List::EMPTY,
            waiting: List::EMPTY,
            count: 0,
            charge: 0,
        };
        let slot = self.owners.insert(owner).unwrap_or_default();
        let hash = self.owner_hash(id);
        self.by_owner.insert(&mut self.owners.slots, hash, slot);
        slot
    }

    /// Adds to the datagrams of an owner, or takes away; one without any is forgotten.
    fn count(&mut self, owner: u32, change: isize) {
        let entry = &mut self.owners.slots[owner as usize];
        let had = entry.count;
        entry.count = had.saturating_add_signed(change);
        let (id, has) = (entry.id, entry.count);
        self.most_datagrams.moved(&mut self.owners.slots, owner, had as u64, has as u64);
        if has == 0 {
            let hash = self.owner_hash(id);
            self.by_owner.remove(&mut self.owners.slots, hash, owner);
            self.owners.free(owner);
        }
    }

    /// Adds to what waits of a datagram, or takes away, everywhere where that is counted.
    fn charge(&mut self, slot: u32, change: isize) {
        let datagram = &mut self.datagrams.slots[slot as usize];
        let (owner, before) = (datagram.owner, datagram.charge);
        datagram.charge = before.saturating_add_signed(change);
        let after = datagram.charge;
        let entry = &mut self.owners.slots[owner as usize];
        let had = entry.charge;
        entry.charge = had.saturating_add_signed(change);
        let has = entry.charge;
        match (before, after) {
            (0, 1..) => entry.waiting.push(&mut self.datagrams.slots, slot),
            (1.., 0) => entry.waiting.remove(&mut self.datagrams.slots, slot),
            _ => {}
        }
        self.most_bytes.moved(&mut self.owners.slots, owner, had as u64, has as u64);
        self.charge = self.charge.saturating_add_signed(change);
    }

    /// Lets a frame wait; it comes back when there is no room for it.
    fn hold(&mut self, slot: u32, frame: Frame, with: T) -> Result<(), Frame> {
        let charge = buffers(&frame);
        if self.waiting.is_full() {
            return Err(frame);
        }
        let datagram = &self.datagrams.slots[slot as usize];
        let owner = datagram.owner;
        let Limits { bytes, bytes_owner, bytes_datagram, .. } = self.limits;
        if datagram.charge + charge > bytes_datagram.min(bytes_owner).min(bytes) {
            return Err(frame);
        }
        while self.owners.slots[owner as usize].charge + charge > bytes_owner {
            match self.owners.slots[owner as usize].waiting.first() {
                Some(oldest) if oldest != slot => self.forget(oldest, DropReason::FragmentLimit),
                _ => return Err(frame),
            }
        }
        // What one large frame takes was given by large ones, or by many small ones that had been let in one by one.
        while self.charge + charge > bytes {
            let heaviest = self.most_bytes.heaviest();
            match heaviest.and_then(|owner| self.owners.slots[owner as usize].waiting.first()) {
                Some(oldest) if oldest != slot => self.forget(oldest, DropReason::FragmentLimit),
                _ => return Err(frame),
            }
        }
        let entry = Waiting { held: Some((frame, with)), next: NONE, end: Ok(None) };
        let place = self.waiting.insert(entry).unwrap_or_default(); // there is room: that was seen to
        let datagram = &mut self.datagrams.slots[slot as usize];
        match datagram.last {
            NONE => datagram.first = place,
            last => self.waiting.slots[last as usize].next = place,
        }
        datagram.last = place;
        self.charge(slot, charge.cast_signed());
        Ok(())
    }

    /// Notes what was seen, and forgets a datagram that is complete.
    fn note(&mut self, slot: u32, at: usize, (start, end): (u16, u16), more: bool) {
        let datagram = &mut self.datagrams.slots[slot as usize];
        datagram.seen.insert(at, (start, end));
        datagram.bytes_seen += u32::from(end - start);
        if !more {
            datagram.len = Some(end);
        }
        if datagram.len.map(u32::from) == Some(datagram.bytes_seen) {
            self.forget(slot, DropReason::FragmentExpired);
        }
    }

    fn doom(&mut self, slot: u32, reason: DropReason) {
        self.datagrams.slots[slot as usize].state = State::Doomed(reason);
        self.let_go(slot, Err(reason));
    }

    /// Moves the frames of a datagram that wait to those that leave.
    fn let_go(&mut self, slot: u32, end: Result<Option<(u16, u16)>, DropReason>) {
        let datagram = &mut self.datagrams.slots[slot as usize];
        let first = std::mem::replace(&mut datagram.first, NONE);
        let last = std::mem::replace(&mut datagram.last, NONE);
        let charge = datagram.charge;
        if first == NONE {
            return;
        }
        let mut at = first;
        while at != NONE {
            let waiting = &mut self.waiting.slots[at as usize];
            waiting.end = end;
            at = waiting.next;
        }
        match self.out.1 {
            NONE => self.out.0 = first,
            end => self.waiting.slots[end as usize].next = first,
        }
        self.out.1 = last;
        self.charge(slot, -charge.cast_signed());
    }

    /// Removes a datagram; what waits of it is dropped for `reason`.
    fn forget(&mut self, slot: u32, reason: DropReason) {
        self.let_go(slot, Err(reason));
        let Datagram { hash, owner, key, .. } = self.datagrams.slots[slot as usize];
        let slots = &mut self.datagrams.slots;
        self.by_key.remove(slots, hash, slot);
        self.by_time[usize::from(key.is_v4())].remove(slots, slot);
        self.owners.slots[owner as usize].datagrams.remove(slots, slot);
        self.datagrams.free(slot);
        self.count(owner, -1);
    }
}

/// Bytes of the chunks that a frame lies in.
fn buffers(frame: &Frame) -> usize {
    let head = frame.headroom() + frame.head().len() + frame.tailroom();
    if frame.is_linear() { head } else { head + (frame.segments().count() - 1) * CHUNK }
}

fn hash(key: &Key, seed: u64) -> u64 {
    let [source, destination] = [key.source, key.destination].map(|address| {
        let [high, low] =
            [64, 0].map(|shift| u64::try_from(address >> shift & u128::from(u64::MAX)).unwrap_or(0));
        (high, low)
    });
    let rest = u64::from(key.id) << 32 | u64::from(key.zone) << 16 | u64::from(key.protocol);
    let addresses = mix(
        mix(source.0 ^ seed, source.1 ^ 0x9e37_79b9_7f4a_7c15) ^ destination.0,
        destination.1 ^ seed.rotate_left(32),
    );
    mix(addresses ^ seed, rest ^ 0xd6e8_feb8_6659_fd93)
}

/// Both halves of a product, folded.
#[inline(always)]
#[allow(clippy::cast_possible_truncation)] // the halves of 128 bits
fn mix(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

#[cfg(test)]
mod tests;
