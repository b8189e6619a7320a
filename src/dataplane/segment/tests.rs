use proptest::prelude::*;
use smoltcp::wire::{IpAddress, Ipv4Packet, Ipv6Packet, TcpPacket, UdpPacket};

use super::*;

const NO_OFFLOADS: Caps = Caps { checksum: false, tso: false, uso: false, mtu: 1500 };
const ALL_OFFLOADS: Caps = Caps { checksum: true, tso: true, uso: true, mtu: 1500 };
const SEQUENCE: u32 = 0xffff_ff00; // wraps on the way
const ID: u16 = 0xfffe;

/// What a guest's frame looks like.
#[derive(Clone, Debug)]
struct Shape {
    v6: bool,
    tcp: bool,
    tags: usize,
    /// Bytes of IPv4 options or IPv6 extension headers, a multiple of 8.
    options: usize,
    /// Bytes of TCP options, a multiple of 4.
    tcp_options: usize,
    flags: u8,
    size: u16,
}

const PLAIN: Shape =
    Shape { v6: false, tcp: true, tags: 0, options: 0, tcp_options: 12, flags: tcp::ACK, size: 1448 };

impl Shape {
    fn l3(&self) -> usize {
        14 + 4 * self.tags
    }

    fn l4(&self) -> usize {
        self.l3() + self.options + if self.v6 { 40 } else { 20 }
    }

    fn headers(&self) -> usize {
        self.l4() + if self.tcp { 20 + self.tcp_options } else { 8 }
    }

    fn note(&self) -> Offload {
        let gso_type = match (self.tcp, self.v6) {
            (true, false) => Offload::GSO_TCPV4,
            (true, true) => Offload::GSO_TCPV6,
            (false, _) => Offload::GSO_UDP_L4,
        };
        Offload {
            flags: Offload::NEEDS_CSUM,
            gso_type: if self.flags & tcp::CWR != 0 && self.tcp {
                gso_type | Offload::GSO_ECN
            } else {
                gso_type
            },
            hdr_len: 0,
            gso_size: self.size,
            csum_start: u16::try_from(self.l4()).unwrap(),
            csum_offset: if self.tcp { 16 } else { 6 },
        }
    }

    /// The frame as a guest sends it, the partial sum in its field.
    fn bytes(&self, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0x52, 0x54, 0, 0, 0, 2, 0x52, 0x54, 0, 0, 0, 1];
        for tag in 0..self.tags {
            bytes.extend([if tag == 0 && self.tags == 2 { 0x88 } else { 0x81 }, 0, 0, 100]);
            if tag == 0 && self.tags == 2 {
                bytes[13] = 0xa8;
            }
        }
        let l4_len = self.headers() - self.l4() + payload.len();
        let protocol = if self.tcp { 6 } else { 17 };
        let be = |len: usize| u16::try_from(len).unwrap().to_be_bytes();
        let (source, destination): (Vec<u8>, Vec<u8>);
        if self.v6 {
            let next = if self.options > 0 { 60 } else { protocol };
            bytes.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            bytes.extend(be(self.options + l4_len));
            bytes.extend([next, 64]);
            (source, destination) = ([&[0xfd; 15][..], &[1]].concat(), [&[0xfd; 15][..], &[2]].concat());
            bytes.extend(source.iter().chain(&destination));
            let mut left = self.options;
            while left > 0 {
                left -= 8;
                bytes.extend([if left > 0 { 60 } else { protocol }, 0, 1, 4, 0, 0, 0, 0]);
            }
        } else {
            let words = u8::try_from((20 + self.options) / 4).unwrap();
            bytes.extend([8, 0, 0x40 | words, 0]);
            bytes.extend(be(20 + self.options + l4_len));
            bytes.extend(ID.to_be_bytes());
            bytes.extend([0x40, 0, 64, protocol, 0, 0]);
            (source, destination) = (vec![192, 0, 2, 1], vec![192, 0, 2, 2]);
            bytes.extend(source.iter().chain(&destination));
            bytes.extend(vec![1; self.options]);
            let checksum = naive_checksum(&bytes[self.l3()..]).to_be_bytes();
            bytes[self.l3() + 10..self.l3() + 12].copy_from_slice(&checksum);
        }
        let pseudo = [&source[..], &destination, &[0, protocol], &be(l4_len)].concat();
        let partial = !naive_checksum(&pseudo);
        bytes.extend([0x12, 0x34, 0x00, 0x50]);
        if self.tcp {
            bytes.extend(SEQUENCE.to_be_bytes());
            bytes.extend([0, 0, 0, 9]);
            bytes.extend([u8::try_from((20 + self.tcp_options) / 4 * 16).unwrap(), self.flags, 1, 0]);
            bytes.extend(partial.to_be_bytes());
            bytes.extend([0, 0]);
            bytes.extend(vec![1; self.tcp_options]);
        } else {
            bytes.extend(be(l4_len));
            bytes.extend(partial.to_be_bytes());
        }
        assert_eq!(bytes.len(), self.headers());
        bytes.extend(payload);
        bytes
    }

    fn frame(&self, payload: &[u8], pool: &mut Pool) -> Frame {
        let mut frame = pool.frame_from(&self.bytes(payload)).unwrap();
        frame.offload = self.note();
        frame
    }
}

