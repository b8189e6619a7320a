"""What `nat-64` and `nat-new` measure: routers with source NAT. Guests on the left, the world on the right.

The generator is 1000 guests of 198.18.0.0/16 (see its `--routed`), whose gateway is the contender. The far end has 192.0.2.2 and is the
next hop to all else; its kernel answers ARP. The sink counts frames whose source is in 192.0.2.0/24: those that were translated.
"""

import contextlib
import json
import mmap
import pathlib
import time

import ovs

GATEWAY, PREFIX_LENGTH = "198.18.255.254", 16
GATEWAY_MAC, OUTSIDE_MAC = "02:00:03:00:00:01", "02:00:03:00:00:02"
OUTSIDE, FAR, FAR_MAC = "192.0.2.1", "192.0.2.2", "02:00:03:00:00:03"
SNAT = "192.0.2.10"
# An endpoint of a guest has an outside port of its own in nuswitch, towards everybody; the others share ports between
# destinations, of which each guest has one of its own, and need one address for any number of guests.
SNAT_ADDRESSES = [f"192.0.2.{last}" for last in range(10, 74)]
# Connections at once that each contender's table has room for in `nat-new`, far more than a run makes.
ROOM = 1 << 22
CONNTRACK = pathlib.Path("/proc/sys/net/netfilter")


def ends(lab, names):
    """The veths, with the far end's kernel as next hop."""
    left, middle, right = names
    lab.veths()
    lab.inside(middle, "ip", "link", "set", "left", "address", GATEWAY_MAC)
    lab.inside(middle, "ip", "link", "set", "right", "address", OUTSIDE_MAC)
    lab.inside(right, "ip", "link", "set", "end", "address", FAR_MAC)
    lab.inside(right, "ip", "addr", "add", f"{FAR}/24", "dev", "end")


def kernel(lab, names, cpu):
    """Forwarding between the veths, with nftables' masquerade."""
    middle = names[1]
    lab.inside(middle, "sysctl", "-qw", "net.ipv4.ip_forward=1")
    lab.inside(middle, "ip", "addr", "add", f"{GATEWAY}/{PREFIX_LENGTH}", "dev", "left")
    lab.inside(middle, "ip", "addr", "add", f"{OUTSIDE}/24", "dev", "right")
    lab.inside(middle, "ip", "route", "add", "default", "via", FAR)
    lab.inside(middle, "nft", "table ip nat { chain post { type nat hook postrouting priority srcnat; "
                              "oifname \"right\" masquerade; }; }")
    # It works where frames arrive: give it the CPU that the others have for themselves.
    mask = f"{1 << cpu:x}"
    lab.inside(middle, "sh", "-c", f"for d in left right; do echo {mask} > /sys/class/net/$d/queues/rx-0/rps_cpus; done")


@contextlib.contextmanager
def roomy_kernel():
    """The kernel's limit and hash table are one for all namespaces; put back at the end."""
    files = {CONNTRACK / name: str(ROOM) for name in ("nf_conntrack_buckets", "nf_conntrack_max")}
    before = {file: file.read_text() for file in files}
    try:
        for file, value in files.items():
            file.write_text(value)
        yield
    finally:
        for file, value in before.items():
            file.write_text(value)


def forgotten(patience=60):
    """Waits until the kernel has freed the connections of a namespace that is gone, which takes it seconds of a CPU that the next
    contender needs."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        held = [line.split()[1] for line in open("/proc/slabinfo") if line.startswith("nf_conntrack ")]
        if not held or int(held[0]) < 10_000:
            break
        time.sleep(0.1)
    time.sleep(0.5)


def present(size=2 << 30):
    """Has a virtual machine's host give the memory that a contender is about to take, so that none pays for being the first: each
    connection takes new memory, and a page that the host must find costs more than all else about the connections in it."""
    mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE).close()


def open_vswitch(lab, names, fresh, cpu, failed):
    """One bridge of its userspace datapath; its flows do what a router does: MACs, TTL, and conntrack's NAT."""
    middle = names[1]
    switch = ovs.OpenVSwitch(lab, middle, cpu)
    switch.bridge("router", "02:00:03:00:00:09")
    switch.configure("set-fail-mode", "router", "secure")
    for side in ("left", "right"):
        if error := switch.port("router", side, "afxdp", {"n_rxq": 1, "xdp-mode": "native"}):
            why = "\n".join(switch.said(("|ERR|", "|WARN|")))
            raise failed(f"Open vSwitch has no afxdp port on {side}: {error}\n{why}")
    for flow in (
        f"in_port=left,ip,dl_dst={GATEWAY_MAC} actions=ct(commit,nat(src={SNAT})),mod_dl_src:{OUTSIDE_MAC},mod_dl_dst:{FAR_MAC},"
        "dec_ttl,output:right",
        "in_port=right,ip actions=ct(nat,table=1)",
        f"table=1,ip,ct_state=+est actions=mod_dl_src:{GATEWAY_MAC},dec_ttl,output:left",
    ):
        switch.openflow("add-flow", "router", flow)
    if fresh:
        switch.ask("dpctl/ct-set-maxconns", ROOM)
    return switch.process


