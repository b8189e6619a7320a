//! A router with two networks, SNAT or none, a floating IP, a forwarded port and IPv6, and hostile packets from all sides:
//! - a frame ends once where it arrived, and what a router takes in ends there or at an interface that it leaves by;
//! - what the router sends has a right header, fits the device, and comes from the router's MAC on that network;
//! - nothing that came from inside leaves by the external network with an inside source address while there is SNAT, nor
//!   does an ICMP error from inside quote one;
//! - connections, bindings and fragments are gone when their time is over, and every chunk comes back.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt::Write;
use std::sync::Arc;

use nuswitch::dataplane::fdb::Fdb;
use nuswitch::dataplane::gateway::Gateways;
use nuswitch::dataplane::out::Out;
use nuswitch::dataplane::router::neighbours::Neighbours;
use nuswitch::dataplane::tracer::Explain;
use nuswitch::dataplane::{Shard, gateway, process};
use nuswitch::frame::{Burst, Caps, Frame, Offload, Pool};
use nuswitch::model::{self, AttachmentKey};
use nuswitch::stats::{PortCounters, PortSnapshot};
use nuswitch::tables::Tables;
use nuswitch::tables::compile::{Device, Places, compile};
use nuswitch::types::{Instant, Mac, PortIdx, WorkerIdx};

use super::input::{Input, note};
use super::packets::{Packet, checksum_at, options, sum, transport, transport_sum, word};

const CHUNKS: (u32, u32) = (512, 8);
pub const GUESTS: [(&str, &str, [u8; 4]); 4] = [
    ("a", "blue", [10, 0, 0, 10]),
    ("b", "blue", [10, 0, 0, 11]),
    ("c", "red", [10, 0, 1, 12]),
    ("w", "public", [203, 0, 113, 1]),
];
const ROUTER: [Mac; 3] = [Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2]), Mac([2, 0, 0, 0, 0, 0xee])];
const SNAT: [u8; 4] = [203, 0, 113, 100];
const FLOATING: [u8; 4] = [203, 0, 113, 150];
const FORWARDED: [u8; 4] = [203, 0, 113, 151];

/// That of the interface for IPv6.
fn mac_v6(port: usize) -> Mac {
    [Mac([2, 0, 0, 0, 6, 1]), Mac([2, 0, 0, 0, 6, 1]), Mac([2, 0, 0, 0, 6, 2]), ROUTER[2]][port]
}

/// A port's MAC, and that of the router on its network.
pub fn macs(port: usize) -> (Mac, Mac) {
    let own = Mac([0x52, 0x54, 0, 0, 0, b'a' + u8::try_from(port).unwrap_or(0)]);
    (own, ROUTER[[0, 0, 1, 2][port]])
}

