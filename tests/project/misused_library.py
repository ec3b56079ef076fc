"""A program that misuses the library, and does not run. mypy must refuse each line that ends with a code of its errors,
and no other line (SPEC 14.8).
"""

from __future__ import annotations

import sgfast
from sgfast import types
from sgfast.report.captures import PcapngWriter

policy = sgfast.load("policy.yaml")
engine = sgfast.Engine(policy)

# These can only be read.
engine.policy = policy  # misc
engine.mode = "causal"  # misc
engine.midstream = "infer"  # misc
engine.vpc = "prod"  # misc
policy.instances = ()  # misc
policy.group_by_name["web"] = sgfast.SecurityGroup("web")  # index
policy.vpc_by_name.clear()  # attr-defined

# There are no such words.
sgfast.Engine(policy, mode="casual")  # arg-type
policy.replay("monday.pcap", midstream="infr")  # arg-type
sgfast.Rule("web-http", "inbond", 4)  # arg-type
policy.export("azure")  # arg-type
sgfast.load("policy.yaml", format="azure")  # arg-type
policy.check(accept_evidence=["clock"])  # list-item
sgfast.ReadOptions(decap=["vxlam"])  # list-item
types.Settings(profile="azure")  # arg-type
PcapngWriter(print, ["drop"])  # list-item
result = policy.replay("monday.pcap")
print(result.connections["open"])  # index

# A verdict is neither true nor false, and an explanation is always true.
verdict = engine.check("web-1", "db-1", "tcp", dport=5432)
if engine.check("web-1", "db-1", "tcp", dport=80):  # truthy-bool
    engine.vpc = "prod"  # misc
else:
    engine.vpc = "prod"  # misc
while verdict:  # truthy-bool
    engine.vpc = "prod"  # misc
print(not verdict)  # truthy-bool
print(verdict and "allowed")  # truthy-bool
print("allowed" if verdict else "denied")  # truthy-bool
if policy.explain("web-1", "db-1", "tcp/5432"):  # truthy-bool
    engine.vpc = "prod"  # misc
assert verdict  # truthy-bool
engine.vpc = "prod"  # misc
