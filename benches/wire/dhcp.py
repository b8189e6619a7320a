"""What `dhcp` and `boot` measure: addresses for clients that perfdhcp plays as their relay, and guests that boot.

perfdhcp is on the left, the server in the middle, a veth between them. The rate is doubled until an exchange (DISCOVER, OFFER,
REQUEST, ACK) is lost, and the limit is then closed in on. The reflector answers without looking: what perfdhcp does with that is its own limit.
"""

import json
import pathlib
import re
import subprocess
import time

SUBNET, PREFIX_LENGTH = "10.64.0.0", 16
RELAY, SERVER, SERVICE = "10.64.0.2", "10.64.0.1", "169.254.169.254"
POOL = "10.64.1.0", "10.64.63.255"
# perfdhcp's only client where there is one, and how many it plays else: a port may have 4096 leases out of pools.
CLIENT, FIXED = "00:0c:01:02:03:04", "10.64.0.100"
CLIENTS = 4000
# The first rate that is tried, a second, and how near the limit is found.
FIRST, NEAR = 2000, 1.06
# Tries of a rate: where others use the machine, one pause of theirs is no limit of ours.
TRIES = 2
# Seconds that late answers have.
LATE = 1.0
TOOLS = {"perfdhcp": "kea-admin", "kea-dhcp4": "kea-dhcp4-server", "dnsmasq": "dnsmasq-base"}
# Seconds that a thousand TAPs may take.
PORTS_WITHIN = 60


def ends(lab, names):
    """The veth; the relay's end has its address, and a way to the service that the switch is."""
    left, middle = names[:2]
    lab.veths()
    lab.inside(left, "ip", "addr", "add", f"{RELAY}/{PREFIX_LENGTH}", "dev", "end")
    lab.inside(left, "ip", "route", "add", SERVICE, "dev", "end")
    return left, middle


def is_there(lab, middle):
    return ":67 " in lab.inside(middle, "ss", "-Hulnp") + " "


def dnsmasq(lab, middle, cpu):
    lab.inside(middle, "ip", "addr", "add", f"{SERVER}/{PREFIX_LENGTH}", "dev", "left")
    leases = pathlib.Path(lab.directory.name) / "leases"
    process = lab.start(middle, "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--no-ping", "--quiet-dhcp",
                        "--user=root", "--pid-file=", "--dhcp-authoritative", f"--dhcp-leasefile={leases}", "--interface=left",
                        f"--dhcp-lease-max={1 << 20}", f"--dhcp-range={POOL[0]},{POOL[1]},255.255.0.0,1h", cpu=cpu)
    lab.wait_for(process, "its socket", lambda: is_there(lab, middle))
    return SERVER


def kea(lab, middle, cpu):
    lab.inside(middle, "ip", "addr", "add", f"{SERVER}/{PREFIX_LENGTH}", "dev", "left")
    directory = pathlib.Path(lab.directory.name)
    config = directory / "kea.json"
    config.write_text(json.dumps({"Dhcp4": {
        "interfaces-config": {"interfaces": ["left"], "dhcp-socket-type": "udp"},
        "lease-database": {"type": "memfile", "persist": True, "name": str(directory / "leases.csv"), "lfc-interval": 0},
        "valid-lifetime": 3600,
        "subnet4": [{"subnet": f"{SUBNET}/{PREFIX_LENGTH}", "pools": [{"pool": " - ".join(POOL)}]}],
        "loggers": [{"name": "kea-dhcp4", "severity": "ERROR", "output_options": [{"output": "stderr"}]}],
    }}))
    process = lab.start(middle, "env", f"KEA_PIDFILE_DIR={directory}", f"KEA_LOCKFILE_DIR={directory}", "kea-dhcp4", "-c", config,
                        cpu=cpu)
    lab.wait_for(process, "its socket", lambda: is_there(lab, middle))
    return SERVER


def reflector(lab, middle, cpu, examples, options):
    lab.inside(middle, "ip", "addr", "add", f"{SERVER}/{PREFIX_LENGTH}", "dev", "left")
    process = lab.start(middle, examples / "dhcp_reflector", "left", SERVER, *options, cpu=cpu)
    process.stdout.readline()
    return SERVER


