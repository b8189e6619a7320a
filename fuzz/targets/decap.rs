//! Any packets of the underlay, most of them tunnels' and some of those broken, into a switch with three networks in tunnels:
//! - each ends once where it arrived, and what comes out of a tunnel once more at its peer's port;
//! - a frame leaves by guests' ports of the network of its VNI only, as it stood in the packet, and only from a peer of it;
//! - nothing of a tunnel goes back to the underlay;
//! - every chunk comes back.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use nuswitch::dataplane::fdb::Fdb;
use nuswitch::dataplane::out::Out;
use nuswitch::dataplane::tracer::Explain;
use nuswitch::dataplane::{Shard, process, underlay};
use nuswitch::frame::{Burst, Caps, Frame, Offload, Pool};
use nuswitch::model::{self, Attachment, AttachmentKey, Model, Segment};
use nuswitch::stats::PortSnapshot;
use nuswitch::tables::Tables;
use nuswitch::tables::compile::{Device, Places, compile};
use nuswitch::types::{Instant, Mac, PortIdx, WorkerIdx};

use super::input::{Input, note};

const VTEP: [u8; 6] = [2, 0, 0, 0, 0xee, 1];
const SMALL: usize = 256;
const LARGE: usize = 8;

const NETWORKS: &str = r#"
[[network]]
name = "one"
network_type = "vxlan"
segmentation_id = 1
[[network]]
name = "two"
network_type = "vxlan"
segmentation_id = 2
peers = ["PEER1"]
[[network]]
name = "last"
network_type = "vxlan"
segmentation_id = 16777215
multicast_group = "GROUP"
[[network]]
name = "home"
"#;
const GUESTS: [(&str, &str); 5] = [("a", "one"), ("b", "one"), ("c", "two"), ("d", "last"), ("e", "home")];

/// A switch with its tables; nothing that it learned stays from one input to the next.
struct Scene {
    model: Model,
    devices: HashMap<AttachmentKey, Device>,
    places: Places,
    tables: Tables,
    shard: Shard,
    v4: bool,
}

impl Scene {
    fn new(v4: bool, learn: bool) -> Scene {
        let (local, group) =
            if v4 { ("192.0.2.10/24", "239.1.1.1") } else { ("2001:db8::10/64", "ff05::1:1") };
        let (one, two) = (address(v4, 11), address(v4, 12));
        let mut text = format!(
            "[overlay]\ninterface = \"under\"\nlocal_ip = \"{local}\"\npeers = [\"{one}\", \"{two}\"]\n\
             learn_peers = {learn}\n{}",
            NETWORKS.replace("PEER1", &one.to_string()).replace("GROUP", group)
        );
        for (name, network) in GUESTS {
            text += &format!(
                "[[port]]\nname = \"{name}\"\nnetwork = \"{network}\"\ninterface = {{ kind = \"packet\", name = \"{name}\" }}\n"
            );
        }
        let model = model::load(&text, "fuzz.toml").unwrap_or_else(|mistakes| panic!("{}", mistakes[0]));
        let able = |key: &AttachmentKey| *key == AttachmentKey::Port("a".to_owned());
        let devices = model.attachments().map(|device| {
            let whole = able(&device.key);
            let caps = Caps { checksum: whole, tso: whole, uso: whole, mtu: 1500 };
            let mac = Some(Mac(VTEP));
            let device_ = Device { worker: WorkerIdx(0), up: true, caps, mac, counters: Arc::default() };
            (device.key, device_)
        });
        let devices = devices.collect();
        let mut places = Places::default();
        let tables = compile(&model, &devices, &mut places, 1);
        let pool = Pool::with_chunks(SMALL as u32, LARGE as u32).expect("memory");
        let mut shard = Shard::new(pool, 7);
        shard.sync(&tables);
        Scene { model, devices, places, tables, shard, v4 }
    }
}

thread_local! {
    static SCENES: RefCell<HashMap<(bool, bool), Scene>> = RefCell::new(HashMap::new());
}

fn address(v4: bool, n: u8) -> IpAddr {
    if v4 {
        IpAddr::from([192, 0, 2, n])
    } else {
        IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(n) / 10 * 16 + u16::from(n) % 10])
    }
}

