//! Each rule by an example, the common case field by field, and arbitrary bytes.

use proptest::prelude::*;

use super::*;
use DropReason as Drop;

const A: [u8; 4] = [198, 51, 100, 1];
const B: [u8; 4] = [192, 0, 2, 7];

/// A packet of UDP with `options` and 32 bytes behind them.
fn v4(source: [u8; 4], destination: [u8; 4], options: &[u8], change: impl Fn(&mut Vec<u8>)) -> Vec<u8> {
    let words = u8::try_from(5 + options.len() / 4).unwrap();
    let mut bytes = vec![0x40 | words, 0, 0, words * 4 + 32, 0x12, 0x34, 0x40, 0, 63, 17, 0, 0];
    bytes.extend([source, destination].concat());
    bytes.extend(options);
    change(&mut bytes);
    let sum = Sum::of(&bytes).checksum().to_be_bytes();
    bytes[10..12].copy_from_slice(&sum);
    bytes.extend([0; 32]);
    bytes
}

fn seen_v4(bytes: &[u8]) -> Result<Header<Ipv4Addr>, Drop> {
    check_v4(bytes, bytes.len())
}

fn ip6(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

fn v6(source: &str, destination: &str, next: u8, rest: &[u8]) -> Vec<u8> {
    let len = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [&[0x60, 0, 0, 0, len[0], len[1], next, 9][..], &ip6(source).octets(), &ip6(destination).octets(), rest]
        .concat()
}

fn seen_v6(next: u8, rest: &[u8]) -> Result<Header<Ipv6Addr>, Drop> {
    let bytes = v6("2001:db8::1", "2001:db8:1::1", next, rest);
    check_v6(&bytes, bytes.len())
}

#[test]
fn a_plain_packet_is_read_and_padding_is_not_of_it() {
    let mut bytes = v4(A, B, &[], |_| {});
    bytes.extend([0xff; 9]);
    let plain = Header {
        source: A.into(),
        destination: B.into(),
        len: 52,
        transport: 20,
        protocol: 17,
        hops: 63,
        may_fragment: false,
        fragment: None,
        scope: Scope::Routed,
    };
    assert_eq!(seen_v4(&bytes), Ok(plain));
    assert_eq!(plain.forwardable(), Ok(()));
    assert_eq!(check_v4(&bytes[..20], 52), Ok(plain), "the rest is in another piece");
    assert_eq!(seen_v4(&v4(A, B, &[], |bytes| bytes[6] = 0)).map(|header| header.may_fragment), Ok(true));
}

#[test]
fn lengths_versions_and_checksums_of_rfc_1812_5_2_2() {
    let with = |change: &dyn Fn(&mut Vec<u8>)| seen_v4(&v4(A, B, &[], change)).err();
    assert_eq!(with(&|bytes| bytes[0] = 0x65), Some(Drop::IpVersion));
    assert_eq!(with(&|bytes| bytes[0] = 0x44), Some(Drop::IpLength));
    assert_eq!(with(&|bytes| bytes[3] = 19), Some(Drop::IpLength));
    assert_eq!(with(&|bytes| bytes[3] = 53), Some(Drop::IpLength));
    assert_eq!(with(&|bytes| bytes[3] = 20), None);
    assert_eq!(check_v4(&v4(A, B, &[], |_| {})[..19], 19), Err(Drop::IpLength));
    assert_eq!(check_v4(&v4(A, B, &[1; 40], |_| {})[..59], 92), Err(Drop::IpLength));
    for at in 0..20 {
        let mut bytes = v4(A, B, &[], |_| {});
        bytes[at] ^= 1;
        let wrong = seen_v4(&bytes).unwrap_err();
        assert!(wrong == Drop::IpChecksum || matches!(at, 0 | 2 | 3), "{at}: {wrong:?}");
    }
    let mut bytes = v4(A, B, &[1; 4], |_| {});
    bytes[22] = 0;
    assert_eq!(seen_v4(&bytes), Err(Drop::IpChecksum));
}

#[test]
fn source_routes_are_refused_and_other_options_pass() {
    let with = |options: &[u8]| seen_v4(&v4(A, B, options, |_| {})).map(|header| header.transport);
    assert_eq!(with(&[1, 1, 1, 0]), Ok(24));
    assert_eq!(with(&[7, 7, 4, 0, 0, 0, 0, 0]), Ok(28), "record route");
    assert_eq!(with(&[68, 8, 5, 0, 0, 0, 0, 0]), Ok(28), "timestamp");
    assert_eq!(with(&[0x94, 4, 0, 0]), Ok(24), "router alert");
    assert_eq!(with(&[131, 7, 4, 0, 0, 0, 0, 0]), Err(Drop::SourceRoute), "loose");
    assert_eq!(with(&[1, 137, 7, 4, 0, 0, 0, 0]), Err(Drop::SourceRoute), "strict");
    assert_eq!(with(&[0, 131, 7, 4]), Ok(24), "behind the end");
    assert_eq!(with(&[7, 1, 0, 0]), Err(Drop::IpOptions));
    assert_eq!(with(&[7, 5, 0, 0]), Err(Drop::IpOptions));
    assert_eq!(with(&[1, 1, 1, 7]), Err(Drop::IpOptions));
}

#[test]
fn martians_of_rfc_1812_5_3_7() {
    let from = |source: [u8; 4]| seen_v4(&v4(source, B, &[], |_| {})).map(|header| header.forwardable());
    let to = |to: [u8; 4]| seen_v4(&v4(A, to, &[], |_| {})).map(|header| header.forwardable());
    for address in [[0, 0, 0, 0], [0, 1, 2, 3], [127, 0, 0, 1], [240, 0, 0, 1], [255; 4]] {
        assert_eq!(from(address), Err(Drop::MartianSource), "{address:?}");
        assert_eq!(to(address), Err(Drop::MartianDestination), "{address:?}");
    }
    assert_eq!(from([224, 0, 0, 1]), Err(Drop::MartianSource));
    assert_eq!(to([224, 0, 0, 1]), Ok(Err(Drop::NotUnicast)));
    assert_eq!(to([239, 255, 255, 255]), Ok(Err(Drop::NotUnicast)));
    for address in [[169, 254, 0, 0], [169, 254, 169, 254]] {
        assert_eq!(from(address), Ok(Err(Drop::LinkLocal)));
        assert_eq!(to(address), Ok(Err(Drop::LinkLocal)));
    }
    for address in
        [[1, 0, 0, 0], [126, 255, 255, 255], [128, 0, 0, 0], [223, 255, 255, 255], [169, 253, 0, 1]]
    {
        assert_eq!((from(address), to(address)), (Ok(Ok(())), Ok(Ok(()))), "{address:?}");
    }
    assert_eq!(seen_v4(&v4(A, A, &[], |_| {})), Err(Drop::Land));
}

#[test]
fn fragments_of_ipv4_and_those_of_rfc_1858() {
    let part = |protocol: u8, field: u16, len: u8| {
        let bytes = v4(A, B, &[], |bytes| {
            bytes[3] = 20 + len;
            bytes[6..8].copy_from_slice(&field.to_be_bytes());
            bytes[9] = protocol;
        });
        seen_v4(&bytes).map(|header| header.fragment.map(|part| (part.id, part.offset, part.more, part.data)))
    };
    assert_eq!(part(17, 0x2000, 8), Ok(Some((0x1234, 0, true, 20))));
    assert_eq!(part(17, 0x1fff, 8), Ok(Some((0x1234, 65528, false, 20))));
    assert_eq!(part(17, 0x8000, 0), Ok(None), "the reserved bit");
    for (protocol, least) in [(6, 20), (17, 8), (1, 8), (132, 12), (33, 12), (136, 8)] {
        assert_eq!(part(protocol, 0x2000, least - 1), Err(Drop::FragmentTiny), "{protocol}");
        assert!(part(protocol, 0x2000, least).is_ok(), "{protocol}");
    }
    assert!(part(47, 0x2000, 0).is_ok());
    assert_eq!(part(6, 0x2001, 32), Err(Drop::FragmentTiny), "it would overwrite the flags");
    assert!(part(17, 0x2001, 32).is_ok() && part(6, 0x2002, 32).is_ok());
}

#[test]
fn a_plain_packet_of_ipv6() {
    let mut bytes = v6("2001:db8::1", "fec0::1", 17, &[0; 8]);
    bytes.push(0);
    let plain = Header {
        source: ip6("2001:db8::1"),
        destination: ip6("fec0::1"),
        len: 48,
        transport: 40,
        protocol: 17,
        hops: 9,
        may_fragment: false,
        fragment: None,
        scope: Scope::Routed,
    };
    assert_eq!(check_v6(&bytes, bytes.len()), Ok(plain));
    assert_eq!(check_v6(&bytes[..40], 48), Ok(plain));
    assert_eq!(check_v6(&bytes, 47), Err(Drop::IpLength));
    assert_eq!(check_v6(&bytes[..39], 48), Err(Drop::IpLength));
    bytes[0] = 0x45;
    assert_eq!(check_v6(&bytes, bytes.len()), Err(Drop::IpVersion));
}

#[test]
fn martians_of_rfc_4291() {
    let pair = |source: &str, destination: &str| {
        let bytes = v6(source, destination, 17, &[0; 8]);
        check_v6(&bytes, bytes.len()).map(|header| header.forwardable())
    };
    for martian in ["::", "::1", "::192.0.2.1", "::ffff:192.0.2.1"] {
        assert_eq!(pair(martian, "2001:db8::1"), Err(Drop::MartianSource), "{martian}");
        assert_eq!(pair("2001:db8::1", martian), Err(Drop::MartianDestination), "{martian}");
    }
    assert_eq!(pair("ff02::1", "2001:db8::1"), Err(Drop::MartianSource));
    assert_eq!(pair("2001:db8::1", "ff0e::1"), Ok(Err(Drop::NotUnicast)));
    assert_eq!(pair("fe80::1", "ff02::1"), Ok(Err(Drop::NotUnicast)));
    assert_eq!(pair("fe80::1", "2001:db8::1"), Ok(Err(Drop::LinkLocal)));
    assert_eq!(pair("2001:db8::1", "febf::1"), Ok(Err(Drop::LinkLocal)));
    assert_eq!(pair("2001:db8::1", "2001:db8::1"), Err(Drop::Land));
    assert_eq!(pair("64:ff9b::1", "fc00::1"), Ok(Ok(())));
    assert_eq!(pair("::1:0:0:0", "2001:db8::1"), Ok(Ok(())), "in ::/64, but no martian");
}

#[test]
fn extension_headers_have_their_places() {
    let plain = |next: u8| [next, 0, 1, 4, 0, 0, 0, 0];
    let chain = |kinds: &[u8]| {
        let rest: Vec<u8> = kinds[1..].iter().chain(&[17]).flat_map(|&next| plain(next)).collect();
        seen_v6(kinds[0], &[rest, vec![0; 8]].concat()).map(|header| (header.protocol, header.transport))
    };
    assert_eq!(chain(&[0, 60, 60]), Ok((17, 64)));
    assert_eq!(chain(&[60, 0]), Err(Drop::ExtensionOrder));
    assert_eq!(chain(&[0, 0]), Err(Drop::ExtensionOrder));
    assert_eq!(chain(&[60; 8]), Ok((17, 104)));
    assert_eq!(chain(&[60; 9]), Err(Drop::ExtensionCount));
    assert_eq!(seen_v6(60, &[17, 1, 0, 0, 0, 0, 0, 0]), Err(Drop::IpLength));
    assert_eq!(seen_v6(60, &[17, 0, 0]), Err(Drop::IpLength));
    assert_eq!(seen_v6(51, &[17, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).map(|header| header.transport), Ok(52));
    for left in [0, 1] {
        assert_eq!(seen_v6(43, &[17, 0, 0, left, 0, 0, 0, 0]), Err(Drop::RoutingHeader), "RFC 5095");
    }
    assert!(seen_v6(43, &[17, 0, 4, 1, 0, 0, 0, 0]).is_ok(), "segment routing is its destination's matter");
    assert_eq!(seen_v6(59, &[]).map(|header| header.protocol), Ok(59));
}

#[test]
fn fragments_of_ipv6() {
    let part = |next: u8, field: u16, rest: &[u8]| {
        let [f0, f1] = field.to_be_bytes();
        seen_v6(44, &[&[next, 0, f0, f1, 1, 2, 3, 4][..], rest].concat())
    };
    let whole = part(17, 0, &[0; 8]).unwrap();
    assert_eq!((whole.fragment, whole.transport), (None, 48), "RFC 6946");
    let first = part(60, 1, &[&[17, 0, 0, 0, 0, 0, 0, 0][..], &[0; 8]].concat()).unwrap();
    let fragment = Fragment { id: 0x0102_0304, offset: 0, more: true, data: 48 };
    assert_eq!((first.fragment, first.transport, first.protocol), (Some(fragment), 56, 17));
    assert!(first.has_transport());
    let later = part(60, 0x0010, &[0xff; 5]).unwrap();
    let fragment = Fragment { id: 0x0102_0304, offset: 16, more: false, data: 48 };
    assert_eq!((later.fragment, later.transport, later.protocol), (Some(fragment), 48, 60));
    assert!(!later.has_transport());
    // RFC 7112, 5: all headers are in the first.
    assert_eq!(part(60, 1, &[17, 1, 0, 0, 0, 0, 0, 0]), Err(Drop::FragmentTiny));
    assert_eq!(part(60, 1, &[]), Err(Drop::FragmentTiny));
    assert_eq!(part(17, 1, &[0; 7]), Err(Drop::FragmentTiny));
    assert_eq!(part(44, 1, &[0; 16]), Err(Drop::ExtensionOrder));
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic_and_offsets_lie_within(
        mut bytes in prop::collection::vec(any::<u8>(), 0..200), len in 0usize..2000, six: bool, words in 5u8..=15, next in 0usize..6,
    ) {
        if let Some(first) = bytes.first_mut() { *first = if six { 0x60 } else { 0x40 | words }; }
        if six && bytes.len() > 6 { (bytes[4], bytes[6]) = (0, [0, 43, 44, 51, 60, 17][next]); }
        if !six && bytes.len() >= usize::from(words) * 4 {
            bytes[2] = 0;
            (bytes[10], bytes[11]) = (0, 0);
            let sum = Sum::of(&bytes[..usize::from(words) * 4]).checksum().to_be_bytes();
            bytes[10..12].copy_from_slice(&sum);
        }
        let seen = if six {
            check_v6(&bytes, len).map(|header| (header.transport, header.len, header.fragment))
        } else {
            check_v4(&bytes, len).map(|header| (header.transport, header.len, header.fragment))
        };
        if let Ok((transport, total, fragment)) = seen {
            prop_assert!(u32::from(transport) <= total && total as usize <= len);
            prop_assert!(fragment.is_none_or(|fragment| fragment.data <= transport));
        }
    }
}
