//! Port security and security groups on frames in memory: cycles per packet (of the time stamp counter) beside criterion's
//! nanoseconds, and how long rules take to compile.
//!
//! `cargo bench --bench security`. Packets come in bursts of 32, out and back by halves, from bridging in to bridging out: what
//! a line says more than the one without security is what that costs. `[[port]]`s of both ends have port security and a
//! group of as many rules as the line says, of which the last one lets the packets in.

#![allow(clippy::cast_possible_truncation)] // small numbers

mod burst;

use std::collections::HashMap;
use std::fmt::Write;
use std::hint::black_box;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use burst::{Bench, CAPS, port_of, tables_of};
use criterion::{Criterion, criterion_group, criterion_main};
use nuswitch::dataplane::security;
use nuswitch::frame::{BURST, Burst};
use nuswitch::model::{self, AttachmentKey, Model};
use nuswitch::tables::compile::{Device, Places, compile};
use nuswitch::types::{Mac, PortIdx, WorkerIdx};
use nuswitch::wire::checksum::Sum;

const UDP: u8 = 17;
const TCP: u8 = 6;
const SYN: u8 = 2;
const ACK: u8 = 16;
/// What the rules let in.
const SERVICE: u16 = 60_000;
const MACS: [Mac; 2] = [Mac([0x52, 0x54, 0, 0, 0, 0xa]), Mac([0x52, 0x54, 0, 0, 0, 0xb])];
const V4: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 0, 0, 10), Ipv4Addr::new(10, 0, 0, 11)];
const V6: [Ipv6Addr; 2] =
    [Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0xa), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0xb)];

const NETWORK: &str = r#"
[conntrack]
max_entries = 262144
max_entries_per_guest = 131072
max_new_per_guest = 100000000
[[network]]
name = "blue"
[[subnet]]
name = "v4"
network = "blue"
cidr = "10.0.0.0/16"
enable_dhcp = false
[[subnet]]
name = "v6"
network = "blue"
cidr = "2001:db8::/64"
enable_dhcp = false
"#;

/// `count` rules: all out, and in to as many services, to each from anybody, a prefix or the group's members by turns; the
/// last is [`SERVICE`] from anybody.
fn rules(count: u32) -> String {
    let mut rules = "{ direction = \"egress\" }".to_owned();
    for n in 2..count {
        let protocol = ["tcp", "udp"][n as usize % 2];
        let remote = match n % 3 {
            0 => format!(", remote = \"172.16.{}.0/24\"", n % 256),
            1 => ", remote_group = \"web\"".to_owned(),
            _ => String::new(),
        };
        let _ = write!(
            rules,
            ", {{ direction = \"ingress\", ethertype = \"IPv4\", protocol = \"{protocol}\", ports = \"{}\"{remote} }}",
            1 + n * 5 % 59_000
        );
    }
    for protocol in ["tcp", "udp"] {
        let _ = write!(
            rules,
            ", {{ direction = \"ingress\", protocol = \"{protocol}\", ports = \"{SERVICE}\", remote = \"10.0.0.0/16\" }}, \
             {{ direction = \"ingress\", protocol = \"{protocol}\", ports = \"{SERVICE}\", remote = \"2001:db8::/64\" }}"
        );
    }
    rules
}

/// Two guests, with port security and as many rules; or without any.
fn lab(security: Option<u32>) -> Lab {
    let mut text = NETWORK.to_owned();
    if let Some(count) = security {
        let _ = write!(text, "[[security_group]]\nname = \"web\"\nrules = [{}]\n", rules(count));
    }
    let words = match security {
        Some(_) => "port_security_enabled = true\nsecurity_groups = [\"web\"]",
        None => "port_security_enabled = false",
    };
    for (n, name) in ["a", "b"].into_iter().enumerate() {
        let _ = write!(
            text,
            "[[port]]\nname = \"{name}\"\nnetwork = \"blue\"\nmac_address = \"{}\"\nfixed_ips = [\"{}\", \"{}\"]\n{words}\n\
             interface = {{ kind = \"tap\", name = \"{name}\" }}\n",
            MACS[n], V4[n], V6[n]
        );
    }
    let tables = tables_of(&text, MACS[0]);
    let ports = ["a", "b"].map(|name| port_of(&tables, name));
    let mut bench = Bench::new(tables);
    security::configure(&bench.tables, &mut bench.shard, WorkerIdx(0));
    assert_eq!(bench.shard.security.is_some(), security.is_some());
    Lab { bench, ports }
}

