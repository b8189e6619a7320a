//! A guest that speaks TCP well enough to be heard, and HTTP as it likes, to the metadata service; frames of any bytes between;
//! and time that passes:
//! - what is sent is a whole TCP segment from the service to that guest: right checksums, to a MAC that it has used, no longer
//!   than its MTU;
//! - connections are bounded, and after some minutes of silence nothing is left of any;
//! - a guest beside it is answered meanwhile.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use nuswitch::services::packet::Packet;
use nuswitch::services::{SERVICE_MAC, SERVICE_V4, SERVICE_V6};
use nuswitch::slowpath::metadata::{Guest, Mode, Service, Settings, limits};
use nuswitch::types::PortIdx;
use nuswitch::wire::protocol;

use super::input::Input;

const GUEST: PortIdx = PortIdx(0);
const BESIDE: PortIdx = PortIdx(1);
const FIN: u8 = 1;
const SYN: u8 = 2;
const ACK: u8 = 16;

/// What requests are made of.
const PIECES: &[&[u8]] = &[
    b"GET /openstack/latest/meta_data.json HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /",
    b"latest/meta-data/",
    b"%2e./",
    b" HTTP/1.1\r\n",
    b"Host: x\r\n",
    b"\r\n",
    b"PUT /latest/api/token HTTP/1.1\r\n",
    b"X-aws-ec2-metadata-token-ttl-seconds: 9\r\n",
    b"X-aws-ec2-metadata-token: 0\r\n",
    b"Content-Length: 5\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"5\r\nhello\r\n0\r\n\r\n",
    b"HEAD / HTTP/1.0\r\n\r\n",
    b"Connection: close\r\n",
    b"POST /nocloud/ HTTP/1.1\r\nExpect: 100-continue\r\n",
];

/// The guest's end of a connection.
#[derive(Clone, Copy, Default)]
struct End {
    sequence: u32,
    acknowledged: u32,
    begun: bool,
}

type Frames = Rc<RefCell<Vec<(PortIdx, Vec<u8>)>>>;

struct World {
    service: Service,
    sent: Frames,
    ends: HashMap<(PortIdx, u16), End>,
    /// Bytes that the guest beside was answered with.
    beside: Vec<u8>,
    frames: u64,
}

pub fn run(data: &[u8]) {
    reach(data);
}

/// As [`run`]; gives the frames that were sent, the connections, and the requests that were answered.
pub fn reach(data: &[u8]) -> [u64; 3] {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_time().start_paused(true).build().expect("a runtime");
    tokio::task::LocalSet::new().block_on(&runtime, drive(Input::new(data)))
}

async fn drive(mut input: Input<'_>) -> [u64; 3] {
    let settings =
        Settings { guests: [GUEST, BESIDE].map(|port| (port, Arc::new(guest(port)))).into(), proxy: None };
    let sent = Frames::default();
    let out = Rc::clone(&sent);
    let send = move |port: PortIdx, frame: &[u8]| out.borrow_mut().push((port, frame.to_vec()));
    let service = Service::new(Arc::new(ArcSwap::from_pointee(settings)), send, [7; 32], Arc::default());
    let running = service.clone();
    tokio::task::spawn_local(async move { running.run().await });
    let mut world = World { service, sent, ends: HashMap::new(), beside: Vec::new(), frames: 0 };
    let mut steps = 0;
    while !input.is_empty() && steps < 200 {
        steps += 1;
        world.step(&mut input).await;
        assert!(world.service.load().1 <= limits::CONNECTIONS);
    }
    world.segment(BESIDE, 9, SYN, b"", 0).await;
    world.segment(BESIDE, 9, ACK, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 0).await;
    assert!(world.beside.starts_with(b"HTTP/1.1 200 OK\r\n"), "the guest beside is not answered");
    tokio::time::sleep(Duration::from_secs(300)).await;
    world.hear();
    assert_eq!(world.service.load(), (0, 0), "something stays");
    let rows: HashMap<&str, u64> = world.service.counters().rows().into_iter().collect();
    // Without those of the guest beside.
    [world.frames, rows["connections"] - 1, rows["requests_2xx"] + rows["requests_4xx"] - 1]
}

impl World {
    async fn step(&mut self, input: &mut Input<'_>) {
        let port = u16::from(input.byte() % 3);
        match input.byte() % 10 {
            0 => {
                let len = usize::from(input.byte());
                self.service.receive(GUEST, input.bytes(len));
                self.pass(1).await;
            }
            1 => self.pass(input.one_of(&[10, 1_000, 11_000, 61_000])).await,
            2 => {
                self.ends.remove(&(GUEST, port));
                self.segment(GUEST, port, SYN, b"", 0).await;
            }
            3 => self.segment(GUEST, port, input.byte() & 0x3f, b"", input.byte()).await,
            4 => self.segment(GUEST, port, ACK | FIN, b"", 0).await,
            5 => {
                let len = usize::from(input.byte());
                self.begin(port).await;
                self.segment(GUEST, port, ACK, input.bytes(len), 0).await;
            }
            _ => {
                let mut bytes = Vec::new();
                for _ in 0..=input.byte() % 4 {
                    bytes.extend(input.one_of(PIECES));
                }
                self.begin(port).await;
                let spoiled = input.one_of(&[0, 0, 0, 0, 1, 40]);
                self.segment(GUEST, port, ACK, &bytes, spoiled).await;
            }
        }
    }

    async fn begin(&mut self, port: u16) {
        if !self.ends.get(&(GUEST, port)).is_some_and(|end| end.begun) {
            self.segment(GUEST, port, SYN, b"", 0).await;
        }
    }

