//! The difference against a full sum, there and back, and arbitrary bytes.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::wire::checksum::pseudo_v4;

fn tuple() -> impl Strategy<Value = Tuple> {
    (1u32.., 1u32.., any::<u16>(), any::<u16>()).prop_map(
        |(source, destination, source_port, destination_port)| {
            let (source, destination) = (source.into(), destination.into());
            Tuple { source, destination, source_port, destination_port }
        },
    )
}

fn protocols() -> impl Strategy<Value = u8> {
    prop::sample::select(vec![6, 17, 33, 136, 1, 132, 47])
}

/// The sum of the whole transport, its pseudo-header included where it has one.
fn full(packet: &[u8], header: usize) -> Sum {
    let address = |at: usize| Ipv4Addr::from(*packet[at..].first_chunk::<4>().unwrap());
    let len = u16::try_from(packet.len() - header).unwrap();
    match packet[9] {
        1 => Sum::of(&packet[header..]),
        protocol => pseudo_v4(address(12), address(16), protocol, len) + Sum::of(&packet[header..]),
    }
}

/// A packet with these ends, its checksums in full.
fn packet(protocol: u8, ends: &Tuple, options: usize, payload: &[u8]) -> Vec<u8> {
    let header = 20 + options * 4;
    let mut transport = vec![0; if protocol == 6 { 20 } else { 12 }];
    match protocol {
        1 => {
            transport[0] = 8;
            transport[4..6].copy_from_slice(&ends.source_port.to_be_bytes());
        }
        47 => {}
        _ => transport[..4].copy_from_slice(&ends.ports()),
    }
    if protocol == 6 {
        transport[12] = 0x50;
    }
    let total = u16::try_from(header + transport.len() + payload.len()).unwrap().to_be_bytes();
    let mut bytes =
        vec![0x45 + u8::try_from(options).unwrap(), 0, total[0], total[1], 1, 2, 0, 0, 64, protocol, 0, 0];
    bytes.extend(ends.addresses());
    bytes.resize(header, 1);
    let sum = Sum::of(&bytes).checksum().to_be_bytes();
    bytes[10..12].copy_from_slice(&sum);
    bytes.extend(&transport);
    bytes.extend(payload);
    if let Some(at) = Transport::of(protocol).checksum() {
        let sum = full(&bytes, header).checksum();
        let sum = if matches!(protocol, 17 | 136) { udp::never_zero(sum) } else { sum };
        bytes[header + at..][..2].copy_from_slice(&sum.to_be_bytes());
    }
    bytes
}

/// As the packet would be if it had been sent so.
fn sent(protocol: u8, ends: &Tuple, options: usize, payload: &[u8], hops: u8) -> Vec<u8> {
    let mut bytes = packet(protocol, ends, options, payload);
    let header = 20 + options * 4;
    bytes[8] -= hops;
    bytes[10..12].copy_from_slice(&[0, 0]);
    let sum = Sum::of(&bytes[..header]).checksum().to_be_bytes();
    bytes[10..12].copy_from_slice(&sum);
    bytes
}

/// SCTP's ports stay.
fn ends_after(protocol: u8, from: &Tuple, to: &Tuple) -> Tuple {
    if protocol == 132 {
        return Tuple { source_port: from.source_port, destination_port: from.destination_port, ..*to };
    }
    *to
}