struct Lab {
    bench: Bench,
    ports: [PortIdx; 2],
}

/// What packets are made of.
#[derive(Clone, Copy)]
struct Kind {
    is_v6: bool,
    protocol: u8,
}

impl Kind {
    fn name(self) -> String {
        let protocol = if self.protocol == TCP { "TCP" } else { "UDP" };
        format!("{protocol} over IPv{}", if self.is_v6 { 6 } else { 4 })
    }

    /// Of the `n`th connection, from one guest to the other: with these flags, and the numbers of a sender that has sent a SYN.
    fn packet(self, n: u32, from: usize, flags: u8) -> Vec<u8> {
        let client = (1024 + n % 50_000) as u16;
        let to = 1 - from;
        let ports = if from == 0 { [client, SERVICE] } else { [SERVICE, client] };
        let mut transport: Vec<u8> = ports.iter().flat_map(|port| port.to_be_bytes()).collect();
        if self.protocol == TCP {
            let seq = 1000 + u32::from(flags & SYN == 0);
            let ack = if flags & ACK == 0 { 0u32 } else { 1001 };
            transport.extend([seq.to_be_bytes(), ack.to_be_bytes()].concat());
            transport.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
        } else {
            transport.extend([0, 26, 0, 0]);
            transport.resize(26, 0);
        }
        let len = transport.len() as u16;
        let mut bytes = [MACS[to].0, MACS[from].0].concat();
        if self.is_v6 {
            bytes.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            bytes.extend(len.to_be_bytes());
            bytes.extend([self.protocol, 64]);
            bytes.extend([V6[from].octets(), V6[to].octets()].concat());
        } else {
            bytes.extend([8, 0, 0x45, 0]);
            bytes.extend((20 + len).to_be_bytes());
            bytes.extend([0, 0, 0x40, 0, 64, self.protocol, 0, 0]);
            bytes.extend([V4[from].octets(), V4[to].octets()].concat());
            let sum = Sum::of(&bytes[14..]).checksum().to_be_bytes();
            bytes[24..26].copy_from_slice(&sum);
        }
        bytes.extend(transport);
        bytes.resize(bytes.len().max(60), 0);
        bytes
    }
}

impl Lab {
    fn burst(&mut self, from: usize, packets: impl Iterator<Item = Vec<u8>>) {
        let mut frames: Burst =
            packets.take(BURST).filter_map(|bytes| self.bench.shard.pool.frame_from(&bytes)).collect();
        self.bench.send(&mut frames, self.ports[from]);
        self.bench.shard.events.clear();
        self.bench.collect();
    }

    /// Connections of which both ends have agreed.
    fn establish(&mut self, kind: Kind, connections: u32) {
        for n in 0..connections {
            self.burst(0, std::iter::once(kind.packet(n, 0, SYN)));
            self.burst(1, std::iter::once(kind.packet(n, 1, SYN | ACK)));
            self.burst(0, std::iter::once(kind.packet(n, 0, ACK)));
        }
        self.bench.samples.clear();
    }

    fn forwarded(&self) -> u64 {
        let port =
            |port: PortIdx| self.bench.tables.port(port).map_or(0, |port| port.counters.forwarded.get());
        self.ports.map(port).iter().sum()
    }
}

fn established(c: &mut Criterion, kind: Kind, security: Option<u32>, connections: u32) {
    let label = match security {
        None => format!("{}, no security", kind.name()),
        Some(rules) => format!("{}, {rules} rules, {connections} connections", kind.name()),
    };
    let mut prepared = None;
    c.bench_function(&label, |b| {
        let (lab, packets, at, sent) = prepared.get_or_insert_with(|| {
            let mut lab = lab(security);
            lab.establish(kind, connections);
            let packets: [Vec<Vec<u8>>; 2] =
                [0, 1].map(|from| (0..connections).map(|n| kind.packet(n, from, ACK)).collect());
            let sent = lab.forwarded();
            (lab, packets, 1u32, sent)
        });
        b.iter(|| {
            let from = (*at >> 31) as usize;
            let next = |_| {
                *at = at.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                packets[from][((u64::from(*at) * u64::from(connections)) >> 32) as usize].clone()
            };
            lab.burst(from, (0..BURST).map(next));
            *sent += BURST as u64;
        });
    });
    if let Some((mut lab, _, _, sent)) = prepared {
        assert_eq!(lab.forwarded(), sent, "all pass");
        lab.bench.report(&label);
    }
}

