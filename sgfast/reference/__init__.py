"""The spec as plain, slow, obvious Python: the oracle that the fast engine is checked against, packet by packet.

Each module is one part of the spec, and this is the order to read them in:

1. ``verdicts``: the words it answers with;
2. ``link`` and ``packets``: reading a frame, without deciding anything;
3. ``flows``: naming a connection;
4. ``tcp``: the TCP table;
5. ``table``: what is remembered of connections, and the case that is judged; ``clock`` and ``addresses``;
6. ``fragments``: datagrams that came in pieces;
7. ``engine``: ``ReferenceEngine``, which puts it all together.

It shares nothing with the engine but the policy's values (``sgfast.policy.model``) and changes of them.
"""
