//! RFC 8415, clause by clause: `s18_3_4_…` shows a rule of section 18.3.4.

use proptest::prelude::*;

use super::*;
use crate::wire::dhcp6::{Association, Options};

const CLIENT: Mac = Mac([0x52, 0x54, 0, 0, 0, 0x0a]);
const OTHER: Mac = Mac([0x52, 0x54, 0, 0, 0, 0x0b]);
const CLIENT_ID: [u8; 10] = [0, 3, 0, 1, 0x52, 0x54, 0, 0, 0, 0x0a];
const UUID: [u8; 16] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16];
const SERVER_ID: [u8; 18] = [0, 4, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16];
const IA: [u8; 4] = [0, 0, 0, 7];

fn ip(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

fn settings() -> Settings {
    Settings {
        dns_servers: vec![ip("2001:db8::53")],
        ntp_servers: vec![ip("2001:db8::123")],
        domain: Some("example.org".to_owned()),
        extra: vec![Opt::parse("bootfile-url", "tftp://b/x").unwrap()],
        lease_time: 86400,
        server_id: UUID,
    }
}

fn lease() -> Lease {
    Lease::new(CLIENT, vec![ip("2001:db8::a")], &settings())
}

fn stateless() -> Lease {
    Lease::new(CLIENT, Vec::new(), &settings())
}

fn opt(code: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    Writer::new(&mut bytes).option(code, value);
    bytes
}

fn ia(code: u16, id: [u8; 4], addresses: &[&str]) -> Vec<u8> {
    let times: &[u8] = if code == option::IA_TA { &[] } else { &[0; 8] };
    let held =
        addresses.iter().map(|text| opt(option::IA_ADDRESS, &[&ip(text).octets()[..], &[0; 8]].concat()));
    opt(code, &[&id[..], times, &held.collect::<Vec<_>>().concat()].concat())
}

fn message(kind: Kind, options: &[Vec<u8>]) -> Vec<u8> {
    [&[kind.number(), 0xaa, 0xbb, 0xcc][..], &options.concat()].concat()
}

fn udp_frame(mac: Mac, source: &str, destination: &str, payload: &[u8]) -> Vec<u8> {
    let (source, destination) = (ip(source), ip(destination));
    let len = u16::try_from(8 + payload.len()).unwrap();
    let mut frame = [&[0x33, 0x33, 0, 1, 0, 2][..], &mac.0, &[0x86, 0xdd, 0x60, 0, 0, 0]].concat();
    frame.extend(len.to_be_bytes());
    frame.extend([17, 1]);
    frame.extend([source.octets(), destination.octets()].concat());
    frame.extend([2, 34, 2, 35]);
    frame.extend(len.to_be_bytes());
    frame.extend([0, 0]);
    frame.extend(payload);
    let sum = pseudo_v6(source, destination, 17, u32::from(len)) + Sum::of(&frame[54..]);
    frame[60..62].copy_from_slice(&udp::never_zero(sum.checksum()).to_be_bytes());
    frame
}

fn from_client(payload: &[u8]) -> Vec<u8> {
    udp_frame(CLIENT, "fe80::a", "ff02::1:2", payload)
}

fn id() -> Vec<u8> {
    opt(option::CLIENT_ID, &CLIENT_ID)
}

fn server() -> Vec<u8> {
    opt(option::SERVER_ID, &SERVER_ID)
}

/// The message of a reply, whose headers are right.
#[track_caller]
fn payload(reply: &[u8], to: (Mac, &str), port: u16) -> Vec<u8> {
    let packet = Packet::parse(reply).unwrap();
    assert_eq!((packet.source_mac, packet.destination_mac), (SERVICE_MAC, to.0));
    assert_eq!((packet.source, packet.destination), (SERVICE_V6.into(), ip(to.1).into()));
    packet.verified(17).expect("a right checksum");
    let header = Udp::new_checked(packet.payload).unwrap();
    assert_eq!((header.source_port(), header.destination_port()), (547, port));
    assert_eq!(usize::from(header.len()), packet.payload.len());
    packet.payload[8..].to_vec()
}

#[track_caller]
fn ask_for(lease: &Lease, kind: Kind, options: &[Vec<u8>]) -> (Answered, Vec<u8>) {
    let mut reply = vec![9; 3];
    let answered = answer(&from_client(&message(kind, options)), lease, &mut reply).unwrap();
    let bytes = payload(&reply, (CLIENT, "fe80::a"), 546);
    assert_eq!((bytes[0], &bytes[1..4]), (answered.reply.number(), &[0xaa, 0xbb, 0xcc][..]));
    assert_eq!(answered.request, kind);
    let options = Message::new_checked(&bytes).unwrap().options;
    assert_eq!(options.get(option::SERVER_ID), Some(&SERVER_ID[..]));
    (answered, bytes)
}

#[track_caller]
fn ask(kind: Kind, options: &[Vec<u8>]) -> (Answered, Vec<u8>) {
    ask_for(&lease(), kind, options)
}

#[track_caller]
fn refused(kind: Kind, options: &[Vec<u8>]) -> Refused {
    refused_frame(&from_client(&message(kind, options)))
}

#[track_caller]
fn refused_frame(frame: &[u8]) -> Refused {
    let mut reply = vec![9; 3];
    let refused = answer(frame, &lease(), &mut reply).unwrap_err();
    assert!(reply.is_empty());
    refused
}

fn options(bytes: &[u8]) -> Options<'_> {
    Message::new_checked(bytes).unwrap().options
}

