//! What the tests are written with: a [`Lab`] is a namespace with a switch in it, and [`Host`]s, each in a namespace of
//! its own, that are connected to it. All of it goes when the lab is dropped.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nuswitch::ports::netns::Netns;
use serde_json::Value;
use tempfile::TempDir;

/// The program under test.
pub(crate) const NUSWITCH: &str = env!("CARGO_BIN_EXE_nuswitch");
/// A generous guard against hanging, on machines that do much else.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
const TOOLS: [&str; 7] = ["ip", "ping", "iperf3", "tcpdump", "ethtool", "python3", "unshare"];

/// A test's turn on the machine: one lab at a time, so that each has the CPUs for itself. None where the suite was not asked
/// for.
///
/// # Panics
/// When it was, and the machine cannot run it.
pub(crate) fn turn() -> Option<MutexGuard<'static, ()>> {
    static TURN: Mutex<()> = Mutex::new(());
    if std::env::var("NUSWITCH_SYSTEM").as_deref() != Ok("1") {
        eprintln!("skipped: needs root and tools; tests/run sets them up (NUSWITCH_SYSTEM=1)");
        return None;
    }
    assert!(nix::unistd::geteuid().is_root(), "NUSWITCH_SYSTEM=1 needs root");
    for tool in TOOLS {
        require(tool);
    }
    Some(TURN.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Fails the test when a tool is missing.
pub(crate) fn require(tool: &str) {
    let found = Command::new("sh").args(["-c", "command -v \"$0\"", tool]).stdout(Stdio::null()).status();
    assert!(found.unwrap().success(), "`{tool}` is missing: run tests/run");
}

/// Runs a command to its end.
///
/// # Panics
/// When it fails.
pub(crate) fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", text(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// All that a command said.
pub(crate) fn text(output: &Output) -> String {
    [&output.stdout[..], &output.stderr[..]].map(String::from_utf8_lossy).concat()
}

pub(crate) fn ip(arguments: &str) -> String {
    run(Command::new("ip").args(arguments.split_whitespace()))
}

/// Waits until `done` holds.
pub(crate) fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Kinds of port that a host may stand behind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Tap,
    Xdp,
    XdpGeneric,
    Packet,
}

/// A namespace that goes with this value.
pub(crate) struct Namespace {
    pub(crate) name: String,
}

impl Namespace {
    pub(crate) fn new(part: &str) -> Namespace {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("nu{}-{number}-{part}", std::process::id());
        ip(&format!("netns add {name}"));
        ip(&format!("-n {name} link set lo up"));
        Namespace { name }
    }

    /// A command that runs here. Its process is the program itself: `ip` becomes it.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }

    /// `ip` in this namespace.
    pub(crate) fn ip(&self, arguments: &str) -> String {
        ip(&format!("-n {} {arguments}", self.name))
    }

    pub(crate) fn has_device(&self, device: &str) -> bool {
        let mut command = Command::new("ip");
        command.args(["-n", &self.name, "link", "show", device]).output().unwrap().status.success()
    }

    /// Names of its devices, `lo` left out.
    pub(crate) fn devices(&self) -> Vec<String> {
        let links: Value = serde_json::from_str(&self.ip("-j link show")).unwrap();
        let names = links.as_array().unwrap().iter().map(|link| link["ifname"].as_str().unwrap().to_owned());
        names.filter(|name| name != "lo").collect()
    }

    /// Runs `work` in here on a thread of its own.
    pub(crate) fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        Netns::open(&self.name).unwrap().within(work).unwrap()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).output();
    }
}

/// A device in `here` under `name`, connected to `peer_name` in `there`; both up.
pub(crate) fn veth(here: &Namespace, name: &str, there: &Namespace, peer_name: &str, mtu: u16) {
    let (ns, peer_ns) = (&here.name, &there.name);
    ip(&format!(
        "link add {name} netns {ns} mtu {mtu} type veth peer name {peer_name} netns {peer_ns} mtu {mtu}"
    ));
    here.ip(&format!("link set {name} up"));
    there.ip(&format!("link set {peer_name} up"));
}

/// Gives an address, with its prefix length, to a device; one that may be used at once.
pub(crate) fn add_address(ns: &Namespace, device: &str, address: &str) {
    let at_once = if address.contains(':') { " nodad" } else { "" };
    ns.ip(&format!("addr add {address} dev {device}{at_once}"));
}

/// Turns the offloads of a device on or off.
pub(crate) fn offloads(ns: &Namespace, device: &str, on: bool) {
    let word = if on { "on" } else { "off" };
    let mut command = ns.command("ethtool");
    // Some depend on others, or are fixed on this kind of device: then ethtool says so, and goes on.
    command.args(["-K", device]);
    for feature in ["tx", "rx", "sg", "tso", "gso", "gro"] {
        command.args([feature, word]);
    }
    command.output().unwrap();
}

