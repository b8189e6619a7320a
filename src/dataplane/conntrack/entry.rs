//! An entry: two cache lines, the first of which has all that a packet of IPv4 needs outside of TCP.
//!
//! IPv4 keeps the addresses and ports of both directions, because translation makes them differ. IPv6 is not translated: its
//! reply tuple is the original one reversed, and what IPv4 uses for the reply has the second half of an address.

use super::slab::{Chain, Item, Links};
use super::tcp::{Invalid, Tcp};
use super::tracker::{Settings, lifetime};
use super::{Direction, Probe, Seen, Tuple, V4Tuple, v4};

/// What a connection's life depends on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum State {
    /// No connection.
    Vacant,
    /// Not TCP: nothing came back yet.
    Unreplied,
    /// Not TCP: packets went both ways.
    Replied,
    /// TCP: a SYN went out.
    SynSent,
    /// TCP: a SYN came back, with or without an ACK.
    SynReceived,
    /// TCP: began before it was tracked; one side was seen.
    PickedUp,
    /// TCP: both sides have acknowledged the other's SYN.
    Established,
    /// TCP: one side has sent its FIN.
    HalfClosed,
    /// TCP: both sides have sent their FIN.
    Closing,
    /// TCP: both FINs are acknowledged.
    TimeWait,
    /// TCP: a valid RST was seen.
    Reset,
}

impl State {
    /// The name as `show conntrack` has it.
    pub fn name(self) -> &'static str {
        match self {
            State::Vacant => "vacant",
            State::Unreplied => "unreplied",
            State::Replied => "replied",
            State::SynSent => "syn-sent",
            State::SynReceived => "syn-received",
            State::PickedUp => "picked-up",
            State::Established => "established",
            State::HalfClosed => "half-closed",
            State::Closing => "closing",
            State::TimeWait => "time-wait",
            State::Reset => "reset",
        }
    }

    /// The state of this name.
    pub fn from_name(name: &str) -> Option<State> {
        State::ALL.into_iter().find(|state| state.name() == name)
    }

    /// All that a connection can have.
    pub const ALL: [State; 10] = [
        State::Unreplied,
        State::Replied,
        State::SynSent,
        State::SynReceived,
        State::PickedUp,
        State::Established,
        State::HalfClosed,
        State::Closing,
        State::TimeWait,
        State::Reset,
    ];

    /// Whether it goes after others when room is needed: both sides agree to it, and neither has ended it.
    #[inline(always)]
    pub fn is_assured(self) -> bool {
        matches!(self, State::Replied | State::Established | State::HalfClosed)
    }
}

/// The addresses are IPv6.
const V6: u8 = 1;
/// The first packet came from outside.
const INBOUND: u8 = 2;
/// A packet was seen since it was queued for eviction.
const USED: u8 = 4;
/// TCP: fragments of it were seen, whose numbers were not.
const PARTS: u8 = 8;
/// It is from inside and both of its ends are translated, so both are guests'.
const HAIRPIN: u8 = 16;

/// A tracked connection.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(128))]
pub struct Entry {
    /// IPv4: source and destination of the original direction, then of the reply. IPv6: the original source.
    addresses: [u32; 4],
    ports: [[u16; 2]; 2],
    zone: u16,
    protocol: u8,
    flags: u8,
    pub(super) state: State,
    guest: u16,
    pub(super) expiry: u32,
    epoch: u32,
    data: [u32; 2],
    packets: [u32; 2],
    bytes: [u32; 2],
    // The second line.
    /// IPv6: the original destination. IPv4: the binding.
    more: [u32; 4],
    pub(super) tcp: Tcp,
    pub(super) timer: Links,
    pub(super) queue: Links,
    pub(super) slot: u16,
    bytes_high: [u16; 2],
    packets_high: [u8; 2],
}

const _: () = assert!(size_of::<Entry>() == 128 && std::mem::offset_of!(Entry, more) == 64);

/// The chain of the timer wheel.
pub(super) struct ByTime;
/// The chain of a guest's queues.
pub(super) struct ByGuest;

