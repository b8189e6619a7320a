//! AF_XDP on real veths between namespaces: two ports forwarded by hand, the kernel's own stack on either side.
//!
//! Needs root and `ip`. Without, every test says that it was skipped and why; as root with `CI` set, whatever else is
//! missing fails.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, missing_docs)]

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};
use nuswitch::frame::{BURST, Burst, Frame, Pool, Region};
use nuswitch::model::XdpMode;
use nuswitch::ports::xdp::{Filter, HostFilter, Umem, XdpConfig, XdpError, XdpPort};
use nuswitch::ports::{PortIo, Rx};
use nuswitch::stats::PortCounters;

fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Whether the tests can run here; tells why not.
fn can_run() -> bool {
    let why_not = if !nix::unistd::geteuid().is_root() {
        "not root"
    } else if Command::new("ip").arg("-V").output().is_err() {
        assert!(std::env::var_os("CI").is_none(), "`ip` is missing");
        "`ip` is missing"
    } else {
        return true;
    };
    eprintln!("skipped: {why_not}");
    false
}

/// Three namespaces: two hosts (`a`, `b`, each with `eth0`) and the switch between them (`pa`, `pb`).
struct Lab {
    name: String,
}

impl Lab {
    fn new(mtu: u32, queues: u32) -> Lab {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("nuxdp{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let lab = Lab { name };
        for part in ["a", "b", "sw"] {
            ip(&format!("netns add {}", lab.ns(part)));
        }
        for (host, number) in [("a", 1), ("b", 2)] {
            let (ns, sw) = (lab.ns(host), lab.ns("sw"));
            ip(&format!(
                "link add p{host} netns {sw} mtu {mtu} numrxqueues {queues} numtxqueues {queues} type veth \
                 peer name eth0 netns {ns} mtu {mtu} address 02:00:00:00:00:0{number} \
                 numrxqueues {queues} numtxqueues {queues}"
            ));
            ip(&format!("-n {sw} link set p{host} up"));
            ip(&format!("-n {ns} link set lo up"));
            ip(&format!("-n {ns} addr add 10.99.0.{number}/24 dev eth0"));
            ip(&format!("-n {ns} addr add fd99::{number}/64 dev eth0 nodad"));
            ip(&format!("-n {ns} link set eth0 up"));
        }
        lab
    }

    fn ns(&self, part: &str) -> String {
        format!("{}-{part}", self.name)
    }

    /// Runs `work` on a thread of its own inside of a namespace.
    fn spawn<T: Send + 'static>(
        &self,
        part: &str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        let ns = File::open(format!("/run/netns/{}", self.ns(part))).unwrap();
        std::thread::spawn(move || {
            setns(ns, CloneFlags::CLONE_NEWNET).unwrap();
            work()
        })
    }

    fn ping(&self, arguments: &str) {
        let ns = self.ns("a");
        let ping = |arguments: &str| {
            let mut command = Command::new("ip");
            command.args(["netns", "exec", &ns, "ping", "-q", "-i", "0.05", "-W", "2"]);
            command.args(arguments.split_whitespace()).output().unwrap()
        };
        // What comes before the forwarder's first turn finds no chunk to be received into.
        let target = arguments.split_whitespace().last().unwrap();
        ping(&format!("-c 2 {target}"));
        let output = ping(arguments);
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains(" 0% packet loss"), "ping {arguments}: {text}");
    }

    /// Sends `bytes` from `a` to `b` by TCP and compares what arrives; gives megabits a second.
    fn tcp(&self, address: &'static str, bytes: usize) -> f64 {
        let (ready, is_ready) = mpsc::channel();
        let server = self.spawn("b", move || {
            let listener = TcpListener::bind(address).unwrap();
            ready.send(()).unwrap();
            let (mut stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            let (mut buffer, mut total) = (vec![0u8; 1 << 16], 0usize);
            loop {
                let n = stream.read(&mut buffer).unwrap();
                if n == 0 {
                    return total;
                }
                assert!(buffer[..n].iter().enumerate().all(|(i, &b)| b == pattern(total + i)), "at {total}");
                total += n;
            }
        });
        is_ready.recv().unwrap();
        let start = Instant::now();
        let client = self.spawn("a", move || {
            let address: SocketAddr = address.parse().unwrap();
            let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5)).unwrap();
            stream.set_write_timeout(Some(Duration::from_secs(10))).unwrap();
            let data: Vec<u8> = (0..bytes).map(pattern).collect();
            stream.write_all(&data).unwrap();
        });
        client.join().unwrap();
        assert_eq!(server.join().unwrap(), bytes);
        bytes as f64 * 8.0 / start.elapsed().as_secs_f64() / 1e6
    }
}

