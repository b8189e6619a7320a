//! TAP, AF_PACKET and guest ports on the real kernel: namespaces, a forwarding loop between two ports, and the kernel's
//! own stack as the end points. Needs root, or a user namespace (`unshare --user --map-root-user --net --mount`).
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nuswitch::frame::{Burst, Frame, Offload, Pool};
use nuswitch::ports::guest::{self, GuestConfig};
use nuswitch::ports::link::{LinkEvent, LinkMonitor, Links};
use nuswitch::ports::netns::Netns;
use nuswitch::ports::packet::PacketPort;
use nuswitch::ports::tap::{TapConfig, TapError, TapPort};
use nuswitch::ports::{PortIo, Rx};
use nuswitch::stats::{DropReason, PortCounters};
use nuswitch::sys::tap::Tap;
use nuswitch::types::Mac;

/// A namespace, or the end of the test with a reason where the machine allows none.
macro_rules! netns_or_skip {
    ($name:expr) => {
        match Netns::anonymous($name) {
            Ok(netns) => netns,
            Err(error) => {
                assert!(std::env::var_os("CI").is_none(), "{error}");
                eprintln!("skipped: {error}");
                return;
            }
        }
    };
}

/// The end of a test that makes TAPs, with a reason, where we may not.
macro_rules! tun_or_skip {
    () => {
        if let Err(error) = std::fs::OpenOptions::new().read(true).write(true).open("/dev/net/tun") {
            assert!(std::env::var_os("CI").is_none(), "/dev/net/tun: {error}");
            eprintln!("skipped: /dev/net/tun: {error}");
            return;
        }
    };
}

fn counters() -> Arc<PortCounters> {
    Arc::new(PortCounters::default())
}

fn tap_config(name: &str, netns: &Netns, address: &str) -> TapConfig {
    TapConfig {
        name: name.into(),
        netns: Some(netns.path().to_str().unwrap().into()),
        address: vec![(address.parse().unwrap(), 24)],
        mac: None,
        mtu: 1500,
    }
}

fn tap(netns: &Netns, address: &str) -> Box<dyn PortIo> {
    Box::new(TapPort::open(&tap_config("nut0", netns, address), counters()).unwrap())
}

#[derive(Default)]
struct Seen {
    gso: AtomicU64,
    unfinished: AtomicU64,
}

/// A worker that carries frames between two ports, until told to stop; then every buffer must be back.
struct Wire {
    seen: Arc<Seen>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Wire {
    fn new(left: Box<dyn PortIo>, right: Box<dyn PortIo>) -> Wire {
        let (seen, stop) = (Arc::new(Seen::default()), Arc::new(AtomicBool::new(false)));
        let (seen2, stop2) = (seen.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            let mut pool = Pool::with_chunks(2048, 128).unwrap();
            let mut ports = [left, right];
            while !stop2.load(Ordering::Relaxed) {
                if !carry(&mut ports, &mut pool, &seen2) {
                    std::thread::yield_now();
                }
            }
            ports.into_iter().for_each(|port| drop(port.close(&mut pool)));
            assert_eq!(pool.free_chunks(), (2048, 128), "every chunk is back");
        });
        Wire { seen, stop, thread: Some(thread) }
    }