impl Chain<Entry> for ByTime {
    fn links(entry: &mut Entry) -> &mut Links {
        &mut entry.timer
    }
}

impl Chain<Entry> for ByGuest {
    fn links(entry: &mut Entry) -> &mut Links {
        &mut entry.queue
    }
}

impl Item for Entry {
    fn vacant(next: u32) -> Entry {
        let mut entry = Entry::EMPTY;
        entry.timer.next = next;
        entry
    }

    #[inline(always)]
    fn next_vacant(&self) -> Option<u32> {
        (self.state == State::Vacant).then_some(self.timer.next)
    }
}

impl Entry {
    const EMPTY: Entry = Entry {
        addresses: [0; 4],
        ports: [[0; 2]; 2],
        zone: 0,
        protocol: 0,
        flags: 0,
        state: State::Vacant,
        guest: 0,
        expiry: 0,
        epoch: 0,
        data: [0; 2],
        packets: [0; 2],
        bytes: [0; 2],
        more: [0; 4],
        tcp: Tcp::UNSEEN,
        timer: Links { prev: 0, next: 0 },
        queue: Links { prev: 0, next: 0 },
        slot: 0,
        bytes_high: [0; 2],
        packets_high: [0; 2],
    };

    /// A connection of these tuples; none if an entry cannot have both: they differ in zone, protocol or family, or IPv6 is
    /// translated.
    pub(super) fn new(original: &Tuple, reply: &Tuple, guest: u16, inbound: bool) -> Option<Entry> {
        let v4 = original.is_v4();
        let alike = original.zone == reply.zone && original.protocol == reply.protocol && v4 == reply.is_v4();
        if !alike || !v4 && *reply != original.reversed() {
            return None;
        }
        if v4 {
            return Some(Entry::new_v4(&original.into(), &reply.into(), guest, inbound));
        }
        Some(Entry {
            addresses: words(original.source),
            more: words(original.destination),
            ports: [*original, *reply].map(|tuple| [tuple.source_port, tuple.destination_port]),
            zone: original.zone,
            protocol: original.protocol,
            flags: V6 | if inbound { INBOUND } else { 0 },
            guest,
            ..Entry::EMPTY
        })
    }

    /// As [`Entry::new`], of IPv4 tuples that are alike.
    #[inline(always)]
    pub(super) fn new_v4(original: &V4Tuple, reply: &V4Tuple, guest: u16, inbound: bool) -> Entry {
        let ((a, b), (c, d)) = (original.addresses(), reply.addresses());
        let is_hairpin = !inbound && a != d && b != c;
        Entry {
            addresses: [a, b, c, d],
            ports: [original.ports().into(), reply.ports().into()],
            zone: original.zone(),
            protocol: original.protocol(),
            flags: if inbound { INBOUND } else { 0 } | if is_hairpin { HAIRPIN } else { 0 },
            guest,
            ..Entry::EMPTY
        }
    }

    /// Whether a packet with the probed tuple goes in this direction of the connection.
    #[inline(always)]
    pub(super) fn is(&self, direction: Direction, probe: &Probe) -> bool {
        if self.flags & V6 == 0 {
            // The family, too: an IPv6 address may end as an IPv4 one does.
            probe.tuple.is_v4() && self.is_v4(direction, &V4Tuple::from(&probe.tuple))
        } else {
            self.tuple(direction) == probe.tuple
        }
    }

    /// As [`Entry::is`], of an IPv4 tuple.
    #[inline(always)]
    pub(super) fn is_v4(&self, direction: Direction, tuple: &V4Tuple) -> bool {
        let own = self.v4_tuple(direction);
        // All at once: one branch that is almost always taken.
        (own.addresses == tuple.addresses) & (own.rest == tuple.rest) & (self.flags & V6 == 0)
    }

