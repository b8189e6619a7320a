//! What is asked of and told to a network device around AF_XDP: by `ioctl` (linux/sockios.h, linux/ethtool.h) and a
//! packet socket, in the calling thread's network namespace.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use crate::types::Mac;

// linux/ethtool.h
const ETHTOOL_GDRVINFO: u32 = 0x03;
const ETHTOOL_GFLAGS: u32 = 0x25;
const ETHTOOL_SFLAGS: u32 = 0x26;
const ETHTOOL_GCHANNELS: u32 = 0x3c;
const FLAG_RX_VLAN: u32 = 1 << 8;

/// A device, with a socket in its namespace to ask about it. Usable from any thread once made.
pub struct NetDevice {
    socket: OwnedFd,
    name: [u8; libc::IFNAMSIZ],
    index: u32,
}

/// Rx and tx queues of a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Queues {
    /// Queues that it receives on.
    pub rx: u32,
    /// Queues that it sends by.
    pub tx: u32,
}

/// `struct ifreq` with the members that are used here.
#[repr(C)]
union Request {
    index: libc::c_int,
    short: libc::c_short,
    address: libc::sockaddr,
    data: *mut libc::c_void,
    room: [u64; 3],
}

#[repr(C)]
struct IfReq {
    name: [u8; libc::IFNAMSIZ],
    request: Request,
}

