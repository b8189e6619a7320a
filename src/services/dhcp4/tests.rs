//! Fixed leases, a test for each rule of the RFCs.

use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::*;
use crate::services::{SERVICE_MAC, SERVICE_V4};
use crate::types::Mac;
use crate::wire::checksum::{Sum, pseudo_v4};
use crate::wire::dhcp4::{Message, Opt};

mod pool;
mod room;

pub(super) const CLIENT: Mac = Mac([0x52, 0x54, 0, 0, 0, 1]);
const RELAY: Mac = Mac([0x52, 0x54, 0, 0, 0, 0xee]);
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 11);
const SECOND: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 11);
const NONE: Ipv4Addr = Ipv4Addr::UNSPECIFIED;

/// What a client sends.
#[derive(Clone)]
pub(super) struct Ask {
    pub(super) mac: Mac,
    pub(super) source_mac: Mac,
    pub(super) source: Ipv4Addr,
    pub(super) flags: u16,
    pub(super) ciaddr: Ipv4Addr,
    pub(super) giaddr: Ipv4Addr,
    pub(super) options: Vec<u8>,
}

impl Ask {
    pub(super) fn new(kind: MessageType) -> Ask {
        Ask {
            mac: CLIENT,
            source_mac: CLIENT,
            source: NONE,
            flags: 0,
            ciaddr: NONE,
            giaddr: NONE,
            options: vec![53, 1, kind as u8],
        }
    }

    pub(super) fn with(mut self, code: u8, value: &[u8]) -> Ask {
        dhcp4::put_option(&mut self.options, code, value);
        self
    }

    pub(super) fn asking(self, codes: &[u8]) -> Ask {
        self.with(55, codes)
    }

    pub(super) fn of(mut self, mac: Mac) -> Ask {
        (self.mac, self.source_mac) = (mac, mac);
        self
    }

    pub(super) fn wants(self, address: Ipv4Addr) -> Ask {
        self.with(50, &address.octets())
    }

    pub(super) fn to(self, server: Ipv4Addr) -> Ask {
        self.with(54, &server.octets())
    }

    pub(super) fn has(mut self, address: Ipv4Addr) -> Ask {
        (self.ciaddr, self.source) = (address, address);
        self
    }

    pub(super) fn by(mut self, relay: Ipv4Addr) -> Ask {
        (self.giaddr, self.source_mac, self.source) = (relay, RELAY, relay);
        self
    }

    fn flags(mut self, flags: u16) -> Ask {
        self.flags = flags;
        self
    }

    pub(super) fn frame(&self) -> Vec<u8> {
        let mut bytes = vec![1, 1, 6, 0, 0xde, 0xad, 0xbe, 0xef, 0, 9];
        bytes.extend(self.flags.to_be_bytes());
        bytes.extend([self.ciaddr, NONE, NONE, self.giaddr].map(|ip| ip.octets()).concat());
        bytes.extend(self.mac.0);
        bytes.resize(236, 0);
        bytes.extend(dhcp4::COOKIE);
        bytes.extend(&self.options);
        bytes.push(255);
        datagram(self.source_mac, self.source, &bytes)
    }
}

/// A message to the server's port, in a broadcast.
fn datagram(mac: Mac, source: Ipv4Addr, message: &[u8]) -> Vec<u8> {
    let len = u16::try_from(message.len() + 8).unwrap();
    let mut bytes = [Mac::BROADCAST.0, mac.0].concat();
    let mut ip = vec![0x45, 0x10];
    ip.extend((len + 20).to_be_bytes());
    ip.extend([0, 0, 0, 0, 64, 17, 0, 0]);
    ip.extend([source.octets(), [255; 4]].concat());
    let sum = Sum::of(&ip).checksum().to_be_bytes();
    ip[10..12].copy_from_slice(&sum);
    bytes.extend([8, 0]);
    bytes.extend(ip);
    bytes.extend([0, 68, 0, 67]);
    bytes.extend(len.to_be_bytes());
    bytes.extend([0, 0]);
    bytes.extend(message);
    let sum = pseudo_v4(source, [255; 4].into(), 17, len) + Sum::of(&bytes[34..]);
    bytes[40..42].copy_from_slice(&sum.checksum().to_be_bytes());
    bytes
}

