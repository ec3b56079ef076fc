"""The Linux kernel as the judge of packets: one instance's filter is one network namespace.

    instance  --tun "inside"-->  forwarding, conntrack, nftables  --tun "outside"-->  network

A packet written to one device has been forwarded, or not, before the call returns; what comes out of the other device
tells. Two instances are two namespaces, one after the other (SPEC 3.7). Time never passes: what lies between two
packets is taken from the remaining lifetime of the entries (``age``).
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import shutil
import struct
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from ipaddress import ip_address

from ctnetlink import Table
from nft import forward_filter

from sgfast.policy.model import Instance, Network, Policy

TUNSETIFF = 0x400454CA
IFF_TUN, IFF_NO_PI = 0x0001, 0x1000
CLONE_NEWNET = 0x40000000
PACKET_BYTES = 65536

#: Linux gives a protocol it does not know the same time whether there was a reply or not, GRE with the first reply, and
#: UDP for its first two seconds (SPEC 5.2 does not). Such a time is told by its length, and replaced (`lifetime`).
UNKNOWN_SECONDS = 1_000_000
#: Remaining lifetimes are whole seconds, rounded down. All that is set or passes is a multiple of this.
STEP_SECONDS = 5

#: Everything that would let sequence numbers, checksums or helpful guesses decide is off.
SYSCTLS = {
    "net.ipv4.ip_forward": 1,
    "net.ipv6.conf.all.forwarding": 1,
    "net.ipv4.conf.all.rp_filter": 0,
    "net.ipv4.conf.default.rp_filter": 0,
    "net.ipv6.conf.default.addr_gen_mode": 1,
    "net.netfilter.nf_conntrack_tcp_loose": 0,
    "net.netfilter.nf_conntrack_tcp_be_liberal": 1,
    "net.netfilter.nf_conntrack_tcp_ignore_invalid_rst": 1,
    "net.netfilter.nf_conntrack_checksum": 0,
    "net.netfilter.nf_conntrack_generic_timeout": UNKNOWN_SECONDS,
    "net.netfilter.nf_conntrack_icmp_timeout": 30,
    "net.netfilter.nf_conntrack_icmpv6_timeout": 30,
    "net.netfilter.nf_conntrack_udp_timeout": UNKNOWN_SECONDS,
    "net.netfilter.nf_conntrack_udp_timeout_stream": 180,
    "net.netfilter.nf_conntrack_gre_timeout": UNKNOWN_SECONDS,
    "net.netfilter.nf_conntrack_gre_timeout_stream": 180,
    "net.netfilter.nf_conntrack_tcp_timeout_established": 600,
    # Linux shortens established connections that wait for an acknowledgement; SPEC does not.
    "net.netfilter.nf_conntrack_tcp_timeout_unacknowledged": 600,
    "net.netfilter.nf_conntrack_tcp_timeout_max_retrans": 600,
    **{
        f"net.netfilter.nf_conntrack_tcp_timeout_{state}": 30
        for state in ("syn_sent", "syn_recv", "fin_wait", "close_wait", "last_ack", "time_wait", "close")
    },
}


def missing() -> str | None:
    """Why this machine cannot run the oracle, or None."""
    if os.geteuid() != 0:
        return "needs root"
    for tool in ("ip", "nft", "conntrack"):
        if shutil.which(tool) is None:
            return f"{tool} is not installed"
    if not os.path.exists("/dev/net/tun"):
        return "there is no /dev/net/tun"
    try:
        with _new_namespace():
            _run("nft", "add", "table", "inet", "probe")
            _run("conntrack", "-L")
    except (OSError, subprocess.CalledProcessError) as error:
        return f"no network namespaces, nftables or conntrack here: {error}"
    return None


@dataclass(frozen=True)
class Tracked:
    """An entry of the kernel's table. ``remaining``: seconds, a multiple of STEP_SECONDS."""

    protocol: str
    state: str | None
    remaining: int
    source: str
    destination: str
    sport: int
    dport: int
    replied: bool