def nuswitch(lab, middle, whose, kind, cpu, program):
    directory = pathlib.Path(lab.directory.name)
    control, is_dynamic = directory / "control.sock", whose == "dynamic"
    lines = ["[switch]", f'control = "{control}"', f"workers = [{cpu}]"]
    lines += [f'state = "{directory / "state.db"}"'] if is_dynamic else []
    lines += ["[dhcp]", "lease_time = 3600", "[[network]]", 'name = "lan"', f"dynamic_leases = {json.dumps(is_dynamic)}",
              "[[subnet]]", 'name = "lan"', 'network = "lan"', f'cidr = "{SUBNET}/{PREFIX_LENGTH}"', f'gateway_ip = "{SERVER}"']
    lines += [f'allocation_pools = ["{POOL[0]}-{POOL[1]}"]'] if is_dynamic else []
    for side, station in (("left", [f'mac_address = "{CLIENT}"', f'fixed_ips = ["{FIXED}"]']), ("right", [])):
        lines += ["[[port]]", f'name = "{side}"', 'network = "lan"', f'interface = {{ kind = "{kind}", name = "{side}" }}']
        lines += ["fixed_ips = []"] if is_dynamic or not station else station
    config = directory / "switch.toml"
    config.write_text("\n".join(lines) + "\n")
    process = lab.start(middle, program, "run", "--config", config)
    process.control = control
    lab.wait_for(process, "its ports", lambda: lab.is_up(control))
    return SERVICE


def exchanges(lab, left, server, clients, rate, seconds, cpu, failed):
    """Exchanges a second that were completed at this rate, and the messages that had no answer."""
    seconds = max(1, round(seconds))  # perfdhcp takes whole ones
    words = ["perfdhcp", "-4", "-r", rate, "-R", clients, "-p", seconds, "-W", int(LATE * 1e6), "-b", f"mac={CLIENT}", "-l", RELAY,
             "-g", "multi" if cpu is None else "single", server]
    process = lab.start(left, *words, cpu=cpu)
    try:
        text, _ = process.communicate(timeout=seconds + LATE + 30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise failed("perfdhcp does not end") from None
    counts = {name: [int(n) for n in re.findall(rf"{name}: (\d+)", text)] for name in ("sent packets", "received packets", "drops")}
    if process.returncode not in (0, 3) or len(counts["drops"]) != 2:
        raise failed(f"perfdhcp: {lab.errors(process) or text}")
    (discovers, requests), (offers, acks) = counts["sent packets"], counts["received packets"]
    return acks / seconds, (discovers - offers) + (requests - acks)


def rate(lab, names, contender, how):
    """Most exchanges a second of which none is lost. `how` has what `run` says: `cpu`, `generator_cpu`, `seconds`, `failed`,
    `program`, `examples`."""
    left, middle = ends(lab, names)
    what, *rest = contender.split("-")
    clients = 1 if "one" in rest or "ports" in rest else CLIENTS
    if what == "dnsmasq":
        server = dnsmasq(lab, middle, how.cpu)
    elif what == "kea":
        server = kea(lab, middle, how.cpu)
    elif what == "reflector":
        server = reflector(lab, middle, how.cpu, how.examples, [f"--{word}" for word in rest])
    else:
        server = nuswitch(lab, middle, *rest, how.cpu, how.program(what))

    def most(asked):
        """What is done where so many are asked for; 0 if any is lost."""
        for _ in range(TRIES):
            done, lost = exchanges(lab, left, server, clients, asked, how.seconds, how.generator_cpu, how.failed)
            if not lost and done:
                return done
        return 0

    # The first ones warm up caches, resolve the next hop, and make the leases of all clients.
    exchanges(lab, left, server, clients, FIRST, how.seconds, how.generator_cpu, how.failed)
    best, low, high, asked = 0, 0, None, FIRST
    while high is None or high > low * NEAR:
        done = most(asked)
        best = max(best, done)
        if done >= asked / NEAR:
            low = asked
        else:  # Something was lost, or perfdhcp could not even ask so often.
            high = asked
        asked = asked * 2 if high is None else int((low * high) ** 0.5) if low else high // 2
        if asked < 100:
            raise how.failed(f"exchanges are lost at any rate, down to {high} a second")
    return {"value": best}


def boot(lab, names, contender, guests, gap, how):
    """Seconds that 99 of 100 metadata requests take at most, where so many guests boot, each `gap` microseconds after the one before."""
    _, middle, _ = names
    what, idle = contender.split("-")[0], contender.split("-")[-1]
    control, config = (pathlib.Path(lab.directory.name) / name for name in ("control.sock", "switch.toml"))
    ports = lab.inside(middle, how.examples / "boot", "--config", guests)
    config.write_text(f'[switch]\nidle = "{idle}"\ncontrol = "{control}"\n\n{ports}')
    process = lab.start(middle, how.program(what), "run", "--config", config)
    process.control = control
    until = time.monotonic() + PORTS_WITHIN
    while not lab.is_up(control):
        if process.poll() is not None or time.monotonic() > until:
            raise how.failed(f"the switch has not all ports: {lab.errors(process)}")
        time.sleep(0.2)
    found = json.loads(lab.result(lab.start(middle, how.examples / "boot", guests, gap), 120))
    (lease, lease99, _), (metadata, metadata99, longest) = found["lease"], found["metadata"]
    return {"value": metadata99, "p50": metadata * 1e3, "longest": longest * 1e3, "lease_median": lease * 1e3, "lease_p99": lease99 * 1e3,
            "repeated": found["repeated"]}
