//! Any frame from a port with port security. What passes is held against a naive reading, which follows the RFCs byte by byte
//! and shares nothing with the switch's: nothing passes that is from, or speaks for, an address that is not the port's, and
//! nothing that only servers and routers say. Whoever finishes its checksum or cuts it into segments changes none of that.

use std::net::IpAddr;

use nuswitch::dataplane::guard::Checker;
use nuswitch::dataplane::segment;
use nuswitch::frame::{Frame, Offload, Pool};
use nuswitch::stats::DropReason;
use nuswitch::tables::security::{Claims, Station};
use nuswitch::types::Mac;

use super::input::{Input, note};

const MACS: [[u8; 6]; 3] = [[0x52, 0x54, 0, 0, 0, 0xa], [0, 0, 0x5e, 0, 1, 7], [0x52, 0x54, 0, 0, 0, 0xb]];
const V4: [[u8; 4]; 6] =
    [[10, 0, 0, 5], [10, 0, 9, 77], [10, 0, 0, 100], [10, 0, 0, 1], [0, 0, 0, 0], [255, 255, 255, 255]];
/// The last bits of an address of 2001:db8::/64, or a whole one.
const V6: [u128; 6] = [
    0x2001_0db8 << 96 | 5,
    0xfe80 << 112 | 0x5054_00ff_fe00_000a,
    0x2001_0db8 << 96 | 0x100,
    0x2001_0db8 << 96 | 1,
    0,
    0xff02 << 112 | 0x0001_ff00_0005,
];

/// The first MAC has the first two addresses of each kind, the second the third, and nobody has the rest.
fn claims(any_address: bool) -> Claims {
    let v4 = |text: &str| text.parse().expect("a prefix");
    let v6 =
        |at: usize| format!("{}/128", std::net::Ipv6Addr::from_bits(V6[at])).parse().expect("an address");
    let first =
        Station { mac: Mac(MACS[0]), v4: vec![v4("10.0.0.5/32"), v4("10.0.9.0/24")], v6: vec![v6(0), v6(1)] };
    let second = Station { mac: Mac(MACS[1]), v4: vec![v4("10.0.0.100/32")], v6: vec![v6(2)] };
    Claims { stations: vec![first, second], any_address }
}

pub fn run(data: &[u8]) {
    reach(data);
}

/// As [`run`]; gives the frames that passed, that were spoofed or a server's or router's, and that were refused for others.
pub fn reach(data: &[u8]) -> [u64; 3] {
    let mut input = Input::new(data);
    let claims = claims(input.byte().is_multiple_of(4));
    let checker = Checker::new(&claims);
    let mut pool = Pool::with_chunks(256, 2).expect("memory");
    let mut ends = [0; 3];
    for _ in 0..20 {
        if input.is_empty() {
            break;
        }
        let bytes = frame(&mut input);
        let mut frame = pool.frame_from(&bytes).expect("there are enough");
        if input.byte().is_multiple_of(4) {
            frame.offload = note(&mut input);
        }
        if !frame.offload.is_done() && segment::check(&mut frame).is_err() {
            continue; // ingress refuses it
        }
        ends[match checker.check(&frame) {
            Ok(()) => {
                holds(&frame, &claims, "as it came");
                finished(frame, &claims, &mut pool);
                0
            }
            Err(
                DropReason::SpoofedMac
                | DropReason::SpoofedIp
                | DropReason::SpoofedArp
                | DropReason::SpoofedNd
                | DropReason::GuestDhcpServer
                | DropReason::GuestRouterAdvertiser,
            ) => 1,
            Err(_) => 2,
        }] += 1;
    }
    ends
}

/// As an exit without offloads sends it.
fn finished(mut frame: Frame, claims: &Claims, pool: &mut Pool) {
    if frame.offload.gso() == Offload::GSO_NONE {
        segment::finish_checksum(&mut frame).expect("it was checked");
        holds(&frame, claims, "finished");
    } else {
        let _ = segment::segment_into(frame, pool, true, |segment| holds(&segment, claims, "a segment"));
    }
}

fn holds(frame: &Frame, claims: &Claims, how: &str) {
    if let Err(wrong) = naive(frame.head(), claims) {
        panic!("passes {how}, {wrong}: {:02x?}", frame.head());
    }
}

