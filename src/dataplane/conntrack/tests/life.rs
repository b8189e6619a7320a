//! How long entries live, who keeps them alive, and who goes when there is no room.

use std::collections::HashMap;

use proptest::prelude::*;

use super::super::tcp::{ACK, SYN, Segment};
use super::*;
use Direction::{Original, Reply};

#[test]
fn protocols_other_than_tcp_live_as_long_as_theirs() {
    for (protocol, life) in [(17, 300), (1, 60), (58, 60), (47, 310), (132, 310)] {
        let mut tracker = Tracker::new(ROOM, SETTINGS, 3);
        let original = tuple(protocol, 9);
        let at = track(&mut tracker, &original, &NEW, &DATA, 100).unwrap();
        assert_eq!(tracker.entry(at).map(Entry::state), Some(State::Unreplied));
        assert_eq!(find(&tracker, &original, 100 + life - 1), Some((at, Original)));
        assert_eq!(find(&tracker, &original, 100 + life), None, "to the second");
        // RFC 4787, REQ-6: a reply does not keep it, more from inside does.
        assert_eq!(tracker.update(at, Reply, &DATA, 150), Verdict::Pass);
        let entry = tracker.entry(at).unwrap();
        assert_eq!((entry.state(), entry.expiry()), (State::Replied, 100 + life));
        assert_eq!(tracker.update(at, Reply, &DATA, 151), Verdict::Pass);
        assert_eq!(tracker.entry(at).map(Entry::expiry), Some(100 + life));
        assert_eq!(tracker.update(at, Original, &DATA, 152), Verdict::Pass);
        assert_eq!(tracker.entry(at).map(Entry::expiry), Some(152 + life));
        assert_eq!(sweep(&mut tracker, 151 + life), []);
        assert_eq!(sweep(&mut tracker, 152 + life), [(original, Why::Expired)]);
        assert!(tracker.is_empty() && tracker.len_of(1) == 0);
    }
}

#[test]
fn who_refreshes_is_a_matter_of_configuration_and_of_what_is_kept() {
    let binding = binding::BindingRef::from_number(1);
    for (inbound_refresh, inbound, binding, by_original, by_reply) in [
        (false, false, None, true, false),
        (false, false, binding, true, false),
        (false, true, binding, false, true),
        (false, true, None, true, true),
        (true, false, binding, true, true),
        (true, true, binding, true, true),
    ] {
        for (direction, refreshes) in [(Original, by_original), (Reply, by_reply)] {
            let mut tracker = Tracker::new(ROOM, Settings { inbound_refresh, ..SETTINGS }, 3);
            let new = New { inbound, binding, ..NEW };
            let at = track(&mut tracker, &tuple(17, 1), &new, &DATA, 0).unwrap();
            for now in [10, 20] {
                assert_eq!(tracker.update(at, direction, &DATA, now), Verdict::Pass);
            }
            let expiry = tracker.entry(at).unwrap().expiry();
            assert_eq!(
                expiry,
                if refreshes { 320 } else { 300 },
                "{inbound_refresh} {inbound} {direction:?}"
            );
        }
    }
}

#[test]
fn both_directions_are_found_and_neither_is_given_twice() {
    let mut tracker = Tracker::new(ROOM, SETTINGS, 3);
    let original = tuple(17, 1);
    let at = track(&mut tracker, &original, &NEW, &DATA, 0).unwrap();
    let reply = translated(&original);
    assert_eq!(find(&tracker, &original, 1), Some((at, Original)));
    assert_eq!(find(&tracker, &reply, 1), Some((at, Reply)));
    assert_eq!(find(&tracker, &original.reversed(), 1), None);
    assert_eq!(find(&tracker, &Tuple { zone: 2, ..original }, 1), None);
    assert_eq!(find(&tracker, &Tuple { protocol: 6, ..original }, 1), None);
    // Another guest's connection that would come out as the same.
    let other = Tuple { source: v4(0x0a00_0006), ..original };
    assert_eq!(track(&mut tracker, &other, &NEW, &DATA, 1), Err(Refused::Taken(at)));
    assert_eq!(track(&mut tracker, &original, &NEW, &DATA, 1), Err(Refused::Taken(at)));
    // What has ended is in nobody's way, swept or not.
    assert!(track(&mut tracker, &other, &NEW, &DATA, 300).is_ok());
    assert_eq!((tracker.len(), tracker.stats().expired, tracker.stats().refused), (1, 1, 2));
    let land = Tuple { destination: original.source, destination_port: 1, ..original };
    let probe = tracker.probe(&land);
    let inserted = tracker.insert(&probe, &land.reversed(), &NEW, &DATA, 300, &mut nobody);
    assert_eq!(inserted, Err(Refused::Unlike));
}

