//! Any messages of DHCPv6 clients and relay agents, and any router solicitations:
//! - an answer is sound: lengths, checksum, framing of all options down to addresses; from the service, back to the sender, no
//!   longer than it may be, of the same transaction, by the same relay agents;
//! - no address lives in it but the port's own, and a client with another MAC gets none;
//! - what is refused leaves nothing behind; a solicitation's answer is what another reader of advertisements takes.

use std::net::Ipv6Addr;

use nuswitch::services::dhcp6::{Lease, MAX_REPLY, Refused, Settings, answer, is_request};
use nuswitch::services::packet::Packet;
use nuswitch::services::ra::{self, Advertisement};
use nuswitch::services::{SERVICE_MAC, SERVICE_V6};
use nuswitch::types::Mac;
use nuswitch::wire::dhcp6::{Association, Message, Opt, Relay, Writer, option};

use super::input::Input;

const CLIENT: Mac = Mac([0x52, 0x54, 0, 0, 0, 0x0a]);
const OURS: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0xa);
const OTHER: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0xb);
const SERVER_ID: [u8; 18] = [0, 4, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7];

pub fn run(data: &[u8]) {
    reach(data);
}

/// As [`run`]; gives messages that were answered, that were answered by relay agents, and that were refused.
pub fn reach(data: &[u8]) -> [u64; 3] {
    let mut input = Input::new(data);
    let mut ends = [0; 3];
    let mut reply = vec![7; 5];
    for _ in 0..16 {
        if input.is_empty() {
            break;
        }
        let lease = lease(&mut input);
        let frame = frame(&mut input);
        let may_be_client = is_request(&frame);
        solicit(&frame);
        match answer(&frame, &lease, &mut reply) {
            Err(refused) => {
                assert!(reply.is_empty(), "{refused:?}");
                ends[2] += 1;
            }
            Ok(answered) => {
                assert!(may_be_client || !is_plain(&frame), "it is answered and not taken for a request");
                judge(&frame, &reply, &lease);
                ends[usize::from(answered.relayed)] += 1;
                let other = Lease::new(Mac([0x52, 0x54, 0, 0, 0, 0x0f]), vec![OURS], &Settings::default());
                let refused = answer(&frame, &other, &mut reply).expect_err("another client's");
                assert_eq!(refused, Refused::OtherClient);
            }
        }
    }
    ends
}

/// Whether UDP is right behind the IPv6 header: others are not taken at first sight.
fn is_plain(frame: &[u8]) -> bool {
    frame.get(20) == Some(&17)
}

fn lease(input: &mut Input<'_>) -> Lease {
    let addresses = if input.one_of(&[true, true, false]) { vec![OURS] } else { Vec::new() };
    let extra = match input.byte() % 4 {
        0 => vec![Opt { code: 100 + input.word() % 1000, value: input.bytes(20).to_vec() }],
        1 => vec![Opt { code: 200, value: vec![1; 1400] }],
        _ => Vec::new(),
    };
    let settings = Settings {
        dns_servers: vec![OTHER],
        ntp_servers: vec![OTHER],
        domain: Some("example.org".to_owned()),
        extra,
        lease_time: input.one_of(&[86400, 0, 1, u32::MAX]),
        server_id: [7; 16],
    };
    Lease::new(CLIENT, addresses, &settings)
}

/// A likely message in a frame with a right checksum; with a few bytes changed, or cut.
fn frame(input: &mut Input<'_>) -> Vec<u8> {
    let mut message = vec![1 + input.byte() % 13, 1, 2, 3];
    // Most kinds must have an identifier of the client, half of them of the server too.
    if !input.one_of(&[false, false, false, true]) {
        Writer::new(&mut message).option(option::CLIENT_ID, &[0, 3, 0, 1, 0x52, 0x54, 0, 0, 0, 0x0a]);
    }
    if input.flag() {
        Writer::new(&mut message).option(option::SERVER_ID, &SERVER_ID);
    }
    for _ in 0..input.byte() % 6 {
        any_option(input, &mut message);
    }
    scratch(input, &mut message);
    for hops in 0..input.one_of(&[0u8, 0, 0, 1, 2, 9, 10]) {
        let mut outer = vec![12, hops];
        outer.extend([0x20; 32]);
        let mut writer = Writer::new(&mut outer);
        writer.option(option::CLIENT_LINK_LAYER, &[&[0, 1][..], &CLIENT.0].concat());
        if input.flag() {
            writer.option(option::INTERFACE_ID, input.bytes(3));
        }
        writer.option(option::RELAY_MESSAGE, &message);
        message = outer;
    }
    scratch(input, &mut message);
    let destination: Ipv6Addr = input
        .one_of(&["ff02::1:2", "ff02::1:2", "ff05::1:3", "fe80::a9fe:a9fe", "ff02::2"])
        .parse()
        .expect("an address");
    let protocol = input.one_of(&[17u8, 17, 17, 17, 17, 17, 58]);
    let mut payload = vec![2, 34, 2, 35];
    payload.extend(u16::try_from(8 + message.len()).unwrap_or(0).to_be_bytes());
    payload.extend([0, 0]);
    payload.extend(&message);
    if protocol == 58 {
        payload = vec![133, 0, 0, 0, 0, 0, 0, 0];
        payload.extend(input.bytes(16));
    }
    let mut frame = vec![0x33, 0x33, 0, 1, 0, 2];
    frame.extend(CLIENT.0);
    frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
    frame.extend(u16::try_from(payload.len()).unwrap_or(0).to_be_bytes());
    frame.extend([protocol, 255]);
    frame.extend([0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x0a]);
    frame.extend(destination.octets());
    let pseudo = words(&frame[22..54]) + payload.len() as u64 + u64::from(protocol);
    let whole = !fold(pseudo + words(&payload));
    let sum = if input.one_of(&[true, true, true, false]) { whole } else { fold(pseudo) };
    let field = if protocol == 17 { 6 } else { 2 };
    payload[field..field + 2].copy_from_slice(&if sum == 0 { [255, 255] } else { sum.to_be_bytes() });
    frame.extend(payload);
    if input.byte() % 8 == 7 {
        scratch(input, &mut frame);
    }
    frame
}

