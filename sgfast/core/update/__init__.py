"""Applying policy changes to connections."""
