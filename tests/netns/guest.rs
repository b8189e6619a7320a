//! A `guest` port with a real guest: QEMU in software emulation, with its defaults and without privileges, boots Debian's
//! kernel and a busybox.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use crate::lab::{Host, Kind, Lab, Namespace, PATIENCE, cache, eventually, noise, require, run};

const NOBODY: &str = "65534";
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

/// Packs the guest's root: busybox, the modules, and an `init` that does what comes in on the console.
fn initramfs(directory: &Path) -> PathBuf {
    let root = directory.join("root");
    fs::create_dir_all(root.join("bin")).unwrap();
    let modules = MODULES.map(|name| format!("insmod /{name}.ko")).join("\n");
    for name in MODULES {
        fs::copy(cache().join(format!("guest/{name}.ko")), root.join(format!("{name}.ko"))).unwrap();
    }
    fs::copy(run(Command::new("sh").args(["-c", "command -v busybox"])).trim(), root.join("bin/busybox"))
        .unwrap();
    let init = format!(
        "#!/bin/busybox sh\n/bin/busybox mkdir -p /proc /sys /dev\n/bin/busybox --install -s /bin\nexport PATH=/bin\n\
         mount -t proc proc /proc; mount -t devtmpfs dev /dev\n{modules}\nip link set lo up\n\
         ip addr add {ADDRESS}/24 dev eth0; ip link set eth0 up\nnc -ll -p {ECHO_PORT} -e cat &\n\
         echo GUEST UP $(cat /sys/class/net/eth0/address)\nwhile read line; do eval \"$line\"; echo DONE $?; done\n"
    );
    fs::write(
        root.join("init"),
        init.replace("mount -t devtmpfs", "mount -t sysfs sys /sys; mount -t devtmpfs"),
    )
    .unwrap();
    fs::set_permissions(root.join("init"), PermissionsExt::from_mode(0o755)).unwrap();
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

    /// Runs a command inside, which must succeed.
    fn does(&mut self, line: &str) {
        self.type_line(line);
        let said = self.expect("DONE ");
        assert!(said.ends_with("DONE 0") || said.ends_with("DONE 0\r"), "{line}: {said}");
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
    for tool in ["qemu-system-x86_64", "busybox", "cpio", "setpriv"] {
        require(tool);
    }
    assert!(cache().join("guest/vmlinuz").exists(), "no kernel for the guest: run tests/run");
    let directory = tempfile::Builder::new().prefix("nuswitch-guest").tempdir().unwrap();
    fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).unwrap();
    initramfs(directory.path());

    let mut lab = Lab::with_network(1500);
    let (tap, xdp) = (lab.host("a", Kind::Tap, 1), lab.host("b", Kind::Xdp, 2));
    let keys = "network = \"blue\"";
    lab.port("vm", keys, &format!("kind = \"guest\", name = \"nu-vm\", owner = \"{NOBODY}\""));
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