/// Addresses of an association with their lifetimes.
fn held(association: &Association<'_>) -> Vec<(Ipv6Addr, u32, u32)> {
    let found = association.options.iter().filter(|(code, _)| *code == option::IA_ADDRESS);
    let number = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().unwrap());
    found
        .map(|(_, value)| {
            let address: [u8; 16] = value[..16].try_into().unwrap();
            (address.into(), number(&value[16..20]), number(&value[20..24]))
        })
        .collect()
}

/// The associations of a reply: code, number, addresses, status.
type Seen = (u16, [u8; 4], Vec<(Ipv6Addr, u32, u32)>, Option<u16>);
fn associations(bytes: &[u8]) -> Vec<Seen> {
    let found = options(bytes).iter().filter(|(code, _)| matches!(code, 3 | 4 | 25)).map(|(code, value)| {
        let association = Association::new_checked(code, value).unwrap();
        let status =
            association.options.get(option::STATUS).map(|value| u16::from_be_bytes([value[0], value[1]]));
        (code, association.id, held(&association), status)
    });
    found.collect()
}

fn status(bytes: &[u8]) -> Option<u16> {
    options(bytes).get(option::STATUS).map(|value| u16::from_be_bytes([value[0], value[1]]))
}

fn ours() -> Vec<(Ipv6Addr, u32, u32)> {
    vec![(ip("2001:db8::a"), 86400, 86400)]
}

#[test]
fn an_advertisement_is_as_it_was_written_by_hand() {
    let solicit = message(
        Kind::Solicit,
        &[id(), opt(8, &[0, 0]), ia(option::IA_NA, IA, &[]), opt(option::REQUESTED, &[0, 23, 0, 24])],
    );
    let mut reply = Vec::new();
    answer(&from_client(&solicit), &lease(), &mut reply).unwrap();
    #[rustfmt::skip]
    let golden = [
        2, 0xaa, 0xbb, 0xcc,
        0, 2, 0, 18, 0, 4, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16,
        0, 1, 0, 10, 0, 3, 0, 1, 0x52, 0x54, 0, 0, 0, 0x0a,
        0, 3, 0, 40, 0, 0, 0, 7, 0, 0, 0xa8, 0xc0, 0, 1, 0x0e, 0,
        0, 5, 0, 24, 0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x0a, 0, 1, 0x51, 0x80, 0, 1, 0x51, 0x80,
        0, 23, 0, 16, 0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x53,
        0, 24, 0, 13, 7, b'e', b'x', b'a', b'm', b'p', b'l', b'e', 3, b'o', b'r', b'g', 0,
    ];
    assert_eq!(reply[62..], golden);
    #[rustfmt::skip]
    let headers = [
        0x52, 0x54, 0, 0, 0, 0x0a, 2, 0, 0xa9, 0xfe, 0xa9, 0xfe, 0x86, 0xdd,
        0x60, 0, 0, 0, 0, 129, 17, 64,
        0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xa9, 0xfe, 0xa9, 0xfe,
        0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x0a,
        2, 35, 2, 34, 0, 129,
    ];
    assert_eq!(reply[..60], headers);
}