/// One of a few configurations, and whether its router has SNAT.
pub fn text(choice: u8) -> (String, bool) {
    let snat = choice % 4 != 3;
    let filtering =
        ["address-and-port-dependent", "endpoint-independent", "address-dependent"][usize::from(choice % 3)];
    let (clamp, mtu) = (choice & 1 == 1, [1500, 1400, 1280][usize::from(choice / 8 % 3)]);
    let mut text = String::new();
    for (name, mtu, v4, v6, more) in [
        (
            "public",
            1500,
            "203.0.113.0/24",
            "2001:db8:a::/64",
            "allocation_pools = [\"203.0.113.100-203.0.113.199\"]",
        ),
        ("blue", 1500, "10.0.0.0/24", "2001:db8:b::/64", ""),
        ("red", mtu, "10.0.1.0/24", "2001:db8:c::/64", ""),
    ] {
        let _ = write!(
            text,
            "[[network]]\nname = \"{name}\"\nmtu = {mtu}\nexternal = {}\n\
             [[subnet]]\nname = \"{name}-v4\"\nnetwork = \"{name}\"\ncidr = \"{v4}\"\n{more}\n\
             [[subnet]]\nname = \"{name}-v6\"\nnetwork = \"{name}\"\ncidr = \"{v6}\"\n",
            name == "public"
        );
    }
    let _ = write!(
        text,
        "[[router]]\nname = \"r\"\nnat_filtering = \"{filtering}\"\nmss_clamping = {clamp}\n\
         external_gateway = {{ network = \"public\", mac_address = \"{}\", enable_snat = {snat}, \
         external_fixed_ips = [\"203.0.113.100\", \"2001:db8:a::2\"] }}\n\
         interfaces = [{{ subnet = \"blue-v4\", mac_address = \"{}\" }}, {{ subnet = \"red-v4\", mac_address = \"{}\" }}, \
         {{ subnet = \"blue-v6\", mac_address = \"02:00:00:00:06:01\" }}, {{ subnet = \"red-v6\", mac_address = \"02:00:00:00:06:02\" }}]\n",
        ROUTER[2], ROUTER[0], ROUTER[1]
    );
    for (n, (name, network, [.., last])) in GUESTS.iter().enumerate() {
        let _ = write!(
            text,
            "[[port]]\nname = \"{name}\"\nnetwork = \"{network}\"\nmac_address = \"{}\"\n\
             interface = {{ kind = \"packet\", name = \"{name}\" }}\n",
            macs(n).0
        );
        let _ = match *name {
            "w" => writeln!(text, "fixed_ips = []"),
            "c" => writeln!(text, "fixed_ips = [\"10.0.1.{last}\", \"2001:db8:c::{last}\"]"),
            _ => writeln!(text, "fixed_ips = [\"10.0.0.{last}\", \"2001:db8:b::{last}\"]"),
        };
    }
    text += "[[floating_ip]]\nfloating_network = \"public\"\nfloating_ip_address = \"203.0.113.150\"\nport = \"b\"\n\
             [[floating_ip]]\nfloating_network = \"public\"\nfloating_ip_address = \"203.0.113.151\"\n\
                 port_forwardings = [{ protocol = \"tcp\", external_port = 8080, port = \"c\", internal_port = 80 }, \
                 { protocol = \"udp\", external_port = 53, port = \"a\", internal_port = 53 }]\n";
    (text, snat)
}

thread_local! {
    static SCENES: RefCell<HashMap<u8, Scene>> = RefCell::new(HashMap::new());
}

struct Scene {
    devices: HashMap<AttachmentKey, Device>,
    ports: [PortIdx; 4],
    interfaces: Vec<Arc<PortCounters>>,
    tables: Tables,
    shard: Shard,
    out: Out,
    now: Instant,
    snat: bool,
    epoch: u64,
    /// The last frame that left by each port: to be answered, or to be told about.
    last: [Vec<u8>; 4],
    explain: Explain,
}

impl Scene {
    fn new(choice: u8) -> Scene {
        let (text, snat) = text(choice);
        let mut model = model::load(&text, "fuzz.toml")
            .unwrap_or_else(|mistakes| panic!("{}", mistakes[0].render(&text)));
        (model.conntrack.max_entries, model.conntrack.max_entries_per_guest) =
            if choice & 2 == 2 { (16, 4) } else { (1024, 256) };
        let devices = model.attachments().map(|device| {
            let able = device.key == AttachmentKey::Port("ab"[usize::from(choice & 1)..][..1].to_owned());
            let caps = Caps { checksum: able, tso: able, uso: able, mtu: 1500 };
            (device.key, Device { worker: WorkerIdx(0), up: true, caps, mac: None, counters: Arc::default() })
        });
        let devices: HashMap<AttachmentKey, Device> = devices.collect();
        let mut places = Places::default();
        let tables = compile(&model, &devices, &mut places, 1);
        let port =
            |name: &str| PortIdx(places.ports.get(&AttachmentKey::Port(name.to_owned())).expect("a port"));
        let mut out = Out::default();
        out.make_room(tables.ports.len());
        Scene {
            ports: GUESTS.map(|(name, ..)| port(name)),
            devices,
            interfaces: interfaces(&tables),
            shard: Shard::new(Pool::with_chunks(CHUNKS.0, CHUNKS.1).expect("memory"), 7),
            tables,
            out,
            now: Instant(1_000_000_000_000),
            snat,
            epoch: 0,
            last: Default::default(),
            explain: Explain::default(),
        }
    }

