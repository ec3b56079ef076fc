"""Packets as records that another process judges."""
