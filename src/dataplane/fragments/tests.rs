//! The order of fragments, what is dropped, bounds and fairness; and all of it against a naive model.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::frame::Pool;
use DropReason as Reason;

const PORTS: (u16, u16) = (4000, 53);
const SEED: u64 = 0x5eed_0bad_cafe_0001;

fn v4(id: u16) -> Key {
    Key { zone: 1, source: 0xffff_c000_0201, destination: 0xffff_c633_6401, id: id.into(), protocol: 17 }
}

fn v6(id: u32) -> Key {
    Key { zone: 1, source: 0x2001_0db8 << 96 | 1, destination: 0x2001_0db8 << 96 | 2, id, protocol: 0 }
}

fn piece(offset: u16, len: u16, more: bool) -> Piece {
    Piece { offset, len, more, ports: (offset == 0).then_some(PORTS), owner: 1 }
}

fn at(seconds: u64) -> Instant {
    Instant(0).after(Duration::from_secs(seconds))
}

/// What became of a fragment, without its frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ended {
    Pass(Option<(u16, u16)>),
    Held,
    Drop(Reason),
}

/// The numbers of fragments that waited, and how they ended.
type Left = Vec<(u32, Result<Option<(u16, u16)>, Reason>)>;

struct Bed {
    fragments: Fragments<u32>,
    pool: Pool,
    small: usize,
    next: u32,
}

impl Bed {
    fn new(limits: Limits) -> Bed {
        let mut pool = Pool::with_chunks(512, 4).unwrap();
        let small = pool.free_chunks().0;
        Bed { fragments: Fragments::new(limits, SEED), pool, small, next: 0 }
    }

    /// Offers the next fragment; its number comes back from `pop`.
    fn track(&mut self, key: Key, piece: Piece, now: Instant) -> Ended {
        let frame = self.pool.frame_from(&self.next.to_be_bytes()).unwrap();
        let number = self.next;
        self.next += 1;
        let (frame, ended) = match self.fragments.track(key, piece, (frame, number), now) {
            Outcome::Pass(frame, ports) => (frame, Ended::Pass(ports)),
            Outcome::Drop(frame, reason) => (frame, Ended::Drop(reason)),
            Outcome::Held => return Ended::Held,
        };
        assert_eq!(frame.head(), number.to_be_bytes());
        ended
    }

    fn popped(&mut self) -> Left {
        let mut popped = Vec::new();
        while let Some((frame, number, end)) = self.fragments.pop() {
            assert_eq!(frame.head(), number.to_be_bytes());
            popped.push((number, end));
        }
        popped
    }

    /// The books agree, and each buffer is either free or waits.
    fn audit(&mut self) {
        let Fragments { datagrams, owners, limits, charge, .. } = &self.fragments;
        let total = *charge;
        assert!(total <= limits.bytes && datagrams.used() <= limits.datagrams);
        let (mut count, mut bytes) = (0, 0);
        for owner in owners.slots.iter().filter(|owner| owner.count > 0) {
            assert!(owner.count <= limits.datagrams_owner && owner.charge <= limits.bytes_owner);
            assert_eq!(owner.waiting.first().is_some(), owner.charge > 0);
            count += owner.count;
            bytes += owner.charge;
        }
        assert_eq!((count, bytes), (datagrams.used(), total));
        assert_eq!(self.small - self.pool.free_chunks().0, total / CHUNK, "a buffer is lost");
    }
}

#[test]
fn in_order_all_pass_with_the_ports_of_the_first_and_are_forgotten() {
    let mut bed = Bed::new(Limits::default());
    for key in [v4(7), v6(7)] {
        assert_eq!(bed.track(key, piece(0, 1480, true), at(0)), Ended::Pass(Some(PORTS)));
        assert_eq!(bed.track(key, piece(1480, 1480, true), at(0)), Ended::Pass(Some(PORTS)));
        assert_eq!(bed.track(key, piece(2960, 3, false), at(0)), Ended::Pass(Some(PORTS)));
        assert!(bed.fragments.is_empty(), "so the identification may be used again");
        assert_eq!(bed.track(key, piece(0, 8, true), at(1)), Ended::Pass(Some(PORTS)));
        assert_eq!(bed.track(key, piece(8, 8, false), at(1)), Ended::Pass(Some(PORTS)));
    }
    assert!(bed.popped().is_empty() && bed.fragments.deadline().is_none());
    bed.audit();
}

