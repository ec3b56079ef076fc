"""Expectations files beside what happens: in captures (``replays``), as a first file (``first``), as text (``texts``).

``policy/expectations.py`` reads the files, and ``proving.py`` proves them for all packets.
"""