fn any_option(input: &mut Input<'_>, message: &mut Vec<u8>) {
    let mut writer = Writer::new(message);
    match input.byte() % 8 {
        kind @ 0..=4 => {
            let code = [option::IA_NA, option::IA_NA, option::IA_NA, option::IA_TA, option::IA_PD]
                [usize::from(kind)];
            let id = [0, 0, 0, input.byte()];
            let count = input.byte() % 3;
            writer.nested(code, |writer| {
                writer.raw(&id);
                writer.raw(if code == option::IA_TA { &[] } else { &[0; 8] });
                for _ in 0..count {
                    let address = input.one_of(&[OURS, OTHER]).octets();
                    writer.option(option::IA_ADDRESS, &[&address[..], &[0; 8]].concat());
                }
            });
        }
        5 => writer.option(option::REQUESTED, &[0, 23, 0, 24, 0, 39, 0, 56]),
        6 => writer.option(input.one_of(&[option::RAPID_COMMIT, option::FQDN]), input.bytes(4)),
        _ => {
            let len = usize::from(input.byte() % 40);
            writer.option(input.word(), input.bytes(len));
        }
    }
}

/// Changes a few bytes now and then, or cuts the end off.
fn scratch(input: &mut Input<'_>, bytes: &mut Vec<u8>) {
    for _ in 0..input.one_of(&[0u8, 0, 0, 0, 0, 1, 2]) {
        let at = usize::from(input.word()) % bytes.len().max(1);
        if let Some(byte) = bytes.get_mut(at) {
            *byte = input.byte();
        }
    }
    if input.byte() % 16 == 15 {
        let len = usize::from(input.word()) % (bytes.len() + 1);
        bytes.truncate(len);
    }
}

fn judge(frame: &[u8], reply: &[u8], lease: &Lease) {
    assert!(reply.len() <= MAX_REPLY);
    let packet = Packet::parse(reply).expect("a packet");
    assert_eq!((packet.source_mac, packet.source), (SERVICE_MAC, SERVICE_V6.into()));
    let asked = Packet::parse(frame).expect("a packet");
    assert_eq!((packet.destination_mac, packet.destination), (asked.source_mac, asked.source));
    packet.verified(17).expect("a right checksum");
    let (mut asked, mut bytes) = (&asked.payload[8..], &packet.payload[8..]);
    while asked[0] == 12 {
        let (from, to) =
            (Relay::new_checked(asked).expect("a relay"), Relay::new_checked(bytes).expect("a relay"));
        assert_eq!((to.number, to.hop_count, to.link, to.peer), (13, from.hop_count, from.link, from.peer));
        assert_eq!(to.options.get(option::INTERFACE_ID), from.options.get(option::INTERFACE_ID));
        asked = from.options.get(option::RELAY_MESSAGE).expect("a message");
        bytes = to.options.get(option::RELAY_MESSAGE).expect("a message");
    }
    let (asked, message) =
        (Message::new_checked(asked).expect("one"), Message::new_checked(bytes).expect("one"));
    assert_eq!(message.transaction, asked.transaction);
    assert!(matches!(message.number, 2 | 7));
    assert_eq!(message.options.get(option::SERVER_ID), Some(&SERVER_ID[..]));
    assert_eq!(message.options.get(option::CLIENT_ID), asked.options.get(option::CLIENT_ID));
    for (code, value) in message.options.iter() {
        if matches!(code, option::IA_NA | option::IA_TA | option::IA_PD) {
            let association = Association::new_checked(code, value).expect("an association");
            for (_, value) in association.options.iter().filter(|(code, _)| *code == option::IA_ADDRESS) {
                let address: [u8; 16] = value[..16].try_into().expect("16 bytes");
                let lives = value[20..24] != [0; 4];
                assert!(!lives || lease.addresses().contains(&address.into()), "somebody else's address");
            }
        }
    }
}

fn solicit(frame: &[u8]) {
    if let Ok(to) = ra::solicited(frame) {
        let facts = Advertisement { mtu: 1500, lifetime: ra::LIFETIME, ..Advertisement::default() };
        let message = ra::advertisement(SERVICE_MAC, SERVICE_V6, Some(to), &facts, false);
        let packet = Packet::parse(&message).expect("a packet");
        assert_eq!(packet.destination_mac, CLIENT);
        assert_eq!(packet.verified(58).expect("a right checksum")[..2], [134, 0]);
    }
}

fn words(bytes: &[u8]) -> u64 {
    bytes.chunks(2).map(|pair| u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0))).sum()
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap_or(0)
}
