//! What is there for people to see: the journal, and copies into another tracker.

use proptest::prelude::*;

use super::binding::{Inside, NoBinding, Slice};
use super::journal::Happened;
use super::*;

const POOL: u32 = 0xc633_6401;

fn events(tracker: &mut Tracker) -> (Vec<(Happened, u16, State)>, u64) {
    let mut events = Vec::new();
    let lost = tracker.journal().unwrap().drain(|what, entry| {
        events.push((what, entry.tuple(Direction::Original).source_port, entry.state()));
    });
    (events, lost)
}

#[test]
fn the_journal_has_what_happens_while_it_is_kept() {
    let mut tracker = Tracker::new(ROOM, SETTINGS, 3);
    let _ = track(&mut tracker, &tuple(17, 1), &NEW, &DATA, 0).unwrap();
    assert!(tracker.journal().is_none());
    tracker.keep_journal(true);
    let two = tuple(17, 2);
    let at = track(&mut tracker, &two, &NEW, &DATA, 0).unwrap();
    let _ = tracker.update(at, Direction::Original, &DATA, 1);
    let _ = tracker.update(at, Direction::Reply, &DATA, 2);
    let _ = tracker.update(at, Direction::Reply, &DATA, 3);
    tracker.keep_journal(true);
    let expected = [(Happened::New, 2, State::Unreplied), (Happened::Changed, 2, State::Replied)];
    assert_eq!(events(&mut tracker), (expected.to_vec(), 0), "a packet that changes nothing is not told");
    sweep(&mut tracker, 300);
    tracker.remove(at, &mut nobody);
    let expected = [
        (Happened::Ended(Why::Expired), 1, State::Unreplied),
        (Happened::Ended(Why::Removed), 2, State::Replied),
    ];
    assert_eq!(events(&mut tracker), (expected.to_vec(), 0));
    tracker.keep_journal(false);
    let _ = track(&mut tracker, &two, &NEW, &DATA, 300).unwrap();
    tracker.keep_journal(true);
    assert_eq!(events(&mut tracker), (Vec::new(), 0));
}

#[test]
fn a_full_journal_counts_what_it_leaves_out() {
    let mut tracker = Tracker::new(Limits { entries: 6000, per_guest: 6000 }, SETTINGS, 3);
    tracker.keep_journal(true);
    for port in 0..5000 {
        let _ = track(&mut tracker, &tuple(17, port), &NEW, &DATA, 0).unwrap();
    }
    let (told, lost) = events(&mut tracker);
    assert_eq!((told.len(), lost), (4096, 904));
    assert_eq!((told[0].1, told[4095].1), (0, 4095), "the first ones are told");
    let _ = track(&mut tracker, &tuple(6, 1), &NEW, &DATA, 0).unwrap_err();
    let _ = track(&mut tracker, &tuple(132, 1), &NEW, &DATA, 0).unwrap();
    let (told, lost) = events(&mut tracker);
    assert_eq!((told.len(), lost), (1, 0), "there is room again");
}

#[test]
fn an_imported_entry_is_found_both_ways_and_ends_as_the_original_does() {
    let mut live = Tracker::new(ROOM, SETTINGS, 3);
    let at = track(&mut live, &tuple(17, 7), &NEW, &DATA, 100).unwrap();
    let _ = live.update(at, Direction::Reply, &DATA, 101);
    let entry = *live.entry(at).unwrap();
    let mut copy = Tracker::new(ROOM, SETTINGS, 99);
    assert!(copy.import(&entry, None));
    assert!(!copy.import(&entry, None), "one has its tuples already");
    let (found, direction) = find(&copy, &translated(&tuple(17, 7)), 200).unwrap();
    assert_eq!((direction, copy.entry(found).unwrap().state()), (Direction::Reply, State::Replied));
    assert_eq!(copy.entry(found).unwrap().packets(Direction::Reply), 1);
    assert!(find(&copy, &tuple(17, 7), 399).is_some() && find(&copy, &tuple(17, 7), 400).is_none());
    assert_eq!((sweep(&mut copy, 400).len(), copy.len(), live.len()), (1, 0, 1));
}

fn inside(host: u32, protocol: u8, port: u16) -> Inside {
    Inside { zone: 1, protocol, address: 0x0a00_0000 | host, port }
}

#[test]
fn an_imported_binding_is_where_the_original_is() {
    let mut live = Bindings::new(100, 5);
    live.set_pool(1, &[POOL, POOL + 1], Slice::WHOLE);
    let _ = live.acquire(&inside(1, 17, 5000)).unwrap();
    let outside = live.foresee(&inside(2, 17, 5000)).unwrap();
    let mut copy = Bindings::new(100, 77);
    copy.set_pool(1, &[POOL, POOL + 1], Slice::WHOLE);
    let at = copy.import(&inside(2, 17, 5000), outside).unwrap();
    assert_eq!(copy.outside(at), Some(outside));
    assert_eq!(copy.acquire(&inside(2, 17, 5000)), Ok(at), "its packets find it");
    assert_eq!(copy.import(&inside(3, 17, 9), outside), None, "it is another's");
    let elsewhere = super::binding::Outside { address: 1, ..outside };
    assert_eq!(copy.import(&inside(3, 17, 9), elsewhere), None, "the pool has no such address");
    let full = Bindings::new(100, 5).foresee(&inside(1, 17, 1));
    assert_eq!(full, Err(NoBinding::NoPool));
}

proptest! {
    /// What is foreseen is what then happens, and foreseeing it changes nothing.
    #[test]
    fn a_binding_is_as_it_was_foreseen(
        asked in prop::collection::vec((0u32..4, 0usize..4, 0u16..8, any::<bool>()), 1..300),
    ) {
        let mut bindings = Bindings::new(64, 5);
        bindings.set_pool(1, &[POOL, POOL + 1], Slice::WHOLE);
        bindings.set_host_limit(20);
        let mut held = Vec::new();
        for (host, protocol, port, release) in asked {
            let wanted = inside(host, [6, 17, 1, 47][protocol], port);
            let (len, exhausted) = (bindings.len(), bindings.exhausted(1));
            let foreseen = bindings.foresee(&wanted);
            prop_assert_eq!((bindings.len(), bindings.exhausted(1)), (len, exhausted));
            let got = bindings.acquire(&wanted);
            prop_assert_eq!(foreseen, got.map(|at| bindings.outside(at).unwrap()));
            held.extend(got.ok());
            if release && !held.is_empty() {
                bindings.release(held.swap_remove(usize::from(port) % held.len()));
            }
        }
    }
}
