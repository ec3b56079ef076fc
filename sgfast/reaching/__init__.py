"""Exact answers about all packets that open connections, without any traffic (SPEC 12).

    source = named_end(policy, "web")
    database = named_end(policy, "db-1")
    first_contradiction(policy, source, database, named_service("tcp/5432"), "allow")   None: all of them are allowed

    ranges         sets of numbers as ranges
    services       services as users write them
    ends           instances, groups and addresses as users name them
    nodes          addresses that nothing distinguishes
    relation       the services that rules allow from node to node
    question       all nodes and relations for a question
    contradiction  one packet that gets another verdict than expected
    names          sets of nodes as groups, instances and networks
    rows           who may open what to whom, in few rows
    difference     what one policy allows and another one does not
"""

from __future__ import annotations

from sgfast.reaching.contradiction import Opener, first_contradiction
from sgfast.reaching.difference import Difference, difference
from sgfast.reaching.ends import ANY, End, named_end
from sgfast.reaching.names import Part
from sgfast.reaching.rows import Decider, Reach, Row, reach
from sgfast.reaching.services import ServiceSet, named_service

__all__ = [
    "ANY", "Decider", "Difference", "End", "Opener", "Part", "Reach", "Row", "ServiceSet", "difference",
    "first_contradiction", "named_end", "named_service", "reach",
]  # fmt: skip