fn naive_checksum(bytes: &[u8]) -> u16 {
    let mut sum = 0u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap()
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| u8::try_from(i * 7 % 251).unwrap()).collect()
}

fn whole(frame: &Frame) -> Vec<u8> {
    frame.segments().collect::<Vec<_>>().concat()
}

/// Holds one finished frame against smoltcp's idea of its headers and checksums; its payload.
fn verify(shape: &Shape, bytes: &[u8]) -> Vec<u8> {
    let l3 = &bytes[shape.l3()..];
    let (source, destination): (IpAddress, IpAddress);
    if shape.v6 {
        let packet = Ipv6Packet::new_checked(l3).unwrap();
        assert_eq!(packet.total_len(), l3.len());
        (source, destination) = (packet.src_addr().into(), packet.dst_addr().into());
    } else {
        let packet = Ipv4Packet::new_checked(l3).unwrap();
        assert_eq!(usize::from(packet.total_len()), l3.len());
        assert!(packet.verify_checksum());
        (source, destination) = (packet.src_addr().into(), packet.dst_addr().into());
    }
    let l4 = &bytes[shape.l4()..];
    if shape.tcp {
        let segment = TcpPacket::new_checked(l4).unwrap();
        assert!(segment.verify_checksum(&source, &destination));
        segment.payload().to_vec()
    } else {
        let datagram = UdpPacket::new_checked(l4).unwrap();
        assert_ne!(datagram.checksum(), 0, "a computed checksum is never none");
        assert!(datagram.verify_checksum(&source, &destination));
        assert_eq!(usize::from(datagram.len()), l4.len());
        datagram.payload().to_vec()
    }
}

/// Segments a frame of this shape by an exit with `caps` and holds every segment against the rules.
fn round_trip(shape: &Shape, payload: &[u8], caps: &Caps, chained: bool) {
    let mut pool = Pool::with_chunks(4096, 2).unwrap();
    let free = pool.free_chunks();
    let mut frame = shape.frame(payload, &mut pool);
    if chained {
        frame = pool.copy_small(&frame).unwrap();
    }
    assert_eq!(check(&mut frame), Ok(()));
    let longest = segment_len(&frame);
    let size = usize::from(shape.size);
    let mut sent = Vec::new();
    let count = finish(frame, &mut pool, caps, |segment| sent.push(segment)).unwrap();
    assert_eq!((count, sent.len()), (payload.len().div_ceil(size), count));
    assert_eq!(sent.iter().map(Frame::len).max(), Some(longest));
    let mut joined = Vec::new();
    for (index, segment) in sent.iter_mut().enumerate() {
        assert!(pool.owns_small(segment) && segment.headroom() >= crate::frame::HEADROOM);
        let last = index + 1 == count;
        assert_eq!(segment.offload.is_done(), !caps.checksum);
        assert_eq!(check(segment), Ok(()));
        finish_checksum(segment).unwrap();
        let bytes = whole(segment);
        let part = verify(shape, &bytes);
        assert_eq!(part.len(), if last { payload.len() - joined.len() } else { size });
        if !shape.v6 {
            assert_eq!(
                Ipv4Packet::new_unchecked(&bytes[shape.l3()..]).ident(),
                ID.wrapping_add(u16::try_from(index).unwrap())
            );
        }
        if shape.tcp {
            let segment = Tcp::new_checked(&bytes[shape.l4()..]).unwrap();
            assert_eq!(segment.sequence(), SEQUENCE.wrapping_add(u32::try_from(joined.len()).unwrap()));
            let mut flags = shape.flags;
            flags &= if index == 0 { 0xff } else { !tcp::CWR };
            flags &= if last { 0xff } else { !(tcp::FIN | tcp::PSH) };
            assert_eq!(segment.flags(), flags);
        }
        joined.extend(part);
    }
    assert_eq!(joined, payload);
    drop(sent);
    assert_eq!(pool.free_chunks(), free, "every chunk is back");
}