    /// Forgets who is where.
    fn begin(&mut self) {
        self.shard.fdb = Fdb::new(64, 300, 7);
        self.shard.neighbours = Neighbours::new(7);
        self.shard.gateways = Gateways::default();
        self.epoch += 1;
        self.tables.fdb_epoch = self.epoch;
        self.last = Default::default();
        self.shard.sync(&self.tables);
        gateway::configure(&self.tables, &mut self.shard, WorkerIdx(0), self.now, &mut self.out);
        self.deliver(None);
    }

    fn dropped(&self) -> u64 {
        self.interfaces.iter().map(|counters| counters.snapshot().dropped()).sum()
    }

    fn device(&self, port: usize) -> &Device {
        &self.devices[&AttachmentKey::Port(GUESTS[port].0.to_owned())]
    }

    /// What interfaces took in, and how frames ended at them.
    fn totals(&mut self) -> (u64, u64) {
        self.shard.tally.flush(&self.tables);
        let (mut taken, mut ended) = (0, 0);
        for counters in &self.interfaces {
            let counts = counters.snapshot();
            assert!(
                counts.forwarded + counts.flooded <= counts.rx_frames,
                "sent without having come from the router"
            );
            let not_sent = counts.dropped() + counts.answered;
            assert!(
                counts.forwarded + counts.flooded + not_sent >= counts.rx_frames,
                "came from the router to no end"
            );
            taken += counts.tx_frames;
            ended += ends(&counts);
        }
        (taken, ended)
    }

    fn pass(&mut self, seconds: u64) {
        self.now = Instant(self.now.0 + seconds * 1_000_000_000);
        let seconds = u32::try_from(self.now.secs()).expect("not so late");
        while self.shard.nat.as_mut().is_some_and(|nat| nat.sweep(seconds)) {}
        self.shard.fdb.sweep(self.now.0);
        self.shard.events.clear();
        gateway::poll(&self.tables, &mut self.shard, self.now, &mut self.out);
        self.deliver(None);
    }

    fn inject(&mut self, from: usize, bytes: &[u8], offload: Offload) -> u64 {
        let Some(mut frame) = self.shard.pool.frame_from(bytes) else { return 0 };
        frame.offload = offload;
        let before = self.device(from).counters.snapshot();
        let mut burst: Burst = [frame].into_iter().collect();
        self.explain = Explain::default();
        process(
            &mut burst,
            self.ports[from],
            &self.tables,
            &mut self.shard,
            self.now,
            &mut self.out,
            &mut self.explain,
        );
        assert!(burst.is_empty());
        let after = self.device(from).counters.snapshot();
        assert_eq!(after.rx_frames - before.rx_frames, 1);
        let flooded = after.flooded - before.flooded;
        let ended = ends(&after) - ends(&before);
        assert!(ended == 1 || flooded == 1 && ended >= 1, "{ended} ends: {:?}", self.explain.steps);
        self.deliver(Some(from))
    }

    /// Lets the interfaces' homes do their work, and looks at what leaves.
    fn deliver(&mut self, from: Option<usize>) -> u64 {
        gateway::serve(&self.tables, &mut self.shard, self.now, &mut self.out);
        let mut sent = Vec::new();
        let ports = self.ports;
        self.out.flush(|to, frames| {
            let port = ports.iter().position(|port| *port == to).expect("an interface's frames were served");
            sent.extend(frames.drain(..).map(|frame| (port, frame)));
        });
        let count = sent.len() as u64;
        for (port, frame) in sent {
            let bytes = frame.segments().collect::<Vec<_>>().concat();
            self.judge(from, port, &frame, &bytes);
            self.last[port] = bytes;
        }
        count
    }

