//! The API over a real Unix socket, against a switch that is made of plain values.

use std::io::{Read, Write};
use std::ops::ControlFlow;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use super::client::{Client, Error};
use super::filter::Resource;
use super::select::{BindingFilter, ConnectionFilter, Marker, Page};
use super::server::{Capture, Follow, Switch, serve};
use super::socket::ControlSocket;
use super::view::*;
use crate::pcapng::{Blocks, CaptureRecord, Direction};
use crate::stats::{DropReason, PortCounters, PortSnapshot};

mod guest;
mod router;
mod security;

pub(crate) use guest::*;
pub(crate) use router::*;
pub(crate) use security::*;

#[derive(Default)]
struct Fake {
    reloads: AtomicU64,
    mistakes: Mutex<Vec<Diagnostic>>,
    captures: Mutex<Vec<FakeCapture>>,
    flushed: Mutex<Vec<ConnectionFilter>>,
    followers: Mutex<Vec<(mpsc::Sender<ConnectionEvent>, Arc<AtomicU64>)>>,
    log: Mutex<Option<mpsc::Sender<SecurityEvent>>>,
}

struct FakeCapture {
    sender: mpsc::Sender<CaptureRecord>,
    missed: Arc<AtomicU64>,
    snaplen: usize,
    inner: bool,
}

fn fake_network(name: &str, vlan: u32) -> Network {
    Network {
        id: Uuid::from_u128(vlan.into()),
        name: name.into(),
        network_type: "vlan".into(),
        physical_network: Some("provider".into()),
        segmentation_id: Some(vlan),
        mtu: 1500,
        mac_limit: 8192,
        dns_domain: None,
        port_security_enabled: true,
        macs: 2,
        status: State::Active,
    }
}

fn fake_port(name: &str, id: u128) -> Port {
    let counters = PortCounters::default();
    counters.rx_frames.add(10);
    counters.count_drop(DropReason::VlanNotAllowed, 3);
    counters.count_drop(DropReason::Runt, 1);
    let interface = Interface {
        kind: "tap".into(),
        device: format!("{name}@lab"),
        driver: Some("tap".into()),
        notes: Vec::new(),
    };
    Port {
        id: Uuid::from_u128(id),
        name: name.into(),
        role: Role::Port,
        network: Some("blue".into()),
        trunk: None,
        interface,
        mac_address: Some("52:54:00:00:00:01".parse().unwrap()),
        mtu: 1500,
        worker: Some(0),
        status: State::Active,
        status_reason: None,
        admin_state_up: true,
        extra_dhcp_opts: Vec::new(),
        port_security_enabled: true,
        security_groups: vec![Uuid::from_u128(50)],
        allowed_address_pairs: Vec::new(),
        counters: counters.snapshot(),
    }
}

pub(crate) fn fake_tunnels() -> Tunnels {
    let counters = PortCounters::default();
    counters.rx_frames.add(5);
    counters.count_drop(DropReason::SplitHorizon, 5);
    Tunnels {
        vtep: Some(Vtep {
            address: "2001:db8::10".parse().unwrap(),
            prefix_len: 64,
            gateway_ip: None,
            mac_address: Some("02:00:00:00:00:01".parse().unwrap()),
            interface: Interface { kind: "best".into(), device: "under0".into(), ..Interface::default() },
            mtu: 1500,
            udp_port: 4789,
            learn_peers: false,
            status: State::Active,
            status_reason: None,
            counters: PortCounters::default().snapshot(),
        }),
        peers: vec![Peer {
            name: "2001:db8::11".into(),
            address: Some("2001:db8::11".parse().unwrap()),
            kind: PeerKind::Learned,
            next_hop: None,
            path_mtu: Some(1400),
            networks: vec!["blue".into()],
            counters: counters.snapshot(),
        }],
        networks: vec![TunnelledNetwork {
            name: "blue".into(),
            segmentation_id: 1001,
            mtu: 1430,
            peers: 1,
            flooding: Flooding::Peers,
            rx_frames: 5,
            rx_bytes: 300,
            tx_frames: 0,
            tx_bytes: 0,
        }],
    }
}