#[test]
fn an_entry_keeps_what_it_is_given() {
    let mut tracker = Tracker::new(ROOM, SETTINGS, 3);
    let new = New { binding: binding::BindingRef::from_number(77), guest: 600, ..NEW };
    let at = track(&mut tracker, &tuple(17, 1), &new, &DATA, 0).unwrap();
    let entry = tracker.entry(at).unwrap();
    assert_eq!((entry.epoch(), entry.data(Original), entry.data(Reply), entry.guest()), (5, 8, 9, 600));
    assert_eq!((entry.binding(), entry.is_inbound(), entry.packets(Original)), (new.binding, false, 1));
    tracker.decide(at, 6, [1, 2]);
    let entry = tracker.entry(at).unwrap();
    assert_eq!((entry.epoch(), entry.data(Original), entry.data(Reply)), (6, 1, 2));
    let mut gone = None;
    tracker.remove(at, &mut |entry, why| gone = Some((entry.binding(), why)));
    assert_eq!(gone, Some((new.binding, Why::Removed)));
    assert!(tracker.entry(at).is_none() && find(&tracker, &tuple(17, 1), 0).is_none());
    tracker.remove(at, &mut |_, _| panic!("it is gone already"));
    assert!(matches!(tracker.update(at, Original, &DATA, 1), Verdict::Invalid(_)));
}

#[test]
fn ipv6_is_tracked_and_not_translated() {
    let mut tracker = Tracker::new(ROOM, SETTINGS, 3);
    let original = Tuple { source: 0x2001 << 112 | 5, destination: 0x2001 << 112 | 7, ..tuple(17, 1) };
    let probe = tracker.probe(&original);
    let at = tracker.insert(&probe, &original.reversed(), &NEW, &DATA, 0, &mut nobody).unwrap();
    assert_eq!(find(&tracker, &original, 1), Some((at, Original)));
    assert_eq!(find(&tracker, &original.reversed(), 1), Some((at, Reply)));
    let other = Tuple { source_port: 2, ..original };
    let probe = tracker.probe(&other);
    let inserted = tracker.insert(&probe, &translated(&other), &NEW, &DATA, 0, &mut nobody);
    assert_eq!(inserted, Err(Refused::Unlike));
}

#[test]
fn walking_and_flushing_go_in_steps() {
    let mut tracker = Tracker::new(ROOM, SETTINGS, 3);
    for port in 1..=100 {
        track(&mut tracker, &tuple(17, port), &New { guest: port % 2, ..NEW }, &DATA, 0).unwrap();
    }
    let (mut from, mut seen, mut steps) = (Some(0), 0, 0);
    while let Some(at) = from {
        from = tracker.walk(at, 30, |_, _| seen += 1);
        steps += 1;
    }
    assert_eq!((seen, steps), (100, 4));
    let (mut from, mut gone) = (Some(0), 0);
    while let Some(at) = from {
        from = tracker.flush(at, 30, |entry| entry.guest() == 1, &mut |_, why| {
            assert_eq!(why, Why::Removed);
            gone += 1;
        });
    }
    assert_eq!((gone, tracker.len(), tracker.len_of(1), tracker.stats().removed), (50, 50, 0, 50));
}

#[test]
fn at_its_own_limit_a_guest_loses_what_is_least() {
    let limits = Limits { entries: 1000, per_guest: 4 };
    let mut tracker = Tracker::new(limits, SETTINGS, 3);
    let insert = |tracker: &mut Tracker, port: u16| {
        let mut gone = Vec::new();
        let probe = tracker.probe(&tuple(17, port));
        let reply = translated(&tuple(17, port));
        tracker
            .insert(&probe, &reply, &NEW, &DATA, 0, &mut |e, why| {
                gone.push((e.tuple(Original).source_port, why));
            })
            .unwrap();
        gone
    };
    let touch = |tracker: &mut Tracker, port: u16, direction: Direction| {
        let (at, _) = find(tracker, &tuple(17, port), 0).unwrap();
        assert_eq!(tracker.update(at, direction, &DATA, 0), Verdict::Pass);
    };
    for port in 1..=4 {
        assert_eq!(insert(&mut tracker, port), []);
    }
    for port in [1, 2, 4] {
        touch(&mut tracker, port, Reply);
    }
    assert_eq!(insert(&mut tracker, 5), [(3, Why::GuestLimit)], "what nobody answered goes first");
    assert_eq!(insert(&mut tracker, 6), [(5, Why::GuestLimit)]);
    touch(&mut tracker, 6, Reply);
    touch(&mut tracker, 1, Original);
    assert_eq!(insert(&mut tracker, 7), [(2, Why::GuestLimit)], "the oldest, but for those in use");
    touch(&mut tracker, 7, Reply);
    for port in [1, 4, 6, 7] {
        touch(&mut tracker, port, Original);
    }
    assert_eq!(insert(&mut tracker, 8), [(4, Why::GuestLimit)], "the oldest, when all are in use");
    assert_eq!((tracker.len(), tracker.stats().guest_limit), (4, 4));
}