#[test]
fn requests_are_told_from_other_frames() {
    let frame = from_client(&message(Kind::Solicit, &[id()]));
    assert!(is_request(&frame));
    assert!(is_request(&udp_frame(CLIENT, "fe80::a", "fe80::a9fe:a9fe", &[])));
    assert!(is_request(&udp_frame(CLIENT, "fe80::a", "ff05::1:3", &[])));
    assert!(!is_request(&udp_frame(CLIENT, "fe80::a", "2001:db8::1", &[])), "a server elsewhere");
    for (at, value) in [(12, 8), (13, 0), (14, 0x45), (20, 44), (20, 6), (56, 1), (57, 34), (38, 0xfe)] {
        let mut other = frame.clone();
        other[at] = value;
        assert!(!is_request(&other), "{at}");
    }
    for end in 0..58 {
        assert!(!is_request(&frame[..end]), "{end}");
    }
}

#[test]
fn s16_what_messages_must_and_must_not_have() {
    use Kind::*;
    for kind in [Solicit, Confirm, Rebind] {
        assert_eq!(refused(kind, &[]), Refused::Invalid, "{kind}: no client");
        assert_eq!(refused(kind, &[id(), server()]), Refused::Invalid, "{kind}: a server");
    }
    for kind in [Request, Renew, Release, Decline] {
        assert_eq!(refused(kind, &[server()]), Refused::Invalid, "{kind}: no client");
        assert_eq!(refused(kind, &[id()]), Refused::Invalid, "{kind}: no server");
        let mut other = SERVER_ID;
        other[17] = 0;
        assert_eq!(refused(kind, &[id(), opt(2, &other)]), Refused::OtherServer, "{kind}");
    }
    for kind in [Advertise, Reply, Reconfigure, RelayReply] {
        assert_eq!(refused(kind, &[id()]), Refused::NotARequest, "{kind}");
    }
    assert_eq!(refused(InformationRequest, &[ia(3, IA, &[])]), Refused::Invalid, "16.12");
    assert_eq!(refused(InformationRequest, &[opt(2, &[0, 4, 1])]), Refused::OtherServer, "16.12");
    assert_eq!(refused_frame(&from_client(&[99, 0, 0, 0])), Refused::NotARequest);
}

#[test]
fn s11_1_a_duid_has_3_to_130_octets() {
    for (len, is_one) in [(0, false), (2, false), (3, true), (130, true), (131, false)] {
        let mut reply = Vec::new();
        let frame = from_client(&message(Kind::Solicit, &[opt(1, &vec![7; len])]));
        assert_eq!(
            answer(&frame, &lease(), &mut reply).err(),
            (!is_one).then_some(Refused::Malformed),
            "{len}"
        );
    }
}

#[test]
fn s18_3_1_rapid_commit_is_answered_with_a_reply() {
    let (answered, bytes) = ask(Kind::Solicit, &[id(), opt(14, &[]), ia(3, IA, &[])]);
    assert_eq!((answered.reply, answered.status), (Kind::Reply, Status::Success));
    assert_eq!(options(&bytes).get(option::RAPID_COMMIT), Some(&[][..]));
    assert_eq!(associations(&bytes), [(3, IA, ours(), None)]);
    let (answered, bytes) = ask(Kind::Solicit, &[id(), ia(3, IA, &[])]);
    assert_eq!(answered.reply, Kind::Advertise);
    assert_eq!(options(&bytes).get(option::RAPID_COMMIT), None);
    let (_, bytes) = ask(Kind::Request, &[id(), server(), opt(14, &[]), ia(3, IA, &[])]);
    assert_eq!(options(&bytes).get(option::RAPID_COMMIT), None, "only with SOLICIT");
}

#[test]
fn s18_3_2_a_request_gets_the_address() {
    let (answered, bytes) = ask(Kind::Request, &[id(), server(), ia(3, IA, &["2001:db8::a"])]);
    assert_eq!((answered.reply, answered.status), (Kind::Reply, Status::Success));
    assert_eq!(associations(&bytes), [(3, IA, ours(), None)]);
    assert_eq!(options(&bytes).get(option::CLIENT_ID), Some(&CLIENT_ID[..]));
    assert_eq!(status(&bytes), None);
    let (answered, bytes) = ask(Kind::Request, &[id(), server(), ia(3, IA, &["2001:db8:9::a"])]);
    assert_eq!(answered.status, Status::NotOnLink);
    assert_eq!(associations(&bytes), [(3, IA, vec![], Some(4))]);
}

