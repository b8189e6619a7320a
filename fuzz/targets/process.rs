//! Any small configuration and any frames through the path, held against a naive reading of the model:
//! - a frame leaves by ports of its own network only, never by the one it came from, and tagged as that port asks;
//! - it ends in exactly one of forwarded, flooded, answered, dropped; besides a flood, lost copies count as drops; one that
//!   comes out of a tunnel is consumed by the underlay and ends at its peer;
//! - what goes into a tunnel has its network's VNI and goes to a peer or the group of that network, from no other tunnel;
//! - no device gets what it cannot carry, nor more than its MTU;
//! - every chunk comes back.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt::Write;
use std::net::IpAddr;
use std::sync::Arc;

use nuswitch::dataplane::fdb::Fdb;
use nuswitch::dataplane::out::Out;
use nuswitch::dataplane::tracer::Explain;
use nuswitch::dataplane::{Shard, process, underlay};
use nuswitch::frame::{Burst, Caps, Frame, Offload, Pool};
use nuswitch::model::{self, Attachment, AttachmentKey, Model, Segment};
use nuswitch::stats::PortSnapshot;
use nuswitch::tables::compile::{Device, Places, compile};
use nuswitch::types::{Instant, Mac, PortIdx, WorkerIdx};

use super::input::{Input, note};

const IDS: [u16; 4] = [10, 20, 30, 4094];
const NAMES: [&str; 4] = ["n0", "n1", "n2", "n3"];
const VTEP: [u8; 6] = [2, 0, 0, 0, 0xee, 1];
const NEXT_HOP: [u8; 6] = [2, 0, 0, 0, 0, 9];

thread_local! {
    /// By their numbers of chunks; with the epoch that each saw last. Only memory stays from one input to the next.
    static SHARDS: RefCell<HashMap<(u32, u32), (u64, Shard)>> = RefCell::new(HashMap::new());
    static MODELS: RefCell<HashMap<String, Option<Model>>> = RefCell::new(HashMap::new());
}

pub fn run(data: &[u8]) {
    reach(data);
}

/// As [`run`]; gives the frames that were forwarded, flooded and dropped.
pub fn reach(data: &[u8]) -> [u64; 3] {
    let mut input = Input::new(data);
    let Some(mut model) = load(text(&mut input)) else { return [0; 3] };
    let mut devices = HashMap::new();
    for device in model.attachments() {
        let mtu = input.one_of(&[1500u16, 9000, 1400, 100]);
        let caps = Caps { checksum: input.flag(), tso: input.flag(), uso: input.flag(), mtu };
        let up = input.byte() % 16 != 15;
        devices.insert(
            device.key,
            Device { worker: WorkerIdx(0), up, caps, mac: Some(Mac(VTEP)), counters: Arc::default() },
        );
    }
    let chunks = (input.one_of(&[256u32, 512, 8]), input.one_of(&[8u32, 0]));
    let mut places = Places::default();
    // Taken out, so that one that a failed input leaves behind is not used again.
    let kept = SHARDS.with_borrow_mut(|shards| shards.remove(&chunks));
    let (mut epoch, mut shard) =
        kept.unwrap_or_else(|| (0, Shard::new(Pool::with_chunks(chunks.0, chunks.1).expect("memory"), 7)));
    shard.fdb = Fdb::new(64, 300, 7);
    shard.events.clear();
    let (mut now, mut ends) = (Instant(0), [0; 3]);
    for _ in 0..4 {
        if input.is_empty() {
            break;
        }
        // It counts up over all inputs, so that the shard sees that tables are others.
        epoch += 1;
        let tables = compile(&model, &devices, &mut places, epoch);
        shard.sync(&tables);
        let keys: HashMap<PortIdx, AttachmentKey> =
            devices.keys().filter_map(|key| Some((PortIdx(places.ports.get(key)?), key.clone()))).collect();
        let mut out = Out::default();
        out.make_room(tables.ports.len());
        underlay::configure(&mut shard, &tables, now, &mut out);
        out.flush(|_, _| {});
        for place in places.tunnels.values().filter(|_| input.flag()) {
            place.state.set_next_hop(Some(Mac(NEXT_HOP)));
        }
        let count = tables.ports.len().max(1);
        for _ in 0..input.byte() % 32 {
            let from = PortIdx(u16::from(input.byte()) % u16::try_from(count).unwrap_or(1));
            let Some(key) = keys.get(&from) else { continue };
            let scene =
                Scene { model: &model, devices: &devices, places: &places, keys: &keys, tables: &tables };
            let ended = one(&mut input, &scene, (from, key), &mut shard, now, &mut out);
            for (sum, count) in ends.iter_mut().zip(ended) {
                *sum += count;
            }
            now = Instant(now.0 + u64::from(input.one_of(&[0u32, 0, 0, 0, 0, 1, 200, 400])) * 1_000_000_000);
            shard.fdb.sweep(now.0);
            underlay::poll(&tables, &mut shard, now, &mut out);
            out.flush(|_, _| {});
        }
        shard.notes.take(now, |_| {});
        underlay::close(&mut shard, &tables, now);
        assert_eq!(shard.pool.free_chunks(), (chunks.0 as usize, chunks.1 as usize), "chunks");
        // A reload: networks keep their names and change what they are; ports that stay keep their devices.
        if let Some(next) = load(text(&mut input))
            && next.attachments().all(|device| devices.contains_key(&device.key))
        {
            model = next;
            devices.retain(|key, _| model.attachments().any(|device| device.key == *key));
        }
    }
    SHARDS.with_borrow_mut(|shards| shards.insert(chunks, (epoch, shard)));
    ends
}

