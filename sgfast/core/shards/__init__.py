"""Packets as records for another process to judge."""
