//! The `guest` port: a persistent TAP that a hypervisor opens by name, with the switch on its netdev side
//! ([`PacketPort`]).
//!
//! The TAP has a single queue, because the kernel lets a hypervisor attach only with the same choice, and one queue is
//! the default of QEMU and libvirt. Everything else, the virtio-net header included, is set by whoever attaches. While
//! nobody is, the device has no carrier and the kernel drops what we send.
//!
//! The host keeps out of the guest's traffic: no ARP and no IPv6 link-local address on the device. It stays until
//! [`remove`], so a guest that starts anew, and a switch that does, find it again.

use std::sync::Arc;

use nix::unistd::{Uid, User};
use thiserror::Error;

use super::link::{Link, LinkError, Links};
use super::packet::{PacketError, PacketPort};
use super::tap::TapError;
use crate::stats::PortCounters;
use crate::sys::tap::{Owner, Tap};

/// What a `guest` port's device should be.
#[derive(Clone, Debug)]
pub struct GuestConfig {
    /// Device name, at most 15 bytes.
    pub name: String,
    /// User that may open it, by name or number; none: root alone.
    pub owner: Option<String>,
    /// Longest packet without Ethernet header, in bytes.
    pub mtu: u16,
}

/// Why a guest's device could not be opened.
#[derive(Debug, Error)]
pub enum GuestError {
    /// The TAP.
    #[error(transparent)]
    Tap(#[from] TapError),
    /// The packet socket on it.
    #[error(transparent)]
    Packet(#[from] PacketError),
    /// Setting it up.
    #[error(transparent)]
    Link(#[from] LinkError),
}

/// Makes the TAP, or takes one that is there, sets it up and stands on it.
///
/// # Errors
/// [`GuestError`]; a TAP that was made for this stays only when all succeeded.
pub fn open(config: &GuestConfig, counters: Arc<PortCounters>) -> Result<PacketPort, GuestError> {
    let mut links = Links::open()?;
    let existing = match links.get(&config.name) {
        Ok(link) => Some(link),
        Err(LinkError::Missing(_)) => None,
        Err(error) => return Err(error.into()),
    };
    let is_new = existing.is_none();
    let notes = prepare(config, existing.as_ref())?;
    match stand(config, &mut links, counters) {
        Ok(mut port) => {
            port.describe("guest", notes);
            Ok(port)
        }
        Err(error) => {
            if is_new {
                let _ = remove(&config.name);
            }
            Err(error)
        }
    }
}

/// Removes a guest's TAP, also from under a guest that runs. One that is gone already is no error.
///
/// # Errors
/// [`GuestError`] when it is no TAP, or the kernel refuses.
pub fn remove(name: &str) -> Result<(), GuestError> {
    let mut links = Links::open()?;
    match links.get(name) {
        Ok(link) => {
            check(&link)?;
            match links.delete(link.index) {
                Err(error) if error.errno() != Some(libc::ENODEV) => Err(error.into()),
                _ => Ok(()),
            }
        }
        Err(LinkError::Missing(_)) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Brings the TAP into being and under its owner; gives notes for people.
fn prepare(config: &GuestConfig, existing: Option<&Link>) -> Result<Vec<String>, TapError> {
    let name = &config.name;
    let refused = |what| move |source| TapError::Refused { name: name.clone(), what, source };
    let user = owner(config)?;
    if let Some(link) = existing {
        check(link)?;
    }
    let tap = match (Tap::attach(name), existing) {
        (Ok(tap), _) => tap,
        // A guest runs on it: its owner was set when it was made.
        (Err(error), Some(_)) if error.raw_os_error() == Some(libc::EBUSY) => {
            return Ok(vec!["in use by a guest already: its owner was not changed".to_owned()]);
        }
        (Err(error), _) => return Err(refused("make it")(error)),
    };
    tap.set_owner(Owner { user, group: None }).map_err(refused("set its owner"))?;
    tap.set_persistent(true).map_err(refused("make it persistent"))?;
    Ok(existing.map(|_| "existed already".to_owned()).into_iter().collect())
}

fn stand(
    config: &GuestConfig,
    links: &mut Links,
    counters: Arc<PortCounters>,
) -> Result<PacketPort, GuestError> {
    let link = links.get(&config.name)?;
    if link.mtu != u32::from(config.mtu) {
        links.set_mtu(link.index, u32::from(config.mtu))?;
    }
    links.set_arp(link.index, false)?;
    // Refused by a kernel without IPv6, which gives no such address either.
    let _ = links.set_no_link_local(link.index);
    links.set_up(link.index, true)?;
    Ok(PacketPort::open(&config.name, counters)?)
}

fn check(link: &Link) -> Result<(), TapError> {
    let why = match (link.is_tap(), link.multi_queue) {
        (false, _) => "not a TAP",
        (true, true) => "a TAP for several queues, which a hypervisor's defaults cannot open",
        (true, false) => return Ok(()),
    };
    Err(TapError::NotATap(link.name.clone(), why))
}

/// The number of the user that the configuration names.
fn owner(config: &GuestConfig) -> Result<u32, TapError> {
    let Some(owner) = &config.owner else { return Ok(0) };
    let unknown = || TapError::Owner { name: config.name.clone(), owner: owner.clone() };
    if let Ok(number) = owner.parse::<u32>() {
        return Ok(Uid::from_raw(number).as_raw());
    }
    let user = User::from_name(owner).ok().flatten().ok_or_else(unknown)?;
    Ok(user.uid.as_raw())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_are_found_by_name_and_by_number() {
        let config = |owner: &str| GuestConfig { name: "t".into(), owner: Some(owner.into()), mtu: 1500 };
        assert_eq!(owner(&config("root")).unwrap(), 0);
        assert_eq!(owner(&config("4711")).unwrap(), 4711);
        assert!(matches!(owner(&config("no such user")), Err(TapError::Owner { .. })));
    }
}