proptest! {
    #[test]
    fn a_translated_packet_is_the_one_that_would_have_been_sent(
        protocol in protocols(), from in tuple(), to in tuple(), options in 0usize..=10, payload in vec(any::<u8>(), 0..64),
    ) {
        let header = 20 + options * 4;
        let original = packet(protocol, &from, options, &payload);
        let mut bytes = original.clone();
        let kind = Transport::of(protocol);
        Rewrite::new(kind, &from, &to).apply(&mut bytes, header, false).unwrap();
        prop_assert_eq!(&bytes, &sent(protocol, &ends_after(protocol, &from, &to), options, &payload, 1));
        // And back: only the hops have passed.
        Rewrite::new(kind, &to, &from).apply(&mut bytes, header, false).unwrap();
        prop_assert_eq!(&bytes, &sent(protocol, &from, options, &payload, 2));
    }

    #[test]
    fn an_unfinished_checksum_is_the_pseudo_headers_sum(protocol in prop::sample::select(vec![6u8, 17]), from in tuple(), to in tuple(), payload in vec(any::<u8>(), 0..64)) {
        let unfinished = |ends: &Tuple, hops| {
            let mut bytes = sent(protocol, ends, 0, &payload, hops);
            let len = u16::try_from(bytes.len() - 20).unwrap();
            let sum = pseudo_v4(ends.source, ends.destination, protocol, len).fold().to_be_bytes();
            bytes[20 + Transport::of(protocol).checksum().unwrap()..][..2].copy_from_slice(&sum);
            bytes
        };
        let mut bytes = unfinished(&from, 0);
        Rewrite::new(Transport::of(protocol), &from, &to).apply(&mut bytes, 20, true).unwrap();
        prop_assert_eq!(bytes, unfinished(&to, 1));
    }

    #[test]
    fn a_checksum_that_was_wrong_stays_as_wrong(protocol in prop::sample::select(vec![6u8, 33, 1]), from in tuple(), to in tuple(), wrong in 1u16..0xffff) {
        let at = 20 + Transport::of(protocol).checksum().unwrap();
        let mut bytes = packet(protocol, &from, 0, b"abc");
        let sum = Sum::from(u16::from_be_bytes([bytes[at], bytes[at + 1]])) + Sum::from(wrong);
        bytes[at..at + 2].copy_from_slice(&sum.fold().to_be_bytes());
        let before = full(&bytes, 20).fold();
        Rewrite::new(Transport::of(protocol), &from, &to).apply(&mut bytes, 20, false).unwrap();
        prop_assert_eq!(full(&bytes, 20).fold(), before);
        prop_assert_ne!(before, 0xffff);
    }

    #[test]
    fn a_later_fragment_changes_in_its_ip_header_only(from in tuple(), to in tuple(), payload in vec(any::<u8>(), 0..64)) {
        let mut bytes = packet(17, &from, 1, &payload);
        let rest = bytes[24..].to_vec();
        Rewrite::new(Transport::Udp, &from, &to).apply_later(&mut bytes).unwrap();
        prop_assert_eq!(&bytes[24..], rest);
        prop_assert_eq!(&bytes[..24], &sent(17, &to, 1, &payload, 1)[..24]);
    }

    #[test]
    fn a_hop_is_that_of_the_full_sum(ends in tuple(), ttl in 1u8..=255) {
        let mut bytes = packet(17, &ends, 0, &[]);
        bytes[8] = ttl;
        bytes[10..12].copy_from_slice(&[0, 0]);
        let sum = Sum::of(&bytes[..20]).checksum().to_be_bytes();
        bytes[10..12].copy_from_slice(&sum);
        hop_v4(&mut bytes);
        prop_assert_eq!((bytes[8], Sum::of(&bytes[..20]).fold()), (ttl - 1, 0xffff));
        let mut six = vec![0x60, 0, 0, 0, 0, 0, 17, ttl];
        hop_v6(&mut six);
        prop_assert_eq!(six, [0x60, 0, 0, 0, 0, 0, 17, ttl - 1]);
    }

    #[test]
    fn an_error_is_translated_outside_and_inside(
        protocol in protocols(), (from, to) in (tuple(), tuple()), (outer, outer_to) in (tuple(), tuple()),
        (options, quote_options) in (0usize..=2, 0usize..=2), payload in vec(any::<u8>(), 0..200), cut in 0usize..250,
        extension in any::<bool>(), pad in 0usize..9,
    ) {
        let whole = packet(protocol, &from, quote_options, &payload);
        let least = 20 + quote_options * 4 + if matches!(protocol, 132 | 47) { 0 } else if protocol == 1 { 6 } else { 4 };
        // With extensions the quote has a told length, at least 128 bytes, padded with zeros (RFC 4884, 4.1).
        let quote_len = if extension { 128 } else { cut.clamp(least, whole.len().max(least)).min(whole.len()) };
        // Half a checksum helps nobody, and stays as it is.
        let split = Transport::of(protocol).checksum().map(|at| 20 + quote_options * 4 + at + 1);
        let quote_len = if split == Some(quote_len) { quote_len - 1 } else { quote_len };
        let message = |quote: &[u8]| {
            let mut quote = quote.to_vec();
            quote.resize(quote_len, 0);
            let mut message = [&[3, 1, 0, 0, 0, if extension { 32 } else { 0 }, 0, 0][..], &quote].concat();
            if extension { message.extend([0x20, 0, 0, 0, 0, 8, 1, 1, 0xaa, 0xbb, 0xcc, 0xdd]); }
            let sum = Sum::of(&message).checksum().to_be_bytes();
            message[2..4].copy_from_slice(&sum);
            message
        };
        let build = |ends: &Tuple, quote: &[u8], hops| {
            let mut bytes = sent(47, ends, options, &[], hops);
            let header = 20 + options * 4;
            bytes.truncate(header);
            bytes.extend(message(quote));
            let total = u16::try_from(bytes.len()).unwrap().to_be_bytes();
            (bytes[2], bytes[3], bytes[9], bytes[10], bytes[11]) = (total[0], total[1], 1, 0, 0);
            let sum = Sum::of(&bytes[..header]).checksum().to_be_bytes();
            bytes[10..12].copy_from_slice(&sum);
            bytes.resize(bytes.len() + pad, 0x55); // Ethernet's
            bytes
        };
        let mut bytes = build(&outer, &whole, 0);
        let original = bytes.clone();
        let header = 20 + options * 4;
        error_v4(&mut bytes, header, (outer_to.source, outer_to.destination), &to, false).unwrap();
        // What is quoted is the packet as it would have been sent; its own TTL is as it was quoted.
        let expected = sent(protocol, &ends_after(protocol, &from, &to), quote_options, &payload, 0);
        prop_assert_eq!(&bytes, &build(&outer_to, &expected, 1));
        error_v4(&mut bytes, header, (outer.source, outer.destination), &from, false).unwrap();
        prop_assert_eq!(&bytes, &build(&outer, &whole, 2), "there and back");
        prop_assert_eq!(&bytes[header..], &original[header..]);
    }

    #[test]
    fn a_clamped_segment_has_the_full_sum(ends in tuple(), lead in 0usize..6, mss: u16, most: u16, flags: u8, payload in vec(any::<u8>(), 0..40)) {
        let options = [&[1, 1, 1, 1, 1][..lead.min(5)], &[2, 4], &mss.to_be_bytes(), &[8, 10, 9, 9, 9, 9, 7, 7, 7, 7], &[0, 0]].concat();
        let words = u8::try_from(options.len().div_ceil(4)).unwrap();
        let mut bytes = packet(6, &ends, 0, &[&options[..], &vec![0; usize::from(words) * 4 - options.len()], &payload].concat());
        (bytes[32], bytes[33]) = ((5 + words) << 4, flags);
        bytes[36..38].copy_from_slice(&[0, 0]);
        let sum = full(&bytes, 20).checksum().to_be_bytes();
        bytes[36..38].copy_from_slice(&sum);
        let mut unfinished = bytes.clone();
        let lowered = clamp_mss(&mut bytes[20..], most, false);
        prop_assert_eq!(lowered, flags & 2 != 0 && mss > most);
        let now = if lowered { most } else { mss };
        prop_assert_eq!(&bytes[42 + lead.min(5)..][..2], now.to_be_bytes());
        prop_assert_eq!(full(&bytes, 20).fold(), 0xffff);
        prop_assert_eq!(clamp_mss(&mut unfinished[20..], most, true), lowered);
        prop_assert_eq!(&unfinished[36..38], sum);
    }

    #[test]
    fn arbitrary_bytes_never_panic(mut bytes in vec(any::<u8>(), 0..160), transport in 0usize..80, from in tuple(), to in tuple(), protocol in protocols(), partial: bool, shape in any::<bool>()) {
        if shape && bytes.len() > 60 {
            (bytes[0], bytes[28], bytes[37]) = (0x45, 0x45, protocol);
            (bytes[2], bytes[3]) = (0, 0xff);
        }
        let transport = if shape { 20 } else { transport };
        let _ = Rewrite::new(Transport::of(protocol), &from, &to).apply(&mut bytes, transport, partial);
        let _ = error_v4(&mut bytes, transport, (to.source, to.destination), &to, partial);
        let at = transport.min(bytes.len());
        clamp_mss(&mut bytes[at..], to.source_port, partial);
        hop_v4(&mut bytes);
        hop_v6(&mut bytes);
    }
}