#[test]
fn those_before_the_first_wait_and_leave_together() {
    let mut bed = Bed::new(Limits::default());
    assert_eq!(bed.track(v4(1), piece(16, 5, false), at(0)), Ended::Held);
    assert_eq!(bed.track(v4(1), piece(8, 8, true), at(0)), Ended::Held);
    assert_eq!(bed.fragments.waiting_bytes(), 2 * CHUNK);
    assert!(bed.popped().is_empty());
    bed.audit();
    assert_eq!(bed.track(v4(1), piece(0, 8, true), at(14)), Ended::Pass(Some(PORTS)));
    assert_eq!(bed.popped(), [(0, Ok(Some(PORTS))), (1, Ok(Some(PORTS)))]);
    assert!(bed.fragments.is_empty());
    bed.audit();
}

#[test]
fn other_keys_are_other_datagrams() {
    let mut bed = Bed::new(Limits::default());
    let base = v4(1);
    bed.track(base, piece(0, 8, true), at(0));
    for key in [
        Key { zone: 2, ..base },
        Key { source: base.source + 1, ..base },
        Key { destination: base.destination + 1, ..base },
        Key { id: 2, ..base },
        Key { protocol: 6, ..base },
    ] {
        assert_eq!(bed.track(key, piece(8, 8, false), at(0)), Ended::Held, "{key:?}");
    }
    bed.fragments.clear(2);
    assert_eq!(bed.popped(), [(1, Err(Reason::FragmentExpired))], "a zone that is gone");
    assert_eq!(bed.fragments.len(), 5);
}

#[test]
fn times_are_those_of_rfc_791_and_rfc_8200() {
    let mut bed = Bed::new(Limits::default());
    bed.track(v6(1), piece(8, 8, true), at(0));
    bed.track(v4(1), piece(8, 8, true), at(0));
    bed.track(v4(2), piece(8, 8, true), at(1));
    assert_eq!(bed.fragments.deadline(), Some(at(15)));
    bed.fragments.expire(at(14));
    assert!(bed.popped().is_empty());
    bed.fragments.expire(at(15));
    assert_eq!(bed.popped(), [(1, Err(Reason::FragmentExpired))]);
    // Not yet swept, but over: the first comes too late.
    assert_eq!(bed.track(v4(2), piece(0, 8, true), at(16)), Ended::Pass(Some(PORTS)));
    assert_eq!(bed.popped(), [(2, Err(Reason::FragmentExpired))]);
    bed.fragments.expire(at(59));
    assert!(bed.popped().is_empty());
    bed.fragments.expire(at(60));
    assert_eq!(bed.popped(), [(0, Err(Reason::FragmentExpired))]);
    assert!(bed.fragments.is_empty());
    bed.audit();
}

#[test]
fn an_overlap_dooms_the_datagram_as_rfc_5722_asks() {
    for key in [v4(1), v6(1)] {
        for (start, len) in [(8, 8), (0, 24), (24, 8), (16, 8), (16, 16), (8, 32)] {
            let mut bed = Bed::new(Limits::default());
            assert_eq!(bed.track(key, piece(8, 24, true), at(0)), Ended::Held);
            let overlap = bed.track(key, piece(start, len, true), at(0));
            assert_eq!(overlap, Ended::Drop(Reason::FragmentOverlap), "{start}+{len}");
            assert_eq!(bed.popped(), [(0, Err(Reason::FragmentOverlap))]);
            let later = bed.track(key, piece(0, 8, true), at(1));
            assert_eq!(later, Ended::Drop(Reason::FragmentOverlap), "the first as well");
            assert_eq!(bed.track(key, piece(40, 8, false), at(14)), Ended::Drop(Reason::FragmentOverlap));
            bed.audit();
        }
    }
}