    /// As [`Entry::is`], of an IPv6 tuple.
    #[inline(always)]
    pub(super) fn is_v6(&self, direction: Direction, tuple: &Tuple) -> bool {
        let (source, destination) = match direction {
            Direction::Original => (&self.addresses, &self.more),
            Direction::Reply => (&self.more, &self.addresses),
        };
        let [source_port, destination_port] = self.ports[direction.index()];
        (address(*source) == tuple.source)
            & (address(*destination) == tuple.destination)
            & (source_port == tuple.source_port)
            & (destination_port == tuple.destination_port)
            & (self.zone == tuple.zone)
            & (self.protocol == tuple.protocol)
            & (self.flags & V6 != 0)
    }

    #[inline(always)]
    fn v4_tuple(&self, direction: Direction) -> V4Tuple {
        let at = direction.index();
        let [source_port, destination_port] = self.ports[at];
        let addresses = (self.addresses[at * 2], self.addresses[at * 2 + 1]);
        V4Tuple::new(self.zone, self.protocol, addresses, (source_port, destination_port))
    }

    /// Whether packets that go in a direction of this connection have the tuple of those that go in a direction of another.
    #[inline(always)]
    pub(super) fn has_tuple_of(&self, direction: Direction, other: &Entry, way: Direction) -> bool {
        match (self.flags | other.flags) & V6 {
            0 => self.is_v4(direction, &other.v4_tuple(way)),
            _ => self.tuple(direction) == other.tuple(way),
        }
    }

    /// The tuple of the packets that go in a direction.
    #[inline]
    pub fn tuple(&self, direction: Direction) -> Tuple {
        let [source_port, destination_port] = self.ports[direction.index()];
        let [a, b, c, d] = self.addresses;
        let (source, destination) = match (self.flags & V6 == 0, direction) {
            (true, Direction::Original) => (v4(a), v4(b)),
            (true, Direction::Reply) => (v4(c), v4(d)),
            (false, Direction::Original) => (address(self.addresses), address(self.more)),
            (false, Direction::Reply) => (address(self.more), address(self.addresses)),
        };
        Tuple { zone: self.zone, protocol: self.protocol, source, destination, source_port, destination_port }
    }

    /// What a packet that goes in a direction becomes: the other direction's tuple, reversed. The same as
    /// [`Entry::tuple`] where nothing is translated.
    #[inline]
    pub fn translated(&self, direction: Direction) -> Tuple {
        self.tuple(direction.opposite()).reversed()
    }

    /// As [`Entry::translated`], of an IPv4 entry.
    #[inline(always)]
    pub fn becomes(&self, direction: Direction) -> V4Tuple {
        let other = direction.opposite().index();
        let [destination_port, source_port] = self.ports[other];
        let addresses = (self.addresses[other * 2 + 1], self.addresses[other * 2]);
        V4Tuple::new(self.zone, self.protocol, addresses, (source_port, destination_port))
    }

    /// Its state.
    pub fn state(&self) -> State {
        self.state
    }

    /// The second from which on it is no more, unless packets come.
    pub fn expiry(&self) -> u32 {
        self.expiry
    }

    /// The guest on whose account it goes.
    pub fn guest(&self) -> u16 {
        self.guest
    }

    /// Whether the first packet came from outside.
    #[inline(always)]
    pub fn is_inbound(&self) -> bool {
        self.flags & INBOUND != 0
    }

    /// Whether the direction leads away from the guest.
    #[inline(always)]
    pub fn leads_out(&self, direction: Direction) -> bool {
        (direction == Direction::Original) != self.is_inbound()
    }

    /// Whether it is from inside and leads back there, so that each direction leads away from a guest.
    #[inline(always)]
    pub fn is_hairpin(&self) -> bool {
        self.flags & HAIRPIN != 0
    }

    /// Whether packets that go in a direction keep it alive: TCP's all do, others only if they lead away from a guest, or if it
    /// came from outside and holds no binding.
    #[inline(always)]
    pub(super) fn is_kept_by(&self, direction: Direction) -> bool {
        // No branch on the direction, which is hard to foresee, and no look at the second line for what leads out.
        (self.protocol == 6)
            | self.leads_out(direction)
            | self.is_hairpin()
            | (self.is_inbound() && self.binding().is_none())
    }

    /// The IP protocol.
    #[inline(always)]
    pub fn protocol(&self) -> u8 {
        self.protocol
    }