impl Switch for Fake {
    fn interfaces(&self) -> Vec<(String, PortSnapshot)> {
        fake_router().interfaces.into_iter().map(|of| (of.name, of.counters)).collect()
    }

    async fn routers(&self) -> Result<Vec<Router>, Problem> {
        Ok(vec![fake_router()])
    }

    fn subnets(&self) -> Vec<Subnet> {
        vec![fake_subnet()]
    }

    fn floating_ips(&self) -> Vec<FloatingIp> {
        vec![fake_floating_ip()]
    }

    fn routes(&self) -> Vec<Route> {
        fake_routes()
    }

    async fn neighbours(&self) -> Result<Vec<Neighbour>, Problem> {
        Ok(vec![fake_neighbour()])
    }

    async fn nat(&self) -> Result<Nat, Problem> {
        Ok(fake_nat())
    }

    async fn bindings(
        &self,
        filter: &BindingFilter,
        _from: Option<Marker>,
        _limit: usize,
    ) -> Result<Page<Binding>, Problem> {
        let is_meant = filter.inside.iter().all(|net| net.contains(&fake_binding().inside_address));
        Ok(Page { items: if is_meant { vec![fake_binding()] } else { Vec::new() }, next: None })
    }

    /// There are twelve connections, six with each worker; no more than four are given at once.
    async fn connections(
        &self,
        filter: &ConnectionFilter,
        from: Option<Marker>,
        limit: usize,
    ) -> Result<Page<Connection>, Problem> {
        if let Some(router) = filter.routers.iter().find(|router| *router != "edge") {
            return Err(Problem::not_found("Router", router));
        }
        let from = from.map_or(0, |marker| u32::from(marker.worker) * 6 + marker.place);
        let end = (from + u32::try_from(limit.min(4)).unwrap()).min(12);
        let next = (end < 12).then_some(Marker { worker: u16::try_from(end / 6).unwrap(), place: end % 6 });
        Ok(Page { items: (from..end).map(fake_connection).collect(), next })
    }

    async fn flush_connections(&self, filter: &ConnectionFilter) -> Result<u64, Problem> {
        self.flushed.lock().unwrap().push(filter.clone());
        Ok(3)
    }

    async fn follow_connections(&self, _filter: &ConnectionFilter) -> Result<Follow, Problem> {
        let (sender, events) = mpsc::channel(8);
        let missed = Arc::new(AtomicU64::new(0));
        self.followers.lock().unwrap().push((sender, missed.clone()));
        Ok(Follow { events, missed })
    }

    fn security_groups(&self) -> Vec<SecurityGroup> {
        fake_security_groups()
    }

    fn address_groups(&self) -> Vec<AddressGroup> {
        vec![fake_address_group()]
    }

    async fn port_rules(&self, port: &str) -> Result<PortRules, Problem> {
        Ok(PortRules { port: port.into(), ..fake_port_rules() })
    }

    fn security_log(&self, follow: bool) -> Result<Follow<SecurityEvent>, Problem> {
        let (sender, events) = mpsc::channel(8);
        sender.try_send(fake_security_event()).unwrap();
        if follow {
            *self.log.lock().unwrap() = Some(sender);
        }
        Ok(Follow { events, missed: Arc::new(AtomicU64::new(0)) })
    }

    async fn status(&self) -> Status {
        let (version, config) = ("0.1.0".into(), "lab.toml".into());
        let metadata = [("requests_2xx".to_owned(), 7)].into();
        let (pid, workers) = (std::process::id(), Vec::new());
        Status {
            version,
            pid,
            uptime_seconds: 5,
            config,
            epoch: 1,
            workers,
            metadata,
            security: fake_nat().trackers,
        }
    }

