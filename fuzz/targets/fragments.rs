//! Any fragments at any time. With room for all of them the table does what a naive list of pieces does; with little room
//! it keeps its bounds, and in both cases every frame comes back once, with the ports of its own packet's first fragment.

use std::collections::HashMap;
use std::time::Duration;

use nuswitch::dataplane::fragments::{Fragments, Key, Limits, Outcome, Piece};
use nuswitch::frame::{CHUNK, Pool};
use nuswitch::stats::DropReason;
use nuswitch::types::Instant;

use super::input::Input;

const TIGHT: Limits = Limits {
    datagrams: 5,
    datagrams_owner: 3,
    bytes: 10 * CHUNK,
    bytes_owner: 6 * CHUNK,
    bytes_datagram: 3 * CHUNK,
};
const ROOMY: Limits = Limits {
    datagrams: 64,
    datagrams_owner: 64,
    bytes: 256 * CHUNK,
    bytes_owner: 256 * CHUNK,
    bytes_datagram: 256 * CHUNK,
};
const CHUNKS: usize = 300;

type Ports = Option<(u16, u16)>;

/// What was seen of a packet, byte for byte.
struct Seen {
    ends: Instant,
    pieces: Vec<(u16, u16, bool)>,
    first: Option<Ports>,
    doomed: Option<DropReason>,
    waiting: Vec<u16>,
}

#[derive(Default)]
struct Naive(HashMap<Key, Seen>);

#[derive(PartialEq, Eq, Debug)]
enum End {
    Pass(Ports),
    Held,
    Drop(DropReason),
}

type Left = Vec<(u16, Result<Ports, DropReason>)>;

impl Naive {
    fn track(&mut self, key: Key, piece: &Piece, number: u16, now: Instant, left: &mut Left) -> End {
        let v4 = key.protocol != 0;
        let end = u32::from(piece.offset) + u32::from(piece.len);
        let ragged = piece.more && !piece.len.is_multiple_of(8) || !piece.offset.is_multiple_of(8);
        if piece.len == 0 || ragged || end > if v4 { 65_515 } else { 65_535 } {
            return End::Drop(DropReason::FragmentLength);
        }
        if self.0.get(&key).is_some_and(|seen| seen.ends <= now) {
            self.forget(&key, left);
        }
        let ends = now.after(Duration::from_secs(if v4 { 15 } else { 60 }));
        let new = || Seen { ends, pieces: Vec::new(), first: None, doomed: None, waiting: Vec::new() };
        let seen = self.0.entry(key).or_insert_with(new);
        if let Some(reason) = seen.doomed {
            return End::Drop(reason);
        }
        let (from, to) = (piece.offset, piece.offset + piece.len);
        let contradicts = |&(_, end, more): &(u16, u16, bool)| {
            end == to && more != piece.more || !more && to > end || !piece.more && end > to
        };
        let overlaps = |&(start, end, _): &(u16, u16, bool)| start < to && from < end;
        let wrong = match () {
            () if seen.pieces.iter().any(contradicts) => DropReason::FragmentLength,
            () if seen.pieces.contains(&(from, to, piece.more)) => {
                return End::Drop(DropReason::FragmentDuplicate);
            }
            () if seen.pieces.iter().any(overlaps) => DropReason::FragmentOverlap,
            () => return self.take(key, piece, number, left),
        };
        seen.doomed = Some(wrong);
        left.extend(seen.waiting.drain(..).map(|number| (number, Err(wrong))));
        End::Drop(wrong)
    }

    fn take(&mut self, key: Key, piece: &Piece, number: u16, left: &mut Left) -> End {
        let seen = self.0.get_mut(&key).expect("made by the caller");
        seen.pieces.push((piece.offset, piece.offset + piece.len, piece.more));
        if piece.offset == 0 {
            seen.first = Some(piece.ports);
            left.extend(seen.waiting.drain(..).map(|number| (number, Ok(piece.ports))));
        }
        let Some(ports) = seen.first else {
            seen.waiting.push(number);
            return End::Held;
        };
        let len = seen.pieces.iter().find(|(.., more)| !more).map(|(_, end, _)| u32::from(*end));
        let have = seen.pieces.iter().map(|(start, end, _)| u32::from(end - start)).sum::<u32>();
        if len == Some(have) {
            self.0.remove(&key);
        }
        End::Pass(ports)
    }

    fn forget(&mut self, key: &Key, left: &mut Left) {
        let waiting = self.0.remove(key).map_or_else(Vec::new, |seen| seen.waiting);
        left.extend(waiting.into_iter().map(|number| (number, Err(DropReason::FragmentExpired))));
    }

    fn expire(&mut self, now: Instant, left: &mut Left) {
        let over: Vec<Key> =
            self.0.iter().filter(|(_, seen)| seen.ends <= now).map(|(key, _)| *key).collect();
        over.iter().for_each(|key| self.forget(key, left));
    }