    fn judge(&self, from: Option<usize>, port: usize, frame: &Frame, bytes: &[u8]) {
        let steps = &self.explain.steps;
        let caps = self.device(port).caps;
        assert!(!frame.offload.needs_csum() || caps.checksum, "{steps:?}");
        assert!(frame.offload.gso_type == 0 || caps.tso && caps.uso, "{steps:?}");
        let routed = [macs(port).1, mac_v6(port)].iter().any(|mac| bytes[6..12] == mac.0);
        if from.is_some_and(|from| GUESTS[from].1 != GUESTS[port].1) {
            assert!(routed, "changed its network with the MAC of another than the router: {steps:?}");
        }
        if !routed || from.is_some_and(|from| GUESTS[from].1 == GUESTS[port].1) {
            return;
        }
        let packet = &bytes[14..];
        let inside = |at: usize| packet.get(at..at + 2).is_some_and(|net| net == [10, 0]);
        if word(bytes, 12) != Some(0x0800) {
            return;
        }
        let header = usize::from(packet[0] & 15) * 4;
        assert_eq!(sum(&[&packet[..header]]), 0xffff, "a header's checksum: {steps:?}");
        assert!(packet[8] > 0, "its TTL has ended: {steps:?}");
        let total = usize::from(word(packet, 2).unwrap_or(0));
        assert!(total <= packet.len() && (frame.offload.gso_type != 0 || total <= 1500));
        if port == 3 && from.is_some() && self.snat {
            assert!(!inside(12), "an inside source outside: {steps:?}");
            let is_error = packet[9] == 1 && matches!(packet.get(header), Some(3 | 11 | 12));
            if is_error && word(packet, 6).is_some_and(|field| field & 0x1fff == 0) {
                assert!(
                    !inside(header + 8 + 12) && !inside(header + 8 + 16),
                    "an inside end is quoted: {steps:?}"
                );
            }
        }
    }

    /// After all that can wait has waited: nothing is left.
    fn end(&mut self) {
        for _ in 0..8 {
            self.pass(1);
        }
        for _ in 0..5 {
            self.pass(20);
        }
        self.pass(10_000);
        let (taken, ended) = self.totals();
        assert!(ended >= taken, "{taken} frames came to interfaces, {ended} ended there");
        if let Some(nat) = &self.shard.nat {
            assert!(nat.fragments.is_empty(), "fragments are left");
            assert!(nat.tracker.is_empty(), "connections are left");
            assert!(nat.bindings.is_empty(), "bindings are left");
        }
        assert_eq!(self.shard.pool.free_chunks(), (CHUNKS.0 as usize, CHUNKS.1 as usize), "chunks");
    }
}

fn interfaces(tables: &Tables) -> Vec<Arc<PortCounters>> {
    tables
        .ports
        .iter()
        .flatten()
        .filter(|port| port.interface().is_some())
        .map(|port| port.counters.clone())
        .collect()
}

fn ends(counts: &PortSnapshot) -> u64 {
    counts.forwarded + counts.flooded + counts.answered + counts.consumed + counts.dropped()
}

pub fn run(data: &[u8]) {
    reach(data);
}

