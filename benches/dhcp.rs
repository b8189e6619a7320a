//! DHCPv4 on frames in memory: cycles (of the time stamp counter) from a client's frame to the reply's, beside criterion's
//! nanoseconds.
//!
//! `cargo bench --bench dhcp`. Fixed leases of many ports are asked for in turn, so that none stays in the nearest cache; a pool
//! is asked by clients that it has not heard of, and takes their addresses back when it is full. All of the checksums is counted.

#![allow(clippy::cast_possible_truncation)] // small numbers

use std::net::Ipv4Addr;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use nuswitch::services::dhcp4::pool::{self, Config, Limits, Pool};
use nuswitch::services::dhcp4::{Answered, Lease, Settings, answer};
use nuswitch::services::{SERVICE_MAC, SERVICE_V4};
use nuswitch::sys::cycles;
use nuswitch::types::{Mac, PortIdx};
use nuswitch::wire::checksum::{Sum, pseudo_v4};
use nuswitch::wire::dhcp4::{COOKIE, MessageType, put_option};

const PORTS: u32 = 1024;
const BATCH: u32 = 32;

fn mac(n: u32) -> Mac {
    let [a, b, c, d] = n.to_be_bytes();
    Mac([0x02, 0x01, a, b, c, d])
}

fn address(n: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x0a00_0010 + n)
}

fn settings() -> Settings {
    Settings {
        prefix_len: 8,
        router: Some([10, 0, 0, 1].into()),
        dns_servers: vec![[10, 0, 0, 2].into(), [10, 0, 0, 3].into()],
        ntp_servers: vec![[10, 0, 0, 4].into()],
        domain: Some("lab.example".to_owned()),
        hostname: Some("host-10-0-0-16".to_owned()),
        mtu: 1450,
        routes: vec![
            ("169.254.169.254/32".parse().expect("a network"), [10, 0, 0, 1].into()),
            ("0.0.0.0/0".parse().expect("a network"), [10, 0, 0, 1].into()),
        ],
        lease_time: 86_400,
        extra: Vec::new(),
    }
}

/// As ISC's dhclient asks.
fn frame(kind: MessageType, n: u32, wanted: Option<Ipv4Addr>) -> Vec<u8> {
    let mut message = vec![1, 1, 6, 0];
    message.extend(n.to_be_bytes());
    message.resize(28, 0);
    message.extend(mac(n).0);
    message.resize(236, 0);
    message.extend(COOKIE);
    put_option(&mut message, 53, &[kind as u8]);
    if let Some(address) = wanted {
        put_option(&mut message, 54, &SERVICE_V4.octets());
        put_option(&mut message, 50, &address.octets());
    }
    put_option(&mut message, 12, b"guest");
    put_option(&mut message, 55, &[1, 28, 2, 121, 15, 6, 12, 40, 41, 42, 26, 119, 3]);
    put_option(&mut message, 61, &[&[1][..], &mac(n).0].concat());
    message.push(255);
    message.resize(300, 0);
    let len = message.len() as u16 + 8;
    let mut bytes = [Mac::BROADCAST.0, mac(n).0].concat();
    bytes.extend([8, 0, 0x45, 0x10]);
    bytes.extend((len + 20).to_be_bytes());
    bytes.extend([0, 0, 0, 0, 64, 17, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255]);
    let sum = Sum::of(&bytes[14..]).checksum().to_be_bytes();
    bytes[24..26].copy_from_slice(&sum);
    bytes.extend([0, 68, 0, 67]);
    bytes.extend(len.to_be_bytes());
    bytes.extend([0, 0]);
    bytes.extend(message);
    let sum = pseudo_v4(Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST, 17, len) + Sum::of(&bytes[34..]);
    bytes[40..42].copy_from_slice(&sum.checksum().to_be_bytes());
    bytes
}

/// Runs batches of `act`, each with its number, and prints the median of cycles for one.
fn run(c: &mut Criterion, name: &str, mut act: impl FnMut(u32)) {
    let (mut n, mut samples) = (0, Vec::with_capacity(1 << 20));
    c.bench_function(name, |b| {
        b.iter(|| {
            let before = cycles();
            (n..n + BATCH).for_each(&mut act);
            if samples.len() < samples.capacity() {
                samples.push((cycles() - before) as f32 / BATCH as f32);
            }
            n = n.wrapping_add(BATCH);
        });
    });
    if samples.is_empty() {
        return; // criterion's filter left this bench out
    }
    samples.sort_by(f32::total_cmp);
    let at = |share: f64| samples[(samples.len() as f64 * share) as usize];
    println!("{name}: {:.0} cycles (median; a tenth of the batches below {:.0})", at(0.5), at(0.1));
}

fn fixed(c: &mut Criterion) {
    let leases: Vec<Lease> = (0..PORTS).map(|n| Lease::new(mac(n), address(n), &settings())).collect();
    for (name, kind) in [("DISCOVER", MessageType::Discover), ("REQUEST", MessageType::Request)] {
        let wanted = |n| (kind == MessageType::Request).then(|| address(n));
        let frames: Vec<Vec<u8>> = (0..PORTS).map(|n| frame(kind, n, wanted(n))).collect();
        let mut reply = Vec::with_capacity(2048);
        run(c, &format!("{name} of a fixed lease"), |n| {
            let n = (n % PORTS) as usize;
            let done = answer(&frames[n], &leases[n..=n], 1450, &mut reply);
            assert!(matches!(done, Ok(Answered::Offer { .. } | Answered::Ack { .. })));
            assert_eq!((reply.first_chunk(), &reply[6..12]), (Some(&mac(n as u32).0), &SERVICE_MAC.0[..]));
        });
    }
    let foreign = frame(MessageType::Discover, PORTS, None);
    let mut reply = Vec::new();
    run(c, "DISCOVER of another client, refused", |n| {
        let n = (n % PORTS) as usize;
        assert!(answer(&foreign, &leases[n..=n], 1450, &mut reply).is_err());
    });
}

fn dynamic(c: &mut Criterion) {
    let limits = Limits { entries: 65_536, offers: 64, leases: 65_536, declined: 16 };
    let config = Config {
        subnet: "10.0.0.0/8".parse().expect("a network"),
        network: Vec::new(),
        ranges: vec![(address(0), address(65_535))],
        reserved: Vec::new(),
        limits,
    };
    let (mut pool, settings, mut reply, mut now) = (Pool::new(config), settings(), Vec::new(), 0);
    run(c, "DISCOVER and REQUEST of a new client, pool of 65536", |n| {
        now += u64::from(n.is_multiple_of(2)); // two seconds for each: leases end before the pool does
        let discover = frame(MessageType::Discover, n, None);
        let (done, _) =
            pool::answer(&discover, &mut pool, &settings, PortIdx(0), now * 4, &mut reply).expect("an offer");
        let Answered::Offer { address, .. } = done else { panic!("{done}") };
        let request = frame(MessageType::Request, n, Some(address));
        let (done, change) =
            pool::answer(&request, &mut pool, &settings, PortIdx(0), now * 4, &mut reply).expect("a lease");
        assert!(matches!(done, Answered::Ack { .. }) && change.is_some());
    });
}

fn dhcp(c: &mut Criterion) {
    fixed(c);
    dynamic(c);
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    targets = dhcp
}
criterion_main!(benches);