pub fn run(data: &[u8]) {
    reach(data);
}

/// As [`run`]; gives the frames that came out of tunnels, that left by guests' ports, and that were answered.
pub fn reach(data: &[u8]) -> [u64; 3] {
    let mut input = Input::new(data);
    let (v4, learn) = (input.flag(), input.flag());
    // Taken out, so that one that a failed input leaves behind is not used again.
    let scene = SCENES.with_borrow_mut(|scenes| scenes.remove(&(v4, learn)));
    let mut scene = scene.unwrap_or_else(|| Scene::new(v4, learn));
    scene.shard.fdb = Fdb::new(64, 300, 7);
    scene.shard.events.clear();
    let mut out = Out::default();
    out.make_room(scene.tables.ports.len());
    let mut now = Instant(1_000_000_000);
    underlay::configure(&mut scene.shard, &scene.tables, now, &mut out);
    out.flush(|_, _| {});
    let mut reached = [0; 3];
    for _ in 0..64 {
        if input.is_empty() {
            break;
        }
        let (packet, offload) = packet(&mut input, v4);
        for (sum, count) in reached.iter_mut().zip(one(&mut scene, packet, offload, now, &mut out)) {
            *sum += count;
        }
        now = Instant(now.0 + u64::from(input.one_of(&[0u32, 1, 40, 400])) * 1_000_000_000);
        underlay::poll(&scene.tables, &mut scene.shard, now, &mut out);
        out.flush(|_, _| {});
        scene.shard.fdb.sweep(now.0);
    }
    scene.shard.notes.take(now, |_| {});
    underlay::close(&mut scene.shard, &scene.tables, now);
    assert_eq!(scene.shard.pool.free_chunks(), (SMALL, LARGE), "chunks");
    SCENES.with_borrow_mut(|scenes| scenes.insert((v4, learn), scene));
    reached
}

/// A packet that is a tunnel's, as RFC 7348 has it, and then perhaps not quite; or any bytes.
fn packet(input: &mut Input<'_>, v4: bool) -> (Vec<u8>, Offload) {
    let shape = input.byte();
    if shape % 16 == 15 {
        let len = usize::from(input.byte());
        return (input.bytes(len).to_vec(), Offload::NONE);
    }
    if shape % 16 == 14 && v4 {
        let mut arp = [&VTEP[..], &[2, 0, 0, 0, 0, 9, 8, 6, 0, 1, 8, 0, 6, 4, 0, input.byte() % 3]].concat();
        arp.extend([2, 0, 0, 0, 0, 9, 192, 0, 2, input.byte() % 16]);
        arp.extend([&VTEP[..], &[192, 0, 2, input.one_of(&[10, 10, 11])]].concat());
        return (arp, Offload::NONE);
    }
    let from = address(v4, input.one_of(&[11, 11, 11, 12, 12, 13, 10]));
    let vni = input.one_of(&[1u32, 1, 2, 2, 0x00ff_ffff, 3, 0]);
    let inner = inner(input);
    let len = 16 + inner.len();
    let length = u16::try_from(len).unwrap_or(u16::MAX);
    let class = input.byte();
    let to_group = input.one_of(&[false, false, false, true]);
    let mut bytes = Vec::new();
    match (to_group, v4) {
        (false, _) => bytes.extend(VTEP),
        (true, true) => bytes.extend([1, 0, 0x5e, 1, 1, 1]),
        (true, false) => bytes.extend([0x33, 0x33, 0, 1, 0, 1]),
    }
    bytes.extend([2, 0, 0, 0, 0, 9]);
    match (from, address(v4, 10)) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let to = if to_group { [239, 1, 1, 1] } else { to.octets() };
            let mut ip = vec![0x45, class];
            ip.extend(length.saturating_add(20).to_be_bytes());
            ip.extend([0, 0, 0x40, 0, 64, 17, 0, 0]);
            ip.extend([from.octets(), to].concat());
            let sum = checksum(&ip).to_be_bytes();
            ip[10..12].copy_from_slice(&sum);
            bytes.extend([8, 0]);
            bytes.extend(ip);
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            bytes.extend([0x86, 0xdd, 0x60 | class >> 4, class << 4, 0, 0]);
            bytes.extend(length.to_be_bytes());
            bytes.extend([17, 64]);
            bytes.extend(from.octets());
            let group = [0xff, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1];
            bytes.extend(if to_group { group } else { to.octets() });
        }
        _ => unreachable!("one version"),
    }
    bytes.extend([0xc3, 0x50, 0x12, 0xb5]);
    bytes.extend(length.to_be_bytes());
    bytes.extend([0, 0, 8, 0, 0, 0]);
    bytes.extend((vni << 8).to_be_bytes());
    bytes.extend(inner);
    for _ in 0..input.one_of(&[0u8, 0, 0, 1, 2]) {
        let at = usize::from(input.byte());
        if let Some(byte) = bytes.get_mut(at) {
            *byte ^= input.byte();
        }
    }
    match shape % 8 {
        1 => bytes.truncate(usize::from(input.word()) % (bytes.len() + 1)),
        2 => bytes.extend([0xee; 30]),
        _ => {}
    }
    let offload = if shape % 8 == 3 { note(input) } else { Offload::NONE };
    (bytes, offload)
}