/// What a client is told: a reply whose lengths and checksums were seen to be right.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Told {
    pub(super) to: (Mac, Ipv4Addr, u16),
    pub(super) flags: u16,
    pub(super) ciaddr: Ipv4Addr,
    pub(super) yiaddr: Ipv4Addr,
    pub(super) siaddr: Ipv4Addr,
    pub(super) giaddr: Ipv4Addr,
    pub(super) file: Vec<u8>,
    pub(super) sname: Vec<u8>,
    pub(super) codes: Vec<u8>,
    options: Vec<(u8, Vec<u8>)>,
    pub(super) packet_len: usize,
}

impl Told {
    pub(super) fn read(frame: &[u8], mac: Mac) -> Told {
        let word = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
        let ip = |at: usize| Ipv4Addr::from(*frame[at..].first_chunk::<4>().unwrap());
        assert_eq!((&frame[6..12], &frame[12..15]), (&SERVICE_MAC.0[..], &[8, 0, 0x45][..]));
        assert_eq!(usize::from(word(16)), frame.len() - 14, "IP length");
        assert_eq!(usize::from(word(38)), frame.len() - 34, "UDP length");
        assert_eq!(Sum::of(&frame[14..34]).fold(), 0xffff, "header checksum");
        assert_eq!((frame[22], frame[23], ip(26), word(34)), (64, 17, SERVICE_V4, 67));
        assert_ne!(word(40), 0);
        let pseudo = pseudo_v4(ip(26), ip(30), 17, word(38));
        assert_eq!((pseudo + Sum::of(&frame[34..])).fold(), 0xffff, "UDP checksum");
        let bytes = &frame[42..];
        assert!(bytes.len() >= 300, "RFC 1542, 2.1: BOOTP's length");
        let message = Message::new_checked(bytes).unwrap();
        assert!(message.has_cookie());
        // RFC 2131, table 3.
        assert_eq!(
            (message.op(), message.htype(), message.hlen(), message.hops(), message.secs()),
            (2, 1, 6, 0, 0)
        );
        assert_eq!((message.xid(), &message.chaddr()[..6]), ([0xde, 0xad, 0xbe, 0xef], &mac.0[..]));
        let mut options: Vec<(u8, Vec<u8>)> = Vec::new();
        for piece in message.pieces() {
            let (code, piece) = piece.unwrap();
            match options.iter_mut().find(|(found, _)| *found == code) {
                Some((_, value)) => value.extend(piece),
                None => options.push((code, piece.to_vec())),
            }
        }
        Told {
            to: (Mac(*frame.first_chunk().unwrap()), ip(30), word(36)),
            flags: message.flags(),
            ciaddr: message.ciaddr(),
            yiaddr: message.yiaddr(),
            siaddr: message.siaddr(),
            giaddr: message.giaddr(),
            file: message.file().to_vec(),
            sname: message.sname().to_vec(),
            codes: options.iter().map(|(code, _)| *code).collect(),
            options,
            packet_len: frame.len() - 14,
        }
    }

    pub(super) fn option(&self, code: u8) -> Option<&[u8]> {
        self.options.iter().find(|(found, _)| *found == code).map(|(_, value)| &value[..])
    }

    pub(super) fn kind(&self) -> MessageType {
        MessageType::from_u8(self.option(53).unwrap()[0]).unwrap()
    }
}

pub(super) fn settings() -> Settings {
    Settings {
        prefix_len: 24,
        router: Some([10, 0, 0, 1].into()),
        dns_servers: vec![[192, 0, 2, 53].into(), [192, 0, 2, 54].into()],
        ntp_servers: vec![[192, 0, 2, 123].into()],
        domain: Some("lab.example".to_owned()),
        hostname: Some("web".to_owned()),
        mtu: 1450,
        routes: vec![
            ("169.254.169.254/32".parse().unwrap(), [10, 0, 0, 1].into()),
            ("0.0.0.0/0".parse().unwrap(), [10, 0, 0, 1].into()),
        ],
        lease_time: 86_400,
        extra: Vec::new(),
    }
}

fn extra(options: &[(&str, &str)]) -> Settings {
    let extra = options.iter().map(|(name, value)| Opt::parse(name, value).unwrap()).collect();
    Settings { extra, ..settings() }
}

fn leases() -> Vec<Lease> {
    let other = Lease::new(Mac([0x52, 0x54, 0, 0, 0, 9]), [10, 0, 0, 9].into(), &settings());
    vec![other, Lease::new(CLIENT, ADDRESS, &settings()), Lease::new(CLIENT, SECOND, &settings())]
}

