//! A bad guest beside good ones: port scans with nmap, forged frames with scapy, floods with hping3. What it may not do is dropped and
//! counted at its own port, and the others do not notice it.

use std::process::{Child, Stdio};

use crate::lab::{Lab, Namespace, Watch, eventually, require, run};

const BLUE: &str = r#"
[[network]]
name = "blue"
[[subnet]]
name = "blue-v4"
network = "blue"
cidr = "10.0.0.0/24"
[[subnet]]
name = "blue-v6"
network = "blue"
cidr = "2001:db8:b::/64"

[[security_group]]
name = "web"
rules = [
    { direction = "ingress", protocol = "tcp", ports = "80-81", description = "the web" },
    { direction = "ingress", protocol = "udp", ports = 5000 },
    { direction = "ingress", protocol = "icmp" },
]

[[security_group]]
name = "strangers"
rules = [{ direction = "egress" }]
"#;

/// The bad guest and two good ones, each at a TAP of its own.
struct Scene {
    lab: Lab,
    bad: Namespace,
    web: Namespace,
    good: Namespace,
}

impl Scene {
    fn start() -> Scene {
        let mut lab = Lab::new();
        lab.add(BLUE);
        let [bad, web, good] = ["bad", "web", "good"].map(Namespace::new);
        for (ns, name, number, groups) in [
            (&bad, "bad", 66, "\"strangers\""),
            (&web, "web", 10, "\"default\", \"web\""),
            (&good, "good", 11, "\"default\""),
        ] {
            let interface =
                format!("kind = \"tap\", name = \"eth0\", netns = \"{}\", address = true", ns.name);
            let keys = format!(
                "network = \"blue\"\nmac_address = \"52:54:00:00:00:{number}\"\nsecurity_groups = [{groups}]\n\
                 fixed_ips = [\"10.0.0.{number}\", \"2001:db8:b::{number}\"]"
            );
            lab.port(name, &keys, &interface);
        }
        lab.start();
        Scene { lab, bad, web, good }
    }

    /// Frames of the bad guest's that were dropped for a reason.
    fn drops(&self, reason: &str) -> u64 {
        self.lab.drops("bad", reason)
    }
}

/// A server that says one word to whoever connects.
struct Server(Child);

