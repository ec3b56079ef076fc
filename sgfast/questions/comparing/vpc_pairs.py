"""Compare two policies that map packets to several VPCs (SPEC 7.1), with two engines for each VPC."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgfast.base.errors import PolicyError
from sgfast.base.names import printable
from sgfast.core.base.frames import FrameBatch
from sgfast.policy.loaded_policy import having
from sgfast.policy.model import Policy, Vpc
from sgfast.questions.comparing.pair import Pair
from sgfast.questions.replaying.engine_runner import make_engine
from sgfast.questions.replaying.options import ReplayOptions
from sgfast.questions.replaying.results import Oddities
from sgfast.traffic.preprocess.vpcs import Dealer, restore_times
from sgfast.traffic.vpc_mapping import VpcMapping, first_vpc, refuse_too_many, seen_from

#: The marks that assign packets to a VPC, in order of precedence: the policy's key, and the field of ``Vpc``.
_MARKS = (("vni", "vnis"), ("vlan", "vlans"), ("interface", "interfaces"), ("file", "files"))


class VpcPairs:
    """Compare two policies VPC by VPC. This class has the methods of ``Pair``, and contains one ``Pair`` for each VPC.

    VPCs of the same name correspond (``policy.renamed_vpcs`` sees to those that were renamed), and the marks of both
    policies apply to both. If one policy lacks a VPC, it has no instance there, the VPC's packets are out of scope, and
    ``warnings`` says so. Raises PolicyError if the policies give one mark to different VPCs, or if there are packets of
    too many VPCs; and AmbiguousAddress as a replay of either policy does.
    """

    def __init__(self, old: Policy, new: Policy, options: ReplayOptions, hash_key: Sequence[int]) -> None:
        vpcs = _merged_vpcs(old, new)
        self.warnings = [
            f"VPC {vpc.name!r} is only in {have}: under {lack} its packets are out of scope"
            for vpc in vpcs
            if vpc.is_mapped
            for have, lack, policy in (("OLD", "NEW", new), ("NEW", "OLD", old))
            if vpc.name not in policy.vpc_by_name
        ]
        self._policies = [
            having(policy, vpcs=tuple(replace(vpc, region=_region(policy, vpc)) for vpc in vpcs))
            for policy in (old, new)
        ]
        #: The mapping of packets to VPCs, which both policies share. The second mapping is only made to check the
        #: policy.
        before, after = self._policies
        self.vpc_mapping, _ = VpcMapping(before, after), VpcMapping(after)
        self._options, self._hash_key = options, hash_key
        self._dealer = Dealer(len(vpcs))
        self._threads = ThreadPoolExecutor(options.jobs) if options.jobs > 1 else None
        self._pairs: dict[int, Pair] = {}
        self._judged = 0
        self._pair_of_vpc(first_vpc(*self._policies))

    @property
    def pairs(self) -> list[Pair]:
        """The pairs made so far; there is at least one."""
        return [pair for _, pair in sorted(self._pairs.items())]

    @property
    def times(self) -> tuple[int | None, int | None, Oddities]:
        first_ns, last_ns, *oddities = self._dealer.times
        return first_ns, last_ns, Oddities(*oddities)

    def _pair_of_vpc(self, vpc: int) -> Pair:
        if vpc not in self._pairs:
            refuse_too_many(self._policies[0], 2 * len(self._pairs), engines=2)
            before, after = (
                make_engine(policy, self._options, _seen(policy, vpc), hash_key=self._hash_key)
                for policy in self._policies
            )
            self._pairs[vpc] = Pair(before, after)
        return self._pairs[vpc]

    def process(self, batch: FrameBatch) -> None:
        vpcs, parts, places = zip(*self._dealer.deal(batch, 0, len(batch)), strict=True)
        every = [self._pair_of_vpc(vpc) for vpc in vpcs]
        parallel_map = map if self._threads is None else self._threads.map
        for _ in parallel_map(lambda *part: self._compare(batch, *part), every, parts, places):
            pass
        self._judged += len(batch)

    def _compare(self, batch: FrameBatch, pair: Pair, part: FrameBatch, places: NDArray[Any]) -> None:
        for engine in pair.engines:
            engine.dataplane.begin(self._dealer.began_ns)
        pair.judge(part)
        restore_times(part, batch, places)
        pair.compare(part, (places + self._judged + 1).astype(np.uint64))

    def finish(self) -> None:
        for pair in self._pairs.values():
            pair.finish()

    def close(self) -> None:
        if self._threads is not None:
            self._threads.shutdown()


def _seen(policy: Policy, vpc: int) -> str | None:
    """Return the VPC from which a policy sees the packets of a VPC. A policy that a replay would not map sees all."""
    return seen_from(policy, vpc) if policy.is_mapped or policy._shares_addresses else None


def _region(policy: Policy, vpc: Vpc) -> str:
    return policy.vpc_by_name[vpc.name].region if vpc.name in policy.vpc_by_name else vpc.region


def _merged_vpcs(old: Policy, new: Policy) -> Sequence[Vpc]:
    """Return the VPCs of both policies, each with the marks from both."""
    vpcs = dict(old.vpc_by_name)
    for vpc in new.vpcs:
        merged = vpcs.setdefault(vpc.name, vpc)
        marks: dict[str, Any] = {
            name: tuple(dict.fromkeys((*getattr(merged, name), *getattr(vpc, name)))) for _, name in _MARKS
        }
        vpcs[vpc.name] = replace(merged, **marks)
    for key, name in _MARKS:
        owners = _owners(old.vpcs, name)
        for mark, owner in _owners(new.vpcs, name).items():
            if owners.get(mark, owner) != owner:
                raise PolicyError(
                    f"{printable(new.origin)}: {key} {mark!r} belongs to VPC {owner!r}, but to VPC "
                    f"{owners[mark]!r} in {printable(old.origin)}: make both policies agree, or name the VPC of all "
                    "packets (--vpc)"
                )
    return tuple(vpcs.values())


def _owners(vpcs: Iterable[Vpc], name: str) -> dict[int | str, str]:
    return {mark: vpc.name for vpc in vpcs for mark in getattr(vpc, name)}