#[test]
fn s18_3_9_a_hint_is_only_one() {
    let (_, bytes) = ask(Kind::Solicit, &[id(), ia(3, IA, &["2001:db8:9::9"])]);
    assert_eq!(associations(&bytes), [(3, IA, ours(), None)]);
}

#[test]
fn s18_3_9_what_there_is_none_of() {
    let second = [0, 0, 0, 8];
    let wanted = [id(), ia(25, IA, &[]), ia(4, IA, &[]), ia(3, IA, &[]), ia(3, second, &[])];
    let none = |code, id, status| (code, id, vec![], Some(status));
    let (answered, bytes) = ask(Kind::Solicit, &wanted);
    assert_eq!(answered.status, Status::NoPrefixAvail, "the first one's");
    let expected = [none(25, IA, 6), none(4, IA, 2), (3, IA, ours(), None), none(3, second, 2)];
    assert_eq!(associations(&bytes), expected);
    let (answered, bytes) = ask_for(&stateless(), Kind::Solicit, &[id(), ia(3, IA, &[])]);
    assert_eq!((answered.reply, answered.status), (Kind::Advertise, Status::NoAddrsAvail));
    assert_eq!(associations(&bytes), [none(3, IA, 2)]);
}

#[test]
fn all_addresses_of_the_port_are_in_one_association() {
    let lease = Lease::new(CLIENT, vec![ip("2001:db8::a"), ip("2001:db8:1::a")], &settings());
    let (_, bytes) = ask_for(&lease, Kind::Solicit, &[id(), ia(3, IA, &[])]);
    assert_eq!(associations(&bytes)[0].2.len(), 2);
}

#[test]
fn s18_3_3_confirm_tells_whether_the_addresses_are_right() {
    let (answered, bytes) = ask(Kind::Confirm, &[id(), ia(3, IA, &["2001:db8::a"])]);
    assert_eq!((answered.status, status(&bytes)), (Status::Success, Some(0)));
    assert!(associations(&bytes).is_empty());
    let (answered, bytes) = ask(Kind::Confirm, &[id(), ia(3, IA, &["2001:db8::a", "2001:db8:9::a"])]);
    assert_eq!((answered.status, status(&bytes)), (Status::NotOnLink, Some(4)));
    assert_eq!(refused(Kind::Confirm, &[id(), ia(3, IA, &[])]), Refused::Nothing);
    let frame = from_client(&message(Kind::Confirm, &[id(), ia(3, IA, &["2001:db8::a"])]));
    assert_eq!(answer(&frame, &stateless(), &mut Vec::new()), Err(Refused::Nothing));
}

#[test]
fn s18_3_4_renew_extends_and_takes_away() {
    let second = [0, 0, 0, 8];
    let (answered, bytes) = ask(
        Kind::Renew,
        &[id(), server(), ia(3, IA, &["2001:db8::a", "2001:db8::b"]), ia(3, second, &[]), ia(25, IA, &[])],
    );
    assert_eq!((answered.reply, answered.status), (Kind::Reply, Status::Success));
    let expected = [ours(), vec![(ip("2001:db8::b"), 0, 0)]].concat();
    assert_eq!(
        associations(&bytes),
        [(3, IA, expected, None), (3, second, vec![], Some(3)), (25, IA, vec![], Some(3))]
    );
    let (_, bytes) = ask_for(&stateless(), Kind::Renew, &[id(), server(), ia(3, IA, &["2001:db8::a"])]);
    assert_eq!(associations(&bytes), [(3, IA, vec![], Some(3))]);
}

#[test]
fn s18_3_5_rebind_is_a_renewal_at_any_server() {
    let (_, bytes) = ask(Kind::Rebind, &[id(), ia(3, IA, &["2001:db8::b"])]);
    let expected = [ours(), vec![(ip("2001:db8::b"), 0, 0)]].concat();
    assert_eq!(associations(&bytes), [(3, IA, expected, None)]);
}

