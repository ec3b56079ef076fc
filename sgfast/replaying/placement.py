"""Which VPC packets belong to, as a policy maps them (SPEC 7.1)."""

from __future__ import annotations

import os
from fnmatch import fnmatchcase

from sgfast.capture.names import printable
from sgfast.errors import CaptureError, PolicyError
from sgfast.policy.model import Policy
from sgfast.stages.vpcs import VpcMarks


class Placement:
    """What marks the packets of a policy's VPCs; VPCs by their place in it."""

    def __init__(self, policy: Policy) -> None:
        self._vpcs = policy.vpcs
        self.marks = VpcMarks(
            {vni: n for n, vpc in enumerate(policy.vpcs) for vni in vpc.vnis},
            {vlan: n for n, vpc in enumerate(policy.vpcs) for vlan in vpc.vlans},
        )

    @property
    def wants_vnis(self) -> bool:
        return any(vpc.vnis for vpc in self._vpcs)

    @property
    def wants_files(self) -> bool:
        return any(vpc.files for vpc in self._vpcs)

    def enter(self, path: str) -> None:
        """The packets that follow are from this file. CaptureError as ``vpc_of``."""
        vpc = self.vpc_of(path)
        self.marks.otherwise = 0 if vpc is None else vpc + 1

    def vpc_of(self, path: str) -> int | None:
        """Whose a file is by its name, None: nobody's. CaptureError if patterns of two VPCs fit."""
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
        return found[0] if found else None


def not_mapped(policy: Policy, what: str) -> PolicyError:
    """The error of what cannot deal packets out to VPCs."""
    return PolicyError(
        f"{printable(policy.origin)}: says which VPC packets belong to (vni, vlan, file), which {what} does not go by: "
        "name the VPC of all packets (--vpc)"
    )
