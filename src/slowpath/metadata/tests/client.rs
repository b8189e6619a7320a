//! A guest's TCP, and a world of guests around one service.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::Instant;
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr};
use tokio::sync::Notify;
use tokio::task::LocalSet;

use super::super::{Guest, Proxy, Service, Settings};
use super::guest;
use crate::services::{SERVICE_MAC, SERVICE_V4};
use crate::types::{Mac, PortIdx};

pub(super) fn mac(n: u16) -> Mac {
    let [a, b] = n.to_be_bytes();
    Mac([2, 0, 0, 0, a, b])
}

/// Frames for one client.
#[derive(Default)]
pub(super) struct Inbox {
    pub(super) frames: RefCell<VecDeque<Vec<u8>>>,
    more: Notify,
}

type Inboxes = Rc<RefCell<HashMap<(PortIdx, u16), Rc<Inbox>>>>;

#[derive(Clone)]
pub(super) struct World {
    pub(super) service: Service,
    pub(super) settings: Arc<ArcSwap<Settings>>,
    inboxes: Inboxes,
}

impl World {
    pub(super) fn counter(&self, name: &str) -> u64 {
        self.service.counters().rows().into_iter().find(|(row, _)| *row == name).unwrap().1
    }

    /// Frames to a TCP port of a guest.
    pub(super) fn inbox(&self, port: PortIdx, tcp: u16) -> Rc<Inbox> {
        Rc::clone(self.inboxes.borrow_mut().entry((port, tcp)).or_default())
    }

    pub(super) fn forget(&self, port: PortIdx, tcp: u16) {
        self.inboxes.borrow_mut().remove(&(port, tcp));
    }

    pub(super) fn set(&self, change: impl Fn(&mut Settings)) {
        let mut settings = Settings::clone(&self.settings.load());
        change(&mut settings);
        self.settings.store(Arc::new(settings));
    }

    pub(super) fn set_guest(&self, n: u16, change: impl Fn(&mut Guest)) {
        self.set(|settings| {
            let mut guest = Guest::clone(&settings.guests[&PortIdx(n)]);
            change(&mut guest);
            settings.guests.insert(PortIdx(n), Arc::new(guest));
        });
    }

    /// A request as it stands here, on a connection of its own, and all that comes back.
    pub(super) async fn exchange(&self, n: u16, tcp: u16, request: &[u8]) -> Vec<u8> {
        let mut client = Tcp::new(self, n, tcp, SERVICE_V4.into());
        client.send(request).await;
        client.rest().await
    }

    pub(super) async fn get(&self, n: u16, path: &str) -> Reply {
        self.ask(n, "GET", path, "").await
    }

    /// `headers` are whole lines.
    pub(super) async fn ask(&self, n: u16, method: &str, path: &str, headers: &str) -> Reply {
        let text = format!(
            "{method} {path} HTTP/1.1\r\nHost: 169.254.169.254\r\nConnection: close\r\n{headers}\r\n"
        );
        Reply::of(&self.exchange(n, 40_000, text.as_bytes()).await)
    }
}

/// Runs a test with `guests` guests, in tokio's paused time or in that of the world.
pub(super) fn run(guests: u16, paused: bool, test: impl AsyncFnOnce(World)) {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().start_paused(paused).build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        let settings = Settings {
            guests: (0..guests).map(|n| (PortIdx(n), Arc::new(guest(n)))).collect(),
            proxy: None::<Arc<Proxy>>,
        };
        let settings = Arc::new(ArcSwap::from_pointee(settings));
        let inboxes = Inboxes::default();
        let sent = Rc::clone(&inboxes);
        let send = move |port: PortIdx, frame: &[u8]| {
            let tcp = if frame[12..14] == [8, 0] { 14 + 20 } else { 14 + 40 };
            let to = u16::from_be_bytes([frame[tcp + 2], frame[tcp + 3]]);
            if let Some(inbox) = sent.borrow().get(&(port, to)) {
                inbox.frames.borrow_mut().push_back(frame.to_vec());
                inbox.more.notify_one();
            }
        };
        let service = Service::new(Arc::clone(&settings), send, [1; 32], Arc::default());
        let world = World { service: service.clone(), settings, inboxes };
        let running = tokio::task::spawn_local(async move { service.run().await });
        let guard = Duration::from_secs(if paused { 100_000 } else { 120 });
        tokio::time::timeout(guard, test(world)).await.expect("it hangs");
        assert!(!running.is_finished(), "the service ended");
    });
}

/// One TCP connection of a guest.
pub(super) struct Tcp {
    world: World,
    port: PortIdx,
    tcp: u16,
    interface: Interface,
    sockets: SocketSet<'static>,
    handle: SocketHandle,
    wire: Wire,
    origin: tokio::time::Instant,
}

struct Wire {
    inbox: Rc<Inbox>,
    service: Service,
    port: PortIdx,
    source: Mac,
    destination: Mac,
    /// The MACs of the frames that came: from, to.
    seen: Vec<(Mac, Mac)>,
}