fn told_by(ask: &Ask, leases: &[Lease]) -> Result<(Answered, Told), Refused> {
    let mut reply = vec![0xee; 2000];
    let done = answer(&ask.frame(), leases, 1450, &mut reply)?;
    assert!(done.has_reply(), "{done}");
    Ok((done, Told::read(&reply, ask.mac)))
}

fn told(ask: &Ask) -> Told {
    told_by(ask, &leases()).unwrap().1
}

fn told_with(ask: &Ask, settings: &Settings) -> Told {
    told_by(ask, &[Lease::new(CLIENT, ADDRESS, settings)]).unwrap().1
}

fn refused(ask: &Ask) -> Refused {
    told_by(ask, &leases()).unwrap_err()
}

fn discover() -> Ask {
    Ask::new(MessageType::Discover)
}

fn request() -> Ask {
    Ask::new(MessageType::Request)
}

/// A usual exchange, byte by byte.
#[test]
fn an_offer_in_bytes() {
    let ask = discover().with(61, &[1, 0x52, 0x54, 0, 0, 0, 1]).asking(&[1, 3, 6, 12, 26]);
    let mut reply = Vec::new();
    let done = answer(&ask.frame(), &leases(), 1450, &mut reply).unwrap();
    assert_eq!(done, Answered::Offer { request: MessageType::Discover, address: ADDRESS });
    assert_eq!(done.to_string(), "DHCPDISCOVER, offered 10.0.0.11");
    let mut expected = vec![0x52, 0x54, 0, 0, 0, 1, 2, 0, 0xa9, 0xfe, 0xa9, 0xfe, 8, 0];
    expected.extend([0x45, 0, 1, 0x50, 0, 0, 0x40, 0, 64, 17, 0xdb, 0x95, 169, 254, 169, 254, 10, 0, 0, 11]);
    expected.extend([0, 67, 0, 68, 1, 0x3c]);
    assert_eq!(reply[..40], expected);
    let mut message = vec![2, 1, 6, 0, 0xde, 0xad, 0xbe, 0xef, 0, 0, 0, 0, 0, 0, 0, 0, 10, 0, 0, 11];
    message.extend([0, 0, 0, 0, 0, 0, 0, 0, 0x52, 0x54, 0, 0, 0, 1]);
    message.resize(236, 0);
    message.extend([99, 130, 83, 99, 53, 1, 2, 54, 4, 169, 254, 169, 254, 51, 4, 0, 1, 0x51, 0x80]);
    message.extend([58, 4, 0, 0, 0xa8, 0xc0, 59, 4, 0, 1, 0x27, 0x50, 61, 7, 1, 0x52, 0x54, 0, 0, 0, 1]);
    message.extend([1, 4, 255, 255, 255, 0, 3, 4, 10, 0, 0, 1, 6, 8, 192, 0, 2, 53, 192, 0, 2, 54]);
    message.extend([12, 3, b'w', b'e', b'b', 26, 2, 5, 170, 255]);
    assert_eq!(reply[42..], message);
    let nothing = Settings { prefix_len: 24, lease_time: 60, ..Settings::default() };
    let padded = told_with(&discover().asking(&[]), &nothing);
    assert_eq!(padded.packet_len, 28 + 300, "RFC 1542, 2.1");
}

#[test]
fn rfc_2131_4_3_1_a_discover_gets_its_own_address() {
    assert_eq!(told(&discover()).yiaddr, ADDRESS, "the first of the client's");
    assert_eq!(told(&discover().wants(SECOND)).yiaddr, SECOND, "the one that it asks for");
    assert_eq!(told(&discover().wants([10, 0, 0, 9].into())).yiaddr, ADDRESS, "not another's");
    let offer = told(&discover().has([10, 0, 0, 11].into()));
    assert_eq!((offer.kind(), offer.ciaddr), (MessageType::Offer, NONE), "table 3");
}