const INSIDE: Tuple = Tuple {
    source: Ipv4Addr::new(10, 0, 0, 5),
    destination: Ipv4Addr::new(198, 51, 100, 1),
    source_port: 40000,
    destination_port: 53,
};
const OUTSIDE: Tuple = Tuple { source: Ipv4Addr::new(203, 0, 113, 9), source_port: 1025, ..INSIDE };

#[test]
fn a_udp_checksum_of_none_stays_none_and_no_other_becomes_none() {
    let mut none = packet(17, &INSIDE, 0, b"abc");
    none[26..28].copy_from_slice(&[0, 0]);
    let rewrite = Rewrite::new(Transport::Udp, &INSIDE, &OUTSIDE);
    rewrite.apply(&mut none, 20, false).unwrap();
    assert_eq!(none[26..28], [0, 0]);
    // A payload that makes the new sum come out as all ones, whose complement is zero.
    let zero = |ends: &Tuple| {
        let sum = full(&packet_without_sum(ends, &[0, 0]), 20).checksum().to_be_bytes();
        packet(17, ends, 0, &[&[0; 0][..], &sum].concat())
    };
    let outside = zero(&OUTSIDE);
    assert_eq!(outside[26..28], [0xff, 0xff]);
    let mut inside = packet(17, &INSIDE, 0, &outside[32..]);
    rewrite.apply(&mut inside, 20, false).unwrap();
    assert_eq!(inside[26..28], [0xff, 0xff]);
    // And from all ones to what it was.
    let mut back = inside.clone();
    Rewrite::new(Transport::Udp, &OUTSIDE, &INSIDE).apply(&mut back, 20, false).unwrap();
    assert_eq!(back[20..], packet(17, &INSIDE, 0, &outside[32..])[20..]);
}