#[test]
fn a_full_tcp_frame_becomes_segments_that_verify() {
    let flags = tcp::ACK | tcp::PSH | tcp::FIN | tcp::CWR | tcp::ECE;
    for v6 in [false, true] {
        let shape = Shape { v6, flags, ..PLAIN };
        round_trip(&shape, &pattern(64_000), &NO_OFFLOADS, false);
        round_trip(&shape, &pattern(64_000), &Caps { checksum: true, ..NO_OFFLOADS }, true);
    }
}

#[test]
fn jumbo_segments_are_chains_of_small_chunks() {
    for size in [8948, 8949, 30_001] {
        let shape = Shape { size, tags: 2, ..PLAIN };
        round_trip(&shape, &pattern(60_001), &NO_OFFLOADS, false);
        round_trip(&Shape { tcp: false, v6: true, ..shape }, &pattern(60_001), &NO_OFFLOADS, true);
    }
}

#[test]
fn an_exit_gets_only_what_it_cannot_carry_done() {
    let mut pool = Pool::with_chunks(64, 4).unwrap();
    let payload = pattern(5000);
    let tcp = PLAIN;
    let udp = Shape { tcp: false, ..PLAIN };
    let count = |shape: &Shape, caps: Caps, pool: &mut Pool| {
        let frame = shape.frame(&payload, pool);
        let (before, note) = (whole(&frame), frame.offload);
        let mut untouched = false;
        let count =
            finish(frame, pool, &caps, |sent| untouched = whole(&sent) == before && sent.offload == note);
        (count.unwrap(), untouched)
    };
    assert_eq!(count(&tcp, ALL_OFFLOADS, &mut pool), (1, true));
    assert_eq!(count(&udp, ALL_OFFLOADS, &mut pool), (1, true));
    assert_eq!(count(&tcp, Caps { uso: false, ..ALL_OFFLOADS }, &mut pool), (1, true));
    assert_eq!(count(&udp, Caps { uso: false, ..ALL_OFFLOADS }, &mut pool), (4, false));
    assert_eq!(count(&tcp, Caps { tso: false, ..ALL_OFFLOADS }, &mut pool), (4, false));
    assert_eq!(count(&udp, Caps { tso: false, ..ALL_OFFLOADS }, &mut pool), (1, true));
    assert_eq!(count(&tcp, Caps { checksum: false, ..ALL_OFFLOADS }, &mut pool), (4, false));
    assert_eq!(count(&udp, Caps { checksum: false, ..ALL_OFFLOADS }, &mut pool), (4, false));
    let plain = |note, caps, pool: &mut Pool| {
        let mut frame = tcp.frame(&payload[..100], pool);
        frame.offload = note;
        let before = whole(&frame);
        let mut after = None;
        finish(frame, pool, caps, |sent| after = Some((whole(&sent) == before, sent.offload))).unwrap();
        after.unwrap()
    };
    let partial = Offload { gso_type: 0, gso_size: 0, ..tcp.note() };
    assert_eq!(plain(Offload::NONE, &NO_OFFLOADS, &mut pool), (true, Offload::NONE));
    assert_eq!(plain(partial, &ALL_OFFLOADS, &mut pool), (true, partial));
    assert_eq!(plain(partial, &NO_OFFLOADS, &mut pool), (false, Offload::NONE));
    assert_eq!(pool.free_chunks(), (64, 4));
}