    /// Stops, and gives how many GSO frames and how many unfinished checksums passed.
    fn end(mut self) -> (u64, u64) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
        (self.seen.gso.load(Ordering::Relaxed), self.seen.unfinished.load(Ordering::Relaxed))
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// One turn; false when nothing came.
fn carry(ports: &mut [Box<dyn PortIo>; 2], pool: &mut Pool, seen: &Seen) -> bool {
    let mut busy = false;
    for from in 0..2 {
        let mut burst = Burst::new();
        ports[from].rx(pool, &mut burst);
        let mut frames: Vec<Frame> = burst.into_iter().collect();
        busy |= !frames.is_empty();
        for frame in &frames {
            seen.gso.fetch_add(u64::from(frame.offload.gso() != Offload::GSO_NONE), Ordering::Relaxed);
            seen.unfinished.fetch_add(u64::from(frame.offload.needs_csum()), Ordering::Relaxed);
        }
        ports[1 - from].tx(pool, &mut frames);
        ports[from].turn(pool);
    }
    busy
}

/// Sends 16 MiB of a pattern over TCP and compares what arrives.
fn tcp(server: &Netns, client: &Netns, address: &str) {
    let listener = server.within(|| TcpListener::bind((address, 0)).unwrap()).unwrap();
    let goal = listener.local_addr().unwrap();
    let reader = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let mut stream = listener.accept().unwrap().0;
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.read_to_end(&mut bytes).unwrap();
        bytes
    });
    let pattern: Vec<u8> = (0..16 << 20).map(|i| (i % 251) as u8).collect();
    let connect = || TcpStream::connect_timeout(&goal, Duration::from_secs(5)).unwrap();
    let mut stream = client.within(connect).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.write_all(&pattern).unwrap();
    drop(stream);
    assert!(reader.join().unwrap() == pattern, "what arrived is not what was sent");
}

/// Datagrams there and back, one at a time; gives the best time.
fn echo(server: &Netns, client: &Netns, address: &str, size: usize) -> Duration {
    let server = server.within(|| UdpSocket::bind((address, 0)).unwrap()).unwrap();
    let client = client.within(|| UdpSocket::bind("0.0.0.0:0").unwrap()).unwrap();
    for socket in [&server, &client] {
        socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    }
    let goal = server.local_addr().unwrap();
    let answering = std::thread::spawn(move || {
        let mut bytes = vec![0; 65536];
        for _ in 0..20 {
            let (len, from) = server.recv_from(&mut bytes).unwrap();
            server.send_to(&bytes[..len], from).unwrap();
        }
    });
    let message: Vec<u8> = (0..size).map(|i| i as u8).collect();
    let mut back = vec![0; 65536];
    let times = (0..20).map(|_| {
        let start = Instant::now();
        client.send_to(&message, goal).unwrap();
        let len = client.recv(&mut back).unwrap();
        assert_eq!(back[..len], message);
        start.elapsed()
    });
    let best = times.min().unwrap();
    answering.join().unwrap();
    best
}

/// A veth in `outside` whose peer stands in `inside`, up and with an address.
fn veth(outside: &Netns, inside: &Netns, name: &str, address: &str) {
    let make = || {
        let mut links = Links::open().unwrap();
        links.add_veth(name, "nup0").unwrap();
        let peer = links.get("nup0").unwrap();
        links.set_netns(peer.index, inside.as_fd(), "nup0").unwrap();
    };
    outside.within(make).unwrap();
    let set_up = || {
        let mut links = Links::open().unwrap();
        let index = links.get("nup0").unwrap().index;
        links.set_up(index, true).unwrap();
        links.add_address(index, address.parse().unwrap(), 24).unwrap();
    };
    inside.within(set_up).unwrap();
}

fn packet(netns: &Netns, name: &str) -> Box<dyn PortIo> {
    Box::new(netns.within(|| PacketPort::open(name, counters()).unwrap()).unwrap())
}

fn remove(netns: &Netns, name: &str) -> u32 {
    let remove = || {
        let mut links = Links::open().unwrap();
        let index = links.get(name).unwrap().index;
        links.delete(index).unwrap();
        index
    };
    netns.within(remove).unwrap()
}

#[test]
fn two_taps_carry_datagrams_and_whole_gso_frames() {
    tun_or_skip!();
    let (a, b) = (netns_or_skip!("a"), netns_or_skip!("b"));
    let wire = Wire::new(tap(&a, "192.0.2.1"), tap(&b, "192.0.2.2"));
    println!("round trip {:?}", echo(&a, &b, "192.0.2.1", 56));
    echo(&a, &b, "192.0.2.1", 4000);
    tcp(&a, &b, "192.0.2.1");
    let (gso, unfinished) = wire.end();
    assert!(gso > 100 && unfinished > 100, "{gso} {unfinished}");
}

