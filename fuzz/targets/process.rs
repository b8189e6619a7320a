//! Any small configuration and any frames through the path, held against a naive reading of the model:
//! - a frame leaves by ports of its own network only, never by the one it came from, and tagged as that port asks;
//! - it ends in exactly one of forwarded, flooded, dropped; besides a flood, lost copies count as drops;
//! - no device gets what it cannot carry, nor more than its MTU;
//! - every chunk comes back.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt::Write;
use std::sync::Arc;

use nuswitch::dataplane::fdb::Fdb;
use nuswitch::dataplane::out::Out;
use nuswitch::dataplane::tracer::Explain;
use nuswitch::dataplane::{Shard, process};
use nuswitch::frame::{Burst, Caps, Offload, Pool};
use nuswitch::model::{self, Attachment, AttachmentKey, Model, Segment};
use nuswitch::tables::compile::{Device, Places, compile};
use nuswitch::types::{Instant, PortIdx, WorkerIdx};

use super::input::{Input, note};

const IDS: [u16; 4] = [10, 20, 30, 4094];
const NAMES: [&str; 4] = ["n0", "n1", "n2", "n3"];

thread_local! {
    /// By their numbers of chunks; with the epoch that each saw last. Only memory stays from one input to the next.
    static SHARDS: RefCell<HashMap<(u32, u32), (u64, Shard)>> = RefCell::new(HashMap::new());
}

pub fn run(data: &[u8]) {
    reach(data);
}