/// The model of a file. Most inputs differ behind their files, and reading one takes longer than all frames do.
fn load(text: String) -> Option<Model> {
    MODELS.with_borrow_mut(|models| {
        if models.len() >= 4096 {
            models.clear();
        }
        let read = |text: &String| model::load(text, "fuzz.toml").ok();
        models.entry(text).or_insert_with_key(read).clone()
    })
}

/// A file with up to four networks and six ports; not always a right one.
fn text(input: &mut Input<'_>) -> String {
    let mut text = String::from("[[physical_network]]\nname = \"up\"\n");
    if input.flag() {
        text.push_str("interface = \"eth9\"\ndriver = \"packet\"\n");
    }
    let (mut flat, mut natives) = (false, Vec::new());
    let overlay = input.one_of(&[false, true, true]);
    if overlay {
        let learn = input.flag();
        let _ = write!(
            text,
            "[overlay]\ninterface = \"under\"\nlocal_ip = \"192.0.2.10/24\"\nlearn_peers = {learn}\n\
             peers = [\"192.0.2.11\", \"192.0.2.12\"]\n"
        );
    }
    for (name, id) in NAMES.iter().zip(IDS) {
        let choice = input.byte();
        let tunnelled = overlay && choice % 8 >= 5;
        let kind = match choice % 4 {
            _ if tunnelled => tunnels(input, id),
            0 => String::new(),
            1 if !flat => {
                flat = true;
                "network_type = \"flat\"\nphysical_network = \"up\"\n".to_owned()
            }
            _ => format!("network_type = \"vlan\"\nphysical_network = \"up\"\nsegmentation_id = {id}\n"),
        };
        if !kind.is_empty() && !tunnelled {
            natives.push(*name);
        }
        let (mtu, limit) = (input.one_of(&[1500u16, 9000, 1280, 68]), input.one_of(&[64u16, 2, 0]));
        let mtu = if tunnelled { mtu.min(1450) } else { mtu };
        let _ = write!(text, "[[network]]\nname = \"{name}\"\n{kind}mtu = {mtu}\nmac_limit = {limit}\n");
    }
    for port in 0..input.one_of(&[6u8, 5, 4, 3, 2, 1, 0]) {
        // Often the same, so that there are others to send to.
        let network = input.one_of(&["n0", "n0", "n0", "n1", "n1", "n2", "n3"]);
        let attachment = match input.byte() % 4 {
            0 | 1 => format!("network = \"{network}\""),
            3 if !natives.is_empty() => {
                let native = input.one_of(&natives);
                format!(
                    "trunk = {{ physical_network = \"up\", native = \"{native}\", allowed = [\"10-20\"] }}"
                )
            }
            _ => "trunk = { physical_network = \"up\" }".to_owned(),
        };
        let up = input.byte() % 16 != 15;
        let _ = write!(
            text,
            "[[port]]\nname = \"p{port}\"\n{attachment}\nadmin_state_up = {up}\nmac_limit = {}\n\
             interface = {{ kind = \"packet\", name = \"eth{port}\" }}\n",
            input.one_of(&[1024u16, 1])
        );
        if input.byte() % 4 == 1 {
            let _ = writeln!(text, "mac_address = \"52:54:00:00:00:0{port}\"");
        }
    }
    text
}

