//! A `guest` port with a real guest: QEMU in software emulation, with its defaults and without privileges, boots Debian's
//! kernel and a busybox. One guest has an address of its own choice; the other one is told everything by the switch.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use tempfile::TempDir;

use crate::lab::{
    Host, Kind, Lab, Namespace, PATIENCE, add_address, cache, eventually, noise, require, run, veth,
};

const NOBODY: &str = "65534";
/// Of the guest that knows its own, and where it returns what it gets.
const ADDRESS: &str = "10.9.0.77";
const ECHO_PORT: u16 = 7;
/// Modules between Debian's kernel and a virtio NIC, in the order in which they are loaded.
const MODULES: [&str; 8] = [
    "virtio_ring",
    "virtio",
    "virtio_pci_legacy_dev",
    "virtio_pci_modern_dev",
    "virtio_pci",
    "failover",
    "net_failover",
    "virtio_net",
];

/// How a guest that knows its address comes up.
const STATIC: &str = "ip addr add 10.9.0.77/24 dev eth0; ip link set eth0 up\nnc -ll -p 7 -e cat &";
/// How one does that asks for it.
const ASKS: &str =
    "ip link set eth0 up\nudhcpc -i eth0 -n -q -t 20 -T 2 -S -O staticroutes -O mtu -O domain -s /dhcp";
/// The MAC that QEMU gives its first NIC.
const QEMU_MAC: &str = "52:54:00:12:34:56";
/// What udhcpc calls with what it was told (busybox, examples/udhcp/simple.script says how).
const DHCP_SCRIPT: &str = r#"#!/bin/busybox sh
[ "$1" = bound ] || exit 0
env > /lease
ip link set eth0 mtu $mtu
ip addr add $ip/$mask dev eth0
hostname $hostname
for server in $dns; do echo "nameserver $server"; done > /etc/resolv.conf
set -- $staticroutes
while [ "$1" ]; do
    via="via $2"
    [ $2 != 0.0.0.0 ] || via=
    ip route add $1 $via dev eth0
    shift 2
done
"#;

/// Fails the test when the machine cannot run a guest.
fn needs_guest() {
    for tool in ["qemu-system-x86_64", "busybox", "cpio", "setpriv"] {
        require(tool);
    }
    assert!(cache().join("guest/vmlinuz").exists(), "no kernel for the guest: run tests/run");
}

/// A directory with a guest's root, packed, that QEMU's user may read.
fn root_for(network: &str) -> TempDir {
    let directory = tempfile::Builder::new().prefix("nuswitch-guest").tempdir().unwrap();
    fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).unwrap();
    initramfs(directory.path(), network);
    directory
}

/// Packs the guest's root: busybox, the modules, and an `init` that comes up as `network` says and then does what comes in on
/// the console.
fn initramfs(directory: &Path, network: &str) -> PathBuf {
    let root = directory.join("root");
    fs::create_dir_all(root.join("bin")).unwrap();
    let modules = MODULES.map(|name| format!("insmod /{name}.ko")).join("\n");
    for name in MODULES {
        fs::copy(cache().join(format!("guest/{name}.ko")), root.join(format!("{name}.ko"))).unwrap();
    }
    fs::copy(run(Command::new("sh").args(["-c", "command -v busybox"])).trim(), root.join("bin/busybox"))
        .unwrap();
    let init = format!(
        "#!/bin/busybox sh\n/bin/busybox mkdir -p /proc /sys /dev /etc\n/bin/busybox --install -s /bin\nexport PATH=/bin\n\
         mount -t proc proc /proc; mount -t devtmpfs dev /dev\n{modules}\nip link set lo up\n{network}\n\
         echo GUEST UP $(cat /sys/class/net/eth0/address)\nwhile read line; do eval \"$line\"; echo DONE $?; done\n"
    );
    fs::write(
        root.join("init"),
        init.replace("mount -t devtmpfs", "mount -t sysfs sys /sys; mount -t devtmpfs"),
    )
    .unwrap();
    fs::write(root.join("dhcp"), DHCP_SCRIPT).unwrap();
    for script in ["init", "dhcp"] {
        fs::set_permissions(root.join(script), PermissionsExt::from_mode(0o755)).unwrap();
    }
    let archive = directory.join("initramfs");
    let pack = "cd \"$0\" && find . | cpio -o -H newc --quiet > \"$1\"";
    run(Command::new("sh").args(["-c", pack]).args([&root, &archive]));
    archive
}

