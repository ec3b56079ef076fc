"""Export of policies to clouds and firewalls (SPEC 13).

``delta`` lists the groups, rules and memberships to add and to remove, in order. ``expressible`` rewrites rules into
rules that a target supports. Each target has a module ``export``, which converts a delta into texts. ``nftables``
converts whole policies instead. No module here runs a command or makes a call.
"""
