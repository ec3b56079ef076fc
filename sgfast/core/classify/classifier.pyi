from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sgfast.core.classify.cidr_trie import CidrTrie

LIST_FLAG: int

Narrow = NDArray[np.uint16] | NDArray[np.uint32]

def narrow(numbers: NDArray[Any]) -> Narrow: ...

def divide(
    of_class: NDArray[np.uint32], count: int, matching: Sequence[NDArray[np.int64]]
) -> tuple[NDArray[np.int64], NDArray[np.int32], list[int]]: ...

class RuleArrays:
    has_bit_vectors: bool
    is_small: bool
    def __init__(
        self,
        peer_class: Narrow,
        service_class: Narrow,
        services: int,
        cells: NDArray[Any],
        peer_rules: NDArray[np.uint64] | None = None,
        service_rules: NDArray[np.uint64] | None = None,
    ) -> None: ...
    @property
    def cells(self) -> Narrow: ...
    @property
    def sizes(self) -> dict[int, int]: ...

class Classifier:
    instance_count: int
    rule_count: int
    def __init__(
        self,
        ipv4: CidrTrie,
        ipv6: CidrTrie,
        owner: ArrayLike,
        address_class: ArrayLike,
        address_origin: ArrayLike,
        port_whole: ArrayLike,
        port_maps: dict[int, Narrow],
        port_origin: ArrayLike,
        choice: ArrayLike,
        lists: ArrayLike,
        tables: list[RuleArrays],
        rank: ArrayLike,
        denies: ArrayLike,
        vpc: ArrayLike,
        peers_start: ArrayLike,
        peers: ArrayLike,
        stateless: ArrayLike | None = None,
    ) -> None: ...
    @property
    def nbytes(self) -> int: ...
    def owner_of(self, address: bytes) -> int: ...
    def owners_of(self, peers: NDArray[np.uint8], families: NDArray[np.uint8]) -> NDArray[np.int32]: ...
    def rule_for(self, instance: int, inbound: bool, peer: bytes, protocol: int, port_key: int) -> int: ...
    def match(self, headers: NDArray[Any], winners: NDArray[np.int32]) -> None: ...