    /// The epoch of the tables that it was decided under.
    #[inline(always)]
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// What the caller keeps for a direction.
    #[inline(always)]
    pub fn data(&self, direction: Direction) -> u32 {
        self.data[direction.index()]
    }

    /// Keeps something for a direction.
    pub(super) fn keep(&mut self, direction: Direction, data: u32) {
        self.data[direction.index()] = data;
    }

    /// Takes over a decision: what is kept for each direction, and the epoch of the tables that say so.
    pub fn decide(&mut self, epoch: u32, data: [u32; 2]) {
        (self.epoch, self.data) = (epoch, data);
    }

    /// The binding that it holds.
    #[inline(always)]
    pub fn binding(&self) -> Option<super::binding::BindingRef> {
        if self.flags & V6 == 0 { super::binding::BindingRef::from_number(self.more[0]) } else { None }
    }

    pub(super) fn set_binding(&mut self, binding: Option<super::binding::BindingRef>) {
        if self.flags & V6 == 0 {
            self.more[0] = binding.map_or(0, super::binding::BindingRef::number);
        }
    }

    /// The same connection with another tracker's binding: for copies that are looked at.
    pub fn rebind(&mut self, binding: Option<super::binding::BindingRef>) {
        self.set_binding(binding);
    }

    /// Packets that went in a direction (40 bits).
    pub fn packets(&self, direction: Direction) -> u64 {
        let at = direction.index();
        u64::from(self.packets_high[at]) << 32 | u64::from(self.packets[at])
    }

    /// Bytes that went in a direction (48 bits).
    pub fn bytes(&self, direction: Direction) -> u64 {
        let at = direction.index();
        u64::from(self.bytes_high[at]) << 32 | u64::from(self.bytes[at])
    }

    /// Counts a packet, which keeps the entry alive if it may.
    #[inline(always)]
    pub(super) fn refresh(&mut self, direction: Direction, seen: &Seen, settings: &Settings, now: u32) {
        let expiry = now.saturating_add(lifetime(&settings.timeouts, self.protocol, self.state));
        let refreshes = settings.inbound_refresh | self.is_kept_by(direction);
        // An expiry that comes nearer, after other settings, waits for the wheel.
        self.expiry = if refreshes { expiry } else { self.expiry };
        self.count(direction, seen.bytes);
    }

    /// Counts a packet, and notes that there was one.
    #[inline(always)]
    pub(super) fn count(&mut self, direction: Direction, bytes: u32) {
        let at = direction.index();
        let (packets, packets_over) = self.packets[at].overflowing_add(1);
        let (sum, bytes_over) = self.bytes[at].overflowing_add(bytes);
        (self.packets[at], self.bytes[at]) = (packets, sum);
        self.flags |= USED;
        if packets_over | bytes_over {
            self.carry(at, packets_over, bytes_over);
        }
    }

    #[cold]
    fn carry(&mut self, at: usize, packets: bool, bytes: bool) {
        self.packets_high[at] = self.packets_high[at].wrapping_add(packets.into());
        self.bytes_high[at] = self.bytes_high[at].wrapping_add(bytes.into());
    }

    /// Whether a packet was seen since this was last asked.
    pub(super) fn take_used(&mut self) -> bool {
        let used = self.flags & USED != 0;
        self.flags &= !USED;
        used
    }

    /// TCP: what a segment does to the state; see [`super::tcp`].
    #[inline]
    pub(super) fn tcp_step(
        &mut self,
        direction: Direction,
        segment: &super::tcp::Segment,
    ) -> Result<super::tcp::Step, Invalid> {
        match self.tcp.step(&mut self.state, direction, segment) {
            Err(Invalid::AcksUnsent) if self.flags & PARTS != 0 => {
                self.tcp.step_over_parts(&mut self.state, direction, segment)
            }
            step => step,
        }
    }

    /// TCP: a fragment goes by, whose numbers are not seen.
    pub(super) fn note_part(&mut self) {
        self.flags |= PARTS;
    }
}