#[test]
fn s18_3_6_information_is_given_without_addresses() {
    let (answered, bytes) = ask_for(&stateless(), Kind::InformationRequest, &[opt(6, &[0, 23, 0, 32])]);
    assert_eq!((answered.reply, answered.status), (Kind::Reply, Status::Success));
    let found = options(&bytes);
    assert_eq!(found.get(option::CLIENT_ID), None, "it had none");
    assert_eq!(found.get(option::DNS_SERVERS), Some(&ip("2001:db8::53").octets()[..]));
    assert_eq!(found.get(option::INFORMATION_REFRESH), Some(&86400u32.to_be_bytes()[..]));
    assert_eq!(found.get(option::DOMAIN_LIST), None, "not asked for");
    let short = Lease::new(CLIENT, Vec::new(), &Settings { lease_time: 60, ..settings() });
    let (_, bytes) = ask_for(&short, Kind::InformationRequest, &[id(), server(), opt(6, &[0, 32])]);
    assert_eq!(options(&bytes).get(32), Some(&600u32.to_be_bytes()[..]), "21.23");
}

#[test]
fn s18_3_7_and_8_what_is_given_back() {
    for kind in [Kind::Release, Kind::Decline] {
        let (answered, bytes) = ask(kind, &[id(), server(), ia(3, IA, &["2001:db8::a"]), opt(6, &[0, 23])]);
        assert_eq!((answered.reply, status(&bytes)), (Kind::Reply, Some(0)), "{kind}");
        assert!(associations(&bytes).is_empty(), "{kind}");
        assert_eq!(options(&bytes).get(23), None, "{kind}: no options");
        let (_, bytes) = ask(kind, &[id(), server(), ia(3, IA, &["2001:db8::b"]), ia(25, IA, &[])]);
        assert_eq!(associations(&bytes), [(3, IA, vec![], Some(3)), (25, IA, vec![], Some(3))], "{kind}");
    }
    let (_, bytes) = ask(Kind::Request, &[id(), server(), ia(3, IA, &[])]);
    assert_eq!(associations(&bytes), [(3, IA, ours(), None)], "it stays the port's");
}

#[test]
fn s18_4_unicast_is_refused_with_use_multicast() {
    for kind in [Kind::Request, Kind::Renew, Kind::Release, Kind::Decline] {
        let bytes = message(kind, &[id(), server(), ia(3, IA, &["2001:db8::a"])]);
        let mut reply = Vec::new();
        let frame = udp_frame(CLIENT, "2001:db8::a", "fe80::a9fe:a9fe", &bytes);
        let answered = answer(&frame, &lease(), &mut reply).unwrap();
        assert_eq!((answered.reply, answered.status), (Kind::Reply, Status::UseMulticast));
        let bytes = payload(&reply, (CLIENT, "2001:db8::a"), 546);
        let codes: Vec<u16> = options(&bytes).iter().map(|(code, _)| code).collect();
        assert_eq!((codes, status(&bytes)), (vec![2, 1, 13], Some(5)), "{kind}: no other options");
    }
    for kind in [Kind::Solicit, Kind::Confirm, Kind::Rebind, Kind::InformationRequest] {
        let frame = udp_frame(CLIENT, "fe80::a", "fe80::a9fe:a9fe", &message(kind, &[id()]));
        assert_eq!(refused_frame(&frame), Refused::Unicast, "{kind}");
    }
    assert_eq!(
        refused_frame(&udp_frame(CLIENT, "fe80::a", "2001:db8::1", &message(Kind::Solicit, &[id()]))),
        Refused::NotARequest
    );
}

#[test]
fn s21_7_only_what_is_asked_for_is_sent() {
    let codes = |asked: &[Vec<u8>]| -> Vec<u16> {
        let (_, bytes) = ask(Kind::Solicit, &[&[id()], asked].concat());
        options(&bytes).iter().map(|(code, _)| code).skip(2).collect()
    };
    assert_eq!(codes(&[]), [59, 23, 24, 31, 56], "nothing said: everything");
    assert_eq!(codes(&[opt(6, &[0, 56, 0, 59, 0, 99])]), [59, 56]);
    assert_eq!(codes(&[opt(6, &[])]), [0; 0]);
    assert_eq!(refused(Kind::Solicit, &[id(), opt(6, &[0, 23, 0])]), Refused::Malformed);
}

