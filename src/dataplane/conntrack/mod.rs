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
        if self.is_v4() {
            return V4Tuple::from(self).hash(keys);
        }
        self.hash_v6(keys)
    }

    /// The hash of one that is not IPv4.
    #[inline(always)]
    fn hash_v6(&self, keys: &[u64; 4]) -> u64 {
        let rest = rest(self.zone, self.protocol, (self.source_port, self.destination_port));
        fold(fold(self.hash_addresses(keys) ^ keys[0], rest ^ keys[1]), keys[2] | 1)
    }

    #[inline(always)]
    #[allow(clippy::cast_possible_truncation)] // halves
    fn hash_addresses(&self, keys: &[u64; 4]) -> u64 {
        let one = |address: u128, key: u64| {
            fold((address >> 64) as u64 ^ key, address as u64 ^ key.rotate_left(32))
        };
        fold(one(self.source, keys[2]) ^ keys[0], one(self.destination, keys[3]) ^ keys[1])
    }
}

/// An IPv4 tuple in two words: what the path compares and hashes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct V4Tuple {
    /// Source and destination, the source in the high half.
    addresses: u64,
    rest: u64,
}

/// What a tuple has besides its addresses.
#[inline(always)]
fn rest(zone: u16, protocol: u8, ports: (u16, u16)) -> u64 {
    u64::from(ports.0) | u64::from(ports.1) << 16 | u64::from(zone) << 32 | u64::from(protocol) << 48
}

impl From<&Tuple> for V4Tuple {
    #[inline(always)]
    fn from(tuple: &Tuple) -> V4Tuple {
        let [source, destination] = tuple.v4();
        let ports = (tuple.source_port, tuple.destination_port);
        V4Tuple::new(tuple.zone, tuple.protocol, (source, destination), ports)
    }
}

#[allow(clippy::cast_possible_truncation)] // parts of words
impl V4Tuple {
    /// A tuple of its parts. Each pair is source and destination.
    #[inline(always)]
    pub fn new(zone: u16, protocol: u8, addresses: (u32, u32), ports: (u16, u16)) -> V4Tuple {
        let addresses = u64::from(addresses.0) << 32 | u64::from(addresses.1);
        V4Tuple { addresses, rest: rest(zone, protocol, ports) }
    }

    /// Source and destination.
    #[inline(always)]
    pub fn addresses(&self) -> (u32, u32) {
        ((self.addresses >> 32) as u32, self.addresses as u32)
    }

    /// Source port and destination port.
    #[inline(always)]
    pub fn ports(&self) -> (u16, u16) {
        (self.rest as u16, (self.rest >> 16) as u16)
    }

    /// The IP protocol.
    #[inline(always)]
    pub fn protocol(&self) -> u8 {
        (self.rest >> 48) as u8
    }

    /// Where the addresses are valid: the router.
    #[inline(always)]
    pub fn zone(&self) -> u16 {
        (self.rest >> 32) as u16
    }

    /// What comes back where nothing is translated.
    #[inline(always)]
    #[must_use]
    pub fn reversed(&self) -> V4Tuple {
        let ((source, destination), (source_port, destination_port)) = (self.addresses(), self.ports());
        V4Tuple::new(self.zone(), self.protocol(), (destination, source), (destination_port, source_port))
    }

    #[inline(always)]
    fn hash(&self, keys: &[u64; 4]) -> u64 {
        // Two rounds: after one, tuples that count up on a lattice still crowd some buckets.
        fold(fold(self.addresses ^ keys[0], self.rest ^ keys[1]), keys[2] | 1)
    }
}

/// As [`Probe`], of an IPv4 tuple.
#[derive(Clone, Copy, Debug)]
pub struct V4Probe {
    /// The tuple.
    pub tuple: V4Tuple,
    hash: u64,
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

/// The hash of a tuple.
#[derive(Clone, Copy, Debug)]
pub struct Hash(u64);

/// What may be the entry of a probe, and the direction in it: good for a look only.
#[derive(Clone, Copy, Debug)]
pub struct Guess(u32);

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