fn pattern(at: usize) -> u8 {
    (at % 251) as u8
}

impl Drop for Lab {
    fn drop(&mut self) {
        for part in ["a", "b", "sw"] {
            let _ = Command::new("ip").args(["netns", "del", &self.ns(part)]).output();
        }
    }
}

const CHUNKS: u32 = 8192;

/// Two ports and a worker that moves frames between them until it is dropped.
struct Forwarder {
    stop: Arc<AtomicBool>,
    worker: Option<JoinHandle<()>>,
    notes: [Vec<String>; 2],
}

fn open(umem: &Arc<Umem>, device: &str, mode: XdpMode, slot: u16) -> Result<XdpPort, XdpError> {
    let config = XdpConfig { device: device.into(), mode, ..XdpConfig::default() };
    XdpPort::open(&config, umem, slot, Arc::new(PortCounters::default()))
}

/// Forwards until told to stop, closes, and checks that every chunk is back.
fn work(ports: [XdpPort; 2], region: Arc<Region>, stop: &AtomicBool) {
    let mut pool = Pool::new(region);
    let [a, b] = ports.map(Box::new);
    let mut ports = [a, b];
    let (mut burst, mut out) = (Burst::new(), Vec::<Frame>::with_capacity(BURST));
    while !stop.load(Ordering::Relaxed) {
        for from in 0..2 {
            ports[from].turn(&mut pool);
            assert_ne!(ports[from].rx(&mut pool, &mut burst), Rx::Gone);
            out.extend(burst.drain(..));
            if !out.is_empty() {
                ports[1 - from].tx(&mut pool, &mut out);
                out.clear();
            }
        }
    }
    for port in ports {
        port.close(&mut pool);
    }
    assert_eq!(pool.free_chunks(), (CHUNKS as usize, 0), "every chunk is back");
}

impl Forwarder {
    fn start(lab: &Lab, mode: XdpMode) -> Forwarder {
        let region = Region::new(CHUNKS, 0).unwrap();
        let umem = Umem::new(region.clone());
        let control = lab
            .spawn("sw", move || [open(&umem, "pa", mode, 0).unwrap(), open(&umem, "pb", mode, 1).unwrap()]);
        let ports = control.join().unwrap();
        let notes = [ports[0].details().notes, ports[1].details().notes];
        assert!(ports[0].caps().checksum || notes[0].iter().any(|n| n.contains("checksums in software")));
        let stop = Arc::new(AtomicBool::new(false));
        let until = stop.clone();
        let worker = Some(std::thread::spawn(move || work(ports, region, &until)));
        Forwarder { stop, worker, notes }
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let result = self.worker.take().unwrap().join();
        assert!(result.is_ok() || std::thread::panicking());
    }
}

/// Takes TSO, GSO and UDP segmentation from the hosts; false (told, and with `CI` set a failure) without `ethtool`.
fn without_gso(lab: &Lab) -> bool {
    for host in ["a", "b"] {
        let features = "-K eth0 tso off gso off tx-udp-segmentation off";
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &lab.ns(host), "ethtool"]).args(features.split_whitespace());
        if !command.output().is_ok_and(|output| output.status.success()) {
            assert!(std::env::var_os("CI").is_none(), "`ethtool` is missing");
            eprintln!("skipped: `ethtool` is missing");
            return false;
        }
    }
    true
}

#[test]
fn native_carries_ping_and_tcp() {
    if !can_run() {
        return;
    }
    let lab = Lab::new(1500, 1);
    let forwarder = Forwarder::start(&lab, XdpMode::Best);
    assert!(forwarder.notes[0].contains(&"native".to_string()), "{:?}", forwarder.notes);
    lab.ping("-c 20 10.99.0.2");
    lab.ping("-c 5 -6 fd99::2");
    eprintln!("{:?}", forwarder.notes[0]);
    eprintln!("TCP over IPv4: {:.0} Mbit/s", lab.tcp("10.99.0.2:7001", 64 << 20));
    eprintln!("TCP over IPv6: {:.0} Mbit/s", lab.tcp("[fd99::2]:7001", 16 << 20));
}