#[test]
fn rfc5908_and_rfc4075_time_servers() {
    let (_, bytes) = ask(Kind::InformationRequest, &[]);
    let ntp = [&[0, 1, 0, 16][..], &ip("2001:db8::123").octets()].concat();
    assert_eq!(options(&bytes).get(56), Some(&ntp[..]));
    assert_eq!(options(&bytes).get(31), Some(&ip("2001:db8::123").octets()[..]));
}

#[test]
fn a_port_s_own_option_comes_before_the_subnet_s() {
    let extra = vec![Opt::parse("dns-server", "::9").unwrap(), Opt::parse("dns-server", "::8").unwrap()];
    let lease = Lease::new(CLIENT, vec![], &Settings { extra, ..settings() });
    let (_, bytes) = ask_for(&lease, Kind::InformationRequest, &[]);
    let found: Vec<_> = options(&bytes).iter().filter(|(code, _)| *code == 23).collect();
    assert_eq!(found, [(23, &ip("::9").octets()[..])], "and none comes twice");
}

#[test]
fn rfc4704_the_client_s_name_is_its_own_business() {
    let name = [&[1][..], b"\x01a\0"].concat();
    let (_, bytes) = ask(Kind::Solicit, &[id(), opt(39, &name), opt(6, &[0, 39])]);
    assert_eq!(options(&bytes).get(39), Some(&b"\x06\x01a\0"[..]), "no updates, and it was asked for them");
    let (_, bytes) = ask(Kind::Solicit, &[id(), opt(39, &[0]), opt(6, &[0, 39])]);
    assert_eq!(options(&bytes).get(39), Some(&[4][..]));
    for asked in
        [vec![id(), opt(39, &name)], vec![id(), opt(6, &[0, 39])], vec![id(), opt(39, &[]), opt(6, &[0, 39])]]
    {
        assert_eq!(options(&ask(Kind::Solicit, &asked).1).get(39), None);
    }
}

#[test]
fn times_without_end_and_short_ones() {
    for (lease_time, t1, t2) in [(u32::MAX, u32::MAX, u32::MAX), (100, 50, 80), (0, 0, 0)] {
        let lease = Lease::new(CLIENT, vec![ip("::a")], &Settings { lease_time, ..settings() });
        let (_, bytes) = ask_for(&lease, Kind::Solicit, &[id(), ia(3, IA, &[])]);
        let value = options(&bytes).get(3).unwrap();
        assert_eq!(value[4..12], [t1.to_be_bytes(), t2.to_be_bytes()].concat());
    }
}

#[test]
fn another_client_s_messages_are_not_answered() {
    let bytes = message(Kind::Solicit, &[id(), ia(3, IA, &[])]);
    assert_eq!(refused_frame(&udp_frame(OTHER, "fe80::a", "ff02::1:2", &bytes)), Refused::OtherClient);
    for source in ["::", "ff02::1", "2001:db8::a"] {
        assert_eq!(
            refused_frame(&udp_frame(CLIENT, source, "ff02::1:2", &bytes)),
            Refused::Source,
            "{source}"
        );
    }
    assert_eq!(refused_frame(&udp_frame(CLIENT, "fe80::a", "ff05::1:3", &bytes)), Refused::NotARequest);
}

#[test]
fn checksums_are_right_or_unfinished() {
    let good = from_client(&message(Kind::Solicit, &[id()]));
    let with = |sum: u16| {
        let mut frame = good.clone();
        frame[60..62].copy_from_slice(&sum.to_be_bytes());
        answer(&frame, &lease(), &mut Vec::new()).map(|answered| answered.reply)
    };
    let len = u32::try_from(good.len() - 54).unwrap();
    let pseudo = pseudo_v6(ip("fe80::a"), ip("ff02::1:2"), 17, len).fold();
    assert_eq!(with(pseudo), Ok(Kind::Advertise), "left to the device");
    assert_eq!(with(0), Err(Refused::Checksum), "RFC 8200, 8.1");
    assert_eq!(with(pseudo ^ 1), Err(Refused::Checksum));
}

fn relay(hops: u8, peer: &str, more: &[Vec<u8>], inner: &[u8]) -> Vec<u8> {
    let head = [&[12, hops][..], &ip("2001:db8::1").octets(), &ip(peer).octets()].concat();
    [&head[..], &more.concat(), &opt(option::RELAY_MESSAGE, inner)].concat()
}