#[test]
fn when_buffers_run_out_the_first_segments_are_sent_and_nothing_leaks() {
    for small in [0, 1, 3, 4] {
        let mut pool = Pool::with_chunks(small, 1).unwrap();
        let frame = PLAIN.frame(&pattern(10_000), &mut pool);
        let mut sent = Vec::new();
        let result = segment_into(frame, &mut pool, true, |segment| sent.push(segment));
        assert_eq!(result, Err(DropReason::NoBuffer));
        assert_eq!(sent.len(), small as usize);
        for segment in &sent {
            verify(&PLAIN, &whole(segment));
        }
        drop(sent);
        assert_eq!(pool.free_chunks(), (small as usize, 1));
    }
    // In the middle of a chain.
    let mut pool = Pool::with_chunks(7, 1).unwrap();
    let shape = Shape { size: 8948, ..PLAIN };
    let frame = shape.frame(&pattern(20_000), &mut pool);
    let mut sent = Vec::new();
    let result = segment_into(frame, &mut pool, true, |segment| sent.push(segment));
    assert_eq!((result, sent.len()), (Err(DropReason::NoBuffer), 1));
    drop(sent);
    assert_eq!(pool.free_chunks(), (7, 1));
}

#[test]
fn a_udp_sum_of_zero_is_sent_as_ones() {
    let shape = Shape { tcp: false, ..PLAIN };
    let mut pool = Pool::with_chunks(4, 0).unwrap();
    // The payload is the complement of the sum of all the rest, so that the checksum comes out as 0.
    let rest = shape.bytes(&[0, 0]);
    let filler = naive_checksum(&rest[shape.l4()..]).to_be_bytes();
    let mut frame = shape.frame(&filler, &mut pool);
    frame.offload = Offload { gso_type: 0, gso_size: 0, ..shape.note() };
    finish_checksum(&mut frame).unwrap();
    let bytes = whole(&frame);
    assert_eq!(bytes[shape.l4() + 6..shape.l4() + 8], [0xff, 0xff]);
    assert_eq!(verify(&shape, &bytes), filler);
}

#[test]
fn chains_with_odd_pieces_sum_as_one() {
    let mut pool = Pool::with_chunks(16, 1).unwrap();
    for cuts in [[61, 1, 1], [75, 33, 201], [100, 2, 7], [66, 55, 1]] {
        let bytes = PLAIN.bytes(&pattern(700));
        let (head, mut rest) = bytes.split_at(cuts[0] + 20);
        let mut frame = pool.frame_from(head).unwrap();
        for cut in [cuts[1], cuts[2], rest.len() - cuts[1] - cuts[2]] {
            let (now, later) = rest.split_at(cut);
            frame.chain(pool.frame_from(now).unwrap()).unwrap();
            rest = later;
        }
        frame.offload = Offload { gso_type: 0, gso_size: 0, ..PLAIN.note() };
        assert_eq!(check(&mut frame), Ok(()));
        finish_checksum(&mut frame).unwrap();
        assert_eq!(frame.offload, Offload::NONE);
        assert_eq!(verify(&PLAIN, &whole(&frame)), pattern(700));
    }
    assert_eq!(pool.free_chunks(), (16, 1));
}

/// A frame of this shape after `change` must be refused by every function.
#[track_caller]
fn refused(shape: &Shape, change: impl Fn(&mut Vec<u8>, &mut Offload)) {
    let mut pool = Pool::with_chunks(64, 2).unwrap();
    let (mut bytes, mut note) = (shape.bytes(&pattern(3000)), shape.note());
    change(&mut bytes, &mut note);
    let mut frame = pool.frame_from(&bytes).unwrap();
    frame.offload = note;
    assert_eq!(check(&mut frame), Err(DropReason::BadOffload));
    assert_eq!(finish(frame, &mut pool, &NO_OFFLOADS, |_| ()), Err(DropReason::BadOffload));
    assert_eq!(pool.free_chunks(), (64, 2));
}