/// A switch in a namespace, with its configuration.
pub(crate) struct Lab {
    pub(crate) ns: Namespace,
    directory: TempDir,
    /// `key = value` lines of `[switch]`.
    pub(crate) settings: String,
    /// The rest of the file.
    pub(crate) config: String,
    pub(crate) daemon: Option<Child>,
}

impl Lab {
    /// A switch that is not configured yet.
    pub(crate) fn new() -> Lab {
        let directory = tempfile::Builder::new().prefix("nuswitch-lab").tempdir().unwrap();
        Lab {
            ns: Namespace::new("sw"),
            directory,
            settings: String::new(),
            config: String::new(),
            daemon: None,
        }
    }

    /// With one local network `blue` of this MTU.
    pub(crate) fn with_network(mtu: u16) -> Lab {
        let mut lab = Lab::new();
        lab.add(&format!("[[network]]\nname = \"blue\"\nmtu = {mtu}"));
        lab
    }

    /// Adds to the configuration.
    pub(crate) fn add(&mut self, toml: &str) {
        writeln!(self.config, "{toml}\n").unwrap();
    }

    /// Adds a port `name` in `network` (its other keys, as `network = "blue"`), with this interface.
    pub(crate) fn port(&mut self, name: &str, keys: &str, interface: &str) {
        self.add(&format!("[[port]]\nname = \"{name}\"\n{keys}\ninterface = {{ {interface} }}"));
    }

    /// A host in `blue` at 10.9.0.`number` and fd09::`number`, behind a port of this kind.
    pub(crate) fn host(&mut self, name: &str, kind: Kind, number: u8) -> Host {
        self.host_with(name, kind, number, "network = \"blue\"", 1500)
    }

    /// The same, with other keys of the port and another MTU.
    pub(crate) fn host_with(&mut self, name: &str, kind: Kind, number: u8, keys: &str, mtu: u16) -> Host {
        let host = Host::new(name, number);
        let addresses = host.addresses();
        let device = format!("v{name}");
        let interface = match kind {
            Kind::Tap => {
                let [v4, v6] = &addresses;
                format!(
                    "kind = \"tap\", name = \"eth0\", netns = \"{}\", address = [\"{v4}\", \"{v6}\"]",
                    host.ns.name
                )
            }
            Kind::Xdp => format!("kind = \"xdp\", name = \"{device}\", mode = \"native\""),
            Kind::XdpGeneric => format!("kind = \"xdp\", name = \"{device}\", mode = \"generic\""),
            Kind::Packet => format!("kind = \"packet\", name = \"{device}\""),
        };
        if kind != Kind::Tap {
            veth(&self.ns, &device, &host.ns, "eth0", mtu);
            host.take_addresses();
        }
        self.port(name, keys, &interface);
        host
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.path("control.sock")
    }

    /// Writes the configuration to the file that the switch reads.
    pub(crate) fn write(&self) {
        let text = format!(
            "[switch]\ncontrol = \"{}\"\n{}\n\n{}",
            self.socket().display(),
            self.settings,
            self.config
        );
        fs::write(self.path("lab.toml"), text).unwrap();
    }

    /// Starts the switch and waits until all its ports are active.
    pub(crate) fn start(&mut self) {
        self.launch();
        self.wait_for_ports();
    }