fn checked(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

impl NetDevice {
    /// The device of this name in the calling thread's namespace.
    ///
    /// # Errors
    /// ENODEV when there is none; EINVAL for a name that cannot be one.
    pub fn open(name: &str) -> io::Result<NetDevice> {
        let mut bytes = [0; libc::IFNAMSIZ];
        if name.is_empty() || name.len() >= bytes.len() {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        bytes[..name.len()].copy_from_slice(name.as_bytes());
        // SAFETY: makes a descriptor, which is then ours.
        let socket = unsafe {
            let fd = checked(libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0))?;
            OwnedFd::from_raw_fd(fd)
        };
        let mut device = NetDevice { socket, name: bytes, index: 0 };
        let answer = device.ioctl(libc::SIOCGIFINDEX, Request { room: [0; 3] })?;
        // SAFETY: SIOCGIFINDEX writes this member; all of the union was initialised.
        device.index = unsafe { answer.index }.cast_unsigned();
        Ok(device)
    }

    fn ioctl(&self, command: libc::c_ulong, request: Request) -> io::Result<Request> {
        let mut req = IfReq { name: self.name, request };
        // SAFETY: `IfReq` is as long as `struct ifreq`; a `data` member, where the command reads one, points to what
        // `ethtool` put there.
        checked(unsafe { libc::ioctl(self.socket.as_raw_fd(), command as _, &raw mut req) })?;
        Ok(req.request)
    }

    /// An ethtool command on a structure of 32-bit words, of which the first is the command.
    fn ethtool<const N: usize>(&self, words: &mut [u32; N]) -> io::Result<()> {
        self.ioctl(libc::SIOCETHTOOL, Request { data: words.as_mut_ptr().cast() }).map(drop)
    }

    /// Its index in its namespace.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Its MTU in bytes.
    ///
    /// # Errors
    /// ENODEV when it is gone.
    pub fn mtu(&self) -> io::Result<u32> {
        let answer = self.ioctl(libc::SIOCGIFMTU, Request { room: [0; 3] })?;
        // SAFETY: SIOCGIFMTU writes an int at this place; all of the union was initialised.
        Ok(unsafe { answer.index }.cast_unsigned())
    }

    /// Its MAC address.
    ///
    /// # Errors
    /// ENODEV when it is gone.
    pub fn mac(&self) -> io::Result<Mac> {
        let answer = self.ioctl(libc::SIOCGIFHWADDR, Request { room: [0; 3] })?;
        // SAFETY: SIOCGIFHWADDR writes this member; all of the union was initialised.
        let bytes = unsafe { answer.address }.sa_data;
        let mut mac = [0; 6];
        for (to, from) in mac.iter_mut().zip(bytes) {
            *to = from.cast_unsigned();
        }
        Ok(Mac(mac))
    }

    /// Sets it administratively up; true when it was down.
    ///
    /// # Errors
    /// EPERM without the privilege, ENODEV when it is gone.
    pub fn set_up(&self) -> io::Result<bool> {
        const UP: libc::c_short = 1; // IFF_UP
        let answer = self.ioctl(libc::SIOCGIFFLAGS, Request { room: [0; 3] })?;
        // SAFETY: SIOCGIFFLAGS writes this member; all of the union was initialised.
        let flags = unsafe { answer.short };
        if flags & UP != 0 {
            return Ok(false);
        }
        let mut request = Request { room: [0; 3] };
        request.short = flags | UP;
        self.ioctl(libc::SIOCSIFFLAGS, request).map(|_| true)
    }

    /// The name of its driver: `veth`, `tun`, `virtio_net`, `ixgbe`.
    ///
    /// # Errors
    /// EOPNOTSUPP when the driver does not say.
    pub fn driver(&self) -> io::Result<String> {
        let mut info = [0u32; 49]; // struct ethtool_drvinfo: 196 bytes, the driver's name in the 32 behind the command
        info[0] = ETHTOOL_GDRVINFO;
        self.ethtool(&mut info)?;
        let bytes: Vec<u8> =
            info[1..9].iter().flat_map(|word| word.to_ne_bytes()).take_while(|&b| b != 0).collect();
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Its queues; nothing when neither the driver nor sysfs tells.
    pub fn queues(&self) -> Option<Queues> {
        let mut channels = [0u32; 9]; // struct ethtool_channels: command, four maxima, rx, tx, other, combined
        channels[0] = ETHTOOL_GCHANNELS;
        if self.ethtool(&mut channels).is_ok() {
            let [.., rx, tx, _other, combined] = channels;
            return Some(Queues {
                rx: rx.saturating_add(combined).max(1),
                tx: tx.saturating_add(combined).max(1),
            });
        }
        self.queues_in_sysfs()
    }

    /// sysfs shows the namespace that it was mounted in, so the device's index is compared before it is believed.
    fn queues_in_sysfs(&self) -> Option<Queues> {
        let name = std::str::from_utf8(&self.name).ok()?.trim_end_matches('\0');
        let path = std::path::Path::new("/sys/class/net").join(name);
        let index = std::fs::read_to_string(path.join("ifindex")).ok()?;
        if index.trim().parse() != Ok(self.index) {
            return None;
        }
        let mut queues = Queues { rx: 0, tx: 0 };
        for entry in std::fs::read_dir(path.join("queues")).ok()?.flatten() {
            let name = entry.file_name();
            if name.as_encoded_bytes().starts_with(b"rx-") {
                queues.rx += 1;
            } else {
                queues.tx += 1;
            }
        }
        (queues.rx > 0 && queues.tx > 0).then_some(queues)
    }

    /// Whether the device takes VLAN tags out of the frames that it receives.
    ///
    /// # Errors
    /// EOPNOTSUPP when the driver does not say.
    pub fn strips_vlan(&self) -> io::Result<bool> {
        let mut value = [ETHTOOL_GFLAGS, 0];
        self.ethtool(&mut value)?;
        Ok(value[1] & FLAG_RX_VLAN != 0)
    }

    /// Sets whether the device takes VLAN tags out of the frames that it receives.
    ///
    /// # Errors
    /// EINVAL or EOPNOTSUPP where the device has no choice, EPERM without the privilege.
    pub fn set_strips_vlan(&self, strip: bool) -> io::Result<()> {
        let mut value = [ETHTOOL_GFLAGS, 0];
        self.ethtool(&mut value)?;
        value[0] = ETHTOOL_SFLAGS;
        value[1] = if strip { value[1] | FLAG_RX_VLAN } else { value[1] & !FLAG_RX_VLAN };
        self.ethtool(&mut value)
    }

    /// Makes the device take frames for all addresses until the result is dropped (packet(7), `PACKET_MR_PROMISC`).
    ///
    /// # Errors
    /// EPERM without CAP_NET_RAW, ENODEV when it is gone.
    pub fn promiscuous(&self) -> io::Result<Promiscuous> {
        // SAFETY: makes a descriptor, which is then ours. Protocol 0: it receives nothing.
        let socket = unsafe {
            let fd = checked(libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0))?;
            OwnedFd::from_raw_fd(fd)
        };
        let membership = libc::packet_mreq {
            mr_ifindex: self.index.cast_signed(),
            mr_type: PACKET_MR_PROMISC,
            mr_alen: 0,
            mr_address: [0; 8],
        };
        super::socket::set_option(&socket, libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP, &membership)?;
        Ok(Promiscuous(socket))
    }
}

const PACKET_MR_PROMISC: libc::c_ushort = 1; // linux/if_packet.h

/// A device's promiscuity, as long as this lives.
pub struct Promiscuous(#[allow(dead_code, reason = "held for what its closing does")] OwnedFd);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_is_as_long_as_the_kernels() {
        assert_eq!(size_of::<IfReq>(), size_of::<libc::ifreq>());
    }

    #[test]
    fn loopback_tells_of_itself() {
        let device = NetDevice::open("lo").unwrap();
        assert!(device.index() > 0);
        assert!(device.mtu().unwrap() >= 1500);
        assert_eq!(device.mac().unwrap(), Mac([0; 6]));
    }

    #[test]
    fn a_name_without_device_is_an_error() {
        let code = |name| NetDevice::open(name).err().and_then(|e| e.raw_os_error());
        assert_eq!(code("no-such-device"), Some(libc::ENODEV));
        assert_eq!(code("a-name-that-is-too-long"), Some(libc::EINVAL));
        assert_eq!(code(""), Some(libc::EINVAL));
    }
}
