"""Expectations files: compared with a replay, written from captures, and the output of ``sgfast test``.

``policy/expectations.py`` reads the files, and ``proving.py`` proves them for all packets.
"""
