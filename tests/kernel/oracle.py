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
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from ctnetlink import Entry, Key, Table
from frames import ends_of
from nft import DISCONNECTED, forward_filter

from sgfast.policy.model import TCP, Instance, Policy

TUNSETIFF = 0x400454CA
IFF_TUN, IFF_NO_PI = 0x0001, 0x1000
CLONE_NEWNET = 0x40000000
PACKET_BYTES = 65536

#: Linux gives a protocol it does not know the same time whether there was a reply or not, GRE with the first reply, and
#: UDP for its first two seconds (SPEC 5.2 does not). Such a time is told by its length, and replaced (`lifetime`).
UNKNOWN_SECONDS = 1_000_000
#: Linux has no setting for the timeout of SYN_SENT2. ``lifetime`` replaces it by the 30 seconds of the other states.
SYN_SENT2, SYN_SENT2_SECONDS = 9, 120
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
    # Fragments wait for the rest as long as a test runs, in any number, whatever comes in between.
    "net.ipv4.ipfrag_time": 3600,
    "net.ipv4.ipfrag_high_thresh": 1 << 28,
    "net.ipv4.ipfrag_max_dist": 0,
    "net.netfilter.nf_conntrack_frag6_timeout": 3600,
    "net.netfilter.nf_conntrack_frag6_high_thresh": 1 << 28,
    **{
        f"net.netfilter.nf_conntrack_tcp_timeout_{state}": 30
        for state in ("syn_sent", "syn_recv", "fin_wait", "close_wait", "last_ack", "time_wait", "close")
    },
}

#: Packets that come in on one device go out on the other, whoever owns the addresses.
ROUTES = """
link set lo up
link set inside up
link set outside up
rule add iif inside lookup 100
rule add iif outside lookup 101
route add default dev outside table 100
route add default dev inside table 101
"""


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

    def __init__(self, policy: Policy, instance: Instance, isolate: bool = True) -> None:
        self.instance = instance
        self._rules = ""
        #: Seconds that disconnected connections have left, also those Linux has forgotten.
        self._cut: dict[Key, int] = {}
        #: The number of times that one of them had been given another time by Linux.
        self.refreshed = 0
        with _new_namespace() as namespace:
            self._namespace = os.dup(namespace)
            for name, value in SYSCTLS.items():
                path = "/proc/sys/" + name.replace(".", "/")
                with suppress(FileNotFoundError), open(path, "w") as setting:
                    setting.write(str(value))
            self.table = Table()
            self._inside = _open_tun("inside")
            self._outside = _open_tun("outside")
            for family in ("-4", "-6"):
                _run("ip", family, "-batch", "-", text=ROUTES)
        self.load(policy, isolate)
        self._drain()

    def __enter__(self) -> Side:
        return self

    def __exit__(self, *_: object) -> None:
        self.table.close()
        for descriptor in (self._inside, self._outside, self._namespace):
            os.close(descriptor)

    def load(self, policy: Policy, isolate: bool = True) -> None:
        """The instance's filter by this policy takes the place of the one there is, between two packets."""
        self.instance = policy.instance_by_name[self.instance.name]
        rules = forward_filter(policy, self.instance.name, inside="inside", outside="outside", isolate=isolate)
        if rules != self._rules:
            with _in_namespace(self._namespace):
                _run("nft", "-f", "-", text=rules)
            self._rules = rules

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
        # Anything but the packet is the kernel's own (an ICMP error to the sender, a listener report).
        for seen in _read_all(exit_):
            came_out = came_out or _unchanged(seen) == wanted
        _read_all(entrance)
        return came_out

    def forward(self, packet: bytes, leaving: bool) -> list[bytes]:
        """All that comes out at the other end: of a fragment nothing, until its datagram is whole; the kernel's own
        packets too."""
        entrance, exit_ = (self._inside, self._outside) if leaving else (self._outside, self._inside)
        os.write(entrance, packet)
        _read_all(entrance)
        return _read_all(exit_)

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
            remaining = lifetime(entry.timeout, entry.replied, entry.tcp_state == SYN_SENT2)
            if entry.mark == DISCONNECTED:
                # Linux refreshes what its filter then drops, SPEC 6.4 does not: no time has passed, so it is put back.
                self.refreshed += remaining != self._cut[entry.key]
                remaining = self._cut[entry.key]
            self.table.update(entry, max(0, remaining - seconds), entry.mark)
        self._cut = {key: remaining - seconds for key, remaining in self._cut.items() if remaining > seconds}

    def disconnect(self, entry: Entry) -> None:
        """The entry stays for as long as it would have, and nothing passes by it."""
        self._cut[entry.key] = lifetime(entry.timeout, entry.replied, entry.tcp_state == SYN_SENT2)
        self.table.update(entry, self._cut[entry.key], DISCONNECTED)

    def disconnect_successor(self, *ends: tuple[IPv4Address | IPv6Address, int | None]) -> None:
        """The entry in a disconnected TCP connection's place is disconnected for the time that one had."""
        for entry in self.table.entries():
            if entry.key == (TCP, None, frozenset(ends)):
                self.table.update(entry, self._cut[entry.key], DISCONNECTED)

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


