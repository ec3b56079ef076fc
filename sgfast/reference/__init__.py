"""The spec as plain, slow, obvious Python. The tests compare the fast engine with it, packet by packet.

Each module implements one part of the spec. Read them in this order:

1. ``verdicts``: the results;
2. ``link`` and ``packets``: parse frames, without judging;
3. ``flows``: the key of a connection;
4. ``tcp``: the TCP table;
5. ``table``: the connection table, and a packet's judgement in progress; ``clock`` and ``addresses``;
6. ``fragments``: fragmented datagrams;
7. ``engine``: ``ReferenceEngine``, which joins the parts.

The model shares only the policy model (``sgfast.policy.model``) and the policy changes with the engine.
"""
