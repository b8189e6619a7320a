//! The small words of the switch: addresses, indices and time, as newtypes without logic.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A text that is not what its type demands. The message names the text and what is expected.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct ParseError(pub String);

/// An IEEE 802 MAC address (EUI-48), in transmission order.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// The bits of an address in what a little-endian load of eight bytes gives.
    pub const MASK: u64 = (1 << 48) - 1;

    /// ff:ff:ff:ff:ff:ff.
    pub const BROADCAST: Mac = Mac([0xff; 6]);

    /// True for multicast and broadcast addresses: the I/G bit (IEEE 802-2014, 8.2.2).
    pub const fn is_group(self) -> bool {
        self.0[0] & 1 == 1
    }

    /// 01-80-C2-00-00-00 to -0F, which no bridge forwards (IEEE 802.1Q-2018, table 8-1).
    pub const fn is_reserved(self) -> bool {
        let [a, b, c, d, e, f] = self.0;
        a == 0x01 && b == 0x80 && c == 0xc2 && d == 0 && e == 0 && f & 0xf0 == 0
    }

    /// The MAC of the service that the switch itself is on every network: locally administered, and the same everywhere, so that
    /// a guest which moves finds it again. It never leaves this host.
    pub const SERVICE: Mac = Mac([0x02, 0x00, 0xa9, 0xfe, 0xa9, 0xfe]);

    /// The IPv6 address that a station makes out of its MAC on a prefix of 64 bits (RFC 4291, appendix A).
    pub fn address_on(self, prefix: Ipv6Addr) -> Ipv6Addr {
        let [a, b, c, d, e, f] = self.0;
        let host = u64::from_be_bytes([a ^ 2, b, c, 0xff, 0xfe, d, e, f]);
        Ipv6Addr::from_bits(prefix.to_bits() >> 64 << 64 | u128::from(host))
    }

    /// The address as the low 48 bits of an integer, first octet lowest, as a little-endian load of it gives.
    pub const fn to_bits(self) -> u64 {
        let [a, b, c, d, e, f] = self.0;
        u64::from_le_bytes([a, b, c, d, e, f, 0, 0])
    }

    /// The inverse of [`Mac::to_bits`]; bits above the 48th are ignored.
    pub const fn from_bits(bits: u64) -> Mac {
        let [a, b, c, d, e, f, _, _] = bits.to_le_bytes();
        Mac([a, b, c, d, e, f])
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Mac {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Mac, ParseError> {
        let bad = || ParseError(format!("`{text}` is not a MAC address like 52:54:00:12:34:56"));
        let mut mac = [0; 6];
        let mut parts = text.split([':', '-']);
        for octet in &mut mac {
            let part = parts.next().filter(|p| p.len() == 2 && !p.starts_with('+')).ok_or_else(bad)?;
            *octet = u8::from_str_radix(part, 16).map_err(|_| bad())?;
        }
        if parts.next().is_some() {
            return Err(bad());
        }
        Ok(Mac(mac))
    }
}

impl Serialize for Mac {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Mac {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Mac, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A VLAN identifier that names a VLAN: 1 to 4094 (IEEE 802.1Q-2018, table 9-2: 0 is only a priority tag, 4095 is reserved).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize)]
pub struct VlanId(u16);

impl VlanId {
    /// The identifier, or nothing outside of 1 to 4094.
    pub const fn new(id: u16) -> Option<VlanId> {
        if id >= 1 && id <= 4094 { Some(VlanId(id)) } else { None }
    }

    /// The identifier as it stands in the low 12 bits of a tag.
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl fmt::Display for VlanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<'de> Deserialize<'de> for VlanId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<VlanId, D::Error> {
        let id = u16::deserialize(deserializer)?;
        VlanId::new(id)
            .ok_or_else(|| serde::de::Error::custom(format!("VLAN ID {id} is outside of 1 to 4094")))
    }
}

/// A VXLAN network identifier: 24 bits (RFC 7348, section 5), all of which name a network.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize)]
pub struct Vni(u32);

impl Vni {
    /// The largest: 2^24 - 1.
    pub const MAX: Vni = Vni((1 << 24) - 1);

    /// The identifier, or nothing from 2^24 on.
    pub const fn new(vni: u32) -> Option<Vni> {
        if vni <= Vni::MAX.0 { Some(Vni(vni)) } else { None }
    }

    /// The identifier, in the low 24 bits.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Vni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

macro_rules! index {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
        pub struct $name(pub u16);

        impl $name {
            /// The place in the table.
            pub const fn index(self) -> usize {
                self.0 as usize
            }
        }
    };
}

index! {
    /// A port's place in [`crate::tables::Tables`]: stable over reloads for as long as the port lives.
    PortIdx
}
index! {
    /// A network's place in [`crate::tables::Tables`]: stable over reloads for as long as the network lives.
    NetIdx
}
index! {
    /// A router's place in [`crate::tables::Tables`]: stable over reloads for as long as the router lives.
    RouterIdx
}
index! {
    /// A worker, counted from 0 in the order of `switch.workers`.
    WorkerIdx
}

/// A point in time: nanoseconds since an origin that only its giver knows (the monotonic clock's, or a test's).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Instant(pub u64);

impl Instant {
    /// Whole seconds since the origin.
    pub const fn secs(self) -> u64 {
        self.0 / 1_000_000_000
    }

    /// The time that has passed since `origin`.
    pub fn since(origin: std::time::Instant) -> Instant {
        Instant(u64::try_from(origin.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    /// This point, later by `duration`.
    pub fn after(self, duration: std::time::Duration) -> Instant {
        Instant(self.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mac_reads_back_what_it_prints() {
        let mac: Mac = "52:54:00:ab:CD:01".parse().unwrap();
        assert_eq!(mac.to_string(), "52:54:00:ab:cd:01");
        assert_eq!(Mac::from_bits(mac.to_bits()), mac);
        for bad in [
            "",
            "52:54:00:ab:cd",
            "52:54:00:ab:cd:01:02",
            "52:54:00:ab:cd:0g",
            "5:54:00:ab:cd:01",
            "+2:54:00:ab:cd:01",
        ] {
            assert!(bad.parse::<Mac>().is_err(), "{bad}");
        }
    }

    #[test]
    fn reserved_macs_are_the_sixteen_of_802_1q() {
        assert!("01:80:c2:00:00:00".parse::<Mac>().unwrap().is_reserved());
        assert!("01:80:c2:00:00:0f".parse::<Mac>().unwrap().is_reserved());
        assert!(!"01:80:c2:00:00:10".parse::<Mac>().unwrap().is_reserved());
    }
}
