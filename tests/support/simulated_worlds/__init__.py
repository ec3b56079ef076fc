"""Accounts with known traffic, the flow logs that they would write, and a judge of what sgfast says about these.

Written from the contract (docs/spec.md) and from what clouds and Zeek document, never from the code that reads logs.
``python -m simulated_worlds`` runs many worlds; each is made from its seed alone.
"""
