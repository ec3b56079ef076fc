"""Compute nodes of OpenStack Neutron in one process: Open vSwitch, and Neutron's own agent that programs its firewall.

Run by the Python that has Neutron, with a folder for Open vSwitch; ``ovs_cloud`` is its client. Each line of standard
input is a command as JSON, each line of standard output its answer. Everything is in a network namespace of its own.

    node 0: bridge int0 with the devices a0, a1 …  --\
                                                       wire -- device outside
    node 1: bridge int1 with the devices b0, b1 …  --/

The agent is Neutron's ``SecurityGroupAgentRpc`` with its ``OVSFirewallDriver``, one for each node. What the server
would answer comes from documents of Neutron's API by Neutron's own ``SecurityGroupInfoAPIMixin``. Three things are not
Neutron's: table 0, which the rest of the agent would make; the wire instead of tunnels; and where connections are
deleted: Neutron asks the tool ``conntrack``, which knows the kernel's, and these are Open vSwitch's own.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import netaddr
from neutron import privileged
from neutron.agent import securitygroups_rpc
from neutron.agent.common import ovs_lib
from neutron.agent.linux import ip_conntrack
from neutron.agent.linux.openvswitch_firewall import firewall
from neutron.conf import common as common_options
from neutron.conf.agent import common as agent_options
from neutron.conf.plugins.ml2.drivers import ovs_conf
from neutron.db.securitygroups_rpc_base import SecurityGroupInfoAPIMixin
from neutron.plugins.ml2.drivers.openvswitch.agent.openflow.br_cookie import OVSBridgeCookieMixin
from neutron_lib.callbacks import registry
from oslo_config import cfg

CLONE_NEWNET, PR_SET_PDEATHSIG = 0x40000000, 1
TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x0002, 0x1000
FRAME_BYTES = 65536 + 18
#: A frame with this ethertype comes back on its device, from table 0.
ECHO_TYPE = 0x88B5
ECHO = bytes(12) + struct.pack(">H", ECHO_TYPE) + bytes(46)
OUTSIDE = "outside"
#: An answer that takes longer will never come, in seconds.
PATIENCE = 60

_libc = ctypes.CDLL(None, use_errno=True)


class Switch:
    """Open vSwitch with its files in ``folder``. Its programs end with this process."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.database = f"unix:{folder}/db.sock"
        self._programs: list[subprocess.Popen[bytes]] = []
        os.environ.update(dict.fromkeys(("OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR"), folder))
        schema = "/usr/share/openvswitch/vswitch.ovsschema"
        subprocess.run(["ovsdb-tool", "create", f"{folder}/conf.db", schema], check=True)
        quiet = ["-vconsole:off", "-vfile:warn", "-vsyslog:off"]
        self._start(
            "ovsdb-server", f"{folder}/conf.db", f"--remote=p{self.database}", f"--unixctl={folder}/database.ctl",
            f"--log-file={folder}/database.log", *quiet, ready="db.sock",
        )  # fmt: skip
        self.configure("init")
        self._start(
            "ovs-vswitchd", self.database, "--disable-system", "--enable-dummy", f"--unixctl={folder}/switch.ctl",
            f"--log-file={folder}/switch.log", *quiet, ready="switch.ctl",
        )  # fmt: skip
        self._control = self._connected("switch.ctl")

    def _start(self, *command: str, ready: str) -> None:
        """``ready``: the name of the socket that the program listens on once it works."""
        program = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=sys.stderr,
            preexec_fn=lambda: _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL),
        )  # fmt: skip
        self._programs.append(program)
        self._connected(ready).close()

    def _connected(self, name: str) -> socket.socket:
        deadline = time.monotonic() + PATIENCE
        while True:
            made = socket.socket(socket.AF_UNIX)
            try:
                made.connect(f"{self.folder}/{name}")
                return made
            except (FileNotFoundError, ConnectionRefusedError):
                made.close()
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

    def stop(self) -> None:
        for program in self._programs:
            program.kill()
            program.wait()

    def configure(self, *arguments: str) -> None:
        subprocess.run(["ovs-vsctl", f"--db={self.database}", "--no-wait", *arguments], check=True)

    def add_flow(self, bridge: str, flow: str) -> None:
        subprocess.run(["ovs-ofctl", "add-flow", bridge, flow], check=True)

    def ask(self, method: str, *arguments: str) -> str:
        """The output that ``ovs-appctl`` would have."""
        self._control.sendall(json.dumps({"id": 0, "method": method, "params": arguments}).encode())
        text = b""
        while True:
            piece = self._control.recv(1 << 20)
            if not piece:
                raise OSError(f"{method}: ovs-vswitchd has ended")
            text += piece
            try:
                answer = json.loads(text)
            except ValueError:
                continue
            if answer["error"] is not None:
                raise OSError(f"{method} {' '.join(arguments)}: {answer['error']}")
            return answer["result"]


