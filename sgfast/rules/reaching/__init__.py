"""Questions about a policy that need no traffic: about one packet, or about all that open connections (SPEC 12).

    source, database = named_end(policy, "web"), named_end(policy, "db-1")
    first_contradiction(policy, source, database, named_service("tcp/5432"), "allow")   None: all packets are allowed

    explaining     why one packet is allowed or denied
    proving        whether a policy meets the expectations of a file
    services       services as users write them
    ends           instances, groups and addresses as users name them
    nodes          sets of addresses that nothing distinguishes
    relation       the services that rules allow from node to node
    question       all nodes and relations for a question
    contradiction  one packet that gets another verdict than expected
    names          sets of nodes as groups, instances and networks
    rows           rows that state who may open what to whom
    difference     connections that one policy allows and another does not
    tables         these answers as tables for pandas, polars and DuckDB
"""

from sgfast.base.lazy import on_demand

# Programs import these names from the package (SPEC 12).
__getattr__, __dir__ = on_demand(__name__)
