//! The tracker and the bindings, used as NAT uses them, under any operations and any time, held against naive maps:
//! - a connection is found by exactly its two tuples, until its second, and says what naive counting says;
//! - what goes is told once, and goes for a reason that holds;
//! - an outside endpoint is one inside endpoint's, the same for all its connections, and is free when the last one ends;
//! - nothing is left when all has ended.

use std::collections::{HashMap, HashSet};

use nuswitch::dataplane::conntrack::binding::{BindingRef, Inside, NoBinding, Outside, Slice};
use nuswitch::dataplane::conntrack::tcp::Segment;
use nuswitch::dataplane::conntrack::{
    Bindings, Direction, Entry, EntryRef, Limits, New, Refused, Seen, Settings, State, Timeouts, Tracker,
    Tuple, Verdict, Why,
};

use super::input::Input;

const ROOM: u32 = 24;
const POOL: [u32; 2] = [0xcb00_7164, 0xcb00_7165];
const FLOATING: u32 = 0xcb00_7196;
const LONG: Timeouts =
    Timeouts { tcp_transitory: 240, tcp_established: 7440, tcp_closing: 240, udp: 300, icmp: 60, other: 310 };
const SHORT: Timeouts =
    Timeouts { tcp_transitory: 5, tcp_established: 60, tcp_closing: 3, udp: 20, icmp: 10, other: 15 };

/// A connection, until the tracker has said that it is gone.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Known {
    reply: Tuple,
    guest: u16,
    inbound: bool,
    binding: Option<BindingRef>,
    expiry: u32,
    state: State,
    packets: [u64; 2],
}

struct Scene {
    tracker: Tracker,
    bindings: Bindings,
    limits: Limits,
    settings: Settings,
    pool: Vec<u32>,
    now: u32,
    known: HashMap<Tuple, Known>,
    /// Bindings whose address the pool has lost since.
    stale: HashSet<BindingRef>,
    /// Entries that went, in the order in which that was told.
    gone: Vec<(Tuple, Why)>,
    told: u64,
}

pub fn run(data: &[u8]) {
    reach(data);
}

/// As [`run`]; gives the connections that began, that went for others, and whose time was over.
pub fn reach(data: &[u8]) -> [u64; 3] {
    let mut input = Input::new(data);
    let limits = Limits { entries: ROOM, per_guest: 10 };
    let settings = Settings { timeouts: LONG, pick_up: input.flag(), inbound_refresh: input.flag() };
    let seed = input.word().into();
    let mut scene = Scene {
        tracker: Tracker::new(limits, settings, seed),
        bindings: Bindings::new(ROOM, seed),
        limits,
        settings,
        pool: POOL.to_vec(),
        now: 1000,
        known: HashMap::new(),
        stale: HashSet::new(),
        gone: Vec::new(),
        told: 0,
    };
    scene.bindings.set_pool(1, &POOL, Slice::WHOLE);
    for _ in 0..400 {
        if input.is_empty() {
            break;
        }
        scene.step(&mut input);
        scene.compare();
    }
    scene.now += 100_000;
    while scene.sweep() {}
    scene.compare();
    let stats = scene.tracker.stats();
    assert!(scene.tracker.is_empty() && scene.bindings.is_empty(), "something is left");
    assert_eq!(stats.created, scene.told, "all that came has gone");
    [stats.created, stats.full + stats.guest_limit, stats.expired]
}

fn mapped(address: u32) -> u128 {
    0xffff_0000_0000 | u128::from(address)
}

fn low(address: u128) -> u32 {
    u32::try_from(address & u128::from(u32::MAX)).expect("half of a half")
}