#[allow(clippy::cast_possible_truncation)] // words
fn words(address: u128) -> [u32; 4] {
    [address as u32, (address >> 32) as u32, (address >> 64) as u32, (address >> 96) as u32]
}

#[inline(always)]
fn address([a, b, c, d]: [u32; 4]) -> u128 {
    u128::from(a) | u128::from(b) << 32 | u128::from(c) << 64 | u128::from(d) << 96
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUT: Tuple =
        Tuple { zone: 7, protocol: 17, source: 0, destination: 0, source_port: 5000, destination_port: 53 };

    #[test]
    fn both_tuples_come_back_and_say_how_to_translate() {
        let original = Tuple { source: v4(0x0a00_0001), destination: v4(0x0808_0808), ..OUT };
        let reply = Tuple { destination: v4(0xc633_6401), destination_port: 6000, ..original.reversed() };
        let entry = Entry::new(&original, &reply, 3, false).unwrap();
        assert_eq!((entry.tuple(Direction::Original), entry.tuple(Direction::Reply)), (original, reply));
        let outside = Tuple { source: v4(0xc633_6401), source_port: 6000, ..original };
        assert_eq!(entry.translated(Direction::Original), outside);
        assert_eq!(entry.becomes(Direction::Original), V4Tuple::from(&outside));
        let inside = Tuple { destination: v4(0x0a00_0001), destination_port: 5000, ..reply };
        assert_eq!(entry.translated(Direction::Reply), inside);
        assert_eq!(entry.becomes(Direction::Reply), V4Tuple::from(&inside));
        let v6 = Tuple { source: 0x2001_0db8 << 96 | 1, destination: u128::MAX - 5, ..OUT };
        let entry = Entry::new(&v6, &v6.reversed(), 3, true).unwrap();
        assert_eq!((entry.tuple(Direction::Original), entry.tuple(Direction::Reply)), (v6, v6.reversed()));
        assert_eq!(entry.translated(Direction::Original), v6);
        assert!(!entry.leads_out(Direction::Original) && entry.binding().is_none());
    }

    #[test]
    fn what_an_entry_cannot_have_is_refused() {
        let v6 = Tuple { source: 1 << 100 | 1, destination: 1 << 100 | 2, ..OUT };
        assert!(Entry::new(&v6, &Tuple { source_port: 54, ..v6.reversed() }, 0, false).is_none());
        let v4 = Tuple { source: v4(1), destination: v4(2), ..OUT };
        assert!(Entry::new(&v4, &v6.reversed(), 0, false).is_none());
        assert!(Entry::new(&v4, &Tuple { zone: 8, ..v4.reversed() }, 0, false).is_none());
        let mixed = Tuple { source: v6.source, ..v4 };
        assert!(!mixed.is_v4() && Entry::new(&mixed, &mixed.reversed(), 0, false).is_some());
    }

    #[test]
    fn an_ipv6_address_that_ends_as_an_ipv4_one_is_another() {
        let original = Tuple { source: v4(1), destination: v4(2), ..OUT };
        let entry = Entry::new(&original, &original.reversed(), 0, false).unwrap();
        let looks_alike = Tuple { source: 1, destination: 2, ..original };
        assert!(entry.is(Direction::Original, &Probe { tuple: original, hash: 0 }));
        assert!(!entry.is(Direction::Original, &Probe { tuple: looks_alike, hash: 0 }));
        assert!(!entry.is(Direction::Reply, &Probe { tuple: original, hash: 0 }));
    }

    #[test]
    fn counters_carry() {
        let tuple = Tuple { source: v4(1), destination: v4(2), ..OUT };
        let mut entry = Entry::new(&tuple, &tuple.reversed(), 0, false).unwrap();
        for _ in 0..3 {
            entry.count(Direction::Reply, u32::MAX);
        }
        assert_eq!(entry.bytes(Direction::Reply), 3 * u64::from(u32::MAX));
        entry.packets[1] = u32::MAX;
        entry.count(Direction::Reply, 0);
        assert_eq!((entry.packets(Direction::Reply), entry.packets(Direction::Original)), (1 << 32, 0));
    }
}