class Devices:
    """TAP devices: what is written is what a machine sends, what is read is what it gets."""

    def __init__(self, names: list[str]) -> None:
        self._descriptors = {name: self._open(name) for name in names}
        self._names = {descriptor: name for name, descriptor in self._descriptors.items()}
        self._poll = select.poll()
        for descriptor in self._names:
            self._poll.register(descriptor, select.POLLIN)

    def _open(self, name: str) -> int:
        descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI))
        return descriptor

    def exchange(self, frames: list[tuple[str, bytes]]) -> dict[str, list[bytes]]:
        """Send the frames, and return what came out of each device until all of them had been dealt with."""
        came: dict[str, list[bytes]] = defaultdict(list)
        for name, frame in frames:
            os.write(self._descriptors[name], frame)
        # Open vSwitch takes a device's frames in turn, some at a time, and those it took together in any order. What
        # comes back after a first echo came back was taken after all frames before that one.
        for _ in range(2):
            self._echo({name for name, _ in frames}, came)
        self._read_all(0, came, set())
        return came

    def _echo(self, names: set[str], came: dict[str, list[bytes]]) -> None:
        for name in names:
            os.write(self._descriptors[name], ECHO)
        missing = set(names)
        deadline = time.monotonic() + PATIENCE
        while missing:
            self._read_all(1000, came, missing)
            if time.monotonic() > deadline:
                raise OSError(f"no echo from {missing}")

    def _read_all(self, milliseconds: int, came: dict[str, list[bytes]], missing: set[str]) -> None:
        for descriptor, _ in self._poll.poll(milliseconds):
            name = self._names[descriptor]
            while True:
                try:
                    frame = os.read(descriptor, FRAME_BYTES)
                except BlockingIOError:
                    break
                if frame == ECHO:
                    missing.discard(name)
                else:
                    came[name].append(frame)


class DatapathConntrack(ip_conntrack.OvsIpConntrackManager):
    """Neutron's deletions of tracked connections, at once and in Open vSwitch's own table."""

    switch: Switch

    def __init__(self) -> None:
        self.execute = self._delete
        self.namespace = None
        self.zone_per_port = False
        self._populate_initial_zone_map()

    def _process(self, devices: list[Any], rule: dict[str, Any], remote_ips: Any = None) -> None:
        for remote in remote_ips or [None]:
            self._delete_conntrack_state(devices, rule, remote)

    def _delete(self, command: list[Any], **_: Any) -> None:
        """Does what ``conntrack -D -f FAMILY -m MARK -s|-d PREFIX -w ZONE`` would do."""
        assert command[:2] == ["conntrack", "-D"] and len(command) == 10, command
        given = dict(zip(command[2::2], command[3::2], strict=True))
        prefix = netaddr.IPNetwork(given.get("-s") or given["-d"])
        family, end = "nw" if prefix.version == 4 else "ipv6", "src" if "-s" in given else "dst"
        addresses = {prefix.ip}
        if prefix.size > 1:
            # A prefix cannot be named to Open vSwitch, and may have too many addresses to name them all.
            known = self.switch.ask("dpctl/dump-conntrack", f"zone={given['-w']}")
            addresses = set(map(netaddr.IPAddress, set(re.findall(rf"orig=\([^)]*\b{end}=([^,)]+)", known))))
        for address in addresses:
            if address not in prefix:
                continue
            which = f"ct_{family}_{end}={address}"
            self.switch.ask("dpctl/flush-conntrack", f"zone={given['-w']}", f"mark={given['-m']}", which)