impl Scene {
    fn step(&mut self, input: &mut Input<'_>) {
        match input.byte() % 32 {
            0..=13 => self.outbound(input),
            14..=21 => self.of_a_known(input),
            22 | 23 => self.inbound(input),
            24 | 25 => self.now += u32::from(input.one_of(&[1u16, 2, 9, 61, 300, 7440])),
            26 => drop(self.sweep()),
            27 => {
                if let Some(original) = self.pick(input)
                    && let Some((at, _)) = self.tracker.find(&self.tracker.probe(&original), self.now)
                {
                    self.remove(at);
                }
            }
            28 => {
                let guest = input.word() % 4;
                let (tracker, gone) = (&mut self.tracker, &mut self.gone);
                let mut from = 0;
                while let Some(next) =
                    tracker.flush(from, 5, |entry| entry.guest() == guest, &mut |entry, why| {
                        gone.push((entry.tuple(Direction::Original), why));
                    })
                {
                    from = next;
                }
                self.settle();
                assert!(self.known.values().all(|known| known.guest != guest), "flushed, and still there");
            }
            29 => {
                self.limits =
                    Limits { entries: input.one_of(&[ROOM, 8, 1]), per_guest: input.one_of(&[10, 3, 1]) };
                self.tracker.set_limits(self.limits);
            }
            30 => {
                self.settings = Settings {
                    timeouts: input.one_of(&[LONG, SHORT]),
                    pick_up: input.flag(),
                    inbound_refresh: input.flag(),
                };
                self.tracker.set_settings(self.settings);
            }
            _ => {
                self.pool = input.one_of(&[&POOL[..], &POOL[..1], &POOL[1..], &[]]).to_vec();
                self.bindings.set_pool(1, &self.pool, Slice::WHOLE);
                for binding in self.held() {
                    if !self.pool.contains(&self.bindings.get(binding).expect("held").outside.address) {
                        self.stale.insert(binding);
                    }
                }
            }
        }
    }

    /// A packet of a guest to somebody outside.
    fn outbound(&mut self, input: &mut Input<'_>) {
        let n = input.byte();
        let protocol = [6, 17, 1, 47][usize::from(n % 4)];
        let guest = u16::from(n / 4 % 4);
        let port = if protocol == 47 { 0 } else { input.one_of(&[4000u16, 4001, 80, 4002]) };
        let remote = mapped(0xc633_6409 + u32::from(n / 16 % 3));
        let remote_port = if protocol == 6 || protocol == 17 { 53 } else { port };
        let source = mapped(0x0a00_0000 + u32::from(guest));
        let original = Tuple {
            zone: 1,
            protocol,
            source,
            destination: remote,
            source_port: port,
            destination_port: remote_port,
        };
        let seen = seen(input, protocol);
        if self.packet(&original, &seen) {
            return;
        }
        let inside = Inside { zone: 1, protocol, address: low(source), port };
        let binding = match self.bindings.acquire(&inside) {
            Ok(binding) => binding,
            Err(NoBinding::NoPool) => return assert!(self.pool.is_empty()),
            Err(NoBinding::Exhausted) => return assert_eq!(protocol, 47, "no port is free"),
            Err(NoBinding::Full) => return assert!(self.held().len() >= ROOM as usize),
            Err(other) => panic!("{other:?}"),
        };
        let outside = self.bindings.outside(binding).expect("just acquired");
        let same = |tuple: &Tuple, known: &Known| {
            let own = (low(tuple.source), tuple.source_port) == (inside.address, inside.port);
            own && tuple.protocol == protocol
                && known.binding.is_some_and(|binding| !self.stale.contains(&binding))
        };
        if let Some((_, known)) = self.known.iter().find(|(tuple, known)| same(tuple, known)) {
            assert_eq!(known.binding, Some(binding), "another mapping for another destination");
        }
        let mut to = Tuple { source: mapped(outside.address), source_port: outside.port, ..original };
        if protocol == 1 {
            to.destination_port = outside.port;
        }
        if !self.insert(&original, &to.reversed(), guest, false, Some(binding), &seen) {
            self.bindings.release(binding);
        }
    }

    /// A packet from outside to a floating IP, or to an outside endpoint that is nobody's.
    fn inbound(&mut self, input: &mut Input<'_>) {
        let protocol = input.one_of(&[17u8, 6, 1]);
        let guest = u16::from(input.byte() % 4);
        let original = Tuple {
            zone: 1,
            protocol,
            source: mapped(0xc633_6409),
            destination: mapped(FLOATING + u32::from(guest)),
            source_port: 77,
            destination_port: if protocol == 1 { 77 } else { 53 },
        };
        let seen = seen(input, protocol);
        if !self.packet(&original, &seen) {
            let to = Tuple { destination: mapped(0x0a00_0000 + u32::from(guest)), ..original };
            self.insert(&original, &to.reversed(), guest, true, None, &seen);
        }
    }

    /// A packet of a connection, either way.
    fn of_a_known(&mut self, input: &mut Input<'_>) {
        if let Some(original) = self.pick(input) {
            let tuple = if input.flag() { original } else { self.known[&original].reply };
            let seen = seen(input, original.protocol);
            self.packet(&tuple, &seen);
        }
    }