    fn networks(&self) -> Vec<Network> {
        vec![fake_network("blue", 120), fake_network("a/b c", 121)]
    }

    fn ports(&self) -> Vec<Port> {
        vec![fake_port("web1", 1), fake_port("web2", 2)]
    }

    fn tunnels(&self) -> Tunnels {
        fake_tunnels()
    }

    fn guest_port(&self, port: &str) -> Result<GuestPort, Problem> {
        fake_guest_port(port)
    }

    fn metadata(&self, port: &str) -> Result<Vec<Document>, Problem> {
        fake_documents(port)
    }

    fn metadata_document(&self, port: &str, path: &str) -> Result<(&'static str, Bytes), Problem> {
        fake_document(port, path)
    }

    async fn leases(&self) -> Vec<Lease> {
        fake_leases()
    }

    async fn fdb(&self) -> Result<Vec<FdbEntry>, Problem> {
        let entry = |mac: &str, port: &str| FdbEntry {
            network: "blue".into(),
            vlan: Some(120),
            mac: mac.parse().unwrap(),
            port: port.into(),
            kind: FdbKind::Learned,
            age_seconds: Some(4),
        };
        Ok(vec![entry("52:54:00:00:00:0a", "web1"), entry("52:54:00:00:00:0b", "web2")])
    }