/// A running guest with its console.
struct Guest {
    qemu: Child,
    /// What it said before what `console` holds.
    past: String,
    console: Arc<Mutex<String>>,
}

impl Guest {
    /// QEMU's defaults on the TAP `device`, as a user without privileges. `/dev/net/tun` may be root's alone on this
    /// machine; where udev runs, every user may open it, and so it is made here, in QEMU's own view of the file system.
    fn boot(ns: &Namespace, device: &str, directory: &Path) -> Guest {
        let script = "mknod \"$0/tun\" c 10 200 && chmod 666 \"$0/tun\" && mount --bind \"$0/tun\" /dev/net/tun && rm \"$0/tun\" \
                      && shift && exec setpriv --reuid=65534 --regid=65534 --clear-groups \"$@\"";
        let mut command = ns.command("unshare");
        command.args(["-m", "--propagation", "private", "sh", "-c", script]).arg(directory).arg("-");
        command.args([
            "qemu-system-x86_64",
            "-accel",
            "tcg",
            "-m",
            "160",
            "-nodefaults",
            "-nographic",
            "-serial",
            "stdio",
        ]);
        command
            .arg("-kernel")
            .arg(cache().join("guest/vmlinuz"))
            .arg("-initrd")
            .arg(directory.join("initramfs"));
        command.args(["-append", "console=ttyS0 quiet panic=-1"]);
        command.args(["-netdev", &format!("tap,id=n0,ifname={device},script=no,downscript=no")]);
        command.args(["-device", "virtio-net-pci,netdev=n0"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut qemu = command.spawn().unwrap();
        let (mut output, console) = (qemu.stdout.take().unwrap(), Arc::new(Mutex::new(String::new())));
        let written = console.clone();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(len @ 1..) = output.read(&mut bytes) {
                written.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..len]));
            }
        });
        let mut guest = Guest { qemu, past: String::new(), console };
        guest.expect("GUEST UP");
        guest
    }

    /// Waits until the console says this, and forgets what it said until then.
    fn expect(&mut self, word: &str) -> String {
        for _ in 0..5 * PATIENCE.as_secs() * 10 {
            {
                let mut console = self.console.lock().unwrap();
                if let Some(end) = console.find(word).and_then(|at| Some(at + console[at..].find('\n')?)) {
                    let rest = console.split_off(end);
                    let said = std::mem::replace(&mut *console, rest);
                    self.past.push_str(&said);
                    return said;
                }
            }
            if let Some(status) = self.qemu.try_wait().unwrap() {
                panic!("QEMU ended ({status}): {}", self.console.lock().unwrap());
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        panic!("the guest does not say `{word}`: {}", self.console.lock().unwrap());
    }

    /// Types a line.
    fn type_line(&mut self, line: &str) {
        writeln!(self.qemu.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    /// Runs a command inside, which must succeed; gives what it said.
    fn does(&mut self, line: &str) -> String {
        self.type_line(line);
        let said = self.expect("DONE ");
        let (said, status) = said.rsplit_once("DONE ").unwrap();
        assert!(status.trim() == "0", "{line}: {said}{status}");
        // The console shows what is typed, too.
        let said = said.replace('\r', "");
        said.trim_start().strip_prefix(line).unwrap_or(&said).trim().to_owned()
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
        if std::thread::panicking() {
            eprintln!("---- console of the guest\n{}{}", self.past, self.console.lock().unwrap());
        }
    }
}

/// Pings and TCP, each from both sides.
fn talk(guest: &mut Guest, host: &Host) {
    let ping = host.ping_once(ADDRESS, "-c 3 -w 60");
    assert!(ping.status.success(), "{ping:?}");
    let large = host.ping_once(ADDRESS, "-s 4000 -c 2 -w 60");
    assert!(large.status.success(), "{large:?}");
    guest.does(&format!("timeout 60 ping -c 3 {}", host.v4()));
    echo_from_guest(host);
    let listener = host.ns.within(|| TcpListener::bind((host.v4(), 0)).unwrap());
    let port = listener.local_addr().unwrap().port();
    let reader = std::thread::spawn(move || {
        let (mut stream, mut got) = (listener.accept().unwrap().0, Vec::new());
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.read_to_end(&mut got).unwrap();
        got
    });
    guest.does(&format!("timeout 60 nc {} {port} < /bin/busybox", host.v4()));
    let busybox = run(Command::new("sh").args(["-c", "command -v busybox"]));
    assert!(reader.join().unwrap() == fs::read(busybox.trim()).unwrap(), "the guest's bytes arrive changed");
}

/// The guest returns a megabyte as it was sent.
fn echo_from_guest(host: &Host) {
    let goal: SocketAddr = (ADDRESS.parse::<std::net::Ipv4Addr>().unwrap(), ECHO_PORT).into();
    let stream = host.ns.within(|| TcpStream::connect_timeout(&goal, PATIENCE).unwrap());
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let (mut reader, mut writer, sent) = (stream.try_clone().unwrap(), stream, noise(1 << 20));
    let sending = std::thread::spawn(move || {
        writer.write_all(&noise(1 << 20)).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    let mut got = vec![0; sent.len()];
    reader.read_exact(&mut got).unwrap();
    sending.join().unwrap();
    assert!(got == sent, "what the guest returns is not what was sent");
}

#[test]
fn a_guest_talks_reboots_and_is_replaced() {
    needs_system!();
    needs_guest();
    let directory = root_for(STATIC);

    let mut lab = Lab::with_network(1500);
    let (tap, xdp) = (lab.host("a", Kind::Tap, 1), lab.host("b", Kind::Xdp, 2));
    let keys = format!("network = \"blue\"\nmac_address = \"{QEMU_MAC}\"");
    lab.port("vm", &keys, &format!("kind = \"guest\", name = \"nu-vm\", owner = \"{NOBODY}\""));
    lab.start();

    let mut guest = Guest::boot(&lab.ns, "nu-vm", directory.path());
    for host in [&tap, &xdp] {
        talk(&mut guest, host);
    }
    assert_eq!(lab.show_port("vm")["interface"]["driver"], "guest");
    assert_eq!(lab.show_port("vm")["status"], "ACTIVE");

    // The guest reboots: QEMU keeps the TAP, its NIC is reset.
    guest.type_line("reboot -f");
    guest.expect("GUEST UP");
    talk(&mut guest, &tap);

    // It is replaced: another QEMU opens the port by its name.
    drop(guest);
    let mut guest = Guest::boot(&lab.ns, "nu-vm", directory.path());
    talk(&mut guest, &xdp);

    // The switch is killed and starts again under the running guest.
    lab.kill();
    lab.start();
    talk(&mut guest, &tap);

    // A clean stop takes the port away from under it.
    drop(guest);
    lab.stop();
    eventually("the TAP is gone", || !lab.ns.has_device("nu-vm"));
}

/// Guests in `blue` behind a router, and the world outside on a flat network of a NIC.
const BEHIND_A_ROUTER: &str = r#"
[[physical_network]]
name = "provider"
interface = "uplink"

[[network]]
name = "public"
external = true
network_type = "flat"
physical_network = "provider"
[[subnet]]
name = "public-v4"
network = "public"
cidr = "203.0.113.0/24"
enable_dhcp = false

[[network]]
name = "blue"
mtu = 1400
dns_domain = "lab.example"
[[subnet]]
name = "blue-v4"
network = "blue"
cidr = "10.0.0.0/24"
gateway_ip = "10.0.0.1"
dns_nameservers = ["203.0.113.1"]

[[router]]
name = "edge"
interfaces = ["blue-v4"]
external_gateway = { network = "public", external_fixed_ips = ["203.0.113.100"] }
"#;

/// A line of what the guest's DHCP client was told.
fn told(guest: &mut Guest, what: &str) -> String {
    guest.does(&format!("sed -n 's/^{what}=//p' /lease"))
}

/// What the guest reads from the metadata service. (`wget -T` of Debian's static busybox crashes.)
fn metadata(guest: &mut Guest, path: &str) -> String {
    guest.does(&format!("timeout 60 wget -q -O - http://169.254.169.254/{path}"))
}

#[test]
fn a_guest_boots_by_itself_and_reaches_the_world() {
    needs_system!();
    needs_guest();
    let directory = root_for(ASKS);
    let mut lab = Lab::new();
    lab.add(BEHIND_A_ROUTER);
    let world = Namespace::new("world");
    veth(&lab.ns, "uplink", &world, "eth0", 1500);
    add_address(&world, "eth0", "203.0.113.1/24");
    let user_data = "#!/bin/sh\n".to_owned() + &"echo hello\n".repeat(5000);
    fs::write(lab.path("user-data"), &user_data).unwrap();
    let interface = format!("kind = \"guest\", name = \"nu-vm\", owner = \"{NOBODY}\"");
    let keys = format!(
        "network = \"blue\"\nmac_address = \"{QEMU_MAC}\"\nfixed_ips = [\"10.0.0.77\"]\n\
         metadata = {{ hostname = \"web1\", instance_id = \"i-77\", public_keys = [\"ssh-ed25519 AAAA me\"], \
         user_data = \"{}\" }}",
        lab.path("user-data").display()
    );
    lab.port("vm", &keys, &interface);
    lab.start();

    // It comes up with nothing of its own but its MAC, and has asked when it says that it is there.
    let mut guest = Guest::boot(&lab.ns, "nu-vm", directory.path());
    for (what, right) in [
        ("ip", "10.0.0.77"),
        ("mask", "24"),
        ("dns", "203.0.113.1"),
        ("domain", "lab.example"),
        ("hostname", "web1"),
        ("mtu", "1400"),
        ("serverid", "169.254.169.254"),
        ("lease", "86400"),
    ] {
        assert_eq!(told(&mut guest, what), right, "{what}: {}", guest.does("cat /lease"));
    }
    let routes = guest.does("ip route");
    for route in ["default via 10.0.0.1", "169.254.169.254 via 10.0.0.1"] {
        assert!(routes.contains(route), "{routes}");
    }

    // It is told who it is, in each of the three ways.
    assert_eq!(metadata(&mut guest, "latest/meta-data/instance-id"), "i-77");
    assert_eq!(metadata(&mut guest, "latest/meta-data/local-ipv4"), "10.0.0.77");
    assert!(
        metadata(&mut guest, "latest/meta-data/public-keys/0/openssh-key").contains("ssh-ed25519 AAAA me")
    );
    assert!(metadata(&mut guest, "openstack/latest/meta_data.json").contains("\"web1"));
    let count = guest.does(
        "timeout 60 wget -q -O /user-data http://169.254.169.254/latest/user-data && wc -c < /user-data",
    );
    assert_eq!(count, user_data.len().to_string());
    assert_eq!(guest.does("tail -n 1 /user-data"), "echo hello");

    // And it reaches the world, which takes it for the router.
    guest.does("timeout 60 ping -c 3 203.0.113.1");
    let listener = world.within(|| TcpListener::bind("203.0.113.1:80").unwrap());
    let reader = std::thread::spawn(move || {
        let ((mut stream, peer), mut got) = (listener.accept().unwrap(), Vec::new());
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.read_to_end(&mut got).unwrap();
        (peer.ip().to_string(), got)
    });
    guest.does("timeout 60 nc 203.0.113.1 80 < /user-data");
    let (peer, got) = reader.join().unwrap();
    assert_eq!(peer, "203.0.113.100");
    assert!(got == user_data.as_bytes(), "the guest's bytes arrive changed");

    // A lease that it gives up and asks for again is the same, and one of another machine behind its port is refused.
    guest.does("ip addr flush dev eth0; udhcpc -i eth0 -n -q -t 20 -T 2 -S -O staticroutes -O mtu -s /dhcp");
    guest.does("timeout 60 ping -c 1 203.0.113.1");
    guest.type_line("ip link set eth0 down; ip link set eth0 address 52:54:00:12:34:57; ip link set eth0 up");
    guest.expect("DONE ");
    guest.does("! udhcpc -i eth0 -n -q -t 3 -T 1 -s /dhcp");
    let drops = lab.show_port("vm")["counters"]["drops"].clone();
    assert!(drops.to_string().contains("spoofed_mac"), "a strange MAC's requests are counted: {drops}");
}
