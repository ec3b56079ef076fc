"""Which VPC packets belong to, as a policy maps them (SPEC 7.1)."""

from __future__ import annotations

import os
from collections import Counter
from fnmatch import fnmatchcase

from sgfast.capture.interfaces import InterfaceMarks
from sgfast.capture.names import printable
from sgfast.compiler.addresses import owned_prefixes
from sgfast.errors import AmbiguousAddress, CaptureError, PolicyError
from sgfast.policy.model import Policy
from sgfast.preprocess.vpcs import VpcMarks
from sgfast.replaying.options import ReplayOptions

#: Each takes a megabyte of tables before it has judged a packet.
MOST_ENGINES = 1000


class Placement:
    """What marks the packets of a policy's VPCs; VPCs by their place in it.

    AmbiguousAddress for a VPC that cannot tell its peers apart: packets are to be looked at from there.
    """

    def __init__(self, policy: Policy) -> None:
        peers = Counter(name for pair in policy.peerings for name in pair)
        for vpc in policy.vpcs:
            if vpc.is_mapped and peers[vpc.name] > 1:
                owned_prefixes(policy, vpc.name)
        self._vpcs = policy.vpcs
        self.marks = VpcMarks(
            {vni: n for n, vpc in enumerate(policy.vpcs) for vni in vpc.vnis},
            {vlan: n for n, vpc in enumerate(policy.vpcs) for vlan in vpc.vlans},
        )
        self.interfaces = InterfaceMarks({mark: n for n, vpc in enumerate(policy.vpcs) for mark in vpc.interfaces})

    @property
    def wants_vnis(self) -> bool:
        return any(vpc.vnis for vpc in self._vpcs)

    @property
    def needs_interfaces(self) -> bool:
        """Whether without interfaces nothing tells whose a packet is, unless its file does."""
        return any(vpc.interfaces for vpc in self._vpcs) and not any(vpc.vnis or vpc.vlans for vpc in self._vpcs)

    def of_file(self, path: str) -> int:
        """What ``Frame.vpc`` is for packets of this file. CaptureError if patterns of two VPCs fit its name."""
        whole, last = path, os.path.basename(path)
        found = [
            n for n, vpc in enumerate(self._vpcs)
            if any(fnmatchcase(whole if "/" in pattern else last, pattern) for pattern in vpc.files)
        ]  # fmt: skip
        if len(found) > 1:
            a, b = (self._vpcs[n].name for n in found[:2])
            raise CaptureError(
                f"{printable(path)}: the policy says that its packets belong to VPC {a!r} and to VPC {b!r}: "
                "let 'file' of one of them not match"
            )
        return found[0] + 1 if found else 0


def seen_from(policy: Policy, vpc: int) -> str | None:
    """The VPC whose packets those of number ``vpc`` are; None for -1: what nothing marks sees every VPC.

    AmbiguousAddress if that cannot be told apart.
    """
    if vpc >= 0:
        return policy.vpcs[vpc].name
    try:
        owned_prefixes(policy, None)
    except AmbiguousAddress as error:
        raise AmbiguousAddress(f"{error}; no vni, vlan, interface or file says whose some packets are") from error
    return None


def placement_of(policy: Policy, options: ReplayOptions) -> Placement | None:
    """None: packets do not belong to VPCs."""
    return Placement(policy) if options.is_mapped(policy) else None


def seen_vpcs(policy: Policy, options: ReplayOptions) -> list[str | None]:
    """The VPCs that packets may be seen from; None: all at once."""
    if not options.is_mapped(policy):
        return [options.vpc]
    return [vpc.name for vpc in policy.vpcs if vpc.is_mapped]


def refuse_too_many(policy: Policy, there: int, *, engines: int = 1) -> None:
    """PolicyError if with ``there`` engines there are not to be more. ``engines``: how many each VPC takes."""
    if there + engines > MOST_ENGINES:
        raise PolicyError(
            f"{printable(policy.origin)}: there are packets of more than {MOST_ENGINES // engines:,} VPCs that it "
            "maps: give captures of fewer at a time"
        )
