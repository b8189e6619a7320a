//! Connection tracking: which connection a packet belongs to, in which state that is, and how it is translated. Pure data
//! structures; no packet is parsed here and nothing is decided about one but whether its connection can have it.
//!
//! - [`Tracker`]: the connections of a worker, found by either direction's tuple, with a life that depends on their state;
//! - [`tcp`]: TCP's states and windows;
//! - [`Bindings`]: the endpoint-independent mappings (RFC 4787, REQ-1) that connections share.
//!
//! A caller's packet goes through three steps, each for a whole burst before the next begins, so that memory is near when
//! it is read: [`Tracker::probe`], [`Tracker::approach`], then [`Tracker::find`] with [`Tracker::update`] or
//! [`Tracker::insert`].
//!
//! Time is in seconds since any origin, from the caller, and never runs backwards.

mod entry;
mod fair;
mod index;
pub mod journal;
mod slab;
pub mod tcp;
#[cfg(test)]
mod tests;
mod tracker;
mod wheel;

pub mod binding;
mod ports;

pub use binding::Bindings;
pub use entry::{Entry, State};
pub use tracker::{Limits, New, Refused, Settings, Stats, Timeouts, Tracker, Why};

use index::fold;

const V4: u128 = 0xffff_0000_0000;

/// What tells a direction of a connection from all others.
///
/// Protocols without ports have zeroes there. An ICMP query has its identifier as both ports, whichever way it goes
/// ([`Tuple::query`]).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Tuple {
    /// Where the addresses are valid: the router.
    pub zone: u16,
    /// The IP protocol.
    pub protocol: u8,
    /// The source; an IPv4 address is IPv4-mapped (RFC 4291, 2.5.5.2).
    pub source: u128,
    /// The destination, of the same family.
    pub destination: u128,
    /// The source port.
    pub source_port: u16,
    /// The destination port.
    pub destination_port: u16,
}

impl Tuple {
    /// The tuple of an ICMP query or its reply, with its identifier.
    pub fn query(zone: u16, protocol: u8, source: u128, destination: u128, identifier: u16) -> Tuple {
        let (source_port, destination_port) = (identifier, identifier);
        Tuple { zone, protocol, source, destination, source_port, destination_port }
    }

    /// What comes back where nothing is translated.
    pub fn reversed(self) -> Tuple {
        Tuple {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
            ..self
        }
    }

    /// Whether both addresses are IPv4.
    #[inline(always)]
    pub fn is_v4(&self) -> bool {
        (self.source & self.destination) >> 32 == 0xffff && (self.source | self.destination) >> 32 == 0xffff
    }

    /// The addresses of an IPv4 tuple: source, destination.
    #[inline(always)]
    #[allow(clippy::cast_possible_truncation)] // the IPv4 part
    fn v4(&self) -> [u32; 2] {
        [self.source as u32, self.destination as u32]
    }

    #[inline(always)]
    fn hash(&self, keys: &[u64; 4]) -> u64 {
        let rest = u64::from(self.source_port)
            | u64::from(self.destination_port) << 16
            | u64::from(self.zone) << 32
            | u64::from(self.protocol) << 48;
        let addresses = if self.is_v4() {
            let [source, destination] = self.v4();
            u64::from(source) << 32 | u64::from(destination)
        } else {
            self.hash_v6(keys)
        };
        // Two rounds: after one, tuples that count up on a lattice still crowd some buckets.
        fold(fold(addresses ^ keys[0], rest ^ keys[1]), keys[2] | 1)
    }

    #[inline(never)]
    #[allow(clippy::cast_possible_truncation)] // halves
    fn hash_v6(&self, keys: &[u64; 4]) -> u64 {
        let one = |address: u128, key: u64| {
            fold((address >> 64) as u64 ^ key, address as u64 ^ key.rotate_left(32))
        };
        fold(one(self.source, keys[2]) ^ keys[0], one(self.destination, keys[3]) ^ keys[1])
    }
}

/// Which way a packet goes, seen from its connection.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Direction {
    /// As the first packet went.
    Original = 0,
    /// The other way.
    Reply = 1,
}

impl Direction {
    /// The other one.
    pub fn opposite(self) -> Direction {
        match self {
            Direction::Original => Direction::Reply,
            Direction::Reply => Direction::Original,
        }
    }

    #[inline(always)]
    fn index(self) -> usize {
        self as usize
    }

    #[inline(always)]
    fn of(bit: u32) -> Direction {
        if bit & 1 == 0 { Direction::Original } else { Direction::Reply }
    }
}

/// A tuple with its hash: worked out once, used for look-up and insertion.
#[derive(Clone, Copy, Debug)]
pub struct Probe {
    /// The tuple.
    pub tuple: Tuple,
    hash: u64,
}

/// An entry's place. Good until the next insertion, removal or sweep, any of which may give the place to another connection.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct EntryRef(u32);

impl EntryRef {
    /// The place's number, as [`Tracker::walk`] counts.
    pub fn number(self) -> u32 {
        self.0
    }
}

/// What a packet was: what the tracker needs of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    /// Its length, for the counters: from the IP header on.
    pub bytes: u32,
    /// Its TCP header; none for other protocols and for fragments that have none.
    pub tcp: Option<tcp::Segment>,
}

/// What the tracker says of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Verdict {
    /// It is of the connection.
    Pass,
    /// It is of the connection, and begins it anew (a SYN after the end): the entry is as new, and whether it may be is to
    /// be decided again.
    Restarted,
    /// It is a SYN from the other side after the end: remove the entry, and treat the packet as one without.
    Renew,
    /// It cannot be of the connection: drop it.
    Invalid(tcp::Invalid),
}

fn v4(address: u32) -> u128 {
    V4 | u128::from(address)
}
