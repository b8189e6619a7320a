//! A known flow allocates nothing: an allocator that counts, under a real worker with ports in memory.
//!
//! That it takes no lock either follows from how it is built, and is held elsewhere: `tests/layering.rs` refuses `Mutex`
//! and `RwLock` in the path, counters are plain loads and stores of atomics with one writer, tables are read through
//! `arc_swap`'s cache (one atomic load a turn), and the rings between workers are `crossbeam`'s lock-free `ArrayQueue`s.
#![allow(clippy::unwrap_used)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use crossbeam::channel;
use mio::Poll;
use nuswitch::frame::{BURST, Caps, Region};
use nuswitch::model::{self, AttachmentKey};
use nuswitch::ports::mem::{self, MemHandle};
use nuswitch::tables::Tables;
use nuswitch::tables::compile::{Device, Places, compile};
use nuswitch::types::{Instant, Mac, PortIdx, WorkerIdx};
use nuswitch::wire::checksum::Sum;
use nuswitch::worker::mesh::Mesh;
use nuswitch::worker::{Command, Setup, Worker};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    // The thread's end frees after its locals are gone; nobody counts that.
    let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
}

// SAFETY: every call is passed on as it came to the system's allocator, which upholds the contract.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are those that `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count();
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Access ports `a` and `b` and a trunk in one VLAN, with `c` to `h` besides for floods.
fn file() -> String {
    let mut text = String::from(
        "[[physical_network]]\nname = \"up\"\n[[network]]\nname = \"red\"\nnetwork_type = \"vlan\"\n\
         physical_network = \"up\"\nsegmentation_id = 10\n[[port]]\nname = \"trunk\"\n\
         trunk = { physical_network = \"up\" }\ninterface = { kind = \"packet\", name = \"eth-trunk\" }\n",
    );
    for name in ["a", "b", "c", "d", "e", "f", "g", "h"] {
        text.push_str(&format!(
            "[[port]]\nname = \"{name}\"\nnetwork = \"red\"\ninterface = {{ kind = \"packet\", name = \"eth-{name}\" }}\n"
        ));
    }
    text
}

struct Bench {
    worker: Worker,
    handles: HashMap<String, MemHandle>,
    tables: Arc<ArcSwap<Tables>>,
    now: u64,
    moved: usize,
}

/// A guest with a floating IP and one without behind a router, whose world is one host.
const ROUTER: &str = r#"
[[network]]
name = "public"
external = true
[[subnet]]
name = "public"
network = "public"
cidr = "203.0.113.0/24"
gateway_ip = false
[[network]]
name = "blue"
[[subnet]]
name = "blue"
network = "blue"
cidr = "10.0.0.0/24"
[[router]]
name = "edge"
interfaces = ["blue"]
external_gateway = { network = "public", external_fixed_ips = ["203.0.113.100"] }
[[port]]
name = "w"
network = "public"
mac_address = "52:54:00:00:00:09"
fixed_ips = ["203.0.113.9"]
interface = { kind = "packet", name = "eth-w" }
[[port]]
name = "a"
network = "blue"
mac_address = "52:54:00:00:00:01"
fixed_ips = ["10.0.0.11"]
interface = { kind = "packet", name = "eth-a" }
[[port]]
name = "b"
network = "blue"
mac_address = "52:54:00:00:00:02"
fixed_ips = ["10.0.0.12"]
interface = { kind = "packet", name = "eth-b" }
[[floating_ip]]
floating_network = "public"
floating_ip_address = "203.0.113.150"
port = "b"
"#;

fn bench(text: &str) -> Bench {
    let model = model::load(text, "test.toml").unwrap();
    let poll = Poll::new().unwrap();
    let mesh = Arc::new(Mesh::new(std::slice::from_ref(&poll)).unwrap());
    let published = Arc::new(ArcSwap::from_pointee(Tables::default()));
    let (commands, receiver) = channel::unbounded();
    let mut worker = Worker::new(Setup {
        index: WorkerIdx(0),
        region: Region::new(4096, 16).unwrap(),
        seed: 7,
        tables: published.clone(),
        mesh: mesh.clone(),
        poll,
        commands: receiver,
        notices: tokio::sync::mpsc::unbounded_channel().0,
        slow_path: tokio::sync::mpsc::channel(1).0,
        origin: std::time::Instant::now(),
    });
    let caps = Caps { checksum: false, tso: false, uso: false, mtu: 1500 };
    let device = || Device { worker: WorkerIdx(0), up: true, caps, mac: None, counters: Arc::default() };
    let devices: HashMap<AttachmentKey, Device> = model.attachments().map(|d| (d.key, device())).collect();
    let mut places = Places::default();
    published.store(Arc::new(compile(&model, &devices, &mut places, 1)));
    let mut handles = HashMap::new();
    for port in &model.ports {
        let (io, handle) = mem::pair(&port.name, 4 * BURST, caps);
        let index = PortIdx(places.ports.get(&AttachmentKey::Port(port.name.clone())).unwrap());
        commands.send(Command::Attach(index, Box::new(io), channel::bounded(1).0)).unwrap();
        mesh.link(WorkerIdx(0)).wake();
        handles.insert(port.name.clone(), handle);
    }
    worker.turn(Instant(0));
    Bench { worker, handles, tables: published, now: 0, moved: 0 }
}

