"""Export of policies to clouds and firewalls (SPEC 13).

``changes`` says what has to be made and taken, in which order; ``expressible`` rewrites rules into what a target can
say. Each target has a module of its own, which turns changes into texts; ``nftables`` makes its tables of policies
instead. Nothing here runs anything.
"""