#[test]
fn notes_that_do_not_fit_are_refused() {
    let v6 = Shape { v6: true, ..PLAIN };
    let udp = Shape { tcp: false, ..PLAIN };
    refused(&PLAIN, |_, note| note.gso_size = 0);
    refused(&PLAIN, |_, note| note.gso_size = 1); // too many segments
    refused(&PLAIN, |_, note| note.flags = 0);
    refused(&PLAIN, |_, note| note.flags = Offload::DATA_VALID);
    refused(&PLAIN, |_, note| note.csum_start += 2);
    refused(&PLAIN, |_, note| note.csum_offset = 6);
    for gso_type in [2, Offload::GSO_UDP, Offload::GSO_TCPV6, Offload::GSO_UDP_L4, Offload::GSO_ECN, 0x7f] {
        refused(&PLAIN, |_, note| note.gso_type = gso_type);
    }
    refused(&udp, |_, note| note.gso_type = Offload::GSO_TCPV4);
    refused(&udp, |_, note| note.gso_type |= Offload::GSO_ECN);
    refused(&v6, |_, note| note.gso_type = Offload::GSO_TCPV4);
    refused(&PLAIN, |bytes, _| bytes[13] = 6); // ARP
    refused(&PLAIN, |bytes, _| bytes[14 + 6] |= 0x20); // a fragment
    refused(&PLAIN, |bytes, _| bytes[14 + 9] = 17); // UDP inside
    refused(&PLAIN, |bytes, _| bytes[14 + 3] ^= 1); // another length
    refused(&PLAIN, |bytes, _| bytes[14 + 20 + 12] = 0x40); // TCP header too short
    refused(&v6, |bytes, _| bytes[14 + 5] ^= 1);
    refused(&udp, |bytes, _| bytes[14 + 20 + 5] ^= 1);
    let routed = Shape { options: 8, ..v6 };
    refused(&routed, |bytes, _| (bytes[14 + 6], bytes[14 + 40 + 3]) = (43, 1)); // segments left
    refused(&routed, |bytes, _| (bytes[14 + 6], bytes[14 + 40 + 3]) = (44, 1)); // a fragment
}

#[test]
fn a_frame_without_payload_or_with_its_field_outside_is_refused() {
    let mut pool = Pool::with_chunks(8, 1).unwrap();
    let verdict = |bytes: &[u8], note, pool: &mut Pool| {
        let mut frame = pool.frame_from(bytes).unwrap();
        frame.offload = note;
        check(&mut frame)
    };
    let empty = PLAIN.bytes(&[]);
    assert_eq!(verdict(&empty, PLAIN.note(), &mut pool), Err(DropReason::BadOffload));
    let partial =
        |start, offset| Offload { flags: 1, csum_start: start, csum_offset: offset, ..Offload::NONE };
    let end = u16::try_from(empty.len()).unwrap();
    assert_eq!(verdict(&empty, partial(34, end - 36), &mut pool), Ok(()));
    assert_eq!(verdict(&empty, partial(34, end - 35), &mut pool), Err(DropReason::BadOffload));
    assert_eq!(verdict(&empty, partial(13, 16), &mut pool), Err(DropReason::BadOffload));
    assert_eq!(verdict(&empty, partial(0xffff, 0xffff), &mut pool), Err(DropReason::BadOffload));
    let tagged = Shape { tags: 1, ..PLAIN }.bytes(&[]);
    assert_eq!(
        verdict(&tagged, partial(14, 16), &mut pool),
        Err(DropReason::BadOffload),
        "inside of the tag"
    );
    // In a chain the field must be in the head.
    for (head, fits) in [(50, Err(DropReason::BadOffload)), (52, Ok(()))] {
        let mut chain = pool.frame_from(&empty[..head]).unwrap();
        chain.chain(pool.frame_from(&empty[head..]).unwrap()).unwrap();
        chain.offload = partial(34, 16);
        assert_eq!(check(&mut chain), fits);
        assert_eq!(finish_checksum(&mut chain), fits);
        assert!(fits.is_ok() || whole(&chain) == empty);
    }
}