#[test]
fn rfc_2131_4_3_1_times_are_told_and_a_shorter_lease_may_be_had() {
    let times = |asked: Option<u32>, settings: &Settings| {
        let ask = asked.map_or(discover(), |time| discover().with(51, &time.to_be_bytes()));
        let told = told_with(&ask, settings);
        [51, 58, 59].map(|code| told.option(code).map(|time| u32::from_be_bytes(time.try_into().unwrap())))
    };
    let usual = settings();
    assert_eq!(times(None, &usual), [Some(86_400), Some(43_200), Some(75_600)]);
    assert_eq!(times(Some(3600), &usual), [Some(3600), Some(1800), Some(3150)]);
    assert_eq!(times(Some(u32::MAX), &usual)[0], Some(86_400));
    assert_eq!(times(Some(0), &usual)[0], Some(60));
    let short = Settings { lease_time: 10, ..settings() };
    assert_eq!(times(Some(1), &short), [Some(10), Some(5), Some(8)]);
    // 3.3: for ever.
    let ever = Settings { lease_time: u32::MAX, ..settings() };
    assert_eq!(times(None, &ever), [Some(u32::MAX), None, None]);
    assert_eq!(times(None, &extra(&[("T1", "100")])), [Some(86_400), Some(100), Some(75_600)]);
}

#[test]
fn rfc_2131_4_3_2_a_request_in_each_state() {
    let ours = SERVICE_V4;
    let selecting = told(&request().to(ours).wants(SECOND));
    assert_eq!((selecting.kind(), selecting.yiaddr, selecting.ciaddr), (MessageType::Ack, SECOND, NONE));
    let reboot = told(&request().wants(ADDRESS));
    assert_eq!((reboot.kind(), reboot.yiaddr), (MessageType::Ack, ADDRESS));
    let renewing = told(&request().has(SECOND));
    assert_eq!((renewing.kind(), renewing.yiaddr, renewing.ciaddr), (MessageType::Ack, SECOND, SECOND));
    assert_eq!(renewing.to, (CLIENT, SECOND, 68), "4.1: to ciaddr");
    // A client that mixes states: its own address counts.
    assert_eq!(told(&request().has(SECOND).wants(ADDRESS)).yiaddr, SECOND);
    assert_eq!(told(&request().has(SECOND).to(ours)).yiaddr, SECOND);
    assert_eq!(refused(&request()), Refused::Malformed, "it asks for nothing");
    assert_eq!(refused(&request().to(ours)), Refused::Malformed);
}

#[test]
fn rfc_2131_4_3_2_a_wrong_address_is_denied_by_broadcast() {
    let wrong: Ipv4Addr = [192, 168, 1, 5].into();
    for ask in [request().wants(wrong), request().has(wrong), request().to(SERVICE_V4).wants(wrong)] {
        let (done, nak) = told_by(&ask, &leases()).unwrap();
        assert_eq!(done, Answered::Nak { request: MessageType::Request, address: wrong });
        assert_eq!((nak.kind(), nak.to), (MessageType::Nak, (Mac::BROADCAST, [255; 4].into(), 68)));
        // Table 3.
        assert_eq!((nak.ciaddr, nak.yiaddr, nak.siaddr), (NONE, NONE, NONE));
        assert_eq!(
            (nak.option(54), nak.option(56)),
            (Some(&SERVICE_V4.octets()[..]), Some(&b"wrong address"[..]))
        );
        assert_eq!(nak.codes, [53, 54, 56]);
    }
}

#[test]
fn rfc_2131_4_3_2_what_another_server_is_meant_by_gets_no_answer() {
    for ask in [
        request().wants(ADDRESS),
        request().wants([192, 168, 1, 5].into()),
        Ask::new(MessageType::Release).has(ADDRESS),
    ] {
        assert_eq!(refused(&ask.to([10, 0, 0, 1].into())), Refused::OtherServer);
    }
    assert_eq!(
        refused(&Ask::new(MessageType::Decline).wants(ADDRESS).to([10, 0, 0, 1].into())),
        Refused::OtherServer
    );
}

#[test]
fn rfc_2131_4_3_3_and_4_3_4_decline_and_release_are_heard_and_change_nothing() {
    let mut reply = Vec::new();
    let decline = Ask::new(MessageType::Decline).to(SERVICE_V4).wants(SECOND);
    let done = answer(&decline.frame(), &leases(), 1450, &mut reply).unwrap();
    assert_eq!(done, Answered::Consumed { request: MessageType::Decline, address: SECOND });
    assert_eq!(done.to_string(), "DHCPDECLINE of 10.0.1.11");
    let release = Ask::new(MessageType::Release).to(SERVICE_V4).has(ADDRESS);
    let done = answer(&release.frame(), &leases(), 1450, &mut reply).unwrap();
    assert!(!done.has_reply());
    assert_eq!(refused(&Ask::new(MessageType::Release).has([10, 0, 0, 9].into())), Refused::NoLease);
    assert_eq!(refused(&Ask::new(MessageType::Release)), Refused::Malformed);
    assert_eq!(refused(&Ask::new(MessageType::Decline).has(ADDRESS)), Refused::Malformed);
}

