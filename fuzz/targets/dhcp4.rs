//! Any messages of DHCP clients, to fixed leases and to a pool, while time passes:
//! - what is sent is a whole frame: right lengths and checksums, no longer than client and link allow, options that end;
//! - it is sent to who asked, and says nothing that the server does not have;
//! - no address is two clients' at a time, and none that holds is given to another;
//! - what is remembered is bounded.

use std::net::{IpAddr, Ipv4Addr};

use nuswitch::services::dhcp4::pool::{self, Change, Config, Limits, Pool};
use nuswitch::services::dhcp4::{Answered, Lease, Refused, Settings, answer, is_request};
use nuswitch::services::packet::Packet;
use nuswitch::services::{SERVICE_MAC, SERVICE_V4};
use nuswitch::types::{Mac, PortIdx};
use nuswitch::wire::checksum::{Sum, pseudo_v4};
use nuswitch::wire::dhcp4::{COOKIE, Message, Opt, put_option};

use super::input::Input;

const LIMITS: Limits = Limits { entries: 12, offers: 4, leases: 6, declined: 2 };
const MTU: u16 = 1450;

fn client(n: u8) -> Mac {
    Mac([2, 0, 0, 0, 0, n])
}

fn address(n: u8) -> Ipv4Addr {
    [10, 0, 0, n].into()
}

fn settings(input: &mut Input<'_>) -> Settings {
    let extra = (0..input.byte() % 6).map(|_| {
        let len = usize::from(input.one_of(&[0u16, 1, 4, 100, 255, 256, 700]));
        Opt { code: input.byte(), value: vec![0x5a; len] }
    });
    let extra = extra.collect();
    Settings {
        prefix_len: 24,
        router: Some(address(1)),
        dns_servers: (0..input.byte() % 5).map(address).collect(),
        domain: input.flag().then(|| "lab.example".to_owned()),
        mtu: MTU,
        routes: vec![("0.0.0.0/0".parse().expect("a network"), address(1))],
        lease_time: input.one_of(&[3600, 0, u32::MAX]),
        extra,
        ..Settings::default()
    }
}

pub fn run(data: &[u8]) {
    reach(data);
}

/// As [`run`]; gives the messages that got an address or settings, that were denied one, and that were refused.
pub fn reach(data: &[u8]) -> [u64; 3] {
    let mut input = Input::new(data);
    let settings = settings(&mut input);
    let leases: Vec<Lease> = (1..4).map(|n| Lease::new(client(n), address(n + 10), &settings)).collect();
    let mut pool = Pool::new(Config {
        subnet: "10.0.0.0/24".parse().expect("a network"),
        network: Vec::new(),
        ranges: vec![(address(100), address(115))],
        reserved: vec![address(103)],
        limits: LIMITS,
    });
    let (mut now, mut reply, mut ends) = (1_000_000, Vec::new(), [0; 3]);
    for _ in 0..60 {
        if input.is_empty() {
            break;
        }
        now += u64::from(input.one_of(&[0u16, 0, 1, 30, 61, 4000]));
        let frame = frame(&mut input);
        let fixed = answer(&frame, &leases, MTU, &mut reply);
        if fixed.is_ok_and(|done| done.has_reply()) {
            judge(&frame, &reply, &fixed, |given| leases.iter().any(|lease| lease.address() == given));
        }
        count(&mut ends, &fixed);
        let before: Vec<pool::Entry> = pool.iter().filter(|entry| entry.holds(now)).cloned().collect();
        let port = PortIdx(u16::from(input.byte() % 2));
        let leased = pool::answer(&frame, &mut pool, &settings, port, now, &mut reply);
        let done = leased.as_ref().map(|(done, _)| *done).map_err(|refused| *refused);
        if done.is_ok_and(|done| done.has_reply()) {
            judge(&frame, &reply, &done, |given| pool.contains(given));
        }
        count(&mut ends, &done);
        books(&pool, &before, leased.ok().and_then(|(_, change)| change), now);
    }
    ends
}

