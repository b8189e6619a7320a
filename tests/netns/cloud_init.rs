//! cloud-init as Debian has it, on a root of its own: an overlay over this machine's, in namespaces for mounts, processes and the
//! host name. Its sources Ec2, OpenStack and NoCloud read everything that a port says, without a warning.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::dhcp_client::Client;
use crate::lab::{Lab, Namespace, cache, text};

/// `$1` has cloud-init's package and becomes the guest's place, `$2` is the source, `$3` and `$4` what the firmware says, `$5`
/// where the results go.
const BOOT: &str = r#"
set -e
W=$1 R=$1/root
mount -t tmpfs guest "$W"
mkdir "$W/upper" "$W/work" "$R"
cp -a "$6" "$W/package"
mount -t overlay guest -o "lowerdir=$W/package:/,upperdir=$W/upper,workdir=$W/work" "$R"
mount -t proc proc "$R/proc"
mount --bind /dev "$R/dev"
for d in run tmp var/lib/cloud var/log; do mkdir -p "$R/$d"; mount -t tmpfs guest "$R/$d"; done
mount -t tmpfs guest "$R/sys"
mkdir -p "$R/sys/class/dmi/id" "$R/sys/real"
mount -t sysfs sysfs "$R/sys/real"
ln -s /sys/real/class/net "$R/sys/class/net"
echo "$3" > "$R/sys/class/dmi/id/product_name"
echo "$4" > "$R/sys/class/dmi/id/product_serial"
echo 00000000-0000-0000-0000-000000000000 > "$R/sys/class/dmi/id/product_uuid"
echo > "$W/cmdline"
mount --bind "$W/cmdline" "$R/proc/cmdline"
# A machine, whatever this one is.
cp /bin/false "$R/usr/bin/systemd-detect-virt"
cat > "$R/etc/cloud/cloud.cfg" <<END
datasource_list: [ $2 ]
datasource: { Ec2: { strict_id: false } }
disable_network_activation: true
users: [ default ]
ssh_genkeytypes: [ ed25519 ]
cloud_init_modules: [ set_hostname, users-groups, ssh ]
system_info: { distro: debian, default_user: { name: debian, lock_passwd: True, shell: /bin/bash } }
END
chroot "$R" /usr/bin/python3 /usr/bin/cloud-init init --local
chroot "$R" /usr/bin/python3 /usr/bin/cloud-init init
cp "$R/var/log/cloud-init.log" "$5/log"
cp "$R/run/cloud-init/instance-data.json" "$R/home/debian/.ssh/authorized_keys" "$5"
for file in user-data.txt vendor-data.txt; do chroot "$R" cat "/var/lib/cloud/instance/$file" > "$5/$file"; done
hostname > "$5/hostname"
"#;

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGJsdWUtYmx1ZS1ibHVlLWJsdWUtYmx1ZS1ibHVlLWI= one";
const USER_DATA: &str = "#!/bin/sh\necho this is mine\n";

fn boot(guest: &Namespace, source: &str, product: &str, serial: &str) -> tempfile::TempDir {
    let (place, results) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut command = guest.command("timeout");
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command.args(["120", "unshare", "-m", "-u", "-p", "--fork", "--kill-child", "sh", "-c", BOOT, "sh"]);
    command.arg(place.path()).args([source, product, serial]).arg(results.path());
    let output = command.arg(cache().join("cloud-init")).output().unwrap();
    let log = fs::read_to_string(results.path().join("log")).unwrap_or_default();
    assert!(output.status.success(), "{source}: {}\n{log}", text(&output));
    results
}