#[test]
fn rfc_2131_4_3_5_inform_is_told_settings_without_an_address_and_times() {
    let inform = |ask: Ask| told(&ask.asking(&[1, 3, 51, 58, 59, 6]).with(51, &[0, 0, 1, 0]));
    for address in [ADDRESS, [10, 0, 0, 200].into()] {
        let ack = inform(Ask::new(MessageType::Inform).has(address));
        assert_eq!((ack.kind(), ack.yiaddr, ack.ciaddr), (MessageType::Ack, NONE, address));
        assert_eq!((ack.to, &ack.codes[..]), ((CLIENT, address, 68), &[53, 54, 1, 3, 6][..]));
    }
    let mut ask = Ask::new(MessageType::Inform).flags(dhcp4::BROADCAST);
    ask.source = ADDRESS;
    assert_eq!(inform(ask).to, (CLIENT, ADDRESS, 68), "known by its packet, and by unicast in any case");
    assert_eq!(
        inform(Ask::new(MessageType::Inform).has(SECOND).by([10, 0, 1, 1].into()).has(SECOND)).to,
        (RELAY, SECOND, 68)
    );
    let relayed = inform(Ask::new(MessageType::Inform).by([10, 0, 0, 2].into()));
    assert_eq!((relayed.to, relayed.flags), ((RELAY, [10, 0, 0, 2].into(), 67), dhcp4::BROADCAST));
    assert_eq!(refused(&Ask::new(MessageType::Inform).has([192, 168, 1, 5].into())), Refused::NoLease);
    assert_eq!(refused(&Ask::new(MessageType::Inform)), Refused::Malformed);
}

#[test]
fn rfc_2131_4_1_where_replies_go() {
    let everyone = (Mac::BROADCAST, Ipv4Addr::BROADCAST, 68);
    assert_eq!(told(&discover()).to, (CLIENT, ADDRESS, 68), "to chaddr and yiaddr");
    assert_eq!(told(&discover().flags(dhcp4::BROADCAST)).to, everyone);
    assert_eq!(told(&discover().flags(dhcp4::BROADCAST)).flags, dhcp4::BROADCAST);
    assert_eq!(
        told(&request().has(ADDRESS).flags(dhcp4::BROADCAST)).to,
        (CLIENT, ADDRESS, 68),
        "ciaddr comes first"
    );
    let mut routed = request().has(ADDRESS);
    routed.source_mac = RELAY;
    assert_eq!(told(&routed).to, (RELAY, ADDRESS, 68), "back by the router that it came by");
    let relay: Ipv4Addr = [10, 0, 1, 1].into();
    let offer = told(&discover().by(relay));
    assert_eq!((offer.to, offer.giaddr, offer.flags), ((RELAY, relay, 67), relay, 0));
    assert_eq!(offer.yiaddr, SECOND, "4.3.1: of the relay's subnet");
    let mut renewing = request().by(relay);
    renewing.ciaddr = SECOND;
    assert_eq!(told(&renewing).to, (RELAY, relay, 67), "giaddr comes before ciaddr");
    let nak = told(&request().by(relay).wants(ADDRESS));
    assert_eq!((nak.kind(), nak.to), (MessageType::Nak, (RELAY, relay, 67)));
    assert_eq!(nak.flags, dhcp4::BROADCAST, "4.3.2: the relay is to broadcast it");
    assert_eq!(refused(&discover().by([192, 168, 1, 1].into())), Refused::NoLease);
}

#[test]
fn rfc_4039_rapid_commit() {
    let (done, ack) = told_by(&discover().with(80, &[]), &leases()).unwrap();
    assert_eq!(done, Answered::Ack { request: MessageType::Discover, address: ADDRESS });
    assert_eq!((ack.kind(), ack.yiaddr, ack.option(80)), (MessageType::Ack, ADDRESS, Some(&[][..])));
    assert_eq!(told(&discover().with(80, &[1])).kind(), MessageType::Offer, "the option is empty");
    assert_eq!(told(&request().wants(ADDRESS).with(80, &[])).option(80), None);
}

