"""Cloud security groups as a packet-matching engine: what would these rules do to this traffic?

    import sgfast

    policy = sgfast.load("policy.yaml")     # or a cloud's export, a text, or plain values

Ask the policy. Ends are instances, groups, addresses, networks, ``internet`` or ``any``. ``print`` shows an answer as
the command of the same name does, and the answer's attributes hold its data.

    print(policy.explain("web-1", "db-1", "tcp/5432"))      # why one packet is allowed or denied
    print(policy.reach(destination="db"))                   # who may open what to whom
    print(policy.test("expectations.yaml"))                 # whether it does what it should, proved for all packets
    print(policy.check())                                   # which of its rules are redundant, useless or dangerous
    print(policy.diff("proposed.yaml"))                     # what another policy opens and closes
    print(policy.diff("proposed.yaml", "monday.pcap"))      # also what another policy changes for this traffic
    print(policy.replay("monday.pcap"))                     # what would break in this traffic, and why
    print(policy.export("aws"))                             # the script that puts the policy into force
    print(sgfast.suggest("monday.pcap").text)               # the fewest rules that this traffic needs

Embed the engine. It tracks connections, and its policy can change between two packets.

    engine = sgfast.Engine(policy)
    print(engine.check("web-1", "db-1", "tcp", sport=40000, dport=5432, time=0.0).allowed)
    engine.apply({"remove_member": {"group": "web", "instance": "web-1"}}, now_ns=10**9)

The package has these names. ``help(sgfast.Engine)`` explains one of them, and docs/python.md has examples that run.
Each name is imported when it is first used.

- ``load``: makes a policy from a path, a text or plain values.
- ``load_policy``, ``parse_policy``: make a policy from a path only, and from a text only.
- ``policy_from_boto3``: makes a policy from an AWS account.
- ``Policy``: the result of these functions. Its methods answer questions about the policy.
- ``SecurityGroup``, ``Rule``, ``GroupPeer``, ``AddressGroupPeer``, ``AddressGroup``, ``Instance``: parts of a policy.
- ``replay``, ``diff``, ``export``: the methods as functions. They take any source that ``load`` takes.
- ``suggest``: the fewest rules that captured traffic needs.
- ``Reading``: how captures are read, and which of their packets.
- ``Explained``, ``Reach``, ``Proof``, ``CheckResult``, ``PolicyDiff``, ``ReplayResult``, ``Suggestion``: the answers.
- ``DiffResult``: the part of a ``PolicyDiff`` that is about captures.
- ``Table``: rows of an answer for pandas, polars, DuckDB and pyarrow. ``table``: an engine's results as a ``Table``.
- ``Engine``: the filter itself. It judges packets one after another.
- ``Verdict``, ``Side``, ``Explanation``, ``Applied``: results of the engine's methods.
- ``ConnectionEvent``: what happened to a connection while an engine judged.
- ``header``: makes one packet as a row. ``FrameBatch``: many frames at once.
- ``HEADER_DTYPE``, ``RESULT_DTYPE``, ``RESOLVED_DTYPE``: the NumPy types of rows.
- ``VERDICTS``, ``REASONS``, ``PENDING``, ``NO_SIDE``: the meaning of the numbers in rows.
- ``save_snapshot``, ``load_snapshot``: save an engine's state as a file, and load it.
- ``Change``: a change of the policy. The changes are
  ``AddGroup``, ``RemoveGroup``, ``AddRule``, ``ModifyRule``, ``RemoveRule``, ``AddInstance``, ``RemoveInstance``,
  ``AddMember``, ``RemoveMember``, ``AddAddress``, ``RemoveAddress``, ``AddPeering``, ``RemovePeering``,
  ``SetAddressGroup``.
- ``SgfastError``: the base of all errors that sgfast raises on purpose. Its text is one line: place, cause, remedy.
- ``PolicyError``: a policy that cannot be used. ``errors`` has the errors of a document, each with its line.
- ``CaptureError``, ``SnapshotError``, ``OutputError``: a file that cannot be read or written.
- ``ArgumentError``, ``ArgumentTypeError``, ``ReadingError``: an argument with an impossible value or type.
- ``ClusterError``, ``ExportError``, ``LiveError``, ``TableError``: a cluster, export, account or table that fails.
- ``__version__``: the version of sgfast.
"""