    /// Starts the switch and waits until it answers.
    pub(crate) fn launch(&mut self) {
        self.write();
        let log = File::options().create(true).append(true).open(self.path("log")).unwrap();
        let mut command = self.ns.command(NUSWITCH);
        command.arg("run").arg("--config").arg(self.path("lab.toml")).stdin(Stdio::null());
        self.daemon = Some(command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap());
        eventually("the switch answers", || {
            let ended = self.daemon.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none(), "the switch has ended ({ended:?}): {}", self.log());
            self.answers()
        });
    }

    fn answers(&self) -> bool {
        self.nuswitch(&["show", "status"]).status.success()
    }

    pub(crate) fn wait_for_ports(&self) {
        eventually("all ports are active", || {
            let down: Vec<Value> =
                self.ports().into_iter().filter(|port| port["status"] != "ACTIVE").collect();
            down.is_empty()
        });
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.daemon.as_ref().unwrap().id()
    }

    /// Runs a command of the program against this switch.
    pub(crate) fn nuswitch(&self, arguments: &[&str]) -> Output {
        self.nuswitch_command().args(arguments).output().unwrap()
    }

    pub(crate) fn nuswitch_command(&self) -> Command {
        let mut command = Command::new(NUSWITCH);
        command.arg("--control").arg(self.socket());
        command
    }

    pub(crate) fn show(&self, what: &str) -> Value {
        let output = self.nuswitch(&["show", what, "-o", "json"]);
        assert!(output.status.success(), "show {what}: {}", text(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    pub(crate) fn ports(&self) -> Vec<Value> {
        self.show("ports").as_array().unwrap().clone()
    }

    pub(crate) fn show_port(&self, name: &str) -> Value {
        self.ports().into_iter().find(|port| port["name"] == name).unwrap_or_else(|| panic!("no port {name}"))
    }

    /// Frames that a port has dropped for a reason.
    pub(crate) fn drops(&self, port: &str, reason: &str) -> u64 {
        self.show_port(port)["counters"]["drops"][reason].as_u64().unwrap_or(0)
    }

    /// Reloads what [`Lab::write`] wrote.
    pub(crate) fn reload(&self) {
        let output = self.nuswitch(&["reload"]);
        assert!(output.status.success(), "reload: {}", text(&output));
    }

    pub(crate) fn signal(&self, signal: nix::sys::signal::Signal) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.pid() as i32), signal).unwrap();
    }

    /// Ends the switch with SIGTERM, which must be clean.
    pub(crate) fn stop(&mut self) {
        self.signal(nix::sys::signal::Signal::SIGTERM);
        let mut daemon = self.daemon.take().unwrap();
        let mut status = None;
        eventually("the switch ends at SIGTERM", || {
            status = daemon.try_wait().unwrap();
            status.is_some()
        });
        assert!(status.unwrap().success(), "{status:?}: {}", self.log());
        assert!(!self.socket().exists(), "the control socket is left behind");
    }

    /// Ends the switch with SIGKILL.
    pub(crate) fn kill(&mut self) {
        let mut daemon = self.daemon.take().unwrap();
        daemon.kill().unwrap();
        daemon.wait().unwrap();
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
        if std::thread::panicking() {
            eprintln!("---- log of the switch in {}\n{}", self.ns.name, self.log());
        }
    }
}

/// A machine on a network: a namespace with `eth0`.
pub(crate) struct Host {
    pub(crate) ns: Namespace,
    number: u8,
}

impl Host {
    /// A machine that is not connected yet.
    pub(crate) fn new(name: &str, number: u8) -> Host {
        Host { ns: Namespace::new(name), number }
    }

    fn addresses(&self) -> [String; 2] {
        [format!("{}/24", self.v4()), format!("{}/64", self.v6())]
    }

    /// Gives its addresses to its `eth0`.
    pub(crate) fn take_addresses(&self) {
        for address in self.addresses() {
            add_address(&self.ns, "eth0", &address);
        }
    }

    pub(crate) fn v4(&self) -> String {
        format!("10.9.0.{}", self.number)
    }

    pub(crate) fn v6(&self) -> String {
        format!("fd09::{:x}", self.number)
    }

    /// Three pings of every size; one answer is enough to be connected, but all are asked for.
    pub(crate) fn ping(&self, to: &Host) {
        self.ping_sizes(to, &[56]);
    }

    /// Pings with payloads of these sizes, over IPv4 and IPv6. None may be fragmented that fits the MTU.
    pub(crate) fn ping_sizes(&self, to: &Host, sizes: &[usize]) {
        for address in [to.v4(), to.v6()] {
            for size in sizes {
                let output = self.ping_once(&address, &format!("-s {size} -c 3 -w 20"));
                assert!(
                    text(&output).contains(" 0% packet loss"),
                    "{} to {address}: {}",
                    self.ns.name,
                    text(&output)
                );
            }
        }
    }

    pub(crate) fn ping_once(&self, address: &str, options: &str) -> Output {
        let mut command = self.ns.command("ping");
        command
            .args(["-n", "-q", "-i", "0.05"])
            .args(options.split_whitespace())
            .arg(address)
            .output()
            .unwrap()
    }

    /// All that a ping with these options says, errors of the network among it.
    pub(crate) fn ping_says(&self, address: &str, options: &str) -> String {
        let mut command = self.ns.command("ping");
        text(
            &command
                .args(["-n", "-i", "0.2"])
                .args(options.split_whitespace())
                .arg(address)
                .output()
                .unwrap(),
        )
    }

    /// Whether one of a few pings is answered.
    pub(crate) fn reaches(&self, to: &Host) -> bool {
        self.ping_once(&to.v4(), "-c 4 -W 1 -w 2").status.success()
    }

    /// A TCP connection that carries `bytes` there, all of them as they were sent.
    pub(crate) fn tcp_to(&self, to: &Host, bytes: usize) {
        let listener = to.ns.within(|| TcpListener::bind((to.v4(), 0)).unwrap());
        let address = listener.local_addr().unwrap();
        let reader = std::thread::spawn(move || {
            let mut stream = listener.accept().unwrap().0;
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut got = Vec::new();
            stream.read_to_end(&mut got).unwrap();
            got
        });
        self.send_tcp(address, &noise(bytes));
        assert!(reader.join().unwrap() == noise(bytes), "TCP: what arrives is not what was sent");
    }