/// Likely frames: from and to a few stations, with tags, as IP with each ECN field, and of any length.
fn inner(input: &mut Input<'_>) -> Vec<u8> {
    let mut frame = Vec::new();
    for _ in 0..2 {
        match input.byte() % 16 {
            0 => frame.extend([0xff; 6]),
            1 => frame.extend(VTEP),
            2 => frame.extend([1, 0x80, 0xc2, 0, 0, input.byte() % 20]),
            n => frame.extend([0x52, 0x54, 0, 0, 0, n % 4]),
        }
    }
    let payload = usize::from(input.one_of(&[46u16, 46, 0, 1, 1396, 1397, 8000]));
    match input.byte() % 8 {
        0 => frame.extend([0x81, 0, 0, 5, 8, 0]),
        1 => frame.extend(input.word().to_be_bytes()),
        2 | 3 => frame.extend([0x86, 0xdd, 0x60, input.byte()]),
        _ => frame.extend([8, 0, 0x45, input.byte()]),
    }
    let known = input.one_of(&[0usize, 18, 40]);
    frame.extend(input.bytes(known));
    frame.resize(frame.len() + payload, 0xa5);
    frame.truncate(frame.len().saturating_sub(usize::from(input.one_of(&[0u8, 0, 0, 20]))));
    frame
}

fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

/// What a packet says of itself, naively: its sender, its VNI, and the frame in it.
fn read(bytes: &[u8], v4: bool) -> Option<(IpAddr, u32, &[u8])> {
    let ip = bytes.get(14..)?;
    let (from, udp, end): (IpAddr, usize, usize) = if v4 {
        let header = usize::from(ip.first()? & 15) * 4;
        let total = usize::from(u16::from_be_bytes([*ip.get(2)?, *ip.get(3)?]));
        (<[u8; 4]>::try_from(ip.get(12..16)?).ok()?.into(), header, total)
    } else {
        let payload = usize::from(u16::from_be_bytes([*ip.get(4)?, *ip.get(5)?]));
        (<[u8; 16]>::try_from(ip.get(8..24)?).ok()?.into(), 40, 40 + payload)
    };
    let &[_, a, b, c] = ip.get(udp + 11..udp + 15)?.first_chunk()?;
    Some((from, u32::from_be_bytes([0, a, b, c]), ip.get(udp + 16..end)?))
}

/// All counts of the tunnel ports together.
fn peers(scene: &Scene) -> PortSnapshot {
    let mut sum = PortSnapshot::default();
    for place in scene.places.tunnels.values() {
        let counts = place.counters.snapshot();
        sum.rx_frames += counts.rx_frames;
        sum.tx_frames += counts.tx_frames;
        sum.forwarded += counts.forwarded;
        sum.flooded += counts.flooded;
        sum.answered += counts.answered;
        sum.consumed += counts.consumed;
        for (reason, count) in counts.drops {
            *sum.drops.entry(reason).or_default() += count;
        }
    }
    sum
}

