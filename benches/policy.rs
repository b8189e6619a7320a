//! Rules of security groups alone: cycles per look-up (of the time stamp counter) beside criterion's nanoseconds, and how
//! long it takes to compile them.
//!
//! `cargo bench --bench policy`. Look-ups come in bursts of 32, of packets at random; half of them are admitted, about.

#![allow(clippy::cast_possible_truncation)] // small numbers

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ipnet::IpNet;
use nuswitch::sys::cycles;
use nuswitch::tables::policy::{Ethertype, Members, Packet, Remote, Rule, RuleSet};

const BURST: usize = 32;
const TCP: u8 = 6;
const UDP: u8 = 17;
/// Members of each of sixteen groups.
const MEMBERS: u32 = 625;

struct Random(u32);

impl Random {
    fn below(&mut self, bound: u32) -> u32 {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        ((u64::from(self.0) * u64::from(bound)) >> 32) as u32
    }
}

/// The `n`th address of a plan, in one IP version or the other.
fn address(ethertype: Ethertype, n: u32) -> IpAddr {
    match ethertype {
        Ethertype::V4 => Ipv4Addr::from_bits(0x0a00_0000 + n).into(),
        Ethertype::V6 => Ipv6Addr::from_bits(0x2001_0db8 << 96 | u128::from(n)).into(),
    }
}

/// A prefix that holds 16 addresses of the plan.
fn sixteen(ethertype: Ethertype, n: u32) -> IpNet {
    let first = address(ethertype, n * 16);
    IpNet::new(first, if first.is_ipv4() { 28 } else { 124 }).expect("a length that fits")
}

fn rule(ethertype: Ethertype, ports: (u16, u16), remote: Remote) -> Rule {
    Rule { ethertype, protocol: Some(TCP), ports: Some(ports), icmp: None, remote }
}

fn port(n: u32) -> u16 {
    1 + (n * 6 % 60_000) as u16
}

/// A set of rules, and the packets that it is asked about.
struct Plan {
    name: &'static str,
    rule: fn(Ethertype, u32, u32) -> Rule,
    packet: fn(&mut Random, u32) -> (u32, u16),
}

/// Of `count` rules the `n`th.
const PLANS: &[Plan] = &[
    Plan {
        name: "distinct ports",
        rule: |ethertype, n, _| rule(ethertype, (port(n), port(n)), Remote::Any),
        packet: |random, count| (random.below(1 << 20), port(random.below(count)) + random.below(2) as u16),
    },
    Plan {
        name: "distinct prefixes",
        rule: |ethertype, n, _| rule(ethertype, (22, 22), Remote::Prefixes(vec![sixteen(ethertype, n * 2)])),
        packet: |random, count| (random.below(count * 32), 22),
    },
    Plan {
        name: "ports for groups",
        rule: |ethertype, n, _| rule(ethertype, (port(n), port(n)), Remote::Group(n % 16)),
        packet: |random, count| {
            let n = random.below(count);
            let group = (n + random.below(2)) % 16;
            (random.below(MEMBERS) * 16 + group, port(n))
        },
    },
    Plan {
        name: "nested ranges, a prefix each",
        rule: |ethertype, n, count| {
            let width = (n * (30_000 / count.max(1)).max(1)) as u16 % 30_000;
            rule(ethertype, (width, 65_535 - width), Remote::Prefixes(vec![sixteen(ethertype, n * 2)]))
        },
        packet: |random, count| (random.below(count * 32), random.below(65_536) as u16),
    },
];

/// As many rules as asked for, and what every set has besides: all to and from members, and one more protocol.
fn rules(plan: &Plan, ethertype: Ethertype, count: u32) -> Vec<Rule> {
    let own = (0..count - 2).map(|n| (plan.rule)(ethertype, n, count));
    let group = Rule { ethertype, protocol: None, ports: None, icmp: None, remote: Remote::Group(99) };
    let other = Rule { ethertype, protocol: Some(UDP), ports: None, icmp: None, remote: Remote::Any };
    own.chain([group, other]).collect()
}

fn members(ethertype: Ethertype) -> Members {
    let of = |n: u32| (n % 16, IpNet::from(address(ethertype, n)));
    Members::new((0..16 * MEMBERS).map(of))
}

fn look_up(c: &mut Criterion, plan: &Plan, ethertype: Ethertype, count: u32) {
    let name = format!("{}, {count} rules, {ethertype:?}", plan.name);
    let (rules, members) = (RuleSet::compile(&rules(plan, ethertype, count)), members(ethertype));
    let (mut samples, mut random, mut admitted) = (Vec::new(), Random(1), 0);
    let mut group = c.benchmark_group("policy");
    group.throughput(Throughput::Elements(BURST as u64));
    group.bench_function(&name, |b| {
        b.iter(|| {
            let packets: [Packet; BURST] = std::array::from_fn(|_| {
                let (remote, port) = (plan.packet)(&mut random, count);
                Packet { remote: address(ethertype, remote), protocol: TCP, port }
            });
            let packets = black_box(packets);
            let before = cycles();
            let passed = packets.iter().filter(|packet| rules.admits(packet, &members).is_some()).count();
            samples.push((cycles() - before) as f32 / BURST as f32);
            admitted += passed;
        });
    });
    group.finish();
    if samples.is_empty() {
        return; // criterion's filter left this bench out
    }
    let share = admitted as f64 / (samples.len() * BURST) as f64;
    samples.sort_by(f32::total_cmp);
    let at = |share: f64| samples[(samples.len() as f64 * share) as usize];
    println!(
        "{name}: {:.1} cycles (median; a tenth of the bursts below {:.1}); {:.0} % admitted",
        at(0.5),
        at(0.1),
        share * 100.0
    );
}

fn compile(c: &mut Criterion) {
    for plan in PLANS {
        for count in [10, 1000, 10_000] {
            let rules = rules(plan, Ethertype::V4, count);
            c.bench_function(&format!("compile {}, {count} rules", plan.name), |b| {
                b.iter(|| RuleSet::compile(black_box(&rules)));
            });
        }
    }
    for ethertype in [Ethertype::V4, Ethertype::V6] {
        c.bench_function(&format!("members, 10000 addresses, {ethertype:?}"), |b| {
            b.iter(|| members(black_box(ethertype)));
        });
    }
}

fn policy(c: &mut Criterion) {
    for plan in PLANS {
        for count in [10, 1000, 10_000] {
            for ethertype in [Ethertype::V4, Ethertype::V6] {
                look_up(c, plan, ethertype, count);
            }
        }
    }
    compile(c);
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    targets = policy
}
criterion_main!(benches);