/// What is wrong with a frame that passed.
fn naive(bytes: &[u8], claims: &Claims) -> Result<(), String> {
    let from: [u8; 6] = bytes[6..12].try_into().expect("six");
    if !has(claims, from) {
        return Err(format!("from {from:02x?}"));
    }
    let mut at = 12;
    while claims.any_address && matches!(bytes.get(at..at + 2), Some([0x81, 0] | [0x88, 0xa8])) {
        at += 4;
    }
    let rest = bytes.get(at + 2..).unwrap_or_default();
    match bytes.get(at..at + 2) {
        Some([8, 0]) => v4(rest, from, claims),
        Some([8, 6]) => arp(rest, from, claims),
        Some([0x80, 0x35]) => rarp(rest, from, claims),
        Some([0x86, 0xdd]) => v6(rest, from, claims),
        _ if claims.any_address => Ok(()),
        kind => Err(format!("EtherType {kind:02x?}")),
    }
}

fn has(claims: &Claims, mac: [u8; 6]) -> bool {
    claims.stations.iter().any(|station| station.mac.0 == mac)
}

fn may(claims: &Claims, mac: [u8; 6], address: IpAddr) -> bool {
    let own = |at: usize| MACS[at] == mac;
    let known = match address {
        IpAddr::V4(ip) => {
            let ip = ip.octets();
            own(0) && (ip == V4[0] || ip[..3] == [10, 0, 9]) || own(1) && ip == V4[2]
        }
        IpAddr::V6(ip) => {
            let ip = ip.to_bits();
            own(0) && (ip == V6[0] || ip == V6[1]) || own(1) && ip == V6[2]
        }
    };
    known || claims.any_address && has(claims, mac)
}

fn octets<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], String> {
    bytes.get(at..at + N).and_then(|octets| octets.try_into().ok()).ok_or(format!("cut off at {at}"))
}

fn arp(packet: &[u8], from: [u8; 6], claims: &Claims) -> Result<(), String> {
    let [.., operation] = octets::<8>(packet, 0)?;
    let (mac, sender, target) = (octets(packet, 8)?, octets::<4>(packet, 14)?, octets::<4>(packet, 24)?);
    let claimed = if operation == 1 && sender == [0; 4] { target } else { sender };
    if packet[..7] != [0, 1, 8, 0, 6, 4, 0]
        || operation > 2
        || mac != from
        || !may(claims, mac, claimed.into())
    {
        return Err(format!("ARP {operation} claims {mac:02x?} {sender:?}"));
    }
    Ok(())
}

fn rarp(packet: &[u8], from: [u8; 6], claims: &Claims) -> Result<(), String> {
    let head = octets::<8>(packet, 0)?;
    let (sender, target) = (octets::<6>(packet, 8)?, octets::<6>(packet, 18)?);
    let own =
        |mac, address: [u8; 4]| address == [0; 4] && has(claims, mac) || may(claims, mac, address.into());
    if head != [0, 1, 8, 0, 6, 4, 0, 3]
        || sender != from
        || !own(sender, octets(packet, 14)?)
        || !own(target, octets(packet, 24)?)
    {
        return Err(format!("RARP of {sender:02x?} about {target:02x?}"));
    }
    Ok(())
}

fn v4(packet: &[u8], from: [u8; 6], claims: &Claims) -> Result<(), String> {
    let source = octets::<4>(packet, 12)?;
    let field = u16::from_be_bytes(octets(packet, 6)?);
    let protocol = packet[9];
    let transport = packet.get(usize::from(packet[0] & 15) * 4..).unwrap_or_default();
    let is_later = field & 0x1fff != 0;
    // Who still has an address that is no longer its own may ask our server for more of it.
    let asks_here = octets::<4>(packet, 16)? == [169, 254, 169, 254];
    let is_dhcp = protocol == 17 && transport.get(..4) == Some(&[0, 68, 0, 67]);
    let is_new =
        field & 0x3fff == 0 && (source == [0; 4] && (protocol == 2 || is_dhcp) || asks_here && is_dhcp);
    if !may(claims, from, source.into()) && !is_new {
        return Err(format!("from {source:?}"));
    }
    match (protocol, transport) {
        _ if is_later => Ok(()),
        (17, [_, _, 0, 68, ..]) => Err("from a DHCP server".to_owned()),
        (1, [9, ..]) => Err("from a router".to_owned()),
        (17 | 1, []) => Err("without a transport".to_owned()),
        _ => Ok(()),
    }
}