fn packet_without_sum(ends: &Tuple, payload: &[u8]) -> Vec<u8> {
    let mut bytes = packet(17, ends, 0, payload);
    bytes[26..28].copy_from_slice(&[0, 0]);
    bytes
}

#[test]
fn a_quote_that_is_too_short_or_no_ipv4_is_refused() {
    let quote = packet(17, &OUTSIDE, 0, b"abc");
    let told = |quote: &[u8]| {
        let mut bytes = sent(47, &INSIDE, 0, &[], 0);
        bytes.truncate(20);
        bytes.extend([3, 3, 0, 0, 0, 0, 0, 0]);
        bytes.extend(quote);
        bytes[3] = u8::try_from(bytes.len()).unwrap();
        error_v4(&mut bytes, 20, (INSIDE.source, INSIDE.destination), &INSIDE, false)
    };
    assert_eq!(told(&quote[..24]), Ok(()));
    for len in [0, 19, 20, 23] {
        assert_eq!(told(&quote[..len]), Err(DropReason::IcmpQuote), "{len}");
    }
    let mut later = quote.clone();
    later[7] = 1;
    assert_eq!(told(&later[..20]), Ok(()), "a later fragment has no ports");
    later[0] = 0x65;
    assert_eq!(told(&later), Err(DropReason::IcmpQuote));
    let mut redirect = sent(47, &INSIDE, 0, &[5, 0, 0, 0, 10, 0, 0, 1], 0);
    redirect.extend(&quote);
    let told = error_v4(&mut redirect, 32, (INSIDE.source, INSIDE.destination), &INSIDE, false);
    assert_eq!(told, Err(DropReason::IcmpQuote), "a redirect is for one link alone");
}

#[test]
fn fields_that_are_not_there_are_not_written() {
    for (protocol, least) in [(6, 20), (17, 8), (33, 8), (1, 6), (132, 0)] {
        let rewrite = Rewrite::new(Transport::of(protocol), &INSIDE, &OUTSIDE);
        let whole = packet(protocol, &INSIDE, 0, &[0; 20]);
        assert!(rewrite.apply(&mut whole[..20 + least].to_vec(), 20, false).is_ok(), "{protocol}");
        if least > 0 {
            let short = rewrite.apply(&mut whole[..19 + least].to_vec(), 20, false);
            assert_eq!(short, Err(DropReason::TransportTruncated), "{protocol}");
        }
    }
    let rewrite = Rewrite::new(Transport::Other, &INSIDE, &OUTSIDE);
    assert_eq!(rewrite.apply_later(&mut [0; 19]), Err(DropReason::IpLength));
}

#[test]
fn only_a_note_about_this_checksum_makes_it_unfinished() {
    let note = Offload { flags: Offload::NEEDS_CSUM, csum_start: 34, csum_offset: 16, ..Offload::NONE };
    assert!(Transport::Tcp.is_partial(&note, 34));
    assert!(!Transport::Udp.is_partial(&note, 34));
    assert!(!Transport::Tcp.is_partial(&note, 38));
    assert!(!Transport::Other.is_partial(&note, 34));
    assert!(!Transport::Tcp.is_partial(&Offload { flags: 0, ..note }, 34));
    assert!(std::mem::size_of::<Rewrite>() <= 20, "two of them are in each connection");
}