fn count(ends: &mut [u64; 3], done: &Result<Answered, Refused>) {
    ends[match done {
        Ok(Answered::Nak { .. }) => 1,
        Ok(_) => 0,
        Err(_) => 2,
    }] += 1;
}

/// The pool after a message, against what held before it.
fn books(pool: &Pool, before: &[pool::Entry], change: Option<Change>, now: u64) {
    let entries: Vec<&pool::Entry> = pool.iter().collect();
    assert!(entries.len() <= LIMITS.entries);
    for (at, entry) in entries.iter().enumerate() {
        assert!(pool.contains(entry.address));
        let same = |other: &&pool::Entry| !other.client.is_empty() && other.client == entry.client;
        assert!(!entries[at + 1..].iter().any(same), "two addresses of one client");
        let was = before.iter().find(|was| was.address == entry.address && was.state == pool::State::Bound);
        assert!(
            was.is_none_or(|was| was.client == entry.client || entry.client.is_empty()),
            "a lease went to another"
        );
    }
    for port in [PortIdx(0), PortIdx(1)] {
        let of = |state| {
            entries.iter().filter(|e| e.ingress == Some(port) && e.state == state && e.holds(now)).count()
        };
        assert!(of(pool::State::Offered) <= LIMITS.offers && of(pool::State::Bound) <= LIMITS.leases);
        assert!(of(pool::State::Declined) <= LIMITS.declined);
    }
    match change {
        Some(Change::Bound(entry)) => assert!(entries.contains(&&entry)),
        Some(Change::Released(address)) => {
            assert!(before.iter().any(|was| was.address == address && was.state == pool::State::Bound));
        }
        None => {}
    }
}

/// A reply against the request.
fn judge(asked: &[u8], reply: &[u8], done: &Result<Answered, Refused>, ours: impl Fn(Ipv4Addr) -> bool) {
    let packet = Packet::parse(reply).unwrap_or_else(|reason| panic!("{reason:?}: {reply:02x?}"));
    assert_eq!((packet.source_mac, packet.source), (SERVICE_MAC, IpAddr::from(SERVICE_V4)));
    let IpAddr::V4(to) = packet.destination else { unreachable!("IPv4") };
    let len = u16::try_from(packet.payload.len()).expect("a short packet");
    assert_eq!((pseudo_v4(SERVICE_V4, to, 17, len) + Sum::of(packet.payload)).fold(), 0xffff, "UDP checksum");
    assert_eq!(packet.payload[4..6], len.to_be_bytes());
    let told = Message::new_checked(&packet.payload[8..]).expect("a message");
    let asked = Packet::parse(asked).expect("it was answered");
    let asked = Message::new_checked(&asked.payload[8..]).expect("it was answered");
    assert!(packet.payload.len() >= 308 && told.has_cookie());
    assert_eq!((told.op(), told.xid(), told.chaddr()), (2, asked.xid(), asked.chaddr()));
    assert_eq!(told.giaddr(), asked.giaddr());
    assert!(told.pieces().all(|piece| piece.is_ok()), "options that end");
    let max =
        asked.option(57).and_then(|value| value.array()).map_or(576, u16::from_be_bytes).clamp(576, MTU);
    assert!(usize::from(len) + 20 <= usize::from(max), "{len} bytes");
    assert_eq!(told.option(54).and_then(|value| value.array()), Some(SERVICE_V4.octets()));
    let joined = |message: &Message<'_>, code| {
        message.option(code).map(|value| value.pieces().collect::<Vec<_>>().concat())
    };
    assert_eq!(joined(&told, 61), joined(&asked, 61));
    assert!(told.yiaddr().is_unspecified() || ours(told.yiaddr()), "{}", told.yiaddr());
    let nak = matches!(done, Ok(Answered::Nak { .. }));
    assert_eq!(told.option(53).and_then(|value| value.array()) == Some([6]), nak);
    assert!(!nak || told.yiaddr().is_unspecified() && told.option(51).is_none());
}

