"""Byte streams of captures and flow logs: files, standard input and URLs, decompressed while they are read."""
