"""Cloud security groups as a packet-matching engine.

Load a policy (:func:`load_policy`), create an :class:`Engine` and give it packets (:meth:`Engine.process`,
:meth:`Engine.check`), or judge whole captures (:func:`replay`). :func:`diff` finds what another policy would change
for captures.
"""

from sgfast.lazy import on_demand
from sgfast.version import __version__ as __version__

# Nothing else is imported here, because the command cannot be interrupted cleanly during that time.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from sgfast.comparing import DiffResult, diff
    from sgfast.engine import (
        HEADER_DTYPE,
        NO_SIDE,
        PENDING,
        REASONS,
        RESOLVED_DTYPE,
        RESULT_DTYPE,
        VERDICTS,
        Engine,
        Explanation,
        FrameBatch,
        Side,
        Verdict,
        header,
    )
    from sgfast.errors import CaptureError, OutputError, PolicyError, SgfastError, SnapshotError, TableError
    from sgfast.live.aws import policy_from_boto3
    from sgfast.policy.document import load_policy, parse_policy
    from sgfast.policy.model import Policy
    from sgfast.replaying import Reading, ReplayResult, replay
    from sgfast.snapshot import load_snapshot, save_snapshot
    from sgfast.tables import Table, table

# Each is imported when it is first asked for: numpy alone costs more than a tenth of a second, which no
# `sgfast --help` should pay.
__getattr__ = on_demand(
    __name__,
    {
        "sgfast.comparing": ("DiffResult", "diff"),
        "sgfast.engine": (
            "HEADER_DTYPE", "NO_SIDE", "PENDING", "REASONS", "RESOLVED_DTYPE", "RESULT_DTYPE", "VERDICTS", "Engine",
            "Explanation", "FrameBatch", "Side", "Verdict", "header",
        ),
        "sgfast.errors": ("CaptureError", "OutputError", "PolicyError", "SgfastError", "SnapshotError", "TableError"),
        "sgfast.live.aws": ("policy_from_boto3",),
        "sgfast.policy.document": ("load_policy", "parse_policy"),
        "sgfast.policy.model": ("Policy",),
        "sgfast.replaying": ("Reading", "ReplayResult", "replay"),
        "sgfast.snapshot": ("load_snapshot", "save_snapshot"),
        "sgfast.tables": ("Table", "table"),
    },
)  # fmt: skip


def __dir__() -> list[str]:
    return sorted(__all__)


__all__ = [
    "HEADER_DTYPE",
    "NO_SIDE",
    "PENDING",
    "REASONS",
    "RESOLVED_DTYPE",
    "RESULT_DTYPE",
    "VERDICTS",
    "CaptureError",
    "DiffResult",
    "Engine",
    "Explanation",
    "FrameBatch",
    "OutputError",
    "Policy",
    "PolicyError",
    "Reading",
    "ReplayResult",
    "SgfastError",
    "Side",
    "SnapshotError",
    "Table",
    "TableError",
    "Verdict",
    "__version__",
    "diff",
    "header",
    "load_policy",
    "load_snapshot",
    "parse_policy",
    "policy_from_boto3",
    "replay",
    "save_snapshot",
    "table",
]