/// A network in tunnels, with one of the ways to reach others.
fn tunnels(input: &mut Input<'_>, id: u16) -> String {
    let entry = "remote_ports = [{ mac_address = \"52:54:00:00:00:03\", fixed_ips = [\"10.0.0.3\"], vtep = \"192.0.2.12\" }]";
    let reach = match input.byte() % 5 {
        0 => "multicast_group = \"239.1.1.1\"",
        1 => "peers = [\"192.0.2.11\"]",
        2 => entry,
        3 => &format!("{entry}\nl2population = true"),
        _ => "",
    };
    format!("network_type = \"vxlan\"\nsegmentation_id = {id}\n{reach}\n")
}

/// A frame in a tunnel packet, most often one that is taken out again.
fn in_tunnel(input: &mut Input<'_>, inner: &[u8]) -> Vec<u8> {
    let len = u16::try_from(inner.len() + 16).unwrap_or(u16::MAX - 20);
    let mut bytes = [VTEP, NEXT_HOP].concat();
    bytes.extend([8, 0, 0x45, input.one_of(&[0u8, 0, 2, 3])]);
    bytes.extend((len + 20).to_be_bytes());
    bytes.extend([0, 0, 0x40, 0, 64, 17, 0, 0, 192, 0, 2, input.one_of(&[11, 11, 12, 13]), 192, 0, 2, 10]);
    let sum = word_sum(&bytes[14..34]).to_be_bytes();
    bytes[24..26].copy_from_slice(&sum);
    bytes.extend([0xc3, 0x50, 0x12, 0xb5]);
    bytes.extend(len.to_be_bytes());
    bytes.extend([0, 0, 8, 0, 0, 0]);
    bytes.extend((u32::from(input.one_of(&[10u16, 10, 20, 20, 30, 4094, 7])) << 8).to_be_bytes());
    bytes.extend(inner);
    bytes
}

fn word_sum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

/// Likely frames and any frames.
fn bytes(input: &mut Input<'_>) -> Vec<u8> {
    if input.byte() % 8 == 7 {
        let len = usize::from(input.byte());
        return input.bytes(len).to_vec();
    }
    let mut frame = Vec::new();
    match input.byte() % 16 {
        n @ 0..12 => frame.extend([0x52, 0x54, 0, 0, 0, n % 4]),
        12 => frame.extend([1, 0x80, 0xc2, 0, 0, input.byte() % 20]),
        _ => frame.extend([0xff; 6]),
    }
    match input.byte() % 16 {
        n @ 0..14 => frame.extend([0x52, 0x54, 0, 0, 0, n % 4]),
        n => frame.extend([n - 14; 6]),
    }
    for _ in 0..input.one_of(&[0u8, 0, 0, 0, 1, 1, 1, 1, 2, 3]) {
        let tpid: u16 = input.one_of(&[0x8100, 0x8100, 0x8100, 0x8100, 0x8100, 0x8100, 0x88a8]);
        let tci: u16 = input.one_of(&[10, 20, 30, 4094, 0, 4095, 0xe00a, 7]);
        frame.extend([tpid.to_be_bytes(), tci.to_be_bytes()].concat());
    }
    let payload =
        usize::from(input.one_of(&[46u16, 46, 46, 46, 46, 0, 1, 1400, 1500, 1501, 2500, 8000, 20_000]));
    match input.byte() % 4 {
        0 => ip(&mut frame, input, payload),
        1 => frame.extend(input.word().to_be_bytes()),
        _ => frame.extend([0x88, 0xb5]),
    }
    let known = input.one_of(&[0usize, 4, 40]);
    let known = input.bytes(known).to_vec();
    frame.extend(&known);
    frame.resize(frame.len() + payload.saturating_sub(known.len()), 0xa5);
    frame
}