    fn pick(&self, input: &mut Input<'_>) -> Option<Tuple> {
        let mut all: Vec<Tuple> = self.known.keys().copied().collect();
        all.sort_by_key(|t| (t.protocol, t.source, t.destination, t.source_port));
        (!all.is_empty()).then(|| all[usize::from(input.byte()) % all.len()])
    }

    /// Whether a connection has taken the packet, or it cannot be of it.
    fn packet(&mut self, tuple: &Tuple, seen: &Seen) -> bool {
        let probe = self.tracker.probe(tuple);
        self.tracker.approach(&probe);
        let found = self.tracker.find(&probe, self.now);
        let own = |(original, known): &(&Tuple, &Known)| {
            known.expiry > self.now && (*original == tuple || known.reply == *tuple)
        };
        let naive = self.known.iter().find(own).map(|(original, _)| *original);
        let named = found.and_then(|(at, _)| Some(self.tracker.entry(at)?.tuple(Direction::Original)));
        assert_eq!(named, naive, "found otherwise than naively");
        let (Some((at, direction)), Some(original)) = (found, naive) else { return false };
        assert_eq!(direction == Direction::Original, original == *tuple);
        let verdict = self.tracker.update(at, direction, seen, self.now);
        let entry = *self.tracker.entry(at).expect("just found");
        let known = self.known.get_mut(&original).expect("just found");
        match verdict {
            Verdict::Pass | Verdict::Restarted => known.packets[direction as usize] += 1,
            Verdict::Invalid(_) => {
                assert!(entry.state() == known.state && seen.tcp.is_some());
                return true;
            }
            Verdict::Renew => {
                assert!(original.protocol == 6 && seen.tcp.is_some());
                self.remove(at);
                return false;
            }
        }
        let refreshed = self.now + lifetime(&self.settings.timeouts, original.protocol, entry.state());
        if original.protocol == 6 {
            assert!(entry.expiry() == refreshed || entry.expiry() == known.expiry, "{entry:?}");
        } else {
            let out = (direction == Direction::Original) != known.inbound;
            let keeps = out || known.inbound && known.binding.is_none() || self.settings.inbound_refresh;
            known.expiry = if keeps { refreshed } else { known.expiry };
            known.state = if direction == Direction::Reply { State::Replied } else { known.state };
        }
        if original.protocol == 6 {
            (known.expiry, known.state) = (entry.expiry(), entry.state());
        }
        true
    }

    fn insert(
        &mut self,
        original: &Tuple,
        reply: &Tuple,
        guest: u16,
        inbound: bool,
        binding: Option<BindingRef>,
        seen: &Seen,
    ) -> bool {
        let new = New { guest, inbound, epoch: 1, data: [3, 4], binding };
        let probe = self.tracker.probe(original);
        let mut counts = [0, 1, 2, 3].map(|guest| self.of(guest));
        let gone = &mut self.gone;
        let inserted = self.tracker.insert(&probe, reply, &new, seen, self.now, &mut |entry, why| {
            gone.push((entry.tuple(Direction::Original), why));
        });
        for (tuple, why) in &self.gone {
            let loser = usize::from(self.known[tuple].guest);
            let (most, total) = (counts.iter().max().copied().unwrap_or(0), counts.iter().sum::<usize>());
            match why {
                Why::GuestLimit => assert!(
                    loser == usize::from(guest) && counts[loser] >= self.limits.per_guest as usize,
                    "another guest's, or not at its limit"
                ),
                Why::Full => {
                    let is_rich = counts[loser] + counts[loser] / 8 >= most;
                    assert!(
                        total >= self.limits.entries as usize && is_rich,
                        "{counts:?}, and {loser} loses"
                    );
                }
                _ => {}
            }
            counts[loser] -= 1;
        }
        self.settle();
        let taken = self.known.iter().any(|(other, known)| {
            let tuples = [*other, known.reply];
            known.expiry > self.now && (tuples.contains(original) || tuples.contains(reply))
        });
        match inserted {
            Ok(at) => {
                assert!(!taken);
                let entry = self.tracker.entry(at).expect("just inserted");
                let life = lifetime(&self.settings.timeouts, original.protocol, entry.state());
                let known = Known {
                    reply: *reply,
                    guest,
                    inbound,
                    binding,
                    expiry: self.now + life,
                    state: entry.state(),
                    packets: [1, 0],
                };
                self.known.insert(*original, known);
                true
            }
            Err(Refused::Taken(_)) => {
                assert!(taken);
                false
            }
            Err(Refused::Invalid(_)) => {
                assert_eq!(original.protocol, 6);
                false
            }
            Err(other) => panic!("{other:?}"),
        }
    }

