//! Reloads under traffic: what does not change loses nothing, what is removed leaves nothing.

use std::collections::HashSet;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};

use crate::lab::{Host, Kind, Lab, eventually};

/// Datagrams of a flow each second.
const RATE: u64 = 2_000;
/// Room for what comes while the receiving thread waits for a CPU.
const SOCKET_BUFFER: usize = 8 << 20;

/// Numbered datagrams at a steady rate from a host to another, until it is ended.
pub(crate) struct Flow {
    stop: Arc<AtomicBool>,
    sender: JoinHandle<u64>,
    receiver: JoinHandle<HashSet<u64>>,
}

impl Flow {
    pub(crate) fn start(from: &Host, to: &Host) -> Flow {
        let inbox = to.ns.within(|| UdpSocket::bind((to.v4(), 0)).unwrap());
        let outbox = from.ns.within(|| UdpSocket::bind((from.v4(), 0)).unwrap());
        setsockopt(&inbox, sockopt::RcvBufForce, &SOCKET_BUFFER).unwrap();
        outbox.connect(inbox.local_addr().unwrap()).unwrap();
        // The first of a flow may wait for ARP, and of those that wait some are dropped.
        from.ping(to);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let sender = std::thread::spawn(move || send(&outbox, &stopped));
        let receiver = std::thread::spawn(move || receive(&inbox));
        Flow { stop, sender, receiver }
    }

    /// Ends without a look at what arrived: its ends may be gone.
    pub(crate) fn abandon(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.sender.join().unwrap();
    }

    /// How many were sent, and how many distinct ones arrived.
    pub(crate) fn end(self) -> (u64, u64) {
        self.stop.store(true, Ordering::Relaxed);
        let sent = self.sender.join().unwrap();
        (sent, self.receiver.join().unwrap().len() as u64)
    }
}

fn send(socket: &UdpSocket, stop: &AtomicBool) -> u64 {
    let (start, mut sent) = (Instant::now(), 0u64);
    while !stop.load(Ordering::Relaxed) {
        let due = start.elapsed().as_micros() as u64 * RATE / 1_000_000;
        // After a pause without a CPU what is due goes in small groups, not at once.
        for _ in 0..due.saturating_sub(sent).min(4) {
            let mut bytes = [0; 64];
            bytes[..8].copy_from_slice(&sent.to_be_bytes());
            if socket.send(&bytes).is_err() {
                return sent; // its device was taken away
            }
            sent += 1;
        }
        std::thread::sleep(Duration::from_micros(500));
    }
    // An empty one ends the receiver; one of these arrives.
    for _ in 0..10 {
        std::thread::sleep(Duration::from_millis(50));
        let _ = socket.send(&[]);
    }
    sent
}

fn receive(socket: &UdpSocket) -> HashSet<u64> {
    socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let (mut seen, mut bytes) = (HashSet::new(), [0; 128]);
    while let Ok(len @ 8..) = socket.recv(&mut bytes) {
        assert_eq!(len, 64);
        seen.insert(u64::from_be_bytes(bytes[..8].try_into().unwrap()));
    }
    seen
}

fn hundred_reloads_lose_nothing(kind: Kind, settings: &str) {
    let mut lab = Lab::with_network(1500);
    lab.settings = settings.to_owned();
    let (a, b) = (lab.host("a", kind, 1), lab.host("b", kind, 2));
    lab.start();
    let flow = Flow::start(&a, &b);
    let (without, spare) = (lab.config.clone(), crate::lab::Namespace::new("spare"));
    let start = Instant::now();
    for round in 0..100 {
        // In turn: a port comes; it changes, with a new network; both go.
        lab.config = without.clone();
        if round % 3 < 2 {
            let network = ["blue", "red"][round % 3];
            lab.add(if network == "red" { "[[network]]\nname = \"red\"" } else { "" });
            let interface = format!("kind = \"tap\", name = \"eth0\", netns = \"{}\"", spare.name);
            lab.port("spare", &format!("network = \"{network}\""), &interface);
        }
        lab.write();
        lab.reload();
    }
    println!("100 reloads in {:?}", start.elapsed());
    assert!(lab.show("status")["epoch"].as_u64().unwrap() > 100, "every reload changed something");
    std::thread::sleep(Duration::from_secs(1));
    let (sent, arrived) = flow.end();
    println!("{sent} sent, {arrived} arrived");
    assert!(sent > RATE, "{sent}");
    assert_eq!(arrived, sent, "lost {}: {:#?}", sent - arrived, lab.ports());
    lab.stop();
}

