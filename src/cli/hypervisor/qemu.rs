//! `nuswitch qemu`.

use std::process::ExitCode;

use clap::Args;

use super::super::{Control, print};
use super::{Caller, Of, SEED, access, note};
use crate::control::view::GuestPort;

const EXAMPLES: &str = "\
Examples:
  qemu-system-x86_64 … $(nuswitch qemu web1)
  nuswitch qemu web1 --config lab.toml    before the switch runs

The guest's TAP is there while the switch runs. Checksum and segmentation offloads are on if nothing is said, and the
switch keeps them. What standard error says is not to be pasted: who may open the TAP, and how a cloud image finds its
metadata.";

/// Print the options of QEMU for the guest of a port.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(in super::super) struct Qemu {
    #[command(flatten)]
    of: Of,
}

impl Qemu {
    pub(in super::super) fn execute(self, control: &Control) -> anyhow::Result<ExitCode> {
        let guest = self.of.guest(control)?;
        note(&access(&guest, &Caller::get()));
        if guest.metadata == "builtin" {
            note("so that cloud-init finds its metadata in any image, add");
            note(&smbios());
        }
        let options = options(&guest);
        let line = options.iter().map(|option| quote(option)).collect::<Vec<_>>().join(" ");
        if line != options.join(" ") {
            note("it is quoted for pasting; in a script: eval \"qemu-system-x86_64 … $(nuswitch qemu …)\"");
        }
        print(format_args!("{line}\n"))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// The options as QEMU takes them.
fn options(guest: &GuestPort) -> [String; 4] {
    let (id, device) = (id(guest), escape(&guest.device));
    let mut nic = format!("virtio-net-pci,netdev={id}");
    if let Some(mac) = guest.mac_address {
        nic.push_str(&format!(",mac={mac}"));
    }
    if guest.mtu != 1500 {
        nic.push_str(&format!(",host_mtu={}", guest.mtu));
    }
    let netdev = format!("tap,id={id},ifname={device},script=no,downscript=no");
    ["-netdev".to_owned(), netdev, "-device".to_owned(), nic]
}

/// The port's name where QEMU takes it for an ID (`id_wellformed` in `util/id.c`), else one of the port's ID.
fn id(guest: &GuestPort) -> String {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    if guest.name.starts_with(|c: char| c.is_ascii_alphabetic()) && guest.name.chars().all(fits) {
        return guest.name.clone();
    }
    format!("port-{}", guest.id)
}

/// A value of an option: a comma in it is written twice.
fn escape(value: &str) -> String {
    value.replace(',', ",,")
}

/// The option that tells a NoCloud seed.
fn smbios() -> String {
    format!("-smbios {}", quote(&format!("type=1,serial={}", escape(SEED))))
}

/// A word for a POSIX shell.
fn quote(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-.,=:/@+%".contains(c);
    if word.chars().all(is_plain) { word.to_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::super::tests::guest;
    use super::*;

    #[test]
    fn the_options_of_qemu() {
        let mac = "mac=52:54:00:00:00:01";
        assert_eq!(
            options(&guest()).join(" "),
            format!(
                "-netdev tap,id=web1,ifname=nu-web1,script=no,downscript=no -device virtio-net-pci,netdev=web1,{mac}"
            )
        );
        let jumbo = GuestPort { mtu: 9000, ..guest() };
        assert_eq!(options(&jumbo)[3], format!("virtio-net-pci,netdev=web1,{mac},host_mtu=9000"));
        let small = GuestPort { mtu: 1450, mac_address: None, ..guest() };
        assert_eq!(options(&small)[3], "virtio-net-pci,netdev=web1,host_mtu=1450");
        let odd = GuestPort { name: "1 wéb".into(), device: "a,b".into(), ..guest() };
        assert_eq!(
            options(&odd)[1],
            "tap,id=port-00000000-0000-0000-0000-000000000001,ifname=a,,b,script=no,downscript=no"
        );
    }

    /// A shell takes each word for what it is.
    #[test]
    fn words_are_quoted_for_a_shell() {
        for word in ["-netdev", "tap,id=a", "a'b", "$(id) `x`", "*", "a;b\"c\\", "é ü"] {
            let script = format!("printf %s {}", quote(word));
            let output = Command::new("sh").args(["-c", &script]).output().unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), word);
        }
        assert_eq!(smbios(), "-smbios 'type=1,serial=ds=nocloud;s=http://169.254.169.254/nocloud/'");
    }

    /// `$(nuswitch qemu web1)` is split into words and nothing more.
    #[test]
    fn usual_options_need_no_quotes() {
        assert!(options(&GuestPort { mtu: 9000, ..guest() }).iter().all(|option| quote(option) == *option));
    }
}