#[test]
fn rfc_6842_the_client_identifier_comes_back_in_every_reply() {
    for ask in [
        discover(),
        request().wants(ADDRESS),
        request().wants([1, 2, 3, 4].into()),
        Ask::new(MessageType::Inform).has(ADDRESS),
    ] {
        assert_eq!(told(&ask).option(61), None);
        for id in [&[0, b'x'][..], &[7; 255]] {
            assert_eq!(told(&ask.clone().with(61, id)).option(61), Some(id));
        }
        let split = ask.clone().with(61, &[0, 1]).with(61, &[2, 3]);
        assert_eq!(told(&split).option(61), Some(&[0, 1, 2, 3][..]), "RFC 3396");
        for id in [&[][..], &[1], &[7; 256]] {
            assert_eq!(refused(&ask.clone().with(61, id)), Refused::Malformed, "RFC 2132, 9.14");
        }
    }
}

#[test]
fn rfc_3046_2_2_what_a_relay_added_comes_back_last() {
    let relay = [10, 0, 0, 2].into();
    let long = [9; 300];
    for (info, ask) in [
        (&[1, 2, 7, 7][..], discover()),
        (&[1, 1, 8], request().wants([1, 2, 3, 4].into())),
        (&long, discover().with(57, &[5, 220])),
    ] {
        let told = told(&ask.by(relay).with(82, info).asking(&[82, 3, 6]));
        assert_eq!((told.option(82), told.codes.last()), (Some(info), Some(&82)));
    }
    let told = told(&discover().by(relay).with(82, &[9; 400]).asking(&[3]));
    assert_eq!(
        (told.option(82), told.option(3).is_some()),
        (None, true),
        "one that leaves no room is left out"
    );
}

#[test]
fn rfc_2132_9_8_options_come_as_they_were_asked_for() {
    let own = [53, 54, 51, 58, 59, 1];
    let codes = |asked: &[u8]| told(&discover().asking(asked)).codes;
    assert_eq!(codes(&[42, 6, 3, 15, 6, 200]), [&own[..], &[42, 6, 3, 15]].concat());
    assert_eq!(codes(&[]), own, "an empty list asks for nothing");
    assert_eq!(codes(&[28, 1, 119, 26, 12]), [&own[..], &[28, 119, 26, 12]].concat());
    // RFC 3442: 3 and 33 are not sent to who asks for 121.
    assert_eq!(codes(&[3, 6, 33, 121, 249]), [&own[..], &[121, 6, 249]].concat());
    assert_eq!(codes(&[3, 249]), [&own[..], &[3, 249]].concat());
    let whole = told(&discover());
    assert_eq!(
        whole.codes,
        [&own[..], &[121, 3, 6, 15, 119, 12, 26, 28, 42]].concat(),
        "asked for nothing by name"
    );
    let split = discover().with(55, &[6]).with(55, &[3]);
    assert_eq!(told(&split).codes, [&own[..], &[6, 3]].concat());
}

#[test]
fn values_are_the_settings() {
    let asked = told(&discover().asking(&[3, 6, 12, 15, 26, 28, 42, 119]));
    let expected: [(u8, &[u8]); 9] = [
        (1, &[255, 255, 255, 0]),
        (3, &[10, 0, 0, 1]),
        (6, &[192, 0, 2, 53, 192, 0, 2, 54]),
        (12, b"web"),
        (15, b"lab.example"),
        (26, &[5, 170]),
        (28, &[10, 0, 0, 255]),
        (42, &[192, 0, 2, 123]),
        (119, b"\x03lab\x07example\0"),
    ];
    for (code, value) in expected {
        assert_eq!(asked.option(code), Some(value), "{code}");
    }
    let routes = told(&discover().asking(&[121, 249]));
    assert_eq!(routes.option(121), Some(&[32, 169, 254, 169, 254, 10, 0, 0, 1, 0, 10, 0, 0, 1][..]));
    assert_eq!(routes.option(249), routes.option(121));
    let bare = Settings { prefix_len: 31, lease_time: 60, ..Settings::default() };
    assert_eq!(
        told_with(&discover(), &bare).codes,
        [53, 54, 51, 58, 59, 1],
        "RFC 3021: no broadcast address"
    );
    assert_eq!(told_with(&discover(), &bare).option(1), Some(&[255, 255, 255, 254][..]));
    let all = Settings { prefix_len: 0, ..settings() };
    assert_eq!(told_with(&discover(), &all).option(1), Some(&[0; 4][..]));
}