#[test]
fn a_tap_is_what_its_configuration_says_and_goes_with_its_port() {
    tun_or_skip!();
    let netns = netns_or_skip!("a");
    let mac: Mac = "02:00:5e:00:53:01".parse().unwrap();
    let mut config = tap_config("nut1", &netns, "192.0.2.1");
    config.address.push(("2001:db8::1".parse().unwrap(), 64));
    config.mac = Some(mac);
    config.mtu = 9000;
    let port = TapPort::open(&config, counters()).unwrap();
    assert!(
        matches!(TapPort::open(&config, counters()), Err(TapError::Exists(name)) if name.starts_with("nut1@"))
    );
    assert_eq!(port.caps().mtu, 9000);
    let look = || {
        let mut links = Links::open().unwrap();
        links.get("nut1").map(|link| (links.addresses(link.index).unwrap(), link))
    };
    let (addresses, link) = netns.within(look).unwrap().unwrap();
    assert!(link.up && link.is_tap() && !link.multi_queue, "{link:?}");
    assert_eq!((link.mtu, link.mac), (9000, Some(mac)));
    for address in ["192.0.2.1", "2001:db8::1"] {
        let address: IpAddr = address.parse().unwrap();
        assert!(addresses.iter().any(|&(a, _)| a == address), "{addresses:?}");
    }
    drop(port);
    assert!(netns.within(look).unwrap().is_err(), "nothing is left behind");
}

#[test]
fn a_tap_whose_device_is_removed_is_gone() {
    tun_or_skip!();
    let netns = netns_or_skip!("a");
    let mut pool = Pool::with_chunks(64, 4).unwrap();
    let mut port = tap(&netns, "192.0.2.1");
    let mut burst = Burst::new();
    while port.rx(&mut pool, &mut burst) != Rx::Drained {
        burst.clear();
    }
    remove(&netns, "nut0");
    burst.clear();
    assert_eq!(port.rx(&mut pool, &mut burst), Rx::Gone);
    port.close(&mut pool);
    assert_eq!(pool.free_chunks(), (64, 4));
}