fn v6(packet: &[u8], from: [u8; 6], claims: &Claims) -> Result<(), String> {
    let source = u128::from_be_bytes(octets(packet, 8)?);
    let end = 40 + usize::from(u16::from_be_bytes(octets(packet, 4)?));
    let packet = packet.get(..end).ok_or("longer than its frame")?;
    let (mut next, mut at, mut fragment) = (packet[6], 40, None);
    while let 0 | 43 | 44 | 51 | 60 = next {
        let [following, len, high, low] = octets(packet, at)?;
        at += match next {
            44 => 8,
            51 => (usize::from(len) + 2) * 4,
            _ => (usize::from(len) + 1) * 8,
        };
        if next == 44 {
            fragment = Some(u16::from_be_bytes([high, low]));
        }
        next = following;
        if fragment.is_some_and(|field| field >= 8) {
            break;
        }
    }
    let message = packet.get(at..).ok_or("a header is cut off")?;
    let is_later = fragment.is_some_and(|field| field >= 8);
    let is_new = source == 0
        && fragment.is_none()
        && next == 58
        && matches!(message.first(), Some(131 | 132 | 133 | 135 | 143));
    if !may(claims, from, std::net::Ipv6Addr::from_bits(source).into()) && !is_new {
        return Err(format!("from {source:x}"));
    }
    match (next, message) {
        _ if is_later => Ok(()),
        (17, [_, _, 2, 34, ..]) => Err("from a DHCPv6 server".to_owned()),
        (58, [134 | 137, ..]) => Err("from a router".to_owned()),
        (17 | 58, []) => Err("without a transport".to_owned()),
        (58, [133 | 135 | 136, ..]) if fragment.is_some() => {
            Err("neighbour discovery in a fragment".to_owned())
        }
        (58, [kind @ (133 | 135 | 136), ..]) => nd(*kind, source, message, from, claims),
        _ => Ok(()),
    }
}

fn nd(kind: u8, source: u128, message: &[u8], from: [u8; 6], claims: &Claims) -> Result<(), String> {
    let target = match kind {
        133 => IpAddr::from([0; 16]),
        _ => octets::<16>(message, 8)?.into(),
    };
    let mut rest = message.get(if kind == 133 { 8 } else { 24 }..).ok_or("cut off")?;
    let mut told = Vec::new();
    while let [option, units, ..] = *rest {
        if option == 1 || option == 2 {
            told.push(octets::<6>(rest, 2)?);
        }
        rest = rest.get(usize::from(units.max(1)) * 8..).unwrap_or_default();
    }
    if told.iter().any(|mac| !has(claims, *mac)) {
        return Err(format!("tells {told:02x?}"));
    }
    let claimed = match kind {
        136 if !told.is_empty() => told.iter().all(|mac| may(claims, *mac, target)),
        136 => may(claims, from, target),
        135 if source == 0 => told.is_empty() && may(claims, from, target),
        _ => source != 0 || told.is_empty(),
    };
    if claimed { Ok(()) } else { Err(format!("ICMPv6 {kind} speaks for {target}")) }
}

/// An index of the three MACs or the six addresses, the port's own more often.
fn pick(input: &mut Input<'_>, of: &[usize]) -> usize {
    let byte = input.byte();
    if byte < 128 { 0 } else { of[usize::from(byte) % of.len()] }
}

fn frame(input: &mut Input<'_>) -> Vec<u8> {
    let mut bytes = [&[0xff; 6][..], &MACS[pick(input, &[0, 1, 2])]].concat();
    if input.byte() > 240 {
        let tag = input.one_of(&[[0x81, 0, 0, 0], [0x88, 0xa8, 0, 7]]);
        bytes.extend(tag);
    }
    match input.byte() % 8 {
        0 | 1 => bytes.extend(packet4(input)),
        2 | 3 => bytes.extend(packet6(input)),
        4 | 5 => bytes.extend(discovery(input)),
        6 => bytes.extend(resolution(input)),
        _ => {
            bytes.extend(input.one_of(&[[8u8, 0], [8, 6], [0x86, 0xdd], [0x80, 0x35], [0, 40]]));
            bytes.extend(input.bytes(60));
        }
    }
    for _ in 0..input.byte() % 4 {
        let (at, byte) = (usize::from(input.byte()), input.byte());
        if let Some(changed) = bytes.get_mut(12 + at % 80) {
            *changed = byte;
        }
    }
    if input.byte() > 230 {
        bytes.truncate(14 + usize::from(input.byte()) % 80);
    }
    bytes
}