class Documents(SecurityGroupInfoAPIMixin):
    """Answers what the agent asks the server, from documents of Neutron's API."""

    def __init__(self) -> None:
        self.ports: dict[str, dict[str, Any]] = {}
        self.groups: dict[str, dict[str, Any]] = {}
        self.address_groups: dict[str, dict[str, Any]] = {}

    def load(self, documents: dict[str, Any]) -> None:
        self.ports = {port["id"]: port for port in documents["ports"]}
        self.groups = {group["id"]: group for group in documents["security_groups"]}
        self.address_groups = {group["id"]: group for group in documents["address_groups"]}

    def security_group_info_for_devices(self, context: None, devices: list[str]) -> dict[str, Any]:
        asked = {device: self._device(self.ports[device]) for device in devices if device in self.ports}
        return self.security_group_info_for_ports(context, asked)

    def get_secgroup_ids_for_address_group(self, address_group: str) -> set[str]:
        rules = [rule for group in self.groups.values() for rule in group["security_group_rules"]]
        return {rule["security_group_id"] for rule in rules if rule["remote_address_group_id"] == address_group}

    def _device(self, port: dict[str, Any]) -> dict[str, Any]:
        return port | {
            "device": port["id"],
            "fixed_ips": [fixed["ip_address"] for fixed in port["fixed_ips"]],
            "security_group_rules": [],
            "security_group_source_groups": [],
            "security_group_remote_address_groups": [],
        }

    def _select_rules_for_ports(self, context: None, ports: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
        return [
            (id, rule | {"normalized_cidr": _normalized(rule["remote_ip_prefix"])})
            for id, port in ports.items()
            for group in port["security_groups"] for rule in self.groups[group]["security_group_rules"]
        ]  # fmt: skip

    def _select_sg_ids_for_ports(self, context: None, ports: dict[str, Any]) -> list[tuple[str]]:
        return [(group,) for port in ports.values() for group in port["security_groups"]]

    def _select_ips_for_remote_group(self, context: None, groups: Any) -> dict[str, set[tuple[str, str]]]:
        members: dict[str, set[tuple[str, str]]] = {group: set() for group in groups}
        for port in self.ports.values():
            addresses = [(fixed["ip_address"], port["mac_address"]) for fixed in port["fixed_ips"]]
            addresses += [(pair["ip_address"], pair["mac_address"]) for pair in port["allowed_address_pairs"]]
            for group in members.keys() & set(port["security_groups"]):
                members[group].update(addresses)
        return members

    def _select_ips_for_remote_address_group(self, context: None, groups: Any) -> dict[str, set[tuple[str, None]]]:
        return {id: {(address, None) for address in self.address_groups[id]["addresses"]} for id in groups}

    def _get_sgs_stateful_flag(self, context: None, groups: Any) -> dict[str, bool]:
        return {id: self.groups[id]["stateful"] for id in groups}


def _normalized(prefix: str | None) -> str | None:
    return str(netaddr.IPNetwork(prefix).cidr) if prefix else None


class Bridge(OVSBridgeCookieMixin, ovs_lib.OVSBridge):
    """The agent's, but flows go through ``ovs-ofctl`` and not through a connection of its own, and wait for ``commit``.

    The agent starts ``ovs-ofctl`` for each step of a change, and each start costs Open vSwitch as much as hundreds of
    flows.
    """

    def __init__(self, name: str, **options: Any) -> None:
        super().__init__(name, **options)
        self._waiting: list[str] = []

    def run_ofctl(self, cmd: str, args: list[str], process_input: str | None = None) -> str:
        word = {"add-flows": "add", "mod-flows": "modify", "del-flows": "delete"}.get(cmd)
        if word is None or process_input is None:
            self.commit()
            return super().run_ofctl(cmd, args, process_input)
        word += "_strict" if "--strict" in args else ""
        self._waiting += [f"{word} {flow}" for flow in process_input.splitlines()]
        return ""

    def begin(self, flows: list[str]) -> None:
        """Have these flows, and no others."""
        self._waiting = ["delete", *(f"add {flow}" for flow in flows)]

    def dump_flows_for_table(self, table: int) -> str:
        """The agent asks when it starts, to give its conjunctions numbers that no flow has. There are none then."""
        return ""

    def commit(self) -> None:
        """Make the changes of flows since the last time, in their order and all at once."""
        waiting, self._waiting = self._waiting, []
        if waiting and super().run_ofctl("add-flows", ["--bundle", "-"], "\n".join(waiting)) is None:
            raise OSError(f"{self.br_name}: ovs-ofctl refused a change of flows")


class Node:
    """A compute node: its bridge, and Neutron's agent for it."""

    agent: securitygroups_rpc.SecurityGroupAgentRpc

    def __init__(self, number: int) -> None:
        self.name = f"int{number}"
        #: The network's number within the node, which is also the zone of its connections.
        self.tag = number + 1
        self.bridge = Bridge(self.name, datapath_type="netdev")
        # Neutron would add these protocols itself, but it waits a second when it does.
        self.bridge.initial_protocols |= set(firewall.OVSFirewallDriver.REQUIRED_PROTOCOLS)
        self.bridge.create()

    def start(self, documents: Documents) -> None:
        """Begin with a new agent, and without the flows of the last one."""
        self.bridge.begin(
            [
                f"table=0,priority=65535,dl_type={ECHO_TYPE:#x},actions=in_port",
                "table=0,priority=1,actions=resubmit(,60)",
                "table=60,priority=1,actions=normal",
            ]
        )
        # Neutron runs one agent in a process, so this class keeps one object for it. Here each node needs its own.
        vars(firewall.ConjIdMap).get("_instance") and delattr(firewall.ConjIdMap, "_instance")
        self.agent = securitygroups_rpc.SecurityGroupAgentRpc(
            None, documents, defer_refresh_firewall=True, integration_bridge=self.bridge
        )

    def add_device(self, name: str) -> None:
        self.bridge.add_port(name)
        self.bridge.set_db_attribute("Port", name, "tag", self.tag)

    def bind(self, gone: list[str], new: dict[str, dict[str, Any]]) -> None:
        """Take devices away from their ports, and give devices to ports."""
        database = self.bridge.ovsdb
        with database.transaction(check_error=True) as transaction:
            for device in gone:
                transaction.add(database.db_clear("Interface", device, "external_ids"))
                transaction.add(database.db_clear("Port", device, "other_config"))
            for device, port in new.items():
                ids = {"iface-id": port["id"], "attached-mac": port["mac_address"]}
                network = {"tag": str(self.tag), "network_type": "vxlan"}
                transaction.add(database.db_set("Interface", device, ("external_ids", ids)))
                transaction.add(database.db_set("Port", device, ("other_config", network)))


class Cloud:
    """Two nodes, the wire between them, and the documents that they were programmed from."""

    def __init__(self, folder: str, macs: dict[str, str]) -> None:
        """``macs``: the hardware address of what is behind each device."""
        self.switch = Switch(folder)
        DatapathConntrack.switch = self.switch
        _configure(self.switch.database)
        self.devices = Devices(list(macs))
        for name in macs:
            subprocess.run(["ip", "link", "set", name, "up"], check=True)
        self.documents = Documents()
        self.nodes = [Node(number) for number in (0, 1)]
        self.bound: dict[str, str] = {}
        self._lay_wire()
        for device in macs.keys() - {OUTSIDE}:
            self.node_of(device).add_device(device)
        # Sequence numbers stay 1 in all packets, so no window is asked about.
        self.switch.ask("dpctl/ct-disable-tcp-seq-chk")
        for version in ("v4", "v6"):
            self.switch.ask("dpctl/ipf-set-min-frag", version, "400")
        self._teach_addresses(macs)
        # No connection times out. The switch has this command with --enable-dummy.
        self.switch.ask("time/stop")

    def node_of(self, device: str) -> Node:
        return self.nodes["ab".index(device[0])]

    def _lay_wire(self) -> None:
        self.switch.configure("add-br", "wire", "--", "set", "bridge", "wire", "datapath_type=netdev")
        self.switch.configure("add-port", "wire", OUTSIDE, "--", "set", "interface", OUTSIDE, "ofport_request=9")
        for node in self.nodes:
            number = node.tag
            here, there = f"{node.name}-wire", f"wire-{node.name}"
            self.switch.configure(
                "add-port", "wire", there, "--", "set", "interface", there, "type=patch", f"options:peer={here}",
                f"ofport_request={number}",
                "--", "add-port", node.name, here, "--", "set", "interface", here, "type=patch",
                f"options:peer={there}",
            )  # fmt: skip
        subprocess.run(["ovs-vsctl", f"--db={self.switch.database}", "init"], check=True)
        subprocess.run(["ovs-ofctl", "del-flows", "wire"], check=True)
        self.switch.add_flow("wire", f"priority=9,dl_type={ECHO_TYPE:#x},actions=in_port")
        for node in self.nodes:
            # The third byte from the end of a port's address is its node's number.
            where = f"dl_dst=fa:16:3e:{node.tag - 1:02x}:00:00/ff:ff:ff:ff:00:00"
            self.switch.add_flow("wire", f"priority=5,{where},actions=mod_vlan_vid:{node.tag},output:{node.tag}")
        self.switch.add_flow("wire", "priority=1,actions=strip_vlan,output:9")

    def _teach_addresses(self, macs: dict[str, str]) -> None:
        """Nothing is flooded: each bridge knows where each hardware address is."""
        for node in self.nodes:
            for device, mac in macs.items():
                here = device != OUTSIDE and self.node_of(device) is node
                self.switch.ask("fdb/add", node.name, device if here else f"{node.name}-wire", str(node.tag), mac)

    def begin(self, documents: dict[str, Any], bound: dict[str, str]) -> None:
        """``program`` new agents: those that know other documents may keep some of their flows."""
        # It would keep the firewalls of all agents.
        registry.clear()
        self.documents.load({"ports": [], "security_groups": [], "address_groups": []})
        for node in self.nodes:
            node.bind([device for device in self.bound.values() if self.node_of(device) is node], {})
            node.start(self.documents)
        self.bound = {}
        self.switch.ask("dpctl/flush-conntrack")
        self.program(documents, bound)

    def program(self, documents: dict[str, Any], bound: dict[str, str]) -> None:
        """Tell the agents of new documents as the server's notifications would; ``bound`` has each port's device."""
        before = Documents()
        before.load(
            {
                "ports": list(self.documents.ports.values()),
                "security_groups": list(self.documents.groups.values()),
                "address_groups": list(self.documents.address_groups.values()),
            }
        )
        self.documents.load(documents)
        known = before.groups.keys() & self.documents.groups.keys()
        rules = {id for id in known if _differ(before, self.documents, id)}
        members: set[str] = set()
        updated: set[str] = set()
        for id in before.ports.keys() | self.documents.ports.keys():
            old, new = before.ports.get(id), self.documents.ports.get(id)
            if old != new:
                members |= {group for port in (old, new) if port for group in port["security_groups"]}
                if old and new:
                    updated.add(id)
        changed = [
            id for id, group in self.documents.address_groups.items()
            if before.address_groups.get(id, group) != group
        ]  # fmt: skip
        gone, new = self.bound.keys() - bound.keys(), bound.keys() - self.bound.keys()
        for node in self.nodes:
            here = {id for id, device in {**self.bound, **bound}.items() if self.node_of(device) is node}
            node.agent.remove_devices_filter(sorted(gone & here))
            node.bind(
                [self.bound[id] for id in gone & here], {bound[id]: self.documents.ports[id] for id in new & here}
            )
            node.agent.security_groups_rule_updated(sorted(rules))
            node.agent.security_groups_member_updated(sorted(members))
            for id in changed:
                node.agent.address_group_updated(id)
            node.agent.setup_port_filters(new & here, updated & here)
            node.bridge.commit()
        self.bound = dict(bound)
        # Otherwise packets may still go the ways that were worked out from the flows before.
        self.switch.ask("revalidator/purge")

    def obey(self, command: dict[str, Any]) -> Any:
        match command["do"]:
            case "begin":
                return self.begin(command["documents"], command["bound"])
            case "program":
                return self.program(command["documents"], command["bound"])
            case "exchange":
                came = self.devices.exchange([(name, bytes.fromhex(frame)) for name, frame in command["frames"]])
                return {name: [frame.hex() for frame in frames] for name, frames in came.items()}
            case "ask":
                return self.switch.ask(*command["words"])
        raise ValueError(f"unknown command {command}")


def _differ(before: Documents, after: Documents, group: str) -> bool:
    return before.groups[group]["security_group_rules"] != after.groups[group]["security_group_rules"]


def _configure(database: str) -> None:
    common_options.register_core_common_config_opts()
    ovs_conf.register_ovs_agent_opts(cfg.CONF)
    ovs_conf.register_ovs_opts(cfg.CONF)
    agent_options.register_root_helper(cfg.CONF)
    cfg.CONF([])
    cfg.CONF.set_override("ovsdb_connection", database, "OVS")
    cfg.CONF.set_override("firewall_driver", "openvswitch", "SECURITYGROUP")
    # Commands run in this process, which is root in its namespace.
    privileged.default.set_client_mode(False)
    ip_conntrack.OvsIpConntrackManager = DatapathConntrack


def main() -> None:
    folder, *devices = sys.argv[1:]
    macs = dict(device.split("=") for device in devices)
    if _libc.unshare(CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    Path("/proc/sys/net/ipv6/conf/default/disable_ipv6").write_text("1")
    # Standard output is for answers alone.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    cloud = Cloud(folder, macs)
    print(json.dumps({"answer": "ready"}), file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps({"answer": cloud.obey(json.loads(line))}), file=answers, flush=True)
    cloud.switch.stop()
    # Neutron's threads would keep the process.
    os._exit(0)


if __name__ == "__main__":
    try:
        main()
    except Exception:
        sys.excepthook(*sys.exc_info())
        os._exit(1)