#[test]
fn generic_carries_ping_and_tcp() {
    if !can_run() {
        return;
    }
    let lab = Lab::new(1500, 1);
    if !without_gso(&lab) {
        return;
    }
    let forwarder = Forwarder::start(&lab, XdpMode::Generic);
    assert!(forwarder.notes[0].iter().any(|note| note.starts_with("generic")), "{:?}", forwarder.notes);
    lab.ping("-c 20 10.99.0.2");
    eprintln!("TCP: {:.0} Mbit/s", lab.tcp("10.99.0.2:7002", 16 << 20));
}

#[test]
fn jumbo_frames_pass_in_chains() {
    if !can_run() {
        return;
    }
    let lab = Lab::new(9000, 1);
    let forwarder = Forwarder::start(&lab, XdpMode::Native);
    if !forwarder.notes[0].contains(&"multi-buffer".to_string()) {
        eprintln!("skipped: {:?}", forwarder.notes[0]);
        return;
    }
    lab.ping("-c 10 -M do -s 8972 10.99.0.2");
    lab.ping("-c 10 -s 30000 10.99.0.2");
    eprintln!("TCP at MTU 9000: {:.0} Mbit/s", lab.tcp("10.99.0.2:7003", 64 << 20));
}

#[test]
fn all_queues_are_served() {
    if !can_run() {
        return;
    }
    let lab = Lab::new(1500, 2);
    let forwarder = Forwarder::start(&lab, XdpMode::Native);
    assert!(forwarder.notes[0].iter().any(|note| note.starts_with("2 queues")), "{:?}", forwarder.notes);
    lab.ping("-c 10 10.99.0.2");
    // Many flows, so that both queues of the peer are used.
    let (ready, is_ready) = mpsc::channel();
    let server = lab.spawn("b", move || {
        let socket = UdpSocket::bind("10.99.0.2:7004").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
        ready.send(()).unwrap();
        let mut seen = std::collections::HashSet::new();
        while seen.len() < 64 {
            let mut buffer = [0; 8];
            let Ok((_, from)) = socket.recv_from(&mut buffer) else { break };
            seen.insert(from.port());
        }
        seen.len()
    });
    is_ready.recv().unwrap();
    let client = lab.spawn("a", || {
        // Kept open, so that no port is given out twice.
        let sockets: Vec<_> = (0..64).map(|_| UdpSocket::bind("10.99.0.1:0").unwrap()).collect();
        for socket in &sockets {
            socket.send_to(b"flow", "10.99.0.2:7004").unwrap();
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    client.join().unwrap();
    assert_eq!(server.join().unwrap(), 64);
    lab.tcp("10.99.0.2:7004", 4 << 20);
}

#[test]
fn a_device_closed_can_be_opened_at_once() {
    if !can_run() {
        return;
    }
    let lab = Lab::new(1500, 1);
    for _ in 0..5 {
        let _forwarder = Forwarder::start(&lab, XdpMode::Best);
        lab.ping("-c 2 10.99.0.2");
    }
}

#[test]
fn a_second_program_and_a_missing_device_are_refused_with_reason() {
    if !can_run() {
        return;
    }
    let lab = Lab::new(1500, 1);
    lab.spawn("sw", || {
        let umem = Umem::new(Region::new(1024, 0).unwrap());
        let _first = open(&umem, "pa", XdpMode::Best, 0).unwrap();
        let second = open(&umem, "pa", XdpMode::Native, 1).err().unwrap();
        assert!(matches!(second, XdpError::Occupied { .. }), "{second}");
        let missing = open(&umem, "nothing", XdpMode::Best, 2).err().unwrap();
        assert!(matches!(missing, XdpError::NoDevice { .. }), "{missing}");
    })
    .join()
    .unwrap();
}

#[test]
fn a_vanished_device_is_told() {
    if !can_run() {
        return;
    }
    let lab = Lab::new(1500, 1);
    let region = Region::new(1024, 0).unwrap();
    let umem = Umem::new(region.clone());
    let port = lab.spawn("sw", move || open(&umem, "pa", XdpMode::Best, 0).unwrap()).join().unwrap();
    let (mut port, mut pool, mut burst) = (Box::new(port), Pool::new(region), Burst::new());
    port.turn(&mut pool);
    assert_ne!(port.rx(&mut pool, &mut burst), Rx::Gone);
    ip(&format!("-n {} link del pa", lab.ns("sw")));
    let until = Instant::now() + Duration::from_secs(2);
    while port.rx(&mut pool, &mut burst) != Rx::Gone {
        assert!(Instant::now() < until, "never told");
        burst.clear();
    }
    port.close(&mut pool);
    drop(burst);
    assert_eq!(pool.free_chunks(), (1024, 0));
}

#[test]
fn the_host_keeps_its_own_traffic_on_a_shared_device() {
    if !can_run() {
        return;
    }
    let lab = Lab::new(1500, 1);
    ip(&format!("-n {} link set pa address 02:00:00:00:00:aa", lab.ns("sw")));
    ip(&format!("-n {} addr add 10.99.0.3/24 dev pa", lab.ns("sw")));
    ip(&format!("-n {} addr add fd99::3/64 dev pa nodad", lab.ns("sw")));
    let region = Region::new(1024, 0).unwrap();
    let umem = Umem::new(region.clone());
    let counters = Arc::new(PortCounters::default());
    let port = lab.spawn("sw", move || {
        let filter = HostFilter {
            mac: "02:00:00:00:00:aa".parse().unwrap(),
            ipv4: vec!["10.99.0.3".parse().unwrap()],
            ipv6: vec!["fd99::3".parse().unwrap()],
        };
        let config =
            XdpConfig { device: "pa".into(), filter: Some(Filter::Host(filter)), ..XdpConfig::default() };
        XdpPort::open(&config, &umem, 0, counters).unwrap()
    });
    let (mut port, mut pool, mut burst) = (Box::new(port.join().unwrap()), Pool::new(region), Burst::new());
    port.turn(&mut pool);
    lab.ping("-c 3 10.99.0.3");
    lab.ping("-c 3 -6 fd99::3");
    // Of all that nothing but multicast noise came to the switch; an ARP request for another comes.
    let _ = Command::new("ip")
        .args(["netns", "exec", &lab.ns("a"), "ping", "-c", "1", "-W", "1", "10.99.0.9"])
        .output()
        .unwrap();
    let mut arps = Vec::new();
    while port.rx(&mut pool, &mut burst) == Rx::More || !burst.is_empty() {
        for frame in burst.drain(..) {
            assert_ne!(frame.head()[..6], [2, 0, 0, 0, 0, 0xaa], "the host's own");
            if frame.head()[12..14] == [8, 6] {
                arps.push(frame.head()[38..42].to_vec());
            }
        }
    }
    assert!(arps.contains(&vec![10, 99, 0, 9]) && !arps.contains(&vec![10, 99, 0, 3]), "{arps:?}");
    port.close(&mut pool);
    assert_eq!(pool.free_chunks(), (1024, 0));
}

const CHILD: &str = "NUSWITCH_TEST_XDP_CHILD";

/// Not a test of its own: the process that `a_killed_process_leaves_nothing` kills.
#[test]
fn child_that_holds_a_device() {
    let Some(ns) = std::env::var_os(CHILD) else { return };
    setns(File::open(ns).unwrap(), CloneFlags::CLONE_NEWNET).unwrap();
    let umem = Umem::new(Region::new(1024, 0).unwrap());
    let _port = open(&umem, "pa", XdpMode::Best, 0).unwrap();
    println!("\nholding");
    std::thread::sleep(Duration::from_secs(20));
}

#[test]
fn a_killed_process_leaves_nothing() {
    if !can_run() {
        return;
    }
    let lab = Lab::new(1500, 1);
    let shown = || {
        let output =
            Command::new("ip").args(["-n", &lab.ns("sw"), "-d", "link", "show", "pa"]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_that_holds_a_device", "--nocapture"])
        .env(CHILD, format!("/run/netns/{}", lab.ns("sw")))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == "holding"));
    assert!(shown().contains("prog/xdp") && shown().contains("promiscuity 1"), "{}", shown());
    child.kill().unwrap();
    child.wait().unwrap();
    let until = Instant::now() + Duration::from_secs(3);
    while shown().contains("prog/xdp") || !shown().contains("promiscuity 0") {
        assert!(Instant::now() < until, "{}", shown());
        std::thread::sleep(Duration::from_millis(10));
    }
    let forwarder = Forwarder::start(&lab, XdpMode::Best);
    lab.ping("-c 2 10.99.0.2");
    drop(forwarder);
}
