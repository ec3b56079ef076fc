"""The spec as plain, slow, obvious Python. The tests compare the fast engine with it, packet by packet.

Each module is one part of the spec. Read them in this order:

1. ``verdicts``: the answers;
2. ``link`` and ``packets``: read a frame and decide nothing;
3. ``flows``: the key of a connection;
4. ``tcp``: the TCP table;
5. ``table``: the connection table, and the packet being judged; ``clock`` and ``addresses``;
6. ``fragments``: fragmented datagrams;
7. ``engine``: ``ReferenceEngine``, which joins the parts.

It shares only the policy model (``sgfast.policy.model``) and the policy changes with the engine.
"""