#[test]
fn lower_limits_are_reached_step_by_step() {
    let mut tracker = Tracker::new(ROOM, SETTINGS, 3);
    for port in 0..100 {
        track(&mut tracker, &tuple(17, port), &NEW, &DATA, 0).unwrap();
    }
    tracker.set_limits(Limits { entries: 50, per_guest: 1000 });
    for port in 100..151 {
        track(&mut tracker, &tuple(17, port), &NEW, &DATA, 0).unwrap();
    }
    assert_eq!(tracker.len(), 50);
    tracker.set_limits(Limits { entries: u32::MAX, per_guest: 1000 });
    for port in 200..3000 {
        track(&mut tracker, &tuple(17, port), &NEW, &DATA, 0).unwrap();
    }
    assert_eq!(tracker.len(), 1000, "what it was made for");
}

#[test]
fn shorter_lives_are_noticed_in_time() {
    let mut tracker = Tracker::new(ROOM, SETTINGS, 3);
    let segment = |flags: u8, seq: u32, ack: u32| Seen {
        bytes: 40,
        tcp: Some(Segment { seq, ack, len: 0, window: 100, flags, scale: None }),
    };
    let original = tuple(6, 1);
    let at = track(&mut tracker, &original, &NEW, &segment(SYN, 0, 0), 5000).unwrap();
    assert_eq!(tracker.update(at, Reply, &segment(SYN | ACK, 0, 1), 5000), Verdict::Pass);
    assert_eq!(tracker.update(at, Original, &segment(ACK, 1, 1), 5000), Verdict::Pass);
    assert_eq!(sweep(&mut tracker, 8000), [], "put further on, two turns of the wheel later");
    assert_eq!(tracker.update(at, Reply, &segment(super::super::tcp::RST, 1, 0), 8000), Verdict::Pass);
    assert_eq!(sweep(&mut tracker, 8240), []);
    assert_eq!(sweep(&mut tracker, 8241), [(original, Why::Expired)]);
}

#[test]
fn a_scan_or_a_flood_costs_others_nothing_within_their_share() {
    let limits = Limits { entries: 400, per_guest: 1000 };
    let mut tracker = Tracker::new(limits, SETTINGS, 3);
    let of = |guest: u16, n: u32| Tuple { source: v4(u32::from(guest) << 16 | n), ..tuple(17, 1) };
    let mut insert = |guest: u16, n: u32, lost: &mut HashMap<u16, u32>| {
        let original = of(guest, n);
        let probe = tracker.probe(&original);
        let reply = Tuple { source_port: 9, ..original.reversed() };
        let new = New { guest, ..NEW };
        let gone = &mut |entry: &Entry, why| {
            assert_eq!(why, Why::Full);
            *lost.entry(entry.guest()).or_default() += 1;
        };
        tracker.insert(&probe, &reply, &new, &DATA, 0, gone).unwrap();
    };
    let mut lost = HashMap::new();
    for n in 0..100 {
        insert(1, n, &mut lost);
    }
    for n in 0..30 {
        insert(2, n, &mut lost);
    }
    for n in 0..100_000 {
        insert(3, n, &mut lost);
    }
    assert_eq!(lost.keys().collect::<Vec<_>>(), [&3], "the scanner alone pays for its scan");
    for n in 0..40 {
        insert(4, n, &mut lost);
    }
    assert_eq!((lost.len(), lost[&3]), (1, 100_000 - 270 + 40), "and gives room to a newcomer");
}

proptest! {
    /// Whoever loses an entry for another guest has about the most; whoever has no more than a fair share loses none.
    #[test]
    fn eviction_is_fair(steps in proptest::collection::vec((0u16..6, 1u32..60), 1..60), total in 20u32..200) {
        let mut tracker = Tracker::new(Limits { entries: total, per_guest: 150 }, SETTINGS, 3);
        let mut counts: HashMap<u16, u32> = HashMap::new();
        let mut n = 0;
        for (guest, burst) in steps {
            for _ in 0..burst {
                n += 1;
                let original = Tuple { source: v4(n), ..tuple(17, 1) };
                let probe = tracker.probe(&original);
                let mut lost = Vec::new();
                let new = New { guest, ..NEW };
                let gone = &mut |entry: &Entry, why| lost.push((entry.guest(), why));
                prop_assert!(tracker.insert(&probe, &original.reversed(), &new, &DATA, 0, gone).is_ok());
                let most = counts.values().copied().max().unwrap_or(0);
                let all: u32 = counts.values().sum();
                prop_assert!(lost.len() <= 1);
                for (loser, why) in lost {
                    let had = counts[&loser];
                    match why {
                        Why::GuestLimit => prop_assert!(loser == guest && had == 150),
                        Why::Full => {
                            prop_assert_eq!(all, total);
                            prop_assert!(had * 9 >= most * 8, "{} of {} at most", had, most);
                            prop_assert!(loser == guest || had * 6 >= all * 8 / 9);
                        }
                        _ => prop_assert!(false),
                    }
                    *counts.get_mut(&loser).unwrap() -= 1;
                }
                *counts.entry(guest).or_default() += 1;
                for (guest, count) in &counts {
                    prop_assert_eq!(tracker.len_of(*guest), *count);
                }
            }
        }
    }
}