#[test]
fn hundred_reloads_lose_nothing_between_taps() {
    needs_system!();
    hundred_reloads_lose_nothing(Kind::Tap, "");
}

#[test]
fn hundred_reloads_lose_nothing_between_xdp_ports() {
    needs_system!();
    hundred_reloads_lose_nothing(Kind::Xdp, "");
}

#[test]
fn hundred_reloads_lose_nothing_between_packet_ports() {
    needs_system!();
    hundred_reloads_lose_nothing(Kind::Packet, "");
}

#[test]
fn hundred_reloads_lose_nothing_between_two_workers() {
    needs_system!();
    hundred_reloads_lose_nothing(Kind::Tap, "workers = [0, 1]");
}

/// Ports of every kind go while frames come from them and for them.
#[test]
fn a_port_removed_under_load_leaves_the_others_alone() {
    needs_system!();
    for kind in [Kind::Tap, Kind::Xdp, Kind::Packet] {
        let mut lab = Lab::with_network(1500);
        let (a, b) = (lab.host("a", Kind::Tap, 1), lab.host("b", Kind::Packet, 2));
        let without = lab.config.clone();
        let c = lab.host("c", kind, 3);
        lab.start();
        let (to, back, beside) = (Flow::start(&a, &c), Flow::start(&c, &b), Flow::start(&a, &b));
        std::thread::sleep(Duration::from_millis(500));
        lab.config = without;
        lab.write();
        lab.reload();
        assert_eq!(lab.ports().len(), 2);
        assert_eq!(c.ns.has_device("eth0"), kind != Kind::Tap, "a TAP goes with its port, a veth does not");
        if kind == Kind::Xdp {
            let link = lab.ns.ip("-d link show vc");
            assert!(!link.contains("xdp"), "the XDP program is left behind: {link}");
        }
        std::thread::sleep(Duration::from_millis(500));
        let (sent, arrived) = beside.end();
        assert_eq!(arrived, sent, "{kind:?}: traffic beside it suffers");
        to.abandon();
        back.abandon();
        eventually("every buffer comes back", || {
            let worker = &lab.show("status")["workers"][0];
            // The ports that are left hold some to receive into.
            worker["free_buffers"].as_u64().unwrap() + 64 >= worker["total_buffers"].as_u64().unwrap()
        });
        a.ping(&b);
        lab.stop();
    }
}

/// Ports on both workers: what crosses from one to the other arrives.
#[test]
fn two_workers_hand_frames_to_each_other() {
    needs_system!();
    for (left, right) in
        [(Kind::Tap, Kind::Tap), (Kind::Xdp, Kind::Xdp), (Kind::Packet, Kind::Xdp), (Kind::Tap, Kind::Packet)]
    {
        let mut lab = Lab::with_network(1500);
        lab.settings = "workers = [0, 1]".into();
        let (a, b) = (lab.host("a", left, 1), lab.host("b", right, 2));
        lab.start();
        let worker = |port: &str| lab.show_port(port)["worker"].as_u64().unwrap();
        assert_ne!(worker("a"), worker("b"));
        a.ping_sizes(&b, &[56, 1472, 4000]);
        a.udp_echo(&b, &[1, 1472, 9000]);
        a.tcp_to(&b, 3 << 20);
        b.tcp_to(&a, 3 << 20);
        lab.stop();
    }
}

/// A worker without traffic sleeps: under 2 % of a CPU.
#[test]
fn an_idle_worker_sleeps() {
    needs_system!();
    let mut lab = Lab::with_network(1500);
    let kinds = [("a", Kind::Tap), ("b", Kind::Xdp), ("c", Kind::Packet), ("d", Kind::XdpGeneric)];
    let hosts: Vec<Host> =
        (1..).zip(kinds).map(|(number, (name, kind))| lab.host(name, kind, number)).collect();
    lab.start();
    hosts[0].ping(&hosts[1]);
    let share = || {
        let (start, before) = (Instant::now(), cpu_seconds(lab.pid()));
        std::thread::sleep(Duration::from_secs(3));
        (cpu_seconds(lab.pid()) - before) / start.elapsed().as_secs_f64()
    };
    let shares: Vec<f64> = std::iter::repeat_with(share)
        .take(5)
        .scan(false, |done, share| (!std::mem::replace(done, share < 0.02)).then_some(share))
        .collect();
    println!("share of a CPU while idle: {shares:?}");
    assert!(shares.last().is_some_and(|share| *share < 0.02), "{shares:?}");
    hosts[2].ping(&hosts[3]); // and it wakes up
    lab.stop();
}

/// User and system time of a process (proc_pid_stat(5), fields 14 and 15, in ticks of 10 ms).
fn cpu_seconds(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}