/// New connections, as many as a guest may have, over and over.
fn first(c: &mut Criterion, kind: Kind, count: u32) {
    let label = format!("first packet, {}, {count} rules", kind.name());
    let mut prepared = None;
    c.bench_function(&label, |b| {
        let (lab, at) = prepared.get_or_insert_with(|| (lab(Some(count)), 0u32));
        b.iter(|| {
            let next = |_| {
                *at += 1;
                kind.packet(*at, 0, SYN)
            };
            lab.burst(0, (0..BURST).map(next));
            if at.is_multiple_of(49_984) {
                lab.forget();
                *at = 0;
            }
        });
    });
    if let Some((mut lab, _)) = prepared {
        lab.bench.report(&label);
    }
}

impl Lab {
    /// Lets all connections end.
    fn forget(&mut self) {
        let Bench { tables, shard, out, now, .. } = &mut self.bench;
        now.0 += 10_000_000_000_000;
        while shard.security.as_ref().is_some_and(|security| !security.tracker.is_empty()) {
            security::poll(tables, shard, *now, out);
        }
    }
}

const PORTS: u32 = 1000;

/// A thousand ports, each with a group of ten rules of its own, some about another's members. `change`: of the first group's
/// rules; `joins`: the first port is in the second group too.
fn thousand(change: bool, joins: bool) -> Model {
    let mut text = NETWORK.to_owned();
    for n in 0..PORTS {
        let mut rules = "{ direction = \"egress\" }".to_owned();
        for rule in 1..10 {
            let port = 1000 + rule * 100 + n % 100 + u32::from(change && n == 0 && rule == 1) * 7;
            let remote = match rule % 3 {
                0 => format!("remote = \"172.{}.0.0/16\"", n % 256),
                1 => format!("remote_group = \"g{}\"", (n + 1) % PORTS),
                _ => "ethertype = \"IPv6\"".to_owned(),
            };
            let _ = write!(
                rules,
                ", {{ direction = \"ingress\", protocol = \"tcp\", ports = \"{port}\", {remote} }}"
            );
        }
        let [high, low] = (n as u16 + 10).to_be_bytes();
        let also = if joins && n == 0 { ", \"g2\"" } else { "" };
        let _ = write!(
            text,
            "[[security_group]]\nname = \"g{n}\"\nrules = [{rules}]\n\
             [[port]]\nname = \"p{n}\"\nnetwork = \"blue\"\nmac_address = \"52:54:00:00:{high:02x}:{low:02x}\"\n\
             fixed_ips = [\"10.0.{high}.{low}\", \"2001:db8::{high:x}:{low:x}\"]\nsecurity_groups = [\"g{n}\"{also}]\n\
             interface = {{ kind = \"tap\", name = \"t{n}\" }}\n"
        );
    }
    model::load(&text, "bench.toml").unwrap_or_else(|found| panic!("{}", found[0]))
}

fn compiling(c: &mut Criterion) {
    let [plain, changed, joined] =
        [(false, false), (true, false), (false, true)].map(|(change, joins)| thousand(change, joins));
    let device =
        || Device { worker: WorkerIdx(0), up: true, caps: CAPS, mac: None, counters: Arc::default() };
    let devices: HashMap<AttachmentKey, Device> =
        plain.attachments().map(|attachment| (attachment.key, device())).collect();
    c.bench_function("compile 10000 rules over 1000 ports", |b| {
        b.iter(|| compile(black_box(&plain), &devices, &mut Places::default(), 1));
    });
    for (what, other) in [("nothing", &plain), ("one rule", &changed), ("one member", &joined)] {
        let mut places = Places::default();
        let mut tables = compile(&plain, &devices, &mut places, 1);
        let mut turn = false;
        c.bench_function(&format!("{what} of them changes"), |b| {
            b.iter(|| {
                turn = !turn;
                tables = compile(black_box(if turn { other } else { &plain }), &devices, &mut places, 2);
            });
        });
        black_box(&tables);
    }
}

fn security_path(c: &mut Criterion) {
    compiling(c);
    for is_v6 in [false, true] {
        for protocol in [UDP, TCP] {
            let kind = Kind { is_v6, protocol };
            established(c, kind, None, 1);
            for rules in [10, 10_000] {
                for connections in [1, 10_000] {
                    established(c, kind, Some(rules), connections);
                }
            }
            first(c, kind, 1000);
        }
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    targets = security_path
}
criterion_main!(benches);