fn transport(input: &mut Input<'_>) -> (u8, Vec<u8>) {
    let protocol = input.one_of(&[17u8, 6, 1, 58, 2, 47, 136]);
    let mut bytes = match input.byte() % 4 {
        0 => [input.word().to_be_bytes(), input.word().to_be_bytes()].concat(),
        _ => input
            .one_of(&[
                [0u8, 68, 0, 67],
                [0, 67, 0, 68],
                [2, 34, 2, 35],
                [2, 35, 2, 34],
                [9, 0, 0, 0],
                [8, 0, 0, 0],
            ])
            .to_vec(),
    };
    bytes.extend([0, 40, 0, 0, 0, 0, 0, 0, 0x50, 0x10, 1, 0, 0, 0, 0, 0]);
    bytes.extend([7; 20]);
    bytes.truncate(if input.byte() > 230 { usize::from(input.byte()) % 40 } else { 40 });
    (protocol, bytes)
}

fn packet4(input: &mut Input<'_>) -> Vec<u8> {
    let (protocol, transport) = transport(input);
    let options = usize::from(if input.byte() > 200 { input.byte() % 11 } else { 0 });
    let [f0, f1] = input.one_of(&[[0x40u8, 0], [0, 0], [0, 0], [0x20, 0], [0x20, 1], [0, 9]]);
    let total = u8::try_from(20 + options * 4 + transport.len()).expect("short");
    let version = 0x45 + u8::try_from(options).expect("short");
    let head = [8, 0, version, 0, 0, total, 0, 7, f0, f1, 64, protocol, 0, 0];
    let source = V4[pick(input, &[0, 1, 2, 3, 4, 5])];
    let destination = input.one_of(&[[10u8, 0, 0, 9], [10, 0, 0, 9], [255; 4], [169, 254, 169, 254]]);
    [&head[..], &source, &destination, &vec![1; options * 4], &transport].concat()
}

/// An IPv6 packet with extension headers.
fn wrapped(input: &mut Input<'_>, source: u128, (mut next, mut rest): (u8, Vec<u8>)) -> Vec<u8> {
    let headers = if input.byte() > 160 { input.byte() % 11 } else { 0 };
    for _ in 0..headers {
        let field = input.one_of(&[[0u8, 0], [0, 1], [0, 9], [0, 8]]);
        let kind = input.one_of(&[60u8, 44, 0, 43, 51]);
        let header = match kind {
            51 => [&[next, 1, 0, 0][..], &[0; 8]].concat(),
            _ => vec![next, 0, field[0].max(u8::from(kind == 43)), field[1], 0, 0, 0, 7],
        };
        rest = [header, rest].concat();
        next = kind;
    }
    let len = u16::try_from(rest.len()).expect("short").to_be_bytes();
    let to = (0xff02u128 << 112 | 0x0001_ff00_0005).to_be_bytes();
    let head = [0x86, 0xdd, 0x60, 0, 0, 0, len[0], len[1], next, 255];
    [&head[..], &source.to_be_bytes(), &to, &rest].concat()
}

fn packet6(input: &mut Input<'_>) -> Vec<u8> {
    let transport = transport(input);
    let source = V6[pick(input, &[0, 1, 2, 3, 4, 5])];
    wrapped(input, source, transport)
}

fn discovery(input: &mut Input<'_>) -> Vec<u8> {
    let kind = input.one_of(&[135u8, 136, 133, 134, 137, 143, 131, 128]);
    let source = V6[pick(input, &[0, 1, 2, 3, 4, 4])];
    let mut message = vec![kind, 0, 0, 0, 0, 0, 0, 0];
    if kind == 135 || kind == 136 || kind == 137 {
        message.extend(V6[pick(input, &[0, 1, 2, 3, 4])].to_be_bytes());
    }
    for _ in 0..input.byte() % 3 {
        let (option, units) =
            (input.one_of(&[2u8, 1, 14]), if input.byte() > 240 { input.byte() % 3 } else { 1 });
        message.extend([option, units]);
        message.extend(MACS[pick(input, &[0, 1, 2])]);
    }
    wrapped(input, source, (58, message))
}

fn resolution(input: &mut Input<'_>) -> Vec<u8> {
    let (kind, operation) = input.one_of(&[
        ([8u8, 6], 1u8),
        ([8, 6], 2),
        ([8, 6], 1),
        ([0x80, 0x35], 3),
        ([0x80, 0x35], 4),
        ([8, 6], 8),
    ]);
    let mac = MACS[pick(input, &[0, 1, 2])];
    let (sender, target) = (V4[pick(input, &[0, 1, 2, 3, 4, 5])], V4[pick(input, &[0, 1, 2, 3])]);
    let other = input.one_of(&[[0; 6], MACS[0], MACS[2]]);
    [&kind[..], &[0, 1, 8, 0, 6, 4, 0, operation], &mac, &sender, &other, &target].concat()
}