class Side:
    """One instance's filter in the kernel. A context manager; the namespace goes away with it."""

    def __init__(self, policy: Policy, instance: Instance) -> None:
        self.instance = instance
        with _new_namespace() as namespace:
            self._namespace = os.dup(namespace)
            for name, value in SYSCTLS.items():
                path = "/proc/sys/" + name.replace(".", "/")
                with suppress(FileNotFoundError), open(path, "w") as setting:
                    setting.write(str(value))
            self.table = Table()
            self._inside = _open_tun("inside")
            self._outside = _open_tun("outside")
            for device in ("lo", "inside", "outside"):
                _run("ip", "link", "set", device, "up")
            for other in policy.instances:
                for network in other.addresses:
                    # What others own within this instance's prefixes is outside (SPEC 2.6).
                    device = "inside" if other is instance else "outside"
                    if other is instance or any(_covers(mine, network) for mine in instance.addresses):
                        _run("ip", "route", "add", str(network), "dev", device)
            _run("ip", "route", "add", "default", "dev", "outside")
            _run("ip", "-6", "route", "add", "default", "dev", "outside")
            self._nft(forward_filter(policy, instance.name, inside="inside", outside="outside"))
        self._drain()

    def __enter__(self) -> Side:
        return self

    def __exit__(self, *_: object) -> None:
        self.table.close()
        for descriptor in (self._inside, self._outside, self._namespace):
            os.close(descriptor)

    def leaves(self, packet: bytes) -> bool:
        """Whether the filter lets a packet out of the instance."""
        return self._passes(packet, self._inside, self._outside)

    def arrives(self, packet: bytes) -> bool:
        """Whether it lets a packet in."""
        return self._passes(packet, self._outside, self._inside)

    def _passes(self, packet: bytes, entrance: int, exit_: int) -> bool:
        os.write(entrance, packet)
        wanted = _unchanged(packet)
        came_out = False
        # What is not the packet is the kernel's own (an ICMP error to the sender, a listener report).
        for seen in _read_all(exit_):
            came_out = came_out or _unchanged(seen) == wanted
        _read_all(entrance)
        return came_out

    def _drain(self) -> None:
        _read_all(self._inside)
        _read_all(self._outside)

    # The table

    def entries(self) -> list[Tracked]:
        return [_tracked(line) for line in self._conntrack("-L", "-o", "extended").splitlines() if line]

    def flush(self) -> None:
        self._conntrack("-F")

    def age(self, seconds: int) -> None:
        """As if ``seconds`` had passed, a multiple of STEP_SECONDS, and no time at all since the last packets."""
        for entry in self.table.entries():
            remaining = lifetime(entry.timeout, entry.replied)
            self.table.update(entry, max(0, remaining - seconds), entry.mark)

    def set_remaining(self, seconds: int) -> None:
        """Every entry lives ``seconds`` more; with 0 none does."""
        for family in ("ipv4", "ipv6"):
            self._conntrack("-U", "-f", family, "-t", str(seconds))

    def _conntrack(self, *arguments: str) -> str:
        with _in_namespace(self._namespace):
            done = subprocess.run(["conntrack", *arguments], capture_output=True, text=True, timeout=60)
        # It says how many entries it dealt with, and it is an error to it if there was none.
        if done.returncode != 0 and "0 flow entries" not in done.stderr:
            raise OSError(f"conntrack {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def _nft(self, rules: str) -> None:
        subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True, timeout=60)