    fn of(&self, guest: u16) -> usize {
        self.known.values().filter(|known| known.guest == guest).count()
    }

    fn remove(&mut self, at: EntryRef) {
        let gone = &mut self.gone;
        self.tracker.remove(at, &mut |entry, why| gone.push((entry.tuple(Direction::Original), why)));
        assert!(matches!(self.gone[..], [(_, Why::Removed)]));
        self.settle();
    }

    fn sweep(&mut self) -> bool {
        let gone = &mut self.gone;
        let more = self
            .tracker
            .sweep(self.now, &mut |entry, why| gone.push((entry.tuple(Direction::Original), why)));
        assert!(self.gone.iter().all(|(_, why)| *why == Why::Expired));
        self.settle();
        more
    }

    /// Takes over what was told, and lets go of what those entries held.
    fn settle(&mut self) {
        for (tuple, why) in std::mem::take(&mut self.gone) {
            let known = self.known.remove(&tuple).expect("told twice, or never there");
            assert_eq!(
                why == Why::Expired,
                why == Why::Expired && known.expiry <= self.now,
                "before its time"
            );
            self.told += 1;
            if let Some(binding) = known.binding {
                self.bindings.release(binding);
                if !self.held().contains(&binding) {
                    self.stale.remove(&binding);
                }
            }
        }
    }

    fn held(&self) -> HashSet<BindingRef> {
        self.known.values().filter_map(|known| known.binding).collect()
    }

    fn compare(&self) {
        assert_eq!(self.tracker.len() as usize, self.known.len());
        let mut count = 0;
        self.tracker.walk(0, u32::MAX, |_, entry: &Entry| {
            count += 1;
            let known = Known {
                reply: entry.tuple(Direction::Reply),
                guest: entry.guest(),
                inbound: entry.is_inbound(),
                binding: entry.binding(),
                expiry: entry.expiry(),
                state: entry.state(),
                packets: [Direction::Original, Direction::Reply].map(|direction| entry.packets(direction)),
            };
            assert_eq!(self.known.get(&entry.tuple(Direction::Original)), Some(&known));
        });
        assert_eq!(count, self.known.len());
        for guest in 0..4 {
            assert_eq!(self.tracker.len_of(guest) as usize, self.of(guest));
        }
        let held = self.held();
        assert_eq!(self.bindings.len() as usize, held.len(), "bindings that nobody holds, or that were lost");
        let mut ends: HashSet<(u8, Outside)> = HashSet::new();
        for binding in held {
            let got = self.bindings.get(binding).expect("held");
            let sessions = self.known.values().filter(|known| known.binding == Some(binding)).count();
            assert_eq!(got.sessions as usize, sessions);
            assert_eq!(got.is_current, !self.stale.contains(&binding));
            let found = self.bindings.find_outside(1, got.inside.protocol, got.outside);
            assert_eq!(found == Some(binding), got.is_current);
            assert_eq!(self.bindings.find(&got.inside) == Some(binding), got.is_current);
            if got.is_current {
                assert!(self.pool.contains(&got.outside.address));
                assert!(ends.insert((got.inside.protocol, got.outside)), "an endpoint of two hosts");
            }
        }
    }
}

fn seen(input: &mut Input<'_>, protocol: u8) -> Seen {
    let mut segment = || Segment {
        seq: input.one_of(&[1000u32, 1001, 1002, 5000, 5001, 0xffff_fff0]),
        ack: input.one_of(&[5001u32, 1001, 5002, 1002, 0]),
        len: input.one_of(&[0u32, 0, 1, 1460]),
        window: input.one_of(&[0xffffu16, 100, 0]),
        flags: input.one_of(&[0x02u8, 0x12, 0x10, 0x11, 0x04, 0x14, 0x18, 0x00, 0x03, 0xff]),
        scale: input.one_of(&[None, Some(7), Some(14), Some(255)]),
    };
    Seen { bytes: 100, tcp: (protocol == 6).then(&mut segment) }
}

fn lifetime(timeouts: &Timeouts, protocol: u8, state: State) -> u32 {
    match (protocol, state) {
        (6, State::Established | State::HalfClosed) => timeouts.tcp_established,
        (6, State::SynSent | State::SynReceived | State::PickedUp) => timeouts.tcp_transitory,
        (6, _) => timeouts.tcp_closing,
        (17, _) => timeouts.udp,
        (1, _) => timeouts.icmp,
        _ => timeouts.other,
    }
}