    /// Connects to `address`, sends and closes.
    pub(crate) fn send_tcp(&self, address: SocketAddr, bytes: &[u8]) {
        let mut stream = self.ns.within(|| TcpStream::connect_timeout(&address, PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(bytes).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
    }

    /// Datagrams of these sizes to a host that returns them; each must come back as it was, a lost one may be sent again.
    pub(crate) fn udp_echo(&self, to: &Host, sizes: &[usize]) {
        let server = to.ns.within(|| UdpSocket::bind((to.v4(), 0)).unwrap());
        let client = self.ns.within(|| UdpSocket::bind((self.v4(), 0)).unwrap());
        server.set_read_timeout(Some(PATIENCE)).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        let goal = server.local_addr().unwrap();
        let answering = std::thread::spawn(move || {
            let mut bytes = vec![0; 65536];
            while let Ok((len @ 1.., from)) = server.recv_from(&mut bytes) {
                server.send_to(&bytes[..len], from).unwrap();
            }
        });
        for &size in sizes {
            let (sent, mut got) = (noise(size), vec![0; 65536]);
            let answered = (0..20).any(|_| {
                client.send_to(&sent, goal).unwrap();
                matches!(client.recv(&mut got), Ok(len) if got[..len] == sent)
            });
            assert!(answered, "UDP with {size} bytes does not come back as it was sent");
        }
        client.send_to(&[], goal).unwrap();
        answering.join().unwrap();
    }

    /// A second of iperf3 to a host; gives its report.
    pub(crate) fn iperf(&self, to: &Host, options: &str) -> Value {
        let mut server = to.ns.command("iperf3");
        let mut server =
            server.args(["-s", "-1"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let mut report = Value::Null;
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            // One whose connection stalls would wait for minutes.
            let mut client = self.ns.command("timeout");
            client
                .args(["30", "iperf3", "-J", "-t", "1", "--connect-timeout", "3000", "-c", &to.v4()])
                .args(options.split_whitespace());
            let output = client.output().unwrap();
            report = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
            // Its exit code says nothing when it writes JSON.
            let refused = report["error"].as_str().is_some_and(|error| error.contains("refused"));
            if !refused {
                break;
            }
            std::thread::sleep(Duration::from_millis(100)); // the server does not listen yet
        }
        let _ = server.kill();
        let _ = server.wait();
        assert!(report["error"].is_null() && !report.is_null(), "iperf3 {options}: {report:#}");
        report
    }

    /// Turns the offloads of its device on or off.
    pub(crate) fn offloads(&self, on: bool) {
        offloads(&self.ns, "eth0", on);
    }

    /// Runs a frame watcher in the background; see [`Watch`].
    pub(crate) fn watch(&self, filter: &str) -> Watch {
        Watch::start(&self.ns, "eth0", filter)
    }
}

/// tcpdump on a device, from when it listens.
pub(crate) struct Watch {
    child: Child,
    reader: Option<JoinHandle<String>>,
}

impl Watch {
    pub(crate) fn start(ns: &Namespace, device: &str, filter: &str) -> Watch {
        let mut command = ns.command("tcpdump");
        command.args(["-i", device, "-n", "-e", "-l", "-Q", "in", "--immediate-mode", filter]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (mut said, mut stderr) = (String::new(), child.stderr.take().unwrap());
        let mut byte = [0];
        while !said.contains("listening on") {
            assert!(stderr.read(&mut byte).unwrap() == 1, "tcpdump: {said}");
            said.push(char::from(byte[0]));
        }
        let mut stdout = child.stdout.take().unwrap();
        let reader = std::thread::spawn(move || {
            let mut lines = String::new();
            let _ = stdout.read_to_string(&mut lines);
            let _ = std::io::copy(&mut stderr, &mut std::io::sink());
            lines
        });
        Watch { child, reader: Some(reader) }
    }

    /// Stops after a while that lets late frames come, and gives a line for each frame.
    pub(crate) fn lines(mut self) -> Vec<String> {
        std::thread::sleep(Duration::from_millis(700));
        let pid = nix::unistd::Pid::from_raw(self.child.id() as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
        self.child.wait().unwrap();
        self.reader.take().unwrap().join().unwrap().lines().map(str::to_owned).collect()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Bytes that look random and are the same each time (xorshift64).
pub(crate) fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    std::iter::repeat_with(next).take(len).collect()
}

/// Where files of the suite are kept between runs.
pub(crate) fn cache() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/netns")
}