/// Headers of TCP or UDP over IPv4 whose lengths are right for `payload` bytes more.
fn ip(frame: &mut Vec<u8>, input: &mut Input<'_>, payload: usize) {
    let is_tcp = input.flag();
    let l4 = if is_tcp { 20 } else { 8 };
    let len = u16::try_from(20 + l4 + payload).unwrap_or(u16::MAX);
    frame.extend([0x08, 0, 0x45, 0]);
    frame.extend(len.to_be_bytes());
    frame.extend([0, 0, 0x40, 0, 64, if is_tcp { 6 } else { 17 }, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    if is_tcp {
        frame.extend([0, 1, 0, 2, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x18, 1, 0, 0, 0, 0, 0]);
    } else {
        frame.extend([0, 1, 0, 2]);
        frame.extend((len - 20).to_be_bytes());
        frame.extend([0, 0]);
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// The network of a frame on a wire by the model's words, and where its tag ends; naive and slow.
fn network_of(model: &Model, key: &AttachmentKey, frame: &[u8]) -> Option<(String, usize)> {
    let is_tagged = matches!(word(frame, 12), Some(0x8100 | 0x88a8));
    let id = is_tagged.then(|| word(frame, 14)).flatten().map(|tci| tci & 0xfff);
    let customer = word(frame, 12) == Some(0x8100);
    let port = match key {
        AttachmentKey::Port(name) => model.ports.iter().find(|port| port.name == *name),
        _ => None,
    };
    if is_tagged && !customer {
        return None;
    }
    let native = match (key, port.map(|port| &port.attachment)) {
        (AttachmentKey::Physical(physical), _) => model
            .networks
            .iter()
            .find(|n| matches!(&n.segment, Segment::Flat(on) if on == physical))
            .map(|n| &n.name),
        (_, Some(Attachment::Access(name))) => {
            return id.is_none_or(|id| id == 0).then(|| (name.clone(), tag_end(id)));
        }
        (_, Some(Attachment::Trunk { native, .. })) => native.as_ref(),
        _ => return None,
    };
    match id {
        None | Some(0) => Some((native?.clone(), tag_end(id))),
        Some(id) => {
            let of = |network: &&model::Network| matches!(&network.segment, Segment::Vlan(_, vlan) if vlan.get() == id);
            Some((model.networks_of(key).find(of)?.name.clone(), tag_end(Some(id))))
        }
    }
}

fn tag_end(id: Option<u16>) -> usize {
    if id.is_some() { 16 } else { 12 }
}

struct Scene<'a> {
    model: &'a Model,
    devices: &'a HashMap<AttachmentKey, Device>,
    places: &'a Places,
    keys: &'a HashMap<PortIdx, AttachmentKey>,
    tables: &'a nuswitch::tables::Tables,
}

impl Scene<'_> {
    /// The counts of a frame's origin: its port, or for the underlay's the tunnel ports together, and those of its device.
    fn counts(&self, key: &AttachmentKey) -> (PortSnapshot, PortSnapshot) {
        let device = self.devices[key].counters.snapshot();
        if *key != AttachmentKey::Overlay {
            return (device.clone(), device);
        }
        let mut sum = PortSnapshot::default();
        for place in self.places.tunnels.values() {
            let counts = place.counters.snapshot();
            sum.rx_frames += counts.rx_frames;
            sum.forwarded += counts.forwarded;
            sum.flooded += counts.flooded;
            for (reason, count) in counts.drops {
                *sum.drops.entry(reason).or_default() += count;
            }
        }
        (sum, device)
    }

    fn vni_network(&self, vni: u16) -> Option<&model::Network> {
        self.model
            .networks
            .iter()
            .find(|n| matches!(&n.segment, Segment::Vxlan(id, _) if id.get() == u32::from(vni)))
    }
}

fn one(
    input: &mut Input<'_>,
    scene: &Scene<'_>,
    (from, key): (PortIdx, &AttachmentKey),
    shard: &mut Shard,
    now: Instant,
    out: &mut Out,
) -> [u64; 3] {
    let underlay = *key == AttachmentKey::Overlay;
    let inner = bytes(input);
    let tunnelled = underlay && !input.byte().is_multiple_of(8);
    let bytes = if tunnelled { in_tunnel(input, &inner) } else { inner.clone() };
    let offload = if input.one_of(&[true, false, false, false, false]) { note(input) } else { Offload::NONE };
    let Some(mut frame) = shard.pool.frame_from(&bytes) else { return [0; 3] };
    frame.offload = offload;
    let (before, device_before) = scene.counts(key);
    let mut burst: Burst = [frame].into_iter().collect();
    let mut explain = Explain::default();
    process(&mut burst, from, scene.tables, shard, now, out, &mut explain);
    underlay::resolve(scene.tables, shard, now, out);
    assert!(burst.is_empty());
    let (after, device_after) = scene.counts(key);
    assert_eq!(
        (device_after.rx_frames - device_before.rx_frames, device_after.rx_bytes - device_before.rx_bytes),
        (1, bytes.len() as u64)
    );
    let (forwarded, flooded) = (after.forwarded - before.forwarded, after.flooded - before.flooded);
    let answered = device_after.answered - device_before.answered;
    let mut dropped = after.dropped() - before.dropped();
    if underlay {
        let consumed = device_after.consumed - device_before.consumed;
        // Frames that waited and found nobody count besides.
        let refused = device_after.dropped() - device_before.dropped();
        let came_out = after.rx_frames - before.rx_frames;
        assert!(consumed + answered <= 1 && consumed + answered + refused >= 1, "{:?}", explain.steps);
        assert!(came_out <= consumed);
        assert!(forwarded + flooded + dropped >= came_out && forwarded + flooded <= came_out);
        dropped += refused;
    } else {
        match (forwarded, flooded, answered) {
            (1, 0, 0) | (0, 0, 1) => assert_eq!(dropped, 0),
            (0, 1, 0) => {}
            (0, 0, 0) => assert!(dropped >= 1, "a frame that came to no end"),
            ends => panic!("{ends:?} ends of one frame"),
        }
    }
    let network = if tunnelled {
        word(&bytes, 47).and_then(|vni| scene.vni_network(vni)).map(|network| (network.name.clone(), 12))
    } else {
        network_of(scene.model, key, &bytes)
    };
    let tunnels = network.as_ref().and_then(|(name, _)| {
        let network = scene.model.networks.iter().find(|network| network.name == *name)?;
        match &network.segment {
            Segment::Vxlan(vni, tunnels) => Some((vni.get(), tunnels)),
            _ => None,
        }
    });
    let mut sent = 0;
    out.flush(|to, frames| {
        let key = &scene.keys[&to];
        let device = &scene.devices[key];
        assert!(device.up);
        for frame in frames.drain(..) {
            sent += 1;
            let left = frame.segments().collect::<Vec<_>>().concat();
            judge_offload(&frame, &left, device.caps);
            let steps = &explain.steps;
            if *key == AttachmentKey::Overlay {
                let is_ours = left[6..12] == VTEP;
                assert!(is_ours, "from another MAC than the underlay's: {steps:?}");
                if word(&left, 12) == Some(0x0806) || underlay {
                    continue; // the host's own words
                }
                let (vni, tunnels) = tunnels.unwrap_or_else(|| panic!("into a tunnel: {steps:?}"));
                let to = IpAddr::from(<[u8; 4]>::try_from(&left[30..34]).expect("an address"));
                let may = tunnels.peers.contains(&to) || tunnels.multicast_group == Some(to);
                assert!(may, "to {to}, which does not have the network: {steps:?}");
                assert_eq!(word(&left, 47).map(u32::from), Some(vni), "{steps:?}");
                assert_eq!(left[50..62], inner[..12], "addresses");
                continue;
            }
            let (network, tag_end) = network.as_ref().unwrap_or_else(|| panic!("a frame of no network left: {steps:?}"));
            if to == from {
                assert!(tunnels.is_some(), "back where it came from: {steps:?}");
                assert_eq!(left[..6], inner[6..12], "an answer to another");
                continue;
            }
            // The priority tag of VLAN 0 never leaves, so what leaves is read as what would come in there.
            let (again, end) = network_of(scene.model, key, &left).unwrap_or_else(|| {
                let payload_tag = matches!(word(&left, 12), Some(0x8100 | 0x88a8));
                assert!(payload_tag, "left where it does not belong: {steps:?}");
                (network.clone(), 12)
            });
            assert!(is_in(scene.model, key, network), "left its network: {steps:?}");
            let access = matches!(key, AttachmentKey::Port(name)
                if scene.model.ports.iter().any(|p| p.name == *name && matches!(p.attachment, Attachment::Access(_))));
            let end = if access { 12 } else { end };
            assert!(access || again == *network, "{again} instead of {network}: {steps:?}");
            assert_eq!(left[..12], inner[..12], "addresses");
            assert_eq!(word(&left, end), word(&inner, *tag_end), "EtherType");
        }
    });
    assert_eq!(out.pending(), 0);
    // A frame may wait for its next hop, or be the last that does not.
    assert!(sent > 0 || forwarded + flooded == 0 || tunnels.is_some(), "said to have left, and did not");
    [forwarded, flooded, dropped]
}

/// What a device gets it can carry.
fn judge_offload(frame: &Frame, left: &[u8], caps: Caps) {
    assert!(!frame.offload.needs_csum() || caps.checksum);
    let whole = match frame.offload.gso() {
        Offload::GSO_NONE => true,
        Offload::GSO_UDP_L4 => caps.uso,
        _ => caps.tso,
    };
    assert!(whole && (caps.checksum || frame.offload.gso_type == 0));
    if frame.offload.gso_type == 0 {
        assert!(
            left.len() <= usize::from(caps.mtu) + 14 + 8,
            "longer than the device's MTU: {:02x?}",
            &left[..42]
        );
    }
}

fn is_in(model: &Model, key: &AttachmentKey, network: &str) -> bool {
    model.networks_of(key).any(|other| other.name == network)
}