impl Server {
    fn start(ns: &Namespace, port: u16) -> Server {
        let code = format!(
            "import socket\ns = socket.create_server(('', {port}), family=socket.AF_INET6, dualstack_ipv6=True)\n\
             while True:\n try:\n  c = s.accept()[0]\n  c.send(b'hello')\n  c.close()\n except OSError: pass"
        );
        let child = ns.command("python3").args(["-c", &code]).stdin(Stdio::null()).spawn().unwrap();
        let server = Server(child);
        eventually("it listens", || {
            run(ns.command("ss").args(["-Htln"])).lines().any(|line| line.contains(&format!(":{port} ")))
        });
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Whether a server's word comes back.
fn is_served(from: &Namespace, address: &str, port: u16) -> bool {
    let code = format!(
        "import socket, sys\nc = socket.create_connection(('{address}', {port}), timeout=3)\nsys.exit(c.recv(5) != b'hello')"
    );
    from.command("python3").args(["-c", &code]).stderr(Stdio::null()).status().unwrap().success()
}

/// What nmap says of the ports of an address, as `80/open/tcp`.
fn scan(from: &Namespace, options: &str) -> Vec<String> {
    let mut command = from.command("timeout");
    command.args(["120", "nmap", "-n", "-Pn", "--max-retries", "1", "--send-eth", "-oG", "-"]);
    let said = run(command.args(options.split_whitespace()));
    let ports =
        said.lines().find_map(|line| line.split_once("Ports: ")).map(|(_, ports)| ports).unwrap_or("");
    let ports = ports.split('\t').next().unwrap_or("").split(", ");
    ports
        .map(|port| port.split("//").next().unwrap_or("").to_owned())
        .filter(|port| !port.is_empty())
        .collect()
}

#[test]
fn nmap_finds_what_the_groups_let_in_and_nothing_else() {
    needs_system!();
    require("nmap");
    let mut scene = Scene::start();
    let _servers = [80, 22].map(|port| Server::start(&scene.web, port));
    assert!(is_served(&scene.good, "10.0.0.10", 22), "a member of the same group gets in everywhere");
    let ports = "-p 22,80,81,443 10.0.0.10";
    let open = ["22/filtered/tcp", "80/open/tcp", "81/closed/tcp", "443/filtered/tcp"];
    assert_eq!(scan(&scene.bad, &format!("-sT {ports}")), open);
    assert_eq!(scan(&scene.bad, &format!("-sS {ports}")), open);
    assert_eq!(scan(&scene.bad, "-sS -6 -p 22,80 2001:db8:b::10"), ["22/filtered/tcp", "80/open/tcp"]);
    // Whatever nmap does to look like something else.
    for trick in
        ["-f", "-f -f", "--mtu 24", "-g 53", "-g 67", "--data-length 900", "--ip-options R", "--badsum -g 80"]
    {
        let found = scan(&scene.bad, &format!("-sS {trick} {ports}"));
        let passed = found.iter().find(|port| !open.contains(&port.as_str()) && !port.contains("filtered"));
        assert_eq!(passed, None, "{trick}: {found:?}");
    }
    // Scans that no connection begins with: the port behind the rules is not even seen to be closed.
    for scan_type in ["-sA", "-sN", "-sF", "-sX", "-sM", "-sW"] {
        let found = scan(&scene.bad, &format!("{scan_type} -p 22,443 10.0.0.10"));
        assert!(
            found.iter().all(|port| port.contains("filtered") && !port.contains("unfiltered")),
            "{scan_type}: {found:?}"
        );
    }
    let found = scan(&scene.bad, "-sU -p 53,5000 10.0.0.10");
    assert_eq!(found, ["53/open|filtered/udp", "5000/closed/udp"], "ICMP errors of what is let in pass");
    // As somebody else it does not even find the host, and the one that it pretends to be hears nothing of it.
    let heard = Watch::start(&scene.good, "eth0", "tcp or arp and not ether src 52:54:00:00:00:10");
    for pretence in ["-S 10.0.0.11", "--spoof-mac 52:54:00:00:00:11"] {
        let found = scan(&scene.bad, &format!("-sS -e eth0 {pretence} -p 80 10.0.0.10"));
        assert!(!found.iter().any(|port| port.contains("open")), "{pretence}: {found:?}");
    }
    assert_eq!(
        scan(&scene.bad, "-sS -D 10.0.0.11,ME -p 80 10.0.0.10"),
        ["80/open/tcp"],
        "decoys hide nobody"
    );
    let heard = heard.lines();
    let own = "10.0.0.66";
    assert!(heard.iter().all(|line| line.is_empty() || line.contains(own)), "{heard:#?}");
    for reason in ["spoofed_mac", "spoofed_ip"] {
        assert!(scene.drops(reason) > 0, "{reason}");
    }
    scene.lab.stop();
}

/// Frames of scapy's, each with the reason that it is to be dropped for. `M`, `A` and `A6` are the bad guest's own MAC and addresses, `W` and
/// `W6` those of the good ones.
const FORGED: &str = r#"
import sys
from scapy.all import *
conf.verb = 0
M, A, A6, L6 = '52:54:00:00:00:66', '10.0.0.66', '2001:db8:b::66', 'fe80::5054:ff:fe00:66'
WM, W, W6 = '52:54:00:00:00:10', '10.0.0.10', '2001:db8:b::10'
GM, G, G6 = '52:54:00:00:00:11', '10.0.0.11', '2001:db8:b::11'
e = Ether(src=M, dst=WM)
all = Ether(src=M, dst='ff:ff:ff:ff:ff:ff')
v6all = Ether(src=M, dst='33:33:00:00:00:01')
ra = ICMPv6ND_RA(routerlifetime=1800)/ICMPv6NDOptPrefixInfo(prefix='2001:db8:bad::', prefixlen=64)/ICMPv6NDOptSrcLLAddr(lladdr=M)
udp = UDP(sport=4000, dport=5000)/b'evil'
forged = [
 ('spoofed_mac', [Ether(src=GM, dst=WM)/IP(src=A, dst=W)/udp, Ether(src=GM, dst=WM)/IP(src=G, dst=W)/udp,
                  Ether(src=GM, dst='ff:ff:ff:ff:ff:ff')/ARP(op=2, hwsrc=GM, psrc=G, pdst=W)]),
 ('spoofed_ip', [e/IP(src=G, dst=W)/udp, e/IP(src='8.8.8.8', dst=W)/udp, e/IP(src='127.0.0.1', dst=W)/udp,
                 e/IP(src=G, dst=W)/ICMP(), e/IP(src=G, dst=W, options=[IPOption_NOP()]*4)/udp,
                 e/IP(src=G, dst=W, flags='MF')/udp, e/IP(src=G, dst=W, frag=100)/b'rest of it',
                 e/IPv6(src=G6, dst=W6)/udp, e/IPv6(src=G6, dst=W6)/IPv6ExtHdrHopByHop()/udp,
                 e/IPv6(src=G6, dst=W6)/IPv6ExtHdrDestOpt()/IPv6ExtHdrFragment(m=1)/udp,
                 e/IPv6(src='fe80::1', dst=W6)/udp, e/IPv6(src='::', dst=W6)/udp,
                 e/IP(src='0.0.0.0', dst=W)/udp, Ether(src=M, dst=WM)/Dot1Q(vlan=0)/IP(src=G, dst=W)/udp]),
 ('tag_not_allowed', [Ether(src=M, dst=WM)/Dot1Q(vlan=5)/IP(src=G, dst=W)/udp,
                      Ether(src=M, dst=WM)/Dot1Q(vlan=5)/Dot1Q(vlan=6)/IP(src=G, dst=W)/udp]),
 ('ethertype_not_allowed', [Ether(src=M, dst=WM, type=0x88b5)/b'secret']),
 ('spoofed_arp', [all/ARP(op=2, hwsrc=M, psrc='10.0.0.1', hwdst=WM, pdst=W), e/ARP(op=2, hwsrc=M, psrc=G, hwdst=WM, pdst=W),
                  all/ARP(op=1, hwsrc=M, psrc=G, pdst=G), e/ARP(op=2, hwsrc=GM, psrc=A, hwdst=WM, pdst=W),
                  all/ARP(op=1, hwsrc=M, psrc='0.0.0.0', pdst=W)]),
 ('spoofed_nd', [v6all/IPv6(src=L6, dst='ff02::1')/ICMPv6ND_NA(tgt=W6, O=1)/ICMPv6NDOptDstLLAddr(lladdr=M),
                 e/IPv6(src=L6, dst=W6)/ICMPv6ND_NA(tgt='fe80::1', R=1, O=1)/ICMPv6NDOptDstLLAddr(lladdr=M),
                 e/IPv6(src=L6, dst=W6)/ICMPv6ND_NA(tgt=A6, O=1)/ICMPv6NDOptDstLLAddr(lladdr=GM),
                 v6all/IPv6(src='::', dst='ff02::1:ff00:10')/ICMPv6ND_NS(tgt=W6),
                 e/IPv6(src=L6, dst=W6)/ICMPv6ND_NS(tgt=W6)/ICMPv6NDOptSrcLLAddr(lladdr=GM)]),
 ('guest_dhcp_server', [e/IP(src=A, dst=W)/UDP(sport=67, dport=68)/BOOTP(op=2, yiaddr='10.0.0.99', chaddr=bytes(6))/DHCP(options=[('message-type', 'offer'), 'end']),
                        all/IP(src=A, dst='255.255.255.255')/UDP(sport=4000, dport=68)/b'x',
                        e/IPv6(src=L6, dst='fe80::5054:ff:fe00:10')/UDP(sport=547, dport=546)/DHCP6_Advertise()]),
 ('guest_router_advertiser', [v6all/IPv6(src=L6, dst='ff02::1', hlim=255)/ra,
                              v6all/IPv6(src=L6, dst='ff02::1', hlim=255)/IPv6ExtHdrHopByHop()/ra,
                              v6all/IPv6(src=L6, dst='ff02::1', hlim=255)/IPv6ExtHdrDestOpt()/IPv6ExtHdrDestOpt()/ra,
                              v6all/IPv6(src=L6, dst='ff02::1', hlim=255)/IPv6ExtHdrFragment(m=0)/ra,
                              v6all/IPv6(src=L6, dst='ff02::1', hlim=255)/IPv6ExtHdrDestOpt()/IPv6ExtHdrFragment(m=1)/ra,
                              e/IPv6(src=L6, dst=W6, hlim=255)/ICMPv6ND_Redirect(tgt=L6, dst='2001:db8::1'),
                              e/IP(src=A, dst=W)/ICMP(type=9, code=0)/b'\x01\x02\x07\x08' ]),
 ('fragment_tiny', [e/IP(src=A, dst=W, flags='MF', proto=6)/b'\x0f\xa0\x00\x50', e/IP(src=A, dst=W, frag=1, proto=6)/(b'\x00'*16)]),
]
if sys.argv[1] == 'plan':
    for reason, frames in forged: print(reason, len(frames))
else:
    s = conf.L2socket(iface='eth0')
    for reason, frames in forged:
        for frame in frames: s.send(frame)
"#;

#[test]
fn frames_that_scapy_forges_reach_nobody() {
    needs_system!();
    let mut scene = Scene::start();
    let scapy = |what: &str| run(scene.bad.command("/usr/bin/python3").args(["-c", FORGED, what]));
    let plan = scapy("plan");
    let ears = [&scene.web, &scene.good]
        .map(|ns| Watch::start(ns, "eth0", "ether src 52:54:00:00:00:66 or ether src 52:54:00:00:00:11"));
    scapy("send");
    for line in plan.lines() {
        let (reason, count) = line.split_once(' ').unwrap();
        let count = count.parse().unwrap();
        eventually(line, || scene.drops(reason) >= count);
        assert_eq!(scene.drops(reason), count, "{reason}: {:#}", scene.lab.show_port("bad"));
    }
    let own = ears.map(Watch::lines).concat();
    // Kernels look for routers, tell which groups they are in, and whether another has their addresses.
    let chatter = [
        "router solicitation",
        "multicast listener report",
        "ff02::16",
        "neighbor solicitation, who has 2001:db8:b::66",
        "neighbor solicitation, who has fe80::5054:ff:fe00:66",
        "neighbor solicitation, who has 2001:db8:b::11",
        "neighbor solicitation, who has fe80::5054:ff:fe00:11",
    ];
    let heard: Vec<&String> = own
        .iter()
        .filter(|line| !line.is_empty() && !chatter.iter().any(|word| line.contains(word)))
        .collect();
    assert!(heard.is_empty(), "{heard:#?}");
    // The good ones have kept what they know, and it is still one of them that gets no answer for another's address.
    let neighbours = scene.web.ip("neigh show");
    assert!(!neighbours.contains("52:54:00:00:00:66"), "{neighbours}");
    let _server = Server::start(&scene.web, 80);
    assert!(is_served(&scene.bad, "10.0.0.10", 80), "what it may do, it still may");
    scene.lab.stop();
}

/// hping3, as fast as it can, until this value goes.
struct Flood(Child);

impl Flood {
    fn start(from: &Namespace, options: &str) -> Flood {
        let mut command = from.command("timeout");
        command.args(["60", "hping3", "-q", "--flood"]).args(options.split_whitespace());
        Flood(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(self.0.id() as i32);
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.0.wait();
    }
}

#[test]
fn a_guest_that_floods_is_not_noticed_by_others() {
    needs_system!();
    require("hping3");
    let mut scene = Scene::start();
    let Scene { lab, bad, web, good } = &mut scene;
    let _server = Server::start(web, 80);
    // One connection from before.
    let mut ping = good.command("ping");
    let ping = ping
        .args(["-n", "-q", "-i", "0.05", "-w", "20", "10.0.0.10"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    for (flood, reason) in [
        ("-S -p 81 --rand-source 10.0.0.10", Some("spoofed_ip")),
        ("-S -p 81 10.0.0.10", None),
        ("-S -p 22 10.0.0.10", Some("security_ingress")),
        ("--udp -p ++1 10.0.0.10", Some("security_ingress")),
        ("--icmp 10.0.0.10", None),
    ] {
        let flood_runs = Flood::start(bad, flood);
        if let Some(reason) = reason {
            eventually(flood, || lab.drops("bad", reason) + lab.drops("web", reason) > 10_000);
        } else {
            std::thread::sleep(std::time::Duration::from_secs(1));
        }
        for _ in 0..3 {
            assert!(is_served(good, "10.0.0.10", 80), "a new connection under {flood}");
        }
        drop(flood_runs);
    }
    let said = String::from_utf8_lossy(&ping.wait_with_output().unwrap().stdout).into_owned();
    let lost = said.split("% packet loss").next().and_then(|text| text.rsplit(' ').next()).unwrap();
    assert!(lost.parse::<f64>().unwrap() < 5.0, "{said}");
    lab.stop();
}