#[test]
fn a_tap_goes_with_its_namespace() {
    tun_or_skip!();
    let netns = netns_or_skip!("a");
    let mut pool = Pool::with_chunks(64, 4).unwrap();
    let mut port = tap(&netns, "192.0.2.1");
    drop(netns);
    let start = Instant::now();
    let mut burst = Burst::new();
    while port.rx(&mut pool, &mut burst) != Rx::Gone {
        burst.clear();
        assert!(start.elapsed() < Duration::from_secs(10), "still there");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn without_buffers_a_tap_counts_what_it_drops() {
    tun_or_skip!();
    let netns = netns_or_skip!("a");
    let mut pool = Pool::with_chunks(1, 0).unwrap();
    let counters = counters();
    let mut port = TapPort::open(&tap_config("nut0", &netns, "192.0.2.1"), counters.clone()).unwrap();
    let socket = netns.within(|| UdpSocket::bind("192.0.2.1:0").unwrap()).unwrap();
    socket.set_broadcast(true).unwrap();
    for _ in 0..5 {
        socket.send_to(b"hello", "192.0.2.255:9").unwrap();
    }
    let mut burst = Burst::new();
    assert_eq!(port.rx(&mut pool, &mut burst), Rx::Drained);
    let dropped = counters.dropped(DropReason::NoBuffer);
    assert_eq!(burst.len(), 1);
    assert!(dropped >= 4, "{dropped}");
    assert_eq!(counters.rx_frames.get(), dropped);
    burst.clear();
    Box::new(port).close(&mut pool);
    assert_eq!(pool.free_chunks(), (1, 0));
}

#[test]
fn two_packet_ports_carry_datagrams_and_whole_gso_frames() {
    let (a, b, middle) = (netns_or_skip!("a"), netns_or_skip!("b"), netns_or_skip!("middle"));
    veth(&middle, &a, "nuv1", "192.0.2.1");
    veth(&middle, &b, "nuv2", "192.0.2.2");
    let (left, right) = (packet(&middle, "nuv1"), packet(&middle, "nuv2"));
    assert!(left.details().notes.iter().any(|note| note.contains("set up")), "{:?}", left.details());
    let wire = Wire::new(left, right);
    let time = echo(&a, &b, "192.0.2.1", 56);
    println!("round trip {time:?}");
    assert!(time < Duration::from_millis(1), "a lone frame does not wait: {time:?}");
    echo(&a, &b, "192.0.2.1", 4000);
    tcp(&a, &b, "192.0.2.1");
    let (gso, unfinished) = wire.end();
    assert!(gso > 100 && unfinished > 100, "{gso} {unfinished}");
}

#[test]
fn a_tap_and_a_packet_port_understand_each_other() {
    tun_or_skip!();
    let (a, b, middle) = (netns_or_skip!("a"), netns_or_skip!("b"), netns_or_skip!("middle"));
    veth(&middle, &b, "nuv1", "192.0.2.2");
    let wire = Wire::new(tap(&a, "192.0.2.1"), packet(&middle, "nuv1"));
    tcp(&a, &b, "192.0.2.1");
    tcp(&b, &a, "192.0.2.2");
    assert!(wire.end().0 > 100);
}

/// The kernel takes the outer tag out of what arrives on a veth, in short and in long frames; the port puts it back.
#[test]
fn a_tag_out_of_band_returns_into_the_frame() {
    let netns = netns_or_skip!("a");
    let open = || {
        let mut links = Links::open().unwrap();
        links.add_veth("nuv1", "nuv2").unwrap();
        for name in ["nuv1", "nuv2"] {
            let index = links.get(name).unwrap().index;
            links.set_mtu(index, 9000).unwrap();
        }
        ["nuv1", "nuv2"].map(|name| PacketPort::open(name, counters()).unwrap())
    };
    let [mut one, mut two] = netns.within(open).unwrap();
    let mut pool = Pool::with_chunks(256, 4).unwrap();
    let mut others = Vec::new();
    for (len, tpid) in [(60, [0x81, 0]), (1518, [0x81, 0]), (1518, [0x88, 0xa8]), (5000, [0x81, 0])] {
        let mut bytes = [&[0xff; 6][..], &[2, 0, 0x5e, 0, 0x53, 1], &tpid, &[0x60, 5, 0x88, 0xb5]].concat();
        bytes.resize(len, 0x5a);
        let mut frames = vec![pool.frame_from(&bytes).unwrap()];
        one.tx(&mut pool, &mut frames);
        assert!(frames.is_empty());
        let frame = receive_like(&mut two, &mut pool, &bytes[12..18], &mut others).expect("it arrives");
        assert_eq!(frame.head(), bytes, "{len} bytes");
    }
}

/// The first frame that has these bytes behind its addresses, within a second.
fn receive_like(
    port: &mut PacketPort,
    pool: &mut Pool,
    header: &[u8],
    others: &mut Vec<usize>,
) -> Option<Frame> {
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(1) {
        let mut burst = Burst::new();
        port.rx(pool, &mut burst);
        for frame in burst {
            if frame.head().get(12..12 + header.len()) == Some(header) {
                return Some(frame);
            }
            others.push(frame.len());
        }
    }
    None
}

#[test]
fn a_packet_port_notices_that_its_device_is_gone() {
    let netns = netns_or_skip!("a");
    let mut pool = Pool::with_chunks(64, 4).unwrap();
    let open = || {
        Links::open().unwrap().add_veth("nuv1", "nuv2").unwrap();
        (PacketPort::open("nuv1", counters()).unwrap(), LinkMonitor::open().unwrap())
    };
    let (mut port, mut monitor) = netns.within(open).unwrap();
    let index = remove(&netns, "nuv1");
    let mut burst = Burst::new();
    let gone = (0..1000).any(|_| {
        burst.clear();
        port.rx(&mut pool, &mut burst) == Rx::Gone
    });
    assert!(gone);
    let mut frames = vec![pool.frame_from(&[0; 60]).unwrap()];
    port.tx(&mut pool, &mut frames);
    let events: Vec<LinkEvent> = std::iter::from_fn(|| monitor.next_event().unwrap()).collect();
    assert!(events.contains(&LinkEvent::Gone { name: "nuv1".into(), index }), "{events:?}");
}

/// A hypervisor's stand-in attaches to the guest port's TAP, goes, and comes back.
#[test]
fn a_guest_port_survives_its_guests() {
    tun_or_skip!();
    let netns = netns_or_skip!("a");
    let config = GuestConfig { name: "nug0".into(), owner: Some("0".into()), mtu: 1400 };
    let mut pool = Pool::with_chunks(512, 4).unwrap();
    let mut port = netns.within(|| guest::open(&config, counters()).unwrap()).unwrap();
    assert_eq!((port.details().driver, port.caps().mtu), ("guest", 1400));
    let bytes = [&[0xff; 6][..], &[2, 0, 0x5e, 0, 0x53, 1], &[0x88, 0xb5], &[7; 86]].concat();
    for round in 0..3 {
        // Nobody is attached: what we send is lost without harm, and does not arrive later.
        let mut frames: Vec<Frame> = (0..300).filter_map(|_| pool.frame_from(&[0xff; 70])).collect();
        port.tx(&mut pool, &mut frames);
        drop(frames);
        let hypervisor = netns.within(|| Tap::attach("nug0").unwrap()).unwrap();
        hypervisor.write(Offload::NONE, std::iter::once(&bytes[..])).unwrap();
        let got = receive_like(&mut port, &mut pool, &bytes[12..18], &mut Vec::new());
        assert_eq!(got.unwrap().head(), bytes, "round {round}");
        let mut frames = vec![pool.frame_from(&bytes).unwrap()];
        port.tx(&mut pool, &mut frames);
        let (mut got, mut offload) = ([0; 2048], Offload::NONE);
        let len = hypervisor.read(&mut offload, [&mut got, &mut []]).unwrap();
        assert_eq!(got[..len], bytes, "round {round}");
        if round == 1 {
            // The switch starts anew while the guest runs.
            Box::new(port).close(&mut pool);
            port = netns.within(|| guest::open(&config, counters()).unwrap()).unwrap();
            assert!(port.details().notes[0].contains("in use by a guest"), "{:?}", port.details());
        }
    }
    netns.within(|| guest::remove("nug0").unwrap()).unwrap();
    netns.within(|| guest::remove("nug0").unwrap()).unwrap();
    assert!(netns.within(|| Links::open().unwrap().get("nug0").is_err()).unwrap());
}

/// Gives the calling thread, and what it starts, a `/dev/net/tun` that every user may open, as udev makes it: the machine's
/// own may be root's alone.
fn open_tun_to_all() {
    let directory = tempfile::tempdir().unwrap();
    let node = directory.path().join("tun");
    let none: Option<&str> = None;
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    mount(none, "/", none, MsFlags::MS_PRIVATE | MsFlags::MS_REC, none).unwrap();
    mknod(&node, SFlag::S_IFCHR, Mode::empty(), makedev(10, 200)).unwrap();
    std::fs::set_permissions(&node, PermissionsExt::from_mode(0o666)).unwrap();
    mount(Some(&node), "/dev/net/tun", none, MsFlags::MS_BIND, none).unwrap();
}

/// QEMU with its defaults, as a user without any privilege.
#[test]
fn qemu_opens_a_guest_port_as_its_owner() {
    tun_or_skip!();
    const NOBODY: u32 = 65534;
    let netns = netns_or_skip!("a");
    // Another user exists only where all users do.
    let all_users = std::fs::read_to_string("/proc/self/uid_map").unwrap().contains("4294967295");
    if !all_users || Command::new("qemu-system-x86_64").arg("--version").output().is_err() {
        assert!(std::env::var_os("CI").is_none(), "no root, or no qemu-system-x86_64");
        eprintln!("skipped: needs root and qemu-system-x86_64");
        return;
    }
    let config = GuestConfig { name: "nug2".into(), owner: Some(NOBODY.to_string()), mtu: 1500 };
    let port = netns.within(|| guest::open(&config, counters()).unwrap()).unwrap();
    let link = || netns.within(|| Links::open().unwrap().get("nug2").unwrap()).unwrap();
    assert!(!link().carrier);
    let qemu = |user: u32| {
        let mut command = Command::new("qemu-system-x86_64");
        command.args([
            "-S",
            "-nodefaults",
            "-display",
            "none",
            "-machine",
            "pc",
            "-accel",
            "tcg",
            "-m",
            "64",
        ]);
        command.args(["-netdev", "tap,id=n0,ifname=nug2,script=no,downscript=no"]);
        command.args(["-device", "virtio-net-pci,netdev=n0,romfile="]).uid(user).gid(user);
        let spawn = move || {
            open_tun_to_all();
            command.stderr(Stdio::piped()).spawn().unwrap()
        };
        netns.within(spawn).unwrap()
    };
    for round in 0..2 {
        let mut child = qemu(NOBODY);
        let start = Instant::now();
        while !link().carrier && start.elapsed() < Duration::from_secs(20) {
            if child.try_wait().unwrap().is_some() {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let carrier = link().carrier;
        child.kill().unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(carrier, "round {round}: {}", String::from_utf8_lossy(&output.stderr));
        assert!(!link().carrier, "the guest went");
    }
    let stranger = qemu(NOBODY - 1).wait_with_output().unwrap();
    let message = String::from_utf8_lossy(&stranger.stderr);
    assert!(!stranger.status.success() && message.contains("Operation not permitted"), "{message}");
    drop(port);
    netns.within(|| guest::remove("nug2").unwrap()).unwrap();
}

#[test]
fn a_guest_port_refuses_what_is_no_tap() {
    let netns = netns_or_skip!("a");
    let refused = || {
        Links::open().unwrap().add_veth("nug1", "nug2").unwrap();
        let config = GuestConfig { name: "nug1".into(), owner: None, mtu: 1500 };
        (guest::open(&config, counters()).err().unwrap().to_string(), guest::remove("nug1").is_err())
    };
    let (error, not_removed) = netns.within(refused).unwrap();
    assert!(error.contains("nug1") && error.contains("not a TAP"), "{error}");
    assert!(not_removed);
}

#[test]
fn devices_change_as_they_are_told() {
    let netns = netns_or_skip!("a");
    let change = || {
        let mut links = Links::open().unwrap();
        links.add_bridge("nubr").unwrap();
        links.add_veth("nuv1", "nuv2").unwrap();
        let (bridge, veth) = (links.get("nubr").unwrap(), links.get("nuv1").unwrap());
        assert_eq!((bridge.kind.as_deref(), veth.kind.as_deref()), (Some("bridge"), Some("veth")));
        assert_eq!(veth.peer, Some(links.get("nuv2").unwrap().index));
        links.set_master(veth.index, Some(bridge.index)).unwrap();
        links.set_mtu(veth.index, 9000).unwrap();
        links.set_name(veth.index, "nuv9").unwrap();
        let veth = links.get("nuv9").unwrap();
        assert_eq!((veth.master, veth.mtu, veth.up), (Some(bridge.index), 9000, false));
        links.set_up(veth.index, true).unwrap();
        links.set_master(veth.index, None).unwrap();
        let veth = links.get_index(veth.index).unwrap();
        assert_eq!((veth.master, veth.up), (None, true));
        assert!(links.add_veth("nuv9", "x").unwrap_err().to_string().contains("nuv9"));
        links.delete(veth.index).unwrap();
        assert!(links.get("nuv2").is_err(), "the peer goes too");
    };
    netns.within(change).unwrap();
}

#[test]
fn a_named_namespace_comes_and_goes() {
    let name = format!("nutest{}", std::process::id());
    match Netns::create(&name) {
        Ok(netns) => {
            let same = Netns::open(&name).unwrap();
            let index = |netns: &Netns| {
                netns.within(|| std::fs::read_link("/proc/thread-self/ns/net").unwrap()).unwrap()
            };
            assert_eq!(index(&netns), index(&same));
            assert!(Netns::list().contains(&name));
            assert!(Netns::create(&name).is_err(), "the name is taken");
            Netns::delete(&name).unwrap();
            assert!(Netns::open(&name).is_err() && Netns::delete(&name).is_err());
        }
        Err(error) => {
            assert!(std::env::var_os("CI").is_none(), "{error}");
            eprintln!("skipped: {error}");
        }
    }
}
