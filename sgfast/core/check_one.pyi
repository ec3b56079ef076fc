from typing import Any

from sgfast.core.dataplane import DataPlane

KEPT_AT_MOST: int

class SingleChecks:
    names: dict[str, tuple[bytes | None, bytes | None]]
    def __init__(self, plane: DataPlane, protocols: dict[str, int], flags: dict[str, int]) -> None: ...
    def __len__(self) -> int: ...
    def check(
        self,
        src: Any,
        dst: Any,
        protocol: Any,
        sport: Any,
        dport: Any,
        flags: Any,
        icmp_type: Any,
        icmp_code: Any,
        icmp_id: Any,
        time_ns: Any,
    ) -> Any: ...
    def keep(self, row: bytes, words: Any) -> None: ...
