//! What a guest is told when it boots: the words for DHCP, router advertisements and metadata, each value by itself, and what
//! only the whole of them can show.

use std::path::{Path, PathBuf};

use toml::Spanned;

use super::diagnostic::{Report, Reported};
use super::read::{DraftNetwork, given, number, word};
use super::reader::{Field, Reader};
use super::schema::*;
use crate::wire::{dhcp4, dhcp6};

/// Longest and shortest lease in seconds. RFC 2131 leaves it open; less than a minute is more talk than use.
const LEASE_TIME: std::ops::RangeInclusive<u32> = 60..=1_000_000_000;
/// Bytes of a domain name, and of one of its labels (RFC 1035, 2.3.4).
const NAME: usize = 253;
const LABEL: usize = 63;

/// `[dhcp]` and `[metadata]`.
pub(super) struct DraftBoot {
    pub(super) dhcp: Dhcp,
    pub(super) metadata: Metadata,
    /// Whether a Nova is known, or a mistake hides it.
    nova: Result<bool, Reported>,
    /// Where `mode` stands, if it says that there must be one.
    proxy_at: Option<std::ops::Range<usize>>,
}

const MODES: &[(&str, MetadataMode)] =
    &[("builtin", MetadataMode::Builtin), ("proxy", MetadataMode::Proxy), ("off", MetadataMode::Off)];

/// Reads `[dhcp]` and `[metadata]`.
pub(super) fn document(root: &mut Reader<'_, '_>) -> DraftBoot {
    let dhcp = root.table("dhcp", "[dhcp] once, with its keys below").ok().flatten().map(dhcp);
    let metadata = root.table("metadata", "[metadata] once, with its keys below");
    let mut draft = DraftBoot {
        dhcp: dhcp.unwrap_or_default(),
        metadata: Metadata::default(),
        nova: Ok(false),
        proxy_at: None,
    };
    match metadata {
        Ok(Some(table)) => self::metadata(table, &mut draft),
        Ok(None) => {}
        Err(reported) => draft.nova = Err(reported),
    }
    draft
}

fn dhcp(mut table: Reader<'_, '_>) -> Dhcp {
    let default = Dhcp::default();
    let dhcp = Dhcp { lease_time: number(&mut table, "lease_time", LEASE_TIME, " s", default.lease_time) };
    table.finish(&[]);
    dhcp
}

fn metadata(mut table: Reader<'_, '_>, draft: &mut DraftBoot) {
    let mode = table.choice("mode", MODES, &[]);
    if let Ok(Some(mode)) = &mode {
        draft.proxy_at = Some(mode.span()).filter(|_| *mode.get_ref() == MetadataMode::Proxy);
    }
    draft.metadata.mode = given(mode).unwrap_or_default();
    let host = word(&mut table, "nova_metadata_host");
    let port = number(&mut table, "nova_metadata_port", 1..=65535, "", 8775);
    let secret = word(&mut table, "metadata_proxy_shared_secret");
    draft.nova = match (host, secret) {
        (Ok(Some(host)), Ok(Some(secret))) => {
            draft.metadata.nova = Some(Nova {
                host: host.into_inner(),
                port: u16::try_from(port).unwrap_or_default(),
                shared_secret: secret.into_inner(),
            });
            Ok(true)
        }
        (Ok(None), Ok(None)) => Ok(false),
        (Ok(Some(_)), Ok(None)) => {
            let hint = "Nova's own `metadata_proxy_shared_secret`, which it checks the requests by";
            Err(table.missing("metadata_proxy_shared_secret", Some(hint.to_owned())))
        }
        (Ok(None), Ok(Some(_))) => {
            Err(table.missing("nova_metadata_host", Some("where Nova answers metadata requests".to_owned())))
        }
        _ => Err(Reported),
    };
    table.finish(&[]);
}

/// A network's `metadata`; none: as `[metadata]` says.
pub(super) fn metadata_mode(table: &mut Reader<'_, '_>) -> Field<MetadataMode> {
    table.choice("metadata", MODES, &[])
}

/// A network's `dns_domain`, without the dot at its end.
pub(super) fn dns_domain(table: &mut Reader<'_, '_>) -> Option<String> {
    let domain = given_name(table, "dns_domain")?;
    Some(domain.strip_suffix('.').map_or(domain.clone(), str::to_owned))
}

/// A domain or host name (RFC 1123, 2.1).
fn given_name(table: &mut Reader<'_, '_>, key: &'static str) -> Option<String> {
    let name = word(table, key).ok()??;
    let text = name.get_ref();
    let bare = text.strip_suffix('.').unwrap_or(text);
    if bare.len() <= NAME && bare.split('.').all(is_label) {
        return Some(name.into_inner());
    }
    let hint = "labels of letters, digits and inner hyphens, at most 63 bytes each, with dots between them";
    table.wrong(name.span(), key, format!("`{text}` is no domain name"), Some(hint.to_owned()));
    None
}

