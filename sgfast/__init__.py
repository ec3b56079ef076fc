"""Cloud security groups as a packet-matching engine: what would these rules do to this traffic?

Load a policy: a document, or what a cloud exports, as a path, as a text or as plain values.

    import sgfast

    policy = sgfast.load("policy.yaml")

Ask it. Ends are instances, groups, addresses, networks, ``internet`` or ``any``. Each answer prints as the command of
the same name prints it, and has what it says as attributes.

    print(policy.explain("web-1", "db-1", "tcp/5432"))      # why one packet is allowed or denied
    print(policy.reach(destination="db"))                   # who may open what to whom
    print(policy.test("expectations.yaml"))                 # whether it does what is meant, proved for all packets
    print(policy.check())                                   # what in it is redundant, useless or dangerous
    print(policy.diff("proposed.yaml"))                     # what another policy opens and closes
    script = policy.export("aws")                           # what the cloud has to be told

Replay captures: what would break, and why.

    result = policy.replay(["monday.pcap", "tuesday.pcap"])
    print(result.verdicts, [broken.service for broken in result.broken])
    print(policy.diff("proposed.yaml", "monday.pcap"))      # what another policy would change for this traffic
    print(sgfast.suggest("monday.pcap").text)               # the fewest rules that this traffic needs

Embed the engine. It tracks connections, and its policy may change between two packets.

    engine = sgfast.Engine(policy)
    if engine.check("web-1", "db-1", "tcp", sport=40000, dport=5432, time=0.0).allowed:
        ...
    engine.apply({"remove_member": {"group": "web", "instance": "web-1"}}, now_ns=10**9)

All that sgfast raises on purpose is a ``SgfastError`` whose text is one line: place, cause, and what to do. A document
with several errors has a line for each, and ``PolicyError.errors`` has them apart. Everything below is imported when it
is first used. docs/python.md is a page with examples that run.
"""

from sgfast.lazy import on_demand
from sgfast.version import __version__ as __version__

# Nothing else is imported here, because the command cannot be interrupted cleanly during that time.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from sgfast.asking import CheckResult, PolicyDiff, diff
    from sgfast.comparing import DiffResult
    from sgfast.engine import (
        HEADER_DTYPE,
        NO_SIDE,
        PENDING,
        REASONS,
        RESOLVED_DTYPE,
        RESULT_DTYPE,
        VERDICTS,
        Applied,
        Engine,
        Explanation,
        FrameBatch,
        Side,
        Verdict,
        header,
    )
    from sgfast.errors import (
        ArgumentError,
        ArgumentTypeError,
        CaptureError,
        ClusterError,
        ExportError,
        LiveError,
        OutputError,
        PolicyError,
        ReadingError,
        SgfastError,
        SnapshotError,
        TableError,
    )
    from sgfast.explaining import Explained
    from sgfast.exporting.texts import export
    from sgfast.live.aws import policy_from_boto3
    from sgfast.policy.changes import (
        AddAddress,
        AddGroup,
        AddInstance,
        AddMember,
        AddPeering,
        AddRule,
        Change,
        ModifyRule,
        RemoveAddress,
        RemoveGroup,
        RemoveInstance,
        RemoveMember,
        RemovePeering,
        RemoveRule,
        SetAddressGroup,
    )
    from sgfast.policy.document import load, load_policy, parse_policy
    from sgfast.policy.model import AddressGroup, AddressGroupPeer, GroupPeer, Instance, Policy, Rule, SecurityGroup
    from sgfast.proving import Proof
    from sgfast.reaching import Reach
    from sgfast.replaying import Reading, ReplayResult, replay
    from sgfast.snapshot import load_snapshot, save_snapshot
    from sgfast.suggesting import Suggestion, suggest
    from sgfast.tables import Table, table

# Each is imported when it is first asked for: numpy alone costs more than a tenth of a second, which no
# `sgfast --help` should pay.
__getattr__ = on_demand(
    __name__,
    {
        "sgfast.asking": ("CheckResult", "PolicyDiff", "diff"),
        "sgfast.comparing": ("DiffResult",),
        "sgfast.engine": (
            "HEADER_DTYPE", "NO_SIDE", "PENDING", "REASONS", "RESOLVED_DTYPE", "RESULT_DTYPE", "VERDICTS", "Applied",
            "Engine", "Explanation", "FrameBatch", "Side", "Verdict", "header",
        ),
        "sgfast.errors": (
            "ArgumentError", "ArgumentTypeError", "CaptureError", "ClusterError", "ExportError", "LiveError",
            "OutputError", "PolicyError", "ReadingError", "SgfastError", "SnapshotError", "TableError",
        ),
        "sgfast.explaining": ("Explained",),
        "sgfast.exporting.texts": ("export",),
        "sgfast.live.aws": ("policy_from_boto3",),
        "sgfast.policy.changes": (
            "AddAddress", "AddGroup", "AddInstance", "AddMember", "AddPeering", "AddRule", "Change", "ModifyRule",
            "RemoveAddress", "RemoveGroup", "RemoveInstance", "RemoveMember", "RemovePeering", "RemoveRule",
            "SetAddressGroup",
        ),
        "sgfast.policy.document": ("load", "load_policy", "parse_policy"),
        "sgfast.policy.model": (
            "AddressGroup", "AddressGroupPeer", "GroupPeer", "Instance", "Policy", "Rule", "SecurityGroup",
        ),
        "sgfast.proving": ("Proof",),
        "sgfast.reaching": ("Reach",),
        "sgfast.replaying": ("Reading", "ReplayResult", "replay"),
        "sgfast.snapshot": ("load_snapshot", "save_snapshot"),
        "sgfast.suggesting": ("Suggestion", "suggest"),
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
    "AddAddress",
    "AddGroup",
    "AddInstance",
    "AddMember",
    "AddPeering",
    "AddRule",
    "AddressGroup",
    "AddressGroupPeer",
    "Applied",
    "ArgumentError",
    "ArgumentTypeError",
    "CaptureError",
    "Change",
    "CheckResult",
    "ClusterError",
    "DiffResult",
    "Engine",
    "Explained",
    "Explanation",
    "ExportError",
    "FrameBatch",
    "GroupPeer",
    "Instance",
    "LiveError",
    "ModifyRule",
    "OutputError",
    "Policy",
    "PolicyDiff",
    "PolicyError",
    "Proof",
    "Reach",
    "Reading",
    "ReadingError",
    "RemoveAddress",
    "RemoveGroup",
    "RemoveInstance",
    "RemoveMember",
    "RemovePeering",
    "RemoveRule",
    "ReplayResult",
    "Rule",
    "SecurityGroup",
    "SetAddressGroup",
    "SgfastError",
    "Side",
    "SnapshotError",
    "Suggestion",
    "Table",
    "TableError",
    "Verdict",
    "__version__",
    "diff",
    "export",
    "header",
    "load",
    "load_policy",
    "load_snapshot",
    "parse_policy",
    "policy_from_boto3",
    "replay",
    "save_snapshot",
    "suggest",
    "table",
]