#[test]
fn a_second_first_fragment_cannot_name_other_ports() {
    let mut bed = Bed::new(Limits::default());
    bed.track(v4(1), piece(0, 8, true), at(0));
    let again = Piece { ports: Some((1, 1)), ..piece(0, 8, true) };
    assert_eq!(bed.track(v4(1), again, at(0)), Ended::Drop(Reason::FragmentDuplicate));
    assert_eq!(bed.track(v4(1), piece(8, 8, true), at(0)), Ended::Pass(Some(PORTS)));
    assert_eq!(bed.track(v4(1), piece(8, 8, true), at(0)), Ended::Drop(Reason::FragmentDuplicate));
    assert_eq!(bed.track(v4(1), piece(16, 8, false), at(0)), Ended::Pass(Some(PORTS)), "it is not doomed");
}

#[test]
fn lengths_of_rfc_8200_4_5() {
    let mut bed = Bed::new(Limits::default());
    let wrong = Ended::Drop(Reason::FragmentLength);
    assert_eq!(bed.track(v4(1), piece(0, 12, true), at(0)), wrong);
    assert_eq!(bed.track(v4(1), piece(8, 0, false), at(0)), wrong);
    assert_eq!(bed.track(v4(1), piece(65512, 4, false), at(0)), wrong, "with its header past 65535");
    assert_eq!(bed.track(v6(1), piece(65528, 8, true), at(0)), wrong);
    assert!(bed.fragments.is_empty());
    assert_eq!(bed.track(v4(1), piece(65512, 3, false), at(0)), Ended::Held);
    assert_eq!(bed.track(v6(1), piece(65528, 7, false), at(0)), Ended::Held);
    // Two ends, something behind the end, and an end before what was there.
    assert_eq!(bed.track(v6(1), piece(8, 8, false), at(0)), wrong);
    for (first, second) in [
        (piece(8, 8, false), piece(16, 8, true)),
        (piece(16, 8, true), piece(8, 8, false)),
        (piece(8, 8, false), piece(8, 8, true)),
        (piece(8, 8, true), piece(8, 8, false)),
    ] {
        let mut bed = Bed::new(Limits::default());
        assert_eq!(bed.track(v6(2), first, at(0)), Ended::Held);
        assert_eq!(bed.track(v6(2), second, at(0)), wrong, "{first:?} {second:?}");
        assert_eq!(bed.popped(), [(0, Err(Reason::FragmentLength))]);
    }
}

#[test]
fn a_datagram_has_so_many_pieces_and_waiting_bytes() {
    let limits = Limits { bytes_datagram: 3 * CHUNK + 1, ..Limits::default() };
    let mut bed = Bed::new(limits);
    for n in 1..=3 {
        assert_eq!(bed.track(v4(1), piece(n * 8, 8, true), at(0)), Ended::Held);
    }
    assert_eq!(bed.track(v4(1), piece(32, 8, true), at(0)), Ended::Drop(Reason::FragmentLimit));
    bed.audit();
    bed.track(v4(1), piece(0, 8, true), at(0));
    assert_eq!(bed.popped().len(), 3);
    assert_eq!(bed.track(v4(1), piece(32, 8, true), at(0)), Ended::Pass(Some(PORTS)), "it was not noted");
    for n in 5..u16::try_from(PIECES).unwrap() {
        assert_eq!(bed.track(v4(1), piece(n * 8, 8, true), at(0)), Ended::Pass(Some(PORTS)));
    }
    let over = piece(u16::try_from(PIECES).unwrap() * 8, 8, true);
    assert_eq!(bed.track(v4(1), over, at(0)), Ended::Drop(Reason::FragmentLimit));
}

#[test]
fn a_large_buffer_counts_whole() {
    let mut bed = Bed::new(Limits::default());
    let frame = bed.pool.frame_from(&[0; 3000]).unwrap();
    assert!(matches!(bed.fragments.track(v4(1), piece(8, 8, true), (frame, 0), at(0)), Outcome::Held));
    assert_eq!(bed.fragments.waiting_bytes(), crate::frame::LARGE_CHUNK);
    drop(bed.fragments);
    assert_eq!(bed.pool.free_chunks(), (512, 4), "what waits goes back to its pool");
}