/// As [`run`]; gives frames that left, that were answered or told about by the router, and that it dropped.
pub fn reach(data: &[u8]) -> [u64; 3] {
    let mut input = Input::new(data);
    let choice = input.byte() % 24;
    // Taken out, so that one that a failed input leaves behind is not used again. Only memory and time stay.
    let kept = SCENES.with_borrow_mut(|scenes| scenes.remove(&choice));
    let mut scene = kept.unwrap_or_else(|| Scene::new(choice));
    let dropped_before = scene.dropped();
    scene.begin();
    let (mut left, mut said) = (0, 0);
    for _ in 0..64 {
        if input.is_empty() {
            break;
        }
        match input.byte() % 16 {
            0 => scene.pass(input.one_of(&[1, 1, 5, 61, 300])),
            _ => {
                let from = usize::from(input.byte() % 4);
                let (bytes, offload) = frame(&mut input, from, &scene.last);
                let before = scene.interfaces.iter().map(|counters| counters.answered.get()).sum::<u64>();
                left += scene.inject(from, &bytes, offload);
                said += scene.interfaces.iter().map(|counters| counters.answered.get()).sum::<u64>() - before;
            }
        }
    }
    scene.end();
    let dropped = scene.dropped() - dropped_before;
    if scene.now.secs() < u64::from(u32::MAX / 2) {
        SCENES.with_borrow_mut(|scenes| scenes.insert(choice, scene));
    }
    [left, said, dropped]
}

/// A frame that a guest or the world sends: most often to the router.
pub fn frame(input: &mut Input<'_>, from: usize, last: &[Vec<u8>; 4]) -> (Vec<u8>, Offload) {
    let (own, router) = macs(from);
    let mut bytes =
        [input.one_of(&[router, router, router, router, router, router, Mac::BROADCAST, macs(0).0]).0, own.0]
            .concat();
    if input.byte() == 0xff {
        bytes[6..12].copy_from_slice(&router.0);
    }
    let (mut offload, shape) = (Offload::NONE, input.byte() % 16);
    match shape {
        0 | 1 => arp(&mut bytes, input, from),
        2 => {
            if bytes[0] != 0xff {
                bytes[..6].copy_from_slice(&mac_v6(from).0);
            }
            bytes.extend([0x86, 0xdd]);
            bytes.extend(packet_v6(input, from));
        }
        _ => {
            bytes.extend([8, 0]);
            let packet = match shape {
                3..=6 => answer(input, &last[from]),
                7 => about(input, from, &last[from]),
                _ => None,
            };
            bytes.extend(packet.unwrap_or_else(|| packet_v4(input, from)));
            if input.byte() % 8 == 7 {
                offload = unfinished(&mut bytes, input);
            }
        }
    }
    if input.byte() % 8 == 7 {
        for _ in 0..2 {
            let at = usize::from(input.byte()) % bytes.len().saturating_sub(12).max(1) + 12;
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= input.byte();
            }
        }
    }
    if input.byte() % 16 == 15 {
        offload = note(input);
    }
    (bytes, offload)
}

fn arp(bytes: &mut Vec<u8>, input: &mut Input<'_>, from: usize) {
    let (own, router) = macs(from);
    bytes.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, input.one_of(&[1u8, 2, 2])]);
    bytes.extend(own.0);
    bytes.extend(address(input, from));
    bytes.extend(router.0);
    bytes.extend(input.one_of(&[SNAT, FLOATING, [10, 0, 0, 1], [10, 0, 1, 1]]));
}

fn address(input: &mut Input<'_>, from: usize) -> [u8; 4] {
    let own = GUESTS[from].2;
    let far = [198, 51, 100, 9];
    input.one_of(&[
        own,
        own,
        own,
        own,
        far,
        far,
        FLOATING,
        SNAT,
        [10, 0, 0, 99],
        [203, 0, 113, 77],
        [10, 0, 1, 12],
        [10, 0, 0, 10],
    ])
}