from sgfast.lazy import on_demand
from sgfast.version import __version__ as __version__

# Nothing else is imported here, because the command cannot be interrupted cleanly during the import.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from sgfast.answers import CheckResult, PolicyDiff
    from sgfast.api import (
        Policy,
        diff,
        export,
        load,
        load_policy,
        parse_policy,
        replay,
    )
    from sgfast.comparing import DiffResult
    from sgfast.connection_events import ConnectionEvent
    from sgfast.engine import (
        HEADER_DTYPE,
        NO_SIDE,
        PENDING,
        REASONS,
        RESOLVED_DTYPE,
        RESULT_DTYPE,
        VERDICTS,
        Engine,
        FrameBatch,
        header,
        table,
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
    from sgfast.importing.live_aws import policy_from_boto3
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
    from sgfast.policy.model import AddressGroup, AddressGroupPeer, GroupPeer, Instance, Rule, SecurityGroup
    from sgfast.reaching.explaining import Explained
    from sgfast.reaching.proving import Proof
    from sgfast.reaching.rows import Reach
    from sgfast.replaying import Reading, ReplayResult
    from sgfast.snapshot import load_snapshot, save_snapshot
    from sgfast.suggesting import Suggestion, suggest
    from sgfast.tables import Table
    from sgfast.verdicts import Applied, Explanation, Side, Verdict

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
        "ConnectionEvent",
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

# By module: names that are imported when they are first used. Importing numpy alone takes over a tenth of a second,
# which `sgfast --help` should not need.
_HOMES = {
    "sgfast.answers": ("CheckResult", "PolicyDiff"),
    "sgfast.api": (
        "Policy", "diff", "export", "load", "load_policy", "parse_policy", "replay",
    ),
    "sgfast.comparing": ("DiffResult",),
    "sgfast.connection_events": ("ConnectionEvent",),
    "sgfast.engine": (
        "HEADER_DTYPE", "NO_SIDE", "PENDING", "REASONS", "RESOLVED_DTYPE", "RESULT_DTYPE", "VERDICTS", "Engine",
        "FrameBatch", "header", "table",
    ),
    "sgfast.errors": (
        "ArgumentError", "ArgumentTypeError", "CaptureError", "ClusterError", "ExportError", "LiveError",
        "OutputError", "PolicyError", "ReadingError", "SgfastError", "SnapshotError", "TableError",
    ),
    "sgfast.reaching.explaining": ("Explained",),
    "sgfast.importing.live_aws": ("policy_from_boto3",),
    "sgfast.policy.changes": (
        "AddAddress", "AddGroup", "AddInstance", "AddMember", "AddPeering", "AddRule", "Change", "ModifyRule",
        "RemoveAddress", "RemoveGroup", "RemoveInstance", "RemoveMember", "RemovePeering", "RemoveRule",
        "SetAddressGroup",
    ),
    "sgfast.policy.model": (
        "AddressGroup", "AddressGroupPeer", "GroupPeer", "Instance", "Rule", "SecurityGroup",
    ),
    "sgfast.reaching.proving": ("Proof",),
    "sgfast.reaching.rows": ("Reach",),
    "sgfast.replaying": ("Reading", "ReplayResult"),
    "sgfast.snapshot": ("load_snapshot", "save_snapshot"),
    "sgfast.suggesting": ("Suggestion", "suggest"),
    "sgfast.tables": ("Table",),
    "sgfast.verdicts": ("Applied", "Explanation", "Side", "Verdict"),
}  # fmt: skip
if not TYPE_CHECKING:        # with a __getattr__, a type checker would accept any name
    __getattr__ = on_demand(__name__, _HOMES, first="sgfast.api")     # only this import gives policies their methods


def __dir__() -> list[str]:
    return sorted(["__version__", *(name for names in _HOMES.values() for name in names)])