/// Likely messages, some with a few bytes changed, and any bytes.
fn frame(input: &mut Input<'_>) -> Vec<u8> {
    if input.byte() == 0xff {
        let len = usize::from(input.byte());
        return input.bytes(len).to_vec();
    }
    let n = input.byte() % 8;
    let likely = |input: &mut Input<'_>| match input.byte() {
        byte @ 0..16 => address(byte),
        byte @ 16..216 => address(100 + byte % 16),
        byte => Ipv4Addr::from([192, 168, 0, byte]),
    };
    let kind = input.one_of(&[1u8, 1, 3, 3, 3, 4, 7, 8, 1, 3, 2, 0]);
    let mut message = vec![1, 1, 6, 0, 1, 2, 3, n, 0, 0, input.one_of(&[0u8, 0x80]), 0];
    let has = if matches!(kind, 7 | 8) || input.byte().is_multiple_of(4) {
        likely(input)
    } else {
        Ipv4Addr::UNSPECIFIED
    };
    message.extend(has.octets());
    message.resize(24, 0);
    message.extend(input.one_of(&[[0; 4], [0; 4], [0; 4], [10, 0, 0, 1], [10, 9, 0, 1], [255; 4]]));
    message.extend(client(n).0);
    message.resize(108, 0);
    let boot = input.byte();
    message.extend(input.bytes(if boot < 16 { 128 } else { 0 }));
    message.resize(236, 0);
    message.extend(COOKIE);
    put_option(&mut message, 53, &[kind]);
    for _ in 0..input.byte() % 6 {
        match input.byte() % 10 {
            0..=2 => put_option(&mut message, 50, &likely(input).octets()),
            3 | 4 => {
                put_option(&mut message, 54, &input.one_of(&[SERVICE_V4, SERVICE_V4, address(1)]).octets())
            }
            5 => put_option(&mut message, 57, &input.word().to_be_bytes()),
            6 => {
                let len = usize::from(input.byte() % 40);
                put_option(&mut message, 55, input.bytes(len));
            }
            7 => put_option(
                &mut message,
                input.one_of(&[61, 82]),
                &vec![n % 3; usize::from(input.one_of(&[2u16, 7, 255, 300]))],
            ),
            8 => put_option(
                &mut message,
                input.one_of(&[80u8, 52, 51]),
                input.one_of(&[&[][..], &[1], &[3], &[0, 0, 1, 0]]),
            ),
            _ => {
                let (code, len) = (input.byte(), usize::from(input.byte() % 32));
                put_option(&mut message, code, input.bytes(len));
            }
        }
    }
    message.push(255);
    datagram(client(n), message, input)
}

fn datagram(source: Mac, message: Vec<u8>, input: &mut Input<'_>) -> Vec<u8> {
    let len = u16::try_from(message.len() + 8).unwrap_or(0);
    let mut bytes = [Mac::BROADCAST.0, source.0].concat();
    bytes.extend([8, 0, 0x45, 0]);
    bytes.extend((len + 20).to_be_bytes());
    bytes.extend([0, 0, 0, 0, 64, 17, 0, 0]);
    bytes.extend(input.one_of(&[[0; 4], [10, 0, 0, 9]]));
    bytes.extend([255; 4]);
    let sum = Sum::of(&bytes[14..]).checksum().to_be_bytes();
    bytes[24..26].copy_from_slice(&sum);
    bytes.extend([0, 68, 0, 67]);
    bytes.extend(len.to_be_bytes());
    bytes.extend([0, 0]);
    bytes.extend(message);
    assert!(is_request(&bytes));
    for _ in 0..input.one_of(&[0u8, 0, 0, 0, 1, 2]) {
        let at = usize::from(input.word()) % bytes.len();
        bytes[at] ^= input.byte();
    }
    let cut = usize::from(input.one_of(&[0u8, 0, 0, 0, 0, 9]));
    bytes.truncate(bytes.len() - cut);
    bytes
}