fn packet_v4(input: &mut Input<'_>, from: usize) -> Vec<u8> {
    let world = from == 3;
    let source = match input.byte() % 8 {
        7 => address(input, from),
        _ if world => [198, 51, 100, 9],
        _ => GUESTS[from].2,
    };
    let destination = if world {
        input.one_of(&[FLOATING, FORWARDED, SNAT, SNAT, [10, 0, 0, 10], [203, 0, 113, 199]])
    } else {
        input.one_of(&[
            [198, 51, 100, 9],
            [198, 51, 100, 9],
            [203, 0, 113, 1],
            FLOATING,
            FORWARDED,
            SNAT,
            [10, 0, 1, 12],
            [10, 0, 0, 10],
            [10, 0, 1, 99],
            [10, 0, 0, 1],
            [10, 0, 0, 255],
            [224, 0, 0, 5],
            [255, 255, 255, 255],
        ])
    };
    let protocol = input.one_of(&[17u8, 17, 6, 6, 1, 47, 132, 33]);
    let ports = (input.one_of(&[4000u16, 4001, 53, 8080, 7]), input.one_of(&[53u16, 8080, 4000, 4001, 7]));
    let kind = if protocol == 6 {
        input.one_of(&[2u8, 0x12, 0x10, 0x11, 4])
    } else {
        input.one_of(&[8u8, 0, 13, 5])
    };
    let payload = usize::from(input.one_of(&[0u16, 1, 24, 24, 700, 1300, 1472]));
    let field = input.one_of(&[0u16, 0, 0, 0, 0, 0x4000, 0x2000, 0x2003, 0x0006, 0x0003, 0x6000]);
    let mut transport = transport(protocol, ports, kind, payload);
    if field & 0x1fff != 0 {
        transport = vec![7; if field & 0x2000 != 0 { 24 } else { payload.max(1) }];
    } else if field & 0x2000 != 0 {
        transport.resize(24, 7);
    }
    Packet {
        source,
        destination,
        protocol,
        ttl: input.one_of(&[64u8, 64, 64, 64, 64, 2, 1, 0]),
        id: u16::from(input.byte() % 4),
        field,
        options: options(input),
        transport,
    }
    .bytes()
}

/// What answers a packet: its ends have changed places.
fn answer(input: &mut Input<'_>, frame: &[u8]) -> Option<Vec<u8>> {
    let packet = frame.get(14..).filter(|packet| word(frame, 12) == Some(0x0800) && packet.len() >= 28)?;
    let mut bytes = packet.to_vec();
    let header = usize::from(bytes[0] & 15) * 4;
    bytes[8] = 64;
    bytes[12..20].rotate_left(4);
    if word(&bytes, 6)? & 0x1fff == 0 && bytes.len() >= header + 8 {
        match bytes[9] {
            1 if bytes[header] == 8 => bytes[header] = 0,
            6 | 17 => bytes[header..header + 4].rotate_left(2),
            _ => {}
        }
        if bytes[9] == 6 && bytes.len() > header + 13 {
            let acked = u32::from_be_bytes(*bytes[header + 4..].first_chunk()?).wrapping_add(1);
            bytes.copy_within(header + 8..header + 12, header + 4);
            bytes[header + 8..header + 12].copy_from_slice(&acked.to_be_bytes());
            bytes[header + 13] = input.one_of(&[0x12u8, 0x10, 0x11, 0x04, 0x18]);
        }
    }
    bytes[10..12].fill(0);
    let checksum = !sum(&[&bytes[..header.min(packet.len())]]);
    bytes[10..12].copy_from_slice(&checksum.to_be_bytes());
    Some(bytes)
}

/// An ICMP error about a packet that came.
fn about(input: &mut Input<'_>, from: usize, frame: &[u8]) -> Option<Vec<u8>> {
    let quoted = frame.get(14..).filter(|_| word(frame, 12) == Some(0x0800))?;
    let quoted = &quoted[..quoted.len().min(input.one_of(&[28usize, 548, 20, 40]))];
    let kind = input.one_of(&[3u8, 11, 12]);
    let mut transport = vec![kind, input.byte() % 5, 0, 0, 0, 0, 5, 0x78];
    transport.extend(quoted);
    Some(
        Packet {
            source: if input.flag() { GUESTS[from].2 } else { address(input, from) },
            destination: *quoted.get(12..)?.first_chunk()?,
            protocol: 1,
            ttl: 64,
            id: 0,
            field: 0,
            options: Vec::new(),
            transport,
        }
        .bytes(),
    )
}

