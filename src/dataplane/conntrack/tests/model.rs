//! The tracker behaves as a naive map does, under random traffic and time; nothing is left when all has ended.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use Direction::{Original, Reply};

#[derive(Clone, Debug)]
enum Action {
    /// A packet of this flow, this way: tracked if it is the first of its connection.
    Packet {
        flow: u8,
        direction: Direction,
    },
    /// That many seconds pass.
    Wait(u32),
    /// Part of the sweeping that is due is done.
    Sweep,
    Remove(u8),
}

fn action() -> impl Strategy<Value = Action> {
    let direction = any::<bool>().prop_map(|reply| if reply { Reply } else { Original });
    prop_oneof![
        12 => (0u8..40, direction).prop_map(|(flow, direction)| Action::Packet { flow, direction }),
        2 => (1u32..80).prop_map(Action::Wait),
        1 => (200u32..4000).prop_map(Action::Wait),
        2 => Just(Action::Sweep),
        1 => (0u8..40).prop_map(Action::Remove),
    ]
}

/// Flows of all kinds; some come out as others do.
fn flow(n: u8) -> (Tuple, Tuple) {
    let protocol = [17, 1, 47, 17][usize::from(n % 4)];
    let v6 = n % 4 == 3;
    let source = if v6 { 1 << 120 | u128::from(n) } else { v4(0x0a00_0000 | u32::from(n)) };
    let destination = if v6 { 1 << 120 | 0xff00 } else { v4(0x0808_0808) };
    let original = Tuple { source, destination, ..tuple(protocol, u16::from(n / 8)) };
    let reply = if v6 { original.reversed() } else { translated(&original) };
    (original, reply)
}

#[derive(Clone, Copy, PartialEq, Debug)]
struct Known {
    expiry: u32,
    replied: bool,
    packets: [u64; 2],
}

fn life(protocol: u8) -> u32 {
    match protocol {
        17 => TIMEOUTS.udp,
        1 => TIMEOUTS.icmp,
        _ => TIMEOUTS.other,
    }
}

/// As the tracker, the slow way: every tuple of every connection is compared.
#[derive(Default)]
struct Naive(HashMap<u8, Known>);

impl Naive {
    fn taken(&self, n: u8, now: u32) -> bool {
        let (original, reply) = flow(n);
        self.0.iter().any(|(other, known)| {
            let (a, b) = flow(*other);
            known.expiry > now && [a, b].iter().any(|tuple| *tuple == original || *tuple == reply)
        })
    }

    fn packet(&mut self, n: u8, direction: Direction, now: u32) {
        let (lives, taken) = (life(flow(n).0.protocol), self.taken(n, now));
        match self.0.get_mut(&n).filter(|known| known.expiry > now) {
            Some(known) => {
                known.packets[direction as usize] += 1;
                match direction {
                    Original => known.expiry = now + lives,
                    Reply => known.replied = true,
                }
            }
            None if direction == Original && !taken => {
                self.0.insert(n, Known { expiry: now + lives, replied: false, packets: [1, 0] });
            }
            None => {}
        }
    }
}

fn known(entry: &Entry) -> Known {
    Known {
        expiry: entry.expiry(),
        replied: entry.state() == State::Replied,
        packets: [entry.packets(Original), entry.packets(Reply)],
    }
}

