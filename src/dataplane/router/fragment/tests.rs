//! Cut and put together again is the identity; what a part's header says.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::frame::Offload;

fn pool() -> Pool {
    Pool::with_chunks(512, 4).unwrap()
}

fn packet(options: &[u8], field: u16, data: &[u8]) -> Vec<u8> {
    let header = 20 + options.len();
    let mut bytes = vec![2; 12];
    bytes.extend([8, 0]);
    bytes.extend([0x40 | u8::try_from(header / 4).unwrap(), 9, 0, 0, 0xbe, 0xef, 0, 0, 63, 17, 0, 0]);
    bytes.extend([10, 0, 0, 1, 10, 0, 0, 2]);
    bytes.extend(options);
    bytes.extend(data);
    let total = u16::try_from(bytes.len() - 14).unwrap();
    seal(&mut bytes[14..14 + header], total, field);
    bytes
}

/// The parts of a frame, from their IP headers on, each sound; all buffers come back.
fn cut(bytes: &[u8], offload: Offload, mtu: usize) -> Result<Vec<Vec<u8>>, DropReason> {
    let mut pool = pool();
    let free = pool.free_chunks();
    let mut frame = pool.frame_from(bytes).unwrap();
    frame.offload = offload;
    let mut parts = Vec::new();
    let mut cut = Cut::new(frame, mtu)?;
    while let Some(part) = cut.next(&mut pool) {
        let part = part?;
        assert!(part.offload == Offload::NONE && part.is_linear());
        assert_eq!(part.head()[..14], bytes[..14]);
        let packet = part.head()[14..].to_vec();
        assert!(packet.len() <= mtu);
        assert_eq!(usize::from(u16::from_be_bytes([packet[2], packet[3]])), packet.len());
        assert_eq!(Sum::of(&packet[..usize::from(packet[0] & 15) * 4]).fold(), 0xffff, "checksum");
        parts.push(packet);
    }
    drop(cut);
    assert_eq!(pool.free_chunks(), free);
    Ok(parts)
}

fn field(part: &[u8]) -> u16 {
    u16::from_be_bytes([part[6], part[7]])
}

/// As RFC 791, 3.2, puts parts together: offset and bytes of data.
fn together(parts: &[Vec<u8>]) -> (usize, Vec<u8>) {
    let first = usize::from(field(&parts[0]) & FRAGMENT_OFFSET) * 8;
    let mut data = Vec::new();
    for part in parts {
        assert_eq!(usize::from(field(part) & FRAGMENT_OFFSET) * 8, first + data.len());
        data.extend(&part[usize::from(part[0] & 15) * 4..]);
    }
    (first, data)
}

proptest! {
    #[test]
    fn cut_and_put_together_is_the_identity(
        options in prop::sample::select(vec![vec![], vec![7u8, 7, 4, 0, 0, 0, 0, 0], vec![0x94, 4, 0, 0], vec![1, 0x94, 4, 0, 0, 7, 3, 4], vec![0x82, 11, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x94, 4, 0, 0, 0]]),
        data in vec(any::<u8>(), 1..4000), mtu in 68usize..1600, offset in 0u16..5000, more in any::<bool>(),
    ) {
        let data = if more { &data[..data.len().next_multiple_of(8).min(data.len() & !7)] } else { &data[..] };
        prop_assume!(!data.is_empty());
        let whole_field = offset | if more { MORE_FRAGMENTS } else { 0 };
        let bytes = packet(&options, whole_field, data);
        let parts = cut(&bytes, Offload::NONE, mtu).unwrap();
        let (first, joined) = together(&parts);
        prop_assert_eq!((first, &joined[..]), (usize::from(offset) * 8, data));
        let (last, others) = parts.split_last().unwrap();
        prop_assert!(others.iter().all(|part| field(part) & MORE_FRAGMENTS != 0));
        prop_assert_eq!(field(last) & MORE_FRAGMENTS != 0, more);
        for part in &parts {
            prop_assert_eq!(&part[4..6], &[0xbe, 0xef], "identification");
            prop_assert_eq!((part[1], part[8], part[9], &part[12..20]), (9, 63, 17, &bytes[26..34]));
        }
        prop_assert_eq!(&parts[0][20..20 + options.len()], &options[..]);
        // No part could have taken more.
        for part in others {
            prop_assert!(part.len() + 8 > mtu);
        }
        let copied: Vec<u8> = match options.len() {
            4 => vec![0x94, 4, 0, 0],
            8 if options[0] == 1 => vec![0x94, 4, 0, 0],
            16 => vec![0x82, 11, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x94, 4, 0, 0, 0],
            _ => vec![],
        };
        for part in &parts[1..] {
            prop_assert_eq!(&part[20..usize::from(part[0] & 15) * 4], &copied[..]);
        }
    }

    #[test]
    fn any_bytes_are_cut_or_refused(bytes in vec(any::<u8>(), 14..300), mtu in 0usize..200) {
        let _ = cut_anything(&bytes, mtu);
    }
}

fn cut_anything(bytes: &[u8], mtu: usize) -> Result<(), DropReason> {
    let mut pool = pool();
    let mut cut = Cut::new(pool.frame_from(bytes).unwrap(), mtu)?;
    while let Some(part) = cut.next(&mut pool) {
        assert!(part?.len() <= mtu + HEADER);
    }
    Ok(())
}

#[test]
fn an_unfinished_checksum_is_finished_first() {
    let mut data = vec![0x0f, 0xa0, 0, 53, 0, 108, 0x12, 0x34];
    data.extend([7; 100]);
    let bytes = packet(&[], 0, &data);
    let offload = Offload { flags: Offload::NEEDS_CSUM, csum_start: 34, csum_offset: 6, ..Offload::NONE };
    let (_, joined) = together(&cut(&bytes, offload, 68).unwrap());
    let sum = Sum::of(&data).checksum();
    assert_eq!(joined[6..8], sum.to_be_bytes(), "over all, with what stood there");
    assert_eq!(joined[8..], data[8..]);
}

#[test]
fn what_is_behind_the_packet_is_not_of_it() {
    let mut bytes = packet(&[], 0, &[5; 40]);
    bytes.extend([9; 100]);
    let parts = cut(&bytes, Offload::NONE, 68).unwrap();
    assert_eq!(parts.len(), 1);
    assert_eq!(parts[0], bytes[14..74]);
}

#[test]
fn no_part_lies_beyond_the_longest_packet() {
    let bytes = packet(&[], 0x1ffe, &[5; 200]);
    assert_eq!(cut(&bytes, Offload::NONE, 68), Err(DropReason::FragmentLength));
}

#[test]
fn without_buffers_the_rest_is_lost() {
    let mut pool = Pool::with_chunks(3, 0).unwrap();
    let frame = pool.frame_from(&packet(&[], 0, &[5; 1000])).unwrap();
    let mut cut = Cut::new(frame, 68).unwrap();
    let (first, second) = (cut.next(&mut pool), cut.next(&mut pool));
    assert!(matches!((first, second), (Some(Ok(_)), Some(Ok(_)))));
    let held: Vec<Frame> = std::iter::from_fn(|| pool.alloc()).collect();
    assert!(matches!(cut.next(&mut pool), Some(Err(DropReason::NoBuffer))));
    assert!(cut.next(&mut pool).is_none());
    drop(held);
}