fn mac_option(mac: Mac) -> Vec<u8> {
    opt(option::CLIENT_LINK_LAYER, &[&[0, 1][..], &mac.0].concat())
}

fn from_relay(payload: &[u8]) -> Vec<u8> {
    udp_frame(OTHER, "2001:db8::1", "ff05::1:3", payload)
}

#[test]
fn s19_3_what_comes_by_relay_agents_goes_back_by_them() {
    let inner = message(Kind::Solicit, &[id(), ia(3, IA, &[])]);
    let nearest = relay(0, "fe80::a", &[mac_option(CLIENT), opt(18, b"eth7")], &inner);
    let outer = relay(1, "fe80::99", &[mac_option(OTHER)], &nearest);
    let mut reply = Vec::new();
    let answered = answer(&from_relay(&outer), &lease(), &mut reply).unwrap();
    assert!(answered.relayed && answered.reply == Kind::Advertise);
    let bytes = payload(&reply, (OTHER, "2001:db8::1"), 547);
    let outer = Relay::new_checked(&bytes).unwrap();
    assert_eq!((outer.number, outer.hop_count), (13, 1));
    assert_eq!((outer.link, outer.peer), (ip("2001:db8::1").octets(), ip("fe80::99").octets()));
    assert_eq!(outer.options.get(18), None);
    let nearest = Relay::new_checked(outer.options.get(9).unwrap()).unwrap();
    assert_eq!((nearest.number, nearest.hop_count, nearest.peer), (13, 0, ip("fe80::a").octets()));
    assert_eq!(nearest.options.get(18), Some(&b"eth7"[..]));
    assert_eq!(associations(nearest.options.get(9).unwrap()), [(3, IA, ours(), None)]);
}

#[test]
fn rfc6939_a_relayed_client_is_known_by_what_the_nearest_agent_says() {
    let inner = message(Kind::Solicit, &[id()]);
    for more in [
        vec![],
        vec![mac_option(OTHER)],
        vec![opt(79, &[0, 6, 0x52, 0x54, 0, 0, 0, 0x0a])],
        vec![opt(79, &[0])],
    ] {
        assert_eq!(refused_frame(&from_relay(&relay(0, "fe80::a", &more, &inner))), Refused::OtherClient);
    }
    let outer = relay(1, "fe80::9", &[mac_option(CLIENT)], &relay(0, "fe80::a", &[], &inner));
    assert_eq!(refused_frame(&from_relay(&outer)), Refused::OtherClient, "not the nearest");
}

#[test]
fn relays_are_bounded() {
    let inner = message(Kind::Solicit, &[id()]);
    let nested = |levels: u8| {
        (0..levels).fold(inner.clone(), |inner, hops| relay(hops, "fe80::a", &[mac_option(CLIENT)], &inner))
    };
    assert!(answer(&from_relay(&nested(9)), &lease(), &mut Vec::new()).is_ok());
    assert_eq!(refused_frame(&from_relay(&nested(10))), Refused::Limit);
    let lying = (0..10).fold(inner.clone(), |inner, _| relay(0, "fe80::a", &[mac_option(CLIENT)], &inner));
    assert_eq!(refused_frame(&from_relay(&lying)), Refused::Limit, "they all say they are the first");
    assert_eq!(
        refused_frame(&from_relay(&relay(9, "fe80::a", &[mac_option(CLIENT)], &inner))),
        Refused::Limit
    );
    let empty = [&[12, 0][..], &[0; 32], &mac_option(CLIENT)].concat();
    assert_eq!(refused_frame(&from_relay(&empty)), Refused::Invalid, "nothing in it");
}

#[test]
fn associations_are_bounded() {
    let many =
        |count: u8| -> Vec<Vec<u8>> { (0..count).map(|n| ia(3, [0, 0, 0, n], &[])).chain([id()]).collect() };
    assert!(answer(&from_client(&message(Kind::Solicit, &many(16))), &lease(), &mut Vec::new()).is_ok());
    assert_eq!(refused(Kind::Solicit, &many(17)), Refused::Limit);
}