fn lab() -> (Lab, Namespace, tempfile::TempDir) {
    assert!(Path::new(&cache().join("cloud-init")).exists(), "cloud-init is missing: run tests/run");
    let files = tempfile::tempdir().unwrap();
    fs::write(files.path().join("user"), USER_DATA).unwrap();
    fs::write(files.path().join("vendor"), "#cloud-config\n{}\n").unwrap();
    let (mut lab, guest) = (Lab::new(), Namespace::new("web"));
    lab.add(
        r#"
[[network]]
name = "blue"
mtu = 1450
[[subnet]]
name = "blue-v4"
network = "blue"
cidr = "10.0.0.0/24"
dns_nameservers = ["192.0.2.53"]
[[subnet]]
name = "blue-v6"
network = "blue"
cidr = "2001:db8:b::/64"
ipv6_ra_mode = "slaac"
ipv6_address_mode = "slaac"
[[router]]
name = "edge"
interfaces = ["blue-v4", "blue-v6"]"#,
    );
    let at = files.path().display();
    let keys = format!(
        "network = \"blue\"\nmetadata = {{ instance_id = \"9c9c7b1e-4a8b-4f8e-9d0c-2f5f2f8d1a11\", hostname = \"mine\", \
         public_keys = [\"{KEY}\"], availability_zone = \"here\", user_data = \"{at}/user\", vendor_data = \"{at}/vendor\" }}"
    );
    lab.port("web", &keys, &format!("kind = \"tap\", name = \"eth0\", netns = \"{}\"", guest.name));
    lab.start();
    (lab, guest, files)
}

/// What any source has to have read.
fn check(source: &str, results: &Path) -> Value {
    let read = |name: &str| fs::read_to_string(results.join(name)).unwrap();
    let log = read("log");
    let bad = ["WARNING", "ERROR", "CRITICAL", "Traceback"];
    let bad: Vec<&str> = log.lines().filter(|line| bad.iter().any(|word| line.contains(word))).collect();
    assert!(bad.is_empty(), "{source}: {bad:#?}");
    let data: Value = serde_json::from_str(&read("instance-data.json")).unwrap();
    let v1 = &data["v1"];
    assert_eq!(v1["instance_id"], "9c9c7b1e-4a8b-4f8e-9d0c-2f5f2f8d1a11", "{source}");
    assert_eq!(v1["local_hostname"], "mine", "{source}");
    assert_eq!(v1["public_ssh_keys"], json!([KEY]), "{source}");
    assert_eq!(v1["platform"], source.to_ascii_lowercase(), "{source}");
    assert!(read("authorized_keys").contains(KEY), "{source}");
    assert_eq!(read("user-data.txt"), USER_DATA, "{source}");
    assert_eq!(read("hostname").trim(), "mine", "{source}");
    data
}

#[test]
fn open_stack_s_source_finds_everything_before_there_is_a_network() {
    needs_system!();
    let (mut lab, guest, _files) = lab();
    // It asks by DHCP itself.
    let results = boot(&guest, "OpenStack", "OpenStack Nova", "none");
    let data = check("OpenStack", results.path());
    assert_eq!(data["v1"]["availability_zone"], "here");
    let network = &data["ds"]["network_json"];
    assert_eq!(network["links"][0]["mtu"], 1450);
    let kinds: Vec<&Value> =
        network["networks"].as_array().unwrap().iter().map(|part| &part["type"]).collect();
    assert_eq!(kinds, ["ipv4_dhcp", "ipv6_slaac"]);
    assert!(fs::read_to_string(results.path().join("vendor-data.txt")).unwrap().starts_with("#cloud-config"));
    lab.stop();
}

#[test]
fn ec2_s_source_and_no_cloud_s_find_everything() {
    needs_system!();
    let (mut lab, guest, _files) = lab();
    let client = Client::udhcpc(&guest, "");
    client.waits_for("bound", 1);
    let results = boot(&guest, "Ec2", "none", "none");
    let data = check("Ec2", results.path());
    assert_eq!(data["v1"]["availability_zone"], "here");
    assert!(data["ds"].to_string().contains("\"local-ipv4\":\"10.0.0.2\""), "{}", data["ds"]);
    let seed = "ds=nocloud-net;s=http://169.254.169.254/nocloud/";
    let results = boot(&guest, "NoCloud", "none", seed);
    check("NoCloud", results.path());
    assert!(fs::read_to_string(results.path().join("vendor-data.txt")).unwrap().starts_with("#cloud-config"));
    drop(client);
    lab.stop();
}