/// Leaves the checksum to whoever sends it, and perhaps the cutting too.
fn unfinished(bytes: &mut [u8], input: &mut Input<'_>) -> Offload {
    let (packet, l3) = (&bytes[14..], 14);
    let header = usize::from(packet[0] & 15) * 4;
    let fields = (packet[9] != 1).then(|| checksum_at(packet[9])).flatten();
    let Some(at) = fields.filter(|at| packet.len() >= header + at + 2) else { return Offload::NONE };
    let field = l3 + header + at;
    bytes[field..field + 2].fill(0);
    let rest = sum(&[&bytes[l3 + header..]]);
    let all = transport_sum(&bytes[l3..]);
    // The pseudo-header's part: all of it without the rest.
    let pseudo = sum(&[&all.to_be_bytes(), &(!rest).to_be_bytes()]);
    bytes[field..field + 2].copy_from_slice(&pseudo.to_be_bytes());
    let (csum_start, csum_offset) = (u16::try_from(l3 + header).unwrap_or(0), u16::try_from(at).unwrap_or(0));
    let tcp = bytes[l3 + 9] == 6;
    let gso_type = if input.byte() % 4 != 3 {
        Offload::GSO_NONE
    } else if tcp {
        Offload::GSO_TCPV4
    } else {
        Offload::GSO_UDP_L4
    };
    let gso_size = if gso_type == 0 { 0 } else { input.one_of(&[100u16, 600, 1400]) };
    Offload { flags: Offload::NEEDS_CSUM, gso_type, hdr_len: 0, gso_size, csum_start, csum_offset }
}

fn packet_v6(input: &mut Input<'_>, from: usize) -> Vec<u8> {
    let ends: [[u8; 16]; 6] = [
        [0x20, 1, 0xd, 0xb8, 0, 0xb, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10],
        [0x20, 1, 0xd, 0xb8, 0, 0xc, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x12],
        [0x20, 1, 0xd, 0xb8, 0, 0xb, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
        [0x20, 1, 0xd, 0xb8, 0, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9],
        [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0, 0, 1],
        [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
    ];
    let (source, destination) = (input.one_of(&ends), input.one_of(&ends));
    let next = input.one_of(&[17u8, 6, 58, 58, 44, 0, 43]);
    let mut payload = match next {
        58 => {
            let kind = input.one_of(&[128u8, 135, 136, 1, 2, 3]);
            let mut bytes = vec![kind, 0, 0, 0, 0, 0, 0, 0];
            bytes.extend(input.one_of(&ends));
            bytes.extend([if kind == 136 { 2 } else { 1 }, 1]);
            bytes.extend(macs(from).0.0);
            bytes
        }
        44 => vec![17, 0, 0, input.one_of(&[1u8, 8, 0, 9]), 0, 0, 0, 1],
        0 | 43 => vec![17, 0, input.one_of(&[0u8, 1, 4]), 0, 0, 0, 0, 0],
        _ => transport(next, (4000, 53), 2, 0),
    };
    payload.resize(payload.len() + usize::from(input.one_of(&[0u16, 20, 1300, 1400])), 7);
    let len = u16::try_from(payload.len()).unwrap_or(u16::MAX).to_be_bytes();
    let mut bytes = vec![0x60, 0, 0, 0, len[0], len[1], next, input.one_of(&[64u8, 255, 1, 0])];
    bytes.extend([source, destination].concat());
    if next == 58 {
        let checksum = !sum(&[&bytes[8..40], &len, &[0, 58], &payload]);
        payload[2..4].copy_from_slice(&checksum.to_be_bytes());
    }
    bytes.extend(payload);
    bytes
}