#[test]
fn a_reply_is_no_longer_than_a_link_carries() {
    let extra = vec![Opt { code: 200, value: vec![1; 1300] }, Opt { code: 201, value: vec![1; 200] }];
    let lease = Lease::new(CLIENT, vec![ip("::a")], &Settings { extra, ..settings() });
    let frame = |asked| from_client(&message(Kind::Solicit, &[id(), opt(6, asked)]));
    assert!(answer(&frame(&[0, 200]), &lease, &mut Vec::new()).is_ok());
    assert_eq!(answer(&frame(&[0, 200, 0, 201]), &lease, &mut Vec::new()), Err(Refused::Limit));
}

#[test]
fn what_is_cut_off_anywhere_is_refused() {
    let inner = message(Kind::Request, &[id(), server(), ia(3, IA, &["2001:db8::a"]), opt(6, &[0, 23])]);
    let relayed = relay(0, "fe80::a", &[mac_option(CLIENT)], &inner);
    for end in 0..inner.len() {
        // A frame whose lengths fit again; what is left may be a message that lacks something.
        let refused = answer(&from_client(&inner[..end]), &lease(), &mut Vec::new()).err();
        let is_whole = [40, inner.len() - 6].contains(&end);
        assert_eq!(refused.is_none(), is_whole, "{end}");
    }
    for end in 0..relayed.len() {
        assert!(answer(&from_relay(&relayed[..end]), &lease(), &mut Vec::new()).is_err(), "{end}");
    }
    let frame = from_client(&inner);
    for end in 0..frame.len() {
        assert!(answer(&frame[..end], &lease(), &mut Vec::new()).is_err(), "{end}");
    }
    for value in
        [&[][..], &[0, 0, 0, 7, 0, 0, 0], &[0; 13], &[&[0; 12][..], &[0, 5, 0, 4, 0, 0, 0, 0]].concat()]
    {
        assert_eq!(refused(Kind::Solicit, &[id(), opt(3, value)]), Refused::Malformed);
    }
}

fn any_option() -> impl Strategy<Value = Vec<u8>> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..30);
    prop_oneof![
        Just(id()),
        Just(server()),
        Just(ia(3, IA, &["2001:db8::a"])),
        Just(ia(4, IA, &["2001:db8::b"])),
        Just(ia(25, IA, &[])),
        Just(opt(14, &[])),
        Just(opt(6, &[0, 23, 0, 39, 0, 32])),
        bytes().prop_map(|value| opt(39, &value)),
        (0u16..100, bytes()).prop_map(|(code, value)| opt(code, &value)),
        bytes(),
    ]
}

proptest! {
    #[test]
    fn any_message_gets_a_sound_answer_or_none(
        number in 0u8..14, options in prop::collection::vec(any_option(), 0..8), unicast: bool, levels in 0usize..11,
    ) {
        let mut bytes = [&[number, 1, 2, 3][..], &options.concat()].concat();
        for _ in 0..levels {
            bytes = relay(0, "fe80::a", &[mac_option(CLIENT)], &bytes);
        }
        let destination = if unicast { "fe80::a9fe:a9fe" } else { "ff02::1:2" };
        let frame = udp_frame(CLIENT, "fe80::a", destination, &bytes);
        let mut reply = vec![7];
        match answer(&frame, &lease(), &mut reply) {
            Err(_) => prop_assert!(reply.is_empty()),
            Ok(answered) => {
                prop_assert!(reply.len() <= MAX_REPLY);
                let mut bytes = payload(&reply, (CLIENT, "fe80::a"), if levels > 0 { 547 } else { 546 });
                for _ in 0..levels {
                    bytes = Relay::new_checked(&bytes).unwrap().options.get(9).unwrap().to_vec();
                }
                let message = Message::new_checked(&bytes).unwrap();
                prop_assert_eq!((message.number, message.transaction), (answered.reply.number(), [1, 2, 3]));
                for (_, _, addresses, _) in associations(&bytes) {
                    let foreign = |(address, _, valid): &(Ipv6Addr, u32, u32)| *address != ip("2001:db8::a") && *valid > 0;
                    prop_assert!(!addresses.iter().any(foreign), "no address but the port's lives");
                }
            }
        }
    }

    #[test]
    fn arbitrary_frames_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let good = from_client(&[]);
        let n = bytes.len().min(54);
        bytes[..n].copy_from_slice(&good[..n]);
        let _ = is_request(&bytes);
        let _ = answer(&bytes, &lease(), &mut Vec::new());
    }
}