const TIGHT: Limits = Limits {
    datagrams: 64,
    datagrams_owner: 48,
    bytes: 64 * CHUNK,
    bytes_owner: 48 * CHUNK,
    bytes_datagram: 8 * CHUNK,
};

/// One guest's flood does not cost another's, whichever of the bounds it presses on, and however many join.
#[test]
fn a_flood_of_some_costs_the_others_nothing() {
    for flooders in [1, 2, 3] {
        for waiting in [true, false] {
            let mut bed = Bed::new(TIGHT);
            for id in 0..4 {
                assert_eq!(bed.track(v4(id), piece(8, 8, false), at(0)), Ended::Held);
            }
            for n in 0..20_000u32 {
                let key = Key { zone: 9, ..v6(n) };
                let offset = if waiting { 8 } else { 0 };
                let flood = Piece { owner: 100 + n % flooders, ..piece(offset, 8, true) };
                assert_ne!(bed.track(key, flood, at(0)), Ended::Drop(Reason::FragmentLimit));
                for (number, end) in bed.popped() {
                    assert!(number >= 4 && end == Err(Reason::FragmentLimit), "{number} {end:?}");
                }
            }
            bed.audit();
            for id in 0..4 {
                assert_eq!(bed.track(v4(id), piece(0, 8, true), at(1)), Ended::Pass(Some(PORTS)));
                assert_eq!(bed.popped(), [(u32::from(id), Ok(Some(PORTS)))]);
            }
        }
    }
}

/// As the module's text says it, without a thought for time or memory.
#[derive(Default)]
struct Model {
    datagrams: HashMap<Key, Naive>,
}

struct Naive {
    ends: Instant,
    pieces: Vec<(u32, u32, bool)>,
    ports: Option<Option<(u16, u16)>>,
    doomed: Option<Reason>,
    waiting: Vec<u32>,
}

impl Model {
    fn track(&mut self, key: Key, piece: Piece, number: u32, now: Instant, left: &mut Left) -> Ended {
        let (start, end) = (u32::from(piece.offset), u32::from(piece.offset) + u32::from(piece.len));
        let v4 = key.protocol != 0;
        if end > if v4 { 65515 } else { 65535 }
            || piece.len == 0
            || piece.more && !piece.len.is_multiple_of(8)
        {
            return Ended::Drop(Reason::FragmentLength);
        }
        if let Some(old) = self.datagrams.remove(&key) {
            if old.ends > now {
                self.datagrams.insert(key, old);
            } else {
                left.extend(old.waiting.iter().map(|&number| (number, Err(Reason::FragmentExpired))));
            }
        }
        let ends = now.after(Duration::from_secs(if v4 { 15 } else { 60 }));
        let naive = || Naive { ends, pieces: vec![], ports: None, doomed: None, waiting: vec![] };
        let datagram = self.datagrams.entry(key).or_insert_with(naive);
        if let Some(reason) = datagram.doomed {
            return Ended::Drop(reason);
        }
        let same_end = |&(_, to, more): &(u32, u32, bool)| to == end && more != piece.more;
        let beyond = |&(_, to, more): &(u32, u32, bool)| !more && end > to || !piece.more && to > end;
        let wrong = if datagram.pieces.iter().any(|other| same_end(other) || beyond(other)) {
            Some(Reason::FragmentLength)
        } else if datagram.pieces.contains(&(start, end, piece.more)) {
            return Ended::Drop(Reason::FragmentDuplicate);
        } else if datagram
            .pieces
            .iter()
            .any(|&(from, to, _)| (start..end).any(|byte| (from..to).contains(&byte)))
        {
            Some(Reason::FragmentOverlap)
        } else {
            None
        };
        if let Some(reason) = wrong {
            datagram.doomed = Some(reason);
            left.extend(datagram.waiting.drain(..).map(|number| (number, Err(reason))));
            return Ended::Drop(reason);
        }
        datagram.pieces.push((start, end, piece.more));
        if start == 0 {
            datagram.ports = Some(piece.ports);
            left.extend(datagram.waiting.drain(..).map(|number| (number, Ok(piece.ports))));
        }
        let Some(ports) = datagram.ports else {
            datagram.waiting.push(number);
            return Ended::Held;
        };
        let total = datagram.pieces.iter().find(|piece| !piece.2).map(|piece| piece.1);
        if total == Some(datagram.pieces.iter().map(|piece| piece.1 - piece.0).sum()) {
            self.datagrams.remove(&key);
        }
        Ended::Pass(ports)
    }