#[test]
fn options_of_the_users_replace_the_standard_ones() {
    let own = extra(&[
        ("mtu", "1400"),
        ("150", "192.0.2.7,192.0.2.8"),
        ("vendor-encap", "01:02"),
        ("router", "10.0.0.254"),
    ]);
    let reply = told_with(&discover().asking(&[26, 3, 43]), &own);
    assert_eq!(
        (reply.option(26), reply.option(3), reply.option(43)),
        (Some(&[5, 120][..]), Some(&[10, 0, 0, 254][..]), Some(&[1, 2][..]))
    );
    assert_eq!(reply.option(150), None, "it was not asked for");
    assert_eq!(reply.siaddr, Ipv4Addr::new(192, 0, 2, 7));
    assert!(told_with(&discover(), &own).codes.ends_with(&[43, 150]));
    let hostile = Settings {
        extra: vec![Opt { code: 53, value: vec![6] }, Opt { code: 0, value: vec![] }],
        ..settings()
    };
    assert_eq!(told_with(&discover(), &hostile).kind(), MessageType::Offer);
}

#[test]
fn clients_that_boot_by_network_find_their_file_in_both_places() {
    let own = extra(&[("bootfile-name", "pxelinux.0"), ("tftp-server", "192.0.2.9")]);
    let reply = told_with(&discover().asking(&[66, 67]), &own);
    assert_eq!((reply.option(66), reply.option(67)), (Some(&b"192.0.2.9"[..]), Some(&b"pxelinux.0"[..])));
    let reply = told_with(&discover().asking(&[1]), &own);
    assert!(reply.file.starts_with(b"pxelinux.0\0") && reply.sname.starts_with(b"192.0.2.9\0"));
    assert_eq!((reply.option(67), reply.siaddr), (None, Ipv4Addr::new(192, 0, 2, 9)));
    let own = extra(&[
        ("server-ip-address", "192.0.2.10"),
        ("150", "192.0.2.7"),
        ("bootfile-name", &"x".repeat(128)),
    ]);
    let reply = told_with(&discover().asking(&[67]), &own);
    assert_eq!((reply.siaddr, reply.file[0]), (Ipv4Addr::new(192, 0, 2, 10), 0), "too long for the field");
    assert_eq!(reply.option(67).unwrap().len(), 128);
    let nak = told_by(&request().wants([1, 2, 3, 4].into()), &[Lease::new(CLIENT, ADDRESS, &own)]).unwrap().1;
    assert_eq!((nak.siaddr, nak.file[0]), (NONE, 0));
}

#[test]
fn what_no_client_may_send_is_refused() {
    let of = |at: usize, byte: u8| {
        let mut frame = discover().frame();
        frame[at] = byte;
        frame[40..42].fill(0);
        answer(&frame, &leases(), 1450, &mut Vec::new()).unwrap_err()
    };
    assert_eq!(of(42, 2), Refused::NotARequest, "op");
    assert_eq!((of(43, 6), of(44, 8)), (Refused::Unsupported, Refused::Unsupported), "htype, hlen");
    assert_eq!(of(42 + 236, 98), Refused::Unsupported, "cookie: BOOTP");
    assert_eq!(of(42 + 242, 9), Refused::Unsupported, "message type");
    assert_eq!(of(42 + 242, 2), Refused::NotARequest, "OFFER");
    assert_eq!(of(42 + 241, 2), Refused::Malformed, "length of the message type");
    assert_eq!(of(42 + 240, 12), Refused::Unsupported, "no message type");
    assert_eq!(of(70, 1), Refused::Malformed, "chaddr is a group");
    assert_eq!(of(6, 1), Refused::Malformed, "source is a group");
    assert_eq!(of(42 + 12, 224), Refused::Malformed, "ciaddr is a group");
    assert_eq!(of(42 + 24, 127), Refused::Malformed, "giaddr is loopback");
    assert_eq!(of(37, 68), Refused::NotARequest);
    assert_eq!(of(24, 1), Refused::Malformed, "header checksum");
    assert_eq!(refused(&discover().of(RELAY)), Refused::OtherClient);
    for (code, value) in [(50, &[1, 2, 3][..]), (51, &[0; 5]), (54, &[]), (57, &[2])] {
        assert_eq!(refused(&discover().with(code, value)), Refused::Malformed, "{code}");
    }
}