    /// Sends a segment; a byte of it is changed at `spoiled`, from the IP header's begin on.
    async fn segment(&mut self, from: PortIdx, port: u16, flags: u8, payload: &[u8], spoiled: u8) {
        let end = self.ends.entry((from, port)).or_default();
        end.begun |= flags & SYN != 0;
        let mut tcp = [1000 + port, 80].map(u16::to_be_bytes).concat();
        tcp.extend(end.sequence.to_be_bytes());
        tcp.extend(if flags & ACK != 0 { end.acknowledged } else { 0 }.to_be_bytes());
        tcp.extend([0x50, flags, 0x20, 0, 0, 0, 0, 0]);
        tcp.extend(payload);
        let controls = u32::from(flags & (SYN | FIN)).count_ones();
        end.sequence = end.sequence.wrapping_add(payload.len() as u32 + controls);
        let mut frame = [SERVICE_MAC.0, [2, 0, 0, 0, 0, port as u8]].concat();
        // One connection of the three is of IPv6.
        frame.extend(if port == 1 { v6(tcp) } else { v4(tcp) });
        if let Some(byte) = frame.get_mut(14 + usize::from(spoiled)).filter(|_| spoiled != 0) {
            *byte ^= 0x55;
        }
        self.service.receive(from, &frame);
        self.pass(1).await;
    }

    async fn pass(&mut self, millis: u64) {
        tokio::time::sleep(Duration::from_millis(millis)).await;
        self.hear();
    }

    /// Judges what was sent, and acknowledges it with the next segment.
    fn hear(&mut self) {
        for (to, frame) in self.sent.take() {
            self.frames += 1;
            assert!(frame.len() <= 14 + 1400, "longer than the MTU");
            let packet = Packet::parse(&frame).expect("a whole packet");
            assert!(packet.destination_mac.0[..5] == [2, 0, 0, 0, 0] && packet.source_mac == SERVICE_MAC);
            assert!(packet.source == IpAddr::from(SERVICE_V4) || packet.source == IpAddr::from(SERVICE_V6));
            assert_eq!(packet.protocol, protocol::TCP);
            assert_eq!(checksum(packet.source, packet.destination, packet.payload), 0, "a wrong checksum");
            let tcp = packet.payload;
            let port = u16::from_be_bytes([tcp[2], tcp[3]]).wrapping_sub(1000);
            let payload = &tcp[usize::from(tcp[12] >> 4) * 4..];
            let controls = u32::from(tcp[13] & (SYN | FIN)).count_ones();
            let Some(end) = self.ends.get_mut(&(to, port)) else { continue };
            let sequence = u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]);
            end.acknowledged = sequence.wrapping_add(payload.len() as u32 + controls);
            if to == BESIDE {
                self.beside.extend(payload);
            }
        }
    }
}

fn v4(mut tcp: Vec<u8>) -> Vec<u8> {
    let from = [10, 0, 0, 5];
    let sum = checksum(from.into(), SERVICE_V4.into(), &tcp).to_be_bytes();
    tcp[16..18].copy_from_slice(&sum);
    let mut header = vec![0x45, 0];
    header.extend((20 + tcp.len() as u16).to_be_bytes());
    header.extend([0, 0, 0x40, 0, 64, protocol::TCP, 0, 0]);
    header.extend([from, SERVICE_V4.octets()].concat());
    let sum = (!fold(words(&header))).to_be_bytes();
    header[10..12].copy_from_slice(&sum);
    [vec![8, 0], header, tcp].concat()
}

fn v6(mut tcp: Vec<u8>) -> Vec<u8> {
    let from = [0xfe80, 0, 0, 0, 0, 0, 0, 5];
    let sum = checksum(from.into(), SERVICE_V6.into(), &tcp).to_be_bytes();
    tcp[16..18].copy_from_slice(&sum);
    let mut packet = vec![0x86, 0xdd, 0x60, 0, 0, 0];
    packet.extend((tcp.len() as u16).to_be_bytes());
    packet.extend([protocol::TCP, 64]);
    packet.extend(from.map(u16::to_be_bytes).concat());
    packet.extend(SERVICE_V6.octets());
    [packet, tcp].concat()
}

/// The checksum of a segment; 0 when it holds the right one.
fn checksum(from: IpAddr, to: IpAddr, segment: &[u8]) -> u16 {
    let addresses = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => words(&ip.octets()),
        IpAddr::V6(ip) => words(&ip.octets()),
    };
    let pseudo = addresses(from) + addresses(to) + u32::from(protocol::TCP) + segment.len() as u32;
    !fold(pseudo + words(segment))
}

fn words(bytes: &[u8]) -> u32 {
    bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0))).sum()
}

fn fold(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

fn guest(port: PortIdx) -> Guest {
    let nic = nuswitch::slowpath::metadata::Nic {
        port_id: Default::default(),
        network_id: Default::default(),
        mac: SERVICE_MAC,
        mtu: 1400,
        addresses: Vec::new(),
    };
    Guest {
        instance_id: format!("i-{}", port.0),
        name: "guest".into(),
        hostname: "guest".into(),
        project_id: None,
        availability_zone: None,
        public_keys: vec!["ssh-ed25519 AAAA".into()],
        user_data: Some(vec![b'u'; 20_000].into()),
        vendor_data: None,
        vendor_data2: None,
        instance_type: None,
        image_id: None,
        reservation_id: None,
        security_groups: Vec::new(),
        public_ipv4: None,
        nics: vec![nic],
        mode: Mode::BuiltIn,
    }
}