class Kernel:
    """A policy's instances, each with a filter. Judges IP packets as SPEC 3.7 says: egress, then ingress."""

    def __init__(self, policy: Policy, instances: Iterable[str] | None = None) -> None:
        names = None if instances is None else set(instances)
        self.sides: list[Side] = []
        self._owners: dict[bytes, Side | None] = {}
        try:
            for instance in policy.instances:
                if names is None or instance.name in names:
                    self.sides.append(Side(policy, instance))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Kernel:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for side in self.sides:
            side.__exit__()

    def judge(self, packet: bytes) -> tuple[bool, Side | None]:
        """Whether the packet gets to its destination, and if not, whose filter stopped it."""
        sender, receiver = map(self._owner, _ends(packet))
        if sender is not None and not sender.leaves(packet):
            return False, sender
        if receiver is not None and not receiver.arrives(packet):
            return False, receiver
        return True, None

    def age(self, seconds: int) -> None:
        for side in self.sides:
            side.age(seconds)

    def flush(self) -> None:
        for side in self.sides:
            side.flush()

    def _owner(self, address: bytes) -> Side | None:
        if address not in self._owners:
            found = ip_address(address)
            owners = [
                (network.prefixlen, n)
                for n, side in enumerate(self.sides) for network in side.instance.addresses if found in network
            ]  # fmt: skip
            self._owners[address] = self.sides[max(owners)[1]] if owners else None
        return self._owners[address]


def lifetime(told: int, replied: bool) -> int:
    """The seconds an entry lives on by SPEC 5.2, from what Linux tells at most STEP_SECONDS - 1 after it was set."""
    remaining = -(-told // STEP_SECONDS) * STEP_SECONDS
    if remaining < UNKNOWN_SECONDS // 2:
        return remaining
    return (180 if replied else 30) - (UNKNOWN_SECONDS - remaining)


def _covers(network: Network, other: Network) -> bool:
    return network.version == other.version and other.subnet_of(network)  # type: ignore[arg-type]


# Packets -------------------------------------------------------------------------------------------------------------


def with_checksum(packet: bytes) -> bytes:
    """An IPv4 packet whose header the kernel will accept; IPv6 has no such sum."""
    if packet[0] >> 4 != 4:
        return packet
    size = (packet[0] & 15) * 4
    head = packet[:10] + b"\0\0" + packet[12:size]
    total = sum(struct.unpack(f">{size // 2}H", head))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return head[:10] + struct.pack(">H", ~total & 0xFFFF) + head[12:] + packet[size:]


def _unchanged(packet: bytes) -> bytes:
    """What forwarding leaves alone: all but TTL and header checksum."""
    if packet[0] >> 4 == 4:
        return packet[:8] + packet[9:10] + packet[12:]
    return packet[:7] + packet[8:]


def _ends(packet: bytes) -> tuple[bytes, bytes]:
    if packet[0] >> 4 == 4:
        return packet[12:16], packet[16:20]
    return packet[8:24], packet[24:40]


# Namespaces and devices ----------------------------------------------------------------------------------------------


def _setns(descriptor: int) -> None:
    if _libc.setns(descriptor, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def _new_namespace() -> Iterator[int]:
    """A new network namespace, entered until the end of the block; it lives while something is open in it."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _libc.unshare(CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "unshare")
        new = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            yield new
        finally:
            os.close(new)
            _setns(home)
    finally:
        os.close(home)


@contextmanager
def _in_namespace(namespace: int) -> Iterator[None]:
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _setns(namespace)
        try:
            yield
        finally:
            _setns(home)
    finally:
        os.close(home)


def _open_tun(name: str) -> int:
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    return descriptor


def _read_all(descriptor: int) -> list[bytes]:
    packets = []
    while True:
        try:
            packets.append(os.read(descriptor, PACKET_BYTES))
        except BlockingIOError:
            return packets


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)


def _tracked(line: str) -> Tracked:
    words = line.split()
    fields: dict[str, str] = {}
    for word in words:
        name, is_field, value = word.partition("=")
        if is_field:
            fields.setdefault(name, value)      # the first is the original direction's
    replied = "[UNREPLIED]" not in line
    remaining = lifetime(int(words[4]), replied)
    state = words[5] if words[5].isupper() and not words[5].startswith("[") else None
    return Tracked(
        words[2], state, remaining, fields["src"], fields["dst"], int(fields.get("sport", 0)),
        int(fields.get("dport", 0)), replied,
    )  # fmt: skip