impl Tcp {
    /// A connection of guest `n` from a TCP port, with smoltcp's usual address for it; its SYN is sent with what is sent first.
    pub(super) fn new(world: &World, n: u16, tcp: u16, to: IpAddr) -> Tcp {
        let port = PortIdx(n);
        let mut wire = Wire {
            inbox: world.inbox(port, tcp),
            service: world.service.clone(),
            port,
            source: mac(n),
            destination: SERVICE_MAC,
            seen: Vec::new(),
        };
        let origin = tokio::time::Instant::now();
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = u64::from(n) << 16 | u64::from(tcp);
        let mut interface = Interface::new(config, &mut wire, Instant::ZERO);
        interface.update_ip_addrs(|list| {
            list.push(IpCidr::new(IpAddress::v4(10, 0, 0, 5), 24)).unwrap();
            list.push(IpCidr::new(IpAddress::v6(0xfe80, 0, 0, 0, 0, 0, 0, 5), 64)).unwrap();
        });
        interface.routes_mut().add_default_ipv4_route(Ipv4Addr::new(10, 0, 0, 1)).unwrap();
        let buffer = || SocketBuffer::new(vec![0; 4096]);
        let mut sockets = SocketSet::new(Vec::new());
        let mut socket = Socket::new(buffer(), buffer());
        socket.set_nagle_enabled(false);
        socket.connect(interface.context(), (IpAddress::from(to), 80), tcp).unwrap();
        let handle = sockets.add(socket);
        Tcp { world: world.clone(), port, tcp, interface, sockets, handle, wire, origin }
    }

    /// Its frames go to a router, from another MAC.
    pub(super) fn by(&mut self, source: Mac, destination: Mac) {
        (self.wire.source, self.wire.destination) = (source, destination);
    }

    pub(super) fn seen(&self) -> &[(Mac, Mac)] {
        &self.wire.seen
    }

    pub(super) fn socket(&mut self) -> &mut Socket<'static> {
        self.sockets.get_mut(self.handle)
    }

    pub(super) fn state(&mut self) -> State {
        self.socket().state()
    }

    fn poll(&mut self) -> Option<Duration> {
        let now = Instant::from_micros(i64::try_from(self.origin.elapsed().as_micros()).unwrap());
        self.interface.poll(now, &mut self.wire, &mut self.sockets);
        self.interface.poll_delay(now, &self.sockets).map(Duration::from)
    }

    /// Does what is to be done, waits for the next frame or timer, at most `longest`, and does what is to be done then.
    pub(super) async fn step(&mut self, longest: Duration) {
        let wait = self.poll().unwrap_or(longest).clamp(Duration::from_millis(1), longest);
        let _ = tokio::time::timeout(wait, self.wire.inbox.more.notified()).await;
        self.poll();
    }

    pub(super) async fn wait(&mut self, time: Duration) {
        let until = tokio::time::Instant::now() + time;
        while tokio::time::Instant::now() < until {
            let left = until - tokio::time::Instant::now();
            self.step(left.min(Duration::from_secs(1))).await;
        }
    }

    pub(super) async fn send(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if !matches!(self.state(), State::SynSent | State::Established | State::CloseWait) {
                return;
            }
            let sent = self.socket().send_slice(bytes).unwrap_or(0);
            bytes = &bytes[sent..];
            self.step(Duration::from_secs(1)).await;
        }
    }

    /// What comes, until it is enough or the other side has no more.
    pub(super) async fn until(&mut self, enough: impl Fn(&[u8]) -> bool) -> Vec<u8> {
        let mut got = Vec::new();
        while !enough(&got) {
            self.step(Duration::from_secs(1)).await;
            let socket = self.socket();
            while socket.can_recv() {
                socket.recv(|bytes| (bytes.len(), got.extend_from_slice(bytes))).unwrap();
            }
            if !socket.may_recv() && !matches!(socket.state(), State::SynSent | State::SynReceived) {
                break;
            }
        }
        got
    }

    /// What comes until the other side closes; then it closes too.
    pub(super) async fn rest(&mut self) -> Vec<u8> {
        let got = self.until(|_| false).await;
        self.close().await;
        got
    }

    pub(super) async fn close(&mut self) {
        self.socket().close();
        for _ in 0..20 {
            self.step(Duration::from_millis(10)).await;
            if !self.socket().is_active() {
                break;
            }
        }
    }
}

impl Drop for Tcp {
    fn drop(&mut self) {
        self.world.forget(self.port, self.tcp);
    }
}

impl Device for Wire {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sent<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Received, Sent<'_>)> {
        let frame = self.inbox.frames.borrow_mut().pop_front()?;
        let mac = |at: usize| Mac(*frame[at..].first_chunk().unwrap());
        self.seen.push((mac(6), mac(0)));
        Some((Received(frame), Sent(self)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Sent<'_>> {
        Some(Sent(self))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = 1450;
        capabilities
    }
}

pub(super) struct Received(Vec<u8>);

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        assert!(self.0.len() <= 14 + 1450, "longer than the MTU");
        read(&self.0[14..])
    }
}

pub(super) struct Sent<'a>(&'a Wire);

impl TxToken for Sent<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, write: F) -> R {
        let mut packet = vec![0; len];
        let result = write(&mut packet);
        let Wire { service, port, source, destination, .. } = self.0;
        service.receive(*port, &frame(*destination, *source, &packet));
        result
    }
}

/// An Ethernet frame around an IP packet, padded.
pub(super) fn frame(destination: Mac, source: Mac, packet: &[u8]) -> Vec<u8> {
    let ethertype = if packet[0] >> 4 == 4 { [8, 0] } else { [0x86, 0xdd] };
    let mut frame = [&destination.0[..], &source.0, &ethertype, packet].concat();
    frame.resize(frame.len().max(60), 0);
    frame
}

/// An answer, taken apart.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: String,
}

impl Reply {
    pub(super) fn of(bytes: &[u8]) -> Reply {
        let text = String::from_utf8_lossy(bytes).into_owned();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let header = |line: &str| {
            let (name, value) = line.split_once(": ").unwrap();
            (name.to_ascii_lowercase(), value.to_owned())
        };
        Reply { status, headers: lines.map(header).collect(), body: body.into() }
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}