#[test]
fn checksums_are_right_left_out_or_unfinished() {
    let with = |checksum: u16| {
        let mut frame = discover().frame();
        frame[40..42].copy_from_slice(&checksum.to_be_bytes());
        answer(&frame, &leases(), 1450, &mut Vec::new()).map(|_| ())
    };
    let frame = discover().frame();
    let right = u16::from_be_bytes([frame[40], frame[41]]);
    let partial = pseudo_v4(NONE, [255; 4].into(), 17, u16::try_from(frame.len() - 34).unwrap()).fold();
    assert_eq!((with(right), with(0), with(partial)), (Ok(()), Ok(()), Ok(())));
    assert!(right != partial && right != 1);
    assert_eq!(
        (with(right ^ 1), with(partial ^ 1), with(0xffff)),
        (Err(Refused::Malformed), Err(Refused::Malformed), Err(Refused::Malformed))
    );
    // The mark of a sender with an offload is the one that the other modules know.
    let mut marked = frame.clone();
    marked[40..42].copy_from_slice(&partial.to_be_bytes());
    assert_eq!(crate::wire::partial::partial_checksum(&marked), Some((34, 6)));
}

#[test]
fn only_whole_untagged_packets_to_port_67_are_requests() {
    let frame = discover().frame();
    assert!(is_request(&frame) && is_request(&frame[..42]) && !is_request(&frame[..41]));
    for (at, byte) in [(12, 0x81), (13, 6), (14, 0x55), (14, 0x4f), (20, 0x20), (21, 1), (23, 6), (37, 68)] {
        let mut other = frame.clone();
        other[at] = byte;
        assert!(!is_request(&other[..60]), "{at}");
    }
    let mut options = frame.clone();
    options[14] = 0x46;
    options.splice(34..34, [1, 1, 1, 0]);
    assert!(is_request(&options));
}

#[test]
fn a_frame_that_is_cut_at_any_byte_is_refused() {
    let frame = request().wants(ADDRESS).with(61, &[1; 7]).asking(&[1, 3, 6]).frame();
    for len in 0..frame.len() {
        assert!(answer(&frame[..len], &leases(), 1450, &mut Vec::new()).is_err(), "{len}");
    }
    // The same with lengths that fit, so that options themselves are cut.
    let message = &frame[42..];
    for len in 0..message.len() - 1 {
        let cut = datagram(CLIENT, NONE, &message[..len]);
        if let Err(reason) = answer(&cut, &leases(), 1450, &mut Vec::new()) {
            let expected = [Refused::Malformed, Refused::Unsupported];
            assert!(expected.contains(&reason), "{len}: {reason}");
        } else {
            // It was cut between two options, as the end is forgiven.
            assert!([249, 258].contains(&len), "{len}");
        }
    }
}

#[test]
fn loops_of_overload_come_to_an_end() {
    let mut frame = discover().with(52, &[3]).frame();
    frame[40..42].fill(0);
    for field in [42 + 44, 42 + 108] {
        frame[field..field + 7].copy_from_slice(&[52, 1, 3, 12, 1, b'x', 255]);
    }
    assert!(answer(&frame, &leases(), 1450, &mut Vec::new()).is_ok());
    frame[42 + 108 + 3..42 + 236].fill(12);
    assert_eq!(
        answer(&frame, &leases(), 1450, &mut Vec::new()),
        Err(Refused::Malformed),
        "over the field's end"
    );
}

proptest! {
    #[test]
    fn any_bytes_after_the_header_get_a_sound_reply_or_none(options in prop::collection::vec(any::<u8>(), 0..400), kind in 1u8..=8) {
        let mut ask = Ask::new(MessageType::from_u8(kind).unwrap()).has(ADDRESS);
        ask.options.extend(&options);
        let mut reply = Vec::new();
        if let Ok(done) = answer(&ask.frame(), &leases(), 1450, &mut reply) && done.has_reply() {
            let told = Told::read(&reply, CLIENT);
            prop_assert!(told.packet_len <= 1450);
            prop_assert_eq!(told.option(54), Some(&SERVICE_V4.octets()[..]));
        }
    }

    #[test]
    fn any_frame_is_answered_or_refused(frame in prop::collection::vec(any::<u8>(), 0..600)) {
        let _ = (is_request(&frame), answer(&frame, &leases(), 1450, &mut Vec::new()));
    }
}