    fn clear(&mut self, zone: u32, left: &mut Left) {
        let its: Vec<Key> = self.0.keys().filter(|key| key.zone == zone).copied().collect();
        its.iter().for_each(|key| self.forget(key, left));
    }
}

pub fn run(data: &[u8]) {
    reach(data);
}

/// As [`run`]; gives the fragments that passed at once, that waited, and that were dropped.
pub fn reach(data: &[u8]) -> [u64; 3] {
    let mut input = Input::new(data);
    let tight = input.flag();
    let mut pool = Pool::with_chunks(u32::try_from(CHUNKS).expect("small"), 1).expect("memory");
    let mut fragments: Fragments<u16> =
        Fragments::new(if tight { TIGHT } else { ROOMY }, input.word().into());
    let (mut naive, mut now, mut ends) = (Naive::default(), Instant(0), [0; 3]);
    // The ports that the first fragment of each packet named last; and what waits.
    let mut waiting: HashMap<u16, Key> = HashMap::new();
    for number in 0u16..250 {
        if input.is_empty() {
            break;
        }
        let mut left = Left::new();
        match input.byte() % 16 {
            0 => now = now.after(Duration::from_secs(input.one_of(&[1, 5, 14, 15, 60]))),
            1 => {
                while fragments.deadline().is_some_and(|at| at <= now) {
                    fragments.expire(now);
                }
                naive.expire(now, &mut left);
            }
            2 if input.byte().is_multiple_of(4) => {
                let zone = u32::from(input.byte() % 2);
                fragments.clear(zone);
                naive.clear(zone, &mut left);
            }
            _ => {
                let (key, piece) = fragment(&mut input);
                let frame = pool.frame_from(&number.to_be_bytes()).expect("there are more than may wait");
                let expected = naive.track(key, &piece, number, now, &mut left);
                let ended = match fragments.track(key, piece, (frame, number), now) {
                    Outcome::Pass(frame, ports) => {
                        assert_eq!(frame.head(), number.to_be_bytes());
                        End::Pass(ports)
                    }
                    Outcome::Drop(_, reason) => End::Drop(reason),
                    Outcome::Held => End::Held,
                };
                if ended == End::Held {
                    waiting.insert(number, key);
                }
                ends[match ended {
                    End::Pass(_) => 0,
                    End::Held => 1,
                    End::Drop(_) => 2,
                }] += 1;
                assert!(tight || ended == expected, "{ended:?} instead of {expected:?}");
            }
        }
        let mut popped = Left::new();
        while let Some((frame, number, end)) = fragments.pop() {
            assert_eq!(frame.head(), number.to_be_bytes());
            assert!(waiting.remove(&number).is_some(), "came back twice, or never waited");
            popped.push((number, end));
        }
        if !tight {
            left.sort_unstable_by_key(|(number, _)| *number);
            popped.sort_unstable_by_key(|(number, _)| *number);
            assert_eq!(popped, left);
            assert_eq!(fragments.len(), naive.0.len());
        }
        assert!(fragments.len() <= if tight { TIGHT } else { ROOMY }.datagrams);
        assert!(fragments.waiting_bytes() <= if tight { TIGHT } else { ROOMY }.bytes);
        assert_eq!(fragments.waiting_bytes(), waiting.len() * CHUNK);
        assert_eq!(CHUNKS - pool.free_chunks().0, waiting.len(), "a buffer is lost");
    }
    now = now.after(Duration::from_secs(60));
    while fragments.deadline().is_some() {
        fragments.expire(now);
    }
    while let Some((_, number, end)) = fragments.pop() {
        assert!(waiting.remove(&number).is_some() && end.is_err());
    }
    assert!(fragments.is_empty() && waiting.is_empty());
    assert_eq!(pool.free_chunks(), (CHUNKS, 1));
    ends
}

fn fragment(input: &mut Input<'_>) -> (Key, Piece) {
    let n = input.byte();
    let (source, destination, protocol) = if n & 1 == 0 {
        (0xffff_0a00_000a, 0xffff_c633_6409, 17)
    } else {
        (0x2001_0db8 << 96 | 1, 0x2001_0db8 << 96 | 2, 0)
    };
    let key = Key { zone: u32::from(n >> 1 & 1), source, destination, id: u32::from(n >> 2 & 7), protocol };
    let offset = match input.byte() {
        0xff => input.word(),
        0xfe => 65_512,
        n => u16::from(n % 6) * 8,
    };
    let len = match input.byte() {
        0xff => input.word(),
        n => [8, 8, 8, 16, 24, 3, 0][usize::from(n % 7)],
    };
    let ports = input.one_of(&[Some((1, 2)), Some((3, 4)), None]);
    (key, Piece { offset, len, more: input.flag(), ports, owner: u32::from(n >> 5) })
}