/// As [`run`]; gives the frames that were forwarded, flooded and dropped.
pub fn reach(data: &[u8]) -> [u64; 3] {
    let mut input = Input::new(data);
    let Ok(mut model) = model::load(&text(&mut input), "fuzz.toml") else { return [0; 3] };
    let mut devices = HashMap::new();
    for device in model.attachments() {
        let mtu = input.one_of(&[1500u16, 9000, 1400, 100]);
        let caps = Caps { checksum: input.flag(), tso: input.flag(), uso: input.flag(), mtu };
        let up = input.one_of(&[true, true, true, false]);
        devices.insert(
            device.key,
            Device { worker: WorkerIdx(0), up, caps, mac: None, counters: Arc::default() },
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
        let count = tables.ports.len().max(1);
        for _ in 0..input.byte() % 32 {
            let from = PortIdx(u16::from(input.byte()) % u16::try_from(count).unwrap_or(1));
            let Some(key) = keys.get(&from) else { continue };
            let ended =
                one(&mut input, (&model, &devices, key), (from, &keys), &tables, &mut shard, now, &mut out);
            for (sum, count) in ends.iter_mut().zip(ended) {
                *sum += count;
            }
            now = Instant(now.0 + u64::from(input.one_of(&[0u32, 1, 200, 400])) * 1_000_000_000);
            shard.fdb.sweep(now.0);
        }
        assert_eq!(shard.pool.free_chunks(), (chunks.0 as usize, chunks.1 as usize), "chunks");
        // A reload: networks keep their names and change what they are; ports that stay keep their devices.
        if let Ok(next) = model::load(&text(&mut input), "fuzz.toml")
            && next.attachments().all(|device| devices.contains_key(&device.key))
        {
            model = next;
            devices.retain(|key, _| model.attachments().any(|device| device.key == *key));
        }
    }
    SHARDS.with_borrow_mut(|shards| shards.insert(chunks, (epoch, shard)));
    ends
}

/// A file with up to four networks and six ports; not always a right one.
fn text(input: &mut Input<'_>) -> String {
    let mut text = String::from("[[physical_network]]\nname = \"up\"\n");
    if input.flag() {
        text.push_str("interface = \"eth9\"\ndriver = \"packet\"\n");
    }
    let (mut flat, mut natives) = (false, Vec::new());
    for (name, id) in NAMES.iter().zip(IDS) {
        let kind = match input.byte() % 4 {
            0 => String::new(),
            1 if !flat => {
                flat = true;
                "network_type = \"flat\"\nphysical_network = \"up\"\n".to_owned()
            }
            _ => format!("network_type = \"vlan\"\nphysical_network = \"up\"\nsegmentation_id = {id}\n"),
        };
        if !kind.is_empty() {
            natives.push(*name);
        }
        let (mtu, limit) = (input.one_of(&[1500u16, 9000, 1280, 68]), input.one_of(&[64u16, 2, 0]));
        let _ = write!(text, "[[network]]\nname = \"{name}\"\n{kind}mtu = {mtu}\nmac_limit = {limit}\n");
    }
    for port in 0..input.byte() % 7 {
        let network = input.one_of(&NAMES);
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
        let up = input.one_of(&[true, true, true, false]);
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

type Scene<'a> = (&'a Model, &'a HashMap<AttachmentKey, Device>, &'a AttachmentKey);

fn one(
    input: &mut Input<'_>,
    (model, devices, key): Scene<'_>,
    (from, keys): (PortIdx, &HashMap<PortIdx, AttachmentKey>),
    tables: &nuswitch::tables::Tables,
    shard: &mut Shard,
    now: Instant,
    out: &mut Out,
) -> [u64; 3] {
    let bytes = bytes(input);
    let offload = if input.one_of(&[true, false, false]) { note(input) } else { Offload::NONE };
    let Some(mut frame) = shard.pool.frame_from(&bytes) else { return [0; 3] };
    frame.offload = offload;
    let before = devices[key].counters.snapshot();
    let mut burst: Burst = [frame].into_iter().collect();
    let mut explain = Explain::default();
    process(&mut burst, from, tables, shard, now, out, &mut explain);
    assert!(burst.is_empty());
    let after = devices[key].counters.snapshot();
    assert_eq!(
        (after.rx_frames - before.rx_frames, after.rx_bytes - before.rx_bytes),
        (1, bytes.len() as u64)
    );
    let (forwarded, flooded) = (after.forwarded - before.forwarded, after.flooded - before.flooded);
    let dropped = after.dropped() - before.dropped();
    match (forwarded, flooded) {
        (1, 0) => assert_eq!(dropped, 0),
        (0, 1) => {}
        (0, 0) => assert!(dropped >= 1, "a frame that came to no end"),
        ends => panic!("{ends:?} ends of one frame"),
    }
    let network = network_of(model, key, &bytes);
    let mut sent = 0;
    out.flush(|to, frames| {
        let device = &devices[&keys[&to]];
        let (network, tag_end) = network.as_ref().unwrap_or_else(|| panic!("a frame of no network left: {:?}", explain.steps));
        assert_ne!(to, from, "back where it came from");
        assert!(device.up);
        for frame in frames.drain(..) {
            sent += 1;
            let left = frame.segments().collect::<Vec<_>>().concat();
            // The priority tag of VLAN 0 never leaves, so what leaves is read as what would come in there.
            let (again, end) = network_of(model, &keys[&to], &left).unwrap_or_else(|| {
                let payload_tag = matches!(word(&left, 12), Some(0x8100 | 0x88a8));
                assert!(payload_tag, "left where it does not belong: {:?}", explain.steps);
                (network.clone(), 12)
            });
            assert!(is_in(model, &keys[&to], network), "left its network: {:?}", explain.steps);
            let access = matches!(&keys[&to], AttachmentKey::Port(name)
                if model.ports.iter().any(|p| p.name == *name && matches!(p.attachment, Attachment::Access(_))));
            let end = if access { 12 } else { end };
            assert!(access || again == *network, "{again} instead of {network}: {:?}", explain.steps);
            assert_eq!(left[..12], bytes[..12], "addresses");
            assert_eq!(word(&left, end), word(&bytes, *tag_end), "EtherType");
            let caps = device.caps;
            assert!(!frame.offload.needs_csum() || caps.checksum);
            let whole = match frame.offload.gso() {
                Offload::GSO_NONE => true,
                Offload::GSO_UDP_L4 => caps.uso,
                _ => caps.tso,
            };
            assert!(whole && (caps.checksum || frame.offload.gso_type == 0));
            if frame.offload.gso_type == 0 {
                assert!(left.len() <= usize::from(caps.mtu) + 14 + 8, "longer than the device's MTU");
            }
        }
    });
    assert_eq!(out.pending(), 0);
    assert!(sent > 0 || forwarded + flooded == 0, "said to have left, and did not");
    [forwarded, flooded, dropped]
}

fn is_in(model: &Model, key: &AttachmentKey, network: &str) -> bool {
    model.networks_of(key).any(|other| other.name == network)
}