fn frame(from: u8, to: u8, tagged: bool) -> Vec<u8> {
    let mut bytes = vec![0x52, 0x54, 0, 0, 0, to, 0x52, 0x54, 0, 0, 0, from];
    if tagged {
        bytes.extend([0x81, 0, 0, 10]);
    }
    bytes.extend([0x88, 0xb5]);
    bytes.resize(bytes.len() + 46, 0);
    bytes
}

impl Bench {
    /// A burst of a frame into a port, a turn, and what came out of all ports, off the wire again: how many.
    fn burst(&mut self, port: &str, bytes: &[u8]) -> usize {
        for _ in 0..BURST {
            assert!(self.handles[port].send_bytes(&mut self.worker.shard().pool, bytes));
        }
        // More than an eighth of the ageing time passes at times, so that refreshing is among what is looked at.
        self.now += 7_000_000_000;
        self.moved += self.worker.turn(Instant(self.now));
        self.handles.values().map(|handle| std::iter::from_fn(|| handle.receive()).count()).sum()
    }
}

#[test]
fn a_known_flow_allocates_nothing() {
    let mut bench = bench(&file());
    let mut flood = frame(1, 0xff, false);
    flood[..6].fill(0xff);
    // a, b: addresses 1 and 2; the trunk: 3.
    let flows: [(&str, Vec<u8>, usize); 6] = [
        ("a", frame(1, 2, false), 1),
        ("b", frame(2, 1, false), 1),
        ("a", frame(1, 3, false), 1),
        ("trunk", frame(3, 1, true), 1),
        ("trunk", frame(3, 2, true), 1),
        ("a", flood, 8),
    ];
    for _ in 0..4 {
        for (port, bytes, _) in &flows {
            bench.burst(port, bytes);
        }
    }
    let (before, moved) = (ALLOCATIONS.get(), bench.moved);
    for _ in 0..200 {
        for (port, bytes, copies) in &flows {
            let sent = bench.burst(port, bytes);
            assert_eq!(sent, copies * BURST);
        }
    }
    let allocations = ALLOCATIONS.get() - before;
    assert_eq!(bench.moved - moved, 200 * flows.len() * BURST, "the frames did pass");
    assert_eq!(allocations, 0, "allocations and releases on the path of known flows");
}

/// A UDP packet with a sound header from one end to another.
fn udp(macs: [Mac; 2], source: ([u8; 4], u16), destination: ([u8; 4], u16)) -> Vec<u8> {
    let mut ip = vec![0x45, 0, 0, 46, 0, 0, 0x40, 0, 64, 17, 0, 0];
    ip.extend([source.0, destination.0].concat());
    let sum = Sum::of(&ip).checksum().to_be_bytes();
    ip[10..12].copy_from_slice(&sum);
    let ports = [source.1.to_be_bytes(), destination.1.to_be_bytes()].concat();
    let mut bytes = [&macs[1].0[..], &macs[0].0, &[8, 0], &ip, &ports, &[0, 26, 0, 0]].concat();
    bytes.resize(60, 0);
    bytes
}

#[test]
fn a_translated_flow_allocates_nothing() {
    let mut bench = bench(ROUTER);
    let mac_of = |bench: &Bench, name: &str| {
        let tables = bench.tables.load();
        let port = tables.ports.iter().flatten().find(|port| *port.name == *name).unwrap();
        port.interface().unwrap().mac
    };
    let (inside, outside) = (mac_of(&bench, "edge/blue"), mac_of(&bench, "edge/public"));
    let guest = |n: u8| Mac([0x52, 0x54, 0, 0, 0, n]);
    let world = ([203, 0, 113, 9], 53);
    let out = |n: u8| udp([guest(n), inside], ([10, 0, 0, 10 + n], 4000), world);
    let back = |to: [u8; 4]| udp([guest(9), outside], world, (to, 4000));
    let flows =
        [("a", out(1)), ("w", back([203, 0, 113, 100])), ("b", out(2)), ("w", back([203, 0, 113, 150]))];
    for _ in 0..4 {
        for (port, bytes) in &flows {
            bench.burst(port, bytes);
        }
    }
    let before = ALLOCATIONS.get();
    for _ in 0..200 {
        for (port, bytes) in &flows {
            assert_eq!(bench.burst(port, bytes), BURST, "{port}");
        }
    }
    assert_eq!(ALLOCATIONS.get() - before, 0, "allocations and releases on the path of translated flows");
}

#[test]
fn the_allocator_counts() {
    let before = ALLOCATIONS.get();
    drop(std::hint::black_box(Box::new(7u64)));
    assert_eq!(ALLOCATIONS.get() - before, 2);
}
