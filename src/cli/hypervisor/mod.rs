//! `nuswitch qemu` and `nuswitch libvirt`: what a hypervisor is given to open a guest's port.
//!
//! Standard output has what is to be pasted, alone, so that `$(nuswitch qemu web1)` works; what a person should know besides
//! goes to standard error, each line behind a `#`.

mod libvirt;
mod qemu;

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use nix::unistd::{Uid, User};

use super::Control;
use crate::control::client::encode;
use crate::control::select::find;
use crate::control::view::GuestPort;
use crate::daemon;

pub(super) use libvirt::Libvirt;
pub(super) use qemu::Qemu;

/// Where a NoCloud seed is (cloud-init, "NoCloud"): the metadata service's.
const SEED: &str = "ds=nocloud;s=http://169.254.169.254/nocloud/";
/// What is opened to have a TAP.
const TUN: &str = "/dev/net/tun";
/// Number of CAP_NET_ADMIN (`include/uapi/linux/capability.h`).
const CAP_NET_ADMIN: u32 = 12;

/// Whose port, and where that is known.
#[derive(Debug, Args)]
struct Of {
    /// Name or ID of a port of kind "guest", or the begin of its ID
    #[arg(value_name = "PORT")]
    port: String,
    /// Configuration file to ask instead of the running switch
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Of {
    fn guest(&self, control: &Control) -> anyhow::Result<GuestPort> {
        let Some(path) = &self.config else {
            return Ok(control.client()?.get(&format!("/v1/guests/{}", encode(&self.port)))?);
        };
        let model = daemon::load(path)?;
        let port =
            find(model.ports.iter().collect(), "Port", &self.port, |port| (port.name.as_str(), port.id))?;
        Ok(GuestPort::of(&model, port)?)
    }
}

/// Says something that is not to be pasted.
fn note(text: &str) {
    for line in text.lines() {
        // Nobody to tell it to: what is asked for comes all the same.
        let _ = writeln!(std::io::stderr(), "# {line}");
    }
}

/// Who runs this.
#[derive(Debug)]
struct Caller {
    /// Its name, or its number.
    name: String,
    uid: u32,
    /// Whether it may open any TAP (CAP_NET_ADMIN).
    is_admin: bool,
    /// Why it cannot open any.
    no_tun: Option<String>,
}

impl Caller {
    fn get() -> Caller {
        let uid = Uid::effective();
        let name = User::from_uid(uid).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name);
        let opened = OpenOptions::new().read(true).write(true).open(TUN);
        Caller { name, uid: uid.as_raw(), is_admin: is_admin(), no_tun: opened.err().map(|e| e.to_string()) }
    }
}

/// Whether this process has CAP_NET_ADMIN.
fn is_admin() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok());
    effective.is_some_and(|bits| bits >> CAP_NET_ADMIN & 1 == 1)
}

/// Whether the caller may open the TAP, as the kernel decides it (`tun_not_capable` in `drivers/net/tun.c`).
fn access(guest: &GuestPort, caller: &Caller) -> String {
    let (device, name) = (&guest.device, &caller.name);
    let owner = guest.owner.as_deref().unwrap_or("root");
    let number = owner.parse().ok().or_else(|| User::from_name(owner).ok()?.map(|user| user.uid.as_raw()));
    let Some(number) = number else {
        return format!("{device} would be {owner}'s, and there is no such user on this host");
    };
    if number != caller.uid && !caller.is_admin {
        return format!(
            "{device} is {owner}'s: you ({name}) may not open it; run the hypervisor as {owner}, or write\n\
             interface = {{ kind = \"guest\", name = \"{device}\", owner = \"{name}\" }}"
        );
    }
    match &caller.no_tun {
        Some(why) => format!("{device} is {owner}'s, but you ({name}) cannot open {TUN}: {why}"),
        None => format!("{device} is {owner}'s: you ({name}) may open it"),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::control::tests::fake_guest_port;

    /// The guest port that the tests of the outputs are about.
    pub(super) fn guest() -> GuestPort {
        fake_guest_port("web1").unwrap()
    }

    #[test]
    fn who_may_open_a_tap_is_said() {
        let of = |owner: Option<&str>| GuestPort { owner: owner.map(str::to_owned), ..guest() };
        let caller = |uid, is_admin| Caller { name: "me".into(), uid, is_admin, no_tun: None };
        let may = "nu-web1 is root's: you (me) may open it";
        assert_eq!(access(&of(None), &caller(0, true)), may);
        assert_eq!(access(&of(None), &caller(7, true)), may, "CAP_NET_ADMIN is enough");
        assert_eq!(access(&of(Some("7")), &caller(7, false)), "nu-web1 is 7's: you (me) may open it");
        let refused = access(&of(None), &caller(7, false));
        assert!(refused.starts_with("nu-web1 is root's: you (me) may not open it"), "{refused}");
        assert!(refused.ends_with("{ kind = \"guest\", name = \"nu-web1\", owner = \"me\" }"), "{refused}");
        let unknown = access(&of(Some("no such user")), &caller(0, true));
        assert!(unknown.contains("there is no such user"), "{unknown}");
        let no_tun = Caller { no_tun: Some("Permission denied".into()), ..caller(7, false) };
        let said = access(&of(Some("7")), &no_tun);
        assert_eq!(said, "nu-web1 is 7's, but you (me) cannot open /dev/net/tun: Permission denied");
    }

    #[test]
    fn a_port_is_found_in_a_file_without_a_switch() {
        use clap::Parser;

        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            control: Control,
            #[command(flatten)]
            of: Of,
        }
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("lab.toml");
        let text = "network = [{ name = 'n' }]\n[[port]]\nname = 'web1'\nnetwork = 'n'\n\
                    interface = { kind = 'guest', name = 'g' }\n";
        std::fs::write(&file, text).unwrap();
        let ask = |port: &str| {
            let line = Line::parse_from(["qemu", "--config", file.to_str().unwrap(), port]);
            line.of.guest(&line.control)
        };
        assert_eq!(ask("web1").unwrap().device, "g");
        // An ID never changes, see the tests of the model.
        assert_eq!(ask("855d1dc2").unwrap().name, "web1");
        assert_eq!(ask("nope").unwrap_err().to_string(), "Port nope could not be found.");
        std::fs::write(&file, "network = 7").unwrap();
        let problem = ask("web1").unwrap_err();
        assert!(problem.downcast_ref::<crate::control::view::Problem>().unwrap().is_configuration());
    }
}
