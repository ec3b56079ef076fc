"""Expectations files: compare them with a replay, write them from captures, and write the output of ``sgfast test``.

``policy/expectations.py`` reads the files, and ``rules/reaching/proving.py`` proves them for all packets.
"""