def configuration(control, fresh, idle, cpu):
    lines = ["[switch]", f'idle = "{idle}"', f'control = "{control}"', f"workers = [{cpu}]"]
    lines += ["[conntrack]", f"max_entries = {ROOM}", f"max_entries_per_guest = {ROOM}"] if fresh else []
    addresses = SNAT_ADDRESSES if fresh else [SNAT]
    for network, subnet, gateway in (("inside", f"198.18.0.0/{PREFIX_LENGTH}", GATEWAY), ("outside", "192.0.2.0/24", FAR)):
        lines += ["[[network]]", f'name = "{network}"', f"external = {json.dumps(network == 'outside')}",
                  "[[subnet]]", f'name = "{network}"', f'network = "{network}"', f'cidr = "{subnet}"', f'gateway_ip = "{gateway}"']
    lines += ["[[router]]", 'name = "edge"', f'interfaces = [{{ subnet = "inside", mac_address = "{GATEWAY_MAC}" }}]',
              "[router.external_gateway]", 'network = "outside"', f'mac_address = "{OUTSIDE_MAC}"',
              f"external_fixed_ips = {json.dumps(addresses)}"]
    for side, network in (("left", "inside"), ("right", "outside")):
        lines += ["[[port]]", f'name = "{side}"', f'network = "{network}"', f'interface = {{ kind = "xdp", name = "{side}" }}']
    return "\n".join(lines) + "\n"


def nuswitch(lab, names, fresh, idle, cpu, program):
    control = f"{lab.directory.name}/control.sock"
    config = pathlib.Path(lab.directory.name) / "switch.toml"
    config.write_text(configuration(control, fresh, idle, cpu))
    process = lab.start(names[1], program, "run", "--config", config)
    process.control = control
    lab.wait_for(process, "its ports", lambda: lab.is_up(control))
    return process


def rate(lab, names, contender, fresh, how):
    """Frames of 64 bytes a second that arrive translated. `fresh`: each frame begins a connection; else there are 10 000. `how` has
    what `run` says: `cpu`, `generator_cpu`, `seconds`, `warm_up`, `slice`, `failed`, `program`, `examples`."""
    left, _, right = names
    what, *rest = contender.split("-")
    if fresh:
        forgotten()
        present()
    with contextlib.ExitStack() as stack:
        if what == "bare":
            switch = lab.bare("xdp", cpu=how.cpu)
        else:
            ends(lab, names)
            if what == "kernel":
                if fresh:
                    stack.enter_context(roomy_kernel())
                switch = kernel(lab, names, how.cpu)
            elif what == "ovs":
                switch = open_vswitch(lab, names, fresh, how.cpu, how.failed)
            else:
                switch = nuswitch(lab, names, fresh, rest[-1], how.cpu, how.program(what))
        counted = [] if what == "bare" else ["--from", SNAT]
        sink = lab.start(right, how.examples / "xdp_sink", "end", "--seconds", how.seconds + 60, "--interval", how.slice, *counted)
        sink.stdout.readline()
        generator = lab.start(left, how.examples / "xdp_generator", "end", "--routed", "--flows", 0 if fresh else 10_000,
                              "--dst-mac", GATEWAY_MAC, "--seconds", how.seconds + 2 * how.warm_up, cpu=how.generator_cpu)
        lab.skip(sink)
        ran, received = lab.running_time(switch), lab.counted_by(sink, how.seconds)
        ran = (lab.running_time(switch) - ran) / how.seconds
        offered = json.loads(lab.result(generator, how.seconds + 30))["pps"]
        found = {"value": received, "offered": offered}
        if switch:
            found |= {"cpu": ran, "per_cpu": received / max(ran, 1e-6)}
        if what == "bare":
            found["cycles"] = json.loads(lab.stop(switch))["cycles_per_frame"]
        return found