class Kernel:
    """A policy's instances, each with a filter. Judges IP packets as SPEC 3.7 says: egress, then ingress."""

    def __init__(self, policy: Policy) -> None:
        self.sides: list[Side] = []
        #: Counted at instances that are gone.
        self._refreshed = 0
        try:
            self.load(policy)
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

    @property
    def refreshed(self) -> int:
        """The number of disconnected connections given another time, for a packet the filter then dropped."""
        return self._refreshed + sum(side.refreshed for side in self.sides)

    def load(self, policy: Policy, deleted: Collection[str] = ()) -> None:
        """The filters by this policy. Connections of instances that are not in it any more, or that were ``deleted``
        and added again, go with them; what becomes of the others is for the caller to say."""
        for side in list(self.sides):
            if side.instance.name in policy.instance_by_name and side.instance.name not in deleted:
                side.load(policy)
                continue
            self._refreshed += side.refreshed
            self.sides.remove(side)
            side.__exit__()
        known = {side.instance.name for side in self.sides}
        for instance in policy.instances:
            if instance.name not in known:
                self.sides.append(Side(policy, instance))
        self._owners: dict[bytes, Side | None] = {}

    def path(self, packet: bytes) -> list[Side]:
        """Whose filters judge the packet, the sender's first."""
        return [side for side in map(self.owner, ends_of(packet)) if side is not None]

    def judge(self, packet: bytes) -> tuple[bool, Side | None]:
        """Whether the packet gets to its destination, and if not, whose filter stopped it."""
        sender, receiver = map(self.owner, ends_of(packet))
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

    def owner(self, address: bytes) -> Side | None:
        """Whose address it is: the longest prefix says (SPEC 2.6)."""
        if address not in self._owners:
            found = ip_address(address)
            owners = [
                (network.prefixlen, n)
                for n, side in enumerate(self.sides) for network in side.instance.addresses if found in network
            ]  # fmt: skip
            self._owners[address] = self.sides[max(owners)[1]] if owners else None
        return self._owners[address]


def lifetime(told: int, replied: bool, both_sent_syn: bool) -> int:
    """The seconds an entry lives on by SPEC 5.2, from what Linux tells at most STEP_SECONDS - 1 after it was set."""
    remaining = -(-told // STEP_SECONDS) * STEP_SECONDS
    if both_sent_syn and remaining > 30:
        return 30 - (SYN_SENT2_SECONDS - remaining)
    if remaining < UNKNOWN_SECONDS // 2:
        return remaining
    return (180 if replied else 30) - (UNKNOWN_SECONDS - remaining)


# Packets -------------------------------------------------------------------------------------------------------------


def _unchanged(packet: bytes) -> bytes:
    """The parts that forwarding leaves alone: all but TTL and header checksum."""
    if packet[0] >> 4 == 4:
        return packet[:8] + packet[9:10] + packet[12:]
    return packet[:7] + packet[8:]


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


def _run(*command: str, text: str = "") -> None:
    subprocess.run(command, input=text, check=True, capture_output=True, text=True, timeout=60)


def _tracked(line: str) -> Tracked:
    words = line.split()
    fields: dict[str, str] = {}
    for word in words:
        name, is_field, value = word.partition("=")
        if is_field:
            fields.setdefault(name, value)      # the first is the original direction's
    replied = "[UNREPLIED]" not in line
    state = words[5] if words[5].isupper() and not words[5].startswith("[") else None
    remaining = lifetime(int(words[4]), replied, state == "SYN_SENT2")
    return Tracked(
        words[2], state, remaining, fields["src"], fields["dst"], int(fields.get("sport", 0)),
        int(fields.get("dport", 0)), replied,
    )  # fmt: skip