/// Whoever finishes a checksum writes where nothing was decided by.
#[test]
fn a_note_is_the_transports_own_or_done_with() {
    let mut pool = Pool::with_chunks(8, 1).unwrap();
    let partial = |csum_start, csum_offset| Offload { flags: 1, csum_start, csum_offset, ..Offload::NONE };
    for (v6, tcp, tags, options) in
        [(false, true, 0, 0), (false, false, 1, 8), (true, true, 2, 16), (true, false, 0, 8)]
    {
        let shape = Shape { v6, tcp, tags, options, tcp_options: 0, ..PLAIN };
        let (bytes, own) = (shape.bytes(&pattern(60)), shape.note());
        let fixed = u16::try_from(shape.headers()).unwrap();
        for start in 0..fixed + 10 {
            for field in start..fixed + 20 {
                let mut frame = pool.frame_from(&bytes).unwrap();
                frame.offload = partial(start, field - start);
                let is_own = (start, field - start) == (own.csum_start, own.csum_offset);
                let verdict = check(&mut frame);
                if is_own {
                    assert_eq!((verdict, frame.offload), (Ok(()), partial(start, field - start)));
                } else if usize::from(start) >= shape.l4() && field >= fixed {
                    let (mut finished, at) = (bytes.clone(), usize::from(field));
                    let sum = naive_checksum(&bytes[usize::from(start)..]).to_be_bytes();
                    finished[at..at + 2].copy_from_slice(&sum);
                    assert_eq!((verdict, frame.offload), (Ok(()), Offload::NONE), "{start} {field}");
                    assert_eq!(whole(&frame), finished);
                } else {
                    assert_eq!(verdict, Err(DropReason::BadOffload), "{start} {field}");
                    assert_eq!(whole(&frame), bytes);
                }
            }
        }
    }
}

fn shapes() -> impl Strategy<Value = Shape> {
    let sizes = prop_oneof![30u16..200, 500u16..3000, 3000u16..40_000];
    (any::<bool>(), any::<bool>(), 0usize..3, 0usize..5, 0usize..10, any::<u8>(), sizes).prop_map(
        |(v6, tcp, tags, options, tcp_options, flags, size)| Shape {
            v6,
            tcp,
            tags,
            options: 8 * options,
            tcp_options: 4 * tcp_options,
            flags,
            size,
        },
    )
}

proptest! {
    #[test]
    fn what_is_cut_joins_again(shape in shapes(), payload in proptest::collection::vec(any::<u8>(), 1..60_000), checksum: bool, chained: bool) {
        prop_assume!(payload.len().div_ceil(usize::from(shape.size)) <= MAX_SEGMENTS);
        round_trip(&shape, &payload, &Caps { checksum, ..NO_OFFLOADS }, chained);
    }

    #[test]
    fn hostile_notes_and_bytes_never_panic(
        shape in shapes(),
        noise in proptest::collection::vec((0usize..200, any::<u8>()), 0..4),
        len in 0usize..4000,
        note: [u8; Offload::LEN],
        keep: [bool; 4],
        random in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..300)),
        head in 0usize..2000,
    ) {
        let mut pool = Pool::with_chunks(256, 2).unwrap();
        let mut bytes = shape.bytes(&pattern(3500));
        for (at, value) in noise {
            bytes[at] = value;
        }
        bytes.truncate(len);
        let bytes = random.unwrap_or(bytes);
        let (hostile, honest) = (Offload::from_bytes(note), shape.note());
        let offload = Offload {
            flags: if keep[0] { honest.flags } else { hostile.flags },
            gso_type: if keep[1] { honest.gso_type } else { hostile.gso_type },
            csum_start: if keep[2] { honest.csum_start } else { hostile.csum_start },
            csum_offset: if keep[3] { honest.csum_offset } else { hostile.csum_offset },
            ..hostile
        };
        let (first, rest) = bytes.split_at(head.min(bytes.len()).min(CHUNK_DATA));
        for caps in [NO_OFFLOADS, Caps { checksum: true, ..NO_OFFLOADS }, ALL_OFFLOADS] {
            let mut frame = pool.frame_from(first).unwrap();
            for link in rest.chunks(CHUNK_DATA) {
                frame.chain(pool.frame_from(link).unwrap()).unwrap();
            }
            frame.offload = offload;
            prop_assert!(segment_len(&frame) <= frame.len());
            let fits = check(&mut frame);
            let gso = offload.gso_type != 0;
            let result = finish(frame, &mut pool, &caps, |_| ());
            if fits.is_ok() {
                prop_assert!(result.is_ok(), "what passed the check can be sent: {result:?}");
            } else if gso && !caps.checksum {
                prop_assert_eq!(result, Err(DropReason::BadOffload));
            }
            prop_assert_eq!(pool.free_chunks(), (256, 2));
        }
    }
}
