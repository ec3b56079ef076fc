"""Questions about a policy that need no traffic: about one packet, or about all that open connections (SPEC 12).

    source, database = named_end(policy, "web"), named_end(policy, "db-1")
    first_contradiction(policy, source, database, named_service("tcp/5432"), "allow")   None: all of them are allowed

    explaining     why one packet is allowed or denied
    proving        whether a policy does what an expectations file means
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