    fn expire(&mut self, now: Instant, left: &mut Left) {
        self.datagrams.retain(|_, datagram| {
            let over = datagram.ends <= now;
            if over {
                left.extend(datagram.waiting.iter().map(|&number| (number, Err(Reason::FragmentExpired))));
            }
            !over
        });
    }
}

proptest! {
    #[test]
    fn behaves_as_the_naive_model(steps in prop::collection::vec(
        (0u16..4, 0u16..6, prop::sample::select(vec![8u16, 8, 8, 16, 24, 5, 0]), any::<bool>(), prop::sample::select(vec![0u64, 0, 0, 0, 1, 5, 20]), any::<bool>()),
        1..120,
    )) {
        let mut bed = Bed::new(Limits::default());
        let mut model = Model::default();
        let mut now = 0;
        for (key, eighths, len, more, passed, expire) in steps {
            now += passed;
            let mut left = Vec::new();
            if expire && passed > 0 {
                bed.fragments.expire(at(now));
                model.expire(at(now), &mut left);
                left.sort_unstable_by_key(|&(number, _)| number);
                let mut popped = bed.popped();
                popped.sort_unstable_by_key(|&(number, _)| number);
                prop_assert_eq!(popped, std::mem::take(&mut left));
            }
            let key = if key < 2 { v4(key) } else { v6(key.into()) };
            let piece = Piece { ports: Some((now.try_into().unwrap(), len)), ..piece(eighths * 8, len, more) };
            let number = bed.next;
            let expected = model.track(key, piece, number, at(now), &mut left);
            prop_assert_eq!(bed.track(key, piece, at(now)), expected);
            prop_assert_eq!(bed.popped(), left);
            prop_assert_eq!(bed.fragments.len(), model.datagrams.len());
            bed.audit();
        }
    }

    #[test]
    fn bounds_hold_and_no_frame_is_lost(steps in prop::collection::vec(
        (0u32..5, 0u16..200, 0u16..20, 0u16..40, any::<bool>(), 0u64..2), 1..400,
    ), zone in 0u16..2) {
        let mut bed = Bed::new(Limits { datagrams: 8, datagrams_owner: 4, bytes: 12 * CHUNK, bytes_owner: 6 * CHUNK, bytes_datagram: 3 * CHUNK });
        let (mut now, mut held, mut back) = (0, 0, 0);
        for (owner, id, eighths, len, more, passed) in steps {
            now += passed;
            let key = if id % 2 == 0 { v4(id % 40) } else { v6((id % 40).into()) };
            let fragment = Piece { owner, ..piece(eighths * 8, len & !7 | 8, more) };
            if bed.track(key, fragment, at(now)) == Ended::Held { held += 1; }
            back += bed.popped().len();
            bed.audit();
            prop_assert!(bed.fragments.waiting.used() == held - back);
        }
        bed.fragments.clear(zone.into());
        back += bed.popped().len();
        prop_assert_eq!(bed.fragments.waiting.used(), held - back);
        while bed.fragments.deadline().is_some() {
            bed.fragments.expire(at(now + 60));
        }
        prop_assert_eq!(back + bed.popped().len(), held);
        bed.audit();
        prop_assert!(bed.fragments.is_empty() && bed.fragments.owners.used() == 0);
    }

    #[test]
    fn arbitrary_fragments_never_panic(steps in prop::collection::vec((any::<(u16, u16, bool, u32)>(), any::<u128>(), any::<u64>()), 0..40)) {
        let mut bed = Bed::new(Limits { datagrams: 0, datagrams_owner: 0, bytes: 5 * CHUNK, ..Limits::default() });
        for ((offset, len, more, owner), source, now) in steps {
            let piece = Piece { offset, len, more, ports: None, owner };
            let _ = bed.track(Key { source, ..v6(1) }, piece, Instant(now));
            bed.popped();
            bed.fragments.expire(Instant(now));
            bed.popped();
            bed.audit();
        }
    }
}
