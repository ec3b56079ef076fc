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
    print(engine.check("web-1", "db-1", "tcp", sport=40000, dport=5432, time_ns=0).allowed)
    engine.apply({"remove_member": {"group": "web", "instance": "web-1"}}, now_ns=10**9)

The package has these names. ``help(sgfast.Engine)`` explains one of them, and docs/python.md has examples that run.
Each name is imported when it is first used.

- ``load``: makes a policy from a path, a text or plain values.
- ``policy_from_boto3``: makes a policy from an AWS account.
- ``Policy``: the result of these functions. Its methods answer questions about the policy.
- ``SecurityGroup``, ``Rule``, ``GroupPeer``, ``AddressGroupPeer``, ``AddressGroup``, ``Instance``: parts of a policy.
- ``replay``, ``diff``, ``export``: the methods as functions. They take any source that ``load`` takes.
- ``suggest``: the fewest rules that captured traffic needs.
- ``ReadOptions``: how captures are read, and which of their packets.
- ``Explanation``, ``ReachResult``, ``ExpectationsResult``, ``CheckResult``, ``DiffResult``, ``ReplayResult``,
  ``Suggestion``: the answers. ``TrafficDiff``: the part of a ``DiffResult`` that is about captures.
- ``Table``: rows of an answer for pandas, polars, DuckDB and pyarrow. ``table``: an engine's results as a ``Table``.
- ``Engine``: the filter itself. It judges packets one after another.
- ``Verdict``, ``Side``, ``ApplyResult``: results of the engine's methods.
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

from sgfast.base.lazy import on_demand
from sgfast.version import __version__ as __version__

# Nothing else is imported here: importing numpy alone takes over a tenth of a second, which `sgfast --help` should not
# need, and the command cannot be interrupted cleanly during the import. Only sgfast.api gives policies their methods.
__getattr__, __dir__ = on_demand(__name__, first="sgfast.api")