proptest! {
    #[test]
    fn equals_a_naive_map(actions in proptest::collection::vec(action(), 1..400), seed in any::<u64>()) {
        let mut tracker = Tracker::new(ROOM, SETTINGS, seed);
        let mut naive = Naive::default();
        let (mut now, mut gone) = (1_000, 0u64);
        for action in actions {
            match action {
                Action::Packet { flow: n, direction } => {
                    let (original, reply) = flow(n);
                    let probe = tracker.probe(if direction == Original { &original } else { &reply });
                    tracker.approach(&probe);
                    // A reply that belongs to another flow, which comes out alike, is that one's.
                    match tracker.find(&probe, now) {
                        Some((at, found)) => {
                            let entry = tracker.entry(at).unwrap();
                            prop_assert_eq!(found, direction);
                            let own = (0..40).find(|n| flow(*n).0 == entry.tuple(Original)).unwrap();
                            prop_assert_eq!(tracker.update(at, direction, &DATA, now), Verdict::Pass);
                            naive.packet(own, direction, now);
                        }
                        None => {
                            prop_assert!(naive.0.get(&n).is_none_or(|known| known.expiry <= now));
                            if direction == Original {
                                let taken = naive.taken(n, now);
                                let inserted = tracker.insert(&probe, &reply, &NEW, &DATA, now, &mut |_, _| gone += 1);
                                prop_assert_eq!(inserted.is_err(), taken);
                            }
                            naive.packet(n, direction, now);
                        }
                    }
                }
                Action::Wait(seconds) => now += seconds,
                Action::Sweep => { tracker.sweep(now, &mut |entry, why| {
                    assert!(why == Why::Expired && entry.expiry() <= now);
                    gone += 1;
                }); }
                Action::Remove(n) => {
                    if let Some((at, _)) = find(&tracker, &flow(n).0, now) {
                        tracker.remove(at, &mut |_, _| gone += 1);
                        naive.0.remove(&n);
                    }
                }
            }
            naive.0.retain(|_, known| known.expiry > now);
            let mut all: HashMap<u8, Known> = HashMap::new();
            for n in 0..40 {
                if let Some((at, Original)) = find(&tracker, &flow(n).0, now) {
                    all.insert(n, known(tracker.entry(at).unwrap()));
                }
            }
            prop_assert_eq!(&all, &naive.0);
        }
        while tracker.sweep(now, &mut |_, _| gone += 1) {}
        prop_assert_eq!(tracker.len() as usize, naive.0.len(), "what has ended is swept, and nothing else");
        now += 10_000;
        while tracker.sweep(now, &mut |_, _| gone += 1) {}
        prop_assert!(tracker.is_empty() && tracker.len_of(1) == 0);
        prop_assert_eq!(tracker.stats().created, gone, "all that came has gone");
    }

    /// Entries end at the second that they should, whenever the wheel is turned.
    #[test]
    fn the_wheel_equals_a_list(
        lives in proptest::collection::vec((1u32..9_000, 1u32..9_000, any::<bool>()), 1..100),
        steps in proptest::collection::vec(0u32..1_500, 1..40),
        start in prop_oneof![Just(0u32), Just(1), 1_000u32..4_000_000],
    ) {
        let mut tracker = Tracker::new(ROOM, SETTINGS, 3);
        let mut ends: HashMap<u16, u32> = HashMap::new();
        sweep(&mut tracker, start);
        for (n, (first, second, replied)) in lives.into_iter().enumerate() {
            let timeouts = |udp: u32| Timeouts { udp, ..TIMEOUTS };
            tracker.set_settings(Settings { timeouts: timeouts(first), ..SETTINGS });
            let at = track(&mut tracker, &tuple(17, n as u16), &NEW, &DATA, start).unwrap();
            // A usual packet only makes it later; what changes the state makes it earlier, too.
            let (second, direction) = if replied { (second, Reply) } else { (first.max(second), Original) };
            tracker.set_settings(Settings { timeouts: timeouts(second), inbound_refresh: true, ..SETTINGS });
            assert_eq!(tracker.update(at, direction, &DATA, start), Verdict::Pass);
            ends.insert(n as u16, start + second);
        }
        let mut now = start;
        for step in steps {
            now += step;
            let mut ended: Vec<u16> = sweep(&mut tracker, now).iter().map(|(t, _)| t.source_port).collect();
            let mut expected: Vec<u16> =
                ends.iter().filter(|(_, end)| **end <= now).map(|(port, _)| *port).collect();
            ends.retain(|_, end| *end > now);
            ended.sort_unstable();
            expected.sort_unstable();
            prop_assert_eq!(ended, expected);
        }
    }
}
