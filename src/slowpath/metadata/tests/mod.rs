//! The service as its guests see it: TCP clients of smoltcp at the other end of `receive` and `send`, in memory.
#![allow(clippy::cast_possible_truncation)]

use std::sync::Arc;

use uuid::Uuid;

use super::*;

mod built_in;
mod client;
mod hostile;
mod load;
mod proxied;

/// The guest of port `n`. All guests have the same address.
pub(super) fn guest(n: u16) -> Guest {
    let subnet = |address: &str, prefix_len, gateway: &str, by| NicAddress {
        address: address.parse().unwrap(),
        prefix_len,
        gateway: Some(gateway.parse().unwrap()),
        routes: Vec::new(),
        dns: vec!["192.0.2.53".parse().unwrap()],
        by,
    };
    Guest {
        instance_id: format!("9e3f1c1e-0000-4000-8000-00000000{n:04x}"),
        name: format!("guest {n}"),
        hostname: format!("guest-{n}"),
        project_id: Some("3c5d".into()),
        availability_zone: Some("az1".into()),
        public_keys: vec!["ssh-ed25519 AAAA one".into(), "ssh-rsa BBBB two".into()],
        user_data: Some(Arc::from(&b"#cloud-config\n{}\n"[..])),
        vendor_data: None,
        vendor_data2: None,
        instance_type: None,
        image_id: None,
        reservation_id: None,
        security_groups: vec!["default".into(), "web".into()],
        public_ipv4: None,
        nics: vec![Nic {
            port_id: Uuid::from_u128(0xaaaa_bbbb_cccc_0000_0000_0000_0000_0000 + u128::from(n)),
            network_id: Uuid::from_u128(0x1111),
            mac: client::mac(n),
            mtu: 1450,
            addresses: vec![
                subnet("10.0.0.5", 24, "10.0.0.1", By::Dhcp4),
                subnet("2001:db8::5", 64, "2001:db8::1", By::Slaac),
            ],
        }],
        mode: Mode::BuiltIn,
    }
}