    async fn reload(&self) -> Result<ReloadReport, Problem> {
        let mistakes = self.mistakes.lock().unwrap().clone();
        if !mistakes.is_empty() {
            return Err(Problem::configuration(mistakes));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        let epoch = self.reloads.fetch_add(1, Ordering::SeqCst) + 2;
        Ok(ReloadReport { changes: vec!["port web3: added".into()], epoch })
    }

    async fn trace(&self, port: &str, frame: Vec<u8>) -> Result<Trace, Problem> {
        let step = TraceStep { stage: "ingress".into(), text: format!("{} bytes", frame.len()) };
        let outputs = vec![TraceOutput { port: "web2".into(), frame: super::hex::encode(&frame) }];
        Ok(Trace { port: port.into(), verdict: "forwarded".into(), steps: vec![step], outputs })
    }

    async fn capture(&self, _port: &str, snaplen: usize, inner: bool) -> Result<Capture, Problem> {
        let (sender, records) = mpsc::channel(8);
        let missed = Arc::new(AtomicU64::new(0));
        self.captures.lock().unwrap().push(FakeCapture { sender, missed: missed.clone(), snaplen, inner });
        Ok(Capture { records, missed })
    }
}

/// A server on a thread of its own, stopped when dropped.
pub(crate) struct Running {
    switch: Arc<Fake>,
    pub(crate) path: PathBuf,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    _directory: tempfile::TempDir,
}

impl Running {
    pub(crate) fn start() -> Running {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control.sock");
        let switch = Arc::new(Fake::default());
        let (stop, stopped) = oneshot::channel();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let (serving, at) = (switch.clone(), path.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let socket = ControlSocket::bind(&at, 0o600, None).await.unwrap();
                ready.send(()).unwrap();
                serve(socket, serving, async { drop(stopped.await) }).await;
            });
        });
        is_ready.recv().unwrap();
        Running { switch, path, stop: Some(stop), thread: Some(thread), _directory: directory }
    }

    fn client(&self) -> Client {
        Client::new(&self.path).unwrap()
    }

    fn names(&self, path: &str, collection: &str) -> Vec<String> {
        let list: Vec<Value> = self.client().get_key(path, collection).unwrap();
        list.iter().map(|object| object["name"].as_str().unwrap().to_owned()).collect()
    }

    fn problem(&self, path: &str) -> Problem {
        match self.client().get::<Value>(path) {
            Err(Error::Refused(problem)) => problem,
            other => panic!("{path}: {other:?}"),
        }
    }

    fn stop(&mut self) {
        self.stop.take().unwrap().send(()).unwrap();
        self.thread.take().unwrap().join().unwrap();
    }

    /// Lets every reload find a mistake from now on.
    pub(crate) fn refuse_configuration(&self) {
        *self.switch.mistakes.lock().unwrap() = vec![mistake(3), mistake(9)];
    }

    /// Waits for a capture and fills it until it is closed: frame 1, five missed, frame 2 (dropped), then frames 3.
    pub(crate) fn feed_captures(&self) -> JoinHandle<()> {
        let fake = self.switch.clone();
        std::thread::spawn(move || {
            let (sender, missed) = loop {
                if let Some(capture) = fake.captures.lock().unwrap().first() {
                    break (capture.sender.clone(), capture.missed.clone());
                }
                std::thread::yield_now();
            };
            sender.blocking_send(record(1)).unwrap();
            while sender.capacity() < sender.max_capacity() {
                std::thread::yield_now();
            }
            missed.fetch_add(5, Ordering::Relaxed);
            sender.blocking_send(record(2)).unwrap();
            while sender.blocking_send(record(3)).is_ok() {}
        })
    }

    fn wait_for(&self, what: impl Fn(&Fake) -> bool) {
        let start = Instant::now();
        while !what(&self.switch) {
            assert!(start.elapsed() < Duration::from_secs(5), "did not happen");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl std::ops::Drop for Running {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
    }
}

/// What the server says to a request written by hand, with the connection closed after it.
fn raw(path: &Path, request: &str) -> String {
    let mut stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn request(method: &str, target: &str) -> String {
    format!("{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
}

fn mistake(line: usize) -> Diagnostic {
    Diagnostic {
        file: "lab.toml".into(),
        line: Some(line),
        column: Some(1),
        message: "no such network".into(),
        hint: None,
        rendered: "lab.toml: no such network".into(),
    }
}

fn record(number: u8) -> CaptureRecord {
    let bytes = vec![number; 60];
    let dropped = (number == 2).then_some(DropReason::Runt);
    CaptureRecord {
        at: 7,
        direction: Direction::Rx,
        original_len: 60,
        bytes,
        dropped,
        tunnel: None,
        interface: "web1".into(),
    }
}

#[test]
fn resources_are_listed_filtered_and_shown() {
    let switch = Running::start();
    let client = switch.client();
    let networks: Vec<Network> = client.get_key("/v2.0/networks", "networks").unwrap();
    assert_eq!(networks, switch.switch.networks());
    let ports: Vec<Port> = client.get_key("/v2.0/ports", "ports").unwrap();
    assert_eq!(ports, switch.switch.ports(), "counters and drop reasons survive the way");
    assert_eq!(switch.names("/v2.0/networks?name=blue", "networks"), ["blue"]);
    assert_eq!(switch.names("/v2.0/networks?segmentation_id=121", "networks"), ["a/b c"]);
    assert_eq!(switch.names("/v2.0/ports?mac_address=52-54-00-00-00-01&name=web2", "ports"), ["web2"]);
    let by_name: Network =
        client.get_key(&format!("/v2.0/networks/{}", super::client::encode("a/b c")), "network").unwrap();
    let by_id: Network = client.get_key(&format!("/v2.0/networks/{}", by_name.id), "network").unwrap();
    assert_eq!((by_name.segmentation_id, &by_name), (Some(121), &by_id));
    let cut: Value = client.get("/v2.0/ports/web1?fields=name&fields=mtu").unwrap();
    assert_eq!(cut, json!({"port": {"name": "web1", "mtu": 1500}}));
    let fdb: Vec<FdbEntry> = client.get_key("/v1/fdb?port=web2&network=blue", "fdb").unwrap();
    assert_eq!(fdb.len(), 1);
    let drops: Vec<Drop> = client.get_key("/v1/drops?port=web1", "drops").unwrap();
    let counts: Vec<_> = drops.iter().map(|drop| (drop.reason.as_str(), drop.count)).collect();
    assert_eq!(counts, [("runt", 1), ("vlan_not_allowed", 3)]);
    assert_eq!(drops[0].meaning, DropReason::Runt.meaning());
    let drops: Vec<Drop> = client.get_key("/v1/drops?port=2001:db8::11", "drops").unwrap();
    let counts: Vec<_> = drops.iter().map(|drop| (drop.reason.as_str(), drop.count)).collect();
    assert_eq!(counts, [("split_horizon", 5)], "a peer's drops");
    let tunnels: Tunnels = client.get("/v1/tunnels").unwrap();
    assert_eq!(tunnels, fake_tunnels());
    let status: Status = client.get("/v1/status").unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    assert_eq!(status, runtime.block_on(switch.switch.status()));
}

/// Every field of an object can be asked for, and all that are plain can be filtered by.
fn check_fields<T: Resource>(item: &T) {
    let Value::Object(object) = serde_json::to_value(item).unwrap() else { panic!("no object") };
    let mut names: Vec<&str> = T::SCALARS.iter().chain(T::COMPOUNDS).copied().collect();
    names.sort_unstable();
    let mut keys: Vec<&str> = object.keys().map(String::as_str).collect();
    keys.sort_unstable();
    assert_eq!(names, keys, "{}", T::COLLECTION);
    let compound = |name: &&&str| object[**name].is_object() || object[**name].is_array();
    assert_eq!(T::SCALARS.iter().find(compound), None);
}

#[test]
fn every_field_is_known_to_the_filters() {
    check_fields(&fake_network("blue", 1));
    check_fields(&fake_port("web1", 1));
    let mac = "52:54:00:00:00:01".parse().unwrap();
    let (network, port) = ("blue".to_owned(), "web1".to_owned());
    check_fields(&FdbEntry {
        network,
        vlan: None,
        mac,
        port: port.clone(),
        kind: FdbKind::Static,
        age_seconds: None,
    });
    check_fields(&Drop { port, reason: "runt".into(), meaning: String::new(), count: 1 });
}

#[test]
fn errors_have_neutrons_form() {
    let switch = Running::start();
    for (path, status, kind, message) in [
        ("/v2.0/ports/nope", 404, "PortNotFound", "Port nope could not be found."),
        ("/v2.0/networks/nope", 404, "NetworkNotFound", "Network nope could not be found."),
        ("/v2.0/ports?nmae=web1", 400, "InvalidInput", "ports have no field nmae."),
        ("/v2.0/ports?counters=1", 400, "InvalidInput", "ports cannot be filtered by counters."),
        ("/v2.0/agents", 404, "HTTPNotFound", "The resource /v2.0/agents could not be found."),
        ("/v1/reload", 405, "HTTPMethodNotAllowed", "The method GET is not allowed for /v1/reload."),
        ("/v1/capture/nope", 404, "PortNotFound", "Port nope could not be found."),
        ("/v1/capture/web1?inner=maybe", 400, "InvalidInput", "inner: `maybe` is not true or false"),
        ("/v1/capture/web1?snaplen=-1", 400, "InvalidInput", "snaplen: `-1` is not a number of bytes"),
        (
            "/v1/capture/web1?count=1",
            400,
            "InvalidInput",
            "A capture has no parameter count; it has snaplen and inner.",
        ),
    ] {
        let problem = switch.problem(path);
        assert_eq!(
            (problem.status, problem.body.kind.as_str(), problem.body.message.as_str()),
            (status, kind, message)
        );
    }
    let answer = raw(&switch.path, &request("DELETE", "/v2.0/ports"));
    assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
    assert!(answer.to_lowercase().contains("allow: get,head"), "{answer}");
    assert!(answer.to_lowercase().contains("content-type: application/json"), "{answer}");
    let body: Value = serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    let message = "The method DELETE is not allowed for /v2.0/ports.";
    assert_eq!(
        body,
        json!({"NeutronError": {"type": "HTTPMethodNotAllowed", "message": message, "detail": ""}})
    );
}

#[test]
fn versions_are_told() {
    let switch = Running::start();
    let versions: Value = switch.client().get("/").unwrap();
    assert_eq!(versions["versions"][0]["id"], "v2.0");
    for path in ["/v2.0", "/v2.0/"] {
        let resources: Value = switch.client().get(path).unwrap();
        assert_eq!(resources["resources"][1]["collection"], "ports");
    }
}

#[test]
fn a_reload_reports_changes_or_every_mistake() {
    let switch = Running::start();
    let report: ReloadReport = switch.client().post("/v1/reload", &()).unwrap();
    assert_eq!(report, ReloadReport { changes: vec!["port web3: added".into()], epoch: 2 });
    switch.refuse_configuration();
    let Err(Error::Refused(problem)) = switch.client().post::<ReloadReport>("/v1/reload", &()) else {
        panic!("accepted")
    };
    assert!(problem.is_configuration());
    assert_eq!(problem.to_string(), "the configuration has 2 mistakes");
    assert_eq!(problem.diagnostics, [mistake(3), mistake(9)]);
}

#[test]
fn a_reload_goes_on_when_the_client_hangs_up() {
    let switch = Running::start();
    let mut stream = UnixStream::connect(&switch.path).unwrap();
    stream.write_all(b"POST /v1/reload HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n").unwrap();
    std::thread::sleep(Duration::from_millis(30));
    drop(stream);
    switch.wait_for(|fake| fake.reloads.load(Ordering::SeqCst) == 1);
}

#[test]
fn a_trace_takes_hexadecimal_and_refuses_the_rest() {
    let switch = Running::start();
    let ask = |body: Value| switch.client().post::<Trace>("/v1/trace", &body);
    let trace = ask(json!({"port": Uuid::from_u128(2), "frame": "ff:ff 00"})).unwrap();
    assert_eq!((trace.port.as_str(), trace.steps[0].text.as_str()), ("web2", "3 bytes"));
    for (body, status, part) in [
        (json!({"port": "web1"}), 400, "missing field `frame`"),
        (json!({"port": "web1", "frame": "00", "speed": 1}), 400, "unknown field `speed`"),
        (json!({"port": "web1", "frame": "0g"}), 400, "`g` is not a hexadecimal digit"),
        (json!({"port": "web1", "frame": "00".repeat(80_000)}), 400, "the longest frame"),
        (json!({"port": "web9", "frame": "00"}), 404, "web9"),
    ] {
        let Err(Error::Refused(problem)) = ask(body) else { panic!("{part}: accepted") };
        assert_eq!(problem.status, status);
        assert!(problem.to_string().contains(part), "{problem}");
    }
}

#[test]
fn a_body_that_is_too_long_is_refused_by_its_announcement() {
    let switch = Running::start();
    let header = "POST /v1/trace HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 1048577\r\n\r\n";
    let answer = raw(&switch.path, header);
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert!(answer.contains("The body is longer than 1048576 bytes."), "{answer}");
}

#[test]
fn a_capture_streams_until_the_client_hangs_up() {
    let switch = Running::start();
    let feeder = switch.feed_captures();
    let (mut blocks, mut file) = (Blocks::default(), Vec::new());
    let take = |piece: &[u8]| {
        blocks.push(piece);
        let full = blocks.pass(&mut file, Some(20))?;
        Ok(if full { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    };
    switch.client().stream("/v1/capture/web1?snaplen=96&inner=true", std::future::pending(), take).unwrap();
    assert_eq!(blocks.frames, 20);
    assert_eq!(blocks.missed, 5);
    let asked =
        |fake: &Fake| fake.captures.lock().unwrap().first().map(|capture| (capture.snaplen, capture.inner));
    assert_eq!(asked(&switch.switch), Some((96, true)), "the switch was told what is wanted");
    feeder.join().expect("the switch saw that nobody listens");
    let text = String::from_utf8_lossy(&file);
    assert!(text.contains("dropped: runt - shorter than an Ethernet header"));
}

#[test]
fn a_silent_capture_ends_with_its_client() {
    let switch = Running::start();
    let stop = async { tokio::time::sleep(Duration::from_millis(100)).await };
    let client = switch.client();
    client.stream("/v1/capture/web1", stop, |_| Ok(ControlFlow::Continue(()))).unwrap();
    drop(client);
    switch.wait_for(|fake| fake.captures.lock().unwrap()[0].sender.is_closed());
}

#[test]
fn a_capture_ends_well_when_the_switch_ends_it() {
    let switch = Running::start();
    let fake = switch.switch.clone();
    let ender = std::thread::spawn(move || {
        loop {
            if let Some(capture) = fake.captures.lock().unwrap().pop() {
                capture.sender.blocking_send(record(1)).unwrap();
                return;
            }
            std::thread::yield_now();
        }
    });
    let mut blocks = Blocks::default();
    let take = |piece: &[u8]| {
        blocks.push(piece);
        blocks.pass(&mut std::io::sink(), None)?;
        Ok(ControlFlow::Continue(()))
    };
    switch.client().stream("/v1/capture/web1", std::future::pending(), take).unwrap();
    assert_eq!(blocks.frames, 1);
    ender.join().unwrap();
}

#[test]
fn captures_are_limited_and_leave_room_for_others() {
    let switch = Running::start();
    let mut held = Vec::new();
    for number in 1..=16 {
        let mut stream = UnixStream::connect(&switch.path).unwrap();
        stream.write_all(request("GET", "/v1/capture/web1").as_bytes()).unwrap();
        held.push(stream);
        switch.wait_for(|fake| fake.captures.lock().unwrap().len() == number);
    }
    assert_eq!(switch.problem("/v1/capture/web1").status, 503);
    let _: Status = switch.client().get("/v1/status").unwrap();
    held.pop();
    switch.wait_for(|fake| fake.captures.lock().unwrap().iter().any(|capture| capture.sender.is_closed()));
    let start = Instant::now();
    while switch.client().stream("/v1/capture/web1", async {}, |_| Ok(ControlFlow::Break(()))).is_err() {
        assert!(start.elapsed() < Duration::from_secs(5), "the place is not free again");
    }
}

#[test]
fn malformed_requests_do_no_harm() {
    let switch = Running::start();
    for hostile in [
        "\0\0\0\0\r\n\r\n",
        "GET\r\n\r\n",
        "GET / HTTP/9.9\r\n\r\n",
        "POST /v1/trace HTTP/1.1\r\nContent-Length: x\r\n\r\n",
    ] {
        let answer = raw(&switch.path, hostile);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{answer}");
    }
    let long = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(200_000));
    let mut stream = UnixStream::connect(&switch.path).unwrap();
    let _ = stream.write_all(long.as_bytes());
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert!(!String::from_utf8_lossy(&answer).contains(" 200 "));
    let _: Status = switch.client().get("/v1/status").unwrap();
}

#[test]
fn stopping_takes_the_socket_away_and_does_not_wait_for_ever() {
    let mut switch = Running::start();
    let mut idle = UnixStream::connect(&switch.path).unwrap();
    let mut capture = UnixStream::connect(&switch.path).unwrap();
    capture.write_all(request("GET", "/v1/capture/web1").as_bytes()).unwrap();
    switch.wait_for(|fake| !fake.captures.lock().unwrap().is_empty());
    let start = Instant::now();
    switch.stop();
    assert!(start.elapsed() < Duration::from_secs(3));
    assert!(!switch.path.exists());
    assert_eq!(idle.read(&mut [0; 8]).unwrap(), 0, "closed");
    let error = switch.client().get::<Value>("/v1/status").unwrap_err();
    assert!(matches!(error, Error::NotRunning(_)), "{error}");
}