fn one(scene: &mut Scene, bytes: Vec<u8>, offload: Offload, now: Instant, out: &mut Out) -> [u64; 3] {
    let Some(mut frame) = scene.shard.pool.frame_from(&bytes) else { return [0; 3] };
    frame.offload = offload;
    let counters = scene.devices[&AttachmentKey::Overlay].counters.clone();
    let (before, peers_before) = (counters.snapshot(), peers(scene));
    let port = scene.tables.underlay.as_ref().map(|underlay| underlay.port).expect("an overlay");
    let mut burst: Burst = [frame].into_iter().collect();
    let mut explain = Explain::default();
    process(&mut burst, port, &scene.tables, &mut scene.shard, now, out, &mut explain);
    underlay::resolve(&scene.tables, &mut scene.shard, now, out);
    scene.shard.tally.flush(&scene.tables);
    let (after, peers_after) = (counters.snapshot(), peers(scene));
    let steps = &explain.steps;

    let came_out = peers_after.rx_frames - peers_before.rx_frames;
    let consumed = after.consumed - before.consumed;
    let answered = after.answered - before.answered;
    let dropped = after.dropped() - before.dropped();
    assert_eq!((after.forwarded, after.flooded), (0, 0), "a frame of the underlay is in no network");
    assert_eq!(after.rx_frames - before.rx_frames, 1);
    assert_eq!(consumed + answered + dropped, 1, "one end where it arrived: {steps:?}");
    assert!(came_out <= consumed);
    let sent = peers_after.forwarded + peers_after.flooded - peers_before.forwarded - peers_before.flooded;
    let lost = peers_after.dropped() - peers_before.dropped();
    assert!(sent <= came_out && sent + lost >= came_out, "an end at its peer's port: {steps:?}");
    assert_eq!(peers_after.answered + peers_after.consumed + peers_after.tx_frames, 0);

    let mut left = 0;
    out.flush(|to, frames| {
        for frame in frames.drain(..) {
            if to == port {
                assert_eq!(came_out, 0, "a tunnel's packet went back: {steps:?}");
                continue;
            }
            left += 1;
            judge(scene, to, &frame, &bytes, offload, steps);
        }
    });
    assert_eq!(left > 0, sent > 0, "{steps:?}");
    [came_out, left, answered]
}

/// A frame that left by a guest's port: it may, and is what was in the packet.
fn judge(
    scene: &Scene,
    to: PortIdx,
    frame: &Frame,
    bytes: &[u8],
    offload: Offload,
    steps: &[nuswitch::dataplane::tracer::Step],
) {
    let (from, vni, inner) = read(bytes, scene.v4).unwrap_or_else(|| panic!("out of no packet: {steps:?}"));
    let of = |network: &&model::Network| matches!(&network.segment, Segment::Vxlan(id, _) if id.get() == vni);
    let network = scene.model.networks.iter().find(of).unwrap_or_else(|| panic!("no network: {steps:?}"));
    let Segment::Vxlan(_, tunnels) = &network.segment else { unreachable!() };
    let learn = scene.model.overlay.as_ref().is_some_and(|overlay| overlay.learn_peers);
    assert!(learn || tunnels.peers.contains(&from), "from {from}: {steps:?}");
    let port = scene
        .model
        .ports
        .iter()
        .find(|port| scene.places.ports.get(&AttachmentKey::Port(port.name.clone())) == Some(to.0))
        .unwrap_or_else(|| panic!("left by no guest's port: {steps:?}"));
    assert_eq!(port.attachment, Attachment::Access(network.name.clone()), "in another network: {steps:?}");
    let left = frame.segments().collect::<Vec<_>>().concat();
    assert!(!matches!(left.get(12..14), Some([0x81, 0] | [0x88, 0xa8])), "with a tag: {steps:?}");
    assert_eq!(left.get(..14), inner.get(..14), "addresses and EtherType");
    if offload == Offload::NONE {
        // ECN and checksums may be others, in the first 54 bytes of IPv4 or IPv6 and transport header.
        assert_eq!(left.len(), inner.len());
        assert_eq!(left.get(94..), inner.get(94..));
        assert!(left.len() <= usize::from(network.mtu) + 14);
    }
}
