//! VXLAN against Open vSwitch's userspace datapath, which is started by hand in a namespace: its database, sockets and logs are
//! in a directory of the test.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::between::iperf;
use crate::lab::{Host, Kind, Lab, Namespace, add_address, eventually, offloads, require, run, veth};
use crate::tunnel::{Family, peers, switch};

const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";

struct OpenVSwitch {
    children: Vec<Child>,
    ns: Namespace,
    directory: TempDir,
}

impl OpenVSwitch {
    fn start() -> OpenVSwitch {
        for tool in ["ovsdb-tool", "ovsdb-server", "ovs-vswitchd", "ovs-vsctl"] {
            require(tool);
        }
        let directory = tempfile::Builder::new().prefix("nuswitch-ovs").tempdir().unwrap();
        let mut ovs = OpenVSwitch { children: Vec::new(), ns: Namespace::new("ovs"), directory };
        let (database, socket) = (ovs.path("conf.db"), ovs.path("db.sock"));
        run(Command::new("ovsdb-tool").args(["create", &database, SCHEMA]));
        ovs.spawn("ovsdb-server", &[&database, &format!("--remote=punix:{socket}")]);
        eventually("the database answers", || Path::new(&socket).exists());
        ovs.vsctl("--no-wait init");
        ovs.spawn("ovs-vswitchd", &[&format!("unix:{socket}")]);
        ovs
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).to_str().unwrap().to_owned()
    }

    fn spawn(&mut self, program: &str, arguments: &[&str]) {
        let mut command = self.ns.command(program);
        command.args(arguments).arg(format!("--unixctl={}", self.path(&format!("{program}.ctl"))));
        command.arg(format!("--pidfile={}", self.path(&format!("{program}.pid"))));
        command.arg(format!("--log-file={}", self.path(&format!("{program}.log"))));
        command.env("OVS_RUNDIR", self.directory.path()).env("OVS_LOGDIR", self.directory.path());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.children.push(command.spawn().unwrap());
    }

    /// Changes its configuration, and waits until it is so.
    fn vsctl(&self, arguments: &str) {
        let mut command = self.ns.command("ovs-vsctl");
        command.args(["--timeout=60", &format!("--db=unix:{}", self.path("db.sock"))]);
        run(command.args(arguments.split_whitespace()));
    }
}

impl Drop for OpenVSwitch {
    fn drop(&mut self) {
        for child in self.children.iter_mut().rev() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.path("ovs-vswitchd.log")).unwrap_or_default();
            eprintln!("---- log of Open vSwitch\n{log}");
        }
    }
}

/// Its guest is a veth in bridge `inside`; the underlay's device is in bridge `outside`, whose own port has the VTEP's address.
fn beside(lab: &Lab, family: Family) -> (OpenVSwitch, Host) {
    let (ovs, far) = (OpenVSwitch::start(), Host::new("far", 2));
    // The kernel there hears what Open vSwitch hears, and would answer ARP for `outside` with the MAC of `under`.
    ovs.ns.within(|| std::fs::write("/proc/sys/net/ipv4/conf/all/arp_ignore", "1").unwrap());
    veth(&lab.ns, "under", &ovs.ns, "under", 1500);
    veth(&ovs.ns, "guest", &far.ns, "eth0", family.mtu() as u16);
    far.take_addresses();
    // Open vSwitch reads what is on the wire, and knows nothing of checksums that a device is to finish.
    far.offloads(false);
    offloads(&lab.ns, "under", false);
    for (bridge, device) in [("outside", "under"), ("inside", "guest")] {
        ovs.vsctl(&format!("add-br {bridge} -- set bridge {bridge} datapath_type=netdev"));
        ovs.vsctl(&format!("add-port {bridge} {device}"));
        ovs.ns.ip(&format!("link set {bridge} up"));
    }
    add_address(&ovs.ns, "outside", &family.vtep_in_subnet(11));
    ovs.vsctl(&format!(
        "add-port inside tunnel -- set interface tunnel type=vxlan options:key=1001 options:local_ip={} \
         options:remote_ip={}",
        family.vtep(11),
        family.vtep(10)
    ));
    (ovs, far)
}

fn talks_to_open_vswitch(driver: &str, family: Family) {
    let mut lab = switch(driver, family, 10, &peers(family, &[11]));
    let near = lab.host("near", Kind::Tap, 1);
    let (_ovs, far) = beside(&lab, family);
    lab.start();
    eventually("they reach each other", || near.reaches(&far));
    for (from, to) in [(&near, &far), (&far, &near)] {
        from.ping_sizes(to, &[0, 56, 1472, 4000]);
        from.udp_echo(to, &[1, 100, 4000]);
        from.tcp_to(to, 1 << 20);
    }
    iperf(&near, &far);
    lab.stop();
}

#[test]
fn open_vswitch_and_packet_over_ipv4() {
    needs_system!();
    talks_to_open_vswitch("packet", Family::V4);
}

#[test]
fn open_vswitch_and_xdp_over_ipv4() {
    needs_system!();
    talks_to_open_vswitch("xdp", Family::V4);
}

#[test]
fn open_vswitch_and_packet_over_ipv6() {
    needs_system!();
    talks_to_open_vswitch("packet", Family::V6);
}

#[test]
fn open_vswitch_and_xdp_over_ipv6() {
    needs_system!();
    talks_to_open_vswitch("xdp", Family::V6);
}
