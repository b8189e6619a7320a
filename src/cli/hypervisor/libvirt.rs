//! `nuswitch libvirt`.

use std::process::ExitCode;

use clap::Args;

use super::super::{Control, print};
use super::{Caller, Of, SEED, access, note};
use crate::control::view::GuestPort;

const EXAMPLES: &str = "\
Examples:
  nuswitch libvirt web1 > web1.xml && virsh attach-device web1 web1.xml --config
  nuswitch libvirt web1 --config lab.toml    before the switch runs

The guest's TAP is there while the switch runs; `managed='no'` lets libvirt (5.7 or later) take it as it is.";

/// Print the XML of libvirt for the guest of a port.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(in super::super) struct Libvirt {
    #[command(flatten)]
    of: Of,
}

impl Libvirt {
    pub(in super::super) fn execute(self, control: &Control) -> anyhow::Result<ExitCode> {
        let guest = self.of.guest(control)?;
        note("qemu:///system opens the TAP as root, qemu:///session as you:");
        note(&access(&guest, &Caller::get()));
        print(xml(&guest))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// The interface, and behind it as a comment what the domain's XML may have besides.
fn xml(guest: &GuestPort) -> String {
    let mut text = String::from("<interface type='ethernet'>\n");
    if let Some(mac) = guest.mac_address {
        text.push_str(&format!("  <mac address='{mac}'/>\n"));
    }
    text.push_str(&format!("  <target dev='{}' managed='no'/>\n", escape(&guest.device)));
    text.push_str(&format!("  <model type='virtio'/>\n  <mtu size='{}'/>\n</interface>\n", guest.mtu));
    if guest.metadata == "builtin" {
        text.push_str(&format!(
            "<!-- so that cloud-init finds its metadata in any image, in <domain>:\n\
             <sysinfo type='smbios'><system><entry name='serial'>{}</entry></system></sysinfo>\n\
             and in its <os>:\n\
             <smbios mode='sysinfo'/>\n-->\n",
            escape(SEED)
        ));
    }
    text
}

/// An attribute's value or an element's text (XML 1.0, 2.4).
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '\'' => escaped.push_str("&apos;"),
            '"' => escaped.push_str("&quot;"),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::super::tests::guest;
    use super::*;

    #[test]
    fn the_xml_of_libvirt() {
        let expected = "\
<interface type='ethernet'>
  <mac address='52:54:00:00:00:01'/>
  <target dev='nu-web1' managed='no'/>
  <model type='virtio'/>
  <mtu size='1500'/>
</interface>
";
        assert_eq!(xml(&GuestPort { metadata: "off".into(), ..guest() }), expected);
        let told = xml(&GuestPort { device: "a&<'\"b".into(), mtu: 9000, ..guest() });
        assert!(told.contains("<target dev='a&amp;&lt;&apos;&quot;b' managed='no'/>"), "{told}");
        assert!(told.contains("<mtu size='9000'/>"), "{told}");
        let comment = told.split_once("<!--").unwrap().1;
        assert!(
            comment.contains("<entry name='serial'>ds=nocloud;s=http://169.254.169.254/nocloud/</entry>")
        );
        assert_eq!(comment.matches("--").count(), 1, "none but the end (XML 1.0, 2.5)");
    }
}
