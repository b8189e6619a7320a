"""Open vSwitch's userspace datapath, started by hand: its database, sockets and logs are in a directory of the run."""

import pathlib

SCHEMA = pathlib.Path("/usr/share/openvswitch/vswitch.ovsschema")
TOOLS = ("ovsdb-tool", "ovsdb-server", "ovs-vswitchd", "ovs-vsctl", "ovs-appctl", "ovs-ofctl")
PACKAGE = "openvswitch-switch"


class OpenVSwitch:
    """Its processes in the namespace `name` of a lab, which ends them."""

    def __init__(self, lab, name, cpu):
        self.lab, self.name, self.directory = lab, name, pathlib.Path(lab.directory.name)
        database, self.socket = self.directory / "conf.db", self.directory / "db.sock"
        lab.inside(name, "ovsdb-tool", "create", database, SCHEMA)
        server = self.spawn("ovsdb-server", database, f"--remote=punix:{self.socket}")
        lab.wait_for(server, "its socket", self.socket.exists)
        self.configure("--no-wait", "init")
        # One PMD thread, on the CPU that the other contenders have; its other threads run where the scheduler puts them.
        self.configure("--no-wait", "set", "open_vswitch", ".", f"other_config:pmd-cpu-mask={1 << cpu:#x}")
        self.process = self.spawn("ovs-vswitchd", f"unix:{self.socket}")

    def path(self, program, suffix):
        return self.directory / f"{program}.{suffix}"

    def spawn(self, program, *words):
        return self.lab.start(self.name, "env", f"OVS_RUNDIR={self.directory}", f"OVS_LOGDIR={self.directory}", program, *words,
                              f"--unixctl={self.path(program, 'ctl')}", f"--pidfile={self.path(program, 'pid')}",
                              f"--log-file={self.path(program, 'log')}", "--verbose=console:off")

    def configure(self, *words):
        """Changes the configuration, and waits until the switch follows it."""
        return self.lab.inside(self.name, "ovs-vsctl", "--timeout=30", f"--db=unix:{self.socket}", *words)

    def ask(self, *words):
        return self.lab.inside(self.name, "ovs-appctl", "--timeout=30", "-t", self.path("ovs-vswitchd", "ctl"), *words)

    def bridge(self, name, mac):
        self.configure("add-br", name, "--", "set", "bridge", name, "datapath_type=netdev", f"other-config:hwaddr={mac}")

    def openflow(self, command, bridge, *words):
        return self.lab.inside(self.name, "ovs-ofctl", "--timeout=30", command, f"unix:{self.directory}/{bridge}.mgmt", *words)

    def port(self, bridge, name, kind, settings):
        """Adds a port; gives why it does not work, if so."""
        words = [f"options:{key}={value}" for key, value in settings.items()]
        self.configure("add-port", bridge, name, "--", "set", "interface", name, f"type={kind}", *words)
        return self.configure("get", "interface", name, "error").strip().strip('[]"')

    def said(self, words):
        """Lines of its log with one of these words."""
        lines = self.path("ovs-vswitchd", "log").read_text().splitlines()
        return [line for line in lines if any(word in line for word in words)]