/// Whether a text is a label of a host's name (RFC 1123, 2.1).
pub fn is_label(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || c == '-';
    (1..=LABEL).contains(&text.len())
        && text.chars().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// A port's `extra_dhcp_opts`.
pub(super) fn extra_dhcp_opts(table: &mut Reader<'_, '_>) -> Vec<ExtraDhcpOpt> {
    let example = "extra_dhcp_opts = [{ opt_name = \"bootfile-name\", opt_value = \"pxelinux.0\" }]";
    let (parts, _) = table.parts("extra_dhcp_opts", example);
    parts.into_iter().filter_map(extra_dhcp_opt).collect()
}

fn extra_dhcp_opt(mut table: Reader<'_, '_>) -> Option<ExtraDhcpOpt> {
    let name = table.required::<String>("opt_name");
    let value = table.required::<String>("opt_value");
    let version = number(&mut table, "ip_version", 4..=6, "", 4);
    if version == 5 {
        let at = table.given("ip_version").unwrap_or(table.span());
        table.wrong(at, "ip_version", "5 is neither 4 nor 6", None);
    }
    let (name, value) = (name.ok()?, value.ok()?);
    let (opt_name, opt_value) = (name.get_ref(), value.get_ref());
    let wrong = match version {
        6 => dhcp6::Opt::parse(opt_name, opt_value).err().map(|error| error.to_string()),
        _ => dhcp4::Opt::parse(opt_name, opt_value).err().map(|error| error.to_string()),
    };
    if let Some(message) = wrong {
        table.wrong(name.span(), "opt_name", message, None);
    }
    table.finish(&[]);
    Some(ExtraDhcpOpt { opt_name: name.into_inner(), opt_value: value.into_inner(), is_v6: version == 6 })
}

/// A port's `metadata`. Files are looked for beside the configuration.
pub(super) fn guest_metadata(table: &mut Reader<'_, '_>, report: &Report<'_>) -> GuestMetadata {
    let example = "metadata = { hostname = \"…\", public_keys = [\"ssh-ed25519 …\"] }";
    let Ok(Some(mut table)) = table.table("metadata", example) else { return GuestMetadata::default() };
    let directory = Path::new(report.file()).parent().unwrap_or(Path::new(""));
    let mut file = |key| word(&mut table, key).ok()?.map(|path| directory.join(path.into_inner()));
    let (user_data, vendor_data): (Option<PathBuf>, Option<PathBuf>) =
        (file("user_data"), file("vendor_data"));
    let metadata = GuestMetadata {
        instance_id: given(word(&mut table, "instance_id")),
        hostname: given_name(&mut table, "hostname"),
        public_keys: public_keys(&mut table),
        user_data,
        vendor_data,
        project_id: given(word(&mut table, "project_id")),
        availability_zone: given(word(&mut table, "availability_zone")),
    };
    table.finish(&[]);
    metadata
}

/// Each a line of `authorized_keys`, as far as a line can be told from something else (sshd(8)).
fn public_keys(table: &mut Reader<'_, '_>) -> Vec<String> {
    let mut keys = Vec::new();
    for key in table.list::<String>("public_keys").items {
        let text = key.get_ref().trim();
        let is_key = !text.contains(char::is_control)
            && text.split(' ').any(|word| word.starts_with("AAAA"))
            && text.split(' ').count() > 1;
        if is_key {
            keys.push(text.to_owned());
        } else {
            let hint = Some("a line like \"ssh-ed25519 AAAA… name\", as in ~/.ssh/id_ed25519.pub".to_owned());
            table.wrong(key.span(), "public_keys", "is no SSH public key", hint);
        }
    }
    keys
}

/// Fills in who answers metadata requests on each network, and whether that can be.
pub(super) fn modes(report: &Report<'_>, networks: &mut [DraftNetwork], boot: &DraftBoot) {
    let mut asked: Vec<(std::ops::Range<usize>, String)> =
        boot.proxy_at.iter().map(|at| (at.clone(), "metadata.mode".to_owned())).collect();
    for network in networks {
        let mode = network.metadata.as_ref().ok().and_then(|mode| mode.as_ref());
        if let Some(mode) = mode.filter(|mode| *mode.get_ref() == MetadataMode::Proxy) {
            asked.push((mode.span(), format!("{}.metadata", network.at.path)));
        }
        network.object.metadata = mode.map_or(boot.metadata.mode, |mode| *mode.get_ref());
    }
    if boot.nova == Ok(false)
        && let Some((at, path)) = asked.into_iter().next()
    {
        let hint = "write [metadata] with nova_metadata_host and metadata_proxy_shared_secret";
        report.add(at, &path, "no Nova is known to pass requests on to", Some(hint.to_owned()));
    }
}

/// A network that gives leases to whoever asks must have addresses for them, and the switch a place to remember them.
pub(super) fn dynamic_leases(
    report: &Report<'_>,
    networks: &[DraftNetwork],
    switch: &Switch,
    subnets: &[Subnet],
    are_all: Result<(), Reported>,
) {
    for network in networks.iter().filter(|network| network.object.dynamic_leases) {
        let Ok(Some(at)) = &network.dynamic_at else { continue };
        let path = format!("{}.dynamic_leases", network.at.path);
        if switch.state.is_none() {
            let hint = "write `state = \"/var/lib/nuswitch/state.db\"` under [switch]";
            let message = "leases must outlive the process, and nothing says where they are kept";
            report.add(at.clone(), &path, message, Some(hint.to_owned()));
        }
        let serves = |subnet: &Subnet| {
            subnet.network == network.object.name && subnet.enable_dhcp && subnet.cidr.addr().is_ipv4()
        };
        if are_all.is_ok() && !subnets.iter().any(serves) {
            let hint = "write [[subnet]] with its `network` and `cidr`";
            let message = "the network has no IPv4 subnet with DHCP to take addresses from";
            report.add(at.clone(), &path, message, Some(hint.to_owned()));
        }
    }
}

/// Where a boolean stands that says `true`.
pub(super) fn truth_at(field: &Field<bool>) -> Result<Option<std::ops::Range<usize>>, Reported> {
    let field = field.as_ref().map_err(|reported| *reported)?;
    Ok(field.as_ref().filter(|on| *on.get_ref()).map(Spanned::span))
}
