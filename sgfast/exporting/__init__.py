"""Export of policies to clouds and firewalls (SPEC 13).

``changes`` lists what has to be added and removed, in order; ``expressible`` rewrites rules into those that a target
has. Each target has a module of its own, which turns changes into texts; ``nftables`` makes its tables of policies
instead. Nothing here runs anything.
"""
